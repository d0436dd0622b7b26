//! Several clients on the same few names and files, with their caches, over a
//! net that fails and a box that dies: every read must see the last write that
//! returned before it was called, whoever wrote (DESIGN §12.2). And what a
//! client has open it can read until it closes it, whoever removes it; nothing
//! of it is left then (N9).

use super::cluster::{BOX, Cluster};
use super::history::{self, Deed, Record};
use super::node::Faults;
use super::world::SimWorld;
use crate::base::codec::Bytes;
use crate::base::{Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice};
use crate::client::{CallError, Client, Context};
use crate::namespace::key::table;
use crate::wire::op::{self, Entry, Intent};
use crate::wire::{Reply, Request};
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub clients: usize,
    /// Operations of each client.
    pub deeds: usize,
    /// Sends that break their connection.
    pub drop_one_in: u32,
    /// Partitions between one client and the box, from short to longer than
    /// its lease and its eviction.
    pub partitions: bool,
    /// The box dies and starts again.
    pub crashes: bool,
}

/// Every other client has few reply slots, so that its changes wait, and go together.
fn tags(n: usize) -> u16 {
    [128, 16][n % 2]
}

impl Plan {
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        Plan {
            clients: 2 + (seed % 7) as usize,
            deeds: 40 + (seed % 3) as usize * 40,
            drop_one_in: if seed % 4 == 1 { 100 } else { 0 },
            partitions: seed % 4 == 2,
            crashes: seed % 4 == 3,
        }
    }
}

/// What the run came to, if nothing was contradicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub records: usize,
    /// Files that were read after their last name was gone.
    pub read_nameless: u64,
    /// Calls answered from clients' memory.
    pub answered_here: u64,
    /// Files that were shown as another client had made them by then.
    pub glimpses: u64,
    pub trace: u64,
}

/// One object that clients share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    /// A name's file, by the low half of its FID.
    Name(u8),
    Mode(u8),
    Stamp(u8),
    /// The size of a file that is only appended to.
    End(u8),
}

const NAMES: u8 = 3;
const FILES: u8 = 2;
const PIECE: u64 = 8;

/// Runs one seed.
///
/// # Errors
/// What was contradicted, or did not end, with the seed.
pub fn run(seed: u64, plan: &Plan) -> Result<Sum, String> {
    let faults = Faults::default();
    let cluster = Cluster::with(seed, faults);
    let run = Rc::new(Run::default());
    let hits = cluster.run(async {
        let hits = play(&cluster, *plan, Rc::clone(&run)).await?;
        nothing_is_left(&cluster).await.map(|()| hits)
    });
    let hits = hits.map_err(|e| format!("seed {seed}: {e}"))?;
    let records = run.records.borrow();
    for (object, records) in records.iter() {
        let first = run.first.borrow().get(object).copied().unwrap_or(0);
        let glimpsed = run.glimpsed_until(*object, records);
        let records = run.certain(*object, records);
        let end = run.ends.borrow().get(object).copied().unwrap_or(u64::MAX);
        history::check(first, &records, end.min(glimpsed))
            .map_err(|e| format!("seed {seed}: {object:?}: {e}"))?;
    }
    Ok(Sum {
        records: records.values().map(Vec::len).sum(),
        read_nameless: run.read_nameless.get(),
        answered_here: hits,
        glimpses: run.glimpses.get(),
        trace: cluster.sim.trace_hash(),
    })
}

#[derive(Default)]
struct Run {
    clock: Cell<u64>,
    records: RefCell<BTreeMap<Object, Vec<Record>>>,
    first: RefCell<BTreeMap<Object, u64>>,
    /// From when on an object is not known any more.
    ends: RefCell<BTreeMap<Object, u64>>,
    /// Clients at work.
    working: Cell<usize>,
    read_nameless: Cell<u64>,
    glimpses: Cell<u64>,
    failed: RefCell<Option<String>>,
    /// What clients that were thrown out had answered ahead of the box, and
    /// when they learned that it is lost.
    lost: RefCell<Vec<Lost>>,
}

/// A change that was seen by its own client alone (L10).
struct Lost {
    client: usize,
    object: Object,
    /// What it wrote; `None`: it removed or added.
    wrote: Option<u64>,
    learned: u64,
}

