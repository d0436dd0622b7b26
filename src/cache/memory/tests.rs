#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;

const FID: Fid = Fid::new(1, 1);

fn bytes(len: usize, seed: u8) -> Slice {
    (0..len)
        .map(|i| seed.wrapping_add(i as u8))
        .collect::<Vec<u8>>()
        .into()
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u32, u64, usize, u8),
    Lookup(u32, u64, u64),
    Cut(u32, u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = 0..400_000u64;
    prop_oneof![
        3 => (0..3u32, at.clone(), 1..150_000usize, any::<u8>())
            .prop_map(|(f, at, len, seed)| Op::Insert(f, at, len, seed)),
        3 => (0..3u32, at.clone(), 1..5000usize, any::<u8>())
            .prop_map(|(f, at, len, seed)| Op::Insert(f, at, len, seed)),
        3 => (0..3u32, at.clone(), 1..200_000u64).prop_map(|(f, at, len)| Op::Lookup(f, at, len)),
        1 => (0..3u32, at, 1..300_000u64).prop_map(|(f, at, len)| Op::Cut(f, at, len)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    /// Whatever is answered is what was last inserted and not cut since, and the
    /// sums hold.
    #[test]
    fn answers_only_what_was_put(ops in prop::collection::vec(op(), 1..60), limit in 0..600_000usize) {
        let mut memory = Memory::new(limit);
        let mut model = vec![vec![None; 800_000]; 3];
        for op in ops {
            match op {
                Op::Insert(f, at, len, seed) => {
                    let slice = bytes(len, seed);
                    memory.insert(Fid::new(1, f), at, &slice);
                    for (i, byte) in slice.iter().enumerate() {
                        model[f as usize][at as usize + i] = Some(*byte);
                    }
                }
                Op::Lookup(f, at, len) => {
                    let mut last = at;
                    let found = memory.lookup(Fid::new(1, f), at..at + len, true);
                    let whole = found.iter().map(|(_, s)| s.len() as u64).sum::<u64>() == len;
                    prop_assert_eq!(memory.covers(Fid::new(1, f), at..at + len), whole);
                    for (offset, slice) in found {
                        prop_assert!(offset >= last && offset + slice.len() as u64 <= at + len);
                        let known = &model[f as usize][offset as usize..][..slice.len()];
                        prop_assert!(slice.iter().zip(known).all(|(a, b)| Some(*a) == *b));
                        last = offset + slice.len() as u64;
                    }
                }
                Op::Cut(f, at, len) => {
                    memory.cut(Fid::new(1, f), at..at + len);
                    model[f as usize][at as usize..(at + len) as usize].fill(None);
                }
            }
            let cost: usize = memory.chunks.values().map(Chunk::cost).sum();
            prop_assert_eq!(memory.used(), cost);
            prop_assert!(memory.used() <= limit);
            let small: usize = memory.chunks.values().filter(|c| !c.in_main).map(Chunk::cost).sum();
            prop_assert_eq!(memory.small_used, small);
            let queued = memory.small.len() + memory.main.len();
            prop_assert!(queued >= memory.chunks.len());
            prop_assert!(queued <= 2 * memory.chunks.len() + 64);
            prop_assert!(memory.ghosts.len() <= limit / 65536 + 1);
        }
    }
}

/// Hits of a trace of chunk indices, in S3-FIFO and in an LRU of the same size.
fn hits(trace: &[u64], chunks: usize) -> (usize, usize) {
    let block = bytes(CHUNK as usize, 0);
    let mut memory = Memory::new(chunks * (CHUNK as usize + OVERHEAD));
    let mut lru: VecDeque<u64> = VecDeque::new();
    let (mut s3, mut plain) = (0, 0);
    for &index in trace {
        let range = index * CHUNK..(index + 1) * CHUNK;
        if memory.lookup(FID, range, true).is_empty() {
            memory.insert(FID, index * CHUNK, &block);
        } else {
            s3 += 1;
        }
        match lru.iter().position(|i| *i == index) {
            Some(at) => {
                plain += 1;
                lru.remove(at);
            }
            None if lru.len() == chunks => drop(lru.pop_front()),
            None => {}
        }
        lru.push_back(index);
    }
    (s3, plain)
}

#[test]
fn a_scan_does_not_displace_what_is_in_use() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut trace = Vec::new();
    for round in 0..40u64 {
        for _ in 0..200 {
            trace.push(rng.u64(0..60));
        }
        // A file that is read once, larger than the memory.
        trace.extend((0..150).map(|i| 1000 + round * 150 + i));
    }
    let (s3, lru) = hits(&trace, 80);
    assert!(s3 > lru + lru / 10, "s3-fifo {s3}, lru {lru}");
}

#[test]
fn small_parts_of_large_buffers_are_copied_before_they_stay() {
    let mut memory = Memory::new(4 * (CHUNK as usize + OVERHEAD));
    let large = bytes(1 << 20, 1);
    memory.insert(FID, 0, &large.part(0..100));
    for _ in 0..3 {
        memory.lookup(FID, 0..100, true);
    }
    for i in 1..8 {
        memory.insert(FID, i * CHUNK, &bytes(CHUNK as usize, 0));
    }
    assert_eq!(&memory.lookup(FID, 0..100, true)[0].1[..], &large[..100]);
    assert!(memory.chunks[&(FID, 0)].in_main);
    let mut large = large;
    large = large.part(0..large.len());
    assert!(large.into_buf().is_ok(), "nobody else holds it");
}
