//! The flag bits of `linux/fuse.h`, by the message that carries them.

/// INIT: what kernel and server agree on. All 64 bits; the upper half travels
/// in `flags2`.
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const ABORT_ERROR: u64 = 1 << 21;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    /// Linux 6.6: shared mappings of files that are opened with `DIRECT_IO`.
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// Which fields of SETATTR hold something.
pub mod setattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// The server's answer to OPEN, CREATE and OPENDIR.
pub mod fopen {
    /// Every read and write is a request; the kernel keeps no pages of it.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// The pages that the kernel has of the file are good.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// The kernel keeps the listing that it reads by this handle, and may use the
    /// one it has, if it is good (with KEEP_CACHE).
    pub const CACHE_DIR: u32 = 1 << 3;
    /// Writes of one file need not wait for each other.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// `open_flags` of OPEN and CREATE: clear setuid and setgid with the truncation.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;

/// READ.
pub mod read {
    /// The lock owner is told: for a caller's own buffer, not for kept pages.
    pub const LOCKOWNER: u32 = 1 << 1;
}

/// WRITE.
pub mod write {
    /// Page write-back after a store through a mapping; handle and caller are guessed.
    pub const CACHE: u32 = 1 << 0;
    pub const LOCKOWNER: u32 = 1 << 1;
    pub const KILL_SUIDGID: u32 = 1 << 2;
}

/// GETLK, SETLK and SETLKW: flock(2), else fcntl(2).
pub const LK_FLOCK: u32 = 1 << 0;

/// FSYNC: contents only.
pub const FSYNC_DATA_ONLY: u32 = 1 << 0;

/// SETXATTR: an ACL set by somebody outside the file's group clears setgid.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
