//! File contents in memory: chunks of 64 KiB in an S3-FIFO, bounded in bytes.
//!
//! New chunks enter a small queue and leave it unless they are asked for again;
//! those that are go to the main queue, and those that are not leave a ghost (the
//! key alone), so that a chunk that comes back soon enters the main queue at once.
//! A scan therefore passes through a tenth of the memory and displaces nothing
//! that is in use. LRU would let one `cp` of a large file empty the cache.
//!
//! A chunk holds runs of bytes, not whole blocks: a 4 KiB read caches 4 KiB.

use crate::base::{Buf, Fid, Slice};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// Bytes of a file under one key.
pub const CHUNK: u64 = 64 << 10;
/// Runs in one chunk; past it neighbours are copied together.
const RUNS_MAX: usize = 32;
/// What a chunk costs beside its bytes: its key (twice), its runs, its queue entry.
const OVERHEAD: usize = 192;
/// The small queue's share of the memory, as in the paper: one in ten.
const SMALL_SHARE: usize = 10;
/// Uses after which a chunk that leaves the small queue is kept.
const KEEP_USES: u8 = 2;
const USES_MAX: u8 = 3;

type Key = (Fid, u64);

/// The memory cache of a shard.
pub struct Memory {
    limit: usize,
    used: usize,
    small_used: usize,
    chunks: BTreeMap<Key, Chunk>,
    small: VecDeque<(Key, u64)>,
    main: VecDeque<(Key, u64)>,
    ghosts: VecDeque<Key>,
    ghost_set: BTreeSet<Key>,
    /// Tells a chunk from an earlier one under the same key, in the queues.
    stamp: u64,
}

struct Chunk {
    stamp: u64,
    in_main: bool,
    uses: u8,
    /// Without overlap, ascending; offsets within the chunk.
    runs: Vec<(usize, Slice)>,
    /// Bytes of all runs.
    bytes: usize,
}

impl Chunk {
    fn cost(&self) -> usize {
        OVERHEAD + self.bytes
    }

    /// Removes `range` from the runs.
    fn cut(&mut self, range: &Range<usize>) {
        let first = self
            .runs
            .partition_point(|(at, s)| at + s.len() <= range.start);
        let end = self.runs.partition_point(|(at, _)| *at < range.end);
        if first >= end {
            return;
        }
        let mut kept = Vec::new();
        for (at, slice) in &self.runs[first..end] {
            self.bytes -= slice.len();
            if *at < range.start {
                kept.push((*at, slice.part(0..range.start - at)));
            }
            if at + slice.len() > range.end {
                kept.push((range.end, slice.part(range.end - at..slice.len())));
            }
        }
        self.bytes += kept.iter().map(|(_, s)| s.len()).sum::<usize>();
        self.runs.splice(first..end, kept);
    }

    fn put(&mut self, at: usize, slice: Slice) {
        self.cut(&(at..at + slice.len()));
        self.bytes += slice.len();
        let place = self.runs.partition_point(|(start, _)| *start < at);
        self.runs.insert(place, (at, slice));
        if self.runs.len() > RUNS_MAX {
            self.join();
            let over = self.runs.split_off(self.runs.len().min(RUNS_MAX));
            self.bytes -= over.iter().map(|(_, s)| s.len()).sum::<usize>();
        }
    }

    /// Copies neighbouring runs together, which also lets go of larger buffers
    /// that they were parts of.
    fn join(&mut self) {
        let mut joined: Vec<(usize, Vec<u8>)> = Vec::new();
        for (at, slice) in self.runs.drain(..) {
            match joined.last_mut() {
                Some((start, bytes)) if *start + bytes.len() == at => bytes.extend(&slice[..]),
                _ => joined.push((at, slice.to_vec())),
            }
        }
        let own = |(at, bytes): (usize, Vec<u8>)| (at, Buf::copied(&bytes).freeze());
        self.runs = joined.into_iter().map(own).collect();
    }
}

impl Memory {
    /// A cache that costs at most `limit` bytes; zero caches nothing.
    #[must_use]
    pub fn new(limit: usize) -> Memory {
        Memory {
            limit,
            used: 0,
            small_used: 0,
            chunks: BTreeMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_set: BTreeSet::new(),
            stamp: 0,
        }
    }

    /// Bytes in use; never above the limit.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }

    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Puts bytes of a file into memory, over what was there.
    pub fn insert(&mut self, fid: Fid, offset: u64, bytes: &Slice) {
        for (index, within, part) in chunks_of(offset..offset + bytes.len() as u64) {
            self.put((fid, index), within, bytes.part(part));
        }
        self.shrink();
    }

    /// What is in memory of `range`, in order. `use_` counts as a use: a
    /// sequential reader, who will not come back, should not say so.
    pub fn lookup(&mut self, fid: Fid, range: Range<u64>, use_: bool) -> Vec<(u64, Slice)> {
        let mut out = Vec::new();
        for (index, within, part) in chunks_of(range.clone()) {
            let Some(chunk) = self.chunks.get_mut(&(fid, index)) else {
                continue;
            };
            let wanted = within..within + part.len();
            let mut hit = false;
            for (at, slice) in &chunk.runs {
                let from = wanted.start.max(*at);
                let to = wanted.end.min(at + slice.len());
                if from < to {
                    hit = true;
                    out.push((index * CHUNK + from as u64, slice.part(from - at..to - at)));
                }
            }
            if hit && use_ {
                chunk.uses = (chunk.uses + 1).min(USES_MAX);
            }
        }
        out
    }

