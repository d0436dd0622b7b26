//! Creating a file of any kind, and opening what is there already.

use super::access::{self, Caller};
use super::acl;
use super::draft::{Change, Draft};
use super::entry::{self, Slot};
use super::record::{Dirent, Inode, Observed, OwedName, OwedOp, flag};
use super::view::{Ctx, Stop, View};
use super::xattr;
use crate::base::codec::Bytes;
use crate::base::limits::SYMLINK_MAX;
use crate::base::{Attr, Errno, Fid, FileKind, Locator, Name, SnapEpoch};

/// What to create.
#[derive(Clone, Debug)]
pub struct New<'a> {
    pub parent: Fid,
    /// None: O_TMPFILE.
    pub name: Option<&'a Name>,
    pub kind: FileKind,
    pub mode: u32,
    /// Applied unless the parent has a default ACL.
    pub umask: u32,
    pub rdev: u32,
    /// Target of a symbolic link.
    pub link: &'a [u8],
    /// The name must not be there. For O_TMPFILE: it may not be linked later.
    pub exclusive: bool,
}

/// What came of it.
#[derive(Debug)]
pub enum Created {
    New(Fid, Box<Change>),
    /// A regular file was there, and `exclusive` was not asked.
    There(Fid),
}

pub fn create(view: &impl View, ctx: Ctx<'_>, new: &New<'_>) -> Result<Created, Stop> {
    let dir = entry::directory(view, new.parent)?;
    access::check(view, ctx.bounds, ctx.caller, new.parent, &dir, access::EXEC)?;
    let slot = match new.name {
        Some(name) => {
            ctx.name_fits(name)?;
            entry::find(view, new.parent, &dir, name)?
        }
        None => Slot::Free(0),
    };
    if let Some(there) = slot.live() {
        return match there.kind {
            FileKind::Regular if !new.exclusive => Ok(Created::There(there.fid)),
            FileKind::Directory if !new.exclusive => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EEXIST.into()),
        };
    }
    allowed(view, ctx, new, &dir)?;
    let mut draft = Draft::new(view);
    let fid = build(&mut draft, ctx, new, &dir)?;
    match new.name {
        Some(name) => attach(&mut draft, ctx, new.parent, slot.cookie(), name, fid)?,
        None => draft.change.orphans.push((fid, true)),
    }
    Ok(Created::New(fid, Box::new(draft.change)))
}

/// The refusals, in the order in which Linux makes them.
fn allowed(view: &impl View, ctx: Ctx<'_>, new: &New<'_>, dir: &Inode) -> Result<(), Stop> {
    ctx.writable()?;
    may_add(view, ctx, new.parent, dir)?;
    match new.kind {
        FileKind::Char | FileKind::Block if !ctx.caller.is_root() => Err(Errno::EPERM.into()),
        FileKind::Char | FileKind::Block | FileKind::Fifo | FileKind::Socket
            if !ctx.bounds.special_files =>
        {
            Err(Errno::EPERM.into())
        }
        FileKind::Symlink if !ctx.bounds.symlinks => Err(Errno::EPERM.into()),
        FileKind::Symlink if new.link.is_empty() => Err(Errno::ENOENT.into()),
        FileKind::Symlink if new.link.len() > SYMLINK_MAX => Err(Errno::ENAMETOOLONG.into()),
        FileKind::Symlink if new.link.contains(&0) => Err(Errno::EINVAL.into()),
        FileKind::Directory if dir.attr.nlink >= ctx.bounds.link_max => Err(Errno::EMLINK.into()),
        _ => Ok(()),
    }
}

/// May the caller add names to the directory?
pub(super) fn may_add(view: &impl View, ctx: Ctx<'_>, fid: Fid, dir: &Inode) -> Result<(), Stop> {
    if dir.attr.nlink == 0 {
        return Err(Errno::ENOENT.into());
    }
    let want = access::WRITE | access::EXEC;
    access::check(view, ctx.bounds, ctx.caller, fid, dir, want)
}

