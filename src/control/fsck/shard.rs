//! One shard, opened for looking: its root, manifest and journal by the rules of
//! a start, and its index tables, each checked as it is taken in.

use super::index::{Index, Table, read_block};
use super::kind::Kind;
use super::medium::{Shared, load};
use super::offline::Offline;
use super::report::{Finding, Report};
use super::volume;
use crate::base::{ShardId, Slice};
use crate::flash::inspect::{Inspection, inspect};
use crate::store::memtable::Memtable;
use crate::store::root::Root;
use crate::store::segment::{SegmentHeader, SegmentKind};
use crate::store::space::Role;
use crate::store::table::{TableEntry, TableMeta};
use crate::store::{StoreError, Volume, bloom};
use std::rc::Rc;

/// A shard that could be read, at least in part.
pub struct View {
    pub id: ShardId,
    pub medium: Shared,
    pub volume: Rc<Volume>,
    pub root: Root,
    /// What a start would find; its memtable has gone into the index.
    pub found: Inspection,
    pub index: Index,
    /// Entries of all tables, the older values of a key among them.
    pub entries: u64,
    /// Something of root, manifest, journal or tables is lost: what does not
    /// agree may come of that.
    pub is_partial: bool,
}

impl View {
    /// Opens the shard and tells what is wrong with its own structures. `None`:
    /// nothing of it can be read.
    #[must_use]
    pub fn open(
        medium: &Shared,
        volume: &Rc<Volume>,
        id: ShardId,
        report: &Report,
    ) -> Option<View> {
        let (root, mut found, is_older) = recover(medium, volume, id, report)?;
        let mut is_partial = is_older || found.fault.is_some();
        tell_journal(&found, volume, id, report);
        let memtable = std::mem::take(&mut found.memtable);
        let (index, entries) = open_tables(medium, volume, id, &found, memtable, report);
        is_partial |= index.may_lack(&(Vec::new()..vec![u8::MAX; 64]));
        let view = View {
            id,
            medium: Rc::clone(medium),
            volume: Rc::clone(volume),
            root,
            found,
            index,
            entries,
            is_partial,
        };
        view.check_headers(report);
        Some(view)
    }

    /// A finding about this shard.
    #[must_use]
    pub fn finding(&self, kind: Kind, what: impl Into<String>) -> Finding {
        Finding::new(kind, what).shard(self.id)
    }

    /// What the segment is used for, if it is the shard's.
    #[must_use]
    pub fn role(&self, segment: u32) -> Option<Role> {
        let roles = &self.found.roles;
        let at = roles.binary_search_by_key(&segment, |(s, _)| *s).ok()?;
        roles.get(at).map(|(_, role)| *role)
    }

    /// The header of a segment.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn header(&self, segment: u32) -> Result<SegmentHeader, String> {
        let at = self.volume.segment_at(segment).ok_or("no such segment")?;
        let bytes = load(self.medium.as_ref(), at, crate::base::limits::BLOCK);
        SegmentHeader::decode(&bytes.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    }

    /// Headers are written with the first bytes of a segment, and nothing reads
    /// them again but a journal's: so a bad one is worth no more than a note.
    fn check_headers(&self, report: &Report) {
        for &(segment, role) in &self.found.roles {
            let fits = |kind| match role {
                Role::Index => kind == SegmentKind::Index,
                Role::Open | Role::Sealed => matches!(
                    kind,
                    SegmentKind::Journal | SegmentKind::DataClean | SegmentKind::DataDirty
                ),
                Role::Free | Role::Manifest | Role::Journal => true,
            };
            if matches!(role, Role::Free | Role::Manifest | Role::Journal) {
                continue;
            }
            let what = match self.header(segment) {
                Ok(header) if !fits(header.kind) => {
                    format!("used for {role:?}, its header says {:?}", header.kind)
                }
                Ok(header) if (header.shard, header.segment) != (self.id, segment) => {
                    format!("its header is of segment {}", header.segment)
                }
                Ok(_) => continue,
                Err(e) => format!("its header cannot be read: {e}"),
            };
            report.tell(self.finding(Kind::SegmentHeader, what).segment(segment, 0));
        }
    }
}

