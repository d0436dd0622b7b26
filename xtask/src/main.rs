//! Everything that is done with this project besides building it. `test` is
//! what CI runs; `torture` goes on where it ends; `compare` measures against the peer.

mod compare;
mod shell;
mod suites;
mod test;
mod torture;
mod watch;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the tests need, then run every check there is
    Test,
    /// Kill boxes and mounts under work of all kinds, for an hour unless told
    Torture(torture::Options),
    /// Run the same work on Forebay, on the gfproxy thin client and on the bare disk; print ratios
    Compare(compare::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Test => test::run(),
        Verb::Torture(options) => torture::run(&options),
        Verb::Compare(options) => compare::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
