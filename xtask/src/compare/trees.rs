//! What people do with a whole tree: unpack, search, commit and remove it.

use super::{Options, Place, Work, drop_caches};
use crate::shell::output;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// In this order: each row finds what the one before left.
pub const WORK: [Work; 6] = [
    Work::new("untar", "files/s", untar),
    Work::new("find by size, cold", "files/s", |at, o| {
        let tree = tree(at);
        cold(o, "find", &[&tree, "-size", "+1000000k"], &[0])
    }),
    Work::new("grep -r, cold", "files/s", |at, o| {
        // 1: nothing found.
        cold(o, "grep", &["-r", "no such words", &tree(at)], &[1])
    }),
    Work::new("git add + commit", "files/s", commit),
    Work::new("git status, cold", "files/s", |at, o| {
        let tree = tree(at);
        cold(o, "git", &["-C", &tree, "status", "--porcelain"], &[0])
    }),
    Work::new("rm -rf", "files/s", |at, o| {
        let rate = timed(o, "rm", &["-rf", &tree(at)], &[0]);
        // The next round's rows want a tree again.
        rate.and_then(|rate| untar(at, o).map(|_| rate))
    }),
];

/// Files in a directory of the tree.
const PER_DIR: usize = 50;

pub fn archive(dir: &Path) -> PathBuf {
    dir.join("tree.tar")
}

fn tree(at: &Place) -> String {
    at.first.join("tree").display().to_string()
}

/// Makes the archive: text files of some lines, the same in each run.
pub fn pack(dir: &Path, o: &Options) -> Result<(), String> {
    let tree = dir.join("tree");
    let words = "a line of text that a search has to read through\n";
    for i in 0..o.tree {
        let sub = tree.join(format!("part-{:04}", i / PER_DIR));
        if i % PER_DIR == 0 {
            fs::create_dir_all(&sub).map_err(|e| e.to_string())?;
        }
        let mut text = format!("file {i}\n");
        text.push_str(&words.repeat(5 + i * 7919 % 150));
        fs::write(sub.join(format!("file-{i:06}.txt")), text).map_err(|e| e.to_string())?;
    }
    let (archive, dir) = (
        archive(dir).display().to_string(),
        dir.display().to_string(),
    );
    output("tar", &["-C", &dir, "-cf", &archive, "tree"])?;
    fs::remove_dir_all(&tree).map_err(|e| e.to_string())
}

fn untar(at: &Place, o: &Options) -> Result<f64, String> {
    let _ = fs::remove_dir_all(tree(at));
    let (to, from) = (
        at.first.display().to_string(),
        at.archive.display().to_string(),
    );
    timed(o, "tar", &["-C", &to, "-xf", &from], &[0])
}

/// A new repository, made outside of the time.
fn commit(at: &Place, o: &Options) -> Result<f64, String> {
    let tree = tree(at);
    let _ = fs::remove_dir_all(Path::new(&tree).join(".git"));
    output("git", &["-C", &tree, "init", "-q"])?;
    let begun = Instant::now();
    timed(o, "git", &["-C", &tree, "add", "-A"], &[0])?;
    timed(o, "git", &["-C", &tree, "commit", "-q", "-m", "all"], &[0])?;
    Ok(o.tree as f64 / begun.elapsed().as_secs_f64())
}

/// Past the kernel's caches.
fn cold(o: &Options, program: &str, args: &[&str], good: &[i32]) -> Result<f64, String> {
    drop_caches();
    timed(o, program, args, good)
}

/// Files a second of a program that goes through the tree; it must end with one
/// of the codes `good`.
fn timed(o: &Options, program: &str, args: &[&str], good: &[i32]) -> Result<f64, String> {
    let begun = Instant::now();
    let status = Command::new(program)
        .args(args)
        .envs([
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_AUTHOR_NAME", "compare"),
            ("GIT_AUTHOR_EMAIL", "compare@localhost"),
            ("GIT_COMMITTER_NAME", "compare"),
            ("GIT_COMMITTER_EMAIL", "compare@localhost"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| format!("{program}: {e}"))?;
    if !status.code().is_some_and(|code| good.contains(&code)) {
        return Err(format!("{program} {}: {status}", args.join(" ")));
    }
    Ok(o.tree as f64 / begun.elapsed().as_secs_f64())
}
