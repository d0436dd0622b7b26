//! One target's engine: fills the windows, picks what is due, waits.

use super::batch;
use super::failures::Failures;
use super::graph::Graph;
use super::tasks::either;
use super::{Shard, age, carry, contact};
use crate::base::{Codec, Errno, Fid, Mono, TargetId, Time};
use crate::conf;
use crate::namespace::{Owed, OwedOp, key};
use crate::shard::Target;
use crate::shard::contact::Contact;
use crate::world::sync::{Promise, Signal};
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Unfinished records held in memory, and dirty inodes known there.
const WINDOW: usize = 1 << 14;
/// Pairs read from flash at a time.
const PAGE: usize = 256;
/// Records in one batch, which shares the fsyncs of its directories.
const BATCH: usize = 256;
/// The longest sleep while something is dirty: how late the byte bound is seen.
const TICK: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// State of one target's write-back. Everything in it is rebuilt from flash.
pub struct Engine {
    pub target: TargetId,
    pub graph: RefCell<Graph>,
    /// The log is in the graph, or finished, below this number.
    pub cursor: Cell<u64>,
    /// Records below it are from before this start: they may have been applied
    /// at the origin without a note of it.
    pub recovered_below: u64,
    /// Records that failed, and those that wait for their file's data.
    retries: RefCell<BTreeMap<u64, Retry>>,
    pub publishing: RefCell<BTreeSet<u64>>,
    /// Records of the batch that is being carried.
    pub applying: RefCell<BTreeSet<u64>>,
    /// Records whose file's data has reached the origin.
    pub published: RefCell<BTreeSet<u64>>,
    /// What a flush waits for: records below the number, and single ones.
    pub urgent_below: Cell<u64>,
    pub urgent: RefCell<BTreeSet<u64>>,
    pressed: Cell<bool>,
    pub dirty: RefCell<BTreeMap<Fid, Dirty>>,
    /// There may be dirty inodes on flash that are not in `dirty`.
    pub more_dirty: Cell<bool>,
    /// Passes under way; a second caller waits for the first one's.
    pub carrying: RefCell<BTreeMap<Fid, Promise<Result<(), Errno>>>>,
    /// Directories that are being made late (see `apply::late_birth`).
    pub births: RefCell<BTreeMap<Fid, Promise<Result<(), Errno>>>>,
    /// Inodes whose identity at the origin is noted, but not yet on flash.
    pub unsettled: RefCell<BTreeSet<Fid>>,
    /// Counts up when a directory begins to move at an origin that finds files
    /// by names, and when that is noted: odd while what lies below it cannot
    /// be found for sure.
    pub moves: Cell<u64>,
    pub contact: Rc<Contact>,
    /// What fsync has yet to report.
    pub failures: RefCell<Failures>,
    /// Counts up when a batch begins and when it ends: odd while one is carried.
    pub batches: Cell<u64>,
    /// Batches in a row that were applied again because the origin may have
    /// forgotten what it had answered.
    pub doubts: Cell<u32>,
    wake: Signal,
    /// Asleep until something is owed, or dirty, for the first time.
    idle_names: Cell<bool>,
    idle_dirty: Cell<bool>,
    /// A batch was settled, a pass ended, or something failed.
    pub progressed: Signal,
    stopped: Cell<bool>,
}

/// A dirty inode.
#[derive(Clone, Copy, Debug)]
pub struct Dirty {
    pub since: Time,
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug)]
pub struct Retry {
    attempts: u32,
    pub at: Mono,
    pub errno: Errno,
}

impl Retry {
    fn after(last: Option<Retry>, now: Mono, errno: Errno) -> Retry {
        let attempts = last.map_or(1, |r| r.attempts.saturating_add(1));
        let wait = RETRY_FIRST * 2u32.saturating_pow(attempts.min(10) - 1);
        Retry {
            attempts,
            at: now + wait.min(RETRY_MAX),
            errno,
        }
    }
}

/// What is due now, and when the engine must look again.
struct Picked {
    records: Vec<(u64, Rc<Owed>)>,
    files: Vec<Fid>,
    again: Option<Duration>,
}

