//! A real tree goes in through the mount, is drained, and is compared with the
//! origin byte by byte, attribute by attribute, link by link; then the origin
//! goes away, the box restarts, and the cached part reads back right.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Site, mounts_missing, sh};

/// What is compared of one file.
#[derive(PartialEq, Eq, Debug)]
struct Facts {
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    nlink: u64,
    mtime: (i64, i64),
    rdev: u64,
    /// Of content or link target.
    sum: u32,
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut out = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                fs::read(&path).unwrap()
            } else if meta.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                Vec::new()
            };
            let is_dir = meta.is_dir();
            let facts = Facts {
                mode: meta.mode(),
                uid: meta.uid(),
                gid: meta.gid(),
                // A directory's own size is its file system's business.
                size: if is_dir { 0 } else { meta.size() },
                nlink: if is_dir { 0 } else { meta.nlink() },
                mtime: (meta.mtime(), meta.mtime_nsec()),
                rdev: meta.rdev(),
                sum: crc32c::crc32c(&content),
            };
            out.insert(path.strip_prefix(root).unwrap().to_owned(), facts);
            if is_dir {
                open.push(path);
            }
        }
    }
    out
}

fn compare(what: &str, a: &BTreeMap<PathBuf, Facts>, b: &BTreeMap<PathBuf, Facts>) {
    let differs: Vec<_> = a
        .iter()
        .filter(|(path, facts)| b.get(*path) != Some(facts))
        .map(|(path, facts)| (path, facts, b.get(path)))
        .collect();
    assert!(
        differs.is_empty(),
        "{what}: {} differ, first {:?}",
        differs.len(),
        differs.first()
    );
    let extra: Vec<_> = b.keys().filter(|path| !a.contains_key(*path)).collect();
    assert!(
        extra.is_empty(),
        "{what}: {} too many, first {:?}",
        extra.len(),
        extra.first()
    );
}

#[test]
fn a_real_tree_survives_the_way_to_the_origin_and_back_from_flash() {
    if mounts_missing().is_some() {
        return;
    }
    there_and_back(5_000, |m| {
        // /usr/share has tens of thousands of files with links and odd names; a
        // bound keeps the test's time, whatever a machine has installed.
        sh(
            m,
            "set +o pipefail; mkdir tree; cd /usr/share; find . -xdev \\( -type f -o -type l -o -type d \\) -print0 | sort -z | \
         head -z -n 25000 | tar -c --null --no-recursion -T - 2>/dev/null | tar -xp -C \"$OLDPWD/tree\"; \
         cd \"$OLDPWD/tree\"; ln doc hardlink-of-nothing 2>/dev/null || true; \
         f=$(find . -type f -print -quit); ln \"$f\" './hard link'; printf x > \"$(printf 'odd\\nname\\t')\"",
        );
    });
}

/// The toolchain that builds these tests: few files, hundreds of megabytes,
/// mapped and executed where /usr/share is only read. `share` is left out:
/// its 50,000 pages of documentation are what /usr/share's are, and would
/// double the time.
#[test]
fn the_rust_toolchain_survives_it_and_works() {
    if mounts_missing().is_some() {
        return;
    }
    let Some(sysroot) = sysroot() else { return };
    there_and_back(50, |m| {
        sh(
            m,
            &format!("mkdir tree; tar -c --exclude=./share -C '{sysroot}' . | tar -xp -C tree"),
        );
        sh(
            m,
            "echo 'fn main() { println!(\"{}\", 6 * 7) }' > tree/main.rs; \
             tree/bin/rustc --sysroot tree -o tree/main tree/main.rs; test $(tree/main) = 42",
        );
    });
}

/// Where the compiler of this test's own build is, if there still is one.
fn sysroot() -> Option<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let out = Command::new(rustc).args(["--print", "sysroot"]).output();
    let found = out.ok().filter(|out| out.status.success());
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!ci, "there is no rustc, and CI=true");
        eprintln!("skipped: no rustc on this machine");
    }
    let text = String::from_utf8(found?.stdout).ok()?;
    Some(text.trim().to_owned())
}

/// Has `fill` make `tree` on a mount, and compares it: what the mount shows,
/// what the origin has after a flush, what the flash has after a kill.
fn there_and_back(files_min: usize, fill: impl FnOnce(&Path)) {
    let mut site = Site::start("cache.size = 4G\n");
    let m = site.mount("mnt");
    fill(&m);
    let seen = facts(&m.join("tree"));
    assert!(seen.len() > files_min, "{} files", seen.len());
    site.flush();
    compare("origin", &seen, &facts(&site.origin().join("tree")));
    site.kill();
    fs::rename(site.origin(), site.path("away")).unwrap();
    site.serve();
    compare("flash", &seen, &facts(&m.join("tree")));
    fs::rename(site.path("away"), site.origin()).unwrap();
    site.umount(&m);
    site.stop();
}
