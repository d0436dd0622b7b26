//! Forebay: a caching proxy for network file systems. `ARCHITECTURE.md` has the
//! map; the modules below are its layers, each importing only those before it.

pub mod base; // L0
pub mod cache; // L2
pub mod client; // L3
pub mod conf; // L1
pub mod control; // L5
pub mod dlm; // L2
pub mod flash; // L3
pub mod fuse; // L5
pub mod namespace; // L2
pub mod origin; // L3
pub mod reactor; // L4
pub mod shard; // L3
pub mod sim; // L4
pub mod store; // L2
pub mod wire; // L1
pub mod world; // L3