impl Engine {
    pub fn new(target: TargetId, next: u64, contact: Rc<Contact>) -> Engine {
        Engine {
            target,
            graph: RefCell::default(),
            cursor: Cell::new(0),
            recovered_below: next,
            retries: RefCell::default(),
            publishing: RefCell::default(),
            applying: RefCell::default(),
            published: RefCell::default(),
            urgent_below: Cell::new(0),
            urgent: RefCell::default(),
            pressed: Cell::new(false),
            dirty: RefCell::default(),
            more_dirty: Cell::new(true),
            carrying: RefCell::default(),
            births: RefCell::default(),
            unsettled: RefCell::default(),
            moves: Cell::new(0),
            contact,
            failures: RefCell::default(),
            batches: Cell::new(0),
            doubts: Cell::new(0),
            wake: Signal::default(),
            idle_names: Cell::new(false),
            idle_dirty: Cell::new(false),
            progressed: Signal::default(),
            stopped: Cell::new(false),
        }
    }

    pub fn stop(&self) {
        self.stopped.set(true);
        self.wake.notify();
    }
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }
    pub fn press(&self) {
        self.pressed.set(true);
        self.wake.notify();
    }
    pub fn wake(&self) {
        self.wake.notify();
    }

    /// A record was added to the log. Wakes only an engine that sleeps without
    /// a deadline: otherwise the record is read when it is due.
    pub fn on_owed(&self) {
        if self.idle_names.replace(false) {
            self.wake.notify();
        }
    }

    pub fn on_dirty(&self, fid: Fid, since: Time) {
        let mut dirty = self.dirty.borrow_mut();
        if dirty.len() >= WINDOW && !dirty.contains_key(&fid) {
            self.more_dirty.set(true);
            return;
        }
        dirty.entry(fid).or_insert(Dirty { since, retry: None });
        if self.idle_dirty.replace(false) {
            self.wake.notify();
        }
    }

    /// The failure of the file, or of one of these records, that is to be tried
    /// again; the one whose turn comes last.
    pub fn retry_of(&self, fid: Fid, records: impl Iterator<Item = u64>) -> Option<Retry> {
        let retries = self.retries.borrow();
        let failed = records.filter_map(|seq| retries.get(&seq).copied());
        let file = self.dirty.borrow().get(&fid).and_then(|dirty| dirty.retry);
        let all = failed.filter(|retry| retry.attempts > 0).chain(file);
        all.max_by_key(|retry| retry.at)
    }

    /// How long what was owed since `since` is left here before it is carried.
    pub fn wait<W: World>(&self, shard: &Shard<W>, target: &Target, since: Time) -> Duration {
        if self.pressed.get() {
            return Duration::ZERO;
        }
        patience(&target.conf.borrow()).saturating_sub(age(shard.world.wall(), since))
    }

    /// Does the log have to wait for records in the window to finish?
    pub fn is_full(&self) -> bool {
        self.graph.borrow().len() >= WINDOW
    }

    /// Has the whole log been read?
    pub fn is_read(&self, next: u64) -> bool {
        self.cursor.get() >= next
    }

    /// Nothing stands in the way of a first attempt: a flush was asked for.
    pub fn forget_retries(&self) {
        for retry in self.retries.borrow_mut().values_mut() {
            retry.at = Mono(0);
        }
        for dirty in self.dirty.borrow_mut().values_mut() {
            if let Some(retry) = &mut dirty.retry {
                retry.at = Mono(0);
            }
        }
        self.contact.resume();
        self.wake.notify();
    }

    pub fn record_failed<W: World>(&self, shard: &Shard<W>, seq: u64, op: &OwedOp, errno: Errno) {
        let mut retries = self.retries.borrow_mut();
        let last = retries.get(&seq).copied();
        let retry = Retry::after(last, shard.world.now(), errno);
        retries.insert(seq, retry);
        if let Some(fid) = made_by(op) {
            self.failures.borrow_mut().note(fid, errno);
        }
        self.report(shard, last.map(|r| r.errno), errno, || describe(op));
    }

    /// Is a directory on its way (see [`Engine::moves`])?
    pub fn is_moving(&self) -> bool {
        !self.moves.get().is_multiple_of(2)
    }

    pub fn has_failed(&self, seq: u64) -> bool {
        self.retries.borrow().contains_key(&seq)
    }

    /// The record was applied, and is not noted: it is applied again. Counts as
    /// tried, so that a file which dies meanwhile is looked for there.
    pub fn record_doubted(&self, seq: u64) {
        self.retries.borrow_mut().entry(seq).or_insert(Retry {
            attempts: 0,
            at: Mono(0),
            errno: Errno::EAGAIN,
        });
    }

    /// Could a record that moves the inode have been applied without a note of
    /// it? `own` is the record that asks; without one any such record counts.
    pub fn is_on_its_way(&self, fid: Fid, own: Option<u64>, next: u64) -> bool {
        let graph = self.graph.borrow();
        let mut movers = graph.movers(fid);
        match own {
            None => movers.next().is_some() || !self.is_read(next) || self.is_moving(),
            Some(own) => {
                let tried = |seq| seq < self.recovered_below || self.has_failed(seq);
                movers.any(|seq| seq != own && tried(seq)) || self.is_moving()
            }
        }
    }

    pub fn record_done(&self, seq: u64) {
        self.retries.borrow_mut().remove(&seq);
        self.published.borrow_mut().remove(&seq);
        self.urgent.borrow_mut().remove(&seq);
        self.graph.borrow_mut().finish(seq);
    }

    /// How the record failed since [`Engine::forget_retries`], if it did.
    pub fn failed_again(&self, seq: u64) -> Option<Errno> {
        let retries = self.retries.borrow();
        retries
            .get(&seq)
            .filter(|r| r.at > Mono(0))
            .map(|r| r.errno)
    }

    pub fn file_failed<W: World>(&self, shard: &Shard<W>, fid: Fid, errno: Errno) {
        let now = shard.world.now();
        let since = shard.world.wall();
        let mut dirty = self.dirty.borrow_mut();
        let entry = dirty.entry(fid).or_insert(Dirty { since, retry: None });
        let last = entry.retry;
        entry.retry = Some(Retry::after(last, now, errno));
        self.failures.borrow_mut().note(fid, errno);
        drop(dirty);
        self.report(shard, last.map(|r| r.errno), errno, || {
            format!("file {fid}")
        });
    }

    /// Logs a failure when it is new; repetitions are counted by their retries.
    fn report<W: World>(
        &self,
        shard: &Shard<W>,
        before: Option<Errno>,
        errno: Errno,
        what: impl FnOnce() -> String,
    ) {
        if before == Some(errno) {
            return;
        }
        let what = what();
        let line = format!(
            "target {}: write-back of {what} failed, kept: {errno}",
            self.target
        );
        shard.world.log(Level::Warn, &line);
        self.contact.note(errno, what);
    }

    pub fn failing(&self) -> u64 {
        let files = self
            .dirty
            .borrow()
            .values()
            .filter(|d| d.retry.is_some())
            .count();
        let retries = self.retries.borrow();
        let records = retries.values().filter(|r| r.attempts > 0).count();
        (records + files) as u64
    }
    pub fn oldest_owed(&self) -> Option<Time> {
        self.graph.borrow().first().map(|(_, record)| record.at)
    }
    pub fn oldest_dirty(&self) -> Option<Time> {
        self.dirty.borrow().values().map(|d| d.since).min()
    }

    fn pick<W: World>(&self, shard: &Shard<W>, target: &Target) -> Picked {
        let conf = target.conf.borrow();
        let patience = patience(&conf);
        let bytes = shard.data.dirty_bytes();
        if bytes > conf.writeback_bytes {
            self.pressed.set(true);
        } else if bytes <= conf.writeback_bytes / 2 {
            self.pressed.set(false);
        }
        let mut picked = Picked {
            records: Vec::new(),
            files: Vec::new(),
            again: None,
        };
        self.pick_records(shard, patience, &mut picked);
        self.pick_files(shard, patience, conf.origin_threads.max(2), &mut picked);
        picked
    }

    fn pick_records<W: World>(&self, shard: &Shard<W>, patience: Duration, picked: &mut Picked) {
        let (now, wall) = (shard.world.now(), shard.world.wall());
        let graph = self.graph.borrow();
        let (retries, urgent) = (self.retries.borrow(), self.urgent.borrow());
        let publishing = self.publishing.borrow();
        let pressed = self.pressed.get() || self.is_full();
        for (seq, record) in graph.ready() {
            if picked.records.len() >= BATCH {
                picked.again = Some(Duration::ZERO);
                break;
            }
            let wait = patience.saturating_sub(age(wall, record.at));
            let asked = seq < self.urgent_below.get() || urgent.contains(&seq);
            if !wait.is_zero() && !pressed && !asked {
                sooner(&mut picked.again, wait);
                // Younger ones are due later.
                if urgent.is_empty() {
                    break;
                }
                continue;
            }
            match retries.get(&seq) {
                Some(retry) if retry.at > now => sooner(&mut picked.again, retry.at - now),
                _ if publishing.contains(&seq) => {}
                _ => picked.records.push((seq, Rc::clone(record))),
            }
        }
    }

    fn pick_files<W: World>(
        &self,
        shard: &Shard<W>,
        patience: Duration,
        width: usize,
        picked: &mut Picked,
    ) {
        let (now, wall) = (shard.world.now(), shard.world.wall());
        let carrying = self.carrying.borrow();
        for (fid, dirty) in self.dirty.borrow().iter() {
            if carrying.len() + picked.files.len() >= width {
                break; // The end of a pass wakes the engine.
            }
            let wait = match self.pressed.get() {
                true => Duration::ZERO,
                false => patience.saturating_sub(age(wall, dirty.since)),
            };
            let wait = wait.max(dirty.retry.map_or(Duration::ZERO, |r| r.at - now));
            if !wait.is_zero() {
                sooner(&mut picked.again, wait);
            } else if !carrying.contains_key(fid) {
                picked.files.push(*fid);
            }
        }
    }
}

