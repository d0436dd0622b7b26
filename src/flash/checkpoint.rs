//! Checkpoints: the memtable becomes level 0 tables, the manifest says so, the
//! root names the manifest, and the journal before it is trimmed. And the one
//! task that does this and compaction, one thing at a time.
//!
//! Order: tables, then the manifest (whose flush covers the tables), then the
//! root. Until the root is durable the old manifest and journal stand whole.

use super::index::{LEVEL0_STOP, Table, Version};
use super::state::{Base, State};
use crate::base::codec::Bytes;
use crate::base::{Errno, Lsn, Slice};
use crate::store::memtable::Memtable;
use crate::store::root::{ManifestPlace, Root};
use crate::store::segment::{SegmentHeader, SegmentKind};
use crate::store::space::{Need, Role};
use crate::store::table::{TableBuilder, TableEntry};
use crate::store::volume::root_place;
use crate::world::{Level, World};
use std::rc::Rc;

/// Table bytes are written in steps of about this size.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

impl<W: World> State<W> {
    /// The maintenance task, until the flash is closed or fenced.
    pub async fn maintain(self: Rc<Self>) {
        while !self.closing.get() && !self.fenced.get() {
            let wanted = self.checkpoints_wanted.get();
            let is_asked = wanted > self.checkpoints_done.get();
            if is_asked || self.wants_checkpoint() {
                let result = self.checkpoint().await;
                self.checkpoint_result.set(result);
                self.checkpoints_done.set(wanted);
                self.chores_done.notify();
                if let Err(errno) = result {
                    self.on_chore_failed("checkpoint", errno).await;
                }
                continue;
            }
            match self.compact_step().await {
                Ok(true) => self.world.yield_now().await,
                Ok(false) => self.chores.wait().await,
                Err(errno) => self.on_chore_failed("compaction", errno).await,
            }
        }
        self.chores_done.notify();
    }

    /// Not while level 0 is overfull: under a steady load checkpoints would
    /// never let compaction have its turn, and look-ups would grow with level 0.
    fn wants_checkpoint(&self) -> bool {
        let index = self.index.borrow();
        if index.version.levels[0].len() > LEVEL0_STOP {
            return false;
        }
        index.active.bytes() >= self.options.memtable_bytes
            || self.log.borrow().bytes() >= self.options.journal_bytes
    }

    /// No room is a state to wait out; anything else may have left flash and
    /// memory apart.
    async fn on_chore_failed(&self, what: &str, errno: Errno) {
        if errno == Errno::ENOSPC {
            self.world
                .log(Level::Warn, &format!("{what} waits: no free segment"));
            self.reap();
            self.progress.wait().await;
        } else {
            self.fence(what, errno);
        }
    }

    async fn checkpoint(self: &Rc<Self>) -> Result<(), Errno> {
        let (frozen, mut base) = self.freeze();
        self.commit(base.manifest.checkpoint).await?;
        let tables = self.write_tables(&frozen).await?;
        let mut version = (*self.index.borrow().version).clone();
        version.levels[0].extend(tables.into_iter().map(Rc::new));
        version.sort();
        base.manifest.next_table = self.index.borrow().next_table;
        self.publish(version, base).await?;
        self.index.borrow_mut().frozen = None;
        self.trim();
        Ok(())
    }

    /// Takes the memtable aside, with the accounts as they are at its last
    /// record. A memtable left by a checkpoint that failed goes first.
    fn freeze(&self) -> (Rc<Memtable>, Base) {
        let mut index = self.index.borrow_mut();
        if let Some(left) = index.frozen.take() {
            let mut merged = (*left).clone();
            for (key, value) in index.active.iter() {
                merged.insert(key.clone(), value.clone());
            }
            index.active = merged;
        }
        let frozen = Rc::new(std::mem::take(&mut index.active));
        index.frozen = Some(Rc::clone(&frozen));
        let mut base = self.base.borrow().clone();
        base.place = self.log.borrow().place();
        base.transno = self.transno.get();
        base.manifest.checkpoint = self.applied.get();
        base.manifest.live = self.space.borrow().live();
        (frozen, base)
    }

    async fn write_tables(self: &Rc<Self>, memtable: &Memtable) -> Result<Vec<TableEntry>, Errno> {
        let mut writer = TableWriter::new(self);
        for (key, value) in memtable.iter() {
            writer.push(key, value.as_deref()).await?;
        }
        writer.finish().await
    }

    /// Makes `version` the index, on flash and then in memory.
    pub async fn publish(self: &Rc<Self>, version: Version, mut base: Base) -> Result<(), Errno> {
        base.manifest.tables = version.entries();
        base.manifest.written = Bytes(self.space.borrow().written_bits());
        let mut root = self.root.borrow().clone();
        root.sequence += 1;
        let bytes = base.manifest.encode();
        if bytes.len() > self.segment_bytes() as usize {
            return Err(Errno::EFBIG);
        }
        let homes = base.manifest.homes;
        let home = if root.sequence.is_multiple_of(2) {
            homes.0
        } else {
            homes.1
        };
        root.manifest = Some(ManifestPlace {
            segment: home,
            bytes: u32::try_from(bytes.len()).expect("below a segment"),
        });
        self.device
            .write(self.place(home, 0)?, vec![Slice::from(bytes)], true)
            .await?;
        root.generation = self.generation;
        root.checkpoint = base.manifest.checkpoint;
        root.flushed = self.durable.get();
        root.transno = base.transno;
        root.journal = base.place;
        self.write_root(root).await?;
        self.install(version);
        *self.base.borrow_mut() = base;
        Ok(())
    }

