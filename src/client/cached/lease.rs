//! The client's lease, by its own clock, pure. It is counted from when a
//! request was *sent* whose answer came: the box has heard the client then or
//! later, so its own count ends no earlier (L2).

use crate::base::{Mono, Xid};
use std::collections::VecDeque;
use std::time::Duration;

/// Samples in a lease: how early it may seem to end.
const SAMPLES: u32 = 32;

#[derive(Debug, Default)]
pub struct Lease {
    length: Duration,
    renewed: Mono,
    /// Requests after this one were sent at this time or later.
    sent: VecDeque<(Xid, Mono)>,
}

impl Lease {
    /// A connection is agreed on, by a CONNECT that was sent at `sent`.
    pub fn on_connected(&mut self, length: Duration, sent: Mono) {
        self.length = length;
        self.renewed = self.renewed.max(sent);
        self.sent.clear();
    }

    /// Requests after `last` are being sent.
    pub fn on_send(&mut self, last: Xid, now: Mono) {
        let is_due = |(_, at): &(Xid, Mono)| now - *at >= self.length / SAMPLES;
        if self.sent.back().is_none_or(is_due) {
            self.sent.push_back((last, now));
        }
        // Only answers renew; what was sent a lease ago renews nothing.
        let is_old = |(_, at): &(Xid, Mono)| now - *at > self.length;
        while self.sent.len() > 1 && self.sent.front().is_some_and(is_old) {
            self.sent.pop_front();
        }
    }

    /// Request `xid` was answered.
    pub fn on_answer(&mut self, xid: Xid) {
        let before = self.sent.iter().rev().find(|(last, _)| *last < xid);
        if let Some((_, at)) = before {
            self.renewed = self.renewed.max(*at);
        }
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self, now: Mono) -> Duration {
        self.length.saturating_sub(now - self.renewed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::default() + Duration::from_millis(ms)
    }

    /// L2: an answer renews from its request's sending, however late it comes.
    #[test]
    fn the_lease_counts_from_the_sending_l2() {
        let mut lease = Lease::default();
        lease.on_connected(Duration::from_secs(10), at(0));
        lease.on_send(Xid(4), at(1000));
        lease.on_send(Xid(9), at(5000));
        lease.on_answer(Xid(9));
        assert_eq!(lease.left(at(6000)), Duration::from_secs(5), "sent at 1 s");
        lease.on_answer(Xid(10));
        assert_eq!(lease.left(at(6000)), Duration::from_secs(9), "sent at 5 s");
        lease.on_answer(Xid(5));
        assert_eq!(lease.left(at(16_000)), Duration::ZERO);
    }
}
