//! What was taken back lately, in order. An answer whose request began before
//! may rest on what is over.

use crate::base::{Bits, Extent, Fid};
use std::collections::VecDeque;

/// The last [`REMEMBERED`] takings.
#[derive(Default, Debug)]
pub struct Races {
    /// Counts takings; the last one's number.
    last: u64,
    log: VecDeque<Taking>,
}

#[derive(Debug)]
struct Taking {
    at: u64,
    /// None: everything.
    of: Option<(Fid, Bits, Extent)>,
    /// For what is done here, not for a lock that ends.
    is_own: bool,
}

impl Races {
    /// A point in the order of takings, for [`since`](Self::since).
    #[must_use]
    pub fn now(&self) -> u64 {
        self.last
    }

    /// Notes a taking, and tells its number.
    pub fn note(&mut self, of: Option<(Fid, Bits, Extent)>) -> u64 {
        self.push(of, false)
    }

    /// The same, if no lock ends: what was read under one that is held may be
    /// over as well.
    pub fn note_own(&mut self, of: Option<(Fid, Bits, Extent)>) -> u64 {
        self.push(of, true)
    }

    fn push(&mut self, of: Option<(Fid, Bits, Extent)>, is_own: bool) -> u64 {
        self.last += 1;
        if self.log.len() >= REMEMBERED {
            self.log.pop_front();
        }
        let at = self.last;
        self.log.push_back(Taking { at, of, is_own });
        self.last
    }

    /// What was taken back of `fid` after `begun`; of data, within `range`.
    /// Everything, where that is too long ago to be known.
    #[must_use]
    pub fn since(&self, begun: u64, fid: Fid, range: Extent) -> Bits {
        self.taken(begun, (fid, range), |_| true)
    }

    /// Was data of `range` taken back after `begun` for more than the end of a
    /// lock on the file?
    #[must_use]
    pub fn own_since(&self, begun: u64, fid: Fid, range: Extent) -> bool {
        let is_own = |taking: &Taking| taking.is_own || taking.of.is_none();
        self.taken(begun, (fid, range), is_own).has(Bits::DATA)
    }

    fn taken(
        &self,
        begun: u64,
        (fid, range): (Fid, Extent),
        counts: impl Fn(&Taking) -> bool,
    ) -> Bits {
        if begun == self.last {
            return Bits::NONE;
        }
        let first = self.log.front().map_or(self.last, |taking| taking.at);
        if begun + 1 < first {
            return Bits::ALL;
        }
        let later = self.log.iter().rev().take_while(|t| t.at > begun);
        let counted = later.filter(|taking| counts(taking));
        counted.fold(Bits::NONE, |bits, taking| match &taking.of {
            None => Bits::ALL,
            Some((of, taken, within)) if *of == fid => {
                let data = match within.overlaps(range) {
                    true => Bits::NONE,
                    false => Bits::DATA,
                };
                bits.with(taken.without(data))
            }
            Some(_) => bits,
        })
    }
}

/// Requests that are older than so many takings are not trusted.
const REMEMBERED: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fid = Fid::new(1, 1);
    const B: Fid = Fid::new(1, 2);

    fn part(start: u64, end: u64) -> Extent {
        Extent { start, end }
    }

    #[test]
    fn only_what_was_taken_later_counts() {
        let mut races = Races::default();
        assert_eq!(races.since(0, A, Extent::ALL), Bits::NONE);
        races.note(Some((A, Bits::LOOKUP, Extent::ALL)));
        let begun = races.now();
        races.note(Some((B, Bits::ATTRS, Extent::ALL)));
        races.note(Some((A, Bits::DATA.with(Bits::PERM), part(0, 9))));
        assert_eq!(races.since(begun, A, part(10, 20)), Bits::PERM);
        assert!(races.since(begun, A, part(9, 20)).has(Bits::DATA));
        assert!(!races.since(begun, A, part(9, 20)).has(Bits::LOOKUP));
        assert!(races.since(0, A, part(9, 20)).has(Bits::LOOKUP));
        races.note(None);
        assert_eq!(races.since(begun, B, Extent::ALL), Bits::ALL);
    }

    #[test]
    fn the_end_of_a_lock_is_told_from_what_is_done_here() {
        let mut races = Races::default();
        races.note(Some((A, Bits::DATA, part(0, 9))));
        assert!(!races.own_since(0, A, part(0, 9)));
        races.note_own(Some((A, Bits::DATA, part(0, 9))));
        assert!(races.own_since(0, A, part(9, 20)));
        assert!(!races.own_since(0, A, part(10, 20)));
        let begun = races.now();
        assert!(!races.own_since(begun, A, Extent::ALL));
        races.note(None);
        assert!(races.own_since(begun, A, Extent::ALL));
    }

    #[test]
    fn what_is_too_long_ago_is_not_trusted() {
        let mut races = Races::default();
        for _ in 0..=REMEMBERED {
            races.note(Some((A, Bits::LOOKUP, Extent::ALL)));
        }
        assert_eq!(races.since(0, B, Extent::ALL), Bits::ALL);
        assert_eq!(races.since(1, B, Extent::ALL), Bits::NONE);
    }
}
