//! Names in directories: each at its place, each of an inode that agrees.

use super::Check;
use crate::base::{Fid, FileKind, Name};
use crate::control::fsck::kind::Kind;
use crate::control::fsck::names::{entry_key, shown};
use crate::namespace::hash::{self, ORDINAL_MAX};
use crate::namespace::{Dirent, key};

/// The chain of colliding names that the pass stands in.
#[derive(Default)]
struct Chain {
    dir: Fid,
    base: u64,
    last: u64,
    names: Vec<Name>,
}

impl Check<'_> {
    pub(super) fn entries(&mut self) {
        let view = self.view;
        let mut chain = Chain::default();
        for (key, value) in view.index.letter(key::table::DIRENT) {
            let Some((dir, cookie)) = entry_key(&key) else {
                self.stray(&key, "no directory and cookie in the key");
                continue;
            };
            self.report
                .progress(|| format!("shard {}: names of {dir}", view.id));
            if let Some(dirent) = self.decoded::<Dirent>(&key, &value, "name") {
                self.slot(&mut chain, dir, cookie, &dirent);
                if !dirent.fid.is_none() {
                    self.entry(dir, &dirent);
                }
            }
        }
    }

    /// Is the name where a look-up would find it?
    fn slot(&self, chain: &mut Chain, dir: Fid, cookie: u64, dirent: &Dirent) {
        let base = cookie & !255;
        let is_same = chain.dir == dir && chain.base == base && !chain.names.is_empty();
        let follows = is_same && chain.last + 1 == cookie;
        let before = key::dirent(dir, cookie.saturating_sub(1));
        if cookie != base && !follows && !self.view.index.may_be_lost(&before) {
            let what = format!(
                "{}: the chain of names before it is broken",
                self.named(dirent)
            );
            self.about(Kind::NameWrong, dir, what);
        }
        if is_same && chain.names.contains(&dirent.name) {
            let what = format!("{} stands there twice", self.named(dirent));
            self.about(Kind::NameWrong, dir, what);
        }
        let hash_key = self.names.target_of(dir).and_then(|t| t.hash_key);
        let right = hash_key.map(|key| hash::cookie(&key, &dirent.name));
        if right.is_some_and(|right| right != base) || cookie - base > ORDINAL_MAX {
            let what = format!("{} is not where it is looked for", self.named(dirent));
            self.about(Kind::NameWrong, dir, what);
        }
        if !is_same {
            chain.names.clear();
        }
        (chain.dir, chain.base, chain.last) = (dir, base, cookie);
        chain.names.push(dirent.name.clone());
    }

    fn entry(&mut self, dir: Fid, dirent: &Dirent) {
        match self.census.find(dir) {
            Some(node) if node.is_dir() => {}
            Some(_) => {
                let what = format!("holds {}, and is no directory", self.named(dirent));
                self.about(Kind::NameWithoutInode, dir, what);
            }
            None if self.is_missing(dir) => {
                let what = format!("holds {}, and does not exist", self.named(dirent));
                self.about(Kind::NameWithoutInode, dir, what);
            }
            None => {}
        }
        let is_subdir = dirent.kind == FileKind::Directory;
        if let Some(node) = self.census.find_mut(dir) {
            node.live += 1;
            node.subdirs += u32::from(is_subdir);
        }
        if self.is_missing(dirent.fid) {
            let what = format!(
                "{} is of {}, which does not exist",
                self.named(dirent),
                dirent.fid
            );
            self.about(Kind::NameWithoutInode, dir, what);
        }
        let Some(node) = self.census.find_mut(dirent.fid) else {
            return;
        };
        node.names += 1;
        node.is_in_parent |= node.parent == dir;
        let agrees = node.kind == dirent.kind && node.ino == dirent.ino;
        let is_astray = is_subdir && node.parent != dir;
        if !agrees {
            let what = format!(
                "{} says another type or number than its inode",
                self.named(dirent)
            );
            self.about(Kind::NameWrong, dir, what);
        }
        if is_astray {
            let what = format!("stands in {dir}, and names another directory as its parent");
            self.about(Kind::Parent, dirent.fid, what);
        }
    }

    fn named(&self, dirent: &Dirent) -> String {
        format!("name \"{}\"", shown(dirent.name.as_bytes()))
    }
}
