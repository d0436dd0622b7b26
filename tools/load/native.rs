//! The work over the protocol: each client is a thread with a reactor and a
//! connection, and a task for every operation in flight.

use crate::cli::{Cli, Data, Meta, Op, Step, Work};
use crate::meeting::{Member, meeting};
use crate::mounted::count;
use crate::plan::{Clock, Plan, content, dir_name, file_name};
use crate::report::{Phase, Tally};
use forebay::base::Slice;
use forebay::client::{CallError, Client, Context, Directory, File, Options};
use forebay::reactor::{self, Local, Log, Port};
use forebay::world::sync::Signal;
use forebay::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one write while a file is prepared, and writes in flight then.
const PREPARE: u32 = 1 << 20;

type Fault = String;

pub fn run(cli: &Cli, hosts: &[String], target: &str) -> Result<Vec<Phase>, Fault> {
    match &cli.work {
        Work::Data(work) => {
            if work.block > 1 << 20 {
                return Err("natively a block is at most 1M, one frame's payload".into());
            }
            let work = work.clone();
            all_clients(work.clients, hosts, target, move |client, w, member| {
                data(client, work.clone(), w, member)
            })
        }
        Work::Meta(work) => {
            let work = work.clone();
            all_clients(work.clients, hosts, target, move |client, w, member| {
                meta(client, work.clone(), w, member)
            })
        }
    }
}

/// Runs `body` in a thread for each client and adds up their phases.
fn all_clients<F>(
    clients: usize,
    hosts: &[String],
    target: &str,
    body: impl Fn(Client<Local>, usize, Member) -> F + Send + Sync + 'static,
) -> Result<Vec<Phase>, Fault>
where
    F: Future<Output = Result<Vec<Measured>, Fault>> + 'static,
{
    let body = Arc::new(body);
    let start = |(w, member): (usize, Member)| {
        let (body, hosts, target) = (Arc::clone(&body), hosts.to_vec(), target.to_owned());
        thread::spawn(move || one_client(w, hosts, target, move |client| body(client, w, member)))
    };
    let threads: Vec<_> = meeting(clients)
        .into_iter()
        .enumerate()
        .map(start)
        .collect();
    let results = threads.into_iter().map(|thread| {
        let ended = thread.join();
        ended.unwrap_or_else(|_| Err("a client's thread panicked".into()))
    });
    let results: Vec<_> = results.collect();
    let mut sums: Vec<Measured> = Vec::new();
    for result in results {
        for (at, part) in result?.into_iter().enumerate() {
            match sums.get_mut(at) {
                Some(sum) => {
                    sum.tally.add(part.tally);
                    sum.took = sum.took.max(part.took);
                }
                None => sums.push(part),
            }
        }
    }
    let phase = |m: Measured| Phase::new(m.name, m.tally, m.took);
    Ok(sums.into_iter().map(phase).collect())
}

/// What one client measured in one phase.
struct Measured {
    name: &'static str,
    tally: Tally,
    took: Duration,
}

/// A reactor in this thread, with a client that runs `body`.
fn one_client<F>(
    w: usize,
    hosts: Vec<String>,
    target: String,
    body: impl FnOnce(Client<Local>) -> F + 'static,
) -> Result<Vec<Measured>, Fault>
where
    F: Future<Output = Result<Vec<Measured>, Fault>> + 'static,
{
    let name = format!("load{w}");
    let port = Port::alone().map_err(|e| e.to_string())?;
    let mut options = reactor::Options::new(&name, port);
    options.log = Log::stderr(Level::Warn);
    let ended = reactor::run(options, |local| async move {
        let options = Options {
            name,
            tags: 256,
            ..Options::default()
        };
        let client = Client::connect(local, hosts, &target, options).await;
        let client = client.map_err(|e| e.to_string())?;
        let result = body(client.clone()).await;
        client.close().await;
        result
    });
    ended.map_err(|e| e.to_string())?
}

fn caller() -> Context {
    let uid = rustix::process::getuid().as_raw();
    Context::of(uid, rustix::process::getgid().as_raw())
}

/// Runs `depth` tasks of `task` and waits for all.
async fn in_flight<F>(client: &Client<Local>, depth: usize, task: impl Fn() -> F)
where
    F: Future<Output = ()> + 'static,
{
    let left = Rc::new(Cell::new(depth));
    let done = Rc::new(Signal::default());
    for _ in 0..depth {
        let (left, done, one) = (Rc::clone(&left), Rc::clone(&done), task());
        client.world().spawn(async move {
            one.await;
            left.set(left.get() - 1);
            done.notify();
        });
    }
    while left.get() > 0 {
        done.wait().await;
    }
}

async fn data(
    client: Client<Local>,
    work: Data,
    w: usize,
    member: Member,
) -> Result<Vec<Measured>, Fault> {
    let root = client.at_root(caller());
    let prepared = prepare(&root, &work, w).await;
    // Before the result is looked at: the others wait for everybody.
    member.wait();
    let file = prepared.map_err(|e| e.to_string())?;
    let plan = Rc::new(RefCell::new(Plan::new(&work, w)));
    let tally = Rc::new(RefCell::new(Tally::new()));
    let clock = Clock::start(work.seconds);
    in_flight(&client, work.depth, || {
        drive(
            root.clone(),
            file,
            work.block,
            Rc::clone(&plan),
            Rc::clone(&tally),
            clock,
        )
    })
    .await;
    if work.fsync {
        root.fsync(file).await.map_err(|e| format!("fsync: {e}"))?;
    }
    let took = clock.began.elapsed();
    // A failed close has been reported as an error of the operations before.
    let _ = root.close(file).await;
    let tally = tally.replace(Tally::new());
    let name = match work.op {
        Op::Read => "read",
        Op::Write => "write",
        Op::Mixed => "mixed",
    };
    Ok(vec![Measured { name, tally, took }])
}

