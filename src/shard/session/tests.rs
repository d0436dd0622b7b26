#![allow(clippy::unwrap_used, reason = "tests")]
//! Sessions and the real client over the simulated network, with a handler
//! that is easy to judge: it counts what it did.

use super::*;
use crate::base::{
    Attr, BoxId, Errno, Fid, FileKind, Lsn, Name, OpenId, ShardId, Slice, Tag, TargetId, Transno,
    Xid,
};
use crate::client::{CallError, Client, ConnectError, Context, Options, State};
use crate::conf::{Authority, Disconnected, Prefetch, TargetConf, Writeback};
use crate::flash::{Flash, Need, Peek, device};
use crate::shard::{Outgoing, Target};
use crate::sim::{Sim, SimWorld};
use crate::store::FormatOptions;
use crate::wire::connect::ANY_SHARD;
use crate::wire::op::{
    Create, Data, Empty, Entry, Fsync, Intent, OpenFile, Read, Unlink, Write, Written,
};
use crate::wire::{Bounds, ConnectRequest, Content, Features, Frame, NO_TAG, Request, RequestHead};
use crate::world::Arrival;
use crate::world::stream::{Receiver, Sender, StreamError};

const ROOT: Fid = Fid::new(1, 1);

/// A name is there or not; bytes are kept by file and offset; and every
/// request counts, in its own transaction, how often it took effect.
#[derive(Default)]
struct Toy {
    dropped: Cell<u32>,
    reopened: RefCell<Vec<OpenId>>,
}

fn attr() -> Attr {
    Attr::plain(2)
}

fn name_key(name: &Name) -> Vec<u8> {
    [b"n", name.as_bytes()].concat()
}

fn data_key(fid: Fid, offset: u64) -> Vec<u8> {
    [b"d", fid.to_bytes().as_slice(), &offset.to_be_bytes()].concat()
}

fn effect_key(client: ClientId, xid: Xid) -> Vec<u8> {
    [
        b"e",
        client.0.to_be_bytes().as_slice(),
        &xid.0.to_be_bytes(),
    ]
    .concat()
}

impl Toy {
    fn change(
        &self,
        shard: &Shard<SimWorld>,
        incoming: &Incoming,
        mut tx: Tx,
        reply: Reply,
    ) -> Result<Outgoing, Errno> {
        let key = effect_key(incoming.client, incoming.xid);
        let before = match shard.flash.peek(&key) {
            Peek::Found(count) => count[0],
            Peek::Absent => 0,
            Peek::NotLoaded => return Err(Errno::EAGAIN),
        };
        tx.put(key, vec![before + 1]);
        let (transno, lsn) = shard.seal(tx, incoming, &reply)?;
        Ok(Outgoing {
            result: Ok((reply, Vec::new())),
            transno,
            lsn,
        })
    }

    async fn decide(
        &self,
        shard: &Rc<Shard<SimWorld>>,
        export: &Rc<Export>,
        incoming: &Incoming,
    ) -> Result<Outgoing, Errno> {
        let mut tx = Tx::default();
        let tell = |reply, payload| Outgoing {
            result: Ok((reply, payload)),
            transno: Transno(0),
            lsn: Lsn(0),
        };
        match &incoming.request {
            Request::Create(r) => {
                let key = name_key(r.name.as_ref().ok_or(Errno::EINVAL)?);
                if shard.flash.get(&key).await?.is_some() {
                    return Err(Errno::EEXIST);
                }
                tx.put(key, vec![1]);
                if r.open != OpenId(0) {
                    export.opens.borrow_mut().insert(r.open, (ROOT, r.flags));
                }
                self.change(shard, incoming, tx, Reply::Entry(entry()))
            }
            Request::Unlink(r) => {
                let key = name_key(&r.name);
                shard.flash.get(&key).await?.ok_or(Errno::ENOENT)?;
                tx.delete(key);
                self.change(shard, incoming, tx, Reply::Done(Empty {}))
            }
            Request::Write(r) => {
                let bytes = incoming.payload.as_ref().ok_or(Errno::EINVAL)?;
                tx.put(data_key(r.fid, r.offset), bytes.to_vec());
                let reply = Reply::Written(Written {
                    written: u32::try_from(bytes.len()).unwrap(),
                    offset: r.offset,
                    attr: attr(),
                });
                self.change(shard, incoming, tx, reply)
            }
            Request::Read(r) => {
                let bytes = shard.flash.get(&data_key(r.fid, r.offset)).await?;
                let bytes = bytes.map_or(vec![7; r.len as usize], |b| b.to_vec());
                let size = bytes.len() as u64;
                Ok(tell(
                    Reply::Data(Data { eof: false, size }),
                    vec![bytes.into()],
                ))
            }
            Request::Fsync(_) => Ok(tell(Reply::Done(Empty {}), Vec::new())),
            _ => Err(Errno::ENOSYS),
        }
    }
}

