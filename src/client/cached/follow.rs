//! Files that are read one after another, pure: by their names, as a shell
//! expands them, or in the order of the listing, as `grep -r` finds them. Who
//! has followed an order for some files is likely to go on: the next small
//! files' bytes are asked for before they are opened.

use crate::base::{Fid, FidMap};
use std::collections::VecDeque;

/// Files in a row before the next are asked for, at first.
const HITS_MIN: u8 = 3;
/// And after many were asked for in vain.
const HITS_MAX: u8 = 96;

/// Files that are asked for ahead of the one that is read; more are when half of
/// them are left.
pub const AHEAD: usize = 16;

/// Files of an order that may be left out between two that are read:
/// directories, say, which a listing has as well.
const SKIPPED: usize = 4;

/// Directories that are remembered.
const DIRS_MAX: usize = 256;

/// An order in which files may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Name,
    Listing,
}

const ORDERS: [By; 2] = [By::Name, By::Listing];

#[derive(Debug, Default)]
pub struct Follow {
    dirs: FidMap<Run>,
}

#[derive(Debug)]
struct Run {
    orders: [Order; 2],
    /// Those asked for and not read yet.
    asked: VecDeque<Fid>,
    hits_min: u8,
}

/// What is next in an order, and how often that was right.
#[derive(Debug, Default)]
struct Order {
    next: VecDeque<Fid>,
    hits: u8,
}

impl Default for Run {
    fn default() -> Run {
        Run {
            orders: Default::default(),
            asked: VecDeque::new(),
            hits_min: HITS_MIN,
        }
    }
}

impl Follow {
    /// A file in `dir` is read from its start; `next` tells up to so many of
    /// those after it in an order. Returns those whose bytes are to be asked
    /// for now.
    pub fn on_read(
        &mut self,
        dir: Fid,
        fid: Fid,
        next: impl Fn(By, usize) -> Vec<Fid>,
    ) -> Vec<Fid> {
        if self.dirs.len() >= DIRS_MAX && !self.dirs.contains_key(&dir) {
            self.dirs.clear();
        }
        let run = self.dirs.entry(dir).or_default();
        let was_running = run.running().is_some();
        for order in &mut run.orders {
            order.on_read(fid);
        }
        if let Some(at) = run.asked.iter().position(|asked| *asked == fid) {
            // Those before it were left out.
            run.asked.drain(..=at);
        }
        let Some(by) = run.running() else {
            run.on_break(was_running);
            for by in ORDERS {
                run.orders[by as usize].next = next(by, SKIPPED + 1).into();
            }
            return Vec::new();
        };
        let order = &mut run.orders[by as usize];
        if order.next.len() < AHEAD {
            order.next = next(by, 2 * AHEAD).into();
        }
        if run.asked.len() > AHEAD / 2 {
            return Vec::new();
        }
        let is_new = |fid: &&Fid| !run.asked.contains(fid);
        let room = AHEAD - run.asked.len();
        let new = order.next.iter().take(AHEAD).filter(is_new);
        let wanted: Vec<Fid> = new.take(room).copied().collect();
        run.asked.extend(&wanted);
        wanted
    }
}

impl Order {
    fn on_read(&mut self, fid: Fid) {
        let near = self.next.iter().take(SKIPPED + 1);
        match near.into_iter().position(|next| *next == fid) {
            Some(at) => {
                self.hits = self.hits.saturating_add(1);
                self.next.drain(..=at);
            }
            None => {
                self.hits = 0;
                self.next.clear();
            }
        }
    }
}

impl Run {
    /// The order that is followed.
    fn running(&self) -> Option<By> {
        let hits = |by: &By| self.orders[*by as usize].hits;
        let best = ORDERS.into_iter().max_by_key(hits)?;
        (hits(&best) >= self.hits_min).then_some(best)
    }

    /// It is not followed any more, or not yet. What was asked for in vain makes
    /// the next start later.
    fn on_break(&mut self, was_running: bool) {
        if was_running {
            self.hits_min = match self.asked.len() > AHEAD / 4 {
                true => self.hits_min.saturating_mul(2).min(HITS_MAX),
                false => HITS_MIN,
            };
            self.asked.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: Fid = Fid::new(1, 1);

    fn file(n: u32) -> Fid {
        Fid::new(2, n)
    }

    /// After `n` of a directory of a thousand files come the next ones; the
    /// listing has them backwards.
    fn after(n: u32, by: By, count: usize) -> Vec<Fid> {
        match by {
            By::Name => (n + 1..=1000).take(count).map(file).collect(),
            By::Listing => (1..n).rev().take(count).map(file).collect(),
        }
    }

    /// Reads files in turn; all that were asked for, with the file at which.
    fn read(follow: &mut Follow, files: impl IntoIterator<Item = u32>) -> Vec<(u32, Fid)> {
        let mut all = Vec::new();
        for n in files {
            let wanted = follow.on_read(DIR, file(n), |by, count| after(n, by, count));
            all.extend(wanted.into_iter().map(|fid| (n, fid)));
        }
        all
    }

    #[test]
    fn either_order_is_followed_and_each_file_asked_for_once_in_time() {
        let orders: [Vec<u32>; 2] = [(1..=1000).collect(), (1..=1000).rev().collect()];
        for order in orders {
            let all = read(&mut Follow::default(), order.iter().copied());
            let mut fids: Vec<Fid> = all.iter().map(|(_, fid)| *fid).collect();
            let first = usize::from(HITS_MIN) + 1;
            let expected: Vec<Fid> = order[first..].iter().map(|n| file(*n)).collect();
            assert_eq!(fids, expected);
            fids.sort();
            fids.dedup();
            assert_eq!(fids.len(), all.len());
            for (at, fid) in all {
                let ahead = fid.oid.abs_diff(at) as usize;
                assert!((1..=AHEAD).contains(&ahead), "{fid} at {at}");
            }
        }
    }

    #[test]
    fn some_may_be_left_out() {
        let all = read(&mut Follow::default(), (1..=1000).step_by(3));
        assert!(!all.is_empty());
        assert!(read(&mut Follow::default(), (1..=1000).step_by(7)).is_empty());
    }

    /// What is asked for in vain grows with the logarithm of the tries.
    #[test]
    fn who_breaks_off_again_and_again_is_asked_ahead_for_less() {
        let mut follow = Follow::default();
        let mut wasted = Vec::new();
        for round in 0..100 {
            let start = 10 + 60 * (round % 16);
            let all = read(&mut follow, start..=start + u32::from(HITS_MIN));
            wasted.push(all.len());
        }
        assert!(wasted[0] > 0);
        assert!(wasted.iter().sum::<usize>() <= 8 * AHEAD, "{wasted:?}");
    }

    #[test]
    fn reading_one_file_again_and_again_asks_for_nothing() {
        assert!(read(&mut Follow::default(), [5; 100]).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut follow = Follow::default();
        for n in 0..10_000 {
            follow.on_read(Fid::new(3, n), file(1), |by, count| after(1, by, count));
            assert!(follow.dirs.len() <= DIRS_MAX);
        }
    }
}
