//! The locks of a client, pure: which it has, which are on their way to it,
//! and which are on their way back.

use super::known::Asked as Since;
use super::pins::{Pins, Waits};
use crate::base::{Bits, Extent, Fid, FidMap, LockId, Mode, Mono};
use crate::wire::{LockGrant, LockWant};
use std::collections::BTreeMap;

/// What a callback means for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// These bits end: nothing rests on them from now on.
    Ends(Ending),
    /// The lock is still on its way, or its pages are: they end as soon as it
    /// is here (L1), or somewhat later.
    Pending,
    /// The pages that came with the lock were filled just now: they end then.
    Later(Mono),
    /// They are being given up already.
    Ending,
    /// There is no such lock: it was never granted, or has ended.
    Unknown,
}

/// Bits that are to be taken back from whoever believes them, and cancelled then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub lock: LockId,
    pub fid: Fid,
    pub bits: Bits,
    pub extent: Extent,
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug)]
struct Lock {
    mode: Mode,
    /// Those that something may rest on.
    bits: Bits,
    /// Those that are being given up.
    ending: Bits,
    extent: Extent,
    came: Since,
}

/// How a lock has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    pub at: Since,
    /// What the pages are called whose bytes came with it, or 0.
    pub fill: u64,
}

/// Which locks an answer may rest on: those that had come before it was asked
/// for, and those that came with it. It may be older than one that came, with
/// another answer, while it was on its way, and lack what was done before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rests {
    pub asked: Since,
    pub came: Since,
}

impl Rests {
    fn on(self, lock: &Lock) -> bool {
        lock.came <= self.asked || lock.came == self.came
    }
}

/// Lock ids that one request has asked for.
#[derive(Clone, Debug, Default)]
struct Asked {
    count: u64,
    /// Called back before they were granted.
    called: Vec<(LockId, Bits)>,
}

#[derive(Debug, Default)]
pub struct Held {
    /// The file of each.
    locks: BTreeMap<LockId, Fid>,
    /// The locks of each file that has any.
    files: FidMap<Vec<(LockId, Lock)>>,
    /// How many of them nothing rests on any more: the box is to hear of it.
    going: usize,
    /// By the first id.
    asked: BTreeMap<LockId, Asked>,
    pub pins: Pins,
    last: u64,
}

impl Held {
    /// `count` ids that were never used, to ask for locks with.
    pub fn ask(&mut self, count: u64) -> LockId {
        let first = LockId(self.last + 1);
        self.last += count;
        let called = Vec::new();
        self.asked.insert(first, Asked { count, called });
        first
    }

    /// The request that asked is over: what it was not granted will not come.
    pub fn on_answered(&mut self, wants: &[LockWant]) {
        for want in wants {
            self.asked.remove(&want.lock);
        }
    }

    /// A lock is here. Bits that were called back meanwhile end at once, but if
    /// it came with the bytes of pages.
    pub fn on_grant(&mut self, grant: &LockGrant, came: Came) -> Option<Ending> {
        let lock = Lock {
            mode: grant.mode,
            bits: grant.bits,
            ending: Bits::NONE,
            extent: grant.extent,
            came: came.at,
        };
        self.insert(grant.fid, grant.lock, lock);
        let called = self.called_before(grant.lock);
        if came.fill > 0 {
            self.pins
                .pin(grant.lock, came.fill, called.unwrap_or(Bits::NONE));
            return None;
        }
        self.end(grant.lock, called?)
    }

    fn insert(&mut self, fid: Fid, id: LockId, lock: Lock) {
        let locks = self.files.entry(fid).or_default();
        match locks.iter_mut().find(|(of, _)| *of == id) {
            Some((_, old)) => *old = lock,
            None => locks.push((id, lock)),
        }
        self.locks.insert(id, fid);
    }

    fn find_mut(&mut self, id: LockId) -> Option<(Fid, &mut Lock)> {
        let fid = *self.locks.get(&id)?;
        let locks = self.files.get_mut(&fid)?;
        let (_, lock) = locks.iter_mut().find(|(of, _)| *of == id)?;
        Some((fid, lock))
    }

    fn asked_for(&mut self, lock: LockId) -> Option<&mut Asked> {
        let (first, asked) = self.asked.range_mut(..=lock).next_back()?;
        (lock.0 - first.0 < asked.count).then_some(asked)
    }

