//! Handlers of attributes and of the file system's numbers.

use super::call::{Call, Source, answered, answered_with, entry, entry_of};
use super::{import, inline, shown};
use crate::base::{Bits, Errno, Mono};
use crate::namespace::setattr::{self as set, Held};
use crate::origin::{OriginOp, OriginReply, Statfs};
use crate::shard::{Outgoing, Shard, Target, contact};
use crate::wire::Reply;
use crate::wire::locks::Of;
use crate::wire::op::{self, StatfsReply};
use crate::world::World;
use std::rc::Rc;
use std::time::Duration;

pub async fn getattr<W: World>(call: &Call<'_, W>, op: &op::OfFile) -> Result<Outgoing, Errno> {
    let (inode, source) = call
        .decide(|view| {
            let mut inode = call.inode(view, op.fid)?;
            let source = call.see(op.fid, Bits::ATTRS, &mut inode)?;
            if source == Source::Here {
                call.need(Of::Object, op.fid)?;
                call.grant_shown(op.fid);
            }
            Ok((inode, source))
        })
        .await?;
    let bytes = inline::bytes(call, op.fid, (&inode, source)).await;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    Ok(answered_with(entry(op.fid, &inode, false), bytes))
}

pub async fn setattr<W: World>(call: &Call<'_, W>, op: &op::Setattr) -> Result<Outgoing, Errno> {
    call.decide(|view| {
        let writer = super::opens::has_writer(call.export, op.fid);
        let held = Held { writer };
        let change = set::setattr(view, call.ctx(), op.fid, &op.set, held)?;
        let out = call.seal(change, |change| entry_of(change, op.fid, false))?;
        call.grant(Of::Object, op.fid);
        Ok(out)
    })
    .await
}

/// What the origin said last, and when.
pub struct CachedStatfs {
    at: Mono,
    known: Statfs,
}

/// Numbers older than this are asked again; they are shown meanwhile.
const STATFS_AGE_MAX: Duration = Duration::from_secs(1);

pub async fn statfs<W: World>(call: &Call<'_, W>) -> Result<Outgoing, Errno> {
    let (shard, target) = (call.shard, &call.target);
    let cached = {
        let table = shard.meta.statfs.borrow();
        table.get(&target.id).map(|c| (c.at, c.known))
    };
    let known = match cached {
        Some((at, known)) => {
            let now = shard.world.now();
            let is_away = shard.contacts.of(target.id).away(now).is_some();
            if now - at > STATFS_AGE_MAX && !is_away {
                let (s, t) = (Rc::clone(shard), Rc::clone(target));
                // Noted first, so that one task asks, however many come.
                note_statfs(shard, target, known);
                shard.world.spawn(async move {
                    // A failure leaves the old numbers for another second.
                    let _ = ask_statfs(&s, &t).await;
                });
            }
            known
        }
        None => contact::unless_away(shard, target, ask_statfs(shard, target)).await??,
    };
    let reply = StatfsReply {
        bsize: known.bsize,
        blocks: known.blocks,
        bfree: known.bfree,
        bavail: known.bavail,
        files: known.files,
        ffree: known.ffree,
        namelen: known.namelen,
    };
    Ok(answered(Reply::Statfs(reply)))
}

async fn ask_statfs<W: World>(shard: &Rc<Shard<W>>, target: &Target) -> Result<Statfs, Errno> {
    match import::call(shard, target, || OriginOp::Statfs).await? {
        OriginReply::Statfs(known) => {
            note_statfs(shard, target, known);
            Ok(known)
        }
        _ => Err(Errno::EIO),
    }
}

fn note_statfs<W: World>(shard: &Shard<W>, target: &Target, known: Statfs) {
    let at = shard.world.now();
    let mut table = shard.meta.statfs.borrow_mut();
    table.insert(target.id, CachedStatfs { at, known });
}
