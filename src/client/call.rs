//! One request on its way: what it carries and how it ends.

use super::ahead::Underway;
use super::cached::Since;
use crate::base::{Errno, Fid, Slice, Tag, Transno, Xid};
use crate::wire::{Asked, NO_TAG, Reply, Request};
use crate::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

/// Who asks, in the client's ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cred {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What a request says of its caller.
#[derive(Clone, Debug)]
pub struct Context {
    pub cred: Rc<Cred>,
    /// Bits of umask to apply at create.
    pub umask: u16,
    /// [`flags`](crate::wire::head::flags) that belong to the operation:
    /// KILL_PRIV, PAGE_WRITE.
    pub flags: u16,
    /// The caller's lock owner, and its kind.
    pub owner: u64,
    pub owner_kind: u8,
    pub trace: u64,
    /// Whether the answer is going to be kept above the client.
    pub fill: Fill,
    /// What the caller calls that, to say when its pages are filled
    /// ([`Client::filled`](super::Client::filled)); 0: it never does.
    pub fill_id: u64,
    pub aim: Aim,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// A caller waits for the answer.
    #[default]
    Caller,
    /// Nobody does: what it shows is kept, and, of a Getattr, the file's bytes.
    Fetch,
    /// Nor for this listing, whose files are asked for to oneself.
    Alone,
    /// A Getattr is to bring the lock that tells of the file's growth.
    Watch,
}

/// What a READ is for: an answer that is kept above the client needs a lock
/// that lasts as long as it is kept (C6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// The caller's buffer: nothing is kept.
    #[default]
    No,
    /// Pages that are read.
    Read,
    /// Pages that may be stored to without a word, through a mapping.
    Write,
}

impl Context {
    #[must_use]
    pub fn new(cred: Rc<Cred>) -> Context {
        Context {
            cred,
            umask: 0,
            flags: 0,
            owner: 0,
            owner_kind: 0,
            trace: 0,
            fill: Fill::No,
            fill_id: 0,
            aim: Aim::Caller,
        }
    }

    /// A caller without supplementary groups.
    #[must_use]
    pub fn of(uid: u32, gid: u32) -> Context {
        Context::new(Rc::new(Cred {
            uid,
            gid,
            groups: Vec::new(),
        }))
    }
}

/// What came of a request: the reply, and the data that was read.
pub type Outcome = Result<(Reply, Option<Slice>), CallError>;

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The box answered with this.
    Failed(Errno),
    /// Given up before it was sent.
    Interrupted,
    /// No connection within the mount's deadline; it was never sent.
    TimedOut,
    /// The box evicted the client: a change that was sent may or may not have
    /// happened, or earlier unstable writes of the file are lost.
    Evicted,
    /// The client was closed.
    Closed,
    /// The box answered with what does not belong to the request.
    Protocol,
}

impl CallError {
    /// What a system call returns for it.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            CallError::Failed(e) => *e,
            CallError::Interrupted => Errno::EINTR,
            CallError::TimedOut => Errno::ETIMEDOUT,
            CallError::Evicted => Errno::EIO,
            CallError::Closed => Errno::ESHUTDOWN,
            CallError::Protocol => Errno::EPROTO,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Failed(e) => write!(f, "{e}"),
            CallError::Interrupted => write!(f, "interrupted before it was sent"),
            CallError::TimedOut => write!(f, "no connection to the box in time"),
            CallError::Evicted => write!(f, "the box evicted this client"),
            CallError::Closed => write!(f, "the client is closed"),
            CallError::Protocol => write!(f, "the box answered something else"),
        }
    }
}

impl std::error::Error for CallError {}

/// A request under way. Dropping it does not give the request up. One of its
/// clones waits for the end, the others name it to
/// [`interrupt`](super::Client::interrupt).
#[derive(Clone)]
pub struct Call(pub(super) Rc<Pending>);

