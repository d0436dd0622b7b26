//! Changes that a client answers ahead of the box (L4, L7, L9, L10): others see
//! all of them, whatever dies meanwhile, and what is lost is told.

use forebay::base::codec::Bytes;
use forebay::base::{Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice, Time};
use forebay::client::{CallError, Client, Context, Options};
use forebay::conf::Disconnected;
use forebay::sim::SimWorld;
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, Faults};
use forebay::wire::op::{self, Intent};
use forebay::wire::{Reply, Request};
use forebay::world::race::within;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

type Tree = BTreeMap<String, Vec<u8>>;

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

pub async fn ask(c: &Client<SimWorld>, request: Request) -> Result<Reply, CallError> {
    Ok(c.call(&Context::of(0, 0), request, None).await?.0)
}

pub async fn make(c: &Client<SimWorld>, dir: Fid, what: &str, kind: FileKind) -> Fid {
    let request = Request::Create(op::Create {
        parent: dir,
        name: Some(name(what)),
        kind,
        mode: 0o755,
        rdev: 0,
        link: Bytes::default(),
        exclusive: true,
        open: OpenId(0),
        flags: 0,
        fid: Fid::NONE,
        intent: Intent::default(),
    });
    match ask(c, request).await {
        Ok(Reply::Entry(entry)) => entry.fid,
        other => panic!("create {what}: {other:?}"),
    }
}

pub async fn write(c: &Client<SimWorld>, fid: Fid, bytes: &[u8]) {
    let request = Request::Write(op::Write {
        fid,
        open: OpenId(0),
        offset: 0,
        append: true,
    });
    let me = Context::of(0, 0);
    let done = c.call(&me, request, Some(Slice::from(bytes.to_vec())));
    done.await.expect("written");
}

async fn rename(c: &Client<SimWorld>, dir: Fid, from: &str, to: &str) {
    let request = Request::Rename(op::Rename {
        from: dir,
        from_name: name(from),
        to: dir,
        to_name: name(to),
        flags: 0,
    });
    ask(c, request).await.expect("renamed");
}

async fn unlink(c: &Client<SimWorld>, dir: Fid, what: &str) {
    let request = Request::Unlink(op::Unlink {
        parent: dir,
        name: name(what),
        dir: false,
    });
    ask(c, request).await.expect("removed");
}

async fn chmod(c: &Client<SimWorld>, fid: Fid, mode: u32) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    let request = Request::Setattr(op::Setattr { fid, set });
    ask(c, request).await.expect("changed");
}

/// Makes files in directories below `at`, as tar does, with some to and fro.
async fn unpack(c: &Client<SimWorld>, at: Fid, files: usize) -> Tree {
    let mut tree = Tree::new();
    for d in 0..files.div_ceil(8) {
        let dir = make(c, at, &format!("d{d}"), FileKind::Directory).await;
        for f in 0..8.min(files - d * 8) {
            let path = format!("d{d}/f{f}");
            let file = make(c, dir, "part", FileKind::Regular).await;
            write(c, file, path.as_bytes()).await;
            chmod(c, file, 0o640).await;
            rename(c, dir, "part", &format!("f{f}")).await;
            write(c, file, b" twice").await;
            let spare = make(c, dir, "spare", FileKind::Regular).await;
            write(c, spare, b"gone").await;
            unlink(c, dir, "spare").await;
            tree.insert(path.clone(), format!("{path} twice").into_bytes());
        }
    }
    tree
}

/// What another client finds.
async fn found(c: &Client<SimWorld>, at: &str) -> Tree {
    let root = c.at_root(Context::of(0, 0));
    let top = root.walk(at).await.expect("there");
    let mut tree = Tree::new();
    for dir in top.list().await.expect("listed") {
        let dir_name = String::from_utf8_lossy(dir.name.as_bytes()).into_owned();
        let below = top.walk(&dir_name).await.expect("there");
        for file in below.list().await.expect("listed") {
            let what = String::from_utf8_lossy(file.name.as_bytes()).into_owned();
            let (open, attr) = below.open(&what).await.expect("open");
            let len = u32::try_from(attr.size).expect("small");
            let bytes = below.read(open, 0, len.max(1)).await.expect("read");
            below.close(open).await.expect("closed");
            tree.insert(format!("{dir_name}/{what}"), bytes.to_vec());
        }
    }
    tree
}

