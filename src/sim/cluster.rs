//! A whole box and its clients in the simulated world: the box's own code from
//! its start to its stop, on a simulated disk and a simulated origin.
//!
//! ```no_run
//! use forebay::sim::Cluster;
//! let c = Cluster::new(7);
//! c.run(async {
//!     c.start();
//!     let actor = c.client("c0").await.expect("the box is up");
//!     c.crash();
//!     c.start(); // the same disk: a restart
//!     c.drain().await;
//! });
//! ```

use super::actor::{Actor, Fids};
use super::executor::Sim;
use super::node::{Crash, Faults};
use super::origin::Origin;
use super::world::SimWorld;
use crate::base::{BoxId, MapEpoch, ShardId, TargetId};
use crate::client::{Client, ConnectError, Options};
use crate::conf::{Authority, Disconnected, Prefetch, TargetConf, Writeback};
use crate::dlm::Limits;
use crate::flash::{Flash, device};
use crate::shard::{self, Begin, Shard};
use crate::store::StoreError;
use crate::store::volume::{FormatOptions, Volume};
use crate::wire::ShardMap;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// One box with one target, "main", and any number of clients.
pub struct Cluster {
    pub sim: Sim,
    pub conf: RefCell<TargetConf>,
    flash_bytes: u64,
    /// How many locks the box keeps from its next start on.
    pub locks: Cell<Limits>,
    fids: Fids,
    /// The running shard, for looking inside.
    shard: Running,
    stopped: Rc<Cell<bool>>,
}

type Running = Rc<RefCell<Option<Rc<Shard<SimWorld>>>>>;

impl Cluster {
    #[must_use]
    pub fn new(seed: u64) -> Cluster {
        Cluster::with(seed, Faults::default())
    }

    #[must_use]
    pub fn with(seed: u64, faults: Faults) -> Cluster {
        let sim = Sim::with(seed, faults);
        sim.hang_after(Duration::from_secs(4 * 3600));
        sim.disk(BOX).limit(FLASH_BYTES);
        Cluster {
            sim,
            conf: RefCell::new(conf()),
            flash_bytes: FLASH_BYTES,
            locks: Cell::default(),
            fids: Fids::default(),
            shard: Rc::default(),
            stopped: Rc::default(),
        }
    }

    /// Runs the scenario. Panics name the seed.
    pub fn run<T>(&self, scenario: impl Future<Output = T>) -> T {
        self.sim.run(scenario)
    }

    #[must_use]
    pub fn origin(&self) -> Origin {
        self.sim.origin(TARGET)
    }

    #[must_use]
    pub fn fids(&self) -> Fids {
        Rc::clone(&self.fids)
    }

    /// The running shard; `None` until it serves.
    #[must_use]
    pub fn shard(&self) -> Option<Rc<Shard<SimWorld>>> {
        self.shard.borrow().clone()
    }

    /// Starts the box, on a new disk or on what a crash left.
    pub fn start(&self) {
        let world = self.sim.world(BOX);
        self.stopped.set(false);
        let (bytes, conf) = (self.flash_bytes, self.conf.borrow().clone());
        let locks = self.locks.get();
        let (running, stopped) = (Rc::clone(&self.shard), Rc::clone(&self.stopped));
        let inside = world.clone();
        world.spawn(async move {
            let ended = serve(&inside, (bytes, locks), conf, running).await;
            if let Err(why) = ended {
                inside.log(Level::Error, &format!("the box ended: {why}"));
            }
            stopped.set(true);
        });
    }

    /// The box dies, as a process or as a machine.
    pub fn crash(&self) {
        drop(self.shard.take());
        self.sim.crash(BOX);
    }

    pub fn crash_as(&self, kind: Crash) {
        drop(self.shard.take());
        self.sim.crash_as(BOX, kind);
    }

    /// Stops the box cleanly and waits for its end.
    pub async fn stop(&self) {
        self.sim.stop(BOX);
        while !self.stopped.get() {
            self.sim.sleep(Duration::from_millis(10)).await;
        }
        drop(self.shard.take());
        self.sim.crash_as(BOX, Crash::Process);
    }

