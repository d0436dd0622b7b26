//! What a file system is, in the fewest words: the oracle that the box is held
//! against. Operations name files by numbers of the model's own; whoever drives
//! both keeps which FID stands for which number.

use super::sparse::Sparse;
use super::tree::{Entry, Tree};
use crate::base::limits::LINK_MAX;
use crate::base::{Errno, FileKind, Name, Time};
use std::collections::BTreeMap;

/// A file of the model; never reused.
pub type Id = u64;
pub const ROOT: Id = 1;

/// What a client asks, as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create {
        dir: Id,
        name: Name,
        kind: FileKind,
        mode: u32,
        link: Vec<u8>,
    },
    Open(Id),
    Close(Id),
    Link {
        file: Id,
        dir: Id,
        name: Name,
    },
    Unlink {
        dir: Id,
        name: Name,
        is_dir: bool,
    },
    Rename {
        from: Id,
        name: Name,
        to: Id,
        to_name: Name,
        how: How,
    },
    /// `fill` decides the bytes, see [`pattern`].
    Write {
        file: Id,
        offset: u64,
        len: usize,
        fill: u64,
        append: bool,
    },
    Read {
        file: Id,
        offset: u64,
        len: usize,
    },
    Truncate {
        file: Id,
        size: u64,
    },
    Punch {
        file: Id,
        offset: u64,
        len: u64,
    },
    Zero {
        file: Id,
        offset: u64,
        len: u64,
        keep_size: bool,
    },
    Chmod {
        file: Id,
        mode: u32,
    },
    Chown {
        file: Id,
        uid: u32,
        gid: u32,
    },
    Utimes {
        file: Id,
        mtime: Time,
    },
    Fsync(Id),
    Getattr(Id),
    Lookup {
        dir: Id,
        name: Name,
    },
    Readdir(Id),
    Readlink(Id),
    XattrSet {
        file: Id,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    XattrGet {
        file: Id,
        name: Vec<u8>,
    },
    XattrRemove {
        file: Id,
        name: Vec<u8>,
    },
    XattrList(Id),
}

/// The flags of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Replace,
    NoReplace,
    Exchange,
}

/// What an operation answers, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Done,
    File(Shown),
    Bytes(Vec<u8>),
    /// Size and CRC32C of bytes read.
    Data(usize, u32),
    Names(Vec<(Name, FileKind)>),
}

/// A file's attributes, those that do not depend on a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub kind: FileKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Zero for directories.
    pub size: u64,
}

pub type Outcome = Result<Seen, Errno>;

#[derive(Clone, Default)]
pub struct Model {
    files: BTreeMap<Id, File>,
    made: Id,
}

#[derive(Clone)]
struct File {
    kind: FileKind,
    mode: u32,
    uid: u32,
    gid: u32,
    bytes: Sparse,
    link: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: BTreeMap<Name, Id>,
    /// Of a directory.
    parent: Id,
    /// Names of what is no directory.
    links: u32,
    opens: u32,
}

