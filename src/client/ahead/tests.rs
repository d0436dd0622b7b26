//! What a client decides over its tree, against the box's own records in maps:
//! random histories, of which some are asked of the box, while locks come and
//! go and answers come late. What the client answers is what the box does, what
//! the tree shows is what there is, and of a lock that ends nothing stays.

use super::decide::{Asked, decide};
use super::tree::{Found, Tree, TreeView};
use super::{changed, exposes, on_changed, root_of};
use crate::base::codec::Bytes;
use crate::base::{Attr, Errno, Fid, FileKind, Name, OpenId, SetAttr, Time};
use crate::namespace::create::{self, Created, New};
use crate::namespace::draft::{Change, stamp};
use crate::namespace::record::flag;
use crate::namespace::tests::{Fake, ROOT};
use crate::namespace::{Caller, Ctx, Stop, View, access, link, rename, setattr, unlink, xattr};
use crate::wire::op::{self, Empty, Entry, Intent};
use crate::wire::{Reply, Request};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One step of a history. Files and directories are told by their numbers
/// among all that were ever made.
#[derive(Clone, Debug)]
enum Step {
    Do(Deed),
    /// The same, but the box is asked whatever the client knows.
    Ask(Deed),
    /// The client gets the file to itself; `all`: and learns all its names.
    Lock {
        file: usize,
        all: bool,
    },
    Unlock {
        file: usize,
    },
    /// The box's oldest answer comes.
    Answer,
}

#[derive(Clone, Debug)]
enum Deed {
    Create {
        dir: usize,
        name: u8,
        kind: u8,
    },
    Unlink {
        dir: usize,
        name: u8,
        is_dir: bool,
    },
    Link {
        file: usize,
        dir: usize,
        name: u8,
    },
    Rename {
        from: (usize, u8),
        to: (usize, u8),
        flags: u8,
    },
    Chmod {
        file: usize,
        mode: u32,
    },
    Truncate {
        file: usize,
        size: u64,
    },
    Write {
        file: usize,
        offset: u64,
        len: u64,
    },
    SetXattr {
        file: usize,
        name: u8,
    },
    RemoveXattr {
        file: usize,
        name: u8,
    },
}

/// What an answer shows of a file.
type Shown = Option<(Fid, Attr)>;

/// The client, and the box that it is to be like.
#[derive(Default)]
struct Both {
    tree: Tree,
    real: Fake,
    /// All files that ever were.
    files: Vec<Fid>,
    roots: BTreeSet<Fid>,
    /// Answers on their way: what was touched, and what they show.
    answers: VecDeque<(Vec<Fid>, Shown)>,
    /// Blocks of each file, by their numbers.
    blocks: BTreeMap<Fid, BTreeSet<u64>>,
    decided: usize,
}

impl Both {
    fn new() -> Both {
        Both {
            files: vec![ROOT],
            ..Both::default()
        }
    }

