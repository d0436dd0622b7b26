//! The work on a mounted path: a thread for every operation in flight.

use crate::cli::{Cli, Data, Meta, Op, Step, Work};
use crate::plan::{Clock, Plan, content, dir_name, file_name};
use crate::report::{Phase, Tally};
use forebay::base::Buf;
use rustix::fs::{Mode, OFlags, fsync, open};
use rustix::io::{pread, pwrite};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one write while a file is prepared.
const PREPARE: usize = 1 << 20;

pub fn run(cli: &Cli, path: &Path) -> Result<Vec<Phase>, String> {
    match &cli.work {
        Work::Data(work) => data(work, path),
        Work::Meta(work) => meta(work, path),
    }
}

fn data(work: &Data, path: &Path) -> Result<Vec<Phase>, String> {
    let mut clients = Vec::new();
    for client in 0..work.clients {
        let name = path.join(format!("load.data.{client}"));
        let told = |e| format!("{}: {e}", name.display());
        if work.op != Op::Write {
            prepare(&name, work.file_size).map_err(told)?;
        }
        let mut flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        if work.direct {
            flags |= OFlags::DIRECT;
        }
        let fd = open(&name, flags, Mode::from_raw_mode(0o644)).map_err(|e| told(e.into()))?;
        clients.push((fd, Mutex::new(Plan::new(work, client))));
    }
    let clock = Clock::start(work.seconds);
    let mut tally = Tally::new();
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for (fd, plan) in &clients {
            for _ in 0..work.depth {
                workers.push(scope.spawn(move || drive(work, fd, plan, clock)));
            }
        }
        for worker in workers {
            // A worker only fails to join if it panicked, which has been printed.
            if let Ok(part) = worker.join() {
                tally.add(part);
            }
        }
    });
    if work.fsync {
        for (fd, _) in &clients {
            fsync(fd).map_err(|e| format!("fsync: {e}"))?;
        }
    }
    Ok(vec![Phase::new(
        name_of(work.op),
        tally,
        clock.began.elapsed(),
    )])
}

/// Has the file its full size? Else it is written anew.
fn prepare(name: &Path, size: u64) -> std::io::Result<()> {
    if fs::metadata(name).is_ok_and(|m| m.len() >= size) {
        return Ok(());
    }
    let mut file = fs::File::create(name)?;
    let bytes = content(PREPARE, 7);
    let mut left = size;
    while left > 0 {
        let n = left.min(PREPARE as u64);
        file.write_all(&bytes[..usize::try_from(n).unwrap_or(PREPARE)])?;
        left -= n;
    }
    file.sync_all()
}

fn drive(work: &Data, fd: &OwnedFd, plan: &Mutex<Plan>, clock: Clock) -> Tally {
    let mut tally = Tally::new();
    let len = usize::try_from(work.block).unwrap_or(usize::MAX);
    let mut buf = Buf::copied(&content(len, 11));
    while !clock.is_over() {
        let step = plan.lock().map_or(None, |mut plan| plan.next());
        let Some(step) = step else {
            break;
        };
        let began = Instant::now();
        let done = match step.write {
            true => pwrite(fd, &buf, step.offset),
            false => pread(fd, &mut buf[..], step.offset),
        };
        match done {
            Ok(n) if n == len => tally.ok(began.elapsed(), work.block),
            Ok(n) => tally.failed(format!("{n} bytes instead of {len}")),
            Err(e) => tally.failed(e.to_string()),
        }
    }
    tally
}

fn name_of(op: Op) -> &'static str {
    match op {
        Op::Read => "read",
        Op::Write => "write",
        Op::Mixed => "mixed",
    }
}

fn meta(work: &Meta, path: &Path) -> Result<Vec<Phase>, String> {
    for w in 0..work.clients {
        for dir in 0..work.dirs {
            let dir = path.join(dir_name(work, w, dir));
            fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
    }
    let mut phases = Vec::new();
    let mut renamed = false;
    for step in &work.steps {
        let began = Instant::now();
        let mut tally = Tally::new();
        thread::scope(|scope| {
            let worker = |w| scope.spawn(move || small_files(work, path, w, *step, renamed));
            let workers: Vec<_> = (0..work.clients).map(worker).collect();
            for worker in workers {
                if let Ok(part) = worker.join() {
                    tally.add(part);
                }
            }
        });
        renamed |= *step == Step::Rename;
        phases.push(Phase::new(step.label(), tally, began.elapsed()));
    }
    Ok(phases)
}

/// One step over all files of a worker.
fn small_files(work: &Meta, path: &Path, w: usize, step: Step, renamed: bool) -> Tally {
    let mut tally = Tally::new();
    let bytes = content(usize::try_from(work.size).unwrap_or(0), 13);
    let mut sink = Vec::with_capacity(bytes.len());
    for dir in 0..work.dirs {
        let dir = path.join(dir_name(work, w, dir));
        for file in 0..work.files {
            let name = dir.join(file_name(w, file, renamed));
            let began = Instant::now();
            let done = match step {
                Step::Create => fs::File::create_new(&name).and_then(|mut f| f.write_all(&bytes)),
                Step::Stat => fs::metadata(&name).map(|_| ()),
                Step::OpenRead => {
                    sink.clear();
                    fs::File::open(&name).and_then(|mut f| f.read_to_end(&mut sink).map(|_| ()))
                }
                Step::Rename => fs::rename(&name, dir.join(file_name(w, file, true))),
                Step::Unlink => fs::remove_file(&name),
            };
            count(
                &mut tally,
                done.map_err(|e| e.to_string()),
                began.elapsed(),
                step,
                work.size,
            );
        }
    }
    tally
}

/// Notes one operation on a small file.
pub fn count(tally: &mut Tally, done: Result<(), String>, took: Duration, step: Step, size: u64) {
    let bytes = match step {
        Step::Create | Step::OpenRead => size,
        _ => 0,
    };
    match done {
        Ok(()) => tally.ok(took, bytes),
        Err(why) => tally.failed(why),
    }
}
