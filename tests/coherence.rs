//! Several mounts of one box show one file system: what one has done, every
//! other sees with its next call, out of its kernel's caches too.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

#[path = "coherence/glimpse.rs"]
mod glimpse;
#[path = "coherence/torture.rs"]
mod torture;

use forebay::fuse::COUNTERS_XATTR;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::time::Instant;
use support::{Site, mount_pid, mounts_missing, until};

fn on_mounts(conf: &str, count: usize, body: impl FnOnce(&mut Site, &[PathBuf])) {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(conf);
    let mounts: Vec<PathBuf> = (0..count).map(|n| site.mount(&format!("m{n}"))).collect();
    body(&mut site, &mounts);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn kind(path: &Path) -> Option<std::io::ErrorKind> {
    fs::symlink_metadata(path).err().map(|e| e.kind())
}

/// Everything is looked at first, so that it is cached where it may be.
#[test]
fn what_one_mount_does_the_other_sees_c2_c5() {
    on_mounts("", 2, |_, m| {
        let (a, b) = (&m[0], &m[1]);
        let absent = Some(std::io::ErrorKind::NotFound);
        fs::create_dir(a.join("d")).unwrap();
        for round in 0..5 {
            let (x, y) = if round % 2 == 0 { (a, b) } else { (b, a) };
            let (fx, fy) = (x.join("d/f"), y.join("d/f"));
            // Names, absent ones too.
            assert_eq!((kind(&fx), kind(&fy)), (absent, absent));
            assert_eq!(names(&y.join("d")), Vec::<String>::new());
            fs::write(&fx, b"one").unwrap();
            assert_eq!(kind(&fy), None, "round {round}");
            assert_eq!(names(&y.join("d")), ["f"]);
            // Bytes and sizes.
            assert_eq!(fs::read(&fy).unwrap(), b"one");
            assert_eq!(fs::read(&fx).unwrap(), b"one");
            fs::write(&fx, b"two and more").unwrap();
            assert_eq!(fs::metadata(&fy).unwrap().len(), 12);
            assert_eq!(fs::read(&fy).unwrap(), b"two and more");
            let file = OpenOptions::new().write(true).open(&fy).unwrap();
            file.set_len(3).unwrap();
            assert_eq!(fs::read(&fx).unwrap(), b"two");
            assert_eq!(fs::metadata(&fx).unwrap().len(), 3);
            // Attributes.
            for mode in [0o600, 0o4711] {
                fs::set_permissions(&fx, fs::Permissions::from_mode(mode)).unwrap();
                let seen = fs::metadata(&fy).unwrap().mode() & 0o7777;
                assert_eq!(seen, mode);
            }
            // Links, and what they count.
            fs::hard_link(&fy, y.join("d/g")).unwrap();
            assert_eq!(fs::metadata(&fx).unwrap().nlink(), 2);
            fs::create_dir(x.join("d/sub")).unwrap();
            assert_eq!(fs::metadata(y.join("d")).unwrap().nlink(), 3);
            assert_eq!(fs::metadata(x.join("d")).unwrap().nlink(), 3);
            fs::remove_dir(y.join("d/sub")).unwrap();
            assert_eq!(fs::metadata(x.join("d")).unwrap().nlink(), 2);
            // Moves, over another name and away.
            fs::write(x.join("d/h"), b"other").unwrap();
            assert_eq!(fs::read(y.join("d/h")).unwrap(), b"other");
            fs::rename(x.join("d/h"), x.join("d/g")).unwrap();
            assert_eq!(fs::read(y.join("d/g")).unwrap(), b"other");
            assert_eq!(kind(&y.join("d/h")), absent);
            assert_eq!(fs::metadata(&fy).unwrap().nlink(), 1);
            fs::remove_file(&fy).unwrap();
            assert_eq!(kind(&fx), absent);
            fs::remove_file(y.join("d/g")).unwrap();
            assert_eq!(names(&x.join("d")), Vec::<String>::new());
        }
    });
}

/// C2: the schedule that locks up a kernel whose dentries are invalidated
/// while it holds their directory.
#[test]
fn two_mounts_create_in_one_directory_c2() {
    on_mounts("", 2, |_, m| {
        fs::create_dir(m[0].join("d")).unwrap();
        let won: usize = std::thread::scope(|scope| {
            let work = |me: usize| {
                let (dir, other) = (m[me].join("d"), m[1 - me].join("d"));
                let mut won = 0;
                for n in 0..300 {
                    let name = format!("n{n}");
                    // Cached as absent, perhaps, when the other makes it.
                    let _ = kind(&dir.join(&name));
                    let made = OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .open(dir.join(&name));
                    won += usize::from(made.is_ok());
                    assert_eq!(kind(&other.join(&name)), None);
                    fs::write(dir.join(format!("own{me}-{n}")), b"x").unwrap();
                }
                won
            };
            let one = scope.spawn(move || work(1));
            work(0) + one.join().unwrap()
        });
        assert_eq!(won, 300, "each name is made once");
        assert_eq!(names(&m[0].join("d")).len(), 900);
        assert_eq!(names(&m[0].join("d")), names(&m[1].join("d")));
    });
}

/// C9: two kernels, each with an idea of its own of where the file ends.
#[test]
fn appends_from_two_mounts_lose_nothing_c9() {
    on_mounts("", 2, |_, m| {
        fs::write(m[0].join("log"), b"").unwrap();
        std::thread::scope(|scope| {
            for (n, mount) in m.iter().enumerate() {
                scope.spawn(move || {
                    let log = OpenOptions::new().append(true).open(mount.join("log"));
                    let mut log = log.unwrap();
                    for i in 0..400 {
                        let line = format!("{n} {i:06}\n");
                        log.write_all(line.as_bytes()).unwrap();
                    }
                });
            }
        });
        for mount in m {
            let text = fs::read_to_string(mount.join("log")).unwrap();
            let of = |n: &str| -> Vec<&str> {
                let own = text.lines().filter(|l| l.starts_with(n));
                own.map(|l| &l[2..]).collect()
            };
            let all: Vec<String> = (0..400).map(|i| format!("{i:06}")).collect();
            assert_eq!(
                (of("0"), of("1")),
                (
                    all.iter().map(|s| &s[..]).collect(),
                    all.iter().map(|s| &s[..]).collect()
                )
            );
            assert_eq!(text.len(), 2 * 400 * 9);
        }
    });
}

/// A shared, writable mapping of the first page of a file.
struct Mapped(*mut u8, File);

impl Mapped {
    fn of(path: &Path) -> Mapped {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let (both, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours; the descriptor is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, both, shared, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapped(at.cast(), file)
    }
    fn store(&self, at: usize, byte: u8) {
        assert!(at < 4096);
        // SAFETY: within the mapping.
        unsafe { self.0.add(at).write_volatile(byte) };
    }
    fn load(&self, at: usize) -> u8 {
        assert!(at < 4096);
        // SAFETY: within the mapping.
        unsafe { self.0.add(at).read_volatile() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nobody has the address.
        unsafe { libc::munmap(self.0.cast(), 4096) };
    }
}

/// C6, C7: stores through a mapping make no request, and are seen all the same.
#[test]
fn mapped_stores_are_seen_and_see_c6_c7() {
    on_mounts("", 2, |_, m| {
        fs::write(m[0].join("f"), [0u8; 8192]).unwrap();
        assert_eq!(fs::read(m[1].join("f")).unwrap().len(), 8192);
        let a = Mapped::of(&m[0].join("f"));
        let path = m[1].join("f");
        let far = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        for n in 1..60u8 {
            a.store(usize::from(n), n);
            far.read_exact_at(&mut byte, u64::from(n)).unwrap();
            assert_eq!(byte, [n], "a store is read");
            far.write_all_at(&[n + 100], u64::from(n)).unwrap();
            assert_eq!(a.load(usize::from(n)), n + 100, "a write is loaded");
        }
        let b = Mapped::of(&m[1].join("f"));
        for n in 1..60u8 {
            a.store(2000, n);
            assert_eq!(b.load(2000), n);
            b.store(3000, n);
            assert_eq!(a.load(3000), n);
        }
        a.1.sync_all().unwrap();
        drop((a, b));
        assert_eq!(
            fs::read(m[0].join("f")).unwrap(),
            fs::read(m[1].join("f")).unwrap()
        );
    });
}

/// Growth elsewhere is seen by stat, read and lseek of a file that is open and cached.
#[test]
fn growth_is_seen_by_open_files_c10() {
    on_mounts("", 2, |_, m| {
        fs::write(m[0].join("f"), vec![1; 5000]).unwrap();
        let mut open = File::open(m[1].join("f")).unwrap();
        let mut all = Vec::new();
        open.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 5000);
        for n in 1..20u64 {
            let mut file = OpenOptions::new()
                .append(true)
                .open(m[0].join("f"))
                .unwrap();
            file.write_all(&[n as u8; 5000]).unwrap();
            assert_eq!(open.metadata().unwrap().len(), 5000 * (n + 1));
            assert_eq!(open.seek(SeekFrom::End(0)).unwrap(), 5000 * (n + 1));
            let mut last = vec![0; 5000];
            open.read_exact_at(&mut last, 5000 * n).unwrap();
            assert!(last.iter().all(|b| *b == n as u8));
        }
        let file = OpenOptions::new().write(true).open(m[0].join("f")).unwrap();
        file.set_len(10).unwrap();
        assert_eq!(open.metadata().unwrap().len(), 10);
        assert_eq!(open.read_at(&mut [0; 64], 8).unwrap(), 2);
    });
}

/// What a task of this machine sees of a file that it maps, and that is longer
/// than when it was mapped: not SIGBUS, which would be its end.
fn in_a_process_of_its_own(look: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only reads memory and ends, and takes no lock.
    match unsafe { libc::fork() } {
        0 => {
            let is_good = look();
            // SAFETY: nothing of this process is to be run in the child.
            unsafe { libc::_exit(i32::from(!is_good)) }
        }
        child => {
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: the child is ours, and the status is written to here.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            status == 0
        }
    }
}

/// Files of a mount of whose growth nobody would tell it.
fn unwatched(mount: &Path) -> u64 {
    counter(mount, "unwatched")
}

/// What the mount has counted under this name.
fn counter(mount: &Path, what: &str) -> u64 {
    let mut buf = [0; 4096];
    let len = rustix::fs::getxattr(mount, COUNTERS_XATTR, &mut buf).unwrap();
    let text = String::from_utf8(buf[..len].to_vec()).unwrap();
    let found = text
        .lines()
        .find_map(|l| l.strip_prefix(what)?.strip_prefix(' '));
    found.unwrap().parse().unwrap()
}

/// C17: what another mount has written past the end is there for who mapped the
/// file before, as soon as the write has returned.
#[test]
fn growth_elsewhere_is_seen_through_mappings_c17() {
    on_mounts("", 2, |_, m| {
        let page = vec![1u8; 4096];
        fs::write(m[0].join("f"), &page).unwrap();
        let file = File::open(m[1].join("f")).unwrap();
        let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
        let (len, fd) = (64 * 4096, file.as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours; the descriptor is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, read, shared, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let at = at.cast::<u8>();
        let is = |page: usize, byte: u8| {
            assert!(page < 64);
            // SAFETY: within the mapping; past the end of the file it is SIGBUS,
            // in a child.
            in_a_process_of_its_own(|| unsafe { at.add(page * 4096 + 9).read_volatile() } == byte)
        };
        assert!(is(0, 1));
        assert!(!is(1, 1), "nothing is there yet");
        let append = || OpenOptions::new().append(true).open(m[0].join("f"));
        let mut log = append().unwrap();
        let mut grow = |pages: u8, byte: u8| {
            let bytes = vec![byte; usize::from(pages) * 4096];
            log.write_all(&bytes).unwrap();
        };
        grow(1, 2);
        assert!(is(1, 2), "with the write's return");
        // While others make it longer again and again, about a second later.
        for n in 3..8u8 {
            grow(1, n);
        }
        until("it is seen how long the file is", || is(6, 7));
        // With the write's return again, once the mount has its lock back.
        until("the mount is told of growth", || unwatched(&m[1]) == 0);
        grow(3, 9);
        assert!((7..10).all(|page| is(page, 9)), "with the write's return");
        let cut = OpenOptions::new().write(true).open(m[0].join("f")).unwrap();
        cut.set_len(100).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100);
        assert!(is(0, 1) && !is(9, 9), "what was cut off stays away");
        // SAFETY: mapped above, and not used any more.
        unsafe { libc::munmap(at.cast(), len) };
    });
}

/// L2: a client that is stopped holds others up for its lease at most, and
/// starts afresh when it wakes.
#[test]
fn a_stopped_client_is_evicted_and_only_it_notices_l2() {
    on_mounts("lease = 2s", 2, |site, m| {
        let (a, b) = (&m[0], &m[1]);
        fs::write(a.join("f"), b"before").unwrap();
        assert_eq!(fs::read(a.join("f")).unwrap(), b"before");
        assert_eq!(kind(&a.join("new")), Some(std::io::ErrorKind::NotFound));
        let pid = mount_pid(a).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        fs::write(b.join("f"), b"after the stop").unwrap();
        fs::write(b.join("new"), b"n").unwrap();
        assert_eq!(fs::read(b.join("f")).unwrap(), b"after the stop");
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        until("the stopped client is back", || {
            fs::read(a.join("f")).is_ok_and(|bytes| bytes == b"after the stop")
        });
        assert_eq!(kind(&a.join("new")), None);
        assert!(
            site.log_text().contains("is gone"),
            "its eviction is logged"
        );
    });
}

/// Locks do not outlive the box; what they covered is asked for again.
#[test]
fn a_restarted_box_shows_every_mount_the_same() {
    on_mounts("lease = 3s", 2, |site, m| {
        for round in 0..3 {
            fs::write(m[0].join("f"), format!("round {round}")).unwrap();
            assert_eq!(
                fs::read_to_string(m[1].join("f")).unwrap(),
                format!("round {round}")
            );
            assert_eq!(
                kind(&m[1].join(format!("n{round}"))),
                Some(std::io::ErrorKind::NotFound)
            );
            site.kill();
            site.serve();
            let all = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    fs::write(m[0].join(format!("n{round}")), b"x").unwrap();
                    fs::write(m[0].join("f"), b"changed since").unwrap();
                    all.wait();
                });
                all.wait();
                assert_eq!(fs::read(m[1].join("f")).unwrap(), b"changed since");
                assert_eq!(kind(&m[1].join(format!("n{round}"))), None);
            });
        }
    });
}

