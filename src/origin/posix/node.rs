//! Finding a file: by its handle, else by the way to it, and proving that what
//! was found is what was meant (O5).

use super::sys;
use crate::base::codec::Bytes;
use crate::base::{Attr, Errno, FileKind, Identity, Name, Time};
use crate::origin::{Found, Place};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp};
use std::collections::BTreeSet;
use std::sync::Mutex;

/// Whatever names say, no way leaves the tree, crosses a mount or follows a link.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
/// Bytes of path in one `openat2`, below PATH_MAX with its NUL.
const WAY_MAX: usize = 4000;

/// The tree's root, open. Replaced as a whole when the origin is probed again.
pub struct Root {
    /// O_PATH, where every way begins.
    way: OwnedFd,
    /// Readable: what `open_by_handle_at` wants, and what syncs the root.
    pub dir: OwnedFd,
    dev: (u32, u32),
    /// Open by handle (probed, and not switched off).
    pub by_handle: bool,
}

/// A file found: an O_PATH descriptor, which pins it without opening it, and
/// its attributes at that moment.
pub struct Node {
    pub fd: OwnedFd,
    pub stat: Statx,
}

impl Root {
    /// ENOENT, ENOTDIR, EACCES and the like: what opening `path` said.
    pub fn open(path: &std::path::Path, by_handle: bool) -> Result<Root, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let way = retry(|| rustix::fs::open(path, flags | OFlags::PATH, Mode::empty()))?;
        let dir = retry(|| rustix::fs::openat(&way, ".", flags | OFlags::RDONLY, Mode::empty()))?;
        let stat = stat_of(&way)?;
        let mut root = Root {
            way,
            dir,
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            by_handle: false,
        };
        root.by_handle = by_handle && root.opens_handles();
        Ok(root)
    }

    /// Are handles given, and may this process open them?
    fn opens_handles(&self) -> bool {
        let Ok((kind, bytes)) = sys::handle_of(&self.way) else {
            return false;
        };
        let Ok(fd) = sys::open_handle(&self.dir, kind, &bytes) else {
            return false;
        };
        match (stat_of(&fd), stat_of(&self.way)) {
            (Ok(a), Ok(b)) => a.stx_ino == b.stx_ino,
            _ => false,
        }
    }

    /// What `place` means. ESTALE if it names another file than its identity
    /// says, or a known file is neither under its handle nor under its names.
    pub fn find(&self, place: &Place) -> Result<Node, Errno> {
        let Some(wanted) = &place.identity else {
            return self.walk(&place.path);
        };
        if self.by_handle && !wanted.handle.0.is_empty() {
            // A handle that does not open may still be right: some file systems
            // forget handles of what they do not hold in memory.
            let opened = sys::open_handle(&self.dir, wanted.handle_type, &wanted.handle.0);
            if let Ok(node) = opened.and_then(Node::of) {
                return Ok(node);
            }
        }
        let node = self.walk(&place.path).map_err(|e| match e {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => Errno::ESTALE,
            other => other,
        })?;
        if same(&self.identity(&node)?, wanted) {
            Ok(node)
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// Follows names from the root, in steps that fit the kernel's bound.
    fn walk(&self, path: &[Name]) -> Result<Node, Errno> {
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while !rest.is_empty() {
            let mut way = Vec::new();
            let mut taken = 0;
            for name in rest {
                if taken > 0 && way.len() + 1 + name.as_bytes().len() > WAY_MAX {
                    break;
                }
                if taken > 0 {
                    way.push(b'/');
                }
                way.extend_from_slice(name.as_bytes());
                taken += 1;
            }
            let from = at.as_ref().map_or(self.way.as_fd(), AsFd::as_fd);
            let next = open_at(from, &way)?;
            at = Some(next);
            rest = &rest[taken..];
        }
        match at {
            Some(fd) => Node::of(fd),
            None => Node::of(self.way.try_clone().map_err(|e| Errno::of(&e))?),
        }
    }

    /// The entry `name` of `dir`, itself if it is a symbolic link.
    pub fn child(&self, dir: &Node, name: &Name) -> Result<Node, Errno> {
        Node::of(open_at(dir.fd.as_fd(), name.as_bytes())?)
    }

    /// Like [`Root::child`], with `None` for a name that is not there.
    pub fn entry(&self, dir: &Node, name: &Name) -> Result<Option<Node>, Errno> {
        match self.child(dir, name) {
            Ok(node) => Ok(Some(node)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What tells the file from every other (O5). The device counts only where
    /// it differs from the root's (subvolumes): device numbers of network file
    /// systems change with every mount.
    pub fn identity(&self, node: &Node) -> Result<Identity, Errno> {
        let (handle_type, handle) = match sys::handle_of(&node.fd) {
            Ok((kind, _)) if FUSE.contains(&kind) => (0, Vec::new()),
            Ok(handle) => handle,
            Err(Errno::EOPNOTSUPP | Errno::EOVERFLOW | Errno::ENOSYS) => (0, Vec::new()),
            Err(e) => return Err(e),
        };
        let stat = &node.stat;
        let dev = match (stat.stx_dev_major, stat.stx_dev_minor) {
            dev if dev == self.dev => 0,
            (major, minor) => rustix::fs::makedev(major, minor),
        };
        let birth = match StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
            true => u64::try_from(time(stat.stx_btime).nanos()).unwrap_or(0),
            false => 0,
        };
        Ok(Identity {
            handle: Bytes(handle),
            handle_type,
            dev,
            ino: stat.stx_ino,
            birth,
        })
    }

    pub fn found(&self, node: &Node) -> Result<Found, Errno> {
        let attr = node.attr()?;
        let link = match attr.kind {
            FileKind::Symlink => Some(node.link()?),
            _ => None,
        };
        Ok(Found {
            identity: self.identity(node)?,
            attr,
            link,
        })
    }
}

impl Node {
    fn of(fd: OwnedFd) -> Result<Node, Errno> {
        let stat = stat_of(&fd)?;
        Ok(Node { fd, stat })
    }

    /// Reads the attributes again.
    pub fn refresh(&mut self) -> Result<(), Errno> {
        self.stat = stat_of(&self.fd)?;
        Ok(())
    }

    pub fn kind(&self) -> Result<FileKind, Errno> {
        FileKind::from_mode(u32::from(self.stat.stx_mode)).ok_or(Errno::EIO)
    }

    pub fn link(&self) -> Result<Vec<u8>, Errno> {
        let link = retry(|| rustix::fs::readlinkat(&self.fd, "", Vec::new()))?;
        Ok(link.into_bytes())
    }

    /// The name under which the kernel lets the descriptor be opened in earnest.
    pub fn way(&self) -> String {
        use rustix::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// Opens for I/O. Only files and directories: opening a fifo, a socket or a
    /// device would wait for a peer or touch hardware.
    pub fn reopen(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.kind()? {
            FileKind::Regular => {
                let way = self.way();
                retry(|| rustix::fs::openat(CWD, &way, flags | OFlags::CLOEXEC, Mode::empty()))
            }
            FileKind::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                retry(|| rustix::fs::openat(&self.fd, ".", flags, Mode::empty()))
            }
            _ => Err(Errno::EINVAL),
        }
    }

    pub fn attr(&self) -> Result<Attr, Errno> {
        let s = &self.stat;
        Ok(Attr {
            kind: self.kind()?,
            mode: u32::from(s.stx_mode) & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            nlink: s.stx_nlink,
            rdev: rdev(s),
            ino: s.stx_ino,
            size: s.stx_size,
            blocks: s.stx_blocks,
            atime: time(s.stx_atime),
            mtime: time(s.stx_mtime),
            ctime: time(s.stx_ctime),
            btime: time(s.stx_btime),
            version: 0,
        })
    }
}

/// The kernel's types of handles that FUSE makes: of numbers that last only as
/// long as the kernel remembers a file.
const FUSE: [i32; 2] = [0x81, 0x82];

/// Do both mean one file? Handles decide where both have one: they hold the
/// inode's generation, while birth times may be missing.
pub fn same(a: &Identity, b: &Identity) -> bool {
    if !a.handle.0.is_empty() && !b.handle.0.is_empty() {
        return a.handle_type == b.handle_type && a.handle == b.handle;
    }
    (a.dev, a.ino, a.birth) == (b.dev, b.ino, b.birth)
}

/// Calls again after a signal; errors as errno.
pub fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, Errno> {
    rustix::io::retry_on_intr(call).map_err(|e| Errno(e.raw_os_error()))
}

fn open_at(from: BorrowedFd<'_>, way: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match retry(|| rustix::fs::openat2(from, way, flags, Mode::empty(), INSIDE)) {
            // A rename in the tree made the kernel unsure; it asks to try again.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

/// FUSE leaves the time of birth out of what it answers from its cache: then it
/// is asked for, unless the file system is known to have none.
fn stat_of(fd: impl AsFd) -> Result<Statx, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = |flags| retry(|| rustix::fs::statx(&fd, "", flags, mask));
    let lacks = |s: &Statx| s.stx_mask & StatxFlags::BTIME.bits() == 0;
    let cached = stat(flags)?;
    let device = (cached.stx_dev_major, cached.stx_dev_minor);
    let is_without = |all: &BTreeSet<_>| all.contains(&device);
    if !lacks(&cached) || WITHOUT_BIRTH.lock().is_ok_and(|all| is_without(&all)) {
        return Ok(cached);
    }
    let asked = stat(flags | AtFlags::STATX_FORCE_SYNC)?;
    if lacks(&asked)
        && let Ok(mut all) = WITHOUT_BIRTH.lock()
    {
        all.insert(device);
    }
    Ok(asked)
}

/// Devices whose files have no time of birth.
static WITHOUT_BIRTH: Mutex<BTreeSet<(u32, u32)>> = Mutex::new(BTreeSet::new());

fn rdev(s: &Statx) -> u32 {
    let dev = rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor);
    u32::try_from(dev).unwrap_or(0)
}

fn time(t: StatxTimestamp) -> Time {
    Time {
        sec: t.tv_sec,
        nsec: t.tv_nsec.min(999_999_999),
    }
}
