//! What the server answers: headers and fixed parts of replies, and the
//! packing of directory entries.

use crate::base::codec::{Codec, Writer};
use crate::base::{Attr, FileKind, Time};
use crate::record;
use std::time::Duration;

record! {
    /// Before every reply. `error` is 0 or a negative errno above -512.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OutHeader { pub len: u32, pub error: i32, pub unique: u64 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InitOut {
        pub major: u32,
        pub minor: u32,
        pub max_readahead: u32,
        pub flags: u32,
        pub max_background: u16,
        pub congestion_threshold: u16,
        pub max_write: u32,
        pub time_gran: u32,
        pub max_pages: u16,
        pub map_alignment: u16,
        pub flags2: u32,
        pub unused0: u64,
        pub unused1: u64,
        pub unused2: u64,
        pub unused3: u32,
    }
}
record! {
    /// `fuse_attr`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FuseAttr {
        pub ino: u64,
        pub size: u64,
        pub blocks: u64,
        pub atime: u64,
        pub mtime: u64,
        pub ctime: u64,
        pub atime_nsec: u32,
        pub mtime_nsec: u32,
        pub ctime_nsec: u32,
        pub mode: u32,
        pub nlink: u32,
        pub uid: u32,
        pub gid: u32,
        pub rdev: u32,
        pub blksize: u32,
        pub flags: u32,
    }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryOut {
        pub nodeid: u64,
        pub generation: u64,
        pub entry_valid: u64,
        pub attr_valid: u64,
        pub entry_valid_nsec: u32,
        pub attr_valid_nsec: u32,
        pub attr: FuseAttr,
    }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AttrOut { pub attr_valid: u64, pub attr_valid_nsec: u32, pub dummy: u32, pub attr: FuseAttr }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenOut { pub fh: u64, pub open_flags: u32, pub backing: u32 }
}
record! {
    /// WRITE and COPY_FILE_RANGE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WriteOut { pub size: u32, pub padding: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct StatfsOut {
        pub blocks: u64,
        pub bfree: u64,
        pub bavail: u64,
        pub files: u64,
        pub ffree: u64,
        pub bsize: u32,
        pub namelen: u32,
        pub frsize: u32,
        pub padding: u32,
        pub spare0: u64,
        pub spare1: u64,
        pub spare2: u64,
    }
}
record! {
    /// How long a value or a list of names is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GetxattrOut { pub size: u32, pub padding: u32 }
}
record! {
    /// LSEEK's offset; COPY_FILE_RANGE_64's count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OffsetOut { pub offset: u64 }
}

impl FuseAttr {
    #[must_use]
    pub fn of(attr: &Attr) -> FuseAttr {
        FuseAttr {
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            atime: seconds(attr.atime),
            mtime: seconds(attr.mtime),
            ctime: seconds(attr.ctime),
            atime_nsec: attr.atime.nsec,
            mtime_nsec: attr.mtime.nsec,
            ctime_nsec: attr.ctime.nsec,
            mode: attr.kind.mode_bits() | (attr.mode & 0o7777),
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            blksize: BLKSIZE,
            flags: 0,
        }
    }
}

/// `st_blksize`: the kernel derives the page-cache granularity from it, so it
/// stays a page however large requests are.
const BLKSIZE: u32 = 4096;

/// The kernel reads the field as `s64`.
fn seconds(time: Time) -> u64 {
    time.sec.cast_unsigned()
}

/// How long the kernel may use what a reply says without asking again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    pub entry: Duration,
    pub attr: Duration,
}

impl Validity {
    #[must_use]
    pub fn entry_out(self, nodeid: u64, attr: &Attr) -> EntryOut {
        EntryOut {
            nodeid,
            // Node numbers are never used twice, so there are no generations.
            generation: 0,
            entry_valid: self.entry.as_secs(),
            attr_valid: self.attr.as_secs(),
            entry_valid_nsec: self.entry.subsec_nanos(),
            attr_valid_nsec: self.attr.subsec_nanos(),
            attr: FuseAttr::of(attr),
        }
    }

