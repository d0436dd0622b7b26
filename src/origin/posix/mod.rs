//! The origin on any mounted file system: a local disk, NFS, Lustre, CephFS.
//!
//! Every call finds its file anew, by handle or by names from the root, and
//! checks that it is the one meant ([`node`]); then it acts on the descriptor
//! found, or on a name relative to its directory's descriptor. Nothing is
//! addressed by a path a second time, so that a name swapped meanwhile is
//! noticed and not followed.
//!
//! Architecture invariants: no way leaves the tree, follows a symbolic link or
//! crosses a mount; fifos, sockets and devices are never opened; a file written
//! is synced through the descriptor that wrote it (O1).
//!
//! Between checking a name and acting on it another writer of the origin can
//! slip in: POSIX has no call that does both (O12).

mod attrs;
mod bytes;
mod descriptors;
mod names;
mod node;
mod probe;
mod sys;
#[cfg(test)]
mod tests;

use super::{Found, Origin, OriginOp, OriginReply, Statfs};
use crate::base::Errno;
use descriptors::Descriptors;
use node::{Root, retry};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

/// A tree of a mounted file system as an origin. Calls may come from any
/// number of threads.
pub struct Posix {
    path: PathBuf,
    by_handle: bool,
    /// `None` until opened; replaced by every probe, since the mount may have
    /// been made anew.
    root: RwLock<Option<Arc<Root>>>,
    descriptors: Descriptors,
    probing: Mutex<()>,
}

/// Why a tree cannot be an origin.
#[derive(Debug, PartialEq, Eq)]
pub struct OpenError {
    pub path: PathBuf,
    pub errno: Errno,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.errno {
            Errno::ENOENT => write!(
                f,
                "origin {path} does not exist: create the directory, or mount the file system there"
            ),
            Errno::ENOTDIR => write!(f, "origin {path} is not a directory: name the tree's root"),
            Errno::EACCES | Errno::EPERM => write!(
                f,
                "origin {path} may not be read by this user: run as root or change its mode"
            ),
            Errno::ENOTCONN | Errno::ESTALE | Errno::EIO => {
                write!(f, "origin {path}: {}: is it still mounted?", self.errno)
            }
            other => write!(f, "origin {path}: {other}"),
        }
    }
}

impl std::error::Error for OpenError {}

impl Posix {
    /// Opens the tree at `path`; says clearly why it cannot be one.
    pub fn open(path: &Path) -> Result<Posix, OpenError> {
        let posix = Posix::closed(path, true);
        match posix.connect() {
            Ok(_) => Ok(posix),
            Err(errno) => Err(OpenError {
                path: path.to_owned(),
                errno,
            }),
        }
    }

    /// An origin that its first [`OriginOp::Probe`] opens. `by_handle` off
    /// finds files by names alone, as on file systems without handles.
    #[must_use]
    pub fn closed(path: &Path, by_handle: bool) -> Posix {
        Posix {
            path: path.to_owned(),
            by_handle,
            root: RwLock::new(None),
            descriptors: Descriptors::default(),
            probing: Mutex::new(()),
        }
    }

    fn connect(&self) -> Result<Arc<Root>, Errno> {
        let root = Arc::new(Root::open(&self.path, self.by_handle)?);
        let mut slot = self.root.write().unwrap_or_else(|e| e.into_inner());
        *slot = Some(Arc::clone(&root));
        Ok(root)
    }

    /// ENOTCONN before the first successful probe.
    fn root(&self) -> Result<Arc<Root>, Errno> {
        let slot = self.root.read().unwrap_or_else(|e| e.into_inner());
        slot.clone().ok_or(Errno::ENOTCONN)
    }

