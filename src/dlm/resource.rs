//! The locks of one file: who has which, and who waits for which.

use super::conflict::Shape;
use super::granted::{Granted, Lock};
use super::grow;
use super::request::{Grant, Growth, Holder, Want, is_own};
use crate::base::{Bits, Extent, Fid, LockId};
use std::collections::VecDeque;

/// A request that was queued.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    pub holder: Holder,
    pub id: LockId,
    /// What is needed.
    pub shape: Shape,
    pub growth: Growth,
    try_bits: Bits,
    is_expanding: bool,
    rank: Rank,
}

/// Which waiters a request may pass that are in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// None: a client that is asked to give up a lock could else stay in its
    /// possession for ever, by asking for the next under cover of the last.
    Client,
    /// An operation of the shard passes them if the client's locks allow it:
    /// they wait for those locks in any case, and perhaps for this operation,
    /// without which the client cannot give them up (C7).
    Own,
    /// All of them (C7, C16).
    Ahead,
}

impl Rank {
    #[must_use]
    pub fn of(want: &Want) -> Rank {
        match (want.ahead, is_own(want.lock)) {
            (true, _) => Rank::Ahead,
            (false, true) => Rank::Own,
            (false, false) => Rank::Client,
        }
    }
}

impl Waiter {
    #[must_use]
    pub fn new(holder: Holder, want: &Want, shape: Shape) -> Waiter {
        Waiter {
            holder,
            id: want.lock,
            shape,
            growth: want.growth,
            try_bits: want.try_bits,
            is_expanding: want.expand,
            rank: Rank::of(want),
        }
    }
    /// As it was asked for.
    #[must_use]
    pub fn grant(&self, fid: Fid) -> Grant {
        Grant {
            lock: self.id,
            fid,
            mode: self.shape.mode,
            bits: self.shape.bits,
            extent: self.shape.extent,
        }
    }
}

#[derive(Debug, Default)]
pub struct Resource {
    pub granted: Granted,
    /// Absent where nobody waits, as nearly everywhere.
    queue: Option<Box<Queue>>,
}

/// First those ahead, then the others, each in the order of their coming.
#[derive(Debug, Default)]
struct Queue {
    waiters: VecDeque<Waiter>,
}

