//! The shard's lock table, alive: operations take their locks from it, clients
//! are granted theirs with their answers, and callbacks go out on the clients'
//! connections.
//!
//! ```text
//! decision ─ touches ─► in somebody's way? ─ no ─► applied ─► grants in the answer
//!                            │ yes
//!                            ▼
//!               claims, in one order (N6) ─► callbacks ─► cancels ─► decided again
//! ```
//! An operation that meets no lock of another client takes none itself: it
//! decides and applies at one instant, and checks at that instant. Only one
//! that has to wait puts claims into the table, which keep its turn, and lets
//! them go when it has been applied. (One that only shows a file asks who has it
//! to himself what it is like, first: [`glimpse`].) An operation acts for its client, and its
//! client's own locks are never in its way (the client keeps its own caches
//! true); one that waits for nobody else hence never waits.
//!
//! Architecture invariant: there is no second path. Whatever changes what a
//! client may be shown goes through [`Locks::in_the_way`] first.

mod alone;
mod callbacks;
mod claims;
mod ghosts;
pub mod glimpse;
mod touch;

pub use alone::{look, settle};
pub use callbacks::{again, on_cancel, on_claim, on_raised, on_sent, pump, recall_opens};
pub use claims::Claims;
pub use ghosts::{end_ghosts, leave, on_clean};
pub use glimpse::on_glimpsed;
pub use touch::{Touch, merged, of_change, of_edit};

use super::session::Export;
use super::{Incoming, Shard, meta};
use crate::base::{Bits, Errno, Extent, Fid, FileKind, LockId, Mode, Mono, TargetId};
use crate::dlm::bounds::{HOLD_OFF, OWN};
use crate::dlm::{Growth, Holder, Limits, Outcome, Sole, Table, Want};
use crate::wire::locks::Of;
use crate::wire::{LockGrant, LockWant};
use crate::world::World;
use crate::world::sync::Promise;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// The lock table and who waits for it.
pub struct Locks {
    table: RefCell<Table>,
    /// Claims that are not granted yet: `false` if they never will be.
    waits: RefCell<BTreeMap<(Holder, LockId), Promise<bool>>>,
    /// Whom callbacks go to.
    exports: RefCell<BTreeMap<Holder, Rc<Export>>>,
    /// How far operations that wait will make files grow, by their claims.
    growing: RefCell<BTreeMap<(Fid, LockId), u64>>,
    /// Holders that are gone, whose clients may not know it yet (L2).
    ghosts: RefCell<Vec<ghosts::Ghost>>,
    /// What clients are being asked of files that they have to themselves.
    glimpses: glimpse::Glimpses,
    /// Targets that take no changes now.
    closed: RefCell<BTreeSet<TargetId>>,
    next_holder: Cell<u64>,
    next_own: Cell<u64>,
    next_xid: Cell<u64>,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks {
            table: RefCell::new(Table::new(Limits::default())),
            waits: RefCell::default(),
            growing: RefCell::default(),
            exports: RefCell::default(),
            ghosts: RefCell::default(),
            glimpses: glimpse::Glimpses::default(),
            closed: RefCell::default(),
            next_holder: Cell::new(1),
            next_own: Cell::new(OWN),
            next_xid: Cell::new(1),
        }
    }
}

impl Locks {
    /// Before the first client: how many locks there may be, and how long a
    /// client may take to answer a callback.
    pub fn configure(&self, limits: Limits, answer: Duration) {
        *self.table.borrow_mut() = Table::with_time(limits, answer);
    }

    /// How many locks each client should keep.
    #[must_use]
    pub fn volume(&self) -> u32 {
        let clients = self.exports.borrow().len();
        u32::try_from(self.table.borrow().volume(clients)).unwrap_or(u32::MAX)
    }

    /// A number for a new export.
    pub fn join(&self) -> Holder {
        let holder = Holder(self.next_holder.get());
        self.next_holder.set(holder.0 + 1);
        holder
    }

    /// Locks that the holder has, for its record on flash: a client with locks
    /// is waited for after a restart.
    #[must_use]
    pub fn held(&self, holder: Holder) -> usize {
        self.table.borrow().count(holder)
    }

