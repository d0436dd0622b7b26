//! Findings on their way out: a line each, or a JSON object each, as they are
//! found, and a summary in the end.

use super::kind::{Gravity, Kind};
use crate::base::{Fid, ShardId};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// Findings of one kind that are told; the rest is counted. Damage in one place
/// can have very many consequences.
const TOLD_MAX: u64 = 100;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_millis(500);

/// One thing that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: Kind,
    /// What is wrong, in words.
    pub what: String,
    pub shard: Option<ShardId>,
    /// Segment, and offset in it.
    pub segment: Option<(u32, u32)>,
    /// Byte offset in the cache file.
    pub at: Option<u64>,
    pub fid: Option<Fid>,
    /// TARGET/path of the file, where it is known.
    pub path: Option<String>,
}

impl Finding {
    #[must_use]
    pub fn new(kind: Kind, what: impl Into<String>) -> Finding {
        Finding {
            kind,
            what: what.into(),
            shard: None,
            segment: None,
            at: None,
            fid: None,
            path: None,
        }
    }
    #[must_use]
    pub fn shard(self, shard: ShardId) -> Finding {
        Finding {
            shard: Some(shard),
            ..self
        }
    }
    #[must_use]
    pub fn segment(self, segment: u32, offset: u32) -> Finding {
        Finding {
            segment: Some((segment, offset)),
            ..self
        }
    }
    #[must_use]
    pub fn at(self, at: u64) -> Finding {
        Finding {
            at: Some(at),
            ..self
        }
    }
    #[must_use]
    pub fn fid(self, fid: Fid) -> Finding {
        Finding {
            fid: Some(fid),
            ..self
        }
    }
    #[must_use]
    pub fn path(self, path: Option<String>) -> Finding {
        Finding { path, ..self }
    }

    fn line(&self) -> String {
        let mut out = format!("{}: [{}]", self.kind.gravity(), self.kind.label());
        // Writing to a string cannot fail.
        if let Some(shard) = self.shard {
            let _ = write!(out, " shard {shard}");
        }
        if let Some((segment, offset)) = self.segment {
            let _ = write!(out, " segment {segment}+{offset}");
        }
        if let Some(at) = self.at {
            let _ = write!(out, " byte {at}");
        }
        if let Some(path) = &self.path {
            let _ = write!(out, " {path}");
        }
        if let Some(fid) = self.fid {
            let _ = write!(out, " ({fid})");
        }
        let _ = write!(out, ": {}", self.what);
        out
    }

    fn json(&self) -> Value {
        json!({
            "record": "finding",
            "gravity": self.kind.gravity().to_string(),
            "kind": self.kind.label(),
            "what": self.what,
            "shard": self.shard.map(|s| s.0),
            "segment": self.segment.map(|(segment, _)| segment),
            "offset": self.segment.map(|(_, offset)| offset),
            "byte": self.at,
            "fid": self.fid.map(|fid| fid.to_string()),
            "path": self.path,
            "remedy": self.kind.remedy(),
        })
    }
}

/// How many findings there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub notes: u64,
    pub damages: u64,
    pub losses: u64,
}

impl Tally {
    /// Nothing worse than notes.
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.damages == 0 && self.losses == 0
    }
}

/// Where everything goes that is told.
pub struct Report {
    out: RefCell<Box<dyn Write>>,
    /// Findings as well as listings are objects, one a line.
    pub is_json: bool,
    /// Findings go to stderr, because stdout holds a listing.
    is_listing: bool,
    seen: RefCell<BTreeMap<Kind, u64>>,
    shows_progress: bool,
    told: Cell<Option<Instant>>,
    /// What tests look at.
    #[cfg(test)]
    pub findings: RefCell<Vec<Finding>>,
    /// Whoever read the output has gone: nothing more can be told.
    broken: Cell<bool>,
}

impl Report {
    #[must_use]
    pub fn new(out: Box<dyn Write>, is_json: bool, is_listing: bool) -> Report {
        Report {
            out: RefCell::new(out),
            is_json,
            is_listing,
            seen: RefCell::default(),
            shows_progress: io::stderr().is_terminal(),
            told: Cell::new(None),
            #[cfg(test)]
            findings: RefCell::default(),
            broken: Cell::new(false),
        }
    }