fn entry() -> Entry {
    Entry {
        fid: ROOT,
        attr: attr(),
        created: true,
        layout: Default::default(),
        lock: Default::default(),
        lock_mode: 0,
        lock_bits: 0,
    }
}

impl Handler<SimWorld> for Toy {
    async fn run(
        &self,
        shard: &Rc<Shard<SimWorld>>,
        export: &Rc<Export>,
        incoming: &Incoming,
    ) -> Outgoing {
        let nap = Duration::from_micros(shard.world.random() % 2000);
        shard.world.sleep(nap).await;
        let mut result = self.decide(shard, export, incoming).await;
        while let Err(Errno::EAGAIN) = result {
            let key = effect_key(incoming.client, incoming.xid);
            shard.flash.get(&key).await.unwrap();
            result = self.decide(shard, export, incoming).await;
        }
        result.unwrap_or_else(|e| Outgoing {
            result: Err(e),
            transno: Transno(0),
            lsn: Lsn(0),
        })
    }
    fn repeated(&self, _: &Rc<Shard<SimWorld>>, _: &Rc<Export>, _: &Incoming, _: &Reply) {}
    async fn reopened(
        &self,
        _: &Rc<Shard<SimWorld>>,
        _: &Rc<Export>,
        open: &OpenFile,
    ) -> Result<(), Errno> {
        self.reopened.borrow_mut().push(open.open);
        Ok(())
    }
    async fn dropped(&self, _: &Rc<Shard<SimWorld>>, _: &Rc<Export>) {
        self.dropped.set(self.dropped.get() + 1);
    }
    async fn recovered(&self, _: &Rc<Shard<SimWorld>>) {}
}

fn target() -> Target {
    Target {
        id: TargetId(1),
        conf: RefCell::new(TargetConf {
            name: "main".into(),
            origin: "/nowhere".into(),
            authority: Authority::Exclusive,
            writeback: Writeback::Lag(Duration::from_secs(1)),
            writeback_bytes: 1 << 30,
            disconnected: Disconnected::ReadWrite,
            disconnected_max: Duration::from_secs(60),
            origin_threads: 1,
            prefetch: Prefetch::None,
        }),
        root: ROOT,
        limits: RefCell::new(None),
        hash_key: [3; 16],
    }
}

/// Bytes of the box's disk, and of a segment: small, so that the tests go
/// through checkpoints.
const DISK: u64 = 24 << 20;
const SEGMENT: u32 = 256 << 10;

/// Starts the box on its disk.
async fn boot(world: SimWorld, toy: Rc<Toy>) -> Rc<Shard<SimWorld>> {
    let mut volume = device::load(&world, DISK).await.unwrap();
    device::claim(&world, &mut volume).await.unwrap();
    let (flash, _) = Flash::open(world.clone(), ShardId(0), &volume)
        .await
        .unwrap();
    let shard = Shard::new(world.clone(), ShardId(0), flash, 1 << 20);
    let target = (TargetId(1), Rc::new(target()));
    shard.targets.borrow_mut().extend([target]);
    let shard = Rc::new(shard);
    let inside = Rc::clone(&shard);
    start(&inside, &toy).await.unwrap();
    world.spawn(async move {
        while let Arrival::Client { conn, first } = inside.world.arrival().await {
            accept(&inside, &toy, conn, &first);
        }
        stop(&inside).await.unwrap();
    });
    shard
}

