//! Custody on real boxes, mounts and origins: what the command and the attribute
//! say is compared with what the origin really has.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use support::{FOREBAY, Site, mounts_missing, sh, text, until};

const CUSTODY: &str = "user.forebay.custody";
const HOUR: &str = "target.main.writeback = 1h\n";

/// The attribute's pairs.
fn told(path: &Path) -> BTreeMap<String, String> {
    let mut value = [0; 512];
    let n = rustix::fs::getxattr(path, CUSTODY, &mut value).unwrap();
    let line = std::str::from_utf8(&value[..n]).unwrap();
    let pairs = line.split(' ').map(|pair| pair.split_once('=').unwrap());
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn place(path: &Path) -> String {
    told(path).remove("where").unwrap()
}

fn wish(path: &Path, value: &str) -> Result<(), Errno> {
    rustix::fs::setxattr(path, CUSTODY, value.as_bytes(), XattrFlags::empty())
}

/// Written, and on the box's flash.
fn put(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// What is told between two tries.
fn refused(path: &Path) -> BTreeMap<String, String> {
    let mut pairs = told(path);
    until("it was refused", || {
        pairs = told(path);
        pairs["why"] == "refused"
    });
    pairs
}

/// What the command says, as JSON.
fn asked(site: &Site, what: &str) -> serde_json::Value {
    let out = site.forebay(&["custody", what, "--json"]);
    assert!(out.status.success(), "{}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_dirty_file_is_on_flash_until_it_is_flushed() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(HOUR);
    let m = site.mount("mnt");
    fs::create_dir(m.join("d")).unwrap();
    let (f, there) = (m.join("d/f"), site.origin().join("d/f"));
    put(&f, &[7; 4096]);
    let pairs = told(&f);
    let is = |key: &str, value: &str| assert_eq!(pairs[key], value, "{pairs:?}");
    is("where", "flash");
    is("dirty", "4096");
    is("copies", "1");
    is("why", "lag");
    is("names", "1");
    assert!(!there.exists());
    let all = asked(&site, "main/d/f");
    assert_eq!(all["custody"]["where"], "flash", "{all}");
    assert_eq!(all["custody"]["dirty bytes"], 4096, "{all}");
    let status = &site.target_status("main").1["custody"];
    assert_eq!(status["flash bytes"], 4096, "{status}");
    let out = site.forebay(&["flush", "main/d", "--wait"]);
    assert!(out.status.success(), "{}", text(&out));
    assert_eq!(text(&out), "", "nobody looks on: nothing is shown");
    assert_eq!(fs::read(&there).unwrap(), [7; 4096]);
    assert_eq!(place(&f), "origin");
    assert_eq!(place(&m.join("d")), "origin");
    assert_eq!(asked(&site, "main/d/f")["custody"]["where"], "origin");
    assert_eq!(asked(&site, "main/d")["summary"]["files"], 0);
    // Changed again, without a word to the box's flash: whatever it says is true.
    fs::write(&f, [8; 100]).unwrap();
    let now = place(&f);
    assert!(now == "memory" || now == "flash", "{now}");
    File::open(&f).unwrap().sync_all().unwrap();
    assert_eq!(place(&f), "flash");
    assert_eq!(fs::read(&there).unwrap(), [7; 4096]);
    site.umount(&m);
    site.stop();
    assert_eq!(fs::read(&there).unwrap(), [8; 100], "a clean stop drains");
}

#[test]
fn the_list_is_oldest_first_for_people_and_programs() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(HOUR);
    let m = site.mount("mnt");
    fs::create_dir(m.join("d")).unwrap();
    for n in 0..30 {
        put(&m.join(format!("d/f{n:02}")), &[1; 1000]);
    }
    put(&m.join("beside"), b"x");
    let shown = site.forebay(&["custody", "main/d"]);
    let shown = text(&shown);
    assert!(
        shown.contains("30000 bytes on flash (copies: 1)"),
        "{shown}"
    );
    let (a, b) = (shown.find(" d/f00").unwrap(), shown.find(" d/f05").unwrap());
    assert!(a < b && !shown.contains("beside"), "{shown}");
    // 30 files and their directory, of which 20 rows are shown.
    assert!(shown.contains("and 11 more: --all"), "{shown}");
    let all = site.forebay(&["custody", "main/d", "--all", "--json"]);
    let all = text(&all);
    let lines: Vec<serde_json::Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["summary"]["files"], 31, "{all}");
    let paths = lines[1..].iter().filter(|row| row["path"] != "d");
    let paths: Vec<_> = paths.map(|row| row["path"].as_str().unwrap()).collect();
    let wanted: Vec<_> = (0..30).map(|n| format!("d/f{n:02}")).collect();
    assert_eq!(paths, wanted);
    let people = text(&site.forebay(&["custody", "main", "--all"]));
    assert!(
        people.contains(" beside") && !people.contains("more:"),
        "{people}"
    );
    site.umount(&m);
    site.stop();
}

#[test]
fn what_is_not_there_is_refused_with_a_remedy() {
    let mut site = Site::start("");
    let says = |args: &[&str], words: &[&str]| {
        let out = site.forebay(args);
        assert_eq!(out.status.code(), Some(1), "{}", text(&out));
        for word in words {
            assert!(text(&out).contains(word), "{word}: {}", text(&out));
        }
    };
    says(
        &["custody", "other"],
        &["no target other", "forebay status"],
    );
    let remedy = "`forebay custody main`";
    says(
        &["custody", "main/no/such"],
        &["main/no/such", "no such file", remedy],
    );
    site.stop();
    says_gone(&site);
}

fn says_gone(site: &Site) {
    let out = site.forebay(&["custody", "main"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out).contains("no box answers"), "{}", text(&out));
}

#[test]
fn custody_is_right_after_a_kill_of_the_box() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(HOUR);
    let m = site.mount("mnt");
    put(&m.join("carried"), &[1; 3000]);
    site.flush();
    put(&m.join("kept"), &[2; 5000]);
    site.kill();
    site.serve();
    assert_eq!(place(&m.join("carried")), "origin");
    let kept = told(&m.join("kept"));
    assert_eq!(
        (&*kept["where"], &*kept["dirty"]),
        ("flash", "5000"),
        "{kept:?}"
    );
    let all = asked(&site, "main");
    assert_eq!(all["summary"]["flash bytes"], 5000, "{all}");
    site.flush();
    assert_eq!(place(&m.join("kept")), "origin");
    assert_eq!(fs::read(site.origin().join("kept")).unwrap(), [2; 5000]);
    site.umount(&m);
    site.stop();
}