/// Makes the inode, with what it inherits from the directory.
fn build<V: View>(
    draft: &mut Draft<'_, V>,
    ctx: Ctx<'_>,
    new: &New<'_>,
    dir: &Inode,
) -> Result<Fid, Stop> {
    let (fid, ino) = draft.fresh()?;
    let inherits = ctx.bounds.acls && new.kind != FileKind::Symlink;
    let default = if inherits {
        access::default_acl(draft, new.parent, dir)?
    } else {
        None
    };
    let (uid, gid, mode) = owner_and_mode(ctx.caller, new, dir, default.is_some());
    let mut inode = blank(new, uid, gid, mode, ino, ctx);
    inode.parent = new.parent;
    if new.name.is_some() {
        inode.locator.parent = new.parent;
        inode.locator.name = new.name.cloned();
    }
    if let Some(default) = default {
        let (access, mode) = default.inherited(inode.attr.mode);
        inode.attr.mode = mode;
        if !access.mode().1 {
            let bytes = access.to_bytes();
            xattr::store(draft, fid, &mut inode, acl::ACCESS, &bytes)?;
        }
        if new.kind == FileKind::Directory {
            xattr::store(draft, fid, &mut inode, acl::DEFAULT, &default.to_bytes())?;
        }
    }
    draft.put(fid, inode);
    draft.change.born = Some((fid, new.kind));
    Ok(fid)
}

fn owner_and_mode(
    caller: &Caller,
    new: &New<'_>,
    dir: &Inode,
    has_default: bool,
) -> (u32, u32, u32) {
    if new.kind == FileKind::Symlink {
        let gid = inherited_group(caller, dir);
        return (caller.uid, gid, 0o777);
    }
    let mut mode = new.mode & 0o7777;
    if !has_default {
        mode &= !(new.umask & 0o777);
    }
    let gid = inherited_group(caller, dir);
    if dir.attr.mode & libc::S_ISGID != 0 {
        if new.kind == FileKind::Directory {
            mode |= libc::S_ISGID;
        } else if mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP
            && !caller.keeps_setgid(gid)
        {
            mode &= !libc::S_ISGID;
        }
    }
    (caller.uid, gid, mode)
}

fn inherited_group(caller: &Caller, dir: &Inode) -> u32 {
    if dir.attr.mode & libc::S_ISGID != 0 {
        dir.attr.gid
    } else {
        caller.gid
    }
}

fn blank(new: &New<'_>, uid: u32, gid: u32, mode: u32, ino: u64, ctx: Ctx<'_>) -> Inode {
    let is_dir = new.kind == FileKind::Directory;
    let is_link = new.kind == FileKind::Symlink;
    let is_device = matches!(new.kind, FileKind::Char | FileKind::Block);
    let mut flags = flag::UNBORN | flag::XATTRS_COMPLETE;
    if is_dir {
        flags |= flag::COMPLETE;
    }
    if new.name.is_none() {
        flags |= flag::ORPHAN | flag::UNNAMED;
        flags |= if new.exclusive { 0 } else { flag::LINKABLE };
    }
    let size = match new.kind {
        FileKind::Directory => DIR_SIZE,
        FileKind::Symlink => new.link.len() as u64,
        _ => 0,
    };
    Inode {
        attr: Attr {
            kind: new.kind,
            mode,
            uid,
            gid,
            nlink: if is_dir {
                2
            } else {
                u32::from(new.name.is_some())
            },
            rdev: if is_device { new.rdev } else { 0 },
            ino,
            size,
            blocks: if is_dir { DIR_SIZE / 512 } else { 0 },
            atime: ctx.now,
            mtime: ctx.now,
            ctime: ctx.now,
            btime: ctx.now,
            version: 1,
        },
        flags,
        parent: Fid::NONE,
        entries: 0,
        locator: Locator::default(),
        observed: Observed::default(),
        data_version: 0,
        snap_epoch: SnapEpoch::default(),
        layout: Bytes::default(),
        link: is_link.then(|| Bytes(new.link.to_vec())),
        origin_size: 0,
    }
}

/// What a directory born here shows as its size.
const DIR_SIZE: u64 = 4096;

/// Gives the inode, which must be in the draft, its first name.
pub(super) fn attach<V: View>(
    draft: &mut Draft<'_, V>,
    ctx: Ctx<'_>,
    parent: Fid,
    cookie: u64,
    name: &Name,
    fid: Fid,
) -> Result<(), Stop> {
    let inode = draft.load(fid)?;
    let dirent = Dirent {
        name: name.clone(),
        fid,
        kind: inode.attr.kind,
        ino: inode.attr.ino,
    };
    entry::insert(draft, parent, cookie, dirent);
    let is_dir = inode.attr.kind == FileKind::Directory;
    draft.edit_dir(parent, ctx.now, 1, i32::from(is_dir))?;
    draft.change.owed.push(OwedOp::Create(OwedName {
        parent,
        name: name.clone(),
        fid,
        kind: inode.attr.kind,
    }));
    Ok(())
}
