//! The io_uring of one thread: set-up with probing, submission, waiting and
//! reaping. What memory an entry points to is the business of `slots`.
//!
//! Every feature past the plain ring is an attempt with a fallback, and
//! [`Features`] tells which are in use.

use crate::base::Pool;
use crate::reactor::features::{Features, Mode, SetupError};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// One result, as the kernel posted it.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub user_data: u64,
    pub result: i32,
}

/// A ring and what it can do. Belongs to the thread that made it.
pub struct Ring {
    uring: IoUring,
    features: Features,
    /// Completions taken to make room for submissions.
    early: Vec<Completion>,
}

impl Ring {
    /// Makes a ring of `entries` submissions in the best mode of this kernel.
    pub fn new(entries: u32) -> Result<Ring, SetupError> {
        let mut refusal = None;
        for mode in Mode::ALL {
            match build(mode, entries) {
                Ok(uring) => return Ring::checked(uring, mode),
                // EINVAL: the kernel does not know the mode. Anything else
                // would be the same in the next one.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => refusal = Some(e),
                Err(e) => return Err(SetupError::of(e)),
            }
        }
        Err(SetupError::of(refusal.unwrap_or_else(|| {
            io::Error::from_raw_os_error(libc::EINVAL)
        })))
    }

    fn checked(uring: IoUring, mode: Mode) -> Result<Ring, SetupError> {
        let mut probe = Probe::new();
        uring
            .submitter()
            .register_probe(&mut probe)
            .map_err(SetupError::of)?;
        let missing = REQUIRED.iter().find(|(code, _)| !probe.is_supported(*code));
        if let Some((_, name)) = missing {
            return Err(SetupError::TooOld { missing: name });
        }
        if !uring.params().is_feature_ext_arg() || !uring.params().is_feature_nodrop() {
            return Err(SetupError::TooOld { missing: "EXT_ARG" });
        }
        let features = Features {
            mode,
            registered_files: false,
            registered_buffers: 0,
            ring_fd: false,
        };
        let mut ring = Ring {
            uring,
            features,
            early: Vec::new(),
        };
        ring.features.ring_fd = ring.uring.submitter().register_ring_fd().is_ok();
        Ok(ring)
    }

    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Registers `fds` as the fixed files 0, 1, …; false: not possible here.
    pub fn register_files(&mut self, fds: &[RawFd]) -> bool {
        self.features.registered_files = self.uring.submitter().register_files(fds).is_ok();
        self.features.registered_files
    }

    /// Registers the numbered buffers of `pool`; false where the limit on
    /// locked memory forbids it, or there are none.
    pub fn register_pool(&mut self, pool: &Pool) -> bool {
        let mut bufs = pool.take_numbered();
        if bufs.is_empty() {
            return false;
        }
        let vectors: Vec<libc::iovec> = bufs
            .iter_mut()
            .map(|buf| libc::iovec {
                iov_base: buf.as_mut_ptr().cast(),
                iov_len: buf.len(),
            })
            .collect();
        // SAFETY: the vectors name memory that the pool never frees: numbered
        // buffers return to it, and who registers a pool keeps it as long as
        // the ring.
        let registered = unsafe { self.uring.submitter().register_buffers(&vectors) };
        self.features.registered_buffers = registered.map_or(0, |()| bufs.len());
        self.features.registered_buffers > 0
    }

    /// Queues an entry; submits first when the queue is full.
    ///
    /// # Safety
    /// What `entry` points to must stay valid until its completion was reaped.
    pub unsafe fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the caller keeps the entry's memory.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.submit();
            let mut early = std::mem::take(&mut self.early);
            self.reap(&mut early);
            self.early = early;
        }
    }

    /// Hands what is queued to the kernel and runs its deferred work.
    pub fn submit(&mut self) {
        let queue = self.uring.submission();
        let idle = queue.is_empty() && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        if idle {
            return;
        }
        settle(self.uring.submitter().submit());
    }

    /// Submits, and waits until something completed or `timeout` is over.
    pub fn submit_and_wait(&mut self, timeout: Option<Duration>) {
        let submitter = self.uring.submitter();
        settle(match timeout {
            None => submitter.submit_and_wait(1),
            Some(timeout) => {
                let spec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&spec);
                submitter.submit_with_args(1, &args)
            }
        });
    }

    /// Is something posted, or done and waiting to be posted by an entry into
    /// the kernel? No system call.
    pub fn has_news(&mut self) -> bool {
        !self.uring.completion().is_empty() || self.uring.submission().taskrun()
    }

    /// Moves all posted completions to `into`.
    pub fn reap(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.early);
        into.extend(self.uring.completion().map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
        }));
    }
}

fn build(mode: Mode, entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_submit_all();
    builder.setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY));
    match mode {
        Mode::Deferred => builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag(),
        Mode::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
        Mode::Plain => &mut builder,
    };
    builder.build(entries)
}

/// Judges the result of an enter. A timeout, a signal, or a completion queue
/// that must be reaped first are ordinary; what else there is means that the
/// ring itself is unusable, which no operation could be told.
fn settle(result: io::Result<usize>) {
    let Err(e) = result else { return };
    match e.raw_os_error() {
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
        _ => panic!("io_uring_enter failed on a ring that was set up: {e}"),
    }
}

const COMPLETIONS_PER_ENTRY: u32 = 8;

/// Operations without which there is no reactor (all in Linux 5.6).
const REQUIRED: [(u8, &str); 10] = [
    (opcode::Read::CODE, "READ"),
    (opcode::Write::CODE, "WRITE"),
    (opcode::Readv::CODE, "READV"),
    (opcode::Writev::CODE, "WRITEV"),
    (opcode::Fsync::CODE, "FSYNC"),
    (opcode::Recv::CODE, "RECV"),
    (opcode::SendMsg::CODE, "SENDMSG"),
    (opcode::Connect::CODE, "CONNECT"),
    (opcode::PollAdd::CODE, "POLL_ADD"),
    (opcode::AsyncCancel::CODE, "ASYNC_CANCEL"),
];
