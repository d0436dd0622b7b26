//! Scrubbing: all that lies on flash is read and checked once in a while, so
//! that rot is found while somebody can still do something about it.
//!
//! A pass looks at the index's tables, then at every file's bytes, segment by
//! segment, spread evenly over its time. Its place is kept on flash: a box that
//! is often restarted gets round, too. What is found:
//!
//! - **Clean bytes** that fail their checksum are given up; the origin has them.
//! - **Bytes that only the box has** cannot be had again. They stay where they
//!   are, are never answered (EIO), never carried to the origin, and are named in
//!   the log and in `status`, until the range is written anew, cut off or removed.
//! - **A damaged table** is named. What needs it fails.

use super::file::load;
use super::records::{Placed, appended_of, summaries_of};
use super::room::Fate;
use super::{Shard, Tx};
use crate::base::{Codec, Errno, Fid, Location};
use crate::cache::extent::Content;
use crate::flash::Peek;
use crate::namespace::key;
use crate::record;
use crate::shard::counters::Event;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Summary records of one page.
const PAGE: usize = 256;
/// Waits shorter than this are saved up.
const NAP: Duration = Duration::from_millis(10);
/// The shortest pass: an empty flash is not looked at without end.
const PASS_MIN: Duration = Duration::from_secs(1);
/// Damaged ranges that are remembered. Beyond it only the log names them.
const LOST_MAX: usize = 4096;

record! {
    /// Where a pass stands, kept under a setting of the box.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Place {
        pub passes: u64,
        /// The first segment that was not looked at.
        pub segment: u32,
    }
}

/// What scrubbing has done since the start, and what is known to be lost.
#[derive(Default)]
pub(super) struct Scrubbed {
    place: Cell<Place>,
    bytes: Cell<u64>,
    bad_tables: Cell<u64>,
    lost: RefCell<BTreeMap<(Fid, u64), Damage>>,
}

#[derive(Clone, Copy)]
struct Damage {
    len: u64,
    at: Location,
}

/// For `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrub {
    /// Passes that ended, over the life of the cache.
    pub passes: u64,
    /// Bytes checked since the start.
    pub bytes: u64,
    /// Tables of the index found damaged since the start.
    pub bad_tables: u64,
}

/// Bytes that only the box had, and that are damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub fid: Fid,
    pub range: Range<u64>,
}

#[must_use]
pub fn scrub_progress<W: World>(shard: &Shard<W>) -> Scrub {
    let scrubbed = &shard.data.0.scrubbed;
    Scrub {
        passes: scrubbed.place.get().passes,
        bytes: scrubbed.bytes.get(),
        bad_tables: scrubbed.bad_tables.get(),
    }
}

/// What is known to be lost and was not written anew, cut off or removed since.
#[must_use]
pub fn lost<W: World>(shard: &Shard<W>) -> Vec<Lost> {
    let mut lost = shard.data.0.scrubbed.lost.borrow_mut();
    lost.retain(|&(fid, offset), damage| {
        let Some(file) = shard.data.loaded(fid) else {
            // It was loaded when the damage was found. What happened since is
            // seen when it is loaded again.
            return !matches!(shard.flash.peek(&key::inode(fid)), Peek::Absent);
        };
        let there = file.map.borrow().at(offset).and_then(|e| e.location());
        there == Some(damage.at)
    });
    let each = lost.iter().map(|(&(fid, offset), damage)| Lost {
        fid,
        range: offset..offset + damage.len,
    });
    each.collect()
}

/// Notes damage for [`lost`] and names it, once.
pub(super) fn note_lost<W: World>(shard: &Shard<W>, fid: Fid, range: Range<u64>, at: Location) {
    let mut lost = shard.data.0.scrubbed.lost.borrow_mut();
    let len = range.end - range.start;
    let known = lost.get(&(fid, range.start));
    if known.is_some_and(|damage| damage.at == at) || lost.len() >= LOST_MAX {
        return;
    }
    lost.insert((fid, range.start), Damage { len, at });
    let line = format!(
        "bytes {}..{} of {fid} are damaged on flash and nowhere else: reads of them fail and \
         they are not carried to the origin, until they are written anew, cut off or removed",
        range.start, range.end
    );
    shard.world.log(Level::Error, &line);
    shard.counters.on(Event::BytesLost);
}

/// Looks at everything once in every `period`, for ever.
pub async fn scrub<W: World>(shard: Rc<Shard<W>>, period: Duration) {
    let period = period.max(PASS_MIN);
    if let Ok(place) = load_place(&shard).await {
        shard.data.0.scrubbed.place.set(place);
    }
    loop {
        let began = shard.world.now();
        if let Err(errno) = pass(&shard, period).await {
            let line = format!("the check of the flash was cut short: {errno}");
            shard.world.log(Level::Warn, &line);
        }
        // What is left of the time: nothing to look at, or faster than planned.
        let took = shard.world.now() - began;
        shard
            .world
            .sleep(period.saturating_sub(took).max(NAP))
            .await;
        if shard.flash.is_fenced() {
            return;
        }
    }
}

