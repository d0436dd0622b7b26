//! Credentials by reference: each is declared once on a connection and then
//! named by a number. Numbers keep their meaning over reconnects, and are given
//! a new one only while no request in flight uses them.

use super::call::Cred;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Credentials that a client has declared at a time; the box allows no more.
pub const CREDS_MAX: usize = 1024;

#[derive(Default)]
pub struct Creds {
    ids: BTreeMap<Rc<Cred>, u32>,
    /// By id, less one.
    entries: Vec<Entry>,
    clock: u64,
}

struct Entry {
    cred: Rc<Cred>,
    declared: bool,
    in_flight: u32,
    used: u64,
}

impl Creds {
    /// The number of `cred`, held for a request in flight; `true` if it must
    /// be declared first. `None`: all numbers are in use.
    pub fn hold(&mut self, cred: &Rc<Cred>) -> Option<(u32, bool)> {
        let id = match self.ids.get(cred) {
            Some(id) => *id,
            None => self.assign(cred)?,
        };
        self.clock += 1;
        let entry = &mut self.entries[id as usize - 1];
        entry.in_flight += 1;
        entry.used = self.clock;
        Some((id, !std::mem::replace(&mut entry.declared, true)))
    }

    /// The request that held `cred` is answered.
    pub fn release(&mut self, cred: &Rc<Cred>) {
        if let Some(id) = self.ids.get(cred) {
            let entry = &mut self.entries[*id as usize - 1];
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
    }

    /// The connection is gone: nothing is declared on the next one.
    pub fn forget_declared(&mut self) {
        for entry in &mut self.entries {
            entry.declared = false;
        }
    }

    fn assign(&mut self, cred: &Rc<Cred>) -> Option<u32> {
        let entry = Entry {
            cred: Rc::clone(cred),
            declared: false,
            in_flight: 0,
            used: 0,
        };
        let at = if self.entries.len() < CREDS_MAX {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let idle = self.entries.iter().enumerate();
            let idle = idle.filter(|(_, e)| e.in_flight == 0);
            let (at, _) = idle.min_by_key(|(_, e)| e.used)?;
            self.ids.remove(&self.entries[at].cred);
            self.entries[at] = entry;
            at
        };
        let id = u32::try_from(at + 1).ok()?;
        self.ids.insert(Rc::clone(cred), id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cred(uid: usize) -> Rc<Cred> {
        Rc::new(Cred {
            uid: u32::try_from(uid).expect("small"),
            ..Cred::default()
        })
    }

    #[test]
    fn a_number_in_flight_keeps_its_meaning() {
        let mut creds = Creds::default();
        let (first, declare) = creds.hold(&cred(0)).expect("room");
        assert!(declare);
        assert_eq!(creds.hold(&cred(0)), Some((first, false)));
        for uid in 1..CREDS_MAX {
            creds.hold(&cred(uid)).expect("room");
        }
        assert_eq!(creds.hold(&cred(CREDS_MAX)), None, "all are in flight");
        creds.release(&cred(7));
        let (id, declare) = creds.hold(&cred(CREDS_MAX)).expect("one is idle");
        assert_eq!((id, declare), (8, true));
        assert_eq!(creds.hold(&cred(0)), Some((first, false)));
        creds.forget_declared();
        assert_eq!(creds.hold(&cred(0)), Some((first, true)));
    }
}