impl Run {
    /// Those of the box's life that ends.
    fn count_glimpses(&self, cluster: &Cluster) {
        let counters = cluster.shard().map(|shard| shard.counters.to_json());
        let count = counters.and_then(|all| all["glimpses"].as_u64());
        self.glimpses.set(self.glimpses.get() + count.unwrap_or(0));
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// The records of an object without those of a client from the change that
    /// it lost to when it learned that: nobody else has seen any of it.
    fn certain(&self, object: Object, records: &[Record]) -> Vec<Record> {
        let mut certain = records.to_vec();
        for lost in self.lost.borrow().iter().filter(|l| l.object == object) {
            let is_it = |r: &&Record| {
                r.client == lost.client
                    && r.called < lost.learned
                    && match (r.deed, lost.wrote) {
                        (Deed::Write(value), Some(wrote)) => value == wrote,
                        (Deed::Added(..) | Deed::Removed, None) => true,
                        _ => false,
                    }
            };
            let Some(from) = records.iter().filter(is_it).map(|r| r.called).max() else {
                continue;
            };
            let is_out = |r: &Record| {
                r.client == lost.client && r.returned >= from && r.called <= lost.learned
            };
            certain.retain(|r| !is_out(r));
        }
        certain
    }

    /// Until when nobody can have seen, by a glimpse, a size that was lost with
    /// the client which had made the file as long as that: the call of the first
    /// of its last appends, as many as it has lost (L9, L10).
    fn glimpsed_until(&self, object: Object, records: &[Record]) -> u64 {
        let (lost, Object::End(_)) = (self.lost.borrow(), object) else {
            return u64::MAX;
        };
        let of = |one: &&Lost| one.object == object;
        let until = lost.iter().filter(of).filter_map(|last| {
            let count = lost.iter().filter(of).filter(|l| l.client == last.client);
            let is_it = |r: &&Record| {
                let is_added = matches!(r.deed, Deed::Added(..));
                is_added && r.client == last.client && r.called < last.learned
            };
            let mut calls: Vec<u64> = records.iter().filter(is_it).map(|r| r.called).collect();
            calls.sort_unstable();
            calls.iter().rev().take(count.count()).next_back().copied()
        });
        until.min().unwrap_or(u64::MAX)
    }

    fn note(&self, object: Object, record: Record) {
        let mut records = self.records.borrow_mut();
        records.entry(object).or_default().push(record);
    }
}

/// Where everything is.
#[derive(Clone)]
struct Place {
    dir: Fid,
    files: Vec<Fid>,
}

async fn play(cluster: &Cluster, plan: Plan, run: Rc<Run>) -> Result<u64, String> {
    cluster.start();
    let mut clients = Vec::new();
    for n in 0..plan.clients {
        let actor = cluster.client_with(&format!("c{n}"), tags(n)).await;
        clients.push(actor.map_err(|e| e.to_string())?.client);
    }
    let place = prepare(&clients[0], &run)
        .await
        .map_err(|e| e.to_string())?;
    // Nobody knows a file but by a name of it.
    for client in &clients {
        find(client, "shared").await.map_err(|e| e.to_string())?;
        for n in 0..2 * FILES {
            let found = find(client, &format!("f{n}")).await;
            found.map_err(|e| e.to_string())?;
        }
    }
    cluster.sim.faults(|f| f.net_drop_one_in = plan.drop_one_in);
    let mut rng = fastrand::Rng::with_seed(cluster.sim.seed());
    // Of each client one task that changes things, and one that only looks: it
    // goes on looking, at what it has cached, when its client is cut off.
    let tasks = clients.iter().enumerate();
    let tasks = tasks.flat_map(|(n, client)| [(n, client, false), (n, client, true)]);
    for (n, client, only_looks) in tasks {
        let one = One {
            n,
            only_looks,
            client: client.clone(),
            rng: RefCell::new(rng.fork()),
            run: Rc::clone(&run),
            place: place.clone(),
            spare: Cell::new(0),
        };
        run.working.set(run.working.get() + 1);
        let world = client.world().clone();
        world.spawn(async move {
            if let Err(e) = one.work(plan.deeds).await {
                *one.run.failed.borrow_mut() = Some(format!("c{}: {e}", one.n));
            }
            one.run.working.set(one.run.working.get() - 1);
        });
    }
    let mut crash_in = if plan.crashes { 3 } else { u32::MAX };
    while run.working.get() > 0 {
        cluster.sim.sleep(Duration::from_millis(500)).await;
        if let Some(e) = run.failed.take() {
            return Err(e);
        }
        if plan.partitions && rng.u8(0..4) == 0 {
            let one = format!("c{}", rng.usize(0..plan.clients));
            cluster.sim.partition(&one, BOX);
            let longest = [1, 8, 15, 40][rng.usize(0..4)];
            let for_ = Duration::from_millis(rng.u64(1..longest * 1000));
            cluster.sim.sleep(for_).await;
            cluster.sim.heal();
        }
        crash_in = crash_in.saturating_sub(1);
        if crash_in == 0 {
            run.count_glimpses(cluster);
            cluster.crash();
            cluster
                .sim
                .sleep(Duration::from_millis(rng.u64(1..3000)))
                .await;
            cluster.start();
            crash_in = rng.u32(2..8);
        }
    }
    run.count_glimpses(cluster);
    let is_calm = plan.drop_one_in == 0 && !plan.partitions && !plan.crashes;
    if is_calm {
        // Whoever answers has nothing to fear: a callback that got lost shows
        // as an eviction, after which all is well again.
        let status = cluster.sim.admin(BOX, r#"{"verb":"status"}"#).await;
        if !status.contains(r#""clients evicted":0"#) {
            return Err(format!("a client was evicted: {status}"));
        }
    }
    let hits = clients.iter().map(|c| c.counters().answered_here).sum();
    Ok(hits)
}

/// Once everything is closed, no file without names stays.
async fn nothing_is_left(cluster: &Cluster) -> Result<(), String> {
    let orphans = vec![table::ORPHAN]..vec![table::ORPHAN + 1];
    let mut left = usize::MAX;
    for _ in 0..SETTLED {
        if let Some(shard) = cluster.shard() {
            let found = shard.flash.scan(orphans.clone(), 64).await;
            left = found.map_err(|e| e.to_string())?.len();
            if left == 0 {
                return Ok(());
            }
        }
        cluster.sim.sleep(Duration::from_secs(1)).await;
    }
    Err(format!("{left} files without names stay"))
}

/// Seconds in which evictions and a recovery are over.
const SETTLED: u32 = 120;

/// One directory for names, and the files that all change.
async fn prepare(client: &Client<SimWorld>, run: &Run) -> Result<Place, CallError> {
    let me = Context::of(0, 0);
    let dir = entry(
        client,
        &me,
        create(client.root(), "shared", FileKind::Directory),
    )
    .await?;
    let mut files = Vec::new();
    for n in 0..2 * FILES {
        let made = create(client.root(), &format!("f{n}"), FileKind::Regular);
        let made = entry(client, &me, made).await?;
        files.push(made.fid);
        let mode = u64::from(made.attr.mode);
        run.first.borrow_mut().insert(Object::Mode(n), mode);
    }
    Ok(Place {
        dir: dir.fid,
        files,
    })
}

async fn find(client: &Client<SimWorld>, name: &str) -> Result<Entry, CallError> {
    let look = Request::Lookup(op::Named {
        parent: client.root(),
        name: Name::new(name.as_bytes()).map_err(CallError::Failed)?,
        intent: Intent::default(),
    });
    entry(client, &Context::of(0, 0), look).await
}

fn create(parent: Fid, name: &str, kind: FileKind) -> Request {
    Request::Create(op::Create {
        parent,
        name: Name::new(name.as_bytes()).ok(),
        kind,
        mode: 0o700,
        rdev: 0,
        link: Bytes::default(),
        exclusive: true,
        open: OpenId(0),
        flags: 0,
        fid: Fid::NONE,
        intent: Intent::default(),
    })
}

async fn entry(
    client: &Client<SimWorld>,
    me: &Context,
    request: Request,
) -> Result<Entry, CallError> {
    match client.call(me, request, None).await?.0 {
        Reply::Entry(entry) => Ok(entry),
        _ => Err(CallError::Protocol),
    }
}

/// One client at work.
struct One {
    n: usize,
    only_looks: bool,
    client: Client<SimWorld>,
    rng: RefCell<fastrand::Rng>,
    run: Rc<Run>,
    place: Place,
    /// Numbers the files that it puts under shared names.
    spare: Cell<u32>,
}

impl One {
    async fn work(&self, deeds: usize) -> Result<(), CallError> {
        for _ in 0..deeds {
            let pause = self.pause();
            self.client.world().sleep(pause).await;
            if self.rng.borrow_mut().u8(0..5) == 0 {
                self.on_open().await?;
                continue;
            }
            let object = self.object();
            match object {
                Object::Name(n) => self.on_name(object, n).await?,
                Object::Mode(n) => self.on_mode(object, n).await?,
                Object::Stamp(n) => self.on_stamp(object, n).await?,
                Object::End(n) => self.on_end(object, n).await?,
            }
        }
        Ok(())
    }

    /// Mostly short; at times as long as what is kept may be believed.
    fn pause(&self) -> Duration {
        let mut rng = self.rng.borrow_mut();
        let longest = [1, 1, 10, 100, 2000][rng.usize(0..5)];
        Duration::from_micros(rng.u64(0..longest * 1000))
    }

    fn object(&self) -> Object {
        let mut rng = self.rng.borrow_mut();
        // What is cached: names and attributes.
        let kinds = if self.only_looks { 4 } else { 6 };
        match rng.u8(0..kinds) {
            0..3 => Object::Name(rng.u8(0..NAMES)),
            3 => Object::Mode(rng.u8(0..FILES)),
            4 => Object::Stamp(rng.u8(0..FILES)),
            _ => Object::End(FILES + rng.u8(0..FILES)),
        }
    }

    fn is_looking(&self) -> bool {
        self.only_looks || self.rng.borrow_mut().u8(0..3) > 0
    }

    fn file(&self, n: u8) -> Fid {
        self.place.files[usize::from(n)]
    }

    /// Does it, and notes what it did and when. `maybe`: what is noted if the
    /// client was thrown out and never learns.
    async fn deed<T>(
        &self,
        object: Object,
        maybe: Option<Deed>,
        doing: impl Future<Output = Result<T, CallError>>,
        as_seen: impl FnOnce(Result<T, Errno>) -> Option<Deed>,
    ) -> Result<(), CallError> {
        self.note_lost();
        let called = self.run.tick();
        let (deed, returned) = match doing.await {
            Ok(seen) => (as_seen(Ok(seen)), self.run.tick()),
            Err(CallError::Failed(errno)) => match as_seen(Err(errno)) {
                None => return Err(CallError::Failed(errno)),
                seen => (seen, self.run.tick()),
            },
            Err(CallError::Evicted) => (maybe, u64::MAX),
            Err(other) => return Err(other),
        };
        if let Some(deed) = deed {
            let client = self.n;
            let record = Record {
                client,
                called,
                returned,
                deed,
            };
            self.run.note(object, record);
        }
        Ok(())
    }

    /// What the client has lost since it was last asked.
    fn note_lost(&self) {
        for change in self.client.take_lost() {
            let found = match &change.request {
                Request::Setattr(op) => {
                    let mode = op.set.mode.map(u64::from);
                    self.number(op.fid).map(|n| (Object::Mode(n), mode))
                }
                Request::Write(op) => self.number(op.fid).map(|n| match n < FILES {
                    true => (Object::Stamp(n), change.bytes.and_then(|b| stamp(&b))),
                    false => (Object::End(n), None),
                }),
                Request::Unlink(op) => self.shared(op.parent, &op.name).map(|o| (o, None)),
                _ => None,
            };
            if let Some((object, wrote)) = found {
                let (client, learned) = (self.n, self.run.tick());
                let lost = Lost {
                    client,
                    object,
                    wrote,
                    learned,
                };
                self.run.lost.borrow_mut().push(lost);
            }
        }
    }

    fn number(&self, fid: Fid) -> Option<u8> {
        let at = self.place.files.iter().position(|f| *f == fid)?;
        u8::try_from(at).ok()
    }

    /// The object that a name in the shared directory is.
    fn shared(&self, dir: Fid, name: &Name) -> Option<Object> {
        let of = |n: &u8| name.as_bytes() == format!("n{n}").as_bytes();
        let n = (0..NAMES).find(of).filter(|_| dir == self.place.dir)?;
        Some(Object::Name(n))
    }

    async fn on_name(&self, object: Object, n: u8) -> Result<(), CallError> {
        let name = format!("n{n}");
        let dir = self.place.dir;
        if self.is_looking() {
            let look = Request::Lookup(op::Named {
                parent: dir,
                name: self.name(&name)?,
                intent: Intent::default(),
            });
            return self
                .deed(object, None, self.entry(look), |seen| match seen {
                    Ok(entry) => Some(Deed::Read(id(entry.fid))),
                    Err(Errno::ENOENT) => Some(Deed::Read(0)),
                    Err(_) => None,
                })
                .await;
        }
        if self.rng.borrow_mut().bool() {
            let unlink = Request::Unlink(op::Unlink {
                parent: dir,
                name: self.name(&name)?,
                dir: false,
            });
            return self
                .deed(
                    object,
                    Some(Deed::MaybeRemove),
                    self.ask(unlink),
                    |seen| match seen {
                        Ok(_) => Some(Deed::Removed),
                        Err(Errno::ENOENT) => Some(Deed::Missing),
                        Err(_) => None,
                    },
                )
                .await;
        }
        self.put(object, &name).await
    }

    /// Opens what a name leads to, and looks at it for a while.
    async fn on_open(&self) -> Result<(), CallError> {
        let name = format!("n{}", self.rng.borrow_mut().u8(0..NAMES));
        let evictions = self.client.counters().evictions;
        let look = Request::Lookup(op::Named {
            parent: self.place.dir,
            name: self.name(&name)?,
            intent: Intent::default(),
        });
        let fid = match self.entry(look).await {
            Ok(entry) => entry.fid,
            Err(CallError::Failed(Errno::ENOENT)) => return Ok(()),
            Err(other) => return Err(other),
        };
        let open = self.client.next_open();
        let opened = self.entry(Request::Open(op::Open {
            fid,
            open,
            flags: 0,
            intent: Intent::default(),
        }));
        match opened.await {
            Ok(_) => {}
            // It was removed since.
            Err(CallError::Failed(Errno::ESTALE | Errno::ENOENT)) => return Ok(()),
            Err(CallError::Evicted) => return Ok(()),
            Err(other) => return Err(other),
        }
        let looks = self.rng.borrow_mut().u8(0..4);
        for _ in 0..looks {
            let pause = self.pause();
            self.client.world().sleep(pause).await;
            let seen = self.read(fid, open).await;
            if seen == Ok(id(fid)) {
                let nlink = self.attr_of(fid).await.map(|e| e.attr.nlink);
                let count = u64::from(nlink == Ok(0));
                let all = &self.run.read_nameless;
                all.set(all.get() + count);
            } else if self.client.counters().evictions == evictions {
                let line = format!("c{}: {fid} is open, and read as {seen:?}", self.n);
                *self.run.failed.borrow_mut() = Some(line);
                break;
            }
        }
        match self.ask(Request::Close(op::Close { fid, open })).await {
            Ok(_) | Err(CallError::Evicted) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// As a mount does: the bytes may come with the open.
    async fn open_and_read(&self, fid: Fid) -> Result<u64, CallError> {
        let open = self.client.next_open();
        self.entry(Request::Open(op::Open {
            fid,
            open,
            flags: 0,
            intent: Intent::default(),
        }))
        .await?;
        let seen = self.read(fid, open).await;
        let close = Request::Close(op::Close { fid, open });
        // The next open has a name of its own, whatever becomes of this one.
        let _ = self.ask(close).await;
        seen
    }

    /// The first bytes of a file, as a number.
    async fn read(&self, fid: Fid, open: OpenId) -> Result<u64, CallError> {
        let read = Request::Read(op::Read {
            fid,
            open,
            offset: 0,
            len: PIECE as u32,
        });
        let me = Context::of(0, 0);
        let (_, data) = self.client.call(&me, read, None).await?;
        let bytes: Option<[u8; 8]> = data.and_then(|d| d[..].try_into().ok());
        Ok(bytes.map_or(0, u64::from_le_bytes))
    }

    /// A file of its own, moved over the shared name. It says which it is.
    async fn put(&self, object: Object, name: &str) -> Result<(), CallError> {
        self.spare.set(self.spare.get() + 1);
        let spare = format!("s{}-{}", self.n, self.spare.get());
        let root = self.client.root();
        let made = self.entry(create(root, &spare, FileKind::Regular)).await;
        let made = match made {
            Err(CallError::Evicted) => return Ok(()),
            other => other?.fid,
        };
        match self.write_to(made, 0, false, id(made)).await {
            Err(CallError::Evicted | CallError::Failed(Errno::ESTALE)) => return Ok(()),
            other => other.map(|_| ())?,
        }
        let rename = Request::Rename(op::Rename {
            from: root,
            from_name: self.name(&spare)?,
            to: self.place.dir,
            to_name: self.name(name)?,
            flags: 0,
        });
        let maybe = Some(Deed::MaybeWrite(id(made)));
        self.deed(object, maybe, self.ask(rename), |seen| match seen {
            Ok(_) => Some(Deed::Write(id(made))),
            // An eviction took the file with it.
            Err(Errno::ENOENT) => Some(Deed::MaybeWrite(id(made))),
            Err(_) => None,
        })
        .await
    }

    async fn on_mode(&self, object: Object, n: u8) -> Result<(), CallError> {
        if self.is_looking() {
            return self
                .deed(object, None, self.attr(n), |seen| {
                    seen.ok().map(|e| Deed::Read(u64::from(e.attr.mode)))
                })
                .await;
        }
        let mode = self.rng.borrow_mut().u32(1..0o777);
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        let fid = self.file(n);
        let request = Request::Setattr(op::Setattr { fid, set });
        let maybe = Some(Deed::MaybeWrite(u64::from(mode)));
        self.deed(object, maybe, self.entry(request), |seen| {
            seen.ok().map(|_| Deed::Write(u64::from(mode)))
        })
        .await
    }

    async fn on_stamp(&self, object: Object, n: u8) -> Result<(), CallError> {
        if self.is_looking() {
            let opens = self.rng.borrow_mut().bool();
            let read = async {
                match opens {
                    true => self.open_and_read(self.file(n)).await,
                    false => self.read(self.file(n), OpenId(0)).await,
                }
            };
            return self
                .deed(object, None, read, |seen| seen.ok().map(Deed::Read))
                .await;
        }
        let stamp = self.rng.borrow_mut().u64(1..u64::MAX);
        let maybe = Some(Deed::MaybeWrite(stamp));
        let write = self.write(n, 0, false, stamp);
        self.deed(object, maybe, write, |seen| {
            seen.ok().map(|_| Deed::Write(stamp))
        })
        .await
    }

    async fn on_end(&self, object: Object, n: u8) -> Result<(), CallError> {
        if self.is_looking() {
            return self
                .deed(object, None, self.attr(n), |seen| {
                    seen.ok().map(|e| Deed::Read(e.attr.size))
                })
                .await;
        }
        // What an evicted client appended, if it did, is not told: such ends
        // are not looked at any further.
        let append = self.write(n, 0, true, 1);
        let evicted = Cell::new(true);
        let called = self.run.clock.get();
        self.deed(object, None, append, |seen| {
            evicted.set(false);
            seen.ok().map(|at| Deed::Added(at, PIECE))
        })
        .await?;
        if evicted.get() {
            let mut ends = self.run.ends.borrow_mut();
            let end = ends.entry(object).or_insert(called);
            *end = called.min(*end);
        }
        Ok(())
    }

    async fn write(&self, n: u8, offset: u64, append: bool, stamp: u64) -> Result<u64, CallError> {
        self.write_to(self.file(n), offset, append, stamp).await
    }

    async fn write_to(
        &self,
        fid: Fid,
        offset: u64,
        append: bool,
        stamp: u64,
    ) -> Result<u64, CallError> {
        let request = Request::Write(op::Write {
            fid,
            open: OpenId(0),
            offset,
            append,
        });
        let bytes = Slice::from(stamp.to_le_bytes().to_vec());
        let me = Context::of(0, 0);
        match self.client.call(&me, request, Some(bytes)).await?.0 {
            Reply::Written(done) => Ok(done.offset),
            _ => Err(CallError::Protocol),
        }
    }

    async fn attr(&self, n: u8) -> Result<Entry, CallError> {
        self.attr_of(self.file(n)).await
    }

    async fn attr_of(&self, fid: Fid) -> Result<Entry, CallError> {
        let intent = Intent::default();
        self.entry(Request::Getattr(op::OfFile { fid, intent }))
            .await
    }

    async fn entry(&self, request: Request) -> Result<Entry, CallError> {
        entry(&self.client, &Context::of(0, 0), request).await
    }

    async fn ask(&self, request: Request) -> Result<Reply, CallError> {
        let me = Context::of(0, 0);
        Ok(self.client.call(&me, request, None).await?.0)
    }

    fn name(&self, name: &str) -> Result<Name, CallError> {
        Name::new(name.as_bytes()).map_err(CallError::Failed)
    }
}

fn stamp(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

/// A file as a number; never 0.
fn id(fid: Fid) -> u64 {
    (fid.seq << 32) ^ u64::from(fid.oid)
}
