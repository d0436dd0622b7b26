//! What a decision reads, and how it stops.

use super::access::Caller;
use super::record::{Dirent, Inode};
use crate::base::{Errno, Fid, Name, Time, limits};
use std::rc::Rc;

/// The records as they are now. Reading is synchronous; what is not in memory
/// is a [`Need`].
pub trait View {
    /// `None`: there is no such inode.
    fn inode(&self, fid: Fid) -> Result<Option<Inode>, Need>;
    /// The directory's slot at `cookie`.
    fn slot(&self, dir: Fid, cookie: u64) -> Result<Option<Dirent>, Need>;
    /// A stored xattr; the empty name holds the list of names.
    fn xattr(&self, fid: Fid, name: &[u8]) -> Result<Option<Rc<[u8]>>, Need>;
    /// Where the name's chain of slots begins.
    fn cookie(&self, name: &Name) -> u64;
    /// The origin said, since this operation began, that the name is not there.
    fn is_absent(&self, dir: Fid, name: &Name) -> bool;
    /// The identity and inode number that the next new inode will have; used
    /// up when the change is applied.
    fn fresh(&self) -> Result<(Fid, u64), Need>;
    /// Some client holds the file open.
    fn is_open(&self, fid: Fid) -> bool;
}

/// What must be loaded before the decision can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// An index record that is on flash.
    Record(Vec<u8>),
    /// The origin's word on a name of an incomplete directory.
    Name(Fid, Name),
    /// All names of an incomplete directory.
    Listing(Fid),
    /// A file's xattrs.
    Xattrs(Fid),
    /// A file's extent map.
    Extents(Fid),
    /// More FIDs than are reserved on flash.
    Fids,
    /// Room on flash.
    Room,
    /// Locks that others hold on what it touches; who decides knows which.
    Locks,
    /// A record that cannot be read as what it should be: it must be repaired.
    Damaged(Vec<u8>),
}

/// Why a decision has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    Refused(Errno),
    Need(Need),
}

impl From<Errno> for Stop {
    fn from(e: Errno) -> Stop {
        Stop::Refused(e)
    }
}

impl From<Need> for Stop {
    fn from(need: Need) -> Stop {
        Stop::Need(need)
    }
}

/// What the origin can hold and the export allows (O6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub read_only: bool,
    /// In bytes, at most 255.
    pub name_max: usize,
    pub link_max: u32,
    pub file_size_max: u64,
    /// Files may be given to other owners.
    pub owners: bool,
    pub special_files: bool,
    pub symlinks: bool,
    pub hard_links: bool,
    pub xattrs: bool,
    pub acls: bool,
}

impl Bounds {
    /// What the box itself can hold.
    pub const WIDEST: Bounds = Bounds {
        read_only: false,
        name_max: limits::NAME_MAX,
        link_max: limits::LINK_MAX,
        file_size_max: limits::FILE_SIZE_MAX,
        owners: true,
        special_files: true,
        symlinks: true,
        hard_links: true,
        xattrs: true,
        acls: true,
    };
}

/// Who asks, when, and under which bounds.
#[derive(Clone, Copy, Debug)]
pub struct Ctx<'a> {
    pub caller: &'a Caller,
    pub bounds: &'a Bounds,
    /// The box's clock at the decision (O13).
    pub now: Time,
}

impl Ctx<'_> {
    pub(super) fn writable(&self) -> Result<(), Stop> {
        if self.bounds.read_only {
            return Err(Errno::EROFS.into());
        }
        Ok(())
    }

    pub(super) fn name_fits(&self, name: &Name) -> Result<(), Stop> {
        if name.as_bytes().len() > self.bounds.name_max {
            return Err(Errno::ENAMETOOLONG.into());
        }
        Ok(())
    }
}
