//! Files in memory and what of them is on disk.

use crate::base::codec::Bytes;
use crate::base::{Attr, Errno, FileKind, Identity, Name, Time};
use crate::origin::{Found, Limits, Place};
use crate::sim::executor::Core;
use crate::sim::sparse::Sparse;
use crate::sim::tree::{Entry, Tree};
use crate::sim::world::wall;
use std::collections::{BTreeMap, BTreeSet};

/// A file within the model; never reused, unlike inode numbers.
pub(super) type Id = u64;

pub(super) struct Volatile {
    pub(super) files: BTreeMap<Id, File>,
    pub(super) limits: Limits,
    files_made: u64,
    free_inos: Vec<u64>,
    /// Changes of directories that no fsync covered, in order. Each is atomic.
    loose: Vec<Vec<Change>>,
}

pub(super) struct File {
    pub(super) ino: u64,
    pub(super) body: Body,
    /// As of its last fsync; before that, empty with the attributes of its birth.
    durable: Body,
    /// Names in a directory, now and on disk.
    pub(super) entries: BTreeMap<Name, Id>,
    durable_entries: BTreeMap<Name, Id>,
    /// Names that this file has.
    pub(super) links: u32,
    /// A restart lost writes that a descriptor of a living box made: its next
    /// fsync says so, as those of network file systems do.
    forgot: bool,
}

/// What fsync of a file covers.
#[derive(Clone, PartialEq)]
pub(super) struct Body {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u32,
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    pub(super) btime: Time,
    pub(super) link: Option<Vec<u8>>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) bytes: Sparse,
}

/// In directory `dir`, `name` comes to mean `to`.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) dir: Id,
    pub(super) name: Name,
    pub(super) to: Option<Id>,
}

impl Volatile {
    pub(super) fn new(salt: u64) -> Volatile {
        let body = Body::new(FileKind::Directory, 0o755, wall(salt % 1_000_000_000));
        let root = File::new(ROOT_INO, body);
        let mut new = Volatile {
            files: BTreeMap::from([(ROOT, root)]),
            limits: limits(),
            files_made: ROOT,
            free_inos: Vec::new(),
            loose: Vec::new(),
        };
        new.limits.root = new.identity(ROOT);
        new
    }

    /// Now, as coarse as this file system keeps it.
    pub(super) fn clock(&self, core: &Core) -> Time {
        self.coarse(wall(core.now()))
    }

    pub(super) fn coarse(&self, time: Time) -> Time {
        let step = i128::from(self.limits.time_step.max(1));
        Time::from_nanos(time.nanos() - time.nanos().rem_euclid(step))
    }

    /// A new file without names.
    pub(super) fn make(&mut self, core: &Core, body: Body) -> Id {
        self.files_made += 1;
        let id = self.files_made;
        // Numbers of removed files come back soon, as on ext4.
        let ino = match self.free_inos.len() as u64 {
            0 => ROOT_INO + id,
            n => self.free_inos.swap_remove(core.below(n) as usize),
        };
        self.files.insert(id, File::new(ino, body));
        id
    }

    /// Changes directories: one atomic step for this and for a power cut.
    pub(super) fn change(&mut self, changes: Vec<Change>) {
        for Change { dir, name, to } in &changes {
            let Some(dir) = self.files.get_mut(dir) else {
                continue;
            };
            let before = match to {
                Some(id) => dir.entries.insert(name.clone(), *id),
                None => dir.entries.remove(name),
            };
            if let Some(file) = to.and_then(|id| self.files.get_mut(&id)) {
                file.links += 1;
            }
            if let Some(id) = before
                && let Some(file) = self.files.get_mut(&id)
            {
                file.links -= 1;
            }
        }
        self.loose.push(changes);
    }

    pub(super) fn sync(&mut self, id: Id) -> Result<(), Errno> {
        let Some(file) = self.files.get_mut(&id) else {
            return Err(Errno::ESTALE);
        };
        if std::mem::take(&mut file.forgot) {
            return Err(Errno::EIO);
        }
        file.durable = file.body.clone();
        if file.body.kind == FileKind::Directory {
            self.sync_entries(id);
        }
        Ok(())
    }

