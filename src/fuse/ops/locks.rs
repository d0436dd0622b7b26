//! File locks: flock, fcntl and OFD locks, all kept by the box. The kernel says
//! whose a lock is, not whether that is a process or an open file: every lock
//! that is no flock is treated as a process's, and ends with its handle as well
//! (L12), which is how an OFD lock ends.

use crate::base::{Codec, Errno, Extent, LockKind, OpenId, OwnerKind};
use crate::client::{Context, LockCall};
use crate::fuse::abi::flag::{LK_FLOCK, init};
use crate::fuse::abi::input::{FileLock, FlushIn, LkIn};
use crate::fuse::kernel::Kernel;
use crate::fuse::session::{Origin, Outcome, Session};
use crate::fuse::upstream::{Interrupt, Upstream};
use crate::wire::filelock::{Getlk, LockState};
use crate::wire::{Reply, Request};
use crate::world::{Level, World};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    pub(super) async fn on_setlk(
        &self,
        from: &Origin,
        args: LkIn,
        wait: bool,
    ) -> Result<Outcome, Errno> {
        let asked = LockCall {
            fid: self.node(from.head.nodeid)?.fid,
            open: OpenId(args.fh),
            range: range_of(&args)?,
            kind: kind_of(args.lock.kind)?,
            pid: args.lock.pid,
            wait,
        };
        let context = &self.locker(from, args.owner, owner_kind(&args));
        let mut done = pin!(self.upstream.lock(context, asked, &from.interrupt));
        // A mount that is torn off has nobody who could interrupt the wait.
        let mut end = pin!(async {
            self.unmounted().await;
            from.interrupt.raise();
            pending::<()>().await;
        });
        let done = poll_fn(|cx| {
            let _: Poll<()> = end.as_mut().poll(cx);
            done.as_mut().poll(cx)
        });
        done.await.map_err(unsupported).map(|()| Outcome::Done)
    }

    pub(super) async fn on_getlk(&self, from: &Origin, args: LkIn) -> Result<Outcome, Errno> {
        let request = Getlk {
            fid: self.node(from.head.nodeid)?.fid,
            range: range_of(&args)?,
            kind: kind_of(args.lock.kind)?.ok_or(Errno::EINVAL)?,
        };
        let mut ask = self.plain(from, Request::Getlk(request));
        ask.context = self.locker(from, args.owner, owner_kind(&args));
        let Reply::Lock(answer) = self.call(ask).await.map_err(unsupported)?.0 else {
            return Err(Errno::EIO);
        };
        let found = match (answer.state, answer.found) {
            (LockState::Granted, None) => FileLock {
                kind: libc::F_UNLCK as u32,
                ..args.lock
            },
            (LockState::InTheWay, Some(found)) => FileLock {
                start: found.range.start.min(OFFSET_MAX),
                end: found.range.end.min(OFFSET_MAX),
                kind: match found.kind {
                    LockKind::Read => libc::F_RDLCK as u32,
                    LockKind::Write => libc::F_WRLCK as u32,
                },
                pid: found.pid,
            },
            _ => return Err(Errno::EIO),
        };
        Ok(Outcome::Bytes(found.to_vec()))
    }

    /// A process closes a descriptor: its locks on the file end, whichever
    /// descriptor they were taken through. Without locks nothing is asked.
    ///
    /// There is nothing else to do: every write was answered by the box, with
    /// its error if it had one, and the kernel writes mapped pages before.
    /// Without locks at the box the kernel need not say it again.
    pub(super) async fn on_flush(&self, from: &Origin, args: FlushIn) -> Result<Outcome, Errno> {
        if !self.has(init::POSIX_LOCKS) {
            return Err(Errno::ENOSYS);
        }
        let fid = self.node(from.head.nodeid)?.fid;
        if !self.upstream.has_locks(fid, args.lock_owner) {
            return Ok(Outcome::Done);
        }
        let asked = LockCall {
            fid,
            open: OpenId(args.fh),
            range: Extent::ALL,
            kind: None,
            pid: 0,
            wait: false,
        };
        let context = self.locker(from, args.lock_owner, OwnerKind::Posix);
        // A close cannot be interrupted.
        let never = Interrupt::default();
        if let Err(e) = self.upstream.lock(&context, asked, &never).await {
            let line = format!("locks on {fid} were not given up at close: {e}");
            self.world.log(Level::Warn, &line);
        }
        Ok(Outcome::Done)
    }

    fn locker(&self, from: &Origin, owner: u64, kind: OwnerKind) -> Context {
        let mut context = Context::new(Rc::clone(&from.caller));
        context.owner = owner;
        context.owner_kind = kind as u8;
        context
    }
}

/// The kernel's largest offset, which says "to the end of the file".
const OFFSET_MAX: u64 = i64::MAX as u64;

fn owner_kind(args: &LkIn) -> OwnerKind {
    match args.lk_flags & LK_FLOCK {
        0 => OwnerKind::Posix,
        _ => OwnerKind::Flock,
    }
}

fn range_of(args: &LkIn) -> Result<Extent, Errno> {
    let FileLock { start, end, .. } = args.lock;
    if owner_kind(args) == OwnerKind::Flock {
        return Ok(Extent::ALL);
    }
    match end {
        _ if start > end => Err(Errno::EINVAL),
        OFFSET_MAX.. => Ok(Extent::from(start)),
        end => Ok(Extent { start, end }),
    }
}

/// None: unlock.
fn kind_of(number: u32) -> Result<Option<LockKind>, Errno> {
    match i32::try_from(number) {
        Ok(libc::F_RDLCK) => Ok(Some(LockKind::Read)),
        Ok(libc::F_WRLCK) => Ok(Some(LockKind::Write)),
        Ok(libc::F_UNLCK) => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// A box that has no file locks any more, after this mount has promised them.
fn unsupported(errno: Errno) -> Errno {
    match errno {
        Errno::ENOSYS | Errno::EOPNOTSUPP => Errno::ENOLCK,
        other => other,
    }
}
