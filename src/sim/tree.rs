//! A whole file tree as a value, for comparing what should be with what is.

use super::sparse::Sparse;
use crate::base::{FileKind, Time};
use std::collections::BTreeMap;
use std::fmt;

/// Paths ("" is the root, "a/b" below it) and what stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<Vec<u8>, Entry>);

/// One file as a tree shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub bytes: Sparse,
    pub link: Option<Vec<u8>>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub mtime: Time,
    /// Names of the same file have the same number, and different files
    /// different ones; the value itself means nothing.
    pub same: u64,
}

impl Tree {
    /// What differs between `self` and `other`, one line each; empty if equal.
    /// Hard links are compared as sets of names, times only if `times`.
    #[must_use]
    pub fn differences(&self, other: &Tree, times: bool) -> Vec<String> {
        let mut out = Vec::new();
        for (path, a) in &self.0 {
            match other.0.get(path) {
                None => out.push(format!("{}: only left: {a:?}", path.escape_ascii())),
                Some(b) => {
                    let shown = |e: &Entry| format!("{:?}", e.shown(times));
                    if shown(a) != shown(b) {
                        let (a, b) = (shown(a), shown(b));
                        out.push(format!("{}: {a} / {b}", path.escape_ascii()));
                    }
                }
            }
        }
        for (path, b) in &other.0 {
            if !self.0.contains_key(path) {
                out.push(format!("{}: only right: {b:?}", path.escape_ascii()));
            }
        }
        let (a, b) = (self.groups(), other.groups());
        if out.is_empty() && a != b {
            out.push("names are linked otherwise".to_owned());
        }
        out
    }

    /// The names of each file that has several.
    fn groups(&self) -> Vec<Vec<&[u8]>> {
        let mut by: BTreeMap<u64, Vec<&[u8]>> = BTreeMap::new();
        for (path, entry) in &self.0 {
            if entry.kind != FileKind::Directory {
                by.entry(entry.same).or_default().push(path);
            }
        }
        let mut groups: Vec<_> = by.into_values().filter(|names| names.len() > 1).collect();
        groups.sort();
        groups
    }
}

impl Entry {
    fn shown(&self, times: bool) -> Shown<'_> {
        Shown(self, times)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&Shown(self, true), f)
    }
}

struct Shown<'a>(&'a Entry, bool);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry {
            kind,
            mode,
            uid,
            gid,
            rdev,
            bytes,
            link,
            xattrs,
            mtime,
            ..
        } = self.0;
        write!(f, "{kind:?} {mode:o} {uid}:{gid}")?;
        if *rdev != 0 {
            write!(f, " rdev {rdev:#x}")?;
        }
        if *kind == FileKind::Regular {
            write!(f, " size {} crc {:08x}", bytes.size(), bytes.digest())?;
        }
        if let Some(link) = link {
            write!(f, " -> {}", link.escape_ascii())?;
        }
        for (name, value) in xattrs {
            write!(f, " {}={}", name.escape_ascii(), value.escape_ascii())?;
        }
        if self.1 {
            write!(f, " mtime {}.{:09}", mtime.sec, mtime.nsec)?;
        }
        Ok(())
    }
}
