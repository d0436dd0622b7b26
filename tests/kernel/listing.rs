//! Listings that bring names and attributes (`fuse_readdir`,
//! `fuse_direntplus_link`), and that are kept (`fuse_readdir_cached`).

use crate::inode::{Dentry, Inode};
use crate::linux::{Linux, decode, valid_for};
use forebay::base::{Errno, Name};
use forebay::fuse::abi::flag::fopen;
use forebay::fuse::abi::input::{ReadIn, ReleaseIn};
use forebay::fuse::abi::output::{EntryOut, OpenOut};
use forebay::fuse::abi::parse::Op;
use std::cell::Cell;
use std::rc::Rc;

/// A name and the inode number that a listing shows with it.
pub type Listed = (Vec<u8>, u64);

/// What is collected of a directory (`fuse_inode.rdc`), and its pages.
#[derive(Default)]
pub struct Collected {
    /// `cached`: it was read to its end.
    is_whole: bool,
    /// `pos`: where the last name ends.
    at: u64,
    /// `size`, in names.
    len: usize,
    /// `iversion`: the directory's own changes before it.
    changes: u64,
    /// The pages, unless they were dropped.
    names: Option<Vec<Kept>>,
}

struct Kept {
    end: u64,
    name: Vec<u8>,
    ino: u64,
}

impl Collected {
    /// `fuse_rdc_reset`.
    fn reset(&mut self) {
        (self.is_whole, self.at, self.len) = (false, 0, 0);
    }

    /// The pages are dropped, and nothing else.
    pub fn drop_pages(&mut self) {
        self.names = None;
    }

    /// `fuse_add_dirent_to_cache`.
    fn add(&mut self, pos: u64, kept: Kept) {
        if self.is_whole || pos != self.at || (self.len > 0 && self.names.is_none()) {
            return;
        }
        (self.at, self.len) = (kept.end, self.len + 1);
        if self.len == 1 {
            self.names = None;
        }
        self.names.get_or_insert_default().push(kept);
    }

    /// `fuse_readdir_cache_end`.
    fn end(&mut self, pos: u64) {
        self.is_whole |= self.at == pos;
    }

    /// The names from `offset` on, if they can be used.
    fn from(&mut self, offset: u64, changes: u64) -> Option<&[Kept]> {
        if self.is_whole && (self.names.is_none() || offset == 0 && self.changes != changes) {
            self.reset();
        }
        if !self.is_whole {
            if offset == 0 && self.len == 0 {
                self.changes = changes;
            }
            return None;
        }
        let names = self.names.as_deref()?;
        let at = match offset {
            0 => Some(0),
            _ => names.iter().position(|k| k.end == offset).map(|at| at + 1),
        };
        Some(&names[at?..])
    }
}

impl Linux {
    /// Reads a directory from its start, and links what it finds.
    pub async fn readdir(&self, dir: &Rc<Inode>) -> Result<Vec<Listed>, Errno> {
        let answer = self.ask(dir.nodeid, Op::Opendir).await?;
        let (open, _): (OpenOut, &[u8]) = decode(&answer);
        if open.open_flags & fopen::KEEP_CACHE == 0 {
            dir.collected.borrow_mut().drop_pages();
        }
        let is_kept = open.open_flags & fopen::CACHE_DIR != 0;
        let mut all = Vec::new();
        let mut offset = 0;
        let listed = loop {
            if is_kept && let Some(next) = self.readdir_kept(dir, offset, &mut all) {
                match next {
                    Some(next) => offset = next,
                    None => break Ok(all),
                }
                continue;
            }
            let some = self.readdir_some(dir, (open.fh, is_kept), offset, &mut all);
            match some.await {
                Ok(Some(next)) => offset = next,
                Ok(None) => break Ok(all),
                Err(e) => break Err(e),
            }
        };
        let args = ReleaseIn {
            fh: open.fh,
            flags: 0,
            release_flags: 0,
            lock_owner: 0,
        };
        self.send(dir.nodeid, Op::Releasedir(args), None, |_| {});
        listed
    }

