//! New FIDs. A target's sequences are `target << 32 | n`, so that a FID names
//! its target; within a sequence `oid` counts up. A mark on flash is raised
//! ahead of use, so that a crash never gives a FID twice (F9): what lay below
//! the mark and was not used is lost, which costs nothing. Clients are granted
//! some to create with ahead of the box, and which is remembered on flash, so
//! that none names a file by another's.

use super::call::{Call, answered};
use crate::base::{ClientId, Codec, Errno, Fid, TargetId};
use crate::flash::Tx;
use crate::namespace::{Bounds, Need, key};
use crate::record;
use crate::shard::{Outgoing, Shard, Target};
use crate::wire::{FidRange, FidsGranted, FidsWanted, Holds, Reply};
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

/// Most that a client is granted at a time.
const GRANT_MAX: u32 = 4096;
/// Grants of a client that are remembered: it uses them up in order, and has
/// asked for the next by the time.
const GRANTS_MAX: usize = 8;

record! {
    /// What one client was granted last, oldest first.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Grants { pub ranges: Vec<FidRange> }
}

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

/// The next FID and its inode number, without taking it.
pub fn next<W: World>(shard: &Shard<W>, target: &Target) -> Result<(Fid, u64), Need> {
    let fids = shard.meta.fids.borrow();
    match fids.get(&target.id) {
        Some(stock) if stock.next < stock.end => {
            let fid = Fid::new(sequence(target.id, stock.n), stock.next);
            Ok((fid, fid.born_ino()))
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

/// Grants FIDs to a client, and remembers that on flash before it says so (F9).
pub async fn grant<W: World>(call: &Call<'_, W>, wanted: &FidsWanted) -> Result<Outgoing, Errno> {
    let (shard, target, client) = (call.shard, &call.target, call.incoming.client);
    crate::shard::session::want(call.export);
    let mut grants = grants(shard, client).await?;
    let range = loop {
        match take(shard, target, wanted.count.clamp(1, GRANT_MAX)) {
            Some(range) => break range,
            None => reserve(shard, target).await?,
        }
    };
    grants.ranges.push(range);
    let extra = grants.ranges.len().saturating_sub(GRANTS_MAX);
    grants.ranges.drain(..extra);
    let mut tx = Tx::default();
    tx.put(key::fids(client), grants.to_vec());
    let lsn = shard.apply(tx)?;
    shard.flash.commit(lsn).await?;
    let holds = holds(&call.bounds);
    Ok(answered(Reply::Fids(FidsGranted { range, holds })))
}

fn holds(bounds: &Bounds) -> Holds {
    Holds {
        read_only: bounds.read_only,
        name_max: u32::try_from(bounds.name_max).unwrap_or(u32::MAX),
        link_max: bounds.link_max,
        file_size_max: bounds.file_size_max,
        owners: bounds.owners,
        special_files: bounds.special_files,
        symlinks: bounds.symlinks,
        hard_links: bounds.hard_links,
        xattrs: bounds.xattrs,
        acls: bounds.acls,
    }
}

fn take<W: World>(shard: &Shard<W>, target: &Target, count: u32) -> Option<FidRange> {
    let mut fids = shard.meta.fids.borrow_mut();
    let stock = fids.get_mut(&target.id).filter(|s| s.next < s.end)?;
    let range = FidRange {
        seq: sequence(target.id, stock.n),
        first: stock.next,
        count: count.min(stock.end - stock.next),
    };
    stock.next += range.count;
    Some(range)
}

async fn grants<W: World>(shard: &Shard<W>, client: ClientId) -> Result<Grants, Errno> {
    match shard.flash.get(&key::fids(client)).await? {
        Some(bytes) => Grants::from_slice(&bytes).map_err(|_| Errno::EIO),
        None => Ok(Grants::default()),
    }
}

/// EINVAL for a FID that the client was not granted.
pub async fn check_granted<W: World>(call: &Call<'_, W>, fid: Fid) -> Result<(), Errno> {
    let grants = grants(call.shard, call.incoming.client).await?;
    match grants.ranges.iter().any(|range| range.contains(fid)) {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    }
}
