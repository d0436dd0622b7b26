//! The lock table as one would write it down without regard to time: lists, and
//! every rule asked anew of every pair.

use crate::base::{Bits, Extent, Fid, LockId, Mode, Mono};
use crate::dlm::bounds::{Limits, OWN};
use crate::dlm::{
    Blocking, Claim, ConvertError, Event, Grant, Growth, Holder, Listed, Outcome, Refusal, Shape,
    Want,
};
use std::time::Duration;

/// Bytes that stand for all: requests lie below 16.
pub const POINTS: [u64; 19] = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    u64::MAX,
];

/// The matrix, as the pairs that do not go together. Groups are seen to elsewhere.
fn goes(a: Mode, b: Mode) -> bool {
    use Mode::{Cr, Cw, Ex, Group, Nl, Pr, Pw};
    let keeps_out = |a, b| match (a, b) {
        (Nl, _) | (_, Nl) => false,
        (Ex | Group, _) => true,
        (Pw, Cw | Pr | Pw) => true,
        (Pr, Cw) => true,
        (Cr | Cw | Pr | Pw, _) => false,
    };
    !keeps_out(a, b) && !keeps_out(b, a)
}

fn writes(mode: Mode) -> bool {
    [Mode::Cw, Mode::Pw, Mode::Ex, Mode::Group].contains(&mode)
}

/// What a lock says: for each bit, or each byte, in which mode; and the bit of
/// the lock that says it.
fn says(s: &Shape) -> Vec<((u64, u64), Mode, u64)> {
    let mut all = Vec::new();
    for bit in (0..7).map(|n| 1 << n).filter(|b| s.bits.set & b != 0) {
        if bit != Bits::DATA.set {
            all.push(((bit, 0), s.mode, bit));
            continue;
        }
        for p in POINTS {
            if s.extent.start <= p && p <= s.extent.end {
                all.push(((bit, p), s.mode, bit));
            }
        }
        if writes(s.mode) {
            all.push(((Bits::UPDATE.set, 0), Mode::Cw, bit));
        }
    }
    all
}

/// The bits of `a` that keep out `b`.
pub fn ways(a: &Shape, b: &Shape) -> Bits {
    let mut set = 0;
    if a.mode == Mode::Group && b.mode == Mode::Group {
        if a.group == b.group {
            return Bits::NONE;
        }
        // Of different groups nothing goes together, as if both were EX.
        let ex = |s: &Shape| Shape {
            mode: Mode::Ex,
            ..*s
        };
        return ways(&ex(a), &ex(b));
    }
    let others = says(b);
    for (thing, mode, bit) in says(a) {
        if others
            .iter()
            .any(|(t, m, _)| *t == thing && !goes(mode, *m))
        {
            set |= bit;
        }
    }
    Bits { set }
}

pub fn conflict(a: &Shape, b: &Shape) -> bool {
    !ways(a, b).is_empty()
}

#[derive(Clone, Debug)]
struct Item {
    holder: Holder,
    want: Want,
    /// It is of no use without these.
    least: Bits,
}

impl Item {
    fn shape(&self) -> Shape {
        Shape {
            mode: self.want.mode,
            bits: self.want.bits,
            extent: self.want.extent,
            group: self.want.group,
        }
    }
    fn meets(&self, other: &Item) -> bool {
        self.holder != other.holder
            && self.want.fid == other.want.fid
            && conflict(&self.shape(), &other.shape())
    }
    fn grant(&self) -> Grant {
        Grant {
            lock: self.want.lock,
            fid: self.want.fid,
            mode: self.want.mode,
            bits: self.want.bits,
            extent: self.want.extent,
        }
    }
    fn is(&self, holder: Holder, lock: LockId) -> bool {
        self.holder == holder && self.want.lock == lock
    }
}

#[derive(Clone, Debug)]
struct Call {
    blocking: Blocking,
    deadline: Mono,
    latest: Mono,
    /// The size that the holder has seen to, and what it gave up too early.
    told: u64,
    early: Bits,
}

impl Call {
    /// As it is sent: of growth only what is new to the holder.
    fn sent(&self) -> Blocking {
        let growth = match self.blocking.growth.size > self.told {
            true => self.blocking.growth,
            false => Growth::NONE,
        };
        Blocking {
            growth,
            ..self.blocking
        }
    }
}

pub struct Naive {
    limits: Limits,
    answer: Duration,
    granted: Vec<Item>,
    waiting: Vec<Item>,
    calls: Vec<Call>,
    conflicts: Vec<(Mono, Fid)>,
    called: Vec<(Mono, Fid, u64)>,
    pub events: Vec<Event>,
}

