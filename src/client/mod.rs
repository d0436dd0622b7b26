//! L3: the native client, used by the mount and by the tools. It turns calls
//! into requests on one connection to the shard that owns the target, and keeps
//! what it takes to carry on over a lost connection or a restart of the box.
//!
//! ```text
//! call ─► waiting ──tag──► unanswered ──reply──► retained ──last_committed──► gone
//!              ▲                │ (resent in xid order)  │ (replayed in transno order)
//!              └── link: connect · CONNECT · reopen · replay · resend · receive ◄┘
//! ```
//! `ledger` is the pure part: slots, order, retention. `link` keeps a
//! connection. `api` has the calls by name and by path. Start at [`Client`].
//!
//! Architecture invariant: a request that was sent is never given up silently
//! (C11), and bytes that the box answered as unstable stay here until it says
//! that they are on flash.

mod above;
mod ahead;
mod api;
mod cached;
mod call;
mod creds;
mod custody;
mod filelocks;
mod handles;
mod ledger;
mod link;
mod lost;
mod merge;

pub use above::{Above, Ending, Terms};
pub use api::{Directory, File};
mod unsent;
mod window;

use call::Pending;
pub use call::{Call, CallError, Context, Cred, Fill, Outcome};
pub use filelocks::LockCall;
pub use ledger::{Counters, State, Transition};
pub use lost::LostChange;

use crate::base::{Attr, ClientId, Fid, Name, OpenId, Slice};
use crate::wire::{ConnectReply, Features, Request};
use crate::world::race::within;
use crate::world::sync::Signal;
use crate::world::{Level, World};
use ahead::Ahead;
use cached::Cached;
pub use cached::Remembered;
use ledger::Ledger;
use link::Link;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the client is called in the box's lists: host and mount point.
    pub name: String,
    pub read_only: bool,
    /// Calls that could not be sent for so long fail with ETIMEDOUT; `None`:
    /// they wait for the box for ever, as a hard NFS mount does.
    pub deadline: Option<Duration>,
    /// How long the first connection may take.
    pub first_connect: Duration,
    /// Requests in flight, as far as the box allows.
    pub tags: u16,
    /// The lease to ask for.
    pub lease: Duration,
    /// Bytes of unstable writes kept for replay before writers wait.
    pub retain_bytes_max: usize,
    /// CRC32C in every frame.
    pub checksum: bool,
    /// Asks for locks, and keeps names and attributes under them.
    pub locks: bool,
    /// Answers changes of what it has to itself before the box has them; needs
    /// `locks`.
    pub ahead: bool,
    /// Callers' rights are checked above the client, as the kernel does: what
    /// is kept may be shown to any of them. Else only to user 0.
    pub callers_checked: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: String::from("client"),
            read_only: false,
            deadline: None,
            first_connect: Duration::from_secs(5),
            tags: 128,
            lease: Duration::from_secs(10),
            retain_bytes_max: 64 << 20,
            checksum: false,
            locks: false,
            ahead: true,
            callers_checked: false,
        }
    }
}

