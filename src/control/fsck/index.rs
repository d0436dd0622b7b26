//! The index of a shard, read around whatever is damaged in it: what cannot be
//! read is left out and remembered, so that nobody takes it for absent.

use super::medium::{Shared, load};
use crate::base::{Codec, Slice};
use crate::store::Volume;
use crate::store::block::Block;
use crate::store::memtable::Memtable;
use crate::store::table::{BlockEntry, TableEntry};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// Blocks kept in memory: about 32 MiB of them.
const BLOCKS_MAX: usize = 4096;

/// Tables and memtable of one shard.
pub struct Index {
    medium: Shared,
    volume: Rc<Volume>,
    memtable: Memtable,
    /// Runs of tables that follow one another without overlap, newest first.
    runs: Vec<Vec<Table>>,
    /// Blocks that cannot be used: table, and place in its list.
    bad: BTreeSet<(u64, usize)>,
    /// Keys that may have stood in what cannot be read, by first and last.
    lost: Vec<(Vec<u8>, Vec<u8>)>,
    blocks: RefCell<BTreeMap<(u64, usize), Rc<Block>>>,
}

/// A table whose list of blocks could be read.
#[derive(Clone)]
pub struct Table {
    pub entry: TableEntry,
    pub blocks: Rc<Vec<BlockEntry>>,
}

pub type Pair = (Vec<u8>, Rc<[u8]>);

impl Index {
    #[must_use]
    pub fn new(medium: Shared, volume: Rc<Volume>, memtable: Memtable) -> Index {
        Index {
            medium,
            volume,
            memtable,
            runs: Vec::new(),
            bad: BTreeSet::new(),
            lost: Vec::new(),
            blocks: RefCell::default(),
        }
    }

    /// Adds a run, older than all before it.
    pub fn push_run(&mut self, run: Vec<Table>) {
        if !run.is_empty() {
            self.runs.push(run);
        }
    }

    /// Block `i` of the table is not to be used; keys from `first` to `last`
    /// may have been in it.
    pub fn lose_block(&mut self, table: u64, i: usize, first: &[u8], last: &[u8]) {
        self.bad.insert((table, i));
        self.lose(first, last);
    }

    /// Keys from `first` to `last` may be missing.
    pub fn lose(&mut self, first: &[u8], last: &[u8]) {
        self.lost.push((first.to_vec(), last.to_vec()));
    }

    /// May the key have stood in what cannot be read?
    #[must_use]
    pub fn may_be_lost(&self, key: &[u8]) -> bool {
        let has =
            |(first, last): &(Vec<u8>, Vec<u8>)| first.as_slice() <= key && key <= last.as_slice();
        self.lost.iter().any(has)
    }

    /// May keys of the range have stood in what cannot be read?
    #[must_use]
    pub fn may_lack(&self, range: &Range<Vec<u8>>) -> bool {
        let meets = |(first, last): &(Vec<u8>, Vec<u8>)| *first < range.end && range.start <= *last;
        self.lost.iter().any(meets)
    }

    /// The newest value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Rc<[u8]>> {
        let mut end = key.to_vec();
        end.push(0);
        self.range(key.to_vec()..end).next().map(|(_, value)| value)
    }

    /// The newest value of a key as what it should be; `None` if it is not there
    /// or is something else.
    #[must_use]
    pub fn record<T: Codec>(&self, key: &[u8]) -> Option<T> {
        T::from_slice(&self.get(key)?).ok()
    }

    /// All live pairs of the range, in order.
    #[must_use]
    pub fn range(&self, range: Range<Vec<u8>>) -> Pairs<'_> {
        let cursors = self.runs.iter().map(|run| self.seek(run, &range));
        let start = range.start.as_slice();
        let memory = self.memtable.range(start..range.end.as_slice());
        let memory: Memory<'_> = Box::new(memory);
        Pairs {
            memory: memory.peekable(),
            cursors: cursors.collect(),
            index: self,
            end: range.end,
        }
    }

    /// All live pairs of one table of keys, by its letter.
    #[must_use]
    pub fn letter(&self, letter: u8) -> Pairs<'_> {
        self.range(letter_range(letter))
    }

    fn seek<'a>(&'a self, run: &'a [Table], range: &Range<Vec<u8>>) -> Cursor<'a> {
        let key = range.start.as_slice();
        let table = run.partition_point(|t| t.entry.last.0.as_slice() < key);
        let block = run.get(table).map_or(0, |t| {
            let after = t.blocks.partition_point(|b| b.first.0.as_slice() <= key);
            after.saturating_sub(1)
        });
        let mut cursor = Cursor {
            run,
            table,
            block,
            entry: 0,
            at: None,
        };
        cursor.settle(self);
        while cursor.current().is_some_and(|(at, _)| at < key) {
            let at = cursor.at.as_ref().map_or(0, |b| b.lower_bound(key));
            // A block that is out of order must not hold this up.
            cursor.entry = at.max(cursor.entry + 1);
            cursor.settle(self);
        }
        cursor
    }

    fn block(&self, table: &Table, i: usize) -> Option<Rc<Block>> {
        let key = (table.entry.id, i);
        if self.bad.contains(&key) {
            return None;
        }
        if let Some(block) = self.blocks.borrow().get(&key) {
            return Some(Rc::clone(block));
        }
        let block = Rc::new(read_block(&self.medium, &self.volume, table, i).ok()?);
        let mut blocks = self.blocks.borrow_mut();
        if blocks.len() >= BLOCKS_MAX {
            blocks.clear();
        }
        blocks.insert(key, Rc::clone(&block));
        Some(block)
    }
}

