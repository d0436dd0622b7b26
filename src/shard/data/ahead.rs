//! Bringing bytes in before they are asked for: from the origin onto flash,
//! and from flash into memory, chunk by chunk.

use super::Shard;
use super::fetch::{self, CHUNK};
use super::file::{File, present};
use super::read::{Plan, run};
use crate::base::{Errno, Fid};
use crate::cache::What;
use crate::conf::Prefetch;
use crate::namespace::Inode;
use crate::world::World;
use crate::world::sync::Promise;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// How far ahead of a sequential reader to be, at most.
const WINDOW_MAX: u64 = 8 << 20;
/// The share of the memory that one reader's window may take.
const WINDOW_SHARE: u64 = 16;
/// Chunks that a prefetch of a whole file keeps in flight.
const PREFETCH_DEPTH: usize = 4;

/// Notes a read and starts what should follow it. True if it belongs to a
/// sequential run.
pub(super) fn on_read<W: World>(
    shard: &Rc<Shard<W>>,
    file: &Rc<File>,
    inode: &Inode,
    range: Range<u64>,
) -> bool {
    let policy = shard
        .target_of(file.fid)
        .map_or(Prefetch::None, |t| t.conf.borrow().prefetch);
    let memory = shard.data.0.memory.borrow().limit() as u64;
    let window = if policy == Prefetch::None {
        0
    } else {
        WINDOW_MAX.min(memory / WINDOW_SHARE)
    };
    let size = inode.attr.size;
    let mut detector = file.detector.borrow_mut();
    let first = detector.is_new();
    let advice = detector.on_read(range.start, range.end - range.start, size, window);
    drop(detector);
    if policy == Prefetch::WholeFile && first {
        let (shard_, fid) = (Rc::clone(shard), file.fid);
        shard.world.spawn(async move {
            // Whoever reads meets the same error and reports it.
            let _ = prefetch(&shard_, fid).await;
        });
    }
    if !advice.ahead.is_empty() {
        for chunk in fetch::chunks_of(std::slice::from_ref(&advice.ahead)) {
            bring(shard, file, inode, chunk, &advice.ahead);
        }
    }
    advice.sequential
}

/// Brings a whole file onto flash.
pub async fn prefetch<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<(), Errno> {
    let mut under_way = VecDeque::new();
    let mut chunk = 0;
    loop {
        let (file, inode) = present(shard, fid).await?;
        let size = inode.origin_size.min(inode.attr.size);
        while under_way.len() < PREFETCH_DEPTH && chunk * CHUNK < size {
            if is_absent(&file, chunk, size) {
                under_way.push_back(fetch::start(shard, &file, &inode, chunk));
            }
            chunk += 1;
        }
        match under_way.pop_front() {
            Some(fetch) => drop(fetch.get().await?),
            None => return Ok(()),
        }
    }
}

fn is_absent(file: &File, chunk: u64, size: u64) -> bool {
    let range = chunk * CHUNK..((chunk + 1) * CHUNK).min(size);
    let map = file.map.borrow();
    map.lookup(range, size).any(|s| s.what == What::Absent)
}

/// Starts fetching a chunk, or loading `wanted` of it, if that is of use.
fn bring<W: World>(
    shard: &Rc<Shard<W>>,
    file: &Rc<File>,
    inode: &Inode,
    chunk: u64,
    wanted: &Range<u64>,
) {
    let whole = chunk * CHUNK..(chunk + 1) * CHUNK;
    let range = whole.start.max(wanted.start)..whole.end.min(wanted.end);
    if shard.data.0.memory.borrow().covers(file.fid, range.clone()) {
        return;
    }
    if is_absent(file, chunk, inode.origin_size.min(inode.attr.size)) {
        fetch::start(shard, file, inode, chunk);
        return;
    }
    if file.loads.borrow().contains_key(&chunk) {
        return;
    }
    let promise = Promise::default();
    file.loads.borrow_mut().insert(chunk, promise.clone());
    let plan = Plan::of(shard, file, inode, range, &[], false);
    let (shard_, file) = (Rc::clone(shard), Rc::clone(file));
    shard.world.spawn(async move {
        // The result is in memory; an error meets the one who reads there.
        let _ = run(&shard_, &file, plan.parts).await;
        file.loads.borrow_mut().remove(&chunk);
        promise.set(());
    });
}