/// A copy of a file takes with it what its attributes are, not where it is.
#[test]
fn the_attribute_is_not_listed_and_not_copied() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(HOUR);
    let m = site.mount("mnt");
    put(&m.join("f"), b"bytes");
    sh(&m, "setfattr -n user.own -v 1 f");
    let listed = sh(&m, "getfattr -d -m - f");
    assert!(
        listed.contains("user.own") && !listed.contains("custody"),
        "{listed}"
    );
    site.flush();
    sh(&m, "cp -a f copy");
    sh(site.dir.path(), "mkdir out; cp -a mnt/f out/f");
    for copy in [m.join("copy"), site.path("out/f")] {
        let listed = sh(&m, &format!("getfattr -d -m - '{}'", copy.display()));
        assert!(!listed.contains("custody"), "{listed}");
    }
    assert_ne!(place(&m.join("copy")), "origin", "it tells of the copy");
    let outside = rustix::fs::getxattr(site.path("out/f"), CUSTODY, &mut [0; 64]);
    assert!(outside.is_err());
    site.flush();
    let there = sh(&site.origin(), "getfattr -d -m - f copy");
    assert!(
        there.contains("user.own") && !there.contains("custody"),
        "{there}"
    );
    // What it says is anew each time, on every mount, whatever they remember.
    let other = site.mount("other");
    for n in 0..3 {
        assert_eq!(place(&other.join("f")), "origin", "{n}");
        put(&m.join("f"), &[n; 100]);
        assert_eq!(
            (place(&m.join("f")), place(&other.join("f"))),
            flash_twice()
        );
        wish(&m.join("f"), "origin").unwrap();
    }
    site.umount(&other);
    site.umount(&m);
    site.stop();
}

fn flash_twice() -> (String, String) {
    ("flash".to_owned(), "flash".to_owned())
}

