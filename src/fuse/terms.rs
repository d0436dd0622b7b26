//! What a reply lets the kernel believe, and for how long: what the client's
//! locks say at the moment of the reply, less what was taken back since the
//! answer was asked for. Each belief is entered in `kept` before it is given.

use super::abi::flag::fopen;
use super::abi::notify::Notice;
use super::abi::output::{EntryOut, OpenOut, Validity};
use super::kept::end_of;
use super::kept::names::Turn;
use super::kept::pages::Access;
use super::kept::walkers::Walkers;
use super::kernel::Kernel;
use super::session::{Origin, Session};
use super::upstream::Upstream;
use crate::base::{Attr, Bits, Codec, Extent, Fid, FileKind, Mono, Name, OpenId};
use crate::client::Terms;
use crate::wire::op::Entry;
use crate::world::World;
use std::time::Duration;

/// Where a reply names a node.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub parent: u64,
    pub name: &'a Name,
    /// The answer that names it, if that is a listing's.
    pub listing: Option<Turn>,
    /// The thread that takes the answer in, perhaps without the directory's lock.
    pub walker: Option<u32>,
}

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// What may be believed of `fid` on the word of an answer that was asked
    /// for at `begun`, in the order of takings.
    pub(super) fn terms(&self, begun: u64, fid: Fid) -> Terms {
        let mut terms = self.upstream.terms(fid);
        if terms == Terms::default() {
            return terms;
        }
        let gone = self.kept.borrow().races.since(begun, fid, Extent::ALL);
        if gone.has(Bits::LOOKUP) {
            terms.name = Duration::ZERO;
        }
        if !gone.and(TOLD).is_empty() {
            terms.attr = Duration::ZERO;
        }
        if gone.has(Bits::UPDATE) {
            terms.entries = Duration::ZERO;
        }
        terms.pages &= !gone.has(Bits::DATA);
        terms
    }

    /// The reply that names `entry` to the kernel, and counts it as known. A
    /// reply without a name (to a LOOKUP of "..") makes none to be believed.
    pub(super) fn entry(&self, from: &Origin, at: Option<(u64, &Name)>, entry: &Entry) -> Vec<u8> {
        let terms = self.terms(from.begun, entry.fid);
        let at = at.map(|(parent, name)| At {
            parent,
            name,
            listing: None,
            walker: Some(from.head.pid),
        });
        self.named(at, entry.fid, &entry.attr, terms).to_vec()
    }

    /// The same in an answer to a change. The kernel takes its attributes in
    /// whatever it was told to drop after it was written: those of a node that
    /// it had before (`is_known`) are shown once, and asked for again.
    pub(super) fn changed(
        &self,
        from: &Origin,
        at: (u64, &Name),
        entry: &Entry,
        is_known: bool,
    ) -> Vec<u8> {
        let mut terms = self.terms(from.begun, entry.fid);
        if is_known {
            terms.attr = Duration::ZERO;
        }
        let (parent, name) = at;
        let at = At {
            parent,
            name,
            listing: None,
            walker: None,
        };
        self.named(Some(at), entry.fid, &entry.attr, terms).to_vec()
    }

    /// Does the kernel have the node?
    pub(super) fn is_known(&self, fid: Fid) -> bool {
        self.nodes.borrow().number(fid).is_some()
    }

    /// Names a node to the kernel under `terms`.
    pub(super) fn named(
        &self,
        at: Option<At<'_>>,
        fid: Fid,
        attr: &Attr,
        terms: Terms,
    ) -> EntryOut {
        let (terms, attr) = self.up_to_date(fid, attr, terms);
        let nodeid = self.nodes.borrow_mut().remember(fid, attr.ino);
        let is_good = |at| self.is_current(at, Some(fid)) && !self.is_overtaken(at);
        let entry = match at.is_some_and(is_good) {
            true => terms.name,
            false => Duration::ZERO,
        };
        if let Some(at) = at.filter(|_| !entry.is_zero()) {
            let until = self.give(entry);
            let kept = &mut *self.kept.borrow_mut();
            kept.names
                .give(at.parent, at.name, nodeid, until, at.listing);
            if attr.kind == FileKind::Directory {
                self.note_walker(&mut kept.walkers, nodeid, at.walker);
            }
        }
        let attrs = self.attrs_for(nodeid, terms.attr);
        self.tell_size(nodeid, &attr);
        Validity { entry, ..attrs }.entry_out(nodeid, &attr)
    }

    /// The kernel believes a directory's name from when `walker` has taken it in.
    fn note_walker(&self, walkers: &mut Walkers, dir: u64, walker: Option<u32>) {
        walkers.give(dir);
        if let Some(thread) = walker {
            walkers.tell(dir, thread, |thread| self.kernel.has_gone_on(thread));
        }
    }

    /// What an answer said of `fid`, or what a later one, that brought the
    /// locks, has said since.
    fn up_to_date(&self, fid: Fid, told: &Attr, mut terms: Terms) -> (Terms, Attr) {
        if !terms.attr.is_zero() {
            if let Some(attr) = self.upstream.current(fid, told) {
                return (terms, attr);
            }
            terms.attr = Duration::ZERO;
        }
        (terms, told.clone())
    }

    fn is_current(&self, at: At<'_>, fid: Option<Fid>) -> bool {
        let dir = self.nodes.borrow().find(at.parent);
        dir.is_some_and(|dir| self.upstream.is_current(dir.fid, at.name, fid))
    }

    /// Another listing that names it as well may be taken in after this reply,
    /// and be what the kernel believes then: it stays entered as what that said.
    fn is_overtaken(&self, at: At<'_>) -> bool {
        let names = &self.kept.borrow().names;
        names.is_listed(at.parent, at.name, at.listing)
    }

    /// The kernel counts a directory's links only by asking; what changed them
    /// has been answered by now.
    pub(super) fn links_changed(&self, nodeid: u64) {
        if self.kept.borrow().has_attrs(nodeid, self.world.now()) {
            // Whatever it says: it asks again when they expire.
            let _ = self.kernel.tell(&Notice::Attributes { nodeid });
        }
    }

    /// The attributes that answer `from`, and how long they are good.
    pub(super) fn attrs(&self, from: &Origin, fid: Fid, told: &Attr) -> (Validity, Attr) {
        let terms = self.terms(from.begun, fid);
        let (terms, attr) = self.up_to_date(fid, told, terms);
        self.tell_size(from.head.nodeid, &attr);
        (self.attrs_for(from.head.nodeid, terms.attr), attr)
    }

    fn tell_size(&self, nodeid: u64, attr: &Attr) {
        if attr.kind == FileKind::Regular {
            self.kept.borrow_mut().sizes.tell(nodeid, attr.size);
        }
    }

    /// The reply being made gives something to believe: until then.
    fn give(&self, valid: Duration) -> Mono {
        let now = self.world.now();
        let first = self.given.get().unwrap_or(now);
        self.given.set(Some(first));
        end_of(now, valid)
    }

    fn attrs_for(&self, nodeid: u64, attr: Duration) -> Validity {
        if !attr.is_zero() {
            let until = self.give(attr);
            self.kept.borrow_mut().give_attrs(nodeid, until);
        }
        Validity {
            attr,
            entry: Duration::ZERO,
        }
    }

    /// The reply that `name` is not in `parent`; None if the kernel is to ask
    /// again each time, because nothing would tell it when that changes.
    pub(super) fn absent(&self, from: &Origin, parent: Fid, name: &Name) -> Option<Vec<u8>> {
        let entry = self.terms(from.begun, parent).entries;
        if entry.is_zero() || !self.upstream.is_current(parent, name, None) {
            return None;
        }
        let until = self.give(entry);
        let names = &mut self.kept.borrow_mut().names;
        if names.is_listed(from.head.nodeid, name, None) || !names.has_room(self.world.now()) {
            return None;
        }
        names.give(from.head.nodeid, name, 0, until, None);
        let attr = Duration::ZERO;
        Some(Validity { entry, attr }.absent_out().to_vec())
    }

    /// What the kernel is told of an open file. While a lock covers its pages
    /// and nobody here writes it, they may be kept. Else all of it is ours;
    /// shared mappings work where the kernel allows them beside that (Linux
    /// 6.6), and their pages are covered as they are filled (C6).
    pub(super) async fn opened(
        &self,
        from: &Origin,
        nodeid: u64,
        fid: Fid,
        open: OpenId,
        flags: u32,
    ) -> OpenOut {
        let access = Access::of(flags);
        let is_writer = access.writes;
        let is_first = self.kept.borrow_mut().pages.open(open.0, nodeid, access);
        if access.reads {
            self.upstream.watch(fid);
        }
        if is_first {
            self.drop_for_writer(nodeid, fid).await;
        }
        let terms = self.terms(from.begun, fid);
        let pages = &mut self.kept.borrow_mut().pages;
        let open_flags = match terms.pages && !is_writer && !pages.has_writers(nodeid) {
            true if pages.keep(nodeid) => fopen::KEEP_CACHE,
            true => 0,
            false => fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES,
        };
        OpenOut {
            fh: open.0,
            open_flags,
            backing: 0,
        }
    }
}

/// The bits of what GETATTR tells, and of ACLs, which the kernel forgets with it.
pub(super) const TOLD: Bits = Bits::ATTRS.with(Bits::XATTR);
