//! The extent map of one file: for each range the flash that caches it, or the
//! mark that it is a hole; ranges without either are absent (F7).
//!
//! Ranges are byte-granular, so that a small write to a cold file needs no byte
//! of the origin. A piece is what one append put on flash; an extent refers to a
//! part of a piece, and keeps the checksums of the whole piece when a write
//! splits it, because the checksums are counted from the piece's first byte.

use crate::base::codec::{Codec, DecodeError, Reader, Writer};
use crate::base::limits::{BLOCK, FILE_SIZE_MAX};
use crate::base::{Location, SnapEpoch};
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Peekable;
use std::ops::Range;
use std::rc::Rc;

/// Longest piece, in bytes. A write that splits an extent copies its checksums
/// into both remains; 256 KiB keeps that at 256 bytes each.
pub const PIECE_MAX: u32 = 256 << 10;

const BLOCK_U64: u64 = BLOCK as u64;

/// Bytes on flash with a CRC32C for each block, counted from the first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub at: Location,
    pub len: u32,
    pub crcs: Vec<u32>,
}

/// What one range of a file is, if it is not absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Above zero.
    pub len: u64,
    /// The cut that the range belongs to (F12).
    pub epoch: SnapEpoch,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The piece's bytes from `skip` on; `dirty` while the origin lacks them.
    Bytes {
        piece: Rc<Piece>,
        skip: u32,
        dirty: bool,
    },
    /// Zeros, whatever the origin holds; `owed` while the origin may hold more.
    Hole { owed: bool },
}

impl Extent {
    /// All of a piece.
    #[must_use]
    pub fn bytes(piece: Piece, dirty: bool, epoch: SnapEpoch) -> Extent {
        Extent {
            len: u64::from(piece.len),
            epoch,
            content: Content::Bytes {
                piece: Rc::new(piece),
                skip: 0,
                dirty,
            },
        }
    }

    #[must_use]
    pub fn hole(len: u64, owed: bool, epoch: SnapEpoch) -> Extent {
        Extent {
            len,
            epoch,
            content: Content::Hole { owed },
        }
    }

    /// Does the origin lack this?
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        match self.content {
            Content::Bytes { dirty, .. } => dirty,
            Content::Hole { owed } => owed,
        }
    }

    #[must_use]
    pub fn is_hole(&self) -> bool {
        matches!(self.content, Content::Hole { .. })
    }

    /// Where its first byte lies on flash.
    #[must_use]
    pub fn location(&self) -> Option<Location> {
        match &self.content {
            Content::Bytes { piece, skip, .. } => Some(Location {
                segment: piece.at.segment,
                offset: piece.at.offset + skip,
            }),
            Content::Hole { .. } => None,
        }
    }

    fn dirty_bytes(&self) -> u64 {
        if self.is_dirty() && !self.is_hole() {
            self.len
        } else {
            0
        }
    }

    /// The part of it from `from` to `to`, counted from its start.
    fn part(&self, from: u64, to: u64) -> Extent {
        let mut out = self.clone();
        out.len = to - from;
        if let Content::Bytes { skip, .. } = &mut out.content {
            *skip += narrow(from);
        }
        out
    }

    fn cleaned(mut self) -> Extent {
        match &mut self.content {
            Content::Bytes { dirty, .. } => *dirty = false,
            Content::Hole { owed } => *owed = false,
        }
        self
    }

    /// Both as one, where `next` follows it in the file and one record can say
    /// it. Pieces are never joined, adjacent as they may be on flash: until both
    /// are written, the store finds their bytes by the places it gave out.
    fn joined(&self, next: &Extent) -> Option<Extent> {
        if self.epoch != next.epoch || self.is_dirty() != next.is_dirty() {
            return None;
        }
        let mut out = self.clone();
        out.len += next.len;
        match (&self.content, &next.content) {
            (Content::Hole { .. }, Content::Hole { .. }) => Some(out),
            (
                Content::Bytes {
                    piece: a, skip: s, ..
                },
                Content::Bytes {
                    piece: b, skip: t, ..
                },
            ) if Rc::ptr_eq(a, b) && u64::from(*s) + self.len == u64::from(*t) => Some(out),
            _ => None,
        }
    }
}