    fn called_before(&mut self, lock: LockId) -> Option<Bits> {
        let asked = self.asked_for(lock)?;
        let found = asked.called.iter().find(|(id, _)| *id == lock);
        found.map(|(_, bits)| *bits)
    }

    /// The box wants `bits` of a lock back.
    pub fn on_called(&mut self, lock: LockId, bits: Bits, now: Mono) -> Called {
        if self.find_mut(lock).is_none() {
            let Some(asked) = self.asked_for(lock) else {
                return Called::Unknown;
            };
            match asked.called.iter_mut().find(|(id, _)| *id == lock) {
                Some((_, all)) => *all = all.with(bits),
                None => asked.called.push((lock, bits)),
            }
            return Called::Pending;
        }
        match self.pins.on_called(lock, bits, now) {
            Some(Waits::Fill) => return Called::Pending,
            Some(Waits::Until(at)) => return Called::Later(at),
            None => {}
        }
        let ending = self.end(lock, bits);
        ending.map_or(Called::Ending, Called::Ends)
    }

    /// The moment is over for which the lock was kept for its pages.
    pub fn unpin(&mut self, lock: LockId) -> Option<Ending> {
        let called = self.pins.unpin(lock);
        (!called.is_empty()).then(|| self.end(lock, called))?
    }

    /// These bits of a lock end, those that have not ended yet.
    fn end(&mut self, lock: LockId, bits: Bits) -> Option<Ending> {
        let (_, found) = self.find_mut(lock)?;
        // What is done under a lock on all of a file rests on all of it.
        let bits = match found.mode {
            Mode::Ex => Bits::ALL,
            _ => bits,
        };
        if found.bits.and(bits).is_empty() {
            return None;
        }
        let bits = bits.with(self.pins.unpin(lock));
        let (fid, found) = self.find_mut(lock)?;
        let ends = found.bits.and(bits);
        found.bits = found.bits.without(ends);
        found.ending = found.ending.with(ends);
        let is_going = found.bits.is_empty();
        let ending = Ending {
            lock,
            fid,
            bits: ends,
            extent: found.extent,
            mode: found.mode,
        };
        self.going += usize::from(is_going);
        Some(ending)
    }

    /// The box knows that these bits have ended.
    pub fn on_ended(&mut self, lock: LockId, bits: Bits) {
        let Some((fid, found)) = self.find_mut(lock) else {
            return;
        };
        found.ending = found.ending.without(bits);
        if found.bits.is_empty() && found.ending.is_empty() {
            self.pins.unpin(lock);
            self.locks.remove(&lock);
            self.going = self.going.saturating_sub(1);
            if let Some(locks) = self.files.get_mut(&fid) {
                locks.retain(|(id, _)| *id != lock);
                if locks.is_empty() {
                    self.files.remove(&fid);
                }
            }
        }
    }

    /// These bits of a file end, by the client's own will.
    pub fn give_up(&mut self, fid: Fid, bits: Bits) -> Vec<Ending> {
        let locks = self.files.get(&fid).into_iter().flatten();
        let ids: Vec<LockId> = locks.map(|(id, _)| *id).collect();
        ids.into_iter()
            .filter_map(|id| self.end(id, bits))
            .collect()
    }

    fn of(&self, fid: Fid) -> impl Iterator<Item = &Lock> {
        let locks = self.files.get(&fid).into_iter().flatten();
        locks.map(|(_, lock)| lock)
    }

    /// The bits of a file that something may rest on; DATA if all of it is.
    #[must_use]
    pub fn bits(&self, fid: Fid) -> Bits {
        bits_of(self.of(fid))
    }

    /// Those that what an answer shows of the file rests on.
    #[must_use]
    pub fn bits_under(&self, fid: Fid, rests: Rests) -> Bits {
        bits_of(self.of(fid).filter(|lock| rests.on(lock)))
    }

    /// Has the client all of these bits of the file to itself?
    #[must_use]
    pub fn is_alone(&self, fid: Fid, bits: Bits) -> bool {
        self.of(fid)
            .any(|lock| lock.mode == Mode::Ex && lock.bits.has(bits))
    }

    /// Does one lock cover these bytes in this mode?
    #[must_use]
    pub fn covers_data(&self, fid: Fid, mode: Mode, extent: Extent) -> bool {
        self.of(fid).any(|lock| {
            lock.bits.has(Bits::DATA) && lock.mode.covers(mode) && lock.extent.contains(extent)
        })
    }

