//! On real directories, with handles and without.

use super::*;
use crate::base::codec::Bytes;
use crate::base::{Attr, Buf, FileKind, Identity, Name, SetAttr, Slice, Time};
use crate::origin::{Limits, ORPHANS, Place};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

/// An origin over a directory that goes when the test ends.
struct Box {
    dir: tempfile::TempDir,
    origin: Posix,
}

/// Runs a test with and without file handles. Handles need a privilege; where
/// it is missing both runs go by names, which is what the box does there too.
fn both(test: impl Fn(&Box)) {
    for by_handle in [true, false] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let origin = Posix::closed(dir.path(), by_handle);
        let here = Box { dir, origin };
        here.probe();
        test(&here);
    }
}

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a valid name")
}

fn top() -> Place {
    place(&[], None)
}

fn place(path: &[&str], identity: Option<Identity>) -> Place {
    Place {
        identity,
        path: path.iter().map(|s| name(s)).collect(),
    }
}

fn attr(kind: FileKind, mode: u32) -> Attr {
    Attr {
        kind,
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        nlink: 1,
        rdev: 0,
        ino: 0,
        size: 0,
        blocks: 0,
        atime: Time { sec: 5, nsec: 1 },
        mtime: Time { sec: -7, nsec: 2 },
        ctime: Time::default(),
        btime: Time::default(),
        version: 0,
    }
}

impl Box {
    fn call(&self, op: OriginOp) -> OriginReply {
        self.origin.call(op)
    }
    fn done(&self, op: OriginOp) -> Result<(), Errno> {
        match self.call(op) {
            OriginReply::Done => Ok(()),
            OriginReply::Failed(e) => Err(e),
            other => panic!("unexpected {other:?}"),
        }
    }
    fn found(&self, op: OriginOp) -> Result<Found, Errno> {
        match self.call(op) {
            OriginReply::Found(found) => Ok(*found),
            OriginReply::Absent => Err(Errno::ENOENT),
            OriginReply::Failed(e) => Err(e),
            other => panic!("unexpected {other:?}"),
        }
    }
    fn probe(&self) -> Limits {
        match self.call(OriginOp::Probe) {
            OriginReply::Probed(limits) => *limits,
            other => panic!("unexpected {other:?}"),
        }
    }
    fn lookup(&self, dir: Place, s: &str) -> Result<Found, Errno> {
        self.found(OriginOp::Lookup { dir, name: name(s) })
    }
    fn make(&self, dir: Place, s: &str, kind: FileKind) -> Result<Found, Errno> {
        self.found(OriginOp::Create {
            dir,
            name: name(s),
            kind,
            attr: attr(kind, 0o640),
            link: (kind == FileKind::Symlink).then(|| b"/etc".to_vec()),
        })
    }
    fn write(&self, file: Place, offset: u64, parts: &[&[u8]]) -> Result<(), Errno> {
        let data = parts.iter().map(|p| Slice::from(p.to_vec())).collect();
        self.done(OriginOp::Write { file, offset, data })
    }
    fn read(&self, file: Place, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let buf = Buf::alone(len);
        match self.call(OriginOp::Read { file, offset, buf }) {
            OriginReply::Read { result, buf } => result.map(|n| buf[..n].to_vec()),
            other => panic!("unexpected {other:?}"),
        }
    }
    fn rename(
        &self,
        from: &str,
        to: &str,
        identity: &Identity,
        victim: Option<&Identity>,
        exchange: bool,
    ) -> Result<(), Errno> {
        self.done(OriginOp::Rename {
            from: (top(), name(from)),
            to: (top(), name(to)),
            identity: identity.clone(),
            victim: victim.cloned(),
            exchange,
        })
    }
    fn unlink(&self, s: &str, identity: &Identity, is_dir: bool) -> Result<(), Errno> {
        self.done(OriginOp::Unlink {
            dir: top(),
            name: name(s),
            identity: identity.clone(),
            is_dir,
        })
    }
    fn path(&self, s: &str) -> std::path::PathBuf {
        self.dir.path().join(s)
    }
}

