//! The names that the kernel was given, and the ones it was told are not there.

use crate::base::{Mono, Name, NumberMap};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// Names by directory, and by what they lead to. Positive ones are bounded by
/// the nodes that the kernel holds, negative ones by [`ABSENT_MAX`].
#[derive(Default, Debug)]
pub struct Names {
    dirs: NumberMap<HashMap<Rc<Name>, Given>>,
    /// The names of each node. May list some that were given anew to another.
    of: NumberMap<Vec<(u64, Rc<Name>)>>,
    absent: usize,
    last: u64,
    /// Counts raises of the dentry epoch: what was given before one is over.
    epoch: u64,
    /// The names in each open directory's last answer, which the kernel may
    /// not have taken in yet.
    listed: NumberMap<Listed>,
    /// Where names that were moved are now, by their serials.
    moved: NumberMap<(u64, Rc<Name>)>,
}

#[derive(Default, Debug)]
struct Listed {
    turn: u64,
    names: Vec<(u64, Rc<Name>)>,
}

/// What a name was said to be.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// 0: not there.
    nodeid: u64,
    until: Mono,
    serial: u64,
    epoch: u64,
    listing: Option<Turn>,
}

/// One answer to one open directory's READDIRPLUS. What it tells becomes part
/// of the kernel's cache at the epoch when it is taken in, which is proved by
/// the next request of the same open directory only: until then, a raise of the
/// epoch ends nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub fh: u64,
    pub turn: u64,
}

/// A name that is believed, as one answer gave it.
#[derive(Clone, Debug)]
pub struct Held {
    pub parent: u64,
    pub name: Rc<Name>,
    /// What it leads to; 0: to nothing.
    pub nodeid: u64,
    pub until: Mono,
    pub listing: Option<Turn>,
    serial: u64,
}

impl Names {
    /// The kernel is told that `name` of `parent` leads to `nodeid` (0: to
    /// nothing), until `until`.
    pub fn give(
        &mut self,
        parent: u64,
        name: &Name,
        nodeid: u64,
        until: Mono,
        listing: Option<Turn>,
    ) {
        self.last += 1;
        let given = Given {
            nodeid,
            until,
            serial: self.last,
            epoch: self.epoch,
            listing,
        };
        self.put(parent, name, given);
    }

    /// Returns the name as it is kept.
    fn put(&mut self, parent: u64, name: &Name, given: Given) -> Rc<Name> {
        let Given {
            nodeid, listing, ..
        } = given;
        let dir = self.dirs.entry(parent).or_default();
        let (key, old) = match dir.get_key_value(name) {
            Some((key, old)) => (Rc::clone(key), Some(*old)),
            None => (Rc::new(name.clone()), None),
        };
        dir.insert(Rc::clone(&key), given);
        if let Some(turn) = listing {
            let listed = self.listed.entry(turn.fh).or_default();
            listed.turn = turn.turn;
            listed.names.push((parent, Rc::clone(&key)));
        }
        let was_absent = old.is_some_and(|old| old.nodeid == 0);
        self.absent += usize::from(nodeid == 0);
        self.absent -= usize::from(was_absent);
        if let Some(old) = old {
            self.moved.remove(&old.serial);
        }
        if old.is_some_and(|old| old.nodeid == nodeid) {
            return key;
        }
        if let Some(old) = old.filter(|old| old.nodeid != 0) {
            self.strike(old.nodeid, parent, name);
        }
        if nodeid != 0 {
            let names = self.of.entry(nodeid).or_default();
            names.push((parent, Rc::clone(&key)));
        }
        key
    }

    /// Is there room for another name that is not there?
    pub fn has_room(&mut self, now: Mono) -> bool {
        if self.absent >= ABSENT_MAX {
            let epoch = self.epoch;
            let over = |g: &Given| g.nodeid == 0 && (g.until <= now || g.epoch != epoch);
            self.dirs.retain(|_, dir| {
                dir.retain(|_, given| !over(given));
                !dir.is_empty()
            });
            let all = self.dirs.values().flat_map(HashMap::values);
            self.absent = all.filter(|given| given.nodeid == 0).count();
        }
        self.absent < ABSENT_MAX
    }

