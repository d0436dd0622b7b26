//! Tasks, virtual time and the one generator. Time moves only when nothing is
//! ready, so a run takes as long as its work and not as long as its waits.

use super::node::{Faults, Node};
use super::origin::Origin;
use crate::base::{Mono, TargetId};
use crate::world::Level;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A simulated universe. The value that [`Sim::new`] made owns it: when it is
/// dropped all tasks end; clones are handles for use inside tasks.
pub struct Sim {
    pub(super) core: Rc<Core>,
    owner: bool,
}

pub(super) struct Core {
    seed: u64,
    rng: RefCell<fastrand::Rng>,
    now: Cell<u64>,
    trace: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    tasks_made: Cell<u64>,
    ready: Arc<Ready>,
    /// By moment, then by the order in which they were made.
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    events_made: Cell<u64>,
    /// Polls since time last moved by an event.
    polls_here: Cell<u64>,
    hang_after: Cell<u64>,
    pub(super) faults: RefCell<Faults>,
    pub(super) nodes: RefCell<BTreeMap<String, Rc<Node>>>,
    pub(super) links: RefCell<Vec<std::rc::Weak<super::net::Link>>>,
    pub(super) cuts: RefCell<Vec<(u64, u64)>>,
    pub(super) origins: RefCell<BTreeMap<TargetId, Origin>>,
    /// Nodes whose processes are stopped, and their tasks that are ready.
    pub(super) paused: RefCell<BTreeMap<u64, Vec<u64>>>,
    /// Tasks that run before any others that are ready.
    first: RefCell<VecDeque<u64>>,
    /// The task that runs.
    pub(super) running: Cell<u64>,
    log: RefCell<Vec<String>>,
    echo: bool,
}

type Event = Box<dyn FnOnce()>;

struct Task {
    node: u64,
    /// Where it was spawned, for the report of a deadlock.
    from: &'static Location<'static>,
    /// Taken out while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
}

impl Clone for Sim {
    fn clone(&self) -> Self {
        Sim {
            core: Rc::clone(&self.core),
            owner: false,
        }
    }
}

impl Drop for Sim {
    /// Tasks hold worlds and worlds hold the core; this breaks the circle.
    fn drop(&mut self) {
        if self.owner {
            self.core.drop_tasks(|_| true);
            drop(self.core.events.take());
            drop(self.core.nodes.take());
            drop(self.core.origins.take());
        }
    }
}

impl Sim {
    /// A universe with friendly hardware: latencies vary, nothing fails.
    #[must_use]
    pub fn new(seed: u64) -> Sim {
        Sim::with(seed, Faults::default())
    }

    #[must_use]
    pub fn with(seed: u64, faults: Faults) -> Sim {
        Sim {
            core: Rc::new(Core {
                seed,
                rng: RefCell::new(fastrand::Rng::with_seed(seed)),
                now: Cell::new(1_000_000_000),
                trace: Cell::new(seed),
                tasks: RefCell::default(),
                tasks_made: Cell::new(ROOT + 1),
                ready: Arc::default(),
                events: RefCell::default(),
                events_made: Cell::new(0),
                polls_here: Cell::new(0),
                hang_after: Cell::new(HANG_AFTER_NS),
                faults: RefCell::new(faults),
                nodes: RefCell::default(),
                links: RefCell::default(),
                cuts: RefCell::default(),
                origins: RefCell::default(),
                paused: RefCell::default(),
                first: RefCell::default(),
                running: Cell::default(),
                log: RefCell::default(),
                echo: std::env::var_os("FOREBAY_SIM_LOG").is_some(),
            }),
            owner: true,
        }
    }

