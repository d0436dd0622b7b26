//! [`World`] over the simulation: one handle for each shard or client.

use super::executor::{Completion, Core};
use super::net::SimConn;
use super::node::Node;
use crate::base::{Buf, Errno, Mono, Pool, ShardId, Slice, Time};
use crate::origin::{OriginCall, OriginReply};
use crate::world::{Arrival, Level, World};
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// What one shard of a node, or a client, sees of the universe.
#[derive(Clone)]
pub struct SimWorld {
    pub(super) core: Rc<Core>,
    pub(super) node: Rc<Node>,
    shard: ShardId,
    start: u64,
    pool: Pool,
}

impl SimWorld {
    pub(super) fn new(core: Rc<Core>, node: Rc<Node>, shard: ShardId) -> SimWorld {
        SimWorld {
            start: node.starts.get(),
            core,
            node,
            shard,
            pool: Pool::new([64, 16, 4]),
        }
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// The node has not crashed since this world was made.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.node.starts.get() == self.start
    }
}

impl World for SimWorld {
    type Conn = SimConn;

    fn now(&self) -> Mono {
        Mono(self.core.now())
    }
    fn wall(&self) -> Time {
        wall(self.core.now())
    }
    fn random(&self) -> u64 {
        self.core.random()
    }
    fn pool(&self) -> &Pool {
        &self.pool
    }

    #[track_caller]
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.is_alive() {
            self.core
                .spawn(self.node.id, Location::caller(), Box::pin(task));
        }
    }
    async fn sleep(&self, for_: Duration) {
        self.core.sleep(for_).await;
    }
    async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    async fn connect(&self, addr: &str) -> Result<SimConn, Errno> {
        super::net::connect(&self.core, &self.node, addr).await
    }

    async fn flash_read(&self, offset: u64, mut buf: Buf) -> (Result<(), Errno>, Buf) {
        self.core.sleep(self.core.disk_latency()).await;
        let read = self.node.disk.read(&self.core, offset, &mut buf);
        (read, buf)
    }
    async fn flash_write(
        &self,
        offset: u64,
        parts: Vec<Slice>,
        durable: bool,
    ) -> Result<(), Errno> {
        let before = self.node.disk.mark();
        let write = self.node.disk.submit(&self.core, offset, parts)?;
        self.at_disk(move |world| world.node.disk.complete(&world.core, write))
            .await?;
        if durable {
            self.at_disk(move |world| world.node.disk.flush(&world.core, before, Some(write)))
                .await?;
        }
        Ok(())
    }
    async fn flash_sync(&self) -> Result<(), Errno> {
        let before = self.node.disk.mark();
        self.at_disk(move |world| world.node.disk.flush(&world.core, before, None))
            .await
    }

    async fn origin(&self, call: OriginCall) -> OriginReply {
        let origin = self.core.origin(call.target);
        origin.call(&self.core, self.node.id, call.op).await
    }

    async fn arrival(&self) -> Arrival<SimConn> {
        match self.node.arrivals(self.shard).pop().await {
            Some(arrival) => arrival,
            None => Arrival::Stop,
        }
    }

    fn tell(&self, to: ShardId, message: Vec<u8>) -> Result<(), Vec<u8>> {
        let from = self.shard;
        self.node.arrivals(to).push(Arrival::Peer { from, message });
        Ok(())
    }

    fn log(&self, level: Level, line: &str) {
        self.core.log(&self.node.name, level, line);
    }
}

impl SimWorld {
    /// Does `what` at the disk after a while. The device goes on by itself:
    /// the effect comes even if the waiting task is gone, but not over a crash.
    async fn at_disk<T: 'static>(&self, what: impl FnOnce(&SimWorld) -> T + 'static) -> T {
        let done = Completion::default();
        let (set, world) = (done.clone(), self.clone());
        self.core.after(self.core.disk_latency(), move || {
            if world.is_alive() {
                set.set(what(&world));
            }
        });
        done.wait().await
    }
}

impl Core {
    fn disk_latency(&self) -> Duration {
        let mean = self.faults.borrow().disk_latency;
        self.latency(mean)
    }
}

/// The wall clock at a moment of the virtual one: starts in November 2023.
pub(super) fn wall(now: u64) -> Time {
    Time::from_nanos(1_700_000_000_000_000_000 + i128::from(now))
}
