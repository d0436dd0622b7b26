//! A real program is built on the mount: this repository's own sources are
//! copied there, and cargo builds `xtask` with its target directory there too.
//!
//! `xtask`, because its graph is small enough for every run of the tests (half
//! a minute) and has one of everything: build scripts that are compiled and
//! then run from the mount, procedural macros that the compiler maps as shared
//! objects from it, archives that the linker maps and writes, and files whose
//! times cargo compares afterwards.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use support::{Site, mounts_missing, sh, text};

/// What the build says; it needs no network, since these tests needed the same.
fn build(repo: &Path) -> String {
    let out = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--locked", "--package", "xtask"])
        .current_dir(repo)
        .env("CARGO_TARGET_DIR", repo.join("target"))
        // Of the cargo that runs this test.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo build: {}", text(&out));
    text(&out)
}

fn compiled(said: &str) -> usize {
    let lines = said.lines().map(str::trim_start);
    lines.filter(|l| l.starts_with("Compiling ")).count()
}

#[test]
fn cargo_builds_a_program_on_the_mount() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("cache.size = 2G\n");
    let m = site.mount("mnt");
    let repo = m.join("repo");
    fs::create_dir(&repo).unwrap();
    let here = env!("CARGO_MANIFEST_DIR");
    sh(
        Path::new(here),
        &format!(
            "tar -c Cargo.toml Cargo.lock src tools xtask tests benches | tar -x -C '{}'",
            repo.display()
        ),
    );
    let said = build(&repo);
    assert!(compiled(&said) > 10, "{said}");
    let program = repo.join("target/debug/xtask");
    let help = Command::new(&program).arg("--help").output().unwrap();
    assert!(help.status.success(), "{}", text(&help));
    assert!(text(&help).contains("compare"), "{}", text(&help));

    // Times are what they were: nothing is built again, and over a crash.
    let said = build(&repo);
    assert_eq!(compiled(&said), 0, "{said}");
    site.kill();
    site.serve();
    let said = build(&repo);
    assert_eq!(compiled(&said), 0, "{said}");
    // What changed is, and no more.
    let source = repo.join("xtask/src/main.rs");
    let text_of = fs::read_to_string(&source).unwrap();
    fs::write(
        &source,
        text_of.replace("cargo xtask", "cargo build-on-a-mount"),
    )
    .unwrap();
    let said = build(&repo);
    assert_eq!(compiled(&said), 1, "{said}");
    let help = Command::new(&program).arg("--help").output().unwrap();
    assert!(text(&help).contains("build-on-a-mount"), "{}", text(&help));

    site.flush();
    // What is at the origin runs there, beside the box.
    let carried = site.origin().join("repo/target/debug/xtask");
    assert!(fs::read(&carried).unwrap() == fs::read(&program).unwrap());
    let help = Command::new(&carried).arg("--help").output().unwrap();
    assert!(text(&help).contains("build-on-a-mount"), "{}", text(&help));
    site.umount(&m);
    site.stop();
}