struct Bench {
    sim: Sim,
    toy: Rc<Toy>,
    shard: Rc<Shard<SimWorld>>,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        let format = FormatOptions {
            segment_bytes: Some(SEGMENT),
            ..FormatOptions::new(DISK, 1, BoxId(5))
        };
        sim.run(device::format(&world, &format)).unwrap();
        let toy = Rc::new(Toy::default());
        let shard = sim.run(boot(world, Rc::clone(&toy)));
        Bench { sim, toy, shard }
    }

    /// After a crash: what the disk lost is lost.
    fn reboot(&mut self) {
        let world = self.sim.world("box");
        self.shard = self.sim.run(boot(world, Rc::clone(&self.toy)));
    }

    async fn client(&self, node: &str, options: Options) -> Client<SimWorld> {
        let world = self.sim.world(node);
        Client::connect(world, vec!["box:1".into()], "main", options)
            .await
            .unwrap()
    }

    /// `count` requests took effect, each of them once.
    fn assert_once(&self, count: usize) {
        let range = vec![b'e']..vec![b'f'];
        let effects = self.sim.run(self.shard.flash.scan(range, usize::MAX));
        let effects = effects.unwrap();
        let seed = self.sim.seed();
        assert!(effects.iter().all(|(_, n)| n[..] == [1]), "seed {seed}");
        assert_eq!(effects.len(), count, "seed {seed}");
    }
}

fn create(name: &str) -> Request {
    Request::Create(Create {
        parent: ROOT,
        name: Some(Name::new(name.as_bytes()).unwrap()),
        kind: FileKind::Regular,
        mode: 0o644,
        rdev: 0,
        link: Default::default(),
        exclusive: true,
        open: OpenId(0),
        flags: 0,
        fid: Fid::NONE,
        intent: Intent::default(),
    })
}

fn unlink(name: &str) -> Request {
    Request::Unlink(Unlink {
        parent: ROOT,
        name: Name::new(name.as_bytes()).unwrap(),
        dir: false,
    })
}

fn write(offset: u64) -> Request {
    Request::Write(Write {
        fid: ROOT,
        open: OpenId(0),
        offset,
        append: false,
    })
}

fn read(offset: u64, len: u32) -> Request {
    Request::Read(Read {
        fid: ROOT,
        open: OpenId(0),
        offset,
        len,
    })
}

/// Creates, writes, reads and unlinks; every call must succeed exactly once,
/// since a create that ran twice is EEXIST and an unlink that did is ENOENT.
async fn work(client: Client<SimWorld>, who: &str, rounds: u64) {
    let me = Context::of(1000, 1000);
    for i in 0..rounds {
        let name = format!("{who}.{i}");
        client.call(&me, create(&name), None).await.unwrap();
        let bytes = format!("bytes {i}")
            .into_bytes()
            .repeat(1 + 800 * (i as usize % 2));
        let offset = u64::from(crc32c::crc32c(who.as_bytes())) * 1000 + i;
        let slice = Slice::from(bytes.clone());
        client.call(&me, write(offset), Some(slice)).await.unwrap();
        let len = u32::try_from(bytes.len()).unwrap();
        let (_, got) = client.call(&me, read(offset, len), None).await.unwrap();
        assert_eq!(got.unwrap()[..], bytes[..]);
        client.call(&me, unlink(&name), None).await.unwrap();
    }
}

/// Several tasks at work on one client.
async fn crowd(client: &Client<SimWorld>, who: &str, tasks: u64, rounds: u64) {
    let left = Rc::new(Cell::new(tasks));
    let done = Rc::new(Signal::default());
    for t in 0..tasks {
        let (client, who) = (client.clone(), format!("{who}.{t}"));
        let (left, done) = (Rc::clone(&left), Rc::clone(&done));
        client.clone().world().spawn(async move {
            work(client, &who, rounds).await;
            left.set(left.get() - 1);
            done.notify();
        });
    }
    while left.get() > 0 {
        done.wait().await;
    }
}

/// X: exactly once, whatever connections break.
#[test]
fn operations_take_effect_once_over_broken_connections() {
    for seed in 0..6 {
        let bench = Bench::new(seed);
        bench.sim.run(async {
            let checksum = seed % 2 == 0;
            let options = Options {
                checksum,
                tags: 8,
                ..Options::default()
            };
            let client = bench.client("c0", options).await;
            bench.sim.faults(|f| f.net_drop_one_in = 30);
            crowd(&client, "a", 6, 20).await;
            assert!(
                client.counters().connections > 1,
                "seed {seed}: nothing broke"
            );
            bench.sim.faults(|f| f.net_drop_one_in = 0);
            client.close().await;
            bench.sim.sleep(Duration::from_millis(10)).await;
        });
        bench.assert_once(6 * 20 * 3);
        assert_eq!(
            bench.shard.sessions.clients(),
            [],
            "goodbye ends the export"
        );
        assert_eq!(bench.toy.dropped.get(), 1);
    }
}

