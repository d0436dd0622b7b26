//! kill -9 of the box at random moments under a writing load: the mount goes
//! on, what was fsynced is there, nothing is torn (DESIGN §12, items 3 and 4).
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{Site, mounts_missing};

/// Bytes of one record of the append log: its number, repeated, and a checksum.
const RECORD: usize = 512;

fn record(n: u64) -> Vec<u8> {
    let mut out: Vec<u8> = n.to_le_bytes().repeat((RECORD - 4) / 8);
    out.resize(RECORD - 4, 0xA5);
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// A writer of an append log: each record is fsynced before it counts.
struct Appender {
    path: PathBuf,
    synced: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Appender {
    fn start(path: PathBuf, stop: &Arc<AtomicBool>) -> Appender {
        let synced = Arc::new(AtomicU64::new(0));
        let (at, count, stop) = (path.clone(), Arc::clone(&synced), Arc::clone(stop));
        let thread = std::thread::spawn(move || {
            let mut file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&at)
                .unwrap();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                file.write_all(&record(n)).unwrap();
                if n % 3 == 0 {
                    file.sync_data().unwrap();
                    count.store(n + 1, Ordering::Release);
                }
            }
        });
        Appender {
            path,
            synced,
            thread,
        }
    }

    fn check(self) {
        self.thread.join().expect("the writer saw no error");
        let bytes = fs::read(&self.path).unwrap();
        let synced = self.synced.load(Ordering::Acquire);
        assert_eq!(bytes.len() % RECORD, 0, "whole records only");
        let there = (bytes.len() / RECORD) as u64;
        assert!(there >= synced, "{there} records, {synced} were fsynced");
        for (n, got) in bytes.chunks(RECORD).enumerate() {
            assert!(
                got == record(n as u64),
                "record {n} of {there} is torn or lost"
            );
        }
    }
}

/// A maker of names: creates, renames, unlinks; every step happens once, so a
/// repeated or lost one shows as an error.
fn churn(dir: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        fs::create_dir(&dir).unwrap();
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            let (a, b, link) = (
                dir.join(format!("a{n}")),
                dir.join(format!("b{n}")),
                dir.join("link"),
            );
            let mut f = OpenOptions::new()
                .create_new(true)
                .write(true)
                .open(&a)
                .unwrap();
            f.write_all(&record(n)).unwrap();
            drop(f);
            fs::rename(&a, &b).unwrap();
            fs::hard_link(&b, &link).unwrap();
            fs::remove_file(&link).unwrap();
            assert_eq!(fs::read(&b).unwrap(), record(n));
            if n % 4 != 0 {
                fs::remove_file(&b).unwrap();
            }
            n += 1;
        }
        n
    })
}

/// A writer at fixed offsets whose unsynced bytes must survive the box, since
/// the client keeps them until they are on flash.
fn overwriter(path: PathBuf, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let f = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut last = vec![0u64; 64];
        for n in 1u64.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let slot = (n * 2_654_435_761 % 64) as usize;
            let bytes: Vec<u8> = n.to_le_bytes().repeat(500);
            f.write_all_at(&bytes, slot as u64 * 4000).unwrap();
            last[slot] = n;
            let check = (n * 40_503 % 64) as usize;
            if last[check] > 0 {
                let mut got = vec![0; 4000];
                f.read_exact_at(&mut got, check as u64 * 4000).unwrap();
                assert!(
                    got == last[check].to_le_bytes().repeat(500),
                    "slot {check} after write {n}"
                );
            }
        }
    })
}

#[test]
fn a_box_that_is_killed_loses_nothing() {
    if mounts_missing().is_some() {
        return;
    }
    let kills: u32 = std::env::var("FOREBAY_KILLS")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(100);
    let mut site = Site::start("target.main.writeback = 1s\n");
    let m = site.mount("mnt");
    let stop = Arc::new(AtomicBool::new(false));
    let appender = Appender::start(m.join("log"), &stop);
    let churner = churn(m.join("churn"), Arc::clone(&stop));
    let writer = overwriter(m.join("slots"), Arc::clone(&stop));
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..kills {
        // The moment of the kill is what is random here; nothing is awaited.
        std::thread::sleep(Duration::from_millis(rng.u64(5..150)));
        site.kill();
        site.serve();
    }
    stop.store(true, Ordering::Relaxed);
    let rounds = churner.join().expect("the churner saw no error");
    assert!(rounds > 0);
    writer.join().expect("the overwriter saw no error");
    appender.check();
    check_churn(&m.join("churn"), rounds);
    site.flush();
    check_churn(&site.origin().join("churn"), rounds);
    assert_eq!(
        fs::read(site.origin().join("log")).unwrap(),
        fs::read(m.join("log")).unwrap()
    );
    site.umount(&m);
    site.stop();
}

fn check_churn(dir: &Path, rounds: u64) {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut want: Vec<String> = (0..rounds).step_by(4).map(|n| format!("b{n}")).collect();
    want.sort();
    assert_eq!(names, want, "in {}", dir.display());
    for n in (0..rounds).step_by(4) {
        assert_eq!(fs::read(dir.join(format!("b{n}"))).unwrap(), record(n));
    }
}

#[test]
fn the_cache_is_warm_after_a_kill_and_a_clean_stop() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i % 253) as u8).collect();
    fs::write(site.origin().join("cold"), &bytes).unwrap();
    let m = site.mount("mnt");
    assert_eq!(fs::read(m.join("cold")).unwrap(), bytes);
    fs::write(m.join("made here"), &bytes).unwrap();
    File::open(m.join("made here")).unwrap().sync_all().unwrap();
    site.flush();
    for clean in [false, true] {
        if clean {
            site.stop()
        } else {
            site.kill()
        }
        // The origin is made unreachable: what is read now comes from flash.
        let away = site.path("away");
        fs::rename(site.origin(), &away).unwrap();
        fs::create_dir(site.origin()).unwrap();
        fs::remove_dir(site.origin()).unwrap();
        site.serve();
        assert_eq!(
            fs::read(m.join("cold")).unwrap(),
            bytes,
            "clean stop: {clean}"
        );
        assert_eq!(fs::read(m.join("made here")).unwrap(), bytes);
        fs::rename(&away, site.origin()).unwrap();
    }
    site.umount(&m);
    site.stop();
}
