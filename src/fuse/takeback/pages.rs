//! Pages. Their invalidation waits for the lock of each folio, which a READ
//! holds until it is answered, and for dirty ones to be written. So it goes
//! around the READs that are under way, and starts anew around those that come
//! meanwhile (C4): none of them holds a page that was believed before.

use super::PAUSE_MAX;
use crate::base::{Bits, Errno, Extent, Fid};
use crate::client::Ending;
use crate::fuse::abi::notify::Notice;
use crate::fuse::kept::pages::Around;
use crate::fuse::kept::sizes::Sizes;
use crate::fuse::kernel::Kernel;
use crate::fuse::notices::Latch;
use crate::fuse::session::Session;
use crate::fuse::upstream::Upstream;
use crate::world::race::within;
use crate::world::{Level, World};
use std::rc::Rc;
use std::time::Duration;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// Drops the pages of `range`; those that a READ holds which began before
    /// the taking `at` are dropped once it is answered. Dirty ones are written
    /// first: the kernel asks for that meanwhile.
    pub(in crate::fuse) async fn drop_pages(&self, nodeid: u64, range: Extent, at: u64) {
        let mut grace = GRACE;
        while !self.is_unmounted() {
            let around = self.kept.borrow_mut().pages.around(nodeid, range, at);
            let round = self.tell_pieces(nodeid, &around);
            if self.waited(nodeid, range, &around, &round, grace).await {
                if range == Extent::ALL {
                    let pages = &mut self.kept.borrow_mut().pages;
                    pages.dropped_all(nodeid, &around);
                }
                return;
            }
            // Each round may leave a kernel thread waiting: a reader that does
            // not stop must not make many.
            grace = (grace * 2).min(GRACE_MAX);
        }
    }

    fn tell_pieces(&self, nodeid: u64, around: &Around) -> Rc<Latch> {
        let latch = Rc::new(Latch::default());
        for piece in &around.pieces {
            let told = self.notices.post(pages_of(nodeid, *piece), None);
            let (session, part) = (self.this(), latch.part());
            self.this().spawn(async move {
                match told.get().await {
                    // ENOENT: no such inode, and so no pages.
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(e) => {
                        session.kept.borrow_mut().pages.taint(nodeid);
                        let line = format!("fuse: the kernel keeps pages: {e}");
                        session.world.log(Level::Error, &line);
                    }
                }
                drop(part);
            });
        }
        latch
    }

    /// Ends with the round: true; or when a READ that came meanwhile may hold
    /// it up: false.
    async fn waited(
        &self,
        nodeid: u64,
        range: Extent,
        around: &Around,
        round: &Latch,
        grace: Duration,
    ) -> bool {
        if within(&self.world, grace, round.ended()).await.is_some() {
            return true;
        }
        loop {
            if round.is_ended() {
                return true;
            }
            let has_others = {
                let pages = &self.kept.borrow().pages;
                pages.has_others(nodeid, range, &around.fills)
            };
            if has_others {
                return false;
            }
            // Looks again now and then, at which of the two has changed.
            let _ = within(&self.world, PAUSE_MAX, round.ended()).await;
        }
    }

    /// Before the first open for writing is answered: pages that were read
    /// under less go, and those that are being read so are waited for (C6).
    pub(in crate::fuse) async fn drop_for_writer(&self, nodeid: u64, fid: Fid) {
        let at = self.note_data(fid, Extent::ALL);
        loop {
            self.drop_pages(nodeid, Extent::ALL, at).await;
            if !self.kept.borrow().pages.has_earlier(nodeid, at) {
                return;
            }
            let changed = Rc::clone(&self.kept.borrow().pages.changed);
            changed.wait().await;
        }
    }

    /// After bytes were written past the pages, and before that is answered:
    /// the kernel has dropped the pages before it sent the WRITE; what was read
    /// since goes too. `begun`: how many page fills there had been when it came.
    pub(in crate::fuse) async fn drop_written(
        &self,
        nodeid: u64,
        fid: Fid,
        range: Extent,
        begun: u64,
    ) {
        let has_new = {
            let pages = &self.kept.borrow().pages;
            let kernel_drops = self.maps_shared();
            pages.has(nodeid)
                && (!kernel_drops
                    || pages.begun(nodeid) != begun
                    || pages.is_filling(nodeid, range))
        };
        if has_new {
            let at = self.note_data(fid, range);
            self.drop_pages(nodeid, range, at).await;
        }
    }

    fn note_data(&self, fid: Fid, range: Extent) -> u64 {
        let of = Some((fid, Bits::DATA, range));
        self.kept.borrow_mut().races.note_own(of)
    }

    /// A READ of pages was answered: if a taking left it out, now is its turn.
    pub(in crate::fuse) fn filled(&self, nodeid: u64, unique: u64) {
        self.upstream.filled(unique);
        let ended = self.kept.borrow_mut().pages.end(nodeid, unique);
        let Some(fill) = ended.filter(|fill| fill.is_left_out) else {
            return;
        };
        let session = self.this();
        self.this().spawn(async move {
            let at = session.kept.borrow().races.now();
            session.drop_pages(nodeid, fill.range, at).await;
        });
    }

    /// May anybody have the file mapped?
    pub(super) fn may_map(&self, fid: Fid) -> bool {
        let nodeid = self.nodes.borrow().number(fid);
        nodeid.is_some_and(|nodeid| self.kept.borrow().pages.may_map(nodeid))
    }

    pub(super) fn mapped(&self) -> Vec<Fid> {
        let nodes = self.nodes.borrow();
        let mapped = self.kept.borrow().pages.mapped().into_iter();
        mapped.filter_map(|id| Some(nodes.find(id)?.fid)).collect()
    }

    /// The kernel's idea of the end follows, also for those who look through a
    /// mapping and so ask nothing (C17). The stored byte is not kept: others may
    /// change it, and it may not be there yet. The kernel takes its size from
    /// then on as it finds it: by the next attributes, or a READ that ends early.
    pub(in crate::fuse) fn grown(self: &Rc<Self>, fid: Fid, size: u64, last: u8) -> Ending {
        let nodeid = self.nodes.borrow().number(fid);
        let (Some(nodeid), Some(offset)) = (nodeid, size.checked_sub(1)) else {
            return Box::pin(async {});
        };
        let session = Rc::clone(self);
        Box::pin(async move {
            let range = Extent {
                start: offset,
                end: offset,
            };
            let settled = session.sizes_settled(|sizes| sizes.is_changing(nodeid));
            let _ = within(&session.world, STORED, settled).await;
            // Where the kernel has the file as long, what it has at that place
            // may be newer than the byte.
            if !session.kept.borrow().sizes.is_below(nodeid, size) {
                return;
            }
            // A READ of the page holds its folio, and may wait for us. Who reads
            // so far takes the file for as long already.
            if session.kept.borrow().pages.is_filling(nodeid, range) {
                return;
            }
            let notice = Notice::Store {
                nodeid,
                offset,
                byte: last,
            };
            let latch = Rc::new(Latch::default());
            let (teller, part) = (Rc::clone(&session), latch.part());
            session.kept.borrow_mut().sizes.store(nodeid, size);
            session.spawn(async move {
                let _ = teller.notices.post(notice, None).get().await;
                teller.kept.borrow_mut().sizes.stored(nodeid);
                let _ = teller
                    .notices
                    .post(pages_of(nodeid, range), None)
                    .get()
                    .await;
                drop(part);
            });
            // One that comes now would hold it up: its answer tells the size.
            let _ = within(&session.world, STORED, latch.ended()).await;
        })
    }

    /// A change of the size by this mount. A byte that is being stored at another
    /// end is there before it is answered, so that the answer is the last word.
    pub(in crate::fuse) async fn resizing<T>(
        &self,
        nodeid: u64,
        change: impl Future<Output = T>,
    ) -> T {
        self.kept.borrow_mut().sizes.change(nodeid);
        let outcome = change.await;
        let settled = self.sizes_settled(|sizes| sizes.is_storing(nodeid));
        let _ = within(&self.world, STORED, settled).await;
        self.kept.borrow_mut().sizes.changed(nodeid);
        outcome
    }

    async fn sizes_settled(&self, is_busy: impl Fn(&Sizes) -> bool) {
        loop {
            let ended = {
                let sizes = &self.kept.borrow().sizes;
                if !is_busy(sizes) {
                    return;
                }
                Rc::clone(&sizes.ended)
            };
            ended.wait().await;
        }
    }

    /// How often this mount has changed the size, while it does not.
    pub(super) fn resized(&self, fid: Fid) -> Option<u64> {
        let Some(nodeid) = self.nodes.borrow().number(fid) else {
            return Some(0);
        };
        let sizes = &self.kept.borrow().sizes;
        (!sizes.is_changing(nodeid)).then(|| sizes.changes(nodeid))
    }
}

fn pages_of(nodeid: u64, piece: Extent) -> Notice {
    let last = piece.end.min(i64::MAX as u64);
    let offset = piece.start.min(last);
    let len = match piece.end {
        u64::MAX => 0,
        _ => last - offset + 1,
    };
    Notice::Pages {
        nodeid,
        offset: offset.cast_signed(),
        len: len.min(i64::MAX as u64).cast_signed(),
    }
}

/// How long dropping pages may take before it is looked what holds it up.
/// at first, and at most.
const GRACE: Duration = Duration::from_millis(2);
const GRACE_MAX: Duration = Duration::from_millis(250);
/// How long a stored byte is waited for.
const STORED: Duration = Duration::from_millis(100);
