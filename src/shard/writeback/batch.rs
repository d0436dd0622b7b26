//! A batch: ready records applied side by side, the directories they touched
//! synced once each, and all of it noted in a few transactions.

use super::apply::{self, Applied};
use super::engine::Engine;
use super::settle::finds_by_handle;
use super::{Shard, carry, locate, lost, origin, settle, tasks};
use crate::base::{Errno, Fid};
use crate::namespace::record::flag;
use crate::namespace::{Owed, OwedOp};
use crate::origin::OriginOp;
use crate::shard::Target;
use crate::world::{Level, World};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A record that the origin has, less the fsync of its directories.
pub struct Done {
    pub seq: u64,
    pub record: Rc<Owed>,
    pub applied: Applied,
}

pub async fn run<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    target: &Rc<Target>,
    records: Vec<(u64, Rc<Owed>)>,
) {
    // N3: what the origin is shown must be past undoing here.
    if let Err(e) = shard.flash.commit(shard.applied.get()).await {
        fail_all(shard, engine, &records, e);
        return;
    }
    let width = target.conf.borrow().origin_threads.max(1) * 2;
    let moves = !finds_by_handle(target) && records.iter().any(|(_, r)| moves_directory(&r.op));
    if moves {
        engine.moves.set(engine.moves.get() + 1);
    }
    engine.batches.set(engine.batches.get() + 1);
    let outages = engine.contact.outages();
    *engine.applying.borrow_mut() = records.iter().map(|(seq, _)| *seq).collect();
    let jobs = records
        .into_iter()
        .map(|(seq, record)| one(Rc::clone(shard), Rc::clone(engine), seq, record));
    let ends = tasks::together(&shard.world, width, jobs.collect()).await;
    let done: Vec<Done> = ends.into_iter().flatten().collect();
    let done = sync(shard, engine, width, done).await;
    let doubts = engine.doubts.get();
    if engine.contact.outages() != outages && doubts < DOUBTS_MAX {
        // The origin was away meanwhile. Had its host lost power, what it had
        // answered for before would be gone, and the fsync would not tell.
        engine.doubts.set(doubts + 1);
        for done in done {
            engine.record_doubted(done.seq);
        }
    } else {
        engine.doubts.set(0);
        settle_all(shard, engine, target, done).await;
    }
    engine.applying.borrow_mut().clear();
    if moves {
        engine.moves.set(engine.moves.get() + 1);
    }
    engine.batches.set(engine.batches.get() + 1);
    engine.progressed.notify();
    engine.wake();
}

/// Times that a batch is applied again in a row: an origin that is always as
/// slow as one that is away must not hold its backlog up for ever.
const DOUBTS_MAX: u32 = 4;

/// Applies one record. `None`: it failed, or waits for its file's data.
async fn one<W: World>(
    shard: Rc<Shard<W>>,
    engine: Rc<Engine>,
    seq: u64,
    record: Rc<Owed>,
) -> Option<Done> {
    match publishes(&shard, &engine, seq, &record.op).await {
        Ok(None) => {}
        Ok(Some(fid)) => {
            publish(&shard, &engine, seq, &record, fid);
            return None;
        }
        Err(e) => {
            engine.record_failed(&shard, seq, &record.op, e);
            return None;
        }
    }
    let result = apply::record(&shard, &engine, seq, &record.op).await;
    engine
        .contact
        .on_end(shard.world.now(), result.as_ref().err().copied());
    match result {
        Ok(applied) => Some(Done {
            seq,
            record,
            applied,
        }),
        // It lies below the directory that is moving: again when that is noted.
        Err(Errno::ESTALE | Errno::ENOENT)
            if engine.is_moving() && !moves_directory(&record.op) =>
        {
            engine.record_doubted(seq);
            None
        }
        Err(e) => {
            missed(&shard, &engine, seq, &record.op, e).await;
            None
        }
    }
}

/// The record failed: kept for another time, at once if what was missing at the
/// origin is there again.
async fn missed<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    seq: u64,
    op: &OwedOp,
    errno: Errno,
) {
    let mended = match errno {
        Errno::ESTALE | Errno::ENOENT => lost::mend_for(shard, engine, seq, op).await,
        _ => Ok(false),
    };
    match mended {
        Ok(true) => engine.record_doubted(seq),
        Ok(false) => engine.record_failed(shard, seq, op, errno),
        Err(e) => engine.record_failed(shard, seq, op, e),
    }
}

fn moves_directory(op: &OwedOp) -> bool {
    matches!(op, OwedOp::Rename(o) if o.dir || o.exchange)
}

