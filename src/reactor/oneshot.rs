//! One value from another thread to a task.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The two ends. The lock is held for a move of the value, never longer.
pub(super) fn channel<T>() -> (Answer<T>, Question<T>) {
    let state = Arc::new(Mutex::new(State {
        value: None,
        waker: None,
        open: true,
    }));
    (Answer(Arc::clone(&state)), Question(state))
}

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    /// Both ends exist.
    open: bool,
}

/// Dropped without a value, it answers `None`.
pub(super) struct Answer<T>(Arc<Mutex<State<T>>>);

impl<T> Answer<T> {
    pub fn send(self, value: T) {
        lock(&self.0).value = Some(value);
        // The drop wakes.
    }
    /// Does anybody still wait?
    pub fn is_wanted(&self) -> bool {
        lock(&self.0).open
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.open = false;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for the value.
pub(super) struct Question<T>(Arc<Mutex<State<T>>>);

impl<T> Future for Question<T> {
    type Output = Option<T>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        if !state.open {
            return Poll::Ready(state.value.take());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Question<T> {
    fn drop(&mut self) {
        lock(&self.0).open = false;
    }
}

/// The state stays whole whoever panics: every change is one assignment.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