impl Naive {
    pub fn new(limits: Limits, answer: Duration) -> Naive {
        Naive {
            limits,
            answer,
            granted: vec![],
            waiting: vec![],
            calls: vec![],
            conflicts: vec![],
            called: vec![],
            events: vec![],
        }
    }

    pub fn enqueue(&mut self, now: Mono, holder: Holder, mut want: Want) -> Outcome {
        if want.mode != Mode::Group {
            want.group = 0;
        }
        if let Err(r) = self.admit(holder, want.lock, want.ahead) {
            return Outcome::Refused(r);
        }
        let item = Item {
            holder,
            want,
            least: Bits::NONE,
        };
        let before: Vec<Item> = self.waiting.clone();
        let all = self.granted.iter().chain(&before);
        if all.clone().any(|other| other.meets(&item)) {
            self.conflicts.push((now, want.fid));
        }
        let must_wait = self.must_wait(&item, &before);
        if want.discretionary
            && (must_wait
                || self.granted.len() + self.waiting.len() >= self.limits.locks_soft
                || self.contended(now, want.fid)
                || self.held_off(now, &item))
        {
            return self.nothing(now, want.fid);
        }
        if !must_wait {
            // Who did not wait for it gets nothing that was just called back,
            // and less than two seconds before that.
            let mut item = item;
            let whole = want.bits.with(want.try_bits);
            item.least = match want.discretionary && want.mode == Mode::Ex {
                true => whole,
                false => Bits::NONE,
            };
            let second = Duration::from_secs(1);
            for bit in (0..7).map(|n| 1u64 << n) {
                let called = self.called.iter();
                let called = called.filter(|(_, f, bits)| *f == want.fid && bits & bit != 0);
                let times: Vec<Mono> = called.map(|(t, ..)| *t).collect();
                let is_again = |w: &[Mono]| w[1] - w[0] < second * 2 && now - w[1] < second;
                if times.windows(2).any(is_again) {
                    item.want.try_bits.set &= !bit;
                }
            }
            return match self.grant(now, item) {
                Some(grant) => {
                    self.settle(now);
                    Outcome::Granted(grant)
                }
                None => self.nothing(now, want.fid),
            };
        }
        if !want.wait {
            return Outcome::Refused(Refusal::WouldBlock);
        }
        if want.ahead && self.reaches(&item, holder, 5) {
            return Outcome::Refused(Refusal::Deadlock);
        }
        let ahead = self.waiting.iter().filter(|w| w.want.ahead).count();
        let place = if want.ahead {
            ahead
        } else {
            self.waiting.len()
        };
        self.waiting.insert(place, item.clone());
        self.sort();
        for lock in self.granted.clone() {
            self.call(now, &lock, &item);
        }
        Outcome::Queued
    }

    fn nothing(&self, now: Mono, fid: Fid) -> Outcome {
        let contended = self.contended(now, fid);
        Outcome::Nothing { contended }
    }

    fn admit(&self, holder: Holder, lock: LockId, ahead: bool) -> Result<(), Refusal> {
        let all = || self.granted.iter().chain(&self.waiting);
        if all().any(|i| i.is(holder, lock)) {
            return Err(Refusal::DuplicateId);
        }
        let theirs = all().filter(|i| i.holder == holder).count();
        let full = all().count() >= self.limits.locks_max || theirs >= self.limits.holder_max;
        if full && !ahead && lock.0 & OWN == 0 {
            return Err(Refusal::TryLater);
        }
        Ok(())
    }

    fn must_wait(&self, item: &Item, before: &[Item]) -> bool {
        let granted = self.granted.iter().any(|l| l.meets(item));
        let waited = before.iter().any(|w| w.meets(item));
        let is_own = item.want.lock.0 & OWN != 0;
        granted || (waited && !item.want.ahead && !(is_own && self.covers(item)))
    }

    /// For each thing that the lock would say, one that the holder has allows it.
    fn covers(&self, item: &Item) -> bool {
        let allows = |l: &Item, bit: u64, point: Option<u64>| {
            l.holder == item.holder
                && l.want.fid == item.want.fid
                && l.want.lock.0 & OWN == 0
                && l.want.bits.set & bit != 0
                && l.want.mode.covers(item.want.mode)
                && (item.want.mode != Mode::Group || l.want.group == item.want.group)
                && point.is_none_or(|p| l.want.extent.start <= p && p <= l.want.extent.end)
        };
        (0..7).map(|n| 1 << n).all(|bit| {
            if item.want.bits.set & bit == 0 {
                return true;
            }
            let has = |p| self.granted.iter().any(|l| allows(l, bit, p));
            if bit != Bits::DATA.set {
                return has(None);
            }
            let e = item.want.extent;
            let mut points = POINTS.iter().filter(|p| e.start <= **p && **p <= e.end);
            points.all(|p| has(Some(*p)))
        })
    }

