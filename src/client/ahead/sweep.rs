//! Removing many files of a directory that the client has to itself, pure: when
//! to ask for the next of them, with their attributes and to oneself, so that
//! their removal is decided here. They come in the order of the listing, which is
//! the order of who removes a tree.

use crate::base::{Fid, Mono};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes of a listing that are asked for at first, some 40 files, and at most.
const FIRST: u32 = 8 << 10;
const MOST: u32 = 64 << 10;
/// Directories remembered.
const DIRS_MAX: usize = 1024;
/// Who has removed files in one directory so lately goes on in the next.
const SOON: Duration = Duration::from_secs(2);

/// A part of a listing to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub cookie: u64,
    pub bytes: u32,
}

#[derive(Debug, Default)]
struct Sweep {
    /// Where the next part begins, and how long it is.
    cookie: u64,
    bytes: u32,
    /// Files that came, that were removed here, and that the box removed.
    came: u32,
    removed: u32,
    missed: u32,
    is_asking: bool,
    /// There are no more, or they are removed in another order.
    is_over: bool,
}

#[derive(Debug, Default)]
pub struct Sweeps {
    dirs: BTreeMap<Fid, Sweep>,
    last: Option<Mono>,
}

impl Sweeps {
    /// Has somebody removed files in other directories just now?
    #[must_use]
    pub fn is_on(&self, now: Mono) -> bool {
        self.last.is_some_and(|last| now - last <= SOON)
    }

    /// A name in `dir` is removed: was that decided here? Returns what to ask for.
    pub fn on_removal(&mut self, dir: Fid, is_here: bool, now: Mono) -> Option<Part> {
        if is_here {
            self.last = Some(now);
        }
        if !self.dirs.contains_key(&dir) {
            // All that is removed here was born here: there is nothing to ask for.
            if is_here {
                return None;
            }
            if self.dirs.len() >= DIRS_MAX {
                self.dirs.clear();
            }
        }
        let sweep = self.dirs.entry(dir).or_default();
        match is_here {
            true => sweep.removed += 1,
            false => sweep.missed += 1,
        }
        // The first is missed always, and some while the first part comes.
        sweep.is_over |= sweep.missed > 8 + sweep.removed;
        let left = sweep.came.saturating_sub(sweep.removed);
        let is_enough = left > sweep.came / 2;
        if sweep.is_asking || sweep.is_over || is_enough {
            return None;
        }
        sweep.is_asking = true;
        sweep.bytes = (sweep.bytes * 2).clamp(FIRST, MOST);
        (sweep.came, sweep.removed) = (left, 0);
        Some(Part {
            cookie: sweep.cookie,
            bytes: sweep.bytes,
        })
    }

    /// A part is here; `next`: where the one after it begins, if there is one.
    pub fn on_part(&mut self, dir: Fid, came: u32, next: Option<u64>) {
        let Some(sweep) = self.dirs.get_mut(&dir) else {
            return;
        };
        sweep.is_asking = false;
        sweep.came += came;
        match next {
            Some(cookie) => sweep.cookie = cookie,
            None => sweep.is_over = true,
        }
    }

    /// The client has the directory to itself no more.
    pub fn on_lost(&mut self, dir: Fid) {
        self.dirs.remove(&dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Fid = Fid::new(1, 1);
    const NOW: Mono = Mono(5);

    #[test]
    fn the_next_files_are_asked_for_before_the_last_is_removed() {
        let mut sweeps = Sweeps::default();
        assert!(!sweeps.is_on(NOW));
        let removal = |sweeps: &mut Sweeps, here| sweeps.on_removal(DIR, here, NOW);
        let born = Fid::new(1, 9);
        assert_eq!(sweeps.on_removal(born, true, NOW), None);
        let mut sweeps = Sweeps::default();
        let part = |cookie, bytes| Some(Part { cookie, bytes });
        assert_eq!(removal(&mut sweeps, false), part(0, FIRST));
        assert_eq!(removal(&mut sweeps, false), None, "it is asked for");
        sweeps.on_part(DIR, 4, Some(77));
        assert_eq!(removal(&mut sweeps, true), None);
        assert_eq!(removal(&mut sweeps, true), part(77, 2 * FIRST));
        sweeps.on_part(DIR, 2, None);
        for _ in 0..4 {
            assert_eq!(removal(&mut sweeps, true), None, "there are no more");
        }
        assert!(sweeps.is_on(NOW));
        assert!(!sweeps.is_on(NOW + SOON + SOON));
    }

    #[test]
    fn who_removes_in_another_order_is_left_alone() {
        let mut sweeps = Sweeps::default();
        assert!(sweeps.on_removal(DIR, false, NOW).is_some());
        sweeps.on_part(DIR, 0, Some(77));
        let asked = (0..40).filter(|_| {
            let part = sweeps.on_removal(DIR, false, NOW);
            if part.is_some() {
                sweeps.on_part(DIR, 0, Some(78));
            }
            part.is_some()
        });
        assert!(asked.count() <= 8);
        sweeps.on_lost(DIR);
        assert!(sweeps.on_removal(DIR, false, NOW).is_some(), "begins anew");
    }
}
