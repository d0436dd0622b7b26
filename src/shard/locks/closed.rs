//! What clients have to themselves, while the target takes no changes. A client
//! that is alone decides changes which the box is then bound to carry out; so
//! while the policy refuses them (the origin is away, and they may not queue up)
//! nobody may have a file to himself, and who had one asks again.

use crate::base::{Bits, Fid, Mode, TargetId};
use crate::dlm::Grant;
use crate::shard::{Shard, contact};
use crate::world::World;
use std::rc::Rc;

/// What is in any lock that lets a client decide alone; it ends as a whole.
const OF_ALL: Bits = Bits::LOOKUP;

/// Looks whether targets have begun to refuse changes, or take them again.
pub fn look<W: World>(shard: &Rc<Shard<W>>) {
    let targets: Vec<_> = shard.targets.borrow().values().cloned().collect();
    for target in targets {
        let closed = &shard.locks.closed;
        if contact::refuses_changes(shard, &target).is_none() {
            closed.borrow_mut().remove(&target.id);
        } else if closed.borrow_mut().insert(target.id) {
            recall_all(shard, target.id);
        }
    }
}

/// May nobody have this file to himself now?
pub fn is_closed<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    let closed = shard.locks.closed.borrow();
    closed.iter().any(|target| is_of(*target, fid))
}

fn recall_all<W: World>(shard: &Rc<Shard<W>>, target: TargetId) {
    let now = shard.world.now();
    let mut table = shard.locks.table.borrow_mut();
    let is_alone = |grant: &Grant| grant.mode == Mode::Ex && is_of(target, grant.fid);
    let alone = table.locks().filter(|l| l.is_granted && is_alone(&l.grant));
    let fids: Vec<Fid> = alone.map(|lock| lock.grant.fid).collect();
    for fid in fids {
        table.recall(now, fid, OF_ALL);
    }
    drop(table);
    super::pump(shard);
}

fn is_of(target: TargetId, fid: Fid) -> bool {
    fid.seq >> 32 == u64::from(target.0)
}