    fn file(&self, n: usize) -> Fid {
        self.files[n % self.files.len()]
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Do(deed) => self.deed(deed, true),
            Step::Ask(deed) => self.deed(deed, false),
            Step::Lock { file, all } => self.lock(self.file(*file), *all),
            Step::Unlock { file } => self.unlock(self.file(*file)),
            Step::Answer => self.answer(),
        }
        self.agree();
    }

    /// Locks are granted when the box has done all that was answered.
    fn lock(&mut self, fid: Fid, all: bool) {
        while !self.answers.is_empty() {
            self.answer();
        }
        let is_there = |inode: &crate::namespace::Inode| inode.attr.nlink > 0;
        let inode = self.real.inodes.get(&fid).filter(|inode| is_there(inode));
        let Some(inode) = inode.filter(|_| !self.tree.has(fid)) else {
            return;
        };
        let is_dir = inode.attr.kind == FileKind::Directory;
        let entries = (is_dir && all).then(|| {
            let slots = self.real.slots.range((fid, 0)..=(fid, u64::MAX));
            let live = slots.filter(|(_, d)| !d.fid.is_none());
            live.map(|(_, dirent)| dirent.clone()).collect()
        });
        let is_plain = inode.flags & flag::XATTRS == 0;
        let found = Found { entries, is_plain };
        self.tree.add_root(fid, &inode.attr.clone(), found);
        self.roots.insert(fid);
    }

    /// Nothing of it stays but what rests on other locks.
    fn unlock(&mut self, fid: Fid) {
        if !self.roots.remove(&fid) {
            return;
        }
        let mut rested: Vec<Fid> = self.files.clone();
        rested.retain(|file| self.tree.root_of(*file) == Some(fid));
        let told = self.tree.remove_root(fid);
        assert!(rested.iter().all(|file| told.contains(file)), "{rested:?}");
        for file in rested {
            assert!(!self.tree.has(file) && self.tree.attr(file).is_none());
            for name in names() {
                assert_eq!(self.tree.find(file, &name), None);
            }
        }
        if self.roots.is_empty() {
            assert_eq!(self.tree.len(), 0);
        }
    }

    fn answer(&mut self) {
        let Some((touched, shown)) = self.answers.pop_front() else {
            return;
        };
        self.tree.on_answered(&touched);
        if let Some((fid, attr)) = shown {
            self.tree.on_shown(fid, &attr);
        }
    }

    fn deed(&mut self, deed: &Deed, may_decide: bool) {
        let (request, len) = self.request(deed);
        // What leaves the tree is given up first.
        for root in exposes(&self.tree, &request) {
            self.unlock(root);
        }
        let caller = caller();
        let now = Time {
            sec: self.real.now,
            nsec: 0,
        };
        let touched = changed(&request);
        if may_decide && touched.iter().all(|fid| self.tree.has(*fid)) {
            let is_absent = |_: Fid, _: &Name| false;
            let view = TreeView {
                tree: &self.tree,
                fresh: self.real.fresh().ok(),
                is_absent: &is_absent,
            };
            let bounds = self.real.bounds.clone();
            let asked = Asked {
                ctx: Ctx {
                    caller: &caller,
                    bounds: &bounds,
                    now,
                },
                umask: UMASK,
                flags: 0,
                len,
                is_writer: false,
            };
            let decided = decide(&view, &asked, &request).ok();
            let decided =
                decided.and_then(|d| Some((root_of(&self.tree, &request, &d.change)?, d)));
            if let Some((root, decided)) = decided {
                let real = self.real(&decided.request, len).map(|(reply, _)| reply);
                let real = real.unwrap_or_else(|e| panic!("{request:?} is refused: {e}"));
                assert_eq!(plain(&decided.reply), plain(&real), "{request:?}");
                let touched: Vec<Fid> = decided.change.inodes.iter().map(|(f, _)| *f).collect();
                self.tree.apply(decided.change, root);
                self.answers.push_back((touched, shown(&real, &request)));
                self.decided += 1;
                return;
            }
        }
        self.ask(&request, len);
    }

    /// The box does it, when it has done all that was answered before.
    fn ask(&mut self, request: &Request, len: u64) {
        while !self.answers.is_empty() {
            self.answer();
        }
        let Ok((reply, touched)) = self.real(request, len) else {
            return;
        };
        let unsure = on_changed(&mut self.tree, request, &reply, !touched.is_empty());
        for fid in touched {
            let attr = self.real.inodes[&fid].attr.clone();
            self.tree.on_shown(fid, &attr);
        }
        if let Some(root) = unsure {
            self.unlock(root);
        }
    }

    /// The box's answer, and the files that it changed.
    fn real(&mut self, request: &Request, len: u64) -> Result<(Reply, Vec<Fid>), Errno> {
        let decided = decision(&self.real, request, len);
        self.real.now += 1;
        let (fid, change) = decided.map_err(|stop| match stop {
            Stop::Refused(errno) => errno,
            Stop::Need(need) => panic!("{need:?}: the box knows everything"),
        })?;
        let touched: Vec<Fid> = change.inodes.iter().map(|(fid, _)| *fid).collect();
        self.files.extend(change.born.map(|(fid, _)| fid));
        self.real.apply(change);
        self.count_blocks(request, len);
        let attr = |fid: Fid| self.real.inodes[&fid].attr.clone();
        let reply = match (request, fid) {
            (Request::Write(op), _) => Reply::Written(op::Written {
                written: u32::try_from(len).expect("little"),
                offset: op.offset,
                attr: attr(op.fid),
            }),
            (_, Some(fid)) => entry(fid, attr(fid)),
            _ => Reply::Done(Empty {}),
        };
        Ok((reply, touched))
    }

    /// As the box's data path does: a block is there once it was written to.
    fn count_blocks(&mut self, request: &Request, len: u64) {
        let (fid, size) = match request {
            Request::Write(op) => {
                let blocks = self.blocks.entry(op.fid).or_default();
                blocks.extend(op.offset / BLOCK..(op.offset + len).div_ceil(BLOCK));
                (op.fid, u64::MAX)
            }
            Request::Setattr(op) if op.set.size.is_some() => {
                (op.fid, op.set.size.unwrap_or_default())
            }
            _ => return,
        };
        let blocks = self.blocks.entry(fid).or_default();
        blocks.retain(|block| *block < size.div_ceil(BLOCK));
        let inode = self.real.inodes.get_mut(&fid).expect("it was changed");
        inode.attr.blocks = 8 * blocks.len() as u64;
    }

    /// What the tree shows is what there is, once the box has done it.
    fn agree(&self) {
        for fid in self.files.iter().filter(|fid| self.tree.has(**fid)) {
            let real = &self.real.inodes[fid];
            let own = self.tree.attr(*fid).expect("it is there");
            assert_eq!(same(own), same(&real.attr), "{fid:?}");
            for name in names() {
                let known = self.tree.find(*fid, &name);
                let there = self.real.entries(*fid).get(&name).copied();
                assert!(known.is_none_or(|known| known == there), "{fid:?} {name}");
            }
            self.agree_on_xattrs(*fid);
        }
    }

    /// What the client says of extended attributes is what the box would say.
    fn agree_on_xattrs(&self, fid: Fid) {
        let is_absent = |_: Fid, _: &Name| false;
        let own = TreeView {
            tree: &self.tree,
            fresh: None,
            is_absent: &is_absent,
        };
        let caller = caller();
        let ctx = self.real.ctx(&caller);
        let user = |n: u8| format!("user.{n}").into_bytes();
        for name in [user(0), user(1), xattr::CAPABILITY.to_vec()] {
            match xattr::get(&own, ctx, fid, &name) {
                Err(Stop::Need(_)) => {}
                told => assert_eq!(told, xattr::get(&self.real, ctx, fid, &name)),
            }
        }
        match xattr::list(&own, ctx, fid) {
            Err(Stop::Need(_)) => {}
            told => assert_eq!(told, xattr::list(&self.real, ctx, fid)),
        }
    }

    fn request(&self, deed: &Deed) -> (Request, u64) {
        let user = |n: u8| Bytes(format!("user.{n}").into_bytes());
        let request = match *deed {
            Deed::Create { dir, name, kind } => {
                let kinds = [FileKind::Regular, FileKind::Directory, FileKind::Symlink];
                let kind = kinds[usize::from(kind)];
                let link = if kind == FileKind::Symlink { "to" } else { "" };
                Request::Create(op::Create {
                    parent: self.file(dir),
                    name: Some(named(name)),
                    kind,
                    mode: 0o777,
                    rdev: 0,
                    link: Bytes(link.as_bytes().to_vec()),
                    exclusive: true,
                    open: OpenId(0),
                    flags: 0,
                    fid: Fid::NONE,
                    intent: Intent::default(),
                })
            }
            Deed::Unlink { dir, name, is_dir } => Request::Unlink(op::Unlink {
                parent: self.file(dir),
                name: named(name),
                dir: is_dir,
            }),
            Deed::Link { file, dir, name } => Request::Link(op::Link {
                fid: self.file(file),
                parent: self.file(dir),
                name: named(name),
            }),
            Deed::Rename { from, to, flags } => Request::Rename(op::Rename {
                from: self.file(from.0),
                from_name: named(from.1),
                to: self.file(to.0),
                to_name: named(to.1),
                flags: u32::from(flags),
            }),
            Deed::Chmod { file, mode } => self.setattr(file, |set| set.mode = Some(mode)),
            Deed::Truncate { file, size } => self.setattr(file, |set| set.size = Some(size)),
            Deed::Write { file, offset, .. } => Request::Write(op::Write {
                fid: self.file(file),
                open: OpenId(0),
                offset,
                append: false,
            }),
            Deed::SetXattr { file, name } => Request::XattrSet(op::XattrSet {
                fid: self.file(file),
                name: user(name),
                value: Bytes(vec![name]),
                flags: 0,
                clear_sgid: false,
            }),
            Deed::RemoveXattr { file, name } => Request::XattrRemove(op::XattrName {
                fid: self.file(file),
                name: user(name),
            }),
        };
        let len = match deed {
            Deed::Write { len, .. } => *len,
            _ => 0,
        };
        (request, len)
    }

    fn setattr(&self, file: usize, with: impl FnOnce(&mut SetAttr)) -> Request {
        let mut set = SetAttr::default();
        with(&mut set);
        Request::Setattr(op::Setattr {
            fid: self.file(file),
            set,
        })
    }
}

