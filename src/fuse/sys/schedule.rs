//! Where a thread runs, and how low it ranks while it does.

use rustix::io::Errno;
use rustix::process::test_kill_process;
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// The CPUs that this thread may run on.
pub fn home() -> io::Result<CpuSet> {
    Ok(sched_getaffinity(None)?)
}

/// Keeps a thread (`None`: this one) on these CPUs.
pub fn keep_on(thread: Option<Pid>, cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(thread, cpus)?)
}

/// Lets a thread run only where no other wants to. Anybody may.
pub fn lower(thread: Option<Pid>) -> io::Result<()> {
    set_policy(thread, libc::SCHED_IDLE)
}

/// Has a thread rank as any other. EPERM without CAP_SYS_NICE, or a limit on nice
/// values that allows it.
pub fn raise(thread: Option<Pid>) -> io::Result<()> {
    set_policy(thread, libc::SCHED_OTHER)
}

fn set_policy(thread: Option<Pid>, policy: libc::c_int) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    let thread = thread.map_or(0, |thread| thread.as_raw_nonzero().get());
    // SAFETY: the kernel reads `param`, which outlives the call.
    match unsafe { libc::sched_setscheduler(thread, policy, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A thread, looked at from outside.
#[derive(Debug)]
pub struct Thread {
    pub id: u32,
    stat: File,
}

impl Thread {
    pub fn open(id: u32) -> io::Result<Thread> {
        // Not /proc/ID/stat, which adds up all threads of the process.
        let stat = File::open(format!("/proc/{id}/task/{id}/stat"))?;
        Ok(Thread { id, stat })
    }

    /// The CPU that it runs on, or ran on last.
    pub fn cpu(&self) -> Option<usize> {
        let mut bytes = [0; 1024];
        let len = self.stat.read_at(&mut bytes, 0).ok()?;
        cpu_in(bytes.get(..len)?)
    }
}

/// Does a thread wait for anything, or exist no more? False also where this
/// process cannot tell: the thread is in another PID name space (0), or hidden,
/// or /proc is of another name space.
pub fn is_waiting_or_gone(id: u32) -> bool {
    let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) else {
        return false;
    };
    if !proc_is_own() {
        return false;
    }
    match std::fs::read(format!("/proc/{id}/task/{id}/stat")) {
        Ok(stat) => state_in(&stat).is_some_and(|state| state != RUNNING),
        // Hidden ones look like that, too.
        Err(_) => test_kill_process(pid) == Err(Errno::SRCH),
    }
}

/// Does /proc number threads as this process does?
fn proc_is_own() -> bool {
    static IS_OWN: OnceLock<bool> = OnceLock::new();
    *IS_OWN.get_or_init(|| {
        let own = std::process::id().to_string();
        std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == own.as_str())
    })
}

/// On a CPU, or to be soon.
const RUNNING: &str = "R";

/// The third word of a thread's `stat`, after its name.
fn state_in(stat: &[u8]) -> Option<&str> {
    after_name(stat)?.split_ascii_whitespace().next()
}

fn after_name(stat: &[u8]) -> Option<&str> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    std::str::from_utf8(stat.get(name_end + 1..)?).ok()
}

/// The 39th word of a thread's `stat`; the second is a name in brackets, and may
/// hold anything.
fn cpu_in(stat: &[u8]) -> Option<usize> {
    let mut words = after_name(stat)?.split_ascii_whitespace();
    words.nth(36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_seen_where_it_runs() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let thread = Thread::open(own.cast_unsigned()).expect("it runs");
        let before = home().expect("CPUs");
        for cpu in (0..CpuSet::MAX_CPU).filter(|cpu| before.is_set(*cpu)) {
            let mut one = CpuSet::new();
            one.set(cpu);
            keep_on(None, &one).expect("one of its own");
            assert_eq!(thread.cpu(), Some(cpu));
        }
        keep_on(None, &before).expect("as it was");
    }

    /// One that sleeps, one that runs, one that is gone, and none.
    #[test]
    fn a_thread_waits_runs_or_is_gone() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            let own = rustix::thread::gettid().as_raw_nonzero().get();
            tell.send(own.cast_unsigned()).expect("heard");
            let _ = ends.recv();
        });
        let asleep = told.recv().expect("it runs");
        while !is_waiting_or_gone(asleep) {
            std::thread::yield_now();
        }
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        assert!(!is_waiting_or_gone(own.cast_unsigned()), "who asks runs");
        drop(end);
        sleeper.join().expect("ended");
        while !is_waiting_or_gone(asleep) {
            std::thread::yield_now();
        }
        assert!(!is_waiting_or_gone(0), "in another name space");
    }

    #[test]
    fn a_name_with_brackets_and_spaces_is_no_word() {
        let words: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("77 (a) b) (c d) {}\n", words.join(" "));
        assert_eq!(cpu_in(stat.as_bytes()), Some(39));
        for cut in 0..stat.len() {
            let _ = cpu_in(&stat.as_bytes()[..cut]);
        }
        assert_eq!(cpu_in(b"77 a"), None);
    }
}
