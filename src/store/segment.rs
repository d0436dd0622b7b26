//! The first block of every segment: what the segment was opened for.
//!
//! A journal segment whose records were checkpointed while its data still
//! lives is *retyped*: the manifest calls it data from then on and the header
//! stays as it is, because nothing that is alive is ever overwritten.

use super::frame;
use crate::base::limits::BLOCK;
use crate::base::{BoxId, DecodeError, Generation, Lsn, ShardId};
use crate::{code, record};

/// Bytes of the header, and offset of the first thing after it.
pub const HEADER_BYTES: u32 = BLOCK as u32;

const MAGIC: [u8; 8] = *b"FBsegmnt";

code! {
    /// What a segment was opened for.
    pub enum SegmentKind {
        Manifest = 1,
        Journal = 2,
        Index = 3,
        DataClean = 4,
        DataDirty = 5,
    }
}

record! {
    /// The header of a segment.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SegmentHeader {
        pub kind: SegmentKind,
        pub box_id: BoxId,
        pub shard: ShardId,
        pub segment: u32,
        pub generation: Generation,
        /// Journal: counts the shard's journal segments. Index: the table's id.
        pub sequence: u64,
        /// Journal: the first record that it holds. Records from this one on in
        /// earlier segments are beyond the seal and never happened (F1).
        pub first: Lsn,
        /// Journal: the segment that the journal goes on in, chosen ahead.
        pub next: u32,
    }
}

impl SegmentHeader {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        frame::seal(MAGIC, self)
    }
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, DecodeError> {
        frame::open(MAGIC, bytes)
    }
}
