//! The operations: one record each for the request and for the reply.
//!
//! `Request::tag` is the operation's number in the common head; the reply to
//! operation `n` has the same number. Numbers are never reused. A request's
//! payload is data to write; a reply's payload is data read.

use crate::base::codec::Bytes;
use crate::base::{Attr, Fid, FileKind, LockId, Name, OpenId, SetAttr, Xid};
use crate::wire::fids::{FidsGranted, FidsWanted};
use crate::wire::filelock;
use crate::wire::locks::{LockCancel, LockGrant};
use crate::{choice, record};

choice! {
    /// Everything that a client can ask of a shard.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Request {
        Ping(Empty) = 2,
        Disconnect(Empty) = 3,
        DeclareCred(DeclareCred) = 4,
        /// Opens held over a restart, declared again by a reconnecting client.
        Reopen(Reopen) = 5,
        ReplayDone(Empty) = 6,
        Lookup(Named) = 16,
        Getattr(OfFile) = 17,
        Setattr(Setattr) = 18,
        Readlink(OfFile) = 19,
        Readdir(Readdir) = 20,
        Create(Create) = 21,
        Link(Link) = 22,
        Unlink(Unlink) = 23,
        Rename(Rename) = 24,
        Open(Open) = 25,
        Close(Close) = 26,
        Statfs(OfFile) = 27,
        XattrGet(XattrName) = 28,
        XattrSet(XattrSet) = 29,
        XattrList(OfFile) = 30,
        XattrRemove(XattrName) = 31,
        /// Locks, or bits of them, end. In no slot; done in the stream's order.
        Cancel(Cancel) = 32,
        /// Locks that the client had before the box restarted (L13).
        Claim(Claim) = 33,
        /// A file may grow, as a callback said (feature GROWTH). In no slot.
        Raised(Raised) = 34,
        /// What a file is like, as a callback asked (feature GLIMPSE). In no slot.
        Glimpsed(Glimpsed) = 35,
        Read(Read) = 48,
        Write(Write) = 49,
        Fsync(Fsync) = 50,
        Fallocate(Fallocate) = 51,
        Seek(Seek) = 52,
        CopyRange(CopyRange) = 53,
        Abandon(Abandon) = 64,
        /// FIDs to create with (feature FID_GRANTS). 65 was never used.
        Fids(FidsWanted) = 66,
        /// File locks (feature FILE_LOCKS).
        Setlk(filelock::Setlk) = 80,
        Getlk(filelock::Getlk) = 81,
        Unwait(filelock::Unwait) = 82,
        Relock(filelock::Relock) = 83,
    }
}

choice! {
    /// What comes back of an operation that did not fail.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Reply {
        /// Ping, Disconnect, DeclareCred, Reopen, ReplayDone, Unlink, Close, Fsync, XattrSet…
        Done(Empty) = 1,
        /// Lookup, Create, Link: the object; Getattr, Setattr, Open, Fallocate.
        Entry(Entry) = 2,
        /// Readlink, XattrGet, XattrList.
        Blob(Blob) = 3,
        Listing(Listing) = 4,
        Statfs(StatfsReply) = 5,
        /// Read: `eof` and the payload. Write: bytes taken and the file after it.
        Data(Data) = 6,
        Written(Written) = 7,
        Offset(Offset) = 8,
        /// Setlk, Getlk, Unwait.
        Lock(filelock::LockAnswer) = 16,
        Fids(FidsGranted) = 17,
    }
}

