//! What the mount needs of the client below it: one call for each request, and
//! a drain. `Client` is the real one; tests serve a tree from memory.

use crate::base::{Attr, Errno, Fid, Name, OpenId, Slice};
use crate::client::{Above, Client, Context, LockCall, Remembered, Terms};
use crate::wire::{Features, Reply, Request};
use crate::world::World;
use crate::world::sync::Signal;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

/// What CONNECT told of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    pub root: Fid,
    /// Whether POSIX ACLs are kept; else the kernel judges by mode alone.
    pub acls: bool,
    /// Longest payload of a read or write.
    pub payload_max: usize,
    /// The box keeps file locks; else the kernel does, among its own processes.
    pub file_locks: bool,
}

/// The client as the mount sees it. Lives on the mount's one thread.
pub trait Upstream: 'static {
    fn export(&self) -> Export;
    /// A name for a file to be opened, never used before.
    fn next_open(&self) -> OpenId;
    /// Asks, and waits for the answer however long it takes. EINTR only if
    /// `interrupt` was raised before the request was sent (C11).
    fn call(
        &self,
        context: &Context,
        request: Request,
        payload: Option<Slice>,
        interrupt: &Interrupt,
    ) -> impl Future<Output = Result<Answer, Errno>>;
    /// Ends when everything that was answered is on the box's flash (C12).
    fn drain(&self) -> impl Future<Output = ()>;
    /// Takes or gives up a file lock, for the owner in `context`. EINTR if
    /// `interrupt` was raised and nobody waits for it any more.
    fn lock(
        &self,
        _context: &Context,
        _asked: LockCall,
        _interrupt: &Interrupt,
    ) -> impl Future<Output = Result<(), Errno>> {
        std::future::ready(Err(Errno::ENOLCK))
    }
    /// Has the process with these files (as the kernel numbers them) locks?
    fn has_locks(&self, _fid: Fid, _owner: u64) -> bool {
        false
    }
    /// A handle is about to be closed, and its locks with it.
    fn locks_closed(&self, _fid: Fid, _open: OpenId) {}
    /// Whether [`terms`](Self::terms) are ever other than zero: asked once, when
    /// the kernel and the mount agree how to talk.
    fn keeps(&self) -> bool {
        false
    }
    /// What may be believed of `fid` from now on without asking.
    fn terms(&self, _fid: Fid) -> Terms {
        Terms::default()
    }
    /// The attributes of `fid` as the client has them under its locks, which may
    /// be newer than those it was `told`; `None` if it has none.
    fn current(&self, _fid: Fid, told: &Attr) -> Option<Attr> {
        Some(told.clone())
    }
    /// Whether the client has it under its locks that `name` leads to `fid`, or
    /// (`None`) that it is not there.
    fn is_current(&self, _dir: Fid, _name: &Name, _fid: Option<Fid>) -> bool {
        true
    }
    /// The listing of `dir` that the client has under its locks, and would answer
    /// from.
    fn listing(&self, _dir: Fid) -> Option<Remembered> {
        None
    }
    /// Whether what filled these pages (`Context::fill_id`) came with a lock that
    /// is kept for it, whatever was called back meanwhile.
    fn covers_fill(&self, _fill_id: u64) -> bool {
        false
    }
    /// The kernel has its answer to that READ.
    fn filled(&self, _fill_id: u64) {}
    /// `fid` was opened so that it may be mapped: [`Above::grown`] is to be
    /// called whenever others make it longer.
    fn watch(&self, _fid: Fid) {}
    /// What it has been doing, a line for each number: its name, a blank, and
    /// the number.
    fn counters(&self) -> String {
        String::new()
    }
    /// Who is told when what was believed ends.
    fn tell(&self, _above: Rc<dyn Above>) {}
}

/// What came back, with the data that was read.
pub type Answer = (Reply, Option<Slice>);

impl<W: World> Upstream for Client<W> {
    fn export(&self) -> Export {
        Export {
            root: self.root(),
            acls: self.agreed().is_some_and(|a| a.acls),
            payload_max: self.payload_max(),
            file_locks: self
                .agreed()
                .is_some_and(|a| a.features.has(Features::FILE_LOCKS)),
        }
    }

    fn next_open(&self) -> OpenId {
        Client::next_open(self)
    }

    async fn call(
        &self,
        context: &Context,
        request: Request,
        payload: Option<Slice>,
        interrupt: &Interrupt,
    ) -> Result<Answer, Errno> {
        let call = self.begin(context, request, payload);
        let mut reply = pin!(call.clone().reply());
        let mut raised = pin!(interrupt.raised());
        let mut is_told = false;
        let outcome = poll_fn(|cx| {
            if !is_told && raised.as_mut().poll(cx).is_ready() {
                is_told = true;
                self.interrupt(&call);
            }
            reply.as_mut().poll(cx)
        });
        outcome.await.map_err(|e| e.errno())
    }

    async fn drain(&self) {
        self.settle().await;
    }

    fn keeps(&self) -> bool {
        Client::keeps(self)
    }

    fn terms(&self, fid: Fid) -> Terms {
        Client::terms(self, fid)
    }

    fn current(&self, fid: Fid, _told: &Attr) -> Option<Attr> {
        self.known_attr(fid)
    }

    fn is_current(&self, dir: Fid, name: &Name, fid: Option<Fid>) -> bool {
        self.is_known(dir, name, fid)
    }

    fn listing(&self, dir: Fid) -> Option<Remembered> {
        Client::listing(self, dir)
    }

    fn covers_fill(&self, fill_id: u64) -> bool {
        Client::covers_fill(self, fill_id)
    }

    fn filled(&self, fill_id: u64) {
        Client::filled(self, fill_id);
    }

    fn watch(&self, fid: Fid) {
        Client::watch(self, fid);
    }

    fn counters(&self) -> String {
        let c = Client::counters(self);
        let rows = [
            ("calls", c.calls),
            ("sent", c.sent),
            ("ahead", c.ahead),
            ("closes", c.closes),
            ("fetched", c.fetched),
            ("answered_here", c.answered_here),
            ("resent", c.resent),
            ("replayed", c.replayed),
            ("connections", c.connections),
            ("evictions", c.evictions),
            ("lost", c.lost),
            ("locks", c.locks),
            ("unwatched", c.unwatched),
            ("retained_bytes", c.retained_bytes),
        ];
        let lines = rows
            .iter()
            .map(|(name, number)| format!("{name} {number}\n"));
        lines.collect()
    }

    fn tell(&self, above: Rc<dyn Above>) {
        Client::tell(self, above);
    }

    async fn lock(
        &self,
        context: &Context,
        asked: LockCall,
        interrupt: &Interrupt,
    ) -> Result<(), Errno> {
        let done = Client::lock(self, context, asked, interrupt.raised()).await;
        done.map_err(|e| e.errno())
    }

    fn has_locks(&self, fid: Fid, owner: u64) -> bool {
        Client::has_locks(self, fid, owner)
    }

    fn locks_closed(&self, fid: Fid, open: OpenId) {
        Client::locks_closed(self, fid, open);
    }
}

/// Whether the thread that waits for a request was hit by a signal.
#[derive(Clone, Default)]
pub struct Interrupt(Rc<(Cell<bool>, Signal)>);

impl Interrupt {
    pub fn raise(&self) {
        self.0.0.set(true);
        self.0.1.notify();
    }
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.0.get()
    }
    /// Ends when the interrupt is raised.
    pub async fn raised(&self) {
        while !self.is_raised() {
            self.0.1.wait().await;
        }
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Interrupt({})", self.is_raised())
    }
}
