//! How far to read ahead of a reader: one detector for each file.
//!
//! Requests of one reader arrive out of order (a client keeps several in
//! flight), so once a run is established a request near the expected place
//! still belongs to it.

use std::ops::Range;

/// First window, in bytes; it doubles with each time that it is used up.
const WINDOW_MIN: u64 = 256 << 10;
/// How far from the expected place a request of an established run may be.
const SLACK: u64 = 2 << 20;
/// Sequential requests after which a run is established.
const RUN_MIN: u32 = 2;

/// What one read says about the next ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// It belongs to a run: its bytes will not be asked for again soon.
    pub sequential: bool,
    /// What to bring in now; empty if nothing.
    pub ahead: Range<u64>,
}

/// Watches the reads of one file.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    /// Where a sequential reader would go on.
    next: u64,
    run: u32,
    window: u64,
    /// Up to here was advised already.
    ahead: u64,
}

impl Detector {
    /// Nothing was read yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.next == 0
    }

    /// `window_max` is zero where nothing may be read ahead.
    pub fn on_read(&mut self, offset: u64, len: u64, size: u64, window_max: u64) -> Advice {
        let end = offset.saturating_add(len);
        if self.continues(offset) {
            self.run = self.run.saturating_add(1);
            self.next = self.next.max(end);
        } else {
            *self = Detector {
                next: end,
                run: u32::from(offset == 0),
                ..Detector::default()
            };
        }
        let none = Advice {
            sequential: self.run >= RUN_MIN,
            ahead: end..end,
        };
        if !none.sequential || window_max == 0 {
            return none;
        }
        // Half a window is still ahead of the reader: nothing to do yet.
        if self.ahead >= self.next.saturating_add(self.window / 2) && self.window > 0 {
            return none;
        }
        self.window = (self.window * 2).clamp(WINDOW_MIN, window_max.max(WINDOW_MIN));
        let from = self.ahead.max(self.next);
        let to = self.next.saturating_add(self.window).min(size);
        self.ahead = self.ahead.max(to);
        Advice {
            sequential: true,
            ahead: from.min(to)..to,
        }
    }

    fn continues(&self, offset: u64) -> bool {
        if self.run >= RUN_MIN {
            offset >= self.next.saturating_sub(SLACK) && offset <= self.next.saturating_add(SLACK)
        } else {
            self.next > 0 && offset == self.next
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 8 << 20;

    #[test]
    fn the_window_grows_and_stays_ahead() {
        let (mut d, size, step) = (Detector::default(), 64 << 20, 128 << 10);
        let (mut covered, mut largest) = (0, 0);
        for i in 0..size / step {
            let advice = d.on_read(i * step, step, size, MAX);
            if i >= 1 {
                assert!(advice.sequential);
                let end = (i + 1) * step;
                if !advice.ahead.is_empty() {
                    assert_eq!(advice.ahead.start, covered.max(end), "no gap, no overlap");
                    covered = advice.ahead.end;
                    largest = largest.max(covered - end);
                }
                assert!(covered >= (end + step).min(size), "ahead of the reader");
            }
        }
        assert_eq!(covered, size);
        assert_eq!(largest, MAX);
    }

    #[test]
    fn requests_out_of_order_are_one_run() {
        let (mut d, step) = (Detector::default(), 128 << 10);
        for i in [0, 1, 2, 4, 3, 6, 5, 7] {
            let advice = d.on_read(i * step, step, 1 << 30, MAX);
            assert_eq!(advice.sequential, i >= 1);
        }
    }

    #[test]
    fn random_reads_are_left_alone() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut d = Detector::default();
        for _ in 0..1000 {
            let advice = d.on_read(rng.u64(1..100_000) << 12, 4096, 1 << 30, MAX);
            assert!(advice.ahead.is_empty());
        }
    }

    #[test]
    fn no_window_no_advice() {
        let mut d = Detector::default();
        for i in 0..10 {
            assert!(d.on_read(i * 4096, 4096, 1 << 30, 0).ahead.is_empty());
        }
    }
}