    /// Locks of all holders, those that wait among them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.table.borrow().len()
    }

    fn next_own(&self) -> LockId {
        let id = self.next_own.get();
        self.next_own.set((id + 1) | OWN);
        LockId(id)
    }

    /// Would an operation for `holder` that touches this have to wait?
    #[must_use]
    pub fn in_the_way(&self, holder: Holder, touch: &Touch) -> bool {
        let table = self.table.borrow();
        table.conflicts(holder, touch.fid, touch.mode, touch.bits, touch.extent)
    }

    /// The client that has a file to itself, and its name.
    #[must_use]
    pub fn alone(&self, fid: Fid) -> Option<(Sole, String)> {
        let sole = self.table.borrow().alone(fid)?;
        Some((sole, self.name_of(sole.holder)))
    }

    /// Clients that may store to pages of a file without a word, by name.
    #[must_use]
    pub fn storing(&self, fid: Fid) -> Vec<String> {
        let alone = self.table.borrow().alone(fid).map(|sole| sole.holder);
        let mut writers = self.table.borrow().writers(fid);
        writers.retain(|writer| Some(*writer) != alone);
        writers.into_iter().map(|w| self.name_of(w)).collect()
    }

    /// The clients that have files of a target to themselves, by name.
    #[must_use]
    pub fn lonely(&self, target: TargetId) -> BTreeSet<String> {
        let table = self.table.borrow();
        let locks = table
            .locks()
            .filter(|l| l.is_granted && l.grant.mode == Mode::Ex);
        let ours = locks.filter(|l| l.grant.fid.seq >> 32 == u64::from(target.0));
        let holders: BTreeSet<Holder> = ours.map(|l| l.holder).collect();
        holders
            .into_iter()
            .map(|holder| self.name_of(holder))
            .collect()
    }

    fn name_of(&self, holder: Holder) -> String {
        let exports = self.exports.borrow();
        let name = exports.get(&holder).map(|export| export.name.clone());
        name.unwrap_or_else(|| "a client that left".to_owned())
    }

    /// May a client have the file open without the box's knowing?
    #[must_use]
    pub fn may_be_open(&self, fid: Fid) -> bool {
        self.table.borrow().is_held(fid, Bits::OPEN)
    }

    /// May this client have the file open without the box's knowing?
    #[must_use]
    pub fn may_open(&self, holder: Holder, fid: Fid) -> bool {
        let held = self.table.borrow().held(holder, fid);
        held.bits.has(Bits::OPEN)
    }

    /// The size that a file of `size` bytes has when all have been done that wait
    /// to make it longer.
    #[must_use]
    pub fn size_to_come(&self, fid: Fid, size: u64) -> u64 {
        let growing = self.growing.borrow();
        let all = growing.range((fid, LockId(0))..=(fid, LockId(u64::MAX)));
        all.fold(size, |most, (_, to)| most.max(*to))
    }

    /// Is all of a file's data the holder's to read and keep?
    #[must_use]
    pub fn covers_bytes(&self, holder: Holder, fid: Fid) -> bool {
        let table = self.table.borrow();
        table.covers(holder, fid, Mode::Pr, Bits::DATA, Extent::ALL)
    }

    /// Those of `bits` that the holder has not by other locks. Who asks for names
    /// and listings knows some of the files already, and what is held twice has
    /// to be called back twice.
    fn missing(
        &self,
        holder: Holder,
        (lock, fid): (LockId, Fid),
        want: &LockWant,
        bits: Bits,
    ) -> Bits {
        let table = self.table.borrow();
        let kept = table.kept(holder, fid, want.mode, want.extent).and(bits);
        // The very lock, when the request is run again: its answer was lost.
        if kept.is_empty() || table.lock(holder, lock).is_some() {
            return bits;
        }
        match want.mode {
            // A file to oneself is one lock on all of it.
            Mode::Ex if !kept.has(bits) => bits,
            _ => bits.without(kept),
        }
    }

    /// Does anybody but `holder` have, or wait for, anything of this file?
    #[must_use]
    pub fn is_shared(&self, holder: Holder, fid: Fid) -> bool {
        let table = self.table.borrow();
        table.conflicts(holder, fid, Mode::Ex, Bits::ALL, Extent::ALL)
    }
}

/// Grants what the request wants on `fid`, which the decision that calls this
/// has just shown: nothing may stand between the two. Needed bits are granted
/// because the operation has claimed them; welcome ones if nobody is in the way.
pub fn grant<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Export,
    incoming: &Incoming,
    of: Of,
    fid: Fid,
) {
    for want in incoming.asked.wants.iter().filter(|want| want.of == of) {
        grant_one(shard, export, incoming, want, want.lock, fid);
    }
}

/// The same, welcome locks only, for a file that was just shown by itself.
pub fn grant_shown<W: World>(shard: &Rc<Shard<W>>, export: &Export, incoming: &Incoming, fid: Fid) {
    if needed(incoming, Of::Object, fid).is_some() || !shard.is_written(export, fid) {
        grant(shard, export, incoming, Of::Object, fid);
    }
}

/// The same for a file that is shown by a name in `dir`.
pub fn grant_named<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Export,
    incoming: &Incoming,
    dir: Fid,
    fid: Fid,
) {
    if !shard.is_in_work(export, dir, fid) {
        grant(shard, export, incoming, Of::Object, fid);
    }
}

/// Grants a welcome lock on the `nth` file that a listing of `dir` shows. A
/// directory is given to nobody alone who has not looked into it.
pub fn grant_entry<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Export,
    incoming: &Incoming,
    dir: Fid,
    (nth, fid, kind): (usize, Fid, FileKind),
) {
    let entries = |want: &&LockWant| want.of == Of::Entries;
    let want = incoming.asked.wants.iter().find(entries);
    let Some(want) = want.filter(|_| !shard.is_in_work(export, dir, fid)) else {
        return;
    };
    let lock = LockId(want.lock.0.saturating_add(nth as u64));
    let mut want = *want;
    if want.mode == Mode::Ex && kind == FileKind::Directory {
        want.mode = Mode::Pr;
        want.try_bits = want.try_bits.without(OPENED);
    }
    grant_one(shard, export, incoming, &want, lock, fid);
}