/// What the box does, and of which file its answer tells.
fn decision(real: &Fake, request: &Request, len: u64) -> Result<(Option<Fid>, Change), Stop> {
    let caller = caller();
    let ctx = real.ctx(&caller);
    Ok(match request {
        Request::Create(op) => {
            let new = New {
                parent: op.parent,
                name: op.name.as_ref(),
                kind: op.kind,
                mode: op.mode,
                umask: UMASK.into(),
                rdev: 0,
                link: &op.link.0,
                exclusive: true,
            };
            match create::create(real, ctx, &new)? {
                Created::New(fid, change) => (Some(fid), *change),
                Created::There(_) => return Err(Errno::EEXIST.into()),
            }
        }
        Request::Unlink(op) => {
            let change = unlink::unlink(real, ctx, op.parent, &op.name, op.dir)?;
            (None, change)
        }
        Request::Link(op) => {
            let change = link::link(real, ctx, op.fid, op.parent, &op.name)?;
            (Some(op.fid), change)
        }
        Request::Rename(op) => {
            let mv = rename::Move {
                from: op.from,
                from_name: &op.from_name,
                to: op.to,
                to_name: &op.to_name,
                flags: op.flags,
            };
            (None, rename::rename(real, ctx, &mv)?.unwrap_or_default())
        }
        Request::Setattr(op) => {
            let held = setattr::Held::default();
            (
                Some(op.fid),
                setattr::setattr(real, ctx, op.fid, &op.set, held)?,
            )
        }
        Request::XattrSet(op) => {
            let set = xattr::Set {
                name: &op.name.0,
                value: &op.value.0,
                flags: op.flags,
                clear_sgid: false,
            };
            (None, xattr::set(real, ctx, op.fid, set)?)
        }
        Request::XattrRemove(op) => (None, xattr::remove(real, ctx, op.fid, &op.name.0)?),
        Request::Write(op) => {
            let mut inode = real.inode(op.fid)?.ok_or(Errno::ESTALE)?;
            if inode.attr.kind != FileKind::Regular {
                return Err(Errno::EINVAL.into());
            }
            access::check(real, ctx.bounds, &caller, op.fid, &inode, access::WRITE)?;
            let mut change = Change::default();
            if len > 0 {
                inode.attr.mtime = stamp(&mut inode, ctx.now);
                inode.attr.size = inode.attr.size.max(op.offset + len);
                change.inodes.push((op.fid, inode));
            }
            (None, change)
        }
        other => panic!("{other:?}"),
    })
}

