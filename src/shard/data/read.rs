//! Reading: what is in memory is shared, what is on flash is read and checked,
//! holes are zeros, and what is absent is fetched first.
//!
//! A read is planned in one step from the present map. If something must be
//! fetched it waits and plans again, because the map may have changed.

use super::fetch::{self, Fetched};
use super::file::{File, present};
use super::join::join_all;
use super::records::appended_of;
use super::{Shard, Tx, ahead, scrub};
use crate::base::limits::BLOCK;
use crate::base::{Buf, Errno, Fid, Slice};
use crate::cache::{Extent, Piece, What};
use crate::namespace::Inode;
use crate::shard::contact;
use crate::shard::counters::Event;
use crate::world::sync::Promise;
use crate::world::{Level, World};
use std::ops::Range;
use std::rc::Rc;

/// Length of the shared zeros that holes are answered with.
pub(super) const ZEROS: usize = 64 << 10;
/// Plans for one read; each new one means that the file changed under the last.
const PLANS_MAX: usize = 64;

/// Up to `len` bytes at `offset`, short only at end of file (C10).
pub async fn read<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    offset: u64,
    len: u32,
) -> Result<Vec<Slice>, Errno> {
    let mut fetched = Vec::new();
    for attempt in 0..PLANS_MAX {
        let (file, inode) = present(shard, fid).await?;
        let end = offset.saturating_add(u64::from(len)).min(inode.attr.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let sequential = if attempt == 0 {
            ahead::on_read(shard, &file, &inode, offset..end)
        } else {
            true // counted as a use by the first plan, if at all
        };
        let plan = Plan::of(shard, &file, &inode, offset..end, &fetched, !sequential);
        let loads = if attempt == 0 {
            plan.loads(&file)
        } else {
            Vec::new()
        };
        if !plan.absent.is_empty() {
            let target = shard.target_of(fid)?;
            if let Some(errno) = contact::refuses_misses(shard, &target) {
                return Err(errno);
            }
            let chunks = fetch::chunks_of(&plan.absent);
            let fetches = chunks.map(|c| fetch::start(shard, &file, &inode, c));
            let fetches: Vec<_> = fetches.collect();
            for fetch in fetches {
                fetched.push(contact::unless_away(shard, &target, fetch.get()).await??);
            }
        } else if !loads.is_empty() {
            for load in loads {
                load.get().await;
            }
        } else if let Some(slices) = run(shard, &file, plan.parts).await? {
            return Ok(slices);
        }
    }
    let line = format!("read of {fid} at {offset}: the file changes faster than it is read");
    shard.world.log(Level::Warn, &line);
    Err(Errno::EIO)
}

/// All `size` bytes of a file, if they are in memory or on flash, and it has as
/// many.
pub async fn read_near<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    size: u64,
) -> Result<Option<Vec<Slice>>, Errno> {
    let (file, inode) = present(shard, fid).await?;
    if inode.attr.size != size {
        return Ok(None);
    }
    let plan = Plan::of(shard, &file, &inode, 0..size, &[], true);
    if !plan.absent.is_empty() {
        return Ok(None);
    }
    run(shard, &file, plan.parts).await
}

/// Where data (`hole` false) or a hole begins at or after `offset`, ENXIO past the end.
pub async fn seek<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    offset: u64,
    hole: bool,
) -> Result<u64, Errno> {
    let (file, inode) = present(shard, fid).await?;
    let size = inode.attr.size;
    if offset >= size {
        return Err(Errno::ENXIO);
    }
    let found = file
        .map
        .borrow()
        .seek(offset, size, inode.origin_size, hole);
    // The end of a file counts as a hole.
    found.or(hole.then_some(size)).ok_or(Errno::ENXIO)
}

/// Slices as one; shares the memory if there is only one.
#[must_use]
pub fn gather(slices: &[Slice]) -> Slice {
    if let [one] = slices {
        return one.clone();
    }
    let mut all = Buf::alone(slices.iter().map(|s| s.len()).sum());
    let mut at = 0;
    for slice in slices {
        all[at..at + slice.len()].copy_from_slice(slice);
        at += slice.len();
    }
    all.freeze()
}

/// How a read is answered, part by part.
pub(super) struct Plan {
    pub parts: Vec<Part>,
    /// What must be fetched before there can be an answer.
    pub absent: Vec<Range<u64>>,
}

pub(super) enum Part {
    Ready(Slice),
    Flash(FlashPart),
}

