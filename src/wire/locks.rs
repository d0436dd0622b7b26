//! Locks on requests and replies (feature LOCKS): any request may say which
//! locks it would like and which it gives up, any reply which were granted.
//! They follow the body, so that one round trip does both.

use crate::base::{Attr, Bits, Extent, Fid, LockId, Mode};
use crate::{code, record};

code! {
    /// What a wanted lock is on.
    pub enum Of {
        /// The object of the answer: what was looked up, made, opened, read.
        Object = 1,
        /// The directory of the name.
        Parent = 2,
        /// Each file that is listed with attributes: the first has the lock id
        /// asked for, those after it the ids after that.
        Entries = 3,
    }
}

record! {
    /// A lock that is wanted with the answer.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LockWant {
        /// Chosen by the client, never used before (L1).
        pub lock: LockId,
        pub of: Of,
        pub mode: Mode,
        /// Needed: the request waits for them.
        pub bits: Bits,
        /// Welcome, as far as nobody is in the way.
        pub try_bits: Bits,
        /// Of DATA; the box may grant more of the file.
        pub extent: Extent,
    }
}

record! {
    /// Bits of a lock that end.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LockCancel {
        pub lock: LockId,
        pub bits: Bits,
        /// The file is open or mapped at the client (N9).
        pub in_use: bool,
    }
}

record! {
    /// A lock that is the client's from now on.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LockGrant {
        pub lock: LockId,
        pub fid: Fid,
        pub mode: Mode,
        pub bits: Bits,
        pub extent: Extent,
    }
}

record! {
    /// What follows the body of a request whose head says so.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Asked {
        pub wants: Vec<LockWant>,
        pub cancels: Vec<LockCancel>,
        /// The answer may carry the bytes of the file that it shows, if they
        /// are no more than this (feature INLINE_DATA).
        pub data_max: u32,
    }
}

record! {
    /// What follows the body of a reply whose head says so.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Granted {
        pub grants: Vec<LockGrant>,
        /// What the client's own change made of files besides that of the
        /// answer: its locks on them keep others out, not itself.
        pub shown: Vec<Shown>,
    }
}

record! {
    /// A file as it is after the operation.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Shown {
        pub fid: Fid,
        pub attr: Attr,
    }
}

impl Granted {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.shown.is_empty()
    }
}

impl Asked {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wants.is_empty() && self.cancels.is_empty() && self.data_max == 0
    }
}
