//! Holders that are gone. A client that was thrown out learns of it when it
//! comes back, or when its lease ends; until one of the two its caches may be
//! in use, so its locks pass on to nobody (L2).

use super::{Locks, margin, pump};
use crate::base::{ClientId, LockId, Mono};
use crate::dlm::Holder;
use crate::shard::Shard;
use crate::shard::session::Export;
use crate::world::World;
use std::rc::Rc;

/// A holder whose export has ended.
pub(super) struct Ghost {
    holder: Holder,
    client: ClientId,
    /// When its client has stopped believing, by the client's own clock.
    until: Mono,
}

impl Locks {
    /// Callbacks to this holder go to `export` from now on.
    pub fn enter(&self, export: &Rc<Export>) {
        let mut exports = self.exports.borrow_mut();
        exports.insert(export.holder, Rc::clone(export));
    }
}

/// The export has ended. `has_let_go`: its client has said that it holds nothing.
pub fn leave<W: World>(shard: &Rc<Shard<W>>, export: &Export, has_let_go: bool) {
    let locks = &shard.locks;
    locks.exports.borrow_mut().remove(&export.holder);
    locks.glimpses.leave(export.holder);
    // Its operations that wait end now.
    let waits: Vec<(Holder, LockId)> = {
        let waits = locks.waits.borrow();
        let all = waits.keys().filter(|(holder, _)| *holder == export.holder);
        all.copied().collect()
    };
    for key in waits {
        let wait = locks.waits.borrow_mut().remove(&key);
        if let Some(wait) = wait {
            wait.set(false);
        }
    }
    let lease = export.lease();
    let now = shard.world.now();
    let until = export.heard() + lease + margin(lease);
    if has_let_go || locks.held(export.holder) == 0 || now >= until {
        locks.table.borrow_mut().drop_holder(now, export.holder);
    } else {
        locks.ghosts.borrow_mut().push(Ghost {
            holder: export.holder,
            client: export.client,
            until,
        });
    }
    pump(shard);
}

/// Lets go what is past its time.
pub fn end_ghosts<W: World>(shard: &Rc<Shard<W>>) {
    let now = shard.world.now();
    let_go(shard, |ghost| now >= ghost.until);
}

/// The client says that it holds nothing of before this connection.
pub fn on_clean<W: World>(shard: &Rc<Shard<W>>, client: ClientId) {
    let_go(shard, |ghost| ghost.client == client);
}

fn let_go<W: World>(shard: &Rc<Shard<W>>, is_over: impl Fn(&Ghost) -> bool) {
    let locks = &shard.locks;
    let over: Vec<Holder> = {
        let mut ghosts = locks.ghosts.borrow_mut();
        let over = ghosts.iter().filter(|g| is_over(g)).map(|g| g.holder);
        let over = over.collect();
        ghosts.retain(|g| !is_over(g));
        over
    };
    let now = shard.world.now();
    for holder in &over {
        locks.table.borrow_mut().drop_holder(now, *holder);
    }
    if !over.is_empty() {
        pump(shard);
    }
}
