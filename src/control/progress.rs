//! What is left while a `flush --wait` waits, on a terminal: one line that is
//! written again and again. Where nobody looks, nothing is asked and printed.

use super::admin::{self, Command};
use super::cli::Find;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks. A look reads through what is dirty, once.
const BETWEEN: Duration = Duration::from_millis(500);

/// A line that is being kept up to date, until its [`end`](Shown::end).
pub struct Shown(Option<(Sender<()>, JoinHandle<()>)>);

/// Begins to show what is left of a flush, if somebody waits at a terminal.
pub fn show(find: &Find, target: &str, path: &str, wait: bool) -> Shown {
    if !wait || !std::io::stderr().is_terminal() {
        return Shown(None);
    }
    let find = Find {
        conf: find.conf.clone(),
        socket: find.socket.clone(),
    };
    let command = Command::Custody {
        target: target.to_owned(),
        path: path.to_owned(),
        limit: 0,
        after: String::new(),
    };
    // What there is to do is looked at before it is begun. What is wrong, the
    // flush itself says.
    let Ok(first) = admin::ask(&find, &command) else {
        return Shown(None);
    };
    let mut left = Left::first(&first);
    put(&format!("\r\x1b[K{}", left.line(&first)));
    let (end, ended) = mpsc::channel();
    let work = move || {
        while ended.recv_timeout(BETWEEN) == Err(RecvTimeoutError::Timeout) {
            if let Ok(report) = admin::ask(&find, &command) {
                put(&format!("\r\x1b[K{}", left.line(&report)));
            }
        }
        put("\r\x1b[K");
    };
    let thread = std::thread::Builder::new().spawn(work).ok();
    Shown(thread.map(|thread| (end, thread)))
}

impl Shown {
    /// Takes the line away.
    pub fn end(self) {
        if let Some((end, thread)) = self.0 {
            drop(end);
            // It printed, or it did not: the flush is over.
            let _ = thread.join();
        }
    }
}

fn put(text: &str) {
    let mut to = std::io::stderr().lock();
    // Progress that cannot be shown is no reason to fail.
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

/// What was to do at the first look.
struct Left {
    at: Instant,
    files: u64,
    bytes: u64,
}

impl Left {
    fn first(report: &Value) -> Left {
        let (files, bytes) = left(report);
        Left {
            at: Instant::now(),
            files,
            bytes,
        }
    }

    fn line(&mut self, report: &Value) -> String {
        let (files, bytes) = left(report);
        // More may become dirty while the rest is carried.
        self.files = self.files.max(files);
        self.bytes = self.bytes.max(bytes);
        let done = self.bytes - bytes;
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let rate = done as f64 / seconds / 1e6;
        format!(
            "{files} of {} files left, {:.1} of {:.1} MB, {rate:.1} MB/s",
            self.files,
            megabytes(bytes),
            megabytes(self.bytes),
        )
    }
}

/// Files (or names) and bytes that the origin lacks.
fn left(report: &Value) -> (u64, u64) {
    let (sum, one) = (&report["summary"], &report["custody"]);
    if one.is_object() {
        let is_owed = one["where"] != "origin";
        return (u64::from(is_owed), one["dirty bytes"].as_u64().unwrap_or(0));
    }
    let n = |key: &str| sum[key].as_u64().unwrap_or(0);
    let bytes = n("flash bytes") + n("memory bytes");
    (n("files").max(n("names owed")), bytes)
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(files: u64, bytes: u64) -> Value {
        json!({ "summary": {
            "files": files, "names owed": 0, "flash bytes": bytes, "memory bytes": 0,
        } })
    }

    #[test]
    fn what_is_left_is_of_all_that_was_seen() {
        let mut left = Left::first(&report(4, 4_000_000));
        let line = left.line(&report(3, 1_000_000));
        assert!(
            line.starts_with("3 of 4 files left, 1.0 of 4.0 MB, "),
            "{line}"
        );
        let line = left.line(&report(9, 9_000_000));
        assert!(
            line.starts_with("9 of 9 files left, 9.0 of 9.0 MB, "),
            "{line}"
        );
    }
}
