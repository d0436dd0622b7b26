//! The file locks of all clients of a shard: flock, fcntl and OFD locks. Pure.
//!
//! Each owner (L12) has disjoint, sorted locks on a file. A request is granted
//! if no other owner's **granted** lock is in its way: who waits is in nobody's
//! way, as on Linux, so that a lock that is tried fails only for what is held.
//! Hence a stream of readers can keep a writer waiting.
//!
//! ```text
//! set ──► Granted | WouldBlock | Deadlock | TooMany
//!   └───► Queued ──► woken: Granted | Deadlock | TooMany      (on any change)
//!              └───► withdraw
//! ```
//! Invariants after every call: no two owners' locks conflict; nobody waits
//! whom no granted lock is in the way of; no process waits for itself through
//! others (as far as [`DEADLOCK_OWNERS_MAX`] looks).
//!
//! flock from shared to exclusive, or back, gives up the old lock first, as on
//! Linux: if the new one is refused or waited for, the old one is lost.

use crate::base::{ClientId, Extent, Fid, HeldLock, LockKind, OpenId, OwnerKind, WaitId};
use std::collections::{BTreeMap, BTreeSet};

mod deadlock;
mod ranges;
mod words;

pub use words::{FoundLock, LockAsked, LockOutcome, LockOwner, LockWoken, OwnedLocks, Wait};

/// Locks of one client, over all files; waits of one client.
pub const CLIENT_LOCKS_MAX: usize = 1 << 16;
pub const CLIENT_WAITS_MAX: usize = 1 << 12;
/// Locks of one file, over all owners; waits for one file.
pub const FILE_LOCKS_MAX: usize = 1 << 13;
pub const FILE_WAITS_MAX: usize = 1 << 10;
/// Owners that are looked at for a deadlock; a longer circle is not found.
pub const DEADLOCK_OWNERS_MAX: usize = 64;

/// All file locks of a shard.
#[derive(Debug, Default)]
pub struct FileLocks {
    files: BTreeMap<Fid, File>,
    clients: BTreeMap<ClientId, Client>,
    /// What each owner waits for; several, if its process has threads.
    waits_of: BTreeMap<LockOwner, BTreeSet<WaitId>>,
}

#[derive(Debug, Default)]
struct File {
    held: BTreeMap<LockOwner, Vec<HeldLock>>,
    /// The handles that each owner in `held` took locks through.
    opens: BTreeMap<LockOwner, BTreeSet<OpenId>>,
    /// In order of arrival.
    waiting: Vec<(WaitId, LockAsked)>,
}

#[derive(Debug, Default)]
struct Client {
    locks: usize,
    waits: BTreeMap<WaitId, Fid>,
}

impl FileLocks {
    /// Takes a lock on what `asked` names, in place of what its owner has
    /// there. With `wait` it is queued if it has to be; a wait that is queued
    /// already stays where it is, whatever is asked with it.
    pub fn set(
        &mut self,
        fid: Fid,
        asked: LockAsked,
        wait: Option<WaitId>,
    ) -> (LockOutcome, Vec<LockWoken>) {
        let asked = whole(asked);
        let mut woken = Vec::new();
        if wait.is_some_and(|id| self.is_waiting(asked.owner.client, id)) {
            return (LockOutcome::Queued, woken);
        }
        if asked.owner.kind == OwnerKind::Flock {
            if self.kind_of(fid, asked.owner) == Some(asked.lock.kind) {
                return (LockOutcome::Granted, woken);
            }
            woken = self.release(fid, asked.owner);
        }
        if self.blocker(fid, &asked).is_none() {
            let outcome = self.take(fid, &asked);
            self.settle(fid, &mut woken);
            return (outcome, woken);
        }
        let Some(id) = wait else {
            return (LockOutcome::WouldBlock, woken);
        };
        if self.is_deadlock(fid, &asked) {
            return (LockOutcome::Deadlock, woken);
        }
        (self.queue(fid, asked, id), woken)
    }

    /// Takes all of `own`, if nobody has what contradicts it; else its owner
    /// has nothing on the file.
    pub fn claim(&mut self, own: &OwnedLocks) -> (bool, Vec<LockWoken>) {
        let OwnedLocks { fid, owner, .. } = *own;
        let mut woken = Vec::new();
        for (lock, open) in own
            .locks
            .iter()
            .flat_map(|l| own.opens.iter().map(move |o| (l, o)))
        {
            let (lock, open) = (*lock, *open);
            let (outcome, more) = self.set(fid, LockAsked { owner, open, lock }, None);
            woken.extend(more);
            if outcome != LockOutcome::Granted {
                woken.extend(self.release(fid, owner));
                return (false, woken);
            }
        }
        (true, woken)
    }

