//! All of it: the lease is over, or the client was evicted (L2, C8).

use super::Ending;
use crate::base::Extent;
use crate::fuse::kernel::Kernel;
use crate::fuse::notices::Latch;
use crate::fuse::session::Session;
use crate::fuse::upstream::Upstream;
use crate::world::World;
use crate::world::sync::Semaphore;
use std::rc::Rc;
use std::time::Duration;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    pub(super) fn take_back_all(self: &Rc<Self>) -> Ending {
        let at = self.kept.borrow_mut().races.note(None);
        let latch = Rc::new(Latch::default());
        self.take_all_names(&latch);
        let nodes = self.kept.borrow().pages.all();
        for nodeid in &nodes {
            self.kept.borrow_mut().pages.condemn(*nodeid);
        }
        self.lose_pages(nodes, at, &latch);
        let listed = self.kept.borrow().lists.all();
        for nodeid in listed {
            self.take_list(nodeid, &latch);
        }
        let (session, part) = (Rc::clone(self), latch.part());
        self.spawn(async move {
            session.take_all_attrs().await;
            drop(part);
        });
        Box::pin(async move { latch.ended().await })
    }

    /// A reply was written `by` later than it was made. What is believed longer
    /// than it was meant must not be (C1), and is what was given lately.
    pub(in crate::fuse) fn take_back_late(self: &Rc<Self>, by: Duration) {
        self.kept.borrow_mut().postpone(by);
        self.take_all_names(&Rc::default());
        let session = Rc::clone(self);
        self.spawn(async move { session.take_all_attrs().await });
    }

    fn take_all_names(self: &Rc<Self>, latch: &Rc<Latch>) {
        if self.has_epochs() {
            self.raise_epoch();
        }
        // All of them without epochs; with them, what listings told just now.
        let all = self.kept.borrow().names.all();
        self.take_names(all, latch);
    }

    /// Drops the pages of `nodes`. Until that is done, what the kernel would
    /// write of them is refused: it belongs to a lock that is gone.
    fn lose_pages(self: &Rc<Self>, nodes: Vec<u64>, at: u64, latch: &Rc<Latch>) {
        let places = Semaphore::new(FILES_AT_ONCE);
        for nodeid in nodes {
            let (session, part) = (Rc::clone(self), latch.part());
            let places = Rc::clone(&places);
            self.spawn(async move {
                let place = places.acquire().await;
                session.drop_pages(nodeid, Extent::ALL, at).await;
                session.kept.borrow_mut().pages.absolve(nodeid);
                drop((place, part));
            });
        }
    }

    async fn take_all_attrs(self: &Rc<Self>) {
        let now = self.world.now();
        let all = self.kept.borrow().with_attrs(now);
        let latch = Rc::new(Latch::default());
        for some in all.chunks(NODES_AT_ONCE) {
            for nodeid in some {
                self.take_attrs(*nodeid, &latch);
            }
            self.world.yield_now().await;
        }
        latch.ended().await;
    }
}

/// Files whose pages are dropped at once, each in a kernel thread.
const FILES_AT_ONCE: usize = 64;
/// Nodes that are told of, some µs each, before requests have their turn.
const NODES_AT_ONCE: usize = 64;
