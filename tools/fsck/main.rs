//! `forebay-fsck`: the offline check of a box's flash, and the rescue of what
//! only it has. The work is done by `forebay::control::fsck`.

use clap::Parser;
use forebay::control::cli::Exit;
use forebay::control::fsck::{self, cli::Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = match e.use_stderr() {
                true => Exit::Usage,
                false => Exit::Ok,
            };
            // Printing fails only when nobody listens.
            let _ = e.print();
            return code.code();
        }
    };
    match fsck::run(&cli) {
        Ok(exit) => exit.code(),
        Err(failure) => {
            eprintln!("forebay-fsck: {}", failure.message);
            failure.exit.code()
        }
    }
}