#[test]
fn every_kind_is_created_with_its_attributes_and_listed() {
    both(|b| {
        let kinds = [
            ("file", FileKind::Regular),
            ("dir", FileKind::Directory),
            ("link", FileKind::Symlink),
            ("fifo", FileKind::Fifo),
            ("socket", FileKind::Socket),
        ];
        for (s, kind) in kinds {
            let found = b.make(top(), s, kind).expect("created");
            assert_eq!(found.attr.kind, kind);
            assert_eq!(found.attr.mtime, Time { sec: -7, nsec: 2 });
            let meta = fs::symlink_metadata(b.path(s)).expect("there");
            assert_eq!((meta.ino(), meta.mtime()), (found.attr.ino, -7));
            if kind != FileKind::Symlink {
                assert_eq!(meta.mode() & 0o7777, 0o640);
            }
            // A repetition finds the newborn of before and takes it.
            let again = b.make(top(), s, kind).expect("adopted");
            assert_eq!(again.identity, found.identity);
        }
        assert!(
            fs::metadata(b.path("fifo"))
                .expect("there")
                .file_type()
                .is_fifo()
        );
        let OriginReply::Listed(mut all) = b.call(OriginOp::List { dir: top() }) else {
            panic!("not listed");
        };
        all.sort_by(|x, y| x.0.cmp(&y.0));
        let names: Vec<String> = all.iter().map(|(n, _)| n.to_string()).collect();
        assert_eq!(names, ["dir", "fifo", "file", "link", "socket"]);
        assert_eq!(all[3].1.link.as_deref(), Some(&b"/etc"[..]));
    });
}

#[test]
fn what_is_not_a_newborn_is_never_adopted() {
    both(|b| {
        fs::write(b.path("full"), b"x").expect("written");
        fs::create_dir_all(b.path("dir/child")).expect("made");
        symlink("elsewhere", b.path("link")).expect("made");
        fs::write(b.path("two"), b"").expect("written");
        fs::hard_link(b.path("two"), b.path("names")).expect("linked");
        fs::write(b.path("other-kind"), b"").expect("written");
        let cases = [
            ("full", FileKind::Regular),
            ("dir", FileKind::Directory),
            ("link", FileKind::Symlink),
            ("two", FileKind::Regular),
            ("other-kind", FileKind::Directory),
        ];
        for (s, kind) in cases {
            assert_eq!(b.make(top(), s, kind), Err(Errno::EEXIST), "{s}");
        }
        assert_eq!(fs::read(b.path("full")).expect("there"), b"x");
    });
}

#[test]
fn bytes_go_in_and_come_back() {
    both(|b| {
        let file = b.make(top(), "f", FileKind::Regular).expect("created");
        let at = place(&["f"], Some(file.identity.clone()));
        b.write(at.clone(), 3, &[b"abc", b"", b"defg"])
            .expect("written");
        assert_eq!(b.read(at.clone(), 0, 100).expect("read"), b"\0\0\0abcdefg");
        assert_eq!(b.read(at.clone(), 4, 2).expect("read"), b"bc");
        assert_eq!(b.read(at.clone(), 10, 2).expect("read"), b"");
        let many: Vec<&[u8]> = (0..3000).map(|_| &b"0123456789"[..]).collect();
        b.write(at.clone(), 100_000, &many).expect("written");
        assert_eq!(
            b.read(at.clone(), 129_990, 100).expect("read"),
            b"0123456789"
        );
        let punch = |offset, len| OriginOp::Punch {
            file: at.clone(),
            offset,
            len,
        };
        b.done(punch(4, 2)).expect("punched");
        b.done(punch(129_995, 1000)).expect("punched");
        assert_eq!(b.read(at.clone(), 3, 5).expect("read"), b"a\0\0de");
        let size = 5;
        b.done(OriginOp::Truncate {
            file: at.clone(),
            size,
        })
        .expect("cut");
        let found = b
            .found(OriginOp::Fsync { file: at.clone() })
            .expect("synced");
        assert_eq!(
            (found.attr.size, found.identity),
            (5, file.identity.clone())
        );
        let identity = file.identity;
        b.done(OriginOp::Forget { identity }).expect("forgotten");
        assert_eq!(b.read(at, 0, 9).expect("read"), b"\0\0\0a\0");
    });
}

