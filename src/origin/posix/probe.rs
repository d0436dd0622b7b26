//! What the file system can hold (O6), found by trying it in a hidden directory
//! that is gone again afterwards, the root's times restored.

use super::attrs::spec;
use super::node::{Node, Root, retry};
use super::sys;
use crate::base::limits::{FILE_SIZE_MAX, LINK_MAX, NAME_MAX};
use crate::base::{Errno, Time};
use crate::origin::{Limits, PROBE, Place};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, StatVfsMountFlags,
    Timestamps, Uid, XattrFlags,
};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Everything a probe may leave in its directory when it is cut off.
const NAMES: [&str; 5] = ["file", "other", "link", "symlink", "fifo"];

/// The name of the probe's directory for the tree at `path`. The same every
/// time, so that what one cut off left behind is cleared by the next; and
/// another one than that of a box which has this tree from a box here.
pub fn dir_name(path: &Path) -> String {
    let host = rustix::system::uname();
    let of_host = crc32c::crc32c(host.nodename().to_bytes());
    let both = crc32c::crc32c_append(of_host, path.as_os_str().as_bytes());
    format!("{PROBE}{both:08x}")
}

pub fn limits(root: &Root, path: &Path) -> Result<Limits, Errno> {
    let vfs = retry(|| rustix::fs::fstatvfs(&root.dir))?;
    let top = root.find(&Place {
        identity: None,
        path: Vec::new(),
    })?;
    let before = top.attr()?;
    let name_max = u32::try_from(vfs.f_namemax).unwrap_or(u32::MAX);
    let mut limits = Limits {
        name_max: name_max.clamp(1, NAME_MAX as u32),
        link_max: link_max(root),
        file_size_max: FILE_SIZE_MAX,
        handles: root.by_handle,
        xattrs: false,
        acls: false,
        symlinks: false,
        hard_links: false,
        special_files: false,
        owners: false,
        rename_noreplace: false,
        rename_exchange: false,
        punch: false,
        read_only: vfs.f_flag.contains(StatVfsMountFlags::RDONLY),
        time_step: 1,
        clock: before.ctime,
        root: root.identity(&top)?,
    };
    if limits.read_only {
        return Ok(limits);
    }
    let name = dir_name(path);
    match begin(&top, &name) {
        Ok(dir) => {
            let tried = attempt(&dir, &mut limits);
            finish(&top, &name, &dir, (before.atime, before.mtime));
            tried?;
        }
        // A tree that this user may not change is as good as mounted read-only.
        Err(Errno::EROFS | Errno::EACCES | Errno::EPERM) => limits.read_only = true,
        Err(e) => return Err(e),
    }
    Ok(limits)
}

fn link_max(root: &Root) -> u32 {
    let said = sys::link_max(&root.dir).and_then(|n| u32::try_from(n).ok());
    // POSIX's minimum, or nothing, means that the C library does not know.
    said.filter(|&n| n > 127).unwrap_or(LINK_MAX).min(LINK_MAX)
}

fn begin(top: &Node, name: &str) -> Result<OwnedFd, Errno> {
    match retry(|| rustix::fs::mkdirat(&top.fd, name, Mode::RWXU)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = retry(|| rustix::fs::openat(&top.fd, name, flags, Mode::empty()))?;
    clear(&dir);
    Ok(dir)
}

fn clear(dir: &OwnedFd) {
    for name in NAMES {
        // Absent is the usual case, and a name that stays fails the attempt below.
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
    }
}

/// Failing here leaves an empty hidden directory, which the next probe uses.
fn finish(top: &Node, name: &str, dir: &OwnedFd, (atime, mtime): (Time, Time)) {
    clear(dir);
    let _ = rustix::fs::unlinkat(&top.fd, name, AtFlags::REMOVEDIR);
    let times = Timestamps {
        last_access: spec(atime.sec, atime.nsec.into()),
        last_modification: spec(mtime.sec, mtime.nsec.into()),
    };
    let _ = rustix::fs::utimensat(&top.fd, "", &times, AtFlags::EMPTY_PATH);
}

fn attempt(dir: &OwnedFd, limits: &mut Limits) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = retry(|| rustix::fs::openat(dir, "file", flags, Mode::RUSR | Mode::WUSR))?;
    names(dir, limits);
    contents(&file, limits)?;
    let owner = |id| rustix::fs::fchown(&file, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)));
    limits.owners = rustix::process::geteuid().is_root() && owner(65533).is_ok();
    let now = rustix::fs::fstat(&file).map_err(|e| Errno(e.raw_os_error()))?;
    limits.clock = Time {
        sec: now.st_ctime,
        nsec: u32::try_from(now.st_ctime_nsec).unwrap_or(0),
    };
    Ok(())
}

