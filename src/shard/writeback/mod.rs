//! What the origin is owed, and carrying it there.
use super::{Shard, Tx};
use crate::base::{Errno, Fid};
use crate::namespace::OwedOp;
use crate::origin::Place;
use crate::world::World;
use std::rc::Rc;

/// State of write-back that lives in memory only.
#[derive(Default)]
pub struct Writeback {}

/// Adds an operation on names to the write-back log, in the transaction.
pub fn owe<W: World>(_shard: &Shard<W>, _tx: &mut Tx, _target: crate::base::TargetId, _op: OwedOp) {
}

/// Notes in the transaction that the inode's flags owe data, attributes or
/// xattrs (flags are set by the caller), and wakes the engine.
pub fn note_dirty<W: World>(_shard: &Shard<W>, _tx: &mut Tx, _fid: Fid) {}

/// Where the file is at the origin now. ENOENT while it is not there yet.
pub async fn place<W: World>(_shard: &Rc<Shard<W>>, _fid: Fid) -> Result<Place, Errno> {
    Err(Errno::ENOSYS)
}

/// Carries everything owed for the target (or for one file and what it
/// depends on) to the origin and waits for its fsync.
pub async fn flush<W: World>(
    _shard: &Rc<Shard<W>>,
    _target: crate::base::TargetId,
    _fid: Option<Fid>,
) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// What a target's origin is owed.
pub struct Progress {
    pub state: u8,
    pub owed_records: u64,
    pub owed_unread: u64,
    pub dirty_files: u64,
    pub dirty_more: bool,
    pub dirty_bytes: u64,
    pub failing: u64,
    pub oldest: std::time::Duration,
    pub last_error: Option<(Errno, String)>,
}
/// (until the engine lands)
pub fn progress<W: World>(_shard: &Shard<W>, _target: crate::base::TargetId) -> Option<Progress> {
    None
}
/// (until the engine lands)
pub async fn start<W: World>(_shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    Ok(())
}
/// (until the engine lands)
pub fn stop<W: World>(_shard: &Shard<W>) {}
