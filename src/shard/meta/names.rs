//! Handlers of operations on names.

use super::call::{Call, Source, answered, answered_with, done, entry, entry_of, refused};
use super::{FlashView, fids, inline, opens, shown};
use crate::base::codec::Bytes;
use crate::base::{Bits, Errno, FileKind};
use crate::namespace::create::{self, Created, New};
use crate::namespace::{
    Stop, View, entry as entries, link as links, rename as renames, unlink as unlinks,
};
use crate::shard::Outgoing;
use crate::shard::locks::Touch;
use crate::wire::Reply;
use crate::wire::locks::Of;
use crate::wire::op::{self, Blob};
use crate::world::World;

pub async fn lookup<W: World>(call: &Call<'_, W>, op: &op::Named) -> Result<Outgoing, Errno> {
    let (parent, name) = (op.parent, &op.name);
    let found = call
        .decide(|view| {
            call.touch([Touch::see(parent, Bits::ATTRS)])?;
            let found = entries::lookup(view, call.ctx(), parent, name);
            if found == Err(Stop::Refused(Errno::ENOENT)) {
                call.grant(Of::Parent, parent);
            }
            let fid = found?;
            let mut inode = call.inode(view, fid)?;
            let source = call.see(fid, Bits::LOOKUP.with(Bits::ATTRS), &mut inode)?;
            if source == Source::Here {
                call.grant_named(parent, fid);
            }
            call.grant(Of::Parent, parent);
            Ok((fid, inode, source))
        })
        .await;
    match call.is_granted(parent) {
        true => shown::settle(call.shard, call.incoming, parent).await?,
        false => shown::settle_names(call.shard, call.incoming, parent).await?,
    }
    if found == Err(Errno::ENOENT) {
        return Ok(refused(Errno::ENOENT));
    }
    let (fid, inode, source) = found?;
    let bytes = inline::bytes(call, fid, (&inode, source)).await;
    shown::settle(call.shard, call.incoming, fid).await?;
    Ok(answered_with(entry(fid, &inode, false), bytes))
}

pub async fn create<W: World>(call: &Call<'_, W>, op: &op::Create) -> Result<Outgoing, Errno> {
    let reserved = |name| call.is_reserved(op.parent, name);
    if op.name.as_ref().is_some_and(reserved) {
        return Err(Errno::EPERM);
    }
    let new = New {
        parent: op.parent,
        name: op.name.as_ref(),
        kind: op.kind,
        mode: op.mode,
        umask: u32::from(call.incoming.head.umask),
        rdev: op.rdev,
        link: &op.link.0,
        exclusive: op.exclusive,
    };
    let opens = op.open.0 > 0 && op.kind == FileKind::Regular;
    let given = call.given();
    if let Some(fid) = given {
        call.check_fid(fid)?;
        if !call.is_replay() {
            fids::check_granted(call, fid).await?;
        }
    }
    let made = call
        .decide(|view| match create::create(view, call.ctx(), &new)? {
            Created::New(fid, _) if given.is_some() && view.inode(fid)?.is_some() => {
                Err(Errno::EEXIST.into())
            }
            Created::New(fid, change) => {
                let out = call.seal(*change, |change| entry_of(change, fid, true))?;
                if opens {
                    opens::note(call.shard, call.export, op.open, (fid, op.flags));
                }
                call.grant(Of::Object, fid);
                call.grant(Of::Parent, op.parent);
                Ok(Ok(out))
            }
            Created::There(fid) => Ok(Err(fid)),
        })
        .await?;
    match made {
        Ok(out) => Ok(out),
        Err(fid) if opens => opens::open_file(call, fid, op.open, op.flags).await,
        Err(fid) => {
            let shown = |view: &FlashView<'_, W>| {
                let inode = call.inode(view, fid)?;
                call.touch([Touch::see(fid, Bits::ATTRS)])?;
                call.grant(Of::Object, fid);
                Ok(inode)
            };
            let inode = call.decide(shown).await?;
            shown::settle(call.shard, call.incoming, fid).await?;
            Ok(answered(entry(fid, &inode, false)))
        }
    }
}

pub async fn link<W: World>(call: &Call<'_, W>, op: &op::Link) -> Result<Outgoing, Errno> {
    call.check_fid(op.parent)?;
    if call.is_reserved(op.parent, &op.name) {
        return Err(Errno::EPERM);
    }
    call.decide(|view| {
        let change = links::link(view, call.ctx(), op.fid, op.parent, &op.name)?;
        let out = call.seal(change, |change| entry_of(change, op.fid, false))?;
        call.grant(Of::Object, op.fid);
        Ok(out)
    })
    .await
}

pub async fn unlink<W: World>(call: &Call<'_, W>, op: &op::Unlink) -> Result<Outgoing, Errno> {
    call.decide(|view| {
        let change = unlinks::unlink(view, call.ctx(), op.parent, &op.name, op.dir)?;
        let out = call.seal(change, |_| done())?;
        call.grant(Of::Parent, op.parent);
        Ok(out)
    })
    .await
}

pub async fn rename<W: World>(call: &Call<'_, W>, op: &op::Rename) -> Result<Outgoing, Errno> {
    call.check_fid(op.to)?;
    if call.is_reserved(op.to, &op.to_name) {
        return Err(Errno::EPERM);
    }
    let mv = renames::Move {
        from: op.from,
        from_name: &op.from_name,
        to: op.to,
        to_name: &op.to_name,
        flags: op.flags,
    };
    call.decide(|view| match renames::rename(view, call.ctx(), &mv)? {
        Some(change) => call.seal(change, |_| done()),
        None => Ok(answered(done())),
    })
    .await
}

pub async fn readlink<W: World>(call: &Call<'_, W>, op: &op::OfFile) -> Result<Outgoing, Errno> {
    let inode = call.decide(|view| call.inode(view, op.fid)).await?;
    let Bytes(bytes) = inode.link.ok_or(Errno::EINVAL)?;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    let bytes = Bytes(bytes);
    Ok(answered(Reply::Blob(Blob { bytes })))
}
