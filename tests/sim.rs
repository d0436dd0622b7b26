//! The simulated world, and the box inside it.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "sim/ahead.rs"]
mod ahead;
#[path = "sim/away.rs"]
mod away;
#[path = "sim/crowd.rs"]
mod crowd;
#[path = "sim/custody.rs"]
mod custody;
#[path = "sim/disk.rs"]
mod disk;
#[path = "sim/executor.rs"]
mod executor;
#[path = "sim/glimpse.rs"]
mod glimpse;
#[path = "sim/lives.rs"]
mod lives;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/opens.rs"]
mod opens;
#[path = "sim/origin.rs"]
mod origin;
#[path = "sim/shared.rs"]
mod shared;
