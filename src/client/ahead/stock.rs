//! What a client was given to create with, and the time by the box's clock.

use crate::base::{Fid, Time};
use crate::namespace::Bounds;
use crate::wire::{FidRange, FidsGranted};
use std::collections::VecDeque;

/// Fewer FIDs than this: more are asked for.
const LOW: u32 = 512;
/// Asked for at first, and at most.
const FIRST: u32 = 1024;
const MOST: u32 = 4096;

/// FIDs to create with, and what the target can hold.
#[derive(Debug, Default)]
pub struct Stock {
    ranges: VecDeque<FidRange>,
    bounds: Option<Bounds>,
    is_asking: bool,
    asked: u32,
}

impl Stock {
    /// How many to ask for, if it is time to.
    pub fn wants(&mut self) -> Option<u32> {
        let left: u32 = self.ranges.iter().map(|range| range.count).sum();
        if self.is_asking || left >= LOW {
            return None;
        }
        self.is_asking = true;
        self.asked = (self.asked * 2).clamp(FIRST, MOST);
        Some(self.asked)
    }

    pub fn on_granted(&mut self, granted: Option<&FidsGranted>) {
        self.is_asking = false;
        let Some(FidsGranted { range, holds }) = granted else {
            return;
        };
        self.ranges.push_back(*range);
        self.bounds = Some(Bounds {
            read_only: holds.read_only,
            name_max: holds.name_max as usize,
            link_max: holds.link_max,
            file_size_max: holds.file_size_max,
            owners: holds.owners,
            special_files: holds.special_files,
            symlinks: holds.symlinks,
            hard_links: holds.hard_links,
            xattrs: holds.xattrs,
            acls: holds.acls,
        });
    }

    #[must_use]
    pub fn bounds(&self) -> Option<&Bounds> {
        self.bounds.as_ref()
    }

    /// The next FID, without taking it.
    #[must_use]
    pub fn next(&self) -> Option<Fid> {
        let range = self.ranges.front()?;
        Some(Fid::new(range.seq, range.first))
    }

    /// Are there none, and some on their way?
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.is_asking && self.ranges.is_empty()
    }

    /// It is used.
    pub fn take(&mut self) {
        if let Some(range) = self.ranges.front_mut() {
            range.take();
            if range.count == 0 {
                self.ranges.pop_front();
            }
        }
    }

    pub fn clear(&mut self) {
        self.ranges.clear();
        self.bounds = None;
    }
}

/// The box's clock as its answers tell it: behind the truth by the time that
/// they took, so that nothing is done in the box's future.
#[derive(Debug, Default)]
pub struct Clock {
    /// Nanoseconds to add to the client's own.
    ahead: i128,
    last: i128,
}

impl Clock {
    /// The box said `told`, and `now` it is here.
    pub fn on_told(&mut self, told: Time, now: Time) {
        self.ahead = told.nanos() - now.nanos();
    }

    /// The box's time.
    #[must_use]
    pub fn now(&self, now: Time) -> Time {
        Time::from_nanos(now.nanos() + self.ahead)
    }

    /// A time for a change: never before that of the one before.
    pub fn stamp(&mut self, now: Time) -> u64 {
        self.last = self.last.max(now.nanos() + self.ahead);
        u64::try_from(self.last).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(first: u32, count: u32) -> FidsGranted {
        let range = FidRange {
            seq: 9,
            first,
            count,
        };
        FidsGranted {
            range,
            ..FidsGranted::default()
        }
    }

    #[test]
    fn fids_are_asked_for_before_they_are_used_up() {
        let mut stock = Stock::default();
        assert_eq!(stock.wants(), Some(FIRST));
        assert_eq!(stock.wants(), None, "once at a time");
        stock.on_granted(Some(&granted(5, LOW)));
        assert_eq!(stock.wants(), None);
        assert_eq!(stock.next(), Some(Fid::new(9, 5)));
        stock.take();
        assert_eq!(stock.next(), Some(Fid::new(9, 6)));
        assert_eq!(stock.wants(), Some(2 * FIRST));
        stock.on_granted(None);
        assert_eq!(stock.wants(), Some(MOST));
        (1..LOW).for_each(|_| stock.take());
        assert_eq!(stock.next(), None);
    }

    #[test]
    fn stamps_never_go_back() {
        let mut clock = Clock::default();
        let at = |sec| Time { sec, nsec: 0 };
        clock.on_told(at(50), at(40));
        assert_eq!(clock.stamp(at(41)), 51_000_000_000);
        clock.on_told(at(45), at(42));
        assert_eq!(clock.stamp(at(43)), 51_000_000_000);
    }
}