    /// A new client on the node `name`.
    ///
    /// # Errors
    /// The box did not answer in time.
    pub async fn client(&self, name: &str) -> Result<Actor, ConnectError> {
        self.client_with(name, Options::default().tags).await
    }

    /// One that has at most so many requests under way: what it answers ahead of
    /// the box waits for each other, and goes together.
    pub async fn client_with(&self, name: &str, tags: u16) -> Result<Actor, ConnectError> {
        let options = Options {
            name: name.to_owned(),
            first_connect: Duration::from_secs(120),
            locks: true,
            tags,
            ..Options::default()
        };
        let hosts = vec![format!("{BOX}:9880")];
        let (world, until) = (self.sim.world(name), self.sim.now() + FIRST_MEETING);
        loop {
            let (world, hosts, options) = (world.clone(), hosts.clone(), options.clone());
            match Client::connect(world, hosts, "main", options).await {
                Ok(client) => return Ok(Actor::new(client, self.fids())),
                // The box has not met the origin yet.
                Err(ConnectError::NoTarget) if self.sim.now() < until => {
                    self.sim.sleep(Duration::from_secs(1)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until everything is at the origin.
    ///
    /// # Errors
    /// What the administrator would be told.
    pub async fn drain(&self) -> Result<(), String> {
        let command = r#"{"verb":"flush","target":"main","path":"","wait":true}"#;
        let answer = self.sim.admin(BOX, command).await;
        if answer.contains("failed") {
            Err(answer)
        } else {
            Ok(())
        }
    }
}

/// What the control thread and the shard's thread do, in one task.
async fn serve(
    world: &SimWorld,
    (bytes, locks): (u64, Limits),
    conf: TargetConf,
    running: Running,
) -> Result<(), String> {
    let volume = claim(world, bytes).await.map_err(|e| e.to_string())?;
    let opened = Flash::open(world.clone(), ShardId(0), &volume).await;
    let (flash, _) = opened.map_err(|e| e.to_string())?;
    let begin = Begin {
        id: ShardId(0),
        box_id: volume.superblock.box_id,
        generation: volume.superblock.generation,
        map: ShardMap {
            epoch: MapEpoch(1),
            ranges: vec![(0, ShardId(0))],
        },
        lease: Duration::from_secs(10),
        scrub: None,
        locks,
        memory: 4 << 20,
        targets: vec![(TARGET, conf)],
    };
    let shard = shard::start(world.clone(), flash, begin).await?;
    *running.borrow_mut() = Some(Rc::clone(&shard));
    shard::run(shard).await
}

/// The volume, formatted if the disk is blank, for a new generation.
async fn claim(world: &SimWorld, bytes: u64) -> Result<Volume, StoreError> {
    let mut volume = match device::load(world, bytes).await {
        Err(StoreError::Blank) => {
            let mut options = FormatOptions::new(bytes, 1, BoxId(7));
            options.segment_bytes = Some(SEGMENT_BYTES);
            device::format(world, &options).await?
        }
        loaded => loaded?,
    };
    device::claim(world, &mut volume).await?;
    Ok(volume)
}

fn conf() -> TargetConf {
    TargetConf {
        name: "main".to_owned(),
        origin: "/simulated".into(),
        authority: Authority::Exclusive,
        writeback: Writeback::Lag(Duration::from_secs(5)),
        writeback_bytes: 8 << 20,
        disconnected: Disconnected::ReadWrite,
        disconnected_max: Duration::from_secs(4 * 3600),
        origin_threads: 4,
        prefetch: Prefetch::Sequential,
    }
}

/// The box's node.
pub const BOX: &str = "box";
/// Its one target.
pub const TARGET: TargetId = TargetId(1);
/// An origin that hangs may be met late.
const FIRST_MEETING: Duration = Duration::from_secs(900);
const FLASH_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES: u32 = 1 << 20;