/// Why the first connection did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// No host answered; the errno of the last try.
    Unreachable(crate::base::Errno),
    /// The box has no such target.
    NoTarget,
    /// The box has the target, and has not reached its origin yet.
    Starting,
    /// Box and client have no protocol in common.
    Incompatible,
    /// The box refused for another reason.
    Refused(crate::base::Errno),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unreachable(e) => write!(f, "no box answers: {e}"),
            ConnectError::NoTarget => write!(f, "the box has no such target"),
            ConnectError::Starting => write!(f, "the target's origin has not answered the box yet"),
            ConnectError::Incompatible => write!(f, "the box speaks another protocol"),
            ConnectError::Refused(e) => write!(f, "the box refuses: {e}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A connected client; a cheap handle. [`close`](Client::close) ends it.
pub struct Client<W: World>(Rc<Import<W>>);

impl<W: World> Clone for Client<W> {
    fn clone(&self) -> Self {
        Client(Rc::clone(&self.0))
    }
}

/// The client's state for one target on one shard.
struct Import<W: World> {
    world: W,
    id: ClientId,
    hosts: Vec<String>,
    target: String,
    options: Options,
    ledger: RefCell<Ledger>,
    /// The connection, while there is one.
    link: RefCell<Option<Link<W>>>,
    /// What the box said of itself at the last CONNECT.
    agreed: RefCell<Option<ConnectReply>>,
    file_locks: RefCell<filelocks::Book>,
    /// Something about the state changed, or something became stable.
    changed: Signal,
    next_open: Cell<u64>,
    /// Changes answered ahead of the box that evictions have cost.
    lost: RefCell<Vec<LostChange>>,
    /// Lost requests that the log has told of.
    lost_told: Cell<u64>,
    /// It is watched how long changes wait for more of them.
    pressing: Cell<bool>,
    cached: Cached,
    ahead: Ahead,
}

/// Lost changes that are remembered for who asks.
pub const LOST_MAX: usize = 4096;

/// When a wait for the box's flash is first spoken of, and how often again.
const SETTLE_SAID: Duration = Duration::from_secs(5);
const SETTLE_SAID_AGAIN: Duration = Duration::from_secs(60);

impl<W: World> Client<W> {
    /// Connects to `target` on the first of `hosts` ("host:port") that
    /// answers, and keeps connected until [`close`](Client::close).
    ///
    /// # Errors
    /// The first connection failed for good, or took longer than
    /// `options.first_connect`.
    pub async fn connect(
        world: W,
        hosts: Vec<String>,
        target: &str,
        options: Options,
    ) -> Result<Client<W>, ConnectError> {
        let id = (u128::from(world.random()) << 64) | u128::from(world.random());
        let ahead = Ahead::default();
        let import = Rc::new(Import {
            id: ClientId(id),
            hosts,
            target: target.to_owned(),
            ledger: RefCell::new(Ledger::new(&options)),
            options,
            link: RefCell::default(),
            agreed: RefCell::default(),
            file_locks: RefCell::default(),
            changed: Signal::default(),
            next_open: Cell::new(1),
            lost: RefCell::default(),
            lost_told: Cell::new(0),
            pressing: Cell::new(false),
            cached: Cached::beside(&ahead),
            ahead,
            world,
        });
        let first = link::first(&import).await?;
        import.world.spawn(link::keep(Rc::clone(&import), first));
        if import.options.locks {
            import.world.spawn(cached::watch(Rc::clone(&import)));
        }
        Ok(Client(import))
    }

    /// Sends `request` and waits for its outcome, over any number of lost
    /// connections.
    ///
    /// # Errors
    /// What the box answered, or why there is no answer.
    pub async fn call(
        &self,
        context: &Context,
        request: Request,
        payload: Option<Slice>,
    ) -> Outcome {
        self.begin(context, request, payload).reply().await
    }

    /// Queues `request` and sends it as soon as a reply slot is free. The
    /// request runs to its end even if the [`Call`] is dropped.
    pub fn begin(&self, context: &Context, request: Request, payload: Option<Slice>) -> Call {
        let import = &self.0;
        let is_close = matches!(request, Request::Close(_));
        let known = match custody::is_about(&request) {
            true => custody::answer(import),
            false => ahead::answer(import, context, &request)
                .or_else(|| cached::answer(import, context, &request)),
        };
        let seen = match &request {
            Request::Read(_) | Request::Lookup(_) => Some(request.clone()),
            _ => None,
        };
        let call = match known {
            Some(outcome) => Call::ended(context, request, outcome),
            None => {
                let pending = Pending::new(context, request, payload);
                ahead::dispatch(import, Rc::clone(&pending));
                Call(pending)
            }
        };
        // What was written is on its way when the file is closed.
        if is_close && import.ledger.borrow().waits_for_more() {
            import.ledger.borrow_mut().press();
            import.pump();
        }
        match seen {
            Some(Request::Read(op)) => cached::on_read(import, context, &op),
            Some(Request::Lookup(op)) => cached::on_lookup(import, context, &op),
            _ => {}
        }
        call
    }

    /// Gives a call up, if it has not been sent yet: it ends with EINTR (C11).
    /// A call that was sent goes on, and its outcome comes.
    pub fn interrupt(&self, call: &Call) -> bool {
        self.0.ledger.borrow_mut().interrupt(call)
    }

    /// Waits until every call so far is answered and its effect on the box's
    /// flash (or lost by an eviction, and reported): for ever, saying so, while
    /// the box is away. [`abort`](Client::abort) ends it.
    pub async fn settle(&self) {
        let world = &self.0.world;
        self.0.ledger.borrow_mut().want_commit(true);
        let mut say_at = world.now() + SETTLE_SAID;
        while !self.0.ledger.borrow().is_settled() {
            self.0.pump();
            let left = say_at - world.now();
            if within(world, left, self.0.changed.wait()).await.is_none() {
                self.0.say_unsettled();
                say_at = world.now() + SETTLE_SAID_AGAIN;
            }
        }
        self.0.ledger.borrow_mut().want_commit(false);
    }

    /// Waits until everything sent is answered and stable, says goodbye and
    /// ends the client's tasks. Calls after it fail with ESHUTDOWN.
    pub async fn close(&self) {
        self.settle().await;
        link::goodbye(&self.0).await;
    }

    /// Ends at once: what is unanswered fails, what is retained is dropped.
    pub fn abort(&self) {
        self.0.shut();
    }

    /// Who keeps copies of what this client answers, and is told when they end.
    pub fn tell(&self, above: Rc<dyn Above>) {
        self.0.cached.set_above(above);
    }

    /// The pages that [`Context::fill_id`] names are filled, or never will be by
    /// that READ.
    pub fn filled(&self, fill_id: u64) {
        cached::on_filled(&self.0, fill_id);
    }

    /// Did the bytes for these pages come with a lock that has not ended since?
    #[must_use]
    pub fn covers_fill(&self, fill_id: u64) -> bool {
        self.0.cached.covers_fill(fill_id)
    }

    /// `fid` was opened above, where it may be mapped.
    pub fn watch(&self, fid: Fid) {
        cached::watch_growth(&self.0, fid);
    }

    /// What may be believed of `fid` from now on without asking.
    #[must_use]
    pub fn terms(&self, fid: Fid) -> Terms {
        let alone = ahead::terms(&self.0, fid);
        alone.unwrap_or_else(|| self.0.cached.terms(fid, self.0.world.now()))
    }

    /// The attributes of `fid` under the locks that are held.
    #[must_use]
    pub fn known_attr(&self, fid: Fid) -> Option<Attr> {
        self.0.ahead.attr(fid).or_else(|| self.0.cached.attr(fid))
    }

    /// Whether it is known, under a lock, that `name` leads to this file, or
    /// (`None`) that it is not there.
    #[must_use]
    pub fn is_known(&self, dir: Fid, name: &Name, fid: Option<Fid>) -> bool {
        match self.0.ahead.find(dir, name) {
            Some(found) => found == fid,
            None => self.0.cached.is_known(dir, name, fid),
        }
    }

    /// The listing of `dir` that is remembered under its lock.
    #[must_use]
    pub fn listing(&self, dir: Fid) -> Option<Remembered> {
        self.0.cached.listing(dir, self.0.world.now())
    }

    /// Whether names and attributes are kept under locks.
    #[must_use]
    pub fn keeps(&self) -> bool {
        let agreed = self.0.agreed.borrow();
        let has = agreed.as_ref().map(|a| a.features.has(Features::LOCKS));
        self.0.options.locks && has == Some(true)
    }

    /// The target's root directory.
    #[must_use]
    pub fn root(&self) -> Fid {
        self.0
            .agreed
            .borrow()
            .as_ref()
            .map_or(Fid::NONE, |a| a.root)
    }

    /// What the box granted at the last CONNECT.
    #[must_use]
    pub fn agreed(&self) -> Option<ConnectReply> {
        self.0.agreed.borrow().clone()
    }

    /// Longest payload of a read or write.
    #[must_use]
    pub fn payload_max(&self) -> usize {
        self.0
            .agreed
            .borrow()
            .as_ref()
            .map_or(0, |a| a.payload_max as usize)
    }

    /// An id for an open file that was never used before.
    #[must_use]
    pub fn next_open(&self) -> OpenId {
        let id = self.0.next_open.get();
        self.0.next_open.set(id + 1);
        OpenId(id)
    }

    #[must_use]
    pub fn id(&self) -> ClientId {
        self.0.id
    }

    #[must_use]
    pub fn world(&self) -> &W {
        &self.0.world
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.0.ledger.borrow().state()
    }

    /// Ends when the state has changed, or something became stable.
    pub async fn changed(&self) {
        self.0.changed.wait().await;
    }

    /// Changes that were answered, and that an eviction or a refusal has undone
    /// since this was last asked, in their order; the first
    /// [`LOST_MAX`] of them (L10).
    #[must_use]
    pub fn take_lost(&self) -> Vec<LostChange> {
        self.0.lost.take()
    }

    /// The last state changes, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Transition> {
        self.0.ledger.borrow().history()
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            answered_here: self.0.cached.hits(),
            locks: self.0.cached.locks() as u64,
            unwatched: self.0.cached.unwatched() as u64,
            ahead: self.0.ahead.count(),
            ..self.0.ledger.borrow().counters()
        }
    }
}

