//! The byte forms against `linux/fuse.h`: lengths, offsets, and bytes that lie.

use super::flag::setattr;
use super::input::{
    CopyFileRangeIn, CreateIn, FallocateIn, FileLock, FlushIn, InHeader, LkIn, LseekIn, OpenIn,
    ReadIn, ReleaseIn, SetattrIn, SetxattrIn, WriteIn,
};
use super::output::{
    AttrOut, Dirent, EntryOut, FuseAttr, InitOut, Listing, OpenOut, OutHeader, StatfsOut, Validity,
    WriteOut,
};
use super::parse::{LookupName, Op, parse};
use super::{IN_HEADER_LEN, OUT_HEADER_LEN, Opcode, WRITE_HEAD_LEN};
use crate::base::codec::Codec;
use crate::base::{Attr, Errno, FileKind, Name, Time};
use proptest::prelude::*;
use std::time::Duration;

/// Length of a record as the kernel's compiler lays it out.
fn length<T: Codec>() -> usize {
    let zeros = [0; 256];
    let mut r = crate::base::Reader::new(&zeros);
    T::decode(&mut r).map(|_| r.at()).unwrap_or(0)
}

#[test]
fn records_are_as_long_as_the_kernels() {
    assert_eq!(length::<InHeader>(), IN_HEADER_LEN);
    assert_eq!(length::<OutHeader>(), OUT_HEADER_LEN);
    assert_eq!(length::<WriteIn>() + IN_HEADER_LEN, WRITE_HEAD_LEN);
    assert_eq!(length::<SetattrIn>(), 88);
    assert_eq!(length::<OpenIn>(), 8);
    assert_eq!(length::<CreateIn>(), 16);
    assert_eq!(length::<ReadIn>(), 40);
    assert_eq!(length::<ReleaseIn>(), 24);
    assert_eq!(length::<FlushIn>(), 24);
    assert_eq!(length::<LkIn>(), 48);
    assert_eq!(length::<FileLock>(), 24);
    assert_eq!(length::<SetxattrIn>(), 16);
    assert_eq!(length::<FallocateIn>(), 32);
    assert_eq!(length::<LseekIn>(), 24);
    assert_eq!(length::<CopyFileRangeIn>(), 56);
    assert_eq!(length::<InitOut>(), 64);
    assert_eq!(length::<FuseAttr>(), 88);
    assert_eq!(length::<EntryOut>(), 128);
    assert_eq!(length::<AttrOut>(), 104);
    assert_eq!(length::<OpenOut>(), 16);
    assert_eq!(length::<WriteOut>(), 8);
    assert_eq!(length::<StatfsOut>(), 80);
}

