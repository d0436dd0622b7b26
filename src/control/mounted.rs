//! The mount that `serve --mount` starts: a process of its own, which outlives
//! a crash of the box (C14).

use super::cli::Failure;
use crate::base::Errno;
use crate::reactor::{Descriptor, Local};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};

/// What to mount where.
pub struct Wanted {
    pub dir: PathBuf,
    pub addr: SocketAddr,
    pub target: String,
}

/// The running mount process.
pub struct Mounted {
    child: Child,
    pidfd: OwnedFd,
}

impl Mounted {
    /// Starts `forebay mount -f` in a process group of its own, so that Ctrl-C
    /// reaches the box alone, which then ends the mount in order.
    pub fn start(wanted: &Wanted) -> Result<Mounted, Failure> {
        let failed = |e: &dyn std::fmt::Display| {
            Failure::failed(format!(
                "the mount on {} did not start: {e}",
                wanted.dir.display()
            ))
        };
        let own = std::env::current_exe().map_err(|e| failed(&e))?;
        let child = Command::new(own)
            .args(["mount", "-f", &format!("{}/{}", wanted.addr, wanted.target)])
            .arg(&wanted.dir)
            .process_group(0)
            .spawn()
            .map_err(|e| failed(&e))?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|e| failed(&e))?;
        Ok(Mounted { child, pidfd })
    }

    /// Readable when the process has ended.
    pub fn pidfd(&self) -> Result<OwnedFd, Failure> {
        let dup = self.pidfd.as_fd().try_clone_to_owned();
        dup.map_err(|e| Failure::failed(format!("the mount cannot be watched: {e}")))
    }

    /// Asks the mount to drain and unmount, and waits for it.
    pub async fn end(mut self, world: &Local) -> Result<(), Failure> {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
        let fd = Descriptor::new(self.pidfd()?);
        let waited: Result<(), Errno> = world.poll_readable(&fd).await;
        waited.map_err(|e| Failure::failed(format!("the mount cannot be waited for: {e}")))?;
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::failed(format!("the mount ended with {status}"))),
            Err(e) => Err(Failure::failed(format!(
                "the mount cannot be waited for: {e}"
            ))),
        }
    }
}

/// Calls `ended` when the process behind `pidfd` is gone.
pub async fn watch(world: Local, pidfd: OwnedFd, ended: impl FnOnce()) {
    let _ = world.poll_readable(&Descriptor::new(pidfd)).await;
    ended();
}
