//! The mount process, from the command line to its end.
//!
//! ```text
//! forebay mount ─ checks ─ fork ─► child: connect ─ attach ─ serve ───► unmounted, or a signal
//!      ▲                             │                                        │
//!      └── "ready", or what is wrong ┘                 drain ─ disconnect ─ exit
//! ```
//! The process outlives crashes of the box, and ends only when it was
//! unmounted or told to by a signal; before it exits, everything that it
//! answered is on the box's flash (C12).

use super::device::Device;
use super::fault::Fault;
use super::journal;
use super::mounts::{self, mounted_on};
use super::options::{Options, Source};
use super::server::serve;
use super::session::Session;
use super::sys::attach::{Attach, Detached, Flag, attach, detach};
use super::sys::process::{self, Side};
use crate::base::limits::{BLOCK, PAYLOAD_MAX};
use crate::client::{self, Client};
use crate::reactor::signals::{SignalStream, Signals};
use crate::reactor::{self, Descriptor, Local, Port};
use crate::world::sync::Promise;
use crate::world::{Level, World};
use rustix::process::Signal;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    pub source: &'a str,
    pub dir: &'a Path,
    pub foreground: bool,
    /// The words after `-o`.
    pub options: &'a [String],
}

/// Everything the mount process needs, checked.
#[derive(Clone, Debug)]
struct Plan {
    /// As given: shown as the mount's device.
    shown: String,
    source: Source,
    dir: PathBuf,
    options: Options,
}

/// Mounts. In the foreground it returns when the mount has ended; else when it
/// answers, in the parent, while the child serves it.
///
/// # Errors
/// With what to do about them; nothing is left mounted then.
pub fn mount(wish: &Wish<'_>) -> Result<(), Fault> {
    let plan = plan(wish)?;
    if wish.foreground {
        return run(plan, journal::foreground(), |dir| {
            println!("mounted on {}", dir.display());
        });
    }
    let (reader, writer) = io::pipe().map_err(|e| system("no pipe", &e))?;
    match process::fork().map_err(|e| system("cannot fork", &e))? {
        Side::Parent => {
            drop(writer);
            wait_until_ready(reader, &plan.dir)
        }
        Side::Child => {
            drop(reader);
            let failed = run_detached(plan, writer).is_err();
            // Not through the caller's way out: that one is the parent's.
            std::process::exit(i32::from(failed));
        }
    }
}

fn plan(wish: &Wish<'_>) -> Result<Plan, Fault> {
    let source = Source::parse(wish.source)?;
    let options = Options::parse(wish.options)?;
    let dir = mount_point(wish.dir)?;
    Ok(Plan {
        shown: wish.source.to_owned(),
        source,
        dir,
        options,
    })
}

/// The directory to mount on, without symbolic links. What is mounted there is
/// looked up before anything is asked of it, since a dead mount fails or hangs.
fn mount_point(dir: &Path) -> Result<PathBuf, Fault> {
    let shown = dir.display();
    let missing = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Fault::failed(format!(
            "{shown} does not exist: make it with `mkdir -p {shown}`"
        )),
        _ => Fault::failed(format!("{shown} cannot be mounted on: {e}")),
    };
    let place = mounts::place(dir).map_err(missing)?;
    let above = mounted_on(&place).map_err(|e| system("cannot read the mount table", &e))?;
    let asked = std::fs::symlink_metadata(&place);
    if let Some(above) = above.filter(mounts::MountInfo::is_ours) {
        // Not its attributes: the kernel may still have those of a dead one.
        let answer = rustix::fs::getxattr(&place, super::PID_XATTR, &mut [0; 16][..]);
        return Err(match answer.map_err(io::Error::from) {
            Err(e) if is_dead(&e) => stale(dir),
            _ => Fault::refused(format!(
                "{shown} has {} mounted already: `forebay umount {shown}` first",
                above.source
            )),
        });
    }
    match asked {
        Ok(meta) if meta.is_dir() => Ok(place),
        Ok(_) => Err(Fault::failed(format!(
            "{shown} is not a directory: name one to mount on"
        ))),
        Err(e) if is_dead(&e) => Err(stale(dir)),
        Err(e) => Err(missing(e)),
    }
}