impl Resource {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.granted.is_empty() && self.queue.is_none()
    }

    /// All who wait, first to last.
    pub fn waiting(&self) -> impl Iterator<Item = &Waiter> {
        self.queue.iter().flat_map(|q| &q.waiters)
    }

    #[must_use]
    pub fn has_waiters(&self) -> bool {
        self.queue.is_some()
    }

    /// Would `shape` have to wait, with the first `before` waiters before it?
    #[must_use]
    pub fn must_wait(&self, holder: Holder, shape: &Shape, before: usize, rank: Rank) -> bool {
        let dispute = self.dispute_before(holder, shape, before);
        self.must_wait_for(&dispute, holder, shape, rank)
    }

    /// The same, knowing already who is in the way.
    #[must_use]
    pub fn must_wait_for(
        &self,
        dispute: &Dispute,
        holder: Holder,
        shape: &Shape,
        rank: Rank,
    ) -> bool {
        let passes = || match rank {
            Rank::Client => false,
            Rank::Own => self.is_allowed(holder, shape),
            Rank::Ahead => true,
        };
        dispute.is_granted || (dispute.is_waited_for && !passes())
    }

    /// Is anybody else's lock or request in the way at all?
    #[must_use]
    pub fn dispute(&self, holder: Holder, shape: &Shape) -> Dispute {
        self.dispute_before(holder, shape, usize::MAX)
    }

    fn dispute_before(&self, holder: Holder, shape: &Shape, before: usize) -> Dispute {
        let in_way = |w: &Waiter| w.holder != holder && w.shape.conflicts(shape);
        let is_granted = self.granted.in_way_of(holder, *shape).next().is_some();
        Dispute {
            is_granted,
            // Nobody asks once something granted is in the way.
            is_waited_for: !is_granted && self.waiting().take(before).any(in_way),
        }
    }

    /// Do the client's granted locks together allow all of `shape`?
    #[must_use]
    pub fn is_allowed(&self, holder: Holder, shape: &Shape) -> bool {
        let fit = || {
            let locks = self.granted.of(holder).filter(|l| !l.is_own());
            locks.filter(|l| l.shape().allows(shape.mode, shape.group))
        };
        let bits = fit().fold(Bits::NONE, |all, l| all.with(l.bits()));
        bits.has(shape.bits) && (!shape.bits.has(Bits::DATA) || spans(shape.extent, fit))
    }

    /// Grants `shape` with what is welcome and free beside it. Nothing granted
    /// to others may be in its way.
    pub fn grant(&mut self, holder: Holder, id: LockId, shape: Shape, more: More) -> Lock {
        let mut shape = shape.with_bits(shape.bits.with(self.welcome(holder, &shape, more.bits)));
        if more.is_expanding {
            shape.extent = grow::grown(self, holder, &shape);
        }
        let lock = Lock::new(holder, id, &shape);
        self.granted.insert(lock);
        lock
    }

    /// Those of `bits` that nothing granted to or waited for by others meets.
    #[must_use]
    pub fn welcome(&self, holder: Holder, shape: &Shape, bits: Bits) -> Bits {
        if bits.is_empty() {
            return bits;
        }
        let tried = shape.with_bits(bits);
        let granted = self.granted.in_way_of(holder, tried).map(|l| l.shape());
        let others = self.waiting().filter(|w| w.holder != holder);
        let met = granted
            .chain(others.map(|w| w.shape))
            .fold(Bits::NONE, |all, other| all.with(tried.in_way(&other)));
        bits.without(met)
    }

    pub fn push(&mut self, waiter: Waiter) {
        let waiters = &mut self.queue.get_or_insert_default().waiters;
        let place = match waiter.rank {
            Rank::Ahead => waiters.partition_point(|w| w.rank == Rank::Ahead),
            Rank::Own | Rank::Client => waiters.len(),
        };
        waiters.insert(place, waiter);
    }

    /// Grants the first waiter from the `from`-th on that nothing keeps waiting.
    /// Returns its lock, and where to look for the next one.
    pub fn grant_next(&mut self, from: usize) -> Option<(Lock, usize)> {
        let (at, waiter) = self
            .waiting()
            .enumerate()
            .skip(from)
            .find(|(at, w)| !self.must_wait(w.holder, &w.shape, *at, w.rank))
            .map(|(at, w)| (at, *w))?;
        self.take(at);
        let lock = self.grant(waiter.holder, waiter.id, waiter.shape, waiter.more());
        // One more granted lock helps nobody but its holder's operations, which
        // it may allow to pass those before them.
        let again = self.waiting().take(at).any(|w| w.holder == waiter.holder);
        Some((lock, if again { 0 } else { at }))
    }

    /// Takes a request out of the queue.
    pub fn withdraw(&mut self, holder: Holder, id: LockId) -> Option<Waiter> {
        let at = self
            .waiting()
            .position(|w| w.holder == holder && w.id == id)?;
        self.take(at)
    }

    /// Would a waiter ahead and others ahead wait for one another in a circle?
    /// Each keeps its locks until its own request was answered. The shard's own
    /// locks end by themselves.
    #[must_use]
    pub fn is_crossed(&self, holder: Holder, shape: &Shape) -> bool {
        let mut seen = Vec::new();
        let mut open = vec![(holder, *shape)];
        while let Some((who, shape)) = open.pop() {
            for lock in self.granted.in_way_of(who, shape).filter(|l| !l.is_own()) {
                if lock.holder == holder {
                    return true;
                }
                if seen.contains(&lock.holder) {
                    continue;
                }
                seen.push(lock.holder);
                let ahead = self.waiting().take_while(|w| w.rank == Rank::Ahead);
                let theirs = ahead.filter(|w| w.holder == lock.holder);
                open.extend(theirs.map(|w| (w.holder, w.shape)));
            }
        }
        false
    }

    fn take(&mut self, at: usize) -> Option<Waiter> {
        let waiters = &mut self.queue.as_mut()?.waiters;
        let waiter = waiters.remove(at);
        if waiters.is_empty() {
            self.queue = None;
        }
        waiter
    }
}

/// Who is in the way of a request. One is enough.
#[derive(Clone, Copy, Debug)]
pub struct Dispute {
    is_granted: bool,
    is_waited_for: bool,
}

impl Dispute {
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.is_granted || self.is_waited_for
    }
}

/// What is granted beside what is needed.
#[derive(Clone, Copy, Debug)]
pub struct More {
    pub bits: Bits,
    pub is_expanding: bool,
}

impl Waiter {
    fn more(&self) -> More {
        More {
            bits: self.try_bits,
            is_expanding: self.is_expanding && self.shape.bits.has(Bits::DATA),
        }
    }
}

/// Do the extents of those of `locks` that have DATA leave no hole in `extent`?
fn spans<'a, L: Iterator<Item = &'a Lock>>(extent: Extent, locks: impl Fn() -> L) -> bool {
    let mut from = extent.start;
    loop {
        let has = |l: &&Lock| l.bits().has(Bits::DATA);
        let extents = locks().filter(has).map(|l| l.shape().extent);
        let here = extents.filter(|e| e.start <= from && from <= e.end);
        match here.map(|e| e.end).max() {
            None => return false,
            Some(end) if end >= extent.end => return true,
            Some(end) => from = end + 1,
        }
    }
}
