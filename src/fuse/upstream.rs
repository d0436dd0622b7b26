//! What the mount needs of the client below it: one call for each request, and
//! a drain. The real one is `client`'s; tests serve a tree from memory.

use crate::base::{Errno, Fid, Slice};
use crate::wire::{Reply, Request};
use crate::world::sync::Signal;
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

/// Who asks, in the ids of the client's machine. Clones share the groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, in the kernel's order.
    pub groups: Rc<[u32]>,
}

/// One request and all that goes with it.
#[derive(Debug)]
pub struct Ask {
    pub caller: Caller,
    /// `wire::head::flags`: KILL_PRIV and PAGE_WRITE.
    pub flags: u16,
    /// To be applied at create, unless the directory has a default ACL.
    pub umask: u16,
    pub request: Request,
    /// Data to write.
    pub payload: Option<Slice>,
    /// Raised when the caller was interrupted by a signal (C11).
    pub interrupt: Interrupt,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub reply: Reply,
    /// Data read, in order.
    pub payload: Vec<Slice>,
}

impl Answer {
    /// An answer without data.
    #[must_use]
    pub fn plain(reply: Reply) -> Answer {
        Answer {
            reply,
            payload: Vec::new(),
        }
    }
}

/// What CONNECT told of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export {
    pub root: Fid,
    /// Whether POSIX ACLs are kept; else the kernel judges by mode alone.
    pub acls: bool,
    pub xattrs: bool,
}

/// The client as the mount sees it. Lives on the mount's one thread.
pub trait Upstream: 'static {
    fn export(&self) -> Export;
    /// Asks, and waits for the answer however long it takes. EINTR only if
    /// `ask.interrupt` was raised before the request was sent (C11).
    fn call(&self, ask: Ask) -> impl Future<Output = Result<Answer, Errno>>;
    /// Ends when everything that was answered is on the box's flash (C12).
    fn drain(&self) -> impl Future<Output = Result<(), Errno>>;
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
