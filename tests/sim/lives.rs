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

fn all_hold(seeds: std::ops::Range<u64>, plan: impl Fn(u64) -> Plan + Sync) {
    let failed: Vec<String> = seeds
        .filter_map(|seed| live(seed, &plan(seed)).err())
        .collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed; the first:\n{}",
        failed.len(),
        failed[0]
    );
}

#[test]
fn calm_lives_hold() {
    all_hold(seeds(0..20), |seed| Plan {
        drain: false,
        ..Plan::of(seed).calm()
    });
}

#[test]
fn lives_hold() {
    all_hold(seeds(0..40), Plan::of);
}
