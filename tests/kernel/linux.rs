//! A model of the kernel of one machine, as far as a FUSE mount meets it: what
//! Linux 6.18 (fs/fuse, mm/truncate.c, fs/namei.c) caches, locks and waits for.
//!
//! ```text
//!  system calls (`calls`) ─► names ─┐
//!                            attrs ─┼─► requests ─► Session ─► Client ═══ box
//!                            pages ─┘        ▲         │
//!  notices ◄── contexts of their own ────────┴─ reply ─┘
//! ```
//! Left out: buffered writes (files that are open for writing are direct),
//! extended attributes, and all that makes no difference to what is believed.

use crate::inode::Inode;
use crate::locks::{Wait, Waits};
use forebay::base::codec::Codec;
use forebay::base::{Errno, Mono, Slice};
use forebay::fuse::abi::ROOT_ID;
use forebay::fuse::abi::input::{InHeader, InitIn};
use forebay::fuse::abi::notify::Notice;
use forebay::fuse::abi::output::FuseAttr;
use forebay::fuse::abi::parse::Op;
use forebay::fuse::device::Message;
use forebay::fuse::kernel::Kernel;
use forebay::sim::{Sim, SimWorld};
use forebay::world::sync::{Promise, Queue, Signal};
use forebay::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

/// One machine's kernel; a handle.
#[derive(Clone)]
pub struct Linux(Rc<State>);

pub struct State {
    /// Where kernel and applications run; the mount process has a node of its
    /// own, which can be stopped.
    pub world: SimWorld,
    pub sim: Sim,
    pub mount: String,
    /// FUSE's minor version.
    pub minor: u32,
    /// The mount process is stopped in one reply of so many.
    pub stop_one_in: Cell<u32>,
    pub stopped: Stopped,
    pub requests: Queue<Message>,
    waiting: RefCell<BTreeMap<u64, Waiter>>,
    unique: Cell<u64>,
    threads: Cell<u32>,
    /// Threads that are not known to have done with their answers.
    busy: RefCell<BTreeSet<u32>>,
    pub nodes: RefCell<BTreeMap<u64, Rc<Inode>>>,
    pub attr_version: Cell<u64>,
    pub epoch: Cell<u64>,
    pub waits: Rc<Waits>,
    /// Values stored through mappings whose pages were lost.
    pub lost: RefCell<BTreeSet<u64>>,
    /// Notices under way, and the most there ever were.
    pub contexts: Cell<(usize, usize)>,
    pub counts: Counts,
    rng: RefCell<fastrand::Rng>,
    /// Everything is logged.
    is_loud: bool,
}

/// How often the things happened that the rules are about.
#[derive(Default, Debug)]
pub struct Counts {
    pub requests: Cell<u64>,
    /// Names, attributes and pages that were used without asking.
    pub hits: Cell<u64>,
    pub notices: Cell<u64>,
    /// Listings that were used again.
    pub kept: Cell<u64>,
    /// Dirty pages written for an invalidation.
    pub laundered: Cell<u64>,
    pub stops: Cell<u64>,
}

/// When the mount process was stopped.
#[derive(Default)]
pub struct Stopped {
    pub since: Cell<Option<Mono>>,
    /// End of the last stop, and how long it was.
    pub last: Cell<(Mono, Duration)>,
    /// Tasks of the process that write a reply: its one thread is in that system
    /// call, and does nothing else before it has returned.
    writing: RefCell<Vec<u64>>,
    changed: Signal,
}

enum Waiter {
    /// A task of its own takes the answer in, when it gets to run.
    Task(Promise<Answer>),
    /// Taken in by whoever writes the answer.
    End(Box<dyn FnOnce(Answer)>),
}

pub type Answer = Result<Vec<u8>, Errno>;

