//! The files with locks, found by FID in one step.
//!
//! A hash map, because a tree of millions misses the processor's caches at each
//! of its levels. The hash is fixed: FIDs are given out by the server, so nobody
//! can choose many that collide. In parts, because a map that grows moves all
//! it has, and a shard serves nobody meanwhile.

use super::resource::Resource;
use crate::base::Fid;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

#[derive(Debug)]
pub struct Files {
    parts: Vec<Part>,
    len: usize,
}

type Part = HashMap<Fid, Resource, BuildHasherDefault<Mix>>;

/// With millions of files a part moves some ten thousand of them at once.
const PARTS: usize = 256;
/// Smaller maps do not shrink.
const ROOM_MIN: usize = 64;

impl Default for Files {
    fn default() -> Files {
        Files {
            parts: (0..PARTS).map(|_| Part::default()).collect(),
            len: 0,
        }
    }
}

impl Files {
    /// Files with locks or waiters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn find(&self, fid: Fid) -> Option<&Resource> {
        self.parts[part(fid)].get(&fid)
    }

    pub fn find_mut(&mut self, fid: Fid) -> Option<&mut Resource> {
        self.parts[part(fid)].get_mut(&fid)
    }

    /// The file, from now on in the map; [`Files::free`] it if it stays empty.
    pub fn find_or_add(&mut self, fid: Fid) -> &mut Resource {
        self.parts[part(fid)].entry(fid).or_insert_with(|| {
            self.len += 1;
            Resource::default()
        })
    }

    /// Forgets the file if it has neither locks nor waiters.
    pub fn free(&mut self, fid: Fid) {
        let part = &mut self.parts[part(fid)];
        if part.get(&fid).is_some_and(Resource::is_empty) {
            part.remove(&fid);
            self.len -= 1;
            let room = part.capacity();
            if room > ROOM_MIN && part.len() < room / 8 {
                part.shrink_to(part.len() * 2);
            }
        }
    }

    /// All, by FID.
    pub fn iter(&self) -> impl Iterator<Item = (Fid, &Resource)> {
        let all = self.parts.iter().flatten();
        let mut all: Vec<(Fid, &Resource)> = all.map(|(fid, r)| (*fid, r)).collect();
        all.sort_unstable_by_key(|(fid, _)| *fid);
        all.into_iter()
    }
}

fn part(fid: Fid) -> usize {
    let word = (u64::from(fid.oid) << 32) | u64::from(fid.ver);
    // The maps use the lowest and the highest bits.
    (mix(mix(0, fid.seq), word) >> 32) as usize % PARTS
}

/// Folds the 128-bit product of each word: every bit of the result depends on
/// every bit before it.
#[derive(Debug, Default)]
pub struct Mix(u64);

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(state: u64, word: u64) -> u64 {
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
