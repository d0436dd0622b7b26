//! What a client remembers of names and attributes, pure. It says nothing of
//! whether it may be believed: that is `held`'s.
//!
//! A client's own changes are not called back. An answer about names is taken in
//! only if nothing that the client itself did in the directory could be missing
//! in it: every own change takes a number when it begins and another when it
//! ends, and an answer counts only if it was asked for after the last of the
//! directory's. Attributes have versions, and never go back.

use crate::base::{Attr, Bits, Fid, FidMap, Name};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Names of one directory that are remembered as absent.
const ABSENT_MAX: usize = 4096;

/// Own changes that are remembered one by one; older answers than the oldest
/// of these are not taken in at all.
const DISTURBED_MAX: usize = 4096;

#[derive(Debug, Default)]
struct Node {
    attr: Option<Attr>,
    /// Names that lead here.
    names: Vec<(Fid, Name)>,
    /// Of a directory: names that are not there.
    absent: BTreeSet<Name>,
    /// Asked for since reclaim last came by.
    used: bool,
}

/// What the client itself did to a file.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    /// Number of the last change of its names, for a directory.
    change: u64,
    /// The version that its last change left.
    version: u64,
}

/// When an answer was asked for, or a lock came, in numbers of own changes and
/// of answers that brought locks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked(u64);

#[derive(Debug, Default)]
pub struct Known {
    nodes: FidMap<Node>,
    names: BTreeMap<(Fid, Name), Fid>,
    /// Files in the order in which reclaim comes by.
    queue: VecDeque<Fid>,
    /// The last own change of each file.
    disturbed: BTreeMap<Fid, Own>,
    changes: u64,
    /// Answers asked for before this number may lack anything.
    floor: u64,
}

impl Known {
    /// A question is asked now.
    #[must_use]
    pub fn ask(&self) -> Asked {
        Asked(self.changes)
    }

    /// Locks have come: whatever is asked from now on is answered under them.
    pub fn arrive(&mut self) -> Asked {
        self.changes += 1;
        Asked(self.changes)
    }

    fn own(&mut self, fid: Fid) -> &mut Own {
        self.changes += 1;
        if self.disturbed.len() >= DISTURBED_MAX {
            self.disturbed.clear();
            self.floor = self.changes;
        }
        self.disturbed.entry(fid).or_default()
    }

    /// The client begins, or has ended, a change of names in `dir`.
    pub fn disturb(&mut self, dir: Fid) {
        let change = self.changes + 1;
        self.own(dir).change = change;
    }

    /// The client's own change left the file like this. What is known of it from
    /// before is over, even if this answer is too old to be taken in itself.
    pub fn on_own(&mut self, fid: Fid, attr: &Attr) {
        let own = self.own(fid);
        own.version = own.version.max(attr.version);
        // Older ones are over, also where this answer is not taken in.
        if let Some(node) = self.nodes.get_mut(&fid) {
            node.attr.take_if(|old| old.version < attr.version);
        }
    }

    /// Can an answer that was asked for then lack no own change of names in
    /// `dir`?
    pub fn is_fresh(&self, dir: Fid, asked: Asked) -> bool {
        let own = self.disturbed.get(&dir).copied().unwrap_or_default();
        asked.0 >= own.change && asked.0 >= self.floor
    }

    fn node(&mut self, fid: Fid) -> &mut Node {
        let queue = &mut self.queue;
        self.nodes.entry(fid).or_insert_with(|| {
            queue.push_back(fid);
            Node::default()
        })
    }

    /// An answer showed the attributes of `fid`.
    pub fn on_attr(&mut self, fid: Fid, attr: &Attr, asked: Asked) {
        let own = self.disturbed.get(&fid).copied().unwrap_or_default();
        if attr.version < own.version || asked.0 < self.floor {
            return;
        }
        let node = self.node(fid);
        let is_newer = |old: &Attr| attr.version >= old.version;
        if node.attr.as_ref().is_none_or(is_newer) {
            node.attr = Some(attr.clone());
        }
    }

