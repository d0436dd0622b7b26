//! Removing names and directories.

use super::access;
use super::draft::{Change, Draft};
use super::entry;
use super::record::{Dirent, Inode, OwedOp, OwedUnlink, flag};
use super::view::{Ctx, Need, Stop, View};
use crate::base::{Errno, Fid, FileKind, Name};

/// unlink(2), or rmdir(2) with `is_dir`.
pub fn unlink(
    view: &impl View,
    ctx: Ctx<'_>,
    parent: Fid,
    name: &Name,
    is_dir: bool,
) -> Result<Change, Stop> {
    ctx.writable()?;
    let dir = entry::directory(view, parent)?;
    access::check(view, ctx.bounds, ctx.caller, parent, &dir, access::EXEC)?;
    ctx.name_fits(name)?;
    let slot = entry::find(view, parent, &dir, name)?;
    let there = slot.live().ok_or(Errno::ENOENT)?;
    let victim = view.inode(there.fid)?.ok_or(Errno::ESTALE)?;
    may_delete(view, ctx, (parent, &dir), &victim)?;
    match (is_dir, victim.attr.kind == FileKind::Directory) {
        (true, false) => return Err(Errno::ENOTDIR.into()),
        (false, true) => return Err(Errno::EISDIR.into()),
        (true, true) => is_empty(there.fid, &victim)?,
        (false, false) => {}
    }
    let mut draft = Draft::new(view);
    let complete = dir.flags & flag::COMPLETE != 0;
    entry::remove(&mut draft, parent, complete, slot.cookie(), there.clone())?;
    draft.edit_dir(parent, ctx.now, -1, -i32::from(is_dir))?;
    let last = draft.drop_name(there.fid, is_dir, ctx.now)?;
    draft.change.owed.push(owed(parent, there, &victim, last));
    Ok(draft.change)
}

/// May the caller take `victim`'s name out of the directory? (`may_delete` of
/// the VFS, less the checks of type, which follow it.)
pub(super) fn may_delete(
    view: &impl View,
    ctx: Ctx<'_>,
    (fid, dir): (Fid, &Inode),
    victim: &Inode,
) -> Result<(), Stop> {
    let want = access::WRITE | access::EXEC;
    access::check(view, ctx.bounds, ctx.caller, fid, dir, want)?;
    access::sticky(ctx.caller, dir, victim)
}

/// ENOTEMPTY, or the need to see the origin's listing first: an entry that was
/// never listed keeps its directory alive, too.
pub(super) fn is_empty(fid: Fid, dir: &Inode) -> Result<(), Stop> {
    if dir.entries > 0 {
        return Err(Errno::ENOTEMPTY.into());
    }
    if dir.flags & flag::COMPLETE == 0 {
        return Err(Need::Listing(fid).into());
    }
    Ok(())
}

fn owed(parent: Fid, there: &Dirent, victim: &Inode, last: bool) -> OwedOp {
    OwedOp::Unlink(OwedUnlink {
        parent,
        name: there.name.clone(),
        fid: there.fid,
        dir: there.kind == FileKind::Directory,
        last,
        identity: victim.locator.identity.clone(),
    })
}
