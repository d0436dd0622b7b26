//! Random lives of a whole box. `FOREBAY_SEED=n` runs one seed and prints its
//! log; `FOREBAY_SEEDS=a..b` runs a range.

use forebay::sim::scenario::{Plan, live};

fn seeds(default: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let number = |s: &str| s.parse::<u64>().expect("a number");
    if let Ok(seed) = std::env::var("FOREBAY_SEED") {
        return number(&seed)..number(&seed) + 1;
    }
    match std::env::var("FOREBAY_SEEDS") {
        Ok(range) => {
            let (a, b) = range.split_once("..").expect("FOREBAY_SEEDS=first..last");
            number(a)..number(b)
        }
        Err(_) => default,
    }
}

/// Lives all of them, on two threads: lives share nothing.
fn all_hold(seeds: std::ops::Range<u64>, plan: fn(u64) -> Plan) {
    let part = |odd: u64| {
        let mine = seeds.clone().filter(move |seed| seed % 2 == odd);
        mine.filter_map(|seed| live(seed, &plan(seed)).err())
            .collect::<Vec<String>>()
    };
    let failed = std::thread::scope(|scope| {
        let odd = scope.spawn(|| part(1));
        let mut failed = part(0);
        failed.extend(odd.join().expect("a life panicked"));
        failed
    });
    let first = failed.first();
    assert!(
        first.is_none(),
        "{} seeds failed, one of them:\n{}",
        failed.len(),
        failed[0]
    );
}

#[test]
fn calm_lives_hold() {
    all_hold(seeds(0..50), |seed| Plan::of(seed).calm());
}

#[test]
fn lives_hold() {
    all_hold(seeds(0..1000), Plan::of);
}

/// Lives that once went wrong; each says what it found.
#[test]
fn lives_that_failed_hold() {
    // A file's removal was carried, and its record gone, under a pass over its
    // bytes: the pass failed with ESTALE, and the drain with it.
    all_hold(1023..1024, |seed| Plan::of(seed).calm());
}

/// A seed is a run: the same trace of events, and the same end.
#[test]
fn a_life_repeats_exactly() {
    for seed in seeds(0..10) {
        let plan = Plan::of(seed);
        assert_eq!(live(seed, &plan), live(seed, &plan), "seed {seed}");
    }
}
