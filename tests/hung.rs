//! An origin that hangs, on real processes: the origin of one target is the
//! mount of another box, which is stopped in the middle of it all. Its calls
//! then neither fail nor end, as those of a dead NFS server.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;
use support::{Site, mounts_missing, until};

/// A box whose target `far` has the mount of an upstream box as its origin.
/// The upstream goes first: it ends calls that would hold the box.
struct Chain {
    upstream: Upstream,
    site: Site,
}

struct Upstream {
    site: Site,
    /// The tree that is the origin.
    mount: PathBuf,
    /// While the box is stopped.
    leash: Option<Leash>,
}

struct Leash {
    on: mpsc::Sender<()>,
    /// Whether it had to be pulled.
    thread: JoinHandle<bool>,
}

impl Upstream {
    /// Stops the upstream box. Should the test itself come to wait for it, the
    /// box goes on after two minutes, and `go_on` fails the test.
    fn stop(&mut self) {
        let pid = Pid::from_raw(self.site.server_pid().cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        let (on, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late =
                told.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout);
            kill_process(pid, Signal::CONT).unwrap();
            late
        });
        self.leash = Some(Leash { on, thread });
    }

    fn go_on(&mut self) {
        let leash = self.leash.take().unwrap();
        let _ = leash.on.send(());
        assert!(
            !leash.thread.join().unwrap(),
            "something waited for the origin"
        );
    }
}

impl Drop for Upstream {
    /// A box that is stopped answers nobody, so that a failed test could not
    /// even ask its mount for the process to end.
    fn drop(&mut self) {
        if let Some(leash) = self.leash.take() {
            let _ = leash.on.send(());
            let _ = leash.thread.join();
        }
    }
}

impl Chain {
    fn start(conf: &str) -> Chain {
        let mut up = Site::start("");
        let tree = up.origin().join("tree");
        fs::create_dir_all(tree.join("dir")).unwrap();
        fs::write(tree.join("cached"), content(1)).unwrap();
        for i in 0..COLD {
            fs::write(tree.join(format!("cold{i}")), content(i)).unwrap();
        }
        // Below the root, where names of a box's own mean nothing.
        let mount = up.mount("mnt").join("tree");
        let far = format!("target.far.origin = posix:{}\n{conf}", mount.display());
        let site = Site::start(&far);
        let upstream = Upstream {
            site: up,
            mount,
            leash: None,
        };
        Chain { upstream, site }
    }
}

/// More than the target has threads, so that all of them hang.
const COLD: u32 = 12;

fn content(n: u32) -> Vec<u8> {
    (0..500_000u32).map(|i| (i * (n + 3) % 251) as u8).collect()
}

/// Reads a file in a thread, because it may take until the origin is back.
fn reader(path: PathBuf, n: u32, done: &Arc<AtomicU32>) -> JoinHandle<()> {
    let done = Arc::clone(done);
    std::thread::spawn(move || {
        assert!(fs::read(&path).unwrap() == content(n), "{}", path.display());
        done.fetch_add(1, Ordering::Release);
    })
}

/// O10, and §12 no. 9 of the design: what hangs holds only what needs it.
#[test]
fn a_hung_origin_holds_only_what_needs_it_o10() {
    if mounts_missing().is_some() {
        return;
    }
    let lag = "target.far.origin.threads = 4\ntarget.far.writeback = 100ms\n";
    let mut chain = Chain::start(lag);
    let far = chain.site.mount_target("far", "far");
    let near = chain.site.mount("near");
    assert_eq!(fs::read(far.join("cached")).unwrap(), content(1));
    assert_eq!(fs::read_dir(&far).unwrap().count(), COLD as usize + 2);
    warm(&far);
    chain.site.flush_target("far");

    chain.upstream.stop();
    // Files to be carried first: write-back hangs too, and the misses behind it.
    for i in 0..20 {
        fs::write(far.join(format!("dir/new{i}")), content(i)).unwrap();
    }
    let done = Arc::new(AtomicU32::new(0));
    let readers: Vec<_> = (0..COLD)
        .map(|i| reader(far.join(format!("cold{i}")), i, &done))
        .collect();
    let running = |site: &Site| requests_running(site, 2);
    until("the misses are at the box", || running(&chain.site) > 0);
    for round in 0..20 {
        // What is cached, or only the box's business, goes on.
        assert_eq!(fs::read(far.join("cached")).unwrap(), content(1));
        fs::write(far.join("dir/here"), round.to_string()).unwrap();
        let f = fs::File::open(far.join("dir/here")).unwrap();
        f.sync_all().unwrap();
        fs::rename(far.join("dir/here"), far.join("dir/there")).unwrap();
        assert_eq!(fs::read_dir(far.join("dir")).unwrap().count(), 21);
        // So does the other target, with its origin.
        fs::write(near.join("file"), round.to_string()).unwrap();
        chain.site.flush();
        let at_origin = fs::read_to_string(chain.site.origin().join("file")).unwrap();
        assert_eq!(at_origin, round.to_string());
        // And newcomers, and the administrator.
        if round % 5 == 0 {
            let more = chain.site.mount_target("far", "more");
            assert_eq!(fs::read(more.join("cached")).unwrap(), content(1));
            chain.site.umount(&more);
        }
    }
    assert!(owed(&chain.site) > 0, "write-back is held up");
    assert_eq!(done.load(Ordering::Acquire), 0, "misses wait");

    chain.upstream.go_on();
    until("all misses ended", || {
        readers.iter().all(JoinHandle::is_finished)
    });
    for reader in readers {
        reader.join().expect("the miss ended with the right bytes");
    }
    chain.site.flush_target("far");
    assert_eq!(owed(&chain.site), 0);
    for i in 0..20 {
        let carried = fs::read(chain.upstream.mount.join(format!("dir/new{i}"))).unwrap();
        assert!(carried == content(i), "new{i}");
    }
    let carried = fs::read_to_string(chain.upstream.mount.join("dir/there")).unwrap();
    assert_eq!(carried, "19");
    chain.site.umount(&far);
    chain.site.umount(&near);
    chain.site.stop();
    let mount = chain.upstream.site.path("mnt");
    chain.upstream.site.umount(&mount);
    chain.upstream.site.stop();
}

