//! Who waits for whom: a graph over owners and files, looked at for each wait.

use super::{DEADLOCK_OWNERS_MAX, FileLocks, LockAsked, LockOwner, Wait};
use crate::base::{Fid, OwnerKind, WaitId};
use std::collections::BTreeSet;

impl FileLocks {
    /// Would `asked`, waiting, wait for its own owner? Only processes are
    /// looked at, as on Linux: who else may let an open file's lock go is not
    /// known.
    pub(super) fn is_deadlock(&self, fid: Fid, asked: &LockAsked) -> bool {
        if asked.owner.kind != OwnerKind::Posix {
            return false;
        }
        let mut seen = BTreeSet::new();
        let mut ahead = self.blocking_processes(fid, asked, asked.owner);
        while let Some(owner) = ahead.pop() {
            if owner == asked.owner {
                return true;
            }
            if seen.len() >= DEADLOCK_OWNERS_MAX || !seen.insert(owner) {
                continue;
            }
            for id in self.waits_of.get(&owner).into_iter().flatten() {
                let wait = self.waiting(Wait {
                    client: owner.client,
                    id: *id,
                });
                if let Some((fid, theirs)) = wait {
                    ahead.extend(self.blocking_processes(fid, &theirs, asked.owner));
                }
            }
        }
        false
    }

    /// The processes in the way that wait themselves, and `sought`.
    fn blocking_processes(&self, fid: Fid, asked: &LockAsked, sought: LockOwner) -> Vec<LockOwner> {
        let Some(file) = self.files.get(&fid) else {
            return Vec::new();
        };
        let owners = file.blockers(asked).map(|found| found.owner);
        let goes_on = |o: &LockOwner| {
            *o == sought || o.kind == OwnerKind::Posix && self.waits_of.contains_key(o)
        };
        owners.filter(goes_on).collect()
    }

    fn waiting(&self, wait: Wait) -> Option<(Fid, LockAsked)> {
        let fid = *self.clients.get(&wait.client)?.waits.get(&wait.id)?;
        let mut waiting = self.files.get(&fid)?.waiting.iter();
        let is_it = |w: &&(WaitId, LockAsked)| (w.0, w.1.owner.client) == (wait.id, wait.client);
        Some((fid, waiting.find(is_it)?.1))
    }
}
