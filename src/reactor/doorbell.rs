//! How other threads get a reactor's attention: they leave what they have in a
//! queue, and ring only if the reactor has said that it sleeps. A busy reactor
//! costs them no system call.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The sleeping flag of a reactor and the eventfd that its ring reads.
///
/// The two sides are ordered by a fence each: the visitor writes its queue and
/// then reads the flag, the sleeper sets the flag and then looks into the
/// queues. At least one of them sees the other.
pub struct Doorbell {
    sleeping: AtomicBool,
    event: OwnedFd,
}

impl Doorbell {
    pub fn new() -> io::Result<Doorbell> {
        Ok(Doorbell {
            sleeping: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC)?,
        })
    }

    /// Call after what is brought lies in its queue.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // It fails only if the counter is full, and then the bell rings already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// The reactor is about to sleep: look into all queues after this.
    pub fn lie_down(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub fn get_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
