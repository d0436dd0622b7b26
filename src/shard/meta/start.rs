//! Starting a shard: its targets, their roots, and the origins behind them.

use super::{fids, import};
use crate::base::codec::Bytes;
use crate::base::{Codec, Errno, Fid, FileKind, Identity, Locator, ShardId, TargetId};
use crate::conf::{TargetConf, Writeback};
use crate::flash::{Flash, Tx};
use crate::namespace::{Bounds, key};
use crate::origin::{Limits, OriginOp, OriginReply, Place};
use crate::record;
use crate::shard::{Shard, Target, contact, data, writeback};
use crate::world::race::within;
use crate::world::{Level, World};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

record! {
    /// What the flash knows of a target, under `setting("target.N")`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TargetRecord {
        pub name: String,
        /// Key of the name hash: cookies on flash are made with it.
        pub hash_key: Bytes,
        /// As last probed. Its `root` is the identity that the target stands for.
        pub limits: Limits,
    }
}

/// Why a shard does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Another file system is at the target's origin than the flash caches.
    OtherRoot { target: String },
    /// The flash failed.
    Flash { target: String, errno: Errno },
    /// The record of the target cannot be read.
    Damaged { target: String },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::OtherRoot { target } => write!(
                f,
                "target {target}: its origin is not the file system that the cache was made \
                 from; mount the right one, or give the target another name or a new cache"
            ),
            StartError::Flash { target, errno } => {
                write!(f, "target {target}: the cache cannot be used: {errno}")
            }
            StartError::Damaged { target } => {
                write!(
                    f,
                    "target {target}: its record in the cache is damaged; run forebay-fsck"
                )
            }
        }
    }
}

impl std::error::Error for StartError {}

/// How long a start waits for the origins of targets that the flash knows:
/// they are served from the flash, connected or not.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// Between two attempts to reach an origin.
const PROBE_RETRY: Duration = Duration::from_secs(2);

impl<W: World> Shard<W> {
    /// A shard over its flash. Targets known to the flash are served at once;
    /// others as soon as their origin answers, which is tried for ever.
    pub async fn start(
        world: W,
        id: ShardId,
        flash: Flash<W>,
        memory_bytes: u64,
        targets: Vec<(TargetId, TargetConf)>,
    ) -> Result<Rc<Shard<W>>, StartError> {
        let shard = Rc::new(Shard::new(world, id, flash, memory_bytes));
        for (target, conf) in targets {
            attach(&shard, target, conf).await?;
        }
        data::start(&shard);
        Ok(shard)
    }
}

/// Takes a target into service.
async fn attach<W: World>(
    shard: &Rc<Shard<W>>,
    id: TargetId,
    conf: TargetConf,
) -> Result<(), StartError> {
    let target = conf.name.clone();
    let fault = |errno| StartError::Flash {
        target: target.clone(),
        errno,
    };
    let known = shard.flash.get(&setting(id)).await.map_err(fault)?;
    let Some(bytes) = known else {
        shard.starting.borrow_mut().insert(id, conf.clone());
        let (s, c) = (Rc::clone(shard), conf.clone());
        if within(&shard.world, PROBE_WAIT, meet(shard, id, &conf)).await != Some(Ok(())) {
            shard
                .world
                .spawn(async move { keep_meeting(&s, id, &c).await });
        }
        return Ok(());
    };
    let damaged = || StartError::Damaged {
        target: target.clone(),
    };
    let record = TargetRecord::from_slice(&bytes).map_err(|_| damaged())?;
    serve(shard, id, conf, &record).ok_or_else(damaged)?;
    match within(&shard.world, PROBE_WAIT, confirm(shard, id)).await {
        Some(Err(Errno::ESTALE)) => {
            shard.targets.borrow_mut().remove(&id);
            Err(StartError::OtherRoot { target })
        }
        Some(Ok(())) => Ok(()),
        None | Some(Err(_)) => {
            contact::missing(shard, id);
            Ok(())
        }
    }
}

fn setting(id: TargetId) -> Vec<u8> {
    key::setting(&format!("target.{id}"))
}

fn serve<W: World>(
    shard: &Rc<Shard<W>>,
    id: TargetId,
    conf: TargetConf,
    record: &TargetRecord,
) -> Option<()> {
    let target = Target {
        id,
        conf: RefCell::new(conf),
        root: fids::root(id),
        limits: RefCell::new(Some(record.limits.clone())),
        hash_key: record.hash_key.0.as_slice().try_into().ok()?,
    };
    shard.starting.borrow_mut().remove(&id);
    shard.targets.borrow_mut().insert(id, Rc::new(target));
    writeback::start_target(shard, id);
    Some(())
}

async fn probe<W: World>(shard: &Shard<W>, id: TargetId) -> Result<Limits, Errno> {
    match origin(shard, id, OriginOp::Probe).await? {
        OriginReply::Probed(limits) => Ok(*limits),
        _ => Err(Errno::EIO),
    }
}

