//! What the origin has lost and the box still has. The origin's host may lose
//! power while the box lives: names that it had answered for, and not synced,
//! are gone then. A batch that an absence of the origin may have overtaken is
//! applied again before it is noted (`batch`); what slipped through, because
//! the origin was away for a moment only, is found here when a call for it
//! fails with ESTALE.

use super::engine::Engine;
use super::{Shard, apply, locate, origin};
use crate::base::{Errno, Fid, FileKind};
use crate::namespace::{Inode, OwedOp};
use crate::origin::OriginOp;
use crate::shard::data;
use crate::world::{Level, World};
use std::rc::Rc;

/// Directories above a lost file that may be lost with it.
const DEPTH_MAX: usize = 64;

/// A record failed because something it needs is not where it should be. True
/// if something of that was lost, and is there again.
pub async fn mend_for<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    seq: u64,
    op: &OwedOp,
) -> Result<bool, Errno> {
    // The record is the first in line for all of these, so none is on its way
    // elsewhere by another one.
    let fids = match op {
        OwedOp::Create(o) => vec![o.parent],
        OwedOp::Link(o) => vec![o.parent, o.fid],
        OwedOp::Unlink(o) => vec![o.parent],
        OwedOp::Rename(o) => vec![o.from, o.to, o.fid],
    };
    for fid in fids {
        if mend(shard, engine, fid, Some(seq)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file was not found where it should be at the origin, by its identity or
/// by its names. If nothing stands at its name, and all of it is here, it is
/// made again. True if it is, or a directory above it was. `own` is the record
/// that missed it, if one did.
pub async fn mend<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    own: Option<u64>,
) -> Result<bool, Errno> {
    let Some((lost, inode)) = topmost(shard, engine, fid, own).await? else {
        return Ok(false);
    };
    if !is_all_here(shard, lost, &inode).await? {
        let line = format!(
            "target {}: the origin has lost file {lost}, and bytes of it that it had synced: \
             it cannot be made again from here",
            engine.target
        );
        shard.world.log(Level::Error, &line);
        return Ok(false);
    }
    let line = format!(
        "target {}: the origin has lost {} {lost}, which it had acknowledged: made again",
        engine.target,
        match inode.attr.kind {
            FileKind::Directory => "directory",
            _ => "file",
        }
    );
    shard.world.log(Level::Warn, &line);
    apply::rebirth(shard, engine, lost).await?;
    Ok(true)
}

/// The highest directory on the way to the file that is lost, or the file.
/// `None`: nothing is lost, or it cannot be told.
async fn topmost<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    own: Option<u64>,
) -> Result<Option<(Fid, Inode)>, Errno> {
    let next = shard.writeback.next.get().unwrap_or(0);
    let root = shard.target_of(fid)?.root;
    let mut lost = None;
    let mut fid = fid;
    for _ in 0..DEPTH_MAX {
        if fid == root || fid.is_none() || engine.is_on_its_way(fid, own, next) {
            return Ok(lost);
        }
        let Some(inode) = locate::inode(shard, fid).await? else {
            return Ok(lost);
        };
        if inode.locator.identity.is_none() || inode.locator.name.is_none() {
            return Ok(lost);
        }
        let place = locate::place_of(shard, fid, &inode).await?;
        match origin::found(shard, engine.target, OriginOp::Stat { place }).await {
            Err(Errno::ESTALE | Errno::ENOENT) => {}
            _ => return Ok(lost),
        }
        let above = inode.locator.parent;
        lost = Some((fid, inode));
        fid = above;
    }
    Ok(lost)
}

/// Nothing of it is only at the origin, or was there for certain.
async fn is_all_here<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    inode: &Inode,
) -> Result<bool, Errno> {
    match inode.attr.kind {
        FileKind::Regular => data::is_all_dirty(shard, fid).await,
        _ => Ok(true),
    }
}
