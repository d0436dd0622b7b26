//! The data path over a simulated origin and a flash in memory, against a
//! vector of bytes.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::base::{Attr, BoxId, Buf, FileKind, Locator, Name, ShardId, SnapEpoch, TargetId};
use crate::conf::{Authority, Disconnected, Prefetch, TargetConf, Writeback};
use crate::flash::{Flash as Store, Options, device};
use crate::namespace::record::flag;
use crate::namespace::{Inode, Observed};
use crate::origin::{OriginCall, OriginOp, OriginReply, Place};
use crate::shard::{Target, meta};
use crate::sim::{Crash, Sim, SimWorld};
use crate::store::{FormatOptions, Volume};
use crate::world::World;
use proptest::prelude::*;
use std::time::Duration;

mod random;
mod scenes;
mod scrub;

const TARGET: TargetId = TargetId(1);
const SEGMENT: u32 = 1 << 20;
const FID: Fid = Fid::new(7, 5);

/// One file of one target, and what it should hold.
struct Bench {
    sim: Sim,
    world: SimWorld,
    shard: Rc<Shard<SimWorld>>,
    volume: Volume,
    segments: u64,
    flushing: Cell<bool>,
}

fn conf(prefetch: Prefetch) -> TargetConf {
    TargetConf {
        name: "main".into(),
        origin: "/".into(),
        authority: Authority::Exclusive,
        writeback: Writeback::Lag(Duration::from_secs(15)),
        writeback_bytes: 1 << 30,
        disconnected: Disconnected::ReadWrite,
        disconnected_max: Duration::from_secs(60),
        origin_threads: 4,
        prefetch,
    }
}

fn bytes_of(segments: u64) -> u64 {
    (segments + 4) * u64::from(SEGMENT)
}

async fn format(world: &SimWorld, segments: u64) -> Volume {
    let options = FormatOptions {
        segment_bytes: Some(SEGMENT),
        ..FormatOptions::new(bytes_of(segments), 1, BoxId(5))
    };
    device::format(world, &options).await.unwrap()
}

async fn open(world: &SimWorld, segments: u64) -> Store<SimWorld> {
    let options = Options {
        memtable_bytes: 256 << 10,
        journal_bytes: 2 << 20,
        cache_bytes: 256 << 10,
        queue_bytes: 4 << 20,
    };
    let mut volume = device::load(world, bytes_of(segments)).await.unwrap();
    device::claim(world, &mut volume).await.unwrap();
    let (flash, _) = Store::open_with(world.clone(), ShardId(0), &volume, options)
        .await
        .unwrap();
    flash
}

fn name() -> Name {
    Name::new(b"f").unwrap()
}

fn place() -> Place {
    Place {
        identity: None,
        path: vec![name()],
    }
}

fn attr(size: u64) -> Attr {
    Attr {
        size,
        blocks: size.div_ceil(4096) * 8,
        ..Attr::plain(5)
    }
}

impl Bench {
    /// A box whose origin has one file with `bytes`, nothing of it cached yet.
    fn new(seed: u64, bytes: &[u8], segments: u64, memory: u64) -> Bench {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        let target = Target {
            id: TARGET,
            conf: RefCell::new(conf(Prefetch::Sequential)),
            root: Fid::new(7, 1),
            limits: RefCell::default(),
            hash_key: [0; 16],
        };
        let volume = sim.run(format(&world, segments));
        let flash = sim.run(open(&world, segments));
        let shard = Shard::new(world.clone(), ShardId(0), flash, memory);
        let target = Rc::new(target);
        shard.targets.borrow_mut().insert(TARGET, target);
        let bench = Bench {
            sim,
            world,
            shard: Rc::new(shard),
            volume,
            segments,
            flushing: Cell::new(false),
        };
        let made = bench.at_origin(OriginOp::Create {
            dir: Place {
                identity: None,
                path: Vec::new(),
            },
            name: name(),
            kind: FileKind::Regular,
            attr: attr(0),
            link: None,
        });
        let OriginReply::Found(made) = made else {
            panic!("{made:?}");
        };
        bench.write_at_origin(0, bytes);
        let size = bytes.len() as u64;
        let inode = Inode {
            attr: attr(size),
            flags: 0,
            parent: Fid::new(7, 1),
            entries: 0,
            locator: Locator {
                parent: Fid::new(7, 1),
                name: Some(name()),
                identity: Some(made.identity),
            },
            observed: Observed::default(),
            data_version: 1,
            snap_epoch: SnapEpoch(0),
            layout: crate::base::codec::Bytes::default(),
            link: None,
            origin_size: size,
        };
        let mut tx = Tx::default();
        meta::put_inode(&mut tx, FID, &inode);
        // The way to the file at the origin begins with its root.
        meta::put_inode(&mut tx, Fid::new(7, 1), &inode);
        bench.shard.apply(tx).unwrap();
        bench
    }