fn names(dir: &OwnedFd, limits: &mut Limits) {
    let user = Mode::RUSR | Mode::WUSR;
    limits.symlinks = rustix::fs::symlinkat("nowhere", dir, "symlink").is_ok();
    limits.special_files = rustix::fs::mknodat(dir, "fifo", FileType::Fifo, user, 0).is_ok();
    limits.hard_links = rustix::fs::linkat(dir, "file", dir, "link", AtFlags::empty()).is_ok();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    if rustix::fs::openat(dir, "other", flags, user).is_err() {
        return;
    }
    let rename = |flags| rustix::fs::renameat_with(dir, "file", dir, "other", flags);
    // Both names exist: refused because of that, or for want of the feature.
    limits.rename_noreplace = rename(RenameFlags::NOREPLACE) == Err(rustix::io::Errno::EXIST);
    // Exchanged twice, so that "file" stays the open one.
    limits.rename_exchange =
        rename(RenameFlags::EXCHANGE).is_ok() && rename(RenameFlags::EXCHANGE).is_ok();
}

fn contents(file: &OwnedFd, limits: &mut Limits) -> Result<(), Errno> {
    let none = XattrFlags::empty();
    limits.xattrs = rustix::fs::fsetxattr(file, "user.forebay.probe", b"1", none).is_ok();
    let acl = "system.posix_acl_access";
    limits.acls = rustix::fs::fsetxattr(file, acl, &MINIMAL_ACL, none).is_ok();
    retry(|| rustix::io::pwrite(file, &[1; 8192], 0))?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    limits.punch = rustix::fs::fallocate(file, punch, 0, 4096).is_ok();
    limits.file_size_max = largest(file);
    limits.time_step = time_step(file)?;
    Ok(())
}

/// Sparse growth by halving; the file is truncated again.
fn largest(file: &OwnedFd) -> u64 {
    let fits = |size| rustix::fs::ftruncate(file, size).is_ok();
    let (mut fitting, mut failing) = (0, FILE_SIZE_MAX);
    if fits(FILE_SIZE_MAX) {
        fitting = FILE_SIZE_MAX;
    } else {
        while failing - fitting > 1 {
            let middle = fitting + (failing - fitting) / 2;
            match fits(middle) {
                true => fitting = middle,
                false => failing = middle,
            }
        }
    }
    // A file that stays large is removed with the probe's directory.
    let _ = rustix::fs::ftruncate(file, 0);
    fitting
}

/// Which of the digits of a time come back.
fn time_step(file: &OwnedFd) -> Result<u32, Errno> {
    const SENT: Time = Time {
        sec: 1_000_000_001,
        nsec: 123_456_789,
    };
    let stamp = spec(SENT.sec, SENT.nsec.into());
    let times = Timestamps {
        last_access: stamp,
        last_modification: stamp,
    };
    retry(|| rustix::fs::futimens(file, &times))?;
    let stat = retry(|| rustix::fs::fstat(file))?;
    let nsec = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let steps = [1, 100, 1000, 1_000_000];
    let kept = steps
        .into_iter()
        .find(|step| SENT.nsec / step * step == nsec);
    Ok(match kept {
        Some(step) => step,
        None if stat.st_mtime == SENT.sec => 1_000_000_000,
        None => 2_000_000_000,
    })
}

/// Version 2, and the three entries that a mode of 0600 stands for.
const MINIMAL_ACL: [u8; 28] = [
    2, 0, 0, 0, //
    0x01, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, // owner
    0x04, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, // group
    0x20, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, // others
];
