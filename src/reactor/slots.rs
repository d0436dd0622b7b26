//! Operations under way. A slot owns its job's memory from submission to
//! completion; a future that is dropped leaves its slot behind, and the slot
//! is freed when the kernel is done with it.

use crate::reactor::job::Job;
use crate::reactor::ring::{Completion, Ring};
use io_uring::opcode;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The ring and the operations on it.
pub(super) struct Driver {
    ring: RefCell<Ring>,
    slots: RefCell<Slots>,
    reaped: RefCell<Vec<Completion>>,
    /// The doorbell is not armed again.
    closing: Cell<bool>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    /// Counts the slot's uses, so that a cancel never hits a later operation.
    generation: u32,
    state: State,
}

enum State {
    Free,
    Waiting {
        waker: Option<Waker>,
        job: Job,
    },
    Done {
        result: i32,
        job: Job,
    },
    /// Nobody waits; the job keeps its memory until the kernel is done.
    Abandoned {
        _job: Job,
    },
    Bell {
        job: Job,
    },
}

impl Driver {
    pub fn new(ring: Ring) -> Rc<Driver> {
        Rc::new(Driver {
            ring: RefCell::new(ring),
            slots: RefCell::default(),
            reaped: RefCell::default(),
            closing: Cell::new(false),
        })
    }

    pub fn ring(&self) -> &RefCell<Ring> {
        &self.ring
    }

    /// Queues `job`; it reaches the kernel at the end of the turn.
    pub fn start(self: &Rc<Self>, job: Job) -> Operation {
        let user_data = self.submit(job, |job| State::Waiting { waker: None, job });
        Operation {
            driver: Rc::clone(self),
            user_data,
            done: false,
        }
    }

    /// Arms the doorbell for good.
    pub fn watch_bell(&self, job: Job) {
        self.submit(job, |job| State::Bell { job });
    }

    fn submit(&self, mut job: Job, state: impl FnOnce(Job) -> State) -> u64 {
        let mut slots = self.slots.borrow_mut();
        let index = slots.take();
        let slot = &mut slots.slots[index as usize];
        let user_data = name(index, slot.generation);
        let entry = job.entry().user_data(user_data);
        slot.state = state(job);
        // SAFETY: the entry points into heap memory that the job owns. The job
        // lies in its slot now, and leaves it only in `complete`, for the
        // completion of this very entry; a driver whose operations do not end
        // leaks its slots (`close`).
        unsafe { self.ring.borrow_mut().push(&entry) };
        user_data
    }

    pub fn submit_now(&self) {
        self.ring.borrow_mut().submit();
    }

    pub fn submit_and_wait(&self, timeout: Option<std::time::Duration>) {
        self.ring.borrow_mut().submit_and_wait(timeout);
    }

    /// Would an entry into the kernel, or a look at the ring, find completions?
    pub fn has_news(&self) -> bool {
        self.ring.borrow_mut().has_news()
    }

    /// Takes all completions first, and only then wakes who waits for them:
    /// what the woken do sees the whole batch.
    pub fn reap(&self) {
        let mut reaped = self.reaped.take();
        self.ring.borrow_mut().reap(&mut reaped);
        for completion in reaped.drain(..) {
            self.complete(completion);
        }
        *self.reaped.borrow_mut() = reaped;
    }

    fn complete(&self, completion: Completion) {
        if completion.user_data == NOBODY {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let index = completion.user_data as u32;
        let Some(slot) = slots.slots.get_mut(index as usize) else {
            return;
        };
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting { waker, job } => {
                let result = completion.result;
                slot.state = State::Done { result, job };
                drop(slots);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            State::Bell { job } => {
                slots.release(index);
                drop(slots);
                if !self.closing.get() {
                    self.watch_bell(job);
                }
            }
            State::Abandoned { _job: job } => {
                slots.release(index);
                drop(slots);
                // May close a descriptor or return a buffer: outside the borrow.
                drop(job);
            }
            // A completion has exactly one operation; these two have had theirs.
            state @ (State::Done { .. } | State::Free) => slot.state = state,
        }
    }

    /// How many operations the kernel has.
    pub fn pending(&self) -> usize {
        let slots = self.slots.borrow();
        let under_way = |slot: &&Slot| !matches!(slot.state, State::Free | State::Done { .. });
        slots.slots.iter().filter(under_way).count()
    }

    fn cancel(&self, user_data: u64) {
        let entry = opcode::AsyncCancel::new(user_data)
            .build()
            .user_data(NOBODY);
        // SAFETY: a cancel has no memory.
        unsafe { self.ring.borrow_mut().push(&entry) };
    }

    /// Cancels what is under way and waits for it, for a bounded time; memory
    /// of what does not end (a device that hangs) is leaked, never reused.
    pub fn close(&self) {
        self.closing.set(true);
        let names: Vec<u64> = {
            let slots = self.slots.borrow();
            let all = slots.slots.iter().enumerate();
            all.filter(|(_, slot)| !matches!(slot.state, State::Free | State::Done { .. }))
                .map(|(index, slot)| name(index as u32, slot.generation))
                .collect()
        };
        for user_data in names {
            self.cancel(user_data);
        }
        for _ in 0..CLOSE_ROUNDS {
            if self.pending() == 0 {
                return;
            }
            self.submit_and_wait(Some(CLOSE_ROUND));
            self.reap();
        }
        std::mem::forget(self.slots.take());
    }
}

impl Slots {
    fn take(&mut self) -> u32 {
        if let Some(index) = self.free.pop() {
            return index;
        }
        self.slots.push(Slot {
            generation: 0,
            state: State::Free,
        });
        u32::try_from(self.slots.len() - 1).expect("operations are bounded by tasks")
    }

    fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }
}

/// The user data of a use of a slot.
fn name(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// An operation, as who waits for it sees it: ends with the kernel's result
/// and the job's memory. Dropping it lets go of the memory, not of the
/// operation: that ends by itself, or is cancelled if it might never.
pub(super) struct Operation {
    driver: Rc<Driver>,
    user_data: u64,
    done: bool,
}

impl Future for Operation {
    type Output = (i32, Job);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(i32, Job)> {
        assert!(!self.done, "polled after its end");
        let index = self.user_data as u32;
        let mut slots = self.driver.slots.borrow_mut();
        let slot = &mut slots.slots[index as usize];
        if let State::Waiting { waker, .. } = &mut slot.state {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        let State::Done { result, job } = std::mem::replace(&mut slot.state, State::Free) else {
            unreachable!("a slot is its operation's until that took the result");
        };
        slots.release(index);
        drop(slots);
        self.done = true;
        Poll::Ready((result, job))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let index = self.user_data as u32;
        let mut slots = self.driver.slots.borrow_mut();
        // A driver that was closed with operations left has leaked them.
        let Some(slot) = slots.slots.get_mut(index as usize) else {
            return;
        };
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Waiting { job, .. } => {
                let cancel = job.is_open_ended();
                slot.state = State::Abandoned { _job: job };
                drop(slots);
                if cancel {
                    self.driver.cancel(self.user_data);
                }
            }
            State::Done { job, .. } => {
                slots.release(index);
                drop(slots);
                drop(job);
            }
            state => slot.state = state,
        }
    }
}

/// User data of entries whose completion tells nothing.
const NOBODY: u64 = u64::MAX;
const CLOSE_ROUND: std::time::Duration = std::time::Duration::from_millis(100);
const CLOSE_ROUNDS: usize = 50;
