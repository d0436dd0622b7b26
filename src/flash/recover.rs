//! Reading the journal back: walks the chain of segments from the root,
//! collects every flushed mark, then replays what the decision table allows.

use super::state::State;
use crate::base::Lsn;
use crate::base::limits::BLOCK;
use crate::store::journal::{Group, Use};
use crate::store::recovery::{DataState, Scan, State as Found, Verdict, scan, verdict};
use crate::store::segment::{HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::store::space::Role;
use crate::store::{Appended, StoreError};
use crate::world::{Level, World};
use std::rc::Rc;

/// What recovery found.
pub(super) struct Recovered {
    /// Journal segments that records were read from, oldest first.
    pub chain: Vec<(u32, u64)>,
    /// The segment and sequence that the journal goes on in.
    pub tail: (u32, u64),
    pub replayed: u64,
    pub journal_bytes: u64,
    pub is_torn: bool,
}

/// One segment of the chain, cut off at the seal of the next.
struct Link {
    segment: u32,
    sequence: u64,
    scan: Scan,
    /// The first record of the following segment, which seals this one.
    seal: Option<Lsn>,
}

impl<W: World> State<W> {
    pub async fn recover(self: &Rc<Self>) -> Result<Recovered, StoreError> {
        let (links, tail) = self.walk().await?;
        let marks = links.iter().map(|link| link.scan.mark);
        let mark = marks
            .max()
            .unwrap_or(Lsn(0))
            .max(self.root.borrow().flushed);
        let mut out = Recovered {
            chain: links.iter().map(|l| (l.segment, l.sequence)).collect(),
            tail,
            replayed: 0,
            journal_bytes: links.iter().map(|l| u64::from(l.scan.end)).sum(),
            is_torn: false,
        };
        for &(segment, _) in out.chain.iter().chain([&tail]) {
            if !self.space.borrow_mut().claim(segment, Role::Journal) {
                return Err(self.corrupt(segment, 0, "the journal leaves the shard's segments"));
            }
        }
        if links.is_empty() && mark > self.applied.get() {
            return Err(self.corrupt(tail.0, 0, "durable records are missing"));
        }
        for link in &links {
            if !self.replay_link(link, mark, &mut out).await? {
                break;
            }
        }
        self.space.borrow_mut().settle();
        Ok(out)
    }

    /// Reads the chain from the root on; what follows it is where a new
    /// generation goes on.
    async fn walk(&self) -> Result<(Vec<Link>, (u32, u64)), StoreError> {
        let place = self.root.borrow().journal;
        let (mut segment, mut sequence, mut offset) = (place.segment, place.sequence, place.offset);
        let mut expected = self.applied.get().next();
        let mut links = Vec::new();
        let Some(mut header) = self.journal_head(segment, sequence).await? else {
            return Ok((links, (segment, sequence)));
        };
        loop {
            let at = self.segment_place(segment)?;
            let bytes = self.device.load(at, self.segment_bytes() as usize).await?;
            let of = Use {
                shard: self.shard,
                generation: header.generation,
                segment_sequence: sequence,
            };
            let mut found = scan(&bytes, offset, of, expected);
            let next = self.journal_head(header.next, sequence + 1).await?;
            if let Some(next) = &next {
                cut(&mut found, next.first);
                expected = next.first;
            }
            links.push(Link {
                segment,
                sequence,
                scan: found,
                seal: next.as_ref().map(|n| n.first),
            });
            (segment, sequence, offset) = (header.next, sequence + 1, HEADER_BYTES);
            match next {
                Some(next) => header = next,
                None => return Ok((links, (segment, sequence))),
            }
        }
    }

    /// The header of a journal segment, if it is in this use.
    async fn journal_head(
        &self,
        segment: u32,
        sequence: u64,
    ) -> Result<Option<SegmentHeader>, StoreError> {
        let at = self.segment_place(segment)?;
        let bytes = self.device.load(at, BLOCK).await?;
        let header = SegmentHeader::decode(&bytes).ok().filter(|h| {
            h.kind == SegmentKind::Journal
                && h.box_id == self.volume.superblock.box_id
                && h.shard == self.shard
                && h.segment == segment
                && h.sequence == sequence
        });
        Ok(header)
    }

    /// Replays one segment's groups; false where the log ends.
    async fn replay_link(
        self: &Rc<Self>,
        link: &Link,
        mark: Lsn,
        out: &mut Recovered,
    ) -> Result<bool, StoreError> {
        for group in &link.scan.groups {
            let is_flushed = group.header.last() <= mark;
            let data = if is_flushed || self.verifies(group).await {
                DataState::Verified
            } else {
                DataState::Bad
            };
            if verdict(Found::Next, is_flushed, data) == Verdict::TornTail {
                out.is_torn = true;
                return Ok(false);
            }
            self.replay_group(group, out);
        }
        let expected = link.scan.expected;
        if link.seal == Some(expected) {
            return Ok(true);
        }
        out.is_torn |= link.scan.state != Found::Missing;
        match verdict(link.scan.state, expected <= mark, DataState::Verified) {
            Verdict::Corrupt => {
                let why = link
                    .scan
                    .fault
                    .map_or("durable records are missing", |e| e.why);
                Err(self.corrupt(link.segment, link.scan.end, why))
            }
            Verdict::Replay | Verdict::TornTail => Ok(false),
        }
    }

    fn replay_group(&self, group: &Group, out: &mut Recovered) {
        let mut lsn = group.header.first;
        for tx in &group.records {
            if lsn > self.applied.get() {
                self.account(tx, lsn);
                let mut index = self.index.borrow_mut();
                for (key, value) in &tx.puts {
                    let value = value.as_deref().map(Rc::from);
                    index.active.insert(key.clone(), value);
                }
                drop(index);
                self.transno.set(self.transno.get().max(tx.transno));
                self.applied.set(lsn);
                out.replayed += 1;
            }
            lsn = lsn.next();
        }
    }

    /// Did all data arrive that the group's new records refer to (F4)?
    async fn verifies(self: &Rc<Self>, group: &Group) -> bool {
        let mut lsn = group.header.first;
        for tx in &group.records {
            let is_new = lsn > self.applied.get();
            lsn = lsn.next();
            if !is_new {
                continue;
            }
            for piece in &tx.data {
                if !self.is_sound(piece) || !self.is_whole(piece).await {
                    self.world.log(
                        Level::Warn,
                        "the journal ends before data that never arrived",
                    );
                    return false;
                }
            }
        }
        true
    }

    fn is_sound(&self, piece: &Appended) -> bool {
        let end = piece.at.offset.checked_add(piece.len);
        piece.crcs.len() == (piece.len as usize).div_ceil(BLOCK)
            && end.is_some_and(|e| e <= self.segment_bytes())
            && self.space.borrow().role(piece.at.segment).is_some()
    }

    fn segment_place(&self, segment: u32) -> Result<u64, StoreError> {
        let wrong = StoreError::Corrupt {
            what: "journal",
            at: 0,
            why: "it goes on in a segment that does not exist",
        };
        self.volume.segment_at(segment).ok_or(wrong)
    }

    fn corrupt(&self, segment: u32, offset: u32, why: &'static str) -> StoreError {
        let at = self.volume.segment_at(segment).unwrap_or(0);
        StoreError::Corrupt {
            what: "journal",
            at: at + u64::from(offset),
            why,
        }
    }
}

/// Drops what lies beyond the seal: records that the next generation wrote anew.
/// Everything before the seal was durable when the seal was written.
fn cut(found: &mut Scan, seal: Lsn) {
    let keep = found.groups.partition_point(|g| g.header.first < seal);
    if keep < found.groups.len() {
        found.groups.truncate(keep);
        found.expected = found.groups.last().map_or(seal, |g| g.header.last().next());
    }
    found.mark = Lsn(seal.0.saturating_sub(1));
}
