//! Extended attributes. Values are records of their own; one more, under the
//! empty name, lists the names, so that a decision can see them all at once.

use super::access;
use super::acl::{self, Acl};
use super::draft::{Change, Draft, stamp};
use super::record::{Inode, flag};
use super::view::{Ctx, Need, Stop, View};
use crate::base::codec::{Bytes, Codec};
use crate::base::limits::{XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::base::{Errno, Fid, FileKind};
use std::rc::Rc;

pub const CAPABILITY: &[u8] = b"security.capability";
/// Where the list of names is kept.
pub const LIST: &[u8] = b"";

/// Not an attribute of any file: what it says is the box's own knowledge, and
/// true only now. It is never stored, listed, remembered, or asked of an origin.
pub const CUSTODY: &[u8] = b"user.forebay.custody";

/// The namespaces, each with rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    User,
    Trusted,
    Security,
    Acl,
}

fn space(name: &[u8]) -> Result<Space, Errno> {
    let under = |prefix: &[u8]| name.len() > prefix.len() && name.starts_with(prefix);
    if name == CUSTODY {
        Err(Errno::EOPNOTSUPP)
    } else if name == acl::ACCESS || name == acl::DEFAULT {
        Ok(Space::Acl)
    } else if under(b"user.") {
        Ok(Space::User)
    } else if under(b"trusted.") {
        Ok(Space::Trusted)
    } else if under(b"security.") {
        Ok(Space::Security)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

/// Is this a name that the box keeps? Others at the origin are not imported.
#[must_use]
pub fn is_kept(name: &[u8]) -> bool {
    space(name).is_ok() && name.len() <= XATTR_NAME_MAX
}

/// The stored value, with no rules applied.
pub fn value(
    view: &impl View,
    fid: Fid,
    inode: &Inode,
    name: &[u8],
) -> Result<Option<Rc<[u8]>>, Stop> {
    if inode.flags & flag::XATTRS_COMPLETE == 0 {
        return Err(Need::Xattrs(fid).into());
    }
    if inode.flags & flag::XATTRS == 0 {
        return Ok(None);
    }
    Ok(view.xattr(fid, name)?)
}

/// All names, with no rules applied.
pub fn names(view: &impl View, fid: Fid, inode: &Inode) -> Result<Vec<Bytes>, Stop> {
    match value(view, fid, inode, LIST)? {
        Some(bytes) => Ok(Vec::from_slice(&bytes).map_err(|_| Errno::EIO)?),
        None => Ok(Vec::new()),
    }
}

/// getxattr(2): ENODATA if it is not there or not for the caller.
pub fn get(view: &impl View, ctx: Ctx<'_>, fid: Fid, name: &[u8]) -> Result<Rc<[u8]>, Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE.into());
    }
    match supported(ctx, &inode, name)? {
        Space::User => {
            if !has_user_xattrs(&inode) {
                return Err(Errno::ENODATA.into());
            }
            access::check(view, ctx.bounds, ctx.caller, fid, &inode, access::READ)?;
        }
        Space::Trusted if !ctx.caller.is_root() => return Err(Errno::ENODATA.into()),
        _ => {}
    }
    Ok(value(view, fid, &inode, name)?.ok_or(Errno::ENODATA)?)
}

/// listxattr(2): names, each followed by a NUL.
pub fn list(view: &impl View, ctx: Ctx<'_>, fid: Fid) -> Result<Vec<u8>, Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    if !ctx.bounds.xattrs {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for Bytes(name) in names(view, fid, &inode)? {
        let is_shown = match space(&name) {
            Ok(Space::Trusted) => ctx.caller.is_root(),
            Ok(_) => true,
            // A release that did not reserve it may have stored it.
            Err(_) => name != CUSTODY,
        };
        if is_shown {
            out.extend_from_slice(&name);
            out.push(0);
        }
    }
    Ok(out)
}

/// A setxattr(2) as it was asked.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    /// XATTR_CREATE, XATTR_REPLACE.
    pub flags: u32,
    pub clear_sgid: bool,
}

