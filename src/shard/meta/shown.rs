//! L9: what one client changed is shown to another only once it is on flash,
//! else a crash takes back what the other has acted on. So an answer that shows
//! another's change waits for that change, and a change that builds on another's
//! is itself on flash before it is answered (journal order brings the other's
//! along). Within one client's own changes nothing waits: it has them all, and
//! replays them in order.

use super::Meta;
use crate::base::{ClientId, Errno, Fid, Lsn, Transno};
use crate::shard::{Incoming, Shard};
use crate::world::World;
use std::collections::BTreeMap;

/// Who changed something, and as what.
type By = (ClientId, Transno);

/// The last change of an object.
#[derive(Clone, Copy)]
struct Last {
    by: By,
    /// It, or one of its client's before it, built on another client's that was
    /// not on flash: what is seen of the object is not all that client's own.
    is_mixed: bool,
}

impl Last {
    fn is_foreign(&self, client: ClientId, committed: Transno) -> bool {
        self.by.1 > committed && (self.by.0 != client || self.is_mixed)
    }
}

/// Objects with changes that may not be on flash yet, and who made the last.
#[derive(Default)]
pub struct Unseen {
    by: BTreeMap<Fid, Last>,
    /// The same without names that were made in a directory: what look-ups of
    /// others there rest on.
    besides_names: BTreeMap<Fid, Last>,
    /// The last change of all, and the last one by somebody else than that.
    last: Option<By>,
    other: Option<By>,
    /// The last change that built on another client's.
    mixed: Transno,
    /// Entries at which the committed ones are swept out next.
    sweep_at: usize,
}

impl Unseen {
    /// The last change by another than `client`.
    fn foreign(&self, client: ClientId) -> Transno {
        let is_foreign = |by: &&By| by.0 != client;
        let found = self.last.iter().find(is_foreign);
        let found = found.or_else(|| self.other.iter().find(is_foreign));
        found.map_or(Transno(0), |by| by.1)
    }
}

impl Meta {
    pub(in crate::shard) fn note_unseen(
        &self,
        by: By,
        committed: Transno,
        fids: impl Iterator<Item = Fid>,
        made_in: Option<Fid>,
    ) {
        let (client, transno) = by;
        let unseen = &mut *self.unseen.borrow_mut();
        for fid in fids {
            let before = unseen.by.get(&fid);
            let is_mixed = before.is_some_and(|last| last.is_foreign(client, committed));
            if is_mixed {
                unseen.mixed = transno;
            }
            let last = Last { by, is_mixed };
            unseen.by.insert(fid, last);
            if Some(fid) != made_in {
                unseen.besides_names.insert(fid, last);
            }
        }
        if let Some(last) = unseen.last.filter(|last| last.0 != client) {
            unseen.other = Some(last);
        }
        unseen.last = Some(by);
    }

    /// Does a change of up to this one build on another client's, so that it
    /// must be on flash before it is answered?
    pub(in crate::shard) fn is_mixed(&self, transno: Transno) -> bool {
        self.unseen.borrow().mixed >= transno
    }

    /// Is the last change of this that a client made not on flash yet?
    pub(in crate::shard) fn is_uncommitted(&self, fid: Fid, committed: Transno) -> bool {
        let unseen = self.unseen.borrow();
        unseen
            .by
            .get(&fid)
            .is_some_and(|last| last.by.1 > committed)
    }

    /// Drops what is on flash by now, at most once for each doubling.
    fn sweep(&self, committed: Transno) {
        let mut unseen = self.unseen.borrow_mut();
        if unseen.by.len() >= unseen.sweep_at {
            unseen.by.retain(|_, last| last.by.1 > committed);
            unseen.besides_names.retain(|_, last| last.by.1 > committed);
            unseen.sweep_at = (unseen.by.len() * 2).max(256);
        }
    }
}

/// Waits until `fid` has no change by another client that a crash could undo.
pub async fn settle<W: World>(
    shard: &Shard<W>,
    incoming: &Incoming,
    fid: Fid,
) -> Result<(), Errno> {
    settle_last(shard, incoming, |unseen| unseen.by.get(&fid).copied()).await
}

/// The same for what a look-up in the directory `dir` rests on, besides the file
/// that it finds: that others make names there tells nothing of this one.
pub async fn settle_names<W: World>(
    shard: &Shard<W>,
    incoming: &Incoming,
    dir: Fid,
) -> Result<(), Errno> {
    let last = |unseen: &Unseen| unseen.besides_names.get(&dir).copied();
    settle_last(shard, incoming, last).await
}

