//! Open files. An export holds its handles; the shard counts them over all
//! exports, so that the last close of a file without names lets it go (N9).
//! Who holds OPEN of a file opens and closes it without a word, so that counts
//! as open, too: it is called back when the last name goes, and the client
//! declares what it has open before it lets OPEN go.
//! After a restart clients declare their handles again, and what nobody
//! declared by the end of recovery is let go then.

use super::call::{Call, Source, answered, done, entry, entry_of};
use super::decide::own;
use super::{fids, inline, shown};
use crate::base::{Bits, Codec, Errno, Fid, FileKind, OpenId, SetAttr, TargetId};
use crate::flash::Peek;
use crate::namespace::key::{self, table};
use crate::namespace::record::flag;
use crate::namespace::setattr::{Held, setattr};
use crate::namespace::{Caller, Ctx, Inode, Stop, View, access, unlink};
use crate::shard::locks::Touch;
use crate::shard::session::Export;
use crate::shard::{Outgoing, Shard};
use crate::wire::locks::Of;
use crate::wire::op;
use crate::world::{Level, World};
use std::rc::Rc;
use std::time::Duration;

/// The kernel's own bit for "opened to be executed", which needs no read right.
const FMODE_EXEC: u32 = 0x20;
const TRUNC: u32 = libc::O_TRUNC as u32;
const ACCMODE: u32 = libc::O_ACCMODE as u32;

fn writes(flags: u32) -> bool {
    flags & ACCMODE != libc::O_RDONLY as u32
}

fn reads(flags: u32) -> bool {
    flags & ACCMODE != libc::O_WRONLY as u32
}

pub async fn open<W: World>(call: &Call<'_, W>, op: &op::Open) -> Result<Outgoing, Errno> {
    open_file(call, op.fid, op.open, op.flags).await
}

pub(super) async fn open_file<W: World>(
    call: &Call<'_, W>,
    fid: Fid,
    open: OpenId,
    flags: u32,
) -> Result<Outgoing, Errno> {
    let (mut out, seen) = call
        .decide(|view| {
            let inode = call.inode(view, fid)?;
            call.touch([Touch::see(fid, Bits::ATTRS)])?;
            may_open(call, view, fid, &inode, flags)?;
            let truncates = flags & TRUNC != 0 && inode.attr.kind == FileKind::Regular;
            let mut seen = None;
            let out = if truncates {
                let set = SetAttr {
                    size: Some(0),
                    ..SetAttr::default()
                };
                let held = Held { writer: true };
                let change = setattr(view, call.ctx(), fid, &set, held)?;
                call.seal(change, |change| entry_of(change, fid, false))?
            } else {
                answered(entry(fid, seen.insert(inode), false))
            };
            note(call.shard, call.export, open, (fid, flags));
            call.grant(Of::Object, fid);
            Ok((out, seen))
        })
        .await?;
    if let (Some(inode), Ok((_, bytes))) = (seen, &mut out.result) {
        *bytes = inline::bytes(call, fid, (&inode, Source::Here)).await;
    }
    shown::settle(call.shard, call.incoming, fid).await?;
    Ok(out)
}

/// The refusals of `may_open`, in its order. A file without names that nobody
/// has open is gone, bytes and all, though its record may still be here.
fn may_open<W: World>(
    call: &Call<'_, W>,
    view: &super::FlashView<'_, W>,
    fid: Fid,
    inode: &Inode,
    flags: u32,
) -> Result<(), Stop> {
    let changes = writes(flags) || flags & TRUNC != 0;
    if inode.flags & flag::ORPHAN != 0 && !view.is_open(fid) {
        return Err(Errno::ESTALE.into());
    }
    match inode.attr.kind {
        FileKind::Symlink => return Err(Errno::ELOOP.into()),
        FileKind::Directory if changes => return Err(Errno::EISDIR.into()),
        FileKind::Regular if changes && call.bounds.read_only => return Err(Errno::EROFS.into()),
        _ => {}
    }
    let mut want = 0;
    if changes {
        want |= access::WRITE;
    }
    if flags & FMODE_EXEC != 0 {
        want |= access::EXEC;
    } else if reads(flags) {
        want |= access::READ;
    }
    access::check(view, &call.bounds, &call.caller, fid, inode, want)
}

/// Notes a handle.
pub(super) fn note<W: World>(shard: &Shard<W>, export: &Export, open: OpenId, handle: (Fid, u32)) {
    let old = export.opens.borrow_mut().insert(open, handle);
    *shard.meta.opens.borrow_mut().entry(handle.0).or_default() += 1;
    if let Some((fid, _)) = old {
        uncount(shard, fid);
    }
}

/// One handle fewer; whether it was the last.
fn uncount<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    let mut opens = shard.meta.opens.borrow_mut();
    let Some(count) = opens.get_mut(&fid) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        opens.remove(&fid);
        return true;
    }
    false
}

/// A handle that a client got in a reply it never saw: noted again when the
/// reply is given again from its record.
pub fn opened<W: World>(shard: &Shard<W>, export: &Export, open: OpenId, fid: Fid, flags: u32) {
    let known = export.opens.borrow().contains_key(&open);
    if !known && open.0 > 0 {
        note(shard, export, open, (fid, flags));
    }
}

/// Handles that a client declares: after a restart, or because what let it
/// open the file without a word ends.
pub fn reopen<W: World>(shard: &Shard<W>, export: &Export, opens: &[op::OpenFile]) {
    let ours = |held: &&op::OpenFile| fids::belongs(held.fid, export.target);
    for held in opens.iter().filter(ours) {
        opened(shard, export, held.open, held.fid, held.flags);
    }
}