    /// Some of what is kept, if it is of use: where to go on, or `None` at the
    /// end.
    fn readdir_kept(&self, dir: &Inode, offset: u64, all: &mut Vec<Listed>) -> Option<Option<u64>> {
        let mut collected = dir.collected.borrow_mut();
        let names = collected.from(offset, dir.changes.get())?;
        if offset == 0 {
            self.counts.kept.set(self.counts.kept.get() + 1);
        }
        let some = names.iter().take(1 + self.below(8) as usize);
        let mut next = None;
        for kept in some {
            next = Some(kept.end);
            if kept.name != b"." && kept.name != b".." {
                all.push((kept.name.clone(), kept.ino));
            }
        }
        Some(next)
    }

    /// One READDIRPLUS; where to go on, or `None` at the end.
    async fn readdir_some(
        &self,
        dir: &Rc<Inode>,
        (fh, is_kept): (u64, bool),
        offset: u64,
        all: &mut Vec<Listed>,
    ) -> Result<Option<u64>, Errno> {
        let _down = {
            let _wait = self.waits(|| format!("directory {} for a listing", dir.nodeid));
            dir.sem.down_read().await
        };
        let version = self.attr_version.get();
        let args = ReadIn {
            fh,
            offset,
            size: LISTED,
            read_flags: 0,
            lock_owner: 0,
            flags: 0,
            padding: 0,
        };
        let op = Op::Readdir { args, plus: true };
        let answer = self.ask(dir.nodeid, op).await?;
        let mut rest = &answer[..];
        let mut next = None;
        if rest.is_empty() && is_kept {
            dir.collected.borrow_mut().end(offset);
        }
        while !rest.is_empty() {
            let (out, after): (EntryOut, &[u8]) = decode(rest);
            let word = |at: usize| u64::from_le_bytes(after[at..at + 8].try_into().expect("eight"));
            let (ino, at) = (word(0), word(8));
            let len = (word(16) & u64::from(u32::MAX)) as usize;
            let name = after[24..24 + len].to_vec();
            rest = &after[(24 + len).next_multiple_of(8)..];
            if is_kept {
                let kept = Kept {
                    end: at,
                    name: name.clone(),
                    ino,
                };
                let pos = next.unwrap_or(offset);
                dir.collected.borrow_mut().add(pos, kept);
            }
            next = Some(at);
            if out.nodeid != 0 {
                let name = Name::new(&name).expect("a name");
                self.link_listed(dir, &name, &out, version).await;
            }
            if name != b"." && name != b".." {
                all.push((name, ino));
            }
        }
        Ok(next)
    }

    /// At the epoch of now: the answer may be older.
    async fn link_listed(&self, dir: &Rc<Inode>, name: &Name, out: &EntryOut, version: u64) {
        let epoch = self.epoch.get();
        loop {
            let cached = dir.names.borrow().get(name).cloned();
            let Some(dentry) = cached else {
                if dir.in_lookup.borrow().contains(name) {
                    let _wait = self.waits(|| format!("a look-up of {name}, to list it"));
                    dir.looked_up.wait().await;
                    continue;
                }
                let inode = self.iget(out, version).await;
                let dentry = Dentry {
                    target: Some(inode),
                    until: Cell::new(self.entry_end(out)),
                    epoch,
                };
                return self.hash(dir, name, &Rc::new(dentry));
            };
            match &dentry.target {
                Some(inode) if inode.nodeid == out.nodeid => {
                    inode.lookups.set(inode.lookups.get() + 1);
                    let valid = valid_for(out.attr_valid, out.attr_valid_nsec);
                    self.change_attrs(inode, &out.attr, valid, version).await;
                    let renewed = Dentry {
                        target: Some(Rc::clone(inode)),
                        until: Cell::new(self.entry_end(out)),
                        epoch,
                    };
                    self.unhash(dir, name, &dentry);
                    return self.hash(dir, name, &Rc::new(renewed));
                }
                _ => self.unhash(dir, name, &dentry),
            }
        }
    }
}

/// Bytes of a listing asked for at a time: a few names.
const LISTED: u32 = 1024;
