//! The index: memtables over levels of tables, and the synchronous look into
//! them that says which page is missing.

use super::cache::{Held, META, Page, PageKey};
use super::state::State;
use crate::base::Errno;
use crate::store::block::Block;
use crate::store::bloom;
use crate::store::memtable::Memtable;
use crate::store::space::Space;
use crate::store::table::{TableEntry, TableMeta};
use crate::world::World;
use crate::world::sync::Promise;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Tables in level 0 before they are carried down.
pub(super) const LEVEL0_TABLES: usize = 8;
/// Above this many, compaction goes before the next checkpoint.
pub(super) const LEVEL0_STOP: usize = 2 * LEVEL0_TABLES;
/// Tables of level 1; each further level holds this many times more.
pub(super) const FANOUT: usize = 8;
pub(super) const LEVELS: usize = 7;

/// A table in use. Its segment is free when the last `Rc` is gone.
pub(super) type Table = Rc<TableEntry>;

/// The tables of the index: level 0 newest first, the others by key, without overlap.
#[derive(Clone, Default)]
pub(super) struct Version {
    pub levels: Vec<Vec<Table>>,
}

pub(super) struct Index {
    pub active: Memtable,
    /// Being written to tables.
    pub frozen: Option<Rc<Memtable>>,
    pub version: Rc<Version>,
    pub next_table: u64,
    /// No longer in the version; perhaps still being read.
    pub retired: Vec<Table>,
    pub loading: BTreeMap<PageKey, Promise<Result<Page, Errno>>>,
}

/// The page that a look-up lacks.
pub(super) struct Missing {
    pub table: Table,
    pub page: u32,
}

impl Version {
    pub fn new(tables: Vec<TableEntry>) -> Version {
        let mut version = Version {
            levels: vec![Vec::new(); LEVELS],
        };
        for table in tables {
            let level = usize::from(table.level).min(LEVELS - 1);
            version.levels[level].push(Rc::new(table));
        }
        version.sort();
        version
    }

    pub fn sort(&mut self) {
        for (i, level) in self.levels.iter_mut().enumerate() {
            if i == 0 {
                level.sort_by_key(|t| std::cmp::Reverse(t.id));
            } else {
                level.sort_by(|a, b| a.first.0.cmp(&b.first.0));
            }
        }
    }

    /// For the manifest. A table's level is where it stands here: one that
    /// moved down is still the same `Rc`, so that its readers keep it alive.
    pub fn entries(&self) -> Vec<TableEntry> {
        let levels = (0u8..).zip(&self.levels);
        let tables = levels.flat_map(|(level, tables)| tables.iter().map(move |t| (level, t)));
        tables
            .map(|(level, table)| TableEntry {
                level,
                ..(**table).clone()
            })
            .collect()
    }

    /// Tables that may hold the key, newest first.
    pub fn candidates<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = &'a Table> {
        self.levels.iter().enumerate().flat_map(move |(i, level)| {
            let range = if i == 0 {
                0..level.len()
            } else {
                let at = level.partition_point(|t| t.last.0.as_slice() < key);
                at..level.len().min(at + 1)
            };
            level[range].iter().filter(move |t| t.covers(key))
        })
    }
}

impl Index {
    pub fn new(tables: Vec<TableEntry>, next_table: u64, active: Memtable) -> Index {
        Index {
            active,
            frozen: None,
            version: Rc::new(Version::new(tables)),
            next_table,
            retired: Vec::new(),
            loading: BTreeMap::new(),
        }
    }

    /// Gives back the segments of tables that nobody reads any more.
    pub fn reap(&mut self, space: &mut Space) {
        self.retired.retain(|table| {
            let is_read = Rc::strong_count(table) > 1;
            if !is_read {
                space.give_back(table.segment);
            }
            is_read
        });
    }
}

impl<W: World> State<W> {
    /// The value as memory knows it, or the page that would tell.
    pub fn find(&self, key: &[u8], held: &Held) -> Result<Option<Rc<[u8]>>, Missing> {
        let index = self.index.borrow();
        if let Some(value) = index.active.find(key) {
            return Ok(value);
        }
        if let Some(value) = index.frozen.as_ref().and_then(|m| m.find(key)) {
            return Ok(value);
        }
        let hash = bloom::hash(key);
        for table in index.version.candidates(key) {
            let meta = self.meta(table, held)?;
            if !bloom::may_hold(&meta.filter.0, hash) {
                continue;
            }
            let Some(block) = meta.block_of(key) else {
                continue;
            };
            let block = self.block(table, block, held)?;
            if let Some(value) = block.find(key) {
                return Ok(value.map(Rc::from));
            }
        }
        Ok(None)
    }

    pub async fn get(self: &Rc<Self>, key: &[u8]) -> Result<Option<Rc<[u8]>>, Errno> {
        let mut held = Held::new();
        loop {
            let missing = match self.find(key, &held) {
                Ok(value) => return Ok(value),
                Err(missing) => missing,
            };
            let page = self.load(&missing).await?;
            held.insert((missing.table.id, missing.page), page);
        }
    }

    pub fn meta(&self, table: &Table, held: &Held) -> Result<Rc<TableMeta>, Missing> {
        match self.page((table.id, META), held) {
            Some(Page::Meta(meta)) => Ok(meta),
            _ => Err(Missing {
                table: Rc::clone(table),
                page: META,
            }),
        }
    }

    pub fn block(&self, table: &Table, i: usize, held: &Held) -> Result<Rc<Block>, Missing> {
        let page = u32::try_from(i).expect("a table has fewer blocks than bytes");
        match self.page((table.id, page), held) {
            Some(Page::Block(block)) => Ok(block),
            _ => Err(Missing {
                table: Rc::clone(table),
                page,
            }),
        }
    }

    fn page(&self, key: PageKey, held: &Held) -> Option<Page> {
        match held.get(&key) {
            Some(page) => Some(page.clone()),
            None => self.cache.borrow_mut().find(key),
        }
    }
}
