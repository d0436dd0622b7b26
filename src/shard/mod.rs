//! L3: a shard joins the cores: sessions with clients, the namespace, the data
//! path and write-back of its slice, all on one thread over one world.
//!
//! ```text
//! session (frames, slots, replay) ─► dispatch ─► meta ─┬─► flash (index, journal)
//!                                        └────► data ──┘        ▲
//!                                    writeback ─► origin ───────┘
//! ```
//!
//! Architecture invariant (L3): a handler loads what it needs, awaiting freely,
//! and then decides and applies **without an await between**. Nothing is locked
//! while it loads; what changed meanwhile is seen, because the decision reads
//! the present state, and starts over if something it needs is not loaded.
//! No `RefCell` borrow lives across an await.

use crate::base::{Errno, Lsn, Slice, Transno, Xid};
use crate::wire::{Reply, Request, RequestHead};

/// A request as the session hands it to `dispatch`.
pub struct Incoming {
    pub xid: Xid,
    pub head: RequestHead,
    pub request: Request,
    /// Data to write.
    pub payload: Option<Slice>,
}

/// What a handler answers. `transno` and `lsn` are zero if nothing changed.
pub struct Outgoing {
    pub result: Result<(Reply, Vec<Slice>), Errno>,
    pub transno: Transno,
    /// The journal position that makes the operation durable.
    pub lsn: Lsn,
}
