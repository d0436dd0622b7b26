//! Becoming a process of its own.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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