    /// Makes durable all changes of a directory, and those that they rest on:
    /// a rename takes along what happened before in its other directory.
    fn sync_entries(&mut self, dir: Id) {
        let mut dirs = BTreeSet::from([dir]);
        let mut covered = vec![false; self.loose.len()];
        // Backwards: what a later change drags in lies before it.
        for (i, changes) in self.loose.iter().enumerate().rev() {
            if changes.iter().any(|c| dirs.contains(&c.dir)) {
                covered[i] = true;
                dirs.extend(changes.iter().map(|c| c.dir));
            }
        }
        let mut i = 0;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.loose).into_iter().partition(|_| {
                i += 1;
                covered[i - 1]
            });
        self.loose = later;
        let named = now.iter().flatten().filter_map(|c| c.to);
        let children = self.files[&dir].entries.values().copied();
        for id in named.chain(children).collect::<BTreeSet<Id>>() {
            if let Some(file) = self.files.get_mut(&id) {
                file.sync_attributes();
            }
        }
        for change in now.into_iter().flatten() {
            self.settle(change);
        }
        self.free();
    }

    /// Forgets files that neither memory nor any power cut can show again; only
    /// then may their numbers come back.
    fn free(&mut self) {
        let durable = self.files.values().flat_map(|f| f.durable_entries.values());
        let loose = self.loose.iter().flatten().filter_map(|c| c.to.as_ref());
        let named: BTreeSet<Id> = durable.chain(loose).copied().collect();
        let free_inos = &mut self.free_inos;
        self.files.retain(|id, file| {
            let stays = *id == ROOT || file.links > 0 || named.contains(id);
            if !stays {
                free_inos.push(file.ino);
            }
            stays
        });
    }

    fn settle(&mut self, change: Change) {
        if let Some(dir) = self.files.get_mut(&change.dir) {
            match change.to {
                Some(id) => dir.durable_entries.insert(change.name, id),
                None => dir.durable_entries.remove(&change.name),
            };
        }
    }

    pub(super) fn power_cut(&mut self, core: &Core) {
        let kept = match core.below(3) {
            0 => 0,
            1 => self.loose.len(),
            _ => core.below(self.loose.len() as u64 + 1) as usize,
        };
        let loose = std::mem::take(&mut self.loose);
        for change in loose.into_iter().take(kept).flatten() {
            self.settle(change);
        }
        for file in self.files.values_mut() {
            file.survive(core);
        }
        self.recount();
    }

    /// As [`Volatile::power_cut`], under boxes that live on.
    pub(super) fn restart(&mut self, core: &Core) {
        let writes_bytes = |f: &File| f.body.kind == FileKind::Regular;
        for file in self.files.values_mut().filter(|f| writes_bytes(f)) {
            file.forgot |= file.body != file.durable;
        }
        self.power_cut(core);
    }

    /// Counts names from the root again and forgets files that have none.
    fn recount(&mut self) {
        let mut links: BTreeMap<Id, u32> = BTreeMap::from([(ROOT, 0)]);
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            let entries: Vec<Id> = self.files[&id].entries.values().copied().collect();
            for child in entries {
                let count = links.entry(child).or_insert(0);
                *count += 1;
                if *count == 1 {
                    todo.push(child);
                }
            }
        }
        for (id, file) in &mut self.files {
            file.links = links.get(id).copied().unwrap_or(0);
        }
        self.free();
    }

    /// The file that a place means.
    pub(super) fn find(&self, place: &Place) -> Result<Id, Errno> {
        if let Some(identity) = &place.identity
            && self.limits.handles
            && let Ok(handle) = <[u8; 8]>::try_from(identity.handle.0.as_slice())
        {
            let id = Id::from_be_bytes(handle);
            if self.alive(id) {
                return Ok(id);
            }
        }
        let walked = self.walk(&place.path);
        match (&place.identity, walked) {
            (None, walked) => walked,
            (Some(identity), Ok(id)) if self.is(id, identity) => Ok(id),
            (Some(_), _) => Err(Errno::ESTALE),
        }
    }

    /// The directory that a place means.
    pub(super) fn find_dir(&self, place: &Place) -> Result<Id, Errno> {
        let id = self.find(place)?;
        match self.files[&id].body.kind {
            FileKind::Directory => Ok(id),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn walk(&self, path: &[Name]) -> Result<Id, Errno> {
        let mut at = ROOT;
        for name in path {
            let file = &self.files[&at];
            if file.body.kind != FileKind::Directory {
                return Err(Errno::ENOTDIR);
            }
            at = *file.entries.get(name).ok_or(Errno::ENOENT)?;
        }
        Ok(at)
    }

    fn alive(&self, id: Id) -> bool {
        id == ROOT || self.files.get(&id).is_some_and(|f| f.links > 0)
    }

    pub(super) fn identity(&self, id: Id) -> Identity {
        let file = &self.files[&id];
        let handle = if self.limits.handles {
            id.to_be_bytes().to_vec()
        } else {
            Vec::new()
        };
        Identity {
            handle_type: i32::from(self.limits.handles),
            handle: Bytes(handle),
            dev: 0,
            ino: file.ino,
            birth: u64::try_from(file.body.btime.nanos()).unwrap_or(0),
        }
    }

    /// Does `identity` mean the file? Handles decide where there are two.
    pub(super) fn is(&self, id: Id, identity: &Identity) -> bool {
        let own = self.identity(id);
        if own.handle.0.is_empty() || identity.handle.0.is_empty() {
            return (own.ino, own.birth) == (identity.ino, identity.birth);
        }
        own.handle == identity.handle
    }

    pub(super) fn found(&self, id: Id) -> Found {
        let file = &self.files[&id];
        let Body {
            kind,
            mode,
            uid,
            gid,
            rdev,
            atime,
            mtime,
            ctime,
            btime,
            ..
        } = file.body;
        let subdirs = file.entries.values().filter(|c| self.is_dir(**c)).count();
        let nlink = match kind {
            FileKind::Directory => 2 + u32::try_from(subdirs).unwrap_or(u32::MAX - 2),
            _ => file.links,
        };
        let size = match &file.body.link {
            Some(link) => link.len() as u64,
            None => file.body.bytes.size(),
        };
        Found {
            identity: self.identity(id),
            attr: Attr {
                kind,
                mode,
                uid,
                gid,
                nlink,
                rdev,
                ino: file.ino,
                size,
                blocks: size.div_ceil(512),
                atime,
                mtime,
                ctime,
                btime,
                version: 0,
            },
            link: file.body.link.clone(),
        }
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        self.files[&id].body.kind == FileKind::Directory
    }

    pub(super) fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        let mut todo = vec![(Vec::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            let file = &self.files[&id];
            for (name, child) in &file.entries {
                let mut below: Vec<u8> = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.as_bytes());
                todo.push((below, *child));
            }
            tree.0.insert(path, file.body.entry(id));
        }
        tree
    }
}

