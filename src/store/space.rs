//! Which segment of a shard is used for what, and when it is free again.
//!
//! A data segment is free when nothing in it is alive **and the record that
//! let go of the last byte is proved durable by a mark that is itself durable**:
//! else a crash could bring the older record back, whose data recovery would
//! find overwritten (F4), and end the log before acknowledged records.

use crate::base::{Location, Lsn, Mono};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Appended bytes that got no record for so long were given up by whoever
/// appended them; a record follows its bytes within one poll of a task.
const ABANDONED: Duration = Duration::from_secs(60);

/// What a segment is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Free,
    Manifest,
    Journal,
    Index,
    /// Data, still being filled.
    Open,
    /// Data, full; free as soon as nothing in it is alive.
    Sealed,
}

/// Who asks for a segment. The later ones may go further into the reserve, so
/// that a full flash can always finish what empties it (L5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Data that can be fetched again.
    Clean,
    /// Data that clients wrote.
    Dirty,
    /// The same, of a client that was promised the room (L4).
    Promised,
    /// Records: unlink, truncate and write-back need them.
    Journal,
    /// Checkpoint and compaction.
    Core,
}

#[derive(Clone, Debug)]
struct Segment {
    role: Role,
    /// Bytes that applied records refer to.
    live: u64,
    /// Bytes appended whose record is not applied yet.
    pending: u64,
    /// When bytes were last appended.
    appended: Mono,
    /// Reads in progress.
    pins: u32,
    /// The last record that let bytes go.
    emptied: Lsn,
    /// Written once from end to end.
    written: bool,
}

/// The accounting of a shard's segments.
#[derive(Clone, Debug)]
pub struct Space {
    segments: BTreeMap<u32, Segment>,
    /// Used in turn, which spreads wear.
    free: VecDeque<u32>,
    /// Perhaps free: nothing alive when last looked at.
    empty: BTreeSet<u32>,
    reserve: usize,
    /// Segments that only promised data, and what is needed more, may use.
    promised: usize,
}

impl Space {
    /// All of `owned` free. `reserve`: segments that only checkpoints and
    /// compaction may use to the last.
    #[must_use]
    pub fn new(owned: &[u32], reserve: usize) -> Space {
        let fresh = Segment {
            role: Role::Free,
            live: 0,
            pending: 0,
            appended: Mono(0),
            pins: 0,
            emptied: Lsn(0),
            written: false,
        };
        Space {
            segments: owned.iter().map(|&s| (s, fresh.clone())).collect(),
            free: owned.iter().copied().collect(),
            empty: BTreeSet::new(),
            reserve: reserve.min(owned.len() / 3),
            promised: 0,
        }
    }

    /// A free segment, if the asker may have one.
    pub fn allocate(&mut self, need: Need, role: Role) -> Option<u32> {
        if self.free.len() <= self.floor(need) {
            return None;
        }
        let segment = self.free.pop_front()?;
        self.set_role(segment, role);
        Some(segment)
    }

    /// Takes a segment that recovery found in use. False if it is not the shard's.
    pub fn claim(&mut self, segment: u32, role: Role) -> bool {
        if !self.segments.contains_key(&segment) {
            return false;
        }
        self.free.retain(|&s| s != segment);
        self.empty.remove(&segment);
        self.set_role(segment, role);
        true
    }

    /// Gives back a segment that nothing on flash refers to any more.
    pub fn give_back(&mut self, segment: u32) {
        if let Some(s) = self.segments.get_mut(&segment)
            && s.role != Role::Free
        {
            s.role = Role::Free;
            (s.live, s.pending) = (0, 0);
            self.empty.remove(&segment);
            self.free.push_back(segment);
        }
    }

    /// Bytes were placed there; their record comes later.
    pub fn on_appended(&mut self, at: Location, len: u32, now: Mono) {
        if let Some(s) = self.segments.get_mut(&at.segment) {
            s.pending += u64::from(len);
            s.appended = now;
        }
    }

    /// Appended bytes will have no record.
    pub fn on_discarded(&mut self, at: Location, len: u32) {
        if let Some(s) = self.segments.get_mut(&at.segment) {
            s.pending = s.pending.saturating_sub(u64::from(len));
            self.note_empty(at.segment);
        }
    }

