//! What a client keeps under its locks: names, attributes, and whatever those
//! above it keep (the kernel's pages and entries).
//!
//! ```text
//! call ─► known, and held? ─► answered here
//!   │ no
//!   └─► asks, with the locks it would like ─► answer ─► grants ─► held ┐
//!                                                  └──► known          │
//! callback ─► held ends ─► known forgets ─► above takes back ─► cancel ┘
//! ```
//! `held`, `known` and `lease` are the pure parts; `ends` is how a lock ends.
//!
//! Architecture invariant: nothing is remembered or believed here, or above,
//! but under a lock that has not begun to end and within the lease (L2).

mod contents;
mod ends;
mod fetch;
mod follow;
mod growth;
mod held;
mod interest;
mod known;
mod lease;
mod listings;
pub mod opens;
mod pins;
mod recall;
mod series;
mod wants;
mod xattrs;

pub use ends::{claim, give_up, on_callback, on_evicted, on_filled, on_restarted, watch};
pub use fetch::{on_lookup, on_read};
pub use growth::watch as watch_growth;
pub use listings::Remembered;
pub use recall::Wrote;
pub use xattrs::is_acl;

use super::ahead::{self, Ahead, Tree};
use super::call::{Aim, CallError, Context, Outcome, Pending};
use super::{Above, Import, Terms};
use crate::base::codec::Bytes;
use crate::base::{Attr, Bits, Errno, Fid, FileKind, LockId, Mono, Name, Xid};
use crate::wire::op::{Entry, Named};
use crate::wire::{Asked, Features, Granted, LockCancel, Reply, Request};
use crate::world::World;
use contents::Contents;
use follow::Follow;
use held::{Came, Held, Rests};
use interest::Interest;
use known::Known;
use lease::Lease;
use listings::Listings;
use series::Series;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use xattrs::Xattrs;

/// Longest time that those above may believe something without asking: asking
/// costs no round trip, and the shorter it is, the sooner a callback that cannot
/// reach them is answered (C1, C2).
const TERM_MAX: Duration = Duration::from_secs(5);

/// Files that are remembered; each has a lock, at the box, too.
const FILES_MAX: usize = 1 << 17;

/// Locks that are kept at most, whatever the box says.
const LOCKS_MAX: usize = 2 * FILES_MAX;

/// Files given up at a time when there are more.
const RECLAIMED: usize = 64;

/// The state of one client's caches.
#[derive(Default)]
pub struct Cached {
    held: RefCell<Held>,
    known: RefCell<Known>,
    /// What the client has to itself.
    tree: Rc<RefCell<Tree>>,
    xattrs: RefCell<Xattrs>,
    listings: RefCell<Listings>,
    contents: RefCell<Contents>,
    interest: RefCell<Interest>,
    follow: RefCell<Follow>,
    series: RefCell<Series>,
    lease: RefCell<Lease>,
    above: RefCell<Option<Rc<dyn Above>>>,
    /// The lease is over, and nobody above believes anything.
    lapsed: Cell<bool>,
    /// Calls answered without the box.
    hits: Cell<u64>,
    /// Locks that the box wants this client to keep at most; 0: it did not say.
    volume: Cell<u32>,
    watched: growth::Watched,
    /// Locks to be claimed again before the replay is over.
    claims: RefCell<Vec<crate::wire::LockGrant>>,
}

/// When a request was asked for, for `Known`.
pub use known::Asked as Since;

impl Cached {
    #[must_use]
    pub fn beside(ahead: &Ahead) -> Cached {
        Cached {
            tree: ahead.tree(),
            ..Cached::default()
        }
    }

    pub fn set_above(&self, above: Rc<dyn Above>) {
        *self.above.borrow_mut() = Some(above);
    }

    fn above(&self) -> Option<Rc<dyn Above>> {
        self.above.borrow().clone()
    }

    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// Locks that are held.
    #[must_use]
    pub fn locks(&self) -> usize {
        self.held.borrow().len()
    }

    /// Files that may be mapped above, without a lock that tells of their growth.
    #[must_use]
    pub fn unwatched(&self) -> usize {
        self.watched.count()
    }

