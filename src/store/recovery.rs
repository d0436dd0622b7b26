//! What recovery makes of a journal. The decision is one table
//! ([`verdict`]), exhausted by a test; [`scan`] collects its inputs from the
//! bytes of one segment.
//!
//! The journal is read in order from the root's place. At each place the table
//! is asked what the next expected record means, given the highest *flushed
//! mark* seen anywhere behind it: at or below a mark a record was durable, so
//! that a bad one is corruption; above, it may be the tail that a crash tore.

use super::journal::{Found, Group, GroupHeader, Use, parse_group, parse_group_of_any};
use super::segment::HEADER_BYTES;
use crate::base::limits::BLOCK;
use crate::base::{DecodeError, Lsn, ShardId};

/// What stands where the next record is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A whole group that begins with the expected record.
    Next,
    /// A whole group that begins with another record.
    OutOfOrder,
    /// A group that is not whole.
    Torn,
    /// No group of this use of the segment (an older generation counts as none).
    Missing,
}

/// Do the data that the group refers to verify? Asked only above the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataState {
    Verified,
    Bad,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Replay,
    /// The log ends before this record; it was never acknowledged.
    TornTail,
    /// Acknowledged records are gone: refuse to go on.
    Corrupt,
}

/// The decision table.
///
/// | state | at or below a mark | above all marks |
/// |---|---|---|
/// | next, data verified | replay | replay |
/// | next, data bad | replay; the read of the data reports it | torn tail |
/// | out of order, torn, missing | corrupt | torn tail |
///
/// A group at or below a mark is replayed even if its data is bad: its names
/// and attributes are good, and the data fails its checksum when it is read.
#[must_use]
pub fn verdict(state: State, is_flushed: bool, data: DataState) -> Verdict {
    match (state, is_flushed, data) {
        (State::Next, true, _) | (State::Next, false, DataState::Verified) => Verdict::Replay,
        (State::Next, false, DataState::Bad) => Verdict::TornTail,
        (State::OutOfOrder | State::Torn | State::Missing, true, _) => Verdict::Corrupt,
        (State::OutOfOrder | State::Torn | State::Missing, false, _) => Verdict::TornTail,
    }
}

/// What one journal segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Groups in unbroken order.
    pub groups: Vec<Group>,
    /// Where the order ends, and what stands there.
    pub end: u32,
    pub state: State,
    pub fault: Option<DecodeError>,
    /// The record expected at `end`.
    pub expected: Lsn,
    /// The highest mark in the segment, behind the end too.
    pub mark: Lsn,
}

/// Reads a segment from `offset` on, where record `expected` should begin (or
/// an earlier one, if `offset` is the root's: the group that holds it).
#[must_use]
pub fn scan(segment: &[u8], offset: u32, of: Use, expected: Lsn) -> Scan {
    let mut out = Scan {
        groups: Vec::new(),
        end: offset,
        state: State::Missing,
        fault: None,
        expected,
        mark: Lsn(0),
    };
    loop {
        match parse_group(segment, out.end, of) {
            Found::Nothing => out.state = State::Missing,
            Found::Torn(e) => {
                out.state = State::Torn;
                out.fault = Some(e);
            }
            Found::Whole(group) if is_next(&group.header, &out) => {
                out.mark = out.mark.max(group.header.flushed);
                out.expected = group.header.last().next();
                let len = u32::try_from(group.header.group_bytes()).unwrap_or(u32::MAX);
                out.end = out.end.saturating_add(len);
                out.groups.push(group);
                continue;
            }
            Found::Whole(_) => out.state = State::OutOfOrder,
        }
        break;
    }
    out.mark = out.mark.max(mark_behind(segment, out.end, of));
    out
}

/// The first group from the root may begin before the expected record.
fn is_next(header: &GroupHeader, so_far: &Scan) -> bool {
    if so_far.groups.is_empty() {
        header.first <= so_far.expected && header.last().next() >= so_far.expected
    } else {
        header.first == so_far.expected
    }
}

/// The highest mark of whole groups after `from`: proof that what should stand
/// at `from` was durable.
fn mark_behind(segment: &[u8], from: u32, of: Use) -> Lsn {
    highest_mark(segment, from, |at| parse_group(segment, at, of))
}

/// The highest mark in a segment whose header cannot be read. The header travels
/// with the segment's first group, and a group whose write begins when that one
/// is durable has a mark that says so: a mark at or above the first record that
/// the segment should hold tells rot of the header from one that never arrived.
#[must_use]
pub fn mark_without_header(segment: &[u8], shard: ShardId, sequence: u64) -> Lsn {
    highest_mark(segment, HEADER_BYTES, |at| {
        parse_group_of_any(segment, at, shard, sequence)
    })
}

fn highest_mark(segment: &[u8], from: u32, parse: impl Fn(u32) -> Found) -> Lsn {
    let step = u32::try_from(BLOCK).expect("small");
    let mut at = from;
    let mut mark = Lsn(0);
    while (at as usize) < segment.len() {
        if let Found::Whole(group) = parse(at) {
            mark = mark.max(group.header.flushed);
        }
        at = at.saturating_add(step);
    }
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 4] = [State::Next, State::OutOfOrder, State::Torn, State::Missing];
    const DATA: [DataState; 2] = [DataState::Verified, DataState::Bad];

    /// The promises, stated apart from the table and checked on each of its entries.
    #[test]
    fn the_table_keeps_its_promises() {
        for state in STATES {
            for is_flushed in [false, true] {
                for data in DATA {
                    let got = verdict(state, is_flushed, data);
                    let whole = state == State::Next;
                    // Nothing acknowledged is taken for a torn tail.
                    assert!(!(is_flushed && got == Verdict::TornTail));
                    // Nothing that a crash can leave is called corruption.
                    assert!(is_flushed || got != Verdict::Corrupt);
                    // Only whole groups in order are replayed.
                    assert!(got != Verdict::Replay || whole);
                    // A whole group is lost only if its data never arrived (F4).
                    let lost = got != Verdict::Replay;
                    assert_eq!(
                        whole && lost,
                        whole && !is_flushed && data == DataState::Bad
                    );
                }
            }
        }
    }
}
