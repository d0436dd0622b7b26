//! L9: what one client changed and a crash could take back, as others see it.

use super::*;
use crate::base::{Bits, Extent, LockId, Mode};
use crate::wire::LockWant;
use crate::wire::locks::Of;

/// A directory of the box's own with a file "old" in it, both on flash.
fn stable() -> (Rig, Fid) {
    let rig = Rig::new(|_| {});
    let dir = rig
        .create(rig.root(), "d", FileKind::Directory)
        .unwrap()
        .fid;
    rig.create(dir, "old", FileKind::Regular).unwrap();
    let settled = rig.shard.applied.get();
    rig.sim
        .run(async { rig.shard.flash.commit(settled).await })
        .unwrap();
    (rig, dir)
}

/// A directory of the box's own in which client 1 has made "new" and removed
/// "old", neither of them on flash; and the transno of the last change.
fn unstable() -> (Rig, Fid, Fid, Transno) {
    let (rig, dir) = stable();
    let new = rig.create(dir, "new", FileKind::Regular).unwrap().fid;
    rig.unlink(dir, "old", false).unwrap();
    let last = rig.shard.transno.get();
    assert!(rig.shard.flash.last_committed() < last, "nobody waited");
    (rig, dir, new, last)
}

/// Ways of seeing it: what is there, and what is not any more.
fn looks(dir: Fid, new: Fid) -> Vec<(Request, Result<(), Errno>)> {
    let intent = Intent::default;
    let named = |n| op::Named {
        parent: dir,
        name: name(n),
        intent: intent(),
    };
    let of = |fid| op::OfFile {
        fid,
        intent: intent(),
    };
    let unlink = op::Unlink {
        parent: dir,
        name: name("old"),
        dir: false,
    };
    let list = op::Readdir {
        fid: dir,
        cookie: 0,
        bytes: 4096,
        attrs: false,
    };
    let open = op::Open {
        fid: new,
        open: OpenId(9),
        flags: 0,
        intent: intent(),
    };
    vec![
        (Request::Lookup(named("new")), Ok(())),
        (Request::Lookup(named("old")), Err(Errno::ENOENT)),
        (Request::Getattr(of(new)), Ok(())),
        (Request::Getattr(of(dir)), Ok(())),
        (Request::Readdir(list), Ok(())),
        (Request::Open(open), Ok(())),
        (Request::Unlink(unlink), Err(Errno::ENOENT)),
        (creation(dir, "new", FileKind::Regular), Err(Errno::EEXIST)),
    ]
}

fn ask(rig: &Rig, client: u128, request: Request) -> Result<(), Errno> {
    let incoming = Incoming {
        client: ClientId(client),
        ..incoming(77, 0, request)
    };
    rig.run(incoming).result.map(|_| ())
}

#[test]
fn others_see_only_what_no_crash_takes_back_l9() {
    let (_, dir, new, _) = unstable();
    for at in 0..looks(dir, new).len() {
        let (rig, dir, new, last) = unstable();
        let (request, expected) = looks(dir, new).swap_remove(at);
        let shown = format!("{request:?}");
        assert_eq!(ask(&rig, 2, request), expected, "{shown}");
        assert!(rig.shard.flash.last_committed() >= last, "{shown}");
    }
}

#[test]
fn a_client_does_not_wait_for_its_own_changes() {
    let (rig, dir, new, last) = unstable();
    for (request, expected) in looks(dir, new) {
        let shown = format!("{request:?}");
        assert_eq!(ask(&rig, 1, request), expected, "{shown}");
        assert!(rig.shard.flash.last_committed() < last, "{shown}");
    }
}

#[test]
fn what_builds_on_anothers_change_is_marked_l9() {
    let (rig, dir, _, _) = unstable();
    ask(&rig, 1, creation(dir, "mine", FileKind::Regular)).unwrap();
    assert!(!rig.shard.meta.is_mixed(rig.shard.transno.get()));
    ask(&rig, 2, creation(dir, "yours", FileKind::Regular)).unwrap();
    assert!(rig.shard.meta.is_mixed(rig.shard.transno.get()));
}

/// What others make in a directory tells nothing of the names that they do not
/// make; but what is looked up there rests on the directory itself.
#[test]
fn a_look_up_waits_for_no_other_names_l9() {
    let lookup = |parent, n| {
        let intent = Intent::default();
        let name = name(n);
        Request::Lookup(op::Named {
            parent,
            name,
            intent,
        })
    };
    let made = || {
        let (rig, dir) = stable();
        rig.create(dir, "new", FileKind::Regular).unwrap();
        (rig, dir)
    };
    let (rig, dir) = made();
    let last = rig.shard.transno.get();
    let waited = || rig.shard.flash.last_committed() >= last;
    assert_eq!(ask(&rig, 2, lookup(dir, "none")), Err(Errno::ENOENT));
    assert!(!waited(), "for another name");
    assert_eq!(ask(&rig, 2, lookup(dir, "old")), Ok(()));
    assert!(!waited(), "for what is on flash");
    // Its own creation is built on the other's, and is not its own.
    ask(&rig, 2, creation(dir, "mine", FileKind::Regular)).unwrap();
    let getattr = Request::Getattr(op::OfFile {
        fid: dir,
        intent: Intent::default(),
    });
    assert_eq!(ask(&rig, 2, getattr), Ok(()));
    assert!(waited());

    let (rig, dir) = made();
    let last = rig.shard.transno.get();
    let want = LockWant {
        lock: LockId(1),
        of: Of::Parent,
        mode: Mode::Pr,
        bits: Bits::NONE,
        try_bits: Bits::UPDATE,
        extent: Extent::ALL,
    };
    let mut asking = Incoming {
        client: ClientId(2),
        ..incoming(78, 0, lookup(dir, "none"))
    };
    asking.asked.wants.push(want);
    assert_eq!(rig.run(asking).result.map(|_| ()), Err(Errno::ENOENT));
    assert!(rig.shard.locks.total() > 0, "it is granted the directory");
    assert!(
        rig.shard.flash.last_committed() >= last,
        "as others made it"
    );

    let sub = rig.create(dir, "sub", FileKind::Directory).unwrap().fid;
    let last = rig.shard.transno.get();
    assert_eq!(ask(&rig, 2, lookup(sub, "none")), Err(Errno::ENOENT));
    assert!(rig.shard.flash.last_committed() >= last, "it shows `sub`");

    let (rig, dir) = made();
    let set = SetAttr {
        mode: Some(0o711),
        ..SetAttr::default()
    };
    ask(&rig, 1, Request::Setattr(op::Setattr { fid: dir, set })).unwrap();
    let last = rig.shard.transno.get();
    assert_eq!(ask(&rig, 2, lookup(dir, "old")), Ok(()));
    assert!(
        rig.shard.flash.last_committed() >= last,
        "it rests on modes"
    );
}