    #[must_use]
    pub fn since(&self) -> Since {
        self.known.borrow().ask()
    }

    pub fn on_connected(&self, lease: Duration, sent: Mono) {
        self.lease.borrow_mut().on_connected(lease, sent);
    }

    pub fn on_send(&self, last: Xid, now: Mono) {
        self.lease.borrow_mut().on_send(last, now);
    }

    pub fn on_heard(&self, xid: Xid) {
        self.lease.borrow_mut().on_answer(xid);
    }

    /// What may be believed of `fid` from now on.
    #[must_use]
    pub fn terms(&self, fid: Fid, now: Mono) -> Terms {
        self.terms_of(self.held.borrow().bits(fid), now)
    }

    /// What may be believed under these bits.
    #[must_use]
    pub fn terms_of(&self, bits: Bits, now: Mono) -> Terms {
        let left = self.lease.borrow().left(now);
        if left.is_zero() || self.lapsed.get() {
            return Terms::default();
        }
        let term = left.min(TERM_MAX);
        let under = |all: Bits| if bits.has(all) { term } else { Duration::ZERO };
        Terms {
            name: under(Bits::LOOKUP),
            attr: under(Bits::ATTRS),
            entries: under(Bits::UPDATE),
            pages: bits.has(Bits::DATA),
        }
    }

    /// The attributes of `fid` as they are under the locks that are held. What
    /// an older answer said of them may be out of date when a newer one brought
    /// the locks.
    #[must_use]
    pub fn attr(&self, fid: Fid) -> Option<Attr> {
        attr(self, fid)
    }

    /// The listing of `dir` that is remembered under its lock.
    #[must_use]
    pub fn listing(&self, dir: Fid, now: Mono) -> Option<Remembered> {
        if !self.is_within_lease(now) || !self.held.borrow().bits(dir).has(Bits::UPDATE) {
            return None;
        }
        self.listings.borrow().remembered(dir)
    }

    /// Is it known, under a lock, that `name` leads to this file, or (`None`)
    /// that it is not there?
    #[must_use]
    pub fn is_known(&self, dir: Fid, name: &Name, fid: Option<Fid>) -> bool {
        let mut known = self.known.borrow_mut();
        match fid {
            Some(_) => known.name(dir, name) == fid,
            None => known.is_absent(dir, name),
        }
    }

    /// Has the client all of the file to itself?
    #[must_use]
    pub fn is_alone(&self, fid: Fid, kind: FileKind) -> bool {
        self.held.borrow().is_alone(fid, wants::all_of(kind))
    }

    /// Did the bytes of this fill come with a lock that has not ended since?
    #[must_use]
    pub fn covers_fill(&self, fill: u64) -> bool {
        self.held.borrow().pins.has(fill)
    }

    /// Nothing of this file is remembered any more.
    pub fn forget(&self, fid: Fid) {
        self.known.borrow_mut().forget(fid, Bits::ALL);
        recall::forget(self, fid, Bits::ALL);
    }

    pub fn is_within_lease(&self, now: Mono) -> bool {
        !self.lapsed.get() && !self.lease.borrow().left(now).is_zero()
    }
}

/// Answers a call from memory, if it can.
pub fn answer<W: World>(
    import: &Import<W>,
    context: &Context,
    request: &Request,
) -> Option<Outcome> {
    let cached = &import.cached;
    if let Request::Close(op) = request {
        return opens::close(import, op).map(|closed| closed.map(|reply| (reply, None)));
    }
    let is_allowed = import.options.callers_checked || context.cred.uid == 0;
    if !import.options.locks || !is_allowed || !cached.is_within_lease(import.world.now()) {
        return None;
    }
    if let Request::Read(op) = request {
        let (reply, bytes) = recall::read(cached, context, op)?;
        cached.hits.set(cached.hits.get() + 1);
        return Some(Ok((reply, Some(bytes))));
    }
    let outcome = match request {
        Request::Lookup(op) => lookup(cached, op)?,
        Request::Getattr(op) => Ok(entry(op.fid, attr(cached, op.fid)?)),
        Request::Open(op) => Ok(opens::open(import, context, op)?),
        _ => recall::answer(cached, context, request)?,
    };
    cached.hits.set(cached.hits.get() + 1);
    Some(outcome.map(|reply| (reply, None)))
}

