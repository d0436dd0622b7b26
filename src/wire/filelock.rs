//! File locks (feature FILE_LOCKS): flock, fcntl and OFD locks of the client's
//! users. Owner and its kind are in the request head; together with the client
//! they name who holds a lock (L12).
//!
//! A lock that has to be waited for holds no reply slot (L6): the answer says
//! [`LockState::Queued`], and when the wait is over a [`Locked`] notice follows
//! on the client's connection. A client whose connection broke asks again, with
//! the same wait: the box has it still, or has granted it, or starts over.

use crate::base::{Extent, Fid, HeldLock, LockKind, OpenId, OwnerKind, WaitId};
use crate::{code, record};

record! {
    /// Takes, changes or gives up a lock. EAGAIN: somebody's lock is in the way,
    /// EDEADLK: the process would wait for itself, ENOLCK: too many locks.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Setlk {
        pub fid: Fid,
        /// The handle that it is taken through: the lock ends with it.
        pub open: OpenId,
        /// To the end of the file, however long it grows: `end` is `u64::MAX`.
        pub range: Extent,
        /// None: unlocks.
        pub kind: Option<LockKind>,
        /// As the client numbers processes; told to those who ask what is in
        /// their way.
        pub pid: u32,
        /// Wait for it, under this name.
        pub wait: Option<WaitId>,
    }
}

record! {
    /// What would be in the way of a lock.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Getlk { pub fid: Fid, pub range: Extent, pub kind: LockKind }
}

record! {
    /// Ends a wait, or says that it came too late: all that was waited for is
    /// the owner's by now.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Unwait { pub fid: Fid, pub range: Extent, pub kind: LockKind, pub wait: WaitId }
}

record! {
    /// All that one owner had on a file before the box restarted, claimed before
    /// ReplayDone, in no reply slot. It is granted as a whole or refused
    /// (ENOLCK) as a whole, if another client has what contradicts it: file
    /// locks have no version to compare (L13), but nobody is granted one while
    /// a client that may claim is still to come.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Relock {
        pub fid: Fid,
        pub owner: u64,
        pub owner_kind: OwnerKind,
        /// The handles that they were taken through.
        pub opens: Vec<OpenId>,
        pub locks: Vec<HeldLock>,
    }
}

code! {
    /// What became of a request about locks.
    pub enum LockState {
        /// Setlk: done. Getlk: it would be granted. Unwait: it was granted.
        Granted = 1,
        /// Setlk: a `Locked` notice follows.
        Queued = 2,
        /// Unwait: nobody waits any more.
        Withdrawn = 3,
        /// Getlk: a lock is in the way.
        InTheWay = 4,
    }
}

record! {
    /// The answer to Setlk, Getlk and Unwait.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct LockAnswer {
        pub state: LockState,
        /// What is in the way. Its `pid` is 0 if another client has it.
        pub found: Option<HeldLock>,
    }
}

record! {
    /// A wait is over. It may arrive before the answer that said `Queued`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Locked {
        pub wait: WaitId,
        /// 0: granted; else EDEADLK or ENOLCK.
        pub status: i32,
    }
}
