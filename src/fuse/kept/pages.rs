//! Of which files the kernel may hold pages, which of them are being filled,
//! and who has the files open.

use crate::base::limits::BLOCK;
use crate::base::{Extent, NumberMap};
use crate::client::Fill;
use crate::world::sync::Signal;
use std::rc::Rc;

/// Pages and opens by node number.
#[derive(Default)]
pub struct Pages {
    nodes: NumberMap<Node>,
    /// The node of each open file, and what for.
    opens: NumberMap<(u64, Access)>,
    /// Told when a fill begins or ends.
    pub changed: Rc<Signal>,
}

#[derive(Default, Debug)]
struct Node {
    /// Pages may be there.
    present: bool,
    /// Some may be that should not.
    tainted: bool,
    /// Opens for writing, and for reading, through which it may be mapped.
    writers: u32,
    readers: u32,
    /// How many times the pages are being taken back with everything (C8).
    condemned: u32,
    /// Page fills that began, ever.
    begun: u64,
    fills: Vec<Filling>,
}

/// What a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub reads: bool,
    pub writes: bool,
}

impl Access {
    /// As the flags of `open` say it.
    #[must_use]
    pub fn of(flags: u32) -> Access {
        let mode = flags & libc::O_ACCMODE.cast_unsigned();
        Access {
            reads: mode != libc::O_WRONLY.cast_unsigned(),
            writes: mode != libc::O_RDONLY.cast_unsigned(),
        }
    }
}

/// A READ for pages that is not answered yet: the kernel has their folios
/// locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    pub unique: u64,
    /// Whole pages.
    pub range: Extent,
    /// Takings before it (see `races`).
    pub since: u64,
    /// A taking left its pages out: they are dropped once it is answered (C4).
    pub is_left_out: bool,
}

/// What is to be dropped around the fills.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Between the fills.
    pub pieces: Vec<Extent>,
    /// The fills, by `unique`.
    pub fills: Vec<u64>,
    /// How many fills had begun.
    pub begun: u64,
}

impl Pages {
    /// A READ of pages has come.
    pub fn begin(&mut self, nodeid: u64, unique: u64, offset: u64, size: u32, since: u64) {
        let Some(range) = Extent::of(offset, u64::from(size)) else {
            return;
        };
        let node = self.nodes.entry(nodeid).or_default();
        node.present = true;
        node.begun += 1;
        node.fills.push(Filling {
            unique,
            range: whole_pages(range),
            since,
            is_left_out: false,
        });
        self.changed.notify();
    }

    /// It was answered.
    pub fn end(&mut self, nodeid: u64, unique: u64) -> Option<Filling> {
        let node = self.nodes.get_mut(&nodeid)?;
        let at = node.fills.iter().position(|fill| fill.unique == unique)?;
        let fill = node.fills.swap_remove(at);
        self.changed.notify();
        Some(fill)
    }

    /// What an answer to the READ `unique` is for (C6).
    #[must_use]
    pub fn purpose(&self, nodeid: u64, unique: u64) -> Fill {
        match self.nodes.get(&nodeid) {
            Some(node) if node.fills.iter().any(|fill| fill.unique == unique) => {
                match node.writers {
                    0 => Fill::Read,
                    _ => Fill::Write,
                }
            }
            _ => Fill::No,
        }
    }

    /// A file was opened under the name `fh`. True if this is its first open
    /// for writing, and it may have pages that were read under less (C6).
    pub fn open(&mut self, fh: u64, nodeid: u64, access: Access) -> bool {
        self.opens.insert(fh, (nodeid, access));
        let node = self.nodes.entry(nodeid).or_default();
        node.readers += u32::from(access.reads);
        node.writers += u32::from(access.writes);
        access.writes && node.writers == 1 && node.present
    }

