//! Load, decide, apply: the loop that every change goes through.

use super::{FlashView, fids, import};
use crate::base::{Codec, Errno, Fid, FileKind};
use crate::namespace::draft::Change;
use crate::namespace::{Need, Stop, key};
use crate::shard::counters::Event;
use crate::shard::{Shard, Target, Tx, data, writeback};
use crate::world::{Level, World};
use std::rc::Rc;

/// More rounds than any decision needs (the longest loads one ancestor after
/// another): past it, records are being pushed out as fast as they are loaded.
const ROUNDS_MAX: usize = 8192;

/// Runs `decision` until nothing it needs is missing. It sees the present
/// state each time and may apply what it decided: no await lies between.
pub async fn decide<W: World, T>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    decision: impl FnMut(&FlashView<'_, W>) -> Result<T, Stop>,
) -> Result<T, Errno> {
    decide_over(FlashView::new(shard, target), shard, target, decision).await
}

/// The same over a view of the caller's.
pub(super) async fn decide_over<W: World, T>(
    mut view: FlashView<'_, W>,
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    mut decision: impl FnMut(&FlashView<'_, W>) -> Result<T, Stop>,
) -> Result<T, Errno> {
    for _ in 0..ROUNDS_MAX {
        match decision(&view) {
            Ok(done) => return Ok(done),
            Err(Stop::Refused(errno)) => return Err(errno),
            Err(Stop::Need(Need::Name(dir, name))) => {
                // Boxed: an import decides, too.
                if !Box::pin(import::name(shard, target, dir, &name)).await? {
                    view.absent.push((dir, name));
                }
            }
            Err(Stop::Need(need)) => Box::pin(meet(shard, target, need)).await?,
        }
    }
    Err(Errno::EIO)
}

async fn meet<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    need: Need,
) -> Result<(), Errno> {
    match need {
        Need::Record(key) => shard.flash.get(&key).await.map(|_| ()),
        Need::Name(dir, name) => import::name(shard, target, dir, &name).await.map(|_| ()),
        Need::Listing(dir) => import::listing(shard, target, dir).await,
        Need::Xattrs(fid) => import::xattrs(shard, target, fid).await,
        Need::Extents(fid) => data::load(shard, fid).await,
        Need::Fids => fids::reserve(shard, target).await,
        Need::Room => data::make_room(shard).await,
        // The box's own decisions touch nothing that clients are shown.
        Need::Locks => Err(Errno::EIO),
        Need::Damaged(key) => {
            let line = format!("record {} is damaged", key.escape_ascii());
            shard.world.log(Level::Error, &line);
            shard.counters.on(Event::RecordDamaged);
            Err(Errno::EIO)
        }
    }
}

/// What the data path's refusals mean to a decision.
pub(in crate::shard) fn data_stop(errno: Errno, fid: Fid) -> Stop {
    match errno {
        Errno::EAGAIN => Stop::Need(Need::Extents(fid)),
        Errno::ENOSPC => Stop::Need(Need::Room),
        errno => Stop::Refused(errno),
    }
}

/// Turns a change into a transaction. The inodes of the change are as applied
/// afterwards: truncation alters them, too.
pub fn stage<W: World>(shard: &Shard<W>, target: &Target, change: &mut Change) -> Result<Tx, Stop> {
    let mut tx = Tx::default();
    if let Some((fid, size)) = change.truncated.take() {
        let inode = change.inodes.iter_mut().find(|(f, _)| *f == fid);
        let (_, inode) = inode.ok_or(Errno::EIO)?;
        // The core has set the times already, maybe to values of the caller's.
        let (ctime, mtime) = (inode.attr.ctime, inode.attr.mtime);
        data::truncate(shard, &mut tx, fid, inode, ctime, size).map_err(|e| data_stop(e, fid))?;
        (inode.attr.ctime, inode.attr.mtime) = (ctime, mtime);
    }
    let change = std::mem::replace(
        change,
        Change {
            inodes: change.inodes.clone(),
            born: change.born,
            ..Change::default()
        },
    );
    stage_into(shard, target, change, &mut tx)?;
    Ok(tx)
}

/// Adds a change without truncation to a transaction.
pub(in crate::shard) fn stage_into<W: World>(
    shard: &Shard<W>,
    target: &Target,
    change: Change,
    tx: &mut Tx,
) -> Result<(), Stop> {
    for fid in &change.gone {
        data::remove(shard, tx, *fid).map_err(|e| data_stop(e, *fid))?;
        tx.delete(key::dirty(*fid));
    }
    for (fid, inode) in &change.inodes {
        super::put_inode(tx, *fid, inode);
    }
    for (dir, cookie, slot) in change.slots {
        let value = slot.map(|dirent| dirent.to_vec());
        tx.puts.push((key::dirent(dir, cookie), value));
    }
    for (fid, name, value) in change.xattrs {
        tx.puts
            .push((key::xattr(fid, &name), value.map(|v| v.to_vec())));
    }
    for (fid, is_orphan) in change.orphans {
        tx.puts.push((key::orphan(fid), is_orphan.then(Vec::new)));
    }
    for (fid, identity) in change.forgotten {
        tx.delete(key::inode(fid));
        if let Some(identity) = identity {
            tx.delete(key::identity(target.id, &identity));
        }
    }
    for op in change.owed {
        writeback::owe(shard, tx, target.id, op);
    }
    for fid in change.dirty {
        writeback::note_dirty(shard, tx, fid);
    }
    Ok(())
}

/// What memory notes once a change is applied.
pub(in crate::shard) fn applied<W: World>(shard: &Shard<W>, target: &Target, change: &Change) {
    if let Some((fid, kind)) = change.born {
        fids::used(shard, target, fid);
        if kind == FileKind::Regular {
            data::born(shard, fid);
        }
    }
}

/// Decides and applies a change of the box's own.
pub(super) async fn own<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    mut decision: impl FnMut(&FlashView<'_, W>) -> Result<Option<Change>, Stop>,
) -> Result<(), Errno> {
    decide(shard, target, |view| {
        if let Some(mut change) = decision(view)? {
            let tx = stage(shard, target, &mut change)?;
            shard.apply(tx)?;
            applied(shard, target, &change);
        }
        Ok(())
    })
    .await
}
