//! An origin that hangs, and what each `disconnected` policy makes of it.

use forebay::base::{Attr, Errno, Fid, FileKind, Name, SetAttr, Time};
use forebay::client::CallError;
use forebay::conf::Disconnected;
use forebay::origin::{OriginOp, OriginReply, Place};
use forebay::sim::actor::Actor;
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, Faults};
use forebay::wire::op::{self, Intent};
use forebay::wire::{Reply, Request};
use forebay::world::World;
use forebay::world::sync::Promise;
use std::time::Duration;

const STAMP: Time = Time {
    sec: 1_700_000_000,
    nsec: 0,
};
const STATUS: &str = r#"{"verb":"status"}"#;

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

fn lookup(actor: &Actor, what: &str) -> Request {
    Request::Lookup(op::Named {
        parent: actor.client.root(),
        name: name(what),
        intent: Intent::default(),
    })
}

fn getattr(fid: Fid) -> Request {
    let intent = Intent::default();
    Request::Getattr(op::OfFile { fid, intent })
}

/// A change of what is known here: it needs nothing of the origin.
fn touch(fid: Fid) -> Request {
    let set = SetAttr {
        mtime: Some(STAMP),
        ..SetAttr::default()
    };
    Request::Setattr(op::Setattr { fid, set })
}

fn errno(answer: Result<Reply, CallError>) -> Option<Errno> {
    match answer {
        Ok(_) => None,
        Err(CallError::Failed(errno)) => Some(errno),
        Err(other) => panic!("{other}"),
    }
}

/// A file that the origin has and the box never met.
fn put(c: &Cluster, what: &str) {
    let now = Time::default();
    let made = c.origin().apply(
        &c.sim,
        OriginOp::Create {
            dir: Place {
                identity: None,
                path: Vec::new(),
            },
            name: name(what),
            kind: FileKind::Regular,
            attr: Attr {
                kind: FileKind::Regular,
                mode: 0o644,
                uid: 0,
                gid: 0,
                nlink: 1,
                rdev: 0,
                ino: 0,
                size: 0,
                blocks: 0,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                version: 0,
            },
            link: None,
        },
    );
    assert!(matches!(made, OriginReply::Found(_)));
}

