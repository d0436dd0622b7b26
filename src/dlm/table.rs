//! The lock table of a shard: requests, cancels and the time go in; grants,
//! callbacks and the names of those who do not answer come out.

use super::bounds::{ANSWER, Limits};
use super::calls::Calls;
use super::conflict::Shape;
use super::contention::Contention;
use super::files::Files;
use super::granted::Lock;
use super::request::{
    Claim, ConvertError, Event, Grant, Growth, Holder, Outcome, Refusal, Want, is_own,
};
use super::resource::{More, Rank, Waiter};
use crate::base::{Bits, Extent, Fid, LockId, Mode, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// All locks on the files of one shard.
#[derive(Debug)]
pub struct Table {
    pub(super) limits: Limits,
    /// Those with locks or waiters, no others.
    pub(super) files: Files,
    /// Where each holder's locks and requests are; holders without are absent.
    pub(super) holders: BTreeMap<Holder, BTreeMap<LockId, Fid>>,
    /// Of all holders.
    pub(super) len: usize,
    pub(super) calls: Calls,
    pub(super) contention: Contention,
    /// Bits that were asked back of whoever has them, by file.
    recalled: BTreeMap<Fid, Bits>,
    events: Vec<Event>,
}

impl Table {
    #[must_use]
    pub fn new(limits: Limits) -> Table {
        Table::with_time(limits, ANSWER)
    }

    /// With so much time to answer a callback.
    #[must_use]
    pub fn with_time(limits: Limits, answer: Duration) -> Table {
        Table {
            limits,
            files: Files::default(),
            holders: BTreeMap::new(),
            len: 0,
            calls: Calls::new(answer),
            contention: Contention::default(),
            recalled: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// A client asks for a lock.
    pub fn enqueue(&mut self, now: Mono, holder: Holder, want: &Want) -> Outcome {
        if is_own(want.lock) {
            return Outcome::Refused(Refusal::BadId);
        }
        self.ask(now, holder, want)
    }

    /// An operation of the shard asks for a lock, as the client that it is for.
    /// Its id has bit 63. It is never called back, and no bound stops it: there
    /// are as many as clients have reply slots, and a full table empties only
    /// if they can end (L5).
    pub fn enqueue_own(&mut self, now: Mono, holder: Holder, want: &Want) -> Outcome {
        if !is_own(want.lock) {
            return Outcome::Refused(Refusal::BadId);
        }
        self.ask(now, holder, want)
    }

    /// A client gives up `bits` of a lock; all of them, and the lock goes. A
    /// request that still waits is withdrawn. False if it has no such lock:
    /// whatever a client names, it reaches its own locks only.
    pub fn cancel(&mut self, now: Mono, holder: Holder, lock: LockId, bits: Bits) -> bool {
        if is_own(lock) {
            return false;
        }
        let key = self.find(holder, lock).map(|fid| (holder, fid, lock));
        if key.is_some_and(|key| self.calls.holds_back(key, bits)) {
            return true;
        }
        self.give_up(now, holder, lock, bits)
    }

    /// A client that was told with a callback how far the file grows has seen to
    /// it that it may grow to `size` (C17). Until it has, it keeps the lock,
    /// whatever it has given up of it.
    pub fn told(&mut self, now: Mono, holder: Holder, lock: LockId, size: u64) {
        let Some(fid) = self.find(holder, lock) else {
            return;
        };
        if let Some(bits) = self.calls.on_told((holder, fid, lock), size) {
            self.give_up(now, holder, lock, bits);
        }
    }

    /// An operation of the shard ends, or no longer waits.
    pub fn cancel_own(&mut self, now: Mono, holder: Holder, lock: LockId) -> bool {
        is_own(lock) && self.give_up(now, holder, lock, Bits::ALL)
    }

    /// A client keeps a granted lock in a weaker mode. That answers its
    /// callback; if the lock is still in the way, there is another.
    pub fn convert(
        &mut self,
        now: Mono,
        holder: Holder,
        lock: LockId,
        mode: Mode,
    ) -> Result<(), ConvertError> {
        let fid = self.find(holder, lock).filter(|_| !is_own(lock));
        let found = fid.and_then(|fid| Some((fid, self.files.find_mut(fid)?)));
        let (fid, resource) = found.ok_or(ConvertError::Unknown)?;
        let old = resource.granted.find(holder, lock);
        let old = old.ok_or(ConvertError::Unknown)?.shape();
        if mode == old.mode || !old.mode.covers(mode) {
            return Err(ConvertError::NotWeaker);
        }
        let new = shape_of(mode, old.bits, old.extent, old.group);
        let new = Lock::new(holder, lock, &new);
        resource.granted.remove(holder, lock);
        resource.granted.insert(new);
        self.calls.forget((holder, fid, lock));
        self.call_back_for_waiters(now, fid, &new);
        self.settle(now, fid);
        Ok(())
    }

    /// A client that was cut off says which lock it had (L13); `is_current`:
    /// the version that it knows is the one that is there. Nobody is called
    /// back for it, and it waits for nobody. If somebody waits already, the
    /// claimed lock itself is called back.
    pub fn claim(
        &mut self,
        now: Mono,
        holder: Holder,
        claim: &Claim,
        is_current: bool,
    ) -> Result<Grant, Refusal> {
        if is_own(claim.lock) {
            return Err(Refusal::BadId);
        }
        let shape = shape_of(claim.mode, claim.bits, claim.extent, claim.group);
        self.admit(holder, claim.lock, &shape, true)?;
        if claim.bits.is_empty() {
            return Err(Refusal::Malformed);
        }
        let resource = self.files.find_or_add(claim.fid);
        let is_free = resource.granted.in_way_of(holder, shape).next().is_none();
        if !is_current || !is_free {
            self.files.free(claim.fid);
            return Err(Refusal::Stale);
        }
        let nothing = More {
            bits: Bits::NONE,
            is_expanding: false,
        };
        let lock = resource.grant(holder, claim.lock, shape, nothing);
        self.on_new(holder, claim.lock, claim.fid);
        self.on_passed(now, claim.fid, &lock);
        Ok(lock.grant(claim.fid))
    }

    /// A client is evicted or gone: all its locks and requests go, those of the
    /// shard's operations for it included. Operations past their check must
    /// have ended before (L3); those that wait are told by [`Event::Dropped`].
    pub fn drop_holder(&mut self, now: Mono, holder: Holder) {
        let Some(locks) = self.holders.remove(&holder) else {
            return;
        };
        self.len -= locks.len();
        self.take_back_events(holder);
        let mut fids = BTreeSet::new();
        for (lock, fid) in locks {
            fids.insert(fid);
            self.calls.forget((holder, fid, lock));
            let Some(resource) = self.files.find_mut(fid) else {
                continue;
            };
            if resource.granted.remove(holder, lock).is_none() {
                resource.withdraw(holder, lock);
                self.events.push(Event::Dropped { holder, lock });
            }
        }
        for fid in fids {
            self.settle(now, fid);
        }
    }

    /// Asks every client that has some of `bits` on a file for them, though
    /// nobody waits; [`Event::Recalled`] follows when none of them has any. The
    /// owner of the table grants these bits to nobody until then. False, and no
    /// event, if nobody has any now.
    pub fn recall(&mut self, now: Mono, fid: Fid, bits: Bits) -> bool {
        let by = shape_of(Mode::Ex, bits, Extent::ALL, 0);
        let locks = self.files.find(fid).into_iter();
        let mut is_held = false;
        for lock in locks.flat_map(|r| r.granted.iter()).filter(|l| !l.is_own()) {
            let theirs = lock.bits().and(bits);
            if theirs.is_empty() {
                continue;
            }
            is_held = true;
            let key = (lock.holder, fid, lock.id);
            let none = Growth::NONE;
            if let Some(blocking) = self.calls.on_blocked(now, key, theirs, &by, none) {
                self.events.push(Event::Blocking(blocking));
            }
        }
        if is_held {
            let all = self.recalled.entry(fid).or_default();
            *all = all.with(bits);
        }
        is_held
    }

    /// What has happened since the last call, in order.
    pub fn events(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    /// The holder still sends data of this file (or of any, if none is named)
    /// that its answer waits for: it has half of the time left at least, but ten
    /// times the time in all.
    pub fn progress(&mut self, now: Mono, holder: Holder, of: Option<Fid>) {
        self.calls.on_progress(now, holder, of);
    }

    fn ask(&mut self, now: Mono, holder: Holder, want: &Want) -> Outcome {
        let shape = shape_of(want.mode, want.bits, want.extent, want.group);
        let all = shape.with_bits(want.bits.with(want.try_bits));
        let is_bounded = !is_own(want.lock) && !want.ahead;
        if let Err(refusal) = self.admit(holder, want.lock, &all, is_bounded) {
            return Outcome::Refused(refusal);
        }
        let fid = want.fid;
        let is_full = self.len >= self.limits.locks_soft;
        let resource = self.files.find_or_add(fid);
        let dispute = resource.dispute(holder, &shape);
        if dispute.is_any() {
            self.contention.on_conflict(now, fid);
        }
        let must_wait = resource.must_wait_for(&dispute, holder, &shape, Rank::of(want));
        // A part of a file for oneself is of no use, and would be asked for again.
        let is_alone = want.mode == Mode::Ex;
        let whole = if is_alone { all } else { shape };
        let declines = || is_full || self.contention.is_spared(now, fid, &whole);
        if want.discretionary && (must_wait || declines()) {
            return self.nothing(now, fid);
        }
        if must_wait {
            return self.wait(now, holder, want, shape);
        }
        let try_bits = want.try_bits.without(self.contention.fought_over(now, fid));
        let welcome = resource.welcome(holder, &shape, try_bits);
        let bits = want.bits.with(welcome);
        let is_part = is_alone && want.discretionary && !bits.has(all.bits);
        if bits.is_empty() || is_part {
            return self.nothing(now, fid);
        }
        let more = More {
            bits: welcome,
            is_expanding: want.expand && want.bits.has(Bits::DATA),
        };
        let lock = resource.grant(holder, want.lock, shape, more);
        let is_waited_for = resource.has_waiters();
        self.on_new(holder, want.lock, fid);
        if is_waited_for {
            self.on_passed(now, fid, &lock);
        }
        Outcome::Granted(lock.grant(fid))
    }

    /// Is the request well-formed, and is there room for it?
    fn admit(
        &self,
        holder: Holder,
        lock: LockId,
        shape: &Shape,
        is_bounded: bool,
    ) -> Result<(), Refusal> {
        if !Bits::ALL.has(shape.bits) || shape.extent.start > shape.extent.end {
            return Err(Refusal::Malformed);
        }
        let theirs = self.holders.get(&holder);
        if theirs.is_some_and(|locks| locks.contains_key(&lock)) {
            return Err(Refusal::DuplicateId);
        }
        let count = theirs.map_or(0, BTreeMap::len);
        if is_bounded && (self.len >= self.limits.locks_max || count >= self.limits.holder_max) {
            return Err(Refusal::TryLater);
        }
        Ok(())
    }

    fn nothing(&mut self, now: Mono, fid: Fid) -> Outcome {
        self.files.free(fid);
        Outcome::Nothing {
            contended: self.contention.is_contended(now, fid),
        }
    }

    fn wait(&mut self, now: Mono, holder: Holder, want: &Want, shape: Shape) -> Outcome {
        let Some(resource) = self.files.find_mut(want.fid) else {
            return Outcome::Refused(Refusal::WouldBlock);
        };
        if !want.wait {
            return Outcome::Refused(Refusal::WouldBlock);
        }
        if want.ahead && resource.is_crossed(holder, &shape) {
            return Outcome::Refused(Refusal::Deadlock);
        }
        resource.push(Waiter::new(holder, want, shape));
        let mut caller = Caller {
            now,
            fid: want.fid,
            calls: &mut self.calls,
            contention: &mut self.contention,
            events: &mut self.events,
        };
        for lock in resource.granted.in_way_of(holder, shape) {
            caller.call_back(lock, &shape, want.growth);
        }
        self.on_new(holder, want.lock, want.fid);
        Outcome::Queued
    }

    fn give_up(&mut self, now: Mono, holder: Holder, id: LockId, bits: Bits) -> bool {
        let Some(fid) = self.find(holder, id) else {
            return false;
        };
        let Some(resource) = self.files.find_mut(fid) else {
            return false;
        };
        let Some(lock) = resource.granted.find(holder, id).copied() else {
            resource.withdraw(holder, id);
            self.on_gone(holder, id);
            self.settle(now, fid);
            return true;
        };
        if lock.bits().and(bits).is_empty() {
            return true;
        }
        resource.granted.remove(holder, id);
        let rest = lock.bits().without(bits);
        if rest.is_empty() {
            self.on_gone(holder, id);
        } else {
            let rest = lock.shape().with_bits(rest);
            resource.granted.insert(Lock::new(holder, id, &rest));
        }
        self.calls.on_given_up(now, (holder, fid, id), bits);
        self.settle(now, fid);
        true
    }

    /// Grants waiters of a file as far as possible, and frees it if nothing is left.
    fn settle(&mut self, now: Mono, fid: Fid) {
        let mut from = 0;
        while let Some(resource) = self.files.find_mut(fid)
            && let Some((lock, next)) = resource.grant_next(from)
        {
            from = next;
            let holder = lock.holder;
            let grant = lock.grant(fid);
            self.events.push(Event::Granted { holder, grant });
            self.call_back_for_waiters(now, fid, &lock);
        }
        if let Some(bits) = self.recalled.get(&fid)
            && !self.is_held(fid, *bits)
        {
            self.recalled.remove(&fid);
            self.events.push(Event::Recalled { fid });
        }
        self.files.free(fid);
    }

    /// A lock was granted past those who wait. It may be in their way; and may
    /// let its holder's waiting operations pass, too.
    fn on_passed(&mut self, now: Mono, fid: Fid, lock: &Lock) {
        self.call_back_for_waiters(now, fid, lock);
        self.settle(now, fid);
    }

    fn call_back_for_waiters(&mut self, now: Mono, fid: Fid, lock: &Lock) {
        let Some(resource) = self.files.find(fid) else {
            return;
        };
        let mut caller = Caller {
            now,
            fid,
            calls: &mut self.calls,
            contention: &mut self.contention,
            events: &mut self.events,
        };
        for waiter in resource.waiting().filter(|w| w.holder != lock.holder) {
            caller.call_back(lock, &waiter.shape, waiter.growth);
        }
    }

    /// Granted and queued events that nobody has seen yet are of no use to a
    /// holder that is dropped, but whoever waits for them is told.
    fn take_back_events(&mut self, gone: Holder) {
        let events = std::mem::take(&mut self.events);
        self.events
            .extend(events.into_iter().filter_map(|event| match event {
                Event::Granted { holder, grant } if holder == gone => Some(Event::Dropped {
                    holder,
                    lock: grant.lock,
                }),
                Event::Blocking(blocking) if blocking.holder == gone => None,
                other => Some(other),
            }));
    }

    fn on_new(&mut self, holder: Holder, lock: LockId, fid: Fid) {
        self.holders.entry(holder).or_default().insert(lock, fid);
        self.len += 1;
    }

    fn on_gone(&mut self, holder: Holder, lock: LockId) {
        let Some(locks) = self.holders.get_mut(&holder) else {
            return;
        };
        if locks.remove(&lock).is_some() {
            self.len -= 1;
        }
        if locks.is_empty() {
            self.holders.remove(&holder);
        }
    }

    pub(super) fn find(&self, holder: Holder, lock: LockId) -> Option<Fid> {
        self.holders.get(&holder)?.get(&lock).copied()
    }
}

/// What a callback touches, so that it can be sent while a file is walked.
struct Caller<'a> {
    now: Mono,
    fid: Fid,
    calls: &'a mut Calls,
    contention: &'a mut Contention,
    events: &'a mut Vec<Event>,
}

impl Caller<'_> {
    /// Calls back what of `lock` is in the way of a waiter, once.
    fn call_back(&mut self, lock: &Lock, waiter: &Shape, growth: Growth) {
        let shape = lock.shape();
        let bits = shape.in_way(waiter);
        if bits.is_empty() || lock.is_own() {
            return;
        }
        let key = (lock.holder, self.fid, lock.id);
        let is_new = !self.calls.called(key).has(bits);
        let called = self.calls.on_blocked(self.now, key, bits, waiter, growth);
        if let Some(blocking) = called {
            if is_new {
                let fought_over = bits.with(waiter.in_way(&shape));
                self.contention.on_callback(self.now, self.fid, fought_over);
            }
            self.events.push(Event::Blocking(blocking));
        }
    }
}

/// Groups count in mode GROUP only, so that locks are equal if they mean the same.
pub(super) fn shape_of(mode: Mode, bits: Bits, extent: Extent, group: u32) -> Shape {
    Shape {
        mode,
        bits,
        extent,
        group: if mode == Mode::Group { group } else { 0 },
    }
}