/// How old what is owed becomes before it is carried: half the lag leaves the
/// other half for the carrying.
fn patience(conf: &conf::TargetConf) -> Duration {
    match conf.writeback {
        conf::Writeback::Lag(lag) => lag / 2,
        conf::Writeback::Through | conf::Writeback::Off => Duration::ZERO,
    }
}

/// The engine's task.
pub async fn run<W: World>(shard: Rc<Shard<W>>, engine: Rc<Engine>) {
    while !engine.stopped.get() {
        let woken = engine.wake.wait();
        let Some(target) = shard.targets.borrow().get(&engine.target).cloned() else {
            break;
        };
        if let Some(pause) = engine.contact.pause(shard.world.now()) {
            either(woken, shard.world.sleep(pause)).await;
            continue;
        }
        if engine.contact.is_absent() {
            contact::reconnect(&shard, &target).await;
            continue;
        }
        if let Err(e) = fill(&shard, &engine).await {
            let line = format!(
                "target {}: write-back cannot read the flash: {e}",
                engine.target
            );
            shard.world.log(Level::Error, &line);
            either(woken, shard.world.sleep(RETRY_MAX)).await;
            continue;
        }
        let picked = engine.pick(&shard, &target);
        for fid in picked.files {
            carry::begin(&shard, &engine, fid);
        }
        if !picked.records.is_empty() {
            batch::run(&shard, &engine, &target, picked.records).await;
            continue;
        }
        doze(&shard, &engine, picked.again, woken).await;
    }
    // Nobody waits for what is not carried any more.
    engine.stopped.set(true);
    engine.progressed.notify();
}

