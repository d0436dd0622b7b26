//! What the kernel has of one file: `struct fuse_inode`, its dentries or its
//! pages.

use crate::linux::no_attr;
use crate::listing::Collected;
use crate::locks::Rwsem;
use forebay::base::{Mono, Name};
use forebay::fuse::abi::output::FuseAttr;
use forebay::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

pub struct Inode {
    pub nodeid: u64,
    pub ino: u64,
    pub is_dir: bool,
    /// `nlookup`, which FORGET gives back.
    pub lookups: Cell<u64>,
    /// `i_rwsem`.
    pub sem: Rc<Rwsem>,
    pub attr: RefCell<FuseAttr>,
    pub size: Cell<u64>,
    /// `i_time`: attributes are good before it.
    pub until: Cell<Mono>,
    pub attr_version: Cell<u64>,
    /// FUSE_I_SIZE_UNSTABLE: a size change is under way.
    pub is_unstable: Cell<bool>,
    /// Of a directory.
    pub names: RefCell<BTreeMap<Name, Rc<Dentry>>>,
    /// Names in look-up (`d_alloc_parallel`): one task asks for each.
    pub in_lookup: RefCell<BTreeSet<Name>>,
    /// Names whose invalidation waits for the semaphore, once for each.
    pub to_drop: RefCell<Vec<Name>>,
    pub looked_up: Signal,
    /// `i_version`: own changes of a directory.
    pub changes: Cell<u64>,
    pub collected: RefCell<Collected>,
    /// The page cache.
    pub pages: RefCell<BTreeMap<u64, Rc<Folio>>>,
    /// `writectr`: page WRITEs under way; far below zero, none may begin.
    pub writing: Cell<i64>,
    pub queued: RefCell<VecDeque<PageWrite>>,
    pub written: Signal,
    /// `write_files`: handles that page write-back may use.
    pub writers: RefCell<Vec<u64>>,
    /// Opens that use the page cache, and direct writes that run in parallel:
    /// never both (`iocachectr`).
    pub cached: Cell<u32>,
    pub parallel: Cell<u32>,
    pub mode_changed: Signal,
}

/// A name, or that it is not there.
pub struct Dentry {
    pub target: Option<Rc<Inode>>,
    pub until: Cell<Mono>,
    /// `d_time`.
    pub epoch: u64,
}

/// One page.
pub struct Folio {
    pub index: u64,
    pub is_locked: Cell<bool>,
    pub is_uptodate: Cell<bool>,
    pub is_dirty: Cell<bool>,
    pub is_writeback: Cell<bool>,
    /// A mapping may store to it without a word.
    pub is_writable: Cell<bool>,
    /// No longer in the page cache.
    pub is_gone: Cell<bool>,
    pub data: RefCell<Vec<u8>>,
    /// Values that were stored through mappings since it was last clean.
    pub stores: RefCell<Vec<u64>>,
    pub changed: Signal,
}

/// Pages on their way to the mount.
pub struct PageWrite {
    pub folios: Vec<Rc<Folio>>,
    pub stores: Vec<u64>,
}

impl Inode {
    pub fn new(nodeid: u64, ino: u64, is_dir: bool) -> Inode {
        Inode {
            nodeid,
            ino,
            is_dir,
            lookups: Cell::new(0),
            sem: Rc::default(),
            attr: RefCell::new(no_attr()),
            size: Cell::new(0),
            until: Cell::new(Mono(0)),
            attr_version: Cell::new(0),
            is_unstable: Cell::new(false),
            names: RefCell::default(),
            in_lookup: RefCell::default(),
            to_drop: RefCell::default(),
            looked_up: Signal::default(),
            changes: Cell::new(0),
            collected: RefCell::default(),
            pages: RefCell::default(),
            writing: Cell::new(0),
            queued: RefCell::default(),
            written: Signal::default(),
            writers: RefCell::default(),
            cached: Cell::new(0),
            parallel: Cell::new(0),
            mode_changed: Signal::default(),
        }
    }

    pub fn page(&self, index: u64) -> Option<Rc<Folio>> {
        self.pages.borrow().get(&index).cloned()
    }

    /// The first page of `first ..= last` that is there.
    pub fn next_page(&self, first: u64, last: u64) -> Option<Rc<Folio>> {
        if first > last {
            return None;
        }
        let pages = self.pages.borrow();
        pages.range(first..=last).next().map(|(_, f)| Rc::clone(f))
    }

    /// A new page, locked, with nothing in it.
    pub fn add_page(&self, index: u64) -> Rc<Folio> {
        let folio = Rc::new(Folio {
            index,
            is_locked: Cell::new(true),
            is_uptodate: Cell::new(false),
            is_dirty: Cell::new(false),
            is_writeback: Cell::new(false),
            is_writable: Cell::new(false),
            is_gone: Cell::new(false),
            data: RefCell::new(vec![0; PAGE as usize]),
            stores: RefCell::default(),
            changed: Signal::default(),
        });
        let old = self.pages.borrow_mut().insert(index, Rc::clone(&folio));
        assert!(old.is_none(), "page {index} is there already");
        folio
    }

    /// Takes a locked page out of the cache.
    pub fn remove_page(&self, folio: &Folio) {
        folio.is_gone.set(true);
        folio.is_dirty.set(false);
        folio.is_writable.set(false);
        self.pages.borrow_mut().remove(&folio.index);
    }
}

impl Folio {
    pub async fn lock(&self) {
        while self.is_locked.get() {
            self.changed.wait().await;
        }
        self.is_locked.set(true);
    }

    pub fn unlock(&self) {
        self.is_locked.set(false);
        self.changed.notify();
    }

    pub async fn written(&self) {
        while self.is_writeback.get() {
            self.changed.wait().await;
        }
    }

    pub fn load(&self, at: usize) -> u64 {
        let bytes = self.data.borrow();
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"))
    }

    pub fn store(&self, at: usize, value: u64) {
        self.data.borrow_mut()[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Takes in what a READ brought: zeros follow the end of the file.
    pub fn fill(&self, bytes: &[u8]) {
        let mut data = self.data.borrow_mut();
        data.fill(0);
        let len = bytes.len().min(data.len());
        data[..len].copy_from_slice(&bytes[..len]);
        self.is_uptodate.set(true);
    }
}

pub const PAGE: u64 = 4096;