impl Deref for Linux {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl Linux {
    /// The kernel of the machine whose mount process runs on the node `mount`.
    pub fn new(sim: &Sim, mount: &str, minor: u32, seed: u64) -> Linux {
        let world = sim.world(&format!("kernel of {mount}"));
        let linux = Linux(Rc::new(State {
            world,
            sim: sim.clone(),
            mount: mount.to_owned(),
            minor,
            stop_one_in: Cell::new(0),
            stopped: Stopped::default(),
            requests: Queue::default(),
            waiting: RefCell::default(),
            unique: Cell::new(0),
            threads: Cell::new(0),
            busy: RefCell::default(),
            nodes: RefCell::default(),
            attr_version: Cell::new(1),
            epoch: Cell::new(0),
            waits: Rc::default(),
            lost: RefCell::default(),
            contexts: Cell::new((0, 0)),
            counts: Counts::default(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            is_loud: std::env::var_os("FOREBAY_SIM_LOG").is_some(),
        }));
        let root = Inode::new(ROOT_ID, 0, true);
        linux.nodes.borrow_mut().insert(ROOT_ID, Rc::new(root));
        linux
    }

    /// Agrees with the mount how to talk.
    pub async fn init(&self) {
        let args = InitIn {
            major: 7,
            minor: self.minor,
            max_readahead: 1 << 20,
            flags: u32::MAX,
            flags2: u32::MAX,
        };
        let agreed = self.ask(0, Op::Init(args)).await;
        agreed.expect("the mount agrees");
    }

    pub fn root(&self) -> Rc<Inode> {
        Rc::clone(&self.nodes.borrow()[&ROOT_ID])
    }

    pub fn now(&self) -> Mono {
        self.sim.now()
    }

    pub fn chance(&self, one_in: u32) -> bool {
        one_in > 0 && self.rng.borrow_mut().u32(0..one_in) == 0
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.rng.borrow_mut().u64(0..bound)
    }

    /// A line for who looks at one seed.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.is_loud {
            self.world.log(Level::Debug, &line());
        }
    }

    /// For the report of a deadlock: held until the wait is over.
    pub fn waits(&self, what: impl FnOnce() -> String) -> Wait {
        self.waits.enter(what)
    }

    fn message(&self, nodeid: u64, op: Op, payload: Option<Slice>, pid: u32) -> u64 {
        let unique = self.unique.get() + 2;
        self.unique.set(unique);
        self.counts.requests.set(self.counts.requests.get() + 1);
        let head = InHeader {
            len: 0,
            opcode: 0,
            unique,
            nodeid,
            uid: 0,
            gid: 0,
            pid,
            extensions: 0,
            padding: 0,
        };
        self.say(|| format!("{unique}: {op:?} of node {nodeid}"));
        let op = Ok(op);
        self.requests.push(Message { head, op, payload });
        unique
    }

    /// Sends a request and waits for its answer.
    pub async fn ask(&self, nodeid: u64, op: Op) -> Answer {
        self.ask_with(nodeid, op, None).await
    }

    pub async fn ask_with(&self, nodeid: u64, op: Op, payload: Option<Slice>) -> Answer {
        self.ask_as(&self.thread(), nodeid, op, payload).await
    }

    /// A thread that runs in the kernel until it is dropped.
    pub fn thread(&self) -> Thread {
        let id = self.threads.get() + 1;
        self.threads.set(id);
        self.busy.borrow_mut().insert(id);
        Thread {
            id,
            linux: self.clone(),
        }
    }

    /// The same by a thread that goes on with the answer.
    pub async fn ask_as(
        &self,
        thread: &Thread,
        nodeid: u64,
        op: Op,
        payload: Option<Slice>,
    ) -> Answer {
        let _wait = self.waits(|| format!("the answer to {op:?} of node {nodeid}"));
        let unique = self.message(nodeid, op, payload, thread.id);
        let answer = Promise::default();
        let waiter = Waiter::Task(answer.clone());
        self.waiting.borrow_mut().insert(unique, waiter);
        let answer = answer.get().await;
        // Whoever waits for an answer runs when the scheduler lets it.
        if self.chance(4) {
            let longest = [20, 200, 20_000][self.below(3) as usize];
            let late = Duration::from_micros(self.below(longest));
            self.world.sleep(late).await;
        }
        answer
    }

    /// Sends a request whose answer is taken in by who writes it.
    pub fn send(
        &self,
        nodeid: u64,
        op: Op,
        payload: Option<Slice>,
        end: impl FnOnce(Answer) + 'static,
    ) {
        let unique = self.message(nodeid, op, payload, 0);
        let waiter = Waiter::End(Box::new(end));
        self.waiting.borrow_mut().insert(unique, waiter);
    }

    /// Sends a request that is not answered.
    pub fn tell_mount(&self, nodeid: u64, op: Op) {
        self.message(nodeid, op, None, 0);
    }

