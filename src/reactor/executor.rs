//! The tasks of one thread. A waker may be used from anywhere: in the
//! reactor's own thread it is a push onto a local queue; elsewhere it goes
//! through a lock-free queue and the doorbell.

use crate::reactor::doorbell::Doorbell;
use crossbeam_queue::SegQueue;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

/// The part of an executor that other threads reach.
pub struct Remote {
    woken: SegQueue<Arc<Header>>,
    pub bell: Doorbell,
}

impl Remote {
    #[must_use]
    pub fn new(bell: Doorbell) -> Remote {
        Remote {
            woken: SegQueue::new(),
            bell,
        }
    }
    #[must_use]
    pub fn has_woken(&self) -> bool {
        !self.woken.is_empty()
    }
}

/// What a waker is: the name of a task and the way to its reactor.
struct Header {
    reactor: u64,
    key: usize,
    /// Is it in a queue of ready tasks? Set by who queues it, cleared before
    /// its poll, so that no wake during the poll is lost.
    queued: AtomicBool,
    remote: Arc<Remote>,
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        Header::wake_by_ref(&self);
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = HERE.try_with(|here| {
            let home = here.reactor.get() == self.reactor;
            if home {
                here.ready.borrow_mut().push_back(Arc::clone(self));
            }
            home
        });
        if here != Ok(true) {
            self.remote.woken.push(Arc::clone(self));
            self.remote.bell.ring();
        }
    }
}

/// The reactor of this thread, if it has one, and its ready tasks.
struct Here {
    reactor: Cell<u64>,
    ready: RefCell<VecDeque<Arc<Header>>>,
}

thread_local! {
    static HERE: Here = const {
        Here {
            reactor: Cell::new(0),
            ready: RefCell::new(VecDeque::new()),
        }
    };
}

static NEXT_REACTOR: AtomicU64 = AtomicU64::new(1);

struct Task {
    header: Arc<Header>,
    waker: Waker,
    /// Away while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

#[derive(Default)]
struct Tasks {
    slots: Vec<Option<Task>>,
    free: Vec<usize>,
}

/// The executor of the thread that made it.
pub struct Executor {
    reactor: u64,
    remote: Arc<Remote>,
    tasks: RefCell<Tasks>,
}

impl Executor {
    /// # Panics
    /// If this thread already runs a reactor.
    #[must_use]
    pub fn new(remote: Arc<Remote>) -> Executor {
        let reactor = NEXT_REACTOR.fetch_add(1, Ordering::Relaxed);
        HERE.with(|here| {
            assert_eq!(here.reactor.get(), 0, "a thread runs one reactor at a time");
            here.reactor.set(reactor);
        });
        Executor {
            reactor,
            remote,
            tasks: RefCell::default(),
        }
    }

    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let key = tasks.free.pop().unwrap_or(tasks.slots.len());
        let header = Arc::new(Header {
            reactor: self.reactor,
            key,
            queued: AtomicBool::new(true),
            remote: Arc::clone(&self.remote),
        });
        let task = Task {
            waker: Waker::from(Arc::clone(&header)),
            header: Arc::clone(&header),
            future: Some(Box::pin(future)),
        };
        if key == tasks.slots.len() {
            tasks.slots.push(Some(task));
        } else {
            tasks.slots[key] = Some(task);
        }
        HERE.with(|here| here.ready.borrow_mut().push_back(header));
    }

    /// Moves what other threads woke to the ready tasks.
    pub fn collect(&self) {
        while let Some(header) = self.remote.woken.pop() {
            HERE.with(|here| here.ready.borrow_mut().push_back(header));
        }
    }

    #[must_use]
    pub fn has_ready(&self) -> bool {
        HERE.with(|here| !here.ready.borrow().is_empty())
    }

    /// Polls ready tasks, those woken meanwhile included, `budget` at most.
    pub fn run(&self, budget: usize) {
        for _ in 0..budget {
            let Some(header) = HERE.with(|here| here.ready.borrow_mut().pop_front()) else {
                return;
            };
            self.poll(&header);
        }
    }

    fn poll(&self, header: &Arc<Header>) {
        let taken = {
            let mut tasks = self.tasks.borrow_mut();
            match tasks.slots.get_mut(header.key) {
                // The key may belong to a later task: a waker outlived its own.
                Some(Some(task)) if Arc::ptr_eq(&task.header, header) => {
                    task.future.take().map(|f| (f, task.waker.clone()))
                }
                _ => None,
            }
        };
        let Some((mut future, waker)) = taken else {
            return;
        };
        // Acquires what wakers wrote that found the task queued already.
        header.queued.swap(false, Ordering::AcqRel);
        let ended = future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        if ended {
            // The future drops first: its destructors may spawn and wake.
            drop(future);
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.slots[header.key].take();
            tasks.free.push(header.key);
            drop(tasks);
            drop(task);
        } else {
            let mut tasks = self.tasks.borrow_mut();
            if let Some(task) = &mut tasks.slots[header.key] {
                task.future = Some(future);
            }
        }
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// How many tasks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let tasks = self.tasks.borrow();
        tasks.slots.len() - tasks.free.len()
    }

    /// Drops all tasks, those that the drops spawn included, and gives the
    /// thread free for another reactor.
    pub fn close(&self) {
        while self.len() > 0 {
            let tasks = self.tasks.take();
            drop(tasks);
        }
        while self.remote.woken.pop().is_some() {}
        HERE.with(|here| {
            here.ready.borrow_mut().clear();
            here.reactor.set(0);
        });
    }
}
