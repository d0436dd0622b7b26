//! One run of a seed: machines at work on a few names and files of one box,
//! with what goes wrong meanwhile, and what must hold all the same.

use crate::check::{as_many_as_can_be_checked, shortest, until, without_lost};
use crate::growth::Grown;
use crate::linux::Linux;
use crate::losses::{Losses, Shared};
use crate::mounts::mount;
use crate::work::{Place, Role, Worker};
use forebay::base::{Errno, FileKind, Mono};
use forebay::client::{CallError, Client, Context};
use forebay::sim::cluster::{BOX, Cluster};
use forebay::sim::history::{self, Deed, Record};
use forebay::sim::{Faults, SimWorld};
use forebay::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Connections break.
    Drops,
    /// Machines are cut off, from shortly to longer than until their eviction.
    Partitions,
    /// The box dies and starts again.
    Crashes,
    /// Mount processes are stopped, between their steps and in their replies.
    Stops,
    /// They are stopped in many replies, which are written late then.
    LateReplies,
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub mounts: usize,
    /// System calls of each application.
    pub deeds: usize,
    pub trouble: Trouble,
    /// The kernel's FUSE minor version.
    pub minor: u32,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        Plan {
            mounts: 2 + (seed % 3) as usize,
            deeds: 60,
            trouble: match seed % 7 {
                0..=2 => Trouble::None,
                3 => Trouble::Drops,
                4 => Trouble::Partitions,
                5 => Trouble::Crashes,
                _ => Trouble::Stops,
            },
            minor: if seed % 5 == 4 { 43 } else { 45 },
        }
    }

    pub fn late(seed: u64) -> Plan {
        Plan {
            trouble: Trouble::LateReplies,
            ..Plan::of(seed)
        }
    }

    pub fn is_calm(&self) -> bool {
        self.trouble == Trouble::None
    }

    /// How long a system call may take. In calm runs nothing is waited for but
    /// others at work; a kernel without epochs waits for its timeouts.
    fn longest(&self) -> Duration {
        match (self.trouble, self.minor) {
            (Trouble::None, 44..) => Duration::from_millis(1500),
            (Trouble::None, _) => Duration::from_secs(20),
            (Trouble::Drops | Trouble::Crashes, _) => Duration::from_secs(60),
            _ => Duration::from_secs(150),
        }
    }
}

/// What a run came to, if nothing was contradicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub records: usize,
    pub requests: u64,
    pub hits: u64,
    pub kept: u64,
    pub notices: u64,
    pub laundered: u64,
    pub stops: u64,
    pub lost: usize,
    /// Changes that clients had answered ahead of the box.
    pub ahead: u64,
    /// Those of them that evictions cost.
    pub ahead_lost: usize,
    /// Looks through mappings at what had been written past the end that had to
    /// find it, and others that came too early.
    pub grown: u64,
    pub grown_late: u64,
    pub contexts: usize,
    pub longest: Duration,
    pub trace: u64,
}

impl Sum {
    pub fn add(&mut self, one: &Sum) {
        self.records += one.records;
        self.requests += one.requests;
        self.hits += one.hits;
        self.kept += one.kept;
        self.notices += one.notices;
        self.laundered += one.laundered;
        self.stops += one.stops;
        self.lost += one.lost;
        self.ahead += one.ahead;
        self.ahead_lost += one.ahead_lost;
        self.grown += one.grown;
        self.grown_late += one.grown_late;
        self.contexts = self.contexts.max(one.contexts);
        self.longest = self.longest.max(one.longest);
    }
}

/// One object that machines share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A name's file, by its inode number.
    Name(u8),
    /// The same in the directory of a machine.
    Own(u8, u8),
    Mode(u8),
    Size(u8),
    /// Eight bytes of a file.
    Bytes(u8, u64),
}

/// A machine, and the ticks between which it changed something.
type Change = (usize, u64, u64);

/// A machine's kernel, and the client below its mount.
type Machine = (Linux, Client<SimWorld>);

/// What the applications of a run have in common.
pub struct Run {
    pub plan: Plan,
    clock: Cell<u64>,
    records: RefCell<BTreeMap<Object, Vec<Record>>>,
    /// Changes, by their machines and the ticks of their calls and ends.
    changes: RefCell<BTreeMap<Object, Vec<Change>>>,
    /// From when on nobody can tell what an object is.
    cuts: RefCell<BTreeMap<Object, u64>>,
    pub first: RefCell<BTreeMap<Object, u64>>,
    pub shared: RefCell<Shared>,
    pub losses: RefCell<Losses>,
    pub grown: RefCell<Grown>,
    pub working: Cell<usize>,
    pub failed: RefCell<Option<String>>,
    /// System calls under way: since when, and what.
    busy: RefCell<BTreeMap<u64, (Mono, String)>>,
    longest: Cell<Duration>,
    value: Cell<u64>,
}

impl Run {
    pub fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// A value that nobody has written yet.
    pub fn fresh(&self) -> u64 {
        self.value.set(self.value.get() + 1);
        self.value.get()
    }