/// A box that is killed while its origin hangs: a successor serves what is
/// cached although the origin still hangs, and carries the rest when it is back.
#[test]
fn a_box_restarts_beside_a_hung_origin() {
    if mounts_missing().is_some() {
        return;
    }
    let mut chain = Chain::start("target.far.writeback = 100ms\n");
    let far = chain.site.mount_target("far", "far");
    assert_eq!(fs::read(far.join("cached")).unwrap(), content(1));
    warm(&far);
    chain.site.flush_target("far");
    // Stopped cleanly: a process whose thread is within a call that hangs
    // cannot be reaped before that call ends, whoever kills it.
    chain.site.stop();
    chain.upstream.stop();
    chain.site.serve();
    assert_eq!(fs::read(far.join("cached")).unwrap(), content(1));
    fs::write(far.join("dir/new"), content(7)).unwrap();
    fs::File::open(far.join("dir/new"))
        .unwrap()
        .sync_all()
        .unwrap();
    assert!(owed(&chain.site) > 0);

    chain.upstream.go_on();
    chain.site.flush_target("far");
    let carried = fs::read(chain.upstream.mount.join("dir/new")).unwrap();
    assert_eq!(carried, content(7));
    chain.site.umount(&far);
    chain.site.stop();
    let mount = chain.upstream.site.path("mnt");
    chain.upstream.site.umount(&mount);
    chain.upstream.site.stop();
}

/// O15: the root of a box's mount is an origin like any other; the probe of it
/// asks for none of the names that the upstream box keeps to itself.
#[test]
fn the_root_of_another_boxs_mount_can_be_changed_o15() {
    if mounts_missing().is_some() {
        return;
    }
    let mut up = Site::start("");
    let mount = up.mount("mnt");
    let mut site = Site::start(&format!("target.far.origin = posix:{}\n", mount.display()));
    let far = site.mount_target("far", "far");
    fs::write(far.join("made"), b"here").unwrap();
    site.flush_target("far");
    up.flush();
    assert_eq!(fs::read(up.origin().join("made")).unwrap(), b"here");
    // Nothing is left of the probe, at either origin.
    assert_eq!(fs::read_dir(&mount).unwrap().count(), 1);
    assert!(
        !site.log_text().contains("read-only"),
        "{}",
        site.log_text()
    );
    site.umount(&far);
    site.stop();
    up.umount(&mount);
    up.stop();
}

/// Listed, `dir` takes names by itself: the box knows its entries, and the ACL
/// that new files inherit.
fn warm(far: &Path) {
    let dir = far.join("dir");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
}

/// Operations and files that `far` still owes its origin.
fn owed(site: &Site) -> u64 {
    let (_, status) = site.target_status("far");
    let number = |key: &str| status[key].as_u64().unwrap_or(0);
    number("owed operations") + number("dirty files") + number("more dirty files")
}

/// Requests that run for the clients of a target, by its number.
fn requests_running(site: &Site, target: u64) -> u64 {
    let status = site.status();
    let shards = status["shard"].as_array().unwrap();
    let clients = shards.iter().flat_map(|s| s["clients"].as_array().unwrap());
    let running = clients
        .filter(|c| c["target"] == target)
        .map(|c| c["requests running"].as_u64().unwrap());
    running.sum()
}
