//! Log lines, one writer for all threads of a process.

use crate::base::Time;
use crate::world::Level;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where lines go; a cheap handle. What is louder than `max` is written. What
/// went wrong is counted over all clones.
#[derive(Clone)]
pub struct Log {
    max: Level,
    sink: Sink,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    errors: AtomicU64,
    warnings: AtomicU64,
}

/// Takes a line's level, the name of its thread, and its text.
type Sink = Arc<dyn Fn(Level, &str, &str) + Send + Sync>;

impl Log {
    /// To standard error, with the time. A closed standard error is no fault.
    #[must_use]
    pub fn stderr(max: Level) -> Log {
        Log::new(max, |level, name, line| {
            let label = match level {
                Level::Error => "error",
                Level::Warn => "warn",
                Level::Info => "info",
                Level::Debug => "debug",
            };
            let line = format!("{} {label} {name}: {line}\n", stamp());
            let _ = io::stderr().lock().write_all(line.as_bytes());
        })
    }

    #[must_use]
    pub fn new(max: Level, sink: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> Log {
        Log {
            max,
            sink: Arc::new(sink),
            counts: Arc::default(),
        }
    }

    /// Lines so far: errors, and warnings.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.counts.errors), of(&self.counts.warnings))
    }

    pub fn write(&self, level: Level, name: &str, line: &str) {
        match level {
            Level::Error => self.counts.errors.fetch_add(1, Ordering::Relaxed),
            Level::Warn => self.counts.warnings.fetch_add(1, Ordering::Relaxed),
            Level::Info | Level::Debug => 0,
        };
        if level <= self.max {
            (self.sink)(level, name, line);
        }
    }
}

/// The present as `2026-01-31T12:00:00.123Z`.
fn stamp() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nsec = u32::try_from(now.tv_nsec).unwrap_or(0);
    let sec = now.tv_sec;
    format_time(Time { sec, nsec })
}

fn format_time(time: Time) -> String {
    let (days, second) = (time.sec.div_euclid(86_400), time.sec.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (second, ms) = (second % 60, time.nsec / 1_000_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month, day of a count of days since 1970, Gregorian. Years are taken
/// to begin in March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_is_counted_over_clones() {
        let log = Log::new(Level::Error, |_, _, _| {});
        let other = log.clone();
        for level in [Level::Error, Level::Warn, Level::Warn, Level::Info] {
            other.write(level, "test", "line");
        }
        assert_eq!(log.counts(), (1, 2));
    }

    #[test]
    fn times_are_written_as_iso() {
        let at = |sec, nsec| format_time(Time { sec, nsec });
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400, 999_999_999), "2000-02-29T00:00:00.999Z");
        assert_eq!(at(1_709_251_199, 5_000_000), "2024-02-29T23:59:59.005Z");
        assert_eq!(at(4_102_444_800, 0), "2100-01-01T00:00:00.000Z");
        assert_eq!(at(-1, 0), "1969-12-31T23:59:59.000Z");
    }
}
