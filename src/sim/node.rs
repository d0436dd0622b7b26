//! Machines: starting, crashing, stopping; and how unkind the hardware is.

use super::disk::Disk;
use super::executor::{Core, Sim};
use super::net::{Accept, SimConn};
use super::origin::Origin;
use super::world::SimWorld;
use crate::base::{ShardId, TargetId};
use crate::world::Arrival;
use crate::world::sync::Queue;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How unkind the world is. `*_one_in` are odds: 0 never, n once in n times.
#[derive(Clone, Debug)]
pub struct Faults {
    pub net_latency: Duration,
    pub disk_latency: Duration,
    pub origin_latency: Duration,
    /// A send breaks its connection.
    pub net_drop_one_in: u32,
    /// An accepted connection is handed over only after seconds.
    pub accept_delay_one_in: u32,
    pub disk_read_error_one_in: u32,
    pub disk_write_error_one_in: u32,
    /// A block that is read has one bit turned, for good.
    pub disk_rot_one_in: u32,
    /// Errors of calls that change the origin.
    pub origin_error_one_in: u32,
    /// Errors of calls that look: clients see them where the box must ask.
    pub origin_read_error_one_in: u32,
    /// An origin call takes minutes.
    pub origin_hang_one_in: u32,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            net_latency: Duration::from_micros(100),
            disk_latency: Duration::from_micros(50),
            origin_latency: Duration::from_millis(1),
            net_drop_one_in: 0,
            accept_delay_one_in: 0,
            disk_read_error_one_in: 0,
            disk_write_error_one_in: 0,
            disk_rot_one_in: 0,
            origin_error_one_in: 0,
            origin_read_error_one_in: 0,
            origin_hang_one_in: 0,
        }
    }
}

/// What a crash takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; what the device took, it keeps.
    Process,
    /// The machine loses power; see [`disk`](super::disk).
    Power,
}

pub(super) struct Node {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) disk: Rc<Disk>,
    pub(super) up: Cell<bool>,
    pub(super) accept: Cell<Accept>,
    /// Counts starts; what belongs to an earlier one is ignored.
    pub(super) starts: Cell<u64>,
    arrivals: RefCell<BTreeMap<ShardId, Rc<Queue<Arrival<SimConn>>>>>,
}

impl Node {
    pub(super) fn arrivals(&self, shard: ShardId) -> Rc<Queue<Arrival<SimConn>>> {
        Rc::clone(self.arrivals.borrow_mut().entry(shard).or_default())
    }
}

impl Sim {
    /// The world of shard 0 of node `name`; starts the node if it is down.
    #[must_use]
    pub fn world(&self, name: &str) -> SimWorld {
        self.shard(name, ShardId(0))
    }

    /// The world of one shard of node `name`.
    #[must_use]
    pub fn shard(&self, name: &str, shard: ShardId) -> SimWorld {
        let node = self.core.node_or_new(name);
        if !node.up.replace(true) {
            node.starts.set(node.starts.get() + 1);
        }
        SimWorld::new(Rc::clone(&self.core), node, shard)
    }

    /// How `name` takes connections; [`Accept::Framed`] unless told.
    pub fn accept(&self, name: &str, how: Accept) {
        self.core.node_or_new(name).accept.set(how);
    }

    /// Crashes the node, by the seed's choice as a process or as a machine.
    pub fn crash(&self, name: &str) {
        let kind = if self.core.chance(2) {
            Crash::Process
        } else {
            Crash::Power
        };
        self.crash_as(name, kind);
    }

    pub fn crash_as(&self, name: &str, kind: Crash) {
        let node = self.core.node_or_new(name);
        self.core.trace("crash", node.id);
        node.up.set(false);
        node.starts.set(node.starts.get() + 1);
        self.core.reset_links(|a, b| a == node.id || b == node.id);
        node.disk.crash(&self.core, kind);
        for origin in self.core.origins.borrow().values() {
            origin.abandon(&self.core, node.id);
        }
        self.core.drop_tasks(|of| of == node.id);
        self.core.resume(node.id, &[]);
        drop(node.arrivals.take());
    }

    /// Stops the processes of the node where they stand, as SIGSTOP does: its
    /// machine goes on, and takes in what is sent to it.
    pub fn pause(&self, name: &str) {
        let node = self.core.node_or_new(name);
        self.core.trace("pause", node.id);
        self.core.paused.borrow_mut().entry(node.id).or_default();
    }

    /// The processes of the node go on; those tasks before any other that were
    /// in the middle of something when they stopped.
    pub fn resume(&self, name: &str, first: &[u64]) {
        let node = self.core.node_or_new(name);
        self.core.trace("resume", node.id);
        self.core.resume(node.id, first);
    }

    /// The task that asks, for [`resume`](Self::resume).
    #[must_use]
    pub fn task(&self) -> u64 {
        self.core.running.get()
    }

    /// Asks every shard of the node to stop.
    pub fn stop(&self, name: &str) {
        let node = self.core.node_or_new(name);
        let queues: Vec<_> = node.arrivals.borrow().values().cloned().collect();
        for queue in queues {
            queue.push(Arrival::Stop);
        }
    }

    /// Sends an administrator's command to shard 0 of the node.
    pub async fn admin(&self, name: &str, request: &str) -> String {
        let answer = super::executor::Completion::default();
        let set = answer.clone();
        self.core
            .node_or_new(name)
            .arrivals(ShardId(0))
            .push(Arrival::Admin {
                request: request.to_owned(),
                reply: Box::new(move |text| set.set(text)),
            });
        answer.wait().await
    }

    /// The disk of the node, which outlives its crashes.
    #[must_use]
    pub fn disk(&self, name: &str) -> Rc<Disk> {
        Rc::clone(&self.core.node_or_new(name).disk)
    }

    /// The origin of a target, empty at first; all nodes reach the same one.
    #[must_use]
    pub fn origin(&self, target: TargetId) -> Origin {
        self.core.origin(target)
    }
}

impl Core {
    pub(super) fn node(&self, name: &str) -> Option<Rc<Node>> {
        self.nodes.borrow().get(name).cloned()
    }

    fn node_or_new(&self, name: &str) -> Rc<Node> {
        let mut nodes = self.nodes.borrow_mut();
        let id = nodes.len() as u64 + 1;
        let node = nodes.entry(name.to_owned()).or_insert_with(|| {
            Rc::new(Node {
                id,
                name: name.to_owned(),
                disk: Rc::default(),
                up: Cell::new(false),
                accept: Cell::new(Accept::Framed),
                starts: Cell::new(0),
                arrivals: RefCell::default(),
            })
        });
        Rc::clone(node)
    }

    pub(super) fn origin(&self, target: TargetId) -> Origin {
        let mut origins = self.origins.borrow_mut();
        origins
            .entry(target)
            .or_insert_with(|| Origin::new(self.random()))
            .clone()
    }
}
