//! Boxes that lived and died without damage are sound, wherever they died.

use super::bed::{checked, lived, scene};
use super::{Gravity, kinds};
use crate::sim::Crash;

#[test]
fn what_a_life_leaves_is_sound() {
    let seeds: Vec<u64> = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..24).collect(),
    };
    for seed in seeds {
        let kind = [Some(Crash::Process), Some(Crash::Power), None];
        let kind = kind[usize::try_from(seed % 3).unwrap()];
        let ops = usize::try_from(60 + 40 * (seed % 8)).unwrap();
        let found = checked(&lived(seed, ops, kind)).unwrap();
        let mut bad = found.iter().filter(|f| f.kind.gravity() > Gravity::Note);
        assert!(bad.next().is_none(), "seed {seed}: {found:#?}");
    }
}

#[test]
fn the_scene_is_sound() {
    let found = checked(&scene()).unwrap();
    assert!(kinds(&found).is_empty(), "{found:#?}");
}
