//! Reading tables from flash: a page at a time for look-ups, as a stream for
//! compaction.

use super::cache::{META, Page};
use super::index::{Missing, Table};
use super::state::State;
use crate::base::{DecodeError, Errno, Slice};
use crate::store::block::Block;
use crate::store::table::{BlockEntry, TableMeta};
use crate::world::World;
use std::collections::VecDeque;
use std::rc::Rc;

/// A stream reads about this much at a time.
const STREAM_BYTES: u32 = 256 << 10;

impl<W: World> State<W> {
    /// Loads a page into the cache; one read for all who wait for it.
    pub async fn load(self: &Rc<Self>, missing: &Missing) -> Result<Page, Errno> {
        let key = (missing.table.id, missing.page);
        let waiting = self.index.borrow().loading.get(&key).cloned();
        if let Some(promise) = waiting {
            return promise.get().await;
        }
        // A task of its own: a caller that is dropped must not leave the others waiting.
        let promise = crate::world::sync::Promise::default();
        self.index.borrow_mut().loading.insert(key, promise.clone());
        let (state, done) = (Rc::clone(self), promise.clone());
        let table = Rc::clone(&missing.table);
        let page = missing.page;
        self.world.spawn(async move {
            let result = state.load_page(&table, page).await;
            if let Ok(page) = &result {
                state.cache.borrow_mut().insert(key, page.clone());
            }
            state.index.borrow_mut().loading.remove(&key);
            done.set(result);
        });
        promise.get().await
    }

    async fn load_page(&self, table: &Table, page: u32) -> Result<Page, Errno> {
        let meta = match self.cached_meta(table) {
            Some(meta) => meta,
            None => Rc::new(self.load_meta(table).await?),
        };
        if page == META {
            return Ok(Page::Meta(meta));
        }
        let entry = meta.blocks.get(page as usize).ok_or(Errno::EIO)?;
        let bytes = self.table_bytes(table, entry.at, entry.bytes).await?;
        let block = Block::check(bytes).map_err(|e| self.bad_table(table, e))?;
        Ok(Page::Block(Rc::new(block)))
    }

    fn cached_meta(&self, table: &Table) -> Option<Rc<TableMeta>> {
        match self.cache.borrow_mut().find((table.id, META)) {
            Some(Page::Meta(meta)) => Some(meta),
            _ => None,
        }
    }

    pub async fn load_meta(&self, table: &Table) -> Result<TableMeta, Errno> {
        let bytes = self
            .table_bytes(table, table.meta_at, table.meta_bytes)
            .await?;
        TableMeta::decode(&bytes, self.segment_bytes()).map_err(|e| self.bad_table(table, e))
    }

    pub async fn check_table(
        self: &Rc<Self>,
        after: Option<u64>,
    ) -> Option<(u64, Result<u64, Errno>)> {
        let version = Rc::clone(&self.index.borrow().version);
        let all = version.levels.iter().flatten();
        let behind = all.filter(|table| after.is_none_or(|id| table.id > id));
        let table = Rc::clone(behind.min_by_key(|table| table.id)?);
        drop(version);
        let mut stream = Stream::new(self, std::slice::from_ref(&table));
        let checked = stream.read_through().await;
        let bytes = u64::from(table.meta_at) + u64::from(table.meta_bytes);
        Some((table.id, checked.map(|()| bytes)))
    }

    async fn table_bytes(&self, table: &Table, at: u32, len: u32) -> Result<Slice, Errno> {
        let buf = self.world.pool().take(len as usize);
        let (result, buf) = self.device.read(self.place(table.segment, at)?, buf).await;
        result?;
        Ok(buf.freeze())
    }

    fn bad_table(&self, table: &Table, e: DecodeError) -> Errno {
        let line = format!(
            "flash of shard {}: index table {} in segment {} is damaged: {e}",
            self.shard, table.id, table.segment
        );
        self.note_damage(&line);
        Errno::EIO
    }
}

/// All entries of a chain of tables in key order, without touching the cache.
pub(super) struct Stream<W: World> {
    state: Rc<State<W>>,
    tables: VecDeque<Table>,
    /// The rest of the table being read.
    blocks: VecDeque<BlockEntry>,
    ready: VecDeque<Block>,
    entry: usize,
    reading: Option<Table>,
}

impl<W: World> Stream<W> {
    pub fn new(state: &Rc<State<W>>, tables: &[Table]) -> Stream<W> {
        Stream {
            state: Rc::clone(state),
            tables: tables.iter().cloned().collect(),
            blocks: VecDeque::new(),
            ready: VecDeque::new(),
            entry: 0,
            reading: None,
        }
    }

    /// The entry at hand, after `fill`. `None`: the end.
    pub fn current(&self) -> Option<(&[u8], Option<&[u8]>)> {
        self.ready.front().map(|block| block.entry(self.entry))
    }

    pub fn advance(&mut self) {
        self.entry += 1;
        if self.ready.front().is_some_and(|b| self.entry >= b.len()) {
            self.ready.pop_front();
            self.entry = 0;
        }
    }

    /// Reads and checks all blocks.
    async fn read_through(&mut self) -> Result<(), Errno> {
        loop {
            self.fill().await?;
            if self.ready.is_empty() {
                return Ok(());
            }
            self.ready.clear();
        }
    }

    /// Makes the entry at hand present, reading where needed.
    pub async fn fill(&mut self) -> Result<(), Errno> {
        while self.ready.is_empty() {
            if self.blocks.is_empty() {
                let Some(table) = self.tables.pop_front() else {
                    return Ok(());
                };
                self.blocks = self.state.load_meta(&table).await?.blocks.into();
                self.reading = Some(table);
            }
            self.read_run().await?;
        }
        Ok(())
    }

    /// Reads the next run of blocks that lie one after another.
    async fn read_run(&mut self) -> Result<(), Errno> {
        let (Some(table), Some(first)) = (self.reading.clone(), self.blocks.pop_front()) else {
            return Ok(());
        };
        let mut run = vec![(0, first.bytes)];
        let mut end = first.at + first.bytes;
        while let Some(next) = self.blocks.front() {
            if next.at != end || end - first.at + next.bytes > STREAM_BYTES {
                break;
            }
            run.push((next.at - first.at, next.bytes));
            end += next.bytes;
            self.blocks.pop_front();
        }
        let bytes = self
            .state
            .table_bytes(&table, first.at, end - first.at)
            .await?;
        for (at, len) in run {
            let part = bytes.part(at as usize..(at + len) as usize);
            let block = Block::check(part).map_err(|e| self.state.bad_table(&table, e))?;
            if !block.is_empty() {
                self.ready.push_back(block);
            }
        }
        Ok(())
    }
}
