//! What write-back consumes: the parts of a file that the origin lacks, their
//! bytes, and the change that calls them clean once the origin's fsync returned.

use super::bulk;
use super::file::{File, Watch, present};
use super::read::{Plan, run};
use super::{Shard, Tx};
use crate::base::{Errno, Fid, Slice};
use crate::cache::{ExtentMap, What};
use crate::namespace::Inode;
use crate::namespace::record::flag;
use crate::world::World;
use std::rc::Rc;

/// Longest part with bytes: one write to the origin, one buffer's worth of memory.
const PART_MAX: u64 = 1 << 20;
/// Plans for reading one part; each new one means that it was written again.
const PLANS_MAX: usize = 16;

/// A range that differs from the origin's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPart {
    pub offset: u64,
    pub len: u64,
    /// The origin's bytes there must go (punch, or write zeros); else they are
    /// to be overwritten with what [`read_dirty`] gives.
    pub hole: bool,
}

/// One pass of write-back over a file's data: what was owed when it began.
/// What changes while it is carried out stays owed for the next pass.
///
/// The order at the origin: truncate to `cut` if the file is longer there, then
/// the parts, then set the length to `size` if it differs, then fsync.
pub struct Flush {
    pub fid: Fid,
    /// In the order of their offsets, without overlap, none past `size`.
    pub parts: Vec<DirtyPart>,
    /// The length that the file has here.
    pub size: u64,
    /// Origin bytes past this were cut off here and must not come back.
    pub cut: u64,
    /// Where the next pass begins, if there is more than one pass takes. Until
    /// then `mark_clean` gives false.
    pub rest: Option<u64>,
    watch: Rc<Watch>,
    /// Keeps the watch in force: a file that is held is not let go.
    _file: Rc<File>,
}

/// Begins a pass. One pass at a time for a file is the caller's duty.
pub async fn dirty_parts<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<Flush, Errno> {
    let (file, inode) = present(shard, fid).await?;
    let (parts, rest) = parts_of(&file.map.borrow(), bulk::changes_max(shard));
    Ok(Flush {
        fid,
        parts,
        size: inode.attr.size,
        cut: inode.origin_size.min(inode.attr.size),
        rest,
        watch: file.watch(),
        _file: file,
    })
}

/// Whether the origin never had any of the file's bytes for certain: all that it
/// has are dirty, and it lacks none.
pub async fn is_all_dirty<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<bool, Errno> {
    let (file, inode) = present(shard, fid).await?;
    let map = file.map.borrow();
    let mut segments = map.lookup(0..inode.attr.size, inode.origin_size);
    Ok(map.iter().all(|(_, e)| e.is_dirty()) && segments.all(|s| s.what != What::Absent))
}

/// The parts of the first `most` dirty extents, and where the next one begins.
fn parts_of(map: &ExtentMap, most: usize) -> (Vec<DirtyPart>, Option<u64>) {
    let mut parts: Vec<DirtyPart> = Vec::new();
    let mut dirty = map.iter().filter(|(_, e)| e.is_dirty());
    for (offset, extent) in dirty.by_ref().take(most) {
        let (len, hole) = (extent.len, extent.is_hole());
        match parts.last_mut() {
            Some(last)
                if last.offset + last.len == offset
                    && last.hole == hole
                    && (hole || last.len + len <= PART_MAX) =>
            {
                last.len += len;
            }
            _ => parts.push(DirtyPart { offset, len, hole }),
        }
    }
    (parts, dirty.next().map(|(offset, _)| offset))
}

/// The present bytes of `part`, whole (zeros where it was punched meanwhile,
/// short if the file was cut). EAGAIN: it changed too much, begin a new pass.
pub async fn read_dirty<W: World>(
    shard: &Rc<Shard<W>>,
    flush: &Flush,
    part: &DirtyPart,
) -> Result<Vec<Slice>, Errno> {
    for _ in 0..PLANS_MAX {
        let (file, inode) = present(shard, flush.fid).await?;
        let end = (part.offset + part.len).min(inode.attr.size);
        if part.offset >= end {
            return Ok(Vec::new());
        }
        let plan = Plan::of(shard, &file, &inode, part.offset..end, &[], false);
        if !plan.absent.is_empty() {
            return Err(Errno::EAGAIN);
        }
        if let Some(slices) = run(shard, &file, plan.parts).await? {
            return Ok(slices);
        }
    }
    Err(Errno::EAGAIN)
}

/// Notes in the transaction that the first `done` parts of the pass are at the
/// origin (in their order), after its fsync (O1): what did not change since becomes clean. If
/// all are done and nothing changed since, `inode` loses DATA_OWED (the caller
/// puts it) and the result is true. EAGAIN as for `write`: load, try again.
pub fn mark_clean<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    inode: &mut Inode,
    flush: &Flush,
    done: usize,
) -> Result<bool, Errno> {
    let file = shard.data.loaded(flush.fid).ok_or(Errno::EAGAIN)?;
    for part in flush.parts.iter().take(done) {
        for range in flush.watch.unspoiled(part.offset..part.offset + part.len) {
            shard.data.edit(tx, &file, |map| map.mark_clean(range));
        }
    }
    shard.data.0.policy.borrow_mut().release();
    // In the order of their offsets, all before the first part that is not done
    // is there: what was called clean must not be past the origin's size, or
    // the next pass would cut it off.
    let undone = flush.parts.get(done).map(|part| part.offset);
    let there = undone.or(flush.rest).unwrap_or(flush.size);
    let kept = flush.watch.cut().unwrap_or(u64::MAX);
    raise_origin_size(shard, tx, &file, inode, there.min(kept));
    if undone.or(flush.rest).is_some() {
        return Ok(false);
    }
    let owed = file.map.borrow().iter().any(|(_, e)| e.is_dirty());
    let is_same = kept >= flush.size && inode.attr.size == flush.size;
    if owed || !is_same {
        return Ok(false);
    }
    inode.flags &= !flag::DATA_OWED;
    Ok(true)
}

/// The origin's bytes are this file's up to `size` now, so they may be fetched
/// again. This is what lets the bytes of a file that was born here be
/// reclaimed. What has been a hole until now is one at the origin too, and is
/// said to be one, so that nobody fetches its zeros.
fn raise_origin_size<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    file: &Rc<File>,
    inode: &mut Inode,
    size: u64,
) {
    let size = size.min(inode.attr.size);
    if size <= inode.origin_size {
        return;
    }
    let range = inode.origin_size..size;
    let epoch = inode.snap_epoch;
    shard.data.edit(tx, file, |map| map.fill_gaps(range, epoch));
    inode.origin_size = size;
}