async fn origin<W: World>(
    shard: &Shard<W>,
    id: TargetId,
    op: OriginOp,
) -> Result<OriginReply, Errno> {
    match contact::call(shard, id, op).await {
        OriginReply::Failed(errno) => Err(errno),
        reply => Ok(reply),
    }
}

/// Else the first refused change would be the first that anybody hears of it.
fn tell_if_read_only<W: World>(shard: &Shard<W>, name: &str, limits: &Limits) {
    if limits.read_only {
        let line = format!(
            "target {name}: its origin is mounted read-only, or this user may not make files \
             at its root: clients can change nothing there (EROFS)"
        );
        shard.world.log(Level::Warn, &line);
    }
}

/// First meeting with an origin: makes the target's record and its root.
async fn meet<W: World>(
    shard: &Rc<Shard<W>>,
    id: TargetId,
    conf: &TargetConf,
) -> Result<(), Errno> {
    let limits = probe(shard, id).await?;
    let place = Place {
        identity: Some(limits.root.clone()),
        path: Vec::new(),
    };
    let found = match origin(shard, id, OriginOp::Stat { place }).await? {
        OriginReply::Found(found) if found.attr.kind == FileKind::Directory => found,
        OriginReply::Found(_) => return Err(Errno::ENOTDIR),
        _ => return Err(Errno::EIO),
    };
    let locator = Locator {
        parent: Fid::NONE,
        name: None,
        identity: Some(limits.root.clone()),
    };
    let random = [shard.world.random(), shard.world.random()];
    let record = TargetRecord {
        name: conf.name.clone(),
        hash_key: Bytes(random.map(u64::to_le_bytes).concat()),
        limits,
    };
    let mut tx = Tx::default();
    let (root, inode) = (fids::root(id), import::imported(&found, locator));
    super::put_inode(&mut tx, root, &inode);
    tx.put(key::identity(id, &record.limits.root), root.to_vec());
    tx.put(setting(id), record.to_vec());
    let lsn = shard.apply(tx)?;
    shard.flash.commit(lsn).await?;
    tell_if_read_only(shard, &conf.name, &record.limits);
    serve(shard, id, conf.clone(), &record).ok_or(Errno::EIO)
}

async fn keep_meeting<W: World>(shard: &Rc<Shard<W>>, id: TargetId, conf: &TargetConf) {
    let mut last = None;
    loop {
        match meet(shard, id, conf).await {
            Ok(()) => return,
            Err(errno) if last != Some(errno) => {
                let line = format!("target {}: origin not reached: {errno}", conf.name);
                shard.world.log(Level::Warn, &line);
                last = Some(errno);
            }
            Err(_) => {}
        }
        shard.world.sleep(PROBE_RETRY).await;
    }
}

/// Probes the origin of a served target and takes its limits over. ESTALE if
/// its root is another than before: nothing cached may be mixed with that.
pub async fn confirm<W: World>(shard: &Rc<Shard<W>>, id: TargetId) -> Result<(), Errno> {
    let limits = probe(shard, id).await?;
    let Some(target) = shard.targets.borrow().get(&id).cloned() else {
        return Ok(());
    };
    let before = target.limits.borrow().clone();
    if before.is_some_and(|b| !is_same_root(&b.root, &limits.root)) {
        return Err(Errno::ESTALE);
    }
    let record = TargetRecord {
        name: target.conf.borrow().name.clone(),
        hash_key: Bytes(target.hash_key.to_vec()),
        limits: limits.clone(),
    };
    let mut tx = Tx::default();
    tx.put(setting(id), record.to_vec());
    shard.apply(tx)?;
    tell_if_read_only(shard, &record.name, &record.limits);
    *target.limits.borrow_mut() = Some(limits);
    Ok(())
}

/// Device numbers change over reboots; the handle, or inode and birth, do not.
fn is_same_root(a: &Identity, b: &Identity) -> bool {
    if a.handle.0.is_empty() || b.handle.0.is_empty() {
        return a.ino == b.ino && a.birth == b.birth;
    }
    a.handle == b.handle && a.handle_type == b.handle_type
}

impl Target {
    /// What the origin can hold, as last probed, within what the conf allows.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let off = self.conf.borrow().writeback == Writeback::Off;
        let limits = self.limits.borrow();
        let Some(limits) = limits.as_ref() else {
            return Bounds {
                read_only: true,
                ..Bounds::WIDEST
            };
        };
        Bounds {
            read_only: off || limits.read_only,
            name_max: (limits.name_max as usize).min(Bounds::WIDEST.name_max),
            link_max: limits.link_max.min(Bounds::WIDEST.link_max),
            file_size_max: limits.file_size_max.min(Bounds::WIDEST.file_size_max),
            owners: limits.owners,
            special_files: limits.special_files,
            symlinks: limits.symlinks,
            hard_links: limits.hard_links,
            xattrs: limits.xattrs,
            acls: limits.acls && limits.xattrs,
        }
    }
}
