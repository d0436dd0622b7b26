//! Requests in an order of their own (feature ORDER). A client that has
//! answered changes to its callers ahead of the box sends them ORDERED: they
//! run one after the other, as they came. What it asks meanwhile it sends
//! AFTER, so that it sees their effect and else waits for nobody.

use crate::base::Time;
use crate::wire::RequestHead;
use crate::wire::head::flags;
use crate::world::World;
use crate::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// The ordered requests of one client.
#[derive(Default)]
pub struct Order {
    waiting: RefCell<VecDeque<Job>>,
    is_running: Cell<bool>,
    /// Requests that came, and that have been answered.
    came: Cell<u64>,
    answered: Cell<u64>,
    moved: Signal,
}

impl Order {
    /// Runs `job` when those before it have ended.
    pub fn push<W: World>(self: &Rc<Order>, world: &W, job: impl Future<Output = ()> + 'static) {
        self.came.set(self.came.get() + 1);
        self.waiting.borrow_mut().push_back(Box::pin(job));
        if !self.is_running.replace(true) {
            let order = Rc::clone(self);
            world.spawn(async move { order.run().await });
        }
    }

    async fn run(&self) {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            let Some(job) = next else { break };
            job.await;
            self.answered.set(self.answered.get() + 1);
            self.moved.notify();
        }
        self.is_running.set(false);
    }

    /// Ends when all that came before this call have ended.
    pub fn passed(self: &Rc<Order>) -> impl Future<Output = ()> + 'static {
        let order = Rc::clone(self);
        let came = self.came.get();
        async move {
            while order.answered.get() < came {
                order.moved.wait().await;
            }
        }
    }
}

/// When the client did what the request says: its own word if it answered ahead
/// of the box, never later than the box's clock, else now (O13).
#[must_use]
pub fn time_of(head: &RequestHead, now: Time) -> Time {
    match head.at {
        at if at > 0 && head.flags & flags::ORDERED != 0 => Time::from_nanos(at.into()).min(now),
        _ => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_does_nothing_in_the_future() {
        let now = Time { sec: 100, nsec: 5 };
        let head = |at, flags| RequestHead {
            at,
            flags,
            ..RequestHead::default()
        };
        let early = 99_000_000_007;
        let told = Time { sec: 99, nsec: 7 };
        assert_eq!(time_of(&head(early, flags::ORDERED), now), told);
        assert_eq!(time_of(&head(u64::MAX, flags::ORDERED), now), now);
        assert_eq!(time_of(&head(0, flags::ORDERED), now), now);
        assert_eq!(time_of(&head(early, flags::AFTER), now), now);
    }
}
