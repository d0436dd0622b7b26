//! Timers of one thread: a tree ordered by deadline in user space, of which
//! the ring only ever sees the first, as the timeout of its wait. That wait
//! does not count suspension: after a resume a timer may be late by what was
//! left of it, so who keeps a lease asks the clock as well.

use crate::base::Mono;
use rustix::time::{ClockId, clock_gettime};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Now, on the clock that counts suspension: leases are kept by it (F2).
#[must_use]
pub fn now() -> Mono {
    let now = clock_gettime(ClockId::Boottime);
    let sec = u64::try_from(now.tv_sec).unwrap_or(0);
    let nsec = u64::try_from(now.tv_nsec).unwrap_or(0);
    Mono(sec.saturating_mul(1_000_000_000).saturating_add(nsec))
}

/// Who waits until when. Timers of the same instant are told apart by a count.
#[derive(Default)]
pub struct Timers {
    waiting: RefCell<BTreeMap<(Mono, u64), Waker>>,
    count: Cell<u64>,
}

impl Timers {
    pub fn sleep(self: &Rc<Self>, for_: Duration) -> Sleep {
        Sleep {
            timers: Rc::clone(self),
            until: now() + for_,
            id: None,
        }
    }

    /// Wakes whose time has come.
    pub fn fire(&self) {
        if self.waiting.borrow().is_empty() {
            return;
        }
        let now = now();
        loop {
            let mut waiting = self.waiting.borrow_mut();
            match waiting.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let waker = first.remove();
                    drop(waiting);
                    waker.wake();
                }
                _ => return,
            }
        }
    }

    /// How long until the first timer; `None` without timers.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let waiting = self.waiting.borrow();
        let ((until, _), _) = waiting.first_key_value()?;
        Some(*until - now())
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }
}

/// Ends at its deadline or soon after.
pub struct Sleep {
    timers: Rc<Timers>,
    until: Mono,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if now() >= self.until {
            return Poll::Ready(());
        }
        let id = self.id.unwrap_or_else(|| {
            self.timers.count.set(self.timers.count.get() + 1);
            self.timers.count.get()
        });
        self.id = Some(id);
        let waker = cx.waker().clone();
        let mut waiting = self.timers.waiting.borrow_mut();
        waiting.insert((self.until, id), waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let key = (self.until, id);
            let gone = self.timers.waiting.borrow_mut().remove(&key);
            drop(gone);
        }
    }
}
