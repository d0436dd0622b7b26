//! The part of the name space that a client has to itself, pure: records of
//! files and names, as the box will have them when it has done what the client
//! sent. The box's own rules decide over it ([`View`]).
//!
//! A file is here because the client has it locked EX (it is a *root* then), or
//! because it was born below such a directory and nobody else can have seen it.
//! What was born under a root goes with the root's lock.

use crate::base::{Attr, Fid, FileKind, Name};
use crate::namespace::draft::Change;
use crate::namespace::record::flag;
use crate::namespace::{Dirent, Inode, Need, View, hash};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The key of the hash that orders names here; nobody sees the cookies.
const KEY: [u8; 16] = *b"ahead of the box";

#[derive(Debug)]
struct Node {
    inode: Inode,
    root: Fid,
    /// Changes by this client that the box has not answered.
    unanswered: u32,
    /// This client has changed its extended attributes.
    has_own_xattrs: bool,
    /// The newest version that the box has shown.
    shown: u64,
}

#[derive(Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<Fid, Node>,
    slots: BTreeMap<(Fid, u64), Dirent>,
    xattrs: BTreeMap<(Fid, Vec<u8>), Rc<[u8]>>,
    /// The files of each root, itself among them.
    roots: BTreeMap<Fid, BTreeSet<Fid>>,
}

/// What is in a directory that the client got to itself, as far as it is known.
#[derive(Debug, Default)]
pub struct Found {
    /// All its names.
    pub entries: Option<Vec<Dirent>>,
    /// It has no extended attributes, nor ACLs.
    pub is_plain: bool,
}

impl Tree {
    /// The client has `fid` to itself from now on.
    pub fn add_root(&mut self, fid: Fid, attr: &Attr, found: Found) {
        let mut flags = 0;
        if found.is_plain {
            flags |= flag::XATTRS_COMPLETE;
        }
        let mut entries = 0;
        if let Some(all) = found.entries {
            flags |= flag::COMPLETE;
            entries = all.len() as u64;
            for dirent in all {
                self.put_name(fid, dirent);
            }
        }
        let inode = Inode {
            entries,
            ..record(attr.clone(), flags)
        };
        self.put(fid, fid, inode);
    }

    /// Puts a name where the chain of its hash ends.
    fn put_name(&mut self, dir: Fid, dirent: Dirent) {
        let base = self.cookie(&dirent.name);
        let mut at = base;
        while let Some(there) = self.slots.get(&(dir, at)) {
            if there.name == dirent.name || at - base >= hash::ORDINAL_MAX {
                break;
            }
            at += 1;
        }
        self.slots.insert((dir, at), dirent);
    }

    fn put(&mut self, fid: Fid, root: Fid, inode: Inode) {
        if let Some(node) = self.nodes.get_mut(&fid) {
            node.inode = inode;
            return;
        }
        let shown = if fid == root { inode.attr.version } else { 0 };
        let node = Node {
            inode,
            root,
            unanswered: 0,
            has_own_xattrs: false,
            shown,
        };
        self.nodes.insert(fid, node);
        self.roots.entry(root).or_default().insert(fid);
    }

    #[must_use]
    pub fn has(&self, fid: Fid) -> bool {
        self.nodes.contains_key(&fid)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len() + self.slots.len()
    }

    /// Under whose lock the file is here.
    #[must_use]
    pub fn root_of(&self, fid: Fid) -> Option<Fid> {
        self.nodes.get(&fid).map(|node| node.root)
    }

    /// The root with the fewest FIDs above it, to be given up when there are
    /// too many.
    #[must_use]
    pub fn oldest_root(&self) -> Option<Fid> {
        self.roots.keys().next().copied()
    }

    #[must_use]
    pub fn attr(&self, fid: Fid) -> Option<&Attr> {
        self.nodes.get(&fid).map(|node| &node.inode.attr)
    }

    /// Has the box not answered all changes of the file yet?
    #[must_use]
    pub fn is_behind(&self, fid: Fid) -> bool {
        self.nodes.get(&fid).is_some_and(|node| node.unanswered > 0)
    }

    /// Has this client changed extended attributes of the file?
    #[must_use]
    pub fn has_own_xattrs(&self, fid: Fid) -> bool {
        self.nodes.get(&fid).is_some_and(|node| node.has_own_xattrs)
    }

