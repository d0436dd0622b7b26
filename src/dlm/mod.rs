//! L2: the lock manager, as tables and state machines without I/O or clock.
//! Whoever owns a table (a shard) feeds it requests, cancels and the time, and
//! carries out what it says: grants, callbacks, evictions.
//!
//! ```text
//!  enqueue ──► must it wait? ──no──► granted ──► welcome bits, larger extent (grow)
//!              │ conflict with what others           │ cancel, convert
//!              │ have or wait for before it          ▼
//!             yes ─► queue ──────────────────► settle: waiters, first to last,
//!              │                               that nothing keeps waiting
//!              └─► callback to who is in the way (calls) ─► answer, progress, overdue
//! ```
//!
//! Memory is bounded by [`Limits`]: a soft bound makes clients give back idle
//! locks, a hard one refuses. Nothing is remembered of a file without locks,
//! but that it is contended, for a while and for a bounded number of files.
//!
//! Architecture invariant: no two holders are ever granted incompatible locks,
//! and whoever waits is granted as soon as nobody before it is in its way.
//! Start reading at [`Table`], then [`Shape::in_way`].

#![forbid(unsafe_code)]

pub mod bounds;
mod calls;
mod conflict;
mod contention;
mod filelocks;
mod files;
mod granted;
mod grow;
mod query;
mod request;
mod resource;
mod table;

pub use bounds::Limits;
pub use conflict::Shape;
pub use filelocks::{
    FileLocks, FoundLock, LockAsked, LockOutcome, LockOwner, LockWoken, OwnedLocks, Wait,
};
pub use request::{
    Blocking, Claim, ConvertError, Event, Grant, Growth, Held, Holder, Listed, Outcome, Refusal,
    Sole, Want, is_own,
};
pub use table::Table;

#[cfg(test)]
mod tests;
