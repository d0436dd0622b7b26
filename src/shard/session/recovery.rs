//! The time after an unclean stop, pure: whose unstable changes the box still
//! waits for, in which order they are run, and when others are served.
//!
//! Replays run in transno order **over all clients**: the next one is run when
//! no client that may come with an earlier one is still to be heard. Clients
//! without unstable work hold nobody up (X3); the window bounds the rest.

use super::record::ClientRecord;
use crate::base::{ClientId, Transno};
use crate::wire::Features;
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of a replay now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// An earlier one may still come.
    Wait,
    Run,
    /// It is durable, or was run before the connection broke.
    Done,
    /// Too late: others have been served meanwhile.
    Late,
}

#[derive(Debug, Default)]
pub struct Recovery {
    /// Clients of before the stop that may be taken back.
    known: BTreeMap<ClientId, ClientRecord>,
    /// Those of them with unstable work whose replay is not complete.
    awaited: BTreeSet<ClientId>,
    /// The replay of each client that is waiting for its turn.
    heads: BTreeMap<ClientId, Transno>,
    /// All transnos up to this one have been run or are durable.
    reached: Transno,
}

impl Recovery {
    /// At start, with the clients on flash and what was found durable.
    #[must_use]
    pub fn new(known: BTreeMap<ClientId, ClientRecord>, durable: Transno) -> Recovery {
        let unstable = known.iter().filter(|(_, record)| record.unstable);
        Recovery {
            awaited: unstable.map(|(client, _)| *client).collect(),
            known,
            heads: BTreeMap::new(),
            reached: durable,
        }
    }

    /// Are all served?
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.awaited.is_empty()
    }

    /// May a client still claim the file locks that it had?
    #[must_use]
    pub fn may_claim_locks(&self) -> bool {
        let mut known = self.known.values();
        known.any(|record| record.features.has(Features::FILE_LOCKS))
    }

    #[must_use]
    pub fn known(&self, client: ClientId) -> Option<&ClientRecord> {
        self.known.get(&client)
    }

    /// The client with this claim comes back: may it replay?
    #[must_use]
    pub fn admits(&self, client: ClientId, incarnation: u64) -> bool {
        if incarnation == 0 {
            return false;
        }
        let known = self.known.get(&client);
        known.is_some_and(|r| incarnation == r.incarnation || incarnation == r.previous)
    }

    /// A replay arrives, or looks again.
    pub fn on_replay(&mut self, client: ClientId, transno: Transno) -> Turn {
        if transno <= self.reached {
            return Turn::Done;
        }
        if !self.awaited.contains(&client) {
            return Turn::Late;
        }
        self.heads.insert(client, transno);
        let all_here = self.awaited.iter().all(|c| self.heads.contains_key(c));
        if all_here && self.heads.values().all(|head| transno <= *head) {
            Turn::Run
        } else {
            Turn::Wait
        }
    }

    /// A replay that had its turn was run.
    pub fn on_replayed(&mut self, client: ClientId, transno: Transno) {
        self.heads.remove(&client);
        self.reached = self.reached.max(transno);
    }

    /// The connection of a replaying client broke; it may come back.
    pub fn on_lost(&mut self, client: ClientId) {
        self.heads.remove(&client);
    }

    /// The client is done, or gone for good.
    pub fn on_done(&mut self, client: ClientId) {
        self.heads.remove(&client);
        self.awaited.remove(&client);
        self.known.remove(&client);
    }

    /// The window is over: those that did not come are returned, to be evicted.
    pub fn on_window_end(
        &mut self,
        is_here: impl Fn(ClientId) -> bool,
    ) -> Vec<(ClientId, ClientRecord)> {
        let missing: Vec<_> = self
            .known
            .keys()
            .copied()
            .filter(|c| !is_here(*c))
            .collect();
        let mut gone = Vec::new();
        for client in missing {
            if let Some(record) = self.known.remove(&client) {
                gone.push((client, record));
            }
            self.on_done(client);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Time;
    use proptest::prelude::*;

    fn record(unstable: bool) -> ClientRecord {
        ClientRecord {
            incarnation: 1,
            previous: 0,
            target: 0,
            name: String::new(),
            features: Features::OURS,
            lease_ms: 0,
            read_only: false,
            unstable,
            clean: false,
            since: Time::default(),
        }
    }

    fn recovery(clients: u64, durable: u64) -> Recovery {
        let known = (0..clients).map(|c| (ClientId(u128::from(c)), record(true)));
        Recovery::new(known.collect(), Transno(durable))
    }

    #[test]
    fn who_holds_nothing_holds_nobody_up() {
        let known = [(ClientId(1), record(false))].into();
        let mut r = Recovery::new(known, Transno(4));
        assert!(r.is_over());
        assert!(r.admits(ClientId(1), 1) && !r.admits(ClientId(1), 2));
        assert_eq!(r.on_replay(ClientId(1), Transno(4)), Turn::Done);
        assert_eq!(r.on_replay(ClientId(1), Transno(5)), Turn::Late);
        assert_eq!(r.on_window_end(|_| false).len(), 1);
        assert!(!r.admits(ClientId(1), 1));
    }

    #[test]
    fn a_missing_client_is_waited_for_until_the_window_ends() {
        let mut r = recovery(2, 0);
        assert_eq!(r.on_replay(ClientId(0), Transno(7)), Turn::Wait);
        assert!(!r.is_over());
        let gone = r.on_window_end(|c| c == ClientId(0));
        assert_eq!(
            gone.iter().map(|(c, _)| *c).collect::<Vec<_>>(),
            [ClientId(1)]
        );
        assert_eq!(r.on_replay(ClientId(0), Transno(7)), Turn::Run);
        r.on_replayed(ClientId(0), Transno(7));
        assert_eq!(r.on_replay(ClientId(0), Transno(7)), Turn::Done);
        r.on_done(ClientId(0));
        assert!(r.is_over());
    }

    proptest! {
        /// Whatever the interleaving, replays run in transno order, all of them.
        #[test]
        fn replays_run_in_order(owners in prop::collection::vec(0u64..4, 1..40), picks in prop::collection::vec(0usize..4, 400)) {
            let mut queues: Vec<Vec<u64>> = vec![Vec::new(); 4];
            for (i, owner) in owners.iter().enumerate() {
                queues[usize::try_from(*owner).expect("small")].push(i as u64 + 1);
            }
            let mut r = recovery(4, 0);
            let mut done = Vec::new();
            for pick in picks {
                let client = ClientId(pick as u128);
                match queues[pick].first() {
                    None => r.on_done(client),
                    Some(&t) => if r.on_replay(client, Transno(t)) == Turn::Run {
                        r.on_replayed(client, Transno(t));
                        done.push(t);
                        queues[pick].remove(0);
                    },
                }
            }
            let in_order: Vec<u64> = (1..=done.len() as u64).collect();
            prop_assert_eq!(done, in_order);
        }
    }
}
