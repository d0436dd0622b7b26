//! What the records of a shard say of each other. Each pass reads the sum of
//! tables and journal once, in the order of its keys.
//!
//! What may be lost with a table that cannot be read is never called missing:
//! that damage was told already.

mod entries;
mod extents;
mod inodes;
mod records;

use super::census::Census;
use super::kind::Kind;
use super::names::{self, Names, TargetName};
use super::report::Report;
use super::shard::{View, shown_key};
use crate::base::{Codec, Fid};
use crate::namespace::key;
use std::collections::BTreeSet;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Read all bytes of files, and verify them.
    pub reads_data: bool,
}

/// What was looked at in a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub inodes: u64,
    pub extents: u64,
    pub data_bytes: u64,
    pub owed: u64,
}

/// One shard under check.
pub(super) struct Check<'a> {
    pub view: &'a View,
    pub targets: &'a [TargetName],
    pub names: Names<'a>,
    pub report: &'a Report,
    pub depth: Depth,
    pub census: Census,
    /// Inodes whose records cannot be decoded: there, and not to be read.
    unreadable: BTreeSet<Fid>,
    /// Files that are gone and whose extents are still to be deleted.
    gone: BTreeSet<Fid>,
    /// Files that an owed record makes at the origin.
    created: BTreeSet<Fid>,
    pub counts: Counts,
}

/// Checks all records of a shard.
pub fn run(view: &View, targets: &[TargetName], depth: Depth, report: &Report) -> Counts {
    let mut unreadable = BTreeSet::new();
    let census = Census::take(&view.index, |key, why| {
        unreadable.extend(names::fid_key(key));
        report.tell(view.finding(Kind::Record, format!("{}: {why}", shown_key(key))));
    });
    let mut check = Check {
        view,
        targets,
        names: Names::new(view, targets),
        report,
        depth,
        unreadable,
        gone: BTreeSet::new(),
        created: BTreeSet::new(),
        counts: Counts {
            inodes: census.len() as u64,
            ..Counts::default()
        },
        census,
    };
    check.entries();
    check.records();
    check.extents();
    check.inodes();
    check.counts
}

impl Check<'_> {
    /// Tells a finding about a file, with its path if it is told at all.
    fn about(&self, kind: Kind, fid: Fid, what: impl Into<String>) {
        let path = self.report.tells(kind).then(|| self.names.path(fid));
        let finding = self.view.finding(kind, what).fid(fid);
        self.report.tell(finding.path(path.flatten()));
    }

    /// The inode is neither there nor lost with something unreadable.
    fn is_missing(&self, fid: Fid) -> bool {
        self.census.place(fid).is_none()
            && !self.unreadable.contains(&fid)
            && !self.view.index.may_be_lost(&key::inode(fid))
    }

    /// The record as what it should be; tells if it is something else.
    fn decoded<T: Codec>(&self, key: &[u8], value: &[u8], what: &str) -> Option<T> {
        match T::from_slice(value) {
            Ok(record) => Some(record),
            Err(e) => {
                let what = format!("{what} {}: {e}", shown_key(key));
                self.report.tell(self.view.finding(Kind::Record, what));
                None
            }
        }
    }

    /// The FID in a key; tells if there is none.
    fn fid_of(&self, key: &[u8]) -> Option<Fid> {
        let fid = names::fid_key(key);
        if fid.is_none() {
            self.stray(key, "no FID in the key");
        }
        fid
    }

    fn stray(&self, key: &[u8], why: &str) {
        let what = format!("{}: {why}", shown_key(key));
        self.report.tell(self.view.finding(Kind::StrayKey, what));
    }
}
