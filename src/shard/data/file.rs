//! A file in use: its extent map and what is under way on it. Maps are loaded
//! whole, kept while they are used, and let go by age; a file's record in the
//! table stays as long as anything holds it, so that all tasks agree on it.

use super::bulk::{self, Chore};
use super::fetch::Fetch;
use super::records::{decode, extents_of, stage};
use super::{Data, Shard, State, Tx};
use crate::base::{Codec, Errno, Fid};
use crate::cache::readahead::Detector;
use crate::cache::{Change, ExtentMap};
use crate::flash::Peek;
use crate::namespace::{Inode, key};
use crate::shard::counters::Event;
use crate::world::sync::Promise;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// Extent records of one page of a scan.
const PAGE: usize = 512;
/// Bytes that may be written before a writer must see whether the flash keeps
/// up: queued writes hold memory, and nothing else bounds it.
pub(super) const UNTHROTTLED_MAX: u64 = 4 << 20;
/// Ranges that a watch tells apart; past it they become one.
const SPOILED_MAX: usize = 64;

pub(super) struct File {
    pub fid: Fid,
    /// Meaningful while `loaded`.
    pub map: RefCell<ExtentMap>,
    loaded: Cell<bool>,
    used: Cell<u64>,
    watches: RefCell<Vec<Weak<Watch>>>,
    /// What the next load does before it returns.
    pub chore: Cell<Option<Chore>>,
    pub detector: RefCell<Detector>,
    /// Reads of the origin under way, by chunk.
    pub fetches: RefCell<BTreeMap<u64, Fetch>>,
    /// Loads from flash into memory under way, by chunk.
    pub loads: RefCell<BTreeMap<u64, Promise<()>>>,
}

/// Sees what changes in a file while something slow is under way (F8).
#[derive(Default)]
pub(super) struct Watch {
    spoiled: RefCell<Vec<Range<u64>>>,
    /// The lowest size that the file was cut to; `None`: it was not.
    cut: Cell<Option<u64>>,
}

impl Watch {
    fn spoil(&self, range: Range<u64>) {
        let mut spoiled = self.spoiled.borrow_mut();
        if let Some(last) = spoiled.last_mut()
            && last.start <= range.end
            && range.start <= last.end
        {
            *last = last.start.min(range.start)..last.end.max(range.end);
        } else if spoiled.len() == SPOILED_MAX {
            let hull = |a: Range<u64>, b: Range<u64>| a.start.min(b.start)..a.end.max(b.end);
            let all = spoiled.drain(..).fold(range, hull);
            spoiled.push(all);
        } else {
            spoiled.push(range);
        }
    }

    /// The parts of `range` in which nothing changed.
    pub fn unspoiled(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut left = vec![range];
        for spoiled in self.spoiled.borrow().iter() {
            left = left
                .into_iter()
                .flat_map(|r| {
                    let before = r.start..r.end.min(spoiled.start);
                    let after = r.start.max(spoiled.end)..r.end;
                    [before, after]
                })
                .filter(|r| !r.is_empty())
                .collect();
        }
        left
    }

    pub fn is_clean(&self, range: &Range<u64>) -> bool {
        let spoiled = self.spoiled.borrow();
        spoiled
            .iter()
            .all(|s| s.end <= range.start || s.start >= range.end)
    }

    /// The lowest size that the file was cut to meanwhile.
    pub fn cut(&self) -> Option<u64> {
        self.cut.get()
    }
}

impl File {
    fn new(fid: Fid) -> File {
        File {
            fid,
            map: RefCell::default(),
            loaded: Cell::new(false),
            used: Cell::new(0),
            watches: RefCell::default(),
            chore: Cell::new(None),
            detector: RefCell::default(),
            fetches: RefCell::default(),
            loads: RefCell::default(),
        }
    }

    /// False after a transaction on it was given up: the map is to be loaded again.
    pub fn is_loaded(&self) -> bool {
        self.loaded.get()
    }

    pub fn watch(&self) -> Rc<Watch> {
        let watch = Rc::new(Watch::default());
        let mut watches = self.watches.borrow_mut();
        watches.retain(|w| w.strong_count() > 0);
        watches.push(Rc::downgrade(&watch));
        watch
    }

    /// The bytes of `range` are others from now on.
    pub fn spoil(&self, range: Range<u64>) {
        for watch in self.watches.borrow().iter().filter_map(Weak::upgrade) {
            watch.spoil(range.clone());
        }
    }

    /// The file was cut to `size`.
    pub fn note_cut(&self, size: u64) {
        self.spoil(size..u64::MAX);
        for watch in self.watches.borrow().iter().filter_map(Weak::upgrade) {
            watch
                .cut
                .set(Some(watch.cut.get().map_or(size, |c| c.min(size))));
        }
    }
}

impl Data {
    /// The file, if its map is in memory.
    pub(super) fn loaded(&self, fid: Fid) -> Option<Rc<File>> {
        let file = self.0.files.borrow().get(&fid).cloned();
        let file = file.filter(|f| f.is_loaded())?;
        file.used.set(self.0.tick());
        Some(file)
    }

    /// Changes a loaded file's map and puts the change into the transaction,
    /// with the way back if it is not applied.
    pub(super) fn edit(
        &self,
        tx: &mut Tx,
        file: &Rc<File>,
        change: impl FnOnce(&mut ExtentMap) -> Change,
    ) {
        let mut map = file.map.borrow_mut();
        let before = map.len();
        let change = change(&mut map);
        let state = &self.0;
        state.extents.set(state.extents.get() + map.len() - before);
        state.note_dirty(file.fid, map.dirty_bytes());
        drop(map);
        stage(tx, file.fid, change);
        let (state, file) = (Rc::clone(state), Rc::clone(file));
        tx.undo.push(move || state.forget(&file));
    }

