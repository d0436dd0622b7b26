//! Fetching absent ranges from the origin: one fetch a chunk, however many
//! wait for it, and only what no write, truncate or punch changed meanwhile is
//! put into the cache (F8).

use super::file::{File, Watch};
use super::read::keep;
use super::records::{piece_of, pieces};
use super::{Shard, Tx};
use crate::base::Codec;
use crate::base::{Buf, Errno, Fid, Slice, TargetId};
use crate::cache::{Extent, What};
use crate::conf::Authority;
use crate::flash::Need;
use crate::flash::Peek;
use crate::namespace::{Inode, key};
use crate::origin::{OriginOp, OriginReply, Place};
use crate::shard::{contact, writeback};
use crate::world::sync::Promise;
use crate::world::{Level, World};
use std::ops::Range;
use std::rc::Rc;

/// Unit of reads from the origin and of read-ahead.
pub(super) const CHUNK: u64 = 1 << 20;

/// How often a file is looked for at the origin, for one read.
const LOCATE_MAX: u32 = 3;

/// A fetch under way.
pub(super) type Fetch = Promise<Result<Rc<Fetched>, Errno>>;

/// What the origin gave for a range of a file.
pub(super) struct Fetched {
    range: Range<u64>,
    /// As long as the range; zeros past the origin's end of file.
    bytes: Slice,
    /// Where the origin's file ended, if within the range.
    end: u64,
    watch: Rc<Watch>,
}

impl Fetched {
    /// The bytes of `range`, if they are within and nothing changed there since.
    pub fn part(&self, range: &Range<u64>) -> Option<Slice> {
        let within = self.range.start <= range.start && range.end <= self.range.end;
        (within && self.watch.is_clean(range)).then(|| self.slice(range))
    }

    fn slice(&self, range: &Range<u64>) -> Slice {
        let at = |o: u64| usize::try_from(o - self.range.start).expect("within a chunk");
        self.bytes.part(at(range.start)..at(range.end))
    }
}

/// The chunks that `ranges` (ascending) touch, each once.
pub(super) fn chunks_of(ranges: &[Range<u64>]) -> impl Iterator<Item = u64> {
    let mut next = 0;
    let chunks = ranges.iter().flat_map(move |r| {
        let first = (r.start / CHUNK).max(next);
        next = r.end.div_ceil(CHUNK).max(first);
        first..next
    });
    chunks.collect::<Vec<_>>().into_iter()
}

/// Starts fetching what is absent of a chunk, or joins the fetch under way.
pub(super) fn start<W: World>(
    shard: &Rc<Shard<W>>,
    file: &Rc<File>,
    inode: &Inode,
    chunk: u64,
) -> Fetch {
    if let Some(under_way) = file.fetches.borrow().get(&chunk) {
        return under_way.clone();
    }
    let promise = Promise::default();
    file.fetches.borrow_mut().insert(chunk, promise.clone());
    let range = absent_of(file, inode, chunk);
    let watch = file.watch();
    let (shard_, file, set) = (Rc::clone(shard), Rc::clone(file), promise.clone());
    // A task of its own: who waits may be gone before the origin answers.
    shard.world.spawn(async move {
        let result = ask(&shard_, file.fid, range, watch).await;
        shard_.flash.throttle().await;
        file.fetches.borrow_mut().remove(&chunk);
        if let Ok(fetched) = &result {
            settle(&shard_, &file, fetched);
        }
        set.set(result);
    });
    promise
}

/// From the first to the last absent byte of a chunk.
fn absent_of(file: &File, inode: &Inode, chunk: u64) -> Range<u64> {
    let end = inode.origin_size.min(inode.attr.size);
    let whole = chunk * CHUNK..((chunk + 1) * CHUNK).min(end);
    let map = file.map.borrow();
    let mut absent = map
        .lookup(whole.clone(), end)
        .filter(|s| s.what == What::Absent)
        .map(|s| s.range);
    match absent.next() {
        None => whole.start..whole.start,
        Some(first) => first.start..absent.last().map_or(first.end, |last| last.end),
    }
}

async fn ask<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    range: Range<u64>,
    watch: Rc<Watch>,
) -> Result<Rc<Fetched>, Errno> {
    let len = usize::try_from(range.end - range.start).expect("within a chunk");
    let mut buf = shard.world.pool().take(len);
    let mut end = range.start;
    if len > 0 {
        let got;
        (got, buf) = from_origin(shard, fid, range.start, buf).await?;
        let got = got.min(len);
        zero_from(&mut buf, got, len);
        end += got as u64;
        if got < len {
            let line = format!("{fid} is shorter at the origin than known: ends at {end}");
            shard.world.log(Level::Warn, &line);
        }
    }
    Ok(Rc::new(Fetched {
        range,
        bytes: buf.freeze(),
        end,
        watch,
    }))
}

