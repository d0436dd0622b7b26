//! Becoming a process of its own, and its signals.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Which side of a fork one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Parent,
    Child,
}

/// Splits the process in two. Only a process of one thread may: other threads
/// would be missing in the child together with whatever locks they hold.
pub fn fork() -> io::Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other("cannot fork a process that has threads"));
    }
    // SAFETY: fork takes no memory of ours, and the caller is the only thread,
    // so that the child's copy of every lock and allocator state is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        _ => Ok(Side::Parent),
    }
}

/// Turns SIGINT, SIGTERM and SIGHUP into something to read, for the calling
/// thread and the threads that it starts afterwards. Does not block.
pub fn signals() -> io::Result<OwnedFd> {
    // SAFETY: a sigset_t is plain integers, for which zero bytes are a value,
    // and sigemptyset sets it properly besides.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set, exclusively ours, and the signals exist.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
    }
    // SAFETY: `set` is valid for reads; a null old set asks for none back.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    // SAFETY: `set` is valid for reads, -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just returned to us and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of a signal that came, if one did.
pub fn next_signal(fd: &impl AsFd) -> Option<i32> {
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        // The first field is the number.
        Ok(n) if n == info.len() => {
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            i32::try_from(number).ok()
        }
        _ => None,
    }
}

/// Points standard input and output to nowhere, and standard error to `log`,
/// or to nowhere too.
pub fn leave_terminal(log: Option<&File>) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for (target, file) in [(0, &null), (1, &null), (2, log.unwrap_or(&null))] {
        // SAFETY: dup2 replaces a standard descriptor, which std never closes
        // and nothing here owns; the file is open.
        if unsafe { libc::dup2(file.as_raw_fd(), target) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
