//! A change in the making: a view with what the operation has changed on top,
//! so that an operation which touches one record twice sees its own work.

use super::acl;
use super::record::{Dirent, Inode, OwedOp, flag};
use super::view::{Need, Stop, View};
use super::xattr;
use crate::base::{Errno, Fid, FileKind, Identity, Name, Time};
use std::rc::Rc;

/// What an accepted operation does, as records to put (`Some`) or delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub inodes: Vec<(Fid, Inode)>,
    pub slots: Vec<(Fid, u64, Option<Dirent>)>,
    pub xattrs: Vec<XattrChange>,
    /// Inodes that from now on stay without names for open handles (N9), or
    /// (`false`) no longer do.
    pub orphans: Vec<(Fid, bool)>,
    /// Files whose last name is gone and that nobody has open: their bytes go
    /// with the change. The inode stays until write-back is done with it.
    pub gone: Vec<Fid>,
    /// Operations on names that the origin is owed, in order.
    pub owed: Vec<OwedOp>,
    /// Inodes that now owe data, attributes or xattrs and did not before.
    pub dirty: Vec<Fid>,
    /// Files whose bytes end here now; the data path changes the inode, too.
    pub truncated: Option<(Fid, u64)>,
    /// The identity from [`View::fresh`] was used.
    pub born: Option<(Fid, FileKind)>,
    /// Inodes that nothing refers to any more: their records go.
    pub forgotten: Vec<(Fid, Option<Identity>)>,
}

impl Change {
    /// The directory in which this makes a new file, and does nothing else.
    #[must_use]
    pub fn made_in(&self) -> Option<Fid> {
        match (&self.born, &self.slots[..]) {
            (Some(_), [(dir, _, Some(_))]) => Some(*dir),
            _ => None,
        }
    }
}

/// File, name, and the new value or none.
pub type XattrChange = (Fid, Vec<u8>, Option<Rc<[u8]>>);

pub struct Draft<'v, V> {
    view: &'v V,
    pub change: Change,
}

impl<V: View> View for Draft<'_, V> {
    fn inode(&self, fid: Fid) -> Result<Option<Inode>, Need> {
        match self.change.inodes.iter().find(|(f, _)| *f == fid) {
            Some((_, inode)) => Ok(Some(inode.clone())),
            None => self.view.inode(fid),
        }
    }
    fn slot(&self, dir: Fid, cookie: u64) -> Result<Option<Dirent>, Need> {
        let ours = |s: &&(Fid, u64, Option<Dirent>)| s.0 == dir && s.1 == cookie;
        match self.change.slots.iter().find(ours) {
            Some((_, _, slot)) => Ok(slot.clone()),
            None => self.view.slot(dir, cookie),
        }
    }
    fn xattr(&self, fid: Fid, name: &[u8]) -> Result<Option<Rc<[u8]>>, Need> {
        let ours = |x: &&XattrChange| x.0 == fid && x.1 == name;
        match self.change.xattrs.iter().find(ours) {
            Some((_, _, value)) => Ok(value.clone()),
            None => self.view.xattr(fid, name),
        }
    }
    fn cookie(&self, name: &Name) -> u64 {
        self.view.cookie(name)
    }
    fn is_absent(&self, dir: Fid, name: &Name) -> bool {
        self.view.is_absent(dir, name)
    }
    fn fresh(&self) -> Result<(Fid, u64), Need> {
        self.view.fresh()
    }
    fn is_open(&self, fid: Fid) -> bool {
        self.view.is_open(fid)
    }
}

