//! Listings of directories that a client remembers, pure: whole ones, in the
//! box's order, without attributes. They rest on UPDATE of the directory from
//! the first part to the last; `held` says whether that is so.

use crate::base::{Attr, Fid, FileKind, Name};
use crate::wire::op::{DirEntry, Listing, Readdir};
use std::collections::{BTreeMap, VecDeque};

/// Entries of all directories, some 100 bytes each.
const ENTRIES_MAX: usize = 1 << 15;

/// Bytes that an entry takes in an answer beside its name, and its attributes.
const ENTRY_BYTES: usize = 45;
const ATTR_BYTES: usize = 105;

/// Entries that are looked through for one.
const NEAR: usize = 32;

#[derive(Debug)]
struct Entry {
    name: Name,
    fid: Fid,
    kind: FileKind,
    ino: u64,
    cookie: u64,
}

#[derive(Debug)]
struct Dir {
    /// No two listings have the same.
    number: u64,
    entries: Vec<Entry>,
    parent: Fid,
    parent_ino: u64,
    /// It has been listed to its end.
    is_whole: bool,
    /// The entry that was asked about last.
    at: usize,
}

#[derive(Debug, Default)]
pub struct Listings {
    dirs: BTreeMap<Fid, Dir>,
    /// In the order in which they began.
    queue: VecDeque<Fid>,
    entries: usize,
    last: u64,
}

/// What is remembered of one listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Another number, and it is another listing.
    pub number: u64,
    pub is_whole: bool,
}

impl Listings {
    /// A part of a listing has come. The first begins anew; one that does not
    /// go on where the last ended is of no use.
    pub fn on_part(&mut self, asked: &Readdir, part: &Listing) {
        if asked.cookie == 0 {
            self.forget(asked.fid);
            self.last += 1;
            let dir = Dir {
                number: self.last,
                entries: Vec::new(),
                parent: part.parent,
                parent_ino: part.parent_ino,
                is_whole: false,
                at: 0,
            };
            self.dirs.insert(asked.fid, dir);
            self.queue.push_back(asked.fid);
        }
        let Some(dir) = self.dirs.get_mut(&asked.fid) else {
            return;
        };
        let at = dir.entries.last().map_or(0, |entry| entry.cookie);
        if dir.is_whole || at != asked.cookie {
            return;
        }
        dir.entries.extend(part.entries.iter().map(|entry| Entry {
            name: entry.name.clone(),
            fid: entry.fid,
            kind: entry.kind,
            ino: entry.ino,
            cookie: entry.cookie,
        }));
        dir.is_whole = part.end;
        self.entries += part.entries.len();
        self.shrink();
    }

    /// What is remembered of the listing of `dir`, in parts or whole.
    #[must_use]
    pub fn remembered(&self, dir: Fid) -> Option<Remembered> {
        self.dirs.get(&dir).map(|dir| Remembered {
            number: dir.number,
            is_whole: dir.is_whole,
        })
    }

    /// The answer to `asked`; `None` if the directory is not known as a whole,
    /// or attributes are wanted that `attr` does not have.
    #[must_use]
    pub fn answer(
        &self,
        asked: &Readdir,
        mut attr: impl FnMut(&Name, Fid) -> Option<Attr>,
    ) -> Option<Listing> {
        let dir = self.dirs.get(&asked.fid).filter(|dir| dir.is_whole)?;
        let from = dir.entries.partition_point(|e| e.cookie <= asked.cookie);
        let mut entries = Vec::new();
        let mut room = asked.bytes as usize;
        for entry in &dir.entries[from..] {
            let attr = match asked.attrs {
                true => Some(attr(&entry.name, entry.fid)?),
                false => None,
            };
            let mut bytes = ENTRY_BYTES + entry.name.as_bytes().len();
            bytes += if asked.attrs { ATTR_BYTES } else { 0 };
            // One is always listed.
            if bytes > room && !entries.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            entries.push(DirEntry {
                name: entry.name.clone(),
                fid: entry.fid,
                kind: entry.kind,
                ino: entry.ino,
                cookie: entry.cookie,
                attr,
            });
        }
        Some(Listing {
            end: from + entries.len() == dir.entries.len(),
            entries,
            parent: dir.parent,
            parent_ino: dir.parent_ino,
        })
    }