    pub fn close(&mut self, fh: u64) {
        let Some((nodeid, access)) = self.opens.remove(&fh) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&nodeid) {
            node.readers = node.readers.saturating_sub(access.reads.into());
            node.writers = node.writers.saturating_sub(access.writes.into());
        }
    }

    /// May anybody have it mapped? The kernel closes what it maps only when
    /// nobody maps it any more.
    #[must_use]
    pub fn may_map(&self, nodeid: u64) -> bool {
        self.nodes.get(&nodeid).is_some_and(|node| node.readers > 0)
    }

    /// All nodes of which that is so.
    #[must_use]
    pub fn mapped(&self) -> Vec<u64> {
        let mapped = self.nodes.iter().filter(|(_, node)| node.readers > 0);
        super::sorted(mapped.map(|(nodeid, _)| *nodeid))
    }

    #[must_use]
    pub fn has_writers(&self, nodeid: u64) -> bool {
        self.nodes.get(&nodeid).is_some_and(|node| node.writers > 0)
    }

    /// May there be pages?
    #[must_use]
    pub fn has(&self, nodeid: u64) -> bool {
        self.nodes.get(&nodeid).is_some_and(|node| node.present)
    }

    /// All nodes that may have some.
    #[must_use]
    pub fn all(&self) -> Vec<u64> {
        let present = self.nodes.iter().filter(|(_, node)| node.present);
        super::sorted(present.map(|(nodeid, _)| *nodeid))
    }

    /// How many fills of the node began, ever.
    #[must_use]
    pub fn begun(&self, nodeid: u64) -> u64 {
        self.nodes.get(&nodeid).map_or(0, |node| node.begun)
    }

    /// Is a fill in `range` under way?
    #[must_use]
    pub fn is_filling(&self, nodeid: u64, range: Extent) -> bool {
        self.filling(nodeid, range).next().is_some()
    }

    /// Are fills in `range` under way that are not among `known`?
    #[must_use]
    pub fn has_others(&self, nodeid: u64, range: Extent, known: &[u64]) -> bool {
        self.filling(nodeid, range)
            .any(|fill| !known.contains(&fill.unique))
    }

    /// Are fills under way that began before the taking `at`?
    #[must_use]
    pub fn has_earlier(&self, nodeid: u64, at: u64) -> bool {
        self.filling(nodeid, Extent::ALL)
            .any(|fill| fill.since < at)
    }

    fn filling(&self, nodeid: u64, range: Extent) -> impl Iterator<Item = &Filling> {
        let node = self.nodes.get(&nodeid);
        let fills = node.map_or(&[][..], |node| &node.fills);
        fills.iter().filter(move |fill| fill.range.overlaps(range))
    }

    /// The parts of `range`, in whole pages, that no fill has locked. Of those
    /// that have, the ones older than the taking `at` are marked as left out.
    pub fn around(&mut self, nodeid: u64, range: Extent, at: u64) -> Around {
        let range = whole_pages(range);
        let Some(node) = self.nodes.get_mut(&nodeid) else {
            return Around::default();
        };
        let mut around = Around {
            begun: node.begun,
            ..Around::default()
        };
        let mut holes = Vec::new();
        for fill in &mut node.fills {
            if fill.range.overlaps(range) {
                fill.is_left_out |= fill.since < at;
                holes.push(fill.range);
                around.fills.push(fill.unique);
            }
        }
        holes.sort_unstable();
        let mut start = Some(range.start);
        for hole in holes {
            let Some(from) = start else { break };
            if hole.start > from {
                around.pieces.push(Extent {
                    start: from,
                    end: hole.start - 1,
                });
            }
            start = hole.end.checked_add(1).map(|next| next.max(from));
        }
        if let Some(start) = start.filter(|start| *start <= range.end) {
            around.pieces.push(Extent {
                start,
                end: range.end,
            });
        }
        around
    }

    /// All pages were dropped, `around` fills. There are none if there were no
    /// fills, and none began since.
    pub fn dropped_all(&mut self, nodeid: u64, around: &Around) {
        if let Some(node) = self.nodes.get_mut(&nodeid)
            && around.fills.is_empty()
            && node.begun == around.begun
            && node.fills.is_empty()
        {
            node.present = false;
        }
    }

    /// Pages may have been left that should not have been.
    pub fn taint(&mut self, nodeid: u64) {
        self.nodes.entry(nodeid).or_default().tainted = true;
    }

    /// May a new open keep the pages that are there? If not, it drops them.
    pub fn keep(&mut self, nodeid: u64) -> bool {
        match self.nodes.get_mut(&nodeid) {
            Some(node) => !std::mem::take(&mut node.tainted),
            None => true,
        }
    }

    pub fn condemn(&mut self, nodeid: u64) {
        self.nodes.entry(nodeid).or_default().condemned += 1;
    }

    pub fn absolve(&mut self, nodeid: u64) {
        if let Some(node) = self.nodes.get_mut(&nodeid) {
            node.condemned = node.condemned.saturating_sub(1);
        }
    }

    /// Are the node's pages lost, and not to be written (C8)?
    #[must_use]
    pub fn is_condemned(&self, nodeid: u64) -> bool {
        self.nodes
            .get(&nodeid)
            .is_some_and(|node| node.condemned > 0)
    }

    pub fn forget(&mut self, nodeid: u64) {
        self.nodes.remove(&nodeid);
    }
}