async fn doze<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    again: Option<Duration>,
    woken: impl Future<Output = ()>,
) {
    let next = shard.writeback.next.get().unwrap_or(0);
    engine
        .idle_names
        .set(engine.graph.borrow().is_empty() && engine.is_read(next));
    let clean = engine.dirty.borrow().is_empty();
    engine.idle_dirty.set(clean);
    match (again, clean) {
        (Some(wait), true) => either(woken, shard.world.sleep(wait)).await,
        (wait, false) => {
            let wait = wait.map_or(TICK, |wait| wait.min(TICK));
            either(woken, shard.world.sleep(wait)).await;
        }
        (None, true) => woken.await,
    }
}

/// Reads on in the log and among the dirty inodes, as far as the windows allow.
async fn fill<W: World>(shard: &Rc<Shard<W>>, engine: &Engine) -> Result<(), Errno> {
    loop {
        // Everything below `next` is applied or will never be: `owe` and the
        // transaction's `apply` have no await between them.
        let next = shard.writeback.next.get().unwrap_or(0);
        let from = engine.cursor.get();
        if from >= next || engine.is_full() {
            break;
        }
        let page = shard
            .flash
            .scan(key::owed(from)..key::owed(next), PAGE)
            .await?;
        let mut cursor = if page.len() < PAGE { next } else { from };
        for (key, value) in page {
            let Some(seq) = seq_of(&key) else { continue };
            cursor = cursor.max(seq + 1);
            let record = Owed::from_slice(&value).map_err(|_| Errno::EIO)?;
            if record.target == engine.target.0 {
                engine.graph.borrow_mut().insert(seq, Rc::new(record));
            }
        }
        engine.cursor.set(cursor);
        engine.progressed.notify();
    }
    fill_dirty(shard, engine).await
}