    #[must_use]
    pub fn seed(&self) -> u64 {
        self.core.seed
    }
    #[must_use]
    pub fn now(&self) -> Mono {
        Mono(self.core.now.get())
    }
    /// A number of the run's own sequence.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.core.random()
    }
    /// Folds everything that happened so far: equal for two runs of one seed.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.core.trace.get()
    }
    /// All log lines so far, each "time node LEVEL text".
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.core.log.borrow().clone()
    }
    /// The bound on virtual time for one `run`; past it the run is a hang.
    pub fn hang_after(&self, bound: Duration) {
        self.core.hang_after.set(nanos(bound));
    }
    pub async fn sleep(&self, for_: Duration) {
        self.core.sleep(for_).await;
    }
    /// Changes how unkind the hardware is from now on.
    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.core.faults.borrow_mut());
    }

    /// Runs everything until `root` ends.
    ///
    /// # Panics
    /// When nothing can move any more, or the hang bound has passed, with a
    /// report of who waits, and of the seed.
    pub fn run<T>(&self, root: impl Future<Output = T>) -> T {
        let mut root = pin!(root);
        let waker = Waker::from(Arc::new(TaskWaker {
            id: ROOT,
            ready: Arc::clone(&self.core.ready),
        }));
        waker.wake_by_ref();
        let until = self
            .core
            .now
            .get()
            .saturating_add(self.core.hang_after.get());
        loop {
            match self.core.next_ready() {
                Some(ROOT) => {
                    self.core.count_poll();
                    let mut cx = Context::from_waker(&waker);
                    if let Poll::Ready(value) = root.as_mut().poll(&mut cx) {
                        return value;
                    }
                }
                Some(id) => self.core.poll(id),
                None if !self.core.fire() => self.core.stuck("nothing can move any more"),
                None if self.core.now.get() > until => self.core.stuck("the hang bound has passed"),
                None => {}
            }
        }
    }

    /// Runs everything until `done` holds, looked at whenever time moves.
    ///
    /// # Panics
    /// As [`Sim::run`].
    pub fn run_until(&self, mut done: impl FnMut() -> bool) {
        let core = Rc::clone(&self.core);
        self.run(async move {
            while !done() {
                core.sleep(Duration::from_micros(100)).await;
            }
        });
    }
}

impl Core {
    pub(super) fn random(&self) -> u64 {
        self.rng.borrow_mut().u64(..)
    }
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().u64(..bound.max(1))
    }
    /// True about once in `one_in` calls; never for zero.
    pub(super) fn chance(&self, one_in: u32) -> bool {
        one_in > 0 && self.below(u64::from(one_in)) == 0
    }
    /// Between half and three halves of `mean`, now and then much longer.
    pub(super) fn latency(&self, mean: Duration) -> Duration {
        let mean = nanos(mean);
        let long = if self.chance(64) { mean * 8 } else { 0 };
        Duration::from_nanos(mean / 2 + self.below(mean + 1) + long)
    }
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }
    /// Mixes an event into the trace hash.
    pub(super) fn trace(&self, what: &str, value: u64) {
        let mut hash = self.trace.get() ^ self.now.get().rotate_left(17);
        for byte in what.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        self.trace
            .set((hash ^ value).wrapping_mul(FNV_PRIME).rotate_left(29));
    }
    pub(super) fn log(&self, node: &str, level: Level, line: &str) {
        let now = self.now.get();
        let line = format!(
            "{}.{:06} {node} {level:?} {line}",
            now / 1_000_000_000,
            now / 1000 % 1_000_000
        );
        self.trace("log", u64::from(crc32c::crc32c(line.as_bytes())));
        if self.echo {
            eprintln!("{line}");
        }
        self.log.borrow_mut().push(line);
    }

    pub(super) fn spawn(
        &self,
        node: u64,
        from: &'static Location<'static>,
        future: Pin<Box<dyn Future<Output = ()>>>,
    ) {
        let id = self.tasks_made.replace(self.tasks_made.get() + 1);
        let ready = Arc::clone(&self.ready);
        let waker = Waker::from(Arc::new(TaskWaker { id, ready }));
        waker.wake_by_ref();
        let future = Some(future);
        let task = Task {
            node,
            from,
            future,
            waker,
        };
        self.tasks.borrow_mut().insert(id, task);
    }

    /// Runs `event` after `delay`. Events of one moment run in the order made.
    pub(super) fn after(&self, delay: Duration, event: impl FnOnce() + 'static) {
        let at = self.now.get().saturating_add(nanos(delay));
        let order = self.events_made.replace(self.events_made.get() + 1);
        self.events
            .borrow_mut()
            .insert((at, order), Box::new(event));
    }

    pub(super) fn sleep(&self, for_: Duration) -> impl Future<Output = ()> + use<> {
        let done = Completion::default();
        let timer = done.clone();
        self.after(for_, move || timer.set(()));
        done.wait()
    }

    /// Ends tasks without letting them run; their drops may call back in.
    pub(super) fn drop_tasks(&self, of: impl Fn(u64) -> bool) {
        loop {
            let mut doomed = Vec::new();
            self.tasks.borrow_mut().retain(|_, task| {
                let stays = !of(task.node);
                if !stays {
                    doomed.push(task.future.take());
                }
                stays
            });
            if doomed.is_empty() {
                return;
            }
        }
    }

    /// Takes a ready task: any of them, by the seed's choice.
    fn next_ready(&self) -> Option<u64> {
        if let Some(first) = self.first.borrow_mut().pop_front() {
            return Some(first);
        }
        let mut ready = self.ready.lock();
        if ready.is_empty() {
            return None;
        }
        let at = usize::try_from(self.below(ready.len() as u64)).expect("below a length");
        Some(ready.swap_remove(at))
    }

    fn poll(&self, id: u64) {
        let node = self.tasks.borrow().get(&id).map(|task| task.node);
        let mut paused = self.paused.borrow_mut();
        if let Some(held) = node.and_then(|node| paused.get_mut(&node)) {
            held.push(id);
            return;
        }
        drop(paused);
        let taken = self.tasks.borrow_mut().get_mut(&id).and_then(|task| {
            let future = task.future.take()?;
            Some((future, task.waker.clone()))
        });
        let Some((mut future, waker)) = taken else {
            return;
        };
        self.trace("poll", id);
        self.count_poll();
        self.running.set(id);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        // A task that crashed its own node is no longer listed: it is dropped here.
        match (polled, self.tasks.borrow_mut().get_mut(&id)) {
            (Poll::Pending, Some(task)) => {
                task.future = Some(future);
                return;
            }
            (Poll::Pending, None) => {}
            (Poll::Ready(()), _) => {}
        }
        drop(self.tasks.borrow_mut().remove(&id));
        drop(future);
    }

    /// Running costs a little time, so that loops around the clock end.
    fn count_poll(&self) {
        self.now.set(self.now.get() + POLL_NS);
        self.polls_here.set(self.polls_here.get() + 1);
        if self.polls_here.get() > POLLS_MAX {
            self.stuck("tasks spin without waiting for anything");
        }
    }

    /// Lets the tasks of a paused node run again; `first` before any other.
    pub(super) fn resume(&self, node: u64, first: &[u64]) {
        self.first.borrow_mut().extend(first);
        let held = self.paused.borrow_mut().remove(&node);
        for id in held.into_iter().flatten() {
            if let Some(task) = self.tasks.borrow().get(&id) {
                task.waker.wake_by_ref();
            }
        }
    }

    /// Runs the next event, moving time to it. False if there is none.
    fn fire(&self) -> bool {
        let Some(((at, order), event)) = self.events.borrow_mut().pop_first() else {
            return false;
        };
        if at > self.now.get() {
            self.now.set(at);
            self.polls_here.set(0);
        }
        self.trace("event", order);
        event();
        true
    }

    fn stuck(&self, why: &str) -> ! {
        let mut report = format!("simulation of seed {}: {why}; tasks:", self.seed);
        for (id, task) in self.tasks.borrow().iter() {
            let nodes = self.nodes.borrow();
            let node = nodes.values().find(|n| n.id == task.node);
            let name = node.map_or("?", |n| n.name.as_str());
            let _ = write!(report, "\n  task {id} of {name}, spawned at {}", task.from);
        }
        for line in self.log.borrow().iter().rev().take(20).rev() {
            let _ = write!(report, "\n  {line}");
        }
        panic!("{report}");
    }
}

