//! The files with locks, found by FID in one step.
//!
//! In parts, because a map that grows moves all it has, and a shard serves
//! nobody meanwhile.

use super::resource::Resource;
use crate::base::Fid;
use crate::base::maps::{FidMap, mix};

#[derive(Debug)]
pub struct Files {
    parts: Vec<Part>,
    len: usize,
}

type Part = FidMap<Resource>;

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