/// Looks for dirty inodes on flash that memory does not know: after a start,
/// and when there were once more than the window holds.
async fn fill_dirty<W: World>(shard: &Rc<Shard<W>>, engine: &Engine) -> Result<(), Errno> {
    if !engine.more_dirty.get() || engine.dirty.borrow().len() > WINDOW / 2 {
        return Ok(());
    }
    engine.more_dirty.set(false);
    let mut from = key::dirty(Fid::NONE);
    loop {
        let page = shard
            .flash
            .scan(from.clone()..key::dirty(LAST), PAGE)
            .await?;
        let Some((last, _)) = page.last() else { break };
        from = [&last[..], &[0]].concat();
        let full = page.len() == PAGE;
        for (key, value) in page {
            let Some(fid) = fid_of(&key) else { continue };
            let ours = shard.target_of(fid).is_ok_and(|t| t.id == engine.target);
            if !ours {
                continue;
            }
            if engine.dirty.borrow().len() >= WINDOW {
                engine.more_dirty.set(true);
                return Ok(());
            }
            let since = Time::from_slice(&value).unwrap_or_default();
            let mut dirty = engine.dirty.borrow_mut();
            dirty.entry(fid).or_insert(Dirty { since, retry: None });
        }
        if !full {
            break;
        }
    }
    Ok(())
}

/// The dirty inodes of a page of flash, beginning after `after`, and since when
/// they are.
pub async fn dirty_page<W: World>(
    shard: &Shard<W>,
    after: Option<Fid>,
) -> Result<Vec<(Fid, Time)>, Errno> {
    let mut from = key::dirty(after.unwrap_or(Fid::NONE));
    if after.is_some() {
        from.push(0);
    }
    let page = shard.flash.scan(from..key::dirty(LAST), PAGE).await?;
    let since = |value: &[u8]| Time::from_slice(value).unwrap_or_default();
    let known = page.iter();
    let known = known.filter_map(|(key, value)| Some((fid_of(key)?, since(value))));
    Ok(known.collect())
}

/// Records of a page of the log from `from` on, whosesoever they are, and where
/// the next page begins; `None` at the log's end.
pub async fn owed_page<W: World>(
    shard: &Shard<W>,
    from: u64,
) -> Result<(Vec<(u64, Owed)>, Option<u64>), Errno> {
    let next = shard.writeback.next.get().unwrap_or(0);
    if from >= next {
        return Ok((Vec::new(), None));
    }
    let page = shard
        .flash
        .scan(key::owed(from)..key::owed(next), PAGE)
        .await?;
    let last = page.last().and_then(|(key, _)| seq_of(key));
    let mut records = Vec::with_capacity(page.len());
    for (key, value) in &page {
        let Some(seq) = seq_of(key) else { continue };
        records.push((seq, Owed::from_slice(value).map_err(|_| Errno::EIO)?));
    }
    Ok((
        records,
        last.filter(|_| page.len() == PAGE).map(|seq| seq + 1),
    ))
}

/// Above every FID in use.
const LAST: Fid = Fid {
    seq: u64::MAX,
    oid: u32::MAX,
    ver: u32::MAX,
};

fn seq_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn fid_of(key: &[u8]) -> Option<Fid> {
    Some(Fid::from_bytes(key.get(1..)?.try_into().ok()?))
}

fn sooner(again: &mut Option<Duration>, wait: Duration) {
    *again = Some(again.map_or(wait, |at| at.min(wait)));
}

/// The file whose fsync covers the record.
fn made_by(op: &OwedOp) -> Option<Fid> {
    match op {
        OwedOp::Create(o) | OwedOp::Link(o) => Some(o.fid),
        OwedOp::Rename(o) => Some(o.fid),
        OwedOp::Unlink(_) => None,
    }
}

fn describe(op: &OwedOp) -> String {
    match op {
        OwedOp::Create(o) => format!("create {} in {}", o.name, o.parent),
        OwedOp::Link(o) => format!("link {} in {}", o.name, o.parent),
        OwedOp::Unlink(o) => format!("removal of {} from {}", o.name, o.parent),
        OwedOp::Rename(o) => {
            format!(
                "rename {} in {} to {} in {}",
                o.from_name, o.from, o.to_name, o.to
            )
        }
    }
}