impl<'v, V: View> Draft<'v, V> {
    #[must_use]
    pub fn new(view: &'v V) -> Draft<'v, V> {
        Draft {
            view,
            change: Change::default(),
        }
    }

    /// The inode as the draft has it; ESTALE if there is none.
    pub fn load(&self, fid: Fid) -> Result<Inode, Stop> {
        Ok(self.inode(fid)?.ok_or(Errno::ESTALE)?)
    }

    pub fn put(&mut self, fid: Fid, inode: Inode) {
        match self.change.inodes.iter_mut().find(|(f, _)| *f == fid) {
            Some((_, old)) => *old = inode,
            None => self.change.inodes.push((fid, inode)),
        }
    }

    pub fn put_slot(&mut self, dir: Fid, cookie: u64, slot: Option<Dirent>) {
        let slots = &mut self.change.slots;
        match slots.iter_mut().find(|s| s.0 == dir && s.1 == cookie) {
            Some(old) => old.2 = slot,
            None => slots.push((dir, cookie, slot)),
        }
    }

    pub fn put_xattr(&mut self, fid: Fid, name: &[u8], value: Option<Rc<[u8]>>) {
        let xattrs = &mut self.change.xattrs;
        match xattrs.iter_mut().find(|x| x.0 == fid && x.1 == name) {
            Some(old) => old.2 = value,
            None => xattrs.push((fid, name.to_vec(), value)),
        }
    }

    /// Notes that `bits` (of the `_OWED` flags) are owed to the origin.
    pub fn owe_state(&mut self, fid: Fid, inode: &mut Inode, bits: u32) {
        if inode.flags & bits != bits {
            inode.flags |= bits;
            if !self.change.dirty.contains(&fid) {
                self.change.dirty.push(fid);
            }
        }
    }

    /// A directory's names changed by `entries` and its subdirectories by
    /// `subdirs`: counts, times, version; its times are owed to the origin.
    pub fn edit_dir(
        &mut self,
        fid: Fid,
        now: Time,
        entries: i64,
        subdirs: i32,
    ) -> Result<(), Stop> {
        let mut dir = self.load(fid)?;
        dir.entries = dir.entries.saturating_add_signed(entries);
        dir.attr.nlink = dir.attr.nlink.saturating_add_signed(subdirs);
        let now = stamp(&mut dir, now);
        dir.attr.mtime = now;
        self.owe_state(fid, &mut dir, flag::ATTRS_OWED);
        self.put(fid, dir);
        Ok(())
    }

    /// One name of the inode fewer (`dir`: a removed directory). Says whether
    /// it was the last.
    pub fn drop_name(&mut self, fid: Fid, dir: bool, now: Time) -> Result<bool, Stop> {
        let mut inode = self.load(fid)?;
        stamp(&mut inode, now);
        inode.attr.nlink = if dir {
            0
        } else {
            inode.attr.nlink.saturating_sub(1)
        };
        let last = inode.attr.nlink == 0;
        if last {
            inode.flags |= flag::ORPHAN;
            if self.is_open(fid) {
                self.change.orphans.push((fid, true));
            } else {
                self.forget_contents(fid, &mut inode)?;
            }
        }
        self.put(fid, inode);
        Ok(last)
    }

    /// Lets bytes and xattrs go, and all that was owed of them.
    pub fn forget_contents(&mut self, fid: Fid, inode: &mut Inode) -> Result<(), Stop> {
        xattr::clear(self, fid, inode)?;
        inode.flags &= !(flag::DATA_OWED | flag::ATTRS_OWED | flag::XATTRS_OWED);
        self.change.dirty.retain(|f| *f != fid);
        if inode.attr.kind == FileKind::Regular {
            self.change.gone.push(fid);
        }
        Ok(())
    }

    /// Brings the access ACL in line with the mode after a chmod.
    pub fn follow_mode(&mut self, fid: Fid, inode: &mut Inode) -> Result<(), Stop> {
        if let Some(mut acl) = super::access::access_acl(self, fid, inode)? {
            acl.set_mode(inode.attr.mode);
            self.put_xattr(fid, acl::ACCESS, Some(acl.to_bytes().into()));
            self.owe_state(fid, inode, flag::XATTRS_OWED);
        }
        Ok(())
    }
}

/// Marks a change of the inode: version and ctime, never back in time (O13).
/// Returns the stamp.
pub fn stamp(inode: &mut Inode, now: Time) -> Time {
    let now = now.max(inode.attr.ctime);
    inode.attr.ctime = now;
    inode.attr.version = inode.attr.version.saturating_add(1);
    now
}