    pub fn begin(&self, now: Mono, what: String) -> u64 {
        let called = self.tick();
        self.busy.borrow_mut().insert(called, (now, what));
        called
    }

    /// The tick of its end.
    pub fn end(&self, now: Mono, called: u64) -> u64 {
        if let Some((since, _)) = self.busy.borrow_mut().remove(&called) {
            self.longest.set(self.longest.get().max(now - since));
        }
        self.tick()
    }

    pub fn note(&self, object: Object, record: Record) {
        let mut records = self.records.borrow_mut();
        records.entry(object).or_default().push(record);
    }

    /// A machine changes the object between these ticks.
    pub fn changes(&self, object: Object, machine: usize, called: u64, ended: u64) {
        let mut changes = self.changes.borrow_mut();
        let of = changes.entry(object).or_default();
        of.push((machine, called, ended));
    }

    /// While its own change is under way a machine may show what was before, as
    /// any kernel shows a name until `unlink` returns; also when others have
    /// seen it done.
    fn is_beside_own(&self, object: Object, record: &Record) -> bool {
        let changes = self.changes.borrow();
        let mut own = changes.get(&object).into_iter().flatten();
        own.any(|(machine, called, ended)| {
            *machine == record.client && *called < record.returned && record.called < *ended
        })
    }

    /// What the object became by a call of this time is not known.
    pub fn cut(&self, object: Object, called: u64) {
        let mut cuts = self.cuts.borrow_mut();
        let cut = cuts.entry(object).or_insert(called);
        *cut = called.min(*cut);
    }

    /// Has a system call taken so long that there has been trouble enough? Who
    /// is stopped or cut off again and again begins anew each time: now it must
    /// come to its end.
    fn is_late(&self, now: Mono) -> bool {
        let busy = self.busy.borrow();
        let half = self.plan.longest() / 2;
        busy.values().any(|(since, _)| now - *since > half)
    }

    /// A system call that takes longer than anything explains.
    fn stuck(&self, now: Mono) -> Option<String> {
        let busy = self.busy.borrow();
        let stuck = busy
            .values()
            .find(|(since, _)| now - *since > self.plan.longest());
        stuck.map(|(since, what)| format!("{what} has taken {:?}", now - *since))
    }
}

/// Runs one seed.
///
/// # Errors
/// What was contradicted, or did not end, with the seed.
pub fn run(seed: u64, plan: Plan) -> Result<Sum, String> {
    let cluster = Cluster::with(seed, Faults::default());
    let run = Rc::new(Run {
        plan,
        clock: Cell::new(0),
        records: RefCell::default(),
        changes: RefCell::default(),
        cuts: RefCell::default(),
        first: RefCell::default(),
        shared: RefCell::default(),
        losses: RefCell::default(),
        grown: RefCell::default(),
        working: Cell::new(0),
        failed: RefCell::default(),
        busy: RefCell::default(),
        longest: Cell::default(),
        value: Cell::new(1000),
    });
    let machines = RefCell::default();
    let played = cluster.run(play(&cluster, &run, &machines));
    let machines: Vec<Machine> = machines.take();
    let linuxes: Vec<Linux> = machines.iter().map(|(linux, _)| linux.clone()).collect();
    let report = |e: String| format!("seed {seed} ({plan:?}): {e}");
    played.map_err(|e| report(with_waits(e, &linuxes)))?;
    let records = run.records.borrow();
    for (object, records) in records.iter() {
        let first = run.first.borrow().get(object).copied().unwrap_or(0);
        let records = run.losses.borrow().certain(*object, records);
        let mut records = without_lost(&records, &linuxes);
        records.retain(|r| !matches!(r.deed, Deed::Read(_)) || !run.is_beside_own(*object, r));
        if let Some(cut) = run.cuts.borrow().get(object) {
            records = until(*cut, &records);
        }
        records = as_many_as_can_be_checked(records);
        if history::check(first, &records, u64::MAX).is_err() {
            let why = shortest(first, &records);
            return Err(report(format!("{object:?} was {first}: {why}")));
        }
    }
    let total = |of: fn(&Linux) -> u64| linuxes.iter().map(of).sum();
    Ok(Sum {
        records: records.values().map(Vec::len).sum(),
        requests: total(|l| l.counts.requests.get()),
        hits: total(|l| l.counts.hits.get()),
        kept: total(|l| l.counts.kept.get()),
        notices: total(|l| l.counts.notices.get()),
        laundered: total(|l| l.counts.laundered.get()),
        stops: total(|l| l.counts.stops.get()),
        lost: linuxes.iter().map(|l| l.lost.borrow().len()).sum(),
        ahead: machines
            .iter()
            .map(|(_, client)| client.counters().ahead)
            .sum(),
        ahead_lost: run.losses.borrow().len(),
        grown: run.grown.borrow().strict,
        grown_late: run.grown.borrow().late,
        contexts: linuxes
            .iter()
            .map(|l| l.contexts.get().1)
            .max()
            .unwrap_or(0),
        longest: run.longest.get(),
        trace: cluster.sim.trace_hash(),
    })
}

