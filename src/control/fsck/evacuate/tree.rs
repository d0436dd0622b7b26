//! The directories of a rescue, and what must come last: symbolic links, because
//! nothing may be written through them, and attributes of directories, because
//! writing into them changes their times.

use crate::base::{Fid, Name, Time};
use crate::control::fsck::names::{Names, TargetName};
use crate::control::fsck::shard::View;
use crate::namespace::{Inode, key};
use crate::origin::ORPHANS;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

pub struct Tree<'a> {
    view: &'a View,
    names: &'a Names<'a>,
    target: &'a TargetName,
    root: PathBuf,
    /// Directories made, with the file that each stands for.
    dirs: BTreeMap<PathBuf, Option<Fid>>,
    links: Vec<(PathBuf, Vec<u8>, Inode)>,
}

impl<'a> Tree<'a> {
    #[must_use]
    pub fn new(
        view: &'a View,
        names: &'a Names<'a>,
        target: &'a TargetName,
        root: PathBuf,
    ) -> Tree<'a> {
        Tree {
            view,
            names,
            target,
            dirs: BTreeMap::from([(root.clone(), Some(target.root))]),
            root,
            links: Vec::new(),
        }
    }

    /// The path of a file with these names, below the target's directory.
    #[must_use]
    pub fn path(&self, way: &[Name]) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(way.iter().map(|name| OsStr::from_bytes(name.as_bytes())));
        path
    }

    /// Where a file goes that has no name, or whose way is not to be had.
    pub fn orphan(&mut self, fid: Fid) -> io::Result<PathBuf> {
        let dir = self.root.join(OsStr::from_bytes(ORPHANS));
        self.make(&dir, None)?;
        Ok(dir.join(fid.to_string()))
    }

    /// Makes the directory `way`, and those above it.
    pub fn dir(&mut self, way: &[Name], fid: Option<Fid>) -> io::Result<PathBuf> {
        for len in 1..way.len() {
            let path = self.path(&way[..len]);
            self.make(&path, None)?;
        }
        let path = self.path(way);
        self.make(&path, fid)?;
        Ok(path)
    }

    fn make(&mut self, path: &Path, fid: Option<Fid>) -> io::Result<()> {
        if let Some(known) = self.dirs.get_mut(path) {
            *known = known.or(fid);
            return Ok(());
        }
        // What stands there is none of ours: two names of one directory agree.
        fs::create_dir(path)?;
        self.dirs.insert(path.to_path_buf(), fid);
        Ok(())
    }

    /// The directory at `way` stands for `fid`.
    pub fn stands_for(&mut self, way: &[Name], fid: Fid) {
        let path = self.path(way);
        if let Some(known) = self.dirs.get_mut(&path) {
            *known = Some(fid);
        }
    }

    /// A symbolic link, to be made in the end.
    pub fn link(&mut self, path: PathBuf, to: Vec<u8>, inode: &Inode) {
        self.links.push((path, to, inode.clone()));
    }

    /// Makes the links, then gives directories their attributes, the deepest
    /// first. What could not be made.
    pub fn finish(self) -> Vec<(PathBuf, io::Error)> {
        let mut failed = Vec::new();
        for (path, to, inode) in &self.links {
            if let Err(e) = symlink(OsStr::from_bytes(to), path) {
                failed.push((path.clone(), e));
                continue;
            }
            own(path, &inode.attr);
            stamp(path, inode.attr.atime, inode.attr.mtime);
        }
        for (path, fid) in self.dirs.iter().rev() {
            let inode = fid.and_then(|fid| self.view.index.record::<Inode>(&key::inode(fid)));
            if let Some(inode) = inode {
                own(path, &inode.attr);
                // A directory that nobody may enter would hide what is in it.
                let mode = fs::Permissions::from_mode(inode.attr.mode & 0o7777 | 0o700);
                if let Err(e) = fs::set_permissions(path, mode) {
                    failed.push((path.clone(), e));
                }
                stamp(path, inode.attr.atime, inode.attr.mtime);
            }
        }
        failed
    }

    /// The directory above `way` exists, and what each of them stands for.
    pub fn parents(&mut self, way: &[Name], parent: Fid) -> io::Result<()> {
        let Some((_, above)) = way.split_last() else {
            return Ok(());
        };
        if above.is_empty() {
            return Ok(());
        }
        self.dir(above, None)?;
        let mut fid = parent;
        for len in (1..=above.len()).rev() {
            if fid == self.target.root || self.names.way(fid).is_none_or(|(_, w)| w != above[..len])
            {
                break;
            }
            self.stands_for(&above[..len], fid);
            let inode: Option<Inode> = self.view.index.record(&key::inode(fid));
            fid = inode.map_or(Fid::NONE, |inode| inode.parent);
        }
        Ok(())
    }
}

/// Gives the file its owner, if we may.
pub fn own(path: &Path, attr: &crate::base::Attr) -> bool {
    lchown(path, Some(attr.uid), Some(attr.gid)).is_ok()
}

/// Gives the file its times.
pub fn stamp(path: &Path, atime: Time, mtime: Time) -> bool {
    let spec = |time: Time| Timespec {
        tv_sec: time.sec,
        tv_nsec: time.nsec.into(),
    };
    let times = Timestamps {
        last_access: spec(atime),
        last_modification: spec(mtime),
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
