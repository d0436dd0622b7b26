//! Who was told where a directory's name leads, and may not have taken that in.
//!
//! The name of a directory is left to expire when it is taken back, and not
//! dropped: processes that are in it would lose their place (getcwd(2) finds
//! nothing), and whatever is mounted below it. But a look-up of a name that the
//! kernel has already is taken in without the directory's lock, so that it may
//! come after the expiry and undo it. Each thread that was answered is therefore
//! remembered until it is known to have gone on.

use crate::base::NumberMap;

/// Directories that the kernel was given, by node number.
#[derive(Default, Debug)]
pub struct Walkers {
    told: NumberMap<Vec<u32>>,
}

impl Walkers {
    /// The kernel is given the directory `nodeid`.
    pub fn give(&mut self, nodeid: u64) {
        self.told.entry(nodeid).or_default();
    }

    /// A thread is told where the name of the directory leads. `has_gone_on`
    /// tells which of those before need not be remembered any more.
    pub fn tell(&mut self, nodeid: u64, thread: u32, has_gone_on: impl Fn(u32) -> bool) {
        let told = self.told.entry(nodeid).or_default();
        if told.contains(&thread) {
            return;
        }
        if told.len() >= MANY && told.len().is_power_of_two() {
            told.retain(|thread| !has_gone_on(*thread));
        }
        told.push(thread);
    }

    /// Is `nodeid` a directory?
    #[must_use]
    pub fn knows(&self, nodeid: u64) -> bool {
        self.told.contains_key(&nodeid)
    }

    /// Has everybody gone on who was told of it?
    pub fn are_gone(&mut self, nodeid: u64, has_gone_on: impl Fn(u32) -> bool) -> bool {
        let Some(told) = self.told.get_mut(&nodeid) else {
            return true;
        };
        told.retain(|thread| !has_gone_on(*thread));
        told.is_empty()
    }

    pub fn forget(&mut self, nodeid: u64) {
        self.told.remove(&nodeid);
    }
}

/// So many are remembered before it is asked who has gone on.
const MANY: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_is_remembered_until_it_has_gone_on() {
        let mut walkers = Walkers::default();
        assert!(!walkers.knows(1));
        walkers.give(1);
        assert!(walkers.knows(1) && walkers.are_gone(1, |_| false));
        walkers.tell(1, 7, |_| false);
        walkers.tell(1, 8, |_| false);
        assert!(!walkers.are_gone(1, |thread| thread == 8));
        assert!(
            walkers.are_gone(1, |thread| thread == 7),
            "8 was gone before"
        );
        walkers.tell(1, 7, |_| false);
        walkers.forget(1);
        assert!(!walkers.knows(1));
    }

    #[test]
    fn those_that_have_gone_on_are_not_collected() {
        let mut walkers = Walkers::default();
        for thread in 0..1000 {
            walkers.tell(1, thread, |_| true);
            assert!(walkers.told[&1].len() <= MANY);
        }
        for thread in 0..100 {
            walkers.tell(2, thread, |_| false);
        }
        assert_eq!(walkers.told[&2].len(), 100, "none is lost");
    }
}
