//! Requests of the kernel, parsed: one variant for each operation, owning what
//! the operation names. The data of a WRITE stays in the buffer it was read to.

use super::Opcode;
use super::flag::setattr;
use super::input::{
    BatchForgetIn, CopyFileRangeIn, CreateIn, FallocateIn, FlushIn, ForgetOne, FsyncIn, GetxattrIn,
    InHeader, InitIn, LkIn, LseekIn, MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In,
    SetattrIn, SetxattrIn, WriteIn,
};
use crate::base::codec::{Codec, DecodeError, Reader};
use crate::base::limits::{SYMLINK_MAX, XATTR_NAME_MAX, XATTR_VALUE_MAX};
use crate::base::{Errno, Name, SetAttr, Time};

/// What is asked. Bodies that the server ignores are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Init(InitIn),
    Destroy,
    Forget(Vec<ForgetOne>),
    /// The `unique` of the request to interrupt.
    Interrupt(u64),
    Lookup(LookupName),
    Getattr,
    /// GETATTR with the time of birth (Linux 6.6).
    Statx,
    Setattr(SetAttr),
    Readlink,
    Symlink {
        name: Name,
        link: Vec<u8>,
    },
    Mknod {
        name: Name,
        args: MknodIn,
    },
    Mkdir {
        name: Name,
        args: MkdirIn,
    },
    Unlink(Name),
    Rmdir(Name),
    Rename {
        newdir: u64,
        flags: u32,
        from: Name,
        to: Name,
    },
    Link {
        nodeid: u64,
        name: Name,
    },
    Open(OpenIn),
    Create {
        name: Name,
        args: CreateIn,
    },
    Tmpfile(CreateIn),
    Read(ReadIn),
    Write(WriteIn),
    Statfs,
    Release(ReleaseIn),
    Fsync(FsyncIn),
    Flush(FlushIn),
    Getlk(LkIn),
    Setlk {
        args: LkIn,
        wait: bool,
    },
    Opendir,
    Readdir {
        args: ReadIn,
        plus: bool,
    },
    Releasedir(ReleaseIn),
    Fsyncdir(FsyncIn),
    Setxattr {
        args: SetxattrIn,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    Getxattr {
        size: u32,
        name: Vec<u8>,
    },
    Listxattr {
        size: u32,
    },
    Removexattr(Vec<u8>),
    Fallocate(FallocateIn),
    Lseek(LseekIn),
    /// `wide`: the reply has a 64-bit count (COPY_FILE_RANGE_64).
    CopyFileRange {
        args: CopyFileRangeIn,
        wide: bool,
    },
    Syncfs,
    Ioctl,
    /// Operations that the kernel has a substitute for, or never sends to a
    /// server that did not ask for them.
    Refused(Opcode),
}

/// What LOOKUP looks for. The two special names come from NFS exports and
/// `open_by_handle_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupName {
    Child(Name),
    Itself,
    Parent,
}

/// Parses the body of a request. A name that no file can have is that name's
/// error; bytes that make no sense are EIO.
pub fn parse(head: &InHeader, body: &[u8]) -> Result<Op, Errno> {
    let mut r = Reader::new(body);
    body_of(head, &mut r).map_err(|e| match e {
        Fault::Name(errno) => errno,
        Fault::Bytes => Errno::EIO,
    })
}

/// Why a body was not understood.
enum Fault {
    Name(Errno),
    Bytes,
}

impl From<DecodeError> for Fault {
    fn from(_: DecodeError) -> Fault {
        Fault::Bytes
    }
}

