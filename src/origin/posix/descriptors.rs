//! Open files, kept between calls: a stream is not an open for every piece, and
//! a file is synced through the descriptor that wrote it (O1), which is closed then.
//!
//! Bounded. A descriptor that must go while it holds unsynced writes is synced
//! first; if that fails, the file's next fsync reports it.

use super::node::{Node, Root, retry};
use crate::base::{Errno, Identity};
use crate::origin::Place;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

/// Most files held open for one target.
const OPEN_MAX: usize = 512;
/// Most failures remembered for files whose descriptor was closed.
const FAILED_MAX: usize = 4096;

#[derive(Default)]
pub struct Descriptors {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: HashMap<Identity, Entry>,
    /// Entries by their last use.
    by_use: BTreeMap<u64, Identity>,
    clock: u64,
    failed: HashMap<Identity, Errno>,
}

struct Entry {
    fd: Arc<OwnedFd>,
    writable: bool,
    /// Written since its last fsync.
    unsynced: bool,
    used: u64,
}

impl Descriptors {
    /// A descriptor to read through.
    pub fn reader(&self, root: &Root, place: &Place) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = place.identity.as_ref().and_then(|id| self.held(id, false)) {
            return Ok(fd);
        }
        let node = root.find(place)?;
        let identity = root.identity(&node)?;
        let fd = node.reopen(OFlags::RDONLY)?;
        Ok(self.keep(identity, fd, false, false))
    }

    /// A descriptor to write through; counts as unsynced from now on.
    pub fn writer(&self, root: &Root, place: &Place) -> Result<Arc<OwnedFd>, Errno> {
        if let Some(fd) = place.identity.as_ref().and_then(|id| self.held(id, true)) {
            return Ok(fd);
        }
        let node = root.find(place)?;
        let identity = root.identity(&node)?;
        let fd = open_writable(&node)?;
        Ok(self.keep(identity, fd, true, true))
    }

    /// Takes over the descriptor of a file that was just created.
    pub fn adopt(&self, identity: Identity, fd: OwnedFd) {
        self.keep(identity, fd, true, false);
    }

    /// The writable descriptor held for the file, if any.
    pub fn written(&self, identity: &Identity) -> Option<Arc<OwnedFd>> {
        let state = self.lock();
        let entry = state.files.get(identity).filter(|e| e.writable)?;
        Some(Arc::clone(&entry.fd))
    }

    /// A sync covered all writes that ended before it began (writes and syncs of
    /// one file are ordered by their caller): the descriptor that wrote is let
    /// go. While it is open nobody can execute the file, nor lease it.
    pub fn synced(&self, identity: &Identity) {
        let gone = {
            let mut state = self.lock();
            let gone = state.files.remove(identity);
            if let Some(entry) = &gone {
                state.by_use.remove(&entry.used);
            }
            gone
        };
        // Closed outside the lock: that, too, may take long at an origin.
        drop(gone);
    }

    /// A failure to sync that nobody has been told yet.
    pub fn take_failure(&self, identity: &Identity) -> Option<Errno> {
        self.lock().failed.remove(identity)
    }

    /// Closes what is held for the file, its writes synced.
    pub fn close(&self, identity: &Identity) -> Result<(), Errno> {
        let entry = {
            let mut state = self.lock();
            let entry = state.files.remove(identity);
            if let Some(entry) = &entry {
                state.by_use.remove(&entry.used);
            }
            entry
        };
        match entry {
            Some(entry) if entry.unsynced => retry(|| rustix::fs::fsync(&entry.fd)),
            _ => Ok(()),
        }
    }

    /// Closes without a sync: the file is gone.
    pub fn drop_dead(&self, identity: &Identity) {
        let mut state = self.lock();
        if let Some(entry) = state.files.remove(identity) {
            state.by_use.remove(&entry.used);
        }
        state.failed.remove(identity);
    }

    fn held(&self, identity: &Identity, writing: bool) -> Option<Arc<OwnedFd>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let entry = state.files.get_mut(identity)?;
        if writing && !entry.writable {
            return None;
        }
        entry.unsynced |= writing;
        state.clock += 1;
        state.by_use.remove(&entry.used);
        entry.used = state.clock;
        state.by_use.insert(entry.used, identity.clone());
        Some(Arc::clone(&entry.fd))
    }

    fn keep(
        &self,
        identity: Identity,
        fd: OwnedFd,
        writable: bool,
        unsynced: bool,
    ) -> Arc<OwnedFd> {
        let fd = Arc::new(fd);
        let mut out = Vec::new();
        {
            let mut guard = self.lock();
            let state = &mut *guard;
            // Two threads opened at once: one descriptor serves both, so that
            // one fsync covers what either writes.
            if let Some(entry) = state.files.get_mut(&identity).filter(|e| e.writable) {
                entry.unsynced |= unsynced;
                return Arc::clone(&entry.fd);
            }
            if let Some(old) = state.files.remove(&identity) {
                state.by_use.remove(&old.used);
            }
            state.clock += 1;
            let used = state.clock;
            state.by_use.insert(used, identity.clone());
            state.files.insert(
                identity,
                Entry {
                    fd: Arc::clone(&fd),
                    writable,
                    unsynced,
                    used,
                },
            );
            while state.files.len() > OPEN_MAX {
                let Some((_, id)) = state.by_use.pop_first() else {
                    break;
                };
                out.extend(state.files.remove(&id).map(|entry| (id, entry)));
            }
        }
        for (id, entry) in out {
            self.retire(id, &entry);
        }
        fd
    }

    /// Syncs outside the lock: it may take long.
    fn retire(&self, identity: Identity, entry: &Entry) {
        if !entry.unsynced {
            return;
        }
        if let Err(e) = retry(|| rustix::fs::fsync(&entry.fd)) {
            let mut state = self.lock();
            if state.failed.len() < FAILED_MAX {
                state.failed.insert(identity, e);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the table whole: every change is one step.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Opens for reading and writing. An owner without the right to write his own
/// file (a read-only mode was already carried to the origin) lends it to
/// himself for the moment of the open.
fn open_writable(node: &Node) -> Result<OwnedFd, Errno> {
    match node.reopen(OFlags::RDWR) {
        Err(Errno::EACCES) if rustix::process::geteuid().as_raw() == node.stat.stx_uid => {
            let mode = u32::from(node.stat.stx_mode) & 0o7777;
            super::attrs::set_mode(node, mode | 0o600)?;
            let opened = node.reopen(OFlags::RDWR);
            super::attrs::set_mode(node, mode)?;
            opened
        }
        other => other,
    }
}
