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

/// Objects with changes that may not be on flash yet, and who made the last.
#[derive(Default)]
pub struct Unseen {
    by: BTreeMap<Fid, By>,
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
    ) {
        let (client, transno) = by;
        let mut unseen = self.unseen.borrow_mut();
        for fid in fids {
            let before = unseen.by.insert(fid, by);
            if before.is_some_and(|(c, t)| c != client && t > committed) {
                unseen.mixed = transno;
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

    /// Drops what is on flash by now, at most once for each doubling.
    fn sweep(&self, committed: Transno) {
        let mut unseen = self.unseen.borrow_mut();
        if unseen.by.len() >= unseen.sweep_at {
            unseen.by.retain(|_, (_, transno)| *transno > committed);
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
    let committed = shard.flash.last_committed();
    shard.meta.sweep(committed);
    let last = shard.meta.unseen.borrow().by.get(&fid).copied();
    match last {
        Some((client, transno)) if client != incoming.client && transno > committed => {
            let lsn: Lsn = shard.applied.get();
            shard.flash.commit(lsn).await
        }
        _ => Ok(()),
    }
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
            meta.note_unseen(by, Transno(committed), std::iter::once(fid));
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
}