fn body_of(head: &InHeader, r: &mut Reader<'_>) -> Result<Op, Fault> {
    let opcode = Opcode::of(head.opcode);
    Ok(match opcode {
        Opcode::Forget => Op::Forget(vec![ForgetOne {
            nodeid: head.nodeid,
            lookups: u64::decode(r)?,
        }]),
        Opcode::Init => Op::Init(InitIn::decode(r)?),
        Opcode::Destroy => Op::Destroy,
        Opcode::Interrupt => Op::Interrupt(u64::decode(r)?),
        Opcode::Statfs => Op::Statfs,
        Opcode::Flush => Op::Flush(FlushIn::decode(r)?),
        Opcode::Getlk => Op::Getlk(LkIn::decode(r)?),
        Opcode::Setlk | Opcode::Setlkw => Op::Setlk {
            args: LkIn::decode(r)?,
            wait: opcode == Opcode::Setlkw,
        },
        Opcode::Syncfs => Op::Syncfs,
        Opcode::Ioctl => Op::Ioctl,
        Opcode::Getattr => Op::Getattr,
        Opcode::Statx => Op::Statx,
        Opcode::Setattr => Op::Setattr(set_of(&SetattrIn::decode(r)?)),
        Opcode::Readlink => Op::Readlink,
        Opcode::Setxattr | Opcode::Getxattr | Opcode::Listxattr | Opcode::Removexattr => {
            xattr(opcode, r)?
        }
        Opcode::Open
        | Opcode::Read
        | Opcode::Write
        | Opcode::Release
        | Opcode::Fsync
        | Opcode::Opendir
        | Opcode::Readdir
        | Opcode::Readdirplus
        | Opcode::Releasedir
        | Opcode::Fsyncdir
        | Opcode::Fallocate
        | Opcode::Lseek
        | Opcode::CopyFileRange
        | Opcode::CopyFileRange64 => handle(opcode, r)?,
        _ => named(opcode, r)?,
    })
}

/// Operations on names, and BATCH_FORGET.
fn named(opcode: Opcode, r: &mut Reader<'_>) -> Result<Op, Fault> {
    Ok(match opcode {
        Opcode::Lookup => Op::Lookup(match string(r)? {
            b"." => LookupName::Itself,
            b".." => LookupName::Parent,
            other => LookupName::Child(Name::new(other).map_err(Fault::Name)?),
        }),
        Opcode::Symlink => Op::Symlink {
            name: name(r)?,
            link: bounded(r, SYMLINK_MAX, Errno::ENAMETOOLONG)?,
        },
        Opcode::Mknod => {
            let args = MknodIn::decode(r)?;
            Op::Mknod {
                name: name(r)?,
                args,
            }
        }
        Opcode::Mkdir => {
            let args = MkdirIn::decode(r)?;
            Op::Mkdir {
                name: name(r)?,
                args,
            }
        }
        Opcode::Unlink => Op::Unlink(name(r)?),
        Opcode::Rmdir => Op::Rmdir(name(r)?),
        Opcode::Rename => {
            let newdir = u64::decode(r)?;
            rename(newdir, 0, r)?
        }
        Opcode::Rename2 => {
            let args = Rename2In::decode(r)?;
            rename(args.newdir, args.flags, r)?
        }
        Opcode::Link => {
            let nodeid = u64::decode(r)?;
            Op::Link {
                nodeid,
                name: name(r)?,
            }
        }
        Opcode::Create => {
            let args = CreateIn::decode(r)?;
            Op::Create {
                name: name(r)?,
                args,
            }
        }
        Opcode::Tmpfile => Op::Tmpfile(CreateIn::decode(r)?),
        Opcode::BatchForget => {
            let count = BatchForgetIn::decode(r)?.count as usize;
            let most = r.remaining() / FORGET_ONE_LEN;
            let list = (0..count.min(most)).map(|_| ForgetOne::decode(r));
            Op::Forget(list.collect::<Result<_, _>>()?)
        }
        other => Op::Refused(other),
    })
}

