//! What the table of file locks is asked, and what it says.

use crate::base::{ClientId, Fid, HeldLock, OpenId, OwnerKind, WaitId};

/// Whose lock it is (L12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockOwner {
    pub client: ClientId,
    /// The client's own number for the process's files or the open file.
    pub id: u64,
    pub kind: OwnerKind,
}

/// What is asked for. The range of a flock is not looked at: it is the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockAsked {
    pub owner: LockOwner,
    /// The handle that it is taken through, and ends with.
    pub open: OpenId,
    pub lock: HeldLock,
}

/// All that one owner has on one file, and the handles it came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLocks {
    pub fid: Fid,
    pub owner: LockOwner,
    pub opens: Vec<OpenId>,
    pub locks: Vec<HeldLock>,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundLock {
    pub owner: LockOwner,
    pub lock: HeldLock,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    Granted,
    /// Its wait will be woken.
    Queued,
    /// Another owner's lock is in the way, and the request does not wait.
    WouldBlock,
    /// The process would wait for itself.
    Deadlock,
    /// A bound is reached, nothing changed (of a flock: the old lock is lost).
    TooMany,
}

/// A wait, by who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wait {
    pub client: ClientId,
    pub id: WaitId,
}

/// A wait that is over: `Granted`, `Deadlock` or `TooMany`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockWoken {
    pub wait: Wait,
    pub outcome: LockOutcome,
}
