//! What of a history is certain, and where it first contradicts itself.

use crate::linux::Linux;
use forebay::sim::history::{self, Deed, RECORDS_MAX, Record};
use std::fmt::Write as _;

/// Values stored through a mapping whose page was lost (L10, C8) may never have
/// been there; only their own machine may have seen them.
pub fn without_lost(records: &[Record], linuxes: &[Linux]) -> Vec<Record> {
    let is_lost = |client: usize, value: u64| linuxes[client].lost.borrow().contains(&value);
    let kept = records.iter().filter_map(|record| match record.deed {
        Deed::Read(value) if is_lost(record.client, value) => None,
        Deed::Write(value) if is_lost(record.client, value) => Some(Record {
            returned: u64::MAX,
            deed: Deed::MaybeWrite(value),
            ..*record
        }),
        _ => Some(*record),
    });
    kept.collect()
}

/// The first of them, as if nobody had looked any further.
pub fn as_many_as_can_be_checked(records: Vec<Record>) -> Vec<Record> {
    let mut ends: Vec<u64> = records.iter().map(|r| r.returned).collect();
    ends.sort_unstable();
    let mut kept = records.clone();
    while kept.len() > RECORDS_MAX {
        let Some(end) = ends.pop() else { break };
        kept = until(end, &records);
    }
    kept
}

/// The end of the history up to where it first contradicts itself.
pub fn shortest(first: u64, records: &[Record]) -> String {
    let mut ends: Vec<u64> = records.iter().map(|r| r.returned).collect();
    ends.sort_unstable();
    let whole = ends.last().copied().unwrap_or(0);
    let cut = ends.into_iter().map(|end| end.saturating_add(1));
    let is_wrong = |cut: &u64| history::check(first, &until(*cut, records), u64::MAX).is_err();
    let mut last = until(cut.into_iter().find(is_wrong).unwrap_or(whole), records);
    last.sort_by_key(|r| r.called);
    let mut why = String::from("no order of these explains what was seen:");
    for r in &last[last.len().saturating_sub(SHOWN)..] {
        let (called, returned) = (r.called, r.returned);
        let _ = write!(
            why,
            "\n  {called:>6} ..{returned:>6}  m{} {:?}",
            r.client, r.deed
        );
    }
    why
}

/// Records of a contradiction that are shown.
const SHOWN: usize = 24;

/// What is certain before `cut`; of what ended later, that it may have happened.
pub fn until(cut: u64, records: &[Record]) -> Vec<Record> {
    let before = records.iter().filter(|r| r.called < cut);
    let kept = before.filter_map(|record| {
        let deed = match record.deed {
            _ if record.returned < cut => return Some(*record),
            Deed::Write(value) | Deed::MaybeWrite(value) => Deed::MaybeWrite(value),
            Deed::Added(_, value) | Deed::Ensured(value) => Deed::MaybeWrite(value),
            Deed::MaybeAdded(..) => record.deed,
            Deed::Removed | Deed::MaybeRemove => Deed::MaybeRemove,
            Deed::Read(_) | Deed::Missing => return None,
        };
        let returned = u64::MAX;
        Some(Record {
            returned,
            deed,
            ..*record
        })
    });
    kept.collect()
}