/// F10: after a restart the reply records answer what was resent.
#[test]
fn operations_take_effect_once_over_restarts() {
    for seed in 0..4 {
        let mut bench = Bench::new(seed);
        let client = {
            let world = bench.sim.world("c0");
            let hosts = vec!["box:1".into()];
            let client = Client::connect(world, hosts, "main", Options::default());
            bench.sim.run(client).unwrap()
        };
        let finished = Rc::new(Cell::new(false));
        let (inside, flag) = (client.clone(), Rc::clone(&finished));
        client.world().spawn(async move {
            crowd(&inside, "r", 6, 30).await;
            flag.set(true);
        });
        for _ in 0..5 {
            let nap = Duration::from_micros(bench.sim.random() % 20_000);
            bench.sim.run(bench.sim.sleep(nap));
            bench.sim.crash("box");
            bench.reboot();
        }
        bench.sim.run_until(|| finished.get());
        assert_ne!(client.state(), State::Evicted, "{:?}", client.history());
        bench.assert_once(6 * 30 * 3);
    }
}

/// X3: an idle client holds nobody up after a restart; one with unstable
/// writes does, for no longer than the window.
#[test]
fn recovery_waits_only_for_unstable_work() {
    for (unstable, bound_ms) in [(false, 100), (true, 10_100)] {
        let mut bench = Bench::new(1);
        bench.sim.run(async {
            let gone = bench.client("gone", Options::default()).await;
            let me = Context::of(0, 0);
            if unstable {
                let bytes = Slice::from(vec![1]);
                gone.call(&me, write(0), Some(bytes)).await.unwrap();
            }
        });
        bench.sim.crash("gone");
        bench.sim.crash("box");
        bench.reboot();
        bench.sim.run(async {
            let began = bench.sim.now();
            let client = bench.client("c1", Options::default()).await;
            let me = Context::of(0, 0);
            client.call(&me, create("x"), None).await.unwrap();
            let took = (bench.sim.now() - began).as_millis();
            assert!(took < bound_ms, "{took} ms");
            assert!(!unstable || took > 5_000, "{took} ms");
        });
    }
}

/// X3: who said goodbye is not waited for, whether before the box died or while
/// it waited for others; nor is it called missing.
#[test]
fn who_said_goodbye_is_not_missed() {
    for before in [true, false] {
        let mut bench = Bench::new(9);
        let me = Context::of(0, 0);
        let leaving = bench.sim.run(async {
            let leaving = bench.client("leaving", Options::default()).await;
            let bytes = Slice::from(vec![1]);
            leaving.call(&me, write(0), Some(bytes)).await.unwrap();
            leaving.settle().await;
            if before {
                leaving.close().await;
            }
            leaving
        });
        bench.sim.crash("box");
        bench.reboot();
        bench.sim.run(async {
            let began = bench.sim.now();
            leaving.close().await;
            let client = bench.client("c1", Options::default()).await;
            client.call(&me, create("x"), None).await.unwrap();
            let took = (bench.sim.now() - began).as_millis();
            assert!(took < 5_000, "{took} ms");
            bench.sim.sleep(Duration::from_secs(30)).await;
            let log = bench.sim.log().join("\n");
            assert!(!log.contains("did not come back"), "{log}");
        });
    }
}

/// A drain that waits for a box which is away says what for, and rarely.
#[test]
fn a_wait_for_a_lost_box_is_spoken_of() {
    let bench = Bench::new(10);
    bench.sim.run(async {
        let client = bench.client("c", Options::default()).await;
        bench.sim.partition("c", "box");
        let me = Context::of(0, 0);
        let call = client.begin(&me, create("late"), None);
        let waiting = client.clone();
        bench
            .sim
            .world("c")
            .spawn(async move { waiting.settle().await });
        bench.sim.sleep(Duration::from_secs(100)).await;
        let log = bench.sim.log();
        let said = log
            .iter()
            .filter(|l| l.contains("waiting for the box to have 1 requests"));
        assert_eq!(said.count(), 2);
        client.abort();
        assert_eq!(call.reply().await.unwrap_err(), CallError::Closed);
    });
}

