//! The journal, alive: the open group that collects, and the sealed groups that
//! wait for their write (`flight` writes them).

use super::state::State;
use crate::base::limits::BLOCK;
use crate::base::{Errno, Generation, Location, Lsn, ShardId, Slice, Transno};
use crate::store::Record;
use crate::store::journal::{GroupHeader, group_bytes, push_record, record_bytes_max};
use crate::store::root::JournalPlace;
use crate::store::segment::{HEADER_BYTES, SegmentHeader, SegmentKind};
use crate::store::space::{Need, Role};
use crate::world::World;
use crate::world::sync::Promise;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Un-awaited records are written after this long.
const LINGER: Duration = Duration::from_millis(20);
/// A group of this size is written though nobody waits for it.
const GROUP_TARGET: usize = 128 << 10;
/// A group is closed at this size: the longest that a committer waits behind.
const GROUP_MAX: usize = 1 << 20;
/// Zeros are written in steps of this size.
const ZERO_STEP: usize = 256 << 10;

/// The result of a write that others wait for.
pub(super) type Written = Promise<Result<(), Errno>>;

/// Where the journal stands.
pub(super) struct Log {
    pub segment: u32,
    pub sequence: u64,
    /// The segment after this one, chosen ahead.
    pub next: u32,
    /// The header of `segment`, until its first group takes it along.
    header: Option<Slice>,
    open: OpenGroup,
    sealed: VecDeque<SealedGroup>,
    /// Journal segments since the checkpoint, oldest first.
    pub chain: VecDeque<(u32, u64)>,
    /// Segments being filled with zeros before their first use.
    zeroing: BTreeMap<u32, Written>,
    /// Somebody waits for this record.
    wanted: Lsn,
    /// The open group has waited long enough.
    pub is_due: bool,
    has_timer: bool,
    segment_bytes: usize,
    /// Memory that is used again: of one record, and of a group's.
    record: Vec<u8>,
    records: Vec<u8>,
}

#[derive(Default)]
pub(super) struct OpenGroup {
    pub offset: u32,
    first: Lsn,
    count: u32,
    pub records: Vec<u8>,
    pub parts: Vec<Slice>,
    data_bytes: usize,
    /// Places of `parts`, served from memory until they are written.
    pub places: Vec<Location>,
    /// Data writes that the group's records refer to.
    pub waits: Vec<Written>,
    pub transno: Transno,
}

/// A group that takes no more, and where it goes.
pub(super) struct SealedGroup {
    pub group: OpenGroup,
    pub segment: u32,
    pub sequence: u64,
    /// The segment's header, which goes with its first group.
    pub header: Option<Slice>,
    /// The segment is being filled with zeros.
    pub zeroed: Option<Written>,
}

impl OpenGroup {
    fn bytes(&self) -> usize {
        group_bytes(self.records.len(), self.data_bytes)
    }
    fn is_empty(&self) -> bool {
        self.count == 0 && self.parts.is_empty()
    }
}

impl SealedGroup {
    pub fn bytes(&self) -> usize {
        self.group.bytes()
    }
}

