//! What clients have to themselves. A client that is alone decides changes which
//! the box is then bound to carry out; so while the policy of a target refuses
//! them (the origin is away, and they may not queue up) nobody may have a file
//! to himself, and who had one asks again; nor where everything goes through to
//! the origin. And before everything is said to be
//! at the origin, what clients have decided alone must be here.

use super::claims::Claims;
use super::touch::Touch;
use crate::base::{Bits, Extent, Fid, Mode, TargetId};
use crate::conf::Writeback;
use crate::dlm::{Grant, Growth};
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

/// Ends when all that clients have decided alone until now has been done here:
/// whoever has a file to himself gives it up, or is evicted.
pub async fn settle<W: World>(shard: &Rc<Shard<W>>, target: TargetId) {
    let holder = shard.locks.join();
    for fid in recall_all(shard, target) {
        let look = Touch {
            fid,
            mode: Mode::Pr,
            bits: OF_ALL,
            extent: Extent::ALL,
            growth: Growth::NONE,
        };
        // It waits in the queue like anybody, and wants nothing besides; a
        // refusal says that there is nothing to wait for.
        drop(Claims::of_box(shard, holder, look).await);
    }
}

/// May nobody have this file to himself now?
pub fn is_closed<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    let closed = shard.locks.closed.borrow();
    is_through(shard, fid) || closed.iter().any(|target| is_of(*target, fid))
}

/// Where "done" means "at the origin", no client can say that a name is made.
fn is_through<W: World>(shard: &Shard<W>, fid: Fid) -> bool {
    let target = shard.target_of(fid);
    target.is_ok_and(|target| target.conf.borrow().writeback == Writeback::Through)
}

/// Calls all of them back, and returns what they are for.
fn recall_all<W: World>(shard: &Rc<Shard<W>>, target: TargetId) -> Vec<Fid> {
    let now = shard.world.now();
    let mut table = shard.locks.table.borrow_mut();
    let is_alone = |grant: &Grant| grant.mode == Mode::Ex && is_of(target, grant.fid);
    let alone = table.locks().filter(|l| l.is_granted && is_alone(&l.grant));
    let fids: Vec<Fid> = alone.map(|lock| lock.grant.fid).collect();
    for fid in &fids {
        table.recall(now, *fid, OF_ALL);
    }
    drop(table);
    super::pump(shard);
    fids
}

fn is_of(target: TargetId, fid: Fid) -> bool {
    fid.seq >> 32 == u64::from(target.0)
}
