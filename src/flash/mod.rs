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

use crate::base::{Location, Lsn, Slice, Transno};
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

/// Interface agreed with the data path; see the module comment.
#[allow(unused, reason = "signatures fixed ahead of the implementation")]
pub(crate) mod contract {
    use super::{Appended, Location, Lsn, Peek, Slice, Tx};
    use crate::base::Errno;

    pub trait FlashContract {
        fn peek(&self, key: &[u8]) -> Peek;
        async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno>;
        /// Up to `limit` pairs with `from <= key < to`, in order.
        async fn scan(
            &self,
            from: &[u8],
            to: &[u8],
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Errno>;
        /// ENOSPC when the flash has no room even after reserves, EIO when fenced.
        fn apply(&self, tx: Tx) -> Result<Lsn, Errno>;
        async fn commit(&self, lsn: Lsn) -> Result<(), Errno>;
        /// Appends `bytes` (any length, at most 1 MiB); may split it in pieces
        /// that do not cross a segment. ENOSPC when reclaim must make room first.
        fn append(&self, bytes: &Slice, dirty: bool) -> Result<Vec<Appended>, Errno>;
        /// Reads and verifies `range` of the piece; EIO with a log line when a
        /// checksum is wrong.
        async fn read(&self, piece: &Appended, range: std::ops::Range<u32>)
        -> Result<Slice, Errno>;
    }
}