/// The bytes that `Write` writes: they tell which write they come from.
#[must_use]
pub fn pattern(fill: u64, len: usize) -> Vec<u8> {
    let mut x = fill | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

impl Model {
    /// An empty root directory.
    #[must_use]
    pub fn new() -> Model {
        let root = File::new(FileKind::Directory, 0o755);
        Model {
            files: BTreeMap::from([(ROOT, root)]),
            made: ROOT,
        }
    }

    /// The number that the next file gets.
    #[must_use]
    pub fn next(&self) -> Id {
        self.made + 1
    }

    /// What `name` is.
    #[must_use]
    pub fn at(&self, dir: Id, name: &Name) -> Option<Id> {
        self.files.get(&dir)?.entries.get(name).copied()
    }
    #[must_use]
    pub fn kind(&self, id: Id) -> Option<FileKind> {
        Some(self.files.get(&id)?.kind)
    }
    #[must_use]
    pub fn size(&self, id: Id) -> u64 {
        self.files.get(&id).map_or(0, |f| f.bytes.size())
    }
    #[must_use]
    pub fn names(&self, dir: Id) -> Vec<Name> {
        let entries = self.files.get(&dir).map(|d| &d.entries);
        entries
            .into_iter()
            .flatten()
            .map(|(n, _)| n.clone())
            .collect()
    }
    /// `root` and every file below it.
    #[must_use]
    pub fn below(&self, root: Id) -> Vec<Id> {
        let mut out = vec![root];
        let mut at = 0;
        while let Some(id) = out.get(at) {
            let entries = self.files.get(id).map(|d| &d.entries);
            let children: Vec<Id> = entries.into_iter().flatten().map(|(_, c)| *c).collect();
            out.extend(
                children
                    .into_iter()
                    .filter(|c| !out.contains(c))
                    .collect::<Vec<_>>(),
            );
            at += 1;
        }
        out
    }

    /// Does it, or says why not; a refused operation changes nothing.
    pub fn apply(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Create {
                dir,
                name,
                kind,
                mode,
                link,
            } => self.create(*dir, name, *kind, *mode, link),
            Op::Open(id) => self.file(*id).map(|f| f.opens += 1).map(|()| Seen::Done),
            Op::Close(id) => {
                self.file(*id).map(|f| f.opens -= 1)?;
                self.forget(*id);
                Ok(Seen::Done)
            }
            Op::Link { file, dir, name } => self.link(*file, *dir, name),
            Op::Unlink { dir, name, is_dir } => self.unlink(*dir, name, *is_dir),
            Op::Rename {
                from,
                name,
                to,
                to_name,
                how,
            } => self.rename((*from, name), (*to, to_name), *how),
            Op::Write { .. } | Op::Truncate { .. } | Op::Punch { .. } | Op::Zero { .. } => {
                self.change(op)
            }
            Op::Chmod { file, mode } => {
                self.file(*file)?.mode = *mode;
                Ok(Seen::Done)
            }
            Op::Chown { file, uid, gid } => {
                let file = self.file(*file)?;
                (file.uid, file.gid) = (*uid, *gid);
                if file.kind != FileKind::Directory {
                    let group = if file.mode & 0o010 != 0 { 0o2000 } else { 0 };
                    file.mode &= !(0o4000 | group);
                }
                Ok(Seen::Done)
            }
            Op::XattrSet { file, name, value } => {
                self.file(*file)?.xattrs.insert(name.clone(), value.clone());
                Ok(Seen::Done)
            }
            Op::XattrRemove { file, name } => {
                let removed = self.file(*file)?.xattrs.remove(name);
                removed.map(|_| Seen::Done).ok_or(Errno::ENODATA)
            }
            _ => self.look(op),
        }
    }

    fn look(&self, op: &Op) -> Outcome {
        let file = |id: &Id| self.files.get(id).ok_or(Errno::ESTALE);
        match op {
            Op::Read {
                file: id,
                offset,
                len,
            } => {
                let mut out = vec![0; *len];
                let n = file(id)?.bytes.read(*offset, &mut out);
                Ok(Seen::Data(n, crc32c::crc32c(&out[..n])))
            }
            Op::Getattr(id) => Ok(Seen::File(self.shown(*id))),
            Op::Lookup { dir, name } => match self.at(*dir, name) {
                Some(id) => Ok(Seen::File(self.shown(id))),
                None => Err(Errno::ENOENT),
            },
            Op::Readdir(id) => {
                let entries = file(id)?.entries.iter();
                Ok(Seen::Names(
                    entries
                        .map(|(n, c)| (n.clone(), self.files[c].kind))
                        .collect(),
                ))
            }
            Op::Readlink(id) => match file(id)? {
                f if f.kind == FileKind::Symlink => Ok(Seen::Bytes(f.link.clone())),
                _ => Err(Errno::EINVAL),
            },
            Op::XattrGet { file: id, name } => {
                let value = file(id)?.xattrs.get(name).cloned();
                value.map(Seen::Bytes).ok_or(Errno::ENODATA)
            }
            Op::XattrList(id) => {
                let names = file(id)?.xattrs.keys();
                let names: Vec<u8> = names.flat_map(|n| n.iter().copied().chain([0])).collect();
                Ok(Seen::Bytes(names))
            }
            _ => Ok(Seen::Done),
        }
    }

    fn create(&mut self, dir: Id, name: &Name, kind: FileKind, mode: u32, link: &[u8]) -> Outcome {
        self.directory(dir)?;
        if self.at(dir, name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.made += 1;
        let mut file = File::new(kind, mode);
        file.parent = dir;
        if kind == FileKind::Symlink {
            (file.link, file.mode) = (link.to_vec(), 0o777);
        }
        file.links = 1;
        self.files.insert(self.made, file);
        let id = self.made;
        self.file(dir)?.entries.insert(name.clone(), id);
        Ok(Seen::File(self.shown(id)))
    }

    fn link(&mut self, id: Id, dir: Id, name: &Name) -> Outcome {
        self.directory(dir)?;
        if self.file(id)?.kind == FileKind::Directory {
            return Err(Errno::EPERM);
        }
        if self.at(dir, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let file = self.file(id)?;
        match file.links {
            0 => return Err(Errno::ENOENT),
            LINK_MAX => return Err(Errno::EMLINK),
            _ => file.links += 1,
        }
        self.file(dir)?.entries.insert(name.clone(), id);
        Ok(Seen::File(self.shown(id)))
    }

    fn unlink(&mut self, dir: Id, name: &Name, is_dir: bool) -> Outcome {
        self.directory(dir)?;
        let id = self.at(dir, name).ok_or(Errno::ENOENT)?;
        let file = &self.files[&id];
        match (is_dir, file.kind == FileKind::Directory) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !file.entries.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.file(dir)?.entries.remove(name);
        self.drop_name(id);
        Ok(Seen::Done)
    }

    fn rename(&mut self, from: (Id, &Name), to: (Id, &Name), how: How) -> Outcome {
        self.directory(from.0)?;
        self.directory(to.0)?;
        let id = self.at(from.0, from.1).ok_or(Errno::ENOENT)?;
        let there = self.at(to.0, to.1);
        if how == How::NoReplace && there.is_some() {
            return Err(Errno::EEXIST);
        }
        if how == How::Exchange && there.is_none() {
            return Err(Errno::ENOENT);
        }
        if self.is_above(id, to.0) {
            return Err(Errno::EINVAL);
        }
        if let Some(victim) = there {
            if self.is_above(victim, from.0) {
                let exchange = how == How::Exchange;
                return Err(if exchange {
                    Errno::EINVAL
                } else {
                    Errno::ENOTEMPTY
                });
            }
            if victim == id {
                return Ok(Seen::Done);
            }
            if how == How::Exchange {
                self.bind(from, victim);
                self.bind(to, id);
                return Ok(Seen::Done);
            }
            let dirs = [id, victim].map(|f| self.files[&f].kind == FileKind::Directory);
            match dirs {
                [true, false] => return Err(Errno::ENOTDIR),
                [false, true] => return Err(Errno::EISDIR),
                [true, true] if !self.files[&victim].entries.is_empty() => {
                    return Err(Errno::ENOTEMPTY);
                }
                _ => self.drop_name(victim),
            }
        }
        self.bind(to, id);
        self.file(from.0)?.entries.remove(from.1);
        Ok(Seen::Done)
    }

    fn bind(&mut self, (dir, name): (Id, &Name), id: Id) {
        if let Some(dir) = self.files.get_mut(&dir) {
            dir.entries.insert(name.clone(), id);
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.parent = dir;
        }
    }

    fn change(&mut self, op: &Op) -> Outcome {
        match op {
            Op::Write {
                file,
                offset,
                len,
                fill,
                append,
            } => {
                let bytes = &mut self.file(*file)?.bytes;
                let at = if *append { bytes.size() } else { *offset };
                bytes.write(at, &pattern(*fill, *len));
            }
            Op::Truncate { file, size } => self.file(*file)?.bytes.truncate(*size),
            Op::Punch { file, offset, len } => self.file(*file)?.bytes.punch(*offset, *len),
            Op::Zero {
                file,
                offset,
                len,
                keep_size,
            } => {
                let bytes = &mut self.file(*file)?.bytes;
                if !keep_size {
                    bytes.truncate(bytes.size().max(offset + len));
                }
                bytes.punch(*offset, *len);
            }
            _ => {}
        }
        Ok(Seen::Done)
    }

    /// `id` is `below`, or a directory above it.
    fn is_above(&self, id: Id, below: Id) -> bool {
        let mut at = below;
        while at != id && at != ROOT {
            at = self.files.get(&at).map_or(ROOT, |f| f.parent);
        }
        at == id
    }

    fn drop_name(&mut self, id: Id) {
        if let Some(file) = self.files.get_mut(&id) {
            file.links -= 1;
        }
        self.forget(id);
    }

    fn forget(&mut self, id: Id) {
        if self
            .files
            .get(&id)
            .is_some_and(|f| f.links == 0 && f.opens == 0)
        {
            self.files.remove(&id);
        }
    }

    fn file(&mut self, id: Id) -> Result<&mut File, Errno> {
        self.files.get_mut(&id).ok_or(Errno::ESTALE)
    }

    fn directory(&self, id: Id) -> Result<(), Errno> {
        match self.files.get(&id) {
            Some(f) if f.kind == FileKind::Directory => Ok(()),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ESTALE),
        }
    }

    fn shown(&self, id: Id) -> Shown {
        let file = &self.files[&id];
        let is_dir = |c: &&Id| self.files[*c].kind == FileKind::Directory;
        let subdirs = file.entries.values().filter(is_dir).count();
        Shown {
            kind: file.kind,
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            nlink: match file.kind {
                FileKind::Directory => 2 + u32::try_from(subdirs).unwrap_or(u32::MAX - 2),
                _ => file.links,
            },
            size: match file.kind {
                FileKind::Symlink => file.link.len() as u64,
                _ => file.bytes.size(),
            },
        }
    }

    /// Everything that has a name; times are zero.
    #[must_use]
    pub fn tree(&self) -> Tree {
        let mut tree = Tree::default();
        let mut todo = vec![(Vec::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            for (name, child) in &self.files[&id].entries {
                let mut below: Vec<u8> = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(name.as_bytes());
                todo.push((below, *child));
            }
            tree.0.insert(path, self.files[&id].entry(id));
        }
        tree
    }
}

impl File {
    fn new(kind: FileKind, mode: u32) -> File {
        File {
            kind,
            mode,
            uid: 0,
            gid: 0,
            bytes: Sparse::default(),
            link: Vec::new(),
            xattrs: BTreeMap::new(),
            entries: BTreeMap::new(),
            parent: ROOT,
            links: 1,
            opens: 0,
        }
    }

    fn entry(&self, same: Id) -> Entry {
        Entry {
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            bytes: self.bytes.clone(),
            link: (self.kind == FileKind::Symlink).then(|| self.link.clone()),
            xattrs: self.xattrs.clone(),
            mtime: Time::default(),
            same,
        }
    }
}