fn grant_one<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Export,
    incoming: &Incoming,
    want: &LockWant,
    lock: LockId,
    fid: Fid,
) {
    let is_refused = want.mode == Mode::Ex && alone::is_closed(shard, fid);
    if export.is_ended() || !is_allowed(want) || is_refused {
        return;
    }
    let locks = &shard.locks;
    // A file without names goes when nobody has it open: that must have an end.
    let refused = match want.try_bits.and(OPENED).is_empty() || meta::may_be_opened(shard, fid) {
        true => Bits::NONE,
        false => OPENED,
    };
    if want.mode == Mode::Ex && !want.try_bits.and(refused).is_empty() {
        return;
    }
    let try_bits = want.try_bits.without(refused);
    let try_bits = locks.missing(export.holder, (lock, fid), want, try_bits);
    if want.bits.with(try_bits).is_empty() {
        return;
    }
    let outcome = locks.table.borrow_mut().enqueue(
        shard.world.now(),
        export.holder,
        &Want {
            lock,
            fid,
            mode: want.mode,
            bits: want.bits,
            try_bits,
            extent: want.extent,
            group: 0,
            expand: true,
            wait: false,
            discretionary: want.bits.is_empty(),
            // What is needed was claimed, before those who wait by now.
            ahead: !want.bits.is_empty(),
            growth: Growth::NONE,
        },
    );
    let granted = match outcome {
        Outcome::Granted(grant) => Some((grant.mode, grant.bits, grant.extent)),
        Outcome::Nothing { contended } => {
            incoming
                .contended
                .set(incoming.contended.get() || contended);
            None
        }
        // The request is run again because its answer was lost: it has the lock.
        Outcome::Refused(_) => {
            let found = locks.table.borrow().lock(export.holder, lock);
            let found = found.filter(|grant| grant.fid == fid);
            found.map(|grant| (grant.mode, grant.bits, grant.extent))
        }
        Outcome::Queued => None,
    };
    if let Some((mode, bits, extent)) = granted {
        incoming.granted.borrow_mut().grants.push(LockGrant {
            lock,
            fid,
            mode,
            bits,
            extent,
        });
    }
    pump(shard);
}

/// What only files that can be opened are lent.
const OPENED: Bits = Bits::OPEN.with(Bits::DATA);

/// What clients may have: to read anything, to write bytes, and, if nobody is
/// in the way, a file to themselves. The right to open is never needed: the box
/// opens, too.
fn is_allowed(want: &LockWant) -> bool {
    match want.mode {
        Mode::Pr => !want.bits.has(Bits::OPEN),
        Mode::Ex => want.bits.is_empty(),
        Mode::Pw => Bits::DATA.has(want.bits.with(want.try_bits)),
        _ => false,
    }
}

/// What the request needs to hold of `fid` when it is answered.
pub fn needed(incoming: &Incoming, of: Of, fid: Fid) -> Option<Touch> {
    let is_needed = |want: &&LockWant| want.of == of && !want.bits.is_empty() && is_allowed(want);
    let want = incoming.asked.wants.iter().find(is_needed)?;
    Some(Touch {
        fid,
        mode: want.mode,
        bits: want.bits,
        extent: want.extent,
        growth: Growth::NONE,
    })
}

/// Locks wait for their clients so much longer than the clients' leases: the
/// two clocks may run at rates that differ.
fn margin(lease: Duration) -> Duration {
    lease / 20 + Duration::from_millis(50)
}

/// Evicted, or the shard stops.
const GONE: Errno = Errno::ENOTCONN;

impl<W: World> Shard<W> {
    /// Is another client filling the directory, and has changed this file a
    /// moment ago? It is likely to do so again (a file that is unpacked gets
    /// bytes, owner, mode and times one after the other), and would have to call
    /// back what somebody who lists the directory meanwhile was given.
    fn is_in_work(&self, export: &Export, dir: Fid, fid: Fid) -> bool {
        let locks = &self.locks;
        let now = self.world.now();
        let is_filled = locks.table.borrow().is_fought_over(now, dir, Bits::UPDATE);
        let is_theirs = is_filled && locks.is_shared(export.holder, fid);
        is_theirs && meta::changed_within(self, fid, HOLD_OFF) || self.is_written(export, fid)
    }

    /// Has another client the file open, and has changed it a moment ago? It is
    /// likely to go on, and to want the file to itself, which what a passer-by was
    /// given would keep from it. Who has the file open, too, is no passer-by (C17).
    fn is_written(&self, export: &Export, fid: Fid) -> bool {
        meta::is_open_elsewhere(self, export, fid) && meta::changed_within(self, fid, HOLD_OFF)
    }
}

impl Locks {
    /// Exports that have not answered a callback in time.
    #[must_use]
    pub fn overdue(&self, now: Mono) -> Vec<Rc<Export>> {
        let holders = self.table.borrow().overdue(now);
        let exports = self.exports.borrow();
        let known = holders.iter().filter_map(|h| exports.get(h).cloned());
        known.collect()
    }
}
