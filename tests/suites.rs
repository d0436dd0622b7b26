//! Suites that others wrote, on a real mount. `cargo xtask test` installs them
//! and sets `FOREBAY_SUITES`; without it they are taken from PATH, or skipped.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Site, mounts_missing, sh, suite, text};

fn on_mount(name: &str, body: impl FnOnce(&mut Site, &Path, &Path)) {
    let Some(program) = suite(name) else { return };
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("cache.size = 2G\n");
    let m = site.mount("mnt");
    body(&mut site, &m, &program);
    site.umount(&m);
    site.stop();
}

#[test]
fn fsx_with_mmap() {
    on_mount("fsx", |site, m, fsx| {
        let conf = site.path("fsx.toml");
        let weights = "[weights]\nclose_open = 1\nread = 10\nwrite = 10\nmapread = 10\nmapwrite = 10\n\
                       truncate = 5\nfsync = 1\nfdatasync = 1\npunch_hole = 3\ncopy_file_range = 3\n";
        std::fs::write(&conf, format!("flen = 262144\n{weights}")).unwrap();
        // 200,000 operations in ten runs: fsx unmaps only half of what it maps,
        // and every truncation is slower with what is left.
        for seed in 1..=10 {
            let out = Command::new(fsx)
                .args(["-N", "20000", "-S", &seed.to_string(), "-f"])
                .arg(&conf)
                .arg(m.join(format!("fsx-{seed}")))
                .output()
                .unwrap();
            assert!(out.status.success(), "fsx -S {seed}: {}", tail(&text(&out)));
        }
    });
}

/// fsx on one mount, while another reads, maps and looks at the same file all
/// the time; at the end both must show the same bytes.
#[test]
fn fsx_while_another_mount_verifies() {
    on_mount("fsx", |site, a, fsx| {
        let b = site.mount("b");
        let conf = site.path("fsx.toml");
        let weights = "[weights]\nclose_open = 2\nread = 10\nwrite = 10\nmapread = 5\nmapwrite = 5\n\
                       truncate = 5\nfsync = 1\npunch_hole = 2\n";
        std::fs::write(&conf, format!("flen = 65536\n{weights}")).unwrap();
        for seed in 11..=14 {
            let name = format!("both-{seed}");
            let is_over = AtomicBool::new(false);
            let out = std::thread::scope(|scope| {
                let looking = scope.spawn(|| {
                    let mut looks = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        looks += usize::from(std::fs::read(b.join(&name)).is_ok());
                    }
                    looks
                });
                let out = Command::new(fsx)
                    .args(["-N", "2000", "-S", &seed.to_string(), "-f"])
                    .arg(&conf)
                    .arg(a.join(&name))
                    .output()
                    .unwrap();
                is_over.store(true, Ordering::Relaxed);
                assert!(looking.join().unwrap() > 0, "it was looked at");
                out
            });
            assert!(out.status.success(), "fsx -S {seed}: {}", tail(&text(&out)));
            let bytes = |m: &Path| std::fs::read(m.join(&name)).unwrap();
            assert!(bytes(a) == bytes(&b), "seed {seed}: the mounts differ");
        }
    });
}

#[test]
fn fio_verifies_what_it_wrote() {
    on_mount("fio", |_, m, fio| {
        for rw in ["write", "randwrite"] {
            let out = Command::new(fio)
                .args([
                    "--name=verify",
                    "--size=64M",
                    "--bs=4k-256k",
                    "--verify=crc32c",
                ])
                .args([
                    "--verify_fatal=1",
                    "--verify_state_save=0",
                    "--do_verify=1",
                    "--ioengine=psync",
                    "--end_fsync=1",
                ])
                .arg(format!("--rw={rw}"))
                .arg(format!("--directory={}", m.display()))
                .output()
                .unwrap();
            assert!(out.status.success(), "fio {rw}: {}", tail(&text(&out)));
        }
    });
}

#[test]
fn dbench_runs() {
    on_mount("dbench", |_, m, dbench| {
        let out = Command::new(dbench)
            .args(["-t", "10", "-D"])
            .arg(m)
            .arg("2")
            .output()
            .unwrap();
        assert!(out.status.success(), "dbench: {}", tail(&text(&out)));
    });
}

#[test]
fn git_and_cargo_work_inside() {
    on_mount("git", |_, m, _| {
        let source = env!("CARGO_MANIFEST_DIR");
        sh(m, "git config --global --get user.name >/dev/null || true");
        sh(
            m,
            &format!(
                "git -c safe.directory='*' clone -q --no-hardlinks '{source}' clone && cd clone && \
                 git -c safe.directory='*' status --porcelain && git fsck --full"
            ),
        );
        sh(
            m,
            "cargo new -q --vcs none hello && cd hello && cargo run -q --offline | grep -q Hello",
        );
    });
}

/// Cases that fail on the mount, each with its reason, in `tests/pjdfstest.expected`.
fn expected_failures() -> BTreeSet<String> {
    let list = include_str!("pjdfstest.expected");
    let lines = list
        .lines()
        .map(|l| l.split('#').next().unwrap_or("").trim());
    lines.filter(|l| !l.is_empty()).map(str::to_owned).collect()
}

#[test]
fn pjdfstest_passes_but_for_the_written_list() {
    on_mount("pjdfstest", |site, m, pjdfstest| {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: pjdfstest needs root to change users");
        }
        let conf = site.path("pjdfstest.toml");
        std::fs::write(
            &conf,
            "[features]\nposix_fallocate = {}\nutimensat = {}\nutime_now = {}\n\
             rename_ctime = {}\nstat_st_birthtime = {}\n[settings]\nnaptime = 0.01\n\
             [dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n",
        )
        .unwrap();
        std::fs::set_permissions(site.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let out = Command::new(pjdfstest)
            .env("NO_COLOR", "1")
            .arg("-c")
            .arg(&conf)
            .arg("-p")
            .arg(m)
            .output()
            .unwrap();
        let all = text(&out);
        let failed: BTreeSet<String> = all
            .lines()
            .filter(|l| l.ends_with("FAILED"))
            .filter_map(|l| l.split_whitespace().next().map(str::to_owned))
            .collect();
        let summary = all
            .lines()
            .find(|l| l.starts_with("Summary:"))
            .unwrap_or_default();
        let passed = summary
            .split(", ")
            .find_map(|part| part.strip_suffix(" passed"));
        let passed: u32 = passed.and_then(|n| n.parse().ok()).unwrap_or(0);
        assert!(passed > 350, "pjdfstest ran: {}", tail(&all));
        assert_eq!(failed, expected_failures(), "{}", tail(&all));
    });
}

use std::os::unix::fs::PermissionsExt;

/// The end of a long output.
fn tail(all: &str) -> &str {
    let from = all.len().saturating_sub(6000);
    let from = (from..all.len())
        .find(|&i| all.is_char_boundary(i))
        .unwrap_or(0);
    &all[from..]
}
