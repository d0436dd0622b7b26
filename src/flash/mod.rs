//! L3: a shard's flash, alive: the pure format of `store` driven over a
//! [`World`](crate::world::World). Group commit, index reads, data appends,
//! checkpoints, recovery. One `Flash` per shard; a cheap handle.
//!
//! The contract that the rest of the shard builds on:
//!
//! - [`Flash::apply`] is synchronous: when it returns, every later read in this
//!   thread sees the transaction, and its record is queued for the journal in
//!   order. It becomes durable at a later group commit; [`Flash::commit`] waits
//!   for that. Journal order is apply order; durability is a prefix of it.
//! - [`Flash::append`] reserves flash for bytes and queues their write. The
//!   extents of the bytes are durable no earlier than the bytes (F4).
//! - Reads see bytes from the moment `append` returns.

use crate::base::{Location, Transno};
use std::rc::Rc;

/// One atomic change: all of it is in the journal, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Tx {
    pub puts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Flash that the change lets go.
    pub freed: Vec<(Location, u32)>,
    /// Bytes appended for this change: verified together with it in recovery.
    pub data: Vec<Appended>,
    pub transno: Transno,
    /// What memory must forget if the change is dropped without being applied.
    pub undo: Undo,
}

/// Steps that run when this is dropped, unless it was [disarmed](Undo::disarm).
/// State in memory that runs ahead of a transaction (extent maps) hangs its
/// way back here: a handler may give a transaction up at any point, and
/// `apply` may refuse it, and neither has to know what had been prepared.
#[derive(Default)]
pub struct Undo(Vec<Box<dyn FnOnce()>>);

impl Undo {
    pub fn push(&mut self, step: impl FnOnce() + 'static) {
        self.0.push(Box::new(step));
    }
    /// The change was applied: nothing is to be taken back.
    pub fn disarm(&mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for step in self.0.drain(..).rev() {
            step();
        }
    }
}

/// A copy of a transaction is for looking at: taking back stays with the one copied.
impl Clone for Undo {
    fn clone(&self) -> Undo {
        Undo::default()
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Undo({})", self.0.len())
    }
}

impl Tx {
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.puts.push((key, Some(value)));
    }
    pub fn delete(&mut self, key: Vec<u8>) {
        self.puts.push((key, None));
    }
}

/// Where appended bytes went, with a CRC32C for each block of 4 KiB counted
/// from the start of the piece (the last block may be short).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub at: Location,
    pub len: u32,
    pub crcs: Vec<u32>,
}

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
    pub free_bytes: u64,
    /// Sealed data segments, with the bytes in each that are still referred to.
    pub sealed: Vec<(u32, u32)>,
}

mod fake;
pub use fake::Flash;