    /// Gives up what `owner` has of `range`; of a flock, all of it.
    ///
    /// # Errors
    /// A lock would be split in two and a bound is reached: nothing changed.
    pub fn unlock(
        &mut self,
        fid: Fid,
        owner: LockOwner,
        range: Extent,
    ) -> Result<Vec<LockWoken>, LockOutcome> {
        let range = match owner.kind {
            OwnerKind::Flock => Extent::ALL,
            OwnerKind::Posix | OwnerKind::Ofd => range,
        };
        let mut woken = Vec::new();
        if self.replace(fid, owner, range, None)? {
            self.settle(fid, &mut woken);
        }
        Ok(woken)
    }

    /// The first lock in the way of `asked`.
    #[must_use]
    pub fn test(&self, fid: Fid, asked: LockAsked) -> Option<FoundLock> {
        self.blocker(fid, &whole(asked))
    }

    /// Does its owner have all that `asked` asks for?
    #[must_use]
    pub fn has(&self, fid: Fid, asked: &LockAsked) -> bool {
        let file = self.files.get(&fid);
        let held = file.and_then(|file| file.held.get(&asked.owner));
        held.is_some_and(|held| ranges::covers(held, &whole(*asked).lock))
    }

    /// Granted locks, and waits, of all files.
    #[must_use]
    pub fn locks(&self) -> usize {
        self.clients.values().map(|client| client.locks).sum()
    }
    #[must_use]
    pub fn waits(&self) -> usize {
        self.clients.values().map(|client| client.waits.len()).sum()
    }

    /// Has the owner anything on the file?
    #[must_use]
    pub fn has_any(&self, fid: Fid, owner: LockOwner) -> bool {
        let file = self.files.get(&fid);
        file.is_some_and(|file| file.held.contains_key(&owner))
    }

    /// Has any owner of the file a lock, or waits for one?
    #[must_use]
    pub fn is_locked(&self, fid: Fid) -> bool {
        self.files.contains_key(&fid)
    }

    #[must_use]
    pub fn is_waiting(&self, client: ClientId, id: WaitId) -> bool {
        let client = self.clients.get(&client);
        client.is_some_and(|client| client.waits.contains_key(&id))
    }

    /// Ends a wait; false if it is over, or never was.
    pub fn withdraw(&mut self, wait: Wait) -> bool {
        let client = self.clients.get(&wait.client);
        let Some(&fid) = client.and_then(|client| client.waits.get(&wait.id)) else {
            return false;
        };
        let at = self.files[&fid]
            .waiting
            .iter()
            .position(|(id, asked)| (*id, asked.owner.client) == (wait.id, wait.client))
            .expect("the index of waits agrees with the files");
        self.unqueue(fid, at);
        self.forget_if_empty(fid);
        true
    }

    /// Gives up all that `owner` has on the file. Its waits go on: they belong
    /// to calls in progress.
    pub fn release(&mut self, fid: Fid, owner: LockOwner) -> Vec<LockWoken> {
        self.unlock(fid, owner, Extent::ALL)
            .expect("giving up everything splits nothing")
    }

    /// Gives up everything of a client, its waits as well. Their ends are not
    /// among what is returned: nobody is there to hear of them.
    pub fn drop_client(&mut self, client: ClientId) -> Vec<LockWoken> {
        let mut woken = Vec::new();
        let Some(Client { waits, .. }) = self.clients.get(&client) else {
            return woken;
        };
        for id in waits.keys().copied().collect::<Vec<_>>() {
            self.withdraw(Wait { client, id });
        }
        for (fid, owner) in self.owners_of(client) {
            woken.extend(self.release(fid, owner));
        }
        woken
    }

    /// Gives up all that was taken through a handle of `client`'s, by whomever.
    pub fn close(&mut self, fid: Fid, client: ClientId, open: OpenId) -> Vec<LockWoken> {
        let Some(file) = self.files.get(&fid) else {
            return Vec::new();
        };
        let through = |(owner, opens): &(&LockOwner, &BTreeSet<OpenId>)| {
            owner.client == client && opens.contains(&open)
        };
        let owners: Vec<_> = file.opens.iter().filter(through).map(|(o, _)| *o).collect();
        let each = |owner| self.release(fid, owner);
        owners.into_iter().flat_map(each).collect()
    }

