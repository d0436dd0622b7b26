//! From a volume to a running flash.

use super::cache::BlockCache;
use super::data::Data;
use super::device::Device;
use super::flight::Flight;
use super::index::{FANOUT, Index};
use super::log::Log;
use super::recover::Recovered;
use super::state::{Base, Flash, State};
use crate::base::codec::Bytes;
use crate::base::limits::BLOCK;
use crate::base::{BoxId, Generation, Lsn, ShardId, Slice, Transno};
use crate::store::manifest::Manifest;
use crate::store::memtable::Memtable;
use crate::store::root::{JournalPlace, Root};
use crate::store::segment::HEADER_BYTES;
use crate::store::space::{Need, Role, Space};
use crate::store::volume::root_place;
use crate::store::{FormatOptions, StoreError, Volume};
use crate::world::World;
use crate::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How much memory a shard's flash uses, and when it acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A memtable of this size becomes tables.
    pub memtable_bytes: usize,
    /// A journal of this length causes a checkpoint: it bounds the replay at a start.
    pub journal_bytes: usize,
    /// Index pages kept in memory.
    pub cache_bytes: usize,
    /// Queued writes above which `throttle` waits.
    pub queue_bytes: usize,
}

impl Options {
    /// Fitting a shard with `flash` bytes that may use about `memory` bytes.
    #[must_use]
    pub fn fitting(flash: u64, memory: u64) -> Options {
        let part = |n: u64, of: u64| usize::try_from(n / of).unwrap_or(usize::MAX);
        Options {
            memtable_bytes: part(flash, 64)
                .min(part(memory, 8))
                .clamp(256 << 10, 16 << 20),
            journal_bytes: part(flash, 8).clamp(2 << 20, 64 << 20),
            cache_bytes: part(memory, 4).max(1 << 20),
            queue_bytes: part(memory, 8).clamp(4 << 20, 32 << 20),
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Records replayed from the journal.
    pub replayed: u64,
    pub journal_bytes: u64,
    /// The journal ended in a group that a crash tore.
    pub is_torn: bool,
    /// The last record, and the highest transno.
    pub last: Lsn,
    pub transno: Transno,
}

/// What a shard may use of memory where nobody says, and the size of a flash in memory.
const MEMORY_BYTES: u64 = 256 << 20;

impl<W: World> Flash<W> {
    /// Opens a shard of the world's flash. The volume must have been claimed
    /// for this opening (its generation is used nowhere else, F1).
    pub async fn open(
        world: W,
        shard: ShardId,
        volume: &Volume,
    ) -> Result<(Flash<W>, Opened), StoreError> {
        let options = Options::fitting(volume.shard_bytes(shard), MEMORY_BYTES);
        Flash::open_with(world, shard, volume, options).await
    }

    pub async fn open_with(
        world: W,
        shard: ShardId,
        volume: &Volume,
        options: Options,
    ) -> Result<(Flash<W>, Opened), StoreError> {
        let device = Device::World(world.clone());
        open_on(device, world, shard, volume.clone(), options).await
    }

    /// A flash of 256 MiB in plain memory, empty: for tests and benches, and
    /// for shards that have no device.
    #[must_use]
    pub fn in_memory(world: W) -> Flash<W> {
        let options = Options::fitting(MEMORY_BYTES, MEMORY_BYTES);
        Flash::in_memory_with(world, options)
    }

    #[must_use]
    pub fn in_memory_with(world: W, options: Options) -> Flash<W> {
        let device = Device::memory();
        let open = async {
            let format = FormatOptions::new(MEMORY_BYTES, 1, BoxId(1));
            let mut volume = device.format(&format).await?;
            volume.superblock.generation = Generation(1);
            open_on(device.clone(), world, ShardId(0), volume, options).await
        };
        match ready(open) {
            Ok((flash, _)) => flash,
            Err(e) => unreachable!("memory that was just formatted: {e}"),
        }
    }

    /// A flash in memory as a box finds it that starts again after a crash
    /// which lost nothing: the tasks of the one before died with its world.
    #[cfg(test)]
    #[must_use]
    pub fn after_crash(&self, world: W) -> Flash<W> {
        let before = &self.0;
        ready(before.write_all()).expect("memory takes every write");
        let mut volume = before.volume.clone();
        volume.superblock.generation = volume.superblock.generation.next();
        let options = before.options.clone();
        let open = open_on(before.device.clone(), world, before.shard, volume, options);
        ready(open).expect("nothing was lost").0
    }
}

/// The result of I/O on memory, which never waits.
fn ready<T>(io: impl Future<Output = T>) -> T {
    match pin!(io).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("memory never waits"),
    }
}

async fn open_on<W: World>(
    device: Device<W>,
    world: W,
    shard: ShardId,
    volume: Volume,
    options: Options,
) -> Result<(Flash<W>, Opened), StoreError> {
    if shard.0 >= volume.superblock.shards {
        return Err(StoreError::NoShard {
            asked: shard.0,
            have: volume.superblock.shards,
        });
    }
    let root = load_root(&device, shard).await?;
    let state = restore(device, world, volume, options, root).await?;
    let recovered = state.recover().await?;
    let opened = state.begin(recovered).await?;
    state.world.spawn(Rc::clone(&state).flush_groups());
    state.world.spawn(Rc::clone(&state).maintain());
    Ok((Flash(state), opened))
}

/// A shard as `root` and its manifest say, before the journal is read. Nothing
/// is written, and nothing runs yet.
pub(super) async fn restore<W: World>(
    device: Device<W>,
    world: W,
    volume: Volume,
    options: Options,
    root: Root,
) -> Result<Rc<State<W>>, StoreError> {
    let shard = root.shard;
    let found = load_manifest(&device, &volume, &root).await?;
    let owned = volume.owned_by(shard);
    let mut space = Space::new(&owned, reserve(&options, volume.superblock.segment_bytes));
    space.claim(root.journal.segment, Role::Journal);
    let manifest = match found {
        Some(manifest) => manifest,
        None => first_manifest(shard, &mut space)?,
    };
    claim_manifest(&mut space, &manifest, &volume, &root)?;
    Ok(Rc::new(assemble(
        device, world, shard, volume, options, space, root, manifest,
    )))
}

async fn load_root<W: World>(device: &Device<W>, shard: ShardId) -> Result<Root, StoreError> {
    let a = device.load(root_place(shard, 0), BLOCK).await?;
    let b = device.load(root_place(shard, 1), BLOCK).await?;
    Root::choose(shard, &a, &b)
        .map_err(|e| StoreError::corrupt("shard root", root_place(shard, 0), e))
}

async fn load_manifest<W: World>(
    device: &Device<W>,
    volume: &Volume,
    root: &Root,
) -> Result<Option<Manifest>, StoreError> {
    let Some(place) = &root.manifest else {
        return Ok(None);
    };
    let (segment, bytes) = (place.segment, place.bytes as usize);
    let wrong = |at, why| StoreError::Corrupt {
        what: "manifest",
        at,
        why,
    };
    let at = volume
        .segment_at(segment)
        .ok_or(wrong(0, "its segment does not exist"))?;
    if place.bytes > volume.superblock.segment_bytes || !bytes.is_multiple_of(BLOCK) {
        return Err(wrong(at, "it leaves its segment"));
    }
    let bytes = device.load(at, bytes).await?;
    let manifest = Manifest::decode(&bytes).map_err(|e| StoreError::corrupt("manifest", at, e))?;
    if manifest.shard != root.shard || manifest.checkpoint != root.checkpoint {
        return Err(wrong(at, "it belongs to another root"));
    }
    Ok(Some(manifest))
}

/// A shard that never ran: two segments for manifests, nothing else.
fn first_manifest(shard: ShardId, space: &mut Space) -> Result<Manifest, StoreError> {
    let mut home = || {
        let segment = space.allocate(Need::Core, Role::Manifest);
        segment.ok_or(StoreError::Options {
            why: "a shard has no segments",
        })
    };
    Ok(Manifest {
        shard,
        checkpoint: Lsn(0),
        next_table: 1,
        homes: (home()?, home()?),
        tables: Vec::new(),
        live: Vec::new(),
        written: Bytes::default(),
    })
}

fn claim_manifest(
    space: &mut Space,
    manifest: &Manifest,
    volume: &Volume,
    root: &Root,
) -> Result<(), StoreError> {
    let at = root
        .manifest
        .as_ref()
        .and_then(|m| volume.segment_at(m.segment))
        .unwrap_or(0);
    let wrong = |why| StoreError::Corrupt {
        what: "manifest",
        at,
        why,
    };
    let (a, b) = manifest.homes;
    let mut is_sound = space.claim(a, Role::Manifest) && space.claim(b, Role::Manifest) && a != b;
    let limit = volume.superblock.segment_bytes;
    for table in &manifest.tables {
        is_sound &= space.claim(table.segment, Role::Index);
        is_sound &= table.meta_at >= HEADER_BYTES && table.meta_bytes > 0;
        is_sound &= table.meta_at.is_multiple_of(HEADER_BYTES);
        is_sound &= table.meta_bytes.is_multiple_of(HEADER_BYTES);
        is_sound &= table
            .meta_at
            .checked_add(table.meta_bytes)
            .is_some_and(|e| e <= limit);
    }
    if !is_sound {
        return Err(wrong("it names segments that the shard does not have"));
    }
    for &(segment, bytes) in &manifest.live {
        space.set_live(segment, bytes);
    }
    space.set_written_bits(&manifest.written.0);
    Ok(())
}

/// Segments that checkpoint and compaction need at once: the tables of a
/// memtable (encoded, some overhead), those of a compaction step, and the next
/// two of the journal.
fn reserve(options: &Options, segment_bytes: u32) -> usize {
    let tables = options.memtable_bytes.div_ceil(segment_bytes as usize) * 3 / 2 + 1;
    tables + FANOUT + 3 + 2
}

#[expect(
    clippy::too_many_arguments,
    reason = "the one constructor of the state"
)]
fn assemble<W: World>(
    device: Device<W>,
    world: W,
    shard: ShardId,
    volume: Volume,
    options: Options,
    space: Space,
    root: Root,
    manifest: Manifest,
) -> State<W> {
    let first = root.checkpoint.next();
    let log = Log::new(root.journal, 0, first, volume.superblock.segment_bytes);
    let index = Index::new(
        manifest.tables.clone(),
        manifest.next_table,
        Memtable::default(),
    );
    State {
        generation: volume.superblock.generation,
        space: RefCell::new(space),
        log: RefCell::new(log),
        flight: Flight::default(),
        index: RefCell::new(index),
        cache: RefCell::new(BlockCache::new(options.cache_bytes)),
        data: RefCell::new(Data::default()),
        base: RefCell::new(Base {
            manifest,
            place: root.journal,
            transno: root.transno,
        }),
        applied: Cell::new(root.checkpoint),
        durable: Cell::new(root.checkpoint),
        proved: Cell::new(root.checkpoint),
        transno: Cell::new(root.transno),
        committed: Cell::new(root.transno),
        root: RefCell::new(root),
        fenced: Cell::new(false),
        damaged: Cell::new(0),
        closing: Cell::new(false),
        work: Signal::default(),
        progress: Signal::default(),
        chores: Signal::default(),
        chores_done: Signal::default(),
        checkpoints_wanted: Cell::new(0),
        checkpoints_done: Cell::new(0),
        checkpoint_result: Cell::new(Ok(())),
        world,
        device,
        volume,
        shard,
        options,
    }
}

