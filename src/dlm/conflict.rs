//! When two locks of different holders keep each other out, and by which bits.

use crate::base::{Bits, Extent, Mode};

/// What a lock allows and keeps from others: all of it but whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub mode: Mode,
    pub bits: Bits,
    pub extent: Extent,
    pub group: u32,
}

impl Shape {
    /// The bits of this lock that keep out `other`, a lock on the same file by
    /// another holder; if none, both may be granted. There are such bits of
    /// the one if and only if there are of the other.
    ///
    /// A writer of data changes size and times: beside what its bits say it
    /// counts as CW on UPDATE, so two writers of different bytes go together,
    /// and neither goes with whoever relies on the attributes.
    #[must_use]
    pub fn in_way(&self, other: &Shape) -> Bits {
        // Whoever goes with a mode that writes goes with CW as well, but for a
        // group, which shares everything.
        if self.is_shared_with(other) {
            return Bits::NONE;
        }
        let both = self.bits.and(other.bits);
        let mut hit = both.without(Bits::DATA);
        if both.has(Bits::DATA) && self.extent.overlaps(other.extent) {
            hit = hit.with(Bits::DATA);
        }
        if self.changes_attrs_of(other) {
            hit = hit.with(Bits::DATA);
        }
        if other.changes_attrs_of(self) {
            hit = hit.with(Bits::UPDATE);
        }
        hit
    }

    #[must_use]
    pub fn conflicts(&self, other: &Shape) -> bool {
        !self.in_way(other).is_empty()
    }

    /// Do the modes go together, on the same bits and bytes?
    #[must_use]
    pub fn is_shared_with(&self, other: &Shape) -> bool {
        let are_groups = self.mode == Mode::Group && other.mode == Mode::Group;
        self.mode.is_compatible(other.mode) && (!are_groups || self.group == other.group)
    }

    /// Do both have DATA, in modes that do not go together?
    #[must_use]
    pub fn excludes_data_of(&self, other: &Shape) -> bool {
        self.bits.and(other.bits).has(Bits::DATA) && !self.is_shared_with(other)
    }

    /// Does holding this allow `mode`, of that group?
    #[must_use]
    pub fn allows(&self, mode: Mode, group: u32) -> bool {
        self.mode.covers(mode) && (mode != Mode::Group || self.group == group)
    }

    #[must_use]
    pub fn writes_data(&self) -> bool {
        self.mode.is_write() && self.bits.has(Bits::DATA)
    }

    #[must_use]
    pub fn with_bits(self, bits: Bits) -> Shape {
        Shape { bits, ..self }
    }

    fn changes_attrs_of(&self, other: &Shape) -> bool {
        self.writes_data() && other.bits.has(Bits::UPDATE) && !Mode::Cw.is_compatible(other.mode)
    }
}
