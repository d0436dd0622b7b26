//! Records that are whole and wrong: what a bug of the box could leave.

use super::Kind;
use super::bed::{checked, name, scene_with};
use super::kinds;
use crate::base::{Codec, Fid, FileKind, Location, Slice};
use crate::cache::Extent;
use crate::cache::extent::Piece;
use crate::flash::{Appended, Need, Peek, Tx};
use crate::namespace::record::{OwedName, flag};
use crate::namespace::{Dirent, Inode, OwedOp, key};
use crate::shard::{Shard, meta, writeback};
use crate::sim::SimWorld;
use crate::sim::cluster::TARGET;
use std::rc::Rc;

pub type Box = Rc<Shard<SimWorld>>;

/// All that a box holds in memory: the scene's later files are there.
fn inode(shard: &Box, fid: Fid) -> Inode {
    match shard.flash.peek(&key::inode(fid)) {
        Peek::Found(bytes) => Inode::from_slice(&bytes).unwrap(),
        other => panic!("{fid}: {other:?}"),
    }
}

fn target(shard: &Box) -> Rc<crate::shard::Target> {
    Rc::clone(&shard.targets.borrow()[&TARGET])
}

fn cookie(shard: &Box, called: &str) -> u64 {
    crate::namespace::hash::cookie(&target(shard).hash_key, &name(called))
}

