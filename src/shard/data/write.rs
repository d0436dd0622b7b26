//! Changing bytes: synchronous, in the caller's transaction. Whatever the map
//! lacks was loaded before; whatever room the flash lacks is made before.

use super::bulk::{Chore, changes_max, clean_of, step_down};
use super::file::{File, UNTHROTTLED_MAX};
use super::read::keep;
use super::records::{piece_of, pieces};
use super::{Data, Shard, Tx};
use crate::base::limits::{BLOCK, FILE_SIZE_MAX};
use crate::base::{Errno, Fid, Slice, Time};
use crate::cache::{Extent, ExtentMap};
use crate::flash::Appended;
use crate::flash::Need;
use crate::namespace::record::flag;
use crate::namespace::{Inode, key};
use crate::shard::writeback;
use crate::world::World;
use std::ops::Range;
use std::rc::Rc;

/// Units of `st_blocks` in a block.
const SECTORS: u64 = BLOCK as u64 / 512;
/// Bytes appended after which reclaim looks at how full the flash is.
const LOOK_EVERY: u64 = 4 << 20;

/// Puts `bytes` at `offset` into the transaction: extents, summary, size,
/// blocks, mtime, ctime, version and DATA_OWED of `inode` (which the caller
/// puts). EAGAIN: not loaded, or the
/// flash must catch up first: call `load` and decide again. ENOSPC: call
/// `make_room` and decide again.
pub fn write<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    fid: Fid,
    inode: &mut Inode,
    now: Time,
    offset: u64,
    bytes: &Slice,
) -> Result<(), Errno> {
    let end = offset.checked_add(bytes.len() as u64);
    let end = end.filter(|e| *e <= FILE_SIZE_MAX).ok_or(Errno::EFBIG)?;
    let file = shard.data.loaded(fid).ok_or(Errno::EAGAIN)?;
    if bytes.is_empty() {
        return Ok(());
    }
    let unthrottled = &shard.data.0.unthrottled;
    if unthrottled.get() > UNTHROTTLED_MAX {
        return Err(Errno::EAGAIN); // `load` waits
    }
    unthrottled.set(unthrottled.get() + bytes.len() as u64);
    let need = match tx.is_promised {
        true => Need::Promised,
        false => Need::Dirty,
    };
    let mut extents = Vec::new();
    for bytes in pieces(bytes) {
        let appended = shard.flash.append(&bytes, need)?;
        shard.note_appended(tx, bytes.len(), &appended);
        for appended in appended {
            tx.data.push(appended.clone());
            extents.push(Extent::bytes(piece_of(appended), true, inode.snap_epoch));
        }
    }
    let range = offset..end;
    change(shard, tx, &file, (inode, now), &range, end, |map, _| {
        map.replace(range.clone(), extents)
    });
    keep(shard, fid, offset, bytes);
    Ok(())
}

/// Changes the size in the transaction; bytes past it become a hole for ever (F7).
pub fn truncate<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    fid: Fid,
    inode: &mut Inode,
    now: Time,
    size: u64,
) -> Result<(), Errno> {
    if size > FILE_SIZE_MAX {
        return Err(Errno::EFBIG);
    }
    let file = shard.data.loaded(fid).ok_or(Errno::EAGAIN)?;
    let old = inode.attr.size;
    if step_down(&file.map.borrow(), size, changes_max(shard)).is_some() {
        file.chore.set(Some(Chore::Shrink(size)));
        return Err(Errno::EAGAIN);
    }
    if size < old {
        file.note_cut(size);
        change(
            shard,
            tx,
            &file,
            (inode, now),
            &(size..old),
            0,
            |map, inode| {
                // Origin bytes past the end are none of the file: growing it again
                // must not bring them back. Nothing else makes a file shorter.
                inode.origin_size = inode.origin_size.min(size);
                map.truncate(size)
            },
        );
        inode.attr.size = size;
        if size == 0 {
            inode.attr.blocks = 0;
        }
    } else {
        touch(shard, tx, fid, inode, now);
        inode.attr.size = size;
    }
    Ok(())
}

/// Makes `range` an authoritative hole.
pub fn punch<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    fid: Fid,
    inode: &mut Inode,
    now: Time,
    range: Range<u64>,
) -> Result<(), Errno> {
    let file = shard.data.loaded(fid).ok_or(Errno::EAGAIN)?;
    let size = inode.attr.size;
    let range = range.start.min(size)..range.end.min(size);
    change(shard, tx, &file, (inode, now), &range, 0, |map, inode| {
        map.punch(range.clone(), inode.origin_size, inode.snap_epoch)
    });
    Ok(())
}

