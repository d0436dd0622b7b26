//! Random operations of one client, most of them possible, some of them not,
//! in a directory tree of its own.

use super::model::{How, Id, Model, Op};
use crate::base::{FileKind, Name, Time};

/// What one client does next, and the numbers that decide it.
pub struct Workload {
    rng: fastrand::Rng,
    /// The client's own directory.
    root: Id,
    /// Handles that it holds.
    held: Vec<Id>,
}

impl Workload {
    #[must_use]
    pub fn new(seed: u64, root: Id) -> Workload {
        Workload {
            rng: fastrand::Rng::with_seed(seed),
            root,
            held: Vec::new(),
        }
    }

    /// The next operation, given what is there now.
    pub fn next(&mut self, model: &Model) -> Op {
        let below = model.below(self.root);
        let dirs: Vec<Id> = of_kind(model, &below, FileKind::Directory);
        let mut files: Vec<Id> = of_kind(model, &below, FileKind::Regular);
        files.extend(&self.held);
        let dir = self.pick(&dirs).unwrap_or(self.root);
        match (self.rng.u32(0..100), self.pick(&files)) {
            (0..18, _) | (40..100, None) => self.create(dir),
            (18..24, _) => self.unlink(model, dir),
            (24..34, _) => self.rename(model, dir, &dirs),
            (34..40, _) => self.look(model, dir, &below),
            (40..46, Some(file)) => self.link(dir, file),
            (46..50, Some(file)) => self.handle(file),
            (50..70, Some(file)) => self.write(file, model.size(file)),
            (70..84, Some(file)) => self.read(file, model.size(file)),
            (84..88, Some(file)) => Op::Fsync(file),
            (88.., Some(file)) => self.attrs(&below, file),
            (_, None) => Op::Readdir(dir),
        }
    }

    /// Handles that are still held, to be closed at the end.
    pub fn last(&mut self) -> Option<Op> {
        self.held.pop().map(Op::Close)
    }

    fn create(&mut self, dir: Id) -> Op {
        let kind = match self.rng.u32(0..12) {
            0..2 => FileKind::Directory,
            2 => FileKind::Symlink,
            3 if self.rng.u32(0..3) == 0 => FileKind::Fifo,
            _ => FileKind::Regular,
        };
        let mode = self.rng.u32(0..0o1000)
            | if kind == FileKind::Directory {
                0o700
            } else {
                0
            };
        let link = format!("to/{}", self.rng.u32(..)).into_bytes();
        let name = self.name();
        Op::Create {
            dir,
            name,
            kind,
            mode,
            link,
        }
    }

    fn unlink(&mut self, model: &Model, dir: Id) -> Op {
        let name = self.name_in(model, dir);
        let there = model.at(dir, &name).and_then(|id| model.kind(id));
        let is_dir = (there == Some(FileKind::Directory)) ^ self.rare();
        Op::Unlink { dir, name, is_dir }
    }

    fn rename(&mut self, model: &Model, from: Id, dirs: &[Id]) -> Op {
        let to = self.pick(dirs).unwrap_or(from);
        let how = match self.rng.u32(0..8) {
            0 => How::NoReplace,
            1 => How::Exchange,
            _ => How::Replace,
        };
        let name = self.name_in(model, from);
        let to_name = self.name();
        Op::Rename {
            from,
            name,
            to,
            to_name,
            how,
        }
    }

    fn look(&mut self, model: &Model, dir: Id, below: &[Id]) -> Op {
        match self.rng.u32(0..5) {
            0 | 1 => Op::Readdir(dir),
            2 => Op::Getattr(self.pick(below).unwrap_or(dir)),
            3 => {
                let links = of_kind(model, below, FileKind::Symlink);
                self.pick(&links).map_or(Op::Getattr(dir), Op::Readlink)
            }
            _ => {
                let name = self.name();
                Op::Lookup { dir, name }
            }
        }
    }

    fn link(&mut self, dir: Id, file: Id) -> Op {
        let name = self.name();
        Op::Link { file, dir, name }
    }