/// Who may execute a file is not to wait for the box: after its fsync nothing of
/// it is held open for writing, and it can be written again.
#[test]
fn a_synced_file_is_not_held_open_for_writing() {
    both(|b| {
        let file = b.make(top(), "f", FileKind::Regular).expect("created");
        let at = place(&["f"], Some(file.identity.clone()));
        let is_held = || b.origin.descriptors.written(&file.identity).is_some();
        for bytes in [b"old", b"new"] {
            b.write(at.clone(), 0, &[bytes]).expect("written");
            assert!(is_held());
            b.found(OriginOp::Fsync { file: at.clone() })
                .expect("synced");
            assert!(!is_held());
            assert_eq!(b.read(at.clone(), 0, 9).expect("read"), bytes);
        }
    });
}

#[test]
fn more_files_than_descriptors_are_written_and_synced() {
    both(|b| {
        let mut files = Vec::new();
        for i in 0..1200 {
            let s = format!("f{i}");
            let file = b.make(top(), &s, FileKind::Regular).expect("created");
            let at = place(&[&s], Some(file.identity));
            if i % 3 == 0 {
                b.write(at.clone(), 0, &[s.as_bytes()]).expect("written");
            }
            files.push((s, at));
        }
        for (i, (s, at)) in files.into_iter().enumerate() {
            b.found(OriginOp::Fsync { file: at.clone() })
                .expect("synced");
            let want = if i % 3 == 0 { s } else { String::new() };
            assert_eq!(b.read(at, 0, 100).expect("read"), want.as_bytes());
        }
    });
}

#[test]
fn no_way_leaves_the_tree() {
    both(|b| {
        let outside = tempfile::tempdir().expect("a temporary directory");
        fs::write(outside.path().join("secret"), b"s").expect("written");
        symlink(outside.path(), b.path("out")).expect("made");
        symlink(".", b.path("self")).expect("made");
        for s in ["out", "self"] {
            let dir = place(&[s], None);
            let secret = place(&[s, "secret"], None);
            assert!(b.lookup(dir.clone(), "secret").is_err());
            assert!(b.read(secret.clone(), 0, 1).is_err());
            assert!(b.write(secret, 0, &[b"x"]).is_err());
            assert!(b.make(dir.clone(), "new", FileKind::Regular).is_err());
            assert!(matches!(
                b.call(OriginOp::List { dir }),
                OriginReply::Failed(_)
            ));
        }
        // A link is found as itself, and its attributes are its own.
        let link = b.lookup(top(), "out").expect("found");
        assert_eq!(link.attr.kind, FileKind::Symlink);
        let at = place(&["out"], Some(link.identity));
        let set = SetAttr {
            mode: Some(0o777),
            mtime: Some(Time { sec: 9, nsec: 9 }),
            ..SetAttr::default()
        };
        b.done(OriginOp::SetAttr {
            file: at.clone(),
            set,
        })
        .expect("set");
        let meta = fs::symlink_metadata(b.path("out")).expect("there");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (9, 9));
        assert_ne!(fs::metadata(outside.path()).expect("there").mtime(), 9);
        assert_eq!(b.read(at, 0, 1), Err(Errno::EINVAL));
        assert_eq!(fs::read_dir(outside.path()).expect("there").count(), 1);
    });
}

#[test]
fn a_fifo_is_never_opened() {
    both(|b| {
        let fifo = b.make(top(), "fifo", FileKind::Fifo).expect("created");
        let at = place(&["fifo"], Some(fifo.identity));
        // Each of these would wait for a peer if it opened the fifo.
        assert_eq!(b.read(at.clone(), 0, 1), Err(Errno::EINVAL));
        assert_eq!(b.write(at.clone(), 0, &[b"x"]), Err(Errno::EINVAL));
        b.found(OriginOp::Fsync { file: at.clone() })
            .expect("nothing to sync");
        let set = SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        };
        b.done(OriginOp::SetAttr { file: at, set }).expect("set");
        assert_eq!(
            fs::metadata(b.path("fifo")).expect("there").mode() & 0o777,
            0o600
        );
    });
}

