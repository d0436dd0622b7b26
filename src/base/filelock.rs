//! The words of file locks: flock(2), and the byte ranges of fcntl(2).

use super::Extent;
use crate::{code, record};

code! {
    /// What kind of owner a file lock has (L12). The numbers are those of
    /// `RequestHead::owner_kind`, in which 0 is "no owner".
    pub enum OwnerKind {
        /// A process's files: F_SETLK. All its locks on a file end when it
        /// closes any descriptor of it.
        Posix = 1,
        /// An open file: F_OFD_SETLK.
        Ofd = 2,
        /// An open file: flock(2), the whole file.
        Flock = 3,
    }
}

impl OwnerKind {
    /// The kind with this number.
    #[must_use]
    pub const fn of(number: u8) -> Option<OwnerKind> {
        match number {
            1 => Some(OwnerKind::Posix),
            2 => Some(OwnerKind::Ofd),
            3 => Some(OwnerKind::Flock),
            _ => None,
        }
    }

    /// Can locks of these two kinds be in each other's way? As on Linux's local
    /// file systems, flock and fcntl do not know each other.
    #[must_use]
    pub const fn meets(self, other: OwnerKind) -> bool {
        matches!(self, OwnerKind::Flock) == matches!(other, OwnerKind::Flock)
    }
}

code! {
    /// What a file lock keeps others from.
    pub enum LockKind {
        /// Shared: keeps others from writing.
        Read = 1,
        /// Exclusive.
        Write = 2,
    }
}

impl LockKind {
    #[must_use]
    pub const fn conflicts(self, other: LockKind) -> bool {
        matches!(self, LockKind::Write) || matches!(other, LockKind::Write)
    }
}

record! {
    /// A lock that is waited for, named by the client that waits: unique among
    /// its waits for as long as it runs.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct WaitId { pub id: u64 }
}

record! {
    /// A granted file lock, or a part of one.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HeldLock {
        pub range: Extent,
        pub kind: LockKind,
        /// The process that asked, as its client numbers processes.
        pub pid: u32,
    }
}