    /// The names that lead to `nodeid`.
    #[must_use]
    pub fn of(&self, nodeid: u64) -> Vec<Held> {
        let keys = self.of.get(&nodeid).into_iter().flatten();
        let held = keys.filter_map(|(parent, name)| {
            let given = self.dirs.get(parent)?.get(name)?;
            (given.nodeid == nodeid).then(|| held(*parent, name, given))
        });
        held.collect()
    }

    /// The names that are not in `dir`.
    #[must_use]
    pub fn absent_in(&self, dir: u64) -> Vec<Held> {
        let all = self.dirs.get(&dir).into_iter().flatten();
        let absent = all.filter(|(_, given)| given.nodeid == 0);
        in_order(absent.map(|(name, given)| held(dir, name, given)))
    }

    /// All names.
    #[must_use]
    pub fn all(&self) -> Vec<Held> {
        let dirs = self.dirs.iter();
        in_order(
            dirs.flat_map(|(dir, names)| names.iter().map(|(name, given)| held(*dir, name, given))),
        )
    }

    /// May the kernel still believe it? Not if it has expired, was forgotten, or
    /// given anew, nor since the epoch was raised.
    #[must_use]
    pub fn is_believed(&self, held: &Held, now: Mono) -> bool {
        self.place(held, now).is_some()
    }

    /// Where the kernel believes it now: this mount may have moved it since.
    #[must_use]
    pub fn place(&self, held: &Held, now: Mono) -> Option<(u64, Rc<Name>)> {
        let at = (held.parent, Rc::clone(&held.name));
        let at = self.moved.get(&held.serial).cloned().unwrap_or(at);
        let given = self.dirs.get(&at.0)?.get(&at.1)?;
        let is_good = given.serial == held.serial && given.until > now && given.epoch == self.epoch;
        is_good.then_some(at)
    }

    /// The dentry epoch was raised. Answers to listings that are not known to be
    /// taken in yet may bring their names to life at the new one.
    pub fn raise(&mut self) {
        let before = self.epoch;
        self.epoch += 1;
        for (fh, listed) in &self.listed {
            let (fh, turn) = (*fh, listed.turn);
            for (parent, name) in &listed.names {
                let given = self.dirs.get_mut(parent).and_then(|dir| dir.get_mut(name));
                let is_of = |g: &&mut Given| g.listing == Some(Turn { fh, turn });
                if let Some(given) = given.filter(is_of).filter(|g| g.epoch == before) {
                    given.epoch = self.epoch;
                }
            }
        }
    }

    /// Is the name in an answer to a listing that is not known to be taken in,
    /// other than through `by`? Whatever another reply says of it, that one may
    /// come later.
    #[must_use]
    pub fn is_listed(&self, parent: u64, name: &Name, by: Option<Turn>) -> bool {
        let given = self.dirs.get(&parent).and_then(|dir| dir.get(name));
        let turn = given.and_then(|given| given.listing);
        let turn = turn.filter(|turn| by.is_none_or(|by| by.fh != turn.fh));
        turn.is_some_and(|turn| {
            self.listed
                .get(&turn.fh)
                .is_some_and(|l| l.turn == turn.turn)
        })
    }

    /// The kernel has taken in the last answer of the open directory `fh`, or
    /// has closed it.
    pub fn taken_in(&mut self, fh: u64) {
        self.listed.remove(&fh);
    }

    /// The kernel no longer believes `held` where it was.
    pub fn drop_at(&mut self, held: &Held, (parent, name): (u64, &Name)) {
        let dir = self.dirs.get(&parent);
        let same = dir.and_then(|dir| dir.get(name));
        if same.is_some_and(|given| given.serial == held.serial) {
            self.remove(parent, name);
        }
    }