/// The file whose data must be at the origin before the record may give it a
/// new name there: else a torn file becomes visible under it (O8).
async fn publishes<W: World>(
    shard: &Shard<W>,
    engine: &Engine,
    seq: u64,
    op: &OwedOp,
) -> Result<Option<Fid>, Errno> {
    let fid = match op {
        OwedOp::Rename(o) if !o.dir => o.fid,
        OwedOp::Link(o) => o.fid,
        _ => return Ok(None),
    };
    if engine.published.borrow().contains(&seq) {
        return Ok(None);
    }
    let inode = locate::inode(shard, fid).await?;
    let owes = inode.is_some_and(|inode| {
        inode.flags & flag::DATA_OWED != 0
            && inode.flags & (flag::UNBORN | flag::ORPHAN) == 0
            && inode.attr.nlink > 0
    });
    Ok(owes.then_some(fid))
}

/// Starts a pass over the file; the record is tried again when it ends.
fn publish<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    seq: u64,
    record: &Rc<Owed>,
    fid: Fid,
) {
    engine.publishing.borrow_mut().insert(seq);
    let (shard_, engine_) = (Rc::clone(shard), Rc::clone(engine));
    let record = Rc::clone(record);
    shard.world.spawn(async move {
        let result = carry::fresh(&shard_, &engine_, fid).await;
        engine_.publishing.borrow_mut().remove(&seq);
        match result {
            Ok(()) => {
                engine_.published.borrow_mut().insert(seq);
            }
            Err(e) => engine_.record_failed(&shard_, seq, &record.op, e),
        }
        engine_.progressed.notify();
        engine_.wake();
    });
}

/// Syncs each directory once (O1). Records whose directory cannot be synced
/// are not done: they are applied again, which their identities make harmless.
async fn sync<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    width: usize,
    done: Vec<Done>,
) -> Vec<Done> {
    let dirs: BTreeSet<Fid> = done.iter().flat_map(|d| d.applied.dirs.clone()).collect();
    let dirs: Vec<Fid> = dirs.into_iter().collect();
    let jobs = dirs.iter().map(|dir| {
        let (shard, engine, dir) = (Rc::clone(shard), Rc::clone(engine), *dir);
        async move {
            let file = locate::directory(&shard, &engine, dir).await?;
            origin::done(&shard, engine.target, OriginOp::Fsync { file }).await
        }
    });
    let ends = tasks::together(&shard.world, width, jobs.collect()).await;
    let failed: BTreeMap<Fid, Errno> = dirs
        .into_iter()
        .zip(ends)
        .filter_map(|(dir, end)| end.err().map(|e| (dir, e)))
        .collect();
    let mut kept = Vec::with_capacity(done.len());
    for done in done {
        let failure = done.applied.dirs.iter().find_map(|dir| failed.get(dir));
        match failure.copied() {
            Some(Errno::ESTALE | Errno::ENOENT) if engine.is_moving() => {
                engine.record_doubted(done.seq);
            }
            Some(e) => engine.record_failed(shard, done.seq, &done.record.op, e),
            None => kept.push(done),
        }
    }
    kept
}

/// Notes what was done, in transactions of a bounded size, and waits for the
/// flash: only then may what waits for these records begin.
async fn settle_all<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    target: &Rc<Target>,
    done: Vec<Done>,
) {
    let mut noted = Vec::with_capacity(done.len());
    for part in done.chunks(SETTLE) {
        match settle::settle(shard, engine, target, part).await {
            Ok(()) => noted.extend(part.iter().map(|d| d.seq)),
            Err(e) => {
                for done in part {
                    engine.record_failed(shard, done.seq, &done.record.op, e);
                }
            }
        }
    }
    let committed = shard.flash.commit(shard.applied.get()).await;
    engine.unsettled.borrow_mut().clear();
    if let Err(e) = committed {
        // A fenced flash takes nothing more; the records are still in the log
        // that the next start reads, and nothing may follow them until then.
        let line = format!(
            "target {}: write-back stops, flash failed: {e}",
            engine.target
        );
        shard.world.log(Level::Error, &line);
        engine.stop();
        return;
    }
    for seq in noted {
        engine.record_done(seq);
    }
}

/// Records noted in one transaction.
const SETTLE: usize = 32;

fn fail_all<W: World>(
    shard: &Shard<W>,
    engine: &Engine,
    records: &[(u64, Rc<Owed>)],
    errno: Errno,
) {
    for (seq, record) in records {
        engine.record_failed(shard, *seq, &record.op, errno);
    }
}
