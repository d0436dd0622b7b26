//! Histories at the front, carried to the simulated origin through crashes and
//! power cuts: in the end both trees are equal, and no cut shows a child
//! without its parent.

use super::*;
use crate::base::codec::Bytes;
use crate::base::{BoxId, FileKind, Name, SetAttr, ShardId, Slice};
use crate::conf::{Authority, Disconnected, Prefetch, TargetConf, Writeback as Policy};
use crate::flash::{Flash, device};
use crate::namespace::create::{self, Created, New};
use crate::namespace::{Caller, Change, Ctx, Inode, Stop, setattr, unlink, xattr};
use crate::namespace::{link as links, rename as renames};
use crate::shard::Target;
use crate::shard::data;
use crate::shard::meta::{self, FlashView, decide, decided, stage};
use crate::sim::origin::Origin;
use crate::sim::sparse::Sparse;
use crate::sim::tree::{Entry, Tree};
use crate::sim::{Crash, Faults, Sim, SimWorld};
use crate::store::FormatOptions;
use std::cell::OnceCell;
use std::time::Duration;

const TARGET: TargetId = TargetId(1);
const FLASH: u64 = 32 << 20;

type Box = Rc<Shard<SimWorld>>;

fn conf(lag: Duration) -> TargetConf {
    TargetConf {
        name: "main".to_owned(),
        origin: "/sim".into(),
        authority: Authority::Exclusive,
        writeback: Policy::Lag(lag),
        writeback_bytes: 1 << 30,
        disconnected: Disconnected::ReadWrite,
        disconnected_max: Duration::from_secs(3600),
        origin_threads: 4,
        prefetch: Prefetch::None,
    }
}

async fn open(world: SimWorld, lag: Duration, format: bool) -> Box {
    if format {
        let options = FormatOptions::new(FLASH, 1, BoxId(7));
        device::format(&world, &options).await.expect("formatted");
    }
    let mut volume = device::load(&world, FLASH).await.expect("a flash");
    device::claim(&world, &mut volume).await.expect("claimed");
    let opened = Flash::open(world.clone(), ShardId(0), &volume).await;
    let (flash, _) = opened.expect("opened");
    let targets = vec![(TARGET, conf(lag))];
    let shard = Shard::start(world, ShardId(0), flash, 8 << 20, targets).await;
    let shard = shard.expect("started");
    start(&shard).await.expect("started");
    while !shard.targets.borrow().contains_key(&TARGET) {
        shard.world.sleep(Duration::from_millis(10)).await;
    }
    shard
}

/// The front, as a client would use it: what returned is on flash.
struct Front<'a>(&'a Box);

impl Front<'_> {
    fn target(&self) -> Rc<Target> {
        Rc::clone(&self.0.targets.borrow()[&TARGET])
    }
    fn root(&self) -> Fid {
        self.target().root
    }

    async fn apply(
        &self,
        decision: impl Fn(&FlashView<'_, SimWorld>, Ctx<'_>) -> Result<Option<Change>, Stop>,
    ) -> Result<Option<Fid>, Errno> {
        let target = self.target();
        let bounds = target.bounds();
        let born = decide(self.0, &target, |view| {
            let ctx = Ctx {
                caller: &Caller::ROOT,
                bounds: &bounds,
                now: self.0.world.wall(),
            };
            let Some(mut change) = decision(view, ctx)? else {
                return Ok(None);
            };
            let tx = stage(self.0, &target, &mut change)?;
            self.0.apply(tx)?;
            decided(self.0, &target, &change);
            Ok(change.born.map(|(fid, _)| fid))
        })
        .await?;
        self.0.flash.commit(self.0.applied.get()).await?;
        Ok(born)
    }

    async fn create(&self, dir: Fid, name: &Name, kind: FileKind) -> Result<Fid, Errno> {
        let link: &[u8] = if kind == FileKind::Symlink {
            b"to"
        } else {
            b""
        };
        let new = New {
            parent: dir,
            name: Some(name),
            kind,
            mode: 0o755,
            umask: 0,
            rdev: 0,
            link,
            exclusive: true,
        };
        let created = self.apply(|view, ctx| match create::create(view, ctx, &new)? {
            Created::New(_, change) => Ok(Some(*change)),
            Created::There(_) => Err(Errno::EEXIST.into()),
        });
        created.await?.ok_or(Errno::EIO)
    }
    async fn unlink(&self, dir: Fid, name: &Name, is_dir: bool) -> Result<(), Errno> {
        self.apply(|view, ctx| unlink::unlink(view, ctx, dir, name, is_dir).map(Some))
            .await
            .map(drop)
    }
    async fn link(&self, fid: Fid, dir: Fid, name: &Name) -> Result<(), Errno> {
        self.apply(|view, ctx| links::link(view, ctx, fid, dir, name).map(Some))
            .await
            .map(drop)
    }
    async fn rename(
        &self,
        from: (Fid, &Name),
        to: (Fid, &Name),
        exchange: bool,
    ) -> Result<(), Errno> {
        let mv = renames::Move {
            from: from.0,
            from_name: from.1,
            to: to.0,
            to_name: to.1,
            flags: if exchange { libc::RENAME_EXCHANGE } else { 0 },
        };
        self.apply(|view, ctx| renames::rename(view, ctx, &mv))
            .await
            .map(drop)
    }
    async fn set(&self, fid: Fid, set: SetAttr) -> Result<(), Errno> {
        let held = setattr::Held { writer: false };
        self.apply(|view, ctx| setattr::setattr(view, ctx, fid, &set, held).map(Some))
            .await
            .map(drop)
    }
    async fn xattr(&self, fid: Fid, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let set = xattr::Set {
            name,
            value,
            flags: 0,
            clear_sgid: false,
        };
        self.apply(|view, ctx| xattr::set(view, ctx, fid, set).map(Some))
            .await
            .map(drop)
    }
    async fn write(&self, fid: Fid, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let slice = Slice::from(bytes.to_vec());
        loop {
            let mut inode = self.inode(fid).await;
            let mut tx = Tx::default();
            match data::write(self.0, &mut tx, fid, &mut inode, offset, &slice) {
                Ok(()) => {}
                Err(Errno::EAGAIN) => {
                    data::load(self.0, fid).await?;
                    continue;
                }
                Err(e) => return Err(e),
            }
            note_dirty(self.0, &mut tx, fid);
            meta::put_inode(&mut tx, fid, &inode);
            self.0.apply(tx)?;
            return self.0.flash.commit(self.0.applied.get()).await;
        }
    }
    async fn inode(&self, fid: Fid) -> Inode {
        meta::inode(self.0, fid).await.expect("an inode")
    }
}

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

