//! A shard's manifest: which tables make the index, and how many bytes of each
//! segment were alive at the checkpoint. Written whole, in turn into one of two
//! segments kept for it, so that the one that the root names is never touched.

use super::frame;
use super::table::TableEntry;
use crate::base::codec::Bytes;
use crate::base::{DecodeError, Lsn, ShardId};
use crate::record;

const MAGIC: [u8; 8] = *b"FBmanif1";

record! {
    /// The state of a shard's flash at a checkpoint.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Manifest {
        pub shard: ShardId,
        pub checkpoint: Lsn,
        /// The id that the next table gets.
        pub next_table: u64,
        /// The two segments that manifests are written to.
        pub homes: (u32, u32),
        pub tables: Vec<TableEntry>,
        /// Segments with live bytes, as of the checkpoint record; later
        /// records bring the counts forward.
        pub live: Vec<(u32, u32)>,
        /// A bit for each segment of the shard, in order: set once the whole
        /// segment was written, so that it needs no zeros before it is a journal.
        pub written: Bytes,
    }
}

impl Manifest {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        frame::seal(MAGIC, self)
    }
    pub fn decode(bytes: &[u8]) -> Result<Manifest, DecodeError> {
        frame::open(MAGIC, bytes)
    }
}
