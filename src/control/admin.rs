//! Commands to a running box: one JSON line each way over its UNIX socket.

use super::cli::{Exit, Failure, Find};
use crate::conf::{Conf, DEFAULT_ADMIN_SOCKET};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What a command asks of the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Command {
    Status,
    Flush {
        target: String,
        path: String,
        wait: bool,
    },
    /// Where the newest copies are: of a file, or of a page of what is not at
    /// the origin below a directory.
    Custody {
        target: String,
        path: String,
        /// Rows wanted; the box may give fewer.
        limit: u64,
        /// Where the page before ended, as it said; empty for the first.
        after: String,
    },
    Shutdown,
}

/// What it answers: exactly one of these, last on the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done(Value),
    /// What went wrong, and what to do.
    Failed(String),
}

/// Sends one command to the box that `find` means.
pub fn ask(find: &Find, command: &Command) -> Result<Value, Failure> {
    let path = socket_of(find)?;
    let said = |e: std::io::Error| {
        Failure::failed(format!(
            "no box answers on {} ({e}): start one with `forebay serve`, or name it with -c FILE \
             or --socket PATH",
            path.display()
        ))
    };
    let mut stream = UnixStream::connect(&path).map_err(said)?;
    let mut line = serde_json::to_string(command)
        .map_err(|e| Failure::failed(format!("command cannot be written: {e}")))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(said)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(said)?;
    match serde_json::from_str(&answer) {
        Ok(Answer::Done(value)) => Ok(value),
        Ok(Answer::Failed(why)) => Err(Failure {
            exit: Exit::Failed,
            message: why,
        }),
        Err(_) => Err(Failure::failed(format!(
            "the box on {} broke off",
            path.display()
        ))),
    }
}

/// `-c FILE`, `--socket PATH`, else the embedded default's socket, else the system's.
fn socket_of(find: &Find) -> Result<PathBuf, Failure> {
    if let Some(path) = &find.socket {
        return Ok(path.clone());
    }
    if let Some(file) = &find.conf {
        let conf = Conf::load(file).map_err(|f| Failure::usage(f.to_string()))?;
        return Ok(conf.admin_socket);
    }
    let own = Conf::embedded(Path::new(EMBEDDED_DIR)).admin_socket;
    Ok(if own.exists() {
        own
    } else {
        PathBuf::from(DEFAULT_ADMIN_SOCKET)
    })
}

/// Where the embedded default keeps everything.
pub const EMBEDDED_DIR: &str = "forebay-data";
