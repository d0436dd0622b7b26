//! The map against a file of single bytes, each with its own state.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SIZE: u64 = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Byte {
    Unmapped,
    Hole { owed: bool },
    Flash { at: Location, dirty: bool },
}

#[derive(Clone, Debug)]
enum Op {
    Write {
        at: u64,
        len: u64,
        dirty: bool,
        adjacent: bool,
    },
    Punch {
        at: u64,
        len: u64,
    },
    Truncate {
        size: u64,
    },
    Clean {
        at: u64,
        len: u64,
    },
    Drop {
        at: u64,
        len: u64,
    },
    FillGaps {
        at: u64,
        len: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let at = prop_oneof![0..SIZE, (0..SIZE / 4096).prop_map(|b| b * 4096)];
    let len = prop_oneof![1..600u64, Just(4096), Just(8192), 1..9000u64];
    let span = (at, len).prop_map(|(at, len)| (at, len.min(SIZE - at)));
    prop_oneof![
        5 => (span.clone(), any::<bool>(), any::<bool>()).prop_map(|((at, len), dirty, adjacent)| {
            Op::Write { at, len, dirty, adjacent }
        }),
        2 => span.clone().prop_map(|(at, len)| Op::Punch { at, len }),
        1 => (0..SIZE).prop_map(|size| Op::Truncate { size }),
        2 => span.clone().prop_map(|(at, len)| Op::Clean { at, len }),
        1 => span.clone().prop_map(|(at, len)| Op::Drop { at, len }),
        1 => span.prop_map(|(at, len)| Op::FillGaps { at, len }),
    ]
}

/// The map, what is stored of it, and the bytes that it must describe.
struct Bench {
    map: ExtentMap,
    stored: BTreeMap<u64, Vec<u8>>,
    summary: BTreeMap<Location, u64>,
    bytes: Vec<Byte>,
    origin_size: u64,
    next: Location,
}

impl Bench {
    fn new(origin_size: u64) -> Bench {
        Bench {
            map: ExtentMap::default(),
            stored: BTreeMap::new(),
            summary: BTreeMap::new(),
            bytes: vec![Byte::Unmapped; SIZE as usize],
            origin_size,
            next: Location {
                segment: 1,
                offset: 0,
            },
        }
    }

    fn piece(&mut self, len: u64, adjacent: bool) -> Piece {
        if !adjacent {
            self.next.segment += 1;
            self.next.offset = 0;
        }
        let at = self.next;
        self.next.offset += (len as u32).next_multiple_of(BLOCK as u32);
        let crcs = (0..(len as usize).div_ceil(BLOCK))
            .map(|i| at.segment * 1000 + at.offset / 4096 + i as u32)
            .collect();
        Piece {
            at,
            len: len as u32,
            crcs,
        }
    }

    fn state(&self, i: u64) -> What {
        match self.bytes[i as usize] {
            Byte::Unmapped if i < self.origin_size => What::Absent,
            _ => What::Hole,
        }
    }

    fn run(&mut self, op: &Op) {
        let before = self.bytes.clone();
        let change = match *op {
            Op::Write {
                at,
                len,
                dirty,
                adjacent,
            } => {
                let piece = self.piece(len, adjacent);
                for i in 0..len {
                    let at = Location {
                        offset: piece.at.offset + i as u32,
                        ..piece.at
                    };
                    self.bytes[(i + op.start()) as usize] = Byte::Flash { at, dirty };
                }
                let extent = Extent::bytes(piece, dirty, SnapEpoch(0));
                self.map.replace(at..at + len, vec![extent])
            }
            Op::Punch { at, len } => {
                for i in at..at + len {
                    let byte = self.bytes[i as usize];
                    if matches!(byte, Byte::Flash { .. }) || self.state(i) == What::Absent {
                        self.bytes[i as usize] = Byte::Hole { owed: true };
                    }
                }
                self.map.punch(at..at + len, self.origin_size, SnapEpoch(0))
            }
            Op::Truncate { size } => {
                self.bytes[size as usize..].fill(Byte::Unmapped);
                self.origin_size = self.origin_size.min(size);
                self.map.truncate(size)
            }
            Op::Clean { at, len } => {
                for byte in &mut self.bytes[at as usize..(at + len) as usize] {
                    match byte {
                        Byte::Unmapped => {}
                        Byte::Hole { owed } => *owed = false,
                        Byte::Flash { dirty, .. } => *dirty = false,
                    }
                }
                self.map.mark_clean(at..at + len)
            }
            Op::Drop { at, len } => {
                self.bytes[at as usize..(at + len) as usize].fill(Byte::Unmapped);
                self.map.replace(at..at + len, Vec::new())
            }
            Op::FillGaps { at, len } => {
                for byte in &mut self.bytes[at as usize..(at + len) as usize] {
                    if *byte == Byte::Unmapped {
                        *byte = Byte::Hole { owed: false };
                    }
                }
                self.map.fill_gaps(at..at + len, SnapEpoch(0))
            }
        };
        self.store(&change, &before);
    }

    /// Applies the change to what is stored, and checks what it says is free.
    fn store(&mut self, change: &Change, before: &[Byte]) {
        for at in &change.deletes {
            assert!(self.stored.remove(at).is_some(), "deletes what is there");
        }
        for (at, extent) in &change.puts {
            self.stored.insert(*at, extent.to_vec());
        }
        for at in &change.unplaced {
            assert!(self.summary.remove(at).is_some(), "leaves what was taken");
        }
        for (location, at) in &change.placed {
            self.summary.insert(*location, *at);
        }
        let mut freed = BTreeSet::new();
        for (at, len) in &change.freed {
            for i in 0..*len {
                assert!(freed.insert((at.segment, at.offset + i)), "freed twice");
            }
        }
        assert_eq!(freed, &flash(before) - &flash(&self.bytes));
    }