    async fn write_root(&self, root: Root) -> Result<(), Errno> {
        let at = root_place(self.shard, root.sequence);
        self.device
            .write(at, vec![Slice::from(root.encode())], true)
            .await?;
        *self.root.borrow_mut() = root;
        Ok(())
    }

    fn install(&self, version: Version) {
        let mut index = self.index.borrow_mut();
        let kept = |t: &Table| {
            version
                .levels
                .iter()
                .flatten()
                .any(|v| v.segment == t.segment)
        };
        let old = std::mem::take(&mut index.version);
        let gone: Vec<Table> = old
            .levels
            .iter()
            .flatten()
            .filter(|t| !kept(t))
            .cloned()
            .collect();
        index.retired.extend(gone);
        index.version = Rc::new(version);
        drop(old);
        index.reap(&mut self.space.borrow_mut());
    }

    /// Journal before the checkpoint: a segment in which data lives is data
    /// from now on, where it lies; the others are free.
    fn trim(&self) {
        let keep = self.root.borrow().journal.sequence;
        let mut log = self.log.borrow_mut();
        while let Some(&(segment, sequence)) = log.chain.front() {
            if sequence >= keep {
                break;
            }
            log.chain.pop_front();
            self.space.borrow_mut().seal(segment, Lsn(0));
        }
        drop(log);
        self.reap();
        self.progress.notify();
    }
}

/// Writes a sorted stream of entries as tables, one a segment.
pub(super) struct TableWriter<'a, W: World> {
    state: &'a Rc<State<W>>,
    builder: Option<(TableBuilder, u32)>,
    done: Vec<TableEntry>,
}

impl<'a, W: World> TableWriter<'a, W> {
    pub fn new(state: &'a Rc<State<W>>) -> TableWriter<'a, W> {
        TableWriter {
            state,
            builder: None,
            done: Vec::new(),
        }
    }

    pub async fn push(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Errno> {
        let len = value.map_or(0, <[u8]>::len);
        if self
            .builder
            .as_ref()
            .is_some_and(|(b, _)| !b.fits(key.len(), len))
        {
            self.close().await?;
        }
        let (builder, segment) = match &mut self.builder {
            Some(open) => open,
            none => none.insert(begin(self.state)?),
        };
        builder.push(key, value);
        if let Some((at, bytes)) = builder.take_chunk(CHUNK_BYTES) {
            let segment = *segment;
            write_part(self.state, segment, at, bytes).await?;
            self.state.world.yield_now().await;
        }
        Ok(())
    }

    pub async fn finish(mut self) -> Result<Vec<TableEntry>, Errno> {
        self.close().await?;
        Ok(std::mem::take(&mut self.done))
    }

    async fn close(&mut self) -> Result<(), Errno> {
        let Some((builder, segment)) = self.builder.take() else {
            return Ok(());
        };
        match builder.finish() {
            Some((at, bytes, entry)) => {
                // Listed before the await, so that a failure gives its segment back.
                self.done.push(entry);
                write_part(self.state, segment, at, bytes).await
            }
            None => {
                self.state.space.borrow_mut().give_back(segment);
                Ok(())
            }
        }
    }
}

/// Unfinished work leaves no segment behind.
impl<W: World> Drop for TableWriter<'_, W> {
    fn drop(&mut self) {
        let mut space = self.state.space.borrow_mut();
        let open = self.builder.take().map(|(_, segment)| segment);
        let written = self.done.drain(..).map(|entry| entry.segment);
        written
            .chain(open)
            .for_each(|segment| space.give_back(segment));
    }
}

fn begin<W: World>(state: &Rc<State<W>>) -> Result<(TableBuilder, u32), Errno> {
    state.reap();
    let segment = state.space.borrow_mut().allocate(Need::Core, Role::Index);
    let segment = segment.ok_or(Errno::ENOSPC)?;
    let mut index = state.index.borrow_mut();
    let id = index.next_table;
    index.next_table += 1;
    Ok((
        TableBuilder::new(id, segment, state.segment_bytes()),
        segment,
    ))
}

async fn write_part<W: World>(
    state: &Rc<State<W>>,
    segment: u32,
    at: u32,
    bytes: Vec<u8>,
) -> Result<(), Errno> {
    let mut parts = vec![Slice::from(bytes)];
    let mut begin = at;
    if at == crate::store::segment::HEADER_BYTES {
        let header = SegmentHeader {
            kind: SegmentKind::Index,
            ..state.journal_header(segment, 0, Lsn(0), 0)
        };
        parts.insert(0, Slice::from(header.encode()));
        begin = 0;
    }
    state
        .device
        .write(state.place(segment, begin)?, parts, false)
        .await
}
