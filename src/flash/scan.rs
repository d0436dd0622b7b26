//! Range scans: a merge over all sources that runs without an await, so that
//! its result is one moment's; it starts over when a page was missing.

use super::cache::Held;
use super::index::{Missing, Table};
use super::state::State;
use crate::base::Errno;
use crate::store::block::Block;
use crate::world::World;
use std::iter::Peekable;
use std::ops::Range;
use std::rc::Rc;

type Pairs = Vec<(Vec<u8>, Rc<[u8]>)>;
type MemEntries<'a> = Box<dyn Iterator<Item = (&'a Vec<u8>, &'a Option<Rc<[u8]>>)> + 'a>;

/// One sorted run of entries; the sources of a scan are ordered newest first.
enum Source<'a> {
    Memory(Peekable<MemEntries<'a>>),
    Tables(Chain<'a>),
}

/// Tables that follow one another without overlap.
struct Chain<'a> {
    tables: &'a [Table],
    block: Option<(usize, Rc<Block>)>,
    entry: usize,
}

impl<W: World> State<W> {
    pub async fn scan(
        self: &Rc<Self>,
        range: &Range<Vec<u8>>,
        limit: usize,
    ) -> Result<Pairs, Errno> {
        let mut held = Held::new();
        loop {
            let missing = match self.scan_memory(range, limit, &held) {
                Ok(pairs) => return Ok(pairs),
                Err(missing) => missing,
            };
            let page = self.load(&missing).await?;
            held.insert((missing.table.id, missing.page), page);
        }
    }

    fn scan_memory(
        &self,
        range: &Range<Vec<u8>>,
        limit: usize,
        held: &Held,
    ) -> Result<Pairs, Missing> {
        let index = self.index.borrow();
        let span = range.start.as_slice()..range.end.as_slice();
        let mut sources = vec![memory(Box::new(index.active.range(span.clone())))];
        if let Some(frozen) = &index.frozen {
            sources.push(memory(Box::new(frozen.range(span))));
        }
        for (i, level) in index.version.levels.iter().enumerate() {
            let runs = if i == 0 {
                level.chunks(1)
            } else {
                level.chunks(level.len().max(1))
            };
            for tables in runs {
                let mut chain = Chain {
                    tables,
                    block: None,
                    entry: 0,
                };
                chain.seek(self, &range.start, held)?;
                sources.push(Source::Tables(chain));
            }
        }
        let mut out = Vec::new();
        while out.len() < limit {
            let Some(key) = smallest(&mut sources).filter(|k| *k < range.end) else {
                break;
            };
            let mut value = None;
            for source in &mut sources {
                // The newest source that has the key decides; all move past it.
                if source.key().is_some_and(|k| k == key) {
                    let found = source.value();
                    value = value.or(Some(found));
                    source.advance(self, held)?;
                }
            }
            if let Some(Some(value)) = value {
                out.push((key, value));
            }
        }
        Ok(out)
    }
}

fn memory(entries: MemEntries<'_>) -> Source<'_> {
    Source::Memory(entries.peekable())
}

fn smallest(sources: &mut [Source<'_>]) -> Option<Vec<u8>> {
    sources
        .iter_mut()
        .filter_map(Source::key)
        .min()
        .map(<[u8]>::to_vec)
}

impl Source<'_> {
    fn key(&mut self) -> Option<&[u8]> {
        match self {
            Source::Memory(entries) => entries.peek().map(|(key, _)| key.as_slice()),
            Source::Tables(chain) => chain.current().map(|(key, _)| key),
        }
    }
    fn value(&mut self) -> Option<Rc<[u8]>> {
        match self {
            Source::Memory(entries) => entries.peek().and_then(|(_, value)| (*value).clone()),
            Source::Tables(chain) => chain.current().and_then(|(_, value)| value.map(Rc::from)),
        }
    }
    fn advance<W: World>(&mut self, state: &State<W>, held: &Held) -> Result<(), Missing> {
        match self {
            Source::Memory(entries) => {
                entries.next();
                Ok(())
            }
            Source::Tables(chain) => {
                chain.entry += 1;
                chain.settle(state, held)
            }
        }
    }
}

impl Chain<'_> {
    fn current(&self) -> Option<(&[u8], Option<&[u8]>)> {
        self.block
            .as_ref()
            .map(|(_, block)| block.entry(self.entry))
    }

    /// Goes to the first entry that is not before `key`.
    fn seek<W: World>(&mut self, state: &State<W>, key: &[u8], held: &Held) -> Result<(), Missing> {
        let skip = self.tables.partition_point(|t| t.last.0.as_slice() < key);
        self.tables = &self.tables[skip..];
        let Some(table) = self.tables.first() else {
            return Ok(());
        };
        let i = state.meta(table, held)?.block_of(key).unwrap_or(0);
        let block = state.block(table, i, held)?;
        self.entry = block.lower_bound(key);
        self.block = Some((i, block));
        self.settle(state, held)
    }

    /// Goes on to the next block or table where the present one is used up.
    fn settle<W: World>(&mut self, state: &State<W>, held: &Held) -> Result<(), Missing> {
        while let Some((i, block)) = &self.block {
            if self.entry < block.len() {
                return Ok(());
            }
            let Some(table) = self.tables.first() else {
                self.block = None;
                return Ok(());
            };
            let mut next = i + 1;
            let mut table = table;
            if next >= state.meta(table, held)?.blocks.len() {
                self.tables = &self.tables[1..];
                let Some(following) = self.tables.first() else {
                    self.block = None;
                    return Ok(());
                };
                (table, next) = (following, 0);
                state.meta(table, held)?;
            }
            self.block = Some((next, state.block(table, next, held)?));
            self.entry = 0;
        }
        Ok(())
    }
}
