//! Running beside the caller.
//!
//! A process that makes one call after the other takes turns with the mount. On
//! two CPUs each turn wakes one that has gone idle, which takes longer than the
//! work of most requests; on one it is a switch (docs/PERFORMANCE.md). So the
//! mount goes where its caller runs, and follows it.
//!
//! ```text
//! caller ── call ─► sleeps        wakes on the same CPU ─► goes on
//! mount                works ─► writes the answer, ranking low ┄┄┄┄► goes on
//! ```
//! The kernel wakes a thread on an idle CPU rather than where it slept, if that is
//! busy, with the very mount that wakes it. A CPU on which only SCHED_IDLE threads
//! run passes for idle: the mount is one while it writes an answer. That it
//! is not kept from running then by whoever has the CPU to itself, `guard` sees to.
//!
//! What needs more than one CPU at a time stays apart: several callers, several
//! requests at once, large ones (`turns`). Only who may raise a thread again does
//! this at all, which takes CAP_SYS_NICE: a mount by a user stays apart.

mod guard;
mod turns;

use turns::Asked;

use super::abi::parse::Op;
use super::device::Message;
use super::sys::schedule::{self, Thread};
use crate::base::Mono;
use guard::{Duty, Post};
use rustix::thread::{CpuSet, Pid};
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::thread::JoinHandle;
use turns::{Advice, Turns};

/// Where one mount runs. All but the guard's thread belongs to the mount's.
pub struct Beside {
    turns: RefCell<Turns>,
    caller: RefCell<Option<Thread>>,
    /// The CPUs that the mount may run on at all.
    home: CpuSet,
    post: Arc<Post>,
    /// Begun when it is needed first; `None`: there is none.
    guard: OnceCell<Option<JoinHandle<()>>>,
    /// The last request that somebody waits for.
    awaited: Cell<u64>,
    /// Turned off, where it cannot be done.
    is_off: Cell<bool>,
}

impl Beside {
    /// For the mount that this thread serves.
    #[must_use]
    pub fn new() -> Beside {
        let home = schedule::home();
        Beside {
            turns: RefCell::default(),
            caller: RefCell::default(),
            awaited: Cell::default(),
            is_off: Cell::new(home.as_ref().map_or(0, CpuSet::count) < 2),
            home: home.unwrap_or_default(),
            post: Arc::new(Post::new()),
            guard: OnceCell::new(),
        }
    }

    /// The kernel asks, while `others` of its requests are unanswered.
    pub fn on_message(&self, message: &Message, others: usize, now: impl FnOnce() -> Mono) {
        if self.is_off.get() {
            return;
        }
        let asked = Asked {
            caller: message.head.pid,
            others,
            bytes: bytes(message),
        };
        if asked.caller != 0 {
            self.awaited.set(message.head.unique);
        }
        let advice = self.turns.borrow_mut().on_request(asked, now());
        match advice {
            Advice::Stay => {}
            Advice::Join => self.join(asked.caller),
            Advice::Part => self.part(),
        }
        self.post.beat();
    }

    fn join(&self, caller: u32) {
        let has_guard = self.guard.get_or_init(|| guarded(&self.post, &self.home));
        let Some(guard) = has_guard else {
            self.is_off.set(true);
            return;
        };
        let mut known = self.caller.borrow_mut();
        if known.as_ref().is_none_or(|known| known.id != caller) {
            *known = Thread::open(caller).ok();
        }
        // It may be in another PID name space, or gone.
        let cpu = known.as_ref().and_then(Thread::cpu);
        let Some(cpu) = cpu.filter(|cpu| self.home.is_set(*cpu)) else {
            drop(known);
            self.part();
            return;
        };
        let mut only = CpuSet::new();
        only.set(cpu);
        if schedule::keep_on(None, &only).is_ok() && !self.post.is_beside() {
            self.post.join();
            guard.thread().unpark();
        }
    }

    fn part(&self) {
        self.turns.borrow_mut().on_parted();
        if self.post.is_beside() {
            self.post.part();
            let _ = schedule::keep_on(None, &self.home);
        }
    }

    /// Is the mount beside its caller now?
    pub fn is_on(&self) -> bool {
        self.post.is_beside()
    }

    /// Runs `write`, which answers the request `unique`.
    pub fn answering<T>(&self, unique: u64, write: impl FnOnce() -> T) -> T {
        let wakes = self.awaited.get() == unique;
        if !wakes || !self.post.is_beside() || !self.post.lower() {
            return write();
        }
        let is_low = schedule::lower(None).is_ok();
        let written = write();
        if is_low && schedule::raise(None).is_err() {
            self.is_off.set(true);
        }
        self.post.raised();
        written
    }
}

impl Default for Beside {
    fn default() -> Beside {
        Beside::new()
    }
}

impl Drop for Beside {
    /// The guard finds the mount apart, and nobody calls it any more.
    fn drop(&mut self) {
        self.part();
    }
}

/// What a request brings, or asks for.
fn bytes(message: &Message) -> usize {
    let payload = message.payload.as_ref().map_or(0, |bytes| bytes.len());
    match &message.op {
        Ok(Op::Read(args)) => args.size as usize,
        _ => payload,
    }
}

/// Has a thread guard the one that calls; `None` if it could not do its duty.
fn guarded(post: &Arc<Post>, home: &CpuSet) -> Option<JoinHandle<()>> {
    let (mount, home, post) = (rustix::thread::gettid(), *home, Arc::clone(post));
    let (tell, told) = std::sync::mpsc::channel();
    let guard = std::thread::Builder::new().name("guard".to_owned());
    let work = move || {
        // What it may do to itself it may do to the mount.
        let may = schedule::lower(None).and_then(|()| schedule::raise(None));
        let is_fit = may.is_ok();
        if tell.send(is_fit).is_ok() && is_fit {
            stand(&post, mount, &home);
        }
    };
    let guard = guard.spawn(work).ok()?;
    told.recv().is_ok_and(|is_fit| is_fit).then_some(guard)
}

/// The guard's life; it ends with the process.
fn stand(post: &Post, mount: Pid, home: &CpuSet) {
    let mut seen = 0;
    loop {
        match post.look(&mut seen) {
            Duty::Rest => std::thread::park(),
            Duty::Watch => std::thread::sleep(guard::TICK),
            Duty::PutBack => {
                // It fails if the mount is gone, and then nothing is to be done.
                let _ = schedule::raise(Some(mount));
                let _ = schedule::keep_on(Some(mount), home);
                std::thread::sleep(guard::TICK);
            }
        }
    }
}