/// The newest root that leads to a manifest, and what a start finds from there.
fn recover(
    medium: &Shared,
    volume: &Rc<Volume>,
    id: ShardId,
    report: &Report,
) -> Option<(Root, Inspection, bool)> {
    let mut is_older = false;
    for root in volume::roots(medium, id, report) {
        let world = Offline::new(Rc::clone(medium));
        let inspected = world.run(inspect(world.clone(), volume, root.clone()));
        let fault = match inspected {
            Some(Ok(found)) => {
                for line in world.take_log() {
                    report.tell(Finding::new(Kind::Replay, line).shard(id));
                }
                return Some((root, found, is_older));
            }
            Some(Err(e)) => e,
            None => StoreError::Options {
                why: "recovery waited for something",
            },
        };
        is_older = true;
        let mut finding = Finding::new(Kind::Manifest, volume::words(&fault)).shard(id);
        if let Some(place) = &root.manifest {
            finding = finding.segment(place.segment, 0);
        }
        report.tell(finding);
    }
    None
}

fn tell_journal(found: &Inspection, store: &Volume, id: ShardId, report: &Report) {
    if let Some(fault) = &found.fault {
        let what = format!(
            "{}; {} whole records behind it are read all the same",
            volume::words(fault),
            found.salvaged
        );
        let mut finding = Finding::new(Kind::Journal, what).shard(id);
        if let StoreError::Corrupt { at, .. } | StoreError::Io { at, .. } = fault {
            finding = finding.at(*at);
            if let Some((segment, offset)) = segment_of(store, *at) {
                finding = finding.segment(segment, offset);
            }
        }
        report.tell(finding);
    }
    if found.is_torn && found.fault.is_none() {
        let what = format!(
            "the journal ends in a group that a crash tore, after record {}",
            found.last
        );
        let mut finding = Finding::new(Kind::TornTail, what).shard(id);
        if let Some(last) = found.journal.last() {
            finding = finding.segment(last.segment, last.end);
        }
        report.tell(finding);
    }
}

/// The segment that a byte of the device lies in.
fn segment_of(volume: &Volume, at: u64) -> Option<(u32, u32)> {
    let first = volume.segment_at(0)?;
    let bytes = u64::from(volume.superblock.segment_bytes);
    let within = at.checked_sub(first)?;
    let segment = u32::try_from(within / bytes).ok()?;
    Some((segment, u32::try_from(within % bytes).ok()?))
}

fn open_tables(
    medium: &Shared,
    volume: &Rc<Volume>,
    id: ShardId,
    found: &Inspection,
    memtable: Memtable,
    report: &Report,
) -> (Index, u64) {
    let mut index = Index::new(Rc::clone(medium), Rc::clone(volume), memtable);
    let mut levels: Vec<Vec<Table>> = Vec::new();
    let mut entries = 0;
    for entry in &found.manifest.tables {
        entries += u64::from(entry.entries);
        let level = usize::from(entry.level);
        if levels.len() <= level {
            levels.resize(level + 1, Vec::new());
        }
        let mut checked = Checked {
            medium,
            volume,
            id,
            index: &mut index,
            report,
        };
        if let Some(table) = checked.open(entry) {
            levels[level].push(table);
        }
    }
    for (level, mut tables) in levels.into_iter().enumerate() {
        if level == 0 {
            tables.sort_by_key(|t| std::cmp::Reverse(t.entry.id));
        } else {
            tables.sort_by(|a, b| a.entry.first.0.cmp(&b.entry.first.0));
        }
        let meets = tables
            .windows(2)
            .any(|pair| pair[0].entry.last.0 >= pair[1].entry.first.0);
        if level > 0 && meets {
            let what = format!("tables of level {level} overlap");
            report.tell(Finding::new(Kind::TableShape, what).shard(id));
        }
        if level == 0 || meets {
            tables.into_iter().for_each(|t| index.push_run(vec![t]));
        } else {
            index.push_run(tables);
        }
    }
    (index, entries)
}

