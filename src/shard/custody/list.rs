//! What the origin lacks below a directory: how much of it is where, and the
//! files of one page, oldest first. Memory is bounded by the page: the tables of
//! what is dirty and owed are read through, once for each page.

use super::paths::Paths;
use super::{Custody, Place, Reason, is_uncommitted};
use crate::base::{Codec, Errno, Fid, Time};
use crate::dlm::Holder;
use crate::namespace::{Owed, OwedOp, key};
use crate::shard::writeback::{self, Below};
use crate::shard::{Shard, Target};
use crate::world::World;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Rows of one page at most.
pub const PAGE_MAX: usize = 1024;

/// Something that is owed: since when, and what. Their order is that of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    File(Time, Fid),
    /// An operation on a name, by its number in the log.
    Name(Time, u64),
}

impl Item {
    const fn since(&self) -> Time {
        match self {
            Item::File(since, _) | Item::Name(since, _) => *since,
        }
    }
    /// Its place in a list: what is as old is told apart by what it is.
    fn place(self) -> (Time, Item) {
        (self.since(), self)
    }
}

/// One row.
pub struct Row {
    pub item: Item,
    pub path: String,
    pub what: What,
}

pub enum What {
    /// Bytes, attributes or extended attributes of a file are owed.
    File(Custody),
    /// Only an operation on a name is.
    Name {
        operation: String,
        place: Place,
        age: Duration,
        reason: Reason,
    },
}

/// What is owed below a directory, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Files (and directories) with bytes or attributes owed.
    pub files: u64,
    /// Their bytes that are on the box's flash only, and those not even there.
    pub flash_bytes: u64,
    pub memory_bytes: u64,
    /// Operations on names.
    pub names: u64,
    /// Files that write-back keeps failing with.
    pub failing: u64,
    pub oldest: Option<Time>,
    /// Rows behind the page.
    pub more: u64,
}

pub struct Page {
    pub sum: Sum,
    pub rows: Vec<Row>,
}

/// What is owed at and below `top`: all of it summed up, and the `limit` oldest
/// rows behind `after`.
///
/// # Errors
/// As [`super::of`].
pub async fn page<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    top: Fid,
    (after, limit): (Option<Item>, usize),
) -> Result<Page, Errno> {
    let mut look = Look {
        below: Below::new(shard, top)?,
        after: after.map(Item::place),
        limit: limit.min(PAGE_MAX),
        oldest: BTreeSet::new(),
        sum: Sum::default(),
    };
    look.at_files(shard, target).await?;
    look.at_names(shard, target).await?;
    let Look {
        oldest, mut sum, ..
    } = look;
    let mut rows = Vec::with_capacity(oldest.len());
    let mut names = Vec::new();
    for (_, item) in &oldest {
        if let Item::Name(_, seq) = item {
            names.extend(record(shard, *seq).await?.map(|record| (*seq, record)));
        }
    }
    let files = oldest.iter().filter_map(|(_, item)| match item {
        Item::File(_, fid) => Some(*fid),
        Item::Name(..) => None,
    });
    let dirs = names.iter().map(|(_, record)| name_of(record).0);
    let paths = Paths::find(shard, target, files.chain(dirs)).await?;
    let mut names = names.into_iter();
    let mut silent = BTreeSet::new();
    for (_, item) in oldest {
        let row = match item {
            Item::File(_, fid) => file(shard, target, (item, fid), (&paths, &mut silent)).await?,
            Item::Name(..) => names
                .next()
                .map(|(seq, record)| name(shard, target, (item, seq), &record, &paths)),
        };
        rows.extend(row);
    }
    sum.more = sum.more.saturating_sub(rows.len() as u64);
    Ok(Page { sum, rows })
}

/// A pass over what is owed.
struct Look {
    below: Below,
    after: Option<(Time, Item)>,
    limit: usize,
    oldest: BTreeSet<(Time, Item)>,
    sum: Sum,
}

impl Look {
    fn add(&mut self, item: Item) {
        let (since, place) = (item.since(), item.place());
        self.sum.oldest = Some(self.sum.oldest.map_or(since, |at| at.min(since)));
        if self.after.is_some_and(|after| place <= after) {
            return;
        }
        self.sum.more += 1;
        self.oldest.insert(place);
        if self.oldest.len() > self.limit {
            self.oldest.pop_last();
        }
    }

