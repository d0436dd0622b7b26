//! What the box has not seen: misses, listings, identities, restarts.

use super::*;
use crate::origin::ORPHANS;
use crate::shard::meta;
use crate::world::World;

fn tree(scene: &Scene<'_>) {
    scene.make(&["dir"], FileKind::Directory);
    scene.make(&["dir", "a"], FileKind::Regular);
    scene.make(&["dir", "b"], FileKind::Regular);
    scene.make(&["dir", "sub"], FileKind::Directory);
    scene.make(&["link"], FileKind::Symlink);
    scene.write(&["dir", "a"], b"old bytes");
}

#[test]
fn a_miss_is_imported_once_and_served_from_the_box_afterwards() {
    let mut rig = Rig::new(tree);
    let dir = rig.lookup(rig.root(), "dir").unwrap();
    assert_eq!(
        (dir.attr.uid, dir.attr.mode, dir.attr.nlink),
        (1000, 0o755, 3)
    );
    let a = rig.lookup(dir.fid, "a").unwrap();
    assert_eq!((a.attr.size, a.attr.kind), (9, FileKind::Regular));
    assert_eq!(rig.lookup(dir.fid, "none").unwrap_err(), Errno::ENOENT);
    let before = rig.calls();
    assert_eq!(rig.lookup(dir.fid, "a").unwrap(), a);
    assert_eq!(rig.getattr(a.fid).unwrap(), a.attr);
    assert_eq!(rig.calls(), before, "nothing new was asked");
    rig.restart();
    let before = rig.calls();
    assert_eq!(
        rig.lookup(dir.fid, "a").unwrap(),
        a,
        "the same file, the same number"
    );
    assert_eq!(rig.calls(), before, "nor after a restart");
}

#[test]
fn all_who_miss_one_name_wait_for_one_call() {
    let rig = Rig::new(tree);
    let dir = rig.lookup(rig.root(), "dir").unwrap().fid;
    let before = rig.calls();
    let done = Rc::new(Cell::new(0));
    for xid in 0..20 {
        let (shard, export) = (Rc::clone(&rig.shard), Rc::clone(&rig.export));
        let done = Rc::clone(&done);
        rig.sim.world("box").spawn(async move {
            let asked = incoming(
                1000 + xid,
                0,
                Request::Lookup(op::Named {
                    parent: dir,
                    name: name("a"),
                    intent: Intent::default(),
                }),
            );
            let out = dispatch::run(&shard, &export, &asked).await;
            assert!(out.result.is_ok());
            done.set(done.get() + 1);
        });
    }
    rig.sim.run_until(|| done.get() == 20);
    assert_eq!(rig.calls() - before, 1);
}

#[test]
fn listings_show_everything_once_in_pieces_of_any_size() {
    let rig = Rig::new(|scene| {
        scene.make(&["many"], FileKind::Directory);
        for i in 0..700 {
            scene.make(&["many", &format!("file-{i}")], FileKind::Regular);
        }
    });
    let many = rig.lookup(rig.root(), "many").unwrap().fid;
    for (bytes, attrs) in [(1, true), (300, false), (4096, true), (1 << 20, true)] {
        let entries = rig.list(many, bytes, attrs).unwrap();
        assert_eq!(entries.len(), 700, "{bytes} {attrs}");
        assert!(entries.is_sorted_by(|a, b| a.cookie < b.cookie));
        assert!(entries.iter().all(|e| e.attr.is_some() == attrs));
        let names: std::collections::BTreeSet<_> = entries.iter().map(|e| &e.name).collect();
        assert_eq!(names.len(), 700);
    }
    let before = rig.calls();
    assert_eq!(rig.lookup(many, "none").unwrap_err(), Errno::ENOENT);
    assert_eq!(
        rig.calls(),
        before,
        "a complete directory knows what is absent (N10)"
    );
}

#[test]
fn a_running_listing_keeps_its_place_while_names_come_and_go() {
    let rig = Rig::new(|_| {});
    let dir = rig
        .create(rig.root(), "d", FileKind::Directory)
        .unwrap()
        .fid;
    for i in 0..200 {
        rig.create(dir, &format!("stay-{i}"), FileKind::Regular)
            .unwrap();
        rig.create(dir, &format!("go-{i}"), FileKind::Regular)
            .unwrap();
    }
    let mut seen = Vec::new();
    let mut cookie = 0;
    for round in 0.. {
        let request = Request::Readdir(op::Readdir {
            fid: dir,
            cookie,
            bytes: 1000,
            attrs: false,
        });
        let Reply::Listing(listing) = rig.ask(request).unwrap() else {
            panic!("not a listing");
        };
        cookie = listing.entries.last().map_or(cookie, |e| e.cookie);
        seen.extend(listing.entries.into_iter().map(|e| e.name.to_string()));
        if listing.end {
            break;
        }
        rig.unlink(dir, &format!("go-{round}"), false).unwrap();
        rig.create(dir, &format!("new-{round}"), FileKind::Regular)
            .unwrap();
    }
    for i in 0..200 {
        let stays = format!("stay-{i}");
        assert_eq!(seen.iter().filter(|n| **n == stays).count(), 1, "{stays}");
    }
}