/// A directory that the client has to itself.
async fn own(c: &Client<SimWorld>) -> Fid {
    let dir = make(c, c.root(), "own", FileKind::Directory).await;
    let before = c.counters().ahead;
    for n in 0.. {
        make(c, dir, &format!("d9{n}"), FileKind::Directory).await;
        if c.counters().ahead > before {
            break;
        }
    }
    dir
}

#[test]
fn who_is_alone_is_answered_ahead_and_others_see_it_all() {
    let cluster = Cluster::new(1);
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.unwrap().client;
        let b = cluster.client("b").await.unwrap().client;
        let dir = own(&a).await;
        let before = a.counters();
        let tree = unpack(&a, dir, 64).await;
        let after = a.counters();
        let ahead = after.ahead - before.ahead;
        assert!(
            ahead >= 64 * 8,
            "{ahead} of the changes were answered ahead"
        );
        assert_eq!(found(&b, "own").await, tree);
        assert_eq!(found(&a, "own").await, tree);
        assert!(a.take_lost().is_empty());
    });
}

/// A callback is answered when all is sent that was answered before it. Over a
/// slow line that takes longer than an answer may take: who goes on sending is
/// waited for, and who stops is not (H6).
#[test]
fn who_goes_on_sending_is_waited_for_h6() {
    // The line's delays are drawn: with some seeds (3, 9) it is silent for longer
    // than half a lease, or quick, which is not what this is about.
    for (seed, stops) in [(4, false), (5, false), (6, false), (4, true), (5, true)] {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let sim = &cluster.sim;
            let b = cluster.client("b").await.unwrap().client;
            let few = Options {
                name: String::from("a"),
                locks: true,
                tags: 4,
                ..Options::default()
            };
            let hosts = vec![format!("{BOX}:9880")];
            let a = Client::connect(sim.world("a"), hosts, "main", few).await;
            let a = a.expect("the box is up");
            let dir = own(&a).await;
            let mut files = Vec::new();
            for n in 0..120 {
                files.push(make(&a, dir, &format!("f{n}"), FileKind::Regular).await);
            }
            sim.faults(|f| f.net_latency = Duration::from_millis(700));
            let before = a.counters().ahead;
            // Those of one file would go together.
            for file in files {
                write(&a, file, b"bytes").await;
            }
            assert!(a.counters().ahead - before > 100);
            let begun = sim.now();
            let intent = Intent::default();
            let look = async {
                let seen = ask(&b, Request::Getattr(op::OfFile { fid: dir, intent })).await;
                assert!(seen.is_ok());
                sim.now() - begun
            };
            let stop = async {
                if stops {
                    sim.sleep(Duration::from_secs(8)).await;
                    sim.partition("a", BOX);
                    sim.sleep(Duration::from_secs(60)).await;
                    sim.heal();
                }
            };
            let (took, ()) = futures_join(look, stop).await;
            let status = sim.admin(BOX, r#"{"verb":"status"}"#).await;
            let evicted = !status.contains(r#""clients evicted":0"#);
            assert_eq!(evicted, stops, "after {took:?}: {status}");
            // Longer than one answer may take, and than all that was left.
            assert!(took > Duration::from_secs(12), "{took:?}");
        });
    }
}

/// What applications were told is done, and not what the box knows of it, is
/// what a flush carries to the origin.
#[test]
fn a_flush_carries_what_was_answered_ahead() {
    for seed in 0..10 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let sim = &cluster.sim;
            let a = cluster.client("a").await.unwrap().client;
            let dir = own(&a).await;
            let file = make(&a, dir, "file", FileKind::Regular).await;
            // Nothing is owed.
            sim.sleep(Duration::from_secs(60)).await;
            let before = a.counters().ahead;
            sim.partition("a", BOX);
            write(&a, file, b"answered").await;
            assert!(a.counters().ahead > before, "seed {seed}");
            let heal = async {
                sim.sleep(Duration::from_millis(100 * seed)).await;
                sim.heal();
            };
            let (drained, ()) = futures_join(cluster.drain(), heal).await;
            drained.expect("at the origin");
            let mut carried = [0; 9];
            let there = cluster.origin().tree();
            let len = there.0[&b"own/file"[..]].bytes.read(0, &mut carried);
            assert_eq!(&carried[..len], b"answered", "seed {seed}");
        });
    }
}