    /// A record that refers to the bytes was applied (or replayed).
    pub fn on_referred(&mut self, at: Location, len: u32) {
        if let Some(s) = self.segments.get_mut(&at.segment) {
            s.pending = s.pending.saturating_sub(u64::from(len));
            s.live += u64::from(len);
            self.empty.remove(&at.segment);
        }
    }

    /// Record `lsn` let the bytes go. False: more than were alive, an error of
    /// whoever wrote the records.
    pub fn on_freed(&mut self, at: Location, len: u32, lsn: Lsn) -> bool {
        let Some(s) = self.segments.get_mut(&at.segment) else {
            return false;
        };
        let sound = s.live >= u64::from(len);
        s.live = s.live.saturating_sub(u64::from(len));
        s.emptied = s.emptied.max(lsn);
        self.note_empty(at.segment);
        sound
    }

    /// The segment takes no more data. `after`: the last record so far, which
    /// must be durable before an empty one is used again.
    pub fn seal(&mut self, segment: u32, after: Lsn) {
        self.set_role(segment, Role::Sealed);
        if let Some(s) = self.segments.get_mut(&segment) {
            s.emptied = s.emptied.max(after);
        }
        self.note_empty(segment);
    }

    pub fn pin(&mut self, segment: u32) {
        if let Some(s) = self.segments.get_mut(&segment) {
            s.pins += 1;
        }
    }

    pub fn unpin(&mut self, segment: u32) {
        if let Some(s) = self.segments.get_mut(&segment) {
            s.pins = s.pins.saturating_sub(1);
        }
    }

    /// Frees what is empty and whose emptying is proved durable up to `proved`;
    /// how many segments that were.
    pub fn reap(&mut self, proved: Lsn, now: Mono) -> usize {
        let is_done = |s: &Segment| {
            s.role == Role::Sealed
                && s.live == 0
                && (s.pending == 0 || now - s.appended > ABANDONED)
                && s.pins == 0
                && s.emptied <= proved
        };
        let done: Vec<u32> = self
            .empty
            .iter()
            .copied()
            .filter(|i| self.segments.get(i).is_some_and(is_done))
            .collect();
        for &segment in &done {
            self.give_back(segment);
        }
        done.len()
    }

    /// Would a later mark free a segment that `proved` does not?
    #[must_use]
    pub fn waits_for_proof(&self, proved: Lsn) -> bool {
        let waits = |s: &Segment| s.role == Role::Sealed && s.live == 0 && s.emptied > proved;
        self.empty
            .iter()
            .any(|i| self.segments.get(i).is_some_and(waits))
    }

    /// Segments with live bytes, for the manifest.
    #[must_use]
    pub fn live(&self) -> Vec<(u32, u32)> {
        let all = self.segments.iter().filter(|(_, s)| s.live > 0);
        all.map(|(&i, s)| (i, u32::try_from(s.live).unwrap_or(u32::MAX)))
            .collect()
    }

    /// Starts a count from a manifest.
    pub fn set_live(&mut self, segment: u32, bytes: u32) {
        if let Some(s) = self.segments.get_mut(&segment) {
            s.live = u64::from(bytes);
        }
    }

    /// After recovery: every segment without a role but with live bytes is
    /// sealed data, everything else stays free.
    pub fn settle(&mut self) {
        let data: Vec<u32> = self
            .segments
            .iter()
            .filter(|(_, s)| s.role == Role::Free && s.live > 0)
            .map(|(&i, _)| i)
            .collect();
        for segment in data {
            self.claim(segment, Role::Sealed);
        }
    }

