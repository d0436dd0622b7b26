//! The open files of a client, pure: which of them the box knows, and which are
//! known only here, because they were opened under a lock (bit OPEN).

use super::call::Cred;
use crate::base::{Fid, OpenId};
use crate::wire::op::OpenFile;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Files opened without the box at a time; further ones are opened there.
const HERE_MAX: usize = 1 << 16;

#[derive(Debug)]
struct Handle {
    fid: Fid,
    flags: u32,
    standing: Standing,
}

/// What the box knows of a handle.
#[derive(Debug)]
enum Standing {
    /// Nothing. Who opened it may use the file by its mode.
    Here(Rc<Cred>),
    /// It was told, on this connection, and has not answered.
    Told(u32),
    Known,
}

#[derive(Debug, Default)]
pub struct Handles {
    all: BTreeMap<OpenId, Handle>,
    of: BTreeMap<Fid, Vec<OpenId>>,
    /// How many the box knows nothing of.
    here: usize,
}

impl Handles {
    /// A file is opened without the box; false if there are too many of those.
    pub fn open_here(&mut self, open: OpenId, (fid, flags): (Fid, u32), by: &Rc<Cred>) -> bool {
        if self.here >= HERE_MAX {
            return false;
        }
        self.here += 1;
        self.insert(open, (fid, flags), Standing::Here(Rc::clone(by)));
        true
    }

    /// The box has opened it.
    pub fn opened(&mut self, open: OpenId, handle: (Fid, u32)) {
        self.insert(open, handle, Standing::Known);
    }

    fn insert(&mut self, open: OpenId, (fid, flags): (Fid, u32), standing: Standing) {
        self.closed(open);
        let handle = Handle {
            fid,
            flags,
            standing,
        };
        self.all.insert(open, handle);
        self.of.entry(fid).or_default().push(open);
    }

    /// The file of a handle that the box knows nothing of.
    #[must_use]
    pub fn here(&self, open: OpenId) -> Option<Fid> {
        let handle = self.all.get(&open)?;
        handle.is_here().then_some(handle.fid)
    }

    pub fn closed(&mut self, open: OpenId) {
        let Some(handle) = self.all.remove(&open) else {
            return;
        };
        self.here -= usize::from(handle.is_here());
        if let Some(opens) = self.of.get_mut(&handle.fid) {
            opens.retain(|id| *id != open);
            if opens.is_empty() {
                self.of.remove(&handle.fid);
            }
        }
    }

    /// Has anybody here the file open?
    #[must_use]
    pub fn is_open(&self, fid: Fid) -> bool {
        self.of.contains_key(&fid)
    }

    #[must_use]
    pub fn has(&self, open: OpenId) -> bool {
        self.all.contains_key(&open)
    }

    /// Has anybody here the file open for writing?
    #[must_use]
    pub fn has_writer(&self, fid: Fid) -> bool {
        const ACCMODE: u32 = libc::O_ACCMODE as u32;
        self.opens(fid).any(|handle| handle.flags & ACCMODE != 0)
    }

    /// Any handle of the file: by its right it is read. And whose, if the box
    /// knows nothing of it.
    #[must_use]
    pub fn any(&self, fid: Fid) -> Option<(OpenId, Option<Rc<Cred>>)> {
        let open = *self.of.get(&fid)?.first()?;
        let by = match &self.all.get(&open)?.standing {
            Standing::Here(by) => Some(Rc::clone(by)),
            Standing::Told(_) | Standing::Known => None,
        };
        Some((open, by))
    }

    /// Is there a handle of the file that the box knows nothing of, and that
    /// somebody else than `by` opened?
    #[must_use]
    pub fn is_lent(&self, fid: Fid, by: &Rc<Cred>) -> bool {
        self.opens(fid).any(|handle| match &handle.standing {
            Standing::Here(opener) => !Rc::ptr_eq(opener, by) && opener != by,
            _ => false,
        })
    }

    /// May all handles of the file that the box knows nothing of be told to it
    /// later, by what their openers may do?
    #[must_use]
    pub fn keep(&self, fid: Fid, may: impl Fn(&Cred, u32) -> bool) -> bool {
        self.opens(fid).all(|handle| match &handle.standing {
            Standing::Here(opener) => may(opener, handle.flags),
            Standing::Told(_) | Standing::Known => true,
        })
    }

    fn opens(&self, fid: Fid) -> impl Iterator<Item = &Handle> {
        let ids = self.of.get(&fid).into_iter().flatten();
        ids.filter_map(|id| self.all.get(id))
    }

    /// How many the box knows nothing of.
    #[must_use]
    pub fn count_here(&self) -> usize {
        self.here
    }

