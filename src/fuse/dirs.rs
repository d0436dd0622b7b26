//! Open directories: what was fetched of a listing and not yet handed over, and
//! what is on its way.

use super::kept::names::Turn;
use crate::base::{Errno, FileKind, NumberMap};
use crate::client::Terms;
use crate::wire::op::DirEntry;
use crate::world::sync::Promise;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Offsets that the kernel gives back to go on with a listing. The first two
/// belong to "." and "..", which the box does not list; its own cookies, below
/// 2^63, follow.
pub mod offset {
    pub const AFTER_DOT: u64 = 1;
    pub const AFTER_DOTDOT: u64 = 2;

    /// The kernel's offset after the entry with the box's `cookie`.
    #[must_use]
    pub fn of_cookie(cookie: u64) -> u64 {
        cookie.saturating_add(AFTER_DOTDOT).min(i64::MAX as u64)
    }
    /// The box's cookie to go on from `offset`; 0 is its start.
    #[must_use]
    pub fn to_cookie(offset: u64) -> u64 {
        offset.saturating_sub(AFTER_DOTDOT)
    }
}

/// The open directories of a mount, by handle.
#[derive(Default, Debug)]
pub struct Dirs {
    last: u64,
    open: NumberMap<Batch>,
    handles: NumberMap<Handle>,
    /// The handles of each directory, by its node.
    of: NumberMap<Vec<u64>>,
    /// What is being fetched for those who read on, and from where.
    ahead: NumberMap<(u64, Ahead)>,
}

#[derive(Debug)]
struct Handle {
    nodeid: u64,
    /// The requests that it has had.
    turn: u64,
}

/// What a fetch brings: the batch, and the number of the parent directory.
pub type Fetched = Result<(Batch, u64), Errno>;

/// A batch that is on its way; whoever waits for it takes it.
#[derive(Clone, Default)]
pub struct Ahead(Promise<Rc<RefCell<Option<Fetched>>>>);

impl Ahead {
    pub fn set(&self, fetched: Fetched) {
        self.0.set(Rc::new(RefCell::new(Some(fetched))));
    }

    /// `None`: somebody has taken it.
    pub async fn get(&self) -> Option<Fetched> {
        self.0.get().await.take()
    }
}

impl std::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ahead")
    }
}

/// The rest of what the box sent: entries from the offset `at` on.
#[derive(Default, Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub at: u64,
    /// With what could be believed of each when it came.
    pub entries: VecDeque<(DirEntry, Terms)>,
    /// When it was asked for, in the order of takings.
    pub begun: u64,
    /// Nothing follows the entries.
    pub end: bool,
    /// The entries have attributes.
    pub attrs: bool,
}

impl Dirs {
    /// A new handle of the node; nothing is fetched for it yet.
    pub fn open(&mut self, nodeid: u64) -> u64 {
        self.last += 1;
        let handle = Handle { nodeid, turn: 0 };
        self.handles.insert(self.last, handle);
        self.of.entry(nodeid).or_default().push(self.last);
        self.last
    }

    /// Has the directory a handle?
    #[must_use]
    pub fn is_open(&self, nodeid: u64) -> bool {
        self.of.contains_key(&nodeid)
    }

    pub fn close(&mut self, fh: u64) {
        self.open.remove(&fh);
        self.ahead.remove(&fh);
        let Some(Handle { nodeid, .. }) = self.handles.remove(&fh) else {
            return;
        };
        if let Some(handles) = self.of.get_mut(&nodeid) {
            handles.retain(|other| *other != fh);
            if handles.is_empty() {
                self.of.remove(&nodeid);
            }
        }
    }

    /// A request of `fh` has come: the kernel has taken in the answers before.
    pub fn turn(&mut self, fh: u64) -> Turn {
        let turn = self.handles.get_mut(&fh).map_or(0, |handle| {
            handle.turn += 1;
            handle.turn
        });
        Turn { fh, turn }
    }

    /// A change of the directory has come, for which the kernel has it locked
    /// as it does to list it: all answers before are taken in. Returns its
    /// handles.
    pub fn locked(&mut self, nodeid: u64) -> Vec<u64> {
        let handles = self.of.get(&nodeid).cloned().unwrap_or_default();
        for fh in &handles {
            self.turn(*fh);
        }
        handles
    }

    /// Has the kernel taken in the answer of this turn?
    #[must_use]
    pub fn is_over(&self, turn: Turn) -> bool {
        let handle = self.handles.get(&turn.fh);
        handle.is_none_or(|handle| handle.turn != turn.turn)
    }

