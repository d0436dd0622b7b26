//! One random life of a box, checked: clients work, everything around them
//! breaks, then it heals, and what is left must be what the clients were told.
//!
//! What is checked, in the numbers of the design's list of invariants:
//! 2 every answer is the model's (a client works in a tree of its own, so its
//! reads are decided); 3 and 4 the same over crashes and resends; 5 after a
//! drain the origin is what the clients see, and that is the model; 6 whatever
//! the moment, the origin has no child without its parent (it could not), and
//! after its power cuts still ends as 5 says; 8 nothing hangs.

use super::actor::{Actor, is_alien};
use super::cluster::{BOX, Cluster};
use super::model::{Id, Model, Op, ROOT};
use super::node::Faults;
use super::workload::Workload;
use crate::base::{FileKind, Name};
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// What happens in a life; the seed draws the rest.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: usize,
    /// Operations of each client.
    pub ops: usize,
    /// Faults of each kind that happen while clients work.
    pub crashes: u32,
    pub cuts: u32,
    pub power_cuts: u32,
    pub outages: u32,
    pub faults: Faults,
    /// Compare with the origin in the end.
    pub drain: bool,
}

impl Plan {
    /// A short life with a bit of everything, by the seed.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        Plan {
            clients: rng.usize(1..4),
            ops: rng.usize(20..80),
            crashes: rng.u32(0..4),
            cuts: rng.u32(0..3),
            power_cuts: rng.u32(0..2),
            outages: rng.u32(0..2),
            faults: Faults {
                net_drop_one_in: if rng.bool() { 500 } else { 0 },
                accept_delay_one_in: if rng.bool() { 10 } else { 0 },
                origin_error_one_in: if rng.bool() { 50 } else { 0 },
                origin_hang_one_in: if rng.u32(0..4) == 0 { 200 } else { 0 },
                ..Faults::default()
            },
            drain: true,
        }
    }

    /// The same without anything that breaks.
    #[must_use]
    pub fn calm(self) -> Plan {
        Plan {
            crashes: 0,
            cuts: 0,
            power_cuts: 0,
            outages: 0,
            faults: Faults::default(),
            ..self
        }
    }
}

/// How a life went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    pub trace_hash: u64,
    pub ops: usize,
    pub crashes: u32,
}

struct Life {
    cluster: Cluster,
    model: RefCell<Model>,
    ops: Cell<usize>,
    working: Cell<usize>,
    failed: RefCell<Vec<String>>,
}

/// Lives it; the error tells seed, plan and what was wrong.
///
/// # Errors
/// An invariant does not hold.
pub fn live(seed: u64, plan: &Plan) -> Result<Ran, String> {
    let life = Rc::new(Life {
        cluster: Cluster::with(seed, plan.faults.clone()),
        model: RefCell::new(Model::new()),
        ops: Cell::new(0),
        working: Cell::new(plan.clients),
        failed: RefCell::default(),
    });
    let crashes = life.cluster.run(life.run(plan));
    let result = match life.failed.borrow().as_slice() {
        [] => Ok(Ran {
            trace_hash: life.cluster.sim.trace_hash(),
            ops: life.ops.get(),
            crashes,
        }),
        failed => Err(life.report(seed, plan, failed)),
    };
    result
}

impl Life {
    async fn run(self: &Rc<Self>, plan: &Plan) -> u32 {
        let c = &self.cluster;
        c.start();
        for i in 0..plan.clients {
            let name = format!("c{i}");
            let world = c.sim.world(&name);
            let life = Rc::clone(self);
            let (ops, seed) = (plan.ops, c.sim.random());
            world.spawn(async move {
                if let Err(why) = life.work(&name, ops, seed).await {
                    life.failed.borrow_mut().push(format!("{name}: {why}"));
                }
                life.working.set(life.working.get() - 1);
            });
        }
        let crashes = self.break_things(plan).await;
        self.heal();
        while self.working.get() > 0 && self.failed.borrow().is_empty() {
            c.sim.sleep(Duration::from_millis(50)).await;
        }
        if self.failed.borrow().is_empty()
            && let Err(why) = self.check(plan).await
        {
            self.failed.borrow_mut().push(why);
        }
        crashes
    }

    /// One client: a directory of its own, and random work in it.
    async fn work(&self, name: &str, ops: usize, seed: u64) -> Result<(), String> {
        let actor = self.cluster.client(name).await.map_err(|e| e.to_string())?;
        let own = Op::Create {
            dir: ROOT,
            name: Name::new(name.as_bytes()).map_err(|e| e.to_string())?,
            kind: FileKind::Directory,
            mode: 0o755,
            link: Vec::new(),
        };
        let root = self.step(name, &actor, &own).await?;
        let mut work = Workload::new(seed, root);
        for _ in 0..ops {
            if !self.failed.borrow().is_empty() {
                return Ok(());
            }
            let op = work.next(&self.model.borrow());
            self.step(name, &actor, &op).await?;
        }
        while let Some(op) = work.last() {
            self.step(name, &actor, &op).await?;
        }
        actor.client.close().await;
        Ok(())
    }

