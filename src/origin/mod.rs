//! L3: what a box asks of a target's origin, as data. A call names files by
//! [`Place`] — never by a path of the front (O2) — and is run by the world on
//! threads of the target's own (O10). `posix` is the implementation on any
//! mounted file system; the simulator has a model with the same contract.

use crate::base::codec::Bytes;
use crate::base::{Attr, Buf, Errno, FileKind, Identity, Name, SetAttr, Slice, TargetId, Time};
use crate::record;

pub mod posix;

/// What runs a target's calls, on threads of the target's own. A call may block
/// for as long as the origin likes; several run at once.
pub trait Origin: Send + Sync {
    fn call(&self, op: OriginOp) -> OriginReply;
}

/// Hidden directory at the origin's root that holds files without a name of
/// their own that somebody still has open (O4). Nothing else lives there.
pub const ORPHANS: &[u8] = b".forebay-orphans";

/// Names at the root of a target that belong to the box: never listed, never
/// found, and refused to clients (O15).
#[must_use]
pub fn is_reserved(name: &Name) -> bool {
    name.as_bytes().starts_with(b".forebay-")
}

/// What the directory of a probe is called begins so. Not reserved, because the
/// origin may be the mount of another box, which would refuse its own names; but
/// a box never shows what it finds under such names at the root of its origin.
pub const PROBE: &str = ".probe-forebay-";

/// Names at an origin's root that are not imported from it.
#[must_use]
pub fn is_hidden(name: &Name) -> bool {
    is_reserved(name) || name.as_bytes().starts_with(PROBE.as_bytes())
}

/// A file at the origin: by identity (opened by handle where the origin has
/// handles), and by the way to it, a chain of names from the target's root.
/// The names find it where there is no handle, or the handle is stale; what is
/// found must carry `identity`, else the call fails with ESTALE (O3, O5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub identity: Option<Identity>,
    /// Origin-side names from the root down; empty for the root itself.
    pub path: Vec<Name>,
}

/// A file as the origin shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub identity: Identity,
    pub attr: Attr,
    /// Target of a symbolic link.
    pub link: Option<Vec<u8>>,
}

/// One call. Every variant says what makes it durable; nothing else does (O1).
#[derive(Debug)]
pub enum OriginOp {
    /// Opens the origin and probes its limits (O6). First call of a target.
    Probe,
    Stat {
        place: Place,
    },
    Lookup {
        dir: Place,
        name: Name,
    },
    /// All entries, without "." and "..", with attributes. Entries that vanish
    /// while being listed are left out.
    List {
        dir: Place,
    },
    /// Reads up to `buf.len()` bytes; short only at end of file.
    Read {
        file: Place,
        offset: u64,
        buf: Buf,
    },
    XattrList {
        file: Place,
    },
    XattrGet {
        file: Place,
        name: Vec<u8>,
    },
    Statfs,

    /// Creates what is not a hard link, with the mode, owner and times of
    /// `attr`. EEXIST if the name is taken, unless what stands there is a
    /// *newborn* of the same kind: empty, with one name, and for a symbolic
    /// link or a device the same target or number. Such a file is what this
    /// call leaves behind when the box dies before it recorded the identity:
    /// bytes, children and further names come only after that record is on
    /// flash. It is adopted and returned (O3); adopting an equal file of
    /// somebody else's loses nothing.
    Create {
        dir: Place,
        name: Name,
        kind: FileKind,
        attr: Attr,
        link: Option<Vec<u8>>,
    },
    Link {
        file: Place,
        dir: Place,
        name: Name,
    },
    /// Removes a name if it still names `identity`; gone already is success (O3).
    Unlink {
        dir: Place,
        name: Name,
        identity: Identity,
        is_dir: bool,
    },
    /// Moves `from` to `to`; success if `identity` already stands at `to` (O3).
    Rename {
        from: (Place, Name),
        to: (Place, Name),
        identity: Identity,
        /// What stands at `to` and will be replaced (or exchanged).
        victim: Option<Identity>,
        exchange: bool,
    },
    Write {
        file: Place,
        offset: u64,
        data: Vec<Slice>,
    },
    Truncate {
        file: Place,
        size: u64,
    },
    Punch {
        file: Place,
        offset: u64,
        len: u64,
    },
    SetAttr {
        file: Place,
        set: SetAttr,
    },
    XattrSet {
        file: Place,
        name: Vec<u8>,
        value: Bytes,
    },
    XattrRemove {
        file: Place,
        name: Vec<u8>,
    },
    /// fsync of a file, through the descriptor that wrote it, or of a directory.
    /// Returns the version that the origin now shows.
    Fsync {
        file: Place,
    },
    /// Drops descriptors held for the file.
    Forget {
        identity: Identity,
    },
}

/// A call, addressed.
#[derive(Debug)]
pub struct OriginCall {
    pub target: TargetId,
    pub op: OriginOp,
}

/// What came back. Buffers of reads come back whatever happened.
#[derive(Debug)]
pub enum OriginReply {
    Done,
    Failed(Errno),
    Found(Box<Found>),
    Absent,
    Listed(Vec<(Name, Found)>),
    Read {
        result: Result<usize, Errno>,
        buf: Buf,
    },
    Bytes(Vec<u8>),
    Statfs(Statfs),
    Probed(Box<Limits>),
}

/// Space and inodes of a file system, as `statvfs` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statfs {
    pub bsize: u32,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub namelen: u32,
}

record! {
    /// What the origin can hold, probed at start and enforced at the front (O6).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Limits {
        pub name_max: u32,
        pub link_max: u32,
        pub file_size_max: u64,
        pub handles: bool,
        pub xattrs: bool,
        pub acls: bool,
        pub symlinks: bool,
        pub hard_links: bool,
        pub special_files: bool,
        /// May the box give files away (is it root there)?
        pub owners: bool,
        pub rename_noreplace: bool,
        pub rename_exchange: bool,
        pub punch: bool,
        pub read_only: bool,
        /// Granularity of timestamps in nanoseconds.
        pub time_step: u32,
        /// The origin's clock when probed, for O11.
        pub clock: Time,
        /// The root's identity; a target whose root changed is refused.
        pub root: Identity,
    }
}
