//! Where the mount process's log lines go: to the terminal in the foreground,
//! else to a file or to the machine's syslog.

use super::fault::Fault;
use crate::reactor::Log;
use crate::world::Level;
use std::fs::{File, OpenOptions};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Of a process that keeps its terminal.
#[must_use]
pub fn foreground() -> Log {
    Log::stderr(Level::Info)
}

/// Of a process that leaves its terminal: standard error, where that will be a
/// file, else syslog. Where there is no syslog either, the lines are lost.
#[must_use]
pub fn detached(has_file: bool) -> Log {
    match has_file {
        true => Log::stderr(Level::Info),
        false => to_syslog(),
    }
}

/// The file that standard error is to become.
pub fn open(path: &Path) -> Result<File, Fault> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|e| Fault::failed(format!("-o log={} cannot be written: {e}", path.display())))
}

fn to_syslog() -> Log {
    let socket = UnixDatagram::unbound().and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect("/dev/log")?;
        Ok(socket)
    });
    let socket = socket.ok();
    Log::new(Level::Info, move |level, name, line| {
        if let Some(socket) = &socket {
            let priority = DAEMON | severity(level);
            let line = format!("<{priority}>forebay-{name}[{}]: {line}", std::process::id());
            // A syslog that is full or gone must not stop the mount.
            let _ = socket.send(line.as_bytes());
        }
    })
}

/// As RFC 3164 counts them.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug => 7,
    }
}

/// The facility of system daemons.
const DAEMON: u8 = 3 << 3;
