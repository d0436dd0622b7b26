//! What the mount needs of the client below it: one call for each request, and
//! a drain. `Client` is the real one; tests serve a tree from memory.

use crate::base::{Errno, Fid, OpenId, Slice};
use crate::client::{Above, Client, Context, Terms};
use crate::wire::{Reply, Request};
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
    /// Whether [`terms`](Self::terms) are ever other than zero: asked once, when
    /// the kernel and the mount agree how to talk.
    fn keeps(&self) -> bool {
        false
    }
    /// What may be believed of `fid` from now on without asking.
    fn terms(&self, _fid: Fid) -> Terms {
        Terms::default()
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
