//! What the origin is owed, and carrying it there.
//!
//! Names are owed by log: each create, link, unlink and rename leaves a record
//! under [`key::owed`]. Bytes, attributes and xattrs are owed by state: flags of
//! the inode, and [`key::dirty`] to find it again. One engine for each target
//! carries both:
//!
//! ```text
//! owe ─► log ─► window ─► Graph ─► batch: apply ─► fsync directories ─► settle ─► commit
//!                                    │ a rename waits for its file's data
//! note_dirty ─► dirty ─► carry: truncate, write, attributes, xattrs, fsync ─► mark clean
//! ```
//!
//! Architecture invariants:
//! - Nothing goes to the origin that is not on the box's flash (N3), and nothing
//!   is called carried before the origin's fsync of the file and of each
//!   directory touched (O1). A record leaves the log in the transaction that
//!   notes what it changed at the origin.
//! - A record begins when those it waits for are settled *on flash*. So after a
//!   crash at most one record on any name or inode was applied and not noted,
//!   and the identities at the origin tell which (O3).
//! - Memory is bounded: windows over the log and over the dirty inodes, which
//!   are filled from flash as they empty. A restart is the same, from an empty
//!   window: the box serves while its backlog is read.

mod apply;
mod batch;
mod below;
mod carry;
mod engine;
mod failures;
mod flush;
pub mod graph;
mod locate;
mod lost;
mod origin;
mod progress;
mod settle;
mod standing;
mod tasks;
#[cfg(test)]
mod tests;
mod xattrs;

pub use below::Below;
pub use engine::{dirty_page, owed_page};
pub use flush::{flush, flush_below};
pub use locate::place;
pub use progress::{Progress, progress};
pub use settle::{Aliases, also_named, note_aliases};
pub use standing::{Standing, Why, brief, moves, standing, standing_by, why_record};

use super::{OriginState, Shard, Tx, contact};
use crate::base::{Codec, Errno, Fid, SnapEpoch, TargetId, Time};
use crate::flash::Peek;
use crate::namespace::{Owed, OwedOp, key};
use crate::world::World;
use engine::Engine;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// State of write-back that lives in memory only.
#[derive(Default)]
pub struct Writeback {
    engines: RefCell<BTreeMap<TargetId, Rc<Engine>>>,
    /// The next record's number; unknown until [`start`] or the first record.
    next: Cell<Option<u64>>,
    /// Numbers below this are reserved on flash, so that none is used twice.
    reserved: Cell<u64>,
}

/// Numbers reserved on flash at a time: how many a restart may skip.
const RESERVE: u64 = 1 << 12;

/// Reads where the log goes on and starts the engines of all targets. Before
/// the shard serves its first request.
pub async fn start<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    let next = match shard.flash.get(&next_key()).await? {
        Some(bytes) => u64::from_slice(&bytes).map_err(|_| Errno::EIO)?,
        None => 0,
    };
    shard.writeback.next.set(Some(next));
    shard.writeback.reserved.set(next);
    let targets: Vec<TargetId> = shard.targets.borrow().keys().copied().collect();
    for target in targets {
        start_target(shard, target);
    }
    Ok(())
}

/// Starts the engine of a target that came into service. Before [`start`] there
/// is nothing to do: it starts all that are there.
pub fn start_target<W: World>(shard: &Rc<Shard<W>>, target: TargetId) {
    let Some(next) = shard.writeback.next.get() else {
        return;
    };
    let engine = Rc::new(Engine::new(target, next, shard.contacts.of(target)));
    let engines = &shard.writeback.engines;
    if engines.borrow().contains_key(&target) {
        return;
    }
    engines.borrow_mut().insert(target, Rc::clone(&engine));
    shard.world.spawn(engine::run(Rc::clone(shard), engine));
}

