//! Compaction: one table of a level that is too full is merged into the tables
//! below that share its keys. A step reads and writes about ten tables at most,
//! which bounds both the time and the segments that it needs.

use super::checkpoint::TableWriter;
use super::index::{FANOUT, LEVEL0_TABLES, LEVELS, Table, Version};
use super::state::State;
use super::tables::Stream;
use crate::base::Errno;
use crate::store::table::TableEntry;
use crate::world::World;
use std::cmp::Ordering;
use std::rc::Rc;

/// One table, and those that it goes into.
struct Job {
    upper: Table,
    lower: Vec<Table>,
    /// The level of the result.
    level: usize,
}

impl<W: World> State<W> {
    /// Does one step if one is due; false if none is.
    pub async fn compact_step(self: &Rc<Self>) -> Result<bool, Errno> {
        let version = Rc::clone(&self.index.borrow().version);
        let Some(job) = pick(&version) else {
            return Ok(false);
        };
        let made = if job.lower.is_empty() {
            // Nothing to merge with: the table changes its level where it lies.
            vec![Rc::clone(&job.upper)]
        } else {
            let made = self.merge(&job, &version).await?;
            made.into_iter().map(Rc::new).collect()
        };
        let next = after(&version, &job, made);
        drop(version);
        let mut base = self.base.borrow().clone();
        base.manifest.next_table = self.index.borrow().next_table;
        self.publish(next, base).await?;
        Ok(true)
    }

    /// Is a step due?
    #[cfg(test)]
    pub fn has_to_compact(&self) -> bool {
        pick(&self.index.borrow().version).is_some()
    }

    async fn merge(
        self: &Rc<Self>,
        job: &Job,
        version: &Version,
    ) -> Result<Vec<TableEntry>, Errno> {
        let mut upper = Stream::new(self, std::slice::from_ref(&job.upper));
        let mut lower = Stream::new(self, &job.lower);
        let mut writer = TableWriter::new(self);
        loop {
            upper.fill().await?;
            lower.fill().await?;
            let order = match (upper.current(), lower.current()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let from = if order == Ordering::Greater {
                &lower
            } else {
                &upper
            };
            if let Some((key, value)) = from.current()
                && (value.is_some() || is_below(version, job.level, key))
            {
                writer.push(key, value).await?;
            }
            if order != Ordering::Greater {
                upper.advance();
            }
            if order != Ordering::Less {
                lower.advance();
            }
        }
        writer.finish().await
    }
}

/// Might a table below `level` hold the key, so that its deletion must be kept?
fn is_below(version: &Version, level: usize, key: &[u8]) -> bool {
    version.levels[level + 1..]
        .iter()
        .flatten()
        .any(|t| t.covers(key))
}

/// The most overfull level gives its oldest table.
fn pick(version: &Version) -> Option<Job> {
    let limit = |level: usize| match level {
        0 => LEVEL0_TABLES,
        _ => FANOUT.saturating_pow(u32::try_from(level).unwrap_or(u32::MAX)),
    };
    let level = (0..LEVELS - 1).find(|&i| version.levels[i].len() > limit(i))?;
    let upper = version.levels[level].iter().min_by_key(|t| t.id)?;
    let below = version.levels[level + 1].iter();
    let lower = below.filter(|t| t.overlaps(&upper.first.0, &upper.last.0));
    Some(Job {
        upper: Rc::clone(upper),
        lower: lower.cloned().collect(),
        level: level + 1,
    })
}

fn after(version: &Version, job: &Job, made: Vec<Table>) -> Version {
    let mut next = version.clone();
    for level in &mut next.levels {
        level.retain(|t| t.id != job.upper.id && job.lower.iter().all(|l| l.id != t.id));
    }
    next.levels[job.level].extend(made);
    next.sort();
    next
}