/// What the front's tree should be: directories hold indices of nodes.
#[derive(Default)]
struct Model {
    nodes: Vec<Node>,
}

struct Node {
    fid: OnceCell<Fid>,
    kind: FileKind,
    entries: BTreeMap<Name, usize>,
    bytes: Sparse,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    fn add(&mut self, kind: FileKind) -> usize {
        self.nodes.push(Node {
            fid: OnceCell::new(),
            kind,
            entries: BTreeMap::new(),
            bytes: Sparse::default(),
            xattrs: BTreeMap::new(),
        });
        self.nodes.len() - 1
    }
    fn fid(&self, i: usize) -> Fid {
        *self.nodes[i].fid.get().expect("known")
    }
    /// Paths of everything that is reachable.
    fn paths(&self) -> Vec<(Vec<u8>, usize)> {
        let mut out = vec![(Vec::new(), 0)];
        let mut at = 0;
        while at < out.len() {
            let (path, i) = out[at].clone();
            for (name, child) in &self.nodes[i].entries {
                let mut path = path.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name.as_bytes());
                out.push((path, *child));
            }
            at += 1;
        }
        out
    }
    fn dirs(&self) -> Vec<usize> {
        let is_dir = |i: &usize| self.nodes[*i].kind == FileKind::Directory;
        self.paths()
            .into_iter()
            .map(|(_, i)| i)
            .filter(is_dir)
            .collect()
    }

    async fn tree(&self, front: &Front<'_>) -> Tree {
        let mut tree = Tree::default();
        for (path, i) in self.paths() {
            let node = &self.nodes[i];
            let inode = front.inode(self.fid(i)).await;
            let attr = inode.attr;
            let entry = Entry {
                kind: attr.kind,
                mode: attr.mode,
                uid: attr.uid,
                gid: attr.gid,
                rdev: attr.rdev,
                bytes: node.bytes.clone(),
                link: inode.link.map(|Bytes(link)| link),
                xattrs: node.xattrs.clone(),
                mtime: attr.mtime,
                same: i as u64,
            };
            tree.0.insert(path, entry);
        }
        tree
    }

    /// One random operation, at the front and, if that took it, here.
    async fn step(&mut self, sim: &Sim, front: &Front<'_>) {
        let below = |n: usize| (sim.random() % n as u64) as usize;
        let names = ["a", "b", "c", "d"];
        let dirs = self.dirs();
        let (dir, to) = (dirs[below(dirs.len())], dirs[below(dirs.len())]);
        let (n, m) = (name(names[below(4)]), name(names[below(4)]));
        let there = self.nodes[dir].entries.get(&n).copied();
        let (dfid, tfid) = (self.fid(dir), self.fid(to));
        match below(16) {
            0..=3 => {
                let kinds = [FileKind::Regular, FileKind::Directory, FileKind::Symlink];
                let kind = kinds[below(3)];
                if let Ok(fid) = front.create(dfid, &n, kind).await {
                    let new = self.add(kind);
                    let _ = self.nodes[new].fid.set(fid);
                    self.nodes[dir].entries.insert(n, new);
                }
            }
            4 | 5 => {
                let is_dir = there.is_some_and(|i| self.nodes[i].kind == FileKind::Directory);
                if front.unlink(dfid, &n, is_dir).await.is_ok() {
                    self.nodes[dir].entries.remove(&n);
                }
            }
            6..=9 => {
                let exchange = below(4) == 0;
                let moved = front.rename((dfid, &n), (tfid, &m), exchange).await;
                if moved.is_ok() && (dir, &n) != (to, &m) {
                    let i = there.expect("it was there");
                    let victim = self.nodes[to].entries.get(&m).copied();
                    if victim == Some(i) {
                        return; // Two links of one file: nothing happens.
                    }
                    self.nodes[dir].entries.remove(&n);
                    self.nodes[to].entries.insert(m, i);
                    if exchange {
                        self.nodes[dir]
                            .entries
                            .insert(n, victim.expect("exchanged"));
                    }
                }
            }
            10 => {
                if let Some(i) = there
                    && front.link(self.fid(i), tfid, &m).await.is_ok()
                {
                    self.nodes[to].entries.insert(m, i);
                }
            }
            11..=13 => {
                let Some(i) = there.filter(|i| self.nodes[*i].kind == FileKind::Regular) else {
                    return;
                };
                if below(4) == 0 {
                    let size = below(60_000) as u64;
                    let set = SetAttr {
                        size: Some(size),
                        ..SetAttr::default()
                    };
                    front.set(self.fid(i), set).await.expect("truncated");
                    self.nodes[i].bytes.truncate(size);
                } else {
                    let bytes = vec![sim.random() as u8; 1 + below(30_000)];
                    let offset = below(40_000) as u64;
                    front
                        .write(self.fid(i), offset, &bytes)
                        .await
                        .expect("written");
                    self.nodes[i].bytes.write(offset, &bytes);
                }
            }
            14 => {
                if let Some(i) = there.filter(|i| self.nodes[*i].kind != FileKind::Symlink) {
                    let set = SetAttr {
                        mode: Some(0o700 + below(64) as u32),
                        uid: Some(below(3) as u32),
                        ..SetAttr::default()
                    };
                    front.set(self.fid(i), set).await.expect("set");
                }
            }
            _ => {
                let Some(i) = there.filter(|i| self.nodes[*i].kind != FileKind::Symlink) else {
                    return;
                };
                let value = vec![sim.random() as u8; below(9)];
                front
                    .xattr(self.fid(i), b"user.x", &value)
                    .await
                    .expect("set");
                self.nodes[i].xattrs.insert(b"user.x".to_vec(), value);
            }
        }
    }
}