fn with_waits(why: String, linuxes: &[Linux]) -> String {
    let mut report = why;
    for linux in linuxes {
        let _ = write!(report, "\n  {} waits for", linux.mount);
        for wait in linux.waits.all() {
            let _ = write!(report, "\n    {wait}");
        }
    }
    report
}

async fn play(
    cluster: &Cluster,
    run: &Rc<Run>,
    machines: &RefCell<Vec<Machine>>,
) -> Result<(), String> {
    let plan = run.plan;
    cluster.start();
    prepare(cluster, run).await.map_err(|e| e.to_string())?;
    let seed = cluster.sim.seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    for n in 0..plan.mounts {
        let name = format!("m{n}");
        let machine = mount(cluster, &name, plan.minor, rng.u64(..)).await;
        machines.borrow_mut().push(machine);
    }
    let machines = machines.borrow().clone();
    let all: Vec<Linux> = machines.iter().map(|(linux, _)| linux.clone()).collect();
    if plan.trouble == Trouble::Drops {
        cluster.sim.faults(|f| f.net_drop_one_in = 150);
    }
    let stop_one_in = match plan.trouble {
        Trouble::Stops => 150,
        Trouble::LateReplies => 40,
        _ => 0,
    };
    all.iter().for_each(|l| l.stop_one_in.set(stop_one_in));
    for (n, machine) in machines.iter().enumerate() {
        let (linux, _) = machine;
        let place = Place::find(linux).await.map_err(|e| e.to_string())?;
        for role in Role::ALL {
            let worker = Worker::new(n, role, machine, run, &place, rng.fork());
            run.working.set(run.working.get() + 1);
            linux.world.spawn(worker.work(plan.deeds));
        }
    }
    while run.working.get() > 0 {
        cluster.sim.sleep(Duration::from_millis(200)).await;
        if let Some(e) = run.failed.take() {
            return Err(e);
        }
        if let Some(stuck) = run.stuck(cluster.sim.now()) {
            return Err(stuck);
        }
        let is_late = run.is_late(cluster.sim.now());
        let stop_one_in = if is_late { 0 } else { stop_one_in };
        all.iter().for_each(|l| l.stop_one_in.set(stop_one_in));
        if !is_late {
            trouble(cluster, plan, &all, &mut rng).await;
        }
    }
    if plan.is_calm() {
        let status = cluster.sim.admin(BOX, r#"{"verb":"status"}"#).await;
        if !status.contains(r#""clients evicted":0"#) {
            return Err(format!("a client was evicted: {status}"));
        }
    }
    Ok(())
}

async fn trouble(cluster: &Cluster, plan: Plan, all: &[Linux], rng: &mut fastrand::Rng) {
    let linux = &all[rng.usize(0..all.len())];
    let longest = [1, 8, 15, 40][rng.usize(0..4)] * 1000;
    let for_ = Duration::from_millis(rng.u64(1..longest));
    match plan.trouble {
        Trouble::Partitions if rng.u8(0..6) == 0 => {
            cluster.sim.partition(&linux.mount, BOX);
            cluster.sim.sleep(for_).await;
            cluster.sim.heal();
        }
        Trouble::Stops if rng.u8(0..8) == 0 => linux.stop(for_),
        Trouble::Crashes if rng.u8(0..8) == 0 => {
            cluster.crash();
            cluster.sim.sleep(for_.min(Duration::from_secs(3))).await;
            cluster.start();
        }
        _ => {}
    }
}

/// The tree that all share: made by a client that then goes.
async fn prepare(cluster: &Cluster, run: &Run) -> Result<(), CallError> {
    let actor = cluster.client("maker").await;
    let client: Client<SimWorld> = actor.map_err(|_| CallError::TimedOut)?.client;
    let root = client.at_root(Context::of(0, 0));
    let dir = root.directory(Place::DIR).await?.fid();
    let mut own = Vec::new();
    for n in 0..run.plan.mounts {
        let at = root.directory(&Place::own(n as u8)).await?;
        own.push(at.fid());
    }
    let mut files = Vec::new();
    for n in 0..Place::FILES {
        let file = root.create_file(&Place::file(n)).await?;
        let bytes = vec![0; Place::BYTES as usize];
        root.write(file, 0, bytes.into()).await?;
        let attr = root.stat(file.fid).await?;
        assert_eq!(attr.kind, FileKind::Regular);
        let first = |object, value| run.first.borrow_mut().insert(object, value);
        first(Object::Mode(n), u64::from(attr.mode));
        first(Object::Size(n), attr.size);
        files.push(file.fid);
        root.close(file).await?;
    }
    let growing = root.create_file(&Place::file(Place::GROWING)).await?;
    root.close(growing).await?;
    *run.shared.borrow_mut() = Shared { dir, own, files };
    client.close().await;
    Ok(())
}

/// An error that a machine may meet when its box or its connection fails.
pub fn is_trouble(plan: Plan, errno: Errno) -> bool {
    let expected = [Errno::EIO, Errno::ESTALE, Errno::EBADF, Errno::ENOTCONN];
    !plan.is_calm() && expected.contains(&errno)
}