/// A target that has not met its origin yet is not an unknown one: its clients
/// are told to come later, and do.
#[test]
fn a_target_without_its_origin_yet_is_waited_for() {
    let bench = Bench::new(11);
    bench.sim.run(async {
        let target = bench.shard.targets.borrow_mut().pop_first();
        let (id, target) = target.expect("a target");
        let conf = target.conf.borrow().clone();
        bench.shard.starting.borrow_mut().insert(id, conf);
        let world = bench.sim.world("raw");
        let (content, _) = connect(&world, &offer()).await;
        let Content::Connected(head, None) = content else {
            panic!("{content:?}");
        };
        assert_eq!(head.failure(), Some(Errno::EAGAIN));
        let shard = Rc::clone(&bench.shard);
        bench.sim.world("box").spawn(async move {
            shard.world.sleep(Duration::from_secs(60)).await;
            shard.starting.borrow_mut().remove(&id);
            shard.targets.borrow_mut().insert(id, target);
        });
        let options = Options {
            deadline: Some(Duration::from_secs(10)),
            ..Options::default()
        };
        let (world, hosts) = (bench.sim.world("c2"), vec!["box:9880".to_owned()]);
        let bounded = Client::connect(world, hosts, &offer().target, options).await;
        assert_eq!(bounded.err(), Some(ConnectError::Starting));
        let client = bench.client("c", Options::default()).await;
        work(client, "w", 3).await;
        let log = bench.sim.log();
        let said = log.iter().filter(|l| l.contains("c Warn target"));
        assert_eq!(said.count(), 1, "said once");
    });
}

/// A client cut off for longer than its leases is evicted, alone, and learns it.
#[test]
fn a_silent_client_is_evicted_and_told() {
    let bench = Bench::new(5);
    bench.sim.run(async {
        let a = bench.client("a", Options::default()).await;
        let b = bench.client("b", Options::default()).await;
        let me = Context::of(0, 0);
        a.call(&me, create("a"), None).await.unwrap();
        bench.sim.partition("a", "box");
        bench.sim.sleep(Duration::from_secs(40)).await;
        b.call(&me, create("b"), None).await.unwrap();
        assert_eq!(bench.toy.dropped.get(), 1);
        let counted = bench.shard.counters.to_json();
        assert_eq!(counted["clients evicted"], 1);
        bench.sim.heal();
        a.call(&me, create("c"), None).await.unwrap();
        let states: Vec<_> = a.history().iter().map(|t| t.to).collect();
        assert!(states.contains(&State::Evicted), "{states:?}");
    });
}

/// A lost connection within the lease loses nothing, not even the opens.
#[test]
fn opens_outlive_connections_and_are_declared_after_restarts() {
    let mut bench = Bench::new(6);
    let client = bench.sim.run(bench.client("a", Options::default()));
    let me = Context::of(0, 0);
    let open = client.next_open();
    bench.sim.run(async {
        let Request::Create(mut request) = create("o") else {
            unreachable!()
        };
        request.open = open;
        client
            .call(&me, Request::Create(request), None)
            .await
            .unwrap();
        bench.sim.cut("a", "box");
        client.call(&me, create("p"), None).await.unwrap();
        let export = bench.shard.sessions.exports.borrow();
        let export = export.values().next().unwrap();
        assert_eq!(export.opens.borrow().len(), 1);
    });
    assert!(bench.toy.reopened.borrow().is_empty());
    bench.sim.crash("box");
    bench.reboot();
    bench.sim.run(async {
        client.call(&me, create("q"), None).await.unwrap();
    });
    assert_eq!(bench.toy.reopened.borrow()[..], [open]);
}

// ---- peers that are not the client ----------------------------------------

type Ends = (Receiver<crate::sim::SimConn>, Sender<crate::sim::SimConn>);

async fn dial(world: &SimWorld) -> Ends {
    let conn = Rc::new(world.connect("box:1").await.unwrap());
    let receiver = Receiver::new(Rc::clone(&conn), world.pool(), &[]);
    (receiver, Sender::start(world, conn))
}

fn offer() -> ConnectRequest {
    ConnectRequest {
        features: Features::OURS,
        client: ClientId(77),
        name: "raw".into(),
        target: "main".into(),
        incarnation: 0,
        conn_count: 1,
        shard: ANY_SHARD,
        payload_max: 1 << 20,
        tags: 16,
        lease_ms: 5000,
        replay_from: Transno(0),
        committed_seen: Transno(0),
        path: Vec::new(),
        read_only: false,
    }
}

