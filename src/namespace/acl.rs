//! POSIX ACLs in the byte form of `system.posix_acl_*` (version 2): a `u32`
//! version, then entries of tag `u16`, permissions `u16`, id `u32`, all
//! little-endian.

use super::access::Caller;
use crate::base::Errno;

pub const ACCESS: &[u8] = b"system.posix_acl_access";
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
/// "No id", what entries without one carry.
const UNDEFINED: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u32,
    id: u32,
}

/// A valid ACL: exactly one owner, group and other entry, and a mask if there
/// are named entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// `None` for an ACL without entries, which stands for "remove it".
    /// EOPNOTSUPP for another version, EINVAL for what is no ACL.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>, Errno> {
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*head) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        let (entries, tail) = rest.as_chunks::<8>();
        if !tail.is_empty() {
            return Err(Errno::EINVAL);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let entries = entries.iter().map(Entry::parse).collect();
        let acl = Acl { entries };
        if acl.is_valid() {
            Ok(Some(acl))
        } else {
            Err(Errno::EINVAL)
        }
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = VERSION.to_le_bytes().to_vec();
        for e in &self.entries {
            out.extend_from_slice(&e.tag.to_le_bytes());
            out.extend_from_slice(&(e.perm as u16).to_le_bytes());
            out.extend_from_slice(&e.id.to_le_bytes());
        }
        out
    }

    /// Tags ascend; the three base entries are there once; named entries need a mask.
    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|e| e.tag == tag).count();
        let known = self.entries.iter().all(|e| {
            matches!(e.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER) && e.perm <= 7
        });
        let named = count(USER) + count(GROUP);
        known
            && self.entries.is_sorted_by_key(|e| e.tag)
            && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&t| count(t) == 1)
            && count(MASK) <= 1
            && (named == 0 || count(MASK) == 1)
    }

    fn perm(&self, tag: u16) -> Option<u32> {
        self.entries.iter().find(|e| e.tag == tag).map(|e| e.perm)
    }

    fn perm_mut(&mut self, tag: u16) -> Option<&mut u32> {
        let found = self.entries.iter_mut().find(|e| e.tag == tag);
        found.map(|e| &mut e.perm)
    }

    /// The entry that the group bits of the mode show.
    fn group_class(&self) -> u16 {
        if self.perm(MASK).is_some() {
            MASK
        } else {
            GROUP_OBJ
        }
    }

    /// Has the caller, who is not the owner, all of `want`?
    #[must_use]
    pub fn permits(&self, gid: u32, caller: &Caller, want: u32) -> bool {
        let mask = self.perm(MASK).unwrap_or(7);
        let named = |e: &&Entry| e.tag == USER && e.id == caller.uid;
        if let Some(e) = self.entries.iter().find(named) {
            return e.perm & mask & want == want;
        }
        let of_group = |e: &&Entry| match e.tag {
            GROUP_OBJ => caller.in_group(gid),
            GROUP => caller.in_group(e.id),
            _ => false,
        };
        let mut groups = self.entries.iter().filter(of_group).peekable();
        if groups.peek().is_some() {
            return groups.any(|e| e.perm & mask & want == want);
        }
        self.perm(OTHER).unwrap_or(0) & want == want
    }

    /// The permission bits that show the ACL, and whether it says no more than
    /// they do (then it need not be stored).
    #[must_use]
    pub fn mode(&self) -> (u32, bool) {
        let perm = |tag| self.perm(tag).unwrap_or(0);
        let mode = perm(USER_OBJ) << 6 | perm(self.group_class()) << 3 | perm(OTHER);
        (mode, self.entries.len() == 3)
    }

    /// Follows a chmod.
    pub fn set_mode(&mut self, mode: u32) {
        let group = self.group_class();
        for (tag, shift) in [(USER_OBJ, 6), (group, 3), (OTHER, 0)] {
            if let Some(perm) = self.perm_mut(tag) {
                *perm = mode >> shift & 7;
            }
        }
    }

    /// The access ACL of a new file under this default ACL, and its permission
    /// bits: what both the ACL and the creator's `mode` allow; no umask.
    #[must_use]
    pub fn inherited(&self, mode: u32) -> (Acl, u32) {
        let mut acl = self.clone();
        let mut out = mode & !0o777;
        for (tag, shift) in [(USER_OBJ, 6), (self.group_class(), 3), (OTHER, 0)] {
            if let Some(perm) = acl.perm_mut(tag) {
                *perm &= mode >> shift & 7;
                out |= *perm << shift;
            }
        }
        (acl, out)
    }
}

