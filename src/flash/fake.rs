//! Stand-in until the store is driven: everything in memory.
use super::{Appended, Peek, Tx};
use crate::base::{Errno, Location, Lsn, Slice, Transno};
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

pub struct Flash<W: World>(Rc<State<W>>);
struct State<W> {
    _world: W,
    map: RefCell<BTreeMap<Vec<u8>, Rc<[u8]>>>,
    segments: RefCell<BTreeMap<u32, Segment>>,
    /// Where appends go.
    open: Cell<u32>,
    /// Segments in all, and bytes in each.
    size: (u32, u32),
    lsn: Cell<u64>,
    transno: Cell<Transno>,
}
#[derive(Default)]
struct Segment {
    bytes: Vec<u8>,
    live: u32,
}
impl<W: World> Clone for Flash<W> {
    fn clone(&self) -> Self {
        Flash(Rc::clone(&self.0))
    }
}
impl<W: World> Flash<W> {
    /// Tests only: a flash in memory.
    pub fn in_memory(world: W) -> Flash<W> {
        Flash::in_memory_of(world, u32::MAX, 8 << 20)
    }
    /// Tests only: one of so many segments of so many bytes.
    pub fn in_memory_of(world: W, segments: u32, segment_bytes: u32) -> Flash<W> {
        Flash(Rc::new(State {
            _world: world,
            map: RefCell::default(),
            segments: RefCell::default(),
            open: Cell::new(0),
            size: (segments, segment_bytes),
            lsn: Cell::new(0),
            transno: Cell::new(Transno(0)),
        }))
    }
    /// Tests only: turns a bit of what lies there.
    pub fn damage(&self, at: Location) {
        let mut segments = self.0.segments.borrow_mut();
        if let Some(segment) = segments.get_mut(&at.segment) {
            segment.bytes[at.offset as usize] ^= 1;
        }
    }
    /// Looks into memory only.
    pub fn peek(&self, key: &[u8]) -> Peek {
        self.0
            .map
            .borrow()
            .get(key)
            .map_or(Peek::Absent, |v| Peek::Found(Rc::clone(v)))
    }
    /// Loads what `peek` lacked.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Rc<[u8]>>, Errno> {
        Ok(self.0.map.borrow().get(key).cloned())
    }
    /// Up to `limit` pairs with `range.start <= key < range.end`, in order.
    pub async fn scan(
        &self,
        range: Range<Vec<u8>>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Rc<[u8]>)>, Errno> {
        let map = self.0.map.borrow();
        Ok(map
            .range(range)
            .take(limit)
            .map(|(k, v)| (k.clone(), Rc::clone(v)))
            .collect())
    }
    /// Applies and queues for the journal. ENOSPC without room, EIO when fenced.
    pub fn apply(&self, mut tx: Tx) -> Result<Lsn, Errno> {
        tx.undo.disarm();
        for (key, value) in std::mem::take(&mut tx.puts) {
            match value {
                Some(v) => self.0.map.borrow_mut().insert(key, v.into()),
                None => self.0.map.borrow_mut().remove(&key),
            };
        }
        let mut segments = self.0.segments.borrow_mut();
        for appended in &tx.data {
            let segment = segments.entry(appended.at.segment).or_default();
            segment.live += appended.len;
        }
        for (at, len) in &tx.freed {
            let segment = segments.entry(at.segment).or_default();
            segment.live -= len;
        }
        let open = self.0.open.get();
        segments.retain(|id, segment| segment.live > 0 || *id == open);
        drop(segments);
        if tx.transno > Transno(0) {
            self.0.transno.set(tx.transno);
        }
        self.0.lsn.set(self.0.lsn.get() + 1);
        Ok(Lsn(self.0.lsn.get()))
    }
    /// Waits until everything up to `lsn` is on flash.
    pub async fn commit(&self, _lsn: Lsn) -> Result<(), Errno> {
        Ok(())
    }
    /// The highest applied, and the highest durable transno.
    pub fn transno(&self) -> Transno {
        self.0.transno.get()
    }
    pub fn last_committed(&self) -> Transno {
        self.0.transno.get()
    }
    /// Reserves flash for `bytes` (≤ 1 MiB) and queues the write; pieces do not
    /// cross a segment. ENOSPC: reclaim must free segments first.
    pub fn append(&self, bytes: &Slice, _dirty: bool) -> Result<Vec<Appended>, Errno> {
        let mut segments = self.0.segments.borrow_mut();
        let (most, size) = self.0.size;
        let open = segments.entry(self.0.open.get()).or_default();
        if open.bytes.len() + bytes.len() > size as usize {
            let free = (0..most).find(|id| !segments.contains_key(id));
            self.0.open.set(free.ok_or(Errno::ENOSPC)?);
        }
        let open = segments.entry(self.0.open.get()).or_default();
        let at = Location {
            segment: self.0.open.get(),
            offset: u32::try_from(open.bytes.len()).expect("within a segment"),
        };
        open.bytes.extend(&bytes[..]);
        open.bytes
            .resize(open.bytes.len().next_multiple_of(4096), 0);
        let crcs = bytes.chunks(4096).map(crc32c::crc32c).collect();
        Ok(vec![Appended {
            at,
            len: u32::try_from(bytes.len()).expect("at most 1 MiB"),
            crcs,
        }])
    }
    /// Reads and verifies; EIO with a log line when a checksum is wrong.
    pub async fn read(&self, piece: &Appended, range: Range<u32>) -> Result<Slice, Errno> {
        let segments = self.0.segments.borrow();
        let segment = segments.get(&piece.at.segment).ok_or(Errno::EIO)?;
        let all = &segment.bytes[piece.at.offset as usize..][..piece.len as usize];
        let crcs: Vec<u32> = all.chunks(4096).map(crc32c::crc32c).collect();
        if crcs != piece.crcs {
            return Err(Errno::EIO);
        }
        Ok(all[range.start as usize..range.end as usize]
            .to_vec()
            .into())
    }
    /// Bytes and segments in use, for reclaim and status.
    pub fn usage(&self) -> super::Usage {
        let (most, size) = self.0.size;
        let segments = self.0.segments.borrow();
        let sealed = segments.iter().filter(|(id, _)| **id != self.0.open.get());
        super::Usage {
            total_bytes: u64::from(most) * u64::from(size),
            free_bytes: (u64::from(most) - segments.len() as u64) * u64::from(size),
            segment_bytes: size,
            sealed: sealed.map(|(id, s)| (*id, s.live)).collect(),
        }
    }
}