/// Makes `range` read as zeros, growing the file unless `keep_size`.
pub fn zero<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    fid: Fid,
    inode: &mut Inode,
    now: Time,
    range: Range<u64>,
    keep_size: bool,
) -> Result<(), Errno> {
    if range.end > FILE_SIZE_MAX {
        return Err(Errno::EFBIG);
    }
    let end = range.end;
    punch(shard, tx, fid, inode, now, range)?;
    if !keep_size {
        inode.attr.size = inode.attr.size.max(end);
    }
    Ok(())
}

/// Forgets all bytes of a file that is gone, in the transaction. EAGAIN as for
/// [`write`].
pub fn remove<W: World>(shard: &Shard<W>, tx: &mut Tx, fid: Fid) -> Result<(), Errno> {
    let file = shard.data.loaded(fid).ok_or(Errno::EAGAIN)?;
    file.note_cut(0);
    if file.map.borrow().len() > changes_max(shard) {
        // More than a transaction holds: the mark is the change, and the
        // extents follow. A FID is never used again, so nobody sees them.
        tx.put(key::gone(fid), Vec::new());
        shard.data.0.gone.notify();
    } else {
        shard.data.edit(tx, &file, |map| map.truncate(0));
    }
    shard.data.forget_contents(fid, 0..u64::MAX);
    Ok(())
}

/// Forgets all clean bytes, in the transaction, because the origin's changed
/// (its file now has `size` bytes): they will be fetched again. Dirty ones stay.
pub fn invalidate<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    fid: Fid,
    inode: &mut Inode,
    size: u64,
) -> Result<(), Errno> {
    let file = shard.data.loaded(fid).ok_or(Errno::EAGAIN)?;
    file.spoil(0..u64::MAX);
    let most = changes_max(shard);
    let clean = clean_of(&file.map.borrow(), most + 1);
    if clean.len() > most {
        file.chore.set(Some(Chore::Shed));
        return Err(Errno::EAGAIN);
    }
    shard.data.drop_all(tx, &file, clean);
    shard.data.forget_contents(fid, 0..u64::MAX);
    let last_dirty = file
        .map
        .borrow()
        .iter_back()
        .next()
        .map(|(at, e)| at + e.len);
    inode.origin_size = size;
    inode.attr.size = size.max(last_dirty.unwrap_or(0));
    inode.attr.version += 1;
    inode.data_version += 1;
    Ok(())
}

impl Data {
    pub(super) fn forget_contents(&self, fid: Fid, range: Range<u64>) {
        self.0.memory.borrow_mut().cut(fid, range);
    }
}

impl<W: World> Shard<W> {
    /// Bytes were appended for the transaction: if it is given up, so are they.
    /// Lets reclaim look from time to time, before the flash is full.
    pub(super) fn note_appended(&self, tx: &mut Tx, bytes: usize, pieces: &[Appended]) {
        let (flash, pieces) = (self.flash.clone(), pieces.to_vec());
        tx.undo.push(move || flash.discard(&pieces));
        let state = &self.data.0;
        let sum = state.appended.get() + bytes as u64;
        state.appended.set(sum % LOOK_EVERY);
        if sum >= LOOK_EVERY {
            state.pressure.notify();
        }
    }
}

/// A change of the bytes in `range`, of a file that then is `end` long at least.
fn change<W: World>(
    shard: &Shard<W>,
    tx: &mut Tx,
    file: &Rc<File>,
    (inode, now): (&mut Inode, Time),
    range: &Range<u64>,
    end: u64,
    op: impl FnOnce(&mut ExtentMap, &mut Inode) -> crate::cache::Change,
) {
    const BLOCK_U64: u64 = BLOCK as u64;
    let blocks = range.start / BLOCK_U64 * BLOCK_U64..range.end.next_multiple_of(BLOCK_U64);
    let used = |inode: &Inode| {
        let map = file.map.borrow();
        map.allocated(blocks.clone(), inode.origin_size)
    };
    let before = used(inode);
    file.spoil(range.clone());
    shard.data.forget_contents(file.fid, range.clone());
    shard.data.edit(tx, file, |map| op(map, inode));
    let after = used(inode);
    let sectors = inode.attr.blocks + after * SECTORS;
    inode.attr.blocks = sectors.saturating_sub(before * SECTORS);
    inode.attr.size = inode.attr.size.max(end);
    touch(shard, tx, file.fid, inode, now);
}

/// The marks of a change of bytes or size.
fn touch<W: World>(shard: &Shard<W>, tx: &mut Tx, fid: Fid, inode: &mut Inode, now: Time) {
    let now = now.max(inode.attr.ctime);
    inode.attr.mtime = now;
    inode.attr.ctime = now;
    inode.attr.version += 1;
    inode.data_version += 1;
    inode.flags |= flag::DATA_OWED;
    writeback::note_dirty(shard, tx, fid);
}
