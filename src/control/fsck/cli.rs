//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// Checks, lists or rescues the flash of a box that is not running.
///
/// Without options it checks: superblock, roots, manifests, index tables,
/// journal, and whether all records agree; then the checksums of all data. It
/// never writes to CACHE-FILE. Each finding is a line: how bad it is, its kind,
/// where, and what; the end says what to do. docs/STORE.md explains each kind.
///
/// Exit codes: 0 sound, 1 damage found (or something failed), 2 wrong usage,
/// 3 refused (a running box uses the cache, or it is none of this format).
#[derive(Debug, Parser)]
#[command(name = "forebay-fsck", version)]
pub struct Cli {
    /// The cache file or device (`cache.path` of the box's conf)
    #[arg(value_name = "CACHE-FILE")]
    pub cache: PathBuf,
    /// List what is there: superblock, segments, tables, journal, trees, owed
    /// operations, clients; findings go to stderr
    #[arg(long, conflicts_with = "evacuate")]
    pub dump: bool,
    /// Copy what the origin lacks into DIR (made if missing, else empty), with
    /// DIR/forebay-evacuated.json telling what is what, and .forebay-owed.txt in
    /// each target with the operations on names that the origin is owed. A file
    /// that is not `whole` by the list must not replace the origin's
    #[arg(long, value_name = "DIR")]
    pub evacuate: Option<PathBuf>,
    /// For programs: one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Do not read the data of files: quick, and blind for rot in it
    #[arg(long, conflicts_with_all = ["dump", "evacuate"])]
    pub no_data: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    Check,
    Dump,
    Evacuate(PathBuf),
}

impl Cli {
    #[must_use]
    pub fn job(&self) -> Job {
        match (&self.evacuate, self.dump) {
            (Some(dir), _) => Job::Evacuate(dir.clone()),
            (None, true) => Job::Dump,
            (None, false) => Job::Check,
        }
    }
}
