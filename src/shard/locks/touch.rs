//! What an operation touches of what clients may have cached.

use crate::base::{Attr, Bits, Extent, Fid, Mode};
use crate::dlm::Growth;
use crate::namespace::draft::Change;
use crate::namespace::{Inode, Need, View, acl};

/// One part of one file, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    pub fid: Fid,
    pub mode: Mode,
    pub bits: Bits,
    pub extent: Extent,
    /// Does it make the file longer?
    pub growth: Growth,
}

impl Touch {
    /// Does holding this allow that?
    #[must_use]
    pub fn covers(&self, other: &Touch) -> bool {
        self.fid == other.fid
            && self.mode.covers(other.mode)
            && self.bits.has(other.bits)
            && (!other.is_of_data() || self.extent.contains(other.extent))
    }

    /// Something of the inode changes.
    #[must_use]
    pub const fn change(fid: Fid, bits: Bits) -> Touch {
        Touch {
            fid,
            mode: Mode::Pw,
            bits,
            extent: Extent::ALL,
            growth: Growth::NONE,
        }
    }

    /// Something of the inode is shown, or judged by: that of a client which has
    /// it to itself may be out of date here.
    #[must_use]
    pub const fn see(fid: Fid, bits: Bits) -> Touch {
        Touch {
            fid,
            mode: Mode::Cr,
            bits,
            extent: Extent::ALL,
            growth: Growth::NONE,
        }
    }

    /// The same, by what makes a file of `size` bytes as long as `growth` says.
    #[must_use]
    pub const fn growing(self, size: u64, growth: Growth) -> Touch {
        match growth.size > size {
            true => Touch { growth, ..self },
            false => self,
        }
    }

    const fn is_of_data(&self) -> bool {
        self.bits.has(Bits::DATA)
    }

    #[must_use]
    pub const fn write(fid: Fid, extent: Extent) -> Touch {
        Touch {
            fid,
            mode: Mode::Pw,
            bits: Bits::DATA,
            extent,
            growth: Growth::NONE,
        }
    }

    #[must_use]
    pub const fn read(fid: Fid, extent: Extent) -> Touch {
        Touch {
            fid,
            mode: Mode::Pr,
            bits: Bits::DATA,
            extent,
            growth: Growth::NONE,
        }
    }
}

/// One for each file, in the one order that all keep (N6). Two of one file
/// would wait for somebody between them who waits for the first.
#[must_use]
pub fn merged(mut touches: Vec<Touch>) -> Vec<Touch> {
    touches.sort();
    let mut all: Vec<Touch> = Vec::with_capacity(touches.len());
    for touch in touches {
        match all.last_mut().filter(|last| last.fid == touch.fid) {
            None => all.push(touch),
            Some(last) => {
                if !last.mode.covers(touch.mode) {
                    // Of those of operations one always covers the other.
                    last.mode = touch.mode;
                }
                last.extent = match (last.is_of_data(), touch.is_of_data()) {
                    (true, true) => Extent {
                        start: last.extent.start.min(touch.extent.start),
                        end: last.extent.end.max(touch.extent.end),
                    },
                    (true, false) => last.extent,
                    (false, _) => touch.extent,
                };
                last.bits = last.bits.with(touch.bits);
                last.growth = last.growth.max(touch.growth);
            }
        }
    }
    all
}

/// What a change of the namespace touches, against the records before it. Only
/// files that `matters` are looked at.
pub fn of_change(
    view: &impl View,
    change: &Change,
    matters: impl Fn(Fid) -> bool,
) -> Result<Vec<Touch>, Need> {
    let mut touched: Vec<(Fid, Bits)> = Vec::new();
    let mut add = |fid: Fid, bits: Bits| {
        if bits.is_empty() || !matters(fid) {
            return;
        }
        match touched.iter_mut().find(|(f, _)| *f == fid) {
            Some((_, all)) => *all = all.with(bits),
            None => touched.push((fid, bits)),
        }
    };
    for (fid, inode) in &change.inodes {
        if let Some(old) = view.inode(*fid)? {
            add(*fid, of_edit(&old, inode));
        }
    }
    for (dir, cookie, slot) in &change.slots {
        add(*dir, Bits::UPDATE);
        if let Some(old) = view.slot(*dir, *cookie)?
            && !old.fid.is_none()
            && slot.as_ref().is_none_or(|new| new.fid != old.fid)
        {
            add(old.fid, Bits::LOOKUP);
        }
    }
    for (fid, name, _) in &change.xattrs {
        let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
        add(*fid, if is_acl { Bits::PERM } else { Bits::XATTR });
    }
    let mut touches: Vec<Touch> = touched
        .into_iter()
        .map(|(fid, bits)| Touch::change(fid, bits))
        .collect();
    if let Some((fid, size)) = change.truncated {
        let before = view.inode(fid)?.map_or(0, |inode| inode.attr.size);
        let growth = Growth { size, last: 0 };
        // Pages past the end show zeros, those before it may end within one.
        touches.push(Touch::write(fid, Extent::ALL).growing(before, growth));
    }
    touches.extend(
        change
            .gone
            .iter()
            .map(|fid| Touch::write(*fid, Extent::ALL)),
    );
    Ok(touches)
}

/// The bits under which two states of an inode differ.
#[must_use]
pub fn of_edit(old: &Inode, new: &Inode) -> Bits {
    let (a, b) = (&old.attr, &new.attr);
    let mut bits = Bits::NONE;
    if (a.mode, a.uid, a.gid) != (b.mode, b.uid, b.gid) {
        bits = bits.with(Bits::PERM);
    }
    let rest = |a: &Attr| (a.size, a.blocks, a.nlink, a.atime, a.mtime, a.ctime);
    if rest(a) != rest(b) {
        bits = bits.with(Bits::UPDATE);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N6: an operation asks once for each file, in the order of the files.
    #[test]
    fn touches_of_one_file_are_one_n6() {
        let (a, b) = (Fid::new(1, 1), Fid::new(1, 2));
        let range = |start, end| Extent { start, end };
        let all = merged(vec![
            Touch::write(b, range(10, 19)),
            Touch::change(b, Bits::LOOKUP),
            Touch::read(a, range(5, 6)),
            Touch::read(b, range(0, 3)),
        ]);
        let both = Touch {
            fid: b,
            mode: Mode::Pw,
            bits: Bits::LOOKUP.with(Bits::DATA),
            extent: range(0, 19),
            growth: Growth::NONE,
        };
        assert_eq!(all, [Touch::read(a, range(5, 6)), both]);
        assert!(both.covers(&Touch::change(b, Bits::LOOKUP)));
        assert!(!both.covers(&Touch::write(b, range(0, 20))));
    }
}
