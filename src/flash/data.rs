//! File bytes: where appended ones go, and reading them back.
//!
//! Small dirty bytes ride in the journal group of their record, one write for
//! both. Everything else goes to an open data segment at once; clean and dirty
//! bytes to different ones, because they die at different times.

use super::log::Written;
use super::state::State;
use crate::base::limits::BLOCK;
use crate::base::{Errno, Location, Lsn, Slice};
use crate::store::Appended;
use crate::store::segment::{HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::store::space::{Need, Role};
use crate::world::World;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Dirty bytes shorter than this ride in the journal.
const RIDE_MAX: usize = 32 << 10;

/// The open data segments and the bytes on their way to flash.
#[derive(Default)]
pub(super) struct Data {
    clean: Option<Tail>,
    dirty: Option<Tail>,
    writing: BTreeMap<Location, Writing>,
    writing_bytes: usize,
}

#[derive(Clone, Copy)]
struct Tail {
    segment: u32,
    filled: u32,
}

struct Writing {
    bytes: Slice,
    /// `None`: rides in a journal group.
    write: Option<Written>,
}

impl Data {
    /// The write that puts a piece on flash, while it is in flight.
    pub fn write_of(&self, at: Location) -> Option<Written> {
        self.writing.get(&at).and_then(|w| w.write.clone())
    }

    pub fn writing_bytes(&self) -> usize {
        self.writing_bytes
    }

    /// These pieces are on flash now, and are read from there.
    pub fn on_written(&mut self, places: &[Location]) {
        for at in places {
            if let Some(w) = self.writing.remove(at)
                && w.write.is_some()
            {
                self.writing_bytes -= w.bytes.len();
            }
        }
    }

    fn add(&mut self, at: Location, bytes: Slice, write: Option<Written>) {
        if write.is_some() {
            self.writing_bytes += bytes.len();
        }
        self.writing.insert(at, Writing { bytes, write });
    }

    /// Bytes of a piece that are still in memory.
    fn find(&self, piece: &Appended, range: &Range<u32>) -> Option<Slice> {
        let w = self.writing.get(&piece.at)?;
        let end = range.end as usize;
        (end <= w.bytes.len()).then(|| w.bytes.part(range.start as usize..end))
    }

    fn tail(&mut self, dirty: bool) -> &mut Option<Tail> {
        if dirty {
            &mut self.dirty
        } else {
            &mut self.clean
        }
    }
}

impl<W: World> State<W> {
    pub fn append(self: &Rc<Self>, bytes: &Slice, need: Need) -> Result<Vec<Appended>, Errno> {
        if self.fenced.get() || self.closing.get() {
            return Err(Errno::EIO);
        }
        if need != Need::Clean && bytes.len() < RIDE_MAX {
            return self.append_riding(bytes, need);
        }
        let mut pieces: Vec<Appended> = Vec::new();
        let mut from = 0;
        while from < bytes.len() {
            match self.append_piece(bytes, from, need) {
                Ok(piece) => {
                    from += piece.len as usize;
                    pieces.push(piece);
                }
                Err(errno) => {
                    let mut space = self.space.borrow_mut();
                    pieces.iter().for_each(|p| space.on_discarded(p.at, p.len));
                    drop(space);
                    self.prove();
                    return Err(errno);
                }
            }
        }
        Ok(pieces)
    }

    fn append_riding(self: &Rc<Self>, bytes: &Slice, need: Need) -> Result<Vec<Appended>, Errno> {
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let parts = self.padded(bytes);
        let at = self.ride(parts, bytes.len().next_multiple_of(BLOCK), need)?;
        let piece = piece_of(bytes, at);
        let now = self.world.now();
        self.space.borrow_mut().on_appended(at, piece.len, now);
        self.data.borrow_mut().add(at, bytes.clone(), None);
        Ok(vec![piece])
    }

    /// Puts as much of `bytes[from..]` into the open segment as it takes.
    fn append_piece(
        self: &Rc<Self>,
        bytes: &Slice,
        from: usize,
        need: Need,
    ) -> Result<Appended, Errno> {
        let dirty = need != Need::Clean;
        let tail = self.tail_with_room(need)?;
        let room = (self.segment_bytes() - tail.filled) as usize;
        let part = bytes.part(from..from + room.min(bytes.len() - from));
        let at = Location {
            segment: tail.segment,
            offset: tail.filled,
        };
        let piece = piece_of(&part, at);
        let now = self.world.now();
        self.space.borrow_mut().on_appended(at, piece.len, now);
        let mut parts = self.padded(&part);
        let mut begin = tail.filled;
        if begin == HEADER_BYTES {
            parts.insert(
                0,
                Slice::from(self.data_header(tail.segment, dirty).encode()),
            );
            begin = 0;
        }
        let filled = tail.filled + piece.len.next_multiple_of(HEADER_BYTES);
        let is_full = filled >= self.segment_bytes();
        *self.data.borrow_mut().tail(dirty) = (!is_full).then_some(Tail { filled, ..tail });
        if is_full {
            let mut space = self.space.borrow_mut();
            space.set_written(tail.segment);
            space.seal(tail.segment, Lsn(0));
        }
        self.start_write(at, begin, part, parts);
        Ok(piece)
    }

    fn start_write(self: &Rc<Self>, at: Location, begin: u32, bytes: Slice, parts: Vec<Slice>) {
        let done = Written::default();
        self.data.borrow_mut().add(at, bytes, Some(done.clone()));
        let state = Rc::clone(self);
        self.world.spawn(async move {
            let result = match state.place(at.segment, begin) {
                Ok(offset) => state.device.write(offset, parts, false).await,
                Err(errno) => Err(errno),
            };
            match result {
                Ok(()) => state.data.borrow_mut().on_written(&[at]),
                // The bytes stay in memory, where they can still be read.
                Err(errno) => state.fence("data", errno),
            }
            done.set(result);
            state.progress.notify();
        });
    }

    /// The open segment, or a new one where there is none or no room in it.
    fn tail_with_room(self: &Rc<Self>, need: Need) -> Result<Tail, Errno> {
        let dirty = need != Need::Clean;
        let now = *self.data.borrow_mut().tail(dirty);
        if let Some(tail) = now {
            return Ok(tail);
        }
        self.reap();
        let segment = self.space.borrow_mut().allocate(need, Role::Open);
        let tail = Tail {
            segment: segment.ok_or(Errno::ENOSPC)?,
            filled: HEADER_BYTES,
        };
        *self.data.borrow_mut().tail(dirty) = Some(tail);
        Ok(tail)
    }

    /// The bytes as parts of whole blocks; copied only where they must be.
    fn padded(&self, bytes: &Slice) -> Vec<Slice> {
        let whole = bytes.len() / BLOCK * BLOCK;
        let is_aligned = bytes.as_ptr().addr().is_multiple_of(BLOCK);
        let direct = if is_aligned { whole } else { 0 };
        let mut parts = Vec::with_capacity(2);
        if direct > 0 {
            parts.push(bytes.part(0..direct));
        }
        if direct < bytes.len() {
            let rest = &bytes[direct..];
            let mut buf = self.world.pool().take(rest.len().next_multiple_of(BLOCK));
            buf[..rest.len()].copy_from_slice(rest);
            buf[rest.len()..].fill(0);
            parts.push(buf.freeze());
        }
        parts
    }

    fn data_header(&self, segment: u32, dirty: bool) -> SegmentHeader {
        SegmentHeader {
            kind: if dirty {
                SegmentKind::DataDirty
            } else {
                SegmentKind::DataClean
            },
            ..self.journal_header(segment, 0, Lsn(0), 0)
        }
    }

    pub async fn read(
        self: &Rc<Self>,
        piece: &Appended,
        range: Range<u32>,
    ) -> Result<Slice, Errno> {
        if range.start > range.end || range.end > piece.len {
            return Err(Errno::EINVAL);
        }
        if let Some(bytes) = self.data.borrow().find(piece, &range) {
            return Ok(bytes);
        }
        let pin = Pin::new(Rc::clone(self), piece.at.segment);
        let result = self.read_flash(piece, range).await;
        drop(pin);
        result
    }

    async fn read_flash(&self, piece: &Appended, range: Range<u32>) -> Result<Slice, Errno> {
        let block = HEADER_BYTES;
        // Checksums count from the start of the piece, device blocks from the segment's.
        let from = range.start / block * block;
        let to = range.end.next_multiple_of(block).min(piece.len);
        let first = piece.at.offset.checked_add(from).ok_or(Errno::EIO)?;
        let end = piece.at.offset.checked_add(to).ok_or(Errno::EIO)?;
        if end > self.segment_bytes() {
            return Err(Errno::EIO);
        }
        let begin = first / block * block;
        let len = (end.next_multiple_of(block) - begin) as usize;
        let buf = self.world.pool().take(len);
        let (result, buf) = self
            .device
            .read(self.place(piece.at.segment, begin)?, buf)
            .await;
        if let Err(errno) = result {
            self.log_bad(piece, &errno.to_string());
            return Err(errno);
        }
        let lead = (first - begin) as usize;
        let span = buf.freeze().part(lead..lead + (to - from) as usize);
        if !piece.verifies(from, &span) {
            self.log_bad(piece, "wrong checksum");
            return Err(Errno::EIO);
        }
        Ok(span.part((range.start - from) as usize..(range.end - from) as usize))
    }

    /// Are the bytes of a piece on flash what its record says?
    pub async fn is_whole(self: &Rc<Self>, piece: &Appended) -> bool {
        self.read_flash(piece, 0..piece.len).await.is_ok()
    }

    fn log_bad(&self, piece: &Appended, why: &str) {
        let line = format!(
            "flash of shard {}: {} bytes in segment {} at {} are lost: {why}",
            self.shard, piece.len, piece.at.segment, piece.at.offset
        );
        self.note_damage(&line);
    }
}

/// Keeps a segment from being used again while it is read.
struct Pin<W: World>(Rc<State<W>>, u32);

impl<W: World> Pin<W> {
    fn new(state: Rc<State<W>>, segment: u32) -> Pin<W> {
        state.space.borrow_mut().pin(segment);
        Pin(state, segment)
    }
}

impl<W: World> Drop for Pin<W> {
    fn drop(&mut self) {
        self.0.space.borrow_mut().unpin(self.1);
    }
}

fn piece_of(bytes: &Slice, at: Location) -> Appended {
    Appended {
        at,
        len: u32::try_from(bytes.len()).expect("at most a segment"),
        crcs: bytes.chunks(BLOCK).map(crc32c::crc32c).collect(),
    }
}
