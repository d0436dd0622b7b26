//! Bad input and broken surroundings: each gives one clear message with the
//! remedy and the right exit code, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::{FOREBAY, Site, mounts_missing, text};

/// A directory with an origin and a valid conf, to be spoilt.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::Builder::new()
            .prefix("forebay-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(dir.path().join("origin")).unwrap();
        let bench = Bench { dir };
        bench.conf("");
        bench
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
    fn conf(&self, more: &str) {
        let at = self.dir.path().display();
        let mut text = String::new();
        let lines = [
            ("listen", "127.0.0.1:0".to_owned()),
            ("admin.socket", format!("{at}/admin.sock")),
            ("cache.path", format!("{at}/cache.fb")),
            ("cache.size", "64M".to_owned()),
            ("target.main.origin", format!("posix:{at}/origin")),
        ];
        for (key, value) in lines {
            if !more.contains(key) {
                text.push_str(&format!("{key} = {value}\n"));
            }
        }
        text.push_str(more);
        fs::write(self.path("forebay.conf"), text).unwrap();
    }
    /// Runs `serve`, which is expected to refuse at once.
    fn refused(&self) -> Output {
        Command::new(FOREBAY)
            .args(["serve", "-c"])
            .arg(self.path("forebay.conf"))
            .output()
            .unwrap()
    }
    /// Starts, stops cleanly: leaves a formatted cache behind.
    fn format(&self) {
        let mut child = Command::new("timeout")
            .args(["--signal=TERM", "60", FOREBAY, "serve", "-c"])
            .arg(self.path("forebay.conf"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"\n") && out.read(&mut byte).unwrap() == 1 {
            seen.push(byte[0]);
        }
        assert!(
            seen.starts_with(b"ready on "),
            "{}",
            String::from_utf8_lossy(&seen)
        );
        let stop = Command::new(FOREBAY)
            .args(["shutdown", "--socket"])
            .arg(self.path("admin.sock"))
            .output()
            .unwrap();
        assert!(stop.status.success(), "{}", text(&stop));
        assert!(child.wait().unwrap().success());
    }
}

/// The command ended with `code`, and its one message has all of `words`.
fn says(out: &Output, code: i32, words: &[&str]) {
    let all = text(out);
    assert_eq!(out.status.code(), Some(code), "{all}");
    assert!(!all.contains("panicked"), "{all}");
    for word in words {
        assert!(all.contains(word), "`{word}` is missing in: {all}");
    }
}

#[test]
fn a_wrong_conf() {
    let b = Bench::new();
    b.conf("listne = 1\nmemory = lots\n");
    says(
        &b.refused(),
        2,
        &["listne", "listen", "memory", "64M", "forebay.conf:6"],
    );
    let check = Command::new(FOREBAY)
        .args(["check", "-c"])
        .arg(b.path("forebay.conf"))
        .output()
        .unwrap();
    says(&check, 2, &["listne", "memory"]);
    b.conf("");
    let check = Command::new(FOREBAY)
        .args(["check", "-c"])
        .arg(b.path("forebay.conf"))
        .output()
        .unwrap();
    says(&check, 0, &[]);
    says(
        &Command::new(FOREBAY)
            .args(["serve", "-c", "/nonexistent"])
            .output()
            .unwrap(),
        2,
        &["/nonexistent"],
    );
    says(
        &Command::new(FOREBAY).arg("sreve").output().unwrap(),
        2,
        &["serve"],
    );
}

#[test]
fn cache_files_that_are_not_ours_or_not_whole() {
    let b = Bench::new();
    let cache = b.path("cache.fb");
    fs::write(&cache, vec![0x5A; 1 << 20]).unwrap();
    says(&b.refused(), 3, &["cache.fb", "not a Forebay cache"]);
    assert_eq!(
        fs::read(&cache).unwrap(),
        vec![0x5A; 1 << 20],
        "a foreign file is left alone"
    );
    fs::remove_file(&cache).unwrap();
    b.format();
    let whole = fs::read(&cache).unwrap();
    fs::write(&cache, &whole[..whole.len() / 2]).unwrap();
    says(&b.refused(), 3, &["cache.fb", "cut short"]);
    let mut other = whole.clone();
    // The format version follows the magic in both copies of the superblock.
    for at in superblocks(&whole) {
        other[at + 8] = 0xEE;
    }
    fs::write(&cache, &other).unwrap();
    says(&b.refused(), 3, &["cache.fb", "format 238"]);
    fs::write(&cache, &whole).unwrap();
    b.format();
}

/// Offsets of the superblock's copies: where the first eight bytes stand again.
fn superblocks(image: &[u8]) -> Vec<usize> {
    (0..1 << 20)
        .step_by(4096)
        .filter(|&at| image[at..at + 8] == image[..8])
        .collect()
}

#[test]
fn a_cache_too_small_and_a_cache_in_use() {
    let b = Bench::new();
    b.conf("cache.size = 1M\n");
    says(&b.refused(), 2, &["cache.size", "64M"]);
    let site = Site::start("");
    let conf = fs::read_to_string(site.conf()).unwrap();
    let (at, own) = (site.path("other.conf"), site.path("other.sock"));
    let conf = conf.replace(&site.addr.to_string(), "127.0.0.1:0");
    fs::write(
        &at,
        conf.replace(
            &site.path("admin.sock").display().to_string(),
            &own.display().to_string(),
        ),
    )
    .unwrap();
    let out = Command::new(FOREBAY)
        .args(["serve", "-c"])
        .arg(&at)
        .output()
        .unwrap();
    says(&out, 3, &["another box is using the cache"]);
}

#[test]
fn origins_that_cannot_be_served() {
    let b = Bench::new();
    fs::remove_dir(b.path("origin")).unwrap();
    says(&b.refused(), 1, &["origin", "main"]);
    fs::write(b.path("origin"), b"a file").unwrap();
    says(&b.refused(), 1, &["origin", "not a directory"]);
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let b = Bench::new();
    b.conf(&format!("listen = {}\n", taken.local_addr().unwrap()));
    says(&b.refused(), 1, &["in use", "listen"]);
}

#[test]
fn little_locked_memory() {
    let b = Bench::new();
    let script = format!(
        "ulimit -l 64; '{FOREBAY}' serve -c '{}' & pid=$!; \
         for i in $(seq 100); do '{FOREBAY}' status --socket '{}' && break; sleep 0.1; done; kill $pid; wait $pid",
        b.path("forebay.conf").display(),
        b.path("admin.sock").display()
    );
    let out = Command::new("bash").args(["-c", &script]).output().unwrap();
    says(&out, 0, &["ready on"]);
}

/// Makes `io_uring_setup` fail in the command's process, as a hardened kernel does.
fn without_io_uring(command: &mut Command) {
    let deny = || {
        let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let setup = libc::SYS_io_uring_setup as u32;
        let errno = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        let mut program = [
            // The system call's number is the first word of what is filtered.
            jump(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup, 0, 1),
            jump(libc::BPF_RET | libc::BPF_K, errno, 0, 0),
            jump(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: both calls only read their arguments, which live until they
        // return, and are allowed between fork and exec.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) == 0
        };
        if done {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: `deny` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(deny) };
}

#[test]
fn io_uring_disabled() {
    let b = Bench::new();
    let mut command = Command::new(FOREBAY);
    command.args(["serve", "-c"]).arg(b.path("forebay.conf"));
    without_io_uring(&mut command);
    says(
        &command.output().unwrap(),
        1,
        &["io_uring", "kernel.io_uring_disabled"],
    );
}

#[test]
fn an_origin_that_is_read_only() {
    if mounts_missing().is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut site = Site::start_on("", |dir| {
        support::sh(
            dir,
            "echo old > origin/old; mount --bind origin origin; mount -o remount,ro,bind origin",
        );
    });
    let m = site.mount("mnt");
    assert_eq!(fs::read_to_string(m.join("old")).unwrap(), "old\n");
    let refused = fs::write(m.join("new"), b"x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let counted = &site.status()["shard"][0]["counters"]["refused"];
    assert!(counted["ENOENT(2)"].as_u64() >= Some(1), "{counted}");
    let log = site.log_text();
    assert!(log.contains("its origin is mounted read-only"), "{log}");
    site.umount(&m);
    site.stop();
    support::sh(site.dir.path(), "umount origin");
}

#[test]
fn a_stale_mount_says_how_to_clear_it() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let m = site.mount("mnt");
    let pid = support::mount_pid(&m).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let source = format!("{}/main", site.addr);
    let again = || {
        Command::new(FOREBAY)
            .args(["mount", &source])
            .arg(&m)
            .output()
            .unwrap()
    };
    says(&again(), 1, &["stale", "forebay umount"]);
    site.umount(&m);
    site.mount("mnt");
    site.umount(&m);
    site.stop();
}

#[test]
fn mount_points_and_boxes_that_are_not_there() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let mount = |source: &str, dir: &Path| {
        Command::new(FOREBAY)
            .args(["mount", source])
            .arg(dir)
            .output()
            .unwrap()
    };
    let main = format!("{}/main", site.addr);
    says(&mount(&main, &site.path("absent")), 1, &["absent", "mkdir"]);
    fs::write(site.path("file"), b"").unwrap();
    says(&mount(&main, &site.path("file")), 1, &["file", "directory"]);
    fs::create_dir(site.path("dir")).unwrap();
    says(
        &mount(&format!("{}/other", site.addr), &site.path("dir")),
        1,
        &["other", "target"],
    );
    says(&mount("nonsense", &site.path("dir")), 2, &["HOST"]);
    let out = Command::new(FOREBAY)
        .args(["mount", "-o", "color=red", &main])
        .arg(site.path("dir"))
        .output();
    says(&out.unwrap(), 2, &["color"]);
    says(
        &Command::new(FOREBAY)
            .arg("umount")
            .arg(site.path("dir"))
            .output()
            .unwrap(),
        1,
        &["not"],
    );
    let m = site.mount("mnt");
    fs::write(m.join("x"), b"1").unwrap();
    site.umount(&m);
    let gone = site.forebay(&["status"]);
    says(&gone, 0, &[]);
    site.stop();
    says(&site.forebay(&["status"]), 1, &["admin.sock"]);
}

#[test]
fn a_garbage_peer_loses_its_connection_and_nobody_else_notices() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let m = site.mount("mnt");
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..50 {
        let mut peer = TcpStream::connect(site.addr).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut junk: Vec<u8> = (0..rng.usize(32..5000)).map(|_| rng.u8(..)).collect();
        if round % 2 == 0 {
            // A right beginning with a wrong rest.
            junk[..8].copy_from_slice(b"FBAY\x01\x58\x01\x00");
        }
        let _ = peer.write_all(&junk);
        let _ = peer.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer);
        fs::write(m.join("f"), round.to_string()).unwrap();
        assert_eq!(fs::read_to_string(m.join("f")).unwrap(), round.to_string());
    }
    // Each has its log line and is counted (section 12, number 10).
    let status = site.status();
    assert_eq!(status["connections"]["accepted"], 51, "{status}");
    assert_eq!(status["connections"]["turned away"], 50, "{status}");
    assert!(
        status["logged"]["warnings"].as_u64() >= Some(50),
        "{status}"
    );
    assert!(
        status["shard"][0]["counters"]["requests"].as_u64() > Some(100),
        "{status}"
    );
    site.umount(&m);
    site.stop();
}

