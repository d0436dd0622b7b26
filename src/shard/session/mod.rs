//! Sessions with clients: connections, exports, reply slots, replay and resend.
//!
//! ```text
//! accept ─► connection: CONNECT ─► admit ──► Export (one a client, over connections)
//!               │ frames                       slots · creds · opens · lease
//!               └─► request: record? ─► gate ─► handler ─► commit ─► reply ─► outbox
//! start ─► recovery (who may come back, in which order) · keeper (leases, evictions)
//! ```
//! `slots` and `recovery` are the pure parts. A request runs in a task of its
//! own; requests of the connection itself (credentials, opens, pings) are done
//! in the order of the stream.
//!
//! Architecture invariant: a client's fault ends its connection with a logged
//! reason and touches nobody else. What a client may hold here is bounded: by
//! its slots, [`REPLY_BYTES_MAX`], [`CREDS_MAX`], [`OPENS_MAX`].

mod connect;
mod connection;
mod export;
mod grants;
mod keeper;
mod order;
mod record;
mod recovery;
mod request;
mod slots;

pub use export::{Cred, Export};
pub use grants::want;
pub use order::time_of;
pub use record::{ClientRecord, ReplyRecord};
pub use request::{Dispatch, Handler, tell};

use super::{Incoming, Shard, Tx};
use crate::base::codec::Codec;
use crate::base::{BoxId, ClientId, Errno, Mono};
use crate::namespace::key;
use crate::wire::{Reply, ShardMap};
use crate::world::World;
use crate::world::sync::Signal;
use recovery::Recovery;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Replies to one client that are being made, queued or sent. A client that
/// does not read them is not served any further.
pub const REPLY_BYTES_MAX: usize = 16 << 20;

/// Credentials that one client may have declared, and groups over all of them.
pub const CREDS_MAX: usize = 1024;
pub const GROUPS_MAX: usize = 1 << 18;

/// Files that one client may have open on one shard.
pub const OPENS_MAX: usize = 1 << 20;

/// What the box tells its clients of itself.
#[derive(Clone, Debug)]
pub struct Settings {
    pub box_id: BoxId,
    /// Generation of the box's flash.
    pub generation: u64,
    /// The longest lease that is granted; also the recovery window.
    pub lease: Duration,
    pub map: ShardMap,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            box_id: BoxId(0),
            generation: 0,
            lease: Duration::from_secs(10),
            map: ShardMap {
                epoch: crate::base::MapEpoch(1),
                ranges: vec![(0, crate::base::ShardId(0))],
            },
        }
    }
}

/// The shard's exports, by client, and its recovery.
#[derive(Default)]
pub struct Sessions {
    settings: RefCell<Settings>,
    exports: RefCell<BTreeMap<ClientId, Rc<Export>>>,
    recovery: RefCell<Recovery>,
    /// When the recovery window closes.
    window_end: Cell<Mono>,
    /// Recovery moved on, an export ended, or the shard stops.
    changed: Signal,
    stopping: Cell<bool>,
    estimate: Estimate,
    promised: grants::Promised,
}

/// What a request takes now: a moving average with a weight of 1/8.
#[derive(Default)]
struct Estimate(Cell<u32>);

impl Estimate {
    fn note(&self, service: Duration) -> u32 {
        let us = u32::try_from(service.as_micros()).unwrap_or(u32::MAX);
        let old = self.0.get();
        self.0.set(old - old / 8 + us / 8);
        us
    }
}

/// A client, for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    pub client: ClientId,
    pub name: String,
    pub peer: Option<String>,
    pub target: u32,
    pub recovering: bool,
    pub opens: usize,
    pub running: usize,
}

impl Sessions {
    /// Before the first connection.
    pub fn configure(&self, settings: Settings) {
        *self.settings.borrow_mut() = settings;
    }

    #[must_use]
    pub fn clients(&self) -> Vec<ClientInfo> {
        let exports = self.exports.borrow();
        exports.values().map(|export| export.info()).collect()
    }

    /// Is the shard still waiting for clients of before its unclean stop?
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        !self.recovery.borrow().is_over()
    }

    /// Waits until nobody can come any more who may have had file locks before
    /// the box restarted: at most as long as the recovery window.
    pub async fn reclaimed(&self) {
        while self.recovery.borrow().may_claim_locks() && !self.stopping.get() {
            self.changed.wait().await;
        }
    }

    /// Waits until new requests may run.
    async fn gate(&self) {
        while self.is_recovering() && !self.stopping.get() {
            self.changed.wait().await;
        }
    }
}

/// Puts the reply record of `incoming` into its transaction.
pub fn record_reply(tx: &mut Tx, incoming: &Incoming, reply: &Reply) {
    let record = ReplyRecord {
        xid: incoming.xid,
        index: 0,
        transno: tx.transno,
        op: incoming.request.tag(),
        reply: reply.clone(),
    };
    tx.put(
        key::reply(incoming.client, incoming.head.tag),
        record.to_vec(),
    );
}

/// Takes up the clients of before: call it once, before the first connection.
///
/// # Errors
/// The flash cannot be read.
pub async fn start<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
) -> Result<(), Errno> {
    let known = keeper::known_clients(shard).await?;
    let durable = shard.flash.transno();
    shard.transno.set(shard.transno.get().max(durable));
    let sessions = &shard.sessions;
    let lease = sessions.settings.borrow().lease;
    sessions.window_end.set(shard.world.now() + lease);
    *sessions.recovery.borrow_mut() = Recovery::new(known, durable);
    shard
        .world
        .spawn(keeper::keep(Rc::clone(shard), Rc::clone(handler)));
    Ok(())
}

/// Serves a connection whose first bytes (its CONNECT) were read already.
pub fn accept<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    conn: W::Conn,
    first: &[u8],
) {
    let task = connection::serve(Rc::clone(shard), Rc::clone(handler), conn, first.to_vec());
    shard.world.spawn(task);
}

/// Commits, notes which clients hold nothing unstable, and ends all connections.
///
/// # Errors
/// The flash failed; the clients keep what is not durable.
pub async fn stop<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    keeper::stop(shard).await
}

#[cfg(test)]
mod tests;
