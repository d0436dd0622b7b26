//! Index blocks in memory, bounded in bytes. Second chance in the order of
//! arrival: what was not touched since it was last passed is dropped first.

use crate::store::block::Block;
use crate::store::table::TableMeta;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// A table's id and a block's index in it.
pub(super) type PageKey = (u64, u32);
/// The index of a table's meta part.
pub(super) const META: u32 = u32::MAX;

/// A page of the index.
#[derive(Clone)]
pub(super) enum Page {
    Meta(Rc<TableMeta>),
    Block(Rc<Block>),
}

/// Pages that one operation holds while it loads more, whatever the cache does.
pub(super) type Held = BTreeMap<PageKey, Page>;

pub(super) struct BlockCache {
    pages: BTreeMap<PageKey, Entry>,
    order: VecDeque<PageKey>,
    bytes: usize,
    bytes_max: usize,
    /// Pages that were looked for.
    #[cfg(test)]
    looks: usize,
}

struct Entry {
    page: Page,
    is_used: bool,
}

impl Page {
    fn weight(&self) -> usize {
        match self {
            Page::Meta(meta) => meta.weight(),
            Page::Block(block) => block.weight(),
        }
    }
}

impl BlockCache {
    pub fn new(bytes_max: usize) -> BlockCache {
        BlockCache {
            pages: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            bytes_max,
            #[cfg(test)]
            looks: 0,
        }
    }

    #[cfg(test)]
    pub fn looks(&self) -> usize {
        self.looks
    }

    pub fn find(&mut self, key: PageKey) -> Option<Page> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let entry = self.pages.get_mut(&key)?;
        entry.is_used = true;
        Some(entry.page.clone())
    }

    pub fn insert(&mut self, key: PageKey, page: Page) {
        let weight = page.weight();
        let entry = Entry {
            page,
            is_used: false,
        };
        match self.pages.insert(key, entry) {
            Some(old) => self.bytes -= old.page.weight(),
            None => self.order.push_back(key),
        }
        self.bytes += weight;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max {
            let Some(key) = self.order.pop_front() else {
                return;
            };
            let Some(entry) = self.pages.get_mut(&key) else {
                continue;
            };
            if std::mem::take(&mut entry.is_used) {
                self.order.push_back(key);
            } else if let Some(gone) = self.pages.remove(&key) {
                self.bytes -= gone.page.weight();
            }
        }
    }

    #[cfg(test)]
    pub fn clear(&mut self) {
        self.pages.clear();
        self.order.clear();
        self.bytes = 0;
    }
}
