//! The operations: each request of the kernel as a request to the box.

mod attrs;
mod data;
mod listing;
mod locks;
mod names;
mod start;

use super::abi::Opcode;
use super::abi::parse::Op;
use super::kernel::Kernel;
use super::session::{Origin, Outcome, Session};
use super::upstream::Upstream;
use crate::base::{Errno, Slice};
use crate::wire::Reply;
use crate::wire::op::Entry;
use crate::world::World;
use std::rc::Rc;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// Carries out one request.
    pub(super) async fn run(
        self: &Rc<Self>,
        from: &Origin,
        op: Op,
        payload: Option<Slice>,
    ) -> Result<Outcome, Errno> {
        match &op {
            Op::Symlink { .. }
            | Op::Mknod { .. }
            | Op::Mkdir { .. }
            | Op::Unlink(_)
            | Op::Rmdir(_)
            | Op::Link { .. }
            | Op::Create { .. } => self.has_locked(from.head.nodeid),
            Op::Rename { newdir, .. } => {
                self.has_locked(from.head.nodeid);
                self.has_locked(*newdir);
            }
            _ => {}
        }
        match op {
            Op::Lookup(_)
            | Op::Symlink { .. }
            | Op::Mknod { .. }
            | Op::Mkdir { .. }
            | Op::Unlink(_)
            | Op::Rmdir(_)
            | Op::Rename { .. }
            | Op::Link { .. } => self.on_name(from, op).await,
            Op::Open(args) => self.on_open(from, args).await,
            Op::Create { name, args } => self.on_create(from, Some(name), args).await,
            Op::Tmpfile(args) => self.on_create(from, None, args).await,
            Op::Release(args) => self.on_release(from, args),
            Op::Read(args) => self.on_read(from, args).await,
            Op::Write(args) => self.on_write(from, args, payload).await,
            Op::Fsync(args) | Op::Fsyncdir(args) => self.on_fsync(from, args).await,
            Op::Fallocate(args) => self.on_fallocate(from, args).await,
            Op::Lseek(args) => self.on_lseek(from, args).await,
            Op::CopyFileRange { args, wide } => self.on_copy(from, args, wide).await,
            Op::Opendir => self.on_opendir(from),
            Op::Readdir { args, plus } => self.on_readdir(from, args, plus).await,
            Op::Releasedir(args) => self.on_releasedir(args),
            Op::Getattr | Op::Statx => self.on_getattr(from, op).await,
            Op::Setattr(set) => self.on_setattr(from, set).await,
            Op::Readlink => self.on_readlink(from).await,
            Op::Statfs => self.on_statfs(from).await,
            Op::Setxattr { args, name, value } => self.on_setxattr(from, args, name, value).await,
            Op::Getxattr { size, name } => self.on_getxattr(from, size, name).await,
            Op::Listxattr { size } => self.on_listxattr(from, size).await,
            Op::Removexattr(name) => self.on_removexattr(from, name).await,
            Op::Syncfs => {
                self.upstream.drain().await;
                Ok(Outcome::Done)
            }
            Op::Destroy => Ok(Outcome::Done),
            Op::Ioctl => Err(Errno(libc::ENOTTY)),
            Op::Flush(args) => self.on_flush(from, args).await,
            Op::Getlk(args) => self.on_getlk(from, args).await,
            Op::Setlk { args, wait } => self.on_setlk(from, args, wait).await,
            Op::Refused(Opcode::NotifyReply) => Ok(Outcome::Silent),
            Op::Refused(_) => Err(Errno::ENOSYS),
            // Taken in without a task.
            Op::Init(_) | Op::Forget(_) | Op::Interrupt(_) => Ok(Outcome::Silent),
        }
    }
}

/// The object in a reply. Another kind of reply is the box's fault.
fn entry_in(reply: Reply) -> Result<Entry, Errno> {
    match reply {
        Reply::Entry(entry) => Ok(entry),
        _ => Err(Errno::EIO),
    }
}

fn blob_in(reply: Reply) -> Result<Vec<u8>, Errno> {
    match reply {
        Reply::Blob(blob) => Ok(blob.bytes.0),
        _ => Err(Errno::EIO),
    }
}
