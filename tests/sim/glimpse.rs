//! Who looks at a file that another client is writing is told what that client
//! has made of it, and takes nothing away (L9, L10; DESIGN §6).

#[path = "glimpse/puppet.rs"]
mod puppet;
#[path = "glimpse/told.rs"]
mod told;

use forebay::base::codec::Bytes;
use forebay::base::{Attr, Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice};
use forebay::client::{CallError, Client, Context};
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, Faults, SimWorld};
use forebay::wire::op::{self, Intent};
use forebay::wire::{Reply, Request};
use forebay::world::World;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Connections break.
    Drops,
    /// A client is cut off, for less than its lease, or for more.
    Partitions,
    /// The box dies, and starts again.
    Crashes,
}

/// One state of the file, as a change by its writer left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    size: u64,
    mode: u32,
}

/// The file's states, in order, and what is known of how far it has come.
#[derive(Default)]
struct Story {
    states: RefCell<Vec<State>>,
    /// States that the writer, or anybody who looked, has been shown.
    shown: Cell<usize>,
    looks: Cell<u64>,
    is_over: Cell<bool>,
    /// What the writer lost is told by nobody; from then on nothing is judged.
    is_lost: Cell<bool>,
}

impl Story {
    fn begin(&self, state: State) -> usize {
        self.states.borrow_mut().push(state);
        self.states.borrow().len() - 1
    }

    fn end(&self, at: usize) {
        self.shown.set(self.shown.get().max(at));
    }

    /// Somebody began to look when `from` had been shown, and has seen this: one
    /// of the states from there on that have begun.
    fn judge(&self, who: &str, from: usize, is_it: impl Fn(&State) -> bool, seen: &str) {
        if self.is_lost.get() {
            return;
        }
        let states = self.states.borrow();
        let found = (from..states.len()).find(|at| is_it(&states[*at]));
        let at = found.unwrap_or_else(|| {
            panic!("{who} saw {seen}, not one of {from}: {:?}", &states[from..])
        });
        drop(states);
        self.end(at);
        self.looks.set(self.looks.get() + 1);
    }
}

async fn ask(c: &Client<SimWorld>, request: Request) -> Result<Reply, CallError> {
    Ok(c.call(&Context::of(0, 0), request, None).await?.0)
}

fn create(dir: Fid, what: &str) -> Request {
    Request::Create(op::Create {
        parent: dir,
        name: Name::new(what.as_bytes()).ok(),
        kind: FileKind::Regular,
        mode: 0o600,
        rdev: 0,
        link: Bytes::default(),
        exclusive: true,
        open: OpenId(0),
        flags: 0,
        fid: Fid::NONE,
        intent: Intent::default(),
    })
}

async fn append(c: &Client<SimWorld>, fid: Fid, len: usize) -> Result<Attr, CallError> {
    let write = Request::Write(op::Write {
        fid,
        open: OpenId(0),
        offset: 0,
        append: true,
    });
    let bytes = Slice::from(vec![7; len]);
    match c.call(&Context::of(0, 0), write, Some(bytes)).await?.0 {
        Reply::Written(done) => Ok(done.attr),
        other => panic!("{other:?}"),
    }
}

async fn getattr(c: &Client<SimWorld>, fid: Fid) -> Result<Attr, CallError> {
    let intent = Intent::default();
    shown(ask(c, Request::Getattr(op::OfFile { fid, intent })).await)
}

async fn lookup(c: &Client<SimWorld>, what: &str) -> Result<Attr, CallError> {
    shown(
        ask(
            c,
            Request::Lookup(op::Named {
                parent: c.root(),
                name: Name::new(what.as_bytes()).expect("a name"),
                intent: Intent::default(),
            }),
        )
        .await,
    )
}

fn shown(reply: Result<Reply, CallError>) -> Result<Attr, CallError> {
    match reply? {
        Reply::Entry(entry) => Ok(entry.attr),
        other => panic!("{other:?}"),
    }
}

