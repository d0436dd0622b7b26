//! Changes of more extents than one transaction holds, in steps.
//!
//! A file that is gone leaves a mark, and its extents are deleted behind it. A
//! file that is cut far gets shorter step by step before its last step; what a
//! crash leaves is a longer file, as if the cut had come later. Forgetting
//! clean bytes needs no order at all.

use super::file::File;
use super::{Data, Shard, Tx};
use crate::base::Codec;
use crate::base::{Errno, Fid};
use crate::cache::ExtentMap;
use crate::flash::Peek;
use crate::namespace::{Inode, key};
use crate::shard::meta;
use crate::world::{Level, World};
use std::ops::Range;
use std::rc::Rc;

/// Encoded bytes that an extent's change may take in a transaction: its record
/// with the checksums of a piece, its summary, what it frees.
const CHANGE_BYTES: usize = 512;
/// Extents in one transaction, at most, whatever the store could take: a
/// transaction is one step of this thread.
const CHANGES_MAX: usize = 1024;

/// What must be done in steps before a change can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    /// Cut the file, down to few extents past the size.
    Shrink(u64),
    /// Forget clean extents, down to few.
    Shed,
}

/// Extents that one transaction may change.
pub(super) fn changes_max<W: World>(shard: &Shard<W>) -> usize {
    // Half of it is left for what else the transaction holds.
    (shard.flash.tx_bytes_max() / 2 / CHANGE_BYTES).clamp(1, CHANGES_MAX)
}

/// Does what stands in the way of a change of the file.
pub(super) async fn run<W: World>(
    shard: &Rc<Shard<W>>,
    file: &Rc<File>,
    chore: Chore,
) -> Result<(), Errno> {
    let most = changes_max(shard);
    loop {
        // Nothing may come between a look at the file and the apply.
        let Peek::Found(bytes) = shard.flash.peek(&key::inode(file.fid)) else {
            shard
                .flash
                .get(&key::inode(file.fid))
                .await?
                .ok_or(Errno::ESTALE)?;
            continue;
        };
        if !file.is_loaded() {
            return Ok(());
        }
        let mut inode = Inode::from_slice(&bytes).map_err(|_| Errno::EIO)?;
        let mut tx = Tx::default();
        match chore {
            Chore::Shrink(size) => {
                let Some(next) = step_down(&file.map.borrow(), size, most) else {
                    return Ok(());
                };
                super::truncate(
                    shard,
                    &mut tx,
                    file.fid,
                    &mut inode,
                    shard.world.wall(),
                    next,
                )?;
                meta::put_inode(&mut tx, file.fid, &inode);
            }
            Chore::Shed => {
                let clean = clean_of(&file.map.borrow(), most + 1);
                if clean.len() <= most {
                    return Ok(());
                }
                shard.data.drop_all(&mut tx, file, clean);
            }
        }
        let lsn = shard.apply(tx)?;
        shard.flash.commit(lsn).await?;
    }
}

/// The size to cut to next, if more than `most` extents lie past `size`.
pub(super) fn step_down(map: &ExtentMap, size: u64, most: usize) -> Option<u64> {
    let mut past = map.iter_back().take_while(|(at, _)| *at >= size);
    let (next, _) = past.nth(most.saturating_sub(1))?;
    past.next().is_some().then_some(next)
}

/// The first clean extents, at most `most`.
pub(super) fn clean_of(map: &ExtentMap, most: usize) -> Vec<Range<u64>> {
    let clean = map.iter().filter(|(_, e)| !e.is_dirty());
    clean.take(most).map(|(at, e)| at..at + e.len).collect()
}

impl Data {
    pub(super) fn drop_all(&self, tx: &mut Tx, file: &Rc<File>, ranges: Vec<Range<u64>>) {
        for range in ranges {
            self.edit(tx, file, |map| map.replace(range, Vec::new()));
        }
    }
}

/// Deletes what files that are gone have left, from the marks at the start on.
pub(super) async fn bury_all<W: World>(shard: Rc<Shard<W>>) {
    loop {
        let wanted = shard.data.0.gone.wait();
        let first = key::gone(Fid::NONE)..vec![key::table::GONE + 1];
        let buried = match shard.flash.scan(first, 1).await {
            Ok(page) => match page
                .first()
                .and_then(|(key, _)| key.split_last_chunk::<16>())
            {
                Some((_, fid)) => bury(&shard, Fid::from_bytes(*fid)).await,
                None => {
                    wanted.await;
                    continue;
                }
            },
            Err(errno) => Err(errno),
        };
        if let Err(errno) = buried {
            let line = format!("cannot delete the bytes of a file that is gone: {errno}");
            shard.world.log(Level::Error, &line);
            wanted.await;
        }
    }
}

async fn bury<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<(), Errno> {
    let most = changes_max(shard);
    loop {
        super::load(shard, fid).await?;
        let Some(file) = shard.data.loaded(fid) else {
            continue;
        };
        let mut tx = Tx::default();
        let next = step_down(&file.map.borrow(), 0, most);
        shard
            .data
            .edit(&mut tx, &file, |map| map.truncate(next.unwrap_or(0)));
        if next.is_none() {
            tx.delete(key::gone(fid));
        }
        let lsn = shard.apply(tx)?;
        shard.flash.commit(lsn).await?;
        if next.is_none() {
            return Ok(());
        }
    }
}