/// What an answer shows, as the client takes it in.
fn shown(reply: &Reply, request: &Request) -> Option<(Fid, Attr)> {
    match (reply, request) {
        (Reply::Entry(entry), _) => Some((entry.fid, entry.attr.clone())),
        (Reply::Written(done), Request::Write(op)) => Some((op.fid, done.attr.clone())),
        _ => None,
    }
}

fn entry(fid: Fid, attr: Attr) -> Reply {
    Reply::Entry(Entry {
        fid,
        attr,
        created: false,
        layout: Bytes::default(),
        lock: crate::base::LockId(0),
        lock_mode: 0,
        lock_bits: 0,
    })
}

/// An answer but for what it says of versions, which are the box's alone.
fn plain(reply: &Reply) -> (Option<Fid>, Option<Attr>) {
    match reply {
        Reply::Entry(entry) => (Some(entry.fid), Some(same(&entry.attr))),
        Reply::Written(done) => (None, Some(same(&done.attr))),
        _ => (None, None),
    }
}

/// Holes may be filled within a file: then only the box can count its blocks.
fn same(attr: &Attr) -> Attr {
    Attr {
        version: 0,
        blocks: 0,
        ..attr.clone()
    }
}

fn caller() -> Caller {
    Caller::ROOT.clone()
}