/// Operations on open files and directories.
fn handle(opcode: Opcode, r: &mut Reader<'_>) -> Result<Op, Fault> {
    Ok(match opcode {
        Opcode::Open => Op::Open(OpenIn::decode(r)?),
        Opcode::Opendir => Op::Opendir,
        Opcode::Read => Op::Read(ReadIn::decode(r)?),
        Opcode::Write => Op::Write(WriteIn::decode(r)?),
        Opcode::Release => Op::Release(ReleaseIn::decode(r)?),
        Opcode::Releasedir => Op::Releasedir(ReleaseIn::decode(r)?),
        Opcode::Fsync => Op::Fsync(FsyncIn::decode(r)?),
        Opcode::Fsyncdir => Op::Fsyncdir(FsyncIn::decode(r)?),
        Opcode::Fallocate => Op::Fallocate(FallocateIn::decode(r)?),
        Opcode::Lseek => Op::Lseek(LseekIn::decode(r)?),
        Opcode::Readdir | Opcode::Readdirplus => Op::Readdir {
            args: ReadIn::decode(r)?,
            plus: opcode == Opcode::Readdirplus,
        },
        Opcode::CopyFileRange | Opcode::CopyFileRange64 => Op::CopyFileRange {
            args: CopyFileRangeIn::decode(r)?,
            wide: opcode == Opcode::CopyFileRange64,
        },
        other => Op::Refused(other),
    })
}

fn xattr(opcode: Opcode, r: &mut Reader<'_>) -> Result<Op, Fault> {
    Ok(match opcode {
        Opcode::Setxattr => {
            let args = SetxattrIn::decode(r)?;
            let name = bounded(r, XATTR_NAME_MAX, Errno::ERANGE)?;
            let size = args.size as usize;
            if size > XATTR_VALUE_MAX {
                return Err(Fault::Name(Errno::E2BIG));
            }
            let value = r.take(size)?.to_vec();
            Op::Setxattr { args, name, value }
        }
        Opcode::Getxattr => {
            let size = GetxattrIn::decode(r)?.size;
            let name = bounded(r, XATTR_NAME_MAX, Errno::ERANGE)?;
            Op::Getxattr { size, name }
        }
        Opcode::Listxattr => Op::Listxattr {
            size: GetxattrIn::decode(r)?.size,
        },
        Opcode::Removexattr => Op::Removexattr(bounded(r, XATTR_NAME_MAX, Errno::ERANGE)?),
        other => Op::Refused(other),
    })
}

fn rename(newdir: u64, flags: u32, r: &mut Reader<'_>) -> Result<Op, Fault> {
    Ok(Op::Rename {
        newdir,
        flags,
        from: name(r)?,
        to: name(r)?,
    })
}

/// The bytes up to a NUL, which is consumed.
fn string<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    let rest = r.clone().take(r.remaining())?;
    let len = rest.iter().position(|&b| b == 0);
    let len = len.ok_or(r.fault("name without an end"))?;
    let got = r.take(len)?;
    r.take(1)?;
    Ok(got)
}

fn name(r: &mut Reader<'_>) -> Result<Name, Fault> {
    Name::new(string(r)?).map_err(Fault::Name)
}

fn bounded(r: &mut Reader<'_>, most: usize, too_long: Errno) -> Result<Vec<u8>, Fault> {
    match string(r)? {
        bytes if bytes.len() > most => Err(Fault::Name(too_long)),
        bytes => Ok(bytes.to_vec()),
    }
}

/// SETATTR's bits as the change they ask for.
fn set_of(args: &SetattrIn) -> SetAttr {
    let has = |bit: u32| args.valid & bit != 0;
    let time = |sec: u64, nsec: u32| Time {
        sec: sec.cast_signed(),
        nsec: nsec.min(999_999_999),
    };
    let value = |bit, now| has(bit) && !has(now);
    SetAttr {
        mode: has(setattr::MODE).then_some(args.mode & 0o7777),
        uid: has(setattr::UID).then_some(args.uid),
        gid: has(setattr::GID).then_some(args.gid),
        size: has(setattr::SIZE).then_some(args.size),
        atime: value(setattr::ATIME, setattr::ATIME_NOW).then(|| time(args.atime, args.atime_nsec)),
        mtime: value(setattr::MTIME, setattr::MTIME_NOW).then(|| time(args.mtime, args.mtime_nsec)),
        ctime: has(setattr::CTIME).then(|| time(args.ctime, args.ctime_nsec)),
        atime_now: has(setattr::ATIME_NOW),
        mtime_now: has(setattr::MTIME_NOW),
        kill_priv: has(setattr::KILL_SUIDGID),
    }
}

const FORGET_ONE_LEN: usize = 16;
