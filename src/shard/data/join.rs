//! Several futures at once within one task.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Futures that run at once. A wake does not say whose it is, so each polls all
/// that run: more of them would cost more than they overlap.
const RUNNING_MAX: usize = 16;

/// Runs all to their ends, a few at once, and returns their outputs in order.
pub(super) async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<_> = futures.iter().map(|_| None).collect();
    let mut waiting: VecDeque<_> = futures.into_iter().enumerate().collect();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    poll_fn(|cx| {
        loop {
            let before = running.len();
            running.retain_mut(|(i, future)| match future.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    outputs[*i] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            let ended = before - running.len();
            let room = RUNNING_MAX - running.len();
            let more = waiting.drain(..room.min(waiting.len()));
            running.extend(more.map(|(i, future)| (i, Box::pin(future))));
            if running.is_empty() {
                return Poll::Ready(());
            }
            // What was just started must be polled once; what ended made room.
            if ended == 0 && running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