    fn install(&self, fid: Fid, map: ExtentMap) {
        let state = &self.0;
        let file = {
            let mut files = state.files.borrow_mut();
            Rc::clone(files.entry(fid).or_insert_with(|| Rc::new(File::new(fid))))
        };
        if file.loaded.replace(true) {
            return;
        }
        state.extents.set(state.extents.get() + map.len() + 1);
        state.note_dirty(fid, map.dirty_bytes());
        *file.map.borrow_mut() = map;
        let now = state.tick();
        file.used.set(now);
        state.order.borrow_mut().push_back((fid, now));
        drop(file);
        state.let_go();
    }
}

impl State {
    fn tick(&self) -> u64 {
        let now = self.clock.get() + 1;
        self.clock.set(now);
        now
    }

    fn note_dirty(&self, fid: Fid, bytes: u64) {
        let mut dirty = self.dirty.borrow_mut();
        let before = if bytes == 0 {
            dirty.remove(&fid)
        } else {
            dirty.insert(fid, bytes)
        };
        let sum = self.dirty_sum.get() + bytes - before.unwrap_or(0);
        self.dirty_sum.set(sum);
    }

    /// Takes a map out of memory because the index says something else.
    pub(super) fn forget(&self, file: &File) {
        if file.loaded.replace(false) {
            let map = file.map.take();
            self.extents.set(self.extents.get() - map.len() - 1);
            self.memory.borrow_mut().cut(file.fid, 0..u64::MAX);
            file.spoil(0..u64::MAX);
        }
    }

    /// Lets go of maps that were not used for long, down to the bound. A file
    /// that something holds stays.
    fn let_go(&self) {
        let mut order = self.order.borrow_mut();
        let mut files = self.files.borrow_mut();
        for _ in 0..order.len() {
            if self.extents.get() <= self.extents_max {
                break;
            }
            let Some((fid, queued)) = order.pop_front() else {
                break;
            };
            let Some(file) = files.get(&fid) else {
                continue;
            };
            let used = file.used.get();
            if used > queued || Rc::strong_count(file) > 1 {
                order.push_back((fid, used));
                continue;
            }
            if file.is_loaded() {
                let len = file.map.borrow().len() + 1;
                self.extents.set(self.extents.get() - len);
            }
            files.remove(&fid);
        }
    }
}

/// Loads the file's extent map; after it, until the next await, `truncate`,
/// `write`, `punch` and `remove` on the file cannot fail for want of loading.
pub async fn load<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<(), Errno> {
    loop {
        if shard.data.0.unthrottled.get() > UNTHROTTLED_MAX {
            shard.data.0.unthrottled.set(0);
            shard.flash.throttle().await;
        }
        if let Some(file) = shard.data.loaded(fid) {
            match file.chore.take() {
                None => return Ok(()),
                Some(chore) => bulk::run(shard, &file, chore).await?,
            }
            continue;
        }
        if has_no_bytes(shard, fid) {
            born(shard, fid);
            return Ok(());
        }
        let under_way = shard.data.0.loading.borrow().get(&fid).cloned();
        let promise = under_way.unwrap_or_else(|| {
            // A task of its own: the one that asks may be dropped meanwhile.
            let promise = Promise::default();
            let loading = &shard.data.0.loading;
            loading.borrow_mut().insert(fid, promise.clone());
            let (shard_, set) = (Rc::clone(shard), promise.clone());
            shard.world.spawn(async move {
                let map = scan(&shard_, fid).await;
                shard_.data.0.loading.borrow_mut().remove(&fid);
                set.set(map.map(|map| shard_.data.install(fid, map)));
            });
            promise
        });
        promise.get().await?;
    }
}

/// Notes that `fid` was just made and has no bytes, so that its first write
/// need not look for any.
pub fn born<W: World>(shard: &Shard<W>, fid: Fid) {
    shard.data.install(fid, ExtentMap::default());
}

/// An empty file has no extents: no need to look for them.
fn has_no_bytes<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    match shard.flash.peek(&key::inode(fid)) {
        Peek::Found(bytes) => Inode::from_slice(&bytes).is_ok_and(|i| i.attr.size == 0),
        Peek::Absent | Peek::NotLoaded => false,
    }
}

async fn scan<W: World>(shard: &Shard<W>, fid: Fid) -> Result<ExtentMap, Errno> {
    let mut range = extents_of(fid);
    let mut map = ExtentMap::default();
    loop {
        let page = shard.flash.scan(range.clone(), PAGE).await?;
        for (key, value) in &page {
            let loaded = decode(key, value)
                .ok_or("a damaged record")
                .and_then(|(at, extent)| map.load(at, extent));
            if let Err(why) = loaded {
                let line = format!("extents of {fid}: {why}; the file cannot be read");
                shard.world.log(Level::Error, &line);
                shard.counters.on(Event::RecordDamaged);
                return Err(Errno::EIO);
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => {
                range.start.clone_from(last);
                range.start.push(0);
            }
            _ => return Ok(map),
        }
    }
}

/// The file and its inode as they are now. Until the next await they stay so.
pub(super) async fn present<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
) -> Result<(Rc<File>, Inode), Errno> {
    loop {
        if shard.data.loaded(fid).is_none() {
            load(shard, fid).await?;
        }
        match (shard.data.loaded(fid), shard.flash.peek(&key::inode(fid))) {
            (Some(file), Peek::Found(bytes)) => {
                let inode = Inode::from_slice(&bytes).map_err(|_| Errno::EIO)?;
                return Ok((file, inode));
            }
            (_, Peek::Absent) => return Err(Errno::ESTALE),
            _ => {
                shard.flash.get(&key::inode(fid)).await?;
            }
        }
    }
}
