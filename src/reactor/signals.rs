//! Signals as something to wait for, in control or in a task.

use crate::base::{Buf, Errno};
use crate::reactor::job::Descriptor;
use crate::reactor::local::Local;
use rustix::process::Signal;
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Signals that this process takes from a descriptor instead of being
/// interrupted by them.
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Blocks `which` in this thread and in the threads it starts from now on:
    /// call it before there are others, since a signal to the process reaches
    /// any thread that has not blocked it. Programs that `std::process` starts
    /// begin with nothing blocked.
    pub fn block(which: &[Signal]) -> io::Result<Signals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set that it is given.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in which {
            // SAFETY: the set is initialised; a bad number is only refused.
            if unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the set is initialised, and the old one is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        // SAFETY: the set is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(Signals(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Waits for the next signal, blocking the thread.
    pub fn wait(&self) -> io::Result<Signal> {
        loop {
            let mut record = [0; RECORD_LEN];
            (&self.0).read_exact(&mut record)?;
            if let Some(signal) = parse(&record) {
                return Ok(signal);
            }
        }
    }

    /// Waits in tasks of a reactor from now on.
    pub fn on(self, world: &Local) -> SignalStream {
        SignalStream {
            world: world.clone(),
            descriptor: Descriptor::new(self.0.into()),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// The same, for tasks.
pub struct SignalStream {
    world: Local,
    descriptor: Descriptor,
}

impl SignalStream {
    pub async fn next(&self) -> Result<Signal, Errno> {
        loop {
            let buf = Buf::alone(RECORD_LEN);
            let (got, buf) = self.world.read(&self.descriptor, buf).await;
            if got? < RECORD_LEN {
                return Err(Errno::EIO);
            }
            if let Some(signal) = parse(&buf) {
                return Ok(signal);
            }
        }
    }
}

/// The signal that a record tells of: its number stands first.
fn parse(record: &[u8]) -> Option<Signal> {
    let number = u32::from_ne_bytes(record.first_chunk().copied()?);
    Signal::from_named_raw(i32::try_from(number).ok()?)
}

const RECORD_LEN: usize = size_of::<libc::signalfd_siginfo>();
