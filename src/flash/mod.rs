//! L3: a shard's flash, alive: the pure format of `store` driven over a
//! [`World`](crate::world::World). Group commit, index reads, data appends,
//! checkpoints, recovery. One `Flash` per shard; a cheap handle.
//!
//! ```text
//! apply ─► memtable + open group ─► sealed groups ─► journal write ─► durable
//! append ─► (small, dirty) open group's data    ▲
//!        └► (large, or clean) data segment ─────┘ the group waits for its data
//! memtable ─► checkpoint ─► level 0 table ─► compaction ─► levels 1 …
//! ```
//! The contract that the rest of the shard builds on:
//!
//! - [`Flash::apply`] is synchronous: when it returns, every later read in this
//!   thread sees the transaction, and its record is queued for the journal in
//!   order. It becomes durable at a later group commit; [`Flash::commit`] waits
//!   for that. Journal order is apply order; durability is a prefix of it.
//! - [`Flash::append`] reserves flash for bytes and queues their write. The
//!   extents of the bytes are durable no earlier than the bytes (F4).
//! - Reads see bytes from the moment `append` returns.
//! - After a failed write the shard is fenced: `apply`, `append` and `commit`
//!   give EIO, reads go on.

mod cache;
mod checkpoint;
mod compact;
mod data;
pub mod device;
mod flight;
mod index;
pub mod inspect;
mod log;
mod open;
mod recover;
mod scan;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod tx;

pub use crate::store::Appended;
pub use crate::store::space::Need;
pub use open::{Opened, Options};
pub use state::Flash;
pub use tx::{Tx, Undo};

use std::rc::Rc;

/// What a synchronous look into the index found.
#[derive(Clone, Debug)]
pub enum Peek {
    Found(Rc<[u8]>),
    Absent,
    /// The page that would tell is on flash; `get` loads it.
    NotLoaded,
}

/// How full a shard's flash is, in bytes, and its segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub total_bytes: u64,
    /// What data may still take: free segments beyond the reserve.
    pub free_bytes: u64,
    /// Size of a data segment.
    pub segment_bytes: u32,
    /// Sealed data segments, with the bytes in each that are still referred to.
    pub sealed: Vec<(u32, u32)>,
}
