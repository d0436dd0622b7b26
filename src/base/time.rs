//! Two clocks that are never mixed: `Mono` for waiting and ordering, `Time`
//! for what users see in `stat`.

use crate::record;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds on a clock that counts suspension and never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub for Mono {
    type Output = Duration;
    fn sub(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

record! {
    /// Wall-clock time as file systems keep it. `nsec` < 1,000,000,000.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Time {
        pub sec: i64,
        pub nsec: u32,
    }
}

impl Time {
    #[must_use]
    pub fn from_nanos(ns: i128) -> Time {
        Time {
            sec: i64::try_from(ns.div_euclid(1_000_000_000)).unwrap_or(i64::MAX),
            nsec: u32::try_from(ns.rem_euclid(1_000_000_000)).expect("below 1e9"),
        }
    }
    #[must_use]
    pub fn nanos(self) -> i128 {
        i128::from(self.sec) * 1_000_000_000 + i128::from(self.nsec)
    }
}
