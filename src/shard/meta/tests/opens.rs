//! Files that clients may have open without a word (N9).

use super::*;
use crate::base::{Bits, Extent, LockId, Mode};
use crate::shard::{locks, meta};
use crate::wire::locks::Of;
use crate::wire::{LockCancel, LockGrant, LockWant};

const LOCK: LockId = LockId(1);

/// Asks with a wish for OPEN and DATA; what was granted.
fn wishing(rig: &Rig, request: Request, lock: LockId) -> Vec<LockGrant> {
    let mut asked = incoming(rig.next.replace(rig.next.get() + 1), 0, request);
    asked.asked.wants.push(LockWant {
        lock,
        of: Of::Object,
        mode: Mode::Pr,
        bits: Bits::NONE,
        try_bits: Bits::LOOKUP.with(Bits::OPEN).with(Bits::DATA),
        extent: Extent::ALL,
    });
    let run = rig
        .sim
        .run(async { dispatch::run(&rig.shard, &rig.export, &asked).await });
    run.result.unwrap();
    asked.granted.take().grants
}

fn getattr(fid: Fid) -> Request {
    let intent = Intent::default();
    Request::Getattr(op::OfFile { fid, intent })
}

fn cancel(rig: &Rig, bits: Bits) {
    let cancel = LockCancel {
        lock: LOCK,
        bits,
        in_use: false,
    };
    rig.sim.run(async {
        locks::on_cancel(&rig.shard, &rig.export, &[cancel]);
        // What that set off has run.
        for _ in 0..100 {
            crate::world::World::yield_now(&rig.shard.world).await;
        }
    });
}

/// A file with bytes that the rig's client may open without a word.
fn lent() -> (Rig, Fid) {
    let rig = Rig::new(|_| {});
    let f = rig.create(rig.root(), "f", FileKind::Regular).unwrap().fid;
    rig.write(f, 0, 0, b"still here").unwrap();
    let granted = wishing(&rig, getattr(f), LOCK);
    let all = Bits::LOOKUP.with(Bits::OPEN).with(Bits::DATA);
    assert_eq!(granted[0].bits, all);
    (rig, f)
}

#[test]
fn a_file_that_may_be_open_outlives_its_last_name_n9() {
    let (rig, f) = lent();
    rig.unlink(rig.root(), "f", false).unwrap();
    assert_eq!(rig.read(f).unwrap(), b"still here");
    cancel(&rig, Bits::LOOKUP);
    assert_eq!(rig.read(f).unwrap(), b"still here");
    cancel(&rig, Bits::OPEN);
    assert!(rig.read(f).unwrap_or_default().iter().all(|b| *b == 0));
}

#[test]
fn what_is_declared_before_open_ends_stays_until_it_is_closed_n9() {
    let (rig, f) = lent();
    rig.unlink(rig.root(), "f", false).unwrap();
    let open = op::OpenFile {
        fid: f,
        open: OpenId(4),
        flags: 0,
    };
    meta::reopen(&rig.shard, &rig.export, &[open]);
    cancel(&rig, Bits::ALL);
    assert_eq!(rig.read(f).unwrap(), b"still here");
    rig.close(f, 4);
    assert!(rig.read(f).unwrap_or_default().iter().all(|b| *b == 0));
}

#[test]
fn who_is_gone_has_nothing_open_n9() {
    let (rig, f) = lent();
    rig.unlink(rig.root(), "f", false).unwrap();
    rig.sim.run(async {
        locks::leave(&rig.shard, &rig.export, true);
        for _ in 0..100 {
            crate::world::World::yield_now(&rig.shard.world).await;
        }
    });
    assert!(rig.read(f).unwrap_or_default().iter().all(|b| *b == 0));
}

/// Its record stays until write-back is done with it.
#[test]
fn what_is_gone_is_not_opened_again() {
    let (rig, f) = lent();
    rig.open(f, 3, libc::O_RDONLY).unwrap();
    rig.unlink(rig.root(), "f", false).unwrap();
    rig.open(f, 4, libc::O_RDONLY).unwrap();
    cancel(&rig, Bits::ALL);
    rig.close(f, 3);
    assert_eq!(rig.read(f).unwrap(), b"still here");
    rig.close(f, 4);
    assert_eq!(rig.open(f, 5, libc::O_RDONLY), Err(Errno::ESTALE));
}

/// Else it would never end.
#[test]
fn open_is_not_lent_of_what_has_no_names_or_no_bytes() {
    let (rig, f) = lent();
    rig.open(f, 9, libc::O_RDONLY).unwrap();
    rig.unlink(rig.root(), "f", false).unwrap();
    let d = rig
        .create(rig.root(), "d", FileKind::Directory)
        .unwrap()
        .fid;
    // LOOKUP of the file is held already.
    assert_eq!(wishing(&rig, getattr(f), LockId(7)), []);
    let granted = wishing(&rig, getattr(d), LockId(8));
    assert_eq!(granted[0].bits, Bits::LOOKUP);
}