#[test]
fn a_wish_returns_when_the_origin_has_the_file() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start(HOUR);
    let m = site.mount("mnt");
    for n in 0..20u8 {
        let dir = m.join(format!("d{n}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("f"), vec![n; 100_000]).unwrap();
        wish(&dir.join("f"), "origin").unwrap();
        let there = fs::read(site.origin().join(format!("d{n}/f"))).unwrap();
        assert!(there == vec![n; 100_000], "{n}");
        assert_eq!(place(&dir.join("f")), "origin");
    }
    let f = m.join("d0/f");
    assert_eq!(wish(&f, "flash"), Err(Errno::INVAL));
    assert_eq!(wish(&f, ""), Err(Errno::INVAL));
    assert_eq!(rustix::fs::removexattr(&f, CUSTODY), Err(Errno::OPNOTSUPP));
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(&f, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        sh(site.dir.path(), "chmod 755 .");
        let as_nobody = |verb: &str| {
            let script = format!("{verb} {}", f.display());
            let words = [
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "sh",
                "-c",
            ];
            Command::new("setpriv")
                .args(words)
                .arg(script)
                .output()
                .unwrap()
        };
        let seen = as_nobody(&format!("getfattr -n {CUSTODY}"));
        assert!(text(&seen).contains("where="), "{}", text(&seen));
        let refused = as_nobody(&format!("setfattr -n {CUSTODY} -v origin"));
        assert!(text(&refused).contains("denied"), "{}", text(&refused));
    }
    site.umount(&m);
    site.stop();
}

#[test]
fn an_origin_that_is_full_says_why_and_what_it_takes_later_is_carried() {
    if mounts_missing().is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut site = Site::start_on(HOUR, |dir| {
        sh(dir, "mount -t tmpfs -o size=8M tmpfs origin");
    });
    let m = site.mount("mnt");
    let (big, bytes) = (m.join("big"), vec![9; 16 << 20]);
    put(&big, &bytes);
    assert_eq!(wish(&big, "origin"), Err(Errno::NOSPC));
    let pairs = refused(&big);
    assert_eq!(pairs["where"], "flash", "{pairs:?}");
    assert_eq!(
        (&*pairs["why"], &*pairs["errno"]),
        ("refused", "ENOSPC"),
        "{pairs:?}"
    );
    assert!(pairs["next"].parse::<u64>().unwrap() <= 60, "{pairs:?}");
    let all = asked(&site, "main");
    assert_eq!(all["summary"]["failing"], 1, "{all}");
    until("people are told so", || {
        let shown = text(&site.forebay(&["custody", "main/big"]));
        shown.contains("No space left") && shown.contains("next try")
    });
    sh(site.dir.path(), "mount -o remount,size=64M origin");
    wish(&big, "origin").unwrap();
    assert_eq!(place(&big), "origin");
    assert!(fs::read(site.origin().join("big")).unwrap() == bytes);
    site.umount(&m);
    site.stop();
    sh(site.dir.path(), "umount origin");
}

#[test]
fn an_origin_that_became_read_only_says_so() {
    if mounts_missing().is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut site = Site::start_on(HOUR, |dir| {
        sh(dir, "mount --bind origin origin");
    });
    let m = site.mount("mnt");
    fs::create_dir(m.join("d")).unwrap();
    put(&m.join("d/f"), b"bytes");
    sh(site.dir.path(), "mount -o remount,ro,bind origin");
    assert_eq!(wish(&m.join("d/f"), "origin"), Err(Errno::ROFS));
    let of_dir = refused(&m.join("d"));
    assert_eq!(
        (&*of_dir["why"], &*of_dir["errno"]),
        ("refused", "EROFS"),
        "{of_dir:?}"
    );
    let of_file = told(&m.join("d/f"));
    assert_eq!(
        (&*of_file["why"], &*of_file["errno"]),
        ("waiting", "EROFS"),
        "{of_file:?}"
    );
    let shown = text(&site.forebay(&["custody", "main/d/f"]));
    assert!(shown.contains("waiting: for create d"), "{shown}");
    sh(site.dir.path(), "mount -o remount,rw,bind origin");
    wish(&m.join("d/f"), "origin").unwrap();
    assert_eq!(fs::read(site.origin().join("d/f")).unwrap(), b"bytes");
    site.umount(&m);
    site.stop();
    sh(site.dir.path(), "umount origin");
}

/// `writeback = through`: a name that is made, moved or removed is so at the
/// origin, for who is alone in a directory, too.
#[test]
fn names_under_through_are_at_the_origin_when_they_are_made() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("target.main.writeback = through\n");
    let (m, origin) = (site.mount("mnt"), site.origin());
    fs::create_dir(m.join("d")).unwrap();
    assert!(origin.join("d").is_dir());
    for n in 0..30 {
        let (a, b) = (format!("d/a{n}"), format!("d/b{n}"));
        drop(File::create(m.join(&a)).unwrap());
        assert!(origin.join(&a).is_file(), "{a} was made");
        fs::rename(m.join(&a), m.join(&b)).unwrap();
        assert!(origin.join(&b).is_file(), "{b} was renamed");
        fs::hard_link(m.join(&b), m.join(&a)).unwrap();
        assert!(origin.join(&a).is_file(), "{a} was linked");
        fs::remove_file(m.join(&a)).unwrap();
        assert!(!origin.join(&a).exists(), "{a} was removed");
    }
    site.umount(&m);
    site.stop();
}

