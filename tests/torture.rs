//! kill -9, again and again, of a box and of a mount, under work of all kinds:
//! fsx, changes of a tree that is compared on two mounts, append logs with
//! checksums. Nothing that was told done may be lost, and the origin must end up
//! with just what the mounts show. `cargo xtask torture` runs it for an hour.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "torture/log.rs"]
mod log;
mod support;
#[path = "torture/tree.rs"]
mod tree;

use log::Told;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use support::{Site, mounts_missing, suite, text};

/// Steps between two comparisons of the whole tree.
const STEPS: u64 = 300;
/// One kill of the mount for so many of the box.
const MOUNT_EVERY: u64 = 12;

/// What it went through.
#[derive(Default)]
struct Survived {
    box_kills: u64,
    mount_kills: u64,
    slowest_start: Duration,
    steps: AtomicU64,
    comparisons: AtomicU64,
    fsx_runs: AtomicU64,
    records: u64,
    unsynced_lost: u64,
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |t| {
        t.parse().unwrap_or_else(|_| panic!("{name}={t}"))
    })
}

#[test]
fn nothing_is_lost_whoever_is_killed() {
    if mounts_missing().is_some() {
        return;
    }
    let fsx = suite("fsx");
    let secs = number("FOREBAY_TORTURE_SECS", 120);
    let seed = number("FOREBAY_SEED", fastrand::u64(..1 << 32));
    eprintln!("torture for {secs} s, FOREBAY_SEED={seed}");
    let mut site = Site::start("cache.size = 1G\nlease = 2s\ntarget.main.writeback = 1s\n");
    let (a, b) = (site.mount("a"), site.mount("b"));
    let is_over = AtomicBool::new(false);
    let mut survived = Survived::default();
    let counts = Survived::default();
    let trees = std::thread::scope(|scope| {
        let _stop = Stop(&is_over);
        let _rescue = Rescue([&a, &b]);
        let work = Work {
            is_over: &is_over,
            counts: &counts,
            seed,
        };
        let trees = [(1, &a, &b), (2, &b, &a)]
            .map(|(n, own, other)| scope.spawn(move || change_tree(work, n, own, other)));
        let steady = a.join("steady.log");
        let steady = scope.spawn(move || log::append(&steady, 0, || work.is_over()));
        let fsx = fsx.map(|fsx| {
            let (at, conf) = (a.clone(), site.path("fsx.toml"));
            scope.spawn(move || run_fsx(work, &fsx, &at, &conf))
        });
        let until = Instant::now() + Duration::from_secs(secs);
        kill_until(&mut site, until, work, &mut survived, scope);
        let (told, done) = steady.join().unwrap();
        done.unwrap();
        assert!(log::check(&b.join("steady.log")) >= told.written);
        survived.records += told.synced;
        if let Some(fsx) = fsx {
            fsx.join().unwrap();
        }
        trees.map(|tree| tree.join().unwrap())
    });
    site.flush();
    for (n, tree) in (1..).zip(&trees) {
        for root in [&a, &b, &site.origin()] {
            tree.check(&root.join(format!("tree{n}")));
        }
    }
    for name in ["steady.log", "victim.log"] {
        assert_eq!(
            log::check(&site.origin().join(name)),
            log::check(&a.join(name))
        );
    }
    let log = site.log_text();
    let mut errors = log.lines().filter(|l| l.split(' ').nth(1) == Some("error"));
    assert_eq!(errors.next(), None, "the box's log");
    site.umount(&a);
    site.umount(&b);
    site.stop();
    let mut fsck = Command::new(env!("CARGO_BIN_EXE_forebay-fsck"));
    let out = fsck.arg(site.path("cache.fb")).output().unwrap();
    assert!(out.status.success(), "the cache is sound: {}", text(&out));
    report(secs, &survived, &counts);
}

/// Whatever ends one of the workers ends the others, a failed assertion too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where the box is not started again, workers would wait for it for ever.
struct Rescue<'a>([&'a Path; 2]);

impl Drop for Rescue<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.iter().for_each(|dir| support::end_mount(dir));
        }
    }
}

/// What all workers share.
#[derive(Clone, Copy)]
struct Work<'a> {
    is_over: &'a AtomicBool,
    counts: &'a Survived,
    seed: u64,
}