    fn at_origin(&self, op: OriginOp) -> OriginReply {
        self.sim.origin(TARGET).apply(&self.sim, op)
    }

    fn write_at_origin(&self, offset: u64, bytes: &[u8]) {
        let data = vec![Slice::from(bytes.to_vec())];
        let file = place();
        self.at_origin(OriginOp::Write { file, offset, data });
    }

    fn origin_bytes(&self) -> Vec<u8> {
        let (file, buf) = (place(), Buf::alone(4 << 20));
        let op = OriginOp::Read {
            file,
            offset: 0,
            buf,
        };
        match self.at_origin(op) {
            OriginReply::Read { result, buf } => buf[..result.unwrap()].to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// The inode as it is. Its page may have to be loaded.
    async fn inode(&self) -> Inode {
        meta::inode(&self.shard, FID).await.unwrap()
    }

    async fn read(&self, offset: u64, len: u32) -> Vec<u8> {
        let slices = read(&self.shard, FID, offset, len).await.unwrap();
        gather(&slices).to_vec()
    }

    async fn write(&self, offset: u64, bytes: &[u8]) {
        let bytes = Slice::from(bytes.to_vec());
        self.mutate(|tx, inode| {
            write(
                &self.shard,
                tx,
                FID,
                inode,
                self.shard.world.wall(),
                offset,
                &bytes,
            )
        })
        .await
        .unwrap();
    }

    /// Load, decide, apply; again if something lacked.
    async fn mutate<T>(
        &self,
        op: impl Fn(&mut Tx, &mut Inode) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        loop {
            self.shard.flash.throttle().await;
            let mut inode = self.inode().await;
            load(&self.shard, FID).await?;
            if inode != self.inode().await {
                continue;
            }
            let mut tx = Tx::default();
            match op(&mut tx, &mut inode) {
                Err(Errno::EAGAIN) => {}
                Err(Errno::ENOSPC) => {
                    drop(tx);
                    make_room(&self.shard).await?;
                }
                Err(errno) => return Err(errno),
                Ok(value) => {
                    meta::put_inode(&mut tx, FID, &inode);
                    self.shard.apply(tx)?;
                    return Ok(value);
                }
            }
        }
    }

    async fn ask(&self, op: OriginOp) -> OriginReply {
        let call = OriginCall { target: TARGET, op };
        let reply = self.world.origin(call).await;
        assert!(!matches!(reply, OriginReply::Failed(_)), "{reply:?}");
        reply
    }

    /// One pass of write-back, as the order in [`Flush`] says; stops after
    /// `most` parts. True if nothing is owed any more.
    async fn flush(&self, most: usize) -> bool {
        let flush = dirty_parts(&self.shard, FID).await.unwrap();
        let OriginReply::Found(found) = self.ask(OriginOp::Stat { place: place() }).await else {
            panic!("the file is at the origin");
        };
        let (file, size) = (place(), flush.cut);
        if found.attr.size > size {
            self.ask(OriginOp::Truncate { file, size }).await;
        }
        let done = flush.parts.len().min(most);
        for part in &flush.parts[..done] {
            let (file, offset, len) = (place(), part.offset, part.len);
            if part.hole {
                self.ask(OriginOp::Punch { file, offset, len }).await;
                continue;
            }
            match read_dirty(&self.shard, &flush, part).await {
                Ok(data) => drop(self.ask(OriginOp::Write { file, offset, data }).await),
                Err(Errno::EAGAIN) => return false,
                Err(errno) => panic!("{errno}"),
            }
        }
        if done == flush.parts.len() {
            let (file, size) = (place(), flush.size);
            self.ask(OriginOp::Truncate { file, size }).await;
        }
        self.ask(OriginOp::Fsync { file: place() }).await;
        let mark =
            |tx: &mut Tx, inode: &mut Inode| mark_clean(&self.shard, tx, inode, &flush, done);
        self.mutate(mark).await.unwrap()
    }

    /// The process dies and starts again on the same flash, committed or not.
    fn restart(&mut self, memory: u64) {
        self.sim.crash_as("box", Crash::Process);
        self.world = self.sim.world("box");
        let flash = self.sim.run(open(&self.world, self.segments));
        let shard = Shard::new(self.world.clone(), ShardId(0), flash, memory);
        *shard.targets.borrow_mut() = self.shard.targets.take();
        self.shard = Rc::new(shard);
    }

    async fn commit(&self) {
        let lsn = self.shard.flash.applied();
        self.shard.flash.commit(lsn).await.unwrap();
    }

    /// Nothing of the file in memory: all comes from the index again.
    fn forget(&self) {
        let state = &self.shard.data.0;
        if let Some(file) = self.shard.data.loaded(FID) {
            state.forget(&file);
        }
    }
}

/// Bytes of which no two blocks look the same.
fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}
