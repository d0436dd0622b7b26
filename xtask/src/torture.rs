//! `cargo xtask torture`: what CI does for two minutes, for as long as told.

use crate::{shell, suites};
use std::ffi::OsStr;

#[derive(clap::Args)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Repeat the choices of an earlier run; by default each run has its own
    #[arg(long)]
    seed: Option<u64>,
}

pub fn run(options: &Options) -> Result<(), String> {
    let bin = suites::install()?;
    let (seconds, seed) = (
        options.seconds.to_string(),
        options.seed.map(|seed| seed.to_string()),
    );
    let mut env: Vec<(&str, &OsStr)> = vec![
        ("FOREBAY_SUITES", bin.as_os_str()),
        ("FOREBAY_TORTURE_SECS", seconds.as_ref()),
    ];
    if let Some(seed) = &seed {
        env.push(("FOREBAY_SEED", seed.as_ref()));
    }
    let test = [
        "test",
        "--profile",
        "checks",
        "--test",
        "torture",
        "--",
        "--nocapture",
    ];
    shell::run_in(&shell::root(), "cargo", &test, &env)
}
