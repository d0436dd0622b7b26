//! What happens on the box alone: changes, their replies, their records.

use super::*;
use crate::flash::{Peek, Tx};
use crate::namespace::key;
use crate::namespace::record::flag;
use crate::shard::meta;
use crate::wire::head::flags;

#[test]
fn files_of_every_kind_are_made_and_shown() {
    let rig = Rig::new(|_| {});
    for (n, kind) in [
        ("f", FileKind::Regular),
        ("d", FileKind::Directory),
        ("l", FileKind::Symlink),
        ("p", FileKind::Fifo),
        ("s", FileKind::Socket),
        ("c", FileKind::Char),
    ] {
        let made = rig.create(rig.root(), n, kind).unwrap();
        assert!(made.created);
        assert_eq!(made.attr.kind, kind);
        assert_eq!(rig.lookup(rig.root(), n).unwrap().attr, made.attr);
        assert_eq!(rig.create(rig.root(), n, kind).unwrap_err(), Errno::EEXIST);
    }
    assert_eq!(rig.names(rig.root()), ["c", "d", "f", "l", "p", "s"]);
    let link = rig.lookup(rig.root(), "l").unwrap();
    let intent = Intent::default();
    let target = rig.ask(Request::Readlink(op::OfFile {
        fid: link.fid,
        intent,
    }));
    assert_eq!(
        target,
        Ok(Reply::Blob(op::Blob {
            bytes: crate::base::codec::Bytes(b"there".to_vec())
        }))
    );
}

#[test]
fn the_umask_and_the_credential_are_the_requests() {
    let rig = Rig::new(|_| {});
    rig.ask(chmod(rig.root(), 0o777)).unwrap();
    let out = rig.ask_as(USER, creation(rig.root(), "mine", FileKind::Regular));
    let (Reply::Entry(entry), _) = out.result.unwrap() else {
        panic!("no entry");
    };
    assert_eq!(
        (entry.attr.uid, entry.attr.gid, entry.attr.mode),
        (1000, 1000, 0o755)
    );
    assert!(out.transno > Transno(0) && out.lsn.0 > 0);
    rig.ask(chmod(rig.root(), 0o755)).unwrap();
    let refused = rig.ask_as(USER, creation(rig.root(), "other", FileKind::Regular));
    assert_eq!(refused.result.map(|_| ()), Err(Errno::EACCES));
    let unknown = rig.ask_as(99, creation(rig.root(), "other", FileKind::Regular));
    assert_eq!(unknown.result.map(|_| ()), Err(Errno::EACCES));
}

#[test]
fn files_of_other_targets_are_nobodys() {
    let rig = Rig::new(|_| {});
    let root = rig.root();
    // One that is there, as it would be on a shard with two targets.
    let mut tx = Tx::default();
    let inode = match rig.shard.flash.peek(&key::inode(root)) {
        Peek::Found(bytes) => bytes.to_vec(),
        other => panic!("the root's inode: {other:?}"),
    };
    tx.put(key::inode(Fid::new(2 << 32 | 1, 1)), inode);
    rig.shard.apply(tx).unwrap();
    for fid in [
        Fid::new(2 << 32 | 1, 1),
        Fid { ver: 1, ..root },
        Fid { oid: 0, ..root },
        Fid { oid: 999, ..root },
    ] {
        assert_eq!(rig.getattr(fid).unwrap_err(), Errno::ESTALE, "{fid}");
        assert_eq!(rig.rename((root, "a"), (fid, "b"), 0), Err(Errno::ESTALE));
    }
}

#[test]
fn a_read_only_export_refuses_changes_and_serves_reads() {
    let mut rig = Rig::new(|scene| scene.make(&["f"], FileKind::Regular));
    rig.export = Rc::new(Export::new(ClientId(1), "ro".into(), TARGET, true));
    let f = rig.lookup(rig.root(), "f").unwrap().fid;
    assert_eq!(
        rig.create(rig.root(), "g", FileKind::Regular).unwrap_err(),
        Errno::EROFS
    );
    assert_eq!(rig.unlink(rig.root(), "f", false), Err(Errno::EROFS));
    assert_eq!(rig.ask(chmod(f, 0o600)), Err(Errno::EROFS));
    assert_eq!(rig.write(f, 0, 0, b"x").unwrap_err(), Errno::EROFS);
    assert_eq!(rig.open(f, 1, libc::O_RDWR).unwrap_err(), Errno::EROFS);
    assert!(rig.open(f, 1, libc::O_RDONLY).is_ok());
}