#[test]
fn a_crash_of_the_box_costs_nothing_that_was_answered_l4() {
    for seed in 0..40 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let b = cluster.client("b").await.unwrap().client;
            let dir = own(&a).await;
            let sim = &cluster.sim;
            let crash = async {
                sim.sleep(Duration::from_micros(300 * (1 + seed))).await;
                cluster.crash();
                sim.sleep(Duration::from_millis(seed * 7)).await;
                cluster.start();
            };
            let (tree, ()) = futures_join(unpack(&a, dir, 40), crash).await;
            assert_eq!(found(&b, "own").await, tree, "seed {seed}");
            assert!(a.take_lost().is_empty(), "seed {seed}");
        });
    }
}

/// Where changes are refused while the origin is away, nobody decides them
/// alone; what was answered before is carried out all the same.
#[test]
fn an_absent_origin_ends_it_where_its_policy_refuses_changes_l4() {
    let policies = [
        (Disconnected::ReadOnly, Errno::EROFS),
        (Disconnected::Fail, Errno::EIO),
    ];
    for (policy, wanted) in policies {
        let cluster = Cluster::new(7);
        cluster.conf.borrow_mut().disconnected = policy;
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let dir = own(&a).await;
            let tree = unpack(&a, dir, 8).await;
            cluster.origin().goes_away();
            // Write-back learns of it; the client hears nothing but callbacks.
            let change = || {
                let set = SetAttr {
                    mode: Some(0o700),
                    ..SetAttr::default()
                };
                ask(&a, Request::Setattr(op::Setattr { fid: dir, set }))
            };
            let until = cluster.sim.now() + Duration::from_secs(60);
            let refused = loop {
                match change().await {
                    Err(CallError::Failed(errno)) => break errno,
                    other => assert!(other.is_ok(), "{other:?}"),
                }
                assert!(cluster.sim.now() < until, "nobody refuses");
                cluster.sim.sleep(Duration::from_millis(500)).await;
            };
            assert_eq!(refused, wanted);
            assert!(a.take_lost().is_empty());
            cluster.origin().comes_back();
            while change().await.is_err() {
                cluster.sim.sleep(Duration::from_millis(500)).await;
            }
            cluster.drain().await.expect("at the origin");
            let b = cluster.client("b").await.unwrap().client;
            assert_eq!(found(&b, "own").await, tree);
            b.close().await;
            // It has it to itself again.
            let before = a.counters().ahead;
            for n in 0.. {
                if a.counters().ahead > before {
                    break;
                }
                make(&a, dir, &format!("n{n}"), FileKind::Regular).await;
                cluster.sim.sleep(Duration::from_millis(500)).await;
            }
            assert!(a.take_lost().is_empty());
        });
    }
}

#[test]
fn what_an_eviction_costs_is_told_l10() {
    for seed in 0..20 {
        let cluster = Cluster::with(seed, Faults::default());
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let b = cluster.client("b").await.unwrap().client;
            let dir = own(&a).await;
            unpack(&a, dir, 8).await;
            // All of that is on flash, and the client knows.
            a.settle().await;
            cluster.sim.partition("a", BOX);
            let more = make(&a, dir, "d5", FileKind::Directory).await;
            make(&a, more, "f", FileKind::Regular).await;
            cluster.sim.sleep(Duration::from_secs(60)).await;
            cluster.sim.heal();
            let seen = found(&b, "own").await;
            assert!(!seen.contains_key("d5/f"), "seed {seed}");
            // It learns of it by its next call.
            let _ = ask(&a, Request::Ping(op::Empty {})).await;
            let lost = a.take_lost();
            assert_eq!(lost.len(), 2, "seed {seed}: {lost:?}");
            assert_eq!(found(&a, "own").await, seen, "seed {seed}");
        });
    }
}