impl Call {
    /// Waits for the end.
    ///
    /// # Errors
    /// As [`Client::call`](super::Client::call).
    pub async fn reply(self) -> Outcome {
        loop {
            if let Some(outcome) = self.0.outcome.borrow_mut().take() {
                return outcome;
            }
            self.0.done.wait().await;
        }
    }

    /// One that was answered without the box.
    pub(super) fn ended(context: &Context, request: Request, outcome: Outcome) -> Call {
        let pending = Pending::new(context, request, None);
        pending.finish(outcome);
        Call(pending)
    }

    /// Was it ever sent?
    pub(super) fn is_sent(&self) -> bool {
        self.0.xid.get() > Xid(0)
    }

    /// Has it ended?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.outcome.borrow().is_some()
    }
}

/// Where a request stands among those that were answered ahead of the box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// None of them matters to it.
    #[default]
    Any,
    /// It must see the effect of those before it.
    After,
    /// It is one of them: it was done at this time, by the box's clock, in
    /// nanoseconds since 1970.
    Ahead(u64),
}

/// A change that goes to the box with others in one request.
pub(super) struct Part {
    pub request: Request,
    pub payload: Option<Slice>,
}

impl Part {
    pub fn of(pending: &Pending) -> Part {
        Part {
            request: pending.request.borrow().clone(),
            payload: pending.payload.clone(),
        }
    }
}

/// What the ledger keeps of a request, from its call until it is stable.
pub(super) struct Pending {
    /// Changed once: an append that took place is replayed where it did.
    pub request: RefCell<Request>,
    pub payload: Option<Slice>,
    /// The changes that it was made of, if they are more than one; the payloads
    /// are theirs then.
    pub parts: RefCell<Vec<Part>>,
    /// Bytes that it holds in memory.
    pub bytes: Cell<usize>,
    pub context: Context,
    /// The locks that it asks for.
    pub asked: RefCell<Asked>,
    /// When, for what is remembered.
    pub since: Cell<Since>,
    pub order: Cell<Order>,
    /// Its place among all that was queued.
    pub queued: Cell<u64>,
    /// Answered ahead: the files that it changes.
    pub touched: RefCell<Vec<Fid>>,
    /// Not answered ahead: that it changes files, until it has ended.
    pub underway: RefCell<Option<Underway>>,
    /// Zero until it is sent for the first time.
    pub xid: Cell<Xid>,
    pub tag: Cell<Tag>,
    /// Its place in the shard's order, once known.
    pub transno: Cell<Transno>,
    pub outcome: RefCell<Option<Outcome>>,
    /// What it ends with when there is room for it among what is answered ahead.
    pub later: RefCell<Option<Outcome>>,
    pub done: Signal,
}

impl Pending {
    pub fn new(context: &Context, request: Request, payload: Option<Slice>) -> Rc<Pending> {
        Rc::new(Pending {
            request: RefCell::new(request),
            bytes: Cell::new(payload.as_ref().map_or(0, |p| p.len())),
            payload,
            parts: RefCell::default(),
            context: context.clone(),
            asked: RefCell::default(),
            since: Cell::default(),
            order: Cell::default(),
            queued: Cell::default(),
            touched: RefCell::default(),
            underway: RefCell::default(),
            xid: Cell::new(Xid(0)),
            tag: Cell::new(NO_TAG),
            transno: Cell::new(Transno(0)),
            outcome: RefCell::new(None),
            later: RefCell::new(None),
            done: Signal::default(),
        })
    }

    pub fn finish(&self, outcome: Outcome) {
        self.underway.take();
        *self.outcome.borrow_mut() = Some(outcome);
        self.done.notify();
    }

    /// Its caller has its answer, or gets it as soon as there is room for that.
    pub fn is_ahead(&self) -> bool {
        matches!(self.order.get(), Order::Ahead(_))
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// What is sent with it.
    pub fn payloads(&self) -> Vec<Slice> {
        let parts = self.parts.borrow();
        match parts.is_empty() {
            true => self.payload.iter().cloned().collect(),
            false => parts.iter().filter_map(|p| p.payload.clone()).collect(),
        }
    }
}