    async fn at_files<W: World>(
        &mut self,
        shard: &Rc<Shard<W>>,
        target: &Target,
    ) -> Result<(), Errno> {
        let mut after = None;
        loop {
            let page = writeback::dirty_page(shard, after).await?;
            let Some((end, _)) = page.last().copied() else {
                return Ok(());
            };
            after = Some(end);
            for (fid, since) in page {
                if !self.below.has(shard, fid).await? {
                    continue;
                }
                let bytes = shard.data.dirty_bytes_of(fid);
                match is_uncommitted(shard, fid) {
                    true => self.sum.memory_bytes += bytes,
                    false => self.sum.flash_bytes += bytes,
                }
                self.sum.files += 1;
                self.sum.failing += u64::from(writeback::is_failing(shard, target.id, fid));
                self.add(Item::File(since, fid));
            }
            // A long list is not the business of those who wait for the shard.
            shard.world.yield_now().await;
        }
    }

    async fn at_names<W: World>(
        &mut self,
        shard: &Rc<Shard<W>>,
        target: &Target,
    ) -> Result<(), Errno> {
        let mut from = Some(0);
        while let Some(at) = from {
            let (page, next) = writeback::owed_page(shard, at).await?;
            for (seq, record) in page {
                let is_ours = record.target == target.id.0;
                if !is_ours || !self.below.concerns(shard, &record.op).await? {
                    continue;
                }
                self.sum.names += 1;
                if !is_listed(shard, &record).await? {
                    self.add(Item::Name(record.at, seq));
                }
            }
            shard.world.yield_now().await;
            from = next;
        }
        Ok(())
    }
}

/// Has the operation's file a row of its own, which names the operation?
async fn is_listed<W: World>(shard: &Shard<W>, record: &Owed) -> Result<bool, Errno> {
    let fid = name_of(record).1;
    Ok(shard.flash.get(&key::dirty(fid)).await?.is_some())
}

/// The directory in which the operation makes or removes a name, and its file.
fn name_of(record: &Owed) -> (Fid, Fid) {
    match &record.op {
        OwedOp::Create(o) | OwedOp::Link(o) => (o.parent, o.fid),
        OwedOp::Unlink(o) => (o.parent, o.fid),
        OwedOp::Rename(o) => (o.to, o.fid),
    }
}

async fn record<W: World>(shard: &Shard<W>, seq: u64) -> Result<Option<Owed>, Errno> {
    match shard.flash.get(&key::owed(seq)).await? {
        Some(bytes) => Owed::from_slice(&bytes).map(Some).map_err(|_| Errno::EIO),
        None => Ok(None),
    }
}

/// `None`: it is gone by now.
async fn file<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    (item, fid): (Item, Fid),
    (paths, silent): (&Paths, &mut BTreeSet<Holder>),
) -> Result<Option<Row>, Errno> {
    let known = (paths.owed(fid), &paths.above(fid)[..]);
    let custody = match super::of_listed(shard, target, fid, known, silent).await {
        Err(Errno::ESTALE) => return Ok(None),
        custody => custody?,
    };
    Ok(Some(Row {
        item,
        path: paths.path(fid),
        what: What::File(custody),
    }))
}

fn name<W: World>(
    shard: &Shard<W>,
    target: &Target,
    (item, seq): (Item, u64),
    record: &Owed,
    paths: &Paths,
) -> Row {
    let (dir, fid) = name_of(record);
    let name = match &record.op {
        OwedOp::Create(o) | OwedOp::Link(o) => &o.name,
        OwedOp::Unlink(o) => &o.name,
        OwedOp::Rename(o) => &o.to_name,
    };
    let path = match paths.path(dir) {
        root if root.is_empty() || dir.is_none() => name.to_string(),
        path => format!("{path}/{name}"),
    };
    let age = shard
        .world
        .wall()
        .nanos()
        .saturating_sub(record.at.nanos())
        .max(0);
    // The operation changed its file, too.
    let (place, reason) = match is_uncommitted(shard, fid) {
        true => (Place::Memory, Reason::Commit),
        false => {
            let why = writeback::why_record(shard, target, seq, record.at);
            (Place::Flash, Reason::Owed(why))
        }
    };
    Row {
        item,
        path,
        what: What::Name {
            operation: writeback::brief(&record.op),
            place,
            age: Duration::from_nanos(u64::try_from(age).unwrap_or(u64::MAX)),
            reason,
        },
    }
}
