//! What the origin is owed of one file, and why it has not been carried yet.

use super::engine::{self, Engine};
use super::{Shard, age};
use crate::base::codec::Codec;
use crate::base::{Errno, Fid, Time};
use crate::namespace::record::flag;
use crate::namespace::{Inode, Owed, OwedOp, key};
use crate::shard::{OriginState, Target};
use crate::world::World;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

const OWED: u32 = flag::ATTRS_OWED | flag::DATA_OWED | flag::XATTRS_OWED;

/// What is owed of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// For how long the oldest of it has been owed.
    pub age: Duration,
    /// Operations on its names that the origin has not got, in their order.
    pub names: Vec<String>,
    pub why: Why,
}

/// Why what is owed is not at the origin, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is on its way.
    Carrying,
    /// The policy lets it wait; it begins after so long.
    Lag { next: Duration },
    /// It is due, and waits for its turn among others.
    Queued,
    /// It waits for another operation, which may itself have failed.
    Waiting { on: String, errno: Option<Errno> },
    /// The origin refused it; it is tried again after so long.
    Refused { errno: Errno, next: Duration },
    /// The origin has not answered as it should for so long.
    Suspect { since: Duration },
    /// The origin is away since then.
    Away { since: Duration },
}

/// What the origin is owed of `fid`; `None`: nothing, its fsync of the file and
/// of the directories of its names returned (O1).
///
/// # Errors
/// ENXIO without an engine for the target; of reading the flash.
pub async fn standing<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Target,
    fid: Fid,
    inode: &Inode,
) -> Result<Option<Standing>, Errno> {
    let engine = shard.writeback.engines.borrow().get(&target.id).cloned();
    let engine = engine.ok_or(Errno::ENXIO)?;
    let own = records_of(shard, &engine, fid).await?;
    standing_by(shard, target, (fid, inode), &own).await
}

/// The same for who has looked through the log: `own` are the records in it that
/// [`moves`] the file, in their order.
///
/// # Errors
/// As above.
pub async fn standing_by<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Target,
    (fid, inode): (Fid, &Inode),
    own: &[(u64, Rc<Owed>)],
) -> Result<Option<Standing>, Errno> {
    let engine = shard.writeback.engines.borrow().get(&target.id).cloned();
    let engine = engine.ok_or(Errno::ENXIO)?;
    let since = shard.flash.get(&key::dirty(fid)).await?;
    let since = since.map(|bytes| Time::from_slice(&bytes).unwrap_or_default());
    let is_owed = inode.flags & (OWED | flag::UNBORN) != 0;
    let is_kept = inode.flags & flag::ORPHAN == 0 || !own.is_empty();
    if !(is_owed && is_kept) && own.is_empty() {
        return Ok(None);
    }
    let began = own.iter().map(|(_, record)| record.at);
    let since = began.chain(since).min().unwrap_or(shard.world.wall());
    let seqs: BTreeSet<u64> = own.iter().map(|(seq, _)| *seq).collect();
    Ok(Some(Standing {
        age: age(shard.world.wall(), since),
        why: why(shard, &engine, target, (fid, since), &seqs),
        names: own.iter().map(|(_, r)| brief(&r.op)).collect(),
    }))
}

/// Why the record `seq`, owed since `at`, is not at the origin.
pub fn why_record<W: World>(shard: &Shard<W>, target: &Target, seq: u64, at: Time) -> Why {
    let engine = shard.writeback.engines.borrow().get(&target.id).cloned();
    engine.map_or(Why::Queued, |engine| {
        let own = BTreeSet::from([seq]);
        why(shard, &engine, target, (Fid::NONE, at), &own)
    })
}

/// Unfinished records that make, move or remove the file: those that the engine
/// knows, and those that it has yet to read.
async fn records_of<W: World>(
    shard: &Shard<W>,
    engine: &Engine,
    fid: Fid,
) -> Result<Vec<(u64, Rc<Owed>)>, Errno> {
    let mut all: Vec<(u64, Rc<Owed>)> = {
        let graph = engine.graph.borrow();
        let own = graph.movers(fid);
        own.filter_map(|seq| Some((seq, graph.record(seq)?)))
            .collect()
    };
    let mut from = Some(engine.cursor.get());
    while let Some(at) = from {
        let (page, next) = engine::owed_page(shard, at).await?;
        let own = page
            .into_iter()
            .filter(|(_, record)| moves(&record.op, fid));
        all.extend(own.map(|(seq, record)| (seq, Rc::new(record))));
        from = next;
    }
    all.dedup_by_key(|(seq, _)| *seq);
    Ok(all)
}

/// Does the operation make, move or remove this file?
#[must_use]
pub fn moves(op: &OwedOp, fid: Fid) -> bool {
    match op {
        OwedOp::Create(o) | OwedOp::Link(o) => o.fid == fid,
        OwedOp::Unlink(o) => o.fid == fid,
        OwedOp::Rename(o) => o.fid == fid || o.victim == Some(fid),
    }
}

/// The operation in a word, and its name; where that is, the asker knows.
#[must_use]
pub fn brief(op: &OwedOp) -> String {
    match op {
        OwedOp::Create(o) => format!("create {}", o.name),
        OwedOp::Link(o) => format!("link {}", o.name),
        OwedOp::Unlink(o) => format!("remove {}", o.name),
        OwedOp::Rename(o) => format!("rename {} to {}", o.from_name, o.to_name),
    }
}

/// At one instant, from what the engine knows. What keeps everything back comes
/// before what keeps this file back, and that before its own time.
fn why<W: World>(
    shard: &Shard<W>,
    engine: &Engine,
    target: &Target,
    (fid, since): (Fid, Time),
    own: &BTreeSet<u64>,
) -> Why {
    let now = shard.world.now();
    let state = engine.contact.state(now);
    let troubled = engine.contact.troubled(now);
    if matches!(state, OriginState::Disconnected | OriginState::Reconnecting) {
        let since = engine.contact.away(now).or(troubled).unwrap_or_default();
        return Why::Away { since };
    }
    let is_applied = !engine.applying.borrow().is_disjoint(own);
    let is_published = !engine.publishing.borrow().is_disjoint(own);
    if is_applied || is_published || engine.carrying.borrow().contains_key(&fid) {
        return match troubled.filter(|_| state == OriginState::Suspect) {
            Some(since) => Why::Suspect { since },
            None => Why::Carrying,
        };
    }
    if let Some(retry) = engine.retry_of(fid, own.iter().copied()) {
        let (errno, next) = (retry.errno, retry.at - now);
        return Why::Refused { errno, next };
    }
    if let Some(since) = troubled.filter(|_| state == OriginState::Suspect) {
        return Why::Suspect { since };
    }
    let graph = engine.graph.borrow();
    let mut before = graph.with_those_before(own.iter().copied().collect());
    before.retain(|seq| !own.contains(seq));
    let said = |seq: u64| graph.record(seq).map(|r| brief(&r.op)).unwrap_or_default();
    let failed = before.iter().find_map(|seq| {
        let retry = engine.retry_of(Fid::NONE, std::iter::once(*seq))?;
        Some((*seq, retry.errno))
    });
    if let Some((seq, errno)) = failed {
        let (on, errno) = (said(seq), Some(errno));
        return Why::Waiting { on, errno };
    }
    let next = engine.wait(shard, target, since);
    match before.first() {
        _ if !next.is_zero() => Why::Lag { next },
        Some(seq) => Why::Waiting {
            on: said(*seq),
            errno: None,
        },
        None => Why::Queued,
    }
}