    /// All names are believed for so much longer.
    pub(super) fn postpone(&mut self, by: Duration) {
        for given in self.dirs.values_mut().flat_map(HashMap::values_mut) {
            given.until = given.until + by;
        }
    }

    /// The name was removed by this mount; the kernel knows.
    pub fn remove(&mut self, parent: u64, name: &Name) {
        let Some(dir) = self.dirs.get_mut(&parent) else {
            return;
        };
        let Some(given) = dir.remove(name) else {
            return;
        };
        if dir.is_empty() {
            self.dirs.remove(&parent);
        }
        self.moved.remove(&given.serial);
        match given.nodeid {
            0 => self.absent -= 1,
            nodeid => self.strike(nodeid, parent, name),
        }
    }

    /// The name was moved by this mount: the kernel goes on believing it, at
    /// its new place, and whoever takes it back must follow it there. With
    /// `exchange`, both have moved. Listings of the directories were taken in
    /// before: the kernel had them locked.
    pub fn moved(&mut self, from: (u64, &Name), to: (u64, &Name), exchange: bool) {
        let first = self.take(from.0, from.1);
        let second = self.take(to.0, to.1);
        let mut settle = |given: Option<Given>, (parent, name): (u64, &Name)| {
            if let Some(given) = given.filter(|given| given.nodeid != 0) {
                let listing = None;
                let key = self.put(parent, name, Given { listing, ..given });
                self.moved.insert(given.serial, (parent, key));
            }
        };
        settle(first, to);
        settle(second.filter(|_| exchange), from);
    }

    /// The node is unknown to the kernel: no name leads to it, and it has none.
    pub fn forget(&mut self, nodeid: u64) {
        for (parent, name) in self.of.remove(&nodeid).into_iter().flatten() {
            if let Some(dir) = self.dirs.get_mut(&parent)
                && let Some(given) = dir.get(&name).filter(|given| given.nodeid == nodeid)
            {
                self.moved.remove(&given.serial);
                dir.remove(&name);
                if dir.is_empty() {
                    self.dirs.remove(&parent);
                }
            }
        }
        if let Some(dir) = self.dirs.remove(&nodeid) {
            for given in dir.values() {
                self.moved.remove(&given.serial);
            }
            self.absent -= dir.values().filter(|given| given.nodeid == 0).count();
        }
    }

    fn take(&mut self, parent: u64, name: &Name) -> Option<Given> {
        let given = *self.dirs.get(&parent)?.get(name)?;
        self.remove(parent, name);
        Some(given)
    }

    fn strike(&mut self, nodeid: u64, parent: u64, name: &Name) {
        if let Some(keys) = self.of.get_mut(&nodeid) {
            keys.retain(|(dir, key)| *dir != parent || **key != *name);
            if keys.is_empty() {
                self.of.remove(&nodeid);
            }
        }
    }
}

/// As they were given.
fn in_order(names: impl Iterator<Item = Held>) -> Vec<Held> {
    let mut all: Vec<Held> = names.collect();
    all.sort_unstable_by_key(|held| held.serial);
    all
}

fn held(parent: u64, name: &Rc<Name>, given: &Given) -> Held {
    Held {
        parent,
        name: Rc::clone(name),
        nodeid: given.nodeid,
        until: given.until,
        listing: given.listing,
        serial: given.serial,
    }
}