impl File {
    fn new(ino: u64, body: Body) -> File {
        File {
            ino,
            durable: body.clone(),
            body,
            entries: BTreeMap::new(),
            durable_entries: BTreeMap::new(),
            links: 0,
            forgot: false,
        }
    }

    /// Everything but the bytes.
    fn sync_attributes(&mut self) {
        let bytes = std::mem::take(&mut self.durable.bytes);
        self.durable = Body {
            bytes,
            ..self.body.clone()
        };
    }

    /// What is left of it after a power cut.
    fn survive(&mut self, core: &Core) {
        let torn = self.durable.bytes.torn(&self.body.bytes, || core.chance(2));
        if core.chance(2) {
            self.durable.clone_from(&self.body);
        }
        self.durable.bytes = torn;
        self.body = self.durable.clone();
        self.entries = self.durable_entries.clone();
    }
}

impl Body {
    pub(super) fn new(kind: FileKind, mode: u32, now: Time) -> Body {
        Body {
            kind,
            mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            link: None,
            xattrs: BTreeMap::new(),
            bytes: Sparse::default(),
        }
    }

    fn entry(&self, same: u64) -> Entry {
        Entry {
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            bytes: self.bytes.clone(),
            link: self.link.clone(),
            xattrs: self.xattrs.clone(),
            mtime: self.mtime,
            same,
        }
    }
}

fn limits() -> Limits {
    Limits {
        name_max: 255,
        link_max: 65000,
        file_size_max: 1 << 44,
        handles: true,
        xattrs: true,
        acls: true,
        symlinks: true,
        hard_links: true,
        special_files: true,
        owners: true,
        rename_noreplace: true,
        rename_exchange: true,
        punch: true,
        read_only: false,
        time_step: 1,
        clock: Time::default(),
        root: Identity::default(),
    }
}

pub(super) const ROOT: Id = 1;
const ROOT_INO: u64 = 2;