    /// Does `op` on the box and in the model and compares.
    async fn step(&self, who: &str, actor: &Actor, op: &Op) -> Result<Id, String> {
        let world = actor.client.world();
        world.log(Level::Debug, &format!("{who} asks {op:?}"));
        let (seen, fid) = match actor.perform(op).await {
            Ok(answer) => answer,
            Err(e) => return Err(format!("{op:?}: {e}")),
        };
        self.ops.set(self.ops.get() + 1);
        let mut model = self.model.borrow_mut();
        let id = model.next();
        let wanted = model.apply(op);
        if let Some(fid) = fid {
            self.cluster.fids().borrow_mut().insert(id, fid);
        }
        world.log(Level::Debug, &format!("{who} sees {seen:?}"));
        if seen != wanted || seen.is_err_and(is_alien) {
            return Err(format!("{op:?}: should be {wanted:?}"));
        }
        Ok(id)
    }

    /// Faults at random moments, in random order, while somebody works.
    async fn break_things(&self, plan: &Plan) -> u32 {
        let c = &self.cluster;
        let mut faults = Vec::new();
        let kinds = [plan.crashes, plan.cuts, plan.power_cuts, plan.outages];
        for (kind, count) in kinds.into_iter().enumerate() {
            faults.extend((0..count).map(|_| kind));
        }
        let mut crashes = 0;
        while !faults.is_empty() && self.working.get() > 0 && self.failed.borrow().is_empty() {
            c.sim.sleep(self.moment(60_000)).await;
            let at = c.sim.random() % faults.len() as u64;
            match faults.swap_remove(usize::try_from(at).expect("below a length")) {
                0 => {
                    crashes += 1;
                    c.crash();
                    c.sim.sleep(self.moment(2_000_000)).await;
                    c.start();
                }
                1 => {
                    let client = format!("c{}", c.sim.random() % plan.clients as u64);
                    if c.sim.random() % 2 == 0 {
                        c.sim.cut(BOX, &client);
                    } else {
                        c.sim.partition(BOX, &client);
                        c.sim.sleep(self.moment(1_000_000)).await;
                        c.sim.heal();
                    }
                }
                2 => c.origin().power_cut(&c.sim),
                _ => {
                    c.origin().goes_away();
                    c.sim.sleep(self.moment(60_000_000)).await;
                    c.origin().comes_back();
                }
            }
        }
        crashes
    }

    /// A time up to `us`, short ones as likely as long ones.
    fn moment(&self, us: u64) -> Duration {
        let random = self.cluster.sim.random();
        Duration::from_micros((random >> 8) % (us >> (random % 8)).max(1))
    }

    fn heal(&self) {
        self.cluster.sim.heal();
        self.cluster.origin().comes_back();
        self.cluster.sim.faults(|f| *f = Faults::default());
    }

    async fn check(&self, plan: &Plan) -> Result<(), String> {
        let c = &self.cluster;
        let look = |what: &str, differences: Vec<String>| match differences.is_empty() {
            true => Ok(()),
            false => Err(format!("{what}:\n  {}", differences.join("\n  "))),
        };
        let actor = c.client("checker").await.map_err(|e| e.to_string())?;
        let seen = actor.tree().await.map_err(|e| format!("the tree: {e}"))?;
        let wanted = self.model.borrow().tree();
        look("the model / a client", wanted.differences(&seen, false))?;
        if plan.drain {
            c.drain().await?;
            let origin = c.origin().tree();
            look("a client / the origin", seen.differences(&origin, true))?;
            // Clean data is at the origin for certain (O1).
            c.origin().power_cut(&c.sim);
            let origin = c.origin().tree();
            look(
                "a client / the origin without power",
                seen.differences(&origin, true),
            )?;
        }
        actor.client.close().await;
        // Warm after a restart: the same tree, wherever it comes from.
        c.stop().await;
        c.start();
        let actor = c.client("checker").await.map_err(|e| e.to_string())?;
        let again = actor
            .tree()
            .await
            .map_err(|e| format!("the tree again: {e}"))?;
        look("a client / after a restart", seen.differences(&again, true))?;
        actor.client.close().await;
        Ok(())
    }

    fn report(&self, seed: u64, plan: &Plan, failed: &[String]) -> String {
        let log = self.cluster.sim.log();
        let last = log.len().saturating_sub(LOG_LINES);
        format!(
            "seed {seed}: {}\n{plan:?}\nlast lines of the log:\n{}",
            failed.join("\n"),
            log[last..].join("\n")
        )
    }
}

/// Log lines in a report.
const LOG_LINES: usize = 60;