    /// An answer showed that `name` leads to `fid`.
    pub fn on_name(&mut self, dir: Fid, name: &Name, fid: Fid, asked: Asked) {
        if !self.is_fresh(dir, asked) {
            return;
        }
        match self.names.insert((dir, name.clone()), fid) {
            Some(old) if old == fid => return,
            Some(old) => self.strike(old, dir, name),
            None => {}
        }
        if let Some(node) = self.nodes.get_mut(&dir) {
            node.absent.remove(name);
        }
        self.node(fid).names.push((dir, name.clone()));
    }

    /// An answer showed that there is no `name`.
    pub fn on_absent(&mut self, dir: Fid, name: &Name, asked: Asked) {
        if !self.is_fresh(dir, asked) {
            return;
        }
        self.forget_name(dir, name);
        let absent = &mut self.node(dir).absent;
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(name.clone());
    }

    /// Nothing is remembered of this name any more.
    pub fn forget_name(&mut self, dir: Fid, name: &Name) {
        if let Some(fid) = self.names.remove(&(dir, name.clone())) {
            self.strike(fid, dir, name);
        }
        if let Some(node) = self.nodes.get_mut(&dir) {
            node.absent.remove(name);
        }
    }

    /// The name no longer leads to `fid`.
    fn strike(&mut self, fid: Fid, dir: Fid, name: &Name) {
        if let Some(node) = self.nodes.get_mut(&fid) {
            node.names.retain(|(d, n)| (*d, n) != (dir, name));
        }
    }

    /// What rested on these bits of `fid` is forgotten.
    pub fn forget(&mut self, fid: Fid, bits: Bits) {
        let Some(node) = self.nodes.get_mut(&fid) else {
            return;
        };
        if !bits.and(Bits::ATTRS).is_empty() {
            node.attr = None;
        }
        if bits.has(Bits::UPDATE) {
            node.absent.clear();
        }
        if bits.has(Bits::LOOKUP) {
            for key in std::mem::take(&mut node.names) {
                self.names.remove(&key);
            }
        }
        if node.attr.is_none() && node.names.is_empty() && node.absent.is_empty() {
            self.nodes.remove(&fid);
        }
    }

    pub fn clear(&mut self) {
        self.nodes.clear();
        self.names.clear();
        self.queue.clear();
        self.changes += 1;
        self.floor = self.changes;
    }

    #[must_use]
    pub fn attr(&mut self, fid: Fid) -> Option<&Attr> {
        let node = self.nodes.get_mut(&fid)?;
        node.used = true;
        node.attr.as_ref()
    }

    /// A name that leads to `fid`, and its directory.
    #[must_use]
    pub fn name_of(&self, fid: Fid) -> Option<(Fid, Name)> {
        self.nodes.get(&fid)?.names.first().cloned()
    }

    /// What the names in `dir` around this one lead to, up to `count` on each
    /// side in the order of their bytes, of those that are known.
    #[must_use]
    pub fn around(&self, dir: Fid, name: &Name, count: usize) -> Vec<Fid> {
        let key = (dir, name.clone());
        let before = self.names.range(..&key).rev();
        let here = before.take_while(|((of, _), _)| *of == dir);
        let before: Vec<Fid> = here.take(count).map(|(_, fid)| *fid).collect();
        [before, self.after(dir, name, count)].concat()
    }

    /// What the next `count` names in `dir` after this one lead to, in the order
    /// of their bytes, of those that are known.
    #[must_use]
    pub fn after(&self, dir: Fid, name: &Name, count: usize) -> Vec<Fid> {
        let from = (Bound::Excluded((dir, name.clone())), Bound::Unbounded);
        let later = self.names.range(from);
        let here = later.take_while(|((of, _), _)| *of == dir);
        here.take(count).map(|(_, fid)| *fid).collect()
    }

    #[must_use]
    pub fn name(&self, dir: Fid, name: &Name) -> Option<Fid> {
        self.names.get(&(dir, name.clone())).copied()
    }