#[derive(Clone)]
pub(super) struct FlashPart {
    /// Where in the file.
    range: Range<u64>,
    piece: Rc<Piece>,
    /// The bytes of the piece that are wanted.
    at: Range<u32>,
    /// The bytes of the piece that belong to the file.
    part: Range<u32>,
    dirty: bool,
    origin_size: u64,
}

impl Plan {
    pub fn of<W: World>(
        shard: &Shard<W>,
        file: &File,
        inode: &Inode,
        range: Range<u64>,
        fetched: &[Rc<Fetched>],
        use_: bool,
    ) -> Plan {
        let mut plan = Plan {
            parts: Vec::new(),
            absent: Vec::new(),
        };
        let origin_size = inode.origin_size.min(inode.attr.size);
        let mut memory = shard.data.0.memory.borrow_mut();
        for segment in file.map.borrow().lookup(range, origin_size) {
            if segment.what == What::Hole {
                plan.zeros(&shard.data.0.zeros, segment.range.end - segment.range.start);
                continue;
            }
            let mut at = segment.range.start;
            for (hit, slice) in memory.lookup(file.fid, segment.range.clone(), use_) {
                plan.miss(
                    at..hit,
                    segment.range.start,
                    &segment.what,
                    origin_size,
                    fetched,
                );
                at = hit + slice.len() as u64;
                plan.parts.push(Part::Ready(slice));
            }
            let rest = at..segment.range.end;
            plan.miss(
                rest,
                segment.range.start,
                &segment.what,
                origin_size,
                fetched,
            );
        }
        plan
    }

    fn zeros(&mut self, zeros: &Slice, len: u64) {
        let mut left = len;
        while left > 0 {
            let now = left.min(ZEROS as u64);
            let end = usize::try_from(now).expect("at most ZEROS");
            self.parts.push(Part::Ready(zeros.part(0..end)));
            left -= now;
        }
    }

    /// A range that is not in memory, of a segment that begins at `start`.
    fn miss(
        &mut self,
        range: Range<u64>,
        start: u64,
        what: &What,
        origin_size: u64,
        fetched: &[Rc<Fetched>],
    ) {
        if range.is_empty() {
            return;
        }
        match what {
            What::Hole => {}
            What::Absent => match fetched.iter().find_map(|f| f.part(&range)) {
                Some(slice) => self.parts.push(Part::Ready(slice)),
                None => self.absent.push(range),
            },
            What::Bytes {
                piece,
                at,
                part,
                dirty,
            } => {
                let within = |o: u64| at.start + u32::try_from(o - start).expect("within a piece");
                self.parts.push(Part::Flash(FlashPart {
                    at: within(range.start)..within(range.end),
                    piece: Rc::clone(piece),
                    part: part.clone(),
                    dirty: *dirty,
                    range,
                    origin_size,
                }));
            }
        }
    }

    /// The loads under way that will bring in what this would read from flash.
    fn loads(&self, file: &File) -> Vec<Promise<()>> {
        let loads = file.loads.borrow();
        if loads.is_empty() {
            return Vec::new();
        }
        let ranges = self.parts.iter().filter_map(|p| match p {
            Part::Flash(f) => Some(f.range.clone()),
            Part::Ready(_) => None,
        });
        let ranges: Vec<_> = ranges.collect();
        let chunks = fetch::chunks_of(&ranges);
        chunks.filter_map(|c| loads.get(&c).cloned()).collect()
    }
}

/// Reads what the plan takes from flash. `None`: the file changed, plan again.
pub(super) async fn run<W: World>(
    shard: &Rc<Shard<W>>,
    file: &Rc<File>,
    parts: Vec<Part>,
) -> Result<Option<Vec<Slice>>, Errno> {
    let from_flash = |p: &Part| match p {
        Part::Flash(f) => Some(f.clone()),
        Part::Ready(_) => None,
    };
    let mut reads: Vec<_> = parts.iter().filter_map(from_flash).collect();
    let read = match reads.pop() {
        None => Vec::new(),
        Some(one) if reads.is_empty() => vec![read_flash(shard, file, one).await],
        Some(last) => {
            reads.push(last);
            let all = reads.into_iter().map(|f| read_flash(shard, file, f));
            join_all(all.collect()).await
        }
    };
    let mut read = read.into_iter();
    let mut out = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::Ready(slice) => out.push(slice),
            Part::Flash(_) => match read.next().transpose()?.flatten() {
                Some(slice) => out.push(slice),
                None => return Ok(None),
            },
        }
    }
    Ok(Some(out))
}