fn lookup(cached: &Cached, op: &Named) -> Option<Result<Reply, CallError>> {
    let fid = {
        let mut known = cached.known.borrow_mut();
        let held = cached.held.borrow();
        if known.is_absent(op.parent, &op.name) && held.bits(op.parent).has(Bits::UPDATE) {
            return Some(Err(CallError::Failed(Errno::ENOENT)));
        }
        let fid = known.name(op.parent, &op.name)?;
        if !held.bits(fid).has(Bits::LOOKUP) {
            return None;
        }
        fid
    };
    Some(Ok(entry(fid, attr(cached, fid)?)))
}

/// What the client has to itself it knows best.
fn attr(cached: &Cached, fid: Fid) -> Option<Attr> {
    if let Some(attr) = cached.tree.borrow().attr(fid) {
        return Some(attr.clone());
    }
    if !cached.held.borrow().bits(fid).has(Bits::ATTRS) {
        return None;
    }
    cached.known.borrow_mut().attr(fid).cloned()
}

/// What the box would say of a file that is there.
pub(super) fn entry(fid: Fid, attr: Attr) -> Reply {
    Reply::Entry(Entry {
        fid,
        attr,
        created: false,
        layout: Bytes::default(),
        lock: LockId(0),
        lock_mode: 0,
        lock_bits: 0,
    })
}

/// What a request asks for, besides what it is about: locks, and the end of some.
pub fn asks<W: World>(
    import: &Import<W>,
    context: &Context,
    request: &Request,
    cancels: Vec<LockCancel>,
) -> Asked {
    if !import.options.locks {
        return Asked::default();
    }
    let mut held = import.cached.held.borrow_mut();
    let now = import.world.now();
    let is_agreed = ahead::is_agreed(import);
    let alone = wants::Alone {
        has: &|fid| import.ahead.has(fid),
        asks: &|fid| is_agreed && import.ahead.asks(fid, now),
        clears: &|fid| is_agreed && import.ahead.clears(fid, now),
    };
    let wants = wants::of(&mut held, context, request, &alone);
    Asked {
        wants,
        cancels,
        data_max: data_max(import, context, request),
    }
}

/// Bytes of the file that the answer may carry (feature INLINE_DATA).
fn data_max<W: World>(import: &Import<W>, context: &Context, request: &Request) -> u32 {
    let cached = &import.cached;
    let is_welcome = match request {
        Request::Lookup(op) => cached.interest.borrow().has(op.parent),
        Request::Open(op) => wants::is_reading(op) && !cached.contents.borrow().has(op.fid),
        Request::Getattr(_) => context.aim == Aim::Fetch,
        _ => false,
    };
    let agreed = import.agreed.borrow();
    match agreed.as_ref().filter(|_| is_welcome) {
        Some(a) if a.features.has(Features::INLINE_DATA) => {
            a.payload_max.min(contents::FILE_MAX as u32)
        }
        _ => 0,
    }
}

/// A call is on its way: names that it changes are forgotten. The locks that
/// it gives up are returned.
pub fn on_begin<W: World>(
    import: &Import<W>,
    context: &Context,
    request: &Request,
) -> Vec<LockCancel> {
    if !import.options.locks {
        return Vec::new();
    }
    let cancels = opens::before(import, context, request);
    on_names(&mut import.cached.known.borrow_mut(), request, false);
    recall::on_own(&import.cached, context, request);
    cancels
}

/// The client changes names, or has. One that it made is known by then.
fn on_names(known: &mut Known, request: &Request, has_made: bool) {
    let mut change = |dir: Fid, name: &Name| {
        known.forget_name(dir, name);
        known.disturb(dir);
    };
    match request {
        Request::Create(op) if has_made => known.disturb(op.parent),
        Request::Link(op) if has_made => known.disturb(op.parent),
        Request::Create(op) => {
            if let Some(name) = &op.name {
                change(op.parent, name);
            }
        }
        Request::Link(op) => change(op.parent, &op.name),
        Request::Unlink(op) => change(op.parent, &op.name),
        Request::Rename(op) => {
            change(op.from, &op.from_name);
            change(op.to, &op.to_name);
        }
        _ => {}
    }
}