async fn prepare(root: &Directory<Local>, work: &Data, w: usize) -> Result<File, CallError> {
    let file = root.create_file(&format!("load.data.{w}")).await?;
    let size = root.stat(file.fid).await?.size;
    if work.op == Op::Write || size >= work.file_size {
        return Ok(file);
    }
    let bytes = Slice::from(content(PREPARE as usize, 7));
    let mut at = 0;
    while at < work.file_size {
        let n = (work.file_size - at).min(u64::from(PREPARE));
        let part = bytes.part(0..usize::try_from(n).unwrap_or(PREPARE as usize));
        at += u64::from(root.write(file, at, part).await?);
    }
    root.fsync(file).await?;
    Ok(file)
}

async fn drive(
    root: Directory<Local>,
    file: File,
    block: u64,
    plan: Rc<RefCell<Plan>>,
    tally: Rc<RefCell<Tally>>,
    clock: Clock,
) {
    let len = u32::try_from(block).unwrap_or(PREPARE);
    let bytes = Slice::from(content(len as usize, 11));
    while !clock.is_over() {
        let step = plan.borrow_mut().next();
        let Some(step) = step else {
            return;
        };
        let began = Instant::now();
        let done = match step.write {
            true => root.write(file, step.offset, bytes.clone()).await,
            false => root
                .read(file, step.offset, len)
                .await
                .map(|data| u32::try_from(data.len()).unwrap_or(u32::MAX)),
        };
        let mut tally = tally.borrow_mut();
        match done {
            Ok(n) if n == len => tally.ok(began.elapsed(), block),
            Ok(n) => tally.failed(format!("{n} bytes instead of {len}")),
            Err(e) => tally.failed(e.to_string()),
        }
    }
}

async fn meta(
    client: Client<Local>,
    work: Meta,
    w: usize,
    member: Member,
) -> Result<Vec<Measured>, Fault> {
    let root = client.at_root(caller());
    let made = directories(&root, &work, w).await;
    member.wait();
    let dirs = Rc::new(made.map_err(|e| e.to_string())?);
    let mut phases = Vec::new();
    let mut renamed = false;
    for step in &work.steps {
        let began = Instant::now();
        let tally = Rc::new(RefCell::new(Tally::new()));
        let next = Rc::new(Cell::new(0u64));
        in_flight(&client, work.depth, || {
            let job = Job {
                work: work.clone(),
                dirs: Rc::clone(&dirs),
                w,
                step: *step,
                renamed,
            };
            job.run(Rc::clone(&next), Rc::clone(&tally))
        })
        .await;
        renamed |= *step == Step::Rename;
        phases.push(Measured {
            name: step.label(),
            tally: tally.replace(Tally::new()),
            took: began.elapsed(),
        });
        member.wait();
    }
    Ok(phases)
}

async fn directories(
    root: &Directory<Local>,
    work: &Meta,
    w: usize,
) -> Result<Vec<Directory<Local>>, CallError> {
    let mut dirs = Vec::new();
    for dir in 0..work.dirs {
        dirs.push(root.directory(&dir_name(work, w, dir)).await?);
    }
    Ok(dirs)
}

/// One step over the files of a worker, shared by its tasks.
struct Job {
    work: Meta,
    dirs: Rc<Vec<Directory<Local>>>,
    w: usize,
    step: Step,
    renamed: bool,
}

impl Job {
    async fn run(self, next: Rc<Cell<u64>>, tally: Rc<RefCell<Tally>>) {
        let bytes = Slice::from(content(usize::try_from(self.work.size).unwrap_or(0), 13));
        let total = self.work.files * self.dirs.len() as u64;
        while next.get() < total {
            let n = next.get();
            next.set(n + 1);
            let dir = &self.dirs[usize::try_from(n / self.work.files).unwrap_or(0)];
            let file = n % self.work.files;
            let began = Instant::now();
            let done = self.one(dir, file, &bytes).await;
            let done = done.map_err(|e| e.to_string());
            let took = began.elapsed();
            count(
                &mut tally.borrow_mut(),
                done,
                took,
                self.step,
                self.work.size,
            );
        }
    }

    async fn one(&self, dir: &Directory<Local>, file: u64, bytes: &Slice) -> Result<(), CallError> {
        let name = file_name(self.w, file, self.renamed);
        match self.step {
            Step::Create => {
                let file = dir.create_file(&name).await?;
                if !bytes.is_empty() {
                    dir.write(file, 0, bytes.clone()).await?;
                }
                dir.close(file).await
            }
            Step::Stat => dir.lookup(&name).await.map(|_| ()),
            Step::OpenRead => {
                let (file, attr) = dir.open(&name).await?;
                if attr.size > 0 {
                    let len = u32::try_from(attr.size).unwrap_or(PREPARE).min(PREPARE);
                    dir.read(file, 0, len).await?;
                }
                dir.close(file).await
            }
            Step::Rename => dir.rename(&name, dir, &file_name(self.w, file, true)).await,
            Step::Unlink => dir.unlink(&name).await,
        }
    }
}
