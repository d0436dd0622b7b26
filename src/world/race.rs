//! Waiting with a bound.

use super::World;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// What `task` gives, unless `bound` passes first: then it is dropped and the
/// answer is `None`.
pub async fn within<W: World, T>(
    world: &W,
    bound: Duration,
    task: impl Future<Output = T>,
) -> Option<T> {
    let mut task = pin!(task);
    let mut clock = pin!(world.sleep(bound));
    poll_fn(|cx| {
        if let Poll::Ready(value) = task.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        clock.as_mut().poll(cx).map(|()| None)
    })
    .await
}
