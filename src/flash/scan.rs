//! Range scans, in two steps. The tables never change, so they are merged page
//! by page, awaiting freely, each page once; then memory is laid over them
//! without an await, so that the result is one moment's. What moved from memory
//! to tables meanwhile is seen by the version, and the scan starts over.
//!
//! Deleted keys leave entries until compaction drops them, and there may be very
//! many in a row: passing one costs one step, whatever has to be loaded.

use super::cache::{Held, Page};
use super::index::{Index, Missing, Table, Version};
use super::state::State;
use crate::base::Errno;
use crate::store::block::Block;
use crate::store::table::TableMeta;
use crate::world::World;
use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Range;
use std::rc::Rc;

type Pairs = Vec<(Vec<u8>, Rc<[u8]>)>;
type MemEntry<'a> = (&'a Vec<u8>, &'a Option<Rc<[u8]>>);

/// Entries passed before other tasks of the thread get a turn.
const TURN: usize = 4096;

/// Live pairs of the tables, in order.
struct Gathered {
    pairs: Pairs,
    /// Where the next one is; `None`: these are all of the range.
    rest: Option<Vec<u8>>,
}

/// Tables that follow one another without overlap, and the place in them.
struct Run {
    tables: VecDeque<Table>,
    /// Of the first table.
    meta: Option<Rc<TableMeta>>,
    block: Option<Rc<Block>>,
    next_block: usize,
    entry: usize,
}

impl<W: World> State<W> {
    pub async fn scan(
        self: &Rc<Self>,
        range: &Range<Vec<u8>>,
        limit: usize,
    ) -> Result<Pairs, Errno> {
        let mut wanted = limit;
        loop {
            let version = Rc::clone(&self.index.borrow().version);
            let gathered = self.gather(&version, range, wanted).await?;
            // No await from here on.
            let index = self.index.borrow();
            if !Rc::ptr_eq(&index.version, &version) {
                continue;
            }
            match overlay(&index, range, limit, gathered) {
                Some(pairs) => return Ok(pairs),
                // Memory deletes so many of them that others must fill up.
                None => wanted = wanted.saturating_mul(2),
            }
        }
    }

    /// The first `wanted` live pairs of the tables in the range.
    async fn gather(
        self: &Rc<Self>,
        version: &Version,
        range: &Range<Vec<u8>>,
        wanted: usize,
    ) -> Result<Gathered, Errno> {
        let mut runs = runs_of(version, range);
        for run in &mut runs {
            self.seek(run, &range.start).await?;
        }
        let mut pairs = Pairs::new();
        for passed in 1usize.. {
            let first = smallest(&runs).filter(|at| *at < range.end.as_slice());
            let Some(key) = first.map(<[u8]>::to_vec) else {
                break;
            };
            if pairs.len() >= wanted {
                let rest = Some(key);
                return Ok(Gathered { pairs, rest });
            }
            let mut newest = None;
            for run in &mut runs {
                // The newest source that has the key decides; all move past it.
                let Some((_, value)) = run.current().filter(|(at, _)| *at == key) else {
                    continue;
                };
                newest = newest.or_else(|| Some(value.map(Rc::from)));
                run.entry += 1;
                self.settle(run).await?;
            }
            if let Some(Some(value)) = newest {
                pairs.push((key, value));
            }
            if passed.is_multiple_of(TURN) {
                self.world.yield_now().await;
            }
        }
        Ok(Gathered { pairs, rest: None })
    }

    /// Goes to the first entry that is not before `key`.
    async fn seek(self: &Rc<Self>, run: &mut Run, key: &[u8]) -> Result<(), Errno> {
        let Some(meta) = self.meta_of(run).await? else {
            return Ok(());
        };
        run.next_block = meta.block_of(key).unwrap_or(0);
        self.settle(run).await?;
        if let Some(block) = &run.block {
            run.entry = block.lower_bound(key);
        }
        self.settle(run).await
    }

