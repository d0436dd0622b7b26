//! New FIDs. A target's sequences are `target << 32 | n`, so that a FID names
//! its target; within a sequence `oid` counts up. A mark on flash is raised
//! ahead of use, so that a crash never gives a FID twice (F9): what lay below
//! the mark and was not used is lost, which costs nothing.

use crate::base::{Codec, Errno, Fid, TargetId};
use crate::flash::Tx;
use crate::namespace::{Need, key};
use crate::record;
use crate::shard::{Shard, Target};
use crate::world::World;
use std::rc::Rc;

/// What is reserved: `[next, end)` of sequence `n`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock {
    n: u32,
    next: u32,
    end: u32,
}

record! {
    /// The mark on flash: all below it may have been used.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Mark { pub n: u32, pub oid: u32 }
}

/// How many are reserved at a time.
const CHUNK: u32 = 65_536;
/// The root has oid 1 of sequence 1; others follow.
const FIRST: Mark = Mark { n: 1, oid: 2 };

/// The root of a target.
#[must_use]
pub fn root(target: TargetId) -> Fid {
    Fid::new(sequence(target, 1), 1)
}

/// Whether the FID is one of the target's.
#[must_use]
pub fn belongs(fid: Fid, target: TargetId) -> bool {
    fid.seq >> 32 == u64::from(target.0) && fid.ver == 0 && fid.oid > 0
}

fn sequence(target: TargetId, n: u32) -> u64 {
    u64::from(target.0) << 32 | u64::from(n)
}

/// The inode number of a file born here (N12): marked by bit 62, which no
/// origin of today sets, and below 2^63 for those who take it as signed.
pub fn number(fid: Fid) -> u64 {
    1 << 62 | (fid.seq & 0x3fff_ffff) << 32 | u64::from(fid.oid)
}

/// The next FID and its inode number, without taking it.
pub fn next<W: World>(shard: &Shard<W>, target: &Target) -> Result<(Fid, u64), Need> {
    let fids = shard.meta.fids.borrow();
    match fids.get(&target.id) {
        Some(stock) if stock.next < stock.end => {
            let fid = Fid::new(sequence(target.id, stock.n), stock.next);
            Ok((fid, number(fid)))
        }
        _ => Err(Need::Fids),
    }
}

/// The FID is in use from now on.
pub fn used<W: World>(shard: &Shard<W>, target: &Target, fid: Fid) {
    let mut fids = shard.meta.fids.borrow_mut();
    if let Some(stock) = fids.get_mut(&target.id)
        && stock.next == fid.oid
    {
        stock.next += 1;
    }
}

/// Raises the mark, waits until that is on flash, and adds to the stock.
pub async fn reserve<W: World>(shard: &Rc<Shard<W>>, target: &Target) -> Result<(), Errno> {
    let key = key::setting(&format!("fid.{}", target.id));
    let from = match shard.flash.get(&key).await? {
        Some(bytes) => Mark::from_slice(&bytes).map_err(|_| Errno::EIO)?,
        None => FIRST,
    };
    // Two tasks may get here: the second finds the first one's stock, or its
    // mark, which it raises further.
    if next(shard, target).is_ok() {
        return Ok(());
    }
    let to = match from.oid.checked_add(CHUNK) {
        Some(oid) => Mark { n: from.n, oid },
        None => Mark {
            n: from.n.checked_add(1).ok_or(Errno::ENOSPC)?,
            oid: 1 + CHUNK,
        },
    };
    let mut tx = Tx::default();
    tx.put(key, to.to_vec());
    let lsn = shard.apply(tx)?;
    shard.flash.commit(lsn).await?;
    let stock = Stock {
        n: to.n,
        next: to.oid - CHUNK,
        end: to.oid,
    };
    let mut fids = shard.meta.fids.borrow_mut();
    let held = fids.entry(target.id).or_default();
    if held.next >= held.end {
        *held = stock;
    }
    Ok(())
}
