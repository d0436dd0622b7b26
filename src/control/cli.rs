//! The command line (DESIGN: one binary, one verb a job) and its exit codes.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// A caching proxy for network file systems.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a box in the foreground; prints "ready on ADDR" when it serves
    Serve(Serve),
    /// Mount HOST[:PORT][,HOST…]/TARGET on DIR; returns when the mount answers
    Mount(Mount),
    /// Drain what is unsent, then unmount
    Umount {
        /// Where it is mounted
        dir: PathBuf,
    },
    /// Validate a conf file; every fault with its line, key and remedy
    Check {
        #[arg(short, value_name = "FILE")]
        conf: PathBuf,
    },
    /// What a running box does: targets, clients, flash, what the origin is owed
    Status {
        #[command(flatten)]
        find: Find,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Carry what is owed to the origin now
    Flush {
        /// TARGET, or TARGET/PATH
        what: String,
        /// Return only when the origin has it on its disk
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        find: Find,
    },
    /// Where the newest copy of a file is safe, and why not at the origin yet
    Custody {
        /// TARGET, or TARGET/PATH; of a directory, what is below it
        what: String,
        /// For programs; with --all, an object a line
        #[arg(long)]
        json: bool,
        /// Everything that is not at the origin, not only the oldest
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        find: Find,
    },
    /// Stop a running box cleanly
    Shutdown {
        #[command(flatten)]
        find: Find,
    },
}

/// Which box a command means.
#[derive(Debug, clap::Args)]
pub struct Find {
    /// The box's conf file
    #[arg(short = 'c', value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// The box's admin socket
    #[arg(long, value_name = "PATH", conflicts_with = "conf")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Conf file; without it everything is kept under ./forebay-data
    #[arg(short = 'c', value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Also mount the first target here, in a process of its own
    #[arg(long, value_name = "DIR")]
    pub mount: Option<PathBuf>,
    /// Start although the last stop was unclean and the release differs
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct Mount {
    /// HOST[:PORT][,HOST…]/TARGET
    pub source: String,
    /// Where to mount
    pub dir: PathBuf,
    /// Stay in the foreground
    #[arg(short)]
    pub foreground: bool,
    /// ro, allow_other, deadline=TIME, name=TEXT
    #[arg(short, value_name = "OPTIONS", value_delimiter = ',')]
    pub options: Vec<String>,
}

/// How a command ended, for the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Ok,
    Failed,
    /// Wrong usage or conf.
    Usage,
    /// Refused: unclean, other version, busy.
    Refused,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> std::process::ExitCode {
        std::process::ExitCode::from(match self {
            Exit::Ok => 0u8,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
        })
    }
}

/// Why a command did not succeed: its exit code and what to tell the user.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Failed,
            message: message.into(),
        }
    }
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Usage,
            message: message.into(),
        }
    }
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Refused,
            message: message.into(),
        }
    }
}