const CREATE: u32 = libc::XATTR_CREATE as u32;
const REPLACE: u32 = libc::XATTR_REPLACE as u32;

pub fn set(view: &impl View, ctx: Ctx<'_>, fid: Fid, set: Set<'_>) -> Result<Change, Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    if set.name.is_empty() || set.name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE.into());
    }
    if set.value.len() > XATTR_VALUE_MAX {
        return Err(Errno::E2BIG.into());
    }
    if set.flags & !(CREATE | REPLACE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let space = may_change(view, ctx, fid, &inode, set.name)?;
    let mut draft = Draft::new(view);
    let mut next = inode.clone();
    stamp(&mut next, ctx.now);
    if space == Space::Acl {
        set_acl(&mut draft, ctx, fid, &mut next, &set)?;
    } else {
        let there = value(&draft, fid, &next, set.name)?.is_some();
        match (there, set.flags & CREATE != 0, set.flags & REPLACE != 0) {
            (true, true, _) => return Err(Errno::EEXIST.into()),
            (false, _, true) => return Err(Errno::ENODATA.into()),
            _ => store(&mut draft, fid, &mut next, set.name, set.value)?,
        }
    }
    draft.put(fid, next);
    Ok(draft.change)
}

pub fn remove(view: &impl View, ctx: Ctx<'_>, fid: Fid, name: &[u8]) -> Result<Change, Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE.into());
    }
    let space = may_change(view, ctx, fid, &inode, name)?;
    let mut draft = Draft::new(view);
    let mut next = inode.clone();
    stamp(&mut next, ctx.now);
    if value(&draft, fid, &next, name)?.is_some() {
        erase(&mut draft, fid, &mut next, name)?;
    } else if space != Space::Acl {
        return Err(Errno::ENODATA.into());
    }
    draft.put(fid, next);
    Ok(draft.change)
}

/// May the caller ask where a file's newest bytes are safe? As for any other
/// `user.` attribute: who may read the file.
pub fn may_see_custody(view: &impl View, ctx: Ctx<'_>, fid: Fid) -> Result<(), Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    access::check(view, ctx.bounds, ctx.caller, fid, &inode, access::READ)
}

/// May the caller have it carried to the origin? Who may write the file.
pub fn may_wish_custody(view: &impl View, ctx: Ctx<'_>, fid: Fid) -> Result<(), Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    ctx.writable()?;
    access::check(view, ctx.bounds, ctx.caller, fid, &inode, access::WRITE)
}