    /// All that a client has, to be claimed again after a restart.
    #[must_use]
    pub fn held_by(&self, client: ClientId) -> Vec<OwnedLocks> {
        let each = |(fid, owner): (Fid, LockOwner)| {
            let file = &self.files[&fid];
            let locks = file.held[&owner].clone();
            let opens = file.opens[&owner].iter().copied().collect();
            OwnedLocks {
                fid,
                owner,
                opens,
                locks,
            }
        };
        self.owners_of(client).into_iter().map(each).collect()
    }

    /// The kind of an owner's first lock: of a flock, of all it has.
    #[must_use]
    pub fn kind_of(&self, fid: Fid, owner: LockOwner) -> Option<LockKind> {
        let held = self.files.get(&fid)?.held.get(&owner)?;
        held.first().map(|lock| lock.kind)
    }

    fn owners_of(&self, client: ClientId) -> Vec<(Fid, LockOwner)> {
        let of_file = |(fid, file): (&Fid, &File)| {
            let owners = file.held.keys().filter(|owner| owner.client == client);
            owners.map(|owner| (*fid, *owner)).collect::<Vec<_>>()
        };
        self.files.iter().flat_map(of_file).collect()
    }

    /// The first granted lock in the way.
    fn blocker(&self, fid: Fid, asked: &LockAsked) -> Option<FoundLock> {
        let first = self.files.get(&fid)?.blockers(asked);
        first.min_by_key(|found| found.lock.range.start)
    }

    /// Puts `with` (nothing: gives up) in place of what `owner` has of `range`;
    /// whether anything changed. Nobody's lock is in the way.
    fn replace(
        &mut self,
        fid: Fid,
        owner: LockOwner,
        range: Extent,
        with: Option<HeldLock>,
    ) -> Result<bool, LockOutcome> {
        let file = self.files.get(&fid);
        let old = file.and_then(|f| f.held.get(&owner)).map(Vec::as_slice);
        let old = old.unwrap_or_default();
        let new = ranges::replaced(old, range, with);
        if new == old {
            return Ok(false);
        }
        let (was, is) = (old.len(), new.len());
        if is > was {
            let of_client = self.clients.get(&owner.client).map_or(0, |c| c.locks);
            let of_file = file.map_or(0, |f| f.held.values().map(Vec::len).sum());
            if of_client + is - was > CLIENT_LOCKS_MAX || of_file + is - was > FILE_LOCKS_MAX {
                return Err(LockOutcome::TooMany);
            }
        }
        let client = self.clients.entry(owner.client).or_default();
        client.locks = client.locks + is - was;
        let file = self.files.entry(fid).or_default();
        if new.is_empty() {
            file.held.remove(&owner);
            file.opens.remove(&owner);
        } else {
            file.held.insert(owner, new);
        }
        self.forget_client_if_empty(owner.client);
        self.forget_if_empty(fid);
        Ok(true)
    }

    /// Grants what nothing is in the way of any more, first come first served,
    /// and ends waits that turned into a deadlock: the lock that they now wait
    /// for was given to somebody who waits for them.
    fn settle(&mut self, fid: Fid, woken: &mut Vec<LockWoken>) {
        let mut at = 0;
        let mut was_granted = false;
        loop {
            let next = self.files.get(&fid).and_then(|f| f.waiting.get(at));
            let Some(&(id, asked)) = next else {
                // A grant may take the place of its owner's stronger lock, and
                // gives others somebody new to wait for: all are looked at again.
                if !std::mem::take(&mut was_granted) {
                    break;
                }
                at = 0;
                continue;
            };
            let Some(outcome) = self.end_of_wait(fid, &asked) else {
                at += 1;
                continue;
            };
            was_granted |= outcome == LockOutcome::Granted;
            self.unqueue(fid, at);
            let client = asked.owner.client;
            let wait = Wait { client, id };
            woken.push(LockWoken { wait, outcome });
        }
        self.forget_if_empty(fid);
    }

    /// How a wait ends now, the lock taken if it is granted; `None`: it goes on.
    fn end_of_wait(&mut self, fid: Fid, asked: &LockAsked) -> Option<LockOutcome> {
        if self.blocker(fid, asked).is_some() {
            let is_over = self.is_deadlock(fid, asked);
            return is_over.then_some(LockOutcome::Deadlock);
        }
        Some(self.take(fid, asked))
    }

