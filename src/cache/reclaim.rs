//! Which segment of the flash to empty next.
//!
//! A segment's worth is the bytes that emptying it would lose or move, weighed
//! by how often it was read of late. Marks count reads up to a bound and age as
//! segments are taken, so that one scan over the flash does not make everything
//! look precious, and what was hot last week does not stay for ever.

use std::collections::BTreeMap;

/// Reads of a segment that still change its worth.
const MARK_MAX: u32 = 15;

/// The memory of the policy.
#[derive(Debug, Default)]
pub struct Policy {
    marks: BTreeMap<u32, u32>,
    /// Segments that gave nothing, with the live bytes they had then.
    held: BTreeMap<u32, u32>,
    taken: usize,
}

impl Policy {
    /// Bytes of the segment were read from flash.
    pub fn on_read(&mut self, segment: u32) {
        let mark = self.marks.entry(segment).or_default();
        *mark = (*mark + 1).min(MARK_MAX);
    }

    /// The least worthy of the sealed segments, given with their live bytes.
    pub fn take(&mut self, sealed: &[(u32, u32)]) -> Option<u32> {
        let worth = |segment: &u32, live: u32| {
            let mark = self.marks.get(segment).copied().unwrap_or(0);
            u64::from(live) * u64::from(1 + mark)
        };
        let free =
            |(segment, live): &&(u32, u32)| self.held.get(segment).is_none_or(|held| live < held);
        let least = sealed.iter().filter(free);
        let (segment, _) = least.min_by_key(|(s, live)| (worth(s, *live), *s))?;
        let segment = *segment;
        self.marks.remove(&segment);
        self.held.remove(&segment);
        self.taken += 1;
        if self.taken > sealed.len() / 4 {
            self.taken = 0;
            self.marks.retain(|_, mark| {
                *mark /= 2;
                *mark > 0
            });
        }
        Some(segment)
    }

    /// Emptying the segment failed with `live` bytes in it that only write-back
    /// can free: it is not taken again before it has fewer, or `release`.
    pub fn hold(&mut self, segment: u32, live: u32) {
        self.held.insert(segment, live);
    }

    /// Write-back made something clean: all may be tried again.
    pub fn release(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_segments_go_first_then_cold_ones() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            policy.on_read(1);
        }
        let sealed = [(1, 1000), (2, 4000), (3, 0), (4, 9000)];
        assert_eq!(policy.take(&sealed), Some(3));
        assert_eq!(policy.take(&[sealed[0], sealed[1], sealed[3]]), Some(2));
        assert_eq!(policy.take(&[sealed[0], (4, 20_000)]), Some(1));
    }

    #[test]
    fn marks_age() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            policy.on_read(1);
        }
        let sealed = [(1, 100), (2, 200), (3, 200), (4, 200), (5, 200), (6, 200)];
        let mut took = Vec::new();
        while took.last() != Some(&1) && took.len() < 20 {
            took.extend(policy.take(&sealed));
        }
        assert!(took.contains(&1), "a mark does not last for ever: {took:?}");
    }

    #[test]
    fn held_segments_wait_for_write_back() {
        let mut policy = Policy::default();
        assert_eq!(policy.take(&[(1, 100)]), Some(1));
        policy.hold(1, 100);
        assert_eq!(policy.take(&[(1, 100)]), None);
        assert_eq!(policy.take(&[(1, 60)]), Some(1), "some of it died");
        policy.hold(1, 60);
        policy.release();
        assert_eq!(policy.take(&[(1, 60)]), Some(1));
    }
}