async fn pass<W: World>(shard: &Rc<Shard<W>>, period: Duration) -> Result<(), Errno> {
    let usage = shard.flash.usage();
    let first = shard.data.0.scrubbed.place.get().segment;
    let mut segments = usage.sealed.clone();
    segments.retain(|(segment, live)| *segment >= first && *live > 0);
    segments.sort_unstable();
    let used = usage.total_bytes - usage.free_bytes.min(usage.total_bytes);
    let mut pace = Pace {
        a_byte: period.as_secs_f64() / (used.max(1)) as f64,
        owed: 0.0,
    };
    if first == 0 {
        tables(shard, &mut pace).await;
    }
    for (segment, _) in segments {
        check_segment(shard, segment, &mut pace).await?;
        keep_place(shard, |place| place.segment = segment + 1)?;
    }
    keep_place(shard, |place| {
        place.segment = 0;
        place.passes += 1;
    })
}

async fn tables<W: World>(shard: &Rc<Shard<W>>, pace: &mut Pace) {
    let scrubbed = &shard.data.0.scrubbed;
    let mut after = None;
    while let Some((id, checked)) = shard.flash.check_table(after).await {
        after = Some(id);
        match checked {
            Ok(bytes) => pace.spend(shard, bytes).await,
            Err(_) => scrubbed.bad_tables.set(scrubbed.bad_tables.get() + 1),
        }
    }
}

async fn check_segment<W: World>(
    shard: &Rc<Shard<W>>,
    segment: u32,
    pace: &mut Pace,
) -> Result<(), Errno> {
    let mut range = summaries_of(segment);
    loop {
        let page = shard.flash.scan(range.clone(), PAGE).await?;
        for (_, value) in &page {
            if let Ok(placed) = Placed::from_slice(value) {
                let bytes = check(shard, placed, segment).await?;
                pace.spend(shard, bytes).await;
            }
        }
        let Some((key, _)) = page.last() else {
            return Ok(());
        };
        range.start.clone_from(key);
        range.start.push(0);
    }
}

/// Reads one extent; how many bytes that were.
async fn check<W: World>(shard: &Rc<Shard<W>>, placed: Placed, segment: u32) -> Result<u64, Errno> {
    if load(shard, placed.fid).await.is_err() {
        return Ok(0); // a damaged record, which `load` has named
    }
    let Some((_, before)) = shard.data.extent_at(placed, segment) else {
        return Ok(0);
    };
    let Content::Bytes { piece, skip, .. } = &before.content else {
        return Ok(0);
    };
    let part = *skip..*skip + u32::try_from(before.len).unwrap_or(u32::MAX);
    match shard.flash.read(&appended_of(piece), part).await {
        Ok(_) => return Ok(before.len),
        Err(Errno::EIO) => {}
        Err(_) => return Ok(0),
    }
    shard.flash.get(&key::inode(placed.fid)).await?;
    // From here on nothing can change.
    let now = shard.data.extent_at(placed, segment);
    let Some((_, now)) = now.filter(|(_, now)| *now == before) else {
        return Ok(before.len);
    };
    match shard.data.fate(shard, placed, segment) {
        Fate::Gone => {}
        Fate::Drop(file, range) => super::read::drop_damaged(shard, &file, range)?,
        Fate::Keep(len) => {
            if let Some(at) = now.location() {
                note_lost(shard, placed.fid, placed.offset..placed.offset + len, at);
            }
        }
    }
    Ok(before.len)
}

async fn load_place<W: World>(shard: &Shard<W>) -> Result<Place, Errno> {
    let kept = shard.flash.get(&key::setting(SETTING)).await?;
    let place = kept.and_then(|bytes| Place::from_slice(&bytes).ok());
    Ok(place.unwrap_or_default())
}

fn keep_place<W: World>(shard: &Shard<W>, change: impl FnOnce(&mut Place)) -> Result<(), Errno> {
    let scrubbed = &shard.data.0.scrubbed;
    let mut place = scrubbed.place.get();
    change(&mut place);
    let mut tx = Tx::default();
    tx.put(key::setting(SETTING), place.to_vec());
    shard.apply(tx)?;
    scrubbed.place.set(place);
    Ok(())
}

const SETTING: &str = "scrub";

/// Spreads a pass over its time.
struct Pace {
    /// Seconds that a byte takes.
    a_byte: f64,
    /// Seconds that were not waited yet.
    owed: f64,
}

impl Pace {
    async fn spend<W: World>(&mut self, shard: &Shard<W>, bytes: u64) {
        let scrubbed = &shard.data.0.scrubbed;
        scrubbed.bytes.set(scrubbed.bytes.get() + bytes);
        self.owed += self.a_byte * bytes as f64;
        let nap = Duration::from_secs_f64(self.owed);
        if nap >= NAP {
            self.owed = 0.0;
            shard.world.sleep(nap).await;
        } else {
            shard.world.yield_now().await;
        }
    }
}
