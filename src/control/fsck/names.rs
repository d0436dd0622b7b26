//! What files are called: ways from a target's root, found in the index.

use super::index::{Index, prefix_range};
use super::shard::View;
use crate::base::{Codec, Fid, Name, TargetId};
use crate::namespace::{Dirent, Inode, key};
use crate::shard::meta::{self, TargetRecord};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// A target as the flash knows it.
#[derive(Clone, Debug)]
pub struct TargetName {
    pub id: TargetId,
    pub name: String,
    pub root: Fid,
    /// Key of the name hash, where the target's record could be read.
    pub hash_key: Option<[u8; 16]>,
}

/// The targets of a shard: those of the superblock that the map gives it, and
/// those that the shard has met the origin of.
#[must_use]
pub fn targets(view: &View) -> Vec<TargetName> {
    let (superblock, index) = (&view.volume.superblock, &view.index);
    let mut all: BTreeMap<TargetId, TargetName> = BTreeMap::new();
    for entry in &superblock.targets {
        let seq = entry.root.seq;
        let mut map = superblock.map.iter();
        let owner = map.find(|r| r.first <= seq && seq <= r.last);
        if owner.is_some_and(|r| r.shard != view.id) {
            continue;
        }
        let target = TargetName {
            id: entry.id,
            name: entry.name.clone(),
            root: meta::root(entry.id),
            hash_key: None,
        };
        all.insert(entry.id, target);
    }
    for (key, value) in index.range(prefix_range(key::setting("target."))) {
        let id = key::setting("target.").len();
        let id = std::str::from_utf8(key.get(id..).unwrap_or_default());
        let Some(id) = id.ok().and_then(|id| id.parse().ok()).map(TargetId) else {
            continue;
        };
        let Ok(record) = TargetRecord::from_slice(&value) else {
            continue;
        };
        let target = all.entry(id).or_insert_with(|| TargetName {
            id,
            name: record.name.clone(),
            root: meta::root(id),
            hash_key: None,
        });
        target.hash_key = record.hash_key.0.as_slice().try_into().ok();
    }
    all.into_values().collect()
}

/// Directories above a file; a longer chain is a loop, which only rot can make.
const DEPTH_MAX: usize = 4096;

/// Looks up paths. Directories' places are remembered; a file is looked for in
/// the directory that its inode names, each time.
pub struct Names<'a> {
    index: &'a Index,
    targets: &'a [TargetName],
    dirs: RefCell<BTreeMap<Fid, Option<(Fid, Name)>>>,
    /// Places that files had once, for telling what was done then.
    past: RefCell<BTreeMap<Fid, (Fid, Name)>>,
}

/// Places remembered at most.
const DIRS_MAX: usize = 1 << 16;

impl<'a> Names<'a> {
    #[must_use]
    pub fn new(view: &'a View, targets: &'a [TargetName]) -> Names<'a> {
        Names {
            index: &view.index,
            targets,
            dirs: RefCell::default(),
            past: RefCell::default(),
        }
    }

    /// From here on the file is where it was before.
    pub fn go_back(&self, fid: Fid, parent: Fid, name: &Name) {
        self.past.borrow_mut().insert(fid, (parent, name.clone()));
    }

    #[must_use]
    pub fn target_of(&self, fid: Fid) -> Option<&'a TargetName> {
        let id = u32::try_from(fid.seq >> 32).ok()?;
        self.targets.iter().find(|t| t.id.0 == id)
    }

    /// The way to a file: its target, and names from the root down. `None` if it
    /// has no name, or none that can be found.
    #[must_use]
    pub fn way(&self, fid: Fid) -> Option<(&'a TargetName, Vec<Name>)> {
        let target = self.target_of(fid)?;
        let mut names = Vec::new();
        let mut at = fid;
        while at != target.root {
            let (parent, name) = self.place(at)?;
            names.push(name);
            at = parent;
            if names.len() > DEPTH_MAX {
                return None;
            }
        }
        names.reverse();
        Some((target, names))
    }

    /// The same as text: TARGET/a/b.
    #[must_use]
    pub fn path(&self, fid: Fid) -> Option<String> {
        let (target, names) = self.way(fid)?;
        let mut out = shown(target.name.as_bytes());
        for name in names {
            out.push('/');
            out.push_str(&shown(name.as_bytes()));
        }
        Some(out)
    }

    /// The path, or what else tells the file.
    #[must_use]
    pub fn path_or_fid(&self, fid: Fid) -> String {
        self.path(fid).unwrap_or_else(|| format!("({fid})"))
    }

    /// The directory and name of a file.
    fn place(&self, fid: Fid) -> Option<(Fid, Name)> {
        if let Some(past) = self.past.borrow().get(&fid) {
            return Some(past.clone());
        }
        if let Some(known) = self.dirs.borrow().get(&fid) {
            return known.clone();
        }
        let inode: Inode = self.index.record(&key::inode(fid))?;
        let entries = self.index.range(entries_of(inode.parent));
        let mut found = entries
            .filter_map(|(_, value)| Dirent::from_slice(&value).ok())
            .find(|dirent| dirent.fid == fid)
            .map(|dirent| (inode.parent, dirent.name));
        if found.is_none() && inode.attr.nlink > 0 {
            // A hard link whose first name is gone: any other will do.
            let mut names = all_names(self.index, &BTreeSet::from([fid]));
            found = names
                .remove(&fid)
                .and_then(|names| names.into_iter().next());
        }
        if inode.attr.kind == crate::base::FileKind::Directory {
            let mut dirs = self.dirs.borrow_mut();
            if dirs.len() >= DIRS_MAX {
                dirs.clear();
            }
            dirs.insert(fid, found.clone());
        }
        found
    }
}

/// Every name of the files in `wanted`, in one pass over all names.
#[must_use]
pub fn all_names(index: &Index, wanted: &BTreeSet<Fid>) -> BTreeMap<Fid, Vec<(Fid, Name)>> {
    let mut out: BTreeMap<Fid, Vec<(Fid, Name)>> = BTreeMap::new();
    for (key, value) in index.letter(key::table::DIRENT) {
        let Some((parent, _)) = entry_key(&key) else {
            continue;
        };
        match Dirent::from_slice(&value) {
            Ok(dirent) if wanted.contains(&dirent.fid) => {
                out.entry(dirent.fid)
                    .or_default()
                    .push((parent, dirent.name));
            }
            _ => {}
        }
    }
    out
}

/// All entries of a directory.
#[must_use]
pub fn entries_of(dir: Fid) -> std::ops::Range<Vec<u8>> {
    key::dirent(dir, 0)..key::dirent(dir, u64::MAX)
}

/// Directory and cookie of an entry's key.
#[must_use]
pub fn entry_key(key: &[u8]) -> Option<(Fid, u64)> {
    let (front, cookie) = key.split_last_chunk::<8>()?;
    Some((fid_key(front)?, u64::from_be_bytes(*cookie)))
}

/// The FID in a key that is a letter and a FID.
#[must_use]
pub fn fid_key(key: &[u8]) -> Option<Fid> {
    let (_, fid) = key.split_first()?;
    Some(Fid::from_bytes(fid.try_into().ok()?))
}

/// A name or path for people: as it is if that is plain text, else escaped.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
