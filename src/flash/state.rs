//! The handle and the state behind it.

use super::cache::BlockCache;
use super::data::Data;
use super::device::Device;
use super::flight::Flight;
use super::index::Index;
use super::log::Log;
use super::{Options, Peek, Tx, Usage};
use crate::base::{Errno, Generation, Lsn, ShardId, Slice, Transno};
use crate::store::manifest::Manifest;
use crate::store::root::{JournalPlace, Root};
use crate::store::space::{Need, Space};
use crate::store::table::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::store::{Appended, Record, Volume};
use crate::world::sync::Signal;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

/// A shard's flash. Clones share it.
pub struct Flash<W: World>(pub(super) Rc<State<W>>);

impl<W: World> Clone for Flash<W> {
    fn clone(&self) -> Self {
        Flash(Rc::clone(&self.0))
    }
}

pub(super) struct State<W: World> {
    pub world: W,
    pub device: Device<W>,
    pub volume: Volume,
    pub shard: ShardId,
    pub generation: Generation,
    pub options: Options,
    pub space: RefCell<Space>,
    pub log: RefCell<Log>,
    pub flight: Flight,
    pub index: RefCell<Index>,
    pub cache: RefCell<BlockCache>,
    pub data: RefCell<Data>,
    pub root: RefCell<Root>,
    /// What the last manifest said of everything but tables.
    pub base: RefCell<Base>,
    /// The last applied record, and the last durable one.
    pub applied: Cell<Lsn>,
    pub durable: Cell<Lsn>,
    /// Durable, and a durable mark says so.
    pub proved: Cell<Lsn>,
    pub transno: Cell<Transno>,
    pub committed: Cell<Transno>,
    pub fenced: Cell<bool>,
    /// Pieces and tables that were found damaged, each time.
    pub damaged: Cell<u64>,
    pub closing: Cell<bool>,
    /// For the flusher: there may be a group to write.
    pub work: Signal,
    /// For those who wait for durability.
    pub progress: Signal,
    /// For the maintenance task, and for those who wait for it.
    pub chores: Signal,
    pub chores_done: Signal,
    pub checkpoints_wanted: Cell<u64>,
    pub checkpoints_done: Cell<u64>,
    pub checkpoint_result: Cell<Result<(), Errno>>,
}

/// A checkpoint without its tables.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub manifest: Manifest,
    pub place: JournalPlace,
    pub transno: Transno,
}

impl<W: World> Flash<W> {
    /// Looks into memory only.
    #[must_use]
    pub fn peek(&self, key: &[u8]) -> Peek {
        match self.0.find(key, &Default::default()) {
            Ok(Some(value)) => Peek::Found(value),
            Ok(None) => Peek::Absent,
            Err(_) => Peek::NotLoaded,
        }
    }

