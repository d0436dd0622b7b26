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

use crate::base::{ClientId, Errno, Lsn, Slice, Transno, Xid};
use crate::wire::{Asked, Granted, Reply, Request, RequestHead};

/// A request as the session hands it to `dispatch`.
pub struct Incoming {
    pub client: ClientId,
    pub xid: Xid,
    pub head: RequestHead,
    pub request: Request,
    /// Data to write.
    pub payload: Option<Slice>,
    /// The locks that it would like with the answer.
    pub asked: Asked,
    /// Those that it was granted, what its change showed, and whether locks
    /// are not worth asking for.
    pub granted: RefCell<Granted>,
    pub contended: Cell<bool>,
}

/// What a handler answers. `transno` and `lsn` are zero if nothing changed.
pub struct Outgoing {
    pub result: Result<(Reply, Vec<Slice>), Errno>,
    pub transno: Transno,
    /// The journal position that makes the operation durable.
    pub lsn: Lsn,
}

use crate::base::{Fid, ShardId, TargetId};
use crate::conf::TargetConf;
use crate::dlm::FileLocks;
use crate::flash::{Flash, Tx};
use crate::origin::Limits;
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

mod admin;
mod contact;
mod counters;
mod custody;
pub mod data;
pub mod dispatch;
mod file;
mod filelocks;
mod locks;
pub mod meta;
mod run;
pub mod session;
pub mod writeback;

pub use contact::OriginState;
pub use run::{Begin, run, start};

/// One shard. Shared by its tasks as `Rc<Shard<W>>`.
pub struct Shard<W: World> {
    pub id: ShardId,
    pub world: W,
    pub flash: Flash<W>,
    pub targets: RefCell<BTreeMap<TargetId, Rc<Target>>>,
    /// Targets whose origin has not answered for the first time yet.
    pub starting: RefCell<BTreeMap<TargetId, TargetConf>>,
    pub meta: meta::Meta,
    pub data: data::Data,
    pub writeback: writeback::Writeback,
    pub contacts: contact::Contacts,
    pub sessions: session::Sessions,
    locks: locks::Locks,
    file_locks: RefCell<FileLocks>,
    pub counters: counters::Counters,
    /// The last transno given out.
    pub transno: Cell<Transno>,
    /// The journal position of the last change applied.
    pub applied: Cell<Lsn>,
}

/// A target as its shard knows it.
pub struct Target {
    pub id: TargetId,
    pub conf: RefCell<TargetConf>,
    pub root: Fid,
    pub limits: RefCell<Option<Limits>>,
    /// Key of the name hash (N11), random, stored with the target.
    pub hash_key: [u8; 16],
}

impl<W: World> Shard<W> {
    /// A shard without targets; [`Shard::start`] makes one that serves.
    #[must_use]
    pub fn new(world: W, id: ShardId, flash: Flash<W>, memory_bytes: u64) -> Shard<W> {
        Shard {
            id,
            transno: Cell::new(flash.transno()),
            world,
            flash,
            targets: RefCell::default(),
            starting: RefCell::default(),
            meta: meta::Meta::default(),
            data: data::Data::new(memory_bytes),
            writeback: writeback::Writeback::default(),
            contacts: contact::Contacts::default(),
            sessions: session::Sessions::default(),
            locks: locks::Locks::default(),
            file_locks: RefCell::default(),
            counters: counters::Counters::default(),
            applied: Cell::new(Lsn(0)),
        }
    }

    /// Applies a client's operation: gives it its transno (the replayed one
    /// for a replay) and puts the reply record into the same transaction, so
    /// that effect and answer live and die together (F10).
    pub fn seal(
        &self,
        mut tx: Tx,
        incoming: &Incoming,
        reply: &Reply,
    ) -> Result<(Transno, Lsn), Errno> {
        let next = self.transno.get().max(incoming.head.transno).next();
        let transno = if incoming.head.transno > self.transno.get() {
            incoming.head.transno
        } else {
            next
        };
        tx.transno = transno;
        session::record_reply(&mut tx, incoming, reply);
        let lsn = self.apply(tx)?;
        self.transno.set(transno);
        Ok((transno, lsn))
    }

    /// The target that a file belongs to: the high half of its sequence says
    /// which, as for the target's root. ESTALE: none of this shard's.
    pub fn target_of(&self, fid: Fid) -> Result<Rc<Target>, Errno> {
        let targets = self.targets.borrow();
        let found = targets.values().find(|t| t.root.seq >> 32 == fid.seq >> 32);
        found.cloned().ok_or(Errno::ESTALE)
    }

    /// Applies a change of the box's own (a fetch, a write-back, reclaim).
    pub fn apply(&self, mut tx: Tx) -> Result<Lsn, Errno> {
        // Held here while the store decides: dropped on refusal, it takes back
        // what memory did ahead of the transaction.
        let mut undo = std::mem::take(&mut tx.undo);
        let lsn = self.flash.apply(tx)?;
        undo.disarm();
        self.applied.set(lsn);
        Ok(lsn)
    }
}