    /// Takes what is kept for going on at `at`. A start from the beginning, or
    /// from elsewhere, finds nothing: it is listed anew.
    pub fn take(&mut self, fh: u64, at: u64, attrs: bool) -> Option<Batch> {
        let goes_on = |b: &Batch| b.at == at && at != 0 && b.attrs >= attrs;
        let batch = self.open.remove(&fh).filter(goes_on);
        if batch.is_none() {
            // What was fetched before a new start is not to be shown after it.
            self.ahead.remove(&fh);
        }
        batch
    }

    /// Keeps the rest for the next request.
    pub fn keep(&mut self, fh: u64, batch: Batch) {
        self.open.insert(fh, batch);
    }

    /// Is nothing of `fh` being fetched from `at` on? If so, it is from now on.
    pub fn fetch_ahead(&mut self, fh: u64, at: u64) -> Option<Ahead> {
        let is_open = self.handles.contains_key(&fh);
        if !is_open || self.ahead.get(&fh).is_some_and(|(from, _)| *from == at) {
            return None;
        }
        let ahead = Ahead::default();
        self.ahead.insert(fh, (at, ahead.clone()));
        Some(ahead)
    }

    /// What is being fetched of `fh`, if it is from `at` on.
    pub fn take_ahead(&mut self, fh: u64, at: u64) -> Option<Ahead> {
        let (from, ahead) = self.ahead.remove(&fh)?;
        (from == at).then_some(ahead)
    }
}

/// The name, kind and offset of the two entries that are made here.
pub const DOTS: [(&[u8], FileKind, u64); 2] = [
    (b".", FileKind::Directory, offset::AFTER_DOT),
    (b"..", FileKind::Directory, offset::AFTER_DOTDOT),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_keep_the_order_of_cookies() {
        assert_eq!(offset::to_cookie(0), 0);
        assert_eq!(offset::to_cookie(offset::AFTER_DOTDOT), 0);
        let mut last = offset::AFTER_DOTDOT;
        for cookie in [1u64, 2, 3, 1 << 40, (1 << 63) - 300] {
            let at = offset::of_cookie(cookie);
            assert!(at > last && at <= i64::MAX as u64);
            assert_eq!(offset::to_cookie(at), cookie);
            last = at;
        }
        assert_eq!(offset::of_cookie(u64::MAX), i64::MAX as u64);
    }

    #[test]
    fn only_the_next_request_finds_the_rest() {
        let mut dirs = Dirs::default();
        let fh = dirs.open(1);
        let batch = Batch {
            at: 7,
            ..Batch::default()
        };
        dirs.keep(fh, batch.clone());
        assert_eq!(dirs.take(fh, 9, false), None, "somewhere else");
        assert_eq!(dirs.take(fh, 7, false), None, "and then it is gone");
        dirs.keep(fh, batch.clone());
        assert_eq!(dirs.take(fh, 7, true), None, "attributes were not fetched");
        dirs.keep(fh, batch.clone());
        assert_eq!(dirs.take(fh, 7, false), Some(batch));
    }

    #[test]
    fn what_is_fetched_ahead_is_for_who_goes_on() {
        let mut dirs = Dirs::default();
        let fh = dirs.open(1);
        let batch = |at| Batch {
            at,
            ..Batch::default()
        };
        dirs.keep(fh, batch(7));
        assert!(dirs.fetch_ahead(fh, 9).is_some());
        assert!(dirs.fetch_ahead(fh, 9).is_none(), "it is on its way");
        assert!(dirs.take(fh, 7, false).is_some());
        dirs.keep(fh, batch(8));
        assert!(dirs.take_ahead(fh, 9).is_some());
        assert!(dirs.take_ahead(fh, 9).is_none(), "one takes it");
        assert!(dirs.fetch_ahead(fh, 9).is_some());
        assert!(dirs.take(fh, 0, false).is_none());
        assert!(dirs.take_ahead(fh, 9).is_none(), "it begins anew");
        dirs.close(fh);
        assert!(dirs.fetch_ahead(fh, 9).is_none());
    }

    #[test]
    fn an_answer_is_taken_in_by_the_next_request_or_a_change_of_the_directory() {
        let mut dirs = Dirs::default();
        let (a, b) = (dirs.open(1), dirs.open(2));
        let (first, other) = (dirs.turn(a), dirs.turn(b));
        assert!(!dirs.is_over(first));
        let second = dirs.turn(a);
        assert!(dirs.is_over(first) && !dirs.is_over(second));
        assert_eq!(dirs.locked(1), [a]);
        assert!(dirs.is_over(second) && !dirs.is_over(other));
        dirs.close(b);
        assert!(dirs.is_over(other) && dirs.locked(2).is_empty());
    }
}
