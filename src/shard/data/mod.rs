//! Bytes of files: read, write, truncate, holes, fetches and reclaim.
use super::{Shard, Tx};
use crate::base::{Errno, Fid, Slice};
use crate::namespace::Inode;
use crate::world::World;
use std::ops::Range;
use std::rc::Rc;

mod flush;
pub use flush::{DirtyPart, Flush, dirty_parts, mark_clean, read_dirty};

/// State of the data path that lives in memory only.
#[derive(Default)]
pub struct Data {}

impl Data {
    /// A data path that keeps at most `bytes` of file contents in memory.
    #[must_use]
    pub fn new(_bytes: u64) -> Data {
        Data::default()
    }
    /// Bytes that the origin is owed, over all files of the shard.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        0
    }
}

/// Starts the tasks of the data path: reclaim, and counting what is dirty.
pub fn start<W: World>(_shard: &Rc<Shard<W>>) {}

/// Notes that `fid` was just made and has no bytes, so that its first write
/// need not look for any.
pub fn born<W: World>(_shard: &Shard<W>, _fid: Fid) {}

/// Makes `range` read as zeros, growing the file unless `keep_size`.
pub fn zero<W: World>(
    _shard: &Shard<W>,
    _tx: &mut Tx,
    _fid: Fid,
    _inode: &mut Inode,
    _range: Range<u64>,
    _keep_size: bool,
) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// Forgets all clean bytes, in the transaction, because the origin's changed
/// (its file now has `size` bytes): they will be fetched again. Dirty ones stay.
pub fn invalidate<W: World>(
    _shard: &Shard<W>,
    _tx: &mut Tx,
    _fid: Fid,
    _inode: &mut Inode,
    _size: u64,
) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// Up to `len` bytes at `offset`, short only at end of file (C10).
pub async fn read<W: World>(
    _shard: &Rc<Shard<W>>,
    _fid: Fid,
    _offset: u64,
    _len: u32,
) -> Result<Vec<Slice>, Errno> {
    Err(Errno::ENOSYS)
}

/// Loads the file's extent map; after it, until the next await, `truncate`,
/// `write`, `punch` and `remove` on the file cannot fail for want of loading.
pub async fn load<W: World>(_shard: &Rc<Shard<W>>, _fid: Fid) -> Result<(), Errno> {
    Ok(())
}

/// Puts `bytes` at `offset` into the transaction: extents, summary, size,
/// blocks, mtime, ctime, version and DATA_OWED of `inode` (which the caller
/// puts). EAGAIN: not loaded, call `load` and decide again. ENOSPC: call
/// `make_room` and decide again.
pub fn write<W: World>(
    _shard: &Shard<W>,
    _tx: &mut Tx,
    _fid: Fid,
    _inode: &mut Inode,
    _offset: u64,
    _bytes: &Slice,
) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// Changes the size in the transaction; bytes past it become a hole for ever (F7).
pub fn truncate<W: World>(
    _shard: &Shard<W>,
    _tx: &mut Tx,
    _fid: Fid,
    _inode: &mut Inode,
    _size: u64,
) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// Makes `range` an authoritative hole.
pub fn punch<W: World>(
    _shard: &Shard<W>,
    _tx: &mut Tx,
    _fid: Fid,
    _inode: &mut Inode,
    _range: Range<u64>,
) -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// Forgets all bytes of a file that is gone, in the transaction.
pub fn remove<W: World>(_shard: &Shard<W>, _tx: &mut Tx, _fid: Fid) -> Result<(), Errno> {
    Ok(())
}

/// Waits until reclaim or write-back has made room; ENOSPC if there is no hope.
pub async fn make_room<W: World>(_shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    Err(Errno::ENOSPC)
}

/// Where data (`hole` false) or a hole begins at or after `offset`, ENXIO past the end.
pub async fn seek<W: World>(
    _shard: &Rc<Shard<W>>,
    _fid: Fid,
    _offset: u64,
    _hole: bool,
) -> Result<u64, Errno> {
    Err(Errno::ENOSYS)
}
