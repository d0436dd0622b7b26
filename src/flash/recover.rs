//! Reading the journal back: walks the chain of segments from the root,
//! collects every flushed mark, then replays what the decision table allows.

use super::state::State;
use crate::base::Lsn;
use crate::base::limits::BLOCK;
use crate::store::journal::{Found as Parsed, Group, Use, parse_group_of_any};
use crate::store::recovery::{
    DataState, Scan, State as Found, Verdict, mark_without_header, scan, verdict,
};
use crate::store::segment::{HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::store::space::Role;
use crate::store::{Appended, StoreError};
use crate::world::{Level, World};
use std::collections::BTreeMap;
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

/// The journal as it stands on flash.
pub(super) struct Walk {
    pub links: Vec<Link>,
    /// Where a new generation goes on.
    tail: (u32, u64),
    /// A mark found there, although no header was.
    tail_mark: Lsn,
}

/// One segment of the chain, cut off at the seal of the next.
pub(super) struct Link {
    pub segment: u32,
    pub sequence: u64,
    pub scan: Scan,
    /// The first record of the following segment, which seals this one.
    seal: Option<Lsn>,
}

impl<W: World> State<W> {
    pub async fn recover(self: &Rc<Self>) -> Result<Recovered, StoreError> {
        let walk = self.walk().await?;
        self.replay(&walk).await
    }

    /// Replays what [`State::walk`] found, as far as the table allows. In memory
    /// only. After an error everything before the damage was replayed.
    pub async fn replay(self: &Rc<Self>, walk: &Walk) -> Result<Recovered, StoreError> {
        let (links, tail) = (&walk.links, walk.tail);
        let marks = links.iter().map(|link| link.scan.mark);
        let marks = marks.chain([walk.tail_mark, self.root.borrow().flushed]);
        let mark = marks.max().unwrap_or(Lsn(0));
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
        for link in links {
            if !self.replay_link(link, mark, &mut out).await? {
                break;
            }
        }
        self.space.borrow_mut().settle();
        Ok(out)
    }

    /// Reads the chain from the root on; what follows it is where a new
    /// generation goes on.
    pub async fn walk(&self) -> Result<Walk, StoreError> {
        let place = self.root.borrow().journal;
        let (mut segment, mut sequence, mut offset) = (place.segment, place.sequence, place.offset);
        let mut expected = self.applied.get().next();
        let mut links = Vec::new();
        let Some(mut header) = self.journal_head(segment, sequence).await? else {
            return self.walked(links, (segment, sequence)).await;
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
                None => return self.walked(links, (segment, sequence)).await,
            }
        }
    }

    /// The end of the chain: nothing is there yet, or a header that is damaged.
    /// The marks of groups behind it tell the second from the first. A segment
    /// that begins with zeros was prepared and not begun: it is not looked
    /// through at each start.
    async fn walked(&self, links: Vec<Link>, tail: (u32, u64)) -> Result<Walk, StoreError> {
        let (segment, sequence) = tail;
        let at = self.segment_place(segment)?;
        let head = self.device.load(at, BLOCK).await?;
        let is_begun = head.iter().any(|byte| *byte != 0);
        let tail_mark = match SegmentHeader::decode(&head) {
            Err(_) if is_begun => {
                let bytes = self.device.load(at, self.segment_bytes() as usize).await?;
                mark_without_header(&bytes, self.shard, sequence)
            }
            _ => Lsn(0),
        };
        Ok(Walk {
            links,
            tail,
            tail_mark,
        })
    }

    /// The header of a segment, if there is a whole one.
    async fn read_header(&self, segment: u32) -> Result<Option<SegmentHeader>, StoreError> {
        let at = self.segment_place(segment)?;
        let bytes = self.device.load(at, BLOCK).await?;
        Ok(SegmentHeader::decode(&bytes).ok())
    }

    fn is_journal(&self, header: &SegmentHeader, segment: u32) -> bool {
        header.kind == SegmentKind::Journal
            && header.box_id == self.volume.superblock.box_id
            && header.shard == self.shard
            && header.segment == segment
    }

    /// The header of a journal segment, if it is in this use.
    async fn journal_head(
        &self,
        segment: u32,
        sequence: u64,
    ) -> Result<Option<SegmentHeader>, StoreError> {
        let header = self.read_header(segment).await?;
        Ok(header.filter(|h| self.is_journal(h, segment) && h.sequence == sequence))
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
            out.replayed += self.replay_group(group);
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

    /// For a rescue from a journal that is damaged: replays the whole groups that
    /// stand behind the damage, too, also in segments that the chain does not lead
    /// to any more. How many records that were. What the lost ones changed is
    /// missing, but the bytes of files have checksums of their own.
    pub async fn salvage(&self) -> u64 {
        let place = self.root.borrow().journal;
        let mut parts = BTreeMap::new();
        for segment in self.volume.owned_by(self.shard) {
            let header = self.read_header(segment).await.ok().flatten();
            if let Some(header) = header.filter(|h| self.is_journal(h, segment)) {
                parts.insert(header.sequence, (segment, Some(header.first)));
            }
        }
        let mut parts = parts.split_off(&place.sequence);
        parts.entry(place.sequence).or_insert((place.segment, None));
        let seals: Vec<Option<Lsn>> = parts.values().map(|(_, first)| *first).collect();
        let seals = seals.into_iter().skip(1).chain([None]);
        let mut salvaged = 0;
        for ((sequence, (segment, _)), seal) in parts.into_iter().zip(seals) {
            salvaged += self.salvage_segment(segment, sequence, seal).await;
        }
        salvaged
    }

    async fn salvage_segment(&self, segment: u32, sequence: u64, seal: Option<Lsn>) -> u64 {
        let Ok(at) = self.segment_place(segment) else {
            return 0;
        };
        let loaded = self.device.load(at, self.segment_bytes() as usize).await;
        let Ok(bytes) = loaded else { return 0 };
        let (mut salvaged, mut offset) = (0, HEADER_BYTES);
        while (offset as usize) < bytes.len() {
            let step = match parse_group_of_any(&bytes, offset, self.shard, sequence) {
                Parsed::Whole(group) => {
                    if seal.is_none_or(|seal| group.header.first < seal) {
                        salvaged += self.replay_group(&group);
                    }
                    u32::try_from(group.header.group_bytes()).unwrap_or(u32::MAX)
                }
                Parsed::Torn(_) | Parsed::Nothing => HEADER_BYTES,
            };
            offset = offset.saturating_add(step);
        }
        salvaged
    }

    /// Applies the group's new records; how many those were.
    fn replay_group(&self, group: &Group) -> u64 {
        let mut replayed = 0;
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
                replayed += 1;
            }
            lsn = lsn.next();
        }
        replayed
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