/// The byte form, under `namespace::key::extent`:
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 8 | length |
/// | 8 | 4 | snapshot epoch |
/// | 12 | 1 | 0 hole, 1 hole owed, 2 clean bytes, 3 dirty bytes |
/// | 13 | 8 | bytes: segment and offset of the piece |
/// | 21 | 4 | bytes: length of the piece |
/// | 25 | 4 | bytes: where in the piece the extent begins |
/// | 29 | 4 + 4n | bytes: the piece's CRC32C, one for each block |
///
/// The length comes first because holes need nothing after the kind; the
/// checksums come last because they alone vary in size.
impl Codec for Extent {
    fn encode(&self, w: &mut Writer) {
        self.len.encode(w);
        self.epoch.encode(w);
        match &self.content {
            Content::Hole { owed } => u8::from(*owed).encode(w),
            Content::Bytes { piece, skip, dirty } => {
                (2 + u8::from(*dirty)).encode(w);
                piece.at.encode(w);
                piece.len.encode(w);
                skip.encode(w);
                piece.crcs.encode(w);
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Extent, DecodeError> {
        let len = u64::decode(r)?;
        let epoch = SnapEpoch::decode(r)?;
        let kind = u8::decode(r)?;
        if len == 0 || len > FILE_SIZE_MAX {
            return Err(r.fault("length of an extent"));
        }
        let content = match kind {
            0 | 1 => Content::Hole { owed: kind == 1 },
            2 | 3 => {
                let (at, piece_len) = (Location::decode(r)?, u32::decode(r)?);
                let skip = u32::decode(r)?;
                let crcs = Vec::<u32>::decode(r)?;
                if crcs.len() != (piece_len as usize).div_ceil(BLOCK)
                    || u64::from(skip) + len > u64::from(piece_len)
                    || at.offset.checked_add(piece_len).is_none()
                {
                    return Err(r.fault("extent leaves its piece"));
                }
                let (len, dirty) = (piece_len, kind == 3);
                let piece = Rc::new(Piece { at, len, crcs });
                Content::Bytes { piece, skip, dirty }
            }
            _ => return Err(r.fault("unknown kind of extent")),
        };
        Ok(Extent {
            len,
            epoch,
            content,
        })
    }
}

/// One answer of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub range: Range<u64>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The bytes `at` of the piece; of it the extent refers to `part`.
    Bytes {
        piece: Rc<Piece>,
        at: Range<u32>,
        part: Range<u32>,
        dirty: bool,
    },
    Hole,
    Absent,
}

/// What an operation did to the map, as changes of the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Extents to write, by offset in the file.
    pub puts: Vec<(u64, Extent)>,
    /// Offsets whose extent is gone.
    pub deletes: Vec<u64>,
    /// Flash that now holds the extent at that offset (summary records).
    pub placed: Vec<(Location, u64)>,
    /// Flash at which no extent begins any more.
    pub unplaced: Vec<Location>,
    /// Flash that nothing refers to any more.
    pub freed: Vec<(Location, u32)>,
}

/// The extents of one file, without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtentMap {
    extents: BTreeMap<u64, Extent>,
    dirty_bytes: u64,
}

/// The extents that an operation touched, as they were before it.
#[derive(Default)]
struct Edit {
    before: BTreeMap<u64, Option<Extent>>,
    freed: Vec<(Location, u32)>,
}