    pub fn is_covered(&self, holder: Holder, want: &Want) -> bool {
        let item = Item {
            least: Bits::NONE,
            holder,
            want: *want,
        };
        self.covers(&item)
    }

    pub fn is_in_conflict(&self, holder: Holder, want: &Want) -> bool {
        let item = Item {
            least: Bits::NONE,
            holder,
            want: *want,
        };
        self.must_wait(&item, &self.waiting)
    }

    fn grant(&mut self, now: Mono, mut item: Item) -> Option<Grant> {
        let expand = item.want.expand && item.want.bits.has(Bits::DATA);
        let mut welcome = 0;
        for bit in (0..7).map(|n| 1 << n) {
            let mut one = item.clone();
            one.want.bits = Bits { set: bit };
            let mut all = self.granted.iter().chain(&self.waiting);
            if item.want.try_bits.set & bit != 0 && !all.any(|o| o.meets(&one)) {
                welcome |= bit;
            }
        }
        item.want.bits.set |= welcome;
        if item.want.bits.is_empty() || !item.want.bits.has(item.least) {
            return None;
        }
        if expand {
            item.want.extent = self.grown(&item);
        }
        self.granted.push(item.clone());
        self.sort();
        for waiter in self.waiting.clone() {
            self.call(now, &item, &waiter);
        }
        Some(item.grant())
    }

    /// One byte at a time, while nobody is there.
    fn grown(&self, item: &Item) -> Extent {
        let mut bytes = item.clone();
        bytes.want.bits = Bits::DATA;
        let meets = |other: &Item, point: Option<u64>| {
            let mut bytes = bytes.clone();
            let mut other = other.clone();
            other.want.bits = other.want.bits.and(Bits::DATA);
            bytes.want.extent = Extent::ALL;
            if let Some(p) = point {
                bytes.want.extent = Extent { start: p, end: p };
            }
            other.meets(&bytes)
        };
        let granted = self.granted.iter().filter(|l| meets(l, None)).count();
        let waiting = self.waiting.iter().filter(|w| meets(w, None)).count();
        let is_free = |p: u64| {
            let mut all = self.granted.iter().chain(&self.waiting);
            !all.any(|o| meets(o, Some(p)))
        };
        let asked = item.want.extent;
        let mut out = asked;
        if !POINTS
            .iter()
            .filter(|p| asked.start <= **p && **p <= asked.end)
            .all(|p| is_free(*p))
        {
            return asked;
        }
        while granted == 0 && waiting <= 4 && out.start > 0 && is_free(out.start - 1) {
            out.start -= 1;
        }
        while out.end < 17 && is_free(out.end + 1) {
            out.end += 1;
        }
        if out.end == 17 {
            out.end = u64::MAX;
        }
        out
    }

    fn settle(&mut self, now: Mono) {
        loop {
            let ready = (0..self.waiting.len())
                .find(|n| !self.must_wait(&self.waiting[*n], &self.waiting[..*n]));
            let Some(n) = ready else { return };
            let item = self.waiting.remove(n);
            let holder = item.holder;
            let place = self.events.len();
            let grant = self.grant(now, item).expect("something was needed");
            self.events.insert(place, Event::Granted { holder, grant });
        }
    }

    /// Does a waiter like this wait for `goal`, over others ahead?
    fn reaches(&self, item: &Item, goal: Holder, depth: u32) -> bool {
        let mut ways = self.granted.iter();
        depth > 0
            && ways.any(|lock| {
                let ahead = |w: &&Item| w.want.ahead && w.holder == lock.holder;
                lock.meets(item)
                    && lock.want.lock.0 & OWN == 0
                    && (lock.holder == goal
                        || self
                            .waiting
                            .iter()
                            .filter(ahead)
                            .filter(|w| w.want.fid == item.want.fid)
                            .any(|w| self.reaches(w, goal, depth - 1)))
            })
    }

