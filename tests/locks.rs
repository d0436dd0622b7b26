//! File locks between processes on two mounts of one box.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

#[path = "locks/calls.rs"]
mod calls;

use calls::{ALL, Child, END, Lock, blocked, fcntl, flock, lock, ofd, test};
use rustix::fs::FlockOperation as Flock;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use support::{Site, mount_pid, mounts_missing, until};

/// Runs `body` with two mounts of one box that share a file.
fn on_two_mounts(conf: &str, body: impl FnOnce(&mut Site, &Path, &Path)) {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(conf);
    let (a, b) = (site.mount("a"), site.mount("b"));
    std::fs::write(a.join("f"), b"0123456789").unwrap();
    std::fs::write(a.join("g"), b"").unwrap();
    body(&mut site, &a.join("f"), &b.join("f"));
}

fn open(path: &Path) -> File {
    let file = OpenOptions::new().read(true).write(true).open(path);
    file.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn beside(path: &Path) -> PathBuf {
    path.with_file_name("g")
}

/// Locks of the box's only shard: granted, and waited for.
fn counts(site: &Site) -> (u64, u64) {
    let shard = site.status()["shard"][0].clone();
    let number = |name: &str| shard[name].as_u64().unwrap();
    (number("file locks"), number("file lock waits"))
}

fn until_waiting(site: &Site, waits: u64) {
    until("the box has the wait", || counts(site).1 == waits);
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn ranges_conflict_between_mounts() {
    on_two_mounts("", |site, a, b| {
        let (a, b) = (open(a), open(b));
        fcntl(&a, Lock::Write, 10..20).unwrap();
        assert_eq!(fcntl(&b, Lock::Read, 19..30), Err(libc::EAGAIN));
        assert_eq!(fcntl(&b, Lock::Write, 0..10), Ok(()));
        assert_eq!(fcntl(&b, Lock::Write, 20..END), Ok(()), "to the end");
        assert_eq!(test(&a, Lock::Read, 0..5), Some((Lock::Write, 0..10, 0)));
        assert_eq!(
            test(&a, Lock::Read, 1 << 40..END),
            Some((Lock::Write, 20..END, 0))
        );
        assert_eq!(test(&a, Lock::Write, 10..20), None);

        // Down to shared in the middle, and gone at one end.
        fcntl(&a, Lock::Read, 12..15).unwrap();
        fcntl(&b, Lock::Read, 12..15).unwrap();
        assert_eq!(fcntl(&b, Lock::Write, 12..15), Err(libc::EAGAIN));
        fcntl(&a, Lock::Unlock, 15..20).unwrap();
        fcntl(&b, Lock::Write, 15..20).unwrap();
        assert_eq!(test(&b, Lock::Read, ALL), Some((Lock::Write, 10..12, 0)));
        assert_eq!(counts(site), (2 + 3, 0));

        // Another process on the same mount is another owner, and is named.
        let child = Child::start("fcntl", &site.path("b/g"));
        let g = open(&site.path("b/g"));
        assert_eq!(fcntl(&g, Lock::Read, ALL), Err(libc::EAGAIN));
        let (kind, range, pid) = test(&g, Lock::Read, ALL).unwrap();
        assert_eq!((kind, range, pid), (Lock::Write, ALL, child.pid()));
        child.kill();
        until("its locks went with it", || {
            test(&g, Lock::Read, ALL).is_none()
        });

        // One close of a file ends all locks of the process on it.
        drop(File::open(site.path("b/f")).unwrap());
        assert_eq!(fcntl(&a, Lock::Write, ALL), Ok(()));
        assert_eq!(counts(site), (1, 0));
    });
}

#[test]
fn flock_between_mounts() {
    on_two_mounts("", |site, a, b| {
        let (a, b, also_b) = (open(a), open(b), open(b));
        flock(&a, Flock::LockShared).unwrap();
        flock(&b, Flock::LockShared).unwrap();
        assert_eq!(
            flock(&also_b, Flock::NonBlockingLockExclusive),
            Err(libc::EAGAIN)
        );
        assert_eq!(
            flock(&b, Flock::NonBlockingLockExclusive),
            Err(libc::EAGAIN)
        );
        // As on Linux, the attempt has cost the shared lock.
        flock(&a, Flock::NonBlockingLockExclusive).unwrap();
        // fcntl locks do not meet it.
        fcntl(&b, Lock::Write, ALL).unwrap();
        assert_eq!(flock(&b, Flock::NonBlockingLockShared), Err(libc::EAGAIN));
        flock(&a, Flock::Unlock).unwrap();
        flock(&b, Flock::NonBlockingLockExclusive).unwrap();
        assert_eq!(counts(site), (2, 0));
        let twin = b.try_clone().unwrap();
        drop(b);
        assert_eq!(flock(&a, Flock::NonBlockingLockShared), Err(libc::EAGAIN));
        drop(twin);
        flock(&a, Flock::LockShared).unwrap();
    });
}

#[test]
fn a_lock_is_handed_over_when_its_holder_unlocks_closes_or_dies() {
    on_two_mounts("", |site, a, b| {
        // Unlocks, in the order of the waits.
        let holder = open(a);
        fcntl(&holder, Lock::Write, ALL).unwrap();
        let first = blocked("fcntl", b);
        until_waiting(site, 1);
        let second = blocked("fcntl", a);
        until_waiting(site, 2);
        fcntl(&holder, Lock::Unlock, ALL).unwrap();
        let first = first.wait_for_lock();
        assert_eq!(counts(site), (1, 1));
        first.kill();
        second.wait_for_lock().kill();

        // Closes, and is killed.
        flock(&holder, Flock::LockExclusive).unwrap();
        let waiter = blocked("flock", b);
        until_waiting(site, 1);
        drop(holder);
        let waiter = waiter.wait_for_lock();
        let next = blocked("flock", a);
        until_waiting(site, 1);
        waiter.kill();
        next.wait_for_lock().kill();
        until("all is given up", || counts(site) == (0, 0));
    });
}

#[test]
fn a_mount_that_dies_is_evicted_and_its_locks_go_on() {
    on_two_mounts("lease = 1s\n", |site, a, b| {
        let holders = [Child::start("fcntl", a), Child::start("flock", a)];
        let waiters = [blocked("fcntl", b), blocked("flock", b)];
        until_waiting(site, 2);
        let pid = mount_pid(a.parent().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        for waiter in waiters {
            waiter.wait_for_lock().kill();
        }
        assert!(site.log_text().contains("is gone: silent for"));
        for holder in holders {
            holder.kill();
        }
    });
}

#[test]
fn a_mount_that_was_evicted_says_so_once_and_goes_on() {
    on_two_mounts("lease = 1s\n", |site, a, b| {
        let holder = open(a);
        flock(&holder, Flock::LockExclusive).unwrap();
        let waiter = blocked("flock", b);
        until_waiting(site, 1);
        let pid = mount_pid(a.parent().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let waiter = waiter.wait_for_lock();
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        let mut said = flock(&holder, Flock::NonBlockingLockExclusive);
        // Until it knows, it asks a box that does not answer it.
        until("it is told", || {
            let is_told = said == Err(libc::EIO);
            said = flock(&holder, Flock::NonBlockingLockExclusive);
            is_told
        });
        assert_eq!(said, Err(libc::EAGAIN));
        waiter.kill();
        flock(&holder, Flock::LockExclusive).unwrap();
    });
}

#[test]
fn processes_on_two_mounts_that_wait_for_each_other_are_told() {
    on_two_mounts("", |site, a, b| {
        let (f, g) = (open(a), open(&beside(a)));
        fcntl(&f, Lock::Write, 0..1).unwrap();
        // Holds g on the other mount, and asks for f.
        let other = Child::start("fcntl-then-beside", &beside(b));
        until_waiting(site, 1);
        assert_eq!(lock(&g, Lock::Write, 5..6), Err(libc::EDEADLK));
        assert_eq!(fcntl(&g, Lock::Write, 5..6), Err(libc::EAGAIN));
        fcntl(&f, Lock::Unlock, 0..1).unwrap();
        other.wait_for_lock().kill();
        assert_eq!(lock(&g, Lock::Write, 5..6), Ok(()));
    });
}

#[test]
fn locks_of_open_files_end_with_them() {
    on_two_mounts("", |site, a, b| {
        let (one, two, other) = (open(a), open(a), open(b));
        ofd(&one, Lock::Write, 0..4).unwrap();
        assert_eq!(ofd(&two, Lock::Read, 3..5), Err(libc::EAGAIN));
        assert_eq!(ofd(&other, Lock::Read, 3..5), Err(libc::EAGAIN));
        // A close of another descriptor of the file takes only a process's locks.
        drop(two);
        assert_eq!(ofd(&other, Lock::Read, 3..5), Err(libc::EAGAIN));
        let waiter = blocked("ofd", b);
        until_waiting(site, 1);
        drop(one);
        waiter.wait_for_lock().kill();
        until("all is given up", || counts(site) == (0, 0));
    });
}

#[test]
fn a_signal_ends_a_wait() {
    on_two_mounts("", |site, a, b| {
        let holder = open(a);
        fcntl(&holder, Lock::Write, ALL).unwrap();
        flock(&holder, Flock::LockExclusive).unwrap();
        for kind in ["fcntl", "flock"] {
            let waiter = blocked(kind, b);
            until_waiting(site, 1);
            waiter.signal();
            assert_eq!(waiter.outcome(), format!("errno {}", libc::EINTR));
            assert_eq!(counts(site), (2, 0));
        }
        // So does a death.
        let waiter = blocked("flock", b);
        until_waiting(site, 1);
        waiter.kill();
        until_waiting(site, 0);
        flock(&holder, Flock::Unlock).unwrap();
        flock(&open(b), Flock::NonBlockingLockExclusive).unwrap();
    });
}

#[test]
fn a_mount_that_is_torn_off_leaves_no_waits() {
    on_two_mounts("", |site, a, b| {
        let holder = open(a);
        flock(&holder, Flock::LockExclusive).unwrap();
        let waiter = blocked("flock", b);
        until_waiting(site, 1);
        let mount = b.parent().unwrap();
        let pid = mount_pid(mount).unwrap().as_raw_nonzero();
        // The kernel ends the connection; the mount point is busy still.
        let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::FORCE);
        assert_ne!(waiter.outcome(), "locked");
        until_waiting(site, 0);
        let proc = PathBuf::from(format!("/proc/{pid}"));
        until("the mount process has ended", || !proc.exists());
        flock(&holder, Flock::Unlock).unwrap();
        assert_eq!(counts(site), (0, 0));
    });
}

/// L6: waits use up no reply slots, so that the unlock can be sent.
#[test]
fn more_waits_than_reply_slots() {
    on_two_mounts("", |site, a, _| {
        let holder = open(a);
        flock(&holder, Flock::LockExclusive).unwrap();
        let (tell, heard) = mpsc::channel();
        let waiters: Vec<_> = (0..WAITS)
            .map(|_| {
                let (file, tell) = (open(a), tell.clone());
                std::thread::spawn(move || {
                    flock(&file, Flock::LockExclusive).unwrap();
                    tell.send(()).unwrap();
                    flock(&file, Flock::Unlock).unwrap();
                })
            })
            .collect();
        until_waiting(site, WAITS);
        assert!(heard.try_recv().is_err());
        flock(&holder, Flock::Unlock).unwrap();
        for _ in 0..WAITS {
            heard.recv_timeout(SOON).unwrap();
        }
        waiters.into_iter().for_each(|t| t.join().unwrap());
    });
}

/// More than a mount has reply slots.
const WAITS: u64 = 150;

#[test]
fn locks_and_waits_survive_a_box_that_is_killed() {
    on_two_mounts("", |site, a, b| {
        let holder = open(a);
        fcntl(&holder, Lock::Write, 2..4).unwrap();
        fcntl(&holder, Lock::Read, 4..6).unwrap();
        flock(&holder, Flock::LockShared).unwrap();
        let own = open(&beside(b));
        ofd(&own, Lock::Write, ALL).unwrap();
        let waiters = [blocked("fcntl", b), blocked("flock", b)];
        until_waiting(site, 2);
        for clean in [false, true] {
            if clean {
                site.stop();
            } else {
                site.kill();
            }
            site.serve();
            // Nobody is given a lock before all that had some have come.
            let other = open(b);
            assert_eq!(fcntl(&other, Lock::Write, 3..5), Err(libc::EAGAIN));
            assert_eq!(fcntl(&other, Lock::Read, 4..6), Ok(()));
            fcntl(&other, Lock::Unlock, 4..6).unwrap();
            assert_eq!(
                flock(&other, Flock::NonBlockingLockExclusive),
                Err(libc::EAGAIN)
            );
            let second = open(&beside(a));
            assert_eq!(ofd(&second, Lock::Read, 0..1), Err(libc::EAGAIN));
            until_waiting(site, 2);
            assert_eq!(counts(site).0, 4);
        }
        flock(&holder, Flock::Unlock).unwrap();
        fcntl(&holder, Lock::Unlock, ALL).unwrap();
        for waiter in waiters {
            waiter.wait_for_lock().kill();
        }
        assert!(!site.log_text().contains("did not come back"));
    });
}

/// The other process of the tests above: takes a lock, says so, and waits for
/// its end. Does nothing where nobody asks for it.
#[test]
fn as_another_process() {
    calls::run_child();
}
