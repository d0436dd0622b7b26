//! `cargo xtask test`: the whole of CI, on anyone's machine.

use crate::{shell, suites, watch};
use std::ffi::OsStr;
use std::time::Instant;

pub fn run() -> Result<(), String> {
    let begun = Instant::now();
    let bin = suites::install()?;
    shell::run("cargo", &["fmt", "--all", "--check"])?;
    let lints = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    shell::run("cargo", &lints)?;
    // Optimized, because the end-to-end suites move gigabytes; overflow checks stay on in it.
    let tests = [
        "test",
        "--profile",
        "checks",
        "--workspace",
        "--no-fail-fast",
    ];
    let env: [(&str, &OsStr); 1] = [("FOREBAY_SUITES", bin.as_os_str())];
    shell::run_beside(&shell::root(), "cargo", &tests, &env, watch::watch)?;
    eprintln!("xtask test: all passed in {} s", begun.elapsed().as_secs());
    Ok(())
}