impl Work<'_> {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Kills the box at random moments, and now and then the mount of a writer.
fn kill_until<'scope>(
    site: &mut Site,
    until: Instant,
    work: Work<'scope>,
    survived: &mut Survived,
    scope: &'scope Scope<'scope, '_>,
) {
    let mut rng = fastrand::Rng::with_seed(work.seed);
    let mut victim = Victim::start(site, scope, work, 0);
    while Instant::now() < until && !work.is_over() {
        // The moment of the kill is what is random here; nothing is awaited.
        std::thread::sleep(Duration::from_millis(rng.u64(20..1200)));
        site.kill();
        let begun = Instant::now();
        site.serve();
        survived.slowest_start = survived.slowest_start.max(begun.elapsed());
        survived.box_kills += 1;
        if survived.box_kills.is_multiple_of(MOUNT_EVERY) {
            let first = victim.kill(site, survived);
            survived.mount_kills += 1;
            victim = Victim::start(site, scope, work, first);
        }
    }
    work.is_over.store(true, Ordering::Relaxed);
    victim.end(survived);
}

/// A writer of a log whose mount is killed under it.
struct Victim<'scope> {
    mount: PathBuf,
    writer: ScopedJoinHandle<'scope, (Told, io::Result<()>)>,
}

impl<'scope> Victim<'scope> {
    fn start(
        site: &mut Site,
        scope: &'scope Scope<'scope, '_>,
        work: Work<'scope>,
        first: u64,
    ) -> Victim<'scope> {
        let mount = site.mount("victim");
        let path = mount.join("victim.log");
        let writer = scope.spawn(move || log::append(&path, first, || work.is_over()));
        Victim { mount, writer }
    }

    /// Kills the mount; how many records are there, seen by a new one.
    fn kill(self, site: &mut Site, survived: &mut Survived) -> u64 {
        site.kill_mount(&self.mount);
        let (told, done) = self.writer.join().unwrap();
        assert!(done.is_err(), "the writer's mount is gone");
        let again = site.mount("victim");
        let there = log::check(&again.join("victim.log"));
        assert!(
            told.synced <= there && there <= told.written + 1,
            "{there} records are there: {told:?}"
        );
        survived.unsynced_lost += told.written.saturating_sub(there);
        site.umount(&again);
        there
    }

    fn end(self, survived: &mut Survived) {
        let (told, done) = self.writer.join().unwrap();
        done.unwrap();
        survived.records += told.synced;
    }
}

/// Changes a tree on one mount, and compares all of it on the other.
fn change_tree(work: Work, n: u64, own: &Path, other: &Path) -> tree::Tree {
    let name = format!("tree{n}");
    let (root, seen) = (own.join(&name), other.join(&name));
    std::fs::create_dir(&root).unwrap();
    let mut rng = fastrand::Rng::with_seed(work.seed + n);
    let mut tree = tree::Tree::default();
    let _stop = Stop(work.is_over);
    for step in 1.. {
        tree.step(&mut rng, &root);
        work.counts.steps.fetch_add(1, Ordering::Relaxed);
        if step % STEPS == 0 {
            tree.check(&seen);
            work.counts.comparisons.fetch_add(1, Ordering::Relaxed);
        }
        if work.is_over() {
            break;
        }
    }
    tree
}

/// fsx, one run after another.
fn run_fsx(work: Work, fsx: &Path, mount: &Path, conf: &Path) {
    let weights = "[weights]\nclose_open = 2\nread = 10\nwrite = 10\nmapread = 5\nmapwrite = 5\n\
                   truncate = 5\nfsync = 1\nfdatasync = 1\npunch_hole = 2\n";
    std::fs::write(conf, format!("flen = 131072\n{weights}")).unwrap();
    let _stop = Stop(work.is_over);
    for seed in work.seed.. {
        let file = mount.join(format!("fsx-{seed}"));
        let mut run = Command::new(fsx);
        run.args(["-N", "1000", "-S", &seed.to_string(), "-f"]);
        let out = run.arg(conf).arg(&file).output().unwrap();
        assert!(out.status.success(), "fsx -S {seed}: {}", text(&out));
        let _ = std::fs::remove_file(&file);
        work.counts.fsx_runs.fetch_add(1, Ordering::Relaxed);
        if work.is_over() {
            return;
        }
    }
}

fn report(secs: u64, survived: &Survived, counts: &Survived) {
    let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
    eprintln!(
        "survived {secs} s: {} kills of the box (slowest start {} ms), {} of a mount \
         ({} records that no fsync covered went with it); {} steps on two trees, compared {} times; \
         {} runs of fsx; {} records fsynced. Nothing was lost.",
        survived.box_kills,
        survived.slowest_start.as_millis(),
        survived.mount_kills,
        survived.unsynced_lost,
        of(&counts.steps),
        of(&counts.comparisons),
        of(&counts.fsx_runs),
        survived.records,
    );
}
