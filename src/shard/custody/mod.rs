//! Custody: where the newest copy of a file's bytes is safe, how many copies
//! there are at that place, and why they are not at the origin yet.
//!
//! ```text
//! the client that has it alone is ahead of the box ─► memory
//! a change of it is not on the box's flash         ─► memory
//! the origin is owed something of it               ─► flash
//! the origin's fsync returned (O1)                 ─► origin
//! ```
//! It owns no state: it puts together what the lock table, the journal and
//! write-back know at the instant of the question. So nothing that it says is
//! ever remembered, and looking takes no lock away: who has a file to itself is
//! asked whether it is ahead ([`glimpse`]), and keeps it.
//!
//! Start at [`of`]; `list` is the same for a part of the tree, `ask` for
//! applications, `report` for the administrator. `docs/CUSTODY.md` says what
//! each word means.

mod ask;
mod list;
mod paths;
mod report;
mod text;

pub use ask::{get, set};
pub use paths::Paths;
pub use report::{Asked, report};

use super::locks::glimpse;
use super::writeback::{self, Standing, Why};
use super::{Shard, Target, data, meta};
use crate::base::{Attr, Errno, Fid};
use crate::dlm::Holder;
use crate::namespace::record::flag;
use crate::namespace::{Inode, Owed};
use crate::world::World;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Where the newest copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A client's memory, or the box's: not on any stable storage.
    Memory,
    /// The box's flash; the origin lacks something of it.
    Flash,
    /// The origin, after its fsync.
    Origin,
}

/// Copies that the box knows of, wherever they are: it keeps one on flash (F13),
/// and what an origin does with its own is the origin's affair.
pub const COPIES: u32 = 1;

/// Why the newest copy is not further than it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is at the origin.
    None,
    /// The client of this name has the file to itself, and is ahead of the box,
    /// or does not say.
    Client(String),
    /// The box is writing it to its flash.
    Commit,
    Owed(Why),
}

/// What is known of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Custody {
    pub place: Place,
    /// Bytes here that the origin lacks.
    pub dirty_bytes: u64,
    /// For how long the oldest of what it lacks has been here.
    pub age: Duration,
    pub reason: Reason,
    /// Operations on the file's names that it lacks, in their order.
    pub names: Vec<String>,
    /// Clients that may store to the file through mappings, and so hold bytes
    /// that only their kernels know of.
    pub mapped: Vec<String>,
}

/// Custody of one file. `asker` has told the box all that it has answered, and
/// `above` are directories over the file whose holder may have changed it.
///
/// # Errors
/// ESTALE: there is no such file. ENXIO: the target is not in service. EIO: the
/// flash cannot be read.
pub async fn of<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    fid: Fid,
    (asker, above): (Option<Holder>, &[Fid]),
) -> Result<Custody, Errno> {
    let ahead = ahead(shard, fid, (asker, above), &mut BTreeSet::new()).await?;
    let inode = inode(shard, fid).await?;
    let standing = writeback::standing(shard, target, fid, &inode).await?;
    Ok(custody(shard, fid, standing, ahead))
}

/// The same for who has looked through the log of owed operations, and goes on to
/// other files: who is `silent` is waited for once.
async fn of_listed<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    fid: Fid,
    (own, above): (&[(u64, Rc<Owed>)], &[Fid]),
    silent: &mut BTreeSet<Holder>,
) -> Result<Custody, Errno> {
    let ahead = ahead(shard, fid, (None, above), silent).await?;
    let inode = inode(shard, fid).await?;
    let standing = writeback::standing_by(shard, target, (fid, &inode), own).await?;
    Ok(custody(shard, fid, standing, ahead))
}

fn custody<W: World>(
    shard: &Shard<W>,
    fid: Fid,
    standing: Option<Standing>,
    ahead: Option<String>,
) -> Custody {
    let is_uncommitted = is_uncommitted(shard, fid);
    let (age, names, why) = match standing {
        Some(standing) => (standing.age, standing.names, Some(standing.why)),
        None => (Duration::ZERO, Vec::new(), None),
    };
    let (place, reason) = match (ahead, why) {
        (Some(client), _) => (Place::Memory, Reason::Client(client)),
        (None, _) if is_uncommitted => (Place::Memory, Reason::Commit),
        (None, Some(why)) => (Place::Flash, Reason::Owed(why)),
        (None, None) => (Place::Origin, Reason::None),
    };
    Custody {
        place,
        dirty_bytes: shard.data.dirty_bytes_of(fid),
        age,
        reason,
        names,
        mapped: shard.locks.storing(fid),
    }
}

/// May a crash of the box's machine still take the last change of it back?
pub fn is_uncommitted<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    shard.meta.is_uncommitted(fid, shard.flash.last_committed())
}

/// The client that has the file, or a directory above it, to itself and has
/// answered changes of it which the box has not got. One that does not answer
/// may have, and is not asked again.
async fn ahead<W: World>(
    shard: &Rc<Shard<W>>,
    fid: Fid,
    (asker, above): (Option<Holder>, &[Fid]),
    silent: &mut BTreeSet<Holder>,
) -> Result<Option<String>, Errno> {
    let alone = std::iter::once(&fid).chain(above);
    let holders = alone.filter_map(|fid| shard.locks.alone(*fid));
    let others: Vec<_> = holders
        .filter(|(sole, _)| Some(sole.holder) != asker)
        .collect();
    for (sole, name) in others {
        if silent.contains(&sole.holder) {
            return Ok(Some(name));
        }
        let said = glimpse::inquire(shard, sole, fid).await;
        // As it is now: the client may have caught up while it was asked.
        let here: Attr = inode(shard, fid).await?.attr;
        match said {
            None => {
                silent.insert(sole.holder);
                return Ok(Some(name));
            }
            Some(Some(said)) if !glimpse::is_all_here(&here, &said) => return Ok(Some(name)),
            Some(_) => {}
        }
    }
    Ok(None)
}

/// The file as it is here. How many of its bytes are dirty is known then, too:
/// a box that has just started looks at its files one after the other.
async fn inode<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<Inode, Errno> {
    let inode = meta::inode(shard, fid).await?;
    if inode.flags & flag::DATA_OWED != 0 && shard.data.dirty_bytes_of(fid) == 0 {
        data::load(shard, fid).await?;
    }
    Ok(inode)
}
