//! `forebay-fsck` on the cache of a real box: clean after kill -9, refused while
//! the box runs, what it lists, what it rescues, and rot that it finds.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use support::{Site, mounts_missing, sh, slurp, text, until};

fn fsck(site: &Site, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay-fsck"))
        .arg(site.path("cache.fb"))
        .args(args)
        .output()
        .expect("forebay-fsck runs")
}

/// Runs it; it must end so, and leave each byte of the cache as it was.
fn ends(site: &Site, args: &[&str], code: i32) -> String {
    let before = sum(&site.path("cache.fb"));
    let out = fsck(site, args);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
    assert_eq!(before, sum(&site.path("cache.fb")), "{args:?} wrote to it");
    String::from_utf8(out.stdout).expect("plain text")
}

/// A checksum of the file, and when it was last written to.
fn sum(path: &Path) -> (u32, i64, i64) {
    let meta = fs::metadata(path).unwrap();
    (
        crc32c::crc32c(&slurp(path)),
        meta.mtime(),
        meta.mtime_nsec(),
    )
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

/// Nothing is carried within the test but what it flushes.
const CONF: &str = "cache.size = 128M\ntarget.main.writeback = 1h\n";

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
}

/// A box that was killed: `old` is at the origin and was changed in its middle,
/// `new` and `small` are the box's alone, `first` was renamed to `second`,
/// `gone` was removed.
fn killed() -> Site {
    killed_with(CONF)
}

fn killed_with(conf: &str) -> Site {
    let mut site = Site::start_on(conf, |dir| {
        fs::write(dir.join("origin/old"), bytes(1, 1 << 20)).unwrap();
        fs::write(dir.join("origin/first"), bytes(2, 100)).unwrap();
        fs::write(dir.join("origin/gone"), b"gone").unwrap();
    });
    let m = site.mount("m");
    fs::create_dir_all(m.join("dir/below")).unwrap();
    put(&m.join("dir/below/new"), &bytes(3, 3_000_000));
    put(&m.join("dir/small"), b"a few bytes");
    fs::set_permissions(m.join("dir/small"), fs::Permissions::from_mode(0o604)).unwrap();
    let old = OpenOptions::new().write(true).open(m.join("old")).unwrap();
    old.write_all_at(&bytes(4, 70_000), 300_000).unwrap();
    old.sync_all().unwrap();
    fs::rename(m.join("first"), m.join("second")).unwrap();
    fs::remove_file(m.join("gone")).unwrap();
    std::os::unix::fs::symlink("../old", m.join("dir/link")).unwrap();
    fs::hard_link(m.join("dir/small"), m.join("dir/other")).unwrap();
    fs::create_dir(m.join("early")).unwrap();
    put(&m.join("early/file"), b"in a directory that moves");
    fs::rename(m.join("early"), m.join("dir/late")).unwrap();
    // On flash before the box dies: a change that waits for all before it.
    sh(&m, "sync dir; sync -f dir");
    put(&m.join("last"), b"behind all of them");
    site.kill();
    site
}

#[test]
fn a_killed_box_is_sound_and_what_it_owes_is_rescued() {
    if mounts_missing().is_some() {
        return;
    }
    let site = killed();
    let told = ends(&site, &[], 0);
    assert!(
        told.trim_end().lines().last().unwrap().starts_with("sound"),
        "{told}"
    );
    let told = ends(&site, &["--json"], 0);
    let last: serde_json::Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["record"], &last["sound"]),
        (&"summary".into(), &true.into())
    );

    let listed = ends(&site, &["--dump"], 0);
    for part in [
        "superblock ",
        "target main",
        "main/dir/below/new (",
        "main/dir/small (",
        "owed ",
        "create regular main/dir/small",
        "unlink main/gone",
        "client ",
    ] {
        assert!(listed.contains(part), "no {part:?} in\n{listed}");
    }
    for line in ends(&site, &["--dump", "--json"], 0).lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(entry["record"].is_string(), "{line}");
    }

    let to = site.path("rescued");
    ends(&site, &["--evacuate", to.to_str().unwrap()], 0);
    rescued(&to);
    // Into a directory in use: not a second time.
    let again = fsck(&site, &["--evacuate", to.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(3), "{}", text(&again));
}

fn rescued(to: &Path) {
    let main = to.join("main");
    assert!(slurp(&main.join("dir/below/new")) == bytes(3, 3_000_000));
    assert_eq!(slurp(&main.join("dir/small")), b"a few bytes");
    assert_eq!(slurp(&main.join("dir/other")), b"a few bytes");
    assert_eq!(slurp(&main.join("last")), b"behind all of them");
    let late = slurp(&main.join("dir/late/file"));
    assert_eq!(late, b"in a directory that moves");
    let small = fs::metadata(main.join("dir/small")).unwrap();
    assert_eq!(small.mode() & 0o7777, 0o604);
    let link = fs::read_link(main.join("dir/link")).unwrap();
    assert_eq!(link, Path::new("../old"));
    // Of a file that the origin has only the changed bytes are sure to be here;
    // what else is here is right, and the rest is listed as the origin's.
    let list: serde_json::Value =
        serde_json::from_slice(&slurp(&to.join("forebay-evacuated.json"))).unwrap();
    let files = list["files"].as_array().unwrap();
    let old = files.iter().find(|f| f["paths"][0] == "old").unwrap();
    assert_eq!(old["size"], 1 << 20);
    let mut want = bytes(1, 1 << 20);
    want[300_000..370_000].copy_from_slice(&bytes(4, 70_000));
    let mut got = slurp(&main.join("old"));
    assert_eq!(got.len(), want.len());
    assert!(got[300_000..370_000] == want[300_000..370_000]);
    for range in old["missing"].as_array().unwrap() {
        let at = |i: usize| usize::try_from(range[i].as_u64().unwrap()).unwrap();
        got[at(0)..at(1)].copy_from_slice(&want[at(0)..at(1)]);
    }
    assert!(got == want, "what is not missing is right");
    let owed = fs::read_to_string(main.join(".forebay-owed.txt")).unwrap();
    // In order, by the paths of their times.
    let order = [
        "create regular main/early/file",
        "rename main/first to main/second",
        "unlink main/gone",
        "link main/dir/small (",
        "rename main/early to main/dir/late",
    ];
    for op in order {
        assert!(owed.contains(op), "no {op:?} in\n{owed}");
    }
    let at = |op: &str| owed.find(op).unwrap();
    assert!(at(order[0]) < at(order[4]), "{owed}");
}

