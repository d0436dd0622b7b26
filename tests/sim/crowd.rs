//! Many clients, and many locks: nobody is refused while others have idle locks,
//! and clients that meet in a directory do not call one another back for each
//! file.

use forebay::base::codec::Bytes;
use forebay::base::{Fid, FileKind, Name, OpenId};
use forebay::client::{CallError, Client, Context, Options};
use forebay::dlm::Limits;
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, SimWorld};
use forebay::wire::op::{self, Intent};
use forebay::wire::{Reply, Request};
use forebay::world::World;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

async fn connect(cluster: &Cluster, name: &str) -> Client<SimWorld> {
    let options = Options {
        name: name.to_owned(),
        locks: true,
        ..Options::default()
    };
    let hosts = vec![format!("{BOX}:9880")];
    let world = cluster.sim.world(name);
    let client = Client::connect(world, hosts, "main", options).await;
    client.expect("the box serves")
}

/// A box that serves.
async fn begin(cluster: &Cluster) {
    cluster.start();
    drop(cluster.client("first").await.expect("the box serves"));
}

async fn ask(c: &Client<SimWorld>, request: Request) -> Result<Reply, CallError> {
    Ok(c.call(&Context::of(0, 0), request, None).await?.0)
}

async fn make(c: &Client<SimWorld>, dir: Fid, name: &str, kind: FileKind) -> Fid {
    let request = Request::Create(op::Create {
        parent: dir,
        name: Name::new(name.as_bytes()).ok(),
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
        other => panic!("create {name}: {other:?}"),
    }
}

async fn look(c: &Client<SimWorld>, dir: Fid, name: &str) {
    let request = Request::Lookup(op::Named {
        parent: dir,
        name: Name::new(name.as_bytes()).expect("a name"),
        intent: Intent::default(),
    });
    ask(c, request).await.expect("it is there");
}

async fn list(c: &Client<SimWorld>, dir: Fid) -> usize {
    let request = Request::Readdir(op::Readdir {
        fid: dir,
        cookie: 0,
        bytes: 64 << 10,
        attrs: true,
    });
    match ask(c, request).await {
        Ok(Reply::Listing(listing)) => listing.entries.len(),
        other => panic!("list: {other:?}"),
    }
}

/// Tasks that go on beside the scenario.
#[derive(Clone, Default)]
struct Working(Rc<Cell<usize>>);

impl Working {
    fn begin(&self, world: &SimWorld, task: impl Future<Output = ()> + 'static) {
        self.0.set(self.0.get() + 1);
        let left = Rc::clone(&self.0);
        world.spawn(async move {
            task.await;
            left.set(left.get() - 1);
        });
    }

    fn is_done(&self) -> bool {
        self.0.get() == 0
    }
}

/// Callbacks since the box started.
async fn called_back(cluster: &Cluster) -> u64 {
    let status = cluster.sim.admin(BOX, r#"{"verb":"status"}"#).await;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let found = find(&status, "locks called back");
    found.unwrap_or_else(|| panic!("no count in {status}"))
}

fn find(value: &serde_json::Value, key: &str) -> Option<u64> {
    match value {
        serde_json::Value::Object(map) => {
            let own = map.get(key).and_then(serde_json::Value::as_u64);
            own.or_else(|| map.values().find_map(|v| find(v, key)))
        }
        serde_json::Value::Array(all) => all.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

#[test]
fn idle_locks_are_given_back_before_anybody_is_refused() {
    let cluster = Cluster::new(41);
    let limits = Limits {
        locks_max: 600,
        locks_soft: 300,
        holder_max: 500,
    };
    cluster.locks.set(limits);
    cluster.run(async {
        begin(&cluster).await;
        let maker = connect(&cluster, "maker").await;
        let names: Vec<String> = (0..400).map(|n| format!("f{n}")).collect();
        for name in &names {
            make(&maker, maker.root(), name, FileKind::Regular).await;
        }
        maker.close().await;
        let (a, b) = (connect(&cluster, "a").await, connect(&cluster, "b").await);
        for client in [&a, &b] {
            for name in &names {
                look(client, client.root(), name).await;
            }
        }
        // Who is idle hears of it by its pings.
        cluster.sim.sleep(Duration::from_secs(20)).await;
        for name in &names {
            look(&b, b.root(), name).await;
        }
        let counts = [&a, &b].map(|c| c.counters().locks);
        let soft = limits.locks_soft as u64;
        assert!(counts.iter().sum::<u64>() <= soft, "{counts:?}");
        assert!(
            counts.iter().all(|n| *n > soft / 4),
            "given back for nothing: {counts:?}"
        );
        let status = cluster.sim.admin(BOX, r#"{"verb":"status"}"#).await;
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        assert!(
            find(&status, "locks").is_some_and(|n| n <= soft),
            "{status}"
        );
        // What is kept is of use.
        let before = b.counters().answered_here;
        for name in names.iter().rev().take(10) {
            look(&b, b.root(), name).await;
        }
        assert!(b.counters().answered_here > before);
    });
}

/// Clients that create in one directory at the same time: the box does it for
/// them, and calls back what the first ones had once, not for each file.
#[test]
fn a_thousand_clients_in_one_directory_cause_no_storm() {
    const CLIENTS: usize = 1000;
    const FILES: usize = 3;
    let cluster = Rc::new(Cluster::new(42));
    let inside = Rc::clone(&cluster);
    cluster.run(async move {
        let cluster = inside;
        begin(&cluster).await;
        let maker = connect(&cluster, "maker").await;
        let dir = make(&maker, maker.root(), "d", FileKind::Directory).await;
        maker.close().await;
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            clients.push(connect(&cluster, &format!("c{n}")).await);
        }
        let before = called_back(&cluster).await;
        let (working, world) = (Working::default(), cluster.sim.world("work"));
        for (n, client) in clients.iter().enumerate() {
            let client = client.clone();
            working.begin(&world, async move {
                for k in 0..FILES {
                    make(&client, dir, &format!("f{n}.{k}"), FileKind::Regular).await;
                }
            });
        }
        while !working.is_done() {
            cluster.sim.sleep(Duration::from_millis(10)).await;
        }
        let calls = called_back(&cluster).await - before;
        assert!(calls <= CLIENTS as u64 / 10, "{calls} callbacks");
        let begun = cluster.sim.now();
        make(&clients[0], dir, "last", FileKind::Regular).await;
        assert!(cluster.sim.now() - begun < Duration::from_millis(100));
    });
}

/// One client unpacks, another lists what there is over and over.
#[test]
fn a_listing_beside_an_unpacking_costs_a_callback_a_directory_and_second() {
    let cluster = Rc::new(Cluster::new(43));
    let inside = Rc::clone(&cluster);
    cluster.run(async move {
        let cluster = inside;
        begin(&cluster).await;
        let (a, b) = (connect(&cluster, "a").await, connect(&cluster, "b").await);
        let top = make(&a, a.root(), "top", FileKind::Directory).await;
        let (before, begun) = (called_back(&cluster).await, cluster.sim.now());
        const DIRS: u64 = 5;
        let (unpacking, world) = (Working::default(), cluster.sim.world("work"));
        let (unpacker, clock) = (a.clone(), world.clone());
        unpacking.begin(&world, async move {
            for d in 0..DIRS {
                let dir = make(&unpacker, top, &format!("d{d}"), FileKind::Directory).await;
                for n in 0..300 {
                    make(&unpacker, dir, &format!("f{n}"), FileKind::Regular).await;
                    clock.sleep(Duration::from_millis(2)).await;
                }
            }
        });
        let mut seen = 0;
        while !unpacking.is_done() {
            let reply = ask(
                &b,
                Request::Readdir(op::Readdir {
                    fid: top,
                    cookie: 0,
                    bytes: 64 << 10,
                    attrs: true,
                }),
            );
            let Ok(Reply::Listing(listing)) = reply.await else {
                panic!("no listing");
            };
            for entry in &listing.entries {
                seen = seen.max(list(&b, entry.fid).await);
            }
            cluster.sim.sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(seen, 300, "it was seen while it was made");
        let calls = called_back(&cluster).await - before;
        let secs = (cluster.sim.now() - begun).as_secs() + 1;
        // The top directory is one as well.
        assert!(calls <= (DIRS + 1) * secs, "{calls} callbacks in {secs} s");
    });
}
