//! Listings that the kernel keeps (FOPEN_CACHE_DIR): names and numbers, in the
//! pages of the directory. It adds what it reads by a handle to what it has, and
//! knows nothing of locks, so the next handle is told to use them only if
//!
//! - they are the listing that the client remembers under its lock: that was the
//!   same one when the first answer went out and when the last did;
//! - nobody else read the directory meanwhile, whose answers, taken in late,
//!   would stand among these;
//! - the attributes that came with them are good for a while yet: to be asked for
//!   each of them would cost more than to list them once more.
//!
//! A handle that is not told so begins with no pages.

use super::sorted;
use crate::base::{Mono, NumberMap};
use crate::client::Remembered;
use std::time::Duration;

/// How old the attributes may be: less than half as old as the kernel may
/// believe them.
const FRESH: Duration = Duration::from_secs(2);

#[derive(Default, Debug)]
pub struct Lists {
    /// Handles by which the kernel may be collecting.
    reading: NumberMap<Reading>,
    /// What it has, by directory.
    whole: NumberMap<Whole>,
}

#[derive(Debug)]
struct Reading {
    nodeid: u64,
    /// Where the next request goes on.
    at: u64,
    /// The listing that the answers are of, and since when they are.
    of: Option<(u64, Mono)>,
    /// Others read beside it. The kernel goes on collecting by it all the same,
    /// and shows what it has to whoever reads it again from the start.
    is_spoiled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whole {
    number: u64,
    since: Mono,
}

impl Lists {
    /// A handle that is alone at its directory. May the kernel use what it has?
    pub fn open(
        &mut self,
        fh: u64,
        nodeid: u64,
        remembered: Option<Remembered>,
        now: Mono,
    ) -> bool {
        let reading = Reading {
            nodeid,
            at: 0,
            of: None,
            is_spoiled: false,
        };
        self.reading.insert(fh, reading);
        let is_good = |whole: &Whole| {
            let is_same = remembered.is_some_and(|r| r.is_whole && r.number == whole.number);
            is_same && now - whole.since < FRESH
        };
        let is_kept = self.whole.get(&nodeid).is_some_and(is_good);
        if !is_kept {
            self.whole.remove(&nodeid);
        }
        is_kept
    }

    /// Another handle of the directory is opened: the kernel has nothing of it
    /// from now on that could be relied on.
    pub fn spoil(&mut self, nodeid: u64) {
        self.whole.remove(&nodeid);
        let all = self.reading.values_mut();
        all.filter(|reading| reading.nodeid == nodeid)
            .for_each(|reading| reading.is_spoiled = true);
    }

    /// The answer to a request of `fh` for what follows `from` goes out; it ends
    /// at `to`, and says that nothing follows if it `is_end`.
    pub fn on_answer(
        &mut self,
        fh: u64,
        (from, to): (u64, u64),
        is_end: bool,
        remembered: Option<Remembered>,
        now: Mono,
    ) {
        let Some(reading) = self.reading.get_mut(&fh).filter(|r| !r.is_spoiled) else {
            return;
        };
        if from == 0 {
            reading.of = remembered.map(|r| (r.number, now));
        } else if from != reading.at {
            reading.of = None;
        }
        reading.at = to;
        let Some((number, since)) = reading.of.filter(|_| is_end) else {
            return;
        };
        if remembered.is_some_and(|r| r.is_whole && r.number == number) {
            self.whole.insert(reading.nodeid, Whole { number, since });
        }
    }

    pub fn close(&mut self, fh: u64) {
        self.reading.remove(&fh);
    }

    /// The directory changes: what the kernel has of it is to be dropped. True
    /// if it may have anything.
    pub fn take(&mut self, nodeid: u64) -> bool {
        let has = self.has(nodeid);
        self.whole.remove(&nodeid);
        has
    }

    /// All directories of which the kernel may have something.
    #[must_use]
    pub fn all(&self) -> Vec<u64> {
        let read = self.reading.values().map(|reading| reading.nodeid);
        sorted(self.whole.keys().copied().chain(read))
    }

    fn has(&self, nodeid: u64) -> bool {
        let reads = |reading: &Reading| reading.nodeid == nodeid;
        self.whole.contains_key(&nodeid) || self.reading.values().any(reads)
    }

    /// The kernel gave the node back.
    pub fn forget(&mut self, nodeid: u64) {
        self.whole.remove(&nodeid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: u64 = 7;

    fn listing(number: u64, is_whole: bool) -> Option<Remembered> {
        Some(Remembered { number, is_whole })
    }

    /// Reads the directory by a handle of its own: what the client remembers at
    /// the first answer and at the last.
    fn read(lists: &mut Lists, fh: u64, first: Option<Remembered>, last: Option<Remembered>) {
        lists.open(fh, DIR, first, Mono(0));
        lists.on_answer(fh, (0, 9), false, first, Mono(0));
        lists.on_answer(fh, (9, 9), true, last, Mono(1));
        lists.close(fh);
    }

    fn is_kept(lists: &mut Lists, now: Mono) -> bool {
        let is_kept = lists.open(99, DIR, listing(1, true), now);
        lists.close(99);
        is_kept
    }

    #[test]
    fn a_listing_that_the_client_remembers_is_used_again() {
        let mut lists = Lists::default();
        assert!(!is_kept(&mut lists, Mono(0)));
        read(&mut lists, 1, listing(1, false), listing(1, true));
        assert!(is_kept(&mut lists, Mono(5)) && is_kept(&mut lists, Mono(6)));
        assert!(!is_kept(&mut lists, Mono(0) + FRESH), "attributes are old");
        assert!(!is_kept(&mut lists, Mono(5)), "the pages were dropped then");
    }

    #[test]
    fn only_what_is_one_listing_from_first_to_last_is_kept() {
        let cases = [
            (None, listing(1, true)),
            (listing(1, false), listing(1, false)),
            (listing(1, false), listing(2, true)),
            (listing(1, true), None),
            (listing(2, true), listing(2, true)),
        ];
        for (first, last) in cases {
            let mut lists = Lists::default();
            read(&mut lists, 1, first, last);
            assert!(!is_kept(&mut lists, Mono(5)), "{first:?}, {last:?}");
        }
    }

    #[test]
    fn a_gap_or_another_reader_spoils_it() {
        let whole = listing(1, true);
        let mut lists = Lists::default();
        lists.open(1, DIR, whole, Mono(0));
        lists.on_answer(1, (0, 9), false, whole, Mono(0));
        lists.on_answer(1, (11, 12), true, whole, Mono(0));
        assert!(!is_kept(&mut lists, Mono(5)), "it went on elsewhere");
        lists.open(1, DIR, whole, Mono(0));
        lists.on_answer(1, (0, 9), false, whole, Mono(0));
        lists.spoil(DIR);
        lists.on_answer(1, (9, 9), true, whole, Mono(0));
        assert!(lists.take(DIR), "it is still dropped with its lock");
        assert!(!is_kept(&mut lists, Mono(5)), "another had it open");
        lists.close(1);
        read(&mut lists, 2, whole, whole);
        assert!(lists.take(DIR) && !lists.take(DIR));
        assert!(!is_kept(&mut lists, Mono(5)), "it was taken back");
    }
}