#[test]
fn a_running_box_is_left_alone() {
    let mut site = Site::start(CONF);
    let refused = fsck(&site, &[]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused));
    assert!(
        text(&refused).contains("stop the box"),
        "{}",
        text(&refused)
    );
    site.stop();
    ends(&site, &[], 0);
    // And the other way: the cache is the box's again.
    site.serve();
    site.stop();
}

#[test]
fn rot_in_bytes_that_the_origin_lacks_is_named() {
    if mounts_missing().is_some() {
        return;
    }
    let site = killed();
    rot_new(&site);
    let told = ends(&site, &[], 1);
    assert!(told.contains("loss: [dirty-data]"), "{told}");
    assert!(told.contains("main/dir/below/new"), "{told}");
    // Quick, and blind for it.
    ends(&site, &["--no-data"], 0);
    let to = site.path("rescued");
    ends(&site, &["--evacuate", to.to_str().unwrap()], 1);
    let got = slurp(&to.join("main/dir/below/new"));
    let want = bytes(3, 3_000_000);
    let wrong = got.iter().zip(&want).filter(|(a, b)| a != b).count();
    assert!(
        got.len() == want.len() && (1..=4096).contains(&wrong),
        "{wrong} bytes"
    );
}

/// Turns a byte of what only the box has of `new`.
fn rot_new(site: &Site) {
    let cache = site.path("cache.fb");
    let image = slurp(&cache);
    let part = bytes(3, 3_000_000)[1_000_000..1_000_064].to_vec();
    let found = image.windows(part.len()).position(|w| w == part).unwrap();
    let file = OpenOptions::new().write(true).open(&cache).unwrap();
    file.write_all_at(&[!part[0]], found as u64).unwrap();
}

/// What the box says is lost.
fn lost(site: &Site) -> Vec<String> {
    let status = site.status();
    let shards = status["shard"].as_array().unwrap().iter();
    let lost = shards.flat_map(|shard| shard["lost bytes"].as_array().unwrap());
    lost.map(|one| one["path"].as_str().unwrap().to_owned())
        .collect()
}

/// A box finds rot that nobody has read, names the file, and shows and carries
/// nothing false until the bytes are written anew.
#[test]
fn a_box_finds_rot_by_itself_and_goes_on() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = killed_with(&format!("{CONF}cache.scrub = 1s\n"));
    rot_new(&site);
    site.serve();
    until("the rot is found", || !lost(&site).is_empty());
    assert_eq!(lost(&site), ["dir/below/new"]);
    let m = site.mount("again");
    let (new, there) = (m.join("dir/below/new"), site.origin().join("dir/below/new"));
    let read = fs::read(&new).unwrap_err();
    assert_eq!(read.raw_os_error(), Some(libc::EIO));
    let out = site.forebay(&["flush", "main", "--wait"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert_eq!(
        slurp(&site.origin().join("dir/small")),
        slurp(&m.join("dir/small"))
    );
    let carried = slurp(&there);
    let false_byte = !bytes(3, 3_000_000)[1_000_000];
    assert_ne!(
        carried.get(1_000_000),
        Some(&false_byte),
        "false bytes were carried"
    );
    let again = bytes(3, 3_000_000);
    fs::write(&new, &again).unwrap();
    // The flush above has failed, which is told to one fsync.
    let told = fs::File::open(&new).unwrap().sync_all().unwrap_err();
    assert_eq!(told.raw_os_error(), Some(libc::EIO));
    fs::File::open(&new).unwrap().sync_all().unwrap();
    until("it is whole again", || lost(&site).is_empty());
    site.flush();
    assert!(slurp(&new) == again && slurp(&there) == again);
    site.umount(&m);
    site.stop();
    ends(&site, &[], 0);
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_forebay-fsck"))
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        (out.status.code(), text(&out))
    };
    fs::write(dir.path().join("text"), "not a cache".repeat(1000)).unwrap();
    let (code, told) = run(&["text"]);
    assert!(
        code == Some(3) && told.contains("not a Forebay cache"),
        "{told}"
    );
    assert_eq!(run(&["nothing"]).0, Some(1));
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&["text", "--what"]).0, Some(2));
    let (code, told) = run(&["--help"]);
    assert!(code == Some(0) && told.contains("--evacuate"), "{told}");
}