/// Names that are not there, of all directories; further ones are not kept.
pub const ABSENT_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a name")
    }

    #[test]
    fn names_follow_what_they_lead_to() {
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let mut names = Names::default();
        names.give(1, &a, 7, Mono(10), None);
        names.give(1, &b, 7, Mono(10), None);
        assert_eq!(names.of(7).len(), 2);
        names.give(1, &a, 8, Mono(10), None);
        assert_eq!((names.of(7).len(), names.of(8).len()), (1, 1));
        names.moved((1, &a), (2, &c), false);
        assert_eq!((names.of(8)[0].parent, &*names.of(8)[0].name), (2, &c));
        names.moved((2, &c), (1, &b), true);
        assert_eq!((names.of(8)[0].parent, names.of(7)[0].parent), (1, 2));
        names.forget(8);
        assert!(names.of(8).is_empty() && names.of(7).len() == 1);
        names.forget(2);
        assert!(names.of(7).is_empty(), "its directory is gone");
    }

    #[test]
    fn a_name_stands_until_it_expires_is_raised_or_given_anew() {
        let a = name("a");
        let mut names = Names::default();
        names.give(1, &a, 0, Mono(10), None);
        let held = names.absent_in(1).remove(0);
        assert!(names.is_believed(&held, Mono(9)));
        assert!(!names.is_believed(&held, Mono(10)));
        names.raise();
        assert!(!names.is_believed(&held, Mono(9)));
        names.give(1, &a, 5, Mono(10), None);
        assert!(!names.is_believed(&held, Mono(9)));
        assert!(names.absent_in(1).is_empty());
        names.drop_at(&held, (1, &a));
        assert_eq!(names.of(5).len(), 1, "the later one stays");
    }

    #[test]
    fn a_name_is_believed_where_it_was_moved() {
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let mut names = Names::default();
        names.give(1, &a, 7, Mono(10), None);
        names.give(1, &b, 8, Mono(10), None);
        let (first, second) = (names.of(7).remove(0), names.of(8).remove(0));
        names.moved((1, &a), (2, &c), false);
        names.moved((2, &c), (1, &b), true);
        names.moved((1, &b), (3, &b), false);
        let place = |names: &Names, held| {
            names
                .place(held, Mono(9))
                .map(|(dir, n)| (dir, (*n).clone()))
        };
        assert_eq!(place(&names, &first), Some((3, b.clone())));
        assert_eq!(place(&names, &second), Some((2, c.clone())));
        names.drop_at(&first, (1, &a));
        assert!(names.is_believed(&first, Mono(9)), "not where it was");
        names.drop_at(&first, (3, &b));
        assert!(!names.is_believed(&first, Mono(9)));
        names.remove(2, &c);
        assert!(names.moved.is_empty() && names.dirs.is_empty());
    }

    /// An answer to a listing is taken in after the epoch was raised, and so at
    /// the new one.
    #[test]
    fn what_was_listed_outlives_an_epoch_until_it_is_known_to_be_taken_in() {
        let (a, b) = (name("a"), name("b"));
        let mut names = Names::default();
        names.give(1, &a, 7, Mono(10), Some(Turn { fh: 3, turn: 1 }));
        names.give(1, &b, 8, Mono(10), None);
        names.raise();
        let (listed, other) = (names.of(7).remove(0), names.of(8).remove(0));
        assert!(names.is_believed(&listed, Mono(9)));
        assert!(!names.is_believed(&other, Mono(9)));
        assert!(names.is_listed(1, &a, None) && !names.is_listed(1, &b, None));
        let own = Turn { fh: 3, turn: 2 };
        let other_listing = Turn { fh: 4, turn: 1 };
        assert!(!names.is_listed(1, &a, Some(own)));
        assert!(names.is_listed(1, &a, Some(other_listing)));
        names.taken_in(3);
        assert!(!names.is_listed(1, &a, None));
        assert!(
            names.is_believed(&listed, Mono(9)),
            "at the new epoch, perhaps"
        );
        names.raise();
        assert!(!names.is_believed(&listed, Mono(9)));
    }

    #[test]
    fn names_that_are_not_there_are_bounded() {
        let mut names = Names::default();
        for i in 0..ABSENT_MAX {
            assert!(names.has_room(Mono(1)));
            names.give(i as u64 % 5, &name(&i.to_string()), 0, Mono(5), None);
        }
        assert!(!names.has_room(Mono(1)));
        assert!(names.has_room(Mono(5)), "expired ones make room");
        assert!(names.dirs.is_empty());
    }
}