    /// Loads what `peek` lacked.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Rc<[u8]>>, Errno> {
        self.0.get(key).await
    }

    /// Up to `limit` pairs with `range.start <= key < range.end`, in order, as
    /// they are at the moment of the return.
    pub async fn scan(
        &self,
        range: Range<Vec<u8>>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Rc<[u8]>)>, Errno> {
        self.0.scan(&range, limit).await
    }

    /// Applies and queues for the journal.
    ///
    /// # Errors
    /// ENOSPC without room, EIO when fenced, EFBIG for a transaction longer
    /// than [`Flash::tx_bytes_max`] or a key or value over its bound. Nothing
    /// is changed then.
    pub fn apply(&self, tx: Tx) -> Result<Lsn, Errno> {
        let (record, mut undo) = tx.split();
        self.0.check(&record)?;
        let lsn = self.0.journal(&record)?;
        undo.disarm();
        self.0.account(&record, lsn);
        self.0.transno.set(self.0.transno.get().max(record.transno));
        let mut index = self.0.index.borrow_mut();
        for (key, value) in record.puts {
            index.active.insert(key, value.map(Rc::from));
        }
        let is_full = index.active.bytes() >= self.0.options.memtable_bytes;
        drop(index);
        if is_full || self.0.log.borrow().bytes() >= self.0.options.journal_bytes {
            self.0.chores.notify();
        }
        Ok(lsn)
    }

    /// Waits until everything up to `lsn` is on flash.
    ///
    /// # Errors
    /// EIO when fenced before that: whether it will be there is unknown.
    pub async fn commit(&self, lsn: Lsn) -> Result<(), Errno> {
        self.0.commit(lsn).await
    }

    /// The highest applied, and the highest durable transno.
    #[must_use]
    pub fn transno(&self) -> Transno {
        self.0.transno.get()
    }
    #[must_use]
    pub fn last_committed(&self) -> Transno {
        self.0.committed.get()
    }

    /// Ends when `last_committed` is above `transno`, with its value then; for
    /// whoever pushes it to clients (X6). Never ends on a fenced shard.
    pub async fn committed_past(&self, transno: Transno) -> Transno {
        while self.0.committed.get() <= transno {
            self.0.progress.wait().await;
        }
        self.0.committed.get()
    }

    /// The last applied record.
    #[must_use]
    pub fn applied(&self) -> Lsn {
        self.0.applied.get()
    }

    /// Applied records that are not on flash yet.
    #[must_use]
    pub fn uncommitted(&self) -> u64 {
        self.0
            .applied
            .get()
            .0
            .saturating_sub(self.0.durable.get().0)
    }

    /// Reserves flash for `bytes` (≤ 1 MiB) and queues the write; pieces do not
    /// cross a segment.
    ///
    /// # Errors
    /// ENOSPC: reclaim must free segments first; clean bytes are refused before
    /// dirty ones, and those before promised ones. EIO when fenced.
    pub fn append(&self, bytes: &Slice, need: Need) -> Result<Vec<Appended>, Errno> {
        self.0.append(bytes, need)
    }

    /// Keeps room for so many bytes that are appended as [`Need::Promised`].
    pub fn promise(&self, bytes: u64) {
        let segments = bytes.div_ceil(u64::from(self.0.segment_bytes()));
        // A part of each of two segments may be another's: one where promised
        // bytes go on, one of the journal, where small ones go.
        let extra = if bytes > 0 { 2 } else { 0 };
        let segments = usize::try_from(segments).unwrap_or(usize::MAX / 2) + extra;
        self.0.space.borrow_mut().promise(segments);
    }

    /// Bytes of flash that data may still take, and all that there are.
    #[must_use]
    pub fn room(&self) -> (u64, u64) {
        let space = self.0.space.borrow();
        let segment = u64::from(self.0.segment_bytes());
        (
            space.available() as u64 * segment,
            space.total() as u64 * segment,
        )
    }

    /// Gives up appended bytes that no transaction will refer to, at once;
    /// without this their flash comes back after a minute. A transaction must
    /// follow its appends within that time, best without an await between.
    pub fn discard(&self, pieces: &[Appended]) {
        let mut space = self.0.space.borrow_mut();
        for piece in pieces {
            space.on_discarded(piece.at, piece.len);
        }
    }

    /// Reads and verifies; EIO with a log line when a checksum is wrong.
    pub async fn read(&self, piece: &Appended, range: Range<u32>) -> Result<Slice, Errno> {
        self.0.read(piece, range).await
    }

    /// Waits while too much is queued for the flash, or the memtable is far over
    /// its size. Whoever streams calls it between appends; nothing else bounds
    /// the memory that queued writes hold.
    pub async fn throttle(&self) {
        while self.0.is_behind() && !self.0.fenced.get() {
            self.0.progress.wait().await;
        }
    }

    /// Moves the memtable into tables and trims the journal; returns when that
    /// is durable.
    pub async fn checkpoint(&self) -> Result<(), Errno> {
        let ticket = self.0.checkpoints_wanted.get() + 1;
        self.0.checkpoints_wanted.set(ticket);
        self.0.chores.notify();
        while self.0.checkpoints_done.get() < ticket {
            if self.0.fenced.get() || self.0.closing.get() {
                return Err(Errno::EIO);
            }
            self.0.chores_done.wait().await;
        }
        self.0.checkpoint_result.get()
    }

    /// Commits, checkpoints and stops the background tasks. Nothing may be
    /// applied after it. The superblock is marked clean by the control thread,
    /// when all shards have closed.
    pub async fn close(&self) -> Result<(), Errno> {
        let done = async {
            self.commit(self.0.applied.get()).await?;
            self.checkpoint().await
        };
        let result = done.await;
        self.0.closing.set(true);
        self.0.work.notify();
        self.0.chores.notify();
        result
    }

    /// Bytes and segments in use, for reclaim and status.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let space = self.0.space.borrow();
        let segment = u64::from(self.0.segment_bytes());
        Usage {
            total_bytes: space.total() as u64 * segment,
            free_bytes: space.available() as u64 * segment,
            segment_bytes: self.0.segment_bytes(),
            sealed: space.sealed(),
        }
    }

    /// The longest transaction that `apply` takes, encoded.
    #[must_use]
    pub fn tx_bytes_max(&self) -> usize {
        crate::store::journal::record_bytes_max(self.0.segment_bytes())
    }

    /// Reads and checks the table of the index with the lowest number above
    /// `after`: its number, and its bytes or EIO with a log line. `None`: there
    /// is none.
    pub async fn check_table(&self, after: Option<u64>) -> Option<(u64, Result<u64, Errno>)> {
        self.0.check_table(after).await
    }

    /// Did a write fail? Then nothing becomes durable any more.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.0.fenced.get()
    }

    /// How often bytes or index tables were found damaged since the start; each
    /// has its log line.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.0.damaged.get()
    }
}

