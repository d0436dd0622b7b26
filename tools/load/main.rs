//! `forebay-load`: the load generator. It runs the same work over a mounted
//! path (any file system, with threads) or natively over the protocol (the
//! client library on reactors of its own), and prints latencies as
//! percentiles, for people or as JSON.
//!
//! - `data`: read, write or mixed, of a block size, with a depth, by a number
//!   of clients, each on a file of its own.
//! - `meta`: create, stat, open-read, rename, unlink over many directories.

mod cli;
mod meeting;
mod mounted;
mod native;
mod plan;
mod report;

use clap::Parser;
use cli::{Cli, Place};
use report::Phase;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.place() {
        Place::Path(path) => mounted::run(&cli, &path),
        Place::Native { hosts, target } => native::run(&cli, &hosts, &target),
    };
    match result {
        Ok(phases) => {
            report::print(&phases, cli.json());
            let failed = phases.iter().any(|phase: &Phase| phase.errors > 0);
            ExitCode::from(u8::from(failed))
        }
        Err(why) => {
            eprintln!("forebay-load: {why}");
            ExitCode::FAILURE
        }
    }
}