#[test]
fn another_file_under_the_name_is_stale() {
    both(|b| {
        let old = b.make(top(), "f", FileKind::Regular).expect("created");
        let at = place(&["f"], Some(old.identity.clone()));
        fs::rename(b.path("f"), b.path("moved")).expect("renamed");
        let handles = b.probe().handles;
        let found = b.found(OriginOp::Stat { place: at.clone() });
        assert_eq!(found.is_ok(), handles, "a handle finds it under any name");
        let identity = old.identity.clone();
        b.done(OriginOp::Forget { identity }).expect("forgotten");
        fs::remove_file(b.path("moved")).expect("removed");
        fs::write(b.path("f"), b"other").expect("written");
        assert_eq!(
            b.found(OriginOp::Stat { place: at.clone() }),
            Err(Errno::ESTALE)
        );
        assert_eq!(b.write(at, 0, &[b"x"]), Err(Errno::ESTALE));
        assert_eq!(b.unlink("f", &old.identity, false), Err(Errno::ESTALE));
        assert_eq!(fs::read(b.path("f")).expect("there"), b"other");
    });
}

#[test]
fn links_share_an_identity_and_repeat() {
    both(|b| {
        let file = b.make(top(), "a", FileKind::Regular).expect("created");
        let link = |s: &str| {
            b.done(OriginOp::Link {
                file: place(&["a"], Some(file.identity.clone())),
                dir: top(),
                name: name(s),
            })
        };
        link("b").expect("linked");
        link("b").expect("linked already");
        fs::write(b.path("c"), b"").expect("written");
        assert_eq!(link("c"), Err(Errno::EEXIST));
        let found = b.lookup(top(), "b").expect("found");
        assert_eq!(
            (found.identity, found.attr.nlink),
            (file.identity.clone(), 2)
        );
        b.unlink("a", &file.identity, false).expect("removed");
        b.unlink("a", &file.identity, false)
            .expect("removed already");
        assert_eq!(b.lookup(top(), "b").expect("found").attr.nlink, 1);
    });
}

#[test]
fn renames_repeat_and_find_conflicts() {
    both(|b| {
        let a = b
            .make(top(), "a", FileKind::Regular)
            .expect("created")
            .identity;
        let v = b
            .make(top(), "v", FileKind::Regular)
            .expect("created")
            .identity;
        assert_eq!(b.rename("a", "v", &a, None, false), Err(Errno::EEXIST));
        assert_eq!(
            b.rename("a", "v", &v, None, false),
            Ok(()),
            "it stands there"
        );
        assert_eq!(b.rename("a", "n", &v, None, false), Err(Errno::ESTALE));
        for _ in 0..2 {
            b.rename("a", "v", &a, Some(&v), false).expect("replaced");
        }
        assert!(b.lookup(top(), "a").is_err());
        assert_eq!(b.lookup(top(), "v").expect("found").identity, a);
        let x = b
            .make(top(), "x", FileKind::Directory)
            .expect("created")
            .identity;
        for _ in 0..2 {
            b.rename("v", "x", &a, Some(&x), true).expect("exchanged");
        }
        assert_eq!(b.lookup(top(), "x").expect("found").identity, a);
        assert_eq!(b.lookup(top(), "v").expect("found").identity, x);
        assert_eq!(b.unlink("v", &x, false), Err(Errno::EISDIR));
        b.unlink("v", &x, true).expect("removed");
    });
}

#[test]
fn odd_names_and_deep_ways() {
    both(|b| {
        let odd: Vec<Vec<u8>> = vec![
            b"\xff\xfe".to_vec(),
            b"new\nline".to_vec(),
            b" ".to_vec(),
            vec![b'n'; 255],
            b"-rf".to_vec(),
            b"...".to_vec(),
        ];
        for bytes in &odd {
            let name = Name::new(bytes).expect("a valid name");
            let kind = FileKind::Regular;
            let created = b.found(OriginOp::Create {
                dir: top(),
                name: name.clone(),
                kind,
                attr: attr(kind, 0o644),
                link: None,
            });
            let found = b.found(OriginOp::Lookup { dir: top(), name });
            assert_eq!(created, found);
            assert!(
                b.dir
                    .path()
                    .join(std::ffi::OsStr::from_bytes(bytes))
                    .exists()
            );
        }
        // Deeper than PATH_MAX in one piece.
        let (mut at, mut path) = (top(), Vec::new());
        for i in 0..30 {
            let s = format!("{i}{}", "d".repeat(200));
            let found = b.found(OriginOp::Create {
                dir: at,
                name: name(&s),
                kind: FileKind::Directory,
                attr: attr(FileKind::Directory, 0o755),
                link: None,
            });
            path.push(name(&s));
            at = Place {
                identity: Some(found.expect("created").identity),
                path: path.clone(),
            };
        }
        b.make(at.clone(), "leaf", FileKind::Regular)
            .expect("created");
        at.identity = None;
        b.lookup(at, "leaf").expect("found by names alone");
    });
}