    fn call(&mut self, now: Mono, lock: &Item, waiter: &Item) {
        if !lock.meets(waiter) || lock.want.lock.0 & OWN != 0 {
            return;
        }
        let bits = ways(&lock.shape(), &waiter.shape());
        let there = self
            .calls
            .iter()
            .position(|c| c.blocking.holder == lock.holder && c.blocking.lock == lock.want.lock);
        let mut call = match there {
            Some(n) => self.calls.remove(n),
            None => Call {
                blocking: Blocking {
                    holder: lock.holder,
                    lock: lock.want.lock,
                    fid: lock.want.fid,
                    mode: waiter.want.mode,
                    bits: Bits::NONE,
                    extent: waiter.want.extent,
                    growth: Growth::NONE,
                },
                deadline: now + self.answer,
                latest: now + self.answer * 10,
                told: 0,
                early: Bits::NONE,
            },
        };
        let growth = waiter.want.growth;
        let is_longer = growth.size > call.told && growth.size > call.blocking.growth.size;
        if is_longer {
            call.blocking.growth = growth;
        }
        let is_new = bits.set & !call.blocking.bits.set != 0;
        if is_new || is_longer {
            call.blocking.bits.set |= bits.set;
            call.blocking.mode = waiter.want.mode;
            call.blocking.extent = waiter.want.extent;
            self.events.push(Event::Blocking(call.sent()));
        }
        if is_new {
            let both = bits.set | ways(&waiter.shape(), &lock.shape()).set;
            self.called.push((now, lock.want.fid, both));
        }
        self.calls.push(call);
    }

    pub fn contended(&self, now: Mono, fid: Fid) -> bool {
        let times = || self.conflicts.iter().filter(|(_, f)| *f == fid);
        times().enumerate().any(|(n, (t, _))| {
            let earlier = times().take(n + 1);
            let recent = earlier.filter(|(e, _)| *t - *e < Duration::from_secs(4));
            recent.count() > 16 && now - *t < Duration::from_secs(30)
        })
    }

    fn held_off(&self, now: Mono, item: &Item) -> bool {
        let mut set = item.want.bits.set;
        if item.want.mode == Mode::Ex {
            set |= item.want.try_bits.set;
        }
        if item.want.bits.has(Bits::DATA) && writes(item.want.mode) {
            set |= Bits::UPDATE.set;
        }
        let fid = item.want.fid;
        let mut called = self.called.iter();
        called.any(|(t, f, bits)| *f == fid && bits & set != 0 && now - *t < Duration::from_secs(1))
    }

    pub fn cancel(&mut self, now: Mono, holder: Holder, lock: LockId, bits: Bits) -> bool {
        if let Some(n) = self.waiting.iter().position(|w| w.is(holder, lock)) {
            self.waiting.remove(n);
            self.settle(now);
            return true;
        }
        let Some(n) = self.granted.iter().position(|l| l.is(holder, lock)) else {
            return false;
        };
        let is_it = |c: &&mut Call| c.blocking.holder == holder && c.blocking.lock == lock;
        if let Some(call) = self.calls.iter_mut().find(is_it)
            && call.blocking.growth.size > call.told
        {
            call.early = call.early.with(bits);
            return true;
        }
        let had = self.granted[n].want.bits;
        self.granted[n].want.bits = had.without(bits);
        if self.granted[n].want.bits.is_empty() {
            self.granted.remove(n);
        }
        let answer = self.answer;
        for call in &mut self.calls {
            let b = &mut call.blocking;
            if b.holder == holder && b.lock == lock && !b.bits.and(bits).is_empty() {
                b.bits = b.bits.without(bits);
                call.deadline = now + answer;
                call.latest = now + answer * 10;
            }
        }
        self.calls.retain(|c| !c.blocking.bits.is_empty());
        self.settle(now);
        true
    }

    pub fn told(&mut self, now: Mono, holder: Holder, lock: LockId, size: u64) {
        let is_it = |c: &&mut Call| c.blocking.holder == holder && c.blocking.lock == lock;
        let Some(call) = self.calls.iter_mut().find(is_it) else {
            return;
        };
        call.told = call.told.max(size);
        if call.blocking.growth.size <= call.told && !call.early.is_empty() {
            let early = std::mem::replace(&mut call.early, Bits::NONE);
            self.cancel(now, holder, lock, early);
        }
    }

