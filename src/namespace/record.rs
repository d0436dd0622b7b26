//! The records of the metadata index. Their byte forms are part of the flash
//! format (`docs/STORE.md`).

use crate::base::codec::Bytes;
use crate::base::{Attr, Fid, FileKind, Identity, Locator, Name, SnapEpoch, Time};
use crate::{choice, record};

record! {
    /// One inode, under [`key::inode`](super::key::inode).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Inode {
        pub attr: Attr,
        /// Bits of [`flag`].
        pub flags: u32,
        /// The directory that holds it (directories: exactly; files: the one
        /// it was found or made in). For ".." and for locating.
        pub parent: Fid,
        /// Entries of a directory.
        pub entries: u64,
        /// Subdirectories are counted in `attr.nlink`.
        pub locator: Locator,
        /// What the origin showed when the box last looked or wrote (O11).
        pub observed: Observed,
        /// Changes with every change of the bytes (F8).
        pub data_version: u64,
        pub snap_epoch: SnapEpoch,
        /// Striping over shards; empty: all on the owning shard.
        pub layout: Bytes,
        /// Target of a symbolic link.
        pub link: Option<Bytes>,
        /// Size below which origin bytes are still valid where the extent map
        /// says absent; truncation lowers it, nothing raises it (F7).
        pub origin_size: u64,
    }
}

/// Bits of [`Inode::flags`].
pub mod flag {
    /// Directory: every entry is known here, so a missing name is absent (N10).
    pub const COMPLETE: u32 = 1;
    /// Without names, kept for open handles (N9).
    pub const ORPHAN: u32 = 2;
    /// Attributes differ from the origin's and are owed to it.
    pub const ATTRS_OWED: u32 = 4;
    /// Bytes or size differ from the origin's and are owed to it.
    pub const DATA_OWED: u32 = 8;
    /// Xattrs known in full (else absent ones are asked from the origin).
    pub const XATTRS_COMPLETE: u32 = 16;
    /// Xattrs differ from the origin's and are owed to it.
    pub const XATTRS_OWED: u32 = 32;
    /// Born here and not yet at the origin: no locator identity.
    pub const UNBORN: u32 = 64;
    /// Has at least one xattr stored here; without it none need be looked for.
    pub const XATTRS: u32 = 128;
    /// Made by O_TMPFILE without O_EXCL and never named: a link may name it.
    pub const LINKABLE: u32 = 256;
    /// No record in the write-back log names it: an orphan whose removal at the
    /// origin was carried out while it was open, or one that never had a name.
    pub const UNNAMED: u32 = 512;
    /// Directory whose origin does not count subdirectories in `nlink`: the
    /// count here is that of the subdirectories known here.
    pub const COUNTS_LINKS: u32 = 1024;
    /// File with further names at the origin under [`key::aliases`](super::super::key::aliases).
    pub const ALIASES: u32 = 2048;
}

record! {
    /// The origin's version of a file, for conflict detection.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Observed {
        pub ctime: Time,
        pub mtime: Time,
        pub size: u64,
    }
}

record! {
    /// One name, under [`key::dirent`](super::key::dirent). Without `fid` it is
    /// a *gravestone*: the name is known to be absent, whatever the origin shows
    /// (its removal is owed), or it keeps a chain of colliding names unbroken.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Dirent {
        pub name: Name,
        pub fid: Fid,
        pub kind: FileKind,
        pub ino: u64,
    }
}

record! {
    /// An operation on names that the origin still owes, in the write-back log
    /// under [`key::owed`](super::key::owed) by its sequence number. Data and
    /// attributes are owed by state (flags of the inode), not by record.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Owed {
        pub target: u32,
        /// When it was accepted.
        pub at: Time,
        pub epoch: SnapEpoch,
        pub op: OwedOp,
        /// Earlier records on other shards that must be done first (O9).
        pub after: Vec<(u16, u64)>,
    }
}

choice! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum OwedOp {
        /// The inode's first name; the rest is in the inode when it is applied.
        Create(OwedName) = 1,
        Link(OwedName) = 2,
        Unlink(OwedUnlink) = 3,
        Rename(OwedRename) = 4,
    }
}

record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OwedName { pub parent: Fid, pub name: Name, pub fid: Fid, pub kind: FileKind }
}
record! {
    /// `identity` is what stood there if it was known at the origin then.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OwedUnlink {
        pub parent: Fid,
        pub name: Name,
        pub fid: Fid,
        pub dir: bool,
        /// It was the last name.
        pub last: bool,
        pub identity: Option<Identity>,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OwedRename {
        pub from: Fid,
        pub from_name: Name,
        pub to: Fid,
        pub to_name: Name,
        pub fid: Fid,
        pub dir: bool,
        /// What the rename replaced or exchanged with.
        pub victim: Option<Fid>,
        pub victim_identity: Option<Identity>,
        pub victim_last: bool,
        pub exchange: bool,
    }
}
