//! Attributes and xattrs, of any kind of file, without opening it.

use super::descriptors::Descriptors;
use super::node::{Node, Root, retry};
use crate::base::limits::{XATTR_LIST_MAX, XATTR_VALUE_MAX};
use crate::base::{Errno, FileKind, SetAttr, Time};
use crate::origin::Place;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};

/// Owner first (changing it clears setuid), then mode, size, and times last,
/// since everything else changes them.
pub fn set(root: &Root, open: &Descriptors, place: &Place, set: &SetAttr) -> Result<(), Errno> {
    let node = root.find(place)?;
    set_owner(&node, set.uid, set.gid)?;
    if let Some(mode) = set.mode {
        set_mode(&node, mode)?;
    }
    if let Some(size) = set.size {
        super::bytes::truncate(root, open, place, size)?;
    }
    let stamp = |value: Option<Time>, now: bool| match (value, now) {
        (_, true) => spec(0, UTIME_NOW),
        (Some(time), false) => spec(time.sec, time.nsec.into()),
        (None, false) => spec(0, UTIME_OMIT),
    };
    if set.atime.is_none() && set.mtime.is_none() && !set.atime_now && !set.mtime_now {
        return Ok(());
    }
    let times = Timestamps {
        last_access: stamp(set.atime, set.atime_now),
        last_modification: stamp(set.mtime, set.mtime_now),
    };
    set_times(&node, &times)
}

pub fn set_owner(node: &Node, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    // The ids as they are already: not asked for, so that an unprivileged box works.
    let uid = uid.filter(|&uid| uid != node.stat.stx_uid && uid != u32::MAX);
    let gid = gid.filter(|&gid| gid != node.stat.stx_gid && gid != u32::MAX);
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    retry(|| rustix::fs::chownat(&node.fd, "", uid, gid, AtFlags::EMPTY_PATH))
}

/// Symbolic links have no mode of their own.
pub fn set_mode(node: &Node, mode: u32) -> Result<(), Errno> {
    if node.kind()? == FileKind::Symlink {
        return Ok(());
    }
    let mode = Mode::from_raw_mode(mode & 0o7777);
    let way = node.way();
    retry(|| rustix::fs::chmodat(CWD, &way, mode, AtFlags::empty()))
}

pub fn set_times(node: &Node, times: &Timestamps) -> Result<(), Errno> {
    retry(|| rustix::fs::utimensat(&node.fd, "", times, AtFlags::EMPTY_PATH))
}

pub fn spec(sec: i64, nsec: i64) -> Timespec {
    Timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    }
}

/// All names, each with its NUL.
pub fn xattr_list(node: &Node) -> Result<Vec<u8>, Errno> {
    let way = node.way();
    let mut out = vec![0; XATTR_LIST_MAX];
    let n = retry(|| rustix::fs::listxattr(&way, &mut out[..]))?;
    out.truncate(n);
    Ok(out)
}

pub fn xattr(node: &Node, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let way = node.way();
    let mut out = vec![0; XATTR_VALUE_MAX];
    let n = retry(|| rustix::fs::getxattr(&way, name, &mut out[..]))?;
    out.truncate(n);
    Ok(out)
}

pub fn xattr_set(node: &Node, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let way = node.way();
    retry(|| rustix::fs::setxattr(&way, name, value, XattrFlags::empty()))
}

/// Gone already is success: the call may be a repetition.
pub fn xattr_remove(node: &Node, name: &[u8]) -> Result<(), Errno> {
    let way = node.way();
    match retry(|| rustix::fs::removexattr(&way, name)) {
        Err(Errno::ENODATA) => Ok(()),
        other => other,
    }
}