    #[must_use]
    pub fn is_absent(&mut self, dir: Fid, name: &Name) -> bool {
        let Some(node) = self.nodes.get_mut(&dir) else {
            return false;
        };
        node.used = true;
        node.absent.contains(name)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A file that has not been asked for lately, to be forgotten; what has
    /// been gets another turn.
    pub fn idle(&mut self) -> Option<Fid> {
        for _ in 0..self.queue.len() {
            let fid = self.queue.pop_front()?;
            let Some(node) = self.nodes.get_mut(&fid) else {
                continue;
            };
            self.queue.push_back(fid);
            if !std::mem::replace(&mut node.used, false) {
                return Some(fid);
            }
        }
        self.queue.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(version: u64) -> Attr {
        Attr {
            size: version,
            version,
            ..Attr::plain(5)
        }
    }

    fn name(s: &str) -> Name {
        Name::new(s.as_bytes()).expect("a name")
    }

    const DIR: Fid = Fid {
        seq: 1,
        oid: 1,
        ver: 0,
    };
    const FILE: Fid = Fid {
        seq: 1,
        oid: 2,
        ver: 0,
    };

    #[test]
    fn an_answer_from_before_an_own_change_is_not_taken_in() {
        let mut known = Known::default();
        let early = known.ask();
        known.disturb(DIR);
        let during = known.ask();
        known.disturb(DIR);
        for asked in [early, during] {
            known.on_absent(DIR, &name("a"), asked);
            known.on_name(DIR, &name("b"), FILE, asked);
            assert!(!known.is_absent(DIR, &name("a")));
            assert_eq!(known.name(DIR, &name("b")), None);
        }
        let late = known.ask();
        known.on_absent(DIR, &name("a"), late);
        assert!(known.is_absent(DIR, &name("a")));
    }

    #[test]
    fn older_attributes_do_not_replace_newer_ones() {
        let mut known = Known::default();
        let asked = known.ask();
        known.on_attr(FILE, &attr(7), asked);
        known.on_attr(FILE, &attr(6), asked);
        assert_eq!(known.attr(FILE).map(|a| a.version), Some(7));
        // Nor if only the client's own change knows of the newer ones.
        known.forget(FILE, Bits::ALL);
        known.on_own(FILE, &attr(9));
        known.on_attr(FILE, &attr(8), asked);
        assert!(known.attr(FILE).is_none());
    }

    /// A change that was sent again to a box that restarted is answered after
    /// the attributes of before it were asked for anew.
    #[test]
    fn an_own_change_ends_what_was_known_before_it() {
        let mut known = Known::default();
        let early = known.ask();
        known.clear();
        let late = known.ask();
        known.on_attr(FILE, &attr(7), late);
        known.on_own(FILE, &attr(8));
        known.on_attr(FILE, &attr(8), early);
        assert!(
            known.attr(FILE).is_none(),
            "neither the old nor the early one"
        );
    }

    #[test]
    fn each_bit_takes_what_rests_on_it() {
        let mut known = Known::default();
        let asked = known.ask();
        known.on_attr(FILE, &attr(1), asked);
        known.on_name(DIR, &name("f"), FILE, asked);
        known.on_absent(DIR, &name("g"), asked);
        known.forget(FILE, Bits::PERM);
        assert!(known.attr(FILE).is_none());
        assert_eq!(known.name(DIR, &name("f")), Some(FILE));
        known.forget(FILE, Bits::LOOKUP);
        assert_eq!(known.name(DIR, &name("f")), None);
        known.forget(DIR, Bits::UPDATE);
        assert!(!known.is_absent(DIR, &name("g")));
        assert_eq!(known.len(), 0);
    }

    #[test]
    fn reclaim_spares_what_is_asked_for() {
        let mut known = Known::default();
        let asked = known.ask();
        known.on_attr(DIR, &attr(1), asked);
        known.on_attr(FILE, &attr(1), asked);
        let _ = known.attr(DIR);
        assert_eq!(known.idle(), Some(FILE));
    }
}
