//! The locks of one operation that had to wait.

use super::{GONE, Touch, pump};
use crate::base::{Bits, Errno, Fid, LockId};
use crate::dlm::{Holder, Outcome, Refusal, Want};
use crate::shard::Shard;
use crate::shard::session::Export;
use crate::world::World;
use crate::world::sync::Promise;
use std::rc::Rc;

/// Locks that are held until this is dropped.
pub struct Claims<W: World> {
    shard: Rc<Shard<W>>,
    holder: Holder,
    locks: Vec<(Fid, LockId)>,
}

impl<W: World> Claims<W> {
    /// Takes all that `touches` says ([`merged`](super::touch::merged)), one
    /// after the other: no two operations ever wait for each other. `ahead`: the
    /// client itself is asked for a lock and cannot give it up before this
    /// operation is answered (C7, C16).
    ///
    /// # Errors
    /// EDEADLK: two such operations crossed.
    /// ENOTCONN: the client was evicted meanwhile.
    pub async fn take(
        shard: &Rc<Shard<W>>,
        export: &Export,
        touches: &[Touch],
        ahead: bool,
    ) -> Result<Claims<W>, Errno> {
        let mut claims = Claims {
            shard: Rc::clone(shard),
            holder: export.holder,
            locks: Vec::with_capacity(touches.len()),
        };
        for touch in touches {
            claims.add(*touch, ahead).await?;
            if export.is_ended() {
                return Err(GONE);
            }
        }
        Ok(claims)
    }

    /// One for the box itself, as `holder`.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) async fn of_box(
        shard: &Rc<Shard<W>>,
        holder: Holder,
        touch: Touch,
    ) -> Result<Claims<W>, Errno> {
        let mut claims = Claims {
            shard: Rc::clone(shard),
            holder,
            locks: Vec::with_capacity(1),
        };
        claims.add(touch, false).await?;
        Ok(claims)
    }

    async fn add(&mut self, touch: Touch, ahead: bool) -> Result<(), Errno> {
        let locks = &self.shard.locks;
        let lock = locks.next_own();
        self.locks.push((touch.fid, lock));
        let want = Want {
            lock,
            fid: touch.fid,
            mode: touch.mode,
            bits: touch.bits,
            try_bits: Bits::NONE,
            extent: touch.extent,
            group: 0,
            expand: false,
            wait: true,
            discretionary: false,
            ahead,
            growth: touch.growth,
        };
        if touch.growth.size > 0 {
            let mut growing = locks.growing.borrow_mut();
            growing.insert((touch.fid, lock), touch.growth.size);
        }
        let now = self.shard.world.now();
        let outcome = locks
            .table
            .borrow_mut()
            .enqueue_own(now, self.holder, &want);
        match outcome {
            Outcome::Granted(_) => {}
            Outcome::Queued => {
                let wait = Promise::default();
                let key = (self.holder, lock);
                locks.waits.borrow_mut().insert(key, wait.clone());
                pump(&self.shard);
                if !wait.get().await {
                    return Err(GONE);
                }
            }
            Outcome::Refused(Refusal::Deadlock) => return Err(Errno::EDEADLK),
            Outcome::Refused(_) | Outcome::Nothing { .. } => return Err(Errno::EIO),
        }
        Ok(())
    }
}

impl<W: World> Drop for Claims<W> {
    fn drop(&mut self) {
        if self.locks.is_empty() {
            return;
        }
        let locks = &self.shard.locks;
        let now = self.shard.world.now();
        for (fid, lock) in &self.locks {
            locks.growing.borrow_mut().remove(&(*fid, *lock));
            locks.waits.borrow_mut().remove(&(self.holder, *lock));
            let mut table = locks.table.borrow_mut();
            table.cancel_own(now, self.holder, *lock);
        }
        pump(&self.shard);
    }
}
