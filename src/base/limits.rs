//! Every bound that crosses a module, in one place. All are inclusive.

/// Longest file name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest symbolic link target in bytes (PATH_MAX less its NUL).
pub const SYMLINK_MAX: usize = 4095;
/// Longest xattr name and value (Linux's own bounds).
pub const XATTR_NAME_MAX: usize = 255;
pub const XATTR_VALUE_MAX: usize = 65536;
/// All xattr names of one file, listed.
pub const XATTR_LIST_MAX: usize = 65536;
/// Most bytes of payload in one frame: one FUSE request of 1 MiB.
pub const PAYLOAD_MAX: usize = 1 << 20;
/// Most bytes of body in one frame (names, attributes, a batch).
pub const BODY_MAX: usize = 1 << 20;
/// Reply slots of one client on one shard.
pub const TAGS_MAX: u16 = 256;
/// Supplementary groups in one credential.
pub const GROUPS_MAX: usize = 65536;
/// Largest file.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64 - 4096;
/// Unit of flash I/O and of checksums.
pub const BLOCK: usize = 4096;
/// Hard links to one inode, where the origin does not say less.
pub const LINK_MAX: u32 = 65000;

const _: () = assert!(PAYLOAD_MAX.is_multiple_of(BLOCK));