/// An answer has come, before its caller is told.
pub fn on_answer<W: World>(
    import: &Rc<Import<W>>,
    pending: &Pending,
    outcome: &Outcome,
    granted: &Granted,
) {
    if !import.options.locks {
        return;
    }
    let cached = &import.cached;
    let asked = pending.since.get();
    let at = match granted.grants.is_empty() {
        true => asked,
        false => cached.known.borrow_mut().arrive(),
    };
    let rests = Rests { asked, came: at };
    let endings: Vec<_> = {
        let fill = pending.context.fill_id;
        let came = Came { at, fill };
        let mut held = cached.held.borrow_mut();
        let grants = granted.grants.iter();
        let endings = grants.filter_map(|g| held.on_grant(g, came));
        let endings = endings.collect();
        let asked = pending.asked.borrow();
        held.on_answered(&asked.wants);
        for cancel in &asked.cancels {
            held.on_ended(cancel.lock, cancel.bits);
        }
        endings
    };
    let request = pending.request.borrow();
    for shown in &granted.shown {
        cached.known.borrow_mut().on_own(shown.fid, &shown.attr);
        learn_attr(cached, shown.fid, &shown.attr, rests);
    }
    learn(cached, &request, outcome, rests);
    recall::learn(cached, &pending.context, &request, outcome, rests);
    // What was written ahead is kept as it was decided.
    if !(pending.is_ahead() && matches!(*request, Request::Write(_))) {
        recall::on_own(cached, &pending.context, &request);
    }
    on_names(&mut cached.known.borrow_mut(), &request, outcome.is_ok());
    drop(request);
    ahead::on_answer(import, pending, outcome, granted);
    for ending in endings {
        ends::end(import, ending);
    }
    reclaim(import);
}

