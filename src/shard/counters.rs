//! What a shard counts from its start on, for `status`: what it answered, and
//! what it refused, by errno. What it logs is counted by the log itself.

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
}

impl Counters {
    pub fn on_request(&self, error: Option<Errno>) {
        self.requests.set(self.requests.get() + 1);
        if let Some(errno) = error {
            *self.refused.borrow_mut().entry(errno.0).or_default() += 1;
        }
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let named = |(errno, n): (&i32, &u64)| (format!("{:?}", Errno(*errno)), json!(n));
        let refused: Map<String, Value> = self.refused.borrow().iter().map(named).collect();
        json!({ "requests": self.requests.get(), "refused": refused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_errno() {
        let counters = Counters::default();
        let ends = [
            None,
            Some(Errno::EROFS),
            None,
            Some(Errno::EROFS),
            Some(Errno::ESTALE),
        ];
        ends.into_iter().for_each(|end| counters.on_request(end));
        let want = json!({
            "requests": 5,
            "refused": { format!("{:?}", Errno::EROFS): 2, format!("{:?}", Errno::ESTALE): 1 },
        });
        assert_eq!(counters.to_json(), want);
    }
}