#[test]
fn what_was_removed_here_does_not_come_back_from_the_origin() {
    let mut rig = Rig::new(tree);
    let dir = rig.lookup(rig.root(), "dir").unwrap().fid;
    rig.unlink(dir, "a", false).unwrap();
    rig.rename((dir, "b"), (rig.root(), "b"), 0).unwrap();
    for _ in 0..2 {
        assert_eq!(rig.lookup(dir, "a").unwrap_err(), Errno::ENOENT);
        assert_eq!(rig.lookup(dir, "b").unwrap_err(), Errno::ENOENT);
        rig.restart();
    }
    assert_eq!(rig.names(dir), ["sub"]);
    assert_eq!(rig.names(rig.root()), ["b", "dir", "link"]);
    assert_eq!(rig.unlink(dir, "sub", true), Ok(Reply::Done(op::Empty {})));
    assert!(rig.names(dir).is_empty());
}

#[test]
fn a_directory_with_entries_that_were_never_listed_is_not_empty() {
    let rig = Rig::new(tree);
    assert_eq!(rig.unlink(rig.root(), "dir", true), Err(Errno::ENOTEMPTY));
}

#[test]
fn hard_links_of_the_origin_are_one_file() {
    let rig = Rig::new(|scene| {
        tree(scene);
        scene.apply(OriginOp::Link {
            file: place(&["dir", "a"]),
            dir: place(&[]),
            name: name("again"),
        });
    });
    let dir = rig.lookup(rig.root(), "dir").unwrap().fid;
    let a = rig.lookup(dir, "a").unwrap();
    let again = rig.lookup(rig.root(), "again").unwrap();
    assert_eq!((a.fid, a.attr.nlink), (again.fid, 2));
    rig.unlink(dir, "a", false).unwrap();
    assert_eq!(rig.lookup(rig.root(), "again").unwrap().attr.nlink, 1);
}

#[test]
fn the_boxs_own_names_at_the_root_are_nobodys() {
    let hidden = std::str::from_utf8(ORPHANS).unwrap();
    let rig = Rig::new(|scene| {
        scene.make(&[hidden], FileKind::Directory);
        scene.make(&["seen"], FileKind::Directory);
    });
    assert_eq!(rig.lookup(rig.root(), hidden).unwrap_err(), Errno::ENOENT);
    assert_eq!(rig.names(rig.root()), ["seen"]);
    let refused = rig.create(rig.root(), hidden, FileKind::Directory);
    assert_eq!(refused.unwrap_err(), Errno::EPERM);
}

#[test]
fn xattrs_are_fetched_when_first_needed() {
    let rig = Rig::new(|scene| {
        tree(scene);
        scene.apply(OriginOp::XattrSet {
            file: place(&["dir", "a"]),
            name: b"user.colour".to_vec(),
            value: crate::base::codec::Bytes(b"blue".to_vec()),
        });
    });
    let dir = rig.lookup(rig.root(), "dir").unwrap().fid;
    let fid = rig.lookup(dir, "a").unwrap().fid;
    let get = |name: &[u8]| {
        let name = crate::base::codec::Bytes(name.to_vec());
        match rig.ask(Request::XattrGet(op::XattrName { fid, name }))? {
            Reply::Blob(blob) => Ok(blob.bytes.0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(get(b"user.colour"), Ok(b"blue".to_vec()));
    let before = rig.calls();
    assert_eq!(get(b"user.none"), Err(Errno::ENODATA));
    let intent = Intent::default();
    let list = rig
        .ask(Request::XattrList(op::OfFile { fid, intent }))
        .unwrap();
    let Reply::Blob(list) = list else {
        panic!("not a list")
    };
    assert_eq!(list.bytes.0, b"user.colour\0");
    assert_eq!(rig.calls(), before, "known in full");
}

#[test]
fn fids_are_not_given_twice_over_a_restart() {
    let mut rig = Rig::new(|_| {});
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..5 {
        for i in 0..20 {
            let made = rig.create(rig.root(), &format!("{round}-{i}"), FileKind::Regular);
            let made = made.unwrap();
            assert!(
                seen.insert(made.fid) && made.attr.ino < 1 << 63,
                "{}",
                made.fid
            );
        }
        rig.restart();
    }
}

#[test]
fn a_known_target_is_served_while_its_origin_is_away() {
    let mut rig = Rig::new(tree);
    let dir = rig.lookup(rig.root(), "dir").unwrap();
    rig.sim.origin(TARGET).goes_away();
    rig.restart();
    assert_eq!(rig.lookup(rig.root(), "dir").unwrap(), dir);
}

#[test]
fn orphans_are_reaped_unless_somebody_holds_them() {
    let mut rig = Rig::new(|_| {});
    let made = ["kept", "left"].map(|n| {
        let fid = rig.create(rig.root(), n, FileKind::Regular).unwrap().fid;
        rig.open(fid, fid.oid.into(), libc::O_RDWR).unwrap();
        rig.unlink(rig.root(), n, false).unwrap();
        assert_eq!(rig.getattr(fid).unwrap().nlink, 0);
        fid
    });
    rig.restart();
    let held = op::OpenFile {
        fid: made[0],
        open: OpenId(made[0].oid.into()),
        flags: libc::O_RDWR as u32,
    };
    meta::reopen(&rig.shard, &rig.export, &[held]);
    rig.sim
        .run(async { meta::reap_orphans(&rig.shard).await })
        .unwrap();
    let orphan = |fid| {
        let key = crate::namespace::key::orphan(fid);
        rig.sim
            .run(async { rig.shard.flash.get(&key).await })
            .unwrap()
            .is_some()
    };
    assert_eq!(made.map(orphan), [true, false]);
    rig.close(made[0], made[0].oid.into());
    assert!(!orphan(made[0]), "the last close let it go");
}
