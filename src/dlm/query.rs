//! What a table tells without being changed.

use super::granted::Lock;
use super::request::{Blocking, Grant, Held, Holder, Listed, Sole};
use super::resource::Rank;
use super::table::{Table, shape_of};
use crate::base::{Bits, Extent, Fid, LockId, Mode, Mono};
use std::collections::BTreeMap;

impl Table {
    /// Callbacks to send once more on a new connection.
    #[must_use]
    pub fn unanswered(&self, holder: Holder) -> Vec<Blocking> {
        self.calls.unanswered(holder)
    }

    /// Is a callback to this holder on this file unanswered?
    #[must_use]
    pub fn is_owing(&self, holder: Holder, fid: Fid) -> bool {
        self.calls.is_owing(holder, fid)
    }

    /// Holders that did not answer a callback in time, each once. They stay so
    /// until they answer or are dropped.
    #[must_use]
    pub fn overdue(&self, now: Mono) -> Vec<Holder> {
        self.calls.overdue(now)
    }

    /// When [`Table::overdue`] will name somebody, if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        self.calls.next_deadline()
    }

    /// What a client has granted on a file.
    #[must_use]
    pub fn held(&self, holder: Holder, fid: Fid) -> Held {
        let mut held = Held::default();
        for lock in self.of_client(holder, fid) {
            held.locks += 1;
            held.bits = held.bits.with(lock.bits());
            held.modes |= lock.mode() as u8;
            if lock.mode().is_write() {
                held.writes = held.writes.with(lock.bits());
            }
        }
        held
    }

    /// Those bits of a file that the client holds for good in this mode, over
    /// all of `extent`: they are not being called back.
    #[must_use]
    pub fn kept(&self, holder: Holder, fid: Fid, mode: Mode, extent: Extent) -> Bits {
        let covers = |l: &&Lock| l.mode().covers(mode) && l.shape().extent.contains(extent);
        let locks = self.of_client(holder, fid).filter(covers);
        locks.fold(Bits::NONE, |all, lock| {
            let called = self.calls.called((holder, fid, lock.id));
            all.with(lock.bits().without(called))
        })
    }

    /// Has any client some of `bits` on a file?
    #[must_use]
    pub fn is_held(&self, fid: Fid, bits: Bits) -> bool {
        let locks = self.files.find(fid).into_iter();
        let mut theirs = locks.flat_map(|r| r.granted.iter()).filter(|l| !l.is_own());
        theirs.any(|lock| !lock.bits().and(bits).is_empty())
    }

    /// The client's lock of this id, if it is granted.
    #[must_use]
    pub fn lock(&self, holder: Holder, lock: LockId) -> Option<Grant> {
        let fid = self.find(holder, lock)?;
        let resource = self.files.find(fid)?;
        Some(resource.granted.find(holder, lock)?.grant(fid))
    }

    /// Do the client's granted locks together allow this? The shard's own
    /// operations for the client lend it nothing.
    #[must_use]
    pub fn covers(&self, holder: Holder, fid: Fid, mode: Mode, bits: Bits, extent: Extent) -> bool {
        let shape = shape_of(mode, bits, extent, 0);
        let resource = self.files.find(fid);
        resource.map_or(bits.is_empty(), |r| r.is_allowed(holder, &shape))
    }

    /// Would an operation have to wait, if it ran at this instant?
    #[must_use]
    pub fn conflicts(
        &self,
        holder: Holder,
        fid: Fid,
        mode: Mode,
        bits: Bits,
        extent: Extent,
    ) -> bool {
        let shape = shape_of(mode, bits, extent, 0);
        self.files
            .find(fid)
            .is_some_and(|r| r.must_wait(holder, &shape, usize::MAX, Rank::Own))
    }

    /// The same for an operation that passes those who wait (C7, C16).
    #[must_use]
    pub fn conflicts_ahead(
        &self,
        holder: Holder,
        fid: Fid,
        mode: Mode,
        bits: Bits,
        extent: Extent,
    ) -> bool {
        let shape = shape_of(mode, bits, extent, 0);
        self.files
            .find(fid)
            .is_some_and(|r| r.must_wait(holder, &shape, usize::MAX, Rank::Ahead))
    }

    /// The one lock that keeps an operation from looking at a file, if that is a
    /// client's on all of that for itself alone, and is not called back: its holder
    /// knows what the file is like, and nobody waits for it to give up anything.
    #[must_use]
    pub fn sole(&self, holder: Holder, fid: Fid, mode: Mode, bits: Bits) -> Option<Sole> {
        let shape = shape_of(mode, bits, Extent::ALL, 0);
        let resource = self.files.find(fid)?;
        let mut others = resource.granted.in_way_of(holder, shape);
        let lock = others.next()?;
        let is_sole = others.next().is_none()
            && !lock.is_own()
            && lock.mode() == Mode::Ex
            && lock.bits().has(bits);
        let is_called = !self.calls.called((lock.holder, fid, lock.id)).is_empty();
        (is_sole && !is_called).then_some(Sole {
            holder: lock.holder,
            lock: lock.id,
        })
    }

    /// The client that has a file to itself, whether or not it is called back.
    #[must_use]
    pub fn alone(&self, fid: Fid) -> Option<Sole> {
        let mut locks = self.files.find(fid)?.granted.iter();
        let is_whole =
            |l: &&Lock| !l.is_own() && l.mode() == Mode::Ex && l.bits().has(Bits::LOOKUP);
        let lock = locks.find(is_whole)?;
        Some(Sole {
            holder: lock.holder,
            lock: lock.id,
        })
    }

    /// Clients that may have unsent bytes of a file, to ask for its size. Each
    /// once, ascending.
    #[must_use]
    pub fn writers(&self, fid: Fid) -> Vec<Holder> {
        let locks = self.files.find(fid).into_iter();
        let mut writers: Vec<Holder> = locks
            .flat_map(|r| r.granted.iter())
            .filter(|l| !l.is_own() && l.shape().writes_data())
            .map(|l| l.holder)
            .collect();
        writers.dedup();
        writers
    }

    #[must_use]
    pub fn is_contended(&self, now: Mono, fid: Fid) -> bool {
        self.contention.is_contended(now, fid)
    }

    /// Do several clients change and look at this of a file by turns?
    #[must_use]
    pub fn is_fought_over(&self, now: Mono, fid: Fid, bits: Bits) -> bool {
        let fought_over = self.contention.fought_over(now, fid);
        self.contention.is_contended(now, fid) || !fought_over.and(bits).is_empty()
    }

    /// Everything, by file; granted locks before requests that wait.
    pub fn locks(&self) -> impl Iterator<Item = Listed> + '_ {
        self.files.iter().flat_map(move |(fid, resource)| {
            let granted = resource.granted.iter().map(move |lock| Listed {
                holder: lock.holder,
                grant: lock.grant(fid),
                group: lock.shape().group,
                is_granted: true,
                called: self.calls.called((lock.holder, fid, lock.id)),
            });
            let waiting = resource.waiting().map(move |waiter| Listed {
                holder: waiter.holder,
                grant: waiter.grant(fid),
                group: waiter.shape.group,
                is_granted: false,
                called: Bits::NONE,
            });
            granted.chain(waiting)
        })
    }

    /// Those of one holder, over all files.
    #[must_use]
    pub fn count(&self, holder: Holder) -> usize {
        self.holders.get(&holder).map_or(0, BTreeMap::len)
    }

    /// Locks, waiting ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files with locks.
    #[must_use]
    pub fn resources(&self) -> usize {
        self.files.len()
    }

    /// Files whose conflicts are remembered; bounded, and independent of locks.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.contention.len()
    }

    /// How many locks each of `clients` should keep, for its own LRU; those that
    /// have none yet count as well.
    #[must_use]
    pub fn volume(&self, clients: usize) -> usize {
        let clients = clients.max(self.holders.len());
        self.limits.volume(self.len, clients)
    }

    /// Above the soft bound: whom to ask for how many idle locks. Those with
    /// more than an equal share give back in proportion to what is above it.
    #[must_use]
    pub fn shrink(&self) -> Vec<(Holder, usize)> {
        let excess = self.len.saturating_sub(self.limits.locks_soft);
        if excess == 0 {
            return Vec::new();
        }
        let share = self.limits.share(self.holders.len());
        let above = |locks: &BTreeMap<LockId, Fid>| locks.len().saturating_sub(share);
        let all: usize = self.holders.values().map(above).sum();
        let part = |n: usize| (n as u128 * excess as u128).div_ceil(all.max(1) as u128);
        let asked = self.holders.iter().map(|(holder, locks)| {
            let n = above(locks);
            (*holder, usize::try_from(part(n)).map_or(n, |p| p.min(n)))
        });
        asked.filter(|(_, n)| *n > 0).collect()
    }

    fn of_client(&self, holder: Holder, fid: Fid) -> impl Iterator<Item = &Lock> {
        let resource = self.files.find(fid).into_iter();
        let locks = resource.flat_map(move |r| r.granted.of(holder));
        locks.filter(|l| !l.is_own())
    }
}
