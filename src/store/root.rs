//! A shard's root block: where its last checkpoint is and where its journal
//! begins. Two copies of 4 KiB; a write goes to the older one, so the root
//! moves from one whole state to the next.

use super::frame;
use crate::base::{DecodeError, Generation, Lsn, ShardId, Transno};
use crate::record;

const MAGIC: [u8; 8] = *b"FBroot01";

record! {
    /// A shard's root. Everything it names was durable before it was written.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Root {
        pub shard: ShardId,
        /// Counts writes of this root; its parity chooses the copy.
        pub sequence: u64,
        pub generation: Generation,
        /// All records up to this one are in the tables.
        pub checkpoint: Lsn,
        /// Known durable when the root was written (F3).
        pub flushed: Lsn,
        /// The highest transno up to `checkpoint`.
        pub transno: Transno,
        /// The group that holds the first record after `checkpoint`.
        pub journal: JournalPlace,
        /// `None` until the first checkpoint.
        pub manifest: Option<ManifestPlace>,
    }
}

record! {
    /// A place in the journal.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct JournalPlace {
        pub segment: u32,
        /// Counts the journal segments of the shard; tells a segment's use as
        /// journal from its earlier ones.
        pub sequence: u64,
        /// Where the group begins.
        pub offset: u32,
    }
}

record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ManifestPlace { pub segment: u32, pub bytes: u32 }
}

impl JournalPlace {
    /// The start of a shard's first journal segment.
    #[must_use]
    pub fn begin(segment: u32) -> JournalPlace {
        JournalPlace {
            segment,
            sequence: 1,
            offset: super::segment::HEADER_BYTES,
        }
    }
}

impl Root {
    /// The root of a shard that never ran.
    #[must_use]
    pub fn first(shard: ShardId, journal: JournalPlace) -> Root {
        Root {
            shard,
            sequence: 1,
            generation: Generation(0),
            checkpoint: Lsn(0),
            flushed: Lsn(0),
            transno: Transno(0),
            journal,
            manifest: None,
        }
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        frame::seal(MAGIC, self)
    }

    /// Reads one copy; one that belongs to another shard is damage.
    pub fn decode(shard: ShardId, bytes: &[u8]) -> Result<Root, DecodeError> {
        let root = frame::open::<Root>(MAGIC, bytes)?;
        if root.shard == shard {
            Ok(root)
        } else {
            Err(DecodeError {
                at: 0,
                why: "another shard's root",
            })
        }
    }

    /// The valid one of the two copies.
    pub fn choose(shard: ShardId, a: &[u8], b: &[u8]) -> Result<Root, DecodeError> {
        match (Root::decode(shard, a), Root::decode(shard, b)) {
            (Ok(a), Ok(b)) => Ok(if a.sequence >= b.sequence { a } else { b }),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(e), Err(_)) => Err(e),
        }
    }
}
