//! `forebay-fsck`: checks, lists and rescues what lies on the flash of a box
//! that is not running.
//!
//! ```text
//! medium (the cache file, locked) ─► volume ─► shard: root, manifest, journal ─► index
//!                                               (by flash::inspect, as a start)    │
//!                          check ◄── census ◄───────────┬──────────────────────────┤
//!                          dump  ◄── names ◄────────────┤                          │
//!                      evacuate  ◄── pieces ◄───────────┴──────────────────────────┘
//! ```
//! Start reading at [`run`], then `shard.rs`, then `check/mod.rs`.
//!
//! Architecture invariants: nothing here writes to the medium, which has no call
//! for it. What cannot be read never stops what can: it is told, left out, and
//! remembered, so that it is not taken for absent.

mod census;
mod check;
pub mod cli;
mod dump;
mod evacuate;
mod index;
mod kind;
mod medium;
mod names;
mod offline;
mod owed;
mod pieces;
mod report;
mod shard;
#[cfg(test)]
mod tests;
mod volume;

use super::cli::{Exit, Failure};
use crate::base::ShardId;
use check::{Counts, Depth};
use cli::{Cli, Job};
use medium::{CacheFile, Shared};
use report::Report;
use shard::View;
use std::io::BufWriter;
use std::rc::Rc;

/// Does what the command line says. The exit is `Failed` where damage was found.
///
/// # Errors
/// Refused and failed runs: what is in the way, and what to do about it.
pub fn run(cli: &Cli) -> Result<Exit, Failure> {
    let medium: Shared = Rc::new(CacheFile::open(&cli.cache)?);
    let out = Box::new(BufWriter::new(std::io::stdout()));
    let report = Report::new(out, cli.json, cli.job() == Job::Dump);
    let depth = Depth {
        reads_data: !cli.no_data,
    };
    let done = match cli.job() {
        Job::Check => check_all(&medium, depth, &report),
        Job::Dump => dump::all(&medium, &report),
        Job::Evacuate(dir) => evacuate::all(&medium, &dir, &report),
    };
    done.map_err(|failure| Failure {
        message: format!("{}: {}", cli.cache.display(), failure.message),
        ..failure
    })?;
    Ok(match report.tally().is_sound() {
        true => Exit::Ok,
        false => Exit::Failed,
    })
}

/// Checks all shards, and ends with the summary.
pub(super) fn check_all(medium: &Shared, depth: Depth, report: &Report) -> Result<(), Failure> {
    let mut all = Counts::default();
    let (mut entries, mut replayed) = (0, 0);
    each_shard(medium, report, |view| {
        let targets = names::targets(view);
        let counts = check::run(view, &targets, depth, report);
        all.inodes += counts.inodes;
        all.extents += counts.extents;
        all.data_bytes += counts.data_bytes;
        all.owed += counts.owed;
        entries += view.entries;
        replayed += view.found.replayed;
    })?;
    report.summary(&[
        ("inodes", all.inodes),
        ("extents", all.extents),
        ("bytes of data", all.data_bytes),
        ("owed operations", all.owed),
        ("entries of index tables", entries),
        ("records of the journal", replayed),
    ]);
    Ok(())
}

/// Opens one shard after the other; one that cannot be opened is told, and
/// passed over.
fn each_shard(
    medium: &Shared,
    report: &Report,
    mut with: impl FnMut(&View),
) -> Result<(), Failure> {
    let Some(volume) = volume::open(medium, report)? else {
        return Ok(());
    };
    let volume = Rc::new(volume);
    for shard in 0..volume.superblock.shards {
        if let Some(view) = View::open(medium, &volume, ShardId(shard), report) {
            with(&view);
        }
    }
    Ok(())
}
