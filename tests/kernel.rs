//! C15: mounts in the simulated world. The session and the client are the real
//! ones, and so is the box; the kernel is a model of Linux, with the locks that
//! requests hold while invalidations run. What is cached must be as if it were
//! not, and nothing may wait for itself.
//!
//! `FOREBAY_SEED=n` runs one seed alone, `n..m` a row of them; `FOREBAY_SIM_LOG=1`
//! shows their log.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "kernel/attrs.rs"]
mod attrs;
#[path = "kernel/bytes.rs"]
mod bytes;
#[path = "kernel/check.rs"]
mod check;
#[path = "kernel/files.rs"]
mod files;
#[path = "kernel/growth.rs"]
mod growth;
#[path = "kernel/inode.rs"]
mod inode;
#[path = "kernel/linux.rs"]
mod linux;
#[path = "kernel/listing.rs"]
mod listing;
#[path = "kernel/locks.rs"]
mod locks;
#[path = "kernel/losses.rs"]
mod losses;
#[path = "kernel/mounts.rs"]
mod mounts;
#[path = "kernel/names.rs"]
mod names;
#[path = "kernel/pages.rs"]
mod pages;
#[path = "kernel/places.rs"]
mod places;
#[path = "kernel/run.rs"]
mod run;
#[path = "kernel/scenes.rs"]
mod scenes;
#[path = "kernel/work.rs"]
mod work;

use run::{Plan, Sum, run};

fn all(many: u64, plan: fn(u64) -> Plan) -> Sum {
    let mut sum = Sum::default();
    let mut failed = Vec::new();
    for seed in seeds(many) {
        match run(seed, plan(seed)) {
            Ok(one) => sum.add(&one),
            Err(why) => failed.push(why),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("{sum:?}");
    sum
}

/// Some seeds, or the one or those asked for.
fn seeds(many: u64) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("FOREBAY_SEED") else {
        return 0..many;
    };
    let number = |text: &str| text.parse().expect("a number");
    match asked.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&asked)..number(&asked) + 1,
    }
}

#[test]
fn what_kernels_keep_is_never_older_than_their_locks_c15() {
    let sum = all(SEEDS, Plan::of);
    // What the rules are about has happened, and often.
    let each = |count: u64, at_least: u64| assert!(count >= at_least * SEEDS / 10, "{sum:?}");
    if std::env::var_os("FOREBAY_SEED").is_none() {
        each(sum.hits, 5000);
        each(sum.kept, 100);
        each(sum.notices, 3000);
        each(sum.laundered, 200);
        each(sum.lost as u64, 3);
        each(sum.ahead, 100);
        each(sum.grown, 5);
        each(sum.grown_late, 1);
        assert!(sum.ahead_lost > 3, "{sum:?}");
    }
    // Rounds of invalidations are spaced: they leave few threads waiting.
    assert!(sum.contexts < 64, "{sum:?}");
}

/// What was true when a reply was made is over when it is written.
#[test]
fn a_reply_that_was_held_up_makes_nothing_believed_c1() {
    let sum = all(LATE_SEEDS, Plan::late);
    assert!(sum.stops > 10, "{sum:?}");
}

#[test]
fn a_run_repeats_exactly() {
    for seed in 0..7 {
        let plan = Plan::of(seed);
        assert_eq!(run(seed, plan), run(seed, plan), "seed {seed}");
    }
}

const LATE_SEEDS: u64 = 40;
const SEEDS: u64 = 250;
