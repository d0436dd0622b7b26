//! Random changes of a tree of its own, each with the one result that it must
//! have, and what must be there at any time.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Names in a directory: few, so that they meet.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const DEPTH_MAX: usize = 4;
const BYTES_MAX: usize = 30_000;

/// What must be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Directory,
    /// The file's number: names that are linked have the same.
    File(u64),
    Symlink(String),
}

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    mode: u32,
}

/// The model.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    files: BTreeMap<u64, Contents>,
    next: u64,
}

/// How an operation must end.
type Must = Result<(), ErrorKind>;

impl Tree {
    /// Does one random operation below `root` and compares how it ends.
    pub fn step(&mut self, rng: &mut fastrand::Rng, root: &Path) {
        let path = self.any_path(rng);
        let at = root.join(&path);
        let (what, must, got) = match rng.u8(0..12) {
            0 => ("mkdir", self.mkdir(&path), fs::create_dir(&at)),
            1..4 => {
                let bytes = bytes(rng);
                let must = self.create(&path, &bytes);
                ("create", must, create(&at, &bytes))
            }
            4 => ("unlink", self.unlink(&path), fs::remove_file(&at)),
            5 => ("rmdir", self.rmdir(&path), fs::remove_dir(&at)),
            6 if !matches!(self.nodes.get(&path), Some(Node::Symlink(_))) => {
                let to = self.any_path(rng);
                let (must, to) = (self.link(&path, &to), root.join(to));
                ("link", must, fs::hard_link(&at, to))
            }
            7 => {
                let to = format!("nowhere-{}", rng.u8(..));
                ("symlink", self.symlink(&path, &to), symlink(&to, &at))
            }
            8 | 9 => {
                let to = self.any_path(rng);
                if self.moves_a_directory(&path, &to) {
                    return;
                }
                let (must, to) = (self.rename(&path, &to), root.join(to));
                ("rename", must, fs::rename(&at, to))
            }
            _ => return self.change(rng, &path, &at),
        };
        let got = got.map_err(|e| e.kind());
        assert_eq!(got, must, "{what} of {}", at.display());
    }

    /// Changes the contents of a file, if there is one.
    fn change(&mut self, rng: &mut fastrand::Rng, path: &Path, at: &Path) {
        let Some(Node::File(n)) = self.nodes.get(path) else {
            return;
        };
        let Some(file) = self.files.get_mut(n) else {
            return;
        };
        let open = || OpenOptions::new().write(true).open(at);
        let done = match rng.u8(0..4) {
            0 => {
                let len = rng.usize(0..BYTES_MAX);
                file.bytes.resize(len, 0);
                open().and_then(|f| f.set_len(len as u64))
            }
            1 => {
                file.mode = rng.u32(0o600..0o700);
                fs::set_permissions(at, Permissions::from_mode(file.mode))
            }
            _ => {
                let (from, new) = (rng.usize(0..BYTES_MAX), bytes(rng));
                let end = (from + new.len()).max(file.bytes.len());
                file.bytes.resize(end, 0);
                file.bytes[from..from + new.len()].copy_from_slice(&new);
                let is_synced = rng.u8(0..8) == 0;
                open().and_then(|f| {
                    f.write_all_at(&new, from as u64)?;
                    if is_synced { f.sync_all() } else { Ok(()) }
                })
            }
        };
        done.unwrap_or_else(|e| panic!("change of {}: {e}", at.display()));
    }

    /// A path in a directory that is there, or rarely in one that is not.
    fn any_path(&self, rng: &mut fastrand::Rng) -> PathBuf {
        let mut path = PathBuf::new();
        for _ in 1..DEPTH_MAX {
            let below = path.join(rng.choice(NAMES).unwrap_or("a"));
            let is_dir = self.nodes.get(&below) == Some(&Node::Directory);
            if !is_dir && rng.u8(0..20) > 0 || rng.u8(0..3) == 0 {
                break;
            }
            path = below;
        }
        path.join(rng.choice(NAMES).unwrap_or("a"))
    }

    /// What the walk to the directory of `path` meets.
    fn parent(&self, path: &Path) -> Must {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.pop(); // the root
        for dir in above.iter().rev() {
            match self.nodes.get(*dir) {
                Some(Node::Directory) => {}
                None => return Err(ErrorKind::NotFound),
                Some(Node::File(_)) => return Err(ErrorKind::NotADirectory),
                // None of them leads anywhere.
                Some(Node::Symlink(_)) => return Err(ErrorKind::NotFound),
            }
        }
        Ok(())
    }

    fn mkdir(&mut self, path: &Path) -> Must {
        self.parent(path)?;
        self.vacant(path)?;
        self.nodes.insert(path.to_owned(), Node::Directory);
        Ok(())
    }

    fn vacant(&self, path: &Path) -> Must {
        match self.nodes.contains_key(path) {
            true => Err(ErrorKind::AlreadyExists),
            false => Ok(()),
        }
    }

    fn create(&mut self, path: &Path, bytes: &[u8]) -> Must {
        self.parent(path)?;
        self.vacant(path)?;
        let (n, mode) = (self.next, 0o640);
        self.next += 1;
        let bytes = bytes.to_vec();
        self.files.insert(n, Contents { bytes, mode });
        self.nodes.insert(path.to_owned(), Node::File(n));
        Ok(())
    }

    fn symlink(&mut self, path: &Path, to: &str) -> Must {
        self.parent(path)?;
        self.vacant(path)?;
        self.nodes
            .insert(path.to_owned(), Node::Symlink(to.to_owned()));
        Ok(())
    }