impl<W: World> State<W> {
    pub fn segment_bytes(&self) -> u32 {
        self.volume.superblock.segment_bytes
    }

    /// Byte offset on the device; EIO for a segment that does not exist.
    pub fn place(&self, segment: u32, offset: u32) -> Result<u64, Errno> {
        let at = self.volume.segment_at(segment).ok_or(Errno::EIO)?;
        if offset > self.segment_bytes() {
            return Err(Errno::EIO);
        }
        Ok(at + u64::from(offset))
    }

    /// Logs damage that was found, and counts it.
    pub fn note_damage(&self, line: &str) {
        self.damaged.set(self.damaged.get() + 1);
        self.world.log(Level::Error, line);
    }

    fn is_behind(&self) -> bool {
        let memtable = self.index.borrow().active.bytes();
        self.queued_bytes() > self.options.queue_bytes || memtable > 4 * self.options.memtable_bytes
    }

    /// Stops all further change: what is on flash is a sound prefix, and stays so.
    pub fn fence(&self, what: &str, errno: Errno) {
        if !self.fenced.replace(true) {
            let line = format!(
                "flash of shard {} failed ({what}: {errno}): nothing more becomes durable, reads go on",
                self.shard
            );
            self.world.log(Level::Error, &line);
        }
        self.work.notify();
        self.progress.notify();
        self.chores.notify();
        self.chores_done.notify();
    }

    fn check(&self, record: &Record) -> Result<(), Errno> {
        if self.fenced.get() || self.closing.get() {
            return Err(Errno::EIO);
        }
        let sound = record.puts.iter().all(|(key, value)| {
            key.len() <= KEY_BYTES_MAX && value.as_ref().map_or(0, Vec::len) <= VALUE_BYTES_MAX
        });
        if sound { Ok(()) } else { Err(Errno::EFBIG) }
    }

    /// Counts what record `lsn` refers to and lets go.
    pub fn account(&self, record: &Record, lsn: Lsn) {
        let mut space = self.space.borrow_mut();
        for piece in &record.data {
            space.on_referred(piece.at, piece.len);
        }
        for &(at, len) in &record.freed {
            if !space.on_freed(at, len, lsn) {
                let line = format!(
                    "record {lsn} lets go of {len} bytes in segment {} that were not alive",
                    at.segment
                );
                self.world.log(Level::Error, &line);
            }
        }
    }

    /// Frees what is proved empty.
    pub fn reap(&self) {
        let proved = self.proved.get().max(self.root.borrow().checkpoint);
        self.index.borrow_mut().reap(&mut self.space.borrow_mut());
        self.space.borrow_mut().reap(proved, self.world.now());
    }
}
