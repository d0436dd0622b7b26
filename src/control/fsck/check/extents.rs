//! Bytes of files: where extents say that they are, whose account they are on,
//! and whether they are what was written.

use super::Check;
use crate::base::{Codec, Fid};
use crate::cache::Extent;
use crate::cache::extent::Content;
use crate::control::fsck::kind::Kind;
use crate::control::fsck::names::entry_key;
use crate::control::fsck::pieces;
use crate::namespace::{Inode, key};
use crate::shard::data::Placed;
use std::collections::BTreeMap;

/// Where the bytes of an extent lie: 24 bytes each are kept, to be sorted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    segment: u32,
    offset: u32,
    len: u32,
    /// Place of the file in the census.
    place: u32,
    /// Offset in the file.
    at: u64,
}

/// Of files that are not in the census.
const NOWHERE: u32 = u32::MAX;

/// The file that the pass stands in.
#[derive(Default)]
struct Present {
    fid: Fid,
    end: u64,
    size: Option<u64>,
}

impl Check<'_> {
    pub(super) fn extents(&mut self) {
        let view = self.view;
        let mut spans = Vec::new();
        let mut present = Present::default();
        for (key, value) in view.index.letter(key::table::EXTENT) {
            let Some((fid, at)) = entry_key(&key) else {
                self.stray(&key, "no file and offset in the key");
                continue;
            };
            self.counts.extents += 1;
            let bytes = self.counts.data_bytes >> 20;
            self.report
                .progress(|| format!("shard {}: {bytes} MiB of data", view.id));
            if present.fid != fid {
                present = self.begin(fid);
            }
            match Extent::from_slice(&value) {
                Ok(extent) => self.extent(&mut present, at, &extent, &mut spans),
                Err(e) => {
                    let what = format!("the extent at {at}: {e}");
                    self.about(Kind::Record, fid, what);
                }
            }
        }
        spans.sort_unstable();
        self.overlaps(&spans);
        self.places(&spans);
        self.accounts(&spans);
    }

    fn begin(&self, fid: Fid) -> Present {
        if self.is_missing(fid) && !self.gone.contains(&fid) {
            self.about(Kind::NoSuchFile, fid, "has extents, and does not exist");
        }
        let inode: Option<Inode> = self.view.index.record(&key::inode(fid));
        let inode = inode.filter(|_| !self.gone.contains(&fid));
        Present {
            fid,
            end: 0,
            size: inode.map(|inode| inode.attr.size),
        }
    }

    fn extent(&mut self, present: &mut Present, at: u64, extent: &Extent, spans: &mut Vec<Span>) {
        let fid = present.fid;
        let end = at.saturating_add(extent.len);
        if at < present.end {
            let what = format!("the extent at {at} begins before the one before it ends");
            self.about(Kind::ExtentOverlap, fid, what);
        }
        if present.size.is_some_and(|size| end > size) {
            let what = format!("the extent at {at} ends at {end}, past the end of the file");
            self.about(Kind::ExtentOverlap, fid, what);
        }
        present.end = present.end.max(end);
        if extent.is_dirty()
            && let Some(node) = self.census.find_mut(fid)
        {
            node.is_dirty = true;
        }
        if let Some(why) = pieces::misplaced(self.view, extent) {
            self.about(
                Kind::ExtentPlace,
                fid,
                format!("bytes {at} to {end}: {why}"),
            );
            return;
        }
        let (Content::Bytes { .. }, Some(location)) = (&extent.content, extent.location()) else {
            return;
        };
        spans.push(Span {
            segment: location.segment,
            offset: location.offset,
            len: u32::try_from(extent.len).unwrap_or(u32::MAX),
            place: self
                .census
                .place(fid)
                .and_then(|place| u32::try_from(place).ok())
                .unwrap_or(NOWHERE),
            at,
        });
        if self.depth.reads_data && !self.gone.contains(&fid) {
            self.counts.data_bytes += extent.len;
            self.verify(fid, at, extent);
        }
    }

    fn verify(&self, fid: Fid, at: u64, extent: &Extent) {
        let (kind, what) = match extent.is_dirty() {
            true => (Kind::DirtyData, "which the origin lacks, are damaged"),
            false => (Kind::CleanData, "which the origin has, too, are damaged"),
        };
        for bad in pieces::read(self.view, extent).bad {
            let what = format!("bytes {} to {}, {what}", at + bad.start, at + bad.end);
            let path = self.report.tells(kind).then(|| self.names.path(fid));
            let mut finding = self.view.finding(kind, what).fid(fid).path(path.flatten());
            if let Some(location) = extent.location() {
                let offset = u32::try_from(bad.start).unwrap_or(u32::MAX);
                let offset = location.offset.saturating_add(offset);
                finding = finding.segment(location.segment, offset);
                if let Some(segment) = self.view.volume.segment_at(location.segment) {
                    finding = finding.at(segment + u64::from(offset));
                }
            }
            self.report.tell(finding);
        }
    }

    fn overlaps(&self, spans: &[Span]) {
        for pair in spans.windows(2) {
            let [a, b] = pair else { continue };
            if a.segment == b.segment
                && u64::from(a.offset) + u64::from(a.len) > u64::from(b.offset)
            {
                let other = self
                    .fid(a)
                    .map_or_else(String::new, |fid| self.names.path_or_fid(fid));
                let what = format!(
                    "bytes from {} on share flash with {other} at {}",
                    b.at, a.at
                );
                match self.fid(b) {
                    Some(fid) => self.about(Kind::FlashOverlap, fid, what),
                    None => self
                        .report
                        .tell(self.view.finding(Kind::FlashOverlap, what)),
                }
            }
        }
    }

    fn fid(&self, span: &Span) -> Option<Fid> {
        self.census.node(span.place as usize).map(|node| node.fid)
    }

    /// The notes of whose bytes lie where, against where they lie.
    fn places(&self, spans: &[Span]) {
        let index = &self.view.index;
        let mut noted = 0;
        for (key, value) in index.letter(key::table::SUMMARY) {
            let Some((segment, offset)) = summary_key(&key) else {
                self.stray(&key, "no place on flash in the key");
                continue;
            };
            let Some(placed) = self.decoded::<Placed>(&key, &value, "place") else {
                continue;
            };
            noted += 1;
            let at = spans.partition_point(|s| (s.segment, s.offset) < (segment, offset));
            let there = spans
                .get(at)
                .filter(|s| (s.segment, s.offset) == (segment, offset));
            let is_right = there.is_some_and(|s| {
                s.at == placed.offset && self.fid(s).is_none_or(|fid| fid == placed.fid)
            });
            let extent = key::extent(placed.fid, placed.offset);
            if !is_right && !index.may_be_lost(&extent) {
                let what = format!("is said to have its bytes from {} on there", placed.offset);
                let finding = self.view.finding(Kind::PlaceRecord, what).fid(placed.fid);
                self.report.tell(finding.segment(segment, offset));
            }
        }
        let all = crate::control::fsck::index::letter_range(key::table::SUMMARY);
        if noted < spans.len() && !index.may_lack(&all) {
            let what = format!(
                "{} extents on flash, and {noted} notes of them",
                spans.len()
            );
            self.report.tell(self.view.finding(Kind::PlaceRecord, what));
        }
    }

    /// Live bytes of each segment, as extents have them and as they are counted.
    fn accounts(&self, spans: &[Span]) {
        let all = crate::control::fsck::index::letter_range(key::table::EXTENT);
        if self.view.is_partial || self.view.index.may_lack(&all) {
            return; // What cannot be read is on the accounts, too.
        }
        let mut sums: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for span in spans {
            sums.entry(span.segment).or_default().0 += u64::from(span.len);
        }
        for &(segment, live) in &self.view.found.live {
            sums.entry(segment).or_default().1 = u64::from(live);
        }
        for (segment, (is, counted)) in sums {
            let kind = match is.cmp(&counted) {
                std::cmp::Ordering::Equal => continue,
                std::cmp::Ordering::Greater => Kind::Account,
                std::cmp::Ordering::Less => Kind::Leak,
            };
            let what = format!("{is} bytes of files are there, and {counted} are counted");
            self.report
                .tell(self.view.finding(kind, what).segment(segment, 0));
        }
    }
}

fn summary_key(key: &[u8]) -> Option<(u32, u32)> {
    let (_, place) = key.split_first()?;
    let (segment, offset) = place.split_first_chunk::<4>()?;
    Some((
        u32::from_be_bytes(*segment),
        u32::from_be_bytes(offset.try_into().ok()?),
    ))
}
