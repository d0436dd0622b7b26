//! Callbacks that were sent and are not answered, and until when they may be.

use super::bounds::{PROGRESS_MAX, PROGRESS_PART};
use super::conflict::Shape;
use super::request::{Blocking, Growth, Holder};
use crate::base::{Bits, Extent, Fid, LockId, Mode, Mono};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Debug)]
pub struct Calls {
    /// For an answer.
    time: Duration,
    calls: BTreeMap<Key, Call>,
    deadlines: BTreeSet<(Mono, Key)>,
}

type Key = (Holder, Fid, LockId);

#[derive(Debug)]
struct Call {
    bits: Bits,
    /// What the last waiter in question asked for.
    mode: Mode,
    extent: Extent,
    deadline: Mono,
    /// Sending data puts the deadline off until here.
    latest: Mono,
    /// How far those who wait make the file grow, and how far the holder has
    /// seen to it that it may.
    growth: Growth,
    told: u64,
    /// Bits given up before that.
    given: Bits,
}

impl Calls {
    #[must_use]
    pub fn new(time: Duration) -> Calls {
        Calls {
            time,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// `bits` of a lock are in the way of a waiter. Returns the callback to
    /// send, if one of them was not called back before, or the file grows
    /// further than the holder was told. The first callback's deadline stays.
    pub fn on_blocked(
        &mut self,
        now: Mono,
        key: Key,
        bits: Bits,
        by: &Shape,
        growth: Growth,
    ) -> Option<Blocking> {
        let (deadline, latest) = self.times(now);
        let call = self.calls.entry(key).or_insert_with(|| {
            self.deadlines.insert((deadline, key));
            Call {
                bits: Bits::NONE,
                mode: by.mode,
                extent: by.extent,
                deadline,
                latest,
                growth: Growth::NONE,
                told: 0,
                given: Bits::NONE,
            }
        });
        let grows = growth.size > call.growth.size.max(call.told);
        if call.bits.has(bits) && !grows {
            return None;
        }
        if grows {
            call.growth = growth;
        }
        call.bits = call.bits.with(bits);
        call.mode = by.mode;
        call.extent = by.extent;
        Some(call.blocking(key))
    }

    /// `bits` of a lock were given up. If others are still owed, the time for
    /// them starts: what was called back last may have been so just now.
    pub fn on_given_up(&mut self, now: Mono, key: Key, bits: Bits) {
        let (deadline, latest) = self.times(now);
        let Some(call) = self.calls.get_mut(&key) else {
            return;
        };
        if call.bits.and(bits).is_empty() {
            return;
        }
        call.bits = call.bits.without(bits);
        self.deadlines.remove(&(call.deadline, key));
        if call.bits.is_empty() {
            self.calls.remove(&key);
        } else {
            (call.deadline, call.latest) = (deadline, latest);
            self.deadlines.insert((deadline, key));
        }
    }

    /// `bits` of a lock are given up. True if that does not count yet: the file
    /// grows further than the holder has seen to.
    pub fn holds_back(&mut self, key: Key, bits: Bits) -> bool {
        let Some(call) = self.calls.get_mut(&key).filter(|c| c.is_untold()) else {
            return false;
        };
        call.given = call.given.with(bits);
        true
    }

    /// The file may grow to `size`, for all that the holder believes. Returns
    /// what it has given up before.
    pub fn on_told(&mut self, key: Key, size: u64) -> Option<Bits> {
        let call = self.calls.get_mut(&key)?;
        call.told = call.told.max(size);
        if call.is_untold() || call.given.is_empty() {
            return None;
        }
        Some(std::mem::replace(&mut call.given, Bits::NONE))
    }

    /// The lock is gone, or is another than the one that was called back.
    pub fn forget(&mut self, key: Key) {
        if let Some(call) = self.calls.remove(&key) {
            self.deadlines.remove(&(call.deadline, key));
        }
    }

    /// The holder is still sending what it has to before it can answer.
    /// Of one file, or of all.
    pub fn on_progress(&mut self, now: Mono, holder: Holder, of: Option<Fid>) {
        let later = now + self.time / PROGRESS_PART;
        let first = (holder, of.unwrap_or(Fid::NONE), LockId(0));
        let from = self.calls.range_mut(first..);
        let is_of = |key: &Key| key.0 == holder && of.is_none_or(|fid| key.1 == fid);
        for (key, call) in from.take_while(|(key, _)| is_of(key)) {
            self.deadlines.remove(&(call.deadline, *key));
            call.deadline = call.deadline.max(later.min(call.latest));
            self.deadlines.insert((call.deadline, *key));
        }
    }

    #[must_use]
    pub fn called(&self, key: Key) -> Bits {
        self.calls.get(&key).map_or(Bits::NONE, |call| call.bits)
    }

    /// Is a callback on this file unanswered?
    #[must_use]
    pub fn is_owing(&self, holder: Holder, fid: Fid) -> bool {
        let all = (holder, fid, LockId(0))..=(holder, fid, LockId(u64::MAX));
        self.calls.range(all).next().is_some()
    }

    #[must_use]
    pub fn unanswered(&self, holder: Holder) -> Vec<Blocking> {
        let from = (holder, Fid::NONE, LockId(0));
        let all = self.calls.range(from..);
        all.take_while(|(key, _)| key.0 == holder)
            .map(|(key, call)| call.blocking(*key))
            .collect()
    }

    /// Each holder once, ascending.
    #[must_use]
    pub fn overdue(&self, now: Mono) -> Vec<Holder> {
        let late = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let holders: BTreeSet<Holder> = late.map(|(_, key)| key.0).collect();
        holders.into_iter().collect()
    }

    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    fn times(&self, now: Mono) -> (Mono, Mono) {
        (now + self.time, now + self.time * PROGRESS_MAX)
    }
}

impl Call {
    fn is_untold(&self) -> bool {
        self.growth.size > self.told
    }

    fn blocking(&self, key: Key) -> Blocking {
        let (holder, fid, lock) = key;
        Blocking {
            holder,
            lock,
            fid,
            mode: self.mode,
            bits: self.bits,
            extent: self.extent,
            growth: match self.is_untold() {
                true => self.growth,
                false => Growth::NONE,
            },
        }
    }
}