/// Reads whole blocks where they belong to the file, keeps them in memory, and
/// returns the wanted bytes.
async fn read_flash<W: World>(
    shard: &Rc<Shard<W>>,
    file: &Rc<File>,
    wanted: FlashPart,
) -> Result<Option<Slice>, Errno> {
    const BLOCK_U32: u32 = BLOCK as u32;
    let FlashPart { at, part, .. } = &wanted;
    let from = (at.start / BLOCK_U32 * BLOCK_U32).max(part.start);
    let to = at
        .end
        .checked_next_multiple_of(BLOCK_U32)
        .unwrap_or(part.end)
        .min(part.end);
    let segment = wanted.piece.at.segment;
    shard.data.0.policy.borrow_mut().on_read(segment);
    let piece = appended_of(&wanted.piece);
    match shard.flash.read(&piece, from..to).await {
        Ok(slice) => {
            // Of the block around it something may have changed that the bytes
            // which are wanted know nothing of.
            let offset = wanted.range.start - u64::from(at.start - from);
            let whole = FlashPart {
                range: offset..offset + u64::from(to - from),
                at: from..to,
                ..wanted.clone()
            };
            let skip = (at.start - from) as usize;
            let bytes = slice.part(skip..skip + at.len());
            if still_there(file, &whole) {
                keep(shard, file.fid, offset, &slice);
            } else if still_there(file, &wanted) {
                keep(shard, file.fid, wanted.range.start, &bytes);
            }
            Ok(Some(bytes))
        }
        Err(_) if !still_there(file, &wanted) => Ok(None),
        Err(Errno::EIO) if !wanted.dirty && wanted.range.end <= wanted.origin_size => {
            drop_damaged(shard, file, wanted.range)?;
            Ok(None)
        }
        Err(Errno::EIO) => {
            note_damage(shard, file, &wanted);
            Err(Errno::EIO)
        }
        Err(errno) => Err(errno),
    }
}

/// The box alone has these bytes, and cannot read them.
fn note_damage<W: World>(shard: &Shard<W>, file: &File, wanted: &FlashPart) {
    // Damage is known by the extent that it lies in, which a read may cut.
    let at = |(offset, extent): (u64, &Extent)| {
        let range = offset..offset + extent.len;
        let is_it = range.contains(&wanted.range.start);
        is_it.then(|| extent.location().map(|at| (range, at)))?
    };
    let found = file.map.borrow().iter().find_map(at);
    if let Some((range, place)) = found {
        scrub::note_lost(shard, file.fid, range, place);
    }
}

/// Does the map still say what the plan was made from?
fn still_there(file: &File, wanted: &FlashPart) -> bool {
    if !file.is_loaded() {
        return false;
    }
    let map = file.map.borrow();
    let mut segments = map.lookup(wanted.range.clone(), 0);
    segments.next().is_some_and(|s| {
        let What::Bytes { piece, at, .. } = s.what else {
            return false;
        };
        s.range == wanted.range && Rc::ptr_eq(&piece, &wanted.piece) && at == wanted.at
    })
}

/// Puts bytes into memory, as a copy if they would hold much more than they are.
pub(super) fn keep<W: World>(shard: &Shard<W>, fid: Fid, offset: u64, bytes: &Slice) {
    let mut memory = shard.data.0.memory.borrow_mut();
    if bytes.held() > 2 * bytes.len().next_multiple_of(BLOCK) {
        memory.insert(fid, offset, &Buf::copied(bytes).freeze());
    } else {
        memory.insert(fid, offset, bytes);
    }
}

/// Clean bytes that do not match their checksum are the origin's to give again.
pub(super) fn drop_damaged<W: World>(
    shard: &Shard<W>,
    file: &Rc<File>,
    range: Range<u64>,
) -> Result<(), Errno> {
    let line = format!(
        "damaged bytes of {} at {}..{} on flash: fetching them again",
        file.fid, range.start, range.end
    );
    shard.world.log(Level::Warn, &line);
    shard.counters.on(Event::BytesRefetched);
    let mut tx = Tx::default();
    shard
        .data
        .edit(&mut tx, file, |map| map.replace(range, Vec::new()));
    shard.apply(tx)?;
    Ok(())
}