impl ExtentMap {
    /// Takes in a stored extent; offsets must ascend. The error is what is wrong
    /// with it: stored bytes are not trusted.
    pub fn load(&mut self, offset: u64, extent: Extent) -> Result<(), &'static str> {
        let last = self.extents.last_key_value();
        if last.is_some_and(|(at, e)| at + e.len > offset) {
            return Err("extents overlap");
        }
        if offset
            .checked_add(extent.len)
            .is_none_or(|e| e > FILE_SIZE_MAX)
        {
            return Err("extent past the largest file");
        }
        self.dirty_bytes += extent.dirty_bytes();
        self.extents.insert(offset, extent);
        Ok(())
    }

    /// How many extents there are: the map's size in memory follows it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extents.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Bytes that the origin lacks; holes owed are not counted.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.extents.iter().map(|(at, e)| (*at, e))
    }

    /// From the last extent to the first.
    pub fn iter_back(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.extents.iter().rev().map(|(at, e)| (*at, e))
    }

    /// The extent that begins at `offset`.
    #[must_use]
    pub fn at(&self, offset: u64) -> Option<&Extent> {
        self.extents.get(&offset)
    }

    /// What `range` is, in order and without a gap. What no extent covers is
    /// absent below `origin_size`, and a hole from there on (F7).
    #[must_use]
    pub fn lookup(&self, range: Range<u64>, origin_size: u64) -> Segments<'_> {
        let first = self.overlapping(&range).unwrap_or(range.start);
        let extents = self.extents.range(first..range.end.max(first)).peekable();
        Segments {
            at: range.start,
            end: range.end,
            origin_size,
            extents,
        }
    }

    /// Puts `with` into `range`, one extent after another; they are as long as
    /// the range, or none, which leaves it to the origin.
    pub fn replace(&mut self, range: Range<u64>, with: Vec<Extent>) -> Change {
        let mut edit = Edit::default();
        self.clear(&range, &mut edit);
        let mut at = range.start;
        for extent in with {
            let next = at + extent.len;
            self.set(at, Some(extent), &mut edit);
            at = next;
        }
        debug_assert!(at == range.start || at == range.end, "fills the range");
        self.join_over(&range, &mut edit);
        self.finish(edit)
    }

    /// Makes holes of the bytes and absent parts of `range`. They are owed even
    /// where only the box had bytes: a write-back on its way may carry them.
    pub fn punch(&mut self, range: Range<u64>, origin_size: u64, epoch: SnapEpoch) -> Change {
        let mut filled: Vec<Range<u64>> = Vec::new();
        for segment in self.lookup(range, origin_size) {
            match (segment.what, filled.last_mut()) {
                (What::Hole, _) => {}
                (_, Some(last)) if last.end == segment.range.start => last.end = segment.range.end,
                _ => filled.push(segment.range),
            }
        }
        let mut edit = Edit::default();
        for range in filled {
            self.clear(&range, &mut edit);
            let hole = Extent::hole(range.end - range.start, true, epoch);
            self.set(range.start, Some(hole), &mut edit);
            self.join_over(&range, &mut edit);
        }
        self.finish(edit)
    }

    /// Makes clean holes of what no extent covers in `range`.
    pub fn fill_gaps(&mut self, range: Range<u64>, epoch: SnapEpoch) -> Change {
        // With an origin that reaches past the range, a gap is what is absent.
        let gaps = self.lookup(range.clone(), u64::MAX);
        let gaps: Vec<_> = gaps.filter(|s| s.what == What::Absent).collect();
        let mut edit = Edit::default();
        for Segment { range, .. } in gaps {
            let hole = Extent::hole(range.end - range.start, false, epoch);
            self.set(range.start, Some(hole), &mut edit);
        }
        self.join_over(&range, &mut edit);
        self.finish(edit)
    }

    /// Forgets everything from `size` on. With the origin size lowered to it,
    /// what was there is a hole for ever.
    pub fn truncate(&mut self, size: u64) -> Change {
        self.replace(size..u64::MAX, Vec::new())
    }

    /// Calls what is dirty in `range` clean.
    pub fn mark_clean(&mut self, range: Range<u64>) -> Change {
        let mut edit = Edit::default();
        let first = self.overlapping(&range).unwrap_or(range.start);
        let touched = self.extents.range(first..range.end.max(first));
        let dirty: Vec<_> = touched.filter(|(_, e)| e.is_dirty()).collect();
        let dirty: Vec<_> = dirty.iter().map(|(at, e)| (**at, (*e).clone())).collect();
        for (at, extent) in dirty {
            let from = range.start.max(at) - at;
            let to = (range.end - at).min(extent.len);
            if from > 0 {
                self.set(at, Some(extent.part(0, from)), &mut edit);
            }
            self.set(at + from, Some(extent.part(from, to).cleaned()), &mut edit);
            if to < extent.len {
                self.set(at + to, Some(extent.part(to, extent.len)), &mut edit);
            }
            self.join_over(&(at..at + extent.len), &mut edit);
        }
        self.finish(edit)
    }

    /// How many blocks of `range` (whole blocks) hold anything but holes.
    #[must_use]
    pub fn allocated(&self, range: Range<u64>, origin_size: u64) -> u64 {
        let (mut blocks, mut counted) = (0, range.start / BLOCK_U64);
        for segment in self.lookup(range, origin_size) {
            if segment.what != What::Hole {
                let first = (segment.range.start / BLOCK_U64).max(counted);
                counted = segment.range.end.div_ceil(BLOCK_U64).max(first);
                blocks += counted - first;
            }
        }
        blocks
    }

    /// Where data (or a hole, if `hole`) begins at or after `from` and before
    /// `size`. Absent ranges are data: the origin may have something there.
    #[must_use]
    pub fn seek(&self, from: u64, size: u64, origin_size: u64, hole: bool) -> Option<u64> {
        self.lookup(from..size, origin_size)
            .find(|s| (s.what == What::Hole) == hole)
            .map(|s| s.range.start)
    }

    /// The offset of the extent that begins before `range` and reaches into it.
    fn overlapping(&self, range: &Range<u64>) -> Option<u64> {
        let (at, extent) = self.extents.range(..range.start).next_back()?;
        (at + extent.len > range.start).then_some(*at)
    }

    /// Empties `range`; what is cut keeps its remains.
    fn clear(&mut self, range: &Range<u64>, edit: &mut Edit) {
        if range.is_empty() {
            return;
        }
        let first = self.overlapping(range).unwrap_or(range.start);
        let touched: Vec<u64> = self
            .extents
            .range(first..range.end)
            .map(|(at, _)| *at)
            .collect();
        for at in touched {
            let Some(extent) = self.set(at, None, edit) else {
                continue;
            };
            let from = range.start.max(at) - at;
            let to = (range.end - at).min(extent.len);
            if from > 0 {
                self.set(at, Some(extent.part(0, from)), edit);
            }
            if to < extent.len {
                self.set(at + to, Some(extent.part(to, extent.len)), edit);
            }
            if let Some(location) = extent.part(from, to).location() {
                edit.freed.push((location, narrow(to - from)));
            }
        }
    }

    /// Joins what can be joined from the extent before `range` to the one after.
    fn join_over(&mut self, range: &Range<u64>, edit: &mut Edit) {
        let before = self.extents.range(..range.start).next_back();
        let mut at = before.map_or(range.start, |(at, _)| *at);
        while let Some((&this, extent)) = self.extents.range(at..).next() {
            let end = this + extent.len;
            if this > range.end {
                break;
            }
            let joined = self.extents.get(&end).and_then(|next| extent.joined(next));
            match joined {
                Some(joined) => {
                    self.set(end, None, edit);
                    self.set(this, Some(joined), edit);
                    at = this;
                }
                None => at = end,
            }
        }
    }

    /// Sets or removes the extent at an offset and returns the one before.
    fn set(&mut self, at: u64, extent: Option<Extent>, edit: &mut Edit) -> Option<Extent> {
        self.dirty_bytes += extent.as_ref().map_or(0, Extent::dirty_bytes);
        let old = match extent {
            Some(extent) => self.extents.insert(at, extent),
            None => self.extents.remove(&at),
        };
        self.dirty_bytes -= old.as_ref().map_or(0, Extent::dirty_bytes);
        edit.before.entry(at).or_insert_with(|| old.clone());
        old
    }

    /// The difference between what was before the edit and what is now.
    fn finish(&self, edit: Edit) -> Change {
        let mut change = Change {
            freed: edit.freed,
            ..Change::default()
        };
        let mut left = Vec::new();
        for (at, before) in edit.before {
            let now = self.extents.get(&at);
            if now == before.as_ref() {
                continue;
            }
            let (was, is) = (
                before.as_ref().and_then(Extent::location),
                now.and_then(Extent::location),
            );
            if was != is {
                left.extend(was);
                change.placed.extend(is.map(|location| (location, at)));
            }
            match now {
                Some(extent) => change.puts.push((at, extent.clone())),
                None => change.deletes.push(at),
            }
        }
        // A summary record that another extent overwrites must not be deleted.
        left.retain(|l| change.placed.iter().all(|(placed, _)| placed != l));
        change.unplaced = left;
        change
    }
}