    /// What the box is told of a file now, on connection `conn`: the handles
    /// that it knows nothing of.
    pub fn tell(&mut self, fid: Fid, conn: u32) -> Vec<OpenFile> {
        let mut told = Vec::new();
        for open in self.of.get(&fid).into_iter().flatten() {
            if let Some(handle) = self.all.get_mut(open).filter(|handle| handle.is_here()) {
                handle.standing = Standing::Told(conn);
                self.here -= 1;
                told.push(handle.as_told(*open));
            }
        }
        told
    }

    /// What it is told on the new connection `conn`: what it was told before
    /// without answering, but for what is being closed.
    pub fn tell_again(&mut self, conn: u32, closing: &BTreeSet<OpenId>) -> Vec<OpenFile> {
        let mut told = Vec::new();
        for (open, handle) in &mut self.all {
            if matches!(handle.standing, Standing::Told(last) if last != conn)
                && !closing.contains(open)
            {
                handle.standing = Standing::Told(conn);
                told.push(handle.as_told(*open));
            }
        }
        told
    }

    /// What it is told after a restart: everything, but for what is being closed.
    pub fn tell_all(&mut self, conn: u32, closing: &BTreeSet<OpenId>) -> Vec<OpenFile> {
        self.here = 0;
        let mut told = Vec::new();
        for (open, handle) in &mut self.all {
            handle.standing = Standing::Told(conn);
            if !closing.contains(open) {
                told.push(handle.as_told(*open));
            }
        }
        told
    }

    /// The box has answered what it was told.
    pub fn on_told(&mut self, opens: &[OpenFile]) {
        for told in opens {
            if let Some(handle) = self.all.get_mut(&told.open)
                && matches!(handle.standing, Standing::Told(_))
            {
                handle.standing = Standing::Known;
            }
        }
    }

    /// The box has forgotten this client, and all that it had open.
    pub fn clear(&mut self) {
        *self = Handles::default();
    }
}

impl Handle {
    fn is_here(&self) -> bool {
        matches!(self.standing, Standing::Here(_))
    }

    fn as_told(&self, open: OpenId) -> OpenFile {
        OpenFile {
            fid: self.fid,
            open,
            flags: self.flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fid = Fid::new(1, 1);
    const B: Fid = Fid::new(1, 2);

    fn cred(uid: u32) -> Rc<Cred> {
        Rc::new(Cred {
            uid,
            ..Cred::default()
        })
    }

    fn ids(told: &[OpenFile]) -> Vec<u64> {
        told.iter().map(|t| t.open.0).collect()
    }

    #[test]
    fn the_box_is_told_once_and_again_until_it_answers() {
        let mut handles = Handles::default();
        let none = BTreeSet::new();
        assert!(handles.open_here(OpenId(1), (A, 0), &cred(5)));
        assert!(handles.open_here(OpenId(2), (B, 0), &cred(5)));
        handles.opened(OpenId(3), (A, 0));
        assert_eq!(
            (handles.here(OpenId(1)), handles.count_here()),
            (Some(A), 2)
        );
        assert_eq!(ids(&handles.tell(A, 1)), [1]);
        assert!(handles.tell(A, 1).is_empty(), "once");
        assert!(
            handles.tell_again(1, &none).is_empty(),
            "on this connection"
        );
        assert_eq!(ids(&handles.tell_again(2, &none)), [1]);
        let told = handles.tell_again(3, &none);
        handles.on_told(&told);
        assert!(handles.tell_again(4, &none).is_empty(), "it has answered");
        let closing = BTreeSet::from([OpenId(3)]);
        assert_eq!(ids(&handles.tell_all(5, &closing)), [1, 2]);
        assert_eq!((handles.here(OpenId(2)), handles.count_here()), (None, 0));
    }

    #[test]
    fn a_handle_is_lent_to_whoever_did_not_open_it() {
        let mut handles = Handles::default();
        handles.open_here(OpenId(1), (A, 0), &cred(5));
        assert!(handles.is_lent(A, &cred(6)) && !handles.is_lent(A, &cred(5)));
        assert!(!handles.is_lent(B, &cred(6)));
        handles.tell(A, 1);
        assert!(!handles.is_lent(A, &cred(6)), "the box knows it");
        assert!(handles.is_open(A));
        handles.closed(OpenId(1));
        assert!(!handles.is_open(A) && handles.of.is_empty());
    }

    #[test]
    fn handles_kept_here_are_bounded() {
        let mut handles = Handles::default();
        let me = cred(5);
        for n in 0..HERE_MAX as u64 {
            assert!(handles.open_here(OpenId(n + 1), (A, 0), &me));
        }
        assert!(!handles.open_here(OpenId(0), (A, 0), &me));
        handles.tell(A, 1);
        assert!(handles.open_here(OpenId(0), (A, 0), &me));
    }
}
