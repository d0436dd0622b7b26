//! Running many futures at once on the shard's thread.

use crate::world::World;
use crate::world::sync::{Promise, Semaphore};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

/// Runs all, at most `width` at a time; the results in order.
pub async fn together<W: World, T: 'static, F: Future<Output = T> + 'static>(
    world: &W,
    width: usize,
    jobs: Vec<F>,
) -> Vec<T> {
    let results: Rc<RefCell<Vec<Option<T>>>> = Rc::default();
    results.borrow_mut().resize_with(jobs.len(), || None);
    let lanes = Semaphore::new(width.max(1));
    let mut ends = Vec::with_capacity(jobs.len());
    for (i, job) in jobs.into_iter().enumerate() {
        let lane = lanes.acquire().await;
        let (end, results) = (Promise::default(), Rc::clone(&results));
        ends.push(end.clone());
        world.spawn(async move {
            let value = job.await;
            results.borrow_mut()[i] = Some(value);
            drop(lane);
            end.set(());
        });
    }
    for end in ends {
        end.get().await;
    }
    results.take().into_iter().flatten().collect()
}

/// Ends when the first of the two does.
pub async fn either(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| {
        if a.as_mut().poll(cx).is_ready() || b.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}
