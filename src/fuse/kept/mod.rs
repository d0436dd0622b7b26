//! What the kernel may still believe: the names it was given (`names`; of
//! directories, who may not have taken them in: `walkers`), until when it trusts
//! attributes, how long it takes files to be (`sizes`), of which files it may
//! hold pages (`pages`), and of which directories a listing (`lists`).
//! Each reply that says how long it is good for is entered here before it is
//! sent, so that taking back finds all there is to take back; what the kernel
//! drops by itself stays until it expires or its node is forgotten.
//!
//! What was taken back lately is remembered as well (`races`): an answer that
//! was asked for before may say what is over, and is worth nothing to keep.
//!
//! Architecture invariant: nothing here talks to the kernel; `takeback` does.

pub mod lists;
pub mod names;
pub mod pages;
pub mod races;
pub mod sizes;
pub mod walkers;

use crate::base::{Mono, NumberMap};
use lists::Lists;
use names::Names;
use pages::Pages;
use races::Races;
use sizes::Sizes;
use std::time::Duration;
use walkers::Walkers;

/// The beliefs of one mount's kernel, by node number.
#[derive(Default)]
pub struct Kept {
    pub lists: Lists,
    pub names: Names,
    pub pages: Pages,
    pub races: Races,
    pub sizes: Sizes,
    pub walkers: Walkers,
    attrs: NumberMap<Mono>,
}

impl Kept {
    /// The kernel is told attributes of `nodeid` that it may use until then.
    pub fn give_attrs(&mut self, nodeid: u64, until: Mono) {
        let kept = self.attrs.entry(nodeid).or_default();
        *kept = until.max(*kept);
    }

    #[must_use]
    pub fn has_attrs(&self, nodeid: u64, now: Mono) -> bool {
        self.attrs.get(&nodeid).is_some_and(|until| *until > now)
    }

    /// All nodes whose attributes it may use.
    #[must_use]
    pub fn with_attrs(&self, now: Mono) -> Vec<u64> {
        let live = self.attrs.iter().filter(|(_, until)| **until > now);
        sorted(live.map(|(nodeid, _)| *nodeid))
    }

    /// The kernel believes for so much longer what it was given.
    pub fn postpone(&mut self, by: Duration) {
        for until in self.attrs.values_mut() {
            *until = *until + by;
        }
        self.names.postpone(by);
    }

    /// The kernel gave the node back, and with it all that it believed of it.
    pub fn forget(&mut self, nodeid: u64) {
        self.attrs.remove(&nodeid);
        self.lists.forget(nodeid);
        self.names.forget(nodeid);
        self.walkers.forget(nodeid);
        self.pages.forget(nodeid);
        self.sizes.forget(nodeid);
    }
}

/// In an order that a simulated run repeats.
fn sorted(nodes: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut all: Vec<u64> = nodes.collect();
    all.sort_unstable();
    all
}

/// The end of what is valid for `valid` from `now` on. The kernel counts from
/// when it takes the reply in, which is a little later.
#[must_use]
pub fn end_of(now: Mono, valid: Duration) -> Mono {
    now + valid + LATE
}

/// How much later that may be.
const LATE: Duration = Duration::from_secs(1);
