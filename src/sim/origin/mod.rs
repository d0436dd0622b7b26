//! A model of a mounted POSIX file system as an origin, with the contract of
//! [`OriginOp`]: what is answered is in its memory, what was fsynced is on its
//! disk, and [`Origin::power_cut`] tells the two apart.
//!
//! Calls run on a few "threads" for each node, take random times, and may hang
//! or fail. When a node crashes, each of its calls under way happens or not.
//!
//! What a power cut keeps (`volatile`): directories change in one order, as
//! with a journaling file system, and a cut keeps a prefix of the changes,
//! never less than what fsync of a directory promised. That fsync also covers
//! the attributes that the files named there have at that moment, as one journal
//! does (links and fifos have no fsync of their own), but not their bytes: bytes
//! of a file that was not fsynced are old, new, or a mixture of pages, and a
//! file whose name survived alone is empty.

mod apply;
mod volatile;

use super::executor::{Completion, Core};
use super::tree::Tree;
use crate::base::Errno;
use crate::origin::{Limits, OriginOp, OriginReply};
use crate::world::Level;
use crate::world::sync::{Semaphore, Signal};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use volatile::Volatile;

/// One target's origin. A handle.
#[derive(Clone)]
pub struct Origin(Rc<State>);

struct State {
    files: RefCell<Volatile>,
    /// Calls under way, by number: the node that asked, and what.
    calls: RefCell<BTreeMap<u64, (u64, OriginOp)>>,
    calls_made: Cell<u64>,
    threads: RefCell<BTreeMap<u64, Rc<Semaphore>>>,
    away: Cell<bool>,
    /// Ends of calls that it went away under.
    held: RefCell<Vec<Box<dyn FnOnce()>>>,
    back: Signal,
}

impl Origin {
    pub(super) fn new(salt: u64) -> Origin {
        Origin(Rc::new(State {
            files: RefCell::new(Volatile::new(salt)),
            calls: RefCell::default(),
            calls_made: Cell::new(0),
            threads: RefCell::default(),
            away: Cell::new(false),
            held: RefCell::default(),
            back: Signal::default(),
        }))
    }

    /// The tree as another user of the origin sees it now.
    #[must_use]
    pub fn tree(&self) -> Tree {
        self.0.files.borrow().tree()
    }