impl Log {
    /// A journal that goes on in `place` (whose header is on flash) with record `first`.
    pub fn new(place: JournalPlace, next: u32, first: Lsn, segment_bytes: u32) -> Log {
        Log {
            segment: place.segment,
            sequence: place.sequence,
            next,
            header: None,
            open: OpenGroup {
                offset: place.offset,
                first,
                ..OpenGroup::default()
            },
            sealed: VecDeque::new(),
            chain: VecDeque::from([(place.segment, place.sequence)]),
            zeroing: BTreeMap::new(),
            wanted: Lsn(0),
            is_due: false,
            has_timer: false,
            segment_bytes: segment_bytes as usize,
            record: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Bytes of journal since the checkpoint, in whole segments but the last.
    pub fn bytes(&self) -> usize {
        (self.chain.len().saturating_sub(1)) * self.segment_bytes + self.open.offset as usize
    }

    /// Where the group stands that gets the next record.
    pub fn place(&self) -> JournalPlace {
        JournalPlace {
            segment: self.segment,
            sequence: self.sequence,
            offset: self.open.offset,
        }
    }

    /// Has every record been taken to be written?
    pub fn is_idle(&self) -> bool {
        self.open.count == 0 && self.sealed.is_empty()
    }

    fn queued_bytes(&self) -> usize {
        let sealed: usize = self.sealed.iter().map(SealedGroup::bytes).sum();
        sealed + self.open.bytes()
    }

    /// Would the open group still fit its segment with this much in it?
    fn has_room(&self, records: usize, data: usize) -> bool {
        self.open.offset as usize + group_bytes(records, data) <= self.segment_bytes
    }

    /// Closes the open group. One without records gets an empty record, so that
    /// every group has a place in the order; true if it did.
    fn seal(&mut self) -> bool {
        if self.open.is_empty() {
            return false;
        }
        let is_bare = self.open.count == 0;
        if is_bare {
            push_record(&mut self.open.records, &Record::default());
            self.open.count = 1;
        }
        let len = u32::try_from(self.open.bytes()).expect("has_room was asked");
        let after = OpenGroup {
            offset: self.open.offset + len,
            first: Lsn(self.open.first.0 + u64::from(self.open.count)),
            records: std::mem::take(&mut self.records),
            ..OpenGroup::default()
        };
        self.sealed.push_back(SealedGroup {
            group: std::mem::replace(&mut self.open, after),
            segment: self.segment,
            sequence: self.sequence,
            header: self.header.take(),
            zeroed: self.zeroing.remove(&self.segment),
        });
        self.is_due = false;
        is_bare
    }

    /// The memory of a group that was written.
    pub fn recycle(&mut self, sealed: SealedGroup) {
        self.records = sealed.group.records;
        self.records.clear();
    }

    /// The next group to write, if there is reason to write one.
    pub fn pop(&mut self, is_closing: bool) -> Option<(SealedGroup, bool)> {
        if let Some(group) = self.sealed.pop_front() {
            return Some((group, false));
        }
        let is_wanted = self.wanted >= self.open.first;
        let is_big = self.open.bytes() >= GROUP_TARGET;
        if self.open.count == 0 || !(is_wanted || is_big || self.is_due || is_closing) {
            return None;
        }
        let is_bare = self.seal();
        self.sealed.pop_front().map(|group| (group, is_bare))
    }
}

impl<W: World> State<W> {
    /// Puts a record into the open group and gives it its place in the order.
    pub fn journal(self: &Rc<Self>, change: &Record) -> Result<Lsn, Errno> {
        let mut record = std::mem::take(&mut self.log.borrow_mut().record);
        record.clear();
        push_record(&mut record, change);
        if record.len() > record_bytes_max(self.segment_bytes()) {
            return Err(Errno::EFBIG);
        }
        self.room_for(record.len(), 0, Need::Journal)?;
        let mut log = self.log.borrow_mut();
        let group = &mut log.open;
        group.records.extend_from_slice(&record);
        group.count += 1;
        group.transno = group.transno.max(change.transno);
        let data = self.data.borrow();
        group.waits.extend(
            change
                .data
                .iter()
                .filter_map(|piece| data.write_of(piece.at)),
        );
        let lsn = self.applied.get().next();
        self.applied.set(lsn);
        if log.open.bytes() >= GROUP_TARGET {
            self.work.notify();
        }
        let needs_timer = !std::mem::replace(&mut log.has_timer, true);
        log.record = record;
        drop(log);
        if needs_timer {
            self.spawn_timer();
        }
        Ok(lsn)
    }

    /// Puts small data into the open group; where it will stand.
    pub fn ride(
        self: &Rc<Self>,
        block_parts: Vec<Slice>,
        bytes: usize,
        need: Need,
    ) -> Result<Location, Errno> {
        self.room_for(0, bytes, need)?;
        let mut log = self.log.borrow_mut();
        let segment = log.segment;
        let group = &mut log.open;
        let offset = group.offset as usize + BLOCK + group.data_bytes;
        let at = Location {
            segment,
            offset: u32::try_from(offset).expect("inside the segment"),
        };
        group.parts.extend(block_parts);
        group.data_bytes += bytes;
        group.places.push(at);
        Ok(at)
    }

    pub fn queued_bytes(&self) -> usize {
        let log = self.log.borrow().queued_bytes();
        log + self.flight.bytes() + self.data.borrow().writing_bytes()
    }

    pub async fn commit(&self, lsn: Lsn) -> Result<(), Errno> {
        while self.durable.get() < lsn {
            if self.fenced.get() {
                return Err(Errno::EIO);
            }
            self.want(lsn);
            self.progress.wait().await;
        }
        Ok(())
    }

    fn want(&self, lsn: Lsn) {
        let mut log = self.log.borrow_mut();
        if log.wanted < lsn {
            log.wanted = lsn;
            self.work.notify();
        }
    }

    /// Makes the open group able to take this much more, going on to a new
    /// group or a new segment where it must.
    fn room_for(self: &Rc<Self>, record: usize, data: usize, need: Need) -> Result<(), Errno> {
        let mut log = self.log.borrow_mut();
        // An open group that may still need its empty record keeps room for it.
        let records = log.open.records.len() + record.max(BLOCK);
        let data_bytes = log.open.data_bytes + data;
        let is_long = !log.open.is_empty() && group_bytes(records, data_bytes) > GROUP_MAX;
        if !is_long && log.has_room(records, data_bytes) {
            return Ok(());
        }
        let fits_alone = {
            let open = if log.open.is_empty() {
                0
            } else {
                log.open.bytes()
            };
            log.open.offset as usize + open + group_bytes(record.max(BLOCK), data)
                <= log.segment_bytes
        };
        if !fits_alone {
            let Some(spare) = self.space.borrow_mut().allocate(need, Role::Journal) else {
                return Err(Errno::ENOSPC);
            };
            self.seal_open(&mut log);
            self.next_segment(&mut log, spare);
        } else {
            self.seal_open(&mut log);
        }
        self.work.notify();
        Ok(())
    }

    fn seal_open(&self, log: &mut Log) {
        if log.seal() {
            self.applied.set(self.applied.get().next());
        }
    }

    /// Goes on in the segment chosen ahead, and chooses `spare` for the one after.
    fn next_segment(self: &Rc<Self>, log: &mut Log, spare: u32) {
        log.segment = std::mem::replace(&mut log.next, spare);
        log.sequence += 1;
        log.open.offset = HEADER_BYTES;
        log.chain.push_back((log.segment, log.sequence));
        let header = self.journal_header(log.segment, log.sequence, log.open.first, spare);
        log.header = Some(Slice::from(header.encode()));
        self.prepare(log, spare);
    }

    pub fn journal_header(
        &self,
        segment: u32,
        sequence: u64,
        first: Lsn,
        next: u32,
    ) -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Journal,
            box_id: self.volume.superblock.box_id,
            shard: self.shard,
            segment,
            generation: self.generation,
            sequence,
            first,
            next,
        }
    }

