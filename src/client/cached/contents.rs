//! Small files that a client has the bytes of, pure: whole ones, as an answer
//! brought them, or as it wrote them ahead of the box. They rest on DATA of the
//! whole file, or on what lets it write so; `held` and `ahead` say whether that
//! is so.

use crate::base::{Buf, Fid, FidMap, Slice};
use std::collections::VecDeque;

/// Bytes of all files, each in whole pages.
const BYTES_MAX: usize = 8 << 20;

/// Longer files are read from the box.
pub const FILE_MAX: usize = 64 << 10;

const PAGE: usize = 4096;

#[derive(Debug)]
struct File {
    bytes: Slice,
    /// Read since reclaim last came by.
    used: bool,
}

#[derive(Debug, Default)]
pub struct Contents {
    files: FidMap<File>,
    /// In the order in which reclaim comes by.
    queue: VecDeque<Fid>,
    bytes: usize,
}

impl Contents {
    /// An answer brought all the bytes of `fid`.
    pub fn on_bytes(&mut self, fid: Fid, bytes: &Slice) {
        if bytes.is_empty() || bytes.len() > FILE_MAX {
            return;
        }
        self.forget(fid);
        self.bytes += cost(bytes);
        let file = File {
            // The frame that it came in is not held on to.
            bytes: Buf::copied(bytes).freeze(),
            used: false,
        };
        self.files.insert(fid, file);
        self.queue.push_back(fid);
        self.reclaim();
    }

    /// Up to `len` bytes at `offset`, short only at the end of the file, and the
    /// file's size.
    pub fn read(&mut self, fid: Fid, offset: u64, len: u32) -> Option<(Slice, u64)> {
        let file = self.files.get_mut(&fid)?;
        file.used = true;
        let size = file.bytes.len();
        let start = usize::try_from(offset).map_or(size, |at| at.min(size));
        let end = size.min(start.saturating_add(len as usize));
        Some((file.bytes.part(start..end), size as u64))
    }

    /// The client itself has written `bytes` at `offset` of a file that had
    /// `size` bytes before, without leaving a hole. `before` are those that were
    /// known, if all were.
    pub fn on_written(
        &mut self,
        fid: Fid,
        (before, size): (Option<&Slice>, u64),
        (offset, bytes): (u64, &Slice),
    ) {
        let end = offset.saturating_add(bytes.len() as u64).max(size);
        if end > FILE_MAX as u64 {
            return;
        }
        if offset == 0 && bytes.len() as u64 == end {
            return self.on_bytes(fid, bytes);
        }
        let before = match before {
            Some(before) if before.len() as u64 == size => &before[..],
            _ if size == 0 => &[],
            _ => return,
        };
        let mut all = vec![0; end as usize];
        all[..before.len()].copy_from_slice(before);
        all[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        self.on_bytes(fid, &Slice::from(all));
    }

    /// All the bytes of `fid`, if they are known.
    #[must_use]
    pub fn whole(&self, fid: Fid) -> Option<Slice> {
        self.files.get(&fid).map(|file| file.bytes.clone())
    }

    #[must_use]
    pub fn has(&self, fid: Fid) -> bool {
        self.files.contains_key(&fid)
    }

    /// The file has changed, or may have.
    pub fn forget(&mut self, fid: Fid) {
        if let Some(file) = self.files.remove(&fid) {
            self.bytes -= cost(&file.bytes);
        }
    }

    pub fn clear(&mut self) {
        *self = Contents::default();
    }

    /// What was read gets another turn, once.
    fn reclaim(&mut self) {
        // Those that came again are in the queue twice.
        while self.bytes > BYTES_MAX || self.queue.len() > 2 * self.files.len() + 64 {
            let Some(fid) = self.queue.pop_front() else {
                return;
            };
            let file = self.files.get_mut(&fid);
            match file.is_some_and(|file| std::mem::take(&mut file.used)) {
                true => self.queue.push_back(fid),
                false => self.forget(fid),
            }
        }
    }
}

fn cost(bytes: &Slice) -> usize {
    bytes.len().next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fid(n: u32) -> Fid {
        Fid::new(1, n)
    }

    fn bytes(len: usize) -> Slice {
        let all: Vec<u8> = (0..len).map(|n| n as u8).collect();
        Slice::from(all)
    }

    #[test]
    fn what_is_written_is_known() {
        let mut contents = Contents::default();
        let mut model: Vec<u8> = Vec::new();
        for (offset, len) in [(0, 100), (100, 50), (20, 10), (140, 30), (0, 170), (170, 0)] {
            let (before, size) = (contents.whole(fid(1)), model.len() as u64);
            let written = bytes(len);
            contents.on_written(fid(1), (before.as_ref(), size), (offset, &written));
            let at = offset as usize;
            model.resize(model.len().max(at + len), 0);
            model[at..at + len].copy_from_slice(&written);
            let (all, size) = contents.read(fid(1), 0, u32::MAX).expect("known");
            assert_eq!((&all[..], size), (&model[..], model.len() as u64));
        }
        contents.on_written(fid(2), (None, 100), (100, &bytes(10)));
        assert!(!contents.has(fid(2)), "what was there is not known");
        contents.forget(fid(1));
        contents.on_written(fid(1), (None, FILE_MAX as u64), (0, &bytes(10)));
        contents.on_written(fid(1), (None, 0), (0, &bytes(FILE_MAX + 1)));
        assert!(!contents.has(fid(1)));
    }

    #[test]
    fn reads_end_with_the_file() {
        let mut contents = Contents::default();
        contents.on_bytes(fid(1), &bytes(100));
        let mut read = |offset, len| {
            let (bytes, size) = contents.read(fid(1), offset, len).expect("known");
            assert_eq!(size, 100);
            bytes.to_vec()
        };
        assert_eq!(read(0, 4096), bytes(100).to_vec());
        assert_eq!(read(90, 4), [90, 91, 92, 93]);
        assert_eq!(read(90, u32::MAX), bytes(100)[90..]);
        assert!(read(100, 1).is_empty() && read(u64::MAX, 1).is_empty());
        contents.forget(fid(1));
        assert!(contents.read(fid(1), 0, 1).is_none());
        assert_eq!(contents.bytes, 0);
    }

    #[test]
    fn a_file_that_comes_again_is_as_it_came_last() {
        let mut contents = Contents::default();
        contents.on_bytes(fid(1), &bytes(100));
        contents.on_bytes(fid(1), &bytes(7));
        assert_eq!(contents.read(fid(1), 0, 100).map(|r| r.1), Some(7));
        assert_eq!(contents.bytes, PAGE);
        contents.on_bytes(fid(2), &bytes(FILE_MAX + 1));
        assert!(!contents.has(fid(2)));
    }

    #[test]
    fn memory_is_bounded_and_what_is_read_stays_longest() {
        let mut contents = Contents::default();
        contents.on_bytes(fid(0), &bytes(10));
        for n in 1..10_000 {
            assert!(contents.read(fid(0), 0, 1).is_some(), "before {n}");
            contents.on_bytes(fid(n), &bytes(PAGE + 1));
            assert!(contents.bytes <= BYTES_MAX);
            assert!(contents.queue.len() <= 2 * contents.files.len() + 64);
        }
        assert!(!contents.has(fid(1)) && contents.has(fid(9999)));
        for _ in 0..10_000 {
            contents.on_bytes(fid(1), &bytes(1));
        }
        assert!(contents.queue.len() <= 2 * contents.files.len() + 64);
    }
}
