//! One request on its way through its handler.

use super::decide::{applied, decide_over, stage};
use super::{FlashView, fids};
use crate::base::codec::Bytes;
use crate::base::{Errno, Fid, LockId, Lsn, Name, Transno};
use crate::namespace::draft::Change;
use crate::namespace::{Bounds, Caller, Ctx, Inode, Stop, View};
use crate::origin::is_reserved;
use crate::shard::session::Export;
use crate::shard::{Incoming, Outgoing, Shard, Target};
use crate::wire::op::{Empty, Entry};
use crate::wire::{Reply, Request, head};
use crate::world::World;
use std::rc::Rc;

/// Who asks what of which target.
pub struct Call<'a, W: World> {
    pub shard: &'a Rc<Shard<W>>,
    pub target: Rc<Target>,
    pub export: &'a Rc<Export>,
    pub incoming: &'a Incoming,
    pub caller: Caller,
    pub bounds: Bounds,
}

impl<'a, W: World> Call<'a, W> {
    /// ESTALE without such a target, EACCES for a credential never declared.
    pub fn new(
        shard: &'a Rc<Shard<W>>,
        export: &'a Rc<Export>,
        incoming: &'a Incoming,
    ) -> Result<Call<'a, W>, Errno> {
        let target = shard.targets.borrow().get(&export.target).cloned();
        let target = target.ok_or(Errno::ESTALE)?;
        let caller = match incoming.head.cred {
            0 => Caller::ROOT,
            id => {
                let creds = export.creds.borrow();
                let cred = creds.get(&id).ok_or(Errno::EACCES)?;
                Caller {
                    uid: cred.uid,
                    gid: cred.gid,
                    groups: cred.groups.clone(),
                }
            }
        };
        let mut bounds = target.bounds();
        bounds.read_only |= export.read_only;
        Ok(Call {
            shard,
            target,
            export,
            incoming,
            caller,
            bounds,
        })
    }

    #[must_use]
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx {
            caller: &self.caller,
            bounds: &self.bounds,
            now: self.shard.world.wall(),
        }
    }

    /// A FID of another target is nobody's file here (N13).
    pub fn check_fid(&self, fid: Fid) -> Result<(), Errno> {
        if fids::belongs(fid, self.target.id) {
            Ok(())
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// Names at the root that belong to the box (O15).
    #[must_use]
    pub fn is_reserved(&self, parent: Fid, name: &Name) -> bool {
        parent == self.target.root && is_reserved(name)
    }

    pub async fn decide<T>(
        &self,
        mut decision: impl FnMut(&FlashView<'_, W>) -> Result<T, Stop>,
    ) -> Result<T, Errno> {
        let view = FlashView::new(self.shard, &self.target).giving(self.given());
        decide_over(view, self.shard, &self.target, |view| decision(view)).await
    }

    /// The FID that a replayed creation had: what came after it names it.
    #[must_use]
    pub fn given(&self) -> Option<Fid> {
        let is_replay = self.incoming.head.flags & head::flags::REPLAY != 0;
        match &self.incoming.request {
            Request::Create(op) if is_replay && !op.fid.is_none() => Some(op.fid),
            _ => None,
        }
    }

    /// ENOTCONN once the client was evicted or left: what still waits for it in
    /// a handler must not take effect after its successor's (L3).
    pub fn check_export(&self) -> Result<(), Stop> {
        if self.export.is_ended() {
            return Err(Errno::ENOTCONN.into());
        }
        Ok(())
    }

    /// Applies a change with its reply. `reply` sees the change as applied.
    pub fn seal(
        &self,
        mut change: Change,
        reply: impl FnOnce(&Change) -> Reply,
    ) -> Result<Outgoing, Stop> {
        self.check_export()?;
        let tx = stage(self.shard, &self.target, &mut change)?;
        let reply = reply(&change);
        let (transno, lsn) = self.shard.seal(tx, self.incoming, &reply)?;
        applied(self.shard, &self.target, &change);
        let touched = change.inodes.iter().map(|(fid, _)| *fid);
        let committed = self.shard.flash.last_committed();
        let by = (self.incoming.client, transno);
        self.shard.meta.note_unseen(by, committed, touched);
        Ok(Outgoing {
            result: Ok((reply, Vec::new())),
            transno,
            lsn,
        })
    }

    /// The inode as it is now, from a decision.
    pub fn inode(&self, view: &super::FlashView<'_, W>, fid: Fid) -> Result<Inode, Stop> {
        Ok(view.inode(fid)?.ok_or(Errno::ESTALE)?)
    }
}

/// An answer that changed nothing.
#[must_use]
pub fn answered(reply: Reply) -> Outgoing {
    Outgoing {
        result: Ok((reply, Vec::new())),
        transno: Transno(0),
        lsn: Lsn(0),
    }
}

#[must_use]
pub fn done() -> Reply {
    Reply::Done(Empty {})
}

/// The reply that shows a file.
#[must_use]
pub fn entry(fid: Fid, inode: &Inode, created: bool) -> Reply {
    Reply::Entry(Entry {
        fid,
        attr: inode.attr.clone(),
        created,
        layout: Bytes(inode.layout.0.clone()),
        lock: LockId(0),
        lock_mode: 0,
        lock_bits: 0,
    })
}

/// The reply that shows a file which the change put.
#[must_use]
pub fn entry_of(change: &Change, fid: Fid, created: bool) -> Reply {
    let put = change.inodes.iter().find(|(f, _)| *f == fid);
    put.map_or_else(done, |(_, inode)| entry(fid, inode, created))
}
