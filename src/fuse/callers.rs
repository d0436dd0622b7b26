//! Who is behind a request. The kernel sends uid and gid; supplementary groups
//! are read from `/proc`, once in a while for each thread. Root's are not: they
//! give it nothing that it does not have, and a box that maps root to somebody
//! else gives that one its own.

use super::abi::input::InHeader;
use crate::base::Mono;
use crate::base::limits::GROUPS_MAX;
use crate::client::Cred;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// How long a thread's groups are believed. A thread that only drops groups
/// keeps them at the box for this long; the kernel, which judges first
/// (`default_permissions`), sees the change at once. A change of uid or gid is
/// another key, and so is never missed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Threads remembered before all are dropped and read again.
const THREADS_MAX: usize = 4096;

/// The groups of the threads that asked lately.
#[derive(Default, Debug)]
pub struct Callers {
    known: HashMap<(u32, u32, u32), (Mono, Rc<Cred>)>,
}

impl Callers {
    /// The caller of the request with this header, at `now`.
    pub fn of(&mut self, head: &InHeader, now: Mono) -> Rc<Cred> {
        let key = (head.pid, head.uid, head.gid);
        if let Some((until, caller)) = self.known.get(&key)
            && now < *until
        {
            return Rc::clone(caller);
        }
        let caller = Rc::new(Cred {
            uid: head.uid,
            gid: head.gid,
            groups: match head.uid {
                0 => Vec::new(),
                _ => groups_of(head.pid),
            },
        });
        if self.known.len() >= THREADS_MAX {
            self.known.clear();
        }
        self.known.insert(key, (now + BELIEVED, Rc::clone(&caller)));
        caller
    }
}

/// None where the kernel itself asks, or where the thread is not in our `/proc`.
fn groups_of(pid: u32) -> Vec<u32> {
    if pid == 0 {
        return Vec::new();
    }
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => groups_in(&status),
        Err(_) => Vec::new(),
    }
}

/// The numbers of the `Groups:` line.
fn groups_in(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let numbers = line.unwrap_or("").split_whitespace();
    let parsed = numbers.filter_map(|n| n.parse().ok());
    parsed.take(GROUPS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_the_status_file() {
        assert_eq!(
            groups_in("Uid:\t1\nGroups:\t4 20 1000 \nNStgid:\t3\n"),
            [4, 20, 1000]
        );
        assert_eq!(groups_in("Groups:\t\n"), [0; 0]);
        assert_eq!(groups_in("Groups:\t1 x 4294967296 7"), [1, 7]);
        assert_eq!(groups_in(""), [0; 0]);
    }

    #[test]
    fn groups_are_believed_for_a_while() {
        let mut callers = Callers::default();
        let head = InHeader {
            len: 40,
            opcode: 1,
            unique: 2,
            nodeid: 1,
            uid: 5,
            gid: 6,
            pid: std::process::id(),
            extensions: 0,
            padding: 0,
        };
        let first = callers.of(&head, Mono(0));
        let again = callers.of(&head, Mono(1));
        assert!(Rc::ptr_eq(&first, &again));
        let later = callers.of(&head, Mono(0) + BELIEVED);
        assert!(!Rc::ptr_eq(&first, &later));
        assert_eq!((later.uid, later.gid), (5, 6));
    }
}
