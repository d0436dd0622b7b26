//! Where a file is at the origin, by its locator and those of the directories
//! above it (O2). The front's path plays no part.

use super::engine::Engine;
use super::{Shard, apply, origin};
use crate::base::codec::Bytes;
use crate::base::{Codec, Errno, Fid, Identity, Name};
use crate::namespace::record::flag;
use crate::namespace::{Inode, key};
use crate::origin::Place;
use crate::world::World;
use std::rc::Rc;

/// Directories above a file. A longer chain is a loop, which only rot can make.
const DEPTH_MAX: usize = 1 << 16;

/// Where the file is at the origin now. ENOENT while it is not there yet,
/// ESTALE if the box does not know it.
pub async fn place<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<Place, Errno> {
    let target = shard.target_of(fid)?.id;
    let engine = shard.writeback.engines.borrow().get(&target).cloned();
    if let Some(engine) = engine {
        stand_still(&engine).await;
    }
    place_now(shard, fid).await
}

/// [`place`] for the engine itself, which may be what moves a directory.
pub async fn place_now<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<Place, Errno> {
    let inode = inode(shard, fid).await?.ok_or(Errno::ESTALE)?;
    place_of(shard, fid, &inode).await
}

/// Waits while a directory is moving at an origin that finds files by names.
pub async fn stand_still(engine: &Engine) {
    loop {
        let progressed = engine.progressed.wait();
        if !engine.is_moving() {
            return;
        }
        progressed.await;
    }
}

pub async fn place_of<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    inode: &Inode,
) -> Result<Place, Errno> {
    let root = shard.target_of(fid)?.root;
    let identity = inode.locator.identity.clone();
    if fid != root && identity.is_none() {
        return Err(Errno::ENOENT);
    }
    let path = match way(shard, root, fid, inode).await {
        // No name of it is known (the origin has one that nobody asked about):
        // its handle finds it. The way is the root's, which is not this file.
        Err(Errno::ESTALE) if has_handle(identity.as_ref()) => Vec::new(),
        path => path?,
    };
    Ok(Place { identity, path })
}

fn has_handle(identity: Option<&Identity>) -> bool {
    identity.is_some_and(|identity| !identity.handle.0.is_empty())
}

/// Names from the root down to the inode.
async fn way<W: World>(
    shard: &Rc<Shard<W>>,
    root: Fid,
    fid: Fid,
    inode: &Inode,
) -> Result<Vec<Name>, Errno> {
    let mut path = Vec::new();
    let (mut fid, mut locator) = (fid, inode.locator.clone());
    while fid != root {
        path.push(locator.name.ok_or(Errno::ESTALE)?);
        fid = locator.parent;
        if fid.is_none() {
            path.push(origin::orphans_name());
            break;
        }
        if path.len() > DEPTH_MAX {
            return Err(Errno::ELOOP);
        }
        locator = self::inode(shard, fid).await?.ok_or(Errno::ESTALE)?.locator;
    }
    path.reverse();
    Ok(path)
}

/// Where a directory is that names are changed in. One that was made and
/// removed here and never reached the origin is made there after all: a later
/// removal of it is in the log.
pub async fn directory<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
) -> Result<Place, Errno> {
    if fid.is_none() {
        return Ok(origin::orphans());
    }
    let inode = inode(shard, fid).await?.ok_or(Errno::ESTALE)?;
    if inode.flags & flag::UNBORN != 0 && inode.attr.nlink == 0 {
        return Box::pin(apply::late_birth(shard, engine, fid)).await;
    }
    place_of(shard, fid, &inode).await
}

/// The inode as it is now, graves included; `None` if there is none.
pub async fn inode<W: World>(shard: &Shard<W>, fid: Fid) -> Result<Option<Inode>, Errno> {
    match shard.flash.get(&key::inode(fid)).await? {
        Some(bytes) => Inode::from_slice(&bytes).map(Some).map_err(|_| Errno::EIO),
        None => Ok(None),
    }
}

/// Whether somebody holds the nameless file open, or may yet reclaim it.
pub async fn is_kept<W: World>(shard: &Shard<W>, fid: Fid) -> Result<bool, Errno> {
    Ok(shard.flash.get(&key::orphan(fid)).await?.is_some())
}

/// Target of a symbolic link, as the origin's calls want it.
pub fn link_of(inode: &Inode) -> Option<Vec<u8>> {
    inode.link.clone().map(|Bytes(link)| link)
}