/// `range`, grown to whole pages.
fn whole_pages(range: Extent) -> Extent {
    let page = BLOCK as u64;
    Extent {
        start: range.start - range.start % page,
        end: range.end | (page - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: u64, end: u64) -> Extent {
        Extent { start, end }
    }

    #[test]
    fn fills_are_left_out_and_marked() {
        let mut pages = Pages::default();
        pages.begin(1, 10, 4096, 4096, 0);
        pages.begin(1, 11, 16384, 8192, 3);
        let around = pages.around(1, part(5, 30_000), 2);
        assert_eq!(
            around.pieces,
            [part(0, 4095), part(8192, 16383), part(24576, 32767)]
        );
        assert_eq!(around.fills, [10, 11]);
        assert!(pages.end(1, 10).expect("a fill").is_left_out);
        assert!(!pages.end(1, 11).expect("a fill").is_left_out, "later");
        pages.dropped_all(1, &around);
        assert!(pages.has(1), "what they brought was not dropped");
        let all = pages.around(1, Extent::ALL, 9);
        assert_eq!(all.pieces, [Extent::ALL]);
        pages.begin(1, 12, 0, 4096, 0);
        pages.end(1, 12);
        pages.dropped_all(1, &all);
        assert!(pages.has(1), "another began meanwhile");
        let all = pages.around(1, Extent::ALL, 9);
        pages.dropped_all(1, &all);
        assert!(!pages.has(1));
        pages.begin(1, 13, 0, u32::MAX, 0);
        assert_eq!(pages.around(1, part(0, 4095), 1).pieces, []);
    }

    #[test]
    fn overlapping_fills_leave_no_piece_between() {
        let mut pages = Pages::default();
        pages.begin(1, 1, 0, 16384, 0);
        pages.begin(1, 2, 4096, 4096, 0);
        let around = pages.around(1, Extent::ALL, 1);
        assert_eq!(around.pieces, [Extent::from(16384)]);
    }

    #[test]
    fn writers_change_what_fills_are_for() {
        let mut pages = Pages::default();
        pages.begin(1, 10, 0, 4096, 0);
        assert_eq!(pages.purpose(1, 10), Fill::Read);
        assert_eq!(pages.purpose(1, 11), Fill::No);
        let (reads, writes) = (Access::of(0), Access::of(libc::O_WRONLY as u32));
        assert!(pages.open(5, 1, writes), "pages were read under less");
        assert!(!pages.may_map(1), "nobody can read it");
        assert!(!pages.open(6, 1, writes) && !pages.open(7, 1, reads));
        assert!(pages.may_map(1) && pages.mapped() == [1]);
        assert_eq!(pages.purpose(1, 10), Fill::Write);
        pages.close(5);
        pages.close(7);
        assert!(!pages.may_map(1));
        assert!(pages.has_writers(1));
        pages.close(6);
        assert!(!pages.has_writers(1));
    }
}
