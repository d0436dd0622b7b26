//! Removing names and directories.

use super::access;
use super::draft::{Change, Draft, stamp};
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

/// Nobody holds `fid` open any more: if it has no names, its contents go. The
/// inode goes with them unless write-back still has to carry out its removal
/// (its record follows when that is done). `None`: it lives, or others have it open.
pub fn release(view: &impl View, ctx: Ctx<'_>, fid: Fid) -> Result<Option<Change>, Stop> {
    let Some(mut inode) = view.inode(fid)? else {
        return Ok(None);
    };
    if inode.flags & flag::ORPHAN == 0 || view.is_open(fid) {
        return Ok(None);
    }
    let mut draft = Draft::new(view);
    stamp(&mut inode, ctx.now);
    draft.forget_contents(fid, &mut inode)?;
    draft.change.orphans.push((fid, false));
    let at_origin = inode.locator.identity.clone();
    match (
        inode.flags & flag::UNNAMED != 0,
        at_origin,
        &inode.locator.name,
    ) {
        (true, Some(identity), Some(name)) => {
            // It waits among the orphans at the origin.
            draft.change.owed.push(OwedOp::Unlink(OwedUnlink {
                parent: inode.locator.parent,
                name: name.clone(),
                fid,
                dir: false,
                last: true,
                identity: Some(identity),
            }));
            draft.put(fid, inode);
        }
        (true, identity, _) => draft.change.forgotten.push((fid, identity)),
        (false, _, _) => draft.put(fid, inode),
    }
    Ok(Some(draft.change))
}
