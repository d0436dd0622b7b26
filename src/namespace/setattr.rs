//! Changing attributes.

use super::access;
use super::draft::{Change, Draft, stamp};
use super::record::{Inode, flag};
use super::view::{Ctx, Stop, View};
use super::xattr;
use crate::base::{Errno, Fid, FileKind, SetAttr, Time};

/// What the caller holds besides its credential.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// It has the file open for writing, so that it may set the size whatever
    /// the mode says now.
    pub writer: bool,
}

/// The change; its `truncated` has the new size for the data path.
pub fn setattr(
    view: &impl View,
    ctx: Ctx<'_>,
    fid: Fid,
    set: &SetAttr,
    held: Held,
) -> Result<Change, Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    ctx.writable()?;
    allowed(view, ctx, fid, &inode, set, held)?;
    let mut draft = Draft::new(view);
    let mut next = inode.clone();
    let now = stamp(&mut next, ctx.now);
    next.attr.uid = set.uid.unwrap_or(next.attr.uid);
    next.attr.gid = set.gid.unwrap_or(next.attr.gid);
    if let Some(mode) = set.mode {
        next.attr.mode = mode & 0o7777;
        if mode & libc::S_ISGID != 0 && !ctx.caller.keeps_setgid(next.attr.gid) {
            next.attr.mode &= !libc::S_ISGID;
        }
        draft.follow_mode(fid, &mut next)?;
    }
    let owner_changed = set.uid.is_some() || set.gid.is_some();
    let strips = set.kill_priv || owner_changed || set.size.is_some() && !ctx.caller.is_root();
    if strips && next.attr.kind != FileKind::Directory {
        strip(&mut draft, ctx, fid, &mut next, set.mode.is_none())?;
    }
    times(&mut next, set, now);
    if let Some(size) = set.size {
        next.attr.mtime = set.mtime.unwrap_or(now);
        draft.change.truncated = Some((fid, size));
    }
    let kept = |a: &Inode| {
        (
            a.attr.mode,
            a.attr.uid,
            a.attr.gid,
            a.attr.atime,
            a.attr.mtime,
        )
    };
    if kept(&inode) != kept(&next) {
        draft.owe_state(fid, &mut next, flag::ATTRS_OWED);
    }
    draft.put(fid, next);
    Ok(draft.change)
}

/// The refusals of `setattr_prepare`, in its order.
fn allowed(
    view: &impl View,
    ctx: Ctx<'_>,
    fid: Fid,
    inode: &Inode,
    set: &SetAttr,
    held: Held,
) -> Result<(), Stop> {
    let (caller, bounds) = (ctx.caller, ctx.bounds);
    let denied = Err(Errno::EPERM.into());
    if let Some(size) = set.size {
        match inode.attr.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
        if !held.writer {
            access::check(view, bounds, caller, fid, inode, access::WRITE)?;
        }
        if size > bounds.file_size_max {
            return Err(Errno::EFBIG.into());
        }
    }
    let owner = caller.uid == inode.attr.uid;
    if let Some(uid) = set.uid
        && !(caller.is_root() || owner && uid == inode.attr.uid)
    {
        return denied;
    }
    if let Some(gid) = set.gid {
        let own_group = caller.in_group(gid) || gid == inode.attr.gid;
        if !(caller.is_root() || owner && own_group) {
            return denied;
        }
    }
    let gives_away = set.uid.is_some_and(|uid| uid != inode.attr.uid)
        || set.gid.is_some_and(|gid| gid != inode.attr.gid);
    if gives_away && !bounds.owners {
        return denied;
    }
    if set.mode.is_some() && !caller.owns(inode) {
        return denied;
    }
    if set.size.is_none() {
        may_touch(view, ctx, fid, inode, set)?;
    }
    Ok(())
}

/// Times: the owner may set any; whoever may write may set both to "now". With
/// a new size the times come along and need no right of their own.
fn may_touch(
    view: &impl View,
    ctx: Ctx<'_>,
    fid: Fid,
    inode: &Inode,
    set: &SetAttr,
) -> Result<(), Stop> {
    let values = set.atime.is_some() || set.mtime.is_some();
    let now = set.atime_now || set.mtime_now;
    if !values && !now || ctx.caller.owns(inode) {
        return Ok(());
    }
    if values || !(set.atime_now && set.mtime_now) {
        return Err(Errno::EPERM.into());
    }
    access::check(view, ctx.bounds, ctx.caller, fid, inode, access::WRITE)
}

/// Takes setuid, setgid and capabilities away (L11); the mode only if the
/// request did not set one itself.
pub fn strip<V: View>(
    draft: &mut Draft<'_, V>,
    ctx: Ctx<'_>,
    fid: Fid,
    inode: &mut Inode,
    with_mode: bool,
) -> Result<(), Stop> {
    if with_mode {
        let mode = access::stripped(inode.attr.mode, inode.attr.gid, ctx.caller);
        if mode != inode.attr.mode {
            inode.attr.mode = mode;
            draft.owe_state(fid, inode, flag::ATTRS_OWED);
        }
    }
    // Capabilities that were never fetched are fetched first: they must go, too.
    if ctx.bounds.xattrs && xattr::value(draft, fid, inode, xattr::CAPABILITY)?.is_some() {
        xattr::erase(draft, fid, inode, xattr::CAPABILITY)?;
    }
    Ok(())
}

fn times(next: &mut Inode, set: &SetAttr, now: Time) {
    if set.atime_now {
        next.attr.atime = now;
    } else if let Some(at) = set.atime {
        next.attr.atime = at;
    }
    if set.mtime_now {
        next.attr.mtime = now;
    } else if let Some(at) = set.mtime {
        next.attr.mtime = at;
    }
}
