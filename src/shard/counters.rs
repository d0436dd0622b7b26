//! What a shard counts from its start on, for `status`: what it answered, and
//! what it refused, by errno; whom it threw out; what of its flash it found
//! unusable. What it logs is counted by the log itself.

use crate::base::Errno;
use serde_json::{Map, Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct Counters {
    /// Requests that ran: one round trip each.
    requests: Cell<u64>,
    /// Those of them that were answered with an error. Errnos are few, whatever
    /// clients send.
    refused: RefCell<BTreeMap<i32, u64>>,
    events: [Cell<u64>; Event::ALL.len()],
}

/// What should not happen often, each with its line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client was silent for too long, or did not come back after a restart.
    ClientEvicted,
    /// A record was found damaged: what needs it fails, the rest goes on.
    RecordDamaged,
    /// Clean bytes were found damaged and given up: the origin has them.
    BytesRefetched,
    /// Bytes that only the box had were found damaged.
    BytesLost,
    /// A client was asked to give up a lock.
    CalledBack,
    /// A client said what a file is like that it has to itself, and kept it.
    Glimpsed,
}

impl Event {
    const ALL: [(Event, &str); 6] = [
        (Event::ClientEvicted, "clients evicted"),
        (Event::RecordDamaged, "damaged records met"),
        (Event::BytesRefetched, "damaged ranges fetched again"),
        (Event::BytesLost, "damaged ranges that only the box had"),
        (Event::CalledBack, "locks called back"),
        (Event::Glimpsed, "glimpses"),
    ];
}

impl Counters {
    pub fn on_request(&self, error: Option<Errno>) {
        self.requests.set(self.requests.get() + 1);
        if let Some(errno) = error {
            *self.refused.borrow_mut().entry(errno.0).or_default() += 1;
        }
    }

    pub fn on(&self, event: Event) {
        let counter = &self.events[event as usize];
        counter.set(counter.get() + 1);
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let named = |(errno, n): (&i32, &u64)| (format!("{:?}", Errno(*errno)), json!(n));
        let refused: Map<String, Value> = self.refused.borrow().iter().map(named).collect();
        let mut all = Map::new();
        all.insert("requests".to_owned(), json!(self.requests.get()));
        all.insert("refused".to_owned(), Value::Object(refused));
        for (event, name) in Event::ALL {
            let count = self.events[event as usize].get();
            all.insert(name.to_owned(), json!(count));
        }
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_events_are_counted() {
        let counters = Counters::default();
        let ends = [
            None,
            Some(Errno::EROFS),
            None,
            Some(Errno::EROFS),
            Some(Errno::ESTALE),
        ];
        ends.into_iter().for_each(|end| counters.on_request(end));
        counters.on(Event::RecordDamaged);
        counters.on(Event::RecordDamaged);
        counters.on(Event::ClientEvicted);
        let want = json!({
            "clients evicted": 1,
            "damaged records met": 2,
            "damaged ranges fetched again": 0,
            "damaged ranges that only the box had": 0,
            "locks called back": 0,
            "glimpses": 0,
            "requests": 5,
            "refused": { format!("{:?}", Errno::EROFS): 2, format!("{:?}", Errno::ESTALE): 1 },
        });
        assert_eq!(counters.to_json(), want);
    }
}
