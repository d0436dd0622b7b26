//! Looking a little longer before going to sleep.
//!
//! To wake a thread whose CPU has gone idle costs 5 to 10 µs, as much as the
//! work of a whole request (docs/PERFORMANCE.md). Where the next event is
//! likely to be near, because the last ones were, a reactor therefore looks for
//! it before it sleeps. It gives way at every look (`sched_yield`): whoever else
//! wants the CPU gets it, the application above all, whose next request it is
//! waiting for. So looking costs hardly more than time in which the CPU would
//! have been idle, and a reactor that goes idle pays for it once.

use crate::reactor::timers::now;
use std::cell::Cell;
use std::time::Duration;

/// How long a reactor without flash looks, and how short a sleep must have been
/// for the next event to be called near: about a request's way there and back.
const NEAR: Duration = Duration::from_micros(50);
/// The same of one with flash: a write and the device's flush after it.
const NEAR_FLASH: Duration = Duration::from_micros(200);
/// Looks between two yields: less than a microsecond.
const LOOKS: usize = 8;

/// What a reactor has learned of its waits.
pub(super) struct Linger {
    near: Duration,
    /// The last wait was short.
    is_near: Cell<bool>,
}

impl Linger {
    pub fn new(has_flash: bool) -> Linger {
        Linger {
            near: if has_flash { NEAR_FLASH } else { NEAR },
            is_near: Cell::new(false),
        }
    }

    /// Is it worth looking?
    pub fn is_hopeful(&self) -> bool {
        self.is_near.get()
    }

    /// Looks until there is `news`, for `most` at the longest; false: go to sleep.
    pub fn look(&self, most: Option<Duration>, news: impl Fn() -> bool) -> bool {
        let start = now();
        let most = most.map_or(self.near, |timer| timer.min(self.near));
        loop {
            for _ in 0..LOOKS {
                if news() {
                    return true;
                }
                std::hint::spin_loop();
            }
            rustix::thread::sched_yield();
            if now() - start > most {
                self.is_near.set(false);
                return news();
            }
        }
    }

    /// The reactor slept so long.
    pub fn slept(&self, time: Duration) {
        self.is_near.set(time < self.near);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_only_after_a_short_sleep_and_stops_by_itself() {
        let linger = Linger::new(false);
        assert!(!linger.is_hopeful());
        linger.slept(NEAR * 2);
        assert!(!linger.is_hopeful());
        linger.slept(NEAR / 2);
        assert!(linger.is_hopeful());
        // Nothing comes: it ends by itself, and the next wait is slept.
        assert!(!linger.look(None, || false));
        assert!(!linger.is_hopeful());
    }

    #[test]
    fn news_ends_the_look_and_keeps_the_hope() {
        let linger = Linger::new(false);
        linger.slept(Duration::ZERO);
        let looks = Cell::new(0);
        let third = || {
            looks.set(looks.get() + 1);
            looks.get() == 3
        };
        assert!(linger.look(None, third));
        assert!(linger.is_hopeful());
    }
}