/// Takes in what an answer shows, as far as locks cover it now.
fn learn(cached: &Cached, request: &Request, outcome: &Outcome, rests: Rests) {
    match (request, outcome) {
        (Request::Lookup(op), Ok((Reply::Entry(entry), bytes))) => {
            if bytes.is_some() {
                cached.interest.borrow_mut().on_bytes(op.parent);
            }
            learn_attr(cached, entry.fid, &entry.attr, rests);
            learn_name(cached, (op.parent, &op.name), entry.fid, rests);
        }
        (Request::Lookup(op), Err(CallError::Failed(Errno::ENOENT))) => {
            let mut series = cached.series.borrow_mut();
            series.on_absent(op.parent, &op.name);
            let held = cached.held.borrow();
            let is_covered = held.bits_under(op.parent, rests).has(Bits::UPDATE);
            if is_covered {
                let mut known = cached.known.borrow_mut();
                known.on_absent(op.parent, &op.name, rests.asked);
            }
        }
        (Request::Write(op), Ok((Reply::Written(done), _))) => {
            cached.known.borrow_mut().on_own(op.fid, &done.attr);
            learn_attr(cached, op.fid, &done.attr, rests);
        }
        (Request::CopyRange(op), Ok((Reply::Written(done), _))) => {
            cached.known.borrow_mut().on_own(op.to, &done.attr);
            learn_attr(cached, op.to, &done.attr, rests);
        }
        (Request::Readdir(op), Ok((Reply::Listing(listing), _))) => {
            for found in &listing.entries {
                if let Some(attr) = &found.attr {
                    learn_attr(cached, found.fid, attr, rests);
                    learn_name(cached, (op.fid, &found.name), found.fid, rests);
                }
            }
        }
        (request, Ok((Reply::Entry(entry), _))) => {
            if !matches!(request, Request::Getattr(_) | Request::Open(_)) {
                cached.known.borrow_mut().on_own(entry.fid, &entry.attr);
            }
            learn_attr(cached, entry.fid, &entry.attr, rests);
            match request {
                Request::Create(op) => {
                    if let Some(name) = &op.name {
                        learn_name(cached, (op.parent, name), entry.fid, rests);
                    }
                }
                Request::Link(op) => {
                    learn_name(cached, (op.parent, &op.name), entry.fid, rests);
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// Attributes without a version were told by another client that has the file
/// to itself; a lock that is held by now came with newer ones.
fn learn_attr(cached: &Cached, fid: Fid, attr: &Attr, rests: Rests) {
    let bits = cached.held.borrow().bits_under(fid, rests);
    if attr.version > 0 && bits.has(Bits::ATTRS) {
        cached.known.borrow_mut().on_attr(fid, attr, rests.asked);
    }
}

fn learn_name(cached: &Cached, (dir, name): (Fid, &Name), fid: Fid, rests: Rests) {
    let bits = cached.held.borrow().bits_under(fid, rests);
    if bits.has(Bits::LOOKUP) {
        let mut known = cached.known.borrow_mut();
        known.on_name(dir, name, fid, rests.asked);
    }
}

/// The box says how many locks this client should keep.
pub fn on_volume<W: World>(import: &Rc<Import<W>>, volume: u32) {
    import.cached.volume.set(volume);
    reclaim(import);
}

/// Gives up what has not been asked for lately, if there is too much.
fn reclaim<W: World>(import: &Rc<Import<W>>) {
    let cached = &import.cached;
    let locks_max = match cached.volume.get() {
        0 => LOCKS_MAX,
        volume => LOCKS_MAX.min(volume as usize),
    };
    let is_full =
        || cached.known.borrow().len() > FILES_MAX || cached.held.borrow().in_use() > locks_max;
    for _ in 0..RECLAIMED {
        if !is_full() {
            return;
        }
        let Some(fid) = cached.known.borrow_mut().idle() else {
            return;
        };
        give_up(import, fid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Extent, Mode};
    use crate::wire::LockGrant;
    use crate::wire::op::Intent;

    /// Two answers cross: one was formed before another client made a name, the
    /// other brought the lock on the directory after that.
    #[test]
    fn an_answer_that_a_lock_has_overtaken_is_not_remembered() {
        let cached = Cached::default();
        let (dir, name) = (Fid::new(1, 2), Name::new(b"n").expect("a name"));
        let request = Request::Lookup(Named {
            parent: dir,
            name: name.clone(),
            intent: Intent::default(),
        });
        let absent = Err(CallError::Failed(Errno::ENOENT));
        let asked = cached.since();
        let lock = cached.held.borrow_mut().ask(1);
        let at = cached.known.borrow_mut().arrive();
        let grant = LockGrant {
            lock,
            fid: dir,
            mode: Mode::Pr,
            bits: Bits::UPDATE,
            extent: Extent::ALL,
        };
        let came = Came { at, fill: 0 };
        cached.held.borrow_mut().on_grant(&grant, came);
        let is_absent = || cached.known.borrow_mut().is_absent(dir, &name);
        let rests = Rests { asked, came: asked };
        learn(&cached, &request, &absent, rests);
        assert!(!is_absent());
        let rests = Rests { asked, came: at };
        learn(&cached, &request, &absent, rests);
        assert!(is_absent(), "it brought the lock itself");
    }

    /// What another client said of a file may come after the lock has, and would
    /// be believed under it then.
    #[test]
    fn a_glimpse_is_never_remembered() {
        let cached = Cached::default();
        let fid = Fid::new(1, 2);
        let lock = cached.held.borrow_mut().ask(1);
        let grant = LockGrant {
            lock,
            fid,
            mode: Mode::Pr,
            bits: Bits::ATTRS,
            extent: Extent::ALL,
        };
        cached.held.borrow_mut().on_grant(&grant, Came::default());
        let told = |version| Attr {
            size: 3,
            version,
            ..Attr::plain(5)
        };
        let asked = cached.since();
        let rests = Rests { asked, came: asked };
        learn_attr(&cached, fid, &told(0), rests);
        assert_eq!(cached.attr(fid), None);
        learn_attr(&cached, fid, &told(1), rests);
        assert_eq!(cached.attr(fid), Some(told(1)));
    }
}
