//! Sleeping tasks.

use super::reactor;
use crate::world::World;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

#[test]
fn ten_thousand_timers_fire_and_none_early() {
    reactor(|world| async move {
        let fired = Rc::new(RefCell::new(Vec::new()));
        for i in 0..10_000_u64 {
            let (world, fired) = (world.clone(), Rc::clone(&fired));
            let at = i * 7919 % 10_000;
            let for_ = Duration::from_micros(at * 5);
            world.clone().spawn(async move {
                let until = world.now() + for_;
                world.sleep(for_).await;
                assert!(world.now() >= until, "a timer was early");
                fired.borrow_mut().push(at);
            });
        }
        while fired.borrow().len() < 10_000 {
            world.sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.0.timers.len(), 0);
        let mut all = fired.take();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..10_000));
    });
}

#[test]
fn a_dropped_sleep_leaves_nothing() {
    reactor(|world| async move {
        {
            let mut sleep = pin!(world.sleep(Duration::from_secs(3600)));
            poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            assert_eq!(world.0.timers.len(), 1);
        }
        assert_eq!(world.0.timers.len(), 0);
    });
}
