//! The other tables: each record decodes, and what it is about exists.

use super::Check;
use crate::base::codec::Bytes;
use crate::base::{Fid, Time};
use crate::control::fsck::index::letter_range;
use crate::control::fsck::kind::Kind;
use crate::control::fsck::names::fid_key;
use crate::namespace::key::{self, table};
use crate::namespace::{Owed, OwedOp, xattr};
use crate::shard::meta::{Grants, Mark, TargetRecord};
use crate::shard::session::{ClientRecord, ReplyRecord};
use crate::shard::writeback::Aliases;
use std::collections::BTreeSet;

/// The letters that begin a key of the index, in order.
const LETTERS: [u8; 15] = [
    table::ALIASES,
    table::BOX,
    table::CLIENT,
    table::DIRENT,
    table::EXTENT,
    table::FIDS,
    table::GONE,
    table::INODE,
    table::IDENTITY,
    table::ORPHAN,
    table::SUMMARY,
    table::REPLY,
    table::OWED,
    table::XATTR,
    table::DIRTY,
];

impl Check<'_> {
    pub(super) fn records(&mut self) {
        self.strays();
        self.gone = self.fids(table::GONE).into_iter().collect();
        self.aliases();
        self.xattrs();
        self.orphans();
        self.queued();
        self.identities();
        self.clients();
        self.owed();
        self.settings();
    }

    fn strays(&self) {
        let mut from = vec![0];
        let ends = LETTERS
            .iter()
            .map(|letter| vec![*letter])
            .chain([vec![u8::MAX; 2]]);
        for end in ends {
            for (key, _) in self.view.index.range(from..end.clone()) {
                self.stray(&key, "no table of the index has such keys");
            }
            from = vec![end[0].saturating_add(1)];
        }
    }

    fn fids(&self, letter: u8) -> Vec<Fid> {
        let keys = self.view.index.letter(letter);
        keys.filter_map(|(key, _)| self.fid_of(&key)).collect()
    }

    fn aliases(&self) {
        for (key, value) in self.view.index.letter(table::ALIASES) {
            let Some(fid) = self.fid_of(&key) else {
                continue;
            };
            self.decoded::<Aliases>(&key, &value, "further names of");
            self.exists(fid, "has further names at the origin");
        }
    }

    fn exists(&self, fid: Fid, what: &str) -> bool {
        let is_missing = self.is_missing(fid);
        if is_missing {
            self.about(Kind::NoSuchFile, fid, format!("{what}, and does not exist"));
        }
        !is_missing
    }

    /// The list of a file's names comes first, under the empty name.
    fn xattrs(&self) {
        let mut present: Option<(Fid, BTreeSet<Vec<u8>>)> = None;
        for (key, value) in self.view.index.letter(table::XATTR) {
            let Some((fid, name)) = key.split_at_checked(17) else {
                self.stray(&key, "no FID in the key");
                continue;
            };
            let Some(fid) = fid_key(fid) else { continue };
            if name == xattr::LIST {
                self.exists(fid, "has extended attributes");
                let list: Option<Vec<Bytes>> = self.decoded(&key, &value, "the list of names of");
                let names = list.unwrap_or_default().into_iter().map(|Bytes(name)| name);
                self.unvalued(present.replace((fid, names.collect())));
                continue;
            }
            let listed = present.as_mut().filter(|(of, _)| *of == fid);
            let is_listed = listed.is_some_and(|(_, names)| names.remove(name));
            if !is_listed && !self.view.index.may_be_lost(&key::xattr(fid, xattr::LIST)) {
                let name = name.escape_ascii();
                let what = format!("its extended attribute {name} is not in the list of them");
                self.about(Kind::StrayKey, fid, what);
            }
        }
        self.unvalued(present);
    }

    /// Names in a list that had no value.
    fn unvalued(&self, present: Option<(Fid, BTreeSet<Vec<u8>>)>) {
        if let Some((fid, names)) = present {
            for name in names {
                if !self.view.index.may_be_lost(&key::xattr(fid, &name)) {
                    let what = format!(
                        "its extended attribute {} has no value",
                        name.escape_ascii()
                    );
                    self.about(Kind::Record, fid, what);
                }
            }
        }
    }

    fn orphans(&self) {
        for fid in self.fids(table::ORPHAN) {
            if self.exists(fid, "is kept without names")
                && self.census.find(fid).is_some_and(|node| node.nlink > 0)
            {
                self.about(
                    Kind::LinkCount,
                    fid,
                    "is kept as without names, and has links",
                );
            }
        }
    }

    fn queued(&mut self) {
        for (key, value) in self.view.index.letter(table::DIRTY) {
            let Some(fid) = self.fid_of(&key) else {
                continue;
            };
            self.decoded::<Time>(&key, &value, "the time of what is owed of");
            self.exists(fid, "is on write-back's list");
            if let Some(node) = self.census.find_mut(fid) {
                node.is_queued = true;
            }
        }
    }

    fn identities(&self) {
        for (key, value) in self.view.index.letter(table::IDENTITY) {
            if let Some(fid) = self.decoded::<Fid>(&key, &value, "identity") {
                self.exists(fid, "is known at the origin");
            }
        }
    }

    fn clients(&self) {
        for (key, value) in self.view.index.letter(table::CLIENT) {
            self.decoded::<ClientRecord>(&key, &value, "client");
        }
        for (key, value) in self.view.index.letter(table::REPLY) {
            self.decoded::<ReplyRecord>(&key, &value, "answer to a client");
        }
        for (key, value) in self.view.index.letter(table::FIDS) {
            self.decoded::<Grants>(&key, &value, "FIDs of a client");
        }
    }

    fn owed(&mut self) {
        let next = self.view.index.record(&key::setting("writeback.next"));
        let next: u64 = next.unwrap_or(0);
        let knows_next = !self.view.index.may_lack(&letter_range(table::BOX));
        for (key, value) in self.view.index.letter(table::OWED) {
            let seq = key.split_first_chunk::<1>().map(|(_, seq)| seq);
            let Some(seq) = seq.and_then(|seq| seq.try_into().ok()) else {
                self.stray(&key, "no number in the key");
                continue;
            };
            let seq = u64::from_be_bytes(seq);
            self.counts.owed += 1;
            if seq >= next && knows_next {
                let what = format!("owed operation {seq} is not below the next number, {next}");
                self.report.tell(self.view.finding(Kind::Counter, what));
            }
            if let Some(owed) = self.decoded::<Owed>(&key, &value, "owed operation") {
                self.owed_op(seq, &owed);
            }
        }
    }

    fn owed_op(&mut self, seq: u64, owed: &Owed) {
        let target = key::setting(&format!("target.{}", owed.target));
        let is_known = self.targets.iter().any(|t| t.id.0 == owed.target);
        if !is_known && !self.view.index.may_be_lost(&target) {
            let what = format!(
                "owed operation {seq} is of target {}, which is not there",
                owed.target
            );
            self.report.tell(self.view.finding(Kind::Owed, what));
        }
        let needs = match &owed.op {
            OwedOp::Create(o) => {
                self.created.insert(o.fid);
                vec![o.parent, o.fid]
            }
            OwedOp::Link(o) => vec![o.parent, o.fid],
            OwedOp::Unlink(o) => vec![o.parent, o.fid],
            OwedOp::Rename(o) => [o.from, o.to, o.fid].into_iter().chain(o.victim).collect(),
        };
        for fid in needs {
            if !fid.is_none() && self.is_missing(fid) {
                let what = format!("owed operation {seq} needs it, and it does not exist");
                self.about(Kind::Owed, fid, what);
            }
        }
    }

    /// Counters must be above all that was given out.
    fn settings(&self) {
        for (key, value) in self.view.index.letter(table::BOX) {
            let name = String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
            if name.starts_with("target.") {
                self.decoded::<TargetRecord>(&key, &value, "target");
            } else if let Some(id) = name.strip_prefix("fid.") {
                let mark: Option<Mark> = self.decoded(&key, &value, "mark of FIDs");
                if let (Some(mark), Ok(id)) = (mark, id.parse()) {
                    self.marked(id, mark);
                }
            } else if name == "writeback.next" {
                self.decoded::<u64>(&key, &value, "counter of owed operations");
            }
        }
        for target in self.targets {
            if self
                .view
                .index
                .get(&key::setting(&format!("fid.{}", target.id)))
                .is_none()
            {
                let none = Mark { n: 1, oid: 2 };
                if !self.view.index.may_lack(&letter_range(table::BOX)) {
                    self.marked(target.id.0, none);
                }
            }
        }
    }

    fn marked(&self, target: u32, mark: Mark) {
        let mine = self
            .census
            .iter()
            .filter(|n| n.fid.seq >> 32 == u64::from(target));
        let last = mine.map(|n| n.fid).max();
        let limit = Fid::new(u64::from(target) << 32 | u64::from(mark.n), mark.oid);
        if let Some(last) = last.filter(|last| *last >= limit) {
            let what = format!("is in use, and FIDs from {limit} on count as free");
            self.about(Kind::Counter, last, what);
        }
    }
}
