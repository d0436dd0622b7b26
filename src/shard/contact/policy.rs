//! What the target's `disconnected` policy makes of an absent origin.

use crate::base::Errno;
use crate::conf::Disconnected;
use crate::shard::{Shard, Target};
use crate::world::World;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Why a change may not be made now. Changes that were accepted before (their
/// replay) are not asked about.
#[must_use]
pub fn refuses_changes<W: World>(shard: &Shard<W>, target: &Target) -> Option<Errno> {
    match policy(shard, target)? {
        Disconnected::ReadWrite => None,
        Disconnected::ReadOnly => Some(Errno::EROFS),
        Disconnected::Fail => Some(Errno::EIO),
    }
}

/// Why what is not cached cannot be had now: the error of a mount that does not
/// wait for ever, which programs know from soft mounts.
#[must_use]
pub fn refuses_misses<W: World>(shard: &Shard<W>, target: &Target) -> Option<Errno> {
    match policy(shard, target)? {
        Disconnected::ReadWrite => None,
        Disconnected::ReadOnly | Disconnected::Fail => Some(Errno::ETIMEDOUT),
    }
}

/// What holds while the origin is away: the policy, and `fail` when that has
/// lasted longer than the policy may.
fn policy<W: World>(shard: &Shard<W>, target: &Target) -> Option<Disconnected> {
    let away = shard.contacts.of(target.id).away(shard.world.now())?;
    let conf = target.conf.borrow();
    match away > conf.disconnected_max {
        true => Some(Disconnected::Fail),
        false => Some(conf.disconnected),
    }
}

/// What `answer` gives, unless the origin is away, or goes away meanwhile, and
/// the policy is not to wait. `answer` is somebody else's work, which goes on.
pub async fn unless_away<W: World, T>(
    shard: &Shard<W>,
    target: &Target,
    answer: impl Future<Output = T>,
) -> Result<T, Errno> {
    let contact = shard.contacts.of(target.id);
    let mut answer = pin!(answer);
    loop {
        if let Some(errno) = refuses_misses(shard, target) {
            return Err(errno);
        }
        let mut changed = pin!(contact.changed.wait());
        let ended = poll_fn(|cx| {
            if let Poll::Ready(value) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            changed.as_mut().poll(cx).map(|()| None)
        });
        if let Some(value) = ended.await {
            return Ok(value);
        }
    }
}
