//! Notices that the kernel may make wait. They are posted here and carried to
//! the device by the server's loop, each in a context of its own (C3).

use super::abi::notify::Notice;
use crate::base::Errno;
use crate::world::sync::{Permit, Promise, Queue, Semaphore, Signal};
use std::cell::Cell;
use std::rc::Rc;

/// What the kernel said to a notice, once it did.
pub type Told = Promise<Result<(), Errno>>;

/// The post between the session and the loop.
pub struct Notices {
    posted: Queue<Letter>,
    /// Bounds how many kernel threads names take: each that waits for a
    /// directory's lock is one.
    contexts: Rc<Semaphore>,
}

/// A notice on its way.
pub struct Letter {
    pub notice: Notice,
    told: Told,
    _permit: Option<Permit>,
}

impl Letter {
    /// The kernel has answered.
    pub fn end(self, result: Result<(), Errno>) {
        self.told.set(result);
    }
}

impl Default for Notices {
    fn default() -> Notices {
        Notices {
            posted: Queue::default(),
            contexts: Semaphore::new(CONTEXTS),
        }
    }
}

impl Notices {
    pub fn post(&self, notice: Notice, permit: Option<Permit>) -> Told {
        let told = Told::default();
        self.posted.push(Letter {
            notice,
            told: told.clone(),
            _permit: permit,
        });
        told
    }

    /// A place among those who may wait for a directory.
    pub async fn permit(&self) -> Permit {
        self.contexts.acquire().await
    }

    /// The next to carry. Never ends while there is none.
    pub async fn next(&self) -> Option<Letter> {
        self.posted.pop().await
    }
}

/// Tasks that run; ends when the last of them has.
#[derive(Default)]
pub struct Latch {
    left: Cell<usize>,
    ended: Signal,
}

/// One task of a [`Latch`], while it lives.
pub struct Part(Rc<Latch>);

impl Latch {
    #[must_use]
    pub fn part(self: &Rc<Self>) -> Part {
        self.left.set(self.left.get() + 1);
        Part(Rc::clone(self))
    }
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.left.get() == 0
    }
    pub async fn ended(&self) {
        while !self.is_ended() {
            self.ended.wait().await;
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.0.left.set(self.0.left.get() - 1);
        if self.0.is_ended() {
            self.0.ended.notify();
        }
    }
}

/// Names whose invalidation may be under way at once.
const CONTEXTS: usize = 32;