/// Makes a file as tar does: bytes in two parts, times, owner, mode.
async fn extract(c: &Client<SimWorld>, dir: Fid, what: &str) {
    let file = make(c, dir, what, FileKind::Regular).await;
    write(c, file, what.as_bytes()).await;
    write(c, file, b" twice").await;
    let time = Some(Time { sec: 77, nsec: 7 });
    let times = SetAttr {
        atime: time,
        mtime: time,
        ..SetAttr::default()
    };
    let owner = SetAttr {
        uid: Some(9),
        gid: Some(9),
        ..SetAttr::default()
    };
    for set in [times, owner] {
        let request = Request::Setattr(op::Setattr { fid: file, set });
        ask(c, request).await.expect("changed");
    }
    chmod(c, file, 0o4751).await;
}

const PARTS: u64 = 6;
const FILES: u64 = 8;

/// Changes of a file that wait for the box go to it in few requests, and all of
/// them are done.
#[test]
fn changes_of_a_file_that_wait_go_together() {
    for seed in 0..10 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client_with("a", 8).await.unwrap().client;
            let b = cluster.client("b").await.unwrap().client;
            let dir = own(&a).await;
            a.settle().await;
            let before = a.counters();
            cluster.sim.partition("a", BOX);
            for n in 0..FILES {
                extract(&a, dir, &format!("f{n}")).await;
            }
            let ahead = a.counters().ahead - before.ahead;
            assert_eq!(ahead, FILES * PARTS, "seed {seed}");
            cluster.sim.sleep(Duration::from_millis(500)).await;
            cluster.sim.heal();
            for n in 0..FILES {
                let root = b.at_root(Context::of(0, 0));
                let at = root.walk("own").await.expect("there");
                let (open, attr) = at.open(&format!("f{n}")).await.expect("open");
                let told = (attr.uid, attr.gid, attr.mode, attr.mtime.sec);
                assert_eq!(told, (9, 9, 0o4751, 77), "seed {seed}, file {n}");
                let bytes = at.read(open, 0, 100).await.expect("read");
                assert_eq!(&bytes[..], format!("f{n} twice").as_bytes());
                at.close(open).await.expect("closed");
            }
            let sent = a.counters().sent - before.sent;
            assert!(sent <= FILES * 3, "seed {seed}: {sent} requests");
        });
    }
}

/// The newest change waits for the next while others are on their way, and no
/// longer.
#[test]
fn what_a_file_is_made_of_is_three_requests() {
    for seed in 0..10 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let dir = own(&a).await;
            a.settle().await;
            let before = a.counters();
            for n in 0..FILES {
                extract(&a, dir, &format!("f{n}")).await;
            }
            a.settle().await;
            let after = a.counters();
            assert_eq!(after.ahead - before.ahead, FILES * PARTS);
            let sent = after.sent - before.sent;
            assert!(sent <= FILES * 3 + 2, "seed {seed}: {sent} requests");
        });
    }
}

#[test]
fn changes_that_would_have_gone_together_are_lost_each_l10() {
    for seed in 0..10 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client_with("a", 8).await.unwrap().client;
            let dir = own(&a).await;
            a.settle().await;
            cluster.sim.partition("a", BOX);
            for n in 0..FILES {
                extract(&a, dir, &format!("f{n}")).await;
            }
            cluster.sim.sleep(Duration::from_secs(60)).await;
            cluster.sim.heal();
            let _ = ask(&a, Request::Ping(op::Empty {})).await;
            let lost = a.take_lost();
            assert_eq!(lost.len() as u64, FILES * PARTS, "seed {seed}");
            let bytes = lost.iter().filter_map(|l| l.bytes.as_deref());
            assert_eq!(bytes.filter(|b| b == b" twice").count() as u64, FILES);
        });
    }
}

/// What is asked after changes that the box has not done sees their effect: it
/// does not pass them on the way (there are more of them than reply slots), nor
/// in the box.
#[test]
fn what_is_asked_meanwhile_comes_after() {
    for seed in 0..10 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let dir = own(&a).await;
            for round in 0..10 {
                let made = async |n: usize| {
                    let name = format!("f{round}-{n}");
                    make(&a, dir, &name, FileKind::Regular).await
                };
                let mut last = made(0).await;
                for n in 1..[2, 150][round % 2] {
                    last = made(n).await;
                }
                write(&a, last, b"seen").await;
                let read = Request::Read(op::Read {
                    fid: last,
                    open: OpenId(0),
                    offset: 0,
                    len: 8,
                });
                let (_, data) = a
                    .call(&Context::of(0, 0), read, None)
                    .await
                    .unwrap_or_else(|e| panic!("seed {seed} {round}: {e}"));
                assert_eq!(&data.expect("bytes")[..], b"seen", "seed {seed}");
            }
        });
    }
}

