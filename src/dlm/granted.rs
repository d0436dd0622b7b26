//! The granted locks of one file. Most files have one; a few have some, by one
//! client; the root directory has one for each client. So one lies in place,
//! some in a vector, and many in a tree with a census that tells without a walk
//! that nothing is in the way.
//!
//! Always in the order of (holder, id), so that effects do not depend on which
//! of the three it is.

use super::bounds::OWN;
use super::conflict::Shape;
use super::request::{Grant, Holder};
use crate::base::{Bits, Extent, Fid, LockId, Mode};
use std::collections::BTreeMap;
use std::collections::btree_map;

/// One granted lock.
#[derive(Clone, Copy, Debug)]
pub struct Lock {
    pub holder: Holder,
    pub id: LockId,
    extent: Extent,
    group: u32,
    mode: Mode,
    bits: u8,
}

// Most of what a cached file costs, many times over.
const _: () = assert!(size_of::<Lock>() == 40);

impl Lock {
    #[must_use]
    pub fn new(holder: Holder, id: LockId, shape: &Shape) -> Lock {
        Lock {
            holder,
            id,
            extent: shape.extent,
            group: shape.group,
            mode: shape.mode,
            bits: (shape.bits.set & Bits::ALL.set) as u8,
        }
    }
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            mode: self.mode,
            bits: self.bits(),
            extent: self.extent,
            group: self.group,
        }
    }
    #[must_use]
    pub fn bits(&self) -> Bits {
        Bits {
            set: u64::from(self.bits),
        }
    }
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.id.0 & OWN != 0
    }
    #[must_use]
    pub fn grant(&self, fid: Fid) -> Grant {
        Grant {
            lock: self.id,
            fid,
            mode: self.mode,
            bits: self.bits(),
            extent: self.extent,
        }
    }
    fn key(&self) -> Key {
        (self.holder, self.id)
    }
}

type Key = (Holder, LockId);

/// All of them, each (holder, id) once.
#[derive(Debug, Default)]
pub enum Granted {
    #[default]
    None,
    One(Lock),
    /// Sorted.
    Few(Vec<Lock>),
    Many(Box<Many>),
}

/// More than so many go into a tree; it goes back to a vector at half of that.
const FEW_MAX: usize = 12;

impl Granted {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Granted::None)
    }

    pub fn insert(&mut self, lock: Lock) {
        match self {
            Granted::None => *self = Granted::One(lock),
            Granted::One(first) => {
                let mut few = Vec::with_capacity(2);
                few.push(*first);
                few.insert(usize::from(first.key() < lock.key()), lock);
                *self = Granted::Few(few);
            }
            Granted::Few(few) if few.len() < FEW_MAX => {
                let place = few.partition_point(|l| l.key() < lock.key());
                few.insert(place, lock);
            }
            Granted::Few(few) => {
                let mut many = Box::<Many>::default();
                for lock in few.drain(..).chain([lock]) {
                    many.insert(lock);
                }
                *self = Granted::Many(many);
            }
            Granted::Many(many) => many.insert(lock),
        }
    }

    pub fn remove(&mut self, holder: Holder, id: LockId) -> Option<Lock> {
        let key = (holder, id);
        match self {
            Granted::None => None,
            Granted::One(lock) => {
                let lock = *lock;
                if lock.key() != key {
                    return None;
                }
                *self = Granted::None;
                Some(lock)
            }
            Granted::Few(few) => {
                let place = few.binary_search_by_key(&key, Lock::key).ok()?;
                let lock = few.remove(place);
                if let [last] = few[..] {
                    *self = Granted::One(last);
                }
                Some(lock)
            }
            Granted::Many(many) => {
                let lock = many.remove(key)?;
                if many.locks.len() <= FEW_MAX / 2 {
                    *self = Granted::Few(many.locks.values().copied().collect());
                }
                Some(lock)
            }
        }
    }

    #[must_use]
    pub fn find(&self, holder: Holder, id: LockId) -> Option<&Lock> {
        match self {
            Granted::Many(many) => many.locks.get(&(holder, id)),
            _ => {
                let few = self.slice();
                let place = few.binary_search_by_key(&(holder, id), Lock::key).ok()?;
                few.get(place)
            }
        }
    }

    /// All, in the order of (holder, id).
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        match self {
            Granted::Many(many) => Iter::Tree(many.locks.range((Holder(0), LockId(0))..)),
            _ => Iter::Slice(self.slice().iter()),
        }
    }

    /// Those of one holder, in the order of their ids.
    #[must_use]
    pub fn of(&self, holder: Holder) -> Iter<'_> {
        match self {
            Granted::Many(many) => {
                let all = (holder, LockId(0))..=(holder, LockId(u64::MAX));
                Iter::Tree(many.locks.range(all))
            }
            _ => {
                let few = self.slice();
                let from = few.partition_point(|l| l.holder < holder);
                let to = few.partition_point(|l| l.holder <= holder);
                Iter::Slice(few[from..to].iter())
            }
        }
    }

    /// Those of other holders that keep out `shape`, in order.
    pub fn in_way_of(&self, holder: Holder, shape: Shape) -> impl Iterator<Item = &Lock> {
        let worth = match self {
            Granted::Many(many) => many.census.has_conflict(&shape),
            _ => true,
        };
        let all = if worth {
            self.iter()
        } else {
            Iter::Slice([].iter())
        };
        all.filter(move |l| l.holder != holder && l.shape().conflicts(&shape))
    }

    fn slice(&self) -> &[Lock] {
        match self {
            Granted::None | Granted::Many(_) => &[],
            Granted::One(lock) => std::slice::from_ref(lock),
            Granted::Few(few) => few,
        }
    }
}

