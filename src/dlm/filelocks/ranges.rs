//! The locks of one owner on one file: sorted, disjoint, and merged where
//! neighbours are of one kind.

use crate::base::{Extent, HeldLock};

/// `old` with `with` (nothing: a gap) in place of `range`: what lay across its
/// edges is split, what then touches and is alike is merged.
pub fn replaced(old: &[HeldLock], range: Extent, with: Option<HeldLock>) -> Vec<HeldLock> {
    let mut new: Vec<HeldLock> = Vec::with_capacity(old.len() + 2);
    let before = |held: &HeldLock| Extent {
        start: held.range.start,
        end: held.range.end.min(range.start.saturating_sub(1)),
    };
    let after = |held: &HeldLock| Extent {
        start: held.range.start.max(range.end.saturating_add(1)),
        end: held.range.end,
    };
    for held in old.iter().filter(|held| held.range.start < range.start) {
        let range = before(held);
        push(&mut new, HeldLock { range, ..*held });
    }
    if let Some(with) = with {
        push(&mut new, HeldLock { range, ..with });
    }
    for held in old.iter().filter(|held| held.range.end > range.end) {
        let range = after(held);
        push(&mut new, HeldLock { range, ..*held });
    }
    new
}

/// Appends, or lengthens the last one if it goes on in the same kind.
fn push(to: &mut Vec<HeldLock>, held: HeldLock) {
    if let Some(last) = to.last_mut()
        && last.kind == held.kind
        && last.range.end.checked_add(1) == Some(held.range.start)
    {
        last.range.end = held.range.end;
        last.pid = held.pid;
        return;
    }
    to.push(held);
}

/// The first lock that is in the way of another owner's `asked`.
pub fn conflict(held: &[HeldLock], asked: &HeldLock) -> Option<HeldLock> {
    let from = held.partition_point(|held| held.range.end < asked.range.start);
    let meeting = held[from..]
        .iter()
        .take_while(|held| held.range.start <= asked.range.end);
    let mut in_the_way = meeting.filter(|held| held.kind.conflicts(asked.kind));
    in_the_way.next().copied()
}

/// Is all of `asked` held, in its kind or a stronger one?
pub fn covers(held: &[HeldLock], asked: &HeldLock) -> bool {
    let mut next = asked.range.start;
    let from = held.partition_point(|held| held.range.end < asked.range.start);
    for held in &held[from..] {
        if held.range.start > next || held.kind < asked.kind {
            return false;
        }
        if held.range.end >= asked.range.end {
            return true;
        }
        next = held.range.end + 1;
    }
    false
}
