//! What is owed and how it is going, for `status` and `custody`.

use super::{OriginState, Shard, age};
use crate::base::{Errno, TargetId};
use crate::world::World;
use std::time::Duration;

/// What a target's origin is owed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub state: OriginState,
    /// Operations on names: those in the window, and at most so many behind it.
    pub owed_records: u64,
    pub owed_unread: u64,
    /// Files with bytes, attributes or xattrs owed; `more` beyond the window.
    pub dirty_files: u64,
    pub dirty_more: bool,
    /// Bytes owed that are on the box's flash, and those on their way there.
    pub flash_bytes: u64,
    pub memory_bytes: u64,
    /// Of records and files that keep failing.
    pub failing: u64,
    pub oldest: Duration,
    pub last_error: Option<(Errno, String)>,
}

/// `None` for a target without an engine.
pub fn progress<W: World>(shard: &Shard<W>, target: TargetId) -> Option<Progress> {
    let engines = shard.writeback.engines.borrow();
    let engine = engines.get(&target)?;
    let now = shard.world.wall();
    let next = shard.writeback.next.get().unwrap_or(0);
    let oldest = [engine.oldest_owed(), engine.oldest_dirty()];
    let committed = shard.flash.last_committed();
    let owed = |in_memory: bool| {
        let files = shard.data.dirty_files(target);
        let is_there = |fid| shard.meta.is_uncommitted(fid, committed) == in_memory;
        files
            .filter(|(fid, _)| is_there(*fid))
            .map(|(_, n)| n)
            .sum()
    };
    Some(Progress {
        state: engine.contact.state(shard.world.now()),
        owed_records: engine.graph.borrow().len() as u64,
        owed_unread: next.saturating_sub(engine.cursor.get()),
        dirty_files: engine.dirty.borrow().len() as u64,
        dirty_more: engine.more_dirty.get(),
        flash_bytes: owed(false),
        memory_bytes: owed(true),
        failing: engine.failing(),
        oldest: oldest
            .into_iter()
            .flatten()
            .map(|at| age(now, at))
            .max()
            .unwrap_or_default(),
        last_error: engine.contact.last_error(),
    })
}