impl Entry {
    fn parse(b: &[u8; 8]) -> Entry {
        let tag = u16::from_le_bytes([b[0], b[1]]);
        let id = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
        Entry {
            tag,
            perm: u32::from(u16::from_le_bytes([b[2], b[3]])),
            id: if matches!(tag, USER | GROUP) {
                id
            } else {
                UNDEFINED
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acl(entries: &[(u16, u32, u32)]) -> Vec<u8> {
        let entry = |&(tag, perm, id)| Entry { tag, perm, id };
        let entries = entries.iter().map(entry).collect();
        Acl { entries }.to_bytes()
    }

    fn parsed(entries: &[(u16, u32, u32)]) -> Acl {
        Acl::parse(&acl(entries))
            .expect("valid")
            .expect("not empty")
    }

    fn caller(uid: u32, gid: u32) -> Caller {
        Caller {
            uid,
            gid,
            groups: vec![],
        }
    }

    const NAMED: &[(u16, u32, u32)] = &[
        (USER_OBJ, 7, UNDEFINED),
        (USER, 6, 100),
        (GROUP_OBJ, 5, UNDEFINED),
        (GROUP, 7, 200),
        (MASK, 5, UNDEFINED),
        (OTHER, 1, UNDEFINED),
    ];

    #[test]
    fn what_is_no_acl_is_refused() {
        assert_eq!(Acl::parse(&acl(&[])), Ok(None));
        assert_eq!(Acl::parse(b""), Err(Errno::EINVAL));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Errno::EOPNOTSUPP));
        let mut torn = acl(NAMED);
        torn.pop();
        assert_eq!(Acl::parse(&torn), Err(Errno::EINVAL));
        for (without, entry) in NAMED.iter().enumerate() {
            let mut entries = NAMED.to_vec();
            entries.remove(without);
            let named = matches!(entry.0, USER | GROUP);
            assert_eq!(Acl::parse(&acl(&entries)).is_ok(), named, "{without}");
        }
        let twice = [&NAMED[..1], NAMED].concat();
        assert_eq!(Acl::parse(&acl(&twice)), Err(Errno::EINVAL));
        let swapped: Vec<_> = NAMED.iter().rev().copied().collect();
        assert_eq!(Acl::parse(&acl(&swapped)), Err(Errno::EINVAL));
    }

    #[test]
    fn the_mask_bounds_all_but_owner_and_other() {
        let acl = parsed(NAMED);
        // (uid, gid, rights they have)
        for (who, rights) in [
            (caller(100, 1), 4),
            (caller(1, 50), 5),
            (caller(1, 200), 5),
            (caller(1, 1), 1),
            (caller(100, 200), 4),
        ] {
            for want in 0..8 {
                let is = acl.permits(50, &who, want);
                assert_eq!(is, rights & want == want, "{who:?} {want}");
            }
        }
    }

    #[test]
    fn mode_and_acl_follow_each_other() {
        let mut acl = parsed(NAMED);
        assert_eq!(acl.mode(), (0o751, false));
        acl.set_mode(0o620);
        assert_eq!(acl.mode(), (0o620, false));
        assert_eq!(acl.perm(GROUP_OBJ), Some(5), "chmod moves the mask alone");
        let plain = parsed(&[
            (USER_OBJ, 6, UNDEFINED),
            (GROUP_OBJ, 4, UNDEFINED),
            (OTHER, 0, UNDEFINED),
        ]);
        assert_eq!(plain.mode(), (0o640, true));
        let (child, mode) = parsed(NAMED).inherited(0o100_640);
        assert_eq!((mode, child.mode().0), (0o100_640 & !0o001 & !0o020, 0o640));
    }

    proptest! {
        #[test]
        fn bytes_never_panic_and_round_trip(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(Some(acl)) = Acl::parse(&bytes) {
                prop_assert_eq!(Acl::parse(&acl.to_bytes()), Ok(Some(acl)));
            }
        }
    }
}