    /// The answer to a LOOKUP of a name that is not there, which the kernel may
    /// believe.
    #[must_use]
    pub fn absent_out(self) -> EntryOut {
        let zero = Time { sec: 0, nsec: 0 };
        let attr = Attr {
            kind: FileKind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 0,
            rdev: 0,
            ino: 0,
            size: 0,
            blocks: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: zero,
            version: 0,
        };
        self.entry_out(0, &attr)
    }

    /// The answer to STATX, which knows the time of birth.
    #[must_use]
    pub fn statx_out(self, attr: &Attr) -> Vec<u8> {
        let mut w = Writer::default();
        self.attr.as_secs().encode(&mut w);
        self.attr.subsec_nanos().encode(&mut w);
        // Flags, and what the kernel keeps for later.
        w.zeros(4 + 16);
        let of = FuseAttr::of(attr);
        (libc::STATX_BASIC_STATS | libc::STATX_BTIME).encode(&mut w);
        BLKSIZE.encode(&mut w);
        // No attributes such as "immutable" are known.
        w.zeros(8);
        for word in [of.nlink, of.uid, of.gid, of.mode] {
            // The mode is 16 bits and 16 of padding.
            word.encode(&mut w);
        }
        for long in [of.ino, of.size, of.blocks, 0] {
            long.encode(&mut w);
        }
        for time in [attr.atime, attr.btime, attr.ctime, attr.mtime] {
            time.sec.encode(&mut w);
            time.nsec.encode(&mut w);
            w.zeros(4);
        }
        let rdev = u64::from(of.rdev);
        libc::major(rdev).encode(&mut w);
        libc::minor(rdev).encode(&mut w);
        w.zeros(STATX_OUT_LEN - w.len());
        w.into_vec()
    }

    #[must_use]
    pub fn attr_out(self, attr: &Attr) -> AttrOut {
        AttrOut {
            attr_valid: self.attr.as_secs(),
            attr_valid_nsec: self.attr.subsec_nanos(),
            dummy: 0,
            attr: FuseAttr::of(attr),
        }
    }
}

/// One name of a listing, as the kernel wants it.
#[derive(Clone, Copy, Debug)]
pub struct Dirent<'a> {
    pub ino: u64,
    /// Where the listing goes on after this entry.
    pub offset: u64,
    pub kind: FileKind,
    pub name: &'a [u8],
}

/// The answer to READDIR or READDIRPLUS: entries up to a number of bytes.
#[derive(Debug)]
pub struct Listing {
    out: Writer,
    size: usize,
    plus: bool,
}

impl Listing {
    /// At most `size` bytes; with `plus`, each entry carries its attributes.
    #[must_use]
    pub fn new(size: usize, plus: bool) -> Listing {
        Listing {
            out: Writer::default(),
            size,
            plus,
        }
    }

    #[must_use]
    pub fn has_room(&self, name: &[u8]) -> bool {
        let head = if self.plus { ENTRY_OUT_LEN } else { 0 };
        let len = head + (DIRENT_LEN + name.len()).next_multiple_of(8);
        self.out.len() + len <= self.size
    }

    /// Adds an entry that [`has_room`](Self::has_room) was asked about.
    /// `object` matters with attributes only: None leaves the node unnamed.
    pub fn push(&mut self, dirent: Dirent<'_>, object: Option<EntryOut>) {
        if self.plus {
            match object {
                Some(object) => object.encode(&mut self.out),
                None => self.out.zeros(ENTRY_OUT_LEN),
            }
        }
        dirent.ino.encode(&mut self.out);
        dirent.offset.encode(&mut self.out);
        u32::try_from(dirent.name.len())
            .expect("names are at most NAME_MAX")
            .encode(&mut self.out);
        (dirent.kind.mode_bits() >> 12).encode(&mut self.out);
        self.out.bytes(dirent.name);
        let ragged = self.out.len().next_multiple_of(8) - self.out.len();
        self.out.zeros(ragged);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out.into_vec()
    }
}

const DIRENT_LEN: usize = 24;
const STATX_OUT_LEN: usize = 32 + 256;
const ENTRY_OUT_LEN: usize = 128;
