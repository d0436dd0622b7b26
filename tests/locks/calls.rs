//! The system calls of file locks, and processes that make them.

use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Read,
    Write,
    Unlock,
}

/// To the end of the file, wherever that is.
pub const END: i64 = i64::MAX;
pub const ALL: Range<i64> = 0..END;

fn raw(kind: Lock, range: &Range<i64>) -> libc::flock {
    let number = match kind {
        Lock::Read => libc::F_RDLCK,
        Lock::Write => libc::F_WRLCK,
        Lock::Unlock => libc::F_UNLCK,
    };
    libc::flock {
        l_type: i16::try_from(number).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: range.start,
        l_len: match range.end {
            END => 0,
            end => end - range.start,
        },
        l_pid: 0,
    }
}

fn call(file: &File, command: i32, lock: &mut libc::flock) -> Result<(), i32> {
    // SAFETY: the descriptor is open, and the structure is one for these commands.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, lock) };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
    }
}

/// Tries; the process is the owner.
pub fn fcntl(file: &File, kind: Lock, range: Range<i64>) -> Result<(), i32> {
    call(file, libc::F_SETLK, &mut raw(kind, &range))
}

/// Waits.
pub fn lock(file: &File, kind: Lock, range: Range<i64>) -> Result<(), i32> {
    call(file, libc::F_SETLKW, &mut raw(kind, &range))
}

/// Tries; the open file is the owner.
pub fn ofd(file: &File, kind: Lock, range: Range<i64>) -> Result<(), i32> {
    call(file, libc::F_OFD_SETLK, &mut raw(kind, &range))
}

/// What is in the way.
pub fn test(file: &File, kind: Lock, range: Range<i64>) -> Option<(Lock, Range<i64>, i32)> {
    let mut lock = raw(kind, &range);
    call(file, libc::F_GETLK, &mut lock).unwrap();
    let end = match lock.l_len {
        0 => END,
        len => lock.l_start + len,
    };
    let found = |kind| Some((kind, lock.l_start..end, lock.l_pid));
    match i32::from(lock.l_type) {
        libc::F_UNLCK => None,
        libc::F_RDLCK => found(Lock::Read),
        _ => found(Lock::Write),
    }
}

pub fn flock(file: &File, operation: FlockOperation) -> Result<(), i32> {
    rustix::fs::flock(file, operation).map_err(rustix::io::Errno::raw_os_error)
}

/// Another process with a lock, or one that waits for it.
pub struct Child {
    child: std::process::Child,
    lines: BufReader<ChildStdout>,
}

const WHAT: &str = "FOREBAY_LOCK_WHAT";
const FILE: &str = "FOREBAY_LOCK_FILE";

impl Child {
    /// One that has its lock when this returns.
    pub fn start(what: &str, file: &Path) -> Child {
        blocked(what, file).wait_for_lock()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What came of its wait.
    pub fn outcome(mut self) -> String {
        let said = self.next();
        self.kill();
        said
    }

    pub fn wait_for_lock(mut self) -> Child {
        assert_eq!(self.next(), "locked");
        self
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let n = self.lines.read_line(&mut line).unwrap();
            assert!(n > 0, "it ended without a word");
            // The test runner talks, too.
            if let Some((_, said)) = line.split_once("said: ") {
                return said.trim().to_owned();
            }
        }
    }

    /// Interrupts what it waits for.
    pub fn signal(&self) {
        // Its main thread waits for the thread of the test: all are hit.
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap() {
            let task = task.unwrap().file_name();
            let tid: i32 = task.to_str().unwrap().parse().unwrap();
            // SAFETY: no memory is involved.
            unsafe { libc::syscall(libc::SYS_tgkill, self.pid(), tid, libc::SIGUSR1) };
        }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A process that asks for a lock and may have to wait.
pub fn blocked(what: &str, file: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_another_process", "--nocapture"])
        .env(WHAT, what)
        .env(FILE, file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    Child { child, lines }
}

extern "C" fn on_signal(_: i32) {}

pub fn run_child() {
    let (Some(what), Some(path)) = (std::env::var_os(WHAT), std::env::var_os(FILE)) else {
        return;
    };
    // SAFETY: the handler does nothing; without SA_RESTART it interrupts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
    let open = |path: &Path| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap()
    };
    let path = Path::new(&path);
    let file = open(path);
    let mut other = None;
    let result = match what.to_str().unwrap() {
        "fcntl" => lock(&file, Lock::Write, ALL),
        "ofd" => call(&file, libc::F_OFD_SETLKW, &mut raw(Lock::Write, &ALL)),
        "flock" => flock(&file, FlockOperation::LockExclusive),
        "fcntl-then-beside" => {
            lock(&file, Lock::Write, ALL).unwrap();
            println!("said: locked");
            let beside = other.insert(open(&path.with_file_name("f")));
            lock(beside, Lock::Write, ALL)
        }
        what => panic!("{what}"),
    };
    match result {
        Ok(()) => println!("said: locked"),
        Err(errno) => println!("said: errno {errno}"),
    }
    // Killed by who started it, or ended with it.
    let _ = std::io::stdin().lines().next();
    drop((file, other));
}
