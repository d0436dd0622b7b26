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
