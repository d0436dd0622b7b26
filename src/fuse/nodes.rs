//! The nodes that the kernel knows: its 64-bit numbers against our FIDs, each
//! with the count of look-ups that FORGET gives back.

use super::abi::ROOT_ID;
use crate::base::{Fid, FidMap};

/// Every node the kernel may name. A number is never used for a second FID:
/// its upper half counts how often its slot was taken, so that a stale one
/// (from an NFS handle, say) finds nothing instead of another file.
#[derive(Debug)]
pub struct Nodes {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_fid: FidMap<u32>,
}

#[derive(Debug)]
struct Slot {
    fid: Fid,
    /// `st_ino`, for the "." entry of a directory.
    ino: u64,
    lookups: u64,
    generation: u32,
}

/// What is known of a node without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub fid: Fid,
    /// 0 while no reply has told it.
    pub ino: u64,
}

impl Nodes {
    /// Only the root, which is never forgotten.
    #[must_use]
    pub fn new(root: Fid) -> Nodes {
        let slot = Slot {
            fid: root,
            ino: 0,
            lookups: 1,
            generation: 0,
        };
        Nodes {
            slots: vec![slot],
            free: Vec::new(),
            by_fid: FidMap::from_iter([(root, 0)]),
        }
    }

    /// The node of `nodeid`; None if the kernel gave it back, or never had it.
    #[must_use]
    pub fn find(&self, nodeid: u64) -> Option<Node> {
        let slot = &self.slots[self.index(nodeid)?];
        Some(Node {
            fid: slot.fid,
            ino: slot.ino,
        })
    }

    /// The number of `fid`; None if the kernel does not know it.
    #[must_use]
    pub fn number(&self, fid: Fid) -> Option<u64> {
        let index = *self.by_fid.get(&fid)?;
        Some(number(index, self.slots[index as usize].generation))
    }

    /// Counts a look-up of `fid` and returns its number. Every reply that
    /// names a node calls this once.
    pub fn remember(&mut self, fid: Fid, ino: u64) -> u64 {
        let index = match self.by_fid.get(&fid) {
            Some(&index) => index,
            None => self.take_slot(fid),
        };
        let slot = &mut self.slots[index as usize];
        slot.ino = ino;
        slot.lookups += 1;
        number(index, slot.generation)
    }

    /// Gives back `lookups` look-ups of `nodeid`. More than were counted, or a
    /// number that nobody was given, changes nothing beyond what was counted.
    /// True if it was the last.
    pub fn forget(&mut self, nodeid: u64, lookups: u64) -> bool {
        let Some(index) = self.index(nodeid) else {
            return false;
        };
        if nodeid == ROOT_ID {
            return false;
        }
        let slot = &mut self.slots[index];
        slot.lookups = slot.lookups.saturating_sub(lookups);
        if slot.lookups > 0 {
            return false;
        }
        self.by_fid.remove(&slot.fid);
        slot.fid = Fid::NONE;
        // A slot whose count of uses is full is never used again.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(slot_index(index));
        }
        true
    }

    /// How many nodes the kernel holds, the root among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_fid.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_fid.is_empty()
    }

    fn take_slot(&mut self, fid: Fid) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                fid,
                ino: 0,
                lookups: 0,
                generation: 0,
            });
            slot_index(self.slots.len() - 1)
        });
        self.slots[index as usize].fid = fid;
        self.by_fid.insert(fid, index);
        index
    }

    fn index(&self, nodeid: u64) -> Option<usize> {
        let index = (nodeid & u64::from(u32::MAX)).checked_sub(1)?;
        let index = usize::try_from(index).ok()?;
        let slot = self.slots.get(index)?;
        let live = u64::from(slot.generation) == nodeid >> 32 && slot.lookups > 0;
        live.then_some(index)
    }
}

/// The number of a slot: never 0, and [`ROOT_ID`] for the first.
fn number(index: u32, generation: u32) -> u64 {
    (u64::from(generation) << 32) | (u64::from(index) + 1)
}

fn slot_index(index: usize) -> u32 {
    u32::try_from(index).expect("4 billion nodes need more memory than there is")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ROOT: Fid = Fid::new(1, 1);

    #[test]
    fn the_root_is_always_known() {
        let mut nodes = Nodes::new(ROOT);
        nodes.forget(ROOT_ID, u64::MAX);
        assert_eq!(nodes.find(ROOT_ID).map(|n| n.fid), Some(ROOT));
        assert_eq!(nodes.remember(ROOT, 7), ROOT_ID);
        assert_eq!(nodes.find(0), None);
        assert_eq!(nodes.find(u64::MAX), None);
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut nodes = Nodes::new(ROOT);
        let first = nodes.remember(Fid::new(2, 1), 1);
        nodes.forget(first, 1);
        let second = nodes.remember(Fid::new(2, 2), 2);
        assert_ne!(first, second);
        assert_eq!(nodes.find(first), None);
        nodes.forget(first, 1);
        assert!(nodes.find(second).is_some(), "a stale forget hits nobody");
    }

    proptest! {
        /// Against a plain count of look-ups by FID.
        #[test]
        fn counts_match_a_naive_table(steps in proptest::collection::vec((0u32..8, 0u64..4), 1..200)) {
            let mut nodes = Nodes::new(ROOT);
            let mut counts: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            for (oid, back) in steps {
                if back == 0 {
                    let id = nodes.remember(Fid::new(9, oid), u64::from(oid));
                    let entry = counts.entry(oid).or_insert((0, id));
                    prop_assert_eq!(entry.1, id);
                    entry.0 += 1;
                } else if let Some(&(held, id)) = counts.get(&oid) {
                    nodes.forget(id, back);
                    match held.saturating_sub(back) {
                        0 => { counts.remove(&oid); prop_assert_eq!(nodes.find(id), None); }
                        left => { counts.insert(oid, (left, id)); }
                    }
                }
                prop_assert_eq!(nodes.len(), counts.len() + 1);
                for (oid, (_, id)) in &counts {
                    prop_assert_eq!(nodes.find(*id).map(|n| n.fid), Some(Fid::new(9, *oid)));
                }
            }
        }
    }
}
