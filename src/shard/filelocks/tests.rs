#![allow(clippy::unwrap_used, reason = "tests")]
//! A whole box and real clients over the simulated network.

use super::*;
use crate::base::{ClientId, Fid, LockKind, ShardId, TargetId, WaitId};
use crate::client::{CallError, Client, Context, LockCall, Options, State};
use crate::sim::{Cluster, Crash, Sim, SimWorld};
use crate::wire::Request;
use crate::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending};
use std::rc::Rc;
use std::time::Duration;

/// A client's process, or open file, on one file.
#[derive(Clone)]
struct User {
    client: Client<SimWorld>,
    context: Context,
    fid: Fid,
    open: OpenId,
}

impl User {
    async fn new(client: &Client<SimWorld>, name: &str, owner: u64, kind: OwnerKind) -> User {
        let root = client.at_root(Context::of(0, 0));
        let file = match root.open(name).await {
            Ok((file, _)) => file,
            Err(_) => root.create_file(name).await.unwrap(),
        };
        let mut context = Context::of(0, 0);
        (context.owner, context.owner_kind) = (owner, kind as u8);
        User {
            client: client.clone(),
            context,
            fid: file.fid,
            open: file.open,
        }
    }

    fn call(&self, (start, end): (u64, u64), kind: Option<LockKind>, wait: bool) -> LockCall {
        LockCall {
            fid: self.fid,
            open: self.open,
            range: Extent { start, end },
            kind,
            pid: 5,
            wait,
        }
    }

    async fn ask(&self, asked: LockCall) -> Result<(), CallError> {
        self.client.lock(&self.context, asked, pending()).await
    }

    async fn attempt(&self, range: (u64, u64), kind: LockKind) -> Result<(), CallError> {
        self.ask(self.call(range, Some(kind), false)).await
    }

    async fn take(&self, range: (u64, u64), kind: LockKind) -> Result<(), CallError> {
        self.ask(self.call(range, Some(kind), true)).await
    }

    async fn give_up(&self, range: (u64, u64)) -> Result<(), CallError> {
        self.ask(self.call(range, None, false)).await
    }
}

const ALL: (u64, u64) = (0, u64::MAX);
const READ: LockKind = LockKind::Read;
const WRITE: LockKind = LockKind::Write;

fn failed(errno: Errno) -> Result<(), CallError> {
    Err(CallError::Failed(errno))
}

fn waits(c: &Cluster) -> usize {
    c.shard().unwrap().file_locks.borrow().waits()
}