/// Whoever looks finds what was answered before it looked, also of what is
/// changed while the lock is being given up.
#[test]
fn nothing_is_decided_once_the_lock_has_begun_to_end_l4() {
    for seed in 0..40 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let b = cluster.client("b").await.unwrap().client;
            let dir = own(&a).await;
            let (sim, newest, is_over) = (&cluster.sim, Cell::new(0), Cell::new(false));
            make(&a, dir, "f0", FileKind::Regular).await;
            let before = a.counters().ahead;
            let makes = async {
                while !is_over.get() {
                    let n = newest.get() + 1;
                    make(&a, dir, &format!("f{n}"), FileKind::Regular).await;
                    newest.set(n);
                    if n % 8 == 0 {
                        sim.sleep(Duration::from_micros(50)).await;
                    }
                }
            };
            let looks = async {
                sim.sleep(Duration::from_millis(2)).await;
                let at = b.at_root(Context::of(0, 0)).walk("own").await;
                let at = at.expect("there");
                // The first makes the lock end.
                for _ in 0..20 {
                    let n = newest.get();
                    let found = at.lookup(&format!("f{n}")).await;
                    assert!(found.is_ok(), "seed {seed}: f{n} was answered");
                }
                is_over.set(true);
            };
            futures_join(makes, looks).await;
            assert!(a.counters().ahead > before + 50, "{:?}", a.counters());
        });
    }
}

/// With its lease over a client neither decides nor shows what it had to itself:
/// others may have it by then.
#[test]
fn nothing_is_decided_or_shown_without_a_lease_l4() {
    let cluster = Cluster::new(1);
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.unwrap().client;
        let b = cluster.client("b").await.unwrap().client;
        let dir = own(&a).await;
        let file = make(&a, dir, "f", FileKind::Regular).await;
        a.settle().await;
        cluster.sim.partition("a", BOX);
        // As long as it has it.
        chmod(&a, file, 0o700).await;
        cluster.sim.sleep(Duration::from_secs(60)).await;
        let top = b.at_root(Context::of(0, 0)).walk("own").await;
        let found = top.expect("there").lookup("f").await.expect("found");
        chmod(&b, found.fid, 0o600).await;
        let (world, soon) = (a.world(), Duration::from_secs(1));
        let look = || {
            let intent = Intent::default();
            Request::Getattr(op::OfFile { fid: file, intent })
        };
        let seen = within(world, soon, ask(&a, look())).await;
        assert_eq!(seen, None, "it is not shown");
        let set = SetAttr {
            mode: Some(0o640),
            ..SetAttr::default()
        };
        let change = Request::Setattr(op::Setattr { fid: file, set });
        let changed = within(world, soon, ask(&a, change)).await;
        assert_eq!(changed, None, "it is not decided");
        cluster.sim.heal();
        match ask(&a, look()).await {
            Ok(Reply::Entry(entry)) => assert_ne!(entry.attr.mode, 0o700),
            other => panic!("{other:?}"),
        }
    });
}

/// A rename between two names of one file does nothing, also where the client
/// knows one of them only.
#[test]
fn a_rename_that_does_nothing_takes_no_name_away() {
    let cluster = Cluster::new(3);
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.unwrap().client;
        let (dir, other) = (
            own(&a).await,
            make(&a, a.root(), "other", FileKind::Directory).await,
        );
        let file = make(&a, dir, "x", FileKind::Regular).await;
        let request = Request::Link(op::Link {
            fid: file,
            parent: other,
            name: name("y"),
        });
        ask(&a, request).await.expect("linked");
        // Linking it has exposed the directory: it is to be its own again.
        cluster.sim.sleep(Duration::from_secs(3)).await;
        let before = a.counters().ahead;
        for n in 0.. {
            make(&a, dir, &format!("again{n}"), FileKind::Regular).await;
            if a.counters().ahead > before {
                break;
            }
        }
        let request = Request::Rename(op::Rename {
            from: dir,
            from_name: name("x"),
            to: other,
            to_name: name("y"),
            flags: 0,
        });
        ask(&a, request).await.expect("nothing to do");
        let at = a.at_root(Context::of(0, 0)).walk("own").await;
        let found = at.expect("there").lookup("x").await;
        assert_eq!(found.map(|entry| entry.fid), Ok(file));
    });
}

