//! L4: the simulated world: everything that a box or a client can reach, from
//! one seed and in one thread. A run is a pure function of its seed and of the
//! code under test, so a failure is repeated by its seed.
//!
//! ```text
//!  Sim ── clock, event queue, tasks, generator, trace hash
//!   ├─ node "box" ── disk (fault contract) ── SimWorld ── shard under test
//!   ├─ node "c0"  ─────────────────────────── SimWorld ── client under test
//!   ├─ links between nodes (latency, bounds, cuts, partitions)
//!   └─ origins by target (volatile and durable image, faults)
//! ```
//!
//! A node is a machine with a disk. [`Sim::world`] starts it (or returns its
//! running world); [`Sim::crash`] drops all its tasks where they stand, resets
//! its connections and does to its disk what [`disk`] promises; a later
//! `world` of the same name is the restart, on the same disk.
//!
//! ```
//! use forebay::base::Errno;
//! use forebay::sim::{Accept, Sim};
//! use forebay::world::{Arrival, Conn, World};
//! use forebay::base::Buf;
//! use std::time::Duration;
//!
//! let sim = Sim::new(7);
//! let server = sim.world("box");
//! sim.accept("box", Accept::Raw); // without it, arrivals carry a CONNECT frame
//! let inside = server.clone();
//! server.spawn(async move {
//!     let Arrival::Client { conn, .. } = inside.arrival().await else { return };
//!     let (got, buf) = conn.recv(Buf::alone(16), 0).await;
//!     let got = got.expect("the client sent something");
//!     conn.send(vec![buf.freeze().part(0..got)]).await.expect("echo");
//! });
//! let client = sim.world("c0");
//! let echoed = sim.run(async {
//!     client.sleep(Duration::from_secs(3600)).await; // takes no time
//!     let conn = client.connect("box:9880").await?;
//!     conn.send(vec![b"hello".to_vec().into()]).await?;
//!     let (got, buf) = conn.recv(Buf::alone(16), 0).await;
//!     got.map(|n| buf[..n].to_vec())
//! });
//! assert!(echoed == Ok(b"hello".to_vec()), "seed {}", sim.seed());
//! sim.crash("box");
//! assert_eq!(sim.run(async { client.connect("box:9880").await.err() }), Some(Errno::ECONNREFUSED));
//! ```
//!
//! Architecture invariant: no threads, no real clock, no real file, no hash
//! map with random order; every choice is drawn from the one generator.

pub mod actor;
pub mod cluster;
pub mod disk;
mod executor;
pub mod history;
pub mod model;
pub mod net;
mod node;
pub mod origin;
pub mod scenario;
pub mod shared;
pub mod sparse;
pub mod tree;
pub mod workload;
mod world;

pub use cluster::Cluster;
pub use executor::Sim;
pub use net::{Accept, SimConn};
pub use node::{Crash, Faults};
pub use world::SimWorld;
