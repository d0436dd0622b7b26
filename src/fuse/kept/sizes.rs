//! How long the kernel takes files to be: as it was told last, or has made them
//! itself. It is told of others' growth by a byte stored at the new end (C17),
//! and must not be where it knows: what it has there may be newer than what the
//! box could say, and a change of its own under way decides the size anyway.

use crate::base::NumberMap;
use crate::world::sync::Signal;
use std::rc::Rc;

#[derive(Default)]
pub struct Sizes {
    nodes: NumberMap<Size>,
    /// A change of size, or a store, has ended.
    pub ended: Rc<Signal>,
}

#[derive(Default)]
struct Size {
    told: Option<u64>,
    /// Changes of its size by this mount that are under way, and how many have
    /// begun or ended.
    changing: u32,
    changes: u64,
    /// Bytes that are being stored at a new end.
    storing: u32,
}

impl Sizes {
    /// A reply tells the kernel that the file has this size.
    pub fn tell(&mut self, nodeid: u64, size: u64) {
        self.nodes.entry(nodeid).or_default().told = Some(size);
    }

    /// The kernel has written up to `end`.
    pub fn reach(&mut self, nodeid: u64, end: u64) {
        let size = self.nodes.entry(nodeid).or_default();
        size.told = size.told.max(Some(end));
    }

    /// The kernel changes the size: until [`Sizes::changed`], nobody knows it.
    pub fn change(&mut self, nodeid: u64) {
        let size = self.nodes.entry(nodeid).or_default();
        size.changing += 1;
        size.changes += 1;
    }

    pub fn changed(&mut self, nodeid: u64) {
        if let Some(size) = self.nodes.get_mut(&nodeid) {
            size.changing = size.changing.saturating_sub(1);
            size.changes += 1;
        }
        self.ended.notify();
    }

    #[must_use]
    pub fn is_changing(&self, nodeid: u64) -> bool {
        self.nodes
            .get(&nodeid)
            .is_some_and(|size| size.changing > 0)
    }

    /// Counts changes of the size that began or ended.
    #[must_use]
    pub fn changes(&self, nodeid: u64) -> u64 {
        self.nodes.get(&nodeid).map_or(0, |size| size.changes)
    }

    /// Does the kernel take the file for shorter, as far as is known?
    #[must_use]
    pub fn is_below(&self, nodeid: u64, end: u64) -> bool {
        let told = self.nodes.get(&nodeid).and_then(|size| size.told);
        told.is_none_or(|told| told < end)
    }

    pub fn store(&mut self, nodeid: u64, end: u64) {
        self.nodes.entry(nodeid).or_default().storing += 1;
        self.reach(nodeid, end);
    }

    pub fn stored(&mut self, nodeid: u64) {
        if let Some(size) = self.nodes.get_mut(&nodeid) {
            size.storing = size.storing.saturating_sub(1);
        }
        self.ended.notify();
    }

    #[must_use]
    pub fn is_storing(&self, nodeid: u64) -> bool {
        self.nodes.get(&nodeid).is_some_and(|size| size.storing > 0)
    }

    pub fn forget(&mut self, nodeid: u64) {
        self.nodes.remove(&nodeid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_what_it_was_told_and_what_it_did() {
        let mut sizes = Sizes::default();
        assert!(sizes.is_below(1, 1), "nothing is known");
        sizes.tell(1, 100);
        assert!(!sizes.is_below(1, 100) && sizes.is_below(1, 101));
        sizes.reach(1, 50);
        sizes.reach(1, 200);
        assert!(!sizes.is_below(1, 200));
        sizes.tell(1, 10);
        assert!(sizes.is_below(1, 11), "it was cut");
        sizes.store(1, 20);
        assert!(sizes.is_storing(1) && !sizes.is_below(1, 20));
        sizes.stored(1);
        assert!(!sizes.is_storing(1));
        sizes.forget(1);
        assert!(sizes.is_below(1, 1));
    }

    #[test]
    fn changes_are_seen_while_they_last_and_afterwards() {
        let mut sizes = Sizes::default();
        let before = sizes.changes(1);
        sizes.change(1);
        assert!(sizes.is_changing(1));
        sizes.changed(1);
        assert!(!sizes.is_changing(1) && sizes.changes(1) != before);
    }
}