/// What the kernel says for a mount whose process has ended, and for a request
/// that was on its way to it then.
fn is_dead(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

fn stale(dir: &Path) -> Fault {
    let dir = dir.display();
    Fault::failed(format!(
        "{dir} is a stale mount whose process has ended: clear it with `forebay umount {dir}` \
         or `umount -l {dir}`"
    ))
}

fn system(what: &str, e: &io::Error) -> Fault {
    Fault::failed(format!("{what}: {e}"))
}

/// Waits for the child's word; then asks the mount itself once, so that who
/// started it finds it working.
fn wait_until_ready(mut reader: io::PipeReader, dir: &Path) -> Result<(), Fault> {
    let mut word = Vec::new();
    let mut bytes = [0u8; 512];
    // The child keeps its end for what may still go wrong, so the end of the
    // stream comes with a failure only.
    while word != READY {
        match reader.read(&mut bytes) {
            Ok(0) => break,
            Ok(n) => word.extend_from_slice(&bytes[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(system("the mount process cannot be heard", &e)),
        }
    }
    if word != READY {
        return Err(Fault::from_bytes(&word));
    }
    std::fs::symlink_metadata(dir)
        .map_err(|e| Fault::failed(format!("{} does not answer: {e}", dir.display())))?;
    Ok(())
}

/// The child: a process of its own in every respect once it is ready.
fn run_detached(plan: Plan, mut to_parent: io::PipeWriter) -> Result<(), Fault> {
    let mut ready = to_parent.try_clone().map_err(|e| system("no pipe", &e))?;
    let result = serve_detached(plan, move || {
        // A parent that is gone needs no word.
        let _ = ready.write_all(READY);
    });
    if let Err(fault) = &result {
        let _ = to_parent.write_all(&fault.to_bytes());
    }
    result
}

fn serve_detached(plan: Plan, mut ready: impl FnMut() + 'static) -> Result<(), Fault> {
    rustix::process::setsid().map_err(|e| system("no session of its own", &e.into()))?;
    let file = plan.options.log.as_deref().map(journal::open).transpose()?;
    let log = journal::detached(file.is_some());
    run(plan, log, move |_| {
        // Without /dev/null the terminal stays, and nothing else changes.
        let _ = process::leave_terminal(file.as_ref());
        ready();
    })
}

/// Connects, mounts, serves, drains. `ready` is called when the mount answers.
fn run(plan: Plan, log: reactor::Log, ready: impl FnOnce(&Path) + 'static) -> Result<(), Fault> {
    // Before there are other threads: a signal reaches one that takes it.
    let signals = Signals::block(&[Signal::INT, Signal::TERM, Signal::HUP])
        .map_err(|e| system("signals cannot be read", &e))?;
    // Nothing of the mount may be in use by its own process (C14).
    std::env::set_current_dir("/").map_err(|e| system("cannot go to /", &e))?;
    if rustix::process::geteuid().is_root() {
        // Refused in some containers: then the kernel may make it wait for
        // memory that its own writes would free, as any user's process.
        let _ = rustix::process::configure_io_flusher_behavior(true);
    }
    let port = Port::alone().map_err(|e| system("no event descriptor", &e))?;
    let mut options = reactor::Options::new("mount", port);
    options.log = log;
    let life = |local: Local| {
        let signals = signals.on(&local);
        life(local, plan, signals, ready)
    };
    reactor::run(options, life).map_err(|e| Fault::failed(e.to_string()))?
}

async fn life(
    local: Local,
    plan: Plan,
    signals: SignalStream,
    ready: impl FnOnce(&Path),
) -> Result<(), Fault> {
    let client = connect(&local, &plan).await?;
    let device = match attach(&wanted(&plan, &client), &plan.dir) {
        Ok(device) => Descriptor::new(device),
        Err(fault) => {
            client.close().await;
            return Err(fault);
        }
    };
    let session = Session::new(local.clone(), client.clone(), Device::new(device.clone()));
    let ended = Promise::default();
    local.spawn({
        let (local, session, ended) = (local.clone(), session.clone(), ended.clone());
        async move { ended.set(serve(local, session, device).await) }
    });
    let has_started = session.started().await;
    if has_started {
        tune(&local, &plan.dir);
        ready(&plan.dir);
        let line = format!("{} is mounted on {}", plan.shown, plan.dir.display());
        local.log(Level::Info, &line);
        local.spawn(on_signals(
            local.clone(),
            signals,
            plan.dir.clone(),
            ended.clone(),
        ));
    }
    let served = ended.get().await;
    if !has_started || served.is_err() {
        // A mount that nobody serves would fail every access from now on.
        let dir = plan.dir.clone();
        in_thread(&local, move || detach(&dir, true)).await;
    }
    local.log(
        Level::Info,
        &format!("{} is unmounted: draining", plan.dir.display()),
    );
    session.quiet().await;
    client.close().await;
    local.log(Level::Info, "everything is stable at the box");
    served.map_err(|e| Fault::failed(format!("the FUSE device failed: {e}")))?;
    match has_started {
        true => Ok(()),
        false => Err(Fault::failed(format!(
            "{} did not come up: forebay needs Linux 6.1 or later",
            plan.dir.display()
        ))),
    }
}

async fn connect(local: &Local, plan: &Plan) -> Result<Client<Local>, Fault> {
    let node = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name = plan.options.name.clone();
    let options = client::Options {
        name: name.unwrap_or_else(|| format!("{node}:{}", plan.dir.display())),
        read_only: plan.options.read_only,
        deadline: plan.options.deadline,
        locks: true,
        ahead: !plan.options.is_sync(),
        // The kernel checks what it may answer itself by the same attributes
        // (`default_permissions`).
        callers_checked: true,
        ..client::Options::default()
    };
    let hosts = plan.source.hosts.clone();
    let target = &plan.source.target;
    Client::connect(local.clone(), hosts, target, options)
        .await
        .map_err(|e| match e {
            client::ConnectError::NoTarget => Fault::failed(format!(
                "the box has no target \"{target}\": `forebay status` on the box lists them"
            )),
            e => Fault::failed(format!(
                "{}: {e}: is the box running, and is this its address?",
                plan.source.hosts.join(", ")
            )),
        })
}

fn wanted(plan: &Plan, client: &Client<Local>) -> Attach {
    let mut flags = plan.options.flags();
    if client.agreed().is_some_and(|a| a.read_only) && !plan.options.read_only {
        flags.push(Flag::ReadOnly);
    }
    let is_root = rustix::process::geteuid().is_root();
    Attach {
        source: plan.shown.clone(),
        // The kernel judges each access by mode and owner (C13), so that a
        // mount by root is a file system for everybody, as any other.
        allow_other: plan.options.allow_other.unwrap_or(is_root),
        max_read: client.payload_max().clamp(BLOCK, PAYLOAD_MAX),
        flags,
    }
}

/// Read-ahead of mapped files, where we may set it.
fn tune(local: &Local, dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let set = mounted_on(dir).and_then(|mount| match mount {
        Some(mount) => mounts::set_read_ahead(&mount, READ_AHEAD_KIB),
        None => Ok(()),
    });
    if let Err(e) = set {
        local.log(
            Level::Warn,
            &format!("read-ahead stays at the kernel's default: {e}"),
        );
    }
}

/// The first signal unmounts; the mount then drains. A second one gives up.
async fn on_signals(
    local: Local,
    signals: SignalStream,
    dir: PathBuf,
    ended: Promise<Result<(), crate::base::Errno>>,
) {
    let mut is_leaving = false;
    while let Ok(signal) = signals.next().await {
        if signal == Signal::HUP {
            continue;
        }
        if is_leaving {
            let line = "second signal: gone before everything was stable";
            local.log(Level::Error, line);
            std::process::exit(1);
        }
        is_leaving = true;
        let (leaving, dir, ended) = (local.clone(), dir.clone(), ended.clone());
        local.spawn(async move { leave(leaving, dir, ended).await });
    }
}

/// Unmounts in a thread of its own, because the kernel asks this mount for
/// page write-back meanwhile. What is still in use then loses its mount.
async fn leave(local: Local, dir: PathBuf, ended: Promise<Result<(), crate::base::Errno>>) {
    let told = in_thread(&local, move || match detach(&dir, false)? {
        Detached::Gone => Ok(Detached::Gone),
        Detached::Busy => {
            sync(&dir);
            detach(&dir, true).map(|_| Detached::Busy)
        }
    });
    match told.await {
        Some(Ok(Detached::Gone)) => {}
        Some(Ok(Detached::Busy)) => {
            local.log(
                Level::Warn,
                "still in use: open files on this mount fail from now on",
            );
            ended.set(Ok(()));
        }
        Some(Err(fault)) => {
            local.log(Level::Error, &fault.to_string());
            ended.set(Ok(()));
        }
        None => ended.set(Ok(())),
    }
}

/// Runs what may block for long; None if there is no thread for it.
async fn in_thread<T: Send + 'static>(
    local: &Local,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (reader, writer) = io::pipe().ok()?;
    let thread = std::thread::Builder::new()
        .name("leave".into())
        .spawn(move || {
            let value = work();
            drop(writer);
            value
        });
    let thread = thread.ok()?;
    let end = Descriptor::new(OwnedFd::from(reader));
    local.poll_readable(&end).await.ok()?;
    thread.join().ok()
}

/// Stores through mappings that are still there reach the mount process only
/// when the kernel is asked to write them: a lazy unmount does not ask. While
/// the box is away nobody answers, so this waits in a thread of its own, and
/// not for ever.
fn sync(dir: &Path) {
    let dir = dir.to_path_buf();
    let (tell, told) = std::sync::mpsc::channel();
    let work = move || {
        if let Ok(file) = std::fs::File::open(dir) {
            let _ = rustix::fs::syncfs(&file);
        }
        let _ = tell.send(());
    };
    if std::thread::Builder::new()
        .name("sync".into())
        .spawn(work)
        .is_ok()
    {
        let _ = told.recv_timeout(SYNC);
    }
}

/// Unmounts what forebay mounted on `dir`, and returns when its process has
/// drained and ended.
///
/// # Errors
/// Nothing of ours is mounted there, it is in use, or may not be unmounted.
pub fn umount(dir: &Path) -> Result<(), Fault> {
    let shown = dir.display();
    let place = mounts::place(dir)
        .map_err(|e| Fault::failed(format!("{shown} is not a mount of Forebay: {e}")))?;
    let mounted = mounted_on(&place).map_err(|e| system("cannot read the mount table", &e))?;
    if !mounted.is_some_and(|m| m.is_ours()) {
        return Err(Fault::failed(format!(
            "{shown} is not a mount of Forebay: `findmnt -t {}` lists those that are",
            super::sys::attach::FSTYPE
        )));
    }
    // Held before the unmount, so that the number cannot come to mean another.
    let process = process_behind(&place);
    // Nothing is left in the kernel to write: a mapping makes the mount busy,
    // and its end waits until its pages are written (measured).
    match detach(&place, false)? {
        Detached::Gone => {}
        Detached::Busy => {
            return Err(Fault::refused(format!(
                "{shown} is in use: close what is open on it (`fuser -vm {shown}` lists it)"
            )));
        }
    }
    if let Some(process) = process {
        wait_for_end(&process, &shown.to_string());
    }
    Ok(())
}

/// The mount's own word about its process; None if it is dead, or in another
/// PID name space.
fn process_behind(dir: &Path) -> Option<OwnedFd> {
    let mut value = [0u8; 16];
    let len = rustix::fs::getxattr(dir, super::PID_XATTR, &mut value[..]).ok()?;
    let pid = std::str::from_utf8(value.get(..len)?).ok()?.parse().ok()?;
    let pid = rustix::process::Pid::from_raw(pid)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

fn wait_for_end(process: &OwnedFd, dir: &str) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let notice = Timespec {
        tv_sec: NOTICE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let mut timeout = Some(&notice);
    loop {
        let mut fds = [PollFd::new(process, PollFlags::IN)];
        match poll(&mut fds, timeout) {
            Ok(0) => {
                eprintln!(
                    "{dir} is unmounted; its process still waits for the box to make everything \
                     stable. It goes on if this command is interrupted."
                );
                timeout = None;
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// What the child says when the mount answers.
const READY: &[u8] = b"ready";
/// At most what INIT offers the kernel.
const READ_AHEAD_KIB: u32 = 4096;
/// How long a mount that is in use waits for the kernel to write its pages.
const SYNC: Duration = Duration::from_secs(10);
/// After so long an unmount says what it waits for.
const NOTICE: Duration = Duration::from_secs(2);