/// The origin hangs for a while; `met` is cached, `cold` is not. What a miss
/// and a change get 30 s and 200 s into the absence, under a bound of 100 s.
fn scene(policy: Disconnected, early: [Option<Errno>; 2], late: [Option<Errno>; 2]) {
    let c = Cluster::new(11);
    c.conf.borrow_mut().disconnected = policy;
    c.conf.borrow_mut().disconnected_max = Duration::from_secs(100);
    c.run(async {
        put(&c, "met");
        put(&c, "cold");
        c.start();
        let actor = c.client("c0").await.expect("the box is up");
        let met = actor.entry(lookup(&actor, "met")).await.expect("found");
        c.origin().goes_away();
        // Somebody's miss is how the box learns of it.
        let other = c.client("c1").await.expect("the box is up");
        c.sim.world("c1").spawn(async move {
            let request = lookup(&other, "cold");
            let _ = other.ask(request).await;
        });
        let at = c.sim.now();
        for (secs, wanted) in [(30, early), (200, late)] {
            let until = at + Duration::from_secs(secs);
            c.sim.sleep(until - c.sim.now()).await;
            let status = c.sim.admin(BOX, STATUS).await;
            let is_told = ["disconnected", "reconnecting"]
                .iter()
                .any(|s| status.contains(s));
            assert!(is_told, "{status}");
            assert_eq!(errno(actor.ask(getattr(met.fid)).await), None, "cached");
            let [miss, change] = wanted;
            if miss.is_some() {
                assert_eq!(errno(actor.ask(lookup(&actor, "cold")).await), miss);
            }
            assert_eq!(errno(actor.ask(touch(met.fid)).await), change);
        }
        c.origin().comes_back();
        let connected = r#""state":"connected""#;
        while !c.sim.admin(BOX, STATUS).await.contains(connected) {
            c.sim.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(errno(actor.ask(lookup(&actor, "cold")).await), None);
        assert_eq!(errno(actor.ask(touch(met.fid)).await), None);
        c.drain().await.expect("at the origin");
        assert_eq!(c.origin().tree().0[&b"met"[..]].mtime, STAMP);
    });
}

#[test]
fn read_write_queues_and_waits_until_its_bound() {
    let late = [Some(Errno::ETIMEDOUT), Some(Errno::EIO)];
    scene(Disconnected::ReadWrite, [None, None], late);
}

#[test]
fn read_only_refuses_changes_and_misses_at_once() {
    let early = [Some(Errno::ETIMEDOUT), Some(Errno::EROFS)];
    let late = [Some(Errno::ETIMEDOUT), Some(Errno::EIO)];
    scene(Disconnected::ReadOnly, early, late);
}

#[test]
fn fail_refuses_all_that_needs_the_origin() {
    let fails = [Some(Errno::ETIMEDOUT), Some(Errno::EIO)];
    scene(Disconnected::Fail, fails, fails);
}

/// The box starts beside an origin that hangs: away from the first moment, and
/// the policy decides about `cold`, which it never met.
fn started_without(policy: Disconnected, wanted: [Option<Errno>; 2]) {
    let c = Cluster::new(13);
    c.conf.borrow_mut().disconnected = policy;
    c.run(async {
        put(&c, "met");
        put(&c, "cold");
        c.start();
        let actor = c.client("c0").await.expect("the box is up");
        let met = actor.entry(lookup(&actor, "met")).await.expect("found");
        c.stop().await;
        c.origin().goes_away();
        c.start();
        assert_eq!(errno(actor.ask(getattr(met.fid)).await), None, "cached");
        let status = c.sim.admin(BOX, STATUS).await;
        let is_told = ["disconnected", "reconnecting"]
            .iter()
            .any(|s| status.contains(s));
        assert!(is_told, "{status}");
        let [miss, change] = wanted;
        let begun = c.sim.now();
        if miss.is_some() {
            assert_eq!(errno(actor.ask(lookup(&actor, "cold")).await), miss);
        }
        assert_eq!(errno(actor.ask(touch(met.fid)).await), change);
        // In simulated time: nothing waited for the silence to be noticed.
        assert!(c.sim.now() - begun < Duration::from_secs(5));
        let (answer, waiter) = (Promise::default(), c.client("c1").await);
        let (set, waiter) = (answer.clone(), waiter.expect("the box is up"));
        c.sim.world("c1").spawn(async move {
            set.set(errno(waiter.ask(lookup(&waiter, "cold")).await));
        });
        c.sim.sleep(Duration::from_secs(30)).await;
        assert_eq!(answer.is_set(), miss.is_some(), "the policy says who waits");
        c.origin().comes_back();
        c.drain().await.expect("the first flush finds the origin");
        let told = answer.get().await;
        assert_eq!(told, miss, "who waited is answered");
        assert_eq!(errno(actor.ask(lookup(&actor, "cold")).await), None);
    });
}

#[test]
fn a_start_without_the_origin_waits_under_read_write() {
    started_without(Disconnected::ReadWrite, [None, None]);
}

#[test]
fn a_start_without_the_origin_refuses_at_once_under_read_only_and_fail() {
    let refused = Some(Errno::ETIMEDOUT);
    started_without(Disconnected::ReadOnly, [refused, Some(Errno::EROFS)]);
    started_without(Disconnected::Fail, [refused, Some(Errno::EIO)]);
}

/// A call that is only slow is no absence: others are answered meanwhile.
#[test]
fn a_slow_call_is_not_an_absent_origin() {
    let c = Cluster::new(12);
    c.conf.borrow_mut().disconnected = Disconnected::Fail;
    c.run(async {
        put(&c, "cold");
        c.start();
        let actor = c.client("c0").await.expect("the box is up");
        let quick = Faults::default().origin_latency;
        c.sim.faults(|f| f.origin_latency = Duration::from_secs(60));
        let (answer, got) = (Promise::default(), c.sim.now());
        let set = answer.clone();
        c.sim.world("c0").spawn(async move {
            set.set(errno(actor.ask(lookup(&actor, "cold")).await));
        });
        c.sim.sleep(Duration::from_secs(1)).await;
        c.sim.faults(|f| f.origin_latency = quick);
        assert_eq!(answer.get().await, None);
        assert!(c.sim.now() - got > Duration::from_secs(25), "it was slow");
    });
}