impl<W: World> State<W> {
    /// Begins a journal segment of this generation behind what was recovered.
    /// Its header seals the log: records of the predecessor from `first` on
    /// never happened, whatever turns up later (F1).
    async fn begin(self: &Rc<Self>, found: Recovered) -> Result<Opened, StoreError> {
        let (segment, sequence) = found.tail;
        let spare = self.space.borrow_mut().allocate(Need::Core, Role::Journal);
        let at = self.volume.segment_at(segment).unwrap_or(0);
        let no_room = StoreError::Options {
            why: "no free segment to go on with; drain it with a larger cache",
        };
        let spare = spare.ok_or(no_room)?;
        let first = self.applied.get().next();
        let is_written = self.space.borrow().is_written(segment);
        if !is_written && !self.device.is_memory() {
            // A new cache's first: nobody had the time to do it ahead.
            let zeroed = self.write_zeros(segment).await;
            zeroed.map_err(|errno| StoreError::Io { at, errno })?;
        }
        let header = self
            .journal_header(segment, sequence, first, spare)
            .encode();
        let written = self.device.write(at, vec![Slice::from(header)], true).await;
        written.map_err(|errno| StoreError::Io { at, errno })?;
        let place = JournalPlace {
            segment,
            sequence,
            offset: HEADER_BYTES,
        };
        let mut log = Log::new(place, spare, first, self.segment_bytes());
        for old in found.chain.into_iter().rev() {
            log.chain.push_front(old);
        }
        self.prepare(&mut log, spare);
        *self.log.borrow_mut() = log;
        self.durable.set(self.applied.get());
        self.proved.set(self.applied.get());
        self.committed.set(self.transno.get());
        Ok(Opened {
            replayed: found.replayed,
            journal_bytes: found.journal_bytes,
            is_torn: found.is_torn,
            last: self.applied.get(),
            transno: self.transno.get(),
        })
    }
}