    /// Everything ends but the right to write bytes, and what the client has to
    /// itself: the box restarted, and what is left is claimed again (L13). Bytes
    /// that were stored above, and changes that were answered, which nobody else
    /// has, depend on it, also while it is being given up (C7).
    pub fn keep_writing(&mut self) -> (Vec<Ending>, Vec<LockGrant>) {
        let ids = std::mem::take(&mut self.locks);
        let files = std::mem::take(&mut self.files);
        self.going = 0;
        self.pins.clear();
        let of = |(id, fid): (&LockId, &Fid)| {
            let (_, lock) = files.get(fid)?.iter().find(|(of, _)| of == id)?;
            Some((*id, *fid, *lock))
        };
        let before: Vec<_> = ids.iter().filter_map(of).collect();
        let mut kept = Vec::new();
        let stays = |lock: &Lock| match lock.mode {
            Mode::Ex => Bits::ALL,
            mode if mode.is_write() => Bits::DATA,
            _ => Bits::NONE,
        };
        for (id, fid, lock) in &before {
            let (bits, ending) = (lock.bits.and(stays(lock)), lock.ending.and(stays(lock)));
            if !bits.with(ending).is_empty() {
                let left = Lock {
                    bits,
                    ending,
                    ..*lock
                };
                self.insert(*fid, *id, left);
                self.going += usize::from(bits.is_empty());
                kept.push(LockGrant {
                    lock: *id,
                    fid: *fid,
                    mode: lock.mode,
                    bits: bits.with(ending),
                    extent: lock.extent,
                });
            }
        }
        let ends = before.iter().filter_map(|(id, fid, lock)| {
            // Pages that may be stored to are taken back only with that right:
            // they are written first, which the box takes when it has recovered.
            let is_written = |k: &LockGrant| k.fid == *fid && k.extent.contains(lock.extent);
            let left = match kept.iter().any(is_written) {
                true => stays(lock).with(Bits::DATA),
                false => stays(lock),
            };
            let bits = lock.bits.without(left);
            (!bits.is_empty()).then_some(Ending {
                lock: *id,
                fid: *fid,
                bits,
                extent: lock.extent,
                mode: lock.mode,
            })
        });
        (ends.collect(), kept)
    }

    /// Nothing is held any more.
    pub fn clear(&mut self) {
        self.locks.clear();
        self.files.clear();
        self.pins.clear();
        self.going = 0;
    }

    /// Locks that something may rest on.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.locks.len().saturating_sub(self.going)
    }

    /// All that the box may know of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.locks.len()
    }
}