pub fn find(shard: &Box, called: &str) -> (Fid, Dirent) {
    let root = meta::root(TARGET);
    let dirent =
        |dir, called: &str| match shard.flash.peek(&key::dirent(dir, cookie(shard, called))) {
            Peek::Found(bytes) => Dirent::from_slice(&bytes).unwrap(),
            other => panic!("{called}: {other:?}"),
        };
    let dir = dirent(root, "d").fid;
    (dir, dirent(dir, called))
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Vec<Tx> {
    let mut tx = Tx::default();
    tx.put(key, value);
    vec![tx]
}

fn edit(shard: &Box, called: &str, change: impl Fn(&mut Inode)) -> Vec<Tx> {
    let (_, dirent) = find(shard, called);
    let mut inode = inode(shard, dirent.fid);
    change(&mut inode);
    put(key::inode(dirent.fid), inode.to_vec())
}

/// What the box is made to apply must be found as `kind`, and as nothing else
/// than `also`.
fn wrong(kind: Kind, also: &[Kind], change: impl Fn(&Box) -> Vec<Tx>) {
    let found = checked(&scene_with(change)).unwrap();
    let mut want: Vec<Kind> = also.iter().copied().chain([kind]).collect();
    want.sort();
    assert_eq!(kinds(&found), want, "{found:#?}");
}

#[test]
fn records_that_cannot_be_read() {
    wrong(Kind::Record, &[], |shard| {
        let (_, dirent) = find(shard, "dirty");
        put(key::inode(dirent.fid), vec![1, 2, 3])
    });
    wrong(Kind::StrayKey, &[], |_| put(b"Q?".to_vec(), vec![1]));
}

#[test]
fn names_that_are_wrong() {
    let other = Fid::new(1 << 32 | 1, 60_000);
    wrong(Kind::NameWithoutInode, &[], |shard| {
        let (dir, mut dirent) = find(shard, "dirty");
        dirent.fid = other;
        let mut tx = put(key::dirent(dir, cookie(shard, "dirty")), dirent.to_vec());
        let mut second = edit(shard, "dirty", |i| {
            i.attr.nlink = 0;
            i.flags |= flag::ORPHAN;
        });
        tx.append(&mut second);
        tx
    });
    wrong(Kind::NameWrong, &[], |shard| {
        let (dir, mut dirent) = find(shard, "dirty");
        dirent.kind = FileKind::Fifo;
        put(key::dirent(dir, cookie(shard, "dirty")), dirent.to_vec())
    });
    wrong(Kind::NameWrong, &[], |shard| {
        let (dir, dirent) = find(shard, "dirty");
        let mut tx = Tx::default();
        tx.delete(key::dirent(dir, cookie(shard, "dirty")));
        tx.put(
            key::dirent(dir, cookie(shard, "dirty") ^ 1 << 40),
            dirent.to_vec(),
        );
        vec![tx]
    });
}

#[test]
fn counts_that_are_wrong() {
    wrong(Kind::EntryCount, &[], |shard| {
        let root = meta::root(TARGET);
        let mut inode = inode(shard, root);
        inode.entries += 1;
        put(key::inode(root), inode.to_vec())
    });
    wrong(Kind::LinkCount, &[], |shard| {
        edit(shard, "dirty", |i| i.attr.nlink = 2)
    });
    wrong(Kind::Counter, &[], |shard| {
        let mark = meta::Mark { n: 1, oid: 3 };
        let _ = shard;
        put(key::setting("fid.1"), mark.to_vec())
    });
}

#[test]
fn directories_that_lead_nowhere() {
    // No name leads to it any more.
    wrong(Kind::Parent, &[Kind::EntryCount], |shard| {
        let mut tx = Tx::default();
        tx.delete(key::dirent(meta::root(TARGET), cookie(shard, "d")));
        vec![tx]
    });
    wrong(Kind::Parent, &[], |shard| {
        let (dir, _) = find(shard, "dirty");
        let mut inode = inode(shard, dir);
        inode.parent = dir;
        put(key::inode(dir), inode.to_vec())
    });
}

fn extent(shard: &Box, fid: Fid) -> Extent {
    match shard.flash.peek(&key::extent(fid, 0)) {
        Peek::Found(bytes) => Extent::from_slice(&bytes).unwrap(),
        other => panic!("{fid}: {other:?}"),
    }
}

#[test]
fn extents_that_are_wrong() {
    let far = |segment| {
        Extent::bytes(
            Piece {
                at: Location {
                    segment,
                    offset: 4096,
                },
                len: 100,
                crcs: vec![0],
            },
            true,
            Default::default(),
        )
    };
    // In place of the file's own: its bytes leak, and its place is noted.
    let moved = |segment: u32| {
        move |shard: &Box| {
            let (_, dirent) = find(shard, "moved");
            put(key::extent(dirent.fid, 0), far(segment).to_vec())
        }
    };
    let also = [Kind::Leak, Kind::PlaceRecord];
    wrong(Kind::ExtentPlace, &also, moved(9999));
    wrong(Kind::ExtentOverlap, &[], |shard| {
        let (_, dirent) = find(shard, "moved");
        put(
            key::extent(dirent.fid, 4000),
            Extent::hole(5, false, Default::default()).to_vec(),
        )
    });
    wrong(Kind::ExtentOverlap, &[], |shard| {
        edit(shard, "moved", |inode| inode.attr.size = 100)
    });
    // Another file says that it has the same bytes.
    wrong(
        Kind::FlashOverlap,
        &[Kind::Account, Kind::PlaceRecord],
        |shard| {
            let (_, dirent) = find(shard, "moved");
            let mut txs = edit(shard, "moved", |i| i.attr.size = 20_000);
            let copy = extent(shard, dirent.fid);
            txs.append(&mut put(key::extent(dirent.fid, 8192), copy.to_vec()));
            txs
        },
    );
    wrong(Kind::PlaceRecord, &[], |shard| {
        let (_, dirent) = find(shard, "moved");
        let at = extent(shard, dirent.fid).location().unwrap();
        let mut tx = Tx::default();
        tx.delete(key::summary(at.segment, at.offset));
        vec![tx]
    });
    wrong(Kind::NoSuchFile, &[], |_| {
        let gone = Fid::new(1 << 32 | 1, 60_000);
        put(
            key::extent(gone, 0),
            Extent::hole(5, false, Default::default()).to_vec(),
        )
    });
}

#[test]
fn accounts_that_are_wrong() {
    wrong(Kind::Leak, &[], |shard| {
        let bytes = Slice::from(vec![3; 100]);
        let data: Vec<Appended> = shard.flash.append(&bytes, Need::Dirty).unwrap();
        vec![Tx {
            data,
            ..Tx::default()
        }]
    });
    wrong(Kind::Account, &[], |shard| {
        let (_, dirent) = find(shard, "dirty");
        let at = extent(shard, dirent.fid).location().unwrap();
        vec![Tx {
            freed: vec![(at, 100)],
            ..Tx::default()
        }]
    });
}

#[test]
fn debts_that_cannot_be_paid() {
    wrong(Kind::Owed, &[], |shard| {
        let mut tx = Tx::default();
        let op = OwedOp::Link(OwedName {
            parent: meta::root(TARGET),
            name: name("x"),
            fid: Fid::new(1 << 32 | 1, 60_000),
            kind: FileKind::Regular,
        });
        writeback::owe(shard, &mut tx, TARGET, op);
        vec![tx]
    });
    wrong(Kind::NotQueued, &[], |shard| {
        let (_, dirent) = find(shard, "dirty");
        let mut tx = Tx::default();
        tx.delete(key::dirty(dirent.fid));
        vec![tx]
    });
    wrong(Kind::NotQueued, &[], |shard| {
        edit(shard, "dirty", |i| i.flags &= !flag::DATA_OWED)
    });
}