record! {
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Empty {}
}
record! {
    /// A credential that later requests refer to by `id` (> 0).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct DeclareCred { pub id: u32, pub uid: u32, pub gid: u32, pub groups: Vec<u32> }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Reopen { pub opens: Vec<OpenFile> }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OpenFile { pub fid: Fid, pub open: OpenId, pub flags: u32 }
}
record! {
    /// Unused since before the first locks: those follow the body
    /// ([`Asked`](crate::wire::Asked)), for any operation.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Intent { pub lock: LockId, pub mode: u32, pub bits: u64, pub try_bits: u64 }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Named { pub parent: Fid, pub name: Name, pub intent: Intent }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct OfFile { pub fid: Fid, pub intent: Intent }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Setattr { pub fid: Fid, pub set: SetAttr }
}
record! {
    /// Entries from `cookie` on (0: from the start, "." and ".." not among
    /// them: the client makes those). At most `bytes` of encoded entries.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Readdir { pub fid: Fid, pub cookie: u64, pub bytes: u32, pub attrs: bool }
}
record! {
    /// Creates any kind of file. Regular files: `open` > 0 opens it too.
    /// `exclusive`: EEXIST if it is there; else a regular file there is opened.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Create {
        pub parent: Fid,
        /// None: O_TMPFILE, an inode without a name.
        pub name: Option<Name>,
        pub kind: FileKind,
        pub mode: u32,
        pub rdev: u32,
        pub link: Bytes,
        pub exclusive: bool,
        pub open: OpenId,
        pub flags: u32,
        /// A FID from the client's granted range, or NONE; in a replay the one
        /// that the file was given.
        pub fid: Fid,
        pub intent: Intent,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Link { pub fid: Fid, pub parent: Fid, pub name: Name }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Unlink { pub parent: Fid, pub name: Name, pub dir: bool }
}
record! {
    /// `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE (RENAME_WHITEOUT is refused).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Rename {
        pub from: Fid,
        pub from_name: Name,
        pub to: Fid,
        pub to_name: Name,
        pub flags: u32,
    }
}
record! {
    /// `flags` as in open(2). O_TRUNC truncates.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Open { pub fid: Fid, pub open: OpenId, pub flags: u32, pub intent: Intent }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Close { pub fid: Fid, pub open: OpenId }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XattrName { pub fid: Fid, pub name: Bytes }
}
record! {
    /// `flags`: XATTR_CREATE, XATTR_REPLACE. `clear_sgid`: an ACL set by
    /// somebody outside the file's group also clears its setgid bit.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct XattrSet {
        pub fid: Fid,
        pub name: Bytes,
        pub value: Bytes,
        pub flags: u32,
        pub clear_sgid: bool,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Read { pub fid: Fid, pub open: OpenId, pub offset: u64, pub len: u32 }
}
record! {
    /// The payload at `offset`, or at the true end if `append` (C9).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Write { pub fid: Fid, pub open: OpenId, pub offset: u64, pub append: bool }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Fsync { pub fid: Fid, pub data_only: bool }
}
record! {
    /// `mode`: the FALLOC_FL_ bits.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Fallocate { pub fid: Fid, pub mode: u32, pub offset: u64, pub len: u64 }
}
record! {
    /// `whence`: SEEK_DATA or SEEK_HOLE.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Seek { pub fid: Fid, pub offset: u64, pub whence: u32 }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CopyRange {
        pub from: Fid,
        pub from_offset: u64,
        pub to: Fid,
        pub to_offset: u64,
        pub len: u64,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Claim { pub locks: Vec<LockGrant> }
}
record! {
    /// Without locks: nothing is held of before this connection.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Cancel { pub locks: Vec<LockCancel> }
}
record! {
    /// Whoever looks at the file through a mapping at this client sees it as
    /// long as `size`, or asks (C17).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Raised { pub lock: LockId, pub size: u64 }
}
record! {
    /// The answer to the question that was numbered `lock`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Glimpsed {
        pub lock: LockId,
        pub fid: Fid,
        /// The client has the file to itself, and answers its own callers as this
        /// says; else the box must call the lock back to know.
        pub is_alone: bool,
        /// As what the client has answered left the file; `None`: as the box has it.
        pub attr: Option<Attr>,
        /// The box has all of its extended attributes: none was changed here alone.
        pub xattrs_at_box: bool,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Abandon { pub xids: Vec<Xid> }
}

record! {
    /// A file and its attributes; `layout` is empty while files are not striped.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Entry {
        pub fid: Fid,
        pub attr: Attr,
        /// Created by this operation (as opposed to found and opened).
        pub created: bool,
        pub layout: Bytes,
        /// Unused, as [`Intent`].
        pub lock: LockId,
        pub lock_mode: u32,
        pub lock_bits: u64,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Blob { pub bytes: Bytes }
}
record! {
    /// `cookie` of an entry is where the listing goes on after it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct DirEntry {
        pub name: Name,
        pub fid: Fid,
        pub kind: FileKind,
        pub ino: u64,
        pub cookie: u64,
        pub attr: Option<Attr>,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Listing { pub entries: Vec<DirEntry>, pub end: bool, pub parent: Fid, pub parent_ino: u64 }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct StatfsReply {
        pub bsize: u32,
        pub blocks: u64,
        pub bfree: u64,
        pub bavail: u64,
        pub files: u64,
        pub ffree: u64,
        pub namelen: u32,
    }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Data { pub eof: bool, pub size: u64 }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Written { pub written: u32, pub offset: u64, pub attr: Attr }
}
record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Offset { pub offset: u64 }
}