impl<W: World> Import<W> {
    fn note_lost(&self, changes: Vec<LostChange>) {
        let mut lost = self.lost.borrow_mut();
        lost.extend(changes);
        lost.truncate(LOST_MAX);
    }

    /// Sends what may be sent now.
    fn pump(self: &Rc<Self>) {
        let link = self.link.borrow();
        let Some(link) = link.as_ref() else {
            return;
        };
        let mut ledger = self.ledger.borrow_mut();
        self.cached.on_send(ledger.last_xid(), self.world.now());
        for frame in ledger.pump() {
            link.sender.push(frame);
        }
        if ledger.waits_for_more() && !self.pressing.replace(true) {
            let import = Rc::clone(self);
            self.world.spawn(async move {
                import.world.sleep(unsent::MOMENT).await;
                import.pressing.set(false);
                import.ledger.borrow_mut().press();
                import.pump();
            });
        }
    }

    fn say_unsettled(&self) {
        let (c, state) = {
            let ledger = self.ledger.borrow();
            (ledger.counters(), ledger.state())
        };
        let line = format!(
            "waiting for the box to have {} requests and {} changes ({} bytes) on its flash; \
             the connection is {state:?}",
            c.waiting + c.unanswered,
            c.retained,
            c.retained_bytes
        );
        self.world.log(Level::Warn, &line);
    }

    fn enter(&self, state: State) {
        let now = self.world.now();
        self.ledger.borrow_mut().enter(state, now);
        self.changed.notify();
    }

    fn shut(&self) {
        self.enter(State::Closed);
        self.ledger.borrow_mut().fail_all(&CallError::Closed);
        ahead::on_evicted(self);
        if let Some(link) = self.link.borrow_mut().take() {
            link.sender.close();
        }
        self.changed.notify();
    }
}

#[cfg(test)]
mod tests;
