//! A test that hangs must not take the whole run with it: the next binary is
//! to have its turn, and whoever reads the output wants to know where it hung.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest binary takes four minutes on two idle cores.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const LOOK: Duration = Duration::from_secs(1);

/// Until `is_over`: ends test binaries below `cargo` that take longer than
/// [`LIMIT`], and says what each of their threads was waiting for.
pub fn watch(cargo: u32, is_over: &AtomicBool) {
    let mut seen: HashMap<u32, Instant> = HashMap::new();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        let now = tests_of(cargo);
        seen.retain(|pid, _| now.iter().any(|(p, _)| p == pid));
        for (pid, exe) in now {
            let since = *seen.entry(pid).or_insert_with(Instant::now);
            if since.elapsed() > LIMIT {
                end(pid, &exe);
            }
        }
    }
}

fn end(pid: u32, exe: &Path) {
    let minutes = LIMIT.as_secs() / 60;
    eprintln!(
        "xtask: {} did not end in {minutes} minutes, and is killed. Its threads:",
        exe.display()
    );
    for task in entries(&format!("/proc/{pid}/task")) {
        let of = |what: &str| fs::read_to_string(task.join(what)).unwrap_or_default();
        eprintln!("  {}: {}", of("comm").trim(), of("wchan"));
    }
    let killed = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .stdin(Stdio::null())
        .status();
    if let Err(e) = killed {
        eprintln!("xtask: kill: {e}");
    }
}

/// Test binaries that `cargo` runs now.
fn tests_of(cargo: u32) -> Vec<(u32, PathBuf)> {
    let parent = cargo.to_string();
    let all = entries("/proc").into_iter().filter_map(|dir| {
        let pid = dir.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        // After the name, which may have blanks: the state and the parent.
        let is_child = stat.rsplit_once(')')?.1.split_whitespace().nth(1)? == parent;
        let exe = is_child.then(|| fs::read_link(dir.join("exe")).ok())??;
        Some((pid, exe))
    });
    all.filter(|(_, exe)| exe.parent().is_some_and(|dir| dir.ends_with("deps")))
        .collect()
}

fn entries(dir: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.map(|entry| entry.path()).collect()
}
