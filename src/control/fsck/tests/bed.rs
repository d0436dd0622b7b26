//! Images of the flash of simulated boxes, and checks of them.

use super::Finding;
use crate::base::{Errno, FileKind, Name, ShardId};
use crate::control::cli::Failure;
use crate::control::fsck::check::Depth;
use crate::control::fsck::check_all;
use crate::control::fsck::medium::{Medium, Shared};
use crate::control::fsck::report::Report;
use crate::control::fsck::shard::View;
use crate::control::fsck::volume;
use crate::flash::Tx;
use crate::shard::Shard;
use crate::sim::cluster::{BOX, Cluster};
use crate::sim::model::{How, Id, Model, Op, ROOT};
use crate::sim::workload::Workload;
use crate::sim::{Crash, Faults, SimWorld};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

/// As large as a simulated box's flash.
pub const BYTES: usize = 64 << 20;

/// An image with bytes turned, and maybe cut short.
#[derive(Clone)]
pub struct Image {
    base: Rc<Vec<u8>>,
    turned: BTreeMap<u64, u8>,
    len: u64,
}

impl Image {
    pub fn new(bytes: Vec<u8>) -> Image {
        Image {
            len: bytes.len() as u64,
            base: Rc::new(bytes),
            turned: BTreeMap::new(),
        }
    }
    /// The byte at `at` is another.
    #[must_use]
    pub fn rot(mut self, at: u64) -> Image {
        *self.turned.entry(at).or_default() ^= 0x41;
        self
    }
    /// `bytes` stand at `at`.
    #[must_use]
    pub fn with(mut self, at: u64, bytes: &[u8]) -> Image {
        for (place, byte) in (at..).zip(bytes) {
            let old = self.base[usize::try_from(place).unwrap()];
            self.turned.insert(place, old ^ byte);
        }
        self
    }
    #[must_use]
    pub fn cut(self, len: u64) -> Image {
        Image { len, ..self }
    }
    pub fn shared(&self) -> Shared {
        Rc::new(self.clone())
    }
}

impl Medium for Image {
    fn bytes(&self) -> u64 {
        self.len
    }
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        let end = at.checked_add(out.len() as u64).ok_or(Errno::EIO)?;
        if end > self.len {
            return Err(Errno::EIO);
        }
        self.base.read(at, out)?;
        for (place, turn) in self.turned.range(at..end) {
            out[usize::try_from(place - at).unwrap()] ^= turn;
        }
        Ok(())
    }
}

/// What is found in an image.
pub fn checked(image: &Image) -> Result<Vec<Finding>, Failure> {
    let report = quiet();
    check_all(&image.shared(), Depth { reads_data: true }, &report)?;
    Ok(report.findings.take())
}

pub fn quiet() -> Report {
    Report::new(Box::new(std::io::sink()), false, false)
}

/// The one shard of an image.
pub fn view(image: &Image) -> View {
    let medium = image.shared();
    let volume = Rc::new(volume::open(&medium, &quiet()).unwrap().unwrap());
    View::open(&medium, &volume, ShardId(0), &quiet()).unwrap()
}

/// A client of a box that does operations on its model, too.
struct Bench {
    c: Cluster,
    model: RefCell<Model>,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        Bench {
            c: Cluster::with(seed, Faults::default()),
            model: RefCell::new(Model::new()),
        }
    }

    async fn step(&self, actor: &crate::sim::actor::Actor, op: &Op) -> Id {
        let (seen, fid) = actor.perform(op).await.unwrap();
        let mut model = self.model.borrow_mut();
        let id = model.next();
        let wanted = model.apply(op);
        assert_eq!(seen, wanted, "{op:?}");
        if let Some(fid) = fid {
            self.c.fids().borrow_mut().insert(id, fid);
        }
        id
    }
}

pub fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

fn create(dir: Id, called: &str, kind: FileKind) -> Op {
    let link = match kind {
        FileKind::Symlink => b"/etc/passwd".to_vec(),
        _ => Vec::new(),
    };
    Op::Create {
        dir,
        name: name(called),
        kind,
        mode: 0o640,
        link,
    }
}

