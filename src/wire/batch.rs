//! Batches of metadata operations (feature BATCH): the byte forms are fixed,
//! no release sends them yet.
//!
//! The transnos of a batch are contiguous, each operation has a reply record of
//! its own under (client, tag, xid, index), and the first error stops the batch
//! and keeps what follows it undone (L7).

use crate::base::{Transno, Xid};
use crate::record;
use crate::wire::{Reply, Request};

/// Operation numbers in the common head.
pub const BATCH: u16 = 65;
pub const FIDS: u16 = 66;

record! {
    /// Operations to run in order, under one tag and xid.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Batch {
        /// What the batch builds on: the client's batches up to this one, each
        /// on its shard, must be committed first (L8).
        pub after: Vec<(u16, Xid)>,
        pub items: Vec<BatchItem>,
    }
}

record! {
    /// One operation. Its index is its place in the list.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BatchItem {
        /// The transno it had, in a replay; else 0.
        pub transno: Transno,
        /// Version of its object before it, 0 for any.
        pub pre_version: u64,
        /// Credential, as in the request head.
        pub cred: u32,
        pub umask: u16,
        pub flags: u16,
        pub op: Request,
    }
}

record! {
    /// What became of the operations that ran, in order; the last one may have
    /// failed.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BatchReply { pub results: Vec<BatchResult> }
}

record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BatchResult {
        /// 0, or an errno.
        pub status: i32,
        pub transno: Transno,
        pub pre_version: u64,
        pub reply: Option<Reply>,
    }
}

record! {
    /// Asks for FIDs to create with, ahead of need (operation [`FIDS`]).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FidsWanted { pub count: u32 }
}

record! {
    /// Granted FIDs: `first .. first + count` in sequence `seq`. On the box's
    /// flash before they are sent (F9).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct FidRange { pub seq: u64, pub first: u32, pub count: u32 }
}
