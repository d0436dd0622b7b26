//! A reactor's life: set up, turn after turn until its main task ends, close.

use crate::base::Pool;
use crate::reactor::executor::Executor;
use crate::reactor::features::SetupError;
use crate::reactor::flash::FlashFile;
use crate::reactor::job::{Descriptor, Job, Kind};
use crate::reactor::linger::Linger;
use crate::reactor::local::{Inner, Local};
use crate::reactor::log::Log;
use crate::reactor::origins::Origins;
use crate::reactor::port::{Port, Post};
use crate::reactor::random::Random;
use crate::reactor::ring::Ring;
use crate::reactor::slots::Driver;
use crate::reactor::timers::{self, Timers};
use crate::world::Level;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::cell::RefCell;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

/// What a reactor is made of. All of it is `Send`: made by control, moved to
/// the thread that calls [`run`].
pub struct Options {
    /// Names the thread's log lines.
    pub name: String,
    /// Pin the thread to this CPU.
    pub cpu: Option<usize>,
    /// Submissions that one turn can batch.
    pub entries: u32,
    /// Its numbered buffers are registered with the ring, if the system allows.
    pub pool: Pool,
    pub port: Port,
    /// Opened by [`flash::open`](crate::reactor::flash::open).
    pub flash: Option<OwnedFd>,
    pub origins: Origins,
    pub log: Log,
}

impl Options {
    /// Neither flash nor origins, no registered memory: a client, a tool.
    #[must_use]
    pub fn new(name: &str, port: Port) -> Options {
        Options {
            name: name.to_string(),
            cpu: None,
            entries: 256,
            pool: Pool::new([128, 32, 8]),
            port,
            flash: None,
            origins: Origins::default(),
            log: Log::stderr(Level::Info),
        }
    }
}

/// Turns this thread into a reactor until the future that `main` makes has
/// ended, and returns its value. Other tasks are dropped then.
///
/// # Panics
/// If the thread is a reactor already.
pub fn run<T, F>(options: Options, main: impl FnOnce(Local) -> F) -> Result<T, SetupError>
where
    T: 'static,
    F: Future<Output = T> + 'static,
{
    let local = set_up(options)?;
    let closing = Closing(local.clone());
    let value = Rc::new(RefCell::new(None));
    let future = main(local.clone());
    let slot = Rc::clone(&value);
    local.0.executor.spawn(async move {
        let result = future.await;
        *slot.borrow_mut() = Some(result);
    });
    loop {
        if let Some(value) = value.take() {
            drop(closing);
            return Ok(value);
        }
        local.0.turn(|| value.borrow().is_some());
    }
}

fn set_up(options: Options) -> Result<Local, SetupError> {
    if let Some(cpu) = options.cpu {
        pin(cpu)?;
    }
    let mut ring = Ring::new(options.entries)?;
    let mut flash = options.flash.map(FlashFile::new);
    if let Some(flash) = &mut flash {
        let file = flash.file();
        if ring.register_files(&[file.as_fd().as_raw_fd()]) {
            file.set_registered(0);
        }
    }
    let registered = if ring.register_pool(&options.pool) {
        options.pool.clone()
    } else {
        Pool::new([0; 3])
    };
    let remote = Arc::clone(options.port.remote());
    let bell = remote.bell.as_fd().try_clone_to_owned();
    let bell = Descriptor::new(bell.map_err(SetupError::of)?);
    let driver = Driver::new(ring);
    driver.watch_bell(Job {
        on: bell,
        kind: Kind::Bell {
            word: Box::new([0; 8]),
        },
    });
    Ok(Local(Rc::new(Inner {
        name: options.name,
        executor: Executor::new(remote),
        driver,
        timers: Rc::new(Timers::default()),
        linger: Linger::new(flash.is_some()),
        post: Post::new(options.port),
        flash,
        pool: options.pool,
        registered,
        origins: options.origins,
        random: RefCell::new(Random::new()),
        log: options.log,
    })))
}

fn pin(cpu: usize) -> Result<(), SetupError> {
    let fault = |e: rustix::io::Errno| SetupError::Cpu {
        cpu,
        error: e.into(),
    };
    if cpu >= CpuSet::MAX_CPU {
        return Err(fault(rustix::io::Errno::INVAL));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(fault)
}

/// Ends the tasks, then the operations, also when the thread unwinds.
struct Closing(Local);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.0.executor.close();
        self.0.0.driver.close();
    }
}

impl Inner {
    /// Runs what is ready, then enters the kernel once: to sleep if nothing
    /// is left to run and not `ended`.
    fn turn(&self, ended: impl Fn() -> bool) {
        self.executor.collect();
        self.post.attend();
        self.timers.fire();
        self.executor.run(POLLS_PER_TURN);
        if self.executor.has_ready() || ended() {
            self.driver.submit_now();
        } else {
            self.sleep();
        }
        self.driver.reap();
    }

    fn sleep(&self) {
        if self.linger.is_hopeful() {
            self.driver.submit_now();
            let news = || self.driver.has_news() || self.is_called();
            if self.linger.look(self.timers.next(), news) {
                self.driver.submit_now();
                return;
            }
        }
        let bell = &self.executor.remote().bell;
        bell.lie_down();
        if self.is_called() {
            bell.get_up();
            self.driver.submit_now();
            return;
        }
        let before = timers::now();
        self.driver.submit_and_wait(self.timers.next());
        self.linger.slept(timers::now() - before);
        bell.get_up();
    }

    /// Has another thread left something?
    fn is_called(&self) -> bool {
        self.executor.remote().has_woken() || self.post.has_work()
    }
}

/// Polls between two looks at the ring, so that tasks that keep waking each
/// other do not starve I/O.
const POLLS_PER_TURN: usize = 512;
