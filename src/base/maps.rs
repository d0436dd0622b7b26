//! Maps by FID or number, found in one step.
//!
//! Hash maps, because a tree of many misses the processor's caches at each of
//! its levels. The hash is fixed, so that a simulated run repeats itself: FIDs
//! are given out by the box and numbers counted, so nobody can choose many that
//! collide.

use super::Fid;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What is known of each of some files.
pub type FidMap<T> = HashMap<Fid, T, BuildHasherDefault<Mix>>;
/// What is known under numbers that this process gives out.
pub type NumberMap<T> = HashMap<u64, T, BuildHasherDefault<Mix>>;

/// Folds the 128-bit product of each word: every bit of the result depends on
/// every bit before it.
#[derive(Debug, Default)]
pub struct Mix(u64);

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state after one more word.
#[must_use]
pub fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word ^ GOLDEN) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ (product >> 64) as u64
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        mix(self.0, 0)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }
}