fn head(opcode: u32) -> InHeader {
    InHeader {
        len: 0,
        opcode,
        unique: 4,
        nodeid: 9,
        uid: 0,
        gid: 0,
        pid: 0,
        extensions: 0,
        padding: 0,
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}

#[test]
fn opcodes_keep_their_numbers() {
    for (opcode, number) in Opcode::ALL {
        assert_eq!(Opcode::of(*number), *opcode);
    }
    assert_eq!(Opcode::of(7), Opcode::Unknown(7));
    assert_eq!(parse(&head(7), &[]), Ok(Op::Refused(Opcode::Unknown(7))));
    assert_eq!(parse(&head(37), &[]), Ok(Op::Refused(Opcode::Bmap)));
}

#[test]
fn names_are_found_behind_their_arguments() {
    assert_eq!(
        parse(&head(1), b"x\0"),
        Ok(Op::Lookup(LookupName::Child(name("x"))))
    );
    assert_eq!(parse(&head(1), b".\0"), Ok(Op::Lookup(LookupName::Itself)));
    assert_eq!(parse(&head(1), b"..\0"), Ok(Op::Lookup(LookupName::Parent)));
    let rename = [
        &5u64.to_le_bytes()[..],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        b"a\0b\0",
    ]
    .concat();
    let want = Op::Rename {
        newdir: 5,
        flags: 1,
        from: name("a"),
        to: name("b"),
    };
    assert_eq!(parse(&head(45), &rename), Ok(want));
    let symlink = Op::Symlink {
        name: name("n"),
        link: b"../x y".to_vec(),
    };
    assert_eq!(parse(&head(6), b"n\0../x y\0"), Ok(symlink));
}

#[test]
fn file_locks_wait_or_not_by_their_opcode() {
    let lock = FileLock {
        start: 3,
        end: 4,
        kind: 1,
        pid: 5,
    };
    let args = LkIn {
        fh: 1,
        owner: 2,
        lock,
        lk_flags: 1,
        padding: 0,
    };
    assert_eq!(parse(&head(31), &args.to_vec()), Ok(Op::Getlk(args)));
    for (opcode, wait) in [(32, false), (33, true)] {
        let want = Op::Setlk { args, wait };
        assert_eq!(parse(&head(opcode), &args.to_vec()), Ok(want));
    }
    assert_eq!(parse(&head(32), &args.to_vec()[1..]), Err(Errno::EIO));
}

#[test]
fn wrong_names_get_their_errors() {
    let long = [&[b'a'; 256][..], b"\0"].concat();
    assert_eq!(parse(&head(10), &long), Err(Errno::ENAMETOOLONG));
    assert_eq!(parse(&head(10), b"a/b\0"), Err(Errno::EINVAL));
    assert_eq!(parse(&head(10), b"\0"), Err(Errno::EINVAL));
    assert_eq!(parse(&head(10), b"no end"), Err(Errno::EIO));
    assert_eq!(parse(&head(14), b"abc"), Err(Errno::EIO));
    let link = [b"n\0", &[b'l'; 4096][..], b"\0"].concat();
    assert_eq!(parse(&head(6), &link), Err(Errno::ENAMETOOLONG));
}

/// Every subset of the bits of SETATTR, against what each means.
#[test]
fn setattr_changes_what_its_bits_name() {
    let args = |valid| SetattrIn {
        valid,
        padding: 0,
        fh: 0,
        size: 10,
        lock_owner: 0,
        atime: 11,
        mtime: u64::MAX,
        ctime: 13,
        atime_nsec: 1,
        mtime_nsec: u32::MAX,
        ctime_nsec: 3,
        mode: 0o104_755,
        unused4: 0,
        uid: 7,
        gid: 8,
        unused5: 0,
    };
    for valid in 0..1u32 << 12 {
        let Ok(Op::Setattr(set)) = parse(&head(4), &args(valid).to_vec()) else {
            panic!("not parsed: {valid:#x}");
        };
        let has = |bit: u32| valid & bit != 0;
        assert_eq!(set.mode, has(setattr::MODE).then_some(0o4755));
        assert_eq!(set.uid, has(setattr::UID).then_some(7));
        assert_eq!(set.gid, has(setattr::GID).then_some(8));
        assert_eq!(set.size, has(setattr::SIZE).then_some(10));
        assert_eq!(set.atime_now, has(setattr::ATIME_NOW));
        assert_eq!(set.mtime_now, has(setattr::MTIME_NOW));
        assert_eq!(set.kill_priv, has(setattr::KILL_SUIDGID));
        let atime = has(setattr::ATIME) && !set.atime_now;
        assert_eq!(set.atime, atime.then_some(Time { sec: 11, nsec: 1 }));
        let mtime = has(setattr::MTIME) && !set.mtime_now;
        let before = Time {
            sec: -1,
            nsec: 999_999_999,
        };
        assert_eq!(set.mtime, mtime.then_some(before));
    }
}

#[test]
fn forgets_come_one_by_one_or_many() {
    let Ok(Op::Forget(one)) = parse(&head(2), &3u64.to_le_bytes()) else {
        panic!("not a forget");
    };
    assert_eq!((one.len(), one[0].nodeid, one[0].lookups), (1, 9, 3));
    // A count that lies about what follows is cut to it.
    let mut many = [u32::MAX.to_le_bytes(), [0; 4]].concat();
    for n in [5u64, 1, 6, 2] {
        many.extend(n.to_le_bytes());
    }
    let Ok(Op::Forget(list)) = parse(&head(42), &many) else {
        panic!("not a forget");
    };
    let pairs: Vec<_> = list.iter().map(|f| (f.nodeid, f.lookups)).collect();
    assert_eq!(pairs, [(5, 1), (6, 2)]);
}

fn attr() -> Attr {
    Attr {
        kind: FileKind::Directory,
        mode: 0o1777,
        uid: 1,
        gid: 2,
        nlink: 3,
        rdev: 4,
        ino: 5,
        size: 6,
        blocks: 7,
        atime: Time { sec: -1, nsec: 8 },
        mtime: Time::default(),
        ctime: Time::default(),
        btime: Time::default(),
        version: 9,
    }
}

#[test]
fn attributes_carry_the_type_in_the_mode() {
    let out = FuseAttr::of(&attr());
    assert_eq!(out.mode, libc::S_IFDIR | 0o1777);
    assert_eq!(out.atime, u64::MAX);
    let valid = Validity {
        entry: Duration::from_millis(1500),
        attr: Duration::from_secs(2),
    };
    let entry = valid.entry_out(77, &attr());
    assert_eq!(
        (entry.entry_valid, entry.entry_valid_nsec),
        (1, 500_000_000)
    );
    assert_eq!((entry.attr_valid, entry.attr_valid_nsec), (2, 0));
    assert_eq!(entry.to_vec()[..8], 77u64.to_le_bytes());
}

proptest! {
    /// Entries are aligned, readable in order, and never longer than the buffer.
    #[test]
    fn listings_stay_in_their_room(
        size in 0usize..2000,
        plus in any::<bool>(),
        names in proptest::collection::vec("[a-z]{1,60}", 0..40),
    ) {
        let mut out = Listing::new(size, plus);
        let mut taken = Vec::new();
        for (i, name) in names.iter().enumerate() {
            if !out.has_room(name.as_bytes()) {
                break;
            }
            let ino = i as u64 + 1;
            let offset = i as u64 + 10;
            let dirent = Dirent { ino, offset, kind: FileKind::Regular, name: name.as_bytes() };
            let object = plus.then(|| Validity::default().entry_out(ino, &attr()));
            out.push(dirent, object);
            taken.push((ino, offset, name.clone()));
        }
        let bytes = out.into_bytes();
        prop_assert!(bytes.len() <= size && bytes.len().is_multiple_of(8));
        let mut at = 0;
        for (ino, offset, name) in taken {
            if plus {
                at += 128;
            }
            let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
            prop_assert_eq!((number(at), number(at + 8)), (ino, offset));
            prop_assert_eq!(number(at + 16), name.len() as u64 | (8 << 32));
            prop_assert_eq!(&bytes[at + 24..at + 24 + name.len()], name.as_bytes());
            at += (24 + name.len()).next_multiple_of(8);
        }
        prop_assert_eq!(at, bytes.len());
    }

    #[test]
    fn no_body_makes_the_parser_panic(opcode in 0u32..60, body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&head(opcode), &body);
    }
}
