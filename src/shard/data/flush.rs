//! What write-back consumes: the parts of a file that the origin lacks, their
//! bytes, and the change that calls them clean once the origin's fsync returned.

use super::{Shard, Tx};
use crate::base::{Errno, Fid, Slice};
use crate::namespace::Inode;
use crate::world::World;
use std::rc::Rc;

/// A range that differs from the origin's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPart {
    pub offset: u64,
    pub len: u64,
    /// The origin's bytes there must go (punch, or write zeros); else they are
    /// to be overwritten with what [`read_dirty`] gives.
    pub hole: bool,
}

/// One pass of write-back over a file's data: what was owed when it began.
/// What changes while it is carried out stays owed for the next pass.
///
/// The order at the origin: truncate to `cut` if the file is longer there, then
/// the parts, then set the length to `size` if it differs, then fsync.
pub struct Flush {
    pub fid: Fid,
    /// In the order of their offsets, without overlap, none past `size`.
    pub parts: Vec<DirtyPart>,
    /// The length that the file has here.
    pub size: u64,
    /// Origin bytes past this were cut off here and must not come back.
    pub cut: u64,
}

/// Begins a pass. One pass at a time for a file is the caller's duty.
pub async fn dirty_parts<W: World>(_shard: &Rc<Shard<W>>, _fid: Fid) -> Result<Flush, Errno> {
    Err(Errno::ENOSYS)
}

/// The present bytes of `part`, whole (zeros where it was punched meanwhile,
/// short if the file was). EAGAIN: it changed too much, begin a new pass.
pub async fn read_dirty<W: World>(
    _shard: &Rc<Shard<W>>,
    _flush: &Flush,
    _part: &DirtyPart,
) -> Result<Vec<Slice>, Errno> {
    Err(Errno::ENOSYS)
}

/// Notes in the transaction that the first `done` parts of the pass are at the
/// origin, after its fsync (O1): what did not change since becomes clean. If
/// all are done and nothing changed since, `inode` loses DATA_OWED (the caller
/// puts it) and the result is true. EAGAIN as for `write`: load, try again.
pub fn mark_clean<W: World>(
    _shard: &Shard<W>,
    _tx: &mut Tx,
    _inode: &mut Inode,
    _flush: &Flush,
    _done: usize,
) -> Result<bool, Errno> {
    Err(Errno::ENOSYS)
}
