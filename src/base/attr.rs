//! What `stat` shows and what `setattr` changes.

use crate::base::time::Time;
use crate::{code, record};

code! {
    /// The type of a file.
    pub enum FileKind {
        Regular = 1,
        Directory = 2,
        Symlink = 3,
        Fifo = 4,
        Socket = 5,
        Char = 6,
        Block = 7,
    }
}

impl FileKind {
    /// The `S_IFMT` bits.
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            FileKind::Regular => libc::S_IFREG,
            FileKind::Directory => libc::S_IFDIR,
            FileKind::Symlink => libc::S_IFLNK,
            FileKind::Fifo => libc::S_IFIFO,
            FileKind::Socket => libc::S_IFSOCK,
            FileKind::Char => libc::S_IFCHR,
            FileKind::Block => libc::S_IFBLK,
        }
    }
    /// From a full `st_mode`.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFCHR => FileKind::Char,
            libc::S_IFBLK => FileKind::Block,
            _ => return None,
        })
    }
}

#[cfg(test)]
impl Attr {
    /// Root's empty file; for tests that are about something else.
    pub(crate) fn plain(ino: u64) -> Attr {
        Attr {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            ino,
            size: 0,
            blocks: 0,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            btime: Time::default(),
            version: 1,
        }
    }
}

record! {
    /// The attributes of an inode as clients see them.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Attr {
        pub kind: FileKind,
        /// Permission bits with setuid, setgid, sticky: 0o7777.
        pub mode: u32,
        pub uid: u32,
        pub gid: u32,
        pub nlink: u32,
        /// Device number of character and block files, else 0.
        pub rdev: u32,
        /// Stored with the inode, never recomputed (N12).
        pub ino: u64,
        pub size: u64,
        /// Units of 512 bytes.
        pub blocks: u64,
        pub atime: Time,
        pub mtime: Time,
        pub ctime: Time,
        pub btime: Time,
        /// Changes with every change of the inode; pre-operation version of replies.
        pub version: u64,
    }
}

record! {
    /// Which attributes to change, and to what; `None` leaves one as it is.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct SetAttr {
        pub mode: Option<u32>,
        pub uid: Option<u32>,
        pub gid: Option<u32>,
        pub size: Option<u64>,
        pub atime: Option<Time>,
        pub mtime: Option<Time>,
        pub ctime: Option<Time>,
        /// "Now" by the box's clock, instead of a value (O13).
        pub atime_now: bool,
        pub mtime_now: bool,
        /// Clear setuid, setgid and capabilities in the same transaction (L11).
        pub kill_priv: bool,
    }
}