    fn check(&self) {
        let mut loaded = ExtentMap::default();
        for (at, bytes) in &self.stored {
            loaded
                .load(*at, Extent::from_slice(bytes).unwrap())
                .unwrap();
        }
        assert_eq!(loaded, self.map, "the stored map is the map");
        let summary: BTreeMap<_, _> = self
            .map
            .iter()
            .filter_map(|(at, e)| Some((e.location()?, at)))
            .collect();
        assert_eq!(summary, self.summary);
        self.check_lookup(0..SIZE);
        self.check_lookup(SIZE / 3..SIZE / 2);
        let dirty = |b: &&Byte| matches!(b, Byte::Flash { dirty: true, .. });
        let dirty = self.bytes.iter().filter(dirty).count();
        assert_eq!(self.map.dirty_bytes(), dirty as u64);
        self.check_marks();
        let (from, hole) = (SIZE / 7, |i: &u64| self.is_hole(*i));
        let found = |want| self.map.seek(from, SIZE, self.origin_size, want);
        assert_eq!(found(true), (from..SIZE).find(|i| hole(i)));
        assert_eq!(found(false), (from..SIZE).find(|i| !hole(i)));
        let blocks = (0..SIZE.div_ceil(4096))
            .filter(|b| (b * 4096..((b + 1) * 4096).min(SIZE)).any(|i| !self.is_hole(i)));
        assert_eq!(
            self.map.allocated(0..SIZE, self.origin_size),
            blocks.count() as u64
        );
    }

    fn is_hole(&self, i: u64) -> bool {
        match self.bytes[i as usize] {
            Byte::Flash { .. } => false,
            Byte::Hole { .. } => true,
            Byte::Unmapped => i >= self.origin_size,
        }
    }

    fn check_lookup(&self, range: Range<u64>) {
        let mut at = range.start;
        for segment in self.map.lookup(range.clone(), self.origin_size) {
            assert_eq!(segment.range.start, at, "no gap");
            assert!(segment.range.end > at);
            for i in segment.range.clone() {
                match (&segment.what, self.bytes[i as usize]) {
                    (
                        What::Bytes {
                            piece,
                            at,
                            dirty,
                            part,
                        },
                        Byte::Flash { at: want, dirty: d },
                    ) => {
                        assert!(part.start <= at.start && at.end <= part.end);
                        let skip = at.start + (i - segment.range.start) as u32;
                        assert_eq!(piece.at.segment, want.segment);
                        assert_eq!(piece.at.offset + skip, want.offset);
                        assert_eq!(*dirty, d);
                        let crc = want.segment * 1000 + want.offset / 4096;
                        assert_eq!(piece.crcs[skip as usize / BLOCK], crc);
                    }
                    (What::Hole, _) => assert!(self.is_hole(i)),
                    (What::Absent, Byte::Unmapped) => assert!(i < self.origin_size),
                    other => panic!("byte {i}: {other:?}"),
                }
            }
            at = segment.range.end;
        }
        assert_eq!(at, range.end);
    }

    /// Explicit holes carry the mark of their bytes.
    fn check_marks(&self) {
        for (at, extent) in self.map.iter().filter(|(_, e)| e.is_hole()) {
            for i in at..at + extent.len {
                let owed = extent.is_dirty();
                assert_eq!(self.bytes[i as usize], Byte::Hole { owed });
            }
        }
    }
}

impl Op {
    fn start(&self) -> u64 {
        match self {
            Op::Write { at, .. } => *at,
            _ => 0,
        }
    }
}

fn flash(bytes: &[Byte]) -> BTreeSet<(u32, u32)> {
    bytes
        .iter()
        .filter_map(|b| match b {
            Byte::Flash { at, .. } => Some((at.segment, at.offset)),
            _ => None,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn map_agrees_with_single_bytes(
        origin_size in 0..SIZE,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut bench = Bench::new(origin_size);
        for op in &ops {
            bench.run(op);
            bench.check();
        }
    }

    #[test]
    fn stored_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(extent) = Extent::from_slice(&bytes) {
            prop_assert_eq!(Extent::from_slice(&extent.to_vec()), Ok(extent));
        }
    }
}

#[test]
fn parts_of_a_piece_join_again() {
    let mut bench = Bench::new(0);
    bench.run(&Op::Write {
        at: 0,
        len: 9000,
        dirty: true,
        adjacent: false,
    });
    for (at, len) in [(0, 3000), (6000, 3000), (3000, 3000)] {
        bench.run(&Op::Clean { at, len });
        bench.check();
    }
    assert_eq!(bench.map.len(), 1);
}

#[test]
fn a_stored_extent_that_lies_is_refused() {
    let piece = Piece {
        at: Location {
            segment: 1,
            offset: 0,
        },
        len: 8192,
        crcs: vec![1, 2],
    };
    let good = Extent::bytes(piece, true, SnapEpoch(3)).to_vec();
    assert!(Extent::from_slice(&good).is_ok());
    for (at, value, why) in [
        (0, 0xff, "longer than the piece"),
        (7, 0x80, "longer than a file"),
        (12, 9, "kind"),
        (21, 0, "piece length against the number of checksums"),
        (26, 1, "skip"),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        if at == 21 {
            bad[22] = 0x10;
        }
        assert!(Extent::from_slice(&bad).is_err(), "{why}");
    }
}