#[test]
fn bytes_are_written_read_appended_and_cut() {
    let rig = Rig::new(|_| {});
    let f = rig.create(rig.root(), "f", FileKind::Regular).unwrap().fid;
    rig.open(f, 1, libc::O_RDWR).unwrap();
    assert_eq!(rig.write(f, 1, 2, b"hello").unwrap().size, 7);
    assert_eq!(rig.read(f).unwrap(), b"\0\0hello");
    let append = Request::Write(op::Write {
        fid: f,
        open: OpenId(1),
        offset: 0,
        append: true,
    });
    let mut asked = incoming(500, 0, append);
    asked.payload = Some(Slice::from(b" world".to_vec()));
    let Reply::Written(written) = rig.run(asked).result.unwrap().0 else {
        panic!("not written");
    };
    assert_eq!((written.offset, written.attr.size), (7, 13));
    let before = rig.getattr(f).unwrap();
    rig.open(f, 2, libc::O_RDWR | libc::O_TRUNC).unwrap();
    let after = rig.getattr(f).unwrap();
    assert_eq!(after.size, 0);
    assert!(after.version > before.version);
    assert!(rig.read(f).unwrap().is_empty());
    assert_eq!(rig.read(rig.root()).unwrap_err(), Errno::EISDIR);
}

#[test]
fn a_handle_outlives_the_right_to_open_again() {
    let rig = Rig::new(|_| {});
    rig.ask(chmod(rig.root(), 0o777)).unwrap();
    let mut request = creation(rig.root(), "f", FileKind::Regular);
    if let Request::Create(create) = &mut request {
        (create.open, create.flags, create.mode) = (OpenId(5), libc::O_RDWR as u32, 0o444);
    }
    let out = rig.ask_as(USER, request);
    let (Reply::Entry(f), _) = out.result.unwrap() else {
        panic!("no entry");
    };
    let cut = |size| SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    let truncate = |size| {
        Request::Setattr(op::Setattr {
            fid: f.fid,
            set: cut(size),
        })
    };
    assert!(rig.ask_as(USER, truncate(10)).result.is_ok());
    rig.close(f.fid, 5);
    let refused = rig.ask_as(USER, truncate(0)).result.map(|_| ());
    assert_eq!(refused, Err(Errno::EACCES));
}

#[test]
fn writes_take_privileges_away_when_asked() {
    let rig = Rig::new(|_| {});
    let f = rig.create(rig.root(), "f", FileKind::Regular).unwrap().fid;
    rig.ask(chmod(f, 0o6755)).unwrap();
    let write = Request::Write(op::Write {
        fid: f,
        open: OpenId(0),
        offset: 0,
        append: false,
    });
    for (kill, wanted) in [(0, 0o6755), (flags::KILL_PRIV, 0o755)] {
        let mut asked = incoming(600, 0, write.clone());
        asked.payload = Some(Slice::from(b"x".to_vec()));
        asked.head.flags = kill;
        assert!(rig.run(asked).result.is_ok());
        assert_eq!(rig.getattr(f).unwrap().mode, wanted);
    }
}

/// A kernel may take a file for longer than it is, and write all of its last page
/// back: that makes it no longer (C17).
#[test]
fn pages_that_are_written_back_make_no_file_longer_c17() {
    let rig = Rig::new(|_| {});
    let f = rig.create(rig.root(), "f", FileKind::Regular).unwrap().fid;
    rig.write(f, 0, 0, &[1; 5000]).unwrap();
    for (offset, byte) in [(4096, 2), (8192, 3)] {
        let write = Request::Write(op::Write {
            fid: f,
            open: OpenId(0),
            offset,
            append: false,
        });
        let mut asked = incoming(600, 0, write);
        asked.payload = Some(Slice::from(vec![byte; 4096]));
        asked.head.flags = flags::PAGE_WRITE;
        let Reply::Written(done) = rig.run(asked).result.unwrap().0 else {
            panic!("not written");
        };
        assert_eq!((done.written, done.attr.size), (4096, 5000));
    }
    let bytes = rig.read(f).unwrap();
    assert_eq!(bytes[..4096], [1; 4096]);
    assert_eq!(bytes[4096..], [2; 904]);
}

