//! Attributes: `fuse_change_attributes`, `fuse_update_get_attr`,
//! `fuse_do_setattr` and `fuse_iget`.

use crate::inode::{Dentry, Inode};
use crate::linux::{Linux, decode, valid_for};
use forebay::base::{Errno, Mono, SetAttr};
use forebay::fuse::abi::input::ForgetOne;
use forebay::fuse::abi::output::{AttrOut, EntryOut, FuseAttr};
use forebay::fuse::abi::parse::Op;
use std::rc::Rc;
use std::time::Duration;

impl Linux {
    pub fn find(&self, nodeid: u64) -> Option<Rc<Inode>> {
        self.nodes.borrow().get(&nodeid).cloned()
    }

    /// The inode that a reply names, counted as looked up. `version`: that of
    /// the attributes when they were asked for; 0: they are taken in whatever
    /// was invalidated meanwhile.
    pub async fn iget(&self, entry: &EntryOut, version: u64) -> Rc<Inode> {
        let found = self.find(entry.nodeid);
        let inode = found.unwrap_or_else(|| {
            let is_dir = entry.attr.mode & libc::S_IFMT == libc::S_IFDIR;
            let inode = Rc::new(Inode::new(entry.nodeid, entry.attr.ino, is_dir));
            inode.size.set(entry.attr.size);
            let mut nodes = self.nodes.borrow_mut();
            nodes.insert(entry.nodeid, Rc::clone(&inode));
            inode
        });
        inode.lookups.set(inode.lookups.get() + 1);
        let valid = valid_for(entry.attr_valid, entry.attr_valid_nsec);
        self.change_attrs(&inode, &entry.attr, valid, version).await;
        inode
    }

    pub fn forget(&self, nodeid: u64, lookups: u64) {
        let one = ForgetOne { nodeid, lookups };
        self.tell_mount(nodeid, Op::Forget(vec![one]));
    }

    /// Memory is short: what nobody uses goes, and the mount is told.
    pub fn reclaim(&self) {
        let nodes: Vec<_> = self.nodes.borrow().values().cloned().collect();
        for dir in nodes.iter().filter(|inode| inode.is_dir) {
            let mut names = dir.names.borrow_mut();
            // Known to the table, to `nodes` here and by the name: who is in it.
            let is_in = |dir: &Rc<Inode>| dir.is_dir && Rc::strong_count(dir) > 3;
            let has_somebody = |d: &Rc<Dentry>| d.target.as_ref().is_some_and(is_in);
            names.retain(|_, dentry| has_somebody(dentry) || !self.chance(2));
        }
        drop(nodes);
        let mut nodes = self.nodes.borrow_mut();
        let unused = |inode: &Rc<Inode>| {
            let is_idle = inode.names.borrow().is_empty() && inode.in_lookup.borrow().is_empty();
            let has_work = inode
                .pages
                .borrow()
                .values()
                .any(|f| f.is_dirty.get() || f.is_locked.get() || f.is_writeback.get());
            Rc::strong_count(inode) == 1 && is_idle && !has_work && inode.lookups.get() > 0
        };
        nodes.retain(|nodeid, inode| {
            let is_unused = unused(inode);
            if is_unused {
                self.forget(*nodeid, inode.lookups.get());
            }
            !is_unused
        });
    }

    /// `fuse_change_attributes`: an answer that is older than what is known, or
    /// than an invalidation, changes nothing.
    pub async fn change_attrs(
        &self,
        inode: &Rc<Inode>,
        attr: &FuseAttr,
        valid: Duration,
        version: u64,
    ) {
        let is_older = version != 0 && inode.attr_version.get() > version;
        if is_older || inode.is_unstable.get() {
            return;
        }
        self.take_in(inode, attr, valid);
        self.resize(inode, attr.size).await;
    }

    fn take_in(&self, inode: &Inode, attr: &FuseAttr, valid: Duration) {
        self.bump(inode);
        *inode.attr.borrow_mut() = *attr;
        inode.until.set(self.now() + valid);
    }

    /// What was asked for before is older than this.
    pub fn bump(&self, inode: &Inode) {
        self.attr_version.set(self.attr_version.get() + 1);
        inode.attr_version.set(self.attr_version.get());
    }

    async fn resize(&self, inode: &Rc<Inode>, size: u64) {
        if !inode.is_dir && inode.size.replace(size) != size {
            self.truncate_pages(inode, size).await;
        }
    }

    /// `fuse_reverse_inval_inode` with no pages.
    pub fn invalidate_attrs(&self, inode: &Inode) {
        self.bump(inode);
        inode.until.set(Mono(0));
    }

    pub fn has_attrs(&self, inode: &Inode) -> bool {
        inode.until.get() > self.now()
    }

    /// What `fstat` shows.
    pub async fn getattr(&self, inode: &Rc<Inode>) -> Result<FuseAttr, Errno> {
        if self.has_attrs(inode) {
            self.counts.hits.set(self.counts.hits.get() + 1);
            let size = inode.size.get();
            return Ok(FuseAttr {
                size,
                ..*inode.attr.borrow()
            });
        }
        let version = self.attr_version.get();
        let answer = self.ask(inode.nodeid, Op::Getattr).await?;
        let out: AttrOut = decode(&answer).0;
        let valid = valid_for(out.attr_valid, out.attr_valid_nsec);
        self.change_attrs(inode, &out.attr, valid, version).await;
        Ok(out.attr)
    }

    /// Under `i_rwsem`. A size change holds page write-back off until it is
    /// answered. The answer is taken in whatever was invalidated meanwhile.
    pub async fn setattr(&self, inode: &Rc<Inode>, set: SetAttr) -> Result<(), Errno> {
        let is_truncate = set.size.is_some();
        if is_truncate {
            self.set_nowrite(inode).await;
            inode.is_unstable.set(true);
        }
        let answer = self.ask(inode.nodeid, Op::Setattr(set)).await;
        let out: AttrOut = match answer {
            Ok(answer) => decode(&answer).0,
            Err(e) => {
                if is_truncate {
                    self.release_nowrite(inode);
                    inode.is_unstable.set(false);
                }
                return Err(e);
            }
        };
        let valid = valid_for(out.attr_valid, out.attr_valid_nsec);
        self.take_in(inode, &out.attr, valid);
        let old = inode.size.replace(out.attr.size);
        if is_truncate {
            self.release_nowrite(inode);
        }
        if old != out.attr.size {
            self.truncate_pages(inode, out.attr.size).await;
            self.invalidate_pages(inode, 0, u64::MAX).await;
        }
        inode.is_unstable.set(false);
        Ok(())
    }
}