    /// Tells a finding, unless very many of its kind were told.
    pub fn tell(&self, finding: Finding) {
        let mut seen = self.seen.borrow_mut();
        let count = seen.entry(finding.kind).or_default();
        *count += 1;
        if *count <= TOLD_MAX {
            let line = match self.is_json {
                true => finding.json().to_string(),
                false => finding.line(),
            };
            match self.is_listing {
                true => eprintln!("{line}"),
                false => self.line(&line),
            }
        }
        drop(seen);
        #[cfg(test)]
        self.findings.borrow_mut().push(finding);
    }

    /// Will the next finding of this kind be told, or only counted?
    #[must_use]
    pub fn tells(&self, kind: Kind) -> bool {
        let seen = self.seen.borrow();
        seen.get(&kind).is_none_or(|count| *count < TOLD_MAX)
    }

    /// One line of output.
    pub fn line(&self, line: &str) {
        if self.broken.get() {
            return;
        }
        if self.shows_progress && self.told.take().is_some() {
            eprint!("\r\x1b[K");
        }
        if writeln!(self.out.borrow_mut(), "{line}").is_err() {
            self.broken.set(true);
        }
    }

    /// One entry of a listing: as an object, or as the line that `text` makes.
    pub fn entry(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        match self.is_json {
            true => self.line(&json().to_string()),
            false => self.line(&text()),
        }
    }

    /// Hands over what is written so far.
    pub fn flush(&self) {
        if self.out.borrow_mut().flush().is_err() {
            self.broken.set(true);
        }
    }

    /// Nobody reads what is told any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// A line on the terminal, now and then, that is overwritten by the next.
    pub fn progress(&self, line: impl FnOnce() -> String) {
        let is_early = self.told.get().is_some_and(|at| at.elapsed() < PROGRESS);
        if !self.shows_progress || is_early {
            return;
        }
        self.told.set(Some(Instant::now()));
        eprint!("\r\x1b[K{}", line());
    }

    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for (kind, count) in self.seen.borrow().iter() {
            match kind.gravity() {
                Gravity::Note => tally.notes += count,
                Gravity::Damage => tally.damages += count,
                Gravity::Loss => tally.losses += count,
            }
        }
        tally
    }

    /// What was found, by kind, with what to do about each; then `counts`.
    pub fn summary(&self, counts: &[(&str, u64)]) {
        let (seen, tally) = (self.seen.borrow(), self.tally());
        if self.is_json {
            let kinds: BTreeMap<_, _> = seen.iter().map(|(k, n)| (k.label(), n)).collect();
            let counts: BTreeMap<_, _> = counts.iter().copied().collect();
            let summary = json!({
                "record": "summary",
                "sound": tally.is_sound(),
                "notes": tally.notes,
                "damages": tally.damages,
                "losses": tally.losses,
                "kinds": kinds,
                "counts": counts,
            });
            self.line(&summary.to_string());
        } else {
            self.summary_text(&seen, tally, counts);
        }
        // A reader that has gone is no failure of the check.
        self.flush();
    }

    fn summary_text(&self, seen: &BTreeMap<Kind, u64>, tally: Tally, counts: &[(&str, u64)]) {
        for (kind, count) in seen {
            if *count > TOLD_MAX {
                let more = count - TOLD_MAX;
                self.line(&format!(
                    "{}: [{}] {more} more",
                    kind.gravity(),
                    kind.label()
                ));
            }
        }
        for (kind, _) in seen.iter().filter(|(k, _)| k.gravity() > Gravity::Note) {
            self.line(&format!("what to do [{}]: {}", kind.label(), kind.remedy()));
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(what, n)| format!("{n} {what}"))
            .collect();
        self.line(&format!("looked at {}", counts.join(", ")));
        self.line(&match tally.is_sound() {
            true if tally.notes == 0 => "sound".to_owned(),
            true => format!("sound, with {} notes", tally.notes),
            false => format!(
                "NOT SOUND: {} losses, {} damages, {} notes",
                tally.losses, tally.damages, tally.notes
            ),
        });
    }
}