    #[must_use]
    pub fn role(&self, segment: u32) -> Option<Role> {
        self.segments.get(&segment).map(|s| s.role)
    }
    #[must_use]
    pub fn sealed(&self) -> Vec<(u32, u32)> {
        let all = self.segments.iter().filter(|(_, s)| s.role == Role::Sealed);
        all.map(|(&i, s)| (i, u32::try_from(s.live).unwrap_or(u32::MAX)))
            .collect()
    }
    #[must_use]
    pub fn total(&self) -> usize {
        self.segments.len()
    }
    /// Keeps so many segments for data that was promised room.
    pub fn promise(&mut self, segments: usize) {
        self.promised = segments;
    }
    /// Segments that data may still take, what is promised among them.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len().saturating_sub(self.reserve)
    }
    #[must_use]
    pub fn is_written(&self, segment: u32) -> bool {
        self.segments.get(&segment).is_some_and(|s| s.written)
    }
    pub fn set_written(&mut self, segment: u32) {
        if let Some(s) = self.segments.get_mut(&segment) {
            s.written = true;
        }
    }
    /// The bit map for the manifest, and back.
    #[must_use]
    pub fn written_bits(&self) -> Vec<u8> {
        let mut bits = vec![0; self.segments.len().div_ceil(8)];
        for (i, s) in self.segments.values().enumerate() {
            bits[i / 8] |= u8::from(s.written) << (i % 8);
        }
        bits
    }
    pub fn set_written_bits(&mut self, bits: &[u8]) {
        for (i, s) in self.segments.values_mut().enumerate() {
            s.written = bits.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
        }
    }

    /// How many free segments must remain after the asker got one.
    fn floor(&self, need: Need) -> usize {
        match need {
            Need::Clean => self.reserve + self.promised + (self.total() / 16).max(2),
            Need::Dirty => self.reserve + self.promised,
            Need::Promised => self.reserve,
            Need::Journal => self.reserve / 2,
            Need::Core => 0,
        }
    }

    fn set_role(&mut self, segment: u32, role: Role) {
        if let Some(s) = self.segments.get_mut(&segment) {
            s.role = role;
        }
    }

    fn note_empty(&mut self, segment: u32) {
        if self.segments.get(&segment).is_some_and(|s| s.live == 0) {
            self.empty.insert(segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(5);
    const AT: fn(u32) -> Location = |segment| Location {
        segment,
        offset: 4096,
    };

    #[test]
    fn a_segment_is_free_only_when_its_emptying_is_proved() {
        let mut space = Space::new(&[1, 2, 3], 0);
        let s = space.allocate(Need::Core, Role::Open).expect("free");
        space.on_appended(AT(s), 100, NOW);
        space.seal(s, Lsn(4));
        assert_eq!(space.reap(Lsn(9), NOW), 0, "its record may still come");
        let later = NOW + ABANDONED + ABANDONED;
        assert_eq!(space.clone().reap(Lsn(9), later), 1, "nobody wants it");
        space.on_referred(AT(s), 100);
        assert!(space.on_freed(AT(s), 60, Lsn(7)));
        assert!(space.on_freed(AT(s), 40, Lsn(8)));
        assert_eq!(
            space.reap(Lsn(7), NOW),
            0,
            "a crash would bring record 7 back"
        );
        space.pin(s);
        assert_eq!(space.reap(Lsn(8), NOW), 0, "somebody reads it");
        space.unpin(s);
        assert_eq!(space.reap(Lsn(8), NOW), 1);
        assert_eq!(space.role(s), Some(Role::Free));
        assert!(!space.on_freed(AT(s), 1, Lsn(9)), "freed twice");
    }

    #[test]
    fn needs_are_refused_in_their_order() {
        let owned: Vec<u32> = (0..64).collect();
        let mut space = Space::new(&owned, 8);
        space.promise(3);
        let mut granted = BTreeMap::new();
        let needs = [
            Need::Clean,
            Need::Dirty,
            Need::Promised,
            Need::Journal,
            Need::Core,
        ];
        for need in needs {
            let mut n = 0;
            while space.allocate(need, Role::Open).is_some() {
                n += 1;
            }
            granted.insert(format!("{need:?}"), n);
        }
        assert_eq!(granted["Clean"], 64 - 8 - 4 - 3);
        assert_eq!(granted["Dirty"], 4);
        assert_eq!(granted["Promised"], 3);
        assert_eq!(granted["Journal"], 4);
        assert_eq!(granted["Core"], 4);
    }
}