/// The thin client stays thin (DESIGN §7): 16 MiB and four threads while it is
/// idle; after use it keeps some buffers.
#[test]
fn a_mount_is_small() {
    on_mounts("", 1, |_, m| {
        let pid = mount_pid(&m[0]).unwrap().as_raw_nonzero();
        let of = |key: &str| -> u64 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let line = status.lines().find(|l| l.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        // Code that is not optimized takes more pages.
        let code = if cfg!(debug_assertions) { 4 << 10 } else { 0 };
        let idle = of("VmRSS:");
        assert!(idle <= (16 << 10) + code, "{idle} KiB");
        for n in 0..500 {
            fs::write(m[0].join(format!("f{n}")), [1; 4096]).unwrap();
        }
        for name in names(&m[0]) {
            assert_eq!(fs::read(m[0].join(name)).unwrap().len(), 4096);
        }
        let used = of("VmRSS:");
        assert!(used <= (32 << 10) + code, "{used} KiB");
        // Threads that waited for the kernel go by themselves.
        until("threads have gone", || of("Threads:") <= 4);
    });
}

/// What a kernel keeps of a listing ends with the lock that it rests on, and with
/// its own changes.
#[test]
fn a_listing_that_is_kept_shows_every_change() {
    on_mounts("", 2, |_, m| {
        let dirs = [m[0].join("d"), m[1].join("d")];
        fs::create_dir(&dirs[0]).unwrap();
        for n in 0..40 {
            fs::write(dirs[0].join(format!("there{n}")), b"x").unwrap();
        }
        for n in 0..100 {
            let (own, other) = (&dirs[n % 2], &dirs[1 - n % 2]);
            let name = format!("new{n}");
            fs::write(own.join(&name), b"x").unwrap();
            for _ in 0..3 {
                assert_eq!(names(other).len(), 41, "{n}");
                assert!(names(own).contains(&name), "{n}");
            }
            fs::remove_file(other.join(&name)).unwrap();
            for dir in [own, other, own, other] {
                assert_eq!(names(dir).len(), 40, "{n}");
            }
        }
    });
}

/// One mount unpacks an archive while another lists what there is, over and
/// over: a callback for each directory and second, once it is known that both
/// want it, and not one for each file.
#[test]
fn listing_what_is_being_unpacked_costs_a_callback_a_directory_and_second() {
    const DIRS: u64 = 5;
    const FILES: usize = 150;
    const FIRST: u64 = 10;
    on_mounts("", 2, |site, m| {
        let source = site.path("source");
        for d in 0..DIRS {
            let dir = source.join(format!("top/d{d}"));
            fs::create_dir_all(&dir).unwrap();
            for n in 0..FILES {
                fs::write(dir.join(format!("f{n}")), [7; 600]).unwrap();
            }
        }
        let archive = site.path("all.tar");
        let tar = |args: &[&OsStr]| {
            let done = Command::new("tar").args(args).status().unwrap();
            assert!(done.success());
        };
        let create = ["-C".as_ref(), source.as_os_str(), "-cf".as_ref()];
        tar(&[&create[..], &[archive.as_os_str(), "top".as_ref()]].concat());
        let (before, begun) = (called_back(site), Instant::now());
        let mut listed = 0;
        std::thread::scope(|scope| {
            let unpack = ["-C".as_ref(), m[0].as_os_str(), "-xf".as_ref()];
            let unpacking =
                scope.spawn(move || tar(&[&unpack[..], &[archive.as_os_str()]].concat()));
            while !unpacking.is_finished() {
                let Ok(dirs) = fs::read_dir(m[1].join("top")) else {
                    continue;
                };
                for dir in dirs {
                    for file in fs::read_dir(dir.unwrap().path()).unwrap() {
                        assert!(file.unwrap().metadata().unwrap().len() <= 600);
                    }
                }
                listed += 1;
            }
        });
        let calls = called_back(site) - before;
        let secs = begun.elapsed().as_secs() + 1;
        // The root and the top directory are two more. Each costs some at first:
        // what its maker had to itself, and what was given to the other until
        // both had come back for it.
        let most = (DIRS + 2) * (FIRST + secs);
        assert!(calls <= most, "{calls} callbacks in {secs} s");
        assert!(listed > 0);
        for d in 0..DIRS {
            assert_eq!(names(&m[1].join(format!("top/d{d}"))).len(), FILES);
        }
    });
}

/// Locks that the box has called back.
fn called_back(site: &Site) -> u64 {
    counted(site, "locks called back")
}

/// What the box has counted under this name.
fn counted(site: &Site, what: &str) -> u64 {
    let status = site.status();
    let count = &status["shard"][0]["counters"][what];
    count.as_u64().unwrap_or_else(|| panic!("{status}"))
}
