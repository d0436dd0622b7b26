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
}

impl Races {
    /// A point in the order of takings, for [`since`](Self::since).
    #[must_use]
    pub fn now(&self) -> u64 {
        self.last
    }

    /// Notes a taking, and tells its number.
    pub fn note(&mut self, of: Option<(Fid, Bits, Extent)>) -> u64 {
        self.last += 1;
        if self.log.len() >= REMEMBERED {
            self.log.pop_front();
        }
        self.log.push_back(Taking { at: self.last, of });
        self.last
    }

    /// What was taken back of `fid` after `begun`; of data, within `range`.
    /// Everything, where that is too long ago to be known.
    #[must_use]
    pub fn since(&self, begun: u64, fid: Fid, range: Extent) -> Bits {
        if begun == self.last {
            return Bits::NONE;
        }
        let first = self.log.front().map_or(self.last, |taking| taking.at);
        if begun + 1 < first {
            return Bits::ALL;
        }
        let later = self.log.iter().rev().take_while(|t| t.at > begun);
        later.fold(Bits::NONE, |bits, taking| match &taking.of {
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
    fn what_is_too_long_ago_is_not_trusted() {
        let mut races = Races::default();
        for _ in 0..=REMEMBERED {
            races.note(Some((A, Bits::LOOKUP, Extent::ALL)));
        }
        assert_eq!(races.since(0, B, Extent::ALL), Bits::ALL);
        assert_eq!(races.since(1, B, Extent::ALL), Bits::NONE);
    }
}