/// A file that `a` has made and has to itself.
async fn own_file(a: &Client<SimWorld>) -> Fid {
    own_file_at(a, "f").await
}

async fn own_file_at(a: &Client<SimWorld>, what: &str) -> Fid {
    let fid = match ask(a, create(a.root(), what)).await {
        Ok(Reply::Entry(entry)) => entry.fid,
        other => panic!("{other:?}"),
    };
    let before = a.counters().ahead;
    for _ in 0..50 {
        append(a, fid, 1).await.expect("written");
        if a.counters().ahead > before {
            return fid;
        }
        a.world().sleep(Duration::from_millis(1)).await;
    }
    panic!("never alone with it");
}

/// What the box has counted under this name.
async fn counted(cluster: &Cluster, what: &str) -> u64 {
    let status = cluster.sim.admin(BOX, r#"{"verb":"status"}"#).await;
    let at = format!("\"{what}\":");
    let from = status.find(&at).expect("counted") + at.len();
    let digits: String = status[from..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a number")
}

/// Changes the file in all ways that a client can by itself, and, now and then,
/// in one that only the box can.
async fn change(
    a: &Client<SimWorld>,
    fid: Fid,
    story: &Story,
    rng: &mut fastrand::Rng,
) -> Result<(), CallError> {
    let last = *story.states.borrow().last().expect("it was made");
    let len = rng.u64(1..3000);
    let set = |size, mode| SetAttr {
        size,
        mode,
        ..SetAttr::default()
    };
    let (state, request) = match rng.u8(0..40) {
        0 => {
            let mode = rng.u32(0..0o777) | 0o600;
            let set = set(None, Some(mode));
            (
                State { mode, ..last },
                Request::Setattr(op::Setattr { fid, set }),
            )
        }
        1 => {
            let size = rng.u64(0..=last.size);
            let set = set(Some(size), None);
            (
                State { size, ..last },
                Request::Setattr(op::Setattr { fid, set }),
            )
        }
        2 => {
            let size = last.size + len;
            let fallocate = op::Fallocate {
                fid,
                mode: 0,
                offset: last.size,
                len,
            };
            (State { size, ..last }, Request::Fallocate(fallocate))
        }
        _ => {
            let size = last.size + len;
            let at = story.begin(State { size, ..last });
            append(a, fid, len as usize).await?;
            story.end(at);
            return Ok(());
        }
    };
    let at = story.begin(state);
    ask(a, request).await?;
    story.end(at);
    Ok(())
}

/// Looks until the story is over.
async fn look(c: Client<SimWorld>, who: String, fid: Fid, story: Rc<Story>, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    while !story.is_over.get() {
        let longest = [1, 300, 20_000][rng.usize(0..3)];
        let pause = Duration::from_micros(rng.u64(0..longest));
        c.world().sleep(pause).await;
        let from = story.shown.get();
        let seen = match rng.bool() {
            true => getattr(&c, fid).await,
            false => lookup(&c, "f").await,
        };
        let Ok(attr) = seen else { continue };
        let is_it = |s: &State| (s.size, s.mode) == (attr.size, attr.mode);
        story.judge(&who, from, is_it, &format!("{attr:?}"));
    }
}

/// Reads at the writer's own machine, which the box answers.
async fn read(c: Client<SimWorld>, fid: Fid, story: Rc<Story>) {
    while !story.is_over.get() {
        c.world().sleep(Duration::from_millis(1)).await;
        let from = story.shown.get();
        let read = Request::Read(op::Read {
            fid,
            open: OpenId(0),
            offset: 0,
            len: 1,
        });
        if let Ok(Reply::Data(data)) = ask(&c, read).await
            && data.size > 0
        {
            // Bytes that are kept here say nothing of the mode.
            story.judge(
                "a reader",
                from,
                |s| s.size == data.size,
                &format!("{data:?}"),
            );
        }
    }
}

struct Sum {
    looks: u64,
    glimpses: u64,
    ahead: u64,
}

fn run(seed: u64, trouble: Trouble) -> Sum {
    let cluster = Cluster::with(seed, Faults::default());
    cluster.run(async {
        cluster.start();
        let tags = [6, 128][(seed % 2) as usize];
        let a = cluster.client_with("a", tags).await.unwrap().client;
        let mut lookers = Vec::new();
        for n in 0..2 {
            let name = format!("b{n}");
            lookers.push((name.clone(), cluster.client(&name).await.unwrap().client));
        }
        let fid = own_file(&a).await;
        let story = Rc::new(Story::default());
        let attr = getattr(&a, fid).await.expect("its own");
        story.begin(State {
            size: attr.size,
            mode: attr.mode,
        });
        let sim = &cluster.sim;
        let is_slow = seed.is_multiple_of(3);
        sim.faults(|f| {
            if trouble == Trouble::Drops {
                f.net_drop_one_in = 200;
            }
            if is_slow {
                f.net_latency = Duration::from_millis(5);
            }
        });
        for (n, (name, client)) in lookers.iter().enumerate() {
            let task = look(
                client.clone(),
                name.clone(),
                fid,
                Rc::clone(&story),
                seed + n as u64,
            );
            client.world().spawn(task);
        }
        a.world().spawn(read(a.clone(), fid, Rc::clone(&story)));
        let writing = Rc::new(Cell::new(true));
        {
            let (a, story, writing) = (a.clone(), Rc::clone(&story), Rc::clone(&writing));
            let world = a.world().clone();
            let mut rng = fastrand::Rng::with_seed(seed);
            world.clone().spawn(async move {
                for _ in 0..400 {
                    let pause = Duration::from_micros(rng.u64(0..3000));
                    world.sleep(pause).await;
                    if change(&a, fid, &story, &mut rng).await.is_err() {
                        break;
                    }
                }
                writing.set(false);
            });
        }
        let mut rng = fastrand::Rng::with_seed(!seed);
        let mut before = 0;
        while writing.get() {
            sim.sleep(Duration::from_millis(rng.u64(1..300))).await;
            match trouble {
                Trouble::Partitions => {
                    let who = ["a", "b0"][rng.usize(0..2)];
                    let seconds = [1, 6, 40][rng.usize(0..3)];
                    sim.partition(who, BOX);
                    // Whether it comes back in time shows only then.
                    if who == "a" && seconds > 6 {
                        story.is_lost.set(true);
                    }
                    sim.sleep(Duration::from_millis(rng.u64(0..seconds * 1000)))
                        .await;
                    sim.heal();
                }
                Trouble::Crashes if rng.u8(0..3) == 0 => {
                    before += counted(&cluster, "glimpses").await;
                    cluster.crash();
                    sim.sleep(Duration::from_millis(rng.u64(0..2000))).await;
                    cluster.start();
                }
                _ => {}
            }
        }
        sim.heal();
        story.is_over.set(true);
        let is_evicted = a.counters().evictions > 0 || !a.take_lost().is_empty();
        assert!(
            !is_evicted || story.is_lost.get(),
            "seed {seed}: a was evicted"
        );
        let glimpses = before + counted(&cluster, "glimpses").await;
        if !story.is_lost.get() {
            // What was glimpsed has come to be.
            let last = *story.states.borrow().last().expect("it was made");
            let left = getattr(&lookers[0].1, fid).await.expect("there");
            assert_eq!(
                (left.size, left.mode),
                (last.size, last.mode),
                "seed {seed}"
            );
        }
        Sum {
            looks: story.looks.get(),
            glimpses,
            ahead: a.counters().ahead,
        }
    })
}

fn all(trouble: Trouble, seeds: std::ops::Range<u64>) -> Sum {
    let mut all = Sum {
        looks: 0,
        glimpses: 0,
        ahead: 0,
    };
    for seed in seeds {
        let one = run(seed, trouble);
        all.looks += one.looks;
        all.glimpses += one.glimpses;
        all.ahead += one.ahead;
    }
    eprintln!(
        "{trouble:?}: {} looks, {} glimpses, {} ahead",
        all.looks, all.glimpses, all.ahead
    );
    all
}

/// Whoever looks at one file that its writer is through with is about to look at
/// the others there: they come by one callback, those that are written go on.
#[test]
fn files_that_are_written_no_more_are_given_up_together() {
    const FILES: usize = 40;
    let cluster = Cluster::with(1, Faults::default());
    cluster.run(async {
        cluster.start();
        let a = cluster.client("a").await.unwrap().client;
        let b = cluster.client("b").await.unwrap().client;
        let mut made = Vec::new();
        for n in 0..FILES {
            // Nobody has the directory to himself.
            ask(&b, create(b.root(), &format!("b{n}"))).await.unwrap();
            made.push(own_file_at(&a, &format!("f{n}")).await);
        }
        a.world().sleep(Duration::from_secs(3)).await;
        append(&a, made[7], 1).await.unwrap();
        let before = counted(&cluster, "locks called back").await;
        for (n, fid) in made.iter().enumerate() {
            let own = getattr(&a, *fid).await.unwrap();
            let seen = lookup(&b, &format!("f{n}")).await.unwrap();
            assert_eq!((seen.size, seen.mtime), (own.size, own.mtime));
        }
        let calls = counted(&cluster, "locks called back").await - before;
        assert!(calls <= 2, "{calls} callbacks");
        let ahead = a.counters().ahead;
        append(&a, made[7], 1).await.unwrap();
        assert_eq!(a.counters().ahead, ahead + 1, "it is still its own");
    });
}

#[test]
fn every_look_shows_the_last_change_or_one_under_way() {
    let sum = all(Trouble::None, 0..12);
    assert!(
        sum.glimpses > 300,
        "{} glimpses in {} looks",
        sum.glimpses,
        sum.looks
    );
    assert!(sum.ahead > 500);
}

#[test]
fn so_it_does_over_broken_connections() {
    let sum = all(Trouble::Drops, 0..12);
    assert!(
        sum.glimpses > 300,
        "{} glimpses in {} looks",
        sum.glimpses,
        sum.looks
    );
}

#[test]
fn so_it_does_over_partitions() {
    let sum = all(Trouble::Partitions, 0..12);
    assert!(
        sum.glimpses > 300,
        "{} glimpses in {} looks",
        sum.glimpses,
        sum.looks
    );
}

#[test]
fn so_it_does_over_crashes_of_the_box() {
    let sum = all(Trouble::Crashes, 0..12);
    assert!(
        sum.glimpses > 300,
        "{} glimpses in {} looks",
        sum.glimpses,
        sum.looks
    );
}

/// An extended attribute that its holder was answered is there for others, whether
/// the box has heard of it or not; without one of its own the box is asked alone.
#[test]
fn an_extended_attribute_of_the_holders_own_is_seen() {
    let mut glimpsed = 0;
    for seed in 0..10 {
        let cluster = Cluster::with(seed, Faults::default());
        cluster.run(async {
            cluster.start();
            let a = cluster.client("a").await.expect("the box is up").client;
            let b = cluster.client("b").await.expect("the box is up").client;
            let fid = own_file(&a).await;
            let name = || Bytes(b"user.a".to_vec());
            let get = || Request::XattrGet(op::XattrName { fid, name: name() });
            // As `ls -l` does, before there is one.
            let none = ask(&b, get()).await;
            assert_eq!(none, Err(CallError::Failed(Errno::ENODATA)));
            glimpsed += counted(&cluster, "glimpses").await;
            let ahead = a.counters().ahead;
            let set = Request::XattrSet(op::XattrSet {
                fid,
                name: name(),
                value: Bytes(b"v".to_vec()),
                flags: 0,
                clear_sgid: false,
            });
            ask(&a, set).await.expect("set");
            assert!(a.counters().ahead > ahead, "the box has not heard of it");
            let seen = ask(&b, get()).await;
            let value = Reply::Blob(op::Blob {
                bytes: Bytes(b"v".to_vec()),
            });
            assert_eq!(seen, Ok(value), "seed {seed}");
        });
    }
    assert!(glimpsed > 0);
}
