//! What applications ask on a mount: the attribute that tells a file's custody,
//! and the wish to have the file at the origin.

use crate::base::codec::Bytes;
use crate::base::{Bits, Errno, Fid};
use crate::namespace::xattr;
use crate::shard::locks::Touch;
use crate::shard::meta::{Call, answered};
use crate::shard::{Outgoing, writeback};
use crate::wire::op::{Blob, Empty, XattrSet};
use crate::wire::{Features, Reply};
use crate::world::World;
use crate::world::race::within;
use std::time::Duration;

/// How long a wish holds its reply slot before it is answered that it goes on
/// (L6). Whoever wishes asks again.
const TURN: Duration = Duration::from_secs(1);

/// What can be wished.
const ORIGIN: &[u8] = b"origin";

const CREATE: u32 = libc::XATTR_CREATE as u32;
const REPLACE: u32 = libc::XATTR_REPLACE as u32;

/// getxattr(2) of the attribute. It grants nothing, calls nothing back, and is
/// good for this one answer.
///
/// # Errors
/// EACCES for who may not read the file; as [`super::of`].
pub async fn get<W: World>(call: &Call<'_, W>, fid: Fid) -> Result<Outgoing, Errno> {
    check_agreed(call)?;
    call.decide(|view| xattr::may_see_custody(view, call.ctx(), fid))
        .await?;
    let asker = Some(call.export.holder);
    let custody = super::of(call.shard, &call.target, fid, (asker, &[])).await?;
    let bytes = Bytes(custody.line().into_bytes());
    Ok(answered(Reply::Blob(Blob { bytes })))
}

/// setxattr(2): `origin` is answered when the origin has the file as it was when
/// this was asked, with its names.
///
/// # Errors
/// EINPROGRESS: it is being carried, ask again. EINVAL for another value, EEXIST
/// with XATTR_CREATE, EACCES or EROFS for who may not write the file; else what
/// the origin said, or that it is away.
pub async fn set<W: World>(call: &Call<'_, W>, op: &XattrSet) -> Result<Outgoing, Errno> {
    check_agreed(call)?;
    if op.flags & !(CREATE | REPLACE) != 0 || op.value.0 != ORIGIN {
        return Err(Errno::EINVAL);
    }
    if op.flags & CREATE != 0 {
        return Err(Errno::EEXIST);
    }
    let carried = within(&call.shard.world, TURN, carry(call, op.fid)).await;
    carried.unwrap_or(Err(Errno::EINPROGRESS))?;
    Ok(answered(Reply::Done(Empty {})))
}

async fn carry<W: World>(call: &Call<'_, W>, fid: Fid) -> Result<(), Errno> {
    let shard = call.shard;
    call.decide(|view| {
        call.check_export()?;
        xattr::may_wish_custody(view, call.ctx(), fid)?;
        // What another client has answered for the file is to be there, too.
        call.touch([Touch::see(fid, Bits::LOOKUP)])
    })
    .await?;
    shard.flash.commit(shard.applied.get()).await?;
    writeback::flush(shard, call.target.id, Some(fid)).await
}

fn check_agreed<W: World>(call: &Call<'_, W>) -> Result<(), Errno> {
    match call.export.has(Features::CUSTODY) {
        true => Ok(()),
        false => Err(Errno::EOPNOTSUPP),
    }
}