#[test]
fn xattrs_and_owners() {
    both(|b| {
        let limits = b.probe();
        let file = b.make(top(), "f", FileKind::Regular).expect("created");
        let at = place(&["f"], Some(file.identity));
        if limits.xattrs {
            let name = b"user.x".to_vec();
            let set = OriginOp::XattrSet {
                file: at.clone(),
                name: name.clone(),
                value: Bytes(vec![0, 1, 255]),
            };
            b.done(set).expect("set");
            let OriginReply::Bytes(list) = b.call(OriginOp::XattrList { file: at.clone() }) else {
                panic!("not listed");
            };
            assert_eq!(list, b"user.x\0");
            let get = OriginOp::XattrGet {
                file: at.clone(),
                name: name.clone(),
            };
            assert!(matches!(b.call(get), OriginReply::Bytes(v) if v == [0, 1, 255]));
            for _ in 0..2 {
                let (file, name) = (at.clone(), name.clone());
                b.done(OriginOp::XattrRemove { file, name })
                    .expect("removed");
            }
        }
        if limits.owners {
            let set = SetAttr {
                uid: Some(1234),
                gid: Some(5678),
                mode: Some(0o4755),
                size: Some(10),
                ..SetAttr::default()
            };
            b.done(OriginOp::SetAttr { file: at, set }).expect("set");
            let meta = fs::metadata(b.path("f")).expect("there");
            assert_eq!((meta.uid(), meta.gid(), meta.len()), (1234, 5678, 10));
        }
    });
}

#[test]
fn the_boxs_own_names_are_hidden_and_usable() {
    both(|b| {
        let hidden = std::str::from_utf8(ORPHANS).expect("plain");
        let dir = b.make(top(), hidden, FileKind::Directory).expect("created");
        assert_eq!(b.lookup(top(), hidden), Err(Errno::ENOENT));
        let OriginReply::Listed(all) = b.call(OriginOp::List { dir: top() }) else {
            panic!("not listed");
        };
        assert!(all.is_empty());
        let inside = place(&[hidden], Some(dir.identity));
        b.make(inside.clone(), "x", FileKind::Regular)
            .expect("created");
        assert!(matches!(
            b.call(OriginOp::List { dir: inside }),
            OriginReply::Listed(all) if all.len() == 1
        ));
    });
}

#[test]
fn probing_leaves_no_trace() {
    both(|b| {
        let old = fs::metadata(b.dir.path()).expect("there");
        // What a probe that was cut off leaves.
        let left = probe::dir_name(b.dir.path());
        fs::create_dir(b.path(&left)).expect("made");
        fs::write(b.path(&left).join("file"), b"x").expect("written");
        assert_eq!(b.lookup(top(), &left), Err(Errno::ENOENT), "hidden");
        let limits = b.probe();
        assert!(!limits.read_only && limits.symlinks && limits.hard_links);
        assert_eq!(limits.name_max, 255);
        assert_eq!(fs::read_dir(b.dir.path()).expect("there").count(), 0);
        let times = |m: &fs::Metadata| m.permissions().mode();
        assert_eq!(
            times(&old),
            times(&fs::metadata(b.dir.path()).expect("there"))
        );
        let before = fs::metadata(b.dir.path()).expect("there");
        b.probe();
        let after = fs::metadata(b.dir.path()).expect("there");
        assert_eq!(
            (before.mtime(), before.mtime_nsec()),
            (after.mtime(), after.mtime_nsec())
        );
    });
}

#[test]
fn an_origin_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let missing = Posix::open(&dir.path().join("no")).err().expect("missing");
    assert!(missing.to_string().contains("does not exist: create"));
    fs::write(dir.path().join("file"), b"").expect("written");
    let file = Posix::open(&dir.path().join("file")).err().expect("a file");
    assert!(file.to_string().contains("is not a directory"));
    let unopened = Posix::closed(dir.path(), true);
    assert!(matches!(
        unopened.call(OriginOp::Statfs),
        OriginReply::Failed(Errno::ENOTCONN)
    ));
    assert!(Posix::open(dir.path()).is_ok());
}
