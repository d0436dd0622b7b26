//! What a phase measured, and how it is shown.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// Latencies of one worker, in nanoseconds.
pub struct Tally {
    latency: Histogram<u64>,
    pub bytes: u64,
    pub errors: u64,
    pub first_error: Option<String>,
}

/// Latencies above an hour count as an hour.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

impl Tally {
    pub fn new() -> Tally {
        Tally {
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("valid bounds"),
            bytes: 0,
            errors: 0,
            first_error: None,
        }
    }

    pub fn ok(&mut self, took: Duration, bytes: u64) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(ns);
        self.bytes += bytes;
    }

    pub fn failed(&mut self, why: String) {
        self.errors += 1;
        self.first_error.get_or_insert(why);
    }

    pub fn add(&mut self, other: Tally) {
        // Bounds are the same, so that adding cannot fail.
        let _ = self.latency.add(other.latency);
        self.bytes += other.bytes;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }
}

/// One phase, ready to print. Latencies in microseconds.
#[derive(Serialize)]
pub struct Phase {
    pub name: String,
    pub ops: u64,
    pub errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    pub seconds: f64,
    pub ops_per_s: f64,
    pub mib_per_s: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Phase {
    pub fn new(name: &str, tally: Tally, took: Duration) -> Phase {
        let seconds = took.as_secs_f64().max(1e-9);
        let latency = &tally.latency;
        let us = |ns: u64| ns as f64 / 1000.0;
        let at = |q| us(latency.value_at_quantile(q));
        Phase {
            name: name.to_owned(),
            ops: latency.len(),
            errors: tally.errors,
            first_error: tally.first_error,
            seconds,
            ops_per_s: latency.len() as f64 / seconds,
            mib_per_s: tally.bytes as f64 / seconds / f64::from(1 << 20),
            mean_us: latency.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: us(latency.max()),
        }
    }
}

pub fn print(phases: &[Phase], json: bool) {
    if json {
        match serde_json::to_string_pretty(&phases) {
            Ok(text) => println!("{text}"),
            Err(e) => eprintln!("forebay-load: {e}"),
        }
        return;
    }
    println!(
        "{:<10} {:>10} {:>8} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "phase", "ops", "s", "ops/s", "MiB/s", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "max µs"
    );
    for p in phases {
        println!(
            "{:<10} {:>10} {:>8.2} {:>12.0} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
            p.name,
            p.ops,
            p.seconds,
            p.ops_per_s,
            p.mib_per_s,
            p.p50_us,
            p.p90_us,
            p.p99_us,
            p.p999_us,
            p.max_us
        );
        if let Some(why) = &p.first_error {
            println!("           {} failed, the first with: {why}", p.errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let (mut a, mut b) = (Tally::new(), Tally::new());
        a.ok(Duration::from_micros(10), 4096);
        b.ok(Duration::from_micros(1000), 4096);
        b.failed("no".into());
        a.add(b);
        let phase = Phase::new("x", a, Duration::from_secs(2));
        assert_eq!((phase.ops, phase.errors), (2, 1));
        assert!((phase.ops_per_s - 1.0).abs() < 1e-6);
        assert!(phase.max_us >= 999.0 && phase.p50_us < 11.0);
        assert_eq!(phase.first_error.as_deref(), Some("no"));
    }
}
