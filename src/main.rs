//! The one binary: parses the command line and hands over to `control`.

use clap::Parser;
use forebay::control::cli::{Cli, Exit};
use std::process::ExitCode;

/// Each request makes some dozens of small allocations, and glibc's spent a
/// quarter of a shard's time on them (docs/PERFORMANCE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            // Printing fails only when nobody listens.
            let _ = e.print();
            return code.code();
        }
    };
    match forebay::control::run(cli) {
        Ok(()) => Exit::Ok.code(),
        Err(failure) => {
            eprintln!("forebay: {}", failure.message);
            failure.exit.code()
        }
    }
}
