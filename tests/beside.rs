//! A mount runs where its one caller runs, and by itself again when nobody calls
//! (`fuse/beside`).
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use support::{Site, mount_pid, mounts_missing, until};

/// CPUs that the process's first thread may run on.
fn allowed(pid: i32) -> usize {
    let thread = rustix::process::Pid::from_raw(pid);
    let cpus = rustix::thread::sched_getaffinity(thread).unwrap();
    usize::try_from(cpus.count()).unwrap()
}

/// The word for how the process's first thread is scheduled: 0, or 5 for one that
/// ranks low.
fn policy(pid: i32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).unwrap();
    let words = stat.rsplit_once(')').unwrap().1;
    words.split_whitespace().nth(38).unwrap().to_owned()
}

#[test]
fn a_mount_joins_its_caller_and_parts() {
    let is_root = rustix::process::geteuid().is_root();
    if mounts_missing().is_some() || !is_root || allowed(0) < 2 {
        return;
    }
    let mut site = Site::start("");
    let mount = site.mount("m");
    let file = mount.join("f");
    fs::write(&file, b"x").unwrap();
    let pid = mount_pid(&mount).unwrap().as_raw_nonzero().get();
    let all = allowed(pid);
    assert!(all > 1);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                File::open(&file).unwrap();
            }
        });
        until("the mount is where its caller is", || allowed(pid) == 1);
        is_over.store(true, Relaxed);
    });
    until("it is by itself", || {
        allowed(pid) == all && policy(pid) == "0"
    });
    // Two callers at once are answered from anywhere.
    is_over.store(false, Relaxed);
    let calls = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    File::open(&file).unwrap();
                    calls.fetch_add(1, Relaxed);
                }
            });
        }
        until("both have called often", || calls.load(Relaxed) > 2_000);
        is_over.store(true, Relaxed);
    });
    until("it is by itself again", || allowed(pid) == all);
    // Nor does it stay when the caller is stopped between two calls.
    let unpack = std::process::Command::new("bash")
        .args(["-c", "while :; do : <\"$0\"; done"])
        .arg(&file)
        .spawn();
    let mut caller = unpack.unwrap();
    until("it joins a process, too", || allowed(pid) == 1);
    let id = rustix::process::Pid::from_child(&caller);
    rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
    until("the caller is left", || {
        allowed(pid) == all && policy(pid) == "0"
    });
    caller.kill().unwrap();
    caller.wait().unwrap();
}
