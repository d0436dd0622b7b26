//! What a ring can do on this machine, and why it cannot be had at all.

use serde::Serialize;
use std::fmt;
use std::io;

/// When the kernel runs the second half of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Only when the thread enters the ring (`DEFER_TASKRUN`, Linux 6.1).
    Deferred,
    /// At any entry to the kernel (`COOP_TASKRUN`, Linux 5.19).
    Cooperative,
    /// By interrupting the thread.
    Plain,
}

impl Mode {
    /// Best first.
    pub const ALL: [Mode; 3] = [Mode::Deferred, Mode::Cooperative, Mode::Plain];
}

/// What is in use, for `forebay status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Features {
    pub mode: Mode,
    /// The flash is a registered file.
    pub registered_files: bool,
    /// How many buffers of the pool are registered.
    pub registered_buffers: usize,
    /// The ring's own descriptor is registered.
    pub ring_fd: bool,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Deferred => "DEFER_TASKRUN",
            Mode::Cooperative => "COOP_TASKRUN",
            Mode::Plain => "plain",
        };
        write!(f, "io_uring: {mode}")?;
        if self.ring_fd {
            write!(f, ", registered ring")?;
        }
        if self.registered_files {
            write!(f, ", registered files")?;
        }
        match self.registered_buffers {
            0 => write!(f, ", no registered buffers"),
            n => write!(f, ", {n} registered buffers"),
        }
    }
}

/// Why there is no ring. Shown to the administrator: each says what to do.
#[derive(Debug)]
pub enum SetupError {
    /// ENOSYS or EPERM: not in this kernel, or switched off.
    Disabled(io::Error),
    /// ENOMEM.
    Memory(io::Error),
    /// EMFILE or ENFILE.
    Descriptors(io::Error),
    /// The ring works but lacks something.
    TooOld {
        missing: &'static str,
    },
    /// The thread could not be pinned to this CPU.
    Cpu {
        cpu: usize,
        error: io::Error,
    },
    Other(io::Error),
}

impl SetupError {
    #[must_use]
    pub fn of(e: io::Error) -> SetupError {
        match e.raw_os_error() {
            Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => SetupError::Disabled(e),
            Some(libc::ENOMEM) => SetupError::Memory(e),
            Some(libc::EMFILE | libc::ENFILE) => SetupError::Descriptors(e),
            _ => SetupError::Other(e),
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Disabled(e) => write!(
                f,
                "io_uring is not available ({e}): it is switched off or filtered. Allow it with \
                 `sysctl -w kernel.io_uring_disabled=0`; in a container, permit the io_uring_* \
                 system calls in its seccomp profile; it needs Linux 6.1 or later"
            ),
            SetupError::Memory(e) => write!(
                f,
                "no memory for io_uring ({e}): raise the locked-memory limit with \
                 `ulimit -l unlimited`, or `LimitMEMLOCK=infinity` in the systemd unit"
            ),
            SetupError::Descriptors(e) => write!(
                f,
                "no file descriptor for io_uring ({e}): raise `ulimit -n`, or `LimitNOFILE=` \
                 in the systemd unit"
            ),
            SetupError::TooOld { missing } => write!(
                f,
                "this kernel's io_uring lacks {missing}: Linux 6.1 or later is needed"
            ),
            SetupError::Cpu { cpu, error } => write!(
                f,
                "cannot run on CPU {cpu} ({error}): set `shards` to CPUs of this machine that \
                 the process may use (see `taskset -p`)"
            ),
            SetupError::Other(e) => write!(f, "io_uring could not be set up: {e}"),
        }
    }
}

impl std::error::Error for SetupError {}
