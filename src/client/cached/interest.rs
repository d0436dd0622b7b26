//! In which directories files are read that were looked up, pure: there the
//! answer to a look-up is asked to bring the file's bytes. Where files are only
//! looked at, bytes are sent in vain a few times, and then no more.

use crate::base::{Fid, FidMap};

/// Files whose bytes may come in vain after one was read.
const CREDIT: u8 = 8;

/// Directories that are remembered.
const DIRS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub struct Interest {
    credit: FidMap<u8>,
}

impl Interest {
    /// A file in `dir` is read from its start.
    pub fn on_read(&mut self, dir: Fid) {
        if self.credit.len() >= DIRS_MAX && !self.credit.contains_key(&dir) {
            self.credit.clear();
        }
        self.credit.insert(dir, CREDIT);
    }

    /// Bytes came with a look-up in `dir`.
    pub fn on_bytes(&mut self, dir: Fid) {
        if let Some(credit) = self.credit.get_mut(&dir) {
            *credit = credit.saturating_sub(1);
        }
    }

    /// Are bytes welcome with a look-up in `dir`?
    #[must_use]
    pub fn has(&self, dir: Fid) -> bool {
        self.credit.get(&dir).is_some_and(|credit| *credit > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_files_are_read() {
        let (dir, other) = (Fid::new(1, 1), Fid::new(1, 2));
        let mut interest = Interest::default();
        interest.on_bytes(dir);
        assert!(!interest.has(dir), "nothing was read yet");
        for _ in 0..100 {
            interest.on_read(dir);
            interest.on_bytes(dir);
            assert!(interest.has(dir) && !interest.has(other));
        }
        for _ in 0..CREDIT {
            interest.on_bytes(dir);
        }
        assert!(!interest.has(dir), "they are only looked at");
        interest.on_read(dir);
        assert!(interest.has(dir));
    }

    #[test]
    fn memory_is_bounded() {
        let mut interest = Interest::default();
        for n in 0..10_000 {
            interest.on_read(Fid::new(1, n));
            assert!(interest.has(Fid::new(1, n)) && interest.credit.len() <= DIRS_MAX);
        }
    }
}