/// Granted locks, wherever they lie.
pub enum Iter<'a> {
    Slice(std::slice::Iter<'a, Lock>),
    Tree(btree_map::Range<'a, Key, Lock>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Lock;
    fn next(&mut self) -> Option<&'a Lock> {
        match self {
            Iter::Slice(slice) => slice.next(),
            Iter::Tree(tree) => tree.next().map(|(_, lock)| lock),
        }
    }
}

/// A tree of locks, and how many of them have each bit in each mode.
#[derive(Debug, Default)]
pub struct Many {
    locks: BTreeMap<Key, Lock>,
    census: Census,
}

impl Many {
    fn insert(&mut self, lock: Lock) {
        self.census.count(&lock, true);
        self.locks.insert(lock.key(), lock);
    }
    fn remove(&mut self, key: Key) -> Option<Lock> {
        let lock = self.locks.remove(&key)?;
        self.census.count(&lock, false);
        Some(lock)
    }
}

const MODES: usize = Mode::ALL.len();
const BITS: usize = Bits::ALL.set.count_ones() as usize;

/// Whose locks they are, their bytes and their groups do not count here, so it
/// only ever errs by finding a conflict where there is none.
#[derive(Debug, Default)]
struct Census {
    counts: [[u32; BITS]; MODES],
}

impl Census {
    fn count(&mut self, lock: &Lock, is_new: bool) {
        let row = &mut self.counts[place(lock.mode)];
        for (bit, count) in row.iter_mut().enumerate() {
            if lock.bits & (1 << bit) != 0 {
                *count = if is_new { *count + 1 } else { *count - 1 };
            }
        }
    }

    fn has_conflict(&self, shape: &Shape) -> bool {
        // DATA of writers meets UPDATE.
        let mut reach = shape.bits;
        if reach.has(Bits::UPDATE) {
            reach = reach.with(Bits::DATA);
        }
        if shape.writes_data() {
            reach = reach.with(Bits::UPDATE);
        }
        Mode::ALL.iter().any(|mode| {
            let meets = *mode == Mode::Group || !mode.is_compatible(shape.mode);
            meets && self.bits_in(*mode).and(reach) != Bits::NONE
        })
    }

    fn bits_in(&self, mode: Mode) -> Bits {
        let row = self.counts[place(mode)].iter().enumerate();
        let set = row.filter(|(_, n)| **n > 0).map(|(bit, _)| 1u64 << bit);
        Bits { set: set.sum() }
    }
}

/// The modes' numbers are powers of two.
fn place(mode: Mode) -> usize {
    (mode as u8).trailing_zeros() as usize
}