/// The flash of a box that worked for a while and died.
pub fn lived(seed: u64, ops: usize, kind: Option<Crash>) -> Image {
    let bench = Bench::new(seed);
    bench.c.run(async {
        bench.c.start();
        let actor = bench.c.client("c0").await.unwrap();
        let own = create(ROOT, "own", FileKind::Directory);
        let own = bench.step(&actor, &own).await;
        let mut work = Workload::new(seed, own);
        for _ in 0..ops {
            let op = work.next(&bench.model.borrow());
            bench.step(&actor, &op).await;
            let random = bench.c.sim.random();
            if random.is_multiple_of(8) {
                let pause = Duration::from_micros((random >> 8) % 3_000_000);
                bench.c.sim.sleep(pause).await;
            }
            if random.is_multiple_of(40) {
                let shard = bench.c.shard().unwrap();
                shard.flash.checkpoint().await.unwrap();
            }
        }
        match kind {
            Some(kind) => bench.c.crash_as(kind),
            None => bench.c.stop().await,
        }
    });
    Image::new(bench.c.sim.disk(BOX).image(BYTES))
}

/// Bytes of the files of a scene.
pub const CLEAN: (usize, u64) = (100_000, 1);
pub const SMALL: (usize, u64) = (5_000, 2);
pub const DIRTY: (usize, u64) = (200_000, 3);

/// A box that died with a bit of everything: below `main/d`, the file `clean`
/// is carried; `small` (in the journal; renamed to `moved`, which is owed) and
/// `dirty` are not; `link` is new; the removal of `gone` is owed. Most names
/// are in tables.
pub fn scene() -> Image {
    static SCENE: OnceLock<Vec<u8>> = OnceLock::new();
    Image::new(SCENE.get_or_init(|| made(|_| Vec::new())).clone())
}

/// The same, after the box was made to apply what it never would.
pub fn scene_with(change: impl Fn(&Rc<Shard<SimWorld>>) -> Vec<Tx>) -> Image {
    Image::new(made(change))
}

fn made(change: impl Fn(&Rc<Shard<SimWorld>>) -> Vec<Tx>) -> Vec<u8> {
    let bench = Bench::new(4);
    bench.c.run(async {
        bench.c.start();
        let actor = bench.c.client("c0").await.unwrap();
        let dir = create(ROOT, "d", FileKind::Directory);
        let dir = bench.step(&actor, &dir).await;
        let write = |file, (len, fill)| Op::Write {
            file,
            offset: 0,
            len,
            fill,
            append: false,
        };
        for i in 0..200 {
            let many = create(dir, &format!("many.{i}"), FileKind::Regular);
            bench.step(&actor, &many).await;
        }
        let file = |called: &str| create(dir, called, FileKind::Regular);
        bench.step(&actor, &file("gone")).await;
        let clean = bench.step(&actor, &file("clean")).await;
        bench.step(&actor, &write(clean, CLEAN)).await;
        bench.step(&actor, &Op::Fsync(clean)).await;
        bench.c.drain().await.unwrap();
        let flash = bench.c.shard().unwrap().flash.clone();
        flash.checkpoint().await.unwrap();
        flash.checkpoint().await.unwrap();
        // A group before theirs.
        bench
            .step(
                &actor,
                &Op::Chmod {
                    file: clean,
                    mode: 0o600,
                },
            )
            .await;
        flash.commit(flash.applied()).await.unwrap();
        let small = bench.step(&actor, &file("small")).await;
        bench.step(&actor, &write(small, SMALL)).await;
        let dirty = bench.step(&actor, &file("dirty")).await;
        bench.step(&actor, &write(dirty, DIRTY)).await;
        bench
            .step(&actor, &create(dir, "link", FileKind::Symlink))
            .await;
        let moved = Op::Rename {
            from: dir,
            name: name("small"),
            to: dir,
            to_name: name("moved"),
            how: How::Replace,
        };
        bench.step(&actor, &moved).await;
        let gone = Op::Unlink {
            dir,
            name: name("gone"),
            is_dir: false,
        };
        bench.step(&actor, &gone).await;
        bench.step(&actor, &Op::Fsync(small)).await;
        bench.step(&actor, &Op::Fsync(dirty)).await;
        // A group behind theirs, so that rot in them is told from a torn tail.
        bench
            .step(
                &actor,
                &Op::Chmod {
                    file: dir,
                    mode: 0o750,
                },
            )
            .await;
        bench.step(&actor, &Op::Fsync(dirty)).await;
        let shard = bench.c.shard().unwrap();
        // So that it can be looked at without awaiting.
        let all = flash.scan(vec![0]..vec![u8::MAX], usize::MAX).await;
        drop(all.unwrap());
        for tx in change(&shard) {
            let lsn = shard.apply(tx).unwrap();
            flash.commit(lsn).await.unwrap();
        }
        flash.commit(flash.applied()).await.unwrap();
        drop(shard);
        bench.c.crash_as(Crash::Process);
    });
    bench.c.sim.disk(BOX).image(BYTES)
}