/// CLOSE never fails: a handle that is not there was closed before.
pub async fn close<W: World>(call: &Call<'_, W>, op: &op::Close) -> Result<Outgoing, Errno> {
    let handle = call.export.opens.borrow_mut().remove(&op.open);
    if let Some((fid, _)) = handle
        && uncount(call.shard, fid)
    {
        release(call.shard, call.target.id, fid).await;
    }
    Ok(answered(done()))
}

/// Closes all that an export has open: the client left or was evicted.
pub async fn close_all<W: World>(shard: &Rc<Shard<W>>, export: &Export) {
    let handles = std::mem::take(&mut *export.opens.borrow_mut());
    for (fid, _) in handles.into_values() {
        if uncount(shard, fid) {
            release(shard, export.target, fid).await;
        }
    }
}

/// No client may open the file without a word any more: it goes, if it has no
/// names and nobody has declared a handle.
pub fn unopened<W: World>(shard: &Rc<Shard<W>>, fid: Fid) {
    let shard = Rc::clone(shard);
    let world = shard.world.clone();
    world.spawn(async move { release(&shard, target_of(fid), fid).await });
}

/// May clients open this without a word? A file that has names, and bytes. The
/// record is at hand wherever the file was just shown.
pub fn may_be_opened<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    let is_fit = |i: Inode| i.attr.kind == FileKind::Regular && i.flags & flag::ORPHAN == 0;
    peeked(shard, fid).is_some_and(is_fit)
}

/// Has this file changed within this time? Whoever made it stamped it, so a
/// clock that is far ahead says nothing.
pub fn changed_within<W: World>(shard: &Shard<W>, fid: Fid, time: Duration) -> bool {
    let now = shard.world.wall().nanos();
    let ago = |inode: Inode| now.abs_diff(inode.attr.ctime.nanos());
    peeked(shard, fid).is_some_and(|inode| ago(inode) <= time.as_nanos())
}

fn peeked<W: World>(shard: &Shard<W>, fid: Fid) -> Option<Inode> {
    let Peek::Found(bytes) = shard.flash.peek(&key::inode(fid)) else {
        return None;
    };
    Inode::from_slice(&bytes).ok()
}

fn target_of(fid: Fid) -> TargetId {
    TargetId(u32::try_from(fid.seq >> 32).unwrap_or(u32::MAX))
}

/// Lets the file go if it has no names. What goes wrong is logged: the orphan
/// record stays, and the next start tries again.
async fn release<W: World>(shard: &Rc<Shard<W>>, target: TargetId, fid: Fid) {
    let Some(target) = shard.targets.borrow().get(&target).cloned() else {
        return;
    };
    let bounds = target.bounds();
    let released = own(shard, &target, |view| {
        let ctx = Ctx {
            caller: &Caller::ROOT,
            bounds: &bounds,
            now: shard.world.wall(),
        };
        unlink::release(view, ctx, fid)
    });
    if let Err(errno) = released.await {
        let line = format!("file {fid} without names stays: {errno}");
        shard.world.log(Level::Error, &line);
    }
}

/// Lets go all files without names that nobody holds open: at the end of the
/// recovery window, when every client that may hold one has said so.
pub async fn reap_orphans<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    let mut from = vec![table::ORPHAN];
    loop {
        let range = from.clone()..vec![table::ORPHAN + 1];
        let found = shard.flash.scan(range, 256).await?;
        let Some((last, _)) = found.last() else {
            return Ok(());
        };
        from = [last.as_slice(), &[0]].concat();
        for (key, _) in found {
            let Some(fid) = key::orphaned(&key) else {
                continue;
            };
            if !super::is_open(shard, fid) {
                release(shard, target_of(fid), fid).await;
            }
        }
    }
}

/// Whether the export has the file open for writing.
pub(super) fn has_writer(export: &Export, fid: Fid) -> bool {
    let opens = export.opens.borrow();
    opens.values().any(|(f, flags)| *f == fid && writes(*flags))
}

/// Has the export the file open, as far as the box knows, or may it have, by a
/// lock that lets it open the file without a word?
pub(super) fn may_have<W: World>(shard: &Shard<W>, export: &Export, fid: Fid) -> bool {
    holds(export, fid) || shard.locks.may_open(export.holder, fid)
}

/// Is the file known to be open, at other clients only?
pub fn is_open_elsewhere<W: World>(shard: &Shard<W>, export: &Export, fid: Fid) -> bool {
    let is_open = shard.meta.opens.borrow().contains_key(&fid);
    is_open && !may_have(shard, export, fid)
}

/// Whether the export has the file open.
pub(super) fn holds(export: &Export, fid: Fid) -> bool {
    export.opens.borrow().values().any(|(f, _)| *f == fid)
}

/// May the caller read (or write) the bytes? A handle says so, whatever the
/// mode is by now; without one the mode does. Any handle allows reading: to
/// write part of a block a client must read it.
pub fn may_use<W: World>(
    call: &Call<'_, W>,
    view: &super::FlashView<'_, W>,
    (fid, inode): (Fid, &Inode),
    open: OpenId,
    write: bool,
) -> Result<(), Stop> {
    let handle = call.export.opens.borrow().get(&open).copied();
    match handle {
        Some((of, flags)) if of == fid && (!write || writes(flags)) => Ok(()),
        _ if write && has_writer(call.export, fid) => Ok(()),
        _ => {
            let want = if write { access::WRITE } else { access::READ };
            access::check(view, &call.bounds, &call.caller, fid, inode, want)
        }
    }
}
