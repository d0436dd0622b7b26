//! Bytes of files: read, write, truncate, holes, fetches and reclaim.
use super::{Shard, Tx};
use crate::base::{Errno, Fid, Slice};
use crate::namespace::Inode;
use crate::world::World;
use std::ops::Range;
use std::rc::Rc;

/// State of the data path that lives in memory only.
#[derive(Default)]
pub struct Data {}

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