/// Walks a lookup's answer; made by [`ExtentMap::lookup`].
pub struct Segments<'a> {
    at: u64,
    end: u64,
    origin_size: u64,
    extents: Peekable<btree_map::Range<'a, u64, Extent>>,
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.at >= self.end {
            return None;
        }
        let from = self.at;
        let (to, what) = match self.extents.peek() {
            Some(&(&at, extent)) if at <= from => {
                let to = (at + extent.len).min(self.end);
                let what = match &extent.content {
                    Content::Hole { .. } => What::Hole,
                    Content::Bytes { piece, skip, dirty } => What::Bytes {
                        piece: Rc::clone(piece),
                        at: skip + narrow(from - at)..skip + narrow(to - at),
                        part: *skip..skip + narrow(extent.len),
                        dirty: *dirty,
                    },
                };
                self.extents.next();
                (to, what)
            }
            next => {
                let gap = next.map_or(self.end, |&(&at, _)| at.min(self.end));
                if from < self.origin_size {
                    (gap.min(self.origin_size), What::Absent)
                } else {
                    (gap, What::Hole)
                }
            }
        };
        self.at = to;
        Some(Segment {
            range: from..to,
            what,
        })
    }
}

/// A length within a piece.
fn narrow(n: u64) -> u32 {
    u32::try_from(n).expect("parts of a piece are no longer than the piece")
}

#[cfg(test)]
mod tests;