    fn unlink(&mut self, path: &Path) -> Must {
        self.parent(path)?;
        match self.nodes.get(path) {
            None => Err(ErrorKind::NotFound),
            Some(Node::Directory) => Err(ErrorKind::IsADirectory),
            Some(_) => {
                self.forget(path);
                Ok(())
            }
        }
    }

    fn rmdir(&mut self, path: &Path) -> Must {
        self.parent(path)?;
        match self.nodes.get(path) {
            None => Err(ErrorKind::NotFound),
            Some(Node::Directory) if self.has_children(path) => Err(ErrorKind::DirectoryNotEmpty),
            Some(Node::Directory) => {
                self.nodes.remove(path);
                Ok(())
            }
            Some(_) => Err(ErrorKind::NotADirectory),
        }
    }

    fn link(&mut self, path: &Path, to: &Path) -> Must {
        self.parent(path)?;
        let Some(node) = self.nodes.get(path).cloned() else {
            return Err(ErrorKind::NotFound);
        };
        self.parent(to)?;
        self.vacant(to)?;
        if node == Node::Directory {
            return Err(ErrorKind::PermissionDenied);
        }
        self.nodes.insert(to.to_owned(), node);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Must {
        self.parent(from)?;
        self.parent(to)?;
        let Some(node) = self.nodes.get(from).cloned() else {
            return Err(ErrorKind::NotFound);
        };
        if to.starts_with(from) && to != from {
            return Err(ErrorKind::InvalidInput);
        }
        if from.starts_with(to) && to != from {
            return Err(ErrorKind::DirectoryNotEmpty);
        }
        let is_same = matches!(node, Node::File(_)) && self.nodes.get(to) == Some(&node);
        if from == to || is_same {
            return Ok(()); // two names of one file: both stay
        }
        let is_dir = node == Node::Directory;
        match self.nodes.get(to) {
            Some(Node::Directory) if !is_dir => return Err(ErrorKind::IsADirectory),
            Some(Node::Directory) if self.has_children(to) => {
                return Err(ErrorKind::DirectoryNotEmpty);
            }
            Some(Node::File(_) | Node::Symlink(_)) if is_dir => {
                return Err(ErrorKind::NotADirectory);
            }
            _ => {}
        }
        self.forget(to);
        let moved: Vec<PathBuf> = self
            .nodes
            .keys()
            .filter(|p| p.starts_with(from))
            .cloned()
            .collect();
        for old in moved {
            let rest = old.strip_prefix(from).unwrap_or(Path::new(""));
            let new = if rest.as_os_str().is_empty() {
                to.to_owned()
            } else {
                to.join(rest)
            };
            if let Some(node) = self.nodes.remove(&old) {
                self.nodes.insert(new, node);
            }
        }
        Ok(())
    }

    /// Into another directory. Linux gives ESTALE to who looks such a one up
    /// on another mount while something else is renamed there
    /// (docs/RULES.md, directories that were moved elsewhere).
    fn moves_a_directory(&self, from: &Path, to: &Path) -> bool {
        from.parent() != to.parent() && self.nodes.get(from) == Some(&Node::Directory)
    }

    fn has_children(&self, path: &Path) -> bool {
        let mut all = self.nodes.keys();
        all.any(|p| p != path && p.starts_with(path))
    }

    /// The name goes, and with the last one the file.
    fn forget(&mut self, path: &Path) {
        if let Some(Node::File(n)) = self.nodes.remove(path) {
            let still = self.nodes.values().any(|node| *node == Node::File(n));
            if !still {
                self.files.remove(&n);
            }
        }
    }

    /// Compares all below `root`: names, types, links, modes, bytes.
    pub fn check(&self, root: &Path) {
        let mut seen = Vec::new();
        list(root, Path::new(""), &mut seen);
        seen.sort();
        let want: Vec<&PathBuf> = self.nodes.keys().collect();
        assert_eq!(seen.iter().collect::<Vec<_>>(), want, "{}", root.display());
        for (path, node) in &self.nodes {
            let at = root.join(path);
            let show = at.display();
            let meta = fs::symlink_metadata(&at).unwrap_or_else(|e| panic!("{show}: {e}"));
            match node {
                Node::Directory => assert!(meta.is_dir(), "{show}"),
                Node::Symlink(to) => {
                    let got = fs::read_link(&at).unwrap_or_else(|e| panic!("{show}: {e}"));
                    assert_eq!(got, Path::new(to), "{show}");
                }
                Node::File(n) => {
                    let file = &self.files[n];
                    let links = self.nodes.values().filter(|of| *of == node).count() as u64;
                    let got = (meta.mode() & 0o7777, meta.nlink(), meta.len());
                    let want = (file.mode, links, file.bytes.len() as u64);
                    assert_eq!(got, want, "mode, links, size of {show}");
                    let bytes = fs::read(&at).unwrap_or_else(|e| panic!("{show}: {e}"));
                    let differs = bytes.iter().zip(&file.bytes).position(|(a, b)| a != b);
                    assert_eq!(differs, None, "the first wrong byte of {show}");
                }
            }
        }
    }
}

fn create(at: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(at)?;
    file.set_permissions(Permissions::from_mode(0o640))?;
    file.write_all_at(bytes, 0)
}

fn list(root: &Path, below: &Path, out: &mut Vec<PathBuf>) {
    let dir = root.join(below);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let path = below.join(entry.file_name());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            list(root, &path, out);
        }
        out.push(path);
    }
}

fn bytes(rng: &mut fastrand::Rng) -> Vec<u8> {
    let (len, byte) = (rng.usize(1..6000), rng.u8(1..));
    vec![byte; len]
}