    #[must_use]
    pub fn inode(&self, fid: Fid) -> Option<&Inode> {
        self.nodes.get(&fid).map(|node| &node.inode)
    }

    /// What a name leads to: `None` if that is not known here.
    #[must_use]
    pub fn find(&self, dir: Fid, name: &Name) -> Option<Option<Fid>> {
        let node = self.nodes.get(&dir)?;
        let base = self.cookie(name);
        let chain = (base..=base + hash::ORDINAL_MAX).map_while(|at| self.slots.get(&(dir, at)));
        for dirent in chain {
            if dirent.name == *name {
                return Some((!dirent.fid.is_none()).then_some(dirent.fid));
            }
        }
        (node.inode.flags & flag::COMPLETE != 0).then_some(None)
    }

    /// What a name leads to, with its kind and number.
    #[must_use]
    pub fn named(&self, dir: Fid, name: &Name) -> Option<(Fid, FileKind, u64)> {
        let base = self.cookie(name);
        let mut chain =
            (base..=base + hash::ORDINAL_MAX).map_while(|at| self.slots.get(&(dir, at)));
        let found = chain.find(|d| d.name == *name && !d.fid.is_none())?;
        Some((found.fid, found.kind, found.ino))
    }

    /// The files that a change is about; `None` if they are not all under one
    /// root (one that is born is under its directory's).
    #[must_use]
    pub fn one_root(&self, change: &Change) -> Option<Fid> {
        let born = change.born.map(|(fid, _)| fid);
        let known = change.inodes.iter().map(|(fid, _)| *fid);
        let mut roots = known
            .filter(|fid| Some(*fid) != born)
            .map(|fid| self.root_of(fid));
        let first = roots.next()??;
        roots.all(|root| root == Some(first)).then_some(first)
    }

    /// The same for a change that takes a name away: the file may be here by a
    /// lock of its own, which it keeps if it has other names.
    #[must_use]
    pub fn each_root(&self, change: &Change) -> Option<Fid> {
        let roots = change.inodes.iter().map(|(fid, _)| self.root_of(*fid));
        let roots: Option<Vec<Fid>> = roots.collect();
        roots?.first().copied().filter(|_| change.born.is_none())
    }

    /// Carries out a change that the box will be asked for.
    pub fn apply(&mut self, change: Change, root: Fid) {
        let touched: Vec<Fid> = change.inodes.iter().map(|(fid, _)| *fid).collect();
        for (fid, inode) in change.inodes {
            self.put(fid, root, inode);
        }
        for fid in &touched {
            if let Some(node) = self.nodes.get_mut(fid) {
                node.unanswered += 1;
            }
        }
        for (dir, cookie, slot) in change.slots {
            match slot {
                Some(dirent) => self.slots.insert((dir, cookie), dirent),
                None => self.slots.remove(&(dir, cookie)),
            };
        }
        for (fid, name, value) in change.xattrs {
            if let Some(node) = self.nodes.get_mut(&fid) {
                node.has_own_xattrs = true;
            }
            match value {
                Some(value) => self.xattrs.insert((fid, name), value),
                None => self.xattrs.remove(&(fid, name)),
            };
        }
        let is_dead = |node: &Node| node.inode.attr.nlink == 0;
        for fid in touched {
            if self.nodes.get(&fid).is_some_and(is_dead) {
                self.remove(fid);
            }
        }
    }

    fn remove(&mut self, fid: Fid) {
        let Some(node) = self.nodes.remove(&fid) else {
            return;
        };
        if let Some(files) = self.roots.get_mut(&node.root) {
            files.remove(&fid);
            if files.is_empty() {
                self.roots.remove(&node.root);
            }
        }
        let names = (fid, 0)..=(fid, u64::MAX);
        let names: Vec<_> = self.slots.range(names).map(|(key, _)| *key).collect();
        for key in names {
            self.slots.remove(&key);
        }
        let first = (fid, Vec::new());
        let xattrs = self.xattrs.range(first..).take_while(|(k, _)| k.0 == fid);
        let xattrs: Vec<_> = xattrs.map(|(key, _)| key.clone()).collect();
        for key in xattrs {
            self.xattrs.remove(&key);
        }
    }

    /// The box has answered a change of these files.
    pub fn on_answered(&mut self, fids: &[Fid]) {
        for fid in fids {
            if let Some(node) = self.nodes.get_mut(fid) {
                node.unanswered = node.unanswered.saturating_sub(1);
            }
        }
    }