#[test]
fn an_unlinked_open_file_is_read_until_its_last_close() {
    let rig = Rig::new(|_| {});
    let f = rig.create(rig.root(), "f", FileKind::Regular).unwrap().fid;
    rig.open(f, 1, libc::O_RDWR).unwrap();
    rig.open(f, 2, libc::O_RDONLY).unwrap();
    rig.write(f, 1, 0, b"still here").unwrap();
    rig.unlink(rig.root(), "f", false).unwrap();
    assert_eq!(rig.lookup(rig.root(), "f").unwrap_err(), Errno::ENOENT);
    rig.close(f, 1);
    assert_eq!(rig.read(f).unwrap(), b"still here");
    rig.close(f, 2);
    let inode = rig
        .sim
        .run(async { meta::inode(&rig.shard, f).await })
        .unwrap();
    assert_eq!(inode.flags & (flag::DATA_OWED | flag::ATTRS_OWED), 0);
    assert!(rig.read(f).unwrap_or_default().iter().all(|b| *b == 0));
}

#[test]
fn renames_move_replace_and_exchange() {
    let rig = Rig::new(|_| {});
    let root = rig.root();
    let a = rig.create(root, "a", FileKind::Directory).unwrap().fid;
    let f = rig.create(root, "f", FileKind::Regular).unwrap().fid;
    let g = rig.create(a, "g", FileKind::Regular).unwrap().fid;
    rig.rename((root, "f"), (a, "g"), libc::RENAME_EXCHANGE)
        .unwrap();
    assert_eq!(rig.lookup(a, "g").unwrap().fid, f);
    assert_eq!(rig.lookup(root, "f").unwrap().fid, g);
    let refused = rig.rename((root, "f"), (a, "g"), libc::RENAME_NOREPLACE);
    assert_eq!(refused, Err(Errno::EEXIST));
    assert_eq!(
        rig.rename((root, "f"), (a, "h"), libc::RENAME_WHITEOUT),
        Err(Errno::EINVAL)
    );
    rig.rename((root, "f"), (a, "g"), 0).unwrap();
    assert_eq!(rig.names(a), ["g"]);
    assert_eq!(rig.lookup(a, "g").unwrap().fid, g);
    assert_eq!(
        rig.rename((root, "a"), (a, "inside"), 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(rig.rename((a, "g"), (root, "a"), 0), Err(Errno::ENOTEMPTY));
}

#[test]
fn holes_are_punched_and_sizes_set() {
    let rig = Rig::new(|_| {});
    let f = rig.create(rig.root(), "f", FileKind::Regular).unwrap().fid;
    rig.write(f, 0, 0, &[7; 10]).unwrap();
    let fallocate = |mode: i32, offset, len| {
        let mode = mode as u32;
        rig.ask(Request::Fallocate(op::Fallocate {
            fid: f,
            mode,
            offset,
            len,
        }))
    };
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fallocate(punch, 2, 3).unwrap();
    assert_eq!(rig.read(f).unwrap(), [7, 7, 0, 0, 0, 7, 7, 7, 7, 7]);
    fallocate(0, 0, 20).unwrap();
    assert_eq!(rig.getattr(f).unwrap().size, 20);
    fallocate(libc::FALLOC_FL_ZERO_RANGE, 8, 14).unwrap();
    assert_eq!(rig.getattr(f).unwrap().size, 22);
    assert_eq!(rig.read(f).unwrap()[6..9], [7, 7, 0]);
    for (mode, len, wanted) in [
        (libc::FALLOC_FL_COLLAPSE_RANGE, 4096, Errno::EOPNOTSUPP),
        (libc::FALLOC_FL_PUNCH_HOLE, 1, Errno::EOPNOTSUPP),
        (0, 0, Errno::EINVAL),
        (0, u64::MAX, Errno::EFBIG),
    ] {
        assert_eq!(fallocate(mode, 1, len), Err(wanted), "{mode} {len}");
    }
}

#[test]
fn copies_are_made_at_the_box() {
    let rig = Rig::new(|_| {});
    let a = rig.create(rig.root(), "a", FileKind::Regular).unwrap().fid;
    let b = rig.create(rig.root(), "b", FileKind::Regular).unwrap().fid;
    rig.write(a, 0, 0, b"0123456789").unwrap();
    let copy = |from, from_offset, to, to_offset, len| {
        rig.ask(Request::CopyRange(op::CopyRange {
            from,
            from_offset,
            to,
            to_offset,
            len,
        }))
    };
    let Reply::Written(written) = copy(a, 5, b, 1, 100).unwrap() else {
        panic!("not written");
    };
    assert_eq!((written.written, written.attr.size), (5, 6));
    assert_eq!(rig.read(b).unwrap(), b"\x0056789");
    assert_eq!(copy(a, 0, a, 5, 6), Err(Errno::EINVAL));
}
