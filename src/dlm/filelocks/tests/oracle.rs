//! The same rules, one lock for each byte of a file of 32 bytes; the last byte
//! stands for all that follow. Deadlocks by looking at everybody.

use super::*;

pub const BYTES: usize = 32;

/// Bytes `start ..= end`.
pub fn range(start: usize, end: usize) -> Extent {
    let end = if end == BYTES - 1 {
        u64::MAX
    } else {
        end as u64
    };
    Extent {
        start: start as u64,
        end,
    }
}

fn bytes(range: Extent) -> std::ops::RangeInclusive<usize> {
    let last = BYTES as u64 - 1;
    range.start as usize..=range.end.min(last) as usize
}

type Bytes = [BTreeMap<LockOwner, LockKind>; BYTES];

/// What a table holds, byte by byte.
pub fn by_byte(held: Option<&BTreeMap<LockOwner, Vec<HeldLock>>>) -> Bytes {
    let mut all = Bytes::default();
    for (owner, held) in held.into_iter().flatten() {
        for lock in held {
            bytes(lock.range).for_each(|at| {
                all[at].insert(*owner, lock.kind);
            });
        }
    }
    all
}

#[derive(Default)]
pub struct Oracle {
    held: [Bytes; 2],
    /// In order of arrival: file, wait, what.
    waiting: Vec<(u64, WaitId, LockAsked)>,
}

impl Oracle {
    pub fn held(&self, file: u64) -> Bytes {
        self.held[file as usize].clone()
    }

    pub fn is_locked(&self, file: u64) -> bool {
        let waited = self.waiting.iter().any(|(f, ..)| *f == file);
        waited || self.held[file as usize].iter().any(|byte| !byte.is_empty())
    }

    pub fn waits(&self) -> usize {
        self.waiting.len()
    }

    pub fn nth_wait(&self, n: usize) -> Option<Wait> {
        let (_, id, asked) = self.waiting.get(n)?;
        Some(Wait {
            client: asked.owner.client,
            id: *id,
        })
    }

    pub fn withdraw(&mut self, wait: Wait) {
        self.waiting
            .retain(|(_, id, asked)| (*id, asked.owner.client) != (wait.id, wait.client));
    }

    fn blockers(&self, file: u64, asked: &LockAsked) -> BTreeSet<LockOwner> {
        let all = self.held[file as usize][bytes(whole(*asked).lock.range)]
            .iter()
            .flatten();
        let in_the_way = all.filter(|(owner, kind)| {
            **owner != asked.owner
                && (owner.kind == OwnerKind::Flock) == (asked.owner.kind == OwnerKind::Flock)
                && (**kind == WRITE || asked.lock.kind == WRITE)
        });
        in_the_way.map(|(owner, _)| *owner).collect()
    }

    pub fn is_blocked(&self, file: u64, asked: &LockAsked) -> bool {
        !self.blockers(file, asked).is_empty()
    }

    pub fn is_in_the_way(&self, file: u64, asked: &LockAsked, found: &FoundLock) -> bool {
        let is_held = bytes(found.lock.range)
            .all(|at| self.held[file as usize][at].get(&found.owner) == Some(&found.lock.kind));
        let meets = found.lock.range.overlaps(whole(*asked).lock.range);
        is_held && meets && self.blockers(file, asked).contains(&found.owner)
    }

    /// All that the owner waits for, directly or not.
    fn is_deadlock(&self, file: u64, asked: &LockAsked) -> bool {
        let posix = |owner: &LockOwner| owner.kind == OwnerKind::Posix;
        if !posix(&asked.owner) {
            return false;
        }
        let mut known = self.blockers(file, asked);
        loop {
            let waits = self.waiting.iter();
            let theirs = waits.filter(|(_, _, w)| posix(&w.owner) && known.contains(&w.owner));
            let more: BTreeSet<_> = theirs.flat_map(|(f, _, w)| self.blockers(*f, w)).collect();
            let before = known.len();
            known.extend(more);
            if known.len() == before {
                return known.contains(&asked.owner);
            }
        }
    }

    fn put(&mut self, file: u64, asked: &LockAsked) {
        for at in bytes(whole(*asked).lock.range) {
            self.held[file as usize][at].insert(asked.owner, asked.lock.kind);
        }
    }

    fn clear(&mut self, file: u64, owner: LockOwner, range: Extent) {
        for at in bytes(range) {
            self.held[file as usize][at].remove(&owner);
        }
    }

    pub fn set(
        &mut self,
        file: u64,
        asked: LockAsked,
        id: Option<WaitId>,
    ) -> (LockOutcome, Vec<LockWoken>) {
        let mut woken = Vec::new();
        let held = self.held[file as usize][0].get(&asked.owner);
        if asked.owner.kind == OwnerKind::Flock && held != Some(&asked.lock.kind) {
            woken = self.unlock(file, asked.owner, Extent::ALL);
        }
        if !self.is_blocked(file, &asked) {
            self.put(file, &asked);
            woken.extend(self.wake(file));
            return (Granted, woken);
        }
        let outcome = match id {
            None => WouldBlock,
            Some(_) if self.is_deadlock(file, &asked) => Deadlock,
            Some(id) => {
                self.waiting.push((file, id, asked));
                Queued
            }
        };
        (outcome, woken)
    }

    pub fn unlock(&mut self, file: u64, owner: LockOwner, range: Extent) -> Vec<LockWoken> {
        let range = if owner.kind == OwnerKind::Flock {
            Extent::ALL
        } else {
            range
        };
        self.clear(file, owner, range);
        self.wake(file)
    }

    pub fn drop_client(&mut self, client: ClientId) -> Vec<LockWoken> {
        self.waiting
            .retain(|(_, _, asked)| asked.owner.client != client);
        let mut woken = Vec::new();
        for file in 0..2 {
            let all = self.held[file as usize].iter().flat_map(|byte| byte.keys());
            let owners: BTreeSet<_> = all.filter(|o| o.client == client).copied().collect();
            for owner in owners {
                woken.extend(self.unlock(file, owner, Extent::ALL));
            }
        }
        woken
    }

    fn wake(&mut self, file: u64) -> Vec<LockWoken> {
        let mut woken = Vec::new();
        let mut again = true;
        while again {
            again = false;
            for (f, id, asked) in self.waiting.clone() {
                let blocked = self.is_blocked(file, &asked);
                if f != file || blocked && !self.is_deadlock(file, &asked) {
                    continue;
                }
                let outcome = if blocked { Deadlock } else { Granted };
                if !blocked {
                    self.put(file, &asked);
                    again = true;
                }
                let wait = Wait {
                    client: asked.owner.client,
                    id,
                };
                self.withdraw(wait);
                woken.push(LockWoken { wait, outcome });
            }
        }
        woken
    }
}
