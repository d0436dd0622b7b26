//! The kernel's FUSE protocol as types and bytes: what Linux 6.1 (7.37) speaks
//! and what later kernels (up to 7.45) added. Numbers, flags and layouts are
//! those of `linux/fuse.h`.
//!
//! Everything is parsed with the bounded reader of `base::codec`, because the
//! kernel's structs are little-endian, unpadded sequences of integers on every
//! machine this builds for. No struct is ever cast onto memory.

pub mod flag;
pub mod input;
pub mod notify;
pub mod output;
pub mod parse;

#[cfg(test)]
mod tests;

#[cfg(target_endian = "big")]
compile_error!("the FUSE protocol is native-endian and the codec is little-endian");

/// Major protocol number; a kernel with another one negotiates down to it.
pub const MAJOR: u32 = 7;
/// What we answer with: nothing here needs a later one.
pub const MINOR: u32 = 45;
/// `FUSE_INIT_EXT` and 64 bits of flags: Linux 5.17, and so each kernel since 6.1.
pub const MINOR_MIN: u32 = 36;
/// The first with dentry epochs (Linux 6.16).
pub const MINOR_EPOCHS: u32 = 44;
/// The node that exists before any look-up.
pub const ROOT_ID: u64 = 1;
/// Length of [`input::InHeader`].
pub const IN_HEADER_LEN: usize = 40;
/// Length of [`output::OutHeader`].
pub const OUT_HEADER_LEN: usize = 16;
/// Header and fixed part of a WRITE: what lies before its data.
pub const WRITE_HEAD_LEN: usize = IN_HEADER_LEN + 40;

/// Names the opcodes of the kernel. Unknown numbers keep their value, so that
/// they can be refused by number.
macro_rules! opcodes {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Opcode { $($name,)* Unknown(u32) }

        impl Opcode {
            #[must_use]
            pub fn of(number: u32) -> Opcode {
                match number { $($number => Opcode::$name,)* other => Opcode::Unknown(other) }
            }
            /// Every opcode with a name, and its number.
            pub const ALL: &'static [(Opcode, u32)] = &[$((Opcode::$name, $number)),*];
        }
    };
}
opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6,
    Mknod = 8, Mkdir = 9, Unlink = 10, Rmdir = 11, Rename = 12, Link = 13,
    Open = 14, Read = 15, Write = 16, Statfs = 17, Release = 18, Fsync = 20,
    Setxattr = 21, Getxattr = 22, Listxattr = 23, Removexattr = 24, Flush = 25,
    Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29, Fsyncdir = 30,
    Getlk = 31, Setlk = 32, Setlkw = 33, Access = 34, Create = 35, Interrupt = 36,
    Bmap = 37, Destroy = 38, Ioctl = 39, Poll = 40, NotifyReply = 41,
    BatchForget = 42, Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46,
    CopyFileRange = 47, Setupmapping = 48, Removemapping = 49, Syncfs = 50,
    Tmpfile = 51, Statx = 52, CopyFileRange64 = 53,
}