#[test]
fn an_origin_without_space_loses_nothing() {
    if mounts_missing().is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    // 8 MiB of origin.
    let prepare = |dir: &Path| {
        support::sh(dir, "mount -t tmpfs -o size=8M tmpfs origin");
    };
    let mut site = Site::start_on("target.main.writeback = 1s\n", prepare);
    let m = site.mount("mnt");
    let bytes: Vec<u8> = (0..16u32 << 20).map(|i| (i % 249) as u8).collect();
    fs::write(m.join("big"), &bytes).unwrap();
    fs::File::open(m.join("big")).unwrap().sync_all().unwrap();
    let flush = site.forebay(&["flush", "main", "--wait"]);
    says(&flush, 1, &["space"]);
    assert_eq!(fs::read(m.join("big")).unwrap(), bytes);
    support::sh(site.dir.path(), "mount -o remount,size=64M origin");
    site.flush();
    assert_eq!(fs::read(site.origin().join("big")).unwrap(), bytes);
    site.umount(&m);
    site.stop();
    support::sh(site.dir.path(), "umount origin");
}

#[test]
fn a_full_cache_makes_writers_wait_for_the_origin_and_loses_nothing() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("cache.size = 64M\ntarget.main.writeback = 10m\n");
    let m = site.mount("mnt");
    let block: Vec<u8> = (0..1u32 << 20).map(|i| (i % 241) as u8).collect();
    for i in 0..200 {
        fs::write(m.join(format!("f{i}")), &block).unwrap();
    }
    for i in 0..200 {
        assert!(fs::read(m.join(format!("f{i}"))).unwrap() == block, "f{i}");
    }
    site.umount(&m);
    site.stop();
}
