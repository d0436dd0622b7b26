//! Several clients share names and files: what one has written, every other
//! sees, from its caches too (L1, L2, L3, L9; DESIGN §12.1 and 2).

use forebay::sim::shared::{Plan, Sum, run};

fn all(seeds: std::ops::Range<u64>) -> Sum {
    let seeds = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => seeds,
    };
    let mut sum = Sum::default();
    for seed in seeds {
        let one = run(seed, &Plan::of(seed)).unwrap_or_else(|e| panic!("{e}"));
        sum.records += one.records;
        sum.read_nameless += one.read_nameless;
        sum.answered_here += one.answered_here;
        sum.glimpses += one.glimpses;
    }
    sum
}

#[test]
fn every_read_sees_the_last_write_whoever_wrote() {
    let sum = all(0..450);
    // The caches were there to be wrong.
    assert!(sum.answered_here > 1000, "{sum:?}");
    // What others were writing was shown without stopping them.
    assert!(sum.glimpses > 100, "{sum:?}");
    // And files were removed while they were open.
    assert!(sum.read_nameless > 100, "{sum:?}");
}

#[test]
fn a_shared_run_repeats_exactly() {
    for seed in 0..8 {
        let plan = Plan::of(seed);
        assert_eq!(run(seed, &plan), run(seed, &plan), "seed {seed}");
    }
}
