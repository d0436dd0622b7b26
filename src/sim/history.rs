//! Histories of several clients on shared objects, and whether they are
//! linearizable: whether each operation could have happened at one instant
//! between its call and its return, with everybody agreeing on the order.
//!
//! An object is one number: a name's file, a file's mode, its bytes' stamp, its
//! size. Objects are checked one by one, which is enough (linearizability is
//! local). The search is Wing and Gong's, with the states seen remembered.

use std::collections::BTreeSet;
use std::fmt;

/// What an operation did, as its client saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Read(u64),
    Write(u64),
    /// To zero, which it was not.
    Removed,
    /// It was zero.
    Missing,
    /// It was the number, and became larger by the second.
    Added(u64, u64),
    /// It was the number, or zero and became it.
    Ensured(u64),
    /// A write whose client never learned whether it happened.
    MaybeWrite(u64),
    /// The same of a removal.
    MaybeRemove,
    /// The same of an addition.
    MaybeAdded(u64, u64),
}

impl Deed {
    /// The object after it; `None` if it cannot have happened then.
    fn after(self, state: u64) -> Option<u64> {
        match self {
            Deed::Read(seen) => (seen == state).then_some(state),
            Deed::Write(new) | Deed::MaybeWrite(new) => Some(new),
            Deed::Removed => (state != 0).then_some(0),
            Deed::Missing => (state == 0).then_some(0),
            Deed::Ensured(value) => (state == 0 || state == value).then_some(value),
            Deed::Added(at, more) | Deed::MaybeAdded(at, more) => {
                (at == state).then_some(at + more)
            }
            Deed::MaybeRemove => Some(0),
        }
    }

    /// It may never have happened at all.
    fn is_uncertain(self) -> bool {
        use Deed::{MaybeAdded, MaybeRemove, MaybeWrite};
        matches!(self, MaybeWrite(_) | MaybeRemove | MaybeAdded(..))
    }

    /// What is certain of it for those who do not see how it ended; `None` if
    /// it changed nothing.
    fn unended(self) -> Option<Deed> {
        match self {
            Deed::Read(_) | Deed::Missing => None,
            Deed::Write(new) => Some(Deed::MaybeWrite(new)),
            Deed::Removed => Some(Deed::MaybeRemove),
            Deed::Added(at, more) => Some(Deed::MaybeAdded(at, more)),
            other => Some(other),
        }
    }
}

/// One operation on one object. Times are the numbers of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub client: usize,
    pub called: u64,
    pub returned: u64,
    pub deed: Deed,
}

/// Operations on one object beyond which it is not looked at.
pub const RECORDS_MAX: usize = 128;

/// A history that no order explains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction(Vec<Record>);

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no order of these explains what was seen:")?;
        for r in &self.0 {
            writeln!(
                f,
                "  {:>6} ..{:>6}  c{} {:?}",
                r.called, r.returned, r.client, r.deed
            )?;
        }
        Ok(())
    }
}

/// Is there an order of `records`, from the state `first` on? What was called
/// from `end` on is not looked at.
///
/// # Errors
/// There is none.
pub fn check(first: u64, records: &[Record], end: u64) -> Result<(), Contradiction> {
    let all = beginning(records, end);
    let mut seen = BTreeSet::new();
    let mut todo = vec![(0u128, first)];
    let certain = all
        .iter()
        .enumerate()
        .filter(|(_, r)| !r.deed.is_uncertain())
        .fold(0u128, |set, (n, _)| set | 1 << n);
    while let Some((done, state)) = todo.pop() {
        if done & certain == certain {
            return Ok(());
        }
        if !seen.insert((done, state)) {
            continue;
        }
        let left = || {
            let open = all.iter().enumerate();
            open.filter(move |(n, _)| done & (1 << n) == 0)
        };
        // Whatever returned before another was called comes before it, if it
        // happened.
        let sure = left().filter(|(_, r)| !r.deed.is_uncertain());
        let first_return = sure.map(|(_, r)| r.returned).min().unwrap_or(u64::MAX);
        for (n, r) in left().filter(|(_, r)| r.called < first_return) {
            if let Some(next) = r.deed.after(state) {
                todo.push((done | 1 << n, next));
            }
        }
    }
    Err(Contradiction(all))
}