/// Reads at the origin. A file that is not where it was looked for may only be
/// on its way there, or its descriptor may have outlived the origin's restart:
/// it is located anew, a few times.
async fn from_origin<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    offset: u64,
    mut buf: Buf,
) -> Result<(usize, Buf), Errno> {
    let target = shard.target_of(fid)?.id;
    let mut file = writeback::place(shard, fid).await?;
    let mut attempt = 0;
    loop {
        let place = file.clone();
        let op = OriginOp::Read {
            file: place,
            offset,
            buf,
        };
        contact::present(shard, target).await;
        // Taken by a call, not by the wait before it: other targets share them.
        let permit = shard.data.0.fetches.acquire().await;
        let reply = contact::call(shard, target, op).await;
        drop(permit);
        let (errno, back) = match reply {
            OriginReply::Read { result, buf } => match result {
                Ok(got) => return Ok((got, buf)),
                Err(errno) => (errno, buf),
            },
            OriginReply::Failed(errno) => return Err(errno),
            _ => return Err(Errno::EIO),
        };
        buf = back;
        if contact::reports_absence(shard, target, errno) {
            continue;
        }
        attempt += 1;
        if !matches!(errno, Errno::ESTALE | Errno::ENOENT) || attempt == LOCATE_MAX {
            return Err(errno);
        }
        file = located_anew(shard, target, fid, file).await?;
    }
}

async fn located_anew<W: World>(
    shard: &Rc<Shard<W>>,
    target: TargetId,
    fid: Fid,
    before: Place,
) -> Result<Place, Errno> {
    if let Some(identity) = before.identity {
        contact::call(shard, target, OriginOp::Forget { identity }).await;
    }
    writeback::settled(shard, target).await;
    writeback::place(shard, fid).await
}

fn zero_from(buf: &mut Buf, from: usize, len: usize) {
    buf.resize(len);
    buf[from..].fill(0);
}

/// Puts what was fetched into memory and onto flash, where it is still absent
/// and nothing changed. Without room on flash it stays in memory alone.
fn settle<W: World>(shard: &Rc<Shard<W>>, file: &Rc<File>, fetched: &Fetched) {
    let Peek::Found(bytes) = shard.flash.peek(&key::inode(file.fid)) else {
        return;
    };
    let Ok(inode) = Inode::from_slice(&bytes) else {
        return;
    };
    if !file.is_loaded() {
        return;
    }
    let origin_size = inode.origin_size.min(inode.attr.size);
    let absent: Vec<_> = {
        let map = file.map.borrow();
        let segments = map.lookup(fetched.range.clone(), origin_size);
        let absent = segments.filter(|s| s.what == What::Absent);
        absent
            .flat_map(|s| fetched.watch.unspoiled(s.range))
            .collect()
    };
    // Under shared authority a shorter file is another version of it, and what
    // it lacks is not a hole of this one.
    let exclusive = shard
        .target_of(file.fid)
        .is_ok_and(|t| t.conf.borrow().authority == Authority::Exclusive);
    let mut tx = Tx::default();
    for range in absent {
        let data = range.start..range.end.min(fetched.end).max(range.start);
        let hole = data.end..range.end;
        if !data.is_empty() {
            let bytes = fetched.slice(&data);
            keep(shard, file.fid, data.start, &bytes);
            fill(shard, &mut tx, file, &inode, data.start, &bytes);
        }
        if exclusive && !hole.is_empty() {
            let extent = Extent::hole(hole.end - hole.start, false, inode.snap_epoch);
            shard
                .data
                .edit(&mut tx, file, |map| map.replace(hole, vec![extent]));
        }
    }
    if !tx.puts.is_empty()
        && let Err(errno) = shard.apply(tx)
    {
        let line = format!("cannot cache what was fetched of {}: {errno}", file.fid);
        shard.world.log(Level::Debug, &line);
    }
}

/// Appends clean bytes to flash as far as there is room.
fn fill<W: World>(
    shard: &Rc<Shard<W>>,
    tx: &mut Tx,
    file: &Rc<File>,
    inode: &Inode,
    offset: u64,
    bytes: &Slice,
) {
    let mut at = offset;
    for bytes in pieces(bytes) {
        let Ok(appended) = shard.flash.append(&bytes, Need::Clean) else {
            shard.data.0.pressure.notify();
            return;
        };
        shard.note_appended(tx, bytes.len(), &appended);
        for appended in appended {
            tx.data.push(appended.clone());
            let extent = Extent::bytes(piece_of(appended), false, inode.snap_epoch);
            let range = at..at + extent.len;
            at = range.end;
            shard
                .data
                .edit(tx, file, |map| map.replace(range, vec![extent]));
        }
    }
}
