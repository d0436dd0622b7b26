//! The kernel as a session meets it: where replies go, and what it is told.
//! The device is the real one; the simulated client has a model of it (C15).

use super::abi::notify::Notice;
use crate::base::Errno;
use std::future::Future;

/// The kernel's end of one mount. Requests come from it through
/// [`Session::on_message`](super::session::Session::on_message), and what it may
/// make the teller wait for goes to it through
/// [`Session::next_notice`](super::session::Session::next_notice).
pub trait Kernel: 'static {
    /// Answers the request `unique` with the bytes of `parts`. The device ends
    /// at once; a process may be stopped in it all the same.
    ///
    /// # Errors
    /// ENOENT or ENODEV where nobody waits for the answer any more.
    fn reply(&self, unique: u64, parts: &[&[u8]]) -> impl Future<Output = Result<(), Errno>>;

    /// Fails the request `unique`.
    ///
    /// # Errors
    /// As [`reply`](Self::reply).
    fn refuse(&self, unique: u64, error: Errno) -> impl Future<Output = Result<(), Errno>>;

    /// Tells the kernel something that it never waits with.
    ///
    /// # Errors
    /// ENOENT: it has nothing of that.
    fn tell(&self, notice: &Notice) -> Result<(), Errno>;

    /// Has a thread, whose request was answered, done with the answer what the
    /// kernel does with it, or does it exist no more? False where that cannot be
    /// known now.
    fn has_gone_on(&self, thread: u32) -> bool;
}