/// The first operations by when they were called. What had not ended when the
/// next one was called may have seen that one, or may have been seen already.
fn beginning(records: &[Record], end: u64) -> Vec<Record> {
    let mut all = records.to_vec();
    all.sort_by_key(|r| r.called);
    let cut = all
        .get(RECORDS_MAX)
        .map_or(end, |next| next.called.min(end));
    all.retain(|r| r.called < cut);
    let until_cut = |r: Record| match r.returned <= cut {
        true => Some(r),
        false => r.deed.unended().map(|deed| Record { deed, ..r }),
    };
    all.into_iter().filter_map(until_cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Deed::{Added, MaybeWrite, Missing, Read, Removed, Write};

    const END: u64 = u64::MAX;

    fn history(all: &[(u64, u64, Deed)]) -> Vec<Record> {
        let record = |(client, (called, returned, deed)): (usize, &(u64, u64, Deed))| Record {
            client,
            called: *called,
            returned: *returned,
            deed: *deed,
        };
        all.iter().enumerate().map(record).collect()
    }

    #[test]
    fn a_stale_read_is_found() {
        let ok = history(&[
            (1, 2, Write(5)),
            (3, 4, Read(5)),
            (5, 8, Write(6)),
            (6, 7, Read(5)),
        ]);
        assert_eq!(check(0, &ok, END), Ok(()));
        let stale = history(&[(1, 2, Write(5)), (3, 4, Read(0))]);
        assert!(check(0, &stale, END).is_err());
        // Seen by one, then not seen by another.
        let back = history(&[(1, 9, Write(5)), (2, 3, Read(5)), (4, 5, Read(0))]);
        assert!(check(0, &back, END).is_err());
    }

    #[test]
    fn what_may_have_happened_may_happen_late_or_never() {
        let open = (1, u64::MAX, MaybeWrite(5));
        assert_eq!(check(0, &history(&[open, (2, 3, Read(0))]), END), Ok(()));
        assert_eq!(
            check(0, &history(&[open, (2, 3, Read(0)), (4, 5, Read(5))]), END),
            Ok(())
        );
        assert!(check(0, &history(&[open, (2, 3, Read(5)), (4, 5, Read(0))]), END).is_err());
        // Also if its call has ended.
        let ended = (1, 2, MaybeWrite(5));
        assert_eq!(check(0, &history(&[ended, (3, 4, Read(0))]), END), Ok(()));
    }

    #[test]
    fn a_long_history_is_cut_where_nothing_is_missing() {
        let mut all: Vec<(u64, u64, Deed)> =
            (0..127).map(|n| (2 * n, 2 * n + 1, Read(0))).collect();
        // Seen before its writer returns, which is after the cut.
        all.push((254, 300, Write(5)));
        all.push((256, 257, Read(5)));
        all.push((258, 259, Write(6)));
        assert_eq!(check(0, &history(&all), END), Ok(()));
        all[100].2 = Read(1);
        assert!(check(0, &history(&all), END).is_err());
        all[100] = (200, 290, Read(6));
        assert_eq!(
            check(0, &history(&all), END),
            Ok(()),
            "it ends after the cut"
        );
    }

    #[test]
    fn names_and_ends_of_files_are_objects_too() {
        let names = history(&[
            (1, 2, Write(9)),
            (3, 6, Removed),
            (4, 5, Read(9)),
            (7, 8, Missing),
        ]);
        assert_eq!(check(0, &names, END), Ok(()));
        let twice = history(&[(1, 4, Added(0, 8)), (2, 3, Added(0, 8))]);
        assert!(check(0, &twice, END).is_err());
    }
}