/// A value that an event gives to one waiting task.
pub(super) struct Completion<T>(Rc<RefCell<(Option<T>, Option<Waker>)>>);

impl<T> Clone for Completion<T> {
    fn clone(&self) -> Self {
        Completion(Rc::clone(&self.0))
    }
}

impl<T> Default for Completion<T> {
    fn default() -> Self {
        Completion(Rc::new(RefCell::new((None, None))))
    }
}

impl<T> Completion<T> {
    pub(super) fn set(&self, value: T) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.0 = Some(value);
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
    pub(super) async fn wait(self) -> T {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            match state.0.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    state.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Ids of tasks to poll. A mutex only because `Waker` demands `Sync`; nothing
/// here ever runs on a second thread.
#[derive(Default)]
struct Ready(Mutex<Vec<u64>>);

impl Ready {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    id: u64,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        let mut ready = self.ready.lock();
        if !ready.contains(&self.id) {
            ready.push(self.id);
        }
    }
}

pub(super) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// The future given to `run`; it is no task, so that it may borrow the `Sim`.
const ROOT: u64 = 0;
/// What one poll costs.
const POLL_NS: u64 = 50;
/// Polls without an event that moves time.
const POLLS_MAX: u64 = 2_000_000;
/// A virtual day.
const HANG_AFTER_NS: u64 = 86_400 * 1_000_000_000;
const FNV_PRIME: u64 = 0x100_0000_01b3;
