//! How far an extent grows beyond what was asked for. A client that reads or
//! writes on would ask again for the next bytes; a lock that reaches as far as
//! nobody else is saves it the question, and costs a callback if somebody comes.
//!
//! The policy is that of Lustre's object servers. Alone, a lock gets all that
//! is free around it. Once others have locks in conflict they are likely to
//! walk upward as well, each in a part of its own, so nothing below the request
//! is taken from them; and where dozens write in turns, a long reach upward
//! would be called back at once, so it ends after 32 MiB.

use super::bounds::{DOWNWARD_WAITERS_MAX, FAR, FAR_GRANTED_MAX};
use super::conflict::Shape;
use super::request::Holder;
use super::resource::Resource;
use crate::base::{Bits, Extent};

/// The extent to grant for `asked`, which has DATA and is granted to `holder`
/// now. Never less than what was asked for.
#[must_use]
pub fn grown(resource: &Resource, holder: Holder, asked: &Shape) -> Extent {
    let data = asked.with_bits(Bits::DATA);
    let mut free = Free {
        asked: asked.extent,
        to: Extent::ALL,
    };
    let others = resource.granted.iter().filter(|l| l.holder != holder);
    let mut granted = 0;
    for lock in others.map(|l| l.shape()) {
        if lock.excludes_data_of(&data) {
            granted += 1;
            free.clip(lock.extent);
        }
    }
    let others = resource.waiting().filter(|w| w.holder != holder);
    let mut waiting = 0;
    for wanted in others.map(|w| w.shape) {
        if wanted.excludes_data_of(&data) {
            waiting += 1;
            free.clip(wanted.extent);
        }
    }
    if granted > 0 || waiting > DOWNWARD_WAITERS_MAX {
        free.to.start = asked.extent.start;
    }
    if granted > FAR_GRANTED_MAX && asked.mode.is_write() {
        let far = asked.extent.start.saturating_add(FAR - 1);
        free.to.end = free.to.end.min(far.max(asked.extent.end));
    }
    free.to
}

/// What is left around `asked`; `to` always contains it.
struct Free {
    asked: Extent,
    to: Extent,
}

impl Free {
    fn clip(&mut self, taken: Extent) {
        if taken.end < self.asked.start {
            self.to.start = self.to.start.max(taken.end + 1);
        } else if taken.start > self.asked.end {
            self.to.end = self.to.end.min(taken.start - 1);
        } else {
            // A waiter that the request passes.
            self.to = self.asked;
        }
    }
}
