//! When it pays to ask for a file, or a directory, for oneself, pure: with the
//! second change in a short time, so that who changes one thing asks for nothing.

use crate::base::{Fid, Mono};
use std::collections::BTreeMap;
use std::time::Duration;

/// Two changes within this time may be the first of many.
const SOON: Duration = Duration::from_secs(2);
/// After somebody else wanted it.
const SHUNNED: Duration = Duration::from_secs(1);
/// Files remembered.
const FILES_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct Asks {
    /// The last change by this client, or until when nothing is asked.
    changed: BTreeMap<Fid, Mono>,
    shunned: BTreeMap<Fid, Mono>,
}

impl Asks {
    /// Has somebody else wanted it just now?
    #[must_use]
    pub fn is_shunned(&self, fid: Fid, now: Mono) -> bool {
        self.shunned.get(&fid).is_some_and(|until| now < *until)
    }

    /// The client changes `fid`: should it ask for it?
    pub fn on_change(&mut self, fid: Fid, now: Mono) -> bool {
        if self.is_shunned(fid, now) {
            return false;
        }
        self.shunned.remove(&fid);
        if self.changed.len() >= FILES_MAX {
            self.changed.clear();
        }
        let before = self.changed.insert(fid, now);
        before.is_some_and(|at| now - at <= SOON)
    }

    /// Somebody else wants it.
    pub fn on_lost(&mut self, fid: Fid, now: Mono) {
        if self.shunned.len() >= FILES_MAX {
            self.shunned.clear();
        }
        self.shunned.insert(fid, now + SHUNNED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_change_asks_unless_others_are_about() {
        let mut asks = Asks::default();
        let fid = Fid::new(1, 1);
        let at = |ms: u64| Mono(ms * 1_000_000);
        assert!(!asks.on_change(fid, at(0)));
        assert!(asks.on_change(fid, at(1_000)));
        assert!(!asks.on_change(fid, at(9_000)), "not soon after");
        asks.on_lost(fid, at(9_100));
        assert!(!asks.on_change(fid, at(9_200)));
        assert!(asks.on_change(fid, at(10_200)));
    }
}
