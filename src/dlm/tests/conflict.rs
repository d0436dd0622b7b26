//! The conflict of two locks, over all modes, sets of bits, relations of their
//! extents and groups, against a statement of the rule in other words.

use super::at;
use super::naive::{conflict, ways};
use crate::base::{Bits, Extent, Mode};
use crate::dlm::Shape;

/// Apart, touching, sharing one byte, equal, one within the other.
const EXTENTS: [(Extent, Extent); 6] = [
    (at(0, 3), at(6, 9)),
    (at(0, 3), at(4, 9)),
    (at(0, 4), at(4, 9)),
    (at(2, 5), at(2, 5)),
    (at(0, 9), at(3, 4)),
    (at(5, 9), at(0, u64::MAX)),
];

/// One bit like all others, the two that meet each other, and one more.
const SET: [Bits; 4] = [Bits::LOOKUP, Bits::UPDATE, Bits::XATTR, Bits::DATA];

fn sets() -> impl Iterator<Item = u64> {
    (0..16u32).map(|n| {
        let with = (0..4).filter(|bit| n & (1 << bit) != 0);
        with.map(|bit| SET[bit].set).sum()
    })
}

#[test]
fn conflicts_are_those_of_what_each_lock_says_about_each_thing_l1() {
    let mut seen = [0u64; 2];
    for (a_mode, b_mode) in pairs() {
        for bits in sets() {
            for other in sets() {
                for (a_extent, b_extent) in EXTENTS {
                    let a = shape(a_mode, bits, a_extent, 1);
                    let b = shape(b_mode, other, b_extent, 1);
                    check(&a, &b, &mut seen);
                }
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 20_000), "{seen:?}");
}

#[test]
fn every_set_of_bits_meets_every_other_l1() {
    let modes =
        pairs().filter(|(a, b)| matches!((a, b), (Mode::Pw | Mode::Cw, Mode::Pr | Mode::Cw)));
    for (a_mode, b_mode) in modes {
        for bits in 0..=Bits::ALL.set {
            for other in 0..=Bits::ALL.set {
                let a = shape(a_mode, bits, at(0, 1), 0);
                let b = shape(b_mode, other, at(1, 2), 0);
                check(&a, &b, &mut [0; 2]);
            }
        }
    }
}

#[test]
fn groups_are_shared_within_and_not_between_l1() {
    let mut seen = [0u64; 2];
    for a_group in 0..3 {
        for b_group in 0..3 {
            for bits in sets() {
                for other in sets() {
                    for (a_extent, b_extent) in EXTENTS {
                        let a = shape(Mode::Group, bits, a_extent, a_group);
                        let b = shape(Mode::Group, other, b_extent, b_group);
                        check(&a, &b, &mut seen);
                    }
                }
            }
        }
    }
}

#[test]
fn writers_of_different_bytes_go_together_and_not_with_attributes_l1() {
    let writer = |start, end| shape(Mode::Pw, Bits::DATA.set, at(start, end), 0);
    let attrs = |mode| shape(mode, Bits::UPDATE.set, Extent::ALL, 0);
    assert_eq!(writer(0, 3).in_way(&writer(4, 7)), Bits::NONE);
    assert_eq!(writer(0, 3).in_way(&writer(3, 7)), Bits::DATA);
    for (mode, is_free) in [
        (Mode::Nl, true),
        (Mode::Cr, true),
        (Mode::Cw, true),
        (Mode::Pr, false),
        (Mode::Pw, false),
        (Mode::Ex, false),
    ] {
        assert_eq!(!writer(0, 3).conflicts(&attrs(mode)), is_free, "{mode:?}");
    }
    assert_eq!(writer(0, 3).in_way(&attrs(Mode::Pr)), Bits::DATA);
    assert_eq!(attrs(Mode::Pr).in_way(&writer(0, 3)), Bits::UPDATE);
}

fn pairs() -> impl Iterator<Item = (Mode, Mode)> {
    Mode::ALL
        .into_iter()
        .flat_map(|a| Mode::ALL.map(|b| (a, b)))
}

fn shape(mode: Mode, set: u64, extent: Extent, group: u32) -> Shape {
    Shape {
        mode,
        bits: Bits { set },
        extent,
        group,
    }
}

fn check(a: &Shape, b: &Shape, seen: &mut [u64; 2]) {
    let expected = conflict(a, b);
    assert_eq!(a.conflicts(b), expected, "{a:?} {b:?}");
    assert_eq!(b.conflicts(a), expected, "{b:?} {a:?}");
    let in_way = a.in_way(b);
    assert!(a.bits.has(in_way), "{a:?} {b:?}");
    assert_eq!(in_way, ways(a, b), "{a:?} {b:?}");
    // What is called back is what has to go, and enough.
    assert!(
        !a.with_bits(a.bits.without(in_way)).conflicts(b),
        "{a:?} {b:?}"
    );
    seen[usize::from(expected)] += 1;
}