async fn connect(world: &SimWorld, offer: &ConnectRequest) -> (Content, Ends) {
    let (mut receiver, sender) = dial(world).await;
    let head = RequestHead {
        tag: NO_TAG,
        ..RequestHead::default()
    };
    sender.push(Frame::connect(Xid(1), &head, offer));
    let (message, _) = receiver.next().await.unwrap();
    (message.content, (receiver, sender))
}

/// Every reason to refuse, with its errno; the target stays as it was.
#[test]
fn connect_is_refused_by_missing_feature_and_stale_claim() {
    let bench = Bench::new(2);
    bench.sim.run(async {
        let world = bench.sim.world("raw");
        let good = offer();
        let ours = bench.shard.sessions.settings.borrow().box_id;
        let cases = [
            (
                ConnectRequest {
                    target: "other".into(),
                    ..good.clone()
                },
                Errno::ENODEV,
            ),
            (
                ConnectRequest {
                    features: Features::default(),
                    ..good.clone()
                },
                Errno::EPROTO,
            ),
            (
                ConnectRequest {
                    path: vec![ours],
                    ..good.clone()
                },
                Errno::ELOOP,
            ),
            (
                ConnectRequest {
                    tags: 0,
                    ..good.clone()
                },
                Errno::EINVAL,
            ),
            (
                ConnectRequest {
                    payload_max: 1,
                    ..good.clone()
                },
                Errno::EINVAL,
            ),
            (
                ConnectRequest {
                    incarnation: 3,
                    committed_seen: Transno(9),
                    ..good.clone()
                },
                Errno::ESTALE,
            ),
        ];
        for (request, expected) in cases {
            let (content, _) = connect(&world, &request).await;
            let Content::Connected(head, None) = content else {
                panic!("{content:?}");
            };
            assert_eq!(head.failure(), Some(expected), "{request:?}");
        }
        assert_eq!(bench.shard.sessions.clients(), []);
        let unknown = Features {
            bits: Features::OURS.bits | 1 << 60,
        };
        let request = ConnectRequest {
            features: unknown,
            lease_ms: 1,
            ..good.clone()
        };
        let (content, _ends) = connect(&world, &request).await;
        let Content::Connected(_, Some(reply)) = content else {
            panic!("{content:?}");
        };
        assert_eq!(reply.features, Features::OURS, "masked");
        assert_eq!((reply.lease_ms, reply.tags), (1000, 16));
        let (content, _) = connect(&world, &good).await;
        let Content::Connected(head, None) = content else {
            panic!("{content:?}");
        };
        assert_eq!(head.failure(), Some(Errno::EALREADY), "an old conn_count");
    });
}

/// A peer that misbehaves loses its connection, and nobody else notices.
#[test]
fn garbage_ends_only_its_own_connection() {
    let bench = Bench::new(3);
    bench.sim.run(async {
        let honest = bench.client("honest", Options::default()).await;
        let world = bench.sim.world("raw");
        for (conn_count, case) in (1..).zip(0..8) {
            let request = ConnectRequest {
                conn_count,
                ..offer()
            };
            let (content, (mut receiver, sender)) = connect(&world, &request).await;
            let Content::Connected(_, Some(reply)) = content else {
                panic!("{content:?}");
            };
            receiver.bounds = Bounds::agreed(reply.payload_max);
            receiver.features = reply.features;
            let head = RequestHead {
                incarnation: reply.incarnation,
                conn_count,
                tag: Tag(0),
                ..RequestHead::default()
            };
            let of = |head: &RequestHead| {
                Frame::request(Xid(100 + case), head, &read(0, 1), Vec::new(), true)
            };
            let mut frame = of(&head);
            match case {
                0 => frame.bytes = vec![0xff; 200],
                1 => frame.bytes[130] ^= 1,
                2 => frame.bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes()),
                3 => frame.bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes()),
                4 => {
                    frame = of(&RequestHead {
                        tag: Tag(16),
                        ..head
                    })
                }
                5 => {
                    frame = of(&RequestHead {
                        incarnation: 99,
                        ..head
                    })
                }
                6 => {
                    sender.push(of(&head));
                    frame = of(&head);
                }
                _ => {
                    frame = of(&RequestHead {
                        tag: NO_TAG,
                        ..head
                    })
                }
            }
            sender.push(frame);
            let end = loop {
                match receiver.next().await {
                    Ok(_) => {}
                    Err(end) => break end,
                }
            };
            assert!(
                !matches!(end, StreamError::Garbage(_)),
                "case {case}: {end}"
            );
        }
        work(honest, "h", 3).await;
    });
}

