//! `forebay-load` itself, at tiny sizes: every step is run, is reported, and
//! has no error, on a mounted path and over the protocol. What it measures is
//! nobody's business here.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use support::{Site, mounts_missing, text};

fn load(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay-load"))
        .args(args)
        .arg("--json")
        .output()
        .unwrap()
}

/// Runs it; its phases must be these, each with so many operations, all good.
fn runs(args: &[&str], phases: &[(&str, u64)]) {
    let out = load(args);
    assert!(out.status.success(), "{args:?}: {}", text(&out));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let seen: Vec<(&str, u64)> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["name"].as_str().unwrap(), p["ops"].as_u64().unwrap()))
        .collect();
    assert_eq!(seen, phases, "{args:?}: {json}");
    for phase in json.as_array().unwrap() {
        assert_eq!(phase["errors"], 0, "{phase}");
        assert!(phase.get("first_error").is_none(), "{phase}");
        for key in [
            "seconds",
            "ops_per_s",
            "mean_us",
            "p50_us",
            "p999_us",
            "max_us",
        ] {
            assert!(
                phase[key].as_f64().is_some_and(|v| v > 0.0),
                "{key}: {phase}"
            );
        }
    }
}

const SMALL_FILES: [&str; 12] = [
    "meta",
    "--clients",
    "2",
    "--dirs",
    "2",
    "--files",
    "10",
    "--size",
    "3K",
    "--depth",
    "2",
    "--shared",
];
const ALL_STEPS: [(&str, u64); 5] = [
    ("create", 40),
    ("stat", 40),
    ("open-read", 40),
    ("rename", 40),
    ("unlink", 40),
];

/// As many operations as `--ops` says, long before the time is over.
fn data<'a>(place: &[&'a str], op: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![
        "data",
        "--op",
        op,
        "--block",
        "16K",
        "--file-size",
        "1M",
        "--clients",
        "2",
        "--depth",
        "2",
        "--ops",
        "50",
        "--seconds",
        "600",
    ];
    args.extend(place);
    args.extend(more);
    args
}

fn every_kind_of_work(place: &[&str]) {
    let meta = [&SMALL_FILES[..], place].concat();
    runs(&meta, &ALL_STEPS);
    // Everything is gone again, or a second run would find its names taken.
    runs(&meta, &ALL_STEPS);
    let some = [&meta[..], &["--steps", "create,unlink"]].concat();
    runs(&some, &[ALL_STEPS[0], ALL_STEPS[4]]);
    runs(&data(place, "write", &["--fsync"]), &[("write", 100)]);
    runs(&data(place, "read", &["--random"]), &[("read", 100)]);
    runs(
        &data(place, "mixed", &["--random", "--seed", "9"]),
        &[("mixed", 100)],
    );
}

#[test]
fn on_a_mounted_path() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let m = site.mount("mnt");
    let path = m.display().to_string();
    every_kind_of_work(&["--path", &path]);
    runs(
        &data(&["--path", &path], "read", &["--direct"]),
        &[("read", 100)],
    );
    only_data_is_left(&m);
    site.umount(&m);
    site.stop();
}

#[test]
fn over_the_protocol() {
    let mut site = Site::start("");
    let target = format!("{}/main", site.addr);
    every_kind_of_work(&["--native", &target]);
    site.flush();
    only_data_is_left(&site.origin());
    site.stop();
}

/// The files of `data`, whole, and empty directories.
fn only_data_is_left(dir: &Path) {
    let mut files = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            assert_eq!(fs::read_dir(entry.path()).unwrap().count(), 0);
        } else {
            assert_eq!(entry.metadata().unwrap().len(), 1 << 20, "{entry:?}");
            files += 1;
        }
    }
    assert_eq!(files, 2);
}

#[test]
fn failures_are_counted_and_told() {
    let site = Site::start("target.main.writeback = off\n");
    let target = format!("{}/main", site.addr);
    let out = load(&["meta", "--native", &target, "--files", "1", "--dirs", "1"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let said = text(&out);
    assert!(
        said.contains("Read-only") || said.contains("EROFS"),
        "{said}"
    );
    let nowhere = load(&["data", "--path", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(
        text(&nowhere).contains("/nonexistent"),
        "{}",
        text(&nowhere)
    );
    let neither = load(&["data"]);
    assert_eq!(neither.status.code(), Some(2));
    assert!(text(&neither).contains("--path"), "{}", text(&neither));
}
