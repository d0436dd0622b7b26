//! The shard's state for one client, over all its connections.

use super::grants::Grant;
use super::order::Order;
use super::slots::{Answer, Slots};
use super::{CREDS_MAX, ClientInfo, GROUPS_MAX, record::ClientRecord};
use crate::base::{ClientId, Fid, Lsn, Mono, OpenId, Tag, TargetId, Time, Transno, Xid};
use crate::dlm::Holder;
use crate::wire::op::DeclareCred;
use crate::wire::{Features, Frame};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Who asks, in the box's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cred {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// The shard's state for one connected client.
pub struct Export {
    pub client: ClientId,
    /// Whom its locks belong to.
    pub holder: Holder,
    pub name: String,
    pub target: TargetId,
    pub read_only: bool,
    pub creds: RefCell<BTreeMap<u32, Cred>>,
    pub opens: RefCell<BTreeMap<OpenId, (Fid, u32)>>,
    pub(super) state: State,
}

/// What only the session knows of an export.
pub(super) struct State {
    pub incarnation: u64,
    /// The incarnation before it: a client that never saw the answer to its
    /// CONNECT still claims that one.
    pub previous: u64,
    pub conn_count: Cell<u32>,
    pub features: Cell<Features>,
    pub lease: Cell<Duration>,
    /// The connection in use.
    pub link: RefCell<Option<Rc<dyn Link>>>,
    pub slots: RefCell<Slots>,
    pub order: Rc<Order>,
    pub grant: Grant,
    pub heard: Cell<Mono>,
    /// May still replay.
    pub recovering: Cell<bool>,
    /// Thrown out, or gone by itself: nothing of it takes effect any more.
    pub ended: Cell<bool>,
    /// Its record on flash says `unstable`.
    pub marked_unstable: Cell<bool>,
    /// Its newest change, and newest unstable one.
    pub last_lsn: Cell<Lsn>,
    pub last_unstable: Cell<Transno>,
    /// A task is about to send it a notice.
    pub noticing: Cell<bool>,
    /// Commits asked for by the client that are being waited for.
    pub commits: Cell<u32>,
    pub since: Time,
}

/// A connection as the export sees it, of whatever world.
pub(super) trait Link {
    /// Queues a frame whose reserved bytes (see [`Link::reserve`]) it replaces.
    fn send(&self, frame: Frame, reserved: usize);
    /// Counts bytes of a reply that is being made.
    fn reserve(&self, bytes: usize);
    fn release(&self, bytes: usize);
    fn close(&self);
    fn is_closed(&self) -> bool;
    fn peer(&self) -> String;
}

impl Export {
    /// An export that has no connection yet.
    #[must_use]
    pub fn new(client: ClientId, name: String, target: TargetId, read_only: bool) -> Export {
        Export {
            client,
            holder: Holder(0),
            name,
            target,
            read_only,
            creds: RefCell::default(),
            opens: RefCell::default(),
            state: State::new(0, 0, 0, Time::default()),
        }
    }

    /// Thrown out or gone: handlers that look again after an await stop (L3).
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state.ended.get()
    }

    pub(in crate::shard) fn incarnation(&self) -> u64 {
        self.state.incarnation
    }
    pub(in crate::shard) fn lease(&self) -> Duration {
        self.state.lease.get()
    }
    /// When the client was heard last.
    pub(in crate::shard) fn heard(&self) -> Mono {
        self.state.heard.get()
    }

    /// Comes back after a restart of the box, and may claim what it had.
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.state.recovering.get()
    }

    pub(super) fn record(&self, unstable: bool) -> ClientRecord {
        let state = &self.state;
        ClientRecord {
            incarnation: state.incarnation,
            previous: state.previous,
            target: self.target.0,
            name: self.name.clone(),
            features: state.features.get(),
            lease_ms: u32::try_from(state.lease.get().as_millis()).unwrap_or(u32::MAX),
            read_only: self.read_only,
            unstable,
            clean: false,
            since: state.since,
        }
    }

    /// Sends to the client, if it is connected.
    pub(in crate::shard) fn send(&self, frame: Frame) {
        if let Some(link) = self.state.link.borrow().as_ref() {
            link.send(frame, 0);
        }
    }

    /// Is there a connection on which it could be asked something now?
    pub(in crate::shard) fn is_connected(&self) -> bool {
        let link = self.state.link.borrow();
        link.as_ref().is_some_and(|link| !link.is_closed())
    }

    /// Ends the connection in use, if there is one.
    pub(super) fn hang_up(&self) {
        if let Some(link) = self.state.link.borrow_mut().take() {
            link.close();
        }
    }

    #[must_use]
    pub fn has(&self, feature: u64) -> bool {
        self.state.features.get().has(feature)
    }

    pub(super) fn answered(&self, tag: Tag, xid: Xid, answer: Option<Rc<Answer>>) {
        self.state.slots.borrow_mut().on_answer(tag, xid, answer);
    }

    /// Takes in a credential; the reason if it exceeds a bound.
    pub(super) fn declare(&self, cred: DeclareCred) -> Result<(), &'static str> {
        let mut creds = self.creds.borrow_mut();
        if cred.id == 0 || cred.id as usize > CREDS_MAX {
            return Err("a credential number out of range");
        }
        let others = creds.iter().filter(|(id, _)| **id != cred.id);
        let groups: usize = others.map(|(_, c)| c.groups.len()).sum();
        if groups + cred.groups.len() > GROUPS_MAX {
            return Err("more groups than a client may declare");
        }
        let DeclareCred {
            id,
            uid,
            gid,
            groups,
        } = cred;
        creds.insert(id, Cred { uid, gid, groups });
        Ok(())
    }

    pub(super) fn info(&self) -> ClientInfo {
        ClientInfo {
            client: self.client,
            name: self.name.clone(),
            peer: self.state.link.borrow().as_ref().map(|l| l.peer()),
            target: self.target.0,
            recovering: self.state.recovering.get(),
            opens: self.opens.borrow().len(),
            running: self.state.slots.borrow().running(),
        }
    }
}

impl State {
    pub fn new(incarnation: u64, previous: u64, tags: u16, since: Time) -> State {
        State {
            incarnation,
            previous,
            conn_count: Cell::new(0),
            features: Cell::default(),
            lease: Cell::default(),
            link: RefCell::default(),
            slots: RefCell::new(Slots::new(tags)),
            order: Rc::default(),
            grant: Grant::default(),
            heard: Cell::default(),
            recovering: Cell::new(false),
            ended: Cell::new(false),
            marked_unstable: Cell::new(false),
            last_lsn: Cell::default(),
            last_unstable: Cell::default(),
            noticing: Cell::new(false),
            commits: Cell::new(0),
            since,
        }
    }
}
