//! How other threads get a reactor's attention: they leave what they have in a
//! queue, and ring only if the reactor has said that it sleeps. A busy reactor
//! costs them no system call.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The nap of a reactor and the eventfd that its ring reads.
pub struct Doorbell {
    nap: Nap,
    event: OwnedFd,
}

impl Doorbell {
    pub fn new() -> io::Result<Doorbell> {
        Ok(Doorbell {
            nap: Nap::new(),
            event: eventfd(0, EventfdFlags::CLOEXEC)?,
        })
    }

    /// Call after what is brought lies in its queue.
    pub fn ring(&self) {
        if self.nap.disturb() {
            // It fails only if the counter is full, and then the bell rings already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// The reactor is about to sleep: look into all queues after this.
    pub fn lie_down(&self) {
        self.nap.lie_down();
    }

    pub fn get_up(&self) {
        self.nap.get_up();
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Whether somebody sleeps. The two sides are ordered by a fence each: the
/// visitor writes its queue and then reads the flag, the sleeper sets the flag
/// and then looks into the queues. At least one of them sees the other.
struct Nap(AtomicBool);

impl Nap {
    fn new() -> Nap {
        Nap(AtomicBool::new(false))
    }

    /// True for the one visitor who must wake the sleeper.
    fn disturb(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    fn lie_down(&self) {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    fn get_up(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    /// Two visitors and a sleeper, in every order: whoever brings something
    /// is seen by the last look before sleeping, or rings.
    #[test]
    fn nothing_brought_is_slept_over() {
        loom::model(|| {
            let nap = Arc::new(Nap::new());
            let brought = [0, 1].map(|_| Arc::new(AtomicBool::new(false)));
            let rings = Arc::new(AtomicUsize::new(0));
            let visitors = brought.clone().map(|queue| {
                let (nap, rings) = (Arc::clone(&nap), Arc::clone(&rings));
                thread::spawn(move || {
                    queue.store(true, Ordering::Release);
                    if nap.disturb() {
                        rings.fetch_add(1, Ordering::AcqRel);
                    }
                })
            });
            nap.lie_down();
            let seen = brought
                .each_ref()
                .map(|queue| queue.load(Ordering::Acquire));
            for visitor in visitors {
                visitor.join().expect("no panic");
            }
            let rings = rings.load(Ordering::Acquire);
            assert!(
                seen == [true, true] || rings == 1,
                "{seen:?}, {rings} rings"
            );
        });
    }
}