async fn settle_last<W: World>(
    shard: &Shard<W>,
    incoming: &Incoming,
    last: impl FnOnce(&Unseen) -> Option<Last>,
) -> Result<(), Errno> {
    let committed = shard.flash.last_committed();
    shard.meta.sweep(committed);
    let last = last(&shard.meta.unseen.borrow());
    if last.is_some_and(|last| last.is_foreign(incoming.client, committed)) {
        let lsn: Lsn = shard.applied.get();
        shard.flash.commit(lsn).await?;
    }
    Ok(())
}

/// Waits until no change by another client can be undone: a refusal may rest
/// on any of them, and does not say on which.
pub async fn settle_refusal<W: World>(shard: &Shard<W>, incoming: &Incoming) -> Result<(), Errno> {
    let foreign = shard.meta.unseen.borrow().foreign(incoming.client);
    if foreign > shard.flash.last_committed() {
        let lsn: Lsn = shard.applied.get();
        shard.flash.commit(lsn).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L9: what builds on another client's change that may be lost is told
    /// apart, and a refusal waits for others' changes alone.
    #[test]
    fn changes_that_build_on_anothers_are_told_apart_l9() {
        let meta = Meta::default();
        let (a, b) = (ClientId(1), ClientId(2));
        let (dir, other) = (Fid::new(1, 1), Fid::new(1, 2));
        let note = |client, transno, committed, fid| {
            let by = (client, Transno(transno));
            meta.note_unseen(by, Transno(committed), std::iter::once(fid), None);
        };
        let foreign = |client| meta.unseen.borrow().foreign(client).0;
        note(a, 1, 0, dir);
        note(a, 2, 0, dir);
        assert!(
            !meta.is_mixed(Transno(1)),
            "a client's own changes wait for nothing"
        );
        assert_eq!((foreign(a), foreign(b)), (0, 2));
        note(b, 3, 0, other);
        assert!(!meta.is_mixed(Transno(3)), "another object");
        assert_eq!((foreign(a), foreign(b)), (3, 2));
        note(b, 4, 0, dir);
        assert!(meta.is_mixed(Transno(4)));
        assert_eq!((foreign(a), foreign(b)), (4, 2));
        note(a, 5, 4, dir);
        assert!(!meta.is_mixed(Transno(5)), "b's change is on flash");
        assert_eq!((foreign(a), foreign(b)), (4, 5));
    }

    /// L9: after a change that built on another's the object is not a client's
    /// own, until both are on flash.
    #[test]
    fn what_built_on_anothers_change_is_not_ones_own_l9() {
        let meta = Meta::default();
        let (a, b) = (ClientId(1), ClientId(2));
        let dir = Fid::new(1, 1);
        let note = |client, transno, committed| {
            let by = (client, Transno(transno));
            meta.note_unseen(by, Transno(committed), std::iter::once(dir), None);
        };
        let is_foreign = |client, committed| {
            let last = meta.unseen.borrow().by.get(&dir).copied().expect("noted");
            last.is_foreign(client, Transno(committed))
        };
        note(b, 1, 0);
        note(a, 2, 0);
        assert!(is_foreign(a, 0), "b's is in it");
        note(a, 3, 0);
        assert!(meta.is_mixed(Transno(3)) && is_foreign(a, 0), "still");
        assert!(!is_foreign(a, 3));
        note(a, 4, 3);
        assert!(!meta.is_mixed(Transno(4)) && !is_foreign(a, 3));
    }

    /// A look-up rests on names that were taken away, and on the directory, not on
    /// names that were made there.
    #[test]
    fn names_that_are_made_hold_up_no_look_up_of_others_l9() {
        let meta = Meta::default();
        let (a, b) = (ClientId(1), ClientId(2));
        let (dir, file) = (Fid::new(1, 1), Fid::new(1, 2));
        let rests = |fid, client| {
            let unseen = meta.unseen.borrow();
            let last = unseen.besides_names.get(&fid);
            last.is_some_and(|last| last.is_foreign(client, Transno(0)))
        };
        let both = [dir, file].into_iter();
        meta.note_unseen((a, Transno(1)), Transno(0), both.clone(), Some(dir));
        assert!(!rests(dir, b));
        assert!(rests(file, b), "what was made may be a directory");
        meta.note_unseen((a, Transno(2)), Transno(0), both, None);
        assert!(rests(dir, b) && !rests(dir, a));
        meta.note_unseen((b, Transno(3)), Transno(0), [dir].into_iter(), Some(dir));
        assert!(rests(dir, b), "a's removal is still not on flash");
        meta.sweep(Transno(3));
        assert!(!rests(dir, b));
    }
}