    pub fn convert(
        &mut self,
        now: Mono,
        holder: Holder,
        lock: LockId,
        mode: Mode,
    ) -> Result<(), ConvertError> {
        let item = self.granted.iter_mut().find(|l| l.is(holder, lock));
        let item = item.ok_or(ConvertError::Unknown)?;
        if item.want.mode == mode || !item.want.mode.covers(mode) {
            return Err(ConvertError::NotWeaker);
        }
        item.want.mode = mode;
        if mode != Mode::Group {
            item.want.group = 0;
        }
        let item = item.clone();
        self.calls
            .retain(|c| !(c.blocking.holder == holder && c.blocking.lock == lock));
        for waiter in self.waiting.clone() {
            self.call(now, &item, &waiter);
        }
        self.settle(now);
        Ok(())
    }

    pub fn claim(
        &mut self,
        now: Mono,
        holder: Holder,
        claim: &Claim,
        is_current: bool,
    ) -> Result<Grant, Refusal> {
        let mut want = Want::of(claim.lock, claim.fid, claim.mode, claim.bits);
        want.extent = claim.extent;
        want.group = if claim.mode == Mode::Group {
            claim.group
        } else {
            0
        };
        self.admit(holder, claim.lock, false)?;
        let item = Item {
            holder,
            want,
            least: Bits::NONE,
        };
        if !is_current || self.granted.iter().any(|l| l.meets(&item)) {
            return Err(Refusal::Stale);
        }
        let grant = self.grant(now, item).expect("something is claimed");
        self.settle(now);
        Ok(grant)
    }

    pub fn drop_holder(&mut self, now: Mono, holder: Holder) {
        let mut gone: Vec<LockId> = self
            .waiting
            .iter()
            .filter(|w| w.holder == holder)
            .map(|w| w.want.lock)
            .collect();
        gone.sort();
        let dropped = gone.into_iter().map(|lock| Event::Dropped { holder, lock });
        self.events.extend(dropped);
        let granted: Vec<Fid> = self.granted.iter().map(|l| l.want.fid).collect();
        let waiting = self.waiting.iter().map(|w| w.want.fid);
        let mut fids: Vec<Fid> = waiting.chain(granted).collect();
        self.granted.retain(|l| l.holder != holder);
        self.waiting.retain(|w| w.holder != holder);
        self.calls.retain(|c| c.blocking.holder != holder);
        // One file after the other.
        fids.sort();
        fids.dedup();
        let mut all = std::mem::take(&mut self.waiting);
        for fid in fids {
            self.waiting = all.iter().filter(|w| w.want.fid == fid).cloned().collect();
            self.settle(now);
            all.retain(|w| w.want.fid != fid);
            all.append(&mut self.waiting);
        }
        self.waiting = all;
        self.sort();
    }

    pub fn progress(&mut self, now: Mono, holder: Holder, of: Option<Fid>) {
        for call in &mut self.calls {
            if call.blocking.holder == holder && of.is_none_or(|fid| call.blocking.fid == fid) {
                let later = (now + self.answer / 2).min(call.latest);
                call.deadline = call.deadline.max(later);
            }
        }
    }

    pub fn overdue(&self, now: Mono) -> Vec<Holder> {
        let late = self.calls.iter().filter(|c| c.deadline <= now);
        let mut holders: Vec<Holder> = late.map(|c| c.blocking.holder).collect();
        holders.sort();
        holders.dedup();
        holders
    }

    pub fn next_deadline(&self) -> Option<Mono> {
        self.calls.iter().map(|c| c.deadline).min()
    }

    pub fn unanswered(&self, holder: Holder) -> Vec<Blocking> {
        let all = self.calls.iter().map(Call::sent);
        let mut theirs: Vec<Blocking> = all.filter(|b| b.holder == holder).collect();
        theirs.sort_by_key(|b| (b.fid, b.lock));
        theirs
    }

    pub fn listed(&self) -> Vec<Listed> {
        let called = |i: &Item| {
            let mut all = self.calls.iter().map(|c| c.blocking);
            all.find(|b| b.holder == i.holder && b.lock == i.want.lock)
                .map_or(Bits::NONE, |b| b.bits)
        };
        let line = |i: &Item, is_granted: bool| Listed {
            holder: i.holder,
            grant: i.grant(),
            group: i.want.group,
            is_granted,
            called: called(i),
        };
        let granted = self.granted.iter().map(|l| line(l, true));
        let waiting = self.waiting.iter().map(|w| line(w, false));
        let mut all: Vec<Listed> = granted.chain(waiting).collect();
        all.sort_by_key(|l| (l.grant.fid, !l.is_granted));
        all
    }

    /// Granted locks by holder and id; waiters ahead of others.
    fn sort(&mut self) {
        self.granted.sort_by_key(|l| (l.holder, l.want.lock));
        self.waiting.sort_by_key(|w| !w.want.ahead);
    }
}
