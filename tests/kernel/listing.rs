//! Listings that bring names and attributes (`fuse_readdir`,
//! `fuse_direntplus_link`).

use crate::inode::{Dentry, Inode};
use crate::linux::{Linux, decode, valid_for};
use forebay::base::{Errno, Name};
use forebay::fuse::abi::input::{ReadIn, ReleaseIn};
use forebay::fuse::abi::output::{EntryOut, OpenOut};
use forebay::fuse::abi::parse::Op;
use std::cell::Cell;
use std::rc::Rc;

/// A name and the inode number that a listing shows with it.
pub type Listed = (Vec<u8>, u64);

impl Linux {
    /// Reads a directory from its start, and links what it finds.
    pub async fn readdir(&self, dir: &Rc<Inode>) -> Result<Vec<Listed>, Errno> {
        let answer = self.ask(dir.nodeid, Op::Opendir).await?;
        let (open, _): (OpenOut, &[u8]) = decode(&answer);
        let mut all = Vec::new();
        let mut offset = 0;
        let listed = loop {
            match self.readdir_some(dir, open.fh, offset, &mut all).await {
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

    /// One READDIRPLUS; where to go on, or `None` at the end.
    async fn readdir_some(
        &self,
        dir: &Rc<Inode>,
        fh: u64,
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
        while !rest.is_empty() {
            let (out, after): (EntryOut, &[u8]) = decode(rest);
            let word = |at: usize| u64::from_le_bytes(after[at..at + 8].try_into().expect("eight"));
            let (ino, at) = (word(0), word(8));
            let len = (word(16) & u64::from(u32::MAX)) as usize;
            let name = after[24..24 + len].to_vec();
            rest = &after[(24 + len).next_multiple_of(8)..];
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