fn without_orphans(mut tree: Tree) -> Tree {
    tree.0.retain(|path, _| !path.starts_with(b".forebay-"));
    tree
}

fn equal(sim: &Sim, origin: &Origin, wanted: &Tree) {
    let differences = without_orphans(origin.tree()).differences(wanted, true);
    assert!(
        differences.is_empty(),
        "seed {}: origin / front\n{}\n{}",
        sim.seed(),
        differences.join("\n"),
        sim.log().join("\n")
    );
}

/// Random operations, crashes of box and origin between them, then a flush.
fn history(seed: u64, handles: bool, faults: Faults) {
    let sim = Sim::with(seed, faults);
    let origin = sim.origin(TARGET);
    origin.limits(|limits| limits.handles = handles);
    let mut model = Model::default();
    model.add(FileKind::Directory);
    let lag = Duration::from_millis(sim.random() % 3000);
    for life in 0..4 {
        let world = sim.world("box");
        let (model, sim_) = (&mut model, &sim);
        sim.run(async move {
            let shard = open(world, lag, life == 0).await;
            let front = Front(&shard);
            let _ = model.nodes[0].fid.set(front.root());
            for _ in 0..40 {
                model.step(sim_, &front).await;
                if sim_.random().is_multiple_of(3) {
                    let pause = Duration::from_millis(sim_.random() % 700);
                    shard.world.sleep(pause).await;
                }
            }
        });
        sim.crash_as("box", Crash::Power);
        origin.power_cut(&sim);
    }
    sim.faults(|f| (f.origin_error_one_in, f.origin_hang_one_in) = (0, 0));
    let world = sim.world("box");
    let wanted = sim.run(async {
        let shard = open(world, lag, false).await;
        let front = Front(&shard);
        let wanted = model.tree(&front).await;
        let flushed = flush(&shard, TARGET, None).await;
        assert_eq!(
            flushed,
            Ok(()),
            "seed {seed} {:?}\n{}",
            progress(&shard, TARGET),
            sim.log().join("\n")
        );
        let left = progress(&shard, TARGET).expect("an engine");
        assert_eq!((left.owed_records, left.owed_unread), (0, 0));
        wanted
    });
    equal(&sim, &origin, &wanted);
}

#[test]
fn histories_reach_the_origin_through_crashes() {
    for seed in 0..20 {
        history(seed, true, Faults::default());
    }
}

#[test]
fn histories_reach_an_origin_without_handles() {
    for seed in 1000..1012 {
        history(seed, false, Faults::default());
    }
}

#[test]
fn histories_reach_an_origin_that_fails_now_and_then() {
    for seed in 2000..2010 {
        let faults = Faults {
            origin_error_one_in: 20,
            origin_hang_one_in: 200,
            ..Faults::default()
        };
        history(seed, true, faults);
    }
}
