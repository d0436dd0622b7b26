//! Bytes of files: read, write, truncate, holes, fetches and reclaim.
//!
//! ```text
//! read ──► memory ──► extent map ─┬─► flash            write ─► flash.append ─► extents (dirty)
//!                                 ├─► zeros (hole)      flush ─► what the origin lacks, and
//!                                 └─► fetch (absent)             the change that calls it clean
//! ```
//!
//! It owns the extent and summary records of the index, the memory cache, and
//! the maps of files in use. It never decides who may read or write, never
//! writes the origin (`writeback` does), and never drops what the origin lacks.
//!
//! A change of a map runs ahead of the transaction that carries it; a
//! transaction that is not applied makes the file forget its map, so that it is
//! loaded again from the index (`Tx::undo`).
//!
//! Start reading at [`read`](read::read), then `file.rs`.

use super::{Shard, Tx};
use crate::base::{Fid, TargetId};
use crate::cache::memory::Memory;
use crate::cache::reclaim::Policy;
use crate::world::sync::{Promise, Semaphore, Signal};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

mod ahead;
mod bulk;
mod fetch;
mod file;
mod flush;
mod join;
mod read;
mod records;
mod room;
mod scrub;
mod write;

pub use ahead::prefetch;
pub use file::{born, load};
pub use flush::{DirtyPart, Flush, dirty_parts, is_all_dirty, mark_clean, read_dirty};
pub use read::{gather, read, read_near, seek};
pub use records::Placed;
pub use room::{make_room, start};
pub use scrub::{Lost, Scrub, lost, scrub, scrub_progress};
pub use write::{invalidate, punch, remove, truncate, write, zero};

use crate::base::{Errno, Slice};
use file::File;

/// Memory where nobody says how much.
const MEMORY_DEFAULT: u64 = 64 << 20;
/// What one extent costs in a map, roughly, with its checksums.
const EXTENT_COST: u64 = 256;
/// Reads of the origin under way at once; each holds a buffer of 1 MiB.
const FETCHES_MAX: usize = 64;

/// State of the data path that lives in memory only. A handle.
#[derive(Clone)]
pub struct Data(Rc<State>);

struct State {
    memory: RefCell<Memory>,
    policy: RefCell<Policy>,
    files: RefCell<BTreeMap<Fid, Rc<File>>>,
    /// Files by when they were last looked at, for letting maps go.
    order: RefCell<VecDeque<(Fid, u64)>>,
    clock: Cell<u64>,
    /// Extents in all loaded maps, and how many there should be at most.
    extents: Cell<usize>,
    extents_max: usize,
    loading: RefCell<BTreeMap<Fid, Promise<Result<(), Errno>>>>,
    fetches: Rc<Semaphore>,
    /// Dirty bytes of each file that has any, and their sum.
    dirty: RefCell<BTreeMap<Fid, u64>>,
    dirty_sum: Cell<u64>,
    /// Bytes appended since reclaim last looked.
    appended: Cell<u64>,
    /// Bytes written since a writer last waited for the flash to keep up.
    unthrottled: Cell<u64>,
    pressure: Signal,
    /// A file that is gone has left extents.
    gone: Signal,
    reclaiming: Rc<Semaphore>,
    scrubbed: scrub::Scrubbed,
    zeros: Slice,
}

impl Default for Data {
    fn default() -> Data {
        Data::new(MEMORY_DEFAULT)
    }
}

impl Data {
    /// A data path that uses about `bytes` of memory: most of it for file
    /// contents, the rest for extent maps.
    #[must_use]
    pub fn new(bytes: u64) -> Data {
        let contents = usize::try_from(bytes / 8 * 7).unwrap_or(usize::MAX);
        let extents = usize::try_from(bytes / 8 / EXTENT_COST).unwrap_or(usize::MAX);
        Data(Rc::new(State {
            memory: RefCell::new(Memory::new(contents)),
            policy: RefCell::default(),
            files: RefCell::default(),
            order: RefCell::default(),
            clock: Cell::new(0),
            extents: Cell::new(0),
            extents_max: extents.max(4096),
            loading: RefCell::default(),
            fetches: Semaphore::new(FETCHES_MAX),
            dirty: RefCell::default(),
            dirty_sum: Cell::new(0),
            appended: Cell::new(0),
            unthrottled: Cell::new(0),
            pressure: Signal::default(),
            gone: Signal::default(),
            reclaiming: Semaphore::new(1),
            scrubbed: scrub::Scrubbed::default(),
            zeros: Slice::from(vec![0; read::ZEROS]),
        }))
    }

    /// Bytes that the origin is owed, over all files of the shard that were
    /// looked at since the start; [`start`] looks at all.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.0.dirty_sum.get()
    }

    /// Files with bytes that the origin is owed, of those whose FIDs begin with
    /// this target, and how many bytes.
    pub fn dirty_files(&self, target: TargetId) -> impl Iterator<Item = (Fid, u64)> {
        let seq = |target: u64| Fid {
            seq: target << 32,
            oid: 0,
            ver: 0,
        };
        let (first, end) = (u64::from(target.0), u64::from(target.0) + 1);
        let dirty = self.0.dirty.borrow();
        let ours: Vec<_> = dirty
            .range(seq(first)..seq(end))
            .map(|(fid, bytes)| (*fid, *bytes))
            .collect();
        ours.into_iter()
    }

    /// Bytes of one file that the origin is owed.
    #[must_use]
    pub fn dirty_bytes_of(&self, fid: Fid) -> u64 {
        self.0.dirty.borrow().get(&fid).copied().unwrap_or(0)
    }

    /// Bytes of file contents in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory.borrow().used() as u64
    }
}

#[cfg(test)]
mod tests;
