//! Taking back what the kernel believes, when the locks that it rests on end.
//!
//! ```text
//!  client ─ take_back(fid, bits, range) ─► noted at once (answers under way are worth nothing)
//!             attributes: told at once            ─┐
//!             names, negative names: INVAL_ENTRY  ─┼─► ends when all of them have
//!             pages: INVAL_INODE around READs     ─┘
//! ```
//! What the kernel may make wait goes through `notices`, each in a context of
//! its own; nothing here waits for a request that the kernel has not got an
//! answer to (C2, C4).
//!
//! Architecture invariant: a taking that has ended never needs to be undone;
//! what it could not reach yet (folios of READs under way) is dropped when it
//! can be, and holds nothing that was believed before.

mod everything;
mod names;
mod pages;

use super::abi::notify::Notice;
use super::kernel::Kernel;
use super::notices::Latch;
use super::session::Session;
use super::terms::TOLD;
use super::upstream::Upstream;
use crate::base::{Bits, Errno, Extent, Fid};
use crate::client::{Above, Ending};
use crate::world::{Level, World};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// The mount, as its client sees it.
pub(super) struct Taker<W: World, U: Upstream, K: Kernel>(pub Weak<Session<W, U, K>>);

impl<W: World, U: Upstream, K: Kernel> Above for Taker<W, U, K> {
    fn take_back(&self, fid: Fid, bits: Bits, range: Extent) -> Ending {
        match self.0.upgrade() {
            Some(session) => session.take_back(fid, bits, range),
            None => Box::pin(async {}),
        }
    }

    fn take_back_all(&self) -> Ending {
        match self.0.upgrade() {
            Some(session) => session.take_back_all(),
            None => Box::pin(async {}),
        }
    }

    fn grown(&self, fid: Fid, size: u64, last: u8) -> Ending {
        match self.0.upgrade() {
            Some(session) => session.grown(fid, size, last),
            None => Box::pin(async {}),
        }
    }

    fn resized(&self, fid: Fid) -> Option<u64> {
        let session = self.0.upgrade();
        session.map_or(Some(0), |session| session.resized(fid))
    }

    fn may_map(&self, fid: Fid) -> bool {
        let session = self.0.upgrade();
        session.is_some_and(|session| session.may_map(fid))
    }

    fn mapped(&self) -> Vec<Fid> {
        let session = self.0.upgrade();
        session.map_or_else(Vec::new, |session| session.mapped())
    }
}

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    fn take_back(self: &Rc<Self>, fid: Fid, bits: Bits, range: Extent) -> Ending {
        let at = self.kept.borrow_mut().races.note(Some((fid, bits, range)));
        let nodeid = self.nodes.borrow().number(fid);
        // Unknown to the kernel: answers that will name it find the note.
        let Some(nodeid) = nodeid else {
            return Box::pin(async {});
        };
        let latch = Rc::new(Latch::default());
        if !bits.and(TOLD).is_empty() {
            self.take_attrs(nodeid, &latch);
        }
        let mut held = Vec::new();
        if bits.has(Bits::LOOKUP) {
            held.extend(self.kept.borrow().names.of(nodeid));
        }
        if bits.has(Bits::UPDATE) {
            held.extend(self.kept.borrow().names.absent_in(nodeid));
        }
        self.take_names(held, &latch);
        if bits.has(Bits::UPDATE) {
            self.take_list(nodeid, &latch);
        }
        if bits.has(Bits::DATA) && self.kept.borrow().pages.has(nodeid) {
            let (session, part) = (Rc::clone(self), latch.part());
            self.spawn(async move {
                session.drop_pages(nodeid, range, at).await;
                drop(part);
            });
        }
        Box::pin(async move { latch.ended().await })
    }

    /// The pages of a listing, for handles that may use them: who opens another
    /// is told not to. None of them is ever dirty, or locked for longer than it
    /// takes to copy names.
    pub(super) fn take_list(self: &Rc<Self>, nodeid: u64, latch: &Rc<Latch>) {
        if self.is_unmounted() || !self.kept.borrow_mut().lists.take(nodeid) {
            return;
        }
        let all = Notice::Pages {
            nodeid,
            offset: 0,
            len: 0,
        };
        let (told, part) = (self.notices.post(all, None), latch.part());
        self.spawn(async move {
            // ENOENT: the kernel has no such node, and no pages of it.
            let _ = told.get().await;
            drop(part);
        });
    }

    /// Attributes and ACLs. A reply that named the node first is perhaps not
    /// taken in yet, and would bring them to life: the kernel then has no such
    /// node, until it either has or gives it back (C5).
    fn take_attrs(self: &Rc<Self>, nodeid: u64, latch: &Rc<Latch>) {
        if self.drop_attrs(nodeid) {
            return;
        }
        let (session, part) = (Rc::clone(self), latch.part());
        self.spawn(async move {
            let mut pause = PAUSE_MIN;
            while !session.drop_attrs(nodeid) {
                session.world.sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            drop(part);
        });
    }

    /// Tells the kernel at once; false if it is to be told again.
    fn drop_attrs(&self, nodeid: u64) -> bool {
        if self.is_unmounted() || !self.kept.borrow().has_attrs(nodeid, self.world.now()) {
            return true;
        }
        match self.kernel.tell(&Notice::Attributes { nodeid }) {
            Ok(()) => true,
            Err(Errno::ENOENT) => false,
            Err(e) => {
                let line = format!("fuse: the kernel keeps attributes: {e}");
                self.world.log(Level::Error, &line);
                // They end with their timeout (C1).
                false
            }
        }
    }
}

/// Between two tries, in a growing row.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(10);
