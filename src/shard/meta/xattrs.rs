//! Handlers of extended attributes.

use super::call::{Call, Source, answered, done};
use super::shown;
use crate::base::Errno;
use crate::base::codec::Bytes;
use crate::namespace::{Stop, xattr};
use crate::shard::Outgoing;
use crate::wire::Reply;
use crate::wire::locks::Of;
use crate::wire::op::{self, Blob};
use crate::world::World;

pub async fn xattr_get<W: World>(
    call: &Call<'_, W>,
    op: &op::XattrName,
) -> Result<Outgoing, Errno> {
    let value = call
        .decide(|view| {
            let source = call.see_xattrs(op.fid, &call.inode(view, op.fid)?)?;
            let value = xattr::get(view, call.ctx(), op.fid, &op.name.0);
            let is_told = matches!(value, Ok(_) | Err(Stop::Refused(Errno::ENODATA)));
            if is_told && source == Source::Here {
                call.grant(Of::Object, op.fid);
            }
            value
        })
        .await?;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    let bytes = Bytes(value.to_vec());
    Ok(answered(Reply::Blob(Blob { bytes })))
}

pub async fn xattr_list<W: World>(call: &Call<'_, W>, op: &op::OfFile) -> Result<Outgoing, Errno> {
    let names = call
        .decide(|view| {
            let source = call.see_xattrs(op.fid, &call.inode(view, op.fid)?)?;
            let names = xattr::list(view, call.ctx(), op.fid)?;
            if source == Source::Here {
                call.grant(Of::Object, op.fid);
            }
            Ok(names)
        })
        .await?;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    let bytes = Bytes(names);
    Ok(answered(Reply::Blob(Blob { bytes })))
}

pub async fn xattr_set<W: World>(call: &Call<'_, W>, op: &op::XattrSet) -> Result<Outgoing, Errno> {
    let set = xattr::Set {
        name: &op.name.0,
        value: &op.value.0,
        flags: op.flags,
        clear_sgid: op.clear_sgid,
    };
    call.decide(|view| {
        let change = xattr::set(view, call.ctx(), op.fid, set)?;
        call.seal(change, |_| done())
    })
    .await
}

pub async fn xattr_remove<W: World>(
    call: &Call<'_, W>,
    op: &op::XattrName,
) -> Result<Outgoing, Errno> {
    call.decide(|view| {
        let change = xattr::remove(view, call.ctx(), op.fid, &op.name.0)?;
        call.seal(change, |_| done())
    })
    .await
}
