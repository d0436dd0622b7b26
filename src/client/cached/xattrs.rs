//! The extended attributes that a client remembers, pure: values, names that
//! are not there, and lists of names. As in `known`, whether they may be
//! believed is `held`'s to say.

use crate::base::{Bits, Fid};
use crate::namespace::acl;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of names and values of all files.
const BYTES_MAX: usize = 1 << 20;

/// Longer values are asked for each time.
const VALUE_MAX: usize = 4096;

/// What a name costs beside its bytes, about.
const OVERHEAD: usize = 64;

#[derive(Debug, Default)]
struct File {
    /// `None`: there is none of this name.
    values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// As user 0 sees them, and as others do.
    lists: [Option<Vec<u8>>; 2],
}

#[derive(Debug, Default)]
pub struct Xattrs {
    files: BTreeMap<Fid, File>,
    /// In the order in which they came.
    queue: VecDeque<Fid>,
    bytes: usize,
}

/// The bits under which an attribute of this name is known.
#[must_use]
pub fn covers(name: &[u8]) -> Bits {
    match is_acl(name) {
        true => Bits::PERM,
        false => Bits::XATTR,
    }
}

/// The bits under which the list of names is known.
pub const LISTED: Bits = Bits::PERM.with(Bits::XATTR);

/// Does this attribute hold an ACL?
#[must_use]
pub fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

impl Xattrs {
    /// An answer told the value of `name`, or that there is none. What is for
    /// user 0's eyes only is not remembered.
    pub fn on_value(&mut self, fid: Fid, name: &[u8], value: Option<&[u8]>) {
        let is_long = value.is_some_and(|value| value.len() > VALUE_MAX);
        if is_long || name.starts_with(b"trusted.") {
            return;
        }
        let value = value.map(<[u8]>::to_vec);
        let bytes = value_bytes(name, &value);
        let old = self.file(fid).values.insert(name.to_vec(), value);
        self.bytes += bytes;
        self.bytes -= old.map_or(0, |old| value_bytes(name, &old));
        self.shrink();
    }

    /// An answer listed the names.
    pub fn on_list(&mut self, fid: Fid, is_root: bool, list: &[u8]) {
        if list.len() > VALUE_MAX {
            return;
        }
        let slot = &mut self.file(fid).lists[usize::from(is_root)];
        let old = slot.replace(list.to_vec());
        self.bytes += list_bytes(list);
        self.bytes -= old.map_or(0, |old| list_bytes(&old));
        self.shrink();
    }

    /// What is known of `name`.
    #[must_use]
    pub fn value(&self, fid: Fid, name: &[u8]) -> Option<Option<&[u8]>> {
        let value = self.files.get(&fid)?.values.get(name)?;
        Some(value.as_deref())
    }

    #[must_use]
    pub fn list(&self, fid: Fid, is_root: bool) -> Option<&[u8]> {
        self.files.get(&fid)?.lists[usize::from(is_root)].as_deref()
    }

    /// What rested on these bits is forgotten.
    pub fn forget(&mut self, fid: Fid, bits: Bits) {
        if bits.and(LISTED).is_empty() {
            return;
        }
        let Some(file) = self.files.get_mut(&fid) else {
            return;
        };
        self.bytes -= file.bytes();
        file.lists = [None, None];
        file.values.retain(|name, _| !bits.has(covers(name)));
        self.bytes += file.bytes();
        if file.values.is_empty() {
            self.files.remove(&fid);
        }
    }

    pub fn clear(&mut self) {
        *self = Xattrs::default();
    }

    fn file(&mut self, fid: Fid) -> &mut File {
        let queue = &mut self.queue;
        self.files.entry(fid).or_insert_with(|| {
            queue.push_back(fid);
            File::default()
        })
    }

    /// The oldest files go first.
    fn shrink(&mut self) {
        // Files that came again are in the queue twice.
        while self.bytes > BYTES_MAX || self.queue.len() > 2 * self.files.len() + 64 {
            let Some(fid) = self.queue.pop_front() else {
                return;
            };
            if let Some(file) = self.files.remove(&fid) {
                self.bytes -= file.bytes();
            }
        }
    }
}

impl File {
    fn bytes(&self) -> usize {
        let values = self.values.iter().map(|(name, v)| value_bytes(name, v));
        let lists = self.lists.iter().flatten().map(|list| list_bytes(list));
        values.chain(lists).sum()
    }
}

fn value_bytes(name: &[u8], value: &Option<Vec<u8>>) -> usize {
    OVERHEAD + name.len() + value.as_ref().map_or(0, Vec::len)
}

fn list_bytes(list: &[u8]) -> usize {
    OVERHEAD + list.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fid = Fid::new(1, 1);

    #[test]
    fn each_bit_takes_what_rests_on_it() {
        let mut xattrs = Xattrs::default();
        xattrs.on_value(A, b"user.a", Some(b"1"));
        xattrs.on_value(A, b"user.b", None);
        xattrs.on_value(A, acl::ACCESS, None);
        xattrs.on_value(A, b"trusted.t", Some(b"2"));
        xattrs.on_list(A, true, b"user.a\0");
        assert_eq!(xattrs.value(A, b"user.a"), Some(Some(&b"1"[..])));
        assert_eq!(xattrs.value(A, b"user.b"), Some(None));
        assert_eq!(xattrs.value(A, b"trusted.t"), None);
        assert_eq!(xattrs.list(A, true), Some(&b"user.a\0"[..]));
        assert_eq!(xattrs.list(A, false), None, "others see other names");
        xattrs.forget(A, Bits::UPDATE);
        assert!(xattrs.list(A, true).is_some());
        xattrs.forget(A, Bits::PERM);
        assert_eq!(
            (xattrs.list(A, true), xattrs.value(A, acl::ACCESS)),
            (None, None)
        );
        assert!(xattrs.value(A, b"user.a").is_some());
        xattrs.forget(A, Bits::XATTR);
        assert!(xattrs.files.is_empty());
        assert_eq!(xattrs.bytes, 0);
    }

    #[test]
    fn memory_is_bounded_and_counted() {
        let mut xattrs = Xattrs::default();
        for n in 0..2000 {
            let fid = Fid::new(1, n);
            xattrs.on_value(fid, b"user.a", Some(&[7; 1000]));
            xattrs.on_value(fid, b"user.a", Some(&[7; 2000]));
            xattrs.on_list(fid, false, b"user.a\0");
            assert!(xattrs.bytes <= BYTES_MAX);
        }
        let counted: usize = xattrs.files.values().map(File::bytes).sum();
        assert_eq!(xattrs.bytes, counted);
        assert!(xattrs.value(Fid::new(1, 1999), b"user.a").is_some());
        assert!(xattrs.value(Fid::new(1, 0), b"user.a").is_none());
        for _ in 0..1000 {
            xattrs.on_value(A, b"user.a", None);
            xattrs.forget(A, Bits::ALL);
        }
        assert!(xattrs.queue.len() <= 2 * xattrs.files.len() + 65);
    }
}