    /// Fills a segment with zeros before it becomes journal, once in its life:
    /// small synchronous writes into blocks that a file system never wrote cost
    /// about twice as much, because each turns an extent.
    pub fn prepare(self: &Rc<Self>, log: &mut Log, segment: u32) {
        if self.device.is_memory() || self.space.borrow().is_written(segment) {
            return;
        }
        let done = Written::default();
        log.zeroing.insert(segment, done.clone());
        let state = Rc::clone(self);
        self.world.spawn(async move {
            let result = state.write_zeros(segment).await;
            if let Err(errno) = result {
                state.fence("zeroing a journal segment", errno);
            }
            done.set(result);
        });
    }

    pub async fn write_zeros(&self, segment: u32) -> Result<(), Errno> {
        let zeros = Slice::from(vec![0; ZERO_STEP]);
        let at = self.place(segment, 0)?;
        let end = at + u64::from(self.segment_bytes());
        for at in (at..end).step_by(ZERO_STEP) {
            self.device.write(at, vec![zeros.clone()], false).await?;
        }
        self.space.borrow_mut().set_written(segment);
        Ok(())
    }

    fn spawn_timer(self: &Rc<Self>) {
        let state = Rc::clone(self);
        self.world.spawn(async move {
            state.world.sleep(LINGER).await;
            let mut log = state.log.borrow_mut();
            log.has_timer = false;
            log.is_due = log.open.count > 0;
            drop(log);
            state.work.notify();
        });
    }
}

impl OpenGroup {
    pub fn header(
        &self,
        shard: ShardId,
        generation: Generation,
        sequence: u64,
        flushed: Lsn,
    ) -> GroupHeader {
        let whole = |n: usize| u32::try_from(n).expect("inside the segment");
        GroupHeader {
            shard,
            generation,
            segment_sequence: sequence,
            first: self.first,
            flushed,
            count: self.count,
            records_bytes: whole(self.records.len()),
            data_bytes: whole(self.data_bytes),
        }
    }
}