    /// The box has shown a file. It is right, unless it lacks what it has not
    /// answered yet, or was overtaken by a newer answer. Of a file without a
    /// name nothing is decided here any more.
    pub fn on_shown(&mut self, fid: Fid, attr: &Attr) {
        let Some(node) = self.nodes.get_mut(&fid) else {
            return;
        };
        if attr.version < node.shown {
            return;
        }
        node.shown = attr.version;
        if node.unanswered > 0 {
            return;
        }
        node.inode.attr = attr.clone();
        if attr.nlink == 0 {
            // The box may have let its contents go: only it knows what is left.
            self.remove(fid);
        }
    }

    /// The box has changed the file for this client, perhaps its extended
    /// attributes (`any`), or those that there were: it must be asked for them.
    pub fn doubt_xattrs(&mut self, fid: Fid, any: bool) {
        if let Some(node) = self.nodes.get_mut(&fid) {
            let flags = &mut node.inode.flags;
            if any || *flags & flag::XATTRS != 0 {
                *flags &= !flag::XATTRS_COMPLETE;
            }
        }
    }

    /// A name was made, or removed, by the box for this client.
    pub fn set_name(&mut self, dir: Fid, name: &Name, to: Option<(Fid, FileKind, u64)>) {
        if !self.nodes.contains_key(&dir) {
            return;
        }
        let was = self.find(dir, name).flatten().is_some();
        let (fid, kind, ino) = to.unwrap_or((Fid::NONE, FileKind::Regular, 0));
        let name = name.clone();
        self.put_name(
            dir,
            Dirent {
                name,
                fid,
                kind,
                ino,
            },
        );
        if let Some(node) = self.nodes.get_mut(&dir) {
            let entries = &mut node.inode.entries;
            match (was, to.is_some()) {
                (false, true) => *entries += 1,
                (true, false) => *entries = entries.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// The root's lock ends: what rests on it, which others may see now.
    pub fn remove_root(&mut self, root: Fid) -> Vec<Fid> {
        let files: Vec<Fid> = self.roots.remove(&root).into_iter().flatten().collect();
        for fid in &files {
            self.remove(*fid);
        }
        files
    }

    pub fn clear(&mut self) {
        *self = Tree::default();
    }
}

/// A record with what a client can know of a file.
fn record(attr: Attr, flags: u32) -> Inode {
    Inode {
        origin_size: attr.size,
        attr,
        flags,
        parent: Fid::NONE,
        entries: 0,
        locator: Default::default(),
        observed: Default::default(),
        data_version: 0,
        snap_epoch: Default::default(),
        layout: Default::default(),
        link: None,
    }
}

/// A decision's look at the tree.
pub struct TreeView<'a> {
    pub tree: &'a Tree,
    /// The FID that the next file born gets, and its number.
    pub fresh: Option<(Fid, u64)>,
    /// Names that are known to be absent although their directory is not
    /// complete.
    pub is_absent: &'a dyn Fn(Fid, &Name) -> bool,
}

impl View for TreeView<'_> {
    fn inode(&self, fid: Fid) -> Result<Option<Inode>, Need> {
        let node = self.tree.nodes.get(&fid);
        let node = node.ok_or_else(|| Need::Record(Vec::new()))?;
        Ok(Some(node.inode.clone()))
    }
    fn slot(&self, dir: Fid, cookie: u64) -> Result<Option<Dirent>, Need> {
        Ok(self.tree.slots.get(&(dir, cookie)).cloned())
    }
    fn xattr(&self, fid: Fid, name: &[u8]) -> Result<Option<Rc<[u8]>>, Need> {
        Ok(self.tree.xattrs.get(&(fid, name.to_vec())).cloned())
    }
    fn cookie(&self, name: &Name) -> u64 {
        self.tree.cookie(name)
    }
    fn is_absent(&self, dir: Fid, name: &Name) -> bool {
        (self.is_absent)(dir, name)
    }
    fn fresh(&self) -> Result<(Fid, u64), Need> {
        self.fresh.ok_or(Need::Fids)
    }
    fn is_open(&self, _fid: Fid) -> bool {
        false
    }
}

impl Tree {
    fn cookie(&self, name: &Name) -> u64 {
        hash::cookie(&KEY, name)
    }
}
