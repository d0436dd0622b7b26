//! Custody as clients and the administrator see it: of files that a client has
//! to itself, of what is not on flash yet, and the wish for the origin.

use super::ahead::{ask, make, write};
use forebay::base::codec::Bytes;
use forebay::base::{Errno, Fid, FileKind};
use forebay::client::{CallError, Client};
use forebay::conf::Writeback;
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, SimWorld};
use forebay::wire::op::{self, Intent};
use forebay::wire::{Reply, Request};
use std::time::Duration;

const CUSTODY: &[u8] = b"user.forebay.custody";

async fn get(c: &Client<SimWorld>, fid: Fid) -> Result<String, CallError> {
    let name = Bytes(CUSTODY.to_vec());
    match ask(c, Request::XattrGet(op::XattrName { fid, name })).await? {
        Reply::Blob(blob) => Ok(String::from_utf8(blob.bytes.0).expect("a line")),
        other => panic!("{other:?}"),
    }
}

async fn set(c: &Client<SimWorld>, fid: Fid, value: &str) -> Result<(), CallError> {
    let request = Request::XattrSet(op::XattrSet {
        fid,
        name: Bytes(CUSTODY.to_vec()),
        value: Bytes(value.as_bytes().to_vec()),
        flags: 0,
        clear_sgid: false,
    });
    ask(c, request).await.map(drop)
}

async fn told(cluster: &Cluster, path: &str) -> serde_json::Value {
    let verb =
        format!(r#"{{"verb":"custody","target":"main","path":"{path}","limit":10,"after":""}}"#);
    let answer = cluster.sim.admin(BOX, &verb).await;
    serde_json::from_str(&answer).expect("JSON")
}

fn value_of(line: &str, key: &str) -> u64 {
    let mut pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(k, _)| *k == key).map(|(_, value)| value);
    found.expect("the key").parse().expect("a number")
}

/// A file that the client writes by itself: made, and written until that is
/// answered ahead of the box.
async fn own_file(c: &Client<SimWorld>, what: &str) -> (Fid, u64) {
    let fid = make(c, c.root(), what, FileKind::Regular).await;
    let (mut len, before) = (0, c.counters().ahead);
    while c.counters().ahead < before + 4 {
        write(c, fid, &[1; 100]).await;
        len += 100;
    }
    (fid, len)
}

fn an_hour() -> Cluster {
    let cluster = Cluster::new(31);
    cluster.conf.borrow_mut().writeback = Writeback::Lag(Duration::from_secs(3600));
    cluster
}

/// Who asks is told of all that it was answered itself, each time anew, though
/// it has the file to itself and every right to remember it.
#[test]
fn who_has_a_file_to_itself_is_told_by_the_box_and_remembers_nothing() {
    let cluster = an_hour();
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.expect("the box is up").client;
        let (fid, mut len) = own_file(&a, "f").await;
        for _ in 0..20 {
            write(&a, fid, &[2; 1000]).await;
            len += 1000;
            let line = get(&a, fid).await.expect("told");
            assert_eq!(value_of(&line, "dirty"), len, "{line}");
            assert!(!line.contains("why=client"), "{line}");
            assert!(!line.starts_with("where=origin"), "{line}");
        }
        cluster.sim.sleep(Duration::from_secs(1)).await;
        let line = get(&a, fid).await.expect("told");
        assert!(line.starts_with("where=flash dirty="), "{line}");
        assert!(line.contains(" copies=1 why=lag next="), "{line}");
        cluster.drain().await.expect("carried");
        let line = get(&a, fid).await.expect("told");
        assert_eq!(line, "where=origin dirty=0 age=0 copies=1 why=none");
        let intent = Intent::default();
        let list = ask(&a, Request::XattrList(op::OfFile { fid, intent })).await;
        let Ok(Reply::Blob(names)) = list else {
            panic!("{list:?}");
        };
        assert!(names.bytes.0.is_empty(), "it is none of the file's");
    });
}

/// What was written and is on nobody's flash yet is in memory, and says so.
#[test]
fn what_is_not_on_flash_is_in_memory() {
    let mut in_memory = 0;
    for seed in 0..40 {
        let cluster = Cluster::new(seed);
        cluster.conf.borrow_mut().writeback = Writeback::Lag(Duration::from_secs(3600));
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.expect("the box is up").client;
            let (fid, _) = own_file(&a, "f").await;
            write(&a, fid, &[3; 100]).await;
            let line = get(&a, fid).await.expect("told");
            let shard = cluster.shard().expect("it runs");
            in_memory += u32::from(line.starts_with("where=memory"));
            if line.starts_with("where=memory") {
                assert!(line.contains("why=commit"), "{line}");
                return;
            }
            // Said to be on flash, it outlives the box and the client.
            let len = value_of(&line, "dirty");
            drop(shard);
            cluster.crash_as(forebay::sim::Crash::Power);
            cluster.sim.crash("a");
            cluster.start();
            let b = cluster.client("b").await.expect("the box is up").client;
            let root = b.at_root(forebay::client::Context::of(0, 0));
            let found = root.lookup("f").await.expect("there");
            assert_eq!(found.attr.size, len, "seed {seed}");
        });
    }
    assert!(in_memory > 0, "it was never met");
}

