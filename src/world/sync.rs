//! Waiting between tasks of one thread, the same in both worlds: no wakers
//! cross threads here, and nothing here knows time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Wakes every waiter of the moment; a waiter checks its own condition again.
/// Condition variables without the mutex: `while !ready() { signal.wait().await }`
/// is correct because nothing runs between the check and the wait.
#[derive(Default)]
pub struct Signal {
    epoch: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    pub fn notify(&self) {
        self.epoch.set(self.epoch.get() + 1);
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Ends at the next `notify` after the call of `wait` itself.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.epoch.get();
        poll_fn(move |cx| {
            if self.epoch.get() != seen {
                return Poll::Ready(());
            }
            self.wakers.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
    }
}

/// A value that arrives once: made by one task, awaited by any number.
pub struct Promise<T>(Rc<PromiseState<T>>);

struct PromiseState<T> {
    value: RefCell<Option<T>>,
    done: Signal,
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Promise(Rc::clone(&self.0))
    }
}

impl<T> Default for Promise<T> {
    fn default() -> Self {
        Promise(Rc::new(PromiseState {
            value: RefCell::new(None),
            done: Signal::default(),
        }))
    }
}

impl<T: Clone> Promise<T> {
    /// Gives the value; a second one is ignored.
    pub fn set(&self, value: T) {
        let mut slot = self.0.value.borrow_mut();
        if slot.is_none() {
            *slot = Some(value);
            drop(slot);
            self.0.done.notify();
        }
    }
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.value.borrow().is_some()
    }
    pub async fn get(&self) -> T {
        loop {
            if let Some(value) = self.0.value.borrow().as_ref() {
                return value.clone();
            }
            self.0.done.wait().await;
        }
    }
}

/// An unbounded queue between tasks of one thread; its users bound it.
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    closed: Cell<bool>,
    filled: Signal,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            items: RefCell::new(VecDeque::new()),
            closed: Cell::new(false),
            filled: Signal::default(),
        }
    }
}

impl<T> Queue<T> {
    pub fn push(&self, item: T) {
        self.items.borrow_mut().push_back(item);
        self.filled.notify();
    }
    pub fn try_pop(&self) -> Option<T> {
        self.items.borrow_mut().pop_front()
    }
    /// The next item; `None` once the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        loop {
            if let Some(item) = self.try_pop() {
                return Some(item);
            }
            if self.closed.get() {
                return None;
            }
            self.filled.wait().await;
        }
    }
    pub fn close(&self) {
        self.closed.set(true);
        self.filled.notify();
    }
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.borrow().is_empty()
    }
}

/// Counted permits, first come first served.
pub struct Semaphore {
    free: Cell<usize>,
    freed: Signal,
}

impl Semaphore {
    #[must_use]
    pub fn new(permits: usize) -> Rc<Semaphore> {
        Rc::new(Semaphore {
            free: Cell::new(permits),
            freed: Signal::default(),
        })
    }
    pub async fn acquire(self: &Rc<Self>) -> Permit {
        while self.free.get() == 0 {
            self.freed.wait().await;
        }
        self.free.set(self.free.get() - 1);
        Permit(Rc::clone(self))
    }
}

/// Gives its permit back when dropped.
pub struct Permit(Rc<Semaphore>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.freed.notify();
    }
}