/// `writeback = through`: an fsync that returned means the origin's.
#[test]
fn fsync_under_through_returns_when_the_origin_has_it() {
    if mounts_missing().is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut site = Site::start_on("target.main.writeback = through\n", |dir| {
        sh(dir, "mount -t tmpfs -o size=8M tmpfs origin");
    });
    let m = site.mount("mnt");
    for n in 0..20u8 {
        let f = m.join(format!("f{n}"));
        put(&f, &vec![n; 50_000]);
        let there = fs::read(site.origin().join(format!("f{n}"))).unwrap();
        assert!(there == vec![n; 50_000], "{n}");
        assert_eq!(place(&f), "origin", "{n}");
    }
    let mut big = File::create(m.join("big")).unwrap();
    big.write_all(&vec![1; 16 << 20]).unwrap();
    let full = big.sync_all().unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(place(&m.join("big")), "flash");
    sh(site.dir.path(), "mount -o remount,size=64M origin");
    big.sync_all().unwrap();
    assert_eq!(place(&m.join("big")), "origin");
    drop(big);
    site.umount(&m);
    site.stop();
    sh(site.dir.path(), "umount origin");
}

#[test]
fn a_flush_shows_what_is_left_to_who_looks_on() {
    if mounts_missing().is_some() || support::which("script").is_none() {
        return;
    }
    let mut site = Site::start(HOUR);
    let m = site.mount("mnt");
    fs::create_dir(m.join("d")).unwrap();
    put(&m.join("d/f"), &vec![1; 2_000_000]);
    put(&m.join("beside"), b"x");
    let flush = format!(
        "'{FOREBAY}' flush main/d --wait --socket '{}'",
        site.path("admin.sock").display()
    );
    let shown = sh(
        site.dir.path(),
        &format!("script -qec \"{flush}\" /dev/null"),
    );
    // The directory and the file in it.
    assert!(
        shown.contains("2 of 2 files left, 2.0 of 2.0 MB"),
        "{shown:?}"
    );
    assert!(shown.ends_with("\r\u{1b}[K"), "it is taken away: {shown:?}");
    assert_eq!(
        fs::read(site.origin().join("d/f")).unwrap().len(),
        2_000_000
    );
    assert!(!site.origin().join("beside").exists());
    site.umount(&m);
    site.stop();
}

/// The origin is another box's mount, and that box is stopped.
#[test]
fn who_waits_for_an_origin_that_hangs_can_stop_waiting() {
    if mounts_missing().is_some() {
        return;
    }
    let mut up = Site::start("");
    let far = up.mount("mnt").join("tree");
    fs::create_dir(up.origin().join("tree")).unwrap();
    let conf = format!(
        "target.far.origin = posix:{}\ntarget.far.writeback = 1h\n",
        far.display()
    );
    let mut site = Site::start(&conf);
    let m = site.mount_target("far", "mnt");
    put(&m.join("f"), &[5; 1000]);
    let stopped = Stopped::stop(up.server_pid());
    let mut waiting = Command::new("setfattr")
        .args(["-n", CUSTODY, "-v", "origin"])
        .arg(m.join("f"))
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(waiting.id().cast_signed()).unwrap();
    let why = || told(&m.join("f")).remove("why").unwrap();
    until("the origin is known not to answer", || why() == "suspect");
    assert_eq!(waiting.try_wait().unwrap(), None, "it waits");
    kill_process(pid, Signal::INT).unwrap();
    until("it stops waiting", || waiting.try_wait().unwrap().is_some());
    assert_eq!(waiting.wait().unwrap().signal(), Some(libc::SIGINT));
    assert_eq!(place(&m.join("f")), "flash");
    drop(stopped);
    wish(&m.join("f"), "origin").unwrap();
    assert_eq!(fs::read(far.join("f")).unwrap(), [5; 1000]);
    site.umount(&m);
    site.stop();
    let mount = up.path("mnt");
    up.umount(&mount);
    up.stop();
}

/// A process that is stopped; it goes on even if the test fails, since whoever
/// waits for it could not be ended.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: u32) -> Stopped {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}
