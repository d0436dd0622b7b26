//! Operations on names and attributes: joins the namespace core with the flash
//! index and with the origin.
//!
//! ```text
//! handler (names, attrs, xattrs, listing, opens)
//!    └─► decide: core over FlashView ──► Change ──► stage ──► Tx ──► Shard::seal
//!            ▲  └── Need ─► flash.get │ import (origin) │ fids │ data::load ──┐
//!            └─────────────────────── again, from the start ◄────────────────┘
//! ```
//!
//! Architecture invariant: what stands here wins over what the origin shows.
//! An import only adds names that are not known here at all: neither live, nor
//! under a gravestone, nor in a directory that is complete.
//!
//! An inode whose last name was removed stays, without names (`nlink` 0) and
//! without contents, until write-back has carried the removal out and calls
//! [`forget`]: owed records may still ask for its locator.

mod attrs;
mod call;
mod decide;
mod fids;
mod import;
mod inline;
mod listing;
mod names;
mod opens;
pub(in crate::shard) mod shown;
mod start;
mod view;
mod xattrs;

pub use attrs::{getattr, setattr, statfs};
pub use call::{Call, answered, entry, refused};
#[cfg(test)]
pub(in crate::shard) use decide::applied as decided;
pub(in crate::shard) use decide::{data_stop, stage_into};
pub use decide::{decide, stage};
pub use fids::{Grants, Mark, grant as grant_fids, root};
pub use listing::readdir;
pub use names::{create, link, lookup, readlink, rename, unlink};
pub use opens::{
    changed_within, close, close_all, is_open_elsewhere, may_be_opened, may_use, open, opened,
    reap_orphans, reopen, unopened,
};
pub(in crate::shard) use shown::settle_refusal;
pub use start::{StartError, TargetRecord, confirm};
pub use view::FlashView;
pub use xattrs::{xattr_get, xattr_list, xattr_remove, xattr_set};

use super::{Shard, Target, Tx};
use crate::base::{Codec, Errno, Fid, Name, TargetId};
use crate::namespace::{self, Inode, key};
use crate::world::World;
use crate::world::sync::Promise;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// State of the metadata operations that lives in memory only.
#[derive(Default)]
pub struct Meta {
    /// FIDs that are reserved on flash and not used yet.
    fids: RefCell<BTreeMap<TargetId, fids::Stock>>,
    /// How many handles of all exports hold each file open.
    opens: RefCell<BTreeMap<Fid, u32>>,
    /// Questions that the origin is being asked.
    asked: RefCell<BTreeMap<Question, Promise<Answer>>>,
    statfs: RefCell<BTreeMap<TargetId, attrs::CachedStatfs>>,
    /// Changes that are shown to others only once they are on flash (L9).
    unseen: RefCell<shown::Unseen>,
}

/// One question to the origin; all who need its answer wait for one call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Name(Fid, Name),
    Listing(Fid),
    Xattrs(Fid),
}

/// Whether what was asked for is there; what was found is in the records then.
type Answer = Result<bool, Errno>;

/// The inode as it is now; ESTALE if there is none, EIO if its record is damaged.
pub async fn inode<W: World>(shard: &Shard<W>, fid: Fid) -> Result<Inode, Errno> {
    let bytes = shard
        .flash
        .get(&key::inode(fid))
        .await?
        .ok_or(Errno::ESTALE)?;
    Inode::from_slice(&bytes).map_err(|_| Errno::EIO)
}

/// The file that `name` means in the directory `dir`; asks the origin if need be.
pub async fn child<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    dir: Fid,
    name: &Name,
) -> Result<Option<Fid>, Errno> {
    decide(shard, target, |view| {
        let inode = namespace::entry::directory(view, dir)?;
        let slot = namespace::entry::find(view, dir, &inode, name)?;
        Ok(slot.live().map(|found| found.fid))
    })
    .await
}

/// Puts the inode into the transaction.
pub fn put_inode(tx: &mut Tx, fid: Fid, inode: &Inode) {
    tx.put(key::inode(fid), inode.to_vec());
}

/// Whether some client has the file open, or may have it open without the
/// box's knowing (lock bit OPEN).
pub fn is_open<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    shard.meta.opens.borrow().contains_key(&fid) || shard.locks.may_be_open(fid)
}

#[cfg(test)]
mod tests;
