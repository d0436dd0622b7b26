//! `flush`: everything owed now is at the origin, or an error says what is not.

use super::below::Below;
use super::engine::{self, Engine};
use super::{Shard, carry, locate, tasks};
use crate::base::{Errno, Fid, FileKind, TargetId};
use crate::namespace::record::flag;
use crate::world::World;
use std::rc::Rc;

/// Files carried at a time.
const WIDTH: usize = 16;

/// Carries everything owed for the target (or for one file and what it
/// depends on) to the origin and waits for its fsync. The first error ends the
/// waiting, not the carrying; the log names the file.
pub async fn flush<W: World>(
    shard: &Rc<Shard<W>>,
    target: TargetId,
    fid: Option<Fid>,
) -> Result<(), Errno> {
    let (engine, last) = begin(shard, target).await?;
    match fid {
        Some(fid) => one(shard, &engine, fid, last).await,
        None => all(shard, &engine, last).await,
    }
}

/// The same for a directory with everything that is below it at the front, and
/// what that depends on.
pub async fn flush_below<W: World>(
    shard: &Rc<Shard<W>>,
    target: TargetId,
    dir: Fid,
) -> Result<(), Errno> {
    let (engine, last) = begin(shard, target).await?;
    let mut below = Below::new(shard, dir)?;
    names_below(shard, &engine, &mut below, last).await?;
    dirty(shard, &engine, Some(below)).await
}

/// Tries at once what failed before. The engine, and where the log ends now.
async fn begin<W: World>(
    shard: &Rc<Shard<W>>,
    target: TargetId,
) -> Result<(Rc<Engine>, u64), Errno> {
    let engine = shard.writeback.engines.borrow().get(&target).cloned();
    let engine = engine.ok_or(Errno::ENXIO)?;
    engine.forget_retries();
    loop {
        let progressed = engine.progressed.wait();
        if engine.is_stopped() || !engine.contact.is_asked() {
            break;
        }
        progressed.await;
    }
    check_alive(&engine)?;
    Ok((engine, shard.writeback.next.get().unwrap_or(0)))
}

async fn all<W: World>(shard: &Rc<Shard<W>>, engine: &Rc<Engine>, last: u64) -> Result<(), Errno> {
    names(engine, last).await?;
    dirty(shard, engine, None).await
}

/// Carries what is dirty, all of it or what may be below a directory.
async fn dirty<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    mut below: Option<Below>,
) -> Result<(), Errno> {
    // Directories after files: what is carried into them changes nothing there,
    // but names that failed above and went through meanwhile may.
    for dirs in [false, true] {
        let mut after = None;
        loop {
            let page = engine::dirty_page(shard, after).await?;
            let Some((end, _)) = page.last().copied() else {
                break;
            };
            after = Some(end);
            let mut wanted = Vec::with_capacity(page.len());
            for (fid, _) in page {
                let is_wanted = match &mut below {
                    Some(below) => below.may_have(shard, fid).await?,
                    None => true,
                };
                wanted.extend(is_wanted.then_some(fid));
            }
            files(shard, engine, wanted, dirs).await?;
        }
    }
    Ok(())
}

/// Waits until the records below `last` that make, move or remove something
/// below the directory are settled.
async fn names_below<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    below: &mut Below,
    last: u64,
) -> Result<(), Errno> {
    let mut wanted: Vec<u64> = Vec::new();
    let mut looked_at = 0;
    loop {
        let progressed = engine.progressed.wait();
        read_on(engine, last);
        let news: Vec<_> = {
            let graph = engine.graph.borrow();
            let news = graph.from(looked_at).take_while(|(seq, _)| *seq < last);
            news.map(|(seq, record)| (seq, Rc::clone(record))).collect()
        };
        for (seq, record) in news {
            looked_at = seq + 1;
            if below.concerns(shard, &record.op).await? {
                wanted.push(seq);
            }
        }
        let needed = engine.graph.borrow().with_those_before(wanted.clone());
        wanted.retain(|seq| needed.contains(seq));
        if needed.is_empty() && engine.is_read(last) {
            return Ok(());
        }
        let failed = needed.iter().find_map(|seq| engine.failed_again(*seq));
        failed.map_or(Ok(()), Err)?;
        check_alive(engine)?;
        engine.urgent.borrow_mut().extend(needed);
        engine.wake();
        progressed.await;
    }
}

/// Has the engine read the log up to `last`.
fn read_on(engine: &Engine, last: u64) {
    if engine.is_read(last) {
        return;
    }
    if engine.is_full() {
        // Records lie behind the window: those before must go.
        engine.urgent_below.set(engine.urgent_below.get().max(last));
    }
    engine.wake();
}

/// Waits until every record below `last` is settled.
async fn names(engine: &Rc<Engine>, last: u64) -> Result<(), Errno> {
    engine.urgent_below.set(engine.urgent_below.get().max(last));
    engine.wake();
    loop {
        let progressed = engine.progressed.wait();
        let first = engine.graph.borrow().first().map(|(seq, _)| seq);
        let is_through = first.is_none_or(|seq| seq >= last) && engine.is_read(last);
        if is_through {
            return Ok(());
        }
        let failed = engine
            .graph
            .borrow()
            .ready()
            .take_while(|(seq, _)| *seq < last)
            .find_map(|(seq, _)| engine.failed_again(seq));
        failed.map_or(Ok(()), Err)?;
        check_alive(engine)?;
        progressed.await;
    }
}

fn check_alive(engine: &Engine) -> Result<(), Errno> {
    if engine.is_stopped() {
        return Err(Errno::ESHUTDOWN);
    }
    if engine.contact.is_absent() {
        return Err(engine
            .contact
            .last_error()
            .map_or(Errno::ENOTCONN, |(e, _)| e));
    }
    Ok(())
}

async fn files<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    page: Vec<Fid>,
    dirs: bool,
) -> Result<(), Errno> {
    let ours = |fid: &Fid| shard.target_of(*fid).is_ok_and(|t| t.id == engine.target);
    let jobs = page.into_iter().filter(ours).map(|fid| {
        let (shard, engine) = (Rc::clone(shard), Rc::clone(engine));
        async move {
            let Some(inode) = locate::inode(&shard, fid).await? else {
                return Ok(());
            };
            if (inode.attr.kind == FileKind::Directory) != dirs {
                return Ok(());
            }
            carry::fresh(&shard, &engine, fid).await
        }
    });
    let ends = tasks::together(&shard.world, WIDTH, jobs.collect()).await;
    ends.into_iter().collect()
}

/// The file's own names and all that they wait for, then its state.
async fn one<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    last: u64,
) -> Result<(), Errno> {
    loop {
        let progressed = engine.progressed.wait();
        read_on(engine, last);
        let needed = engine.graph.borrow().needed_for(fid, last);
        if needed.is_empty() && engine.is_read(last) {
            break;
        }
        let failed = needed.iter().find_map(|seq| engine.failed_again(*seq));
        failed.map_or(Ok(()), Err)?;
        check_alive(engine)?;
        engine.urgent.borrow_mut().extend(needed);
        engine.wake();
        progressed.await;
    }
    let inode = locate::inode(shard, fid).await?.ok_or(Errno::ESTALE)?;
    if inode.flags & flag::ORPHAN != 0 {
        return Ok(());
    }
    carry::fresh(shard, engine, fid).await
}