fn supported(ctx: Ctx<'_>, inode: &Inode, name: &[u8]) -> Result<Space, Errno> {
    let space = space(name)?;
    let acl_here = ctx.bounds.acls && inode.attr.kind != FileKind::Symlink;
    if !ctx.bounds.xattrs || space == Space::Acl && !acl_here {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(space)
}

fn has_user_xattrs(inode: &Inode) -> bool {
    matches!(inode.attr.kind, FileKind::Regular | FileKind::Directory)
}

fn may_change(
    view: &impl View,
    ctx: Ctx<'_>,
    fid: Fid,
    inode: &Inode,
    name: &[u8],
) -> Result<Space, Stop> {
    ctx.writable()?;
    let space = supported(ctx, inode, name)?;
    let caller = ctx.caller;
    match space {
        Space::Trusted | Space::Security if !caller.is_root() => Err(Errno::EPERM)?,
        Space::Acl if !caller.owns(inode) => Err(Errno::EPERM)?,
        Space::User => {
            let sticky_dir =
                inode.attr.kind == FileKind::Directory && inode.attr.mode & libc::S_ISVTX != 0;
            if !has_user_xattrs(inode) || sticky_dir && !caller.owns(inode) {
                return Err(Errno::EPERM.into());
            }
            access::check(view, ctx.bounds, caller, fid, inode, access::WRITE)?;
        }
        _ => {}
    }
    Ok(space)
}

/// An access ACL shows in the mode, and is stored only if it says more.
fn set_acl<V: View>(
    draft: &mut Draft<'_, V>,
    ctx: Ctx<'_>,
    fid: Fid,
    inode: &mut Inode,
    set: &Set<'_>,
) -> Result<(), Stop> {
    let acl = Acl::parse(set.value)?;
    if set.name == acl::DEFAULT {
        return match acl {
            Some(_) if inode.attr.kind != FileKind::Directory => Err(Errno::EACCES.into()),
            Some(acl) => store(draft, fid, inode, set.name, &acl.to_bytes()),
            None => erase(draft, fid, inode, set.name),
        };
    }
    let Some(acl) = acl else {
        return erase(draft, fid, inode, set.name);
    };
    let (mode, is_plain) = acl.mode();
    let mut next = inode.attr.mode & !0o777 | mode;
    if set.clear_sgid || !ctx.caller.keeps_setgid(inode.attr.gid) {
        next &= !libc::S_ISGID;
    }
    if next != inode.attr.mode {
        inode.attr.mode = next;
        draft.owe_state(fid, inode, flag::ATTRS_OWED);
    }
    if is_plain {
        erase(draft, fid, inode, set.name)
    } else {
        store(draft, fid, inode, set.name, &acl.to_bytes())
    }
}

/// Stores a value and keeps the list of names; ENOSPC if the list is full.
pub(super) fn store<V: View>(
    draft: &mut Draft<'_, V>,
    fid: Fid,
    inode: &mut Inode,
    name: &[u8],
    value: &[u8],
) -> Result<(), Stop> {
    let mut names = names(draft, fid, inode)?;
    if !names.iter().any(|n| n.0 == name) {
        let bytes: usize = names.iter().map(|n| n.0.len() + 1).sum();
        if bytes + name.len() + 1 > XATTR_LIST_MAX {
            return Err(Errno::ENOSPC.into());
        }
        names.push(Bytes(name.to_vec()));
        draft.put_xattr(fid, LIST, Some(Codec::to_vec(&names).into()));
    }
    draft.put_xattr(fid, name, Some(value.into()));
    inode.flags |= flag::XATTRS;
    draft.owe_state(fid, inode, flag::XATTRS_OWED);
    Ok(())
}

/// Removes a value, if it is there.
pub(super) fn erase<V: View>(
    draft: &mut Draft<'_, V>,
    fid: Fid,
    inode: &mut Inode,
    name: &[u8],
) -> Result<(), Stop> {
    let mut names = names(draft, fid, inode)?;
    let before = names.len();
    names.retain(|n| n.0 != name);
    if names.len() == before {
        return Ok(());
    }
    draft.put_xattr(fid, name, None);
    let list = (!names.is_empty()).then(|| Codec::to_vec(&names).into());
    if list.is_none() {
        inode.flags &= !flag::XATTRS;
    }
    draft.put_xattr(fid, LIST, list);
    draft.owe_state(fid, inode, flag::XATTRS_OWED);
    Ok(())
}

/// Removes all values without owing that: the file is gone.
pub(super) fn clear<V: View>(
    draft: &mut Draft<'_, V>,
    fid: Fid,
    inode: &mut Inode,
) -> Result<(), Stop> {
    if inode.flags & flag::XATTRS == 0 {
        return Ok(());
    }
    for Bytes(name) in names(draft, fid, inode)? {
        draft.put_xattr(fid, &name, None);
    }
    draft.put_xattr(fid, LIST, None);
    inode.flags &= !flag::XATTRS;
    Ok(())
}

/// Takes over what the origin has, all of it: from here on it is known.
pub fn import<V: View>(
    draft: &mut Draft<'_, V>,
    fid: Fid,
    inode: &mut Inode,
    values: &[(Vec<u8>, Vec<u8>)],
) {
    inode.flags |= flag::XATTRS_COMPLETE;
    if values.is_empty() {
        return;
    }
    inode.flags |= flag::XATTRS;
    let names: Vec<_> = values.iter().map(|(name, _)| Bytes(name.clone())).collect();
    draft.put_xattr(fid, LIST, Some(Codec::to_vec(&names).into()));
    for (name, value) in values {
        draft.put_xattr(fid, name, Some(value.as_slice().into()));
    }
}