    fn handle(&mut self, file: Id) -> Op {
        if self.held.len() < 3 {
            self.held.push(file);
            return Op::Open(file);
        }
        let at = self.rng.usize(0..self.held.len());
        Op::Close(self.held.swap_remove(at))
    }

    fn write(&mut self, file: Id, size: u64) -> Op {
        let (offset, fill) = (self.offset(size), self.rng.u64(..));
        match self.rng.u32(0..20) {
            0 => Op::Truncate { file, size: offset },
            1 => {
                let len = 1 + self.rng.u64(0..30_000);
                Op::Punch { file, offset, len }
            }
            2 => {
                let (len, keep_size) = (1 + self.rng.u64(0..30_000), self.rng.bool());
                Op::Zero {
                    file,
                    offset,
                    len,
                    keep_size,
                }
            }
            kind => {
                let len = self.length();
                let append = kind == 3;
                Op::Write {
                    file,
                    offset,
                    len,
                    fill,
                    append,
                }
            }
        }
    }

    fn read(&mut self, file: Id, size: u64) -> Op {
        let offset = if self.rng.bool() {
            0
        } else {
            self.offset(size)
        };
        let len = if self.rng.bool() {
            1 << 18
        } else {
            self.length()
        };
        Op::Read { file, offset, len }
    }

    fn attrs(&mut self, below: &[Id], file: Id) -> Op {
        let any = self.pick(below).unwrap_or(file);
        let name = format!("user.{}", self.rng.u32(0..4)).into_bytes();
        match self.rng.u32(0..10) {
            0 | 1 => {
                let mode = self.rng.u32(0..0o10000) | 0o600;
                Op::Chmod { file, mode }
            }
            2 => {
                let (uid, gid) = (self.rng.u32(0..5), self.rng.u32(0..5));
                Op::Chown {
                    file: any,
                    uid,
                    gid,
                }
            }
            3 | 4 => {
                let sec = self.rng.i64(0..2_000_000_000);
                let nsec = self.rng.u32(0..1_000_000_000);
                let mtime = Time { sec, nsec };
                Op::Utimes { file, mtime }
            }
            5 | 6 => {
                let len = self.rng.usize(0..300);
                let value = super::model::pattern(self.rng.u64(..), len);
                Op::XattrSet { file, name, value }
            }
            7 => Op::XattrGet { file, name },
            8 => Op::XattrRemove { file, name },
            _ => Op::XattrList(file),
        }
    }

    fn offset(&mut self, size: u64) -> u64 {
        match self.rng.u32(0..6) {
            0 => 0,
            1 => size,
            2 => self.rng.u64(0..=size) / 4096 * 4096,
            3 => self.rng.u64(0..1 << 20),
            _ => self.rng.u64(0..=size),
        }
    }

    fn length(&mut self) -> usize {
        match self.rng.u32(0..10) {
            0 => 4096,
            1 => self.rng.usize(1..200_000),
            2..5 => self.rng.usize(1..30_000),
            _ => self.rng.usize(1..3_000),
        }
    }

    fn name_in(&mut self, model: &Model, dir: Id) -> Name {
        let names = model.names(dir);
        if names.is_empty() || self.rare() {
            return self.name();
        }
        names[self.rng.usize(0..names.len())].clone()
    }

    /// One of a few names, so that operations meet.
    fn name(&mut self) -> Name {
        let i = self.rng.usize(0..12);
        let bytes = match i {
            10 => vec![b'x'; 255],
            11 => vec![0xff, b'\n', b' ', 1],
            i => vec![b'a' + i as u8],
        };
        Name::new(&bytes).expect("neither empty nor odd")
    }

    fn rare(&mut self) -> bool {
        self.rng.u32(0..16) == 0
    }

    fn pick(&mut self, from: &[Id]) -> Option<Id> {
        (!from.is_empty()).then(|| from[self.rng.usize(0..from.len())])
    }
}

fn of_kind(model: &Model, ids: &[Id], kind: FileKind) -> Vec<Id> {
    let wanted = |id: &&Id| model.kind(**id) == Some(kind);
    ids.iter().filter(wanted).copied().collect()
}