/// Reads tables in and checks them.
struct Checked<'a> {
    medium: &'a Shared,
    volume: &'a Volume,
    id: ShardId,
    index: &'a mut Index,
    report: &'a Report,
}

impl Checked<'_> {
    fn open(&mut self, entry: &TableEntry) -> Option<Table> {
        let meta = match self.meta(entry) {
            Ok(meta) => meta,
            Err(e) => {
                let what = format!("index table {}: its list of blocks: {e}", entry.id);
                let finding = Finding::new(Kind::Table, what).shard(self.id);
                self.report
                    .tell(finding.segment(entry.segment, entry.meta_at));
                self.index.lose(&entry.first.0, &entry.last.0);
                return None;
            }
        };
        let table = Table {
            entry: entry.clone(),
            blocks: Rc::new(meta.blocks),
        };
        self.blocks(&table, &meta.filter.0);
        Some(table)
    }

    fn meta(&self, entry: &TableEntry) -> Result<TableMeta, String> {
        let at = self.volume.segment_at(entry.segment);
        let at = at.ok_or("its segment does not exist")? + u64::from(entry.meta_at);
        let bytes = load(self.medium.as_ref(), at, entry.meta_bytes as usize);
        let bytes = Slice::from(bytes.map_err(|e| e.to_string())?);
        TableMeta::decode(&bytes, self.volume.superblock.segment_bytes).map_err(|e| e.to_string())
    }

    fn blocks(&mut self, table: &Table, filter: &[u8]) {
        let entry = &table.entry;
        let (mut count, mut is_whole) = (0u64, true);
        let mut last: Option<Vec<u8>> = None;
        let mut shape = None;
        for (i, listed) in table.blocks.iter().enumerate() {
            self.report.progress(|| {
                let blocks = table.blocks.len();
                format!(
                    "shard {}: table {}, block {i} of {blocks}",
                    self.id, entry.id
                )
            });
            let block = match read_block(self.medium, self.volume, table, i) {
                Ok(block) => block,
                Err(e) => {
                    is_whole = false;
                    self.lose(table, i, &e);
                    // Keys after a gap are in order with what stands before it.
                    continue;
                }
            };
            count += block.len() as u64;
            for at in 0..block.len() {
                let (key, _) = block.entry(at);
                if last.as_deref().is_some_and(|last| last >= key) {
                    shape = Some("keys are not in order");
                } else if at == 0 && key != listed.first.0.as_slice() {
                    shape = Some("a block does not begin with the key in the list");
                } else if !entry.covers(key) {
                    shape = Some("a key is outside the table's first and last");
                } else if !bloom::may_hold(filter, bloom::hash(key)) {
                    shape = Some("the filter denies a key that is there");
                }
                last = Some(key.to_vec());
            }
        }
        if is_whole && count != u64::from(entry.entries) {
            shape = Some("it has not as many entries as the manifest says");
        }
        if let Some(why) = shape {
            let what = format!("index table {}: {why}", entry.id);
            let finding = Finding::new(Kind::TableShape, what).shard(self.id);
            self.report.tell(finding.segment(entry.segment, 0));
        }
    }

    fn lose(&mut self, table: &Table, i: usize, why: &str) {
        let (entry, blocks) = (&table.entry, &table.blocks);
        let first = &blocks[i].first.0;
        let last = blocks
            .get(i + 1)
            .map_or(&entry.last.0, |next| &next.first.0);
        self.index.lose_block(entry.id, i, first, last);
        let what = format!(
            "index table {}: block {i} of {}: {why}; keys {} to {} may be lost",
            entry.id,
            blocks.len(),
            shown_key(first),
            shown_key(last),
        );
        let finding = Finding::new(Kind::TableBlock, what).shard(self.id);
        self.report
            .tell(finding.segment(entry.segment, blocks[i].at));
    }
}

/// A key of the index for people: its table's letter, and the rest in hex.
#[must_use]
pub fn shown_key(key: &[u8]) -> String {
    match key.split_first() {
        Some((letter, rest)) if letter.is_ascii_graphic() => {
            format!("{}:{}", char::from(*letter), hex(rest))
        }
        _ => hex(key),
    }
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