/// Waits for the end of the batch of names that is being carried, if one is:
/// what it moves is found again when it is noted.
pub async fn settled<W: World>(shard: &Shard<W>, target: TargetId) {
    let engine = shard.writeback.engines.borrow().get(&target).cloned();
    let Some(engine) = engine else { return };
    let batches = engine.batches.get();
    loop {
        let progressed = engine.progressed.wait();
        if batches.is_multiple_of(2) || engine.batches.get() != batches {
            return;
        }
        progressed.await;
    }
}

/// The failure of write-back that the file's next fsync reports, once.
pub fn take_failure<W: World>(shard: &Shard<W>, target: TargetId, fid: Fid) -> Option<Errno> {
    let engine = shard.writeback.engines.borrow().get(&target).cloned()?;
    engine.failures.borrow_mut().take(fid)
}

/// Ends all engines; what is owed stays on flash.
pub fn stop<W: World>(shard: &Shard<W>) {
    for engine in shard.writeback.engines.borrow().values() {
        engine.stop();
    }
}

/// Carries what is dirty now, whatever its age: the flash is getting full.
pub fn press<W: World>(shard: &Shard<W>) {
    for engine in shard.writeback.engines.borrow().values() {
        engine.press();
    }
}

/// Has the target's engine look again: its origin is back, or was tried.
pub fn wake<W: World>(shard: &Shard<W>, target: TargetId) {
    if let Some(engine) = shard.writeback.engines.borrow().get(&target) {
        engine.wake();
        engine.progressed.notify();
    }
}

/// Adds an operation on names to the write-back log, in the transaction, which
/// must be applied before the next await (else the engine may have read past).
pub fn owe<W: World>(shard: &Shard<W>, tx: &mut Tx, target: TargetId, op: OwedOp) {
    let wb = &shard.writeback;
    let seq = wb.next.get().unwrap_or_else(|| reserved_on_flash(shard));
    wb.next.set(Some(seq + 1));
    if seq >= wb.reserved.get() {
        // Trusted only once it is seen on flash: a transaction may fail.
        wb.reserved.set(reserved_on_flash(shard));
    }
    if seq >= wb.reserved.get() {
        tx.put(next_key(), (seq + RESERVE).to_vec());
    }
    let record = Owed {
        target: target.0,
        at: shard.world.wall(),
        epoch: SnapEpoch(0),
        op,
        after: Vec::new(),
    };
    tx.put(key::owed(seq), record.to_vec());
    if let Some(engine) = wb.engines.borrow().get(&target) {
        engine.on_owed();
    }
}

/// Notes in the transaction that the inode's flags owe data, attributes or
/// xattrs (flags are set by the caller), and wakes the engine.
pub fn note_dirty<W: World>(shard: &Shard<W>, tx: &mut Tx, fid: Fid) {
    let now = shard.world.wall();
    // Where the record is not in memory the engine still knows the older time,
    // or has yet to read the inode, and carries it somewhat later.
    if !matches!(shard.flash.peek(&key::dirty(fid)), Peek::Found(_)) {
        tx.put(key::dirty(fid), now.to_vec());
    }
    let target = shard.target_of(fid).map(|target| target.id);
    let engines = shard.writeback.engines.borrow();
    if let Some(engine) = target.ok().and_then(|id| engines.get(&id)) {
        engine.on_dirty(fid, now);
    }
}

fn reserved_on_flash<W: World>(shard: &Shard<W>) -> u64 {
    match shard.flash.peek(&next_key()) {
        Peek::Found(bytes) => u64::from_slice(&bytes).unwrap_or(0),
        Peek::Absent | Peek::NotLoaded => 0,
    }
}

fn next_key() -> Vec<u8> {
    key::setting("writeback.next")
}

/// Does write-back keep failing with the file?
pub fn is_failing<W: World>(shard: &Shard<W>, target: TargetId, fid: Fid) -> bool {
    let engine = shard.writeback.engines.borrow().get(&target).cloned();
    engine.is_some_and(|engine| engine.retry_of(fid, std::iter::empty()).is_some())
}

/// Time since `then` on a wall clock that may have been set back.
fn age(now: Time, then: Time) -> std::time::Duration {
    let nanos = now.nanos().saturating_sub(then.nanos()).max(0);
    std::time::Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