/// A directory with files that another client has made, long ago.
async fn old(b: &Client<SimWorld>, what: &str, files: usize) -> (Fid, Vec<Fid>) {
    let dir = make(b, b.root(), what, FileKind::Directory).await;
    let mut all = Vec::new();
    for n in 0..files {
        let file = make(b, dir, &format!("f{n}"), FileKind::Regular).await;
        write(b, file, format!("f{n}").as_bytes()).await;
        all.push(file);
    }
    b.settle().await;
    (dir, all)
}

/// Removes all that is listed, as rm does; how many.
async fn clear(a: &Client<SimWorld>, dir: Fid) -> usize {
    let mut removed = 0;
    let mut cookie = 0;
    loop {
        let list = Request::Readdir(op::Readdir {
            fid: dir,
            cookie,
            bytes: 32 << 10,
            attrs: true,
        });
        let Ok(Reply::Listing(listed)) = ask(a, list).await else {
            panic!("listed");
        };
        for entry in &listed.entries {
            cookie = entry.cookie;
            let what = String::from_utf8_lossy(entry.name.as_bytes()).into_owned();
            unlink(a, dir, &what).await;
            removed += 1;
        }
        if listed.end {
            return removed;
        }
    }
}

async fn rmdir(c: &Client<SimWorld>, what: &str) {
    let request = Request::Unlink(op::Unlink {
        parent: c.root(),
        name: name(what),
        dir: true,
    });
    ask(c, request).await.expect("removed");
}

/// What was there before is removed ahead, too, and what others have open of it
/// stays with them; whatever dies meanwhile.
#[test]
fn a_tree_that_was_there_before_is_removed_ahead() {
    for seed in 0..8 {
        let cluster = Cluster::new(seed);
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.unwrap().client;
            let b = cluster.client("b").await.unwrap().client;
            let c = cluster.client("c").await.unwrap().client;
            let (first, files) = old(&c, "first", 150).await;
            let (second, _) = old(&c, "second", 150).await;
            c.close().await;
            let open = b.next_open();
            let kept = Request::Open(op::Open {
                fid: files[77],
                open,
                flags: 0,
                intent: Intent::default(),
            });
            ask(&b, kept).await.expect("open");
            let before = a.counters();
            assert_eq!(clear(&a, first).await, 150);
            rmdir(&a, "first").await;
            if seed % 2 == 1 {
                cluster.crash();
                cluster.start();
            }
            assert_eq!(clear(&a, second).await, 150, "seed {seed}");
            rmdir(&a, "second").await;
            let after = a.counters();
            let ahead = after.ahead - before.ahead;
            assert!(ahead > 200, "seed {seed}: {ahead} were answered ahead");
            let root = b.at_root(Context::of(0, 0));
            assert!(root.list().await.expect("listed").is_empty(), "seed {seed}");
            let read = Request::Read(op::Read {
                fid: files[77],
                open,
                offset: 0,
                len: 10,
            });
            let read = b.call(&Context::of(0, 0), read, None).await;
            let (_, bytes) = read.expect("still open");
            assert_eq!(&bytes.expect("bytes")[..], b"f77", "seed {seed}");
            let fid = files[77];
            ask(&b, Request::Close(op::Close { fid, open }))
                .await
                .expect("closed");
            assert!(a.take_lost().is_empty());
        });
    }
}

/// Both, at once.
async fn futures_join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let mut a = std::pin::pin!(a);
    let mut b = std::pin::pin!(b);
    let (mut x, mut y) = (None, None);
    std::future::poll_fn(move |cx| {
        if x.is_none()
            && let std::task::Poll::Ready(v) = a.as_mut().poll(cx)
        {
            x = Some(v);
        }
        if y.is_none()
            && let std::task::Poll::Ready(v) = b.as_mut().poll(cx)
        {
            y = Some(v);
        }
        match (x.is_some(), y.is_some()) {
            (true, true) => std::task::Poll::Ready((x.take().unwrap(), y.take().unwrap())),
            _ => std::task::Poll::Pending,
        }
    })
    .await
}