    /// Is all of `range` in memory?
    #[must_use]
    pub fn covers(&self, fid: Fid, range: Range<u64>) -> bool {
        chunks_of(range).all(|(index, within, part)| {
            let mut at = within;
            let runs = self.chunks.get(&(fid, index)).map_or(&[][..], |c| &c.runs);
            for (start, slice) in runs {
                if *start <= at && at < start + slice.len() {
                    at = start + slice.len();
                }
            }
            at >= within + part.len()
        })
    }

    /// Forgets `range` of a file.
    pub fn cut(&mut self, fid: Fid, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let keys = (fid, range.start / CHUNK)..=(fid, (range.end - 1) / CHUNK);
        let keys: Vec<Key> = self.chunks.range(keys).map(|(key, _)| *key).collect();
        for key in keys {
            let base = key.1 * CHUNK;
            let from = narrow(range.start.max(base) - base);
            let to = narrow((range.end - base).min(CHUNK));
            self.update(key, |chunk| chunk.cut(&(from..to)));
            if self.chunks.get(&key).is_some_and(|c| c.runs.is_empty()) {
                self.remove(key);
            }
        }
        self.sweep();
    }

    fn put(&mut self, key: Key, at: usize, slice: Slice) {
        if !self.chunks.contains_key(&key) {
            self.stamp += 1;
            let in_main = self.ghost_set.remove(&key);
            let queue = if in_main {
                &mut self.main
            } else {
                &mut self.small
            };
            queue.push_back((key, self.stamp));
            let chunk = Chunk {
                stamp: self.stamp,
                in_main,
                uses: 0,
                runs: Vec::new(),
                bytes: 0,
            };
            self.account(in_main, 0, chunk.cost());
            self.chunks.insert(key, chunk);
        }
        self.update(key, |chunk| chunk.put(at, slice));
    }

    /// Changes a chunk and the sums with it.
    fn update(&mut self, key: Key, change: impl FnOnce(&mut Chunk)) {
        let Some(chunk) = self.chunks.get_mut(&key) else {
            return;
        };
        let before = chunk.cost();
        change(chunk);
        let (after, in_main) = (chunk.cost(), chunk.in_main);
        self.account(in_main, before, after);
    }

    fn account(&mut self, in_main: bool, before: usize, after: usize) {
        self.used = self.used + after - before;
        if !in_main {
            self.small_used = self.small_used + after - before;
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(chunk) = self.chunks.remove(&key) {
            self.account(chunk.in_main, chunk.cost(), 0);
        }
    }

    fn shrink(&mut self) {
        while self.used > self.limit {
            let small = self.small_used > self.limit / SMALL_SHARE || self.main.is_empty();
            let went = if small {
                self.evict_small()
            } else {
                self.evict_main()
            };
            if !went && self.small.is_empty() && self.main.is_empty() {
                break;
            }
        }
        self.sweep();
    }

    /// Takes the oldest of the small queue: to main if it was used, else out.
    fn evict_small(&mut self) -> bool {
        let Some((key, stamp)) = self.small.pop_front() else {
            return false;
        };
        let Some(chunk) = self.chunks.get_mut(&key).filter(|c| c.stamp == stamp) else {
            return false;
        };
        if chunk.uses < KEEP_USES {
            self.remove(key);
            self.haunt(key);
            return true;
        }
        let cost = chunk.cost();
        chunk.uses = 0;
        chunk.in_main = true;
        // From here on it lives long: a part of a larger buffer becomes its own.
        chunk.join();
        self.small_used -= cost;
        self.main.push_back((key, stamp));
        false
    }

    fn evict_main(&mut self) -> bool {
        let Some((key, stamp)) = self.main.pop_front() else {
            return false;
        };
        let Some(chunk) = self.chunks.get_mut(&key).filter(|c| c.stamp == stamp) else {
            return false;
        };
        if chunk.uses > 0 {
            chunk.uses -= 1;
            self.main.push_back((key, stamp));
            return false;
        }
        self.remove(key);
        true
    }

    /// Remembers a key that left the small queue, as many as main has chunks' room for.
    fn haunt(&mut self, key: Key) {
        if self.ghost_set.insert(key) {
            self.ghosts.push_back(key);
        }
        let most = self.limit / narrow(CHUNK) + 1;
        while self.ghosts.len() > most {
            if let Some(old) = self.ghosts.pop_front() {
                self.ghost_set.remove(&old);
            }
        }
    }

    /// Drops queue entries whose chunk was forgotten, once they are the majority.
    fn sweep(&mut self) {
        if self.small.len() + self.main.len() > 2 * self.chunks.len() + 64 {
            let chunks = &self.chunks;
            let lives = |(key, stamp): &(Key, u64)| {
                chunks.get(key).is_some_and(|chunk| chunk.stamp == *stamp)
            };
            self.small.retain(lives);
            self.main.retain(lives);
        }
    }
}

/// The chunks that `range` touches: index, offset within the chunk, and the
/// part of the range (counted from its start) that falls there.
fn chunks_of(range: Range<u64>) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let index = at / CHUNK;
        let end = range.end.min((index + 1) * CHUNK);
        let part = narrow(at - range.start)..narrow(end - range.start);
        let within = narrow(at - index * CHUNK);
        at = end;
        Some((index, within, part))
    })
}

fn narrow(n: u64) -> usize {
    usize::try_from(n).expect("lengths in memory fit a usize")
}

#[cfg(test)]
mod tests;
