//! Who may do what: mode bits, POSIX ACLs, and the powers of uid 0.

use super::acl::{self, Acl};
use super::record::Inode;
use super::view::{Bounds, Stop, View};
use super::xattr;
use crate::base::{Errno, Fid, FileKind};

/// Who asks, in the box's ids. Uid 0 stands for every capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Caller {
    pub const ROOT: Caller = Caller {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
    /// May change what only the owner may.
    #[must_use]
    pub fn owns(&self, inode: &Inode) -> bool {
        self.is_root() || self.uid == inode.attr.uid
    }
    /// May keep a setgid bit on a file of that group.
    #[must_use]
    pub fn keeps_setgid(&self, gid: u32) -> bool {
        self.is_root() || self.in_group(gid)
    }
}

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EXEC: u32 = 1;

/// EACCES unless the caller has every right in `want`.
pub fn check(
    view: &impl View,
    bounds: &Bounds,
    caller: &Caller,
    fid: Fid,
    inode: &Inode,
    want: u32,
) -> Result<(), Stop> {
    if permits(view, bounds, caller, fid, inode, want)? {
        Ok(())
    } else {
        Err(Errno::EACCES.into())
    }
}

fn permits(
    view: &impl View,
    bounds: &Bounds,
    caller: &Caller,
    fid: Fid,
    inode: &Inode,
    want: u32,
) -> Result<bool, Stop> {
    let mode = inode.attr.mode;
    if caller.is_root() {
        let is_dir = inode.attr.kind == FileKind::Directory;
        return Ok(is_dir || want & EXEC == 0 || mode & 0o111 != 0);
    }
    let has = |bits: u32| bits & want == want;
    if caller.uid == inode.attr.uid {
        return Ok(has(mode >> 6));
    }
    // An ACL's mask shows as the group bits: none set, nothing it could grant.
    if bounds.acls
        && mode & 0o070 != 0
        && inode.attr.kind != FileKind::Symlink
        && let Some(acl) = access_acl(view, fid, inode)?
    {
        return Ok(acl.permits(inode.attr.gid, caller, want));
    }
    if caller.in_group(inode.attr.gid) {
        return Ok(has(mode >> 3));
    }
    Ok(has(mode))
}

/// The access ACL, if the file has one beyond its mode bits.
pub fn access_acl(view: &impl View, fid: Fid, inode: &Inode) -> Result<Option<Acl>, Stop> {
    acl_of(view, fid, inode, acl::ACCESS)
}

/// The ACL that new entries of a directory inherit.
pub fn default_acl(view: &impl View, fid: Fid, inode: &Inode) -> Result<Option<Acl>, Stop> {
    acl_of(view, fid, inode, acl::DEFAULT)
}

fn acl_of(view: &impl View, fid: Fid, inode: &Inode, name: &[u8]) -> Result<Option<Acl>, Stop> {
    match xattr::value(view, fid, inode, name)? {
        // What the origin stored and we cannot read is not ignored: it may deny.
        Some(bytes) => Acl::parse(&bytes).map_err(|_| Stop::Refused(Errno::EACCES)),
        None => Ok(None),
    }
}

/// EPERM when a sticky directory protects `victim` from the caller.
pub fn sticky(caller: &Caller, dir: &Inode, victim: &Inode) -> Result<(), Stop> {
    let free = dir.attr.mode & libc::S_ISVTX == 0
        || caller.is_root()
        || caller.uid == victim.attr.uid
        || caller.uid == dir.attr.uid;
    if free {
        Ok(())
    } else {
        Err(Errno::EPERM.into())
    }
}

/// The mode without what a write or a change of owner takes away (L11): setuid
/// always; setgid if the group may execute, or the caller is not of the group.
#[must_use]
pub fn stripped(mode: u32, gid: u32, caller: &Caller) -> u32 {
    let mut mode = mode & !libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 || !caller.keeps_setgid(gid) {
        mode &= !libc::S_ISGID;
    }
    mode
}