fn named(n: u8) -> Name {
    Name::new(&[b'a' + n]).expect("a name")
}

fn names() -> impl Iterator<Item = Name> {
    (0..NAMES).map(named)
}

const NAMES: u8 = 4;
const UMASK: u16 = 0o022;
const BLOCK: u64 = 4096;

fn deeds() -> impl Strategy<Value = Deed> {
    let at = || (0..12usize, 0..NAMES);
    let flags = prop_oneof![4 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8)];
    prop_oneof![
        6 => (at(), 0..3u8).prop_map(|((dir, name), kind)| Deed::Create { dir, name, kind }),
        3 => (at(), any::<bool>())
            .prop_map(|((dir, name), is_dir)| Deed::Unlink { dir, name, is_dir }),
        2 => (0..12usize, at()).prop_map(|(file, (dir, name))| Deed::Link { file, dir, name }),
        4 => (at(), at(), flags).prop_map(|(from, to, flags)| Deed::Rename { from, to, flags }),
        2 => (0..12usize, 0..0o1000u32).prop_map(|(file, mode)| Deed::Chmod { file, mode }),
        1 => (0..12usize, 0..20_000u64).prop_map(|(file, size)| Deed::Truncate { file, size }),
        3 => (0..12usize, 0..9000u64, 0..5000u64)
            .prop_map(|(file, offset, len)| Deed::Write { file, offset, len }),
        1 => (0..12usize, 0..2u8).prop_map(|(file, name)| Deed::SetXattr { file, name }),
        1 => (0..12usize, 0..2u8).prop_map(|(file, name)| Deed::RemoveXattr { file, name }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        12 => deeds().prop_map(Step::Do),
        2 => deeds().prop_map(Step::Ask),
        4 => (0..12usize, prop::bool::weighted(0.8)).prop_map(|(file, all)| Step::Lock { file, all }),
        1 => (0..12usize).prop_map(|file| Step::Unlock { file }),
        3 => Just(Step::Answer),
    ];
    proptest::collection::vec(one, 20..100)
}

thread_local! {
    /// Decisions of all histories: they are what it is about.
    static DECIDED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(HISTORIES) })]
    fn histories_agree(steps in steps()) {
        let mut both = Both::new();
        for step in &steps {
            both.step(step);
        }
        DECIDED.with(|all| all.set(all.get() + both.decided));
    }
}

const HISTORIES: u32 = 400;

#[test]
fn what_is_decided_ahead_is_what_the_box_does_l4() {
    histories_agree();
    let decided = DECIDED.with(std::cell::Cell::get);
    assert!(decided > 3 * HISTORIES as usize, "{decided}");
}
