//! What the kernel sends: the fixed parts of the requests.

use crate::record;

record! {
    /// Before every request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InHeader {
        /// Length of the whole request, this header included.
        pub len: u32,
        pub opcode: u32,
        /// Names the request until it is answered. Even; odd ones are INTERRUPTs of it.
        pub unique: u64,
        pub nodeid: u64,
        pub uid: u32,
        pub gid: u32,
        /// The thread that asks; 0 where the kernel itself does.
        pub pid: u32,
        /// Length of the extensions after the body, in units of 8 bytes.
        pub extensions: u16,
        pub padding: u16,
    }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InitIn {
        pub major: u32,
        pub minor: u32,
        pub max_readahead: u32,
        pub flags: u32,
        pub flags2: u32,
    }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ForgetOne { pub nodeid: u64, pub lookups: u64 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BatchForgetIn { pub count: u32, pub dummy: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SetattrIn {
        pub valid: u32,
        pub padding: u32,
        pub fh: u64,
        pub size: u64,
        pub lock_owner: u64,
        pub atime: u64,
        pub mtime: u64,
        pub ctime: u64,
        pub atime_nsec: u32,
        pub mtime_nsec: u32,
        pub ctime_nsec: u32,
        pub mode: u32,
        pub unused4: u32,
        pub uid: u32,
        pub gid: u32,
        pub unused5: u32,
    }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MknodIn { pub mode: u32, pub rdev: u32, pub umask: u32, pub padding: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MkdirIn { pub mode: u32, pub umask: u32 }
}
record! {
    /// RENAME2; RENAME has the first field only.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rename2In { pub newdir: u64, pub flags: u32, pub padding: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenIn { pub flags: u32, pub open_flags: u32 }
}
record! {
    /// CREATE and TMPFILE.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CreateIn { pub flags: u32, pub mode: u32, pub umask: u32, pub open_flags: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReleaseIn { pub fh: u64, pub flags: u32, pub release_flags: u32, pub lock_owner: u64 }
}
record! {
    /// FLUSH: a descriptor is closed, by the process that `lock_owner` names.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FlushIn { pub fh: u64, pub unused: u32, pub padding: u32, pub lock_owner: u64 }
}
record! {
    /// A file lock: bytes `start ..= end` (up to OFFSET_MAX: to the end of the
    /// file), F_RDLCK, F_WRLCK or F_UNLCK. Also the answer to GETLK.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FileLock { pub start: u64, pub end: u64, pub kind: u32, pub pid: u32 }
}
record! {
    /// GETLK, SETLK and SETLKW.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LkIn {
        pub fh: u64,
        /// The process's files, or the open file, as the kernel numbers them.
        pub owner: u64,
        pub lock: FileLock,
        pub lk_flags: u32,
        pub padding: u32,
    }
}
record! {
    /// READ, READDIR and READDIRPLUS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ReadIn {
        pub fh: u64,
        pub offset: u64,
        pub size: u32,
        pub read_flags: u32,
        pub lock_owner: u64,
        pub flags: u32,
        pub padding: u32,
    }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct WriteIn {
        pub fh: u64,
        pub offset: u64,
        pub size: u32,
        pub write_flags: u32,
        pub lock_owner: u64,
        pub flags: u32,
        pub padding: u32,
    }
}
record! {
    /// FSYNC and FSYNCDIR.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FsyncIn { pub fh: u64, pub fsync_flags: u32, pub padding: u32 }
}
record! {
    /// As long as this once `SETXATTR_EXT` is agreed, which is always.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SetxattrIn { pub size: u32, pub flags: u32, pub setxattr_flags: u32, pub padding: u32 }
}
record! {
    /// GETXATTR and LISTXATTR; size 0 asks how long the answer is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GetxattrIn { pub size: u32, pub padding: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FallocateIn { pub fh: u64, pub offset: u64, pub len: u64, pub mode: u32, pub padding: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct LseekIn { pub fh: u64, pub offset: u64, pub whence: u32, pub padding: u32 }
}
record! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CopyFileRangeIn {
        pub fh_in: u64,
        pub offset_in: u64,
        pub nodeid_out: u64,
        pub fh_out: u64,
        pub offset_out: u64,
        pub len: u64,
        pub flags: u64,
    }
}