    fn run(&self, op: OriginOp) -> Result<OriginReply, Errno> {
        if matches!(op, OriginOp::Probe) {
            // One at a time: they use one directory, and one that hung and was
            // given up may go on when the origin is back.
            let _alone = self.probing.lock().unwrap_or_else(|e| e.into_inner());
            let root = self.connect()?;
            return probe::limits(&root, &self.path).map(|l| OriginReply::Probed(Box::new(l)));
        }
        let root = self.root()?;
        let open = &self.descriptors;
        match op {
            OriginOp::Probe | OriginOp::Read { .. } => Err(Errno::EINVAL),
            OriginOp::Stat { place } => found(root.found(&root.find(&place)?)?),
            OriginOp::Lookup { dir, name } => match names::lookup(&root, &dir, &name)? {
                Some(file) => found(file),
                None => Ok(OriginReply::Absent),
            },
            OriginOp::List { dir } => names::list(&root, &dir).map(OriginReply::Listed),
            OriginOp::XattrList { file } => {
                attrs::xattr_list(&root.find(&file)?).map(OriginReply::Bytes)
            }
            OriginOp::XattrGet { file, name } => {
                attrs::xattr(&root.find(&file)?, &name).map(OriginReply::Bytes)
            }
            OriginOp::Statfs => statfs(&root).map(OriginReply::Statfs),
            OriginOp::Fsync { file } => found(bytes::fsync(&root, open, &file)?),
            OriginOp::Forget { identity } => done(open.close(&identity)),
            OriginOp::Create { .. }
            | OriginOp::Link { .. }
            | OriginOp::Unlink { .. }
            | OriginOp::Rename { .. } => self.change_name(&root, op),
            _ => done(self.change_file(&root, op)),
        }
    }

    fn change_name(&self, root: &Root, op: OriginOp) -> Result<OriginReply, Errno> {
        let open = &self.descriptors;
        match op {
            OriginOp::Create {
                dir,
                name,
                kind,
                attr,
                link,
            } => found(names::create(
                root,
                open,
                &dir,
                &name,
                &names::Newborn { kind, attr, link },
            )?),
            OriginOp::Link { file, dir, name } => done(names::link(root, &file, &dir, &name)),
            OriginOp::Unlink {
                dir,
                name,
                identity,
                is_dir,
            } => done(names::unlink(root, open, &dir, &name, &identity, is_dir)),
            OriginOp::Rename {
                from,
                to,
                identity,
                victim,
                exchange,
            } => done(names::rename(
                root,
                open,
                &names::Move {
                    from,
                    to,
                    identity,
                    victim,
                    exchange,
                },
            )),
            _ => Err(Errno::EINVAL),
        }
    }

    fn change_file(&self, root: &Root, op: OriginOp) -> Result<(), Errno> {
        let open = &self.descriptors;
        match op {
            OriginOp::Write { file, offset, data } => {
                bytes::write(root, open, &file, offset, &data)
            }
            OriginOp::Truncate { file, size } => bytes::truncate(root, open, &file, size),
            OriginOp::Punch { file, offset, len } => bytes::punch(root, open, &file, offset, len),
            OriginOp::SetAttr { file, set } => attrs::set(root, open, &file, &set),
            OriginOp::XattrSet { file, name, value } => {
                attrs::xattr_set(&root.find(&file)?, &name, &value.0)
            }
            OriginOp::XattrRemove { file, name } => attrs::xattr_remove(&root.find(&file)?, &name),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Origin for Posix {
    fn call(&self, op: OriginOp) -> OriginReply {
        if let OriginOp::Read { file, offset, buf } = op {
            let mut buf = buf;
            let result = self
                .root()
                .and_then(|root| bytes::read(&root, &self.descriptors, &file, offset, &mut buf));
            return OriginReply::Read { result, buf };
        }
        self.run(op).unwrap_or_else(OriginReply::Failed)
    }
}

fn found(found: Found) -> Result<OriginReply, Errno> {
    Ok(OriginReply::Found(Box::new(found)))
}

fn done(result: Result<(), Errno>) -> Result<OriginReply, Errno> {
    result.map(|()| OriginReply::Done)
}

fn statfs(root: &Root) -> Result<Statfs, Errno> {
    let s = retry(|| rustix::fs::fstatvfs(&root.dir))?;
    Ok(Statfs {
        bsize: u32::try_from(s.f_frsize).unwrap_or(4096),
        blocks: s.f_blocks,
        bfree: s.f_bfree,
        bavail: s.f_bavail,
        files: s.f_files,
        ffree: s.f_ffree,
        namelen: u32::try_from(s.f_namemax).unwrap_or(255),
    })
}
