//! Random histories against a file system of maps. The origin under it shows
//! its first state for ever, so a name that comes back by mistake is seen; and
//! names collide in most cookies, so broken chains are, too.

use super::super::create::{self, Created, New};
use super::super::{link, rename, unlink};
use super::{Fake, ROOT, inode, name};
use crate::base::{Errno, Fid, FileKind, Name};
use crate::namespace::Caller;
use crate::namespace::record::flag;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The oracle: a directory is a map, a file a count of names.
#[derive(Default)]
struct Naive {
    dirs: BTreeMap<Fid, BTreeMap<Name, Fid>>,
    /// Of directories, removed ones included: they still lie below it.
    parents: BTreeMap<Fid, Fid>,
    files: BTreeMap<Fid, u32>,
}

impl Naive {
    fn find(&self, dir: Fid, name: &Name) -> Result<Option<Fid>, Errno> {
        match self.dirs.get(&dir) {
            Some(entries) => Ok(entries.get(name).copied()),
            None if self.files.contains_key(&dir) => Err(Errno::ENOTDIR),
            None => Ok(None),
        }
    }
    /// ENOENT for a removed directory: it takes no new names.
    fn entries(&mut self, dir: Fid) -> Result<&mut BTreeMap<Name, Fid>, Errno> {
        self.dirs.get_mut(&dir).ok_or(Errno::ENOENT)
    }
    fn is_dir(&self, fid: Fid) -> bool {
        self.dirs.contains_key(&fid)
    }
    fn below(&self, above: Fid, mut fid: Fid) -> bool {
        loop {
            if fid == above {
                return true;
            }
            match self.parents.get(&fid) {
                Some(parent) => fid = *parent,
                None => return false,
            }
        }
    }
    fn create(&mut self, dir: Fid, name: &Name, kind: FileKind, fid: Fid) -> Result<(), Errno> {
        if self.find(dir, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        self.entries(dir)?.insert(name.clone(), fid);
        if kind == FileKind::Directory {
            self.dirs.insert(fid, BTreeMap::new());
            self.parents.insert(fid, dir);
        } else {
            self.files.insert(fid, 1);
        }
        Ok(())
    }
    fn drop_name(&mut self, fid: Fid) {
        if self.dirs.remove(&fid).is_none() {
            *self.files.get_mut(&fid).expect("a file") -= 1;
        }
    }
    fn unlink(&mut self, dir: Fid, name: &Name, rmdir: bool) -> Result<(), Errno> {
        let fid = self.find(dir, name)?.ok_or(Errno::ENOENT)?;
        match (rmdir, self.is_dir(fid)) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !self.dirs[&fid].is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.entries(dir)?.remove(name);
        self.drop_name(fid);
        Ok(())
    }
    fn link(&mut self, fid: Fid, dir: Fid, name: &Name) -> Result<(), Errno> {
        if self.find(dir, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        self.entries(dir)?;
        if !self.files.contains_key(&fid) {
            return Err(Errno::EPERM);
        }
        if self.files[&fid] == 0 {
            return Err(Errno::ENOENT);
        }
        self.entries(dir)?.insert(name.clone(), fid);
        *self.files.get_mut(&fid).expect("a file") += 1;
        Ok(())
    }
    fn rename(&mut self, mv: &rename::Move<'_>) -> Result<(), Errno> {
        let (from, to) = (mv.from, mv.to);
        let exchange = mv.flags == rename::EXCHANGE;
        let source = self.find(from, mv.from_name)?;
        let victim = self.find(to, mv.to_name)?;
        let source = source.ok_or(Errno::ENOENT)?;
        match (mv.flags, victim) {
            (rename::NOREPLACE, Some(_)) => return Err(Errno::EEXIST),
            (rename::EXCHANGE, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if from != to && self.is_dir(source) && self.below(source, to) {
            return Err(Errno::EINVAL);
        }
        if from != to && victim.is_some_and(|v| self.is_dir(v) && self.below(v, from)) {
            return Err(if exchange {
                Errno::EINVAL
            } else {
                Errno::ENOTEMPTY
            });
        }
        if victim == Some(source) {
            return Ok(());
        }
        self.entries(to)?;
        if let (Some(victim), false) = (victim, exchange) {
            match (self.is_dir(source), self.is_dir(victim)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.dirs[&victim].is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
            self.drop_name(victim);
        }
        self.entries(from)?.remove(mv.from_name);
        self.entries(to)?.insert(mv.to_name.clone(), source);
        self.adopt(source, to);
        if let (Some(victim), true) = (victim, exchange) {
            self.entries(from)?.insert(mv.from_name.clone(), victim);
            self.adopt(victim, from);
        }
        Ok(())
    }
    fn adopt(&mut self, fid: Fid, parent: Fid) {
        if self.is_dir(fid) {
            self.parents.insert(fid, parent);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize, u8, bool),
    Link(usize, usize, u8),
    Unlink(usize, u8, bool),
    Rename(usize, u8, usize, u8, u32),
}

fn ops() -> impl Strategy<Value = Op> {
    let dir = 0usize..6;
    let name = 0u8..7;
    prop_oneof![
        3 => (dir.clone(), name.clone(), any::<bool>()).prop_map(|(d, n, k)| Op::Create(d, n, k)),
        1 => (0usize..8, dir.clone(), name.clone()).prop_map(|(f, d, n)| Op::Link(f, d, n)),
        2 => (dir.clone(), name.clone(), any::<bool>()).prop_map(|(d, n, k)| Op::Unlink(d, n, k)),
        3 => (dir.clone(), name.clone(), dir, name, 0u32..3)
            .prop_map(|(d, n, e, m, f)| Op::Rename(d, n, e, m, f)),
    ]
}

struct Pair {
    fake: Fake,
    naive: Naive,
    /// Directories and files to pick from, live or not.
    dirs: Vec<Fid>,
    files: Vec<Fid>,
}

/// Both with an origin tree of two directories with files and hard links.
fn pair(cookies: u64) -> Pair {
    let mut fake = Fake {
        cookies,
        ..Fake::default()
    };
    fake.inodes.get_mut(&ROOT).expect("root").flags &= !flag::COMPLETE;
    let mut naive = Naive::default();
    naive.dirs.insert(ROOT, BTreeMap::new());
    let (mut dirs, mut files) = (vec![ROOT], Vec::new());
    let mut add = |fake: &mut Fake, dir: Fid, n: u8, kind| {
        let fid = Fid::new(1, fake.next);
        fake.next += 1;
        let mut made = inode(kind, 0o755, 0, 0);
        made.parent = dir;
        fake.inodes.insert(fid, made);
        fake.origin.insert((dir, nth(n)), fid);
        naive.create(dir, &nth(n), kind, fid).expect("a new name");
        if kind == FileKind::Directory {
            fake.inodes.get_mut(&dir).expect("dir").attr.nlink += 1;
            dirs.push(fid);
        } else {
            files.push(fid);
        }
        fid
    };
    let a = add(&mut fake, ROOT, 0, FileKind::Directory);
    let b = add(&mut fake, a, 1, FileKind::Directory);
    for (dir, n) in [(ROOT, 2), (a, 2), (a, 3), (b, 0)] {
        let _ = add(&mut fake, dir, n, FileKind::Regular);
    }
    Pair {
        fake,
        naive,
        dirs,
        files,
    }
}

fn nth(n: u8) -> Name {
    name(&format!("n{n}"))
}

impl Pair {
    fn step(&mut self, op: &Op) {
        let caller = Caller::ROOT;
        let (dirs, files) = (self.dirs.clone(), self.files.clone());
        let dir = |i: usize| dirs[i % dirs.len()];
        let (ours, theirs) = match *op {
            Op::Create(d, n, is_dir) => {
                let kind = if is_dir {
                    FileKind::Directory
                } else {
                    FileKind::Regular
                };
                let fid = Fid::new(1, self.fake.next);
                let name = nth(n);
                let new = New {
                    parent: dir(d),
                    name: Some(&name),
                    kind,
                    mode: 0o755,
                    umask: 0,
                    rdev: 0,
                    link: b"",
                    exclusive: true,
                };
                let ours = self
                    .fake
                    .run(|v| match create::create(v, v.ctx(&caller), &new)? {
                        Created::New(_, change) => Ok(((), Some(*change))),
                        Created::There(_) => panic!("exclusive"),
                    });
                if ours.is_ok() {
                    if is_dir {
                        &mut self.dirs
                    } else {
                        &mut self.files
                    }
                    .push(fid);
                }
                (ours, self.naive.create(dir(d), &name, kind, fid))
            }
            Op::Link(f, d, n) => {
                let (fid, dir, name) = (files[f % files.len()], dir(d), nth(n));
                let ours = self
                    .fake
                    .run(|v| Ok(((), Some(link::link(v, v.ctx(&caller), fid, dir, &name)?))));
                (ours, self.naive.link(fid, dir, &name))
            }
            Op::Unlink(d, n, rmdir) => {
                let (dir, name) = (dir(d), nth(n));
                let ours = self.fake.run(|v| {
                    Ok((
                        (),
                        Some(unlink::unlink(v, v.ctx(&caller), dir, &name, rmdir)?),
                    ))
                });
                (ours, self.naive.unlink(dir, &name, rmdir))
            }
            Op::Rename(d, n, e, m, flags) => {
                let (from_name, to_name) = (nth(n), nth(m));
                let mv = rename::Move {
                    from: dir(d),
                    from_name: &from_name,
                    to: dir(e),
                    to_name: &to_name,
                    flags,
                };
                let ours = self
                    .fake
                    .run(|v| Ok(((), rename::rename(v, v.ctx(&caller), &mv)?)));
                (ours, self.naive.rename(&mv))
            }
        };
        assert_eq!(ours, theirs, "{op:?}");
    }

    /// Both show the same tree, with the same counts.
    fn compare(&mut self) {
        let dirs: Vec<_> = self.naive.dirs.keys().copied().collect();
        for dir in dirs {
            let before = self.fake.inodes[&dir].clone();
            if before.flags & flag::COMPLETE == 0 {
                self.fake.list(dir);
            }
            let entries = &self.naive.dirs[&dir];
            assert_eq!(&self.fake.entries(dir), entries, "names of {dir}");
            let inode = &self.fake.inodes[&dir];
            assert_eq!(inode.entries, entries.len() as u64, "entries of {dir}");
            let subdirs = entries.values().filter(|f| self.naive.is_dir(**f)).count();
            assert_eq!(inode.attr.nlink as usize, 2 + subdirs, "links of {dir}");
            if let Some(parent) = self.naive.parents.get(&dir) {
                assert_eq!(inode.parent, *parent, "parent of {dir}");
            }
        }
        for (fid, links) in &self.naive.files {
            assert_eq!(self.fake.inodes[fid].attr.nlink, *links, "links of {fid}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn histories_agree_with_a_naive_file_system(
        history in prop::collection::vec(ops(), 1..60),
        cookies in prop_oneof![Just(1u64), Just(2), Just(1 << 40)],
    ) {
        let mut pair = pair(cookies);
        for op in &history {
            pair.step(op);
        }
        pair.compare();
    }
}