/// The box cannot know what a client has answered by itself and not sent.
#[test]
fn a_client_that_may_be_ahead_is_named() {
    let cluster = an_hour();
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.expect("the box is up").client;
        let (fid, _) = own_file(&a, "f").await;
        for n in 0..6 {
            own_file(&a, &format!("f{n}")).await;
        }
        cluster.sim.sleep(Duration::from_secs(1)).await;
        let here = told(&cluster, "f").await;
        let custody = &here["done"]["custody"];
        assert_eq!(
            custody["where"], "flash",
            "it is asked, and has sent all: {here}"
        );
        cluster.sim.partition("a", BOX);
        write(&a, fid, b"only here").await;
        let here = told(&cluster, "f").await;
        let custody = &here["done"]["custody"];
        assert_eq!(custody["where"], "memory", "{here}");
        assert_eq!(
            (&custody["why"], &custody["client"]),
            (&"client".into(), &"a".into())
        );
        // In a list who does not answer is waited for once.
        let at = cluster.sim.now();
        let all = told(&cluster, "").await;
        assert!(cluster.sim.now() - at < Duration::from_millis(900));
        let rows = all["done"]["owed"].as_array().expect("rows");
        for row in rows.iter().filter(|row| row["path"] != "") {
            assert_eq!(
                (&row["where"], &row["client"]),
                (&"memory".into(), &"a".into())
            );
        }
        assert!(rows.len() > 6, "{all}");
        let ahead = &all["done"]["summary"]["clients that may be ahead"];
        assert_eq!(ahead[0], "a", "{all}");
        cluster.sim.heal();
        let line = get(&a, fid).await.expect("told");
        assert!(!line.contains("why=client"), "{line}");
        cluster.sim.sleep(Duration::from_secs(1)).await;
        let here = told(&cluster, "f").await;
        assert_eq!(here["done"]["custody"]["where"], "flash", "{here}");
    });
}

/// The wish is granted when the origin has the file; one box answers for it a
/// second at a time, so that whoever waits can stop.
#[test]
fn a_wish_for_the_origin_waits_for_it() {
    let cluster = an_hour();
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.expect("the box is up").client;
        let b = cluster.client("b").await.expect("the box is up").client;
        let (fid, len) = own_file(&a, "f").await;
        assert_eq!(cluster.origin().tree().0.len(), 1, "the root");
        // Another client's wish waits for what was answered here, and not sent.
        let size = || cluster.origin().tree().0[&b"f"[..]].bytes.size();
        set(&b, fid, "origin").await.expect("granted");
        assert_eq!(size(), len);
        let mut written = len;
        let before = a.counters().ahead;
        while a.counters().ahead < before + 4 {
            write(&a, fid, &[4; 50]).await;
            written += 50;
            cluster.sim.sleep(Duration::from_millis(300)).await;
        }
        cluster.sim.partition("a", BOX);
        write(&a, fid, &[5; 50]).await;
        let refused = set(&b, fid, "origin").await;
        assert_eq!(refused, Err(CallError::Failed(Errno::EINPROGRESS)));
        cluster.sim.heal();
        while set(&b, fid, "origin").await.is_err() {}
        assert_eq!(size(), written + 50);
        write(&a, fid, &[6; 50]).await;
        set(&a, fid, "origin").await.expect("granted");
        cluster.origin().power_cut(&cluster.sim);
        assert_eq!(size(), written + 100);
        for wrong in ["", "flash", "origin\n"] {
            let refused = set(&a, fid, wrong).await;
            assert_eq!(refused, Err(CallError::Failed(Errno::EINVAL)), "{wrong:?}");
        }
        let name = Bytes(CUSTODY.to_vec());
        let gone = ask(&a, Request::XattrRemove(op::XattrName { fid, name })).await;
        assert_eq!(gone, Err(CallError::Failed(Errno::EOPNOTSUPP)));
    });
}

#[test]
fn a_wish_is_answered_within_a_second_or_two_whatever_the_origin_does() {
    let cluster = an_hour();
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.expect("the box is up").client;
        let fid = make(&a, a.root(), "f", FileKind::Regular).await;
        write(&a, fid, b"bytes").await;
        cluster.origin().goes_away();
        let at = cluster.sim.now();
        let refused = set(&a, fid, "origin").await;
        assert_eq!(refused, Err(CallError::Failed(Errno::EINPROGRESS)));
        assert!(cluster.sim.now() - at < Duration::from_secs(2));
        let mut asked = 0;
        let ended = loop {
            match set(&a, fid, "origin").await {
                Err(CallError::Failed(Errno::EINPROGRESS)) => asked += 1,
                ended => break ended,
            }
            if asked == 5 {
                cluster.origin().comes_back();
            }
        };
        assert_eq!((ended, asked >= 5), (Ok(()), true));
        let tree = cluster.origin().tree();
        assert_eq!(tree.0[&b"f"[..]].bytes.size(), 5);
    });
}