    /// What is listed in `dir` after `fid`, up to `count`, as far as the listing
    /// has come. It is looked for near
    /// the one that was asked about last, and at the start: whoever follows the
    /// listing is there.
    pub fn after(&mut self, dir: Fid, fid: Fid, count: usize) -> Vec<Fid> {
        let Some(dir) = self.dirs.get_mut(&dir) else {
            return Vec::new();
        };
        let near = |from: usize| {
            let some = dir.entries.iter().enumerate().skip(from).take(NEAR);
            some.filter(|(_, entry)| entry.fid == fid)
                .map(|(at, _)| at)
                .next()
        };
        let Some(at) = near(dir.at).or_else(|| near(0)) else {
            return Vec::new();
        };
        dir.at = at;
        let later = dir.entries[at + 1..].iter();
        later.take(count).map(|entry| entry.fid).collect()
    }

    /// The directory has changed, or may have.
    pub fn forget(&mut self, fid: Fid) {
        if let Some(dir) = self.dirs.remove(&fid) {
            self.entries -= dir.entries.len();
        }
    }

    pub fn clear(&mut self) {
        *self = Listings {
            last: self.last,
            ..Listings::default()
        };
    }

    /// The oldest go first; one that is too long by itself goes, too.
    fn shrink(&mut self) {
        // Those that began again are in the queue twice.
        while self.entries > ENTRIES_MAX || self.queue.len() > 2 * self.dirs.len() + 64 {
            let Some(fid) = self.queue.pop_front() else {
                return;
            };
            self.forget(fid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Time;

    const DIR: Fid = Fid::new(1, 1);

    fn asked(cookie: u64, bytes: u32, attrs: bool) -> Readdir {
        Readdir {
            fid: DIR,
            cookie,
            bytes,
            attrs,
        }
    }

    fn part(cookies: std::ops::Range<u64>, end: bool) -> Listing {
        let entry = |n: u64| DirEntry {
            name: Name::new(format!("n{n}").as_bytes()).expect("a name"),
            fid: Fid::new(2, u32::try_from(n).expect("small")),
            kind: FileKind::Regular,
            ino: n,
            cookie: 10 * n,
            attr: None,
        };
        Listing {
            entries: cookies.map(entry).collect(),
            end,
            parent: DIR,
            parent_ino: 1,
        }
    }

    fn attr(_: &Name, fid: Fid) -> Option<Attr> {
        let zero = Time::default();
        (fid.oid < 9).then_some(Attr {
            kind: FileKind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            ino: 0,
            size: 0,
            blocks: 0,
            atime: zero,
            mtime: zero,
            ctime: zero,
            btime: zero,
            version: 0,
        })
    }

    #[test]
    fn a_listing_is_known_when_its_end_is() {
        let mut listings = Listings::default();
        listings.on_part(&asked(0, 0, true), &part(1..4, false));
        assert!(listings.answer(&asked(0, 1 << 16, false), attr).is_none());
        listings.on_part(&asked(99, 0, true), &part(7..9, true));
        assert!(listings.answer(&asked(0, 1 << 16, false), attr).is_none());
        listings.on_part(&asked(30, 0, true), &part(4..6, true));
        let all = listings
            .answer(&asked(0, 1 << 16, true), attr)
            .expect("known");
        assert_eq!((all.entries.len(), all.end), (5, true));
        // In parts, from any place.
        let mut cookie = 0;
        let mut seen = 0;
        loop {
            let some = listings
                .answer(&asked(cookie, 120, false), attr)
                .expect("known");
            assert!(!some.entries.is_empty());
            seen += some.entries.len();
            cookie = some.entries.last().expect("some").cookie;
            if some.end {
                break;
            }
        }
        assert_eq!((seen, cookie), (5, 50));
        let rest = listings
            .answer(&asked(25, 1 << 16, false), attr)
            .expect("known");
        assert_eq!(rest.entries[0].cookie, 30);
        listings.forget(DIR);
        assert!(listings.answer(&asked(0, 1 << 16, false), attr).is_none());
        assert_eq!(listings.entries, 0);
    }

    #[test]
    fn attributes_that_are_not_known_are_asked_for() {
        let mut listings = Listings::default();
        listings.on_part(&asked(0, 0, true), &part(7..11, true));
        assert!(listings.answer(&asked(0, 1 << 16, true), attr).is_none());
        assert!(listings.answer(&asked(0, 1 << 16, false), attr).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut listings = Listings::default();
        for n in 0..80 {
            let asked = Readdir {
                fid: Fid::new(1, n),
                ..asked(0, 0, false)
            };
            listings.on_part(&asked, &part(1..1000, true));
            assert!(listings.entries <= ENTRIES_MAX);
        }
        let last = Readdir {
            fid: Fid::new(1, 79),
            ..asked(0, 1 << 20, false)
        };
        assert!(listings.answer(&last, attr).is_some());
        listings.on_part(
            &asked(0, 0, false),
            &part(1..1 + 2 * ENTRIES_MAX as u64, true),
        );
        assert!(listings.dirs.is_empty());
    }
}