/// Starts `task` and lets it run until the box has what it waits for.
async fn until_waiting(c: &Cluster, count: usize) {
    while waits(c) != count {
        c.sim.sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let c = Cluster::new(1);
    c.run(async {
        c.start();
        let client = c.client("a").await.unwrap().client;
        let a = User::new(&client, "f", 1, OwnerKind::Posix).await;
        assert_eq!(a.attempt((5, 4), READ).await, failed(Errno::EINVAL));
        assert_eq!(a.give_up((5, 4)).await, failed(Errno::EINVAL));
        let mut context = a.context.clone();
        context.owner_kind = 9;
        let request = Request::Getlk(Getlk {
            fid: a.fid,
            range: Extent::ALL,
            kind: READ,
        });
        let got = a.client.call(&context, request.clone(), None).await;
        assert_eq!(got.unwrap_err(), CallError::Failed(Errno::EINVAL));
        let got = a.client.call(&a.context, request, None).await.unwrap();
        let free = LockAnswer {
            state: LockState::Granted,
            found: None,
        };
        assert_eq!(got.0, Reply::Lock(free));
        // A claim is for those who come back after a restart, in no slot.
        let claim = Relock {
            fid: a.fid,
            owner: 1,
            owner_kind: OwnerKind::Posix,
            opens: vec![a.open],
            locks: Vec::new(),
        };
        let shard = c.shard().unwrap();
        let export = Export::new(ClientId(5), "x".into(), TargetId(1), false);
        assert_eq!(super::claim(&shard, &export, &claim), Err(Errno::EINVAL));
        let got = a
            .client
            .call(&a.context, Request::Relock(claim), None)
            .await;
        assert_eq!(got.unwrap_err(), CallError::Failed(Errno::EINVAL));
    });
}

#[test]
fn a_client_without_the_feature_has_no_file_locks() {
    let sim = Sim::new(2);
    let flash = crate::flash::Flash::in_memory(sim.world("box"));
    let shard = Shard::new(sim.world("box"), ShardId(0), flash, 1 << 20);
    let export = Export::new(ClientId(5), "x".into(), TargetId(1), false);
    assert_eq!(owner_in(&export, 1, 1), Err(Errno::ENOSYS));
    assert_eq!(shard.file_locks.borrow().locks(), 0);
}

/// L6: the answer to a wait is "queued", and nothing runs while it waits.
#[test]
fn a_wait_holds_no_slot_and_ends_by_a_notice() {
    let c = Cluster::new(3);
    c.run(async {
        c.start();
        let (one, two) = (c.client("a").await.unwrap(), c.client("b").await.unwrap());
        let a = User::new(&one.client, "f", 1, OwnerKind::Posix).await;
        let b = User::new(&two.client, "f", 1, OwnerKind::Posix).await;
        a.take((0, 9), WRITE).await.unwrap();
        let request = Request::Setlk(Setlk {
            fid: b.fid,
            open: b.open,
            range: Extent { start: 5, end: 5 },
            kind: Some(READ),
            pid: 0,
            wait: Some(WaitId { id: 77 }),
        });
        for _ in 0..2 {
            let got = b
                .client
                .call(&b.context, request.clone(), None)
                .await
                .unwrap();
            let queued = LockAnswer {
                state: LockState::Queued,
                found: None,
            };
            assert_eq!(got.0, Reply::Lock(queued));
        }
        assert_eq!(waits(&c), 1, "asked again by the same name");
        let clients = c.shard().unwrap().sessions.clients();
        assert!(clients.iter().all(|client| client.running == 0));
        a.give_up((0, 9)).await.unwrap();
        assert_eq!(waits(&c), 0);
        assert_eq!(a.attempt((5, 5), WRITE).await, failed(Errno::EAGAIN));
    });
}

/// A close of the handle, a goodbye, and an eviction end a client's locks.
#[test]
fn locks_end_with_the_handle_and_with_the_client() {
    let c = Cluster::new(4);
    c.run(async {
        c.start();
        let waiter = c.client("w").await.unwrap().client;
        let w = User::new(&waiter, "f", 1, OwnerKind::Flock).await;
        for way in ["close", "goodbye", "eviction"] {
            let client = c.client(way).await.unwrap().client;
            let holder = User::new(&client, "f", 1, OwnerKind::Flock).await;
            holder.take(ALL, WRITE).await.unwrap();
            let (got, locked) = (Rc::new(Cell::new(false)), w.clone());
            let done = Rc::clone(&got);
            c.sim.world("w").spawn(async move {
                locked.take(ALL, WRITE).await.unwrap();
                done.set(true);
            });
            until_waiting(&c, 1).await;
            match way {
                "close" => {
                    client.locks_closed(holder.fid, holder.open);
                    let close = Close {
                        fid: holder.fid,
                        open: holder.open,
                    };
                    let me = Context::of(0, 0);
                    client.call(&me, Request::Close(close), None).await.unwrap();
                }
                "goodbye" => client.close().await,
                _ => c.sim.partition(way, "box"),
            }
            while !got.get() {
                c.sim.sleep(Duration::from_millis(100)).await;
            }
            w.give_up(ALL).await.unwrap();
            if way == "eviction" {
                // It is told once, and goes on.
                c.sim.heal();
                while !client.history().iter().any(|t| t.to == State::Evicted) {
                    c.sim.sleep(Duration::from_millis(100)).await;
                }
                assert_eq!(holder.attempt(ALL, READ).await, failed(Errno::EIO));
                holder.attempt(ALL, READ).await.unwrap();
            }
        }
    });
}

/// A wait whose caller is interrupted while the box is away, on a mount with a
/// deadline, fails; what the box had of it is given back, granted or not.
#[test]
fn a_wait_that_is_given_up_while_the_box_is_away_leaves_nothing() {
    for is_granted in [false, true] {
        let c = Cluster::new(6);
        c.run(async {
            use crate::world::World as _;
            c.start();
            let one = c.client("a").await.unwrap().client;
            let options = Options {
                deadline: Some(Duration::from_secs(2)),
                ..Options::default()
            };
            let world = c.sim.world("b");
            let hosts = vec!["box:9880".to_owned()];
            let two = Client::connect(world.clone(), hosts, "main", options).await;
            let a = User::new(&one, "f", 1, OwnerKind::Posix).await;
            let b = User::new(&two.unwrap(), "f", 1, OwnerKind::Posix).await;
            a.take(ALL, WRITE).await.unwrap();
            let asked = b.call(ALL, Some(WRITE), true);
            let (user, got) = (b.clone(), Rc::new(RefCell::new(None)));
            let said = Rc::clone(&got);
            spawn(&world.clone(), async move {
                let raised = world.sleep(Duration::from_secs(8));
                let result = user.client.lock(&user.context, asked, raised).await;
                *said.borrow_mut() = Some(result);
            });
            until_waiting(&c, 1).await;
            c.sim.partition("b", "box");
            c.sim.cut("b", "box");
            if is_granted {
                a.give_up(ALL).await.unwrap();
            }
            c.sim.sleep(Duration::from_secs(10)).await;
            assert_eq!(*got.borrow(), Some(Err(CallError::TimedOut)));
            c.sim.heal();
            if !is_granted {
                until_waiting(&c, 0).await;
            }
            while a.attempt(ALL, WRITE).await.is_err() {
                c.sim.sleep(Duration::from_millis(100)).await;
            }
            assert!(b.client.history().iter().all(|t| t.to != State::Evicted));
        });
    }
}

/// Nobody is granted a lock before those who may have had it have come back or
/// missed the window; who missed it is told.
#[test]
fn a_restart_gives_no_lock_away_that_may_be_claimed() {
    let c = Cluster::new(5);
    c.run(async {
        c.start();
        let (one, two) = (c.client("a").await.unwrap(), c.client("b").await.unwrap());
        let a = User::new(&one.client, "f", 1, OwnerKind::Ofd).await;
        let b = User::new(&two.client, "f", 1, OwnerKind::Posix).await;
        for kept in [true, false] {
            a.take((3, 4), WRITE).await.unwrap();
            // Else it would be waited for because of what it created.
            c.sim.sleep(Duration::from_secs(5)).await;
            c.sim.partition("a", "box");
            c.crash();
            c.start();
            let heal = if kept { 2 } else { 60 };
            let (sim, late) = (c.sim.clone(), Duration::from_secs(heal));
            c.sim.world("healer").spawn(async move {
                sim.sleep(late).await;
                sim.heal();
            });
            let began = c.sim.now();
            let got = b.attempt((4, 5), READ).await;
            let waited = c.sim.now() - began;
            if kept {
                assert_eq!(got, failed(Errno::EAGAIN));
                assert!(waited >= Duration::from_secs(2));
                a.give_up((3, 4)).await.unwrap();
            } else {
                assert_eq!(got, Ok(()));
                assert!(waited < Duration::from_secs(15), "{waited:?}");
            }
        }
        while !a.client.history().iter().any(|t| t.to == State::Evicted) {
            c.sim.sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(a.give_up((3, 4)).await, failed(Errno::EIO));
    });
}

/// Whoever gives a lock up, or makes it weaker, has it no more once that was
/// sent: others may have got it, also if the box restarts before it answers.
#[test]
fn what_a_call_gives_up_is_not_claimed_while_it_is_on_its_way_l13() {
    let made = [
        (OwnerKind::Posix, Some(READ)),
        (OwnerKind::Ofd, Some(READ)),
        (OwnerKind::Flock, Some(READ)),
        (OwnerKind::Posix, None),
        (OwnerKind::Flock, None),
    ];
    for (kind, to) in made {
        let c = Cluster::new(5);
        c.run(async {
            c.start();
            let (one, two) = (c.client("a").await.unwrap(), c.client("b").await.unwrap());
            let a = User::new(&one.client, "f", 1, kind).await;
            let b = User::new(&two.client, "f", 1, kind).await;
            a.take(ALL, WRITE).await.unwrap();
            let b_has = Rc::new(Cell::new(false));
            let (user, has) = (b.clone(), Rc::clone(&b_has));
            spawn(&c.sim.world("b"), async move {
                user.take(ALL, READ).await.unwrap();
                has.set(true);
            });
            until_waiting(&c, 1).await;
            let ended = Rc::new(Cell::new(None));
            let (user, end) = (a.clone(), Rc::clone(&ended));
            spawn(&c.sim.world("a"), async move {
                let asked = user.call(ALL, to, false);
                end.set(Some(user.ask(asked).await));
            });
            // The box has done it, and its answer is lost.
            while waits(&c) == 1 {
                c.sim.sleep(Duration::from_micros(1)).await;
            }
            c.sim.partition("a", "box");
            while !b_has.get() {
                c.sim.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(ended.take(), None);
            c.crash();
            c.start();
            c.sim.heal();
            let answer = loop {
                match ended.take() {
                    Some(answer) => break answer,
                    None => c.sim.sleep(Duration::from_millis(1)).await,
                }
            };
            assert_eq!(answer, Ok(()), "{kind:?} {to:?}");
            // Each has what it was told, and gives it up without a loss.
            let held = c.shard().unwrap().file_locks.borrow().locks();
            assert_eq!(held, 1 + usize::from(to.is_some()), "{kind:?} {to:?}");
            assert_eq!(b.give_up(ALL).await, Ok(()), "{kind:?} {to:?}");
            assert_eq!(a.give_up(ALL).await, Ok(()), "{kind:?} {to:?}");
        });
    }
}

/// L3: a request that waited for the recovery window while its client was
/// thrown out takes no lock, which nobody would give up.
#[test]
fn a_client_that_is_thrown_out_while_it_waits_gets_nothing() {
    let c = Cluster::new(7);
    c.run(async {
        c.start();
        let one = c.client("a").await.unwrap().client;
        let options = Options {
            lease: Duration::from_secs(1),
            ..Options::default()
        };
        let hosts = vec!["box:9880".to_owned()];
        let two = Client::connect(c.sim.world("b"), hosts, "main", options).await;
        let _a = User::new(&one, "f", 1, OwnerKind::Posix).await;
        let b = User::new(&two.unwrap(), "f", 1, OwnerKind::Posix).await;
        c.sim.sleep(Duration::from_secs(5)).await;
        c.sim.partition("a", "box");
        c.crash();
        c.start();
        spawn(&c.sim.world("b"), async move {
            let _: Result<(), CallError> = b.take(ALL, WRITE).await;
        });
        let clients = || c.shard().map_or_else(Vec::new, |s| s.sessions.clients());
        while !clients().iter().any(|client| client.running > 0) {
            c.sim.sleep(Duration::from_millis(1)).await;
        }
        c.sim.crash_as("b", Crash::Process);
        c.sim.sleep(Duration::from_secs(15)).await;
        assert_eq!(clients(), []);
        let shard = c.shard().unwrap();
        assert_eq!(shard.file_locks.borrow().locks(), 0);
    });
}

/// Who the users believe has which locks: no two of them at odds.
#[derive(Default)]
struct Referee {
    held: RefCell<BTreeMap<u64, (Fid, OwnerKind, Extent, LockKind)>>,
    granted: Cell<u32>,
    given_up: Cell<u32>,
    running: Cell<u32>,
    ended: Signal,
}

impl Referee {
    fn enter(&self, who: u64, user: &User, range: Extent, kind: LockKind) {
        let class = OwnerKind::of(user.context.owner_kind).unwrap();
        for (other, (fid, theirs, at, held)) in self.held.borrow().iter() {
            let meets = *fid == user.fid && theirs.meets(class) && at.overlaps(range);
            assert!(
                !meets || !held.conflicts(kind),
                "{who} and {other} at {range:?}"
            );
        }
        let entry = (user.fid, class, range, kind);
        assert_eq!(self.held.borrow_mut().insert(who, entry), None);
        self.granted.set(self.granted.get() + 1);
    }

    /// Takes and gives up locks, now and then losing patience.
    async fn life(self: Rc<Referee>, world: SimWorld, user: User, who: u64) {
        use crate::world::World as _;
        for _ in 0..20 {
            let start = world.random() % 4;
            let range = match OwnerKind::of(user.context.owner_kind) {
                Some(OwnerKind::Flock) => ALL,
                _ => (start, start + world.random() % 3),
            };
            let kind = [READ, WRITE][(world.random() % 2) as usize];
            let asked = user.call(range, Some(kind), !world.random().is_multiple_of(4));
            let patience = match world.random() % 3 {
                0 => Duration::from_millis(world.random() % 100),
                _ => Duration::from_secs(3600),
            };
            let raised = world.sleep(patience);
            match user.client.lock(&user.context, asked, raised).await {
                Ok(()) => {
                    self.enter(who, &user, asked.range, kind);
                    let rest = Duration::from_millis(world.random() % 40);
                    world.sleep(rest).await;
                    self.held.borrow_mut().remove(&who);
                    user.give_up(range).await.unwrap();
                }
                Err(CallError::Interrupted | CallError::Failed(Errno::EAGAIN)) => {
                    self.given_up.set(self.given_up.get() + 1);
                }
                Err(e) => panic!("{who}: {e}"),
            }
        }
        self.running.set(self.running.get() - 1);
        self.ended.notify();
    }
}

/// Broken connections and restarts of the box: no two users ever have locks
/// that contradict each other, and each wait ends.
#[test]
fn locks_exclude_each_other_over_broken_connections_and_restarts() {
    let (mut granted, mut given_up) = (0, 0);
    for seed in 0..SEEDS {
        let c = Cluster::new(seed);
        let referee = Rc::new(Referee::default());
        c.run(async {
            c.start();
            for n in 0..3u64 {
                let name = format!("c{n}");
                let client = c.client(&name).await.unwrap().client;
                for (m, kind) in (0..).zip(KINDS) {
                    let user = User::new(&client, ["f", "g"][m % 2], m as u64, kind).await;
                    let who = 10 * n + m as u64;
                    let life = Rc::clone(&referee).life(c.sim.world(&name), user, who);
                    referee.running.set(referee.running.get() + 1);
                    spawn(&c.sim.world(&name), life);
                }
            }
            trouble(&c, &referee).await;
        });
        granted += referee.granted.get();
        given_up += referee.given_up.get();
        let shard = c.shard().unwrap();
        let left = shard.file_locks.borrow();
        assert_eq!((left.locks(), left.waits()), (0, 0), "seed {seed}");
    }
    assert!(granted > 50 * SEEDS as u32 && given_up > 5 * SEEDS as u32);
}

/// Breaks connections and kills the box until all users are done.
async fn trouble(c: &Cluster, referee: &Referee) {
    use crate::world::World as _;
    let chance = c.sim.world("chance");
    while referee.running.get() > 0 {
        let pause = Duration::from_millis(chance.random() % 60);
        c.sim.sleep(pause).await;
        match chance.random() % 12 {
            0 if c.shard().is_some() => {
                c.crash();
                c.start();
            }
            1..5 => c.sim.cut(&format!("c{}", chance.random() % 3), "box"),
            _ => {}
        }
    }
    while c.shard().is_none() {
        c.sim.sleep(Duration::from_millis(100)).await;
    }
}

fn spawn(world: &SimWorld, task: impl Future<Output = ()> + 'static) {
    use crate::world::World as _;
    world.spawn(task);
}

const SEEDS: u64 = 10;
const KINDS: [OwnerKind; 6] = [
    OwnerKind::Posix,
    OwnerKind::Posix,
    OwnerKind::Ofd,
    OwnerKind::Posix,
    OwnerKind::Flock,
    OwnerKind::Flock,
];
