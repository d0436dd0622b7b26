//! L9: what one client changed is shown to another only once it is on flash,
//! else a crash takes back what the other has acted on.

use super::Meta;
use crate::base::{ClientId, Errno, Fid, Lsn, Transno};
use crate::shard::{Incoming, Shard};
use crate::world::World;
use std::collections::BTreeMap;

/// Objects with changes that may not be on flash yet, and who made the last.
#[derive(Default)]
pub struct Unseen {
    by: BTreeMap<Fid, (ClientId, Transno)>,
    /// Entries at which the committed ones are swept out next.
    sweep_at: usize,
}

impl Meta {
    pub(in crate::shard) fn note_unseen(
        &self,
        client: ClientId,
        transno: Transno,
        fids: impl Iterator<Item = Fid>,
    ) {
        let mut unseen = self.unseen.borrow_mut();
        unseen.by.extend(fids.map(|fid| (fid, (client, transno))));
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
