//! Making room on flash: segment by segment, clean bytes are forgotten (the
//! origin has them), what only the box has is moved, and nothing dirty is ever
//! dropped. When only dirty bytes are left, room comes from write-back.

use super::bulk;
use super::file::File;
use super::records::{Placed, appended_of, piece_of, pieces, summaries_of};
use super::{Data, Shard, Tx};
use crate::base::{Codec, Errno, Fid, Lsn};
use crate::cache::extent::Content;
use crate::cache::{Extent, Piece};
use crate::flash::Need;
use crate::flash::{Peek, Usage};
use crate::namespace::{Inode, key};
use crate::shard::writeback;
use crate::world::{Level, World};
use std::ops::Range;
use std::rc::Rc;

/// Free flash below which reclaim works, and up to which: one part in so many.
const LOW_SHARE: u64 = 16;
const HIGH_SHARE: u64 = 12;
/// Summary records of one page.
const PAGE: usize = 256;
/// A segment of which more than one part in so many must be moved is left to
/// write-back: moving it would write more than it frees is worth.
const MOVE_SHARE: u64 = 2;
/// Empty records written to have empty segments taken back, at most.
const MARKS_MAX: usize = 3;
/// Files with something owed that are looked at in one page, at the start.
const DIRTY_PAGE: usize = 256;

/// Starts the tasks of the data path: reclaim, and counting what is dirty.
pub fn start<W: World>(shard: &Rc<Shard<W>>) {
    let reclaim = Rc::clone(shard);
    shard.world.spawn(async move {
        loop {
            let pressure = reclaim.data.0.pressure.wait();
            if reclaim.flash.usage().is_low() {
                empty_segments(&reclaim).await;
            }
            pressure.await;
        }
    });
    shard.world.spawn(bulk::bury_all(Rc::clone(shard)));
    let count = Rc::clone(shard);
    shard.world.spawn(async move {
        if let Err(errno) = count_dirty(&count).await {
            let line = format!("cannot count what the origin is owed: {errno}");
            count.world.log(Level::Warn, &line);
        }
    });
}

/// Waits until reclaim or write-back has made room; ENOSPC if there is no hope.
pub async fn make_room<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    let before = shard.flash.usage().free_bytes;
    empty_segments(shard).await;
    if shard.flash.usage().free_bytes > before {
        return Ok(());
    }
    // What is left is what the origin lacks.
    if shard.data.dirty_bytes() == 0 {
        return Err(Errno::ENOSPC);
    }
    let targets: Vec<_> = shard.targets.borrow().keys().copied().collect();
    for target in targets {
        if let Err(errno) = writeback::flush(shard, target, None).await {
            let line = format!("the flash is full and target {target} cannot take it: {errno}");
            shard.world.log(Level::Warn, &line);
        }
    }
    shard.data.0.policy.borrow_mut().release();
    empty_segments(shard).await;
    if shard.flash.usage().free_bytes > before {
        Ok(())
    } else {
        Err(Errno::ENOSPC)
    }
}

/// Writes marks until the store has taken back what is empty: it does so when
/// a durable record says that the one which emptied the segment is durable.
async fn take_back<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    for _ in 0..MARKS_MAX {
        let usage = shard.flash.usage();
        if usage.soon_free() == usage.free_bytes {
            break;
        }
        let lsn = shard.apply(Tx::default())?;
        shard.flash.commit(lsn).await?;
    }
    Ok(())
}

impl Usage {
    fn is_low(&self) -> bool {
        self.soon_free() < self.total_bytes / LOW_SHARE
    }
    fn is_high(&self) -> bool {
        self.soon_free() >= self.total_bytes / HIGH_SHARE
    }
    /// With the empty segments that the store has yet to take back.
    fn soon_free(&self) -> u64 {
        let empty = self.sealed.iter().filter(|(_, live)| *live == 0).count() as u64;
        self.free_bytes + empty * u64::from(self.segment_bytes)
    }
}

/// Loads every file that owes data, so that the sum of dirty bytes is right.
async fn count_dirty<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    let mut range = key::dirty(Fid::NONE)..vec![key::table::DIRTY + 1];
    loop {
        let page = shard.flash.scan(range.clone(), DIRTY_PAGE).await?;
        for (key, _) in &page {
            if let Some((_, fid)) = key.split_last_chunk::<16>() {
                super::load(shard, Fid::from_bytes(*fid)).await?;
            }
        }
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        range.start.clone_from(last);
        range.start.push(0);
    }
}

/// Empties segments until enough is free.
async fn empty_segments<W: World>(shard: &Rc<Shard<W>>) {
    let _one = shard.data.0.reclaiming.acquire().await;
    while empty_next(shard).await {}
    if let Err(errno) = take_back(shard).await {
        let line = format!("cannot take empty segments back: {errno}");
        shard.world.log(Level::Warn, &line);
    }
}

/// Empties one segment. False if enough is free, or none can be emptied.
async fn empty_next<W: World>(shard: &Rc<Shard<W>>) -> bool {
    let usage = shard.flash.usage();
    if usage.is_high() {
        return false;
    }
    let mut sealed = usage.sealed.clone();
    sealed.retain(|(_, live)| *live > 0);
    let Some(segment) = shard.data.0.policy.borrow_mut().take(&sealed) else {
        return false;
    };
    match empty(shard, segment, &usage).await {
        // Only what is durable can be written over.
        Ok(Some(lsn)) => return shard.flash.commit(lsn).await.is_ok(),
        Ok(None) => {}
        Err(errno) => {
            let line = format!("cannot empty segment {segment}: {errno}");
            shard.world.log(Level::Warn, &line);
        }
    }
    let live = live_bytes(&usage, segment);
    shard.data.0.policy.borrow_mut().hold(segment, live);
    true
}