    /// How many calls were ever made: a served hit makes none.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.calls_made.get()
    }

    /// Changes what the origin can do; before the first call of a box.
    pub fn limits(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.0.files.borrow_mut().limits);
    }

    /// Every call hangs from now on, until [`Origin::comes_back`].
    pub fn goes_away(&self) {
        self.0.away.set(true);
    }
    pub fn comes_back(&self) {
        self.0.away.set(false);
        self.0.back.notify();
        for end in self.0.held.take() {
            end();
        }
    }

    /// The origin loses power and starts again at once.
    pub fn power_cut(&self, sim: &super::Sim) {
        sim.core.trace("origin cut", 0);
        self.0.files.borrow_mut().power_cut(&sim.core);
    }

    /// The same while boxes live: descriptors that wrote what is lost say so.
    pub fn restart(&self, sim: &super::Sim) {
        sim.core.trace("origin restart", 0);
        self.0.files.borrow_mut().restart(&sim.core);
    }

    /// Runs an operation at once and without faults, as another user of the
    /// origin would: for setting a scene.
    pub fn apply(&self, sim: &super::Sim, op: OriginOp) -> OriginReply {
        self.0.files.borrow_mut().apply(&sim.core, op)
    }

    pub(super) async fn call(&self, core: &Rc<Core>, node: u64, op: OriginOp) -> OriginReply {
        let threads = {
            let mut threads = self.0.threads.borrow_mut();
            Rc::clone(
                threads
                    .entry(node)
                    .or_insert_with(|| Semaphore::new(THREADS)),
            )
        };
        let _thread = threads.acquire().await;
        let number = self.0.calls_made.replace(self.0.calls_made.get() + 1);
        self.0.calls.borrow_mut().insert(number, (node, op));
        let (mean, hang) = {
            let faults = core.faults.borrow();
            (faults.origin_latency, faults.origin_hang_one_in)
        };
        let mut latency = core.latency(mean);
        if core.chance(hang) {
            latency += Duration::from_secs(1 + core.below(300));
        }
        core.sleep(latency).await;
        while self.0.away.get() {
            self.0.back.wait().await;
        }
        // The task may be gone before the call is over: the call goes on.
        let done = Completion::default();
        let (set, origin, core_) = (done.clone(), self.clone(), Rc::clone(core));
        core.after(core.latency(mean), move || {
            let held = origin.clone();
            let end = move || {
                if let Some(reply) = origin.finish(&core_, number) {
                    set.set(reply);
                }
            };
            match held.0.away.get() {
                true => held.0.held.borrow_mut().push(Box::new(end)),
                false => end(),
            }
        });
        done.wait().await
    }

    /// A node is gone: of its calls under way each happens now or never.
    pub(super) fn abandon(&self, core: &Core, node: u64) {
        let calls = std::mem::take(&mut *self.0.calls.borrow_mut());
        let (mine, others) = calls.into_iter().partition(|(_, (of, _))| *of == node);
        *self.0.calls.borrow_mut() = others;
        let mine: BTreeMap<u64, (u64, OriginOp)> = mine;
        for (_, (_, op)) in mine {
            if !self.0.away.get() && core.chance(2) {
                self.0.files.borrow_mut().apply(core, half(core, op));
            }
        }
        self.0.threads.borrow_mut().remove(&node);
    }

    fn finish(&self, core: &Core, number: u64) -> Option<OriginReply> {
        let (_, op) = self.0.calls.borrow_mut().remove(&number)?;
        let asked = format!("{op:?}");
        let one_in = {
            let faults = core.faults.borrow();
            match apply::only_looks(&op) {
                true => faults.origin_read_error_one_in,
                false => faults.origin_error_one_in,
            }
        };
        let reply = if core.chance(one_in) {
            self.fail(core, op)
        } else {
            self.0.files.borrow_mut().apply(core, op)
        };
        if let OriginReply::Failed(errno) = &reply {
            core.log("origin", Level::Debug, &format!("{errno:?} to {asked}"));
        }
        Some(reply)
    }

    /// Fails the call; EIO leaves open whether it had its effect.
    fn fail(&self, core: &Core, op: OriginOp) -> OriginReply {
        let errno = [Errno::EIO, Errno::ENOSPC, Errno::EACCES][core.below(3) as usize];
        core.trace("origin error", u64::from(errno.0.unsigned_abs()));
        match op {
            OriginOp::Read { buf, .. } => OriginReply::Read {
                result: Err(Errno::EIO),
                buf,
            },
            OriginOp::Fsync { .. } => OriginReply::Failed(Errno::EIO),
            op => {
                if errno == Errno::EIO && core.chance(2) {
                    self.0.files.borrow_mut().apply(core, op);
                }
                OriginReply::Failed(errno)
            }
        }
    }
}

/// What a dying caller may leave of a call that takes several steps.
fn half(core: &Core, op: OriginOp) -> OriginOp {
    match op {
        OriginOp::Create {
            dir,
            name,
            kind,
            mut attr,
            link,
        } if core.chance(2) => {
            (attr.mode, attr.uid, attr.gid) = (0o600, 0, 0);
            OriginOp::Create {
                dir,
                name,
                kind,
                attr,
                link,
            }
        }
        OriginOp::Write {
            file,
            offset,
            mut data,
        } if core.chance(2) => {
            data.truncate(core.below(data.len() as u64 + 1) as usize);
            OriginOp::Write { file, offset, data }
        }
        op => op,
    }
}

/// Calls of one node that run at a time.
const THREADS: usize = 4;
