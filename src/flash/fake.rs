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
    bytes: RefCell<BTreeMap<Location, Slice>>,
    next: Cell<u32>,
    lsn: Cell<u64>,
    transno: Cell<Transno>,
}
impl<W: World> Clone for Flash<W> {
    fn clone(&self) -> Self {
        Flash(Rc::clone(&self.0))
    }
}
impl<W: World> Flash<W> {
    /// Tests only: a flash in memory.
    pub fn in_memory(world: W) -> Flash<W> {
        Flash(Rc::new(State {
            _world: world,
            map: RefCell::default(),
            bytes: RefCell::default(),
            next: Cell::new(0),
            lsn: Cell::new(0),
            transno: Cell::new(Transno(0)),
        }))
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
        let at = Location {
            segment: self.0.next.get(),
            offset: 0,
        };
        self.0.next.set(self.0.next.get() + 1);
        self.0.bytes.borrow_mut().insert(at, bytes.clone());
        let crcs = bytes.chunks(4096).map(crc32c::crc32c).collect();
        Ok(vec![Appended {
            at,
            len: u32::try_from(bytes.len()).expect("at most 1 MiB"),
            crcs,
        }])
    }
    /// Reads and verifies; EIO with a log line when a checksum is wrong.
    pub async fn read(&self, piece: &Appended, range: Range<u32>) -> Result<Slice, Errno> {
        let bytes = self.0.bytes.borrow();
        let all = bytes.get(&piece.at).ok_or(Errno::EIO)?;
        Ok(all.part(range.start as usize..range.end as usize))
    }
    /// Bytes and segments in use, for reclaim and status.
    pub fn usage(&self) -> super::Usage {
        super::Usage::default()
    }
}