/// Block `i` of a table, checked by itself.
///
/// # Errors
/// Why it cannot be used.
pub fn read_block(
    medium: &Shared,
    volume: &Volume,
    table: &Table,
    i: usize,
) -> Result<Block, String> {
    let entry = table.blocks.get(i).ok_or("no such block")?;
    let at = volume
        .segment_at(table.entry.segment)
        .ok_or("its segment does not exist")?;
    let bytes = load(
        medium.as_ref(),
        at + u64::from(entry.at),
        entry.bytes as usize,
    );
    let bytes = bytes.map_err(|e| e.to_string())?;
    Block::check(Slice::from(bytes)).map_err(|e| e.to_string())
}

/// All keys that begin with `letter`.
#[must_use]
pub fn letter_range(letter: u8) -> Range<Vec<u8>> {
    vec![letter]..vec![letter.saturating_add(1)]
}

/// All keys that begin with `prefix`, which does not end in 0xff alone.
#[must_use]
pub fn prefix_range(prefix: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = prefix.clone();
    while end.last() == Some(&u8::MAX) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    prefix..end
}

type Memory<'a> = Box<dyn Iterator<Item = (&'a Vec<u8>, &'a Option<Rc<[u8]>>)> + 'a>;

/// A place in a run.
struct Cursor<'a> {
    run: &'a [Table],
    table: usize,
    block: usize,
    entry: usize,
    at: Option<Rc<Block>>,
}

impl Cursor<'_> {
    fn current(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let block = self.at.as_ref().filter(|b| self.entry < b.len())?;
        Some(block.entry(self.entry))
    }

    /// Goes on to the next block that can be used where this one is used up.
    fn settle(&mut self, index: &Index) {
        while self.at.as_ref().is_none_or(|b| self.entry >= b.len()) {
            if self.at.take().is_some() {
                self.block += 1;
            }
            self.entry = 0;
            let Some(table) = self.run.get(self.table) else {
                return;
            };
            if self.block >= table.blocks.len() {
                self.table += 1;
                self.block = 0;
                continue;
            }
            self.at = index.block(table, self.block);
            if self.at.is_none() {
                self.block += 1;
            }
        }
    }

    fn advance(&mut self, index: &Index) {
        self.entry += 1;
        self.settle(index);
    }
}

/// A merge of all sources; the newest that has a key decides.
pub struct Pairs<'a> {
    index: &'a Index,
    memory: std::iter::Peekable<Memory<'a>>,
    cursors: Vec<Cursor<'a>>,
    end: Vec<u8>,
}

impl Iterator for Pairs<'_> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        loop {
            let stored = self
                .cursors
                .iter()
                .filter_map(|c| c.current().map(|(k, _)| k));
            let in_memory = self.memory.peek().map(|(key, _)| key.as_slice());
            let key = stored.chain(in_memory).min()?.to_vec();
            if key >= self.end {
                return None;
            }
            let mut newest: Option<Option<Rc<[u8]>>> = None;
            if let Some((_, value)) = self.memory.next_if(|(at, _)| **at == key) {
                newest = Some(value.clone());
            }
            for cursor in &mut self.cursors {
                let Some((_, value)) = cursor.current().filter(|(at, _)| *at == key) else {
                    continue;
                };
                newest = newest.or_else(|| Some(value.map(Rc::from)));
                cursor.advance(self.index);
            }
            if let Some(Some(value)) = newest {
                return Some((key, value));
            }
        }
    }
}