fn bits_of<'a>(locks: impl Iterator<Item = &'a Lock>) -> Bits {
    locks.fold(Bits::NONE, |all, lock| {
        let bits = match lock.extent == Extent::ALL {
            true => lock.bits,
            false => lock.bits.without(Bits::DATA),
        };
        all.with(bits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cached::known::Known;

    fn grant(lock: LockId, n: u32, bits: Bits) -> LockGrant {
        LockGrant {
            lock,
            fid: Fid::new(1, n),
            mode: Mode::Pr,
            bits,
            extent: Extent::ALL,
        }
    }

    /// L1: a callback that overtakes its grant is kept for it.
    #[test]
    fn a_callback_for_a_grant_in_flight_finds_it_l1() {
        let mut held = Held::default();
        let first = held.ask(3);
        let second = LockId(first.0 + 1);
        assert_eq!(
            held.on_called(second, Bits::UPDATE, Mono::default()),
            Called::Pending
        );
        let all = Bits::LOOKUP.with(Bits::ATTRS);
        assert_eq!(held.on_grant(&grant(first, 1, all), Came::default()), None);
        let ending = held
            .on_grant(&grant(second, 2, all), Came::default())
            .expect("called");
        assert_eq!((ending.lock, ending.bits), (second, Bits::UPDATE));
        assert_eq!(held.bits(Fid::new(1, 2)), Bits::LOOKUP.with(Bits::PERM));
        assert_eq!(held.bits(Fid::new(1, 1)), all);
    }

    #[test]
    fn a_lock_ends_bit_by_bit_and_each_once() {
        let mut held = Held::default();
        let lock = held.ask(1);
        held.on_grant(&grant(lock, 1, Bits::ATTRS), Came::default());
        let Called::Ends(one) = held.on_called(lock, Bits::UPDATE, Mono::default()) else {
            panic!("it is held");
        };
        assert_eq!(
            held.on_called(lock, Bits::UPDATE, Mono::default()),
            Called::Ending
        );
        let Called::Ends(two) = held.on_called(lock, Bits::ALL, Mono::default()) else {
            panic!("PERM is held");
        };
        assert_eq!(two.bits, Bits::PERM);
        assert_eq!(held.in_use(), 0);
        held.on_ended(two.lock, two.bits);
        assert_eq!(held.len(), 1, "UPDATE is still being given up");
        held.on_ended(one.lock, one.bits);
        assert_eq!(held.len(), 0);
        assert!(held.files.is_empty());
    }

    /// What was asked for before a lock came, by another request, may have been
    /// answered before it was granted, and be older.
    #[test]
    fn an_answer_rests_on_locks_that_were_there_or_came_with_it() {
        let mut known = Known::default();
        let mut held = Held::default();
        let (early, late) = (known.ask(), held.ask(1));
        let at = known.arrive();
        let fid = Fid::new(1, 1);
        held.on_grant(&grant(late, 1, Bits::UPDATE), Came { at, fill: 0 });
        let under = |asked, came| held.bits_under(fid, Rests { asked, came });
        assert_eq!(under(early, early), Bits::NONE);
        assert_eq!(under(early, at), Bits::UPDATE, "it brought the lock");
        let next = known.ask();
        assert_eq!(under(next, next), Bits::UPDATE);
    }

    #[test]
    fn a_callback_for_nothing_is_told_so() {
        let mut held = Held::default();
        let lock = held.ask(1);
        let want = LockWant {
            lock,
            of: crate::wire::locks::Of::Object,
            mode: Mode::Pr,
            bits: Bits::NONE,
            try_bits: Bits::ATTRS,
            extent: Extent::ALL,
        };
        held.on_answered(&[want]);
        assert_eq!(
            held.on_called(lock, Bits::ALL, Mono::default()),
            Called::Unknown
        );
        assert_eq!(
            held.on_called(LockId(999), Bits::ALL, Mono::default()),
            Called::Unknown
        );
    }

    /// L13, L10: only what bytes stored above depend on outlives a restart.
    #[test]
    fn the_right_to_write_is_kept_over_a_restart_l13() {
        let mut held = Held::default();
        let (a, b) = (held.ask(1), held.ask(1));
        held.on_grant(&grant(a, 1, Bits::ATTRS), Came::default());
        held.on_grant(
            &LockGrant {
                mode: Mode::Pw,
                ..grant(b, 1, Bits::DATA)
            },
            Came::default(),
        );
        let (ends, kept) = held.keep_writing();
        assert_eq!(ends.len(), 1);
        assert_eq!((kept[0].lock, kept.len()), (b, 1));
        assert!(held.covers_data(Fid::new(1, 1), Mode::Pr, Extent::ALL));
        assert_eq!(held.bits(Fid::new(1, 1)), Bits::DATA);
    }

    /// What takes pages back waits for their writes, and those for the box: the
    /// right to write is claimed although it is being given up, and no other
    /// lock's end takes its pages back.
    #[test]
    fn a_right_to_write_that_is_being_given_up_is_claimed_too_l13() {
        let mut held = Held::default();
        let (a, b) = (held.ask(1), held.ask(1));
        held.on_grant(&grant(a, 1, Bits::DATA.with(Bits::PERM)), Came::default());
        held.on_grant(
            &LockGrant {
                mode: Mode::Pw,
                ..grant(b, 1, Bits::DATA)
            },
            Came::default(),
        );
        let Called::Ends(ending) = held.on_called(b, Bits::DATA, Mono::default()) else {
            panic!("it is held");
        };
        let (ends, kept) = held.keep_writing();
        assert_eq!(kept.iter().map(|k| k.lock).collect::<Vec<_>>(), [b]);
        assert_eq!(
            ends.iter().map(|e| e.bits).collect::<Vec<_>>(),
            [Bits::PERM]
        );
        assert!(!held.covers_data(Fid::new(1, 1), Mode::Pr, Extent::ALL));
        assert_eq!(
            held.on_called(b, Bits::DATA, Mono::default()),
            Called::Ending
        );
        held.on_ended(ending.lock, ending.bits);
        assert_eq!(held.len(), 0);
    }
}
