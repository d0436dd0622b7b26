//! What the box asks of a client about its locks (feature LOCKS), and how
//! locks travel: the byte forms are fixed, no release sends them yet. Range,
//! mode and bits of a callback are in its head.

use crate::base::{Fid, LockId, SnapEpoch};
use crate::wire::head::Owner;
use crate::{choice, record};

choice! {
    /// The tag is the operation number in the common head.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Callback {
        /// Give up what conflicts with the head's mode, bits and range.
        Blocking(Blocking) = 1,
        /// A lock that was queued is granted.
        Completion(Completion) = 2,
        /// What a file is like now that the client has to itself, which it keeps:
        /// Glimpsed is the answer. The head's `lock` is the number of the
        /// question (feature GLIMPSE).
        Glimpse(Glimpse) = 3,
        /// Flush and stop forming mutations until the barrier ends (H7).
        Barrier(Barrier) = 4,
        /// Give back idle locks.
        Shrink(Shrink) = 5,
        /// As Blocking, and the file is about to grow: Raised is the answer to
        /// that, beside Cancel (feature GROWTH).
        Growing(Growing) = 6,
    }
}

record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Blocking {
        /// Bits that the client may keep (partial downgrade).
        pub keep_bits: u64,
        pub keep_mode: u32,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Growing {
        /// What the file's size is going to be, and its last byte then (C17).
        pub size: u64,
        pub last: u8,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Completion { pub grant: LockDesc, pub status: i32 }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Glimpse { pub fid: Fid }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Barrier { pub epoch: SnapEpoch, pub expires_ms: u32 }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Shrink { pub volume: u32, pub locks_max: u32 }
}

record! {
    /// A lock as it travels: in enqueue, grant, cancel and replayed claim.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LockDesc {
        /// Chosen by the client (L1).
        pub lock: LockId,
        pub fid: Fid,
        pub mode: u32,
        pub bits: u64,
        /// Bytes `start ..= end`; a whole file is `0 ..= u64::MAX`.
        pub start: u64,
        pub end: u64,
        /// The object's version when it was granted (L13).
        pub version: u64,
        /// Whose flock or fcntl lock it is; `None` for the client's own.
        pub owner: Option<Owner>,
        /// In a cancel: the file is open or its pages are mapped (N9).
        pub in_use: bool,
    }
}
