//! Mounting and unmounting: directly as root, through `fusermount3` otherwise.

use crate::fuse::fault::Fault;
use rustix::cmsg_space;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// What `mount(2)` calls our mounts.
pub const FSTYPE: &str = "fuse.forebay";

/// What to mount, for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Shown as the mount's device: where it comes from.
    pub source: String,
    pub allow_other: bool,
    /// Longest read, in bytes.
    pub max_read: usize,
    pub flags: Vec<Flag>,
}

/// The generic flags of a mount, with the word that `fusermount3` has for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    ReadOnly,
    NoSuid,
    NoDev,
    NoExec,
    NoAtime,
    Sync,
}

impl Flag {
    fn word(self) -> &'static str {
        match self {
            Flag::ReadOnly => "ro",
            Flag::NoSuid => "nosuid",
            Flag::NoDev => "nodev",
            Flag::NoExec => "noexec",
            Flag::NoAtime => "noatime",
            Flag::Sync => "sync",
        }
    }
    fn bits(self) -> MountFlags {
        match self {
            Flag::ReadOnly => MountFlags::RDONLY,
            Flag::NoSuid => MountFlags::NOSUID,
            Flag::NoDev => MountFlags::NODEV,
            Flag::NoExec => MountFlags::NOEXEC,
            Flag::NoAtime => MountFlags::NOATIME,
            Flag::Sync => MountFlags::SYNCHRONOUS,
        }
    }
}

/// Mounts on `dir` and returns the device, which does not block. The mount
/// answers once the device is served.
pub fn attach(what: &Attach, dir: &Path) -> Result<OwnedFd, Fault> {
    match rustix::process::geteuid().is_root() {
        true => attach_directly(what, dir),
        false => attach_by_helper(what, dir),
    }
}

fn attach_directly(what: &Attach, dir: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open(DEVICE, flags, Mode::empty()).map_err(no_device)?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read={}",
        device.as_raw_fd(),
        what.max_read
    );
    if what.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| Fault::usage("an option contains a NUL"))?;
    let flags = what
        .flags
        .iter()
        .fold(MountFlags::empty(), |all, f| all | f.bits());
    rustix::mount::mount(what.source.as_str(), dir, FSTYPE, flags, data.as_c_str())
        .map_err(|e| not_mounted(e, dir))?;
    Ok(device)
}

fn no_device(e: Errno) -> Fault {
    Fault::failed(match e {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => format!(
            "{DEVICE} is not there: load the kernel's FUSE module with `modprobe fuse` \
             (in a container, pass the device in)"
        ),
        Errno::ACCESS | Errno::PERM => {
            format!("{DEVICE} may not be opened: check its mode (0666) and the container's rules")
        }
        e => format!("{DEVICE} cannot be opened: {e}"),
    })
}

fn not_mounted(e: Errno, dir: &Path) -> Fault {
    let dir = dir.display();
    Fault::failed(match e {
        Errno::PERM | Errno::ACCESS => format!(
            "not permitted to mount on {dir}: in a container, give it CAP_SYS_ADMIN; \
             else mount as a user, with fusermount3 (`apt install fuse3`)"
        ),
        Errno::NODEV => String::from("the kernel does not know FUSE: load it with `modprobe fuse`"),
        e => format!("mounting on {dir} failed: {e}"),
    })
}

/// `fusermount3` is setuid root: it opens the device, mounts it, and sends it
/// through the socket that `_FUSE_COMMFD` names.
fn attach_by_helper(what: &Attach, dir: &Path) -> Result<OwnedFd, Fault> {
    let system = |e: Errno| Fault::failed(format!("no socket to talk to {HELPER}: {e}"));
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(system)?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).map_err(system)?;
    let child = Command::new(HELPER)
        .arg("-o")
        .arg(helper_options(what))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| no_helper(&e))?;
    drop(theirs);
    let device = receive_device(&ours);
    let out = child.wait_with_output().map_err(|e| no_helper(&e))?;
    match device {
        Ok(Some(device)) => {
            rustix::io::ioctl_fionbio(&device, true).map_err(system)?;
            Ok(device)
        }
        Ok(None) => Err(helper_refused(&String::from_utf8_lossy(&out.stderr))),
        Err(e) => Err(Fault::failed(format!("{HELPER} sent no device: {e}"))),
    }
}

fn helper_options(what: &Attach) -> String {
    // The helper splits at commas that have no backslash before them.
    let source = what.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut text = format!(
        "fsname={source},subtype=forebay,default_permissions,max_read={}",
        what.max_read
    );
    if what.allow_other {
        text.push_str(",allow_other");
    }
    for flag in &what.flags {
        text.push(',');
        text.push_str(flag.word());
    }
    text
}

fn no_helper(e: &io::Error) -> Fault {
    Fault::failed(match e.kind() {
        io::ErrorKind::NotFound => format!(
            "{HELPER} is not installed, and only root can mount without it: `apt install fuse3`"
        ),
        _ => format!("{HELPER} cannot be run: {e}"),
    })
}

fn helper_refused(said: &str) -> Fault {
    let said = said.trim();
    let remedy = match said {
        s if s.contains("user_allow_other") => {
            ": add `user_allow_other` to /etc/fuse.conf, or leave out -o allow_other"
        }
        s if s.contains(DEVICE) && s.contains("ermission") => {
            ": let users open it with `chmod 666 /dev/fuse`"
        }
        s if s.contains("not found") || s.contains("No such") => ": try `modprobe fuse`",
        s if s.contains("write access") || s.contains("ermi") => {
            ": mount on a directory that is yours to write"
        }
        _ => "",
    };
    Fault::failed(format!("not mounted, {HELPER} says \"{said}\"{remedy}"))
}

/// One byte with one descriptor; None if the other side hung up.
fn receive_device(socket: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0u8; 1];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(
            socket.as_fd(),
            &mut parts,
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

/// How an unmount ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    Gone,
    /// In use: open files, or somebody's working directory.
    Busy,
}

/// Unmounts `dir`; `lazily` even while it is in use: it goes when that ends.
pub fn detach(dir: &Path, lazily: bool) -> Result<Detached, Fault> {
    if !rustix::process::geteuid().is_root() {
        return detach_by_helper(dir, lazily);
    }
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazily {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(dir, flags) {
        Ok(()) => Ok(Detached::Gone),
        Err(Errno::BUSY) => Ok(Detached::Busy),
        Err(e) => Err(Fault::failed(format!(
            "unmounting {} failed: {e}",
            dir.display()
        ))),
    }
}

fn detach_by_helper(dir: &Path, lazily: bool) -> Result<Detached, Fault> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if lazily {
        command.arg("-z");
    }
    let out = command.arg("--").arg(dir).stdin(Stdio::null()).output();
    let out = out.map_err(|e| no_helper(&e))?;
    let said = String::from_utf8_lossy(&out.stderr);
    match out.status.success() {
        true => Ok(Detached::Gone),
        false if said.contains("busy") => Ok(Detached::Busy),
        false => Err(Fault::failed(format!(
            "unmounting {} failed, {HELPER} says \"{}\"",
            dir.display(),
            said.trim()
        ))),
    }
}

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_the_source_are_kept_from_the_helper() {
        let what = Attach {
            source: String::from("a:1,b\\c/t"),
            allow_other: true,
            max_read: 4096,
            flags: vec![Flag::ReadOnly, Flag::NoDev],
        };
        assert_eq!(
            helper_options(&what),
            "fsname=a:1\\,b\\\\c/t,subtype=forebay,default_permissions,max_read=4096,\
             allow_other,ro,nodev"
        );
    }
}