/// A client that never reads is stopped being served; what is queued for it
/// stays bounded.
#[test]
fn a_client_that_does_not_read_is_not_served_further() {
    let bench = Bench::new(4);
    bench.sim.run(async {
        let world = bench.sim.world("raw");
        let (content, (_receiver, sender)) = connect(&world, &offer()).await;
        let Content::Connected(_, Some(reply)) = content else {
            panic!("{content:?}");
        };
        for i in 0..100u64 {
            let head = RequestHead {
                incarnation: reply.incarnation,
                conn_count: 1,
                tag: Tag(u16::try_from(i % 16).unwrap()),
                ..RequestHead::default()
            };
            let request = read(i, 1 << 20);
            sender.push(Frame::request(
                Xid(i + 2),
                &head,
                &request,
                Vec::new(),
                true,
            ));
            bench.sim.sleep(Duration::from_millis(5)).await;
        }
        bench.sim.sleep(Duration::from_secs(1)).await;
        let running = bench.shard.sessions.clients()[0].running;
        assert!(running <= 16);
        let honest = bench.client("honest", Options::default()).await;
        work(honest, "h", 3).await;
    });
}

/// C11: only what was never sent is given up.
#[test]
fn calls_fail_by_whose_fault_it_is() {
    let bench = Bench::new(8);
    bench.sim.run(async {
        let client = bench.client("c", Options::default()).await;
        let me = Context::of(0, 0);
        let missing = client.call(&me, unlink("none"), None).await;
        assert_eq!(missing.unwrap_err(), CallError::Failed(Errno::ENOENT));
        let fsync = Request::Fsync(Fsync {
            fid: ROOT,
            data_only: false,
        });
        client.call(&me, fsync, None).await.unwrap();
        bench.sim.partition("c", "box");
        bench.sim.sleep(Duration::from_secs(60)).await;
        let call = client.begin(&me, create("late"), None);
        assert!(client.interrupt(&call), "it cannot have been sent");
        assert_eq!(call.reply().await.unwrap_err(), CallError::Interrupted);
        client.abort();
        let closed = client.call(&me, create("x"), None).await;
        assert_eq!(closed.unwrap_err(), CallError::Closed);
    });
}

/// L4: what a client may still use is kept until it has heard of less.
#[test]
fn promised_room_is_kept_until_the_client_goes_by_less() {
    let bench = Bench::new(31);
    let client = bench.sim.run(bench.client("a", Options::default()));
    let (shard, id) = (&bench.shard, client.id());
    let export = Rc::clone(&shard.sessions.exports.borrow()[&id]);
    let promised = || shard.sessions.promised.bytes();
    assert_eq!(grants::tell(shard, &export), 0, "it has not asked");
    grants::want(&export);
    let told = grants::tell(shard, &export);
    assert!(told > 0 && promised() == told);
    let store = async |need| -> Result<(), Errno> {
        let data = shard.flash.append(&vec![1; 60_000].into(), need)?;
        let tx = Tx {
            data,
            ..Tx::default()
        };
        let lsn = shard.flash.apply(tx)?;
        shard.flash.commit(lsn).await
    };
    bench.sim.run(async {
        // Others fill the flash, and then it does.
        while store(Need::Dirty).await.is_ok() {}
        while grants::tell(shard, &export) > 0 {
            store(Need::Promised).await.expect("there is room");
        }
        // It has not heard, and uses what it was told of.
        for _ in 0..told / 60_000 {
            store(Need::Promised).await.expect("it was promised");
        }
    });
    grants::on_request(shard, &export, told);
    assert_eq!(promised(), told, "it goes by what it was told before");
    assert!(export.is_promised());
    grants::on_request(shard, &export, 0);
    assert_eq!(promised(), 0);
    // It claims what it had before a restart, but never more than is given.
    grants::on_request(shard, &export, u64::MAX);
    assert_eq!(promised(), told);
    grants::end(shard, &export);
    assert_eq!(promised(), 0);
    bench.sim.run(client.close());
}
