//! The origin's calls, typed: one function a call, errors as errno.

use super::{Shard, contact};
use crate::base::Fid;
use crate::base::{Errno, Identity, Locator, Name, TargetId};
use crate::origin::{Found, ORPHANS, OriginOp, OriginReply, Place};
use crate::world::World;

pub async fn call<W: World>(shard: &Shard<W>, target: TargetId, op: OriginOp) -> OriginReply {
    contact::call(shard, target, op).await
}

/// For calls that only succeed or fail.
pub async fn done<W: World>(shard: &Shard<W>, target: TargetId, op: OriginOp) -> Result<(), Errno> {
    match call(shard, target, op).await {
        OriginReply::Done | OriginReply::Found(_) => Ok(()),
        OriginReply::Failed(e) => Err(e),
        _ => Err(Errno::EIO),
    }
}

/// For calls that show a file; `None` if it is not there.
pub async fn found<W: World>(
    shard: &Shard<W>,
    target: TargetId,
    op: OriginOp,
) -> Result<Option<Found>, Errno> {
    match call(shard, target, op).await {
        OriginReply::Found(found) => Ok(Some(*found)),
        OriginReply::Absent => Ok(None),
        OriginReply::Failed(e) => Err(e),
        _ => Err(Errno::EIO),
    }
}

pub async fn bytes<W: World>(
    shard: &Shard<W>,
    target: TargetId,
    op: OriginOp,
) -> Result<Vec<u8>, Errno> {
    match call(shard, target, op).await {
        OriginReply::Bytes(bytes) => Ok(bytes),
        OriginReply::Failed(e) => Err(e),
        _ => Err(Errno::EIO),
    }
}

/// The hidden directory of files that are open without a name (O4).
pub fn orphans() -> Place {
    Place {
        identity: None,
        path: vec![orphans_name()],
    }
}

pub fn orphans_name() -> Name {
    Name::new(ORPHANS).expect("a constant name")
}

/// What a file is called there.
pub fn orphan_name(fid: Fid) -> Name {
    let name = format!("{:016x}-{:08x}-{:08x}", fid.seq, fid.oid, fid.ver);
    Name::new(name.as_bytes()).expect("hexadecimal digits")
}

/// Without a parent, and so below [`ORPHANS`].
pub fn orphan_locator(fid: Fid, identity: Identity) -> Locator {
    Locator {
        parent: Fid::NONE,
        name: Some(orphan_name(fid)),
        identity: Some(identity),
    }
}