    /// Goes on to the next block or table where the present one is used up.
    async fn settle(self: &Rc<Self>, run: &mut Run) -> Result<(), Errno> {
        while run.block.as_ref().is_none_or(|b| run.entry >= b.len()) {
            run.block = None;
            run.entry = 0;
            let Some(meta) = self.meta_of(run).await? else {
                return Ok(());
            };
            if run.next_block >= meta.blocks.len() {
                run.tables.pop_front();
                (run.meta, run.next_block) = (None, 0);
                continue;
            }
            let Some(table) = run.tables.front() else {
                return Ok(());
            };
            run.block = Some(match self.block(table, run.next_block, &Held::new()) {
                Ok(block) => block,
                Err(missing) => match self.load(&missing).await? {
                    Page::Block(block) => block,
                    Page::Meta(_) => return Err(Errno::EIO),
                },
            });
            run.next_block += 1;
        }
        Ok(())
    }

    /// The meta part of the run's first table; `None` at the run's end.
    async fn meta_of(self: &Rc<Self>, run: &mut Run) -> Result<Option<Rc<TableMeta>>, Errno> {
        let Some(table) = run.tables.front() else {
            return Ok(None);
        };
        if run.meta.is_none() {
            run.meta = Some(match self.meta(table, &Held::new()) {
                Ok(meta) => meta,
                Err(missing) => self.load_missing_meta(&missing).await?,
            });
        }
        Ok(run.meta.clone())
    }

    async fn load_missing_meta(self: &Rc<Self>, missing: &Missing) -> Result<Rc<TableMeta>, Errno> {
        match self.load(missing).await? {
            Page::Meta(meta) => Ok(meta),
            Page::Block(_) => Err(Errno::EIO),
        }
    }
}

/// The sorted runs that may hold keys of the range, newest first.
fn runs_of(version: &Version, range: &Range<Vec<u8>>) -> Vec<Run> {
    let mut runs = Vec::new();
    for (i, level) in version.levels.iter().enumerate() {
        let size = if i == 0 { 1 } else { level.len().max(1) };
        for tables in level.chunks(size) {
            let within = |t: &&Table| t.last.0 >= range.start && t.first.0 < range.end;
            let tables: VecDeque<Table> = tables.iter().filter(within).cloned().collect();
            if !tables.is_empty() {
                runs.push(Run {
                    tables,
                    meta: None,
                    block: None,
                    next_block: 0,
                    entry: 0,
                });
            }
        }
    }
    runs
}

fn smallest(runs: &[Run]) -> Option<&[u8]> {
    let keys = runs
        .iter()
        .filter_map(|run| run.current().map(|(key, _)| key));
    keys.min()
}

impl Run {
    fn current(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let block = self.block.as_ref().filter(|b| self.entry < b.len())?;
        Some(block.entry(self.entry))
    }
}

/// What memory knows laid over what the tables hold: the first `limit` live
/// pairs. `None`: more of the tables is needed to have so many.
fn overlay(
    index: &Index,
    range: &Range<Vec<u8>>,
    limit: usize,
    gathered: Gathered,
) -> Option<Pairs> {
    let Gathered { pairs, rest } = gathered;
    let end = rest.as_ref().unwrap_or(&range.end);
    let span = || range.start.as_slice()..end.as_slice();
    let mut active = index.active.range(span()).peekable();
    let frozen = index.frozen.iter().flat_map(|m| m.range(span()));
    let mut frozen = frozen.peekable();
    let mut pairs = pairs.into_iter().peekable();
    let mut out = Pairs::new();
    while out.len() < limit {
        let keys = [
            active.peek().map(|(key, _)| *key),
            frozen.peek().map(|(key, _)| *key),
            pairs.peek().map(|(key, _)| key),
        ];
        let Some(key) = keys.into_iter().flatten().min().cloned() else {
            break;
        };
        let newest = entry_at(&mut active, &key);
        let older = entry_at(&mut frozen, &key);
        let stored = pairs.next_if(|(at, _)| *at == key);
        let value = newest
            .or(older)
            .unwrap_or_else(|| stored.map(|(_, value)| value));
        if let Some(value) = value {
            out.push((key, value));
        }
    }
    (out.len() == limit || rest.is_none()).then_some(out)
}

/// What the source says of the key, and goes past it.
fn entry_at<'a>(
    source: &mut Peekable<impl Iterator<Item = MemEntry<'a>>>,
    key: &Vec<u8>,
) -> Option<Option<Rc<[u8]>>> {
    source.next_if(|(at, _)| *at == key).map(|(_, v)| v.clone())
}