    /// The machine goes on while the mount process does not.
    pub fn stop(&self, for_: Duration) {
        if self.stopped.since.get().is_some() {
            return;
        }
        self.counts.stops.set(self.counts.stops.get() + 1);
        self.say(|| format!("{} stops for {for_:?}", self.mount));
        self.stopped.since.set(Some(self.now()));
        self.sim.pause(&self.mount);
        let linux = self.clone();
        self.world.spawn(async move {
            linux.world.sleep(for_).await;
            linux.stopped.since.set(None);
            linux.stopped.last.set((linux.now(), for_));
            linux.stopped.changed.notify();
            let writing = linux.stopped.writing.take();
            linux.sim.resume(&linux.mount, &writing);
        });
    }

    /// Is or was the mount process stopped for so long that its locks may have
    /// passed on, and what pages say with them? No timeout ends those.
    pub fn is_out_of_date(&self) -> bool {
        let now = self.now();
        let is_long = |since| now - since > OUT_OF_DATE;
        let (ended, length) = self.stopped.last.get();
        self.stopped.since.get().is_some_and(is_long)
            || (length > OUT_OF_DATE && now - ended < CAUGHT_UP)
    }

    async fn answer(&self, unique: u64, answer: Answer) -> Result<(), Errno> {
        // A process may be stopped in any system call: here in the write.
        if self.chance(self.stop_one_in.get()) {
            self.stop(Duration::from_millis(1 + self.below(20_000)));
        }
        while self.stopped.since.get().is_some() {
            self.stopped.writing.borrow_mut().push(self.sim.task());
            self.stopped.changed.wait().await;
        }
        let said = answer.as_ref().map(|bytes| bytes.len());
        self.say(|| format!("{unique}: answered {said:?}"));
        let waiter = self.waiting.borrow_mut().remove(&unique);
        match waiter {
            Some(Waiter::Task(promise)) => promise.set(answer),
            Some(Waiter::End(end)) => end(answer),
            None => return Err(Errno::ENOENT),
        }
        Ok(())
    }
}

impl Kernel for Linux {
    async fn reply(&self, unique: u64, parts: &[&[u8]]) -> Result<(), Errno> {
        self.answer(unique, Ok(parts.concat())).await
    }

    async fn refuse(&self, unique: u64, error: Errno) -> Result<(), Errno> {
        self.answer(unique, Err(error)).await
    }

    fn tell(&self, notice: &Notice) -> Result<(), Errno> {
        self.counts.notices.set(self.counts.notices.get() + 1);
        self.say(|| format!("told {notice:?}"));
        match notice {
            Notice::Attributes { nodeid } => {
                let inode = self.find(*nodeid).ok_or(Errno::ENOENT)?;
                self.invalidate_attrs(&inode);
                Ok(())
            }
            Notice::Epoch if self.minor < MINOR_EPOCHS => Err(Errno::EINVAL),
            Notice::Epoch => {
                self.epoch.set(self.epoch.get() + 1);
                Ok(())
            }
            _ => panic!("{notice:?} would stop the mount"),
        }
    }

    fn has_gone_on(&self, thread: u32) -> bool {
        thread != 0 && !self.busy.borrow().contains(&thread)
    }
}

/// One of the machine's threads, while it is in a request.
pub struct Thread {
    id: u32,
    linux: Linux,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.linux.busy.borrow_mut().remove(&self.id);
    }
}

/// The fixed part of an answer, and what follows it.
pub fn decode<T: Codec>(bytes: &[u8]) -> (T, &[u8]) {
    let mut reader = forebay::base::codec::Reader::new(bytes);
    let fixed = T::decode(&mut reader).expect("an answer of the right layout");
    let rest = bytes.len() - reader.remaining();
    (fixed, &bytes[rest..])
}

/// Whole attributes, as replies have them.
pub fn valid_for(secs: u64, nanos: u32) -> Duration {
    Duration::new(secs, nanos)
}

/// Nothing is known of it yet.
pub fn no_attr() -> FuseAttr {
    FuseAttr {
        ino: 0,
        size: 0,
        blocks: 0,
        atime: 0,
        mtime: 0,
        ctime: 0,
        atime_nsec: 0,
        mtime_nsec: 0,
        ctime_nsec: 0,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Linux 6.16, which has dentry epochs.
pub const MINOR_EPOCHS: u32 = 44;
/// A lease, less what may have gone by since the box was heard last.
const OUT_OF_DATE: Duration = Duration::from_secs(6);
/// After a stop everything is taken back within this.
const CAUGHT_UP: Duration = Duration::from_millis(500);
