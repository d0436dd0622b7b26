//! L2: the lock manager, as tables and state machines without I/O or clock.
//! Whoever owns a table (a shard) feeds it requests, cancels and the time, and
//! carries out what it says: grants, callbacks, evictions.
//!
//! Architecture invariant: no two holders are ever granted incompatible locks,
//! and whoever waits is granted as soon as nobody before it is in its way.

mod filelocks;

pub use filelocks::{
    FileLocks, FoundLock, LockAsked, LockOutcome, LockOwner, LockWoken, OwnedLocks, Wait,
};