    /// Takes over what another table has granted, whoever seems to be in the
    /// way: for a copy, which may hear of a grant before it hears of the unlock
    /// that made it possible.
    pub fn note(&mut self, fid: Fid, asked: LockAsked) {
        let asked = whole(asked);
        self.take(fid, &asked);
    }

    /// Makes what `owner` has of `range` shared, as far as it is exclusive; whether
    /// anything changed. For a copy, whose table would have to wake others.
    pub fn weaken(&mut self, fid: Fid, owner: LockOwner, range: Extent) -> bool {
        let held = self.files.get(&fid).and_then(|file| file.held.get(&owner));
        let held = held.cloned().unwrap_or_default();
        let strong = held.iter().filter(|lock| lock.kind == LockKind::Write);
        let parts = strong.filter_map(|lock| {
            let (start, end) = (
                lock.range.start.max(range.start),
                lock.range.end.min(range.end),
            );
            (start <= end).then_some(HeldLock {
                range: Extent { start, end },
                kind: LockKind::Read,
                ..*lock
            })
        });
        let parts: Vec<_> = parts.collect();
        let mut has_changed = false;
        for part in parts {
            // What has no room here stays as it is, and is claimed in vain at most.
            has_changed |= self.replace(fid, owner, part.range, Some(part)) == Ok(true);
        }
        has_changed
    }

    /// Takes a lock that nobody is in the way of: `Granted` or `TooMany`.
    fn take(&mut self, fid: Fid, asked: &LockAsked) -> LockOutcome {
        if let Err(full) = self.replace(fid, asked.owner, asked.lock.range, Some(asked.lock)) {
            return full;
        }
        let file = self.files.entry(fid).or_default();
        file.opens
            .entry(asked.owner)
            .or_default()
            .insert(asked.open);
        LockOutcome::Granted
    }

    fn queue(&mut self, fid: Fid, asked: LockAsked, id: WaitId) -> LockOutcome {
        let client = self.clients.entry(asked.owner.client).or_default();
        let file = self.files.entry(fid).or_default();
        if client.waits.len() >= CLIENT_WAITS_MAX || file.waiting.len() >= FILE_WAITS_MAX {
            // There is a blocker, so the file is not empty.
            self.forget_client_if_empty(asked.owner.client);
            return LockOutcome::TooMany;
        }
        client.waits.insert(id, fid);
        file.waiting.push((id, asked));
        self.waits_of.entry(asked.owner).or_default().insert(id);
        LockOutcome::Queued
    }

    fn unqueue(&mut self, fid: Fid, at: usize) {
        let file = self.files.get_mut(&fid).expect("somebody waits for it");
        let (id, asked) = file.waiting.remove(at);
        if let Some(waits) = self.waits_of.get_mut(&asked.owner) {
            waits.remove(&id);
            if waits.is_empty() {
                self.waits_of.remove(&asked.owner);
            }
        }
        if let Some(client) = self.clients.get_mut(&asked.owner.client) {
            client.waits.remove(&id);
        }
        self.forget_client_if_empty(asked.owner.client);
    }

    fn forget_if_empty(&mut self, fid: Fid) {
        let file = self.files.get(&fid);
        if file.is_some_and(|file| file.held.is_empty() && file.waiting.is_empty()) {
            self.files.remove(&fid);
        }
    }

    fn forget_client_if_empty(&mut self, id: ClientId) {
        let client = self.clients.get(&id);
        if client.is_some_and(|client| client.locks == 0 && client.waits.is_empty()) {
            self.clients.remove(&id);
        }
    }
}

impl File {
    /// The first lock of each owner that is in the way of `asked`.
    fn blockers(&self, asked: &LockAsked) -> impl Iterator<Item = FoundLock> {
        let asked = *asked;
        let others = self
            .held
            .iter()
            .filter(move |(owner, _)| **owner != asked.owner && owner.kind.meets(asked.owner.kind));
        others.filter_map(move |(owner, held)| {
            let lock = ranges::conflict(held, &asked.lock)?;
            Some(FoundLock {
                owner: *owner,
                lock,
            })
        })
    }
}

/// A flock is of the whole file.
fn whole(mut asked: LockAsked) -> LockAsked {
    if asked.owner.kind == OwnerKind::Flock {
        asked.lock.range = Extent::ALL;
    }
    asked
}

#[cfg(test)]
mod tests;
