//! What a lock is made of: mode, inode bits, byte range. The compatibility of
//! modes is Lustre's; it is data here, and checked pair by pair.

use crate::{code, record};

code! {
    /// How much a lock allows its holder, and what it keeps from others. The
    /// numbers are those on the wire.
    pub enum Mode {
        /// Exclusive: the object is the holder's alone, to change by itself.
        Ex = 1,
        /// Protected write: the holder writes, nobody else reads or writes.
        Pw = 2,
        /// Protected read: many read, nobody writes.
        Pr = 4,
        /// Concurrent write: many write parts that do not meet.
        Cw = 8,
        /// Concurrent read: others may write meanwhile.
        Cr = 16,
        /// Null: keeps nothing from anybody.
        Nl = 32,
        /// One group of holders shares all of it; the group is told by its number.
        Group = 64,
    }
}

impl Mode {
    pub const ALL: [Mode; 7] = [
        Mode::Ex,
        Mode::Pw,
        Mode::Pr,
        Mode::Cw,
        Mode::Cr,
        Mode::Nl,
        Mode::Group,
    ];

    /// The modes that two different holders may have at once beside this one,
    /// as a sum of their numbers. GROUP goes with GROUP of the same group only,
    /// which its callers compare.
    #[must_use]
    pub const fn beside(self) -> u8 {
        const NL: u8 = Mode::Nl as u8;
        const CR: u8 = Mode::Cr as u8;
        const CW: u8 = Mode::Cw as u8;
        const PR: u8 = Mode::Pr as u8;
        const PW: u8 = Mode::Pw as u8;
        const EX: u8 = Mode::Ex as u8;
        const GROUP: u8 = Mode::Group as u8;
        match self {
            Mode::Ex => NL,
            Mode::Pw => NL | CR,
            Mode::Pr => NL | CR | PR,
            Mode::Cw => NL | CR | CW,
            Mode::Cr => NL | CR | CW | PR | PW,
            Mode::Nl => NL | CR | CW | PR | PW | EX | GROUP,
            Mode::Group => NL | GROUP,
        }
    }

    /// May two holders have these at once?
    #[must_use]
    pub const fn is_compatible(self, other: Mode) -> bool {
        self.beside() & other as u8 != 0
    }

    /// Does holding this allow all that holding `other` allows?
    #[must_use]
    pub const fn covers(self, other: Mode) -> bool {
        match (self, other) {
            (_, Mode::Nl) => true,
            (Mode::Group, _) | (_, Mode::Group) => {
                matches!((self, other), (Mode::Group, Mode::Group))
            }
            // What keeps out at least as much allows at least as much.
            _ => self.beside() & !other.beside() == 0,
        }
    }

    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Mode::Ex | Mode::Pw | Mode::Cw | Mode::Group)
    }
}

record! {
    /// The parts of an inode that a lock covers, as a set.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Bits {
        pub set: u64,
    }
}

impl Bits {
    pub const NONE: Bits = Bits { set: 0 };
    /// The names that lead to the inode, each at the shard of the name (N8).
    pub const LOOKUP: Bits = Bits { set: 1 };
    /// Size, times, link count; of a directory also its entries, and which
    /// names are not there.
    pub const UPDATE: Bits = Bits { set: 2 };
    /// Opening and closing without telling the box.
    pub const OPEN: Bits = Bits { set: 4 };
    /// How a file's data lies over shards.
    pub const LAYOUT: Bits = Bits { set: 8 };
    /// Owner, mode and ACLs.
    pub const PERM: Bits = Bits { set: 0x10 };
    /// Extended attributes that are not ACLs.
    pub const XATTR: Bits = Bits { set: 0x20 };
    /// The bytes of a file, within the lock's extent.
    pub const DATA: Bits = Bits { set: 0x40 };
    /// Every bit that has a meaning.
    pub const ALL: Bits = Bits { set: 0x7f };
    /// What an answer with a file's attributes rests on.
    pub const ATTRS: Bits = Bits::UPDATE.with(Bits::PERM);

    #[must_use]
    pub const fn with(self, other: Bits) -> Bits {
        Bits {
            set: self.set | other.set,
        }
    }
    #[must_use]
    pub const fn without(self, other: Bits) -> Bits {
        Bits {
            set: self.set & !other.set,
        }
    }
    #[must_use]
    pub const fn and(self, other: Bits) -> Bits {
        Bits {
            set: self.set & other.set,
        }
    }
    #[must_use]
    pub const fn has(self, all: Bits) -> bool {
        self.set & all.set == all.set
    }
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.set == 0
    }
}

record! {
    /// Bytes `start ..= end` of a file, `start <= end`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Extent {
        pub start: u64,
        pub end: u64,
    }
}

impl Default for Extent {
    fn default() -> Extent {
        Extent::ALL
    }
}

impl Extent {
    /// The whole file, however long it grows.
    pub const ALL: Extent = Extent {
        start: 0,
        end: u64::MAX,
    };

    /// The `len` bytes from `start` on; `None` if there are none.
    #[must_use]
    pub fn of(start: u64, len: u64) -> Option<Extent> {
        let last = len.checked_sub(1)?;
        Some(Extent {
            start,
            end: start.saturating_add(last),
        })
    }
    /// From `start` to the end, wherever that is.
    #[must_use]
    pub const fn from(start: u64) -> Extent {
        Extent {
            start,
            end: u64::MAX,
        }
    }
    #[must_use]
    pub const fn overlaps(self, other: Extent) -> bool {
        self.start <= other.end && other.start <= self.end
    }
    #[must_use]
    pub const fn contains(self, other: Extent) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Cr, Cw, Ex, Group, Nl, Pr, Pw};

    /// The matrix, written out once more from its source (DESIGN §6).
    #[test]
    fn modes_agree_with_the_matrix_pair_by_pair() {
        let order = [Nl, Cr, Cw, Pr, Pw, Ex, Group];
        let rows = [
            [1, 1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 0, 0],
            [1, 1, 1, 0, 0, 0, 0],
            [1, 1, 0, 1, 0, 0, 0],
            [1, 1, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 1],
        ];
        for (a, row) in order.iter().zip(rows) {
            for (b, is_compatible) in order.iter().zip(row) {
                assert_eq!(a.is_compatible(*b), is_compatible == 1, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_stronger_mode_allows_what_a_weaker_one_does() {
        for mode in Mode::ALL {
            assert!(mode.covers(mode) && mode.covers(Nl));
        }
        for (strong, weak) in [(Ex, Pw), (Pw, Pr), (Pw, Cw), (Pr, Cr), (Cw, Cr), (Ex, Cr)] {
            assert!(
                strong.covers(weak) && !weak.covers(strong),
                "{strong:?} {weak:?}"
            );
        }
        assert!(!Pr.covers(Cw) && !Cw.covers(Pr) && !Group.covers(Pr) && !Ex.covers(Group));
    }

    #[test]
    fn extents_meet_where_they_share_a_byte() {
        let at = |start, end| Extent { start, end };
        assert!(at(0, 9).overlaps(at(9, 12)) && !at(0, 9).overlaps(at(10, 12)));
        assert!(Extent::ALL.contains(at(3, u64::MAX)) && !at(0, 9).contains(at(5, 10)));
        assert_eq!(Extent::of(5, 0), None);
        assert_eq!(Extent::of(u64::MAX, 9), Some(at(u64::MAX, u64::MAX)));
    }
}
