//! Every number of the lock table in one place, and what a holder may keep of
//! the memory for locks.

use crate::base::{Bits, Mono};
use std::time::Duration;

/// How many locks a table holds. Granted and waiting ones count alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients' requests are refused from here on.
    pub locks_max: usize,
    /// From here on nothing is handed over that may be declined, and holders
    /// are asked for idle locks.
    pub locks_soft: usize,
    /// Locks of one holder.
    pub holder_max: usize,
}

/// What a shard keeps: some 150 bytes a lock, so 300 MiB when full.
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            locks_max: 2_000_000,
            locks_soft: 1_500_000,
            holder_max: 500_000,
        }
    }
}

/// For a holder to answer a callback, unless the table's owner says otherwise.
pub const ANSWER: Duration = Duration::from_secs(10);
/// A holder that goes on sending data has this part of the time left...
pub const PROGRESS_PART: u32 = 2;
/// ...but so many times the time in all.
pub const PROGRESS_MAX: u32 = 10;

/// More than so many conflicting requests...
pub const CONFLICTS_MAX: usize = 16;
/// ...within this time make a resource contended...
pub const WINDOW: Duration = Duration::from_secs(4);
/// ...for this time.
pub const CONTENDED: Duration = Duration::from_secs(30);
/// After a callback nothing is handed over on the same bits that may be
/// declined: who asked first has hardly used it yet. Bits that would only come
/// along with others are held off when they were called back a second time
/// within twice this time: one conflict alone costs nobody its caches.
pub const HOLD_OFF: Duration = Duration::from_secs(1);
/// Resources whose conflicts are remembered; the oldest are forgotten.
pub const REMEMBERED_MAX: usize = 4096;

/// With more waiters in conflict an extent does not grow downward.
pub const DOWNWARD_WAITERS_MAX: usize = 4;
/// With more granted locks in conflict a writer's extent grows so far only:
pub const FAR_GRANTED_MAX: usize = 32;
/// bytes from the start of what was asked for.
pub const FAR: u64 = 32 << 20;

/// Lock ids with this bit are the shard's own.
pub const OWN: u64 = 1 << 63;

const _: () = assert!(HOLD_OFF.as_nanos() <= CONTENDED.as_nanos());
const _: () = assert!(WINDOW.as_nanos() <= CONTENDED.as_nanos());
// A granted lock keeps its bits in a byte.
const _: () = assert!(Bits::ALL.set <= 0xff);

impl Limits {
    /// How many locks each of `holders` should keep while `used` are there.
    /// All they may while half of the soft bound is free, their equal share at
    /// the soft bound, and evenly less in between, so that clients give back
    /// idle locks before anybody has to be refused.
    #[must_use]
    pub fn volume(&self, used: usize, holders: usize) -> usize {
        let share = self.share(holders);
        let half = self.locks_soft / 2;
        if used <= half {
            return self.holder_max;
        }
        let free = self.locks_soft.saturating_sub(used);
        let more = (self.holder_max - share) as u128 * free as u128 / half.max(1) as u128;
        share
            + usize::try_from(more)
                .unwrap_or(0)
                .min(self.holder_max - share)
    }

    /// One holder's equal share of the soft bound.
    #[must_use]
    pub fn share(&self, holders: usize) -> usize {
        (self.locks_soft / holders.max(1)).min(self.holder_max)
    }
}

/// Has `time` gone by since `then`?
pub(super) fn is_past(now: Mono, then: Mono, time: Duration) -> bool {
    then + time <= now
}