/// Tests only: empties every sealed segment that can be, however much is free.
#[cfg(test)]
pub(super) async fn empty_all<W: World>(shard: &Rc<Shard<W>>) {
    let _one = shard.data.0.reclaiming.acquire().await;
    let usage = shard.flash.usage();
    for (segment, _) in &usage.sealed {
        let _ = empty(shard, *segment, &usage).await;
    }
}

fn live_bytes(usage: &Usage, segment: u32) -> u32 {
    let of = usage.sealed.iter().find(|(s, _)| *s == segment);
    of.map_or(0, |(_, live)| *live)
}

/// Forgets or moves what lives in a segment. `None`: too much of it is dirty.
async fn empty<W: World>(
    shard: &Rc<Shard<W>>,
    segment: u32,
    usage: &Usage,
) -> Result<Option<Lsn>, Errno> {
    let mut last = None;
    let mut to_move = Vec::new();
    let mut range = summaries_of(segment);
    loop {
        let page = shard.flash.scan(range.clone(), PAGE).await?;
        for (_, value) in &page {
            let Ok(placed) = Placed::from_slice(value) else {
                return Err(Errno::EIO);
            };
            if super::load(shard, placed.fid).await.is_err() {
                continue; // a damaged file keeps its bytes
            }
            shard.flash.get(&key::inode(placed.fid)).await?;
            // From here to the apply nothing can change.
            match shard.data.fate(shard, placed, segment) {
                Fate::Gone => {}
                Fate::Drop(file, range) => {
                    let mut tx = Tx::default();
                    shard
                        .data
                        .edit(&mut tx, &file, |map| map.replace(range, Vec::new()));
                    last = Some(shard.apply(tx)?);
                }
                Fate::Keep(len) => to_move.push((placed, len)),
            }
        }
        let Some((key, _)) = page.last() else { break };
        range.start.clone_from(key);
        range.start.push(0);
    }
    let moving: u64 = to_move.iter().map(|(_, len)| len).sum();
    if moving > u64::from(usage.segment_bytes) / MOVE_SHARE {
        return Ok(last);
    }
    for (placed, _) in to_move {
        last = relocate(shard, placed, segment).await?.or(last);
    }
    Ok(last)
}

/// What becomes of an extent in a segment that is to be emptied.
pub(super) enum Fate {
    Gone,
    Drop(Rc<File>, Range<u64>),
    /// The box alone has these bytes: so many.
    Keep(u64),
}

impl Data {
    pub(super) fn fate<W: World>(&self, shard: &Shard<W>, placed: Placed, segment: u32) -> Fate {
        let Some((file, extent)) = self.extent_at(placed, segment) else {
            return Fate::Gone;
        };
        let end = placed.offset + extent.len;
        let origin_size = match shard.flash.peek(&key::inode(placed.fid)) {
            Peek::Found(bytes) => Inode::from_slice(&bytes).map_or(0, |i| i.origin_size),
            // No such inode: nobody can ask for its bytes.
            Peek::Absent => u64::MAX,
            Peek::NotLoaded => 0,
        };
        if !extent.is_dirty() && end <= origin_size || origin_size == u64::MAX {
            Fate::Drop(file, placed.offset..end)
        } else {
            Fate::Keep(extent.len)
        }
    }

    /// What lies in `segment` where the record of it says, if it still does.
    pub(super) fn extent_at(&self, placed: Placed, segment: u32) -> Option<(Rc<File>, Extent)> {
        let file = self.loaded(placed.fid)?;
        let extent = file.map.borrow().at(placed.offset).cloned()?;
        let here = extent.location().is_some_and(|l| l.segment == segment);
        here.then_some((file, extent))
    }
}

/// Appends an extent's bytes anew and lets the map refer to them.
async fn relocate<W: World>(
    shard: &Rc<Shard<W>>,
    placed: Placed,
    segment: u32,
) -> Result<Option<Lsn>, Errno> {
    super::load(shard, placed.fid).await?;
    let Some((_, before)) = shard.data.extent_at(placed, segment) else {
        return Ok(None);
    };
    let Content::Bytes { piece, skip, dirty } = &before.content else {
        return Ok(None);
    };
    let part = *skip..*skip + u32::try_from(before.len).unwrap_or(u32::MAX);
    let bytes = shard.flash.read(&appended_of(piece), part).await?;
    // What was read is only of use if it is still what the file has.
    let Some((file, now)) = shard.data.extent_at(placed, segment) else {
        return Ok(None);
    };
    if now != before {
        return Ok(None);
    }
    let need = if *dirty { Need::Dirty } else { Need::Clean };
    let mut tx = Tx::default();
    let mut extents = Vec::new();
    for bytes in pieces(&bytes) {
        let appended = shard.flash.append(&bytes, need)?;
        shard.note_appended(&mut tx, bytes.len(), &appended);
        for appended in appended {
            tx.data.push(appended.clone());
            let piece: Piece = piece_of(appended);
            extents.push(Extent::bytes(piece, *dirty, before.epoch));
        }
    }
    let range = placed.offset..placed.offset + before.len;
    shard
        .data
        .edit(&mut tx, &file, |map| map.replace(range, extents));
    shard.apply(tx).map(Some)
}
