//! The decisions over records in maps: tables for each operation, and random
//! histories against a naive file system.

mod history;
mod tables;

use super::draft::Change;
use super::record::{Dirent, Inode, Observed, flag};
use super::view::{Bounds, Ctx, Need, Stop, View};
use super::{Caller, entry};
use crate::base::codec::Bytes;
use crate::base::{Attr, Errno, Fid, FileKind, Identity, Locator, Name, SnapEpoch, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

pub const ROOT: Fid = Fid {
    seq: 1,
    oid: 1,
    ver: 0,
};

pub fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

/// Records in maps, over an origin that never changes: nothing is written back.
pub struct Fake {
    pub inodes: BTreeMap<Fid, Inode>,
    pub slots: BTreeMap<(Fid, u64), Dirent>,
    pub xattrs: BTreeMap<(Fid, Vec<u8>), Rc<[u8]>>,
    pub origin: BTreeMap<(Fid, Name), Fid>,
    pub absent: BTreeSet<(Fid, Name)>,
    pub open: BTreeSet<Fid>,
    pub kept: BTreeSet<Fid>,
    /// Cookies differ in so many values only, for collisions.
    pub cookies: u64,
    pub next: u32,
    pub now: i64,
    pub bounds: Bounds,
}

impl Default for Fake {
    fn default() -> Fake {
        let mut root = inode(FileKind::Directory, 0o755, 0, 0);
        root.flags |= flag::COMPLETE;
        Fake {
            inodes: BTreeMap::from([(ROOT, root)]),
            slots: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            origin: BTreeMap::new(),
            absent: BTreeSet::new(),
            open: BTreeSet::new(),
            kept: BTreeSet::new(),
            cookies: u64::MAX,
            next: 2,
            now: 1000,
            bounds: Bounds::WIDEST,
        }
    }
}

impl View for Fake {
    fn inode(&self, fid: Fid) -> Result<Option<Inode>, Need> {
        Ok(self.inodes.get(&fid).cloned())
    }
    fn slot(&self, dir: Fid, cookie: u64) -> Result<Option<Dirent>, Need> {
        Ok(self.slots.get(&(dir, cookie)).cloned())
    }
    fn xattr(&self, fid: Fid, name: &[u8]) -> Result<Option<Rc<[u8]>>, Need> {
        Ok(self.xattrs.get(&(fid, name.to_vec())).cloned())
    }
    fn cookie(&self, name: &Name) -> u64 {
        let hash = name
            .as_bytes()
            .iter()
            .fold(7u64, |h, b| h * 31 + u64::from(*b));
        (1 + hash % self.cookies.min(1 << 40)) << 8
    }
    fn is_absent(&self, dir: Fid, name: &Name) -> bool {
        self.absent.contains(&(dir, name.clone()))
    }
    fn fresh(&self) -> Result<(Fid, u64), Need> {
        Ok((Fid::new(1, self.next), 1 << 62 | u64::from(self.next)))
    }
    fn is_open(&self, fid: Fid) -> bool {
        self.open.contains(&fid)
    }
}

impl Fake {
    pub fn ctx<'a>(&'a self, caller: &'a Caller) -> Ctx<'a> {
        Ctx {
            caller,
            bounds: &self.bounds,
            now: Time {
                sec: self.now,
                nsec: 0,
            },
        }
    }

    /// Runs a decision, meeting its needs as the shard does, and applies it.
    pub fn run<T>(
        &mut self,
        decision: impl Fn(&Fake) -> Result<(T, Option<Change>), Stop>,
    ) -> Result<T, Errno> {
        self.absent.clear();
        loop {
            match decision(self) {
                Ok((value, change)) => {
                    if let Some(change) = change {
                        self.apply(change);
                    }
                    self.now += 1;
                    return Ok(value);
                }
                Err(Stop::Refused(errno)) => return Err(errno),
                Err(Stop::Need(Need::Name(dir, name))) => self.import(dir, &name),
                Err(Stop::Need(Need::Listing(dir))) => self.list(dir),
                Err(Stop::Need(need)) => panic!("{need:?}: everything is loaded"),
            }
        }
    }

    fn import(&mut self, dir: Fid, name: &Name) {
        let Some(fid) = self.origin.get(&(dir, name.clone())).copied() else {
            self.absent.insert((dir, name.clone()));
            return;
        };
        let parent = self.inodes[&dir].clone();
        if let Ok(entry::Known::Unknown(cookie)) = entry::known(self, dir, &parent, name) {
            let dirent = Dirent {
                name: name.clone(),
                fid,
                kind: self.inodes[&fid].attr.kind,
                ino: self.inodes[&fid].attr.ino,
            };
            self.slots.insert((dir, cookie), dirent);
            self.inodes.get_mut(&dir).expect("it is there").entries += 1;
        }
    }

    fn list(&mut self, dir: Fid) {
        let names: Vec<_> = self
            .origin
            .keys()
            .filter(|(d, _)| *d == dir)
            .cloned()
            .collect();
        for (_, name) in names {
            self.import(dir, &name);
        }
        self.inodes.get_mut(&dir).expect("it is there").flags |= flag::COMPLETE;
    }

    pub fn apply(&mut self, change: Change) {
        for (fid, inode) in change.inodes {
            if let Some(old) = self.inodes.get(&fid) {
                assert!(inode.attr.version > old.attr.version, "versions rise");
                assert!(
                    inode.attr.ctime >= old.attr.ctime,
                    "stamps do not go back (O13)"
                );
            }
            self.inodes.insert(fid, inode);
        }
        for (dir, cookie, slot) in change.slots {
            match slot {
                Some(dirent) => self.slots.insert((dir, cookie), dirent),
                None => self.slots.remove(&(dir, cookie)),
            };
        }
        for (fid, name, value) in change.xattrs {
            match value {
                Some(value) => self.xattrs.insert((fid, name), value),
                None => self.xattrs.remove(&(fid, name)),
            };
        }
        for (fid, is_orphan) in change.orphans {
            if is_orphan {
                self.kept.insert(fid);
            } else {
                self.kept.remove(&fid);
            }
        }
        for (fid, _) in change.forgotten {
            self.inodes.remove(&fid);
        }
        if let Some((fid, size)) = change.truncated {
            self.inodes.get_mut(&fid).expect("it is there").attr.size = size;
        }
        self.next += u32::from(change.born.is_some());
    }

    /// Live entries of a directory.
    pub fn entries(&self, dir: Fid) -> BTreeMap<Name, Fid> {
        let slots = self.slots.range((dir, 0)..=(dir, u64::MAX));
        let live = slots.filter(|(_, d)| !d.fid.is_none());
        live.map(|(_, d)| (d.name.clone(), d.fid)).collect()
    }
}

pub fn inode(kind: FileKind, mode: u32, uid: u32, gid: u32) -> Inode {
    let at = Time { sec: 1, nsec: 0 };
    let is_dir = kind == FileKind::Directory;
    Inode {
        attr: Attr {
            kind,
            mode,
            uid,
            gid,
            nlink: if is_dir { 2 } else { 1 },
            rdev: 0,
            ino: 1,
            size: 0,
            blocks: 0,
            atime: at,
            mtime: at,
            ctime: at,
            btime: at,
            version: 1,
        },
        flags: flag::XATTRS_COMPLETE,
        parent: Fid::NONE,
        entries: 0,
        locator: Locator {
            parent: Fid::NONE,
            name: None,
            identity: Some(Identity::default()),
        },
        observed: Observed::default(),
        data_version: 0,
        snap_epoch: SnapEpoch::default(),
        layout: Bytes::default(),
        link: None,
        origin_size: 0,
    }
}
