//! Operations on names. Each looks at the identities under its names first, and
//! so can be repeated after a crash: applied, already applied, or conflict (O3).

use super::attrs;
use super::descriptors::Descriptors;
use super::node::{Node, Root, retry, same};
use crate::base::{Attr, Errno, FileKind, Identity, Name};
use crate::origin::{Found, Place, is_hidden};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Timestamps};

/// What [`create`] makes.
pub struct Newborn {
    pub kind: FileKind,
    pub attr: Attr,
    /// Target of a symbolic link.
    pub link: Option<Vec<u8>>,
}

/// What [`rename`] does.
pub struct Move {
    pub from: (Place, Name),
    pub to: (Place, Name),
    pub identity: Identity,
    pub victim: Option<Identity>,
    pub exchange: bool,
}

/// `None` for what is not there and for the box's own names at the root.
pub fn lookup(root: &Root, dir: &Place, name: &Name) -> Result<Option<Found>, Errno> {
    if dir.path.is_empty() && is_hidden(name) {
        return Ok(None);
    }
    let dir = root.find(dir)?;
    match root.entry(&dir, name)? {
        Some(node) => root.found(&node).map(Some),
        None => Ok(None),
    }
}

/// Every entry. Left out are names that vanish meanwhile, mounts (O15) and the
/// box's own names.
pub fn list(root: &Root, place: &Place) -> Result<Vec<(Name, Found)>, Errno> {
    let dir = root.find(place)?;
    let mut entries = Dir::new(dir.reopen(OFlags::RDONLY)?).map_err(|e| Errno(e.raw_os_error()))?;
    let mut out = Vec::new();
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(|e| Errno(e.raw_os_error()))?;
        // Also drops "." and "..", which are no names.
        let Ok(name) = Name::new(entry.file_name().to_bytes()) else {
            continue;
        };
        if place.path.is_empty() && is_hidden(&name) {
            continue;
        }
        match root.child(&dir, &name).and_then(|node| root.found(&node)) {
            Ok(found) => out.push((name, found)),
            Err(Errno::ENOENT | Errno::ESTALE | Errno::EXDEV) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(out)
}

pub fn create(
    root: &Root,
    open: &Descriptors,
    dir: &Place,
    name: &Name,
    new: &Newborn,
) -> Result<Found, Errno> {
    let dir = root.find(dir)?;
    let (mut node, fd) = match make(&dir, name, new) {
        Ok(fd) => (root.child(&dir, name)?, fd),
        Err(Errno::EEXIST) => {
            let node = root.child(&dir, name)?;
            if !is_newborn(&node, new)? {
                return Err(Errno::EEXIST);
            }
            (node, None)
        }
        Err(e) => return Err(e),
    };
    dress(&node, &new.attr)?;
    node.refresh()?;
    let found = root.found(&node)?;
    if let Some(fd) = fd {
        open.adopt(found.identity.clone(), fd);
    }
    Ok(found)
}

/// Makes the name, closed to everybody else until [`dress`] opens it. Gives the
/// descriptor of a regular file, which its bytes will need.
fn make(dir: &Node, name: &Name, new: &Newborn) -> Result<Option<OwnedFd>, Errno> {
    let name = name.as_bytes();
    let mode = Mode::RUSR | Mode::WUSR;
    let node = |kind, dev| retry(|| rustix::fs::mknodat(&dir.fd, name, kind, mode, dev));
    let rdev = u64::from(new.attr.rdev);
    match new.kind {
        FileKind::Regular => {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return retry(|| rustix::fs::openat(&dir.fd, name, flags, mode)).map(Some);
        }
        FileKind::Directory => retry(|| rustix::fs::mkdirat(&dir.fd, name, Mode::RWXU)),
        FileKind::Symlink => {
            let target = new.link.as_deref().ok_or(Errno::EINVAL)?;
            retry(|| rustix::fs::symlinkat(target, &dir.fd, name))
        }
        FileKind::Fifo => node(FileType::Fifo, 0),
        FileKind::Socket => node(FileType::Socket, 0),
        FileKind::Char => node(FileType::CharacterDevice, rdev),
        FileKind::Block => node(FileType::BlockDevice, rdev),
    }?;
    Ok(None)
}

/// Could this be what an interrupted [`create`] left? See `OriginOp::Create`.
fn is_newborn(node: &Node, new: &Newborn) -> Result<bool, Errno> {
    if node.kind()? != new.kind {
        return Ok(false);
    }
    Ok(match new.kind {
        FileKind::Regular => node.stat.stx_size == 0 && node.stat.stx_nlink == 1,
        FileKind::Directory => is_empty(node)?,
        FileKind::Symlink => node.stat.stx_nlink == 1 && new.link == Some(node.link()?),
        FileKind::Fifo | FileKind::Socket => node.stat.stx_nlink == 1,
        FileKind::Char | FileKind::Block => {
            node.stat.stx_nlink == 1 && node.attr()?.rdev == new.attr.rdev
        }
    })
}

fn is_empty(dir: &Node) -> Result<bool, Errno> {
    let mut entries = Dir::new(dir.reopen(OFlags::RDONLY)?).map_err(|e| Errno(e.raw_os_error()))?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(|e| Errno(e.raw_os_error()))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn dress(node: &Node, attr: &Attr) -> Result<(), Errno> {
    attrs::set_owner(node, Some(attr.uid), Some(attr.gid))?;
    attrs::set_mode(node, attr.mode)?;
    let spec = |t: crate::base::Time| attrs::spec(t.sec, t.nsec.into());
    attrs::set_times(
        node,
        &Timestamps {
            last_access: spec(attr.atime),
            last_modification: spec(attr.mtime),
        },
    )
}

pub fn link(root: &Root, file: &Place, dir: &Place, name: &Name) -> Result<(), Errno> {
    let node = root.find(file)?;
    let dir = root.find(dir)?;
    let to = name.as_bytes();
    let linked = match retry(|| rustix::fs::linkat(&node.fd, "", &dir.fd, to, AtFlags::EMPTY_PATH))
    {
        // Without CAP_DAC_READ_SEARCH the kernel wants the way through /proc.
        Err(Errno::ENOENT | Errno::EPERM) => {
            let way = node.way();
            retry(|| rustix::fs::linkat(CWD, &way, &dir.fd, to, AtFlags::SYMLINK_FOLLOW))
        }
        other => other,
    };
    match linked {
        Err(Errno::EEXIST) => {
            let there = root.child(&dir, name)?;
            match same(&root.identity(&there)?, &root.identity(&node)?) {
                true => Ok(()),
                false => Err(Errno::EEXIST),
            }
        }
        other => other,
    }
}

pub fn unlink(
    root: &Root,
    open: &Descriptors,
    dir: &Place,
    name: &Name,
    identity: &Identity,
    is_dir: bool,
) -> Result<(), Errno> {
    let dir = root.find(dir)?;
    let Some(node) = root.entry(&dir, name)? else {
        return Ok(());
    };
    if !same(&root.identity(&node)?, identity) {
        return Err(Errno::ESTALE);
    }
    let flags = match is_dir {
        true => AtFlags::REMOVEDIR,
        false => AtFlags::empty(),
    };
    if node.stat.stx_nlink <= 1 {
        open.drop_dead(identity);
    }
    match retry(|| rustix::fs::unlinkat(&dir.fd, name.as_bytes(), flags)) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

pub fn rename(root: &Root, open: &Descriptors, op: &Move) -> Result<(), Errno> {
    let from_dir = root.find(&op.from.0)?;
    let to_dir = root.find(&op.to.0)?;
    let at_from = standing(root, &from_dir, &op.from.1)?;
    let at_to = standing(root, &to_dir, &op.to.1)?;
    let is = |found: &Standing, id: &Identity| found.as_ref().is_some_and(|f| same(&f.0, id));
    let swap = |flags| {
        let (from, to) = (op.from.1.as_bytes(), op.to.1.as_bytes());
        retry(|| rustix::fs::renameat_with(&from_dir.fd, from, &to_dir.fd, to, flags))
    };
    if op.exchange {
        let victim = op.victim.as_ref().ok_or(Errno::EINVAL)?;
        if is(&at_from, victim) && is(&at_to, &op.identity) {
            return Ok(());
        }
        if !is(&at_from, &op.identity) || !is(&at_to, victim) {
            return Err(Errno::ESTALE);
        }
        return swap(RenameFlags::EXCHANGE);
    }
    if !is(&at_from, &op.identity) {
        return match is(&at_to, &op.identity) {
            true => Ok(()),
            false => Err(Errno::ESTALE),
        };
    }
    match (&at_to, &op.victim) {
        (None, _) => match swap(RenameFlags::NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => swap(RenameFlags::empty()),
            other => other,
        },
        // Both names are links of one file: POSIX's rename would keep both.
        (Some((found, _)), _) if same(found, &op.identity) => {
            retry(|| rustix::fs::unlinkat(&from_dir.fd, op.from.1.as_bytes(), AtFlags::empty()))
        }
        (Some((found, nlink)), Some(victim)) if same(found, victim) => {
            if *nlink <= 1 {
                open.drop_dead(victim);
            }
            swap(RenameFlags::empty())
        }
        (Some(_), _) => Err(Errno::EEXIST),
    }
}

/// Identity and link count of what stands at a name.
type Standing = Option<(Identity, u32)>;

fn standing(root: &Root, dir: &Node, name: &Name) -> Result<Standing, Errno> {
    match root.entry(dir, name)? {
        Some(node) => Ok(Some((root.identity(&node)?, node.stat.stx_nlink))),
        None => Ok(None),
    }
}
