//! One request on its way through its handler.

use super::decide::{applied, decide_over, stage};
use super::{FlashView, fids, opens};
use crate::base::codec::Bytes;
use crate::base::{Bits, Errno, Fid, FileKind, LockId, Lsn, Name, Slice, Time, Transno};
use crate::dlm::Sole;
use crate::namespace::draft::Change;
use crate::namespace::{Bounds, Caller, Ctx, Inode, Need, Stop, View};
use crate::origin::is_reserved;
use crate::shard::locks::glimpse::{self, Said};
use crate::shard::locks::{self, Claims, Touch};
use crate::shard::session::{Export, time_of};
use crate::shard::{Incoming, Outgoing, Shard, Target};
use crate::wire::head::flags;
use crate::wire::locks::Of;
use crate::wire::op::{Empty, Entry};
use crate::wire::{Features, Reply, Request, Shown, head};
use crate::world::World;
use std::cell::RefCell;
use std::rc::Rc;

/// Who asks what of which target.
pub struct Call<'a, W: World> {
    pub shard: &'a Rc<Shard<W>>,
    pub target: Rc<Target>,
    pub export: &'a Rc<Export>,
    pub incoming: &'a Incoming,
    pub caller: Caller,
    pub bounds: Bounds,
    /// All that the last decision touched; claimed if some of it is in other
    /// clients' hands.
    blocked: RefCell<Vec<Touch>>,
    /// What it has waited for and may touch now, whoever waits behind it.
    claimed: RefCell<Vec<Touch>>,
    glimpse: RefCell<Glimpse>,
}

/// How far the call has come with asking who has a file to himself what it is
/// like. It asks once: who looks for long is not to be put off for ever.
#[derive(Default)]
enum Glimpse {
    #[default]
    Unasked,
    Wanted(Fid, Sole),
    Asked(Fid, Sole, Option<Said>),
}

/// Where what an answer shows of a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The box: locks may be granted on it.
    Here,
    /// Whoever has the file to himself: good for this answer, and nothing else.
    Glimpsed,
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
            blocked: RefCell::default(),
            claimed: RefCell::default(),
            glimpse: RefCell::default(),
        })
    }

    #[must_use]
    pub fn ctx(&self) -> Ctx<'_> {
        Ctx {
            caller: &self.caller,
            bounds: &self.bounds,
            now: self.now(),
        }
    }

    /// When the operation takes place.
    #[must_use]
    pub fn now(&self) -> Time {
        time_of(&self.incoming.head, self.shard.world.wall())
    }

    /// Was room promised for it?
    pub fn is_promised(&self) -> bool {
        let is_ahead = self.incoming.head.flags & flags::ORDERED != 0;
        is_ahead && self.export.is_promised()
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
        let mut claims: Option<Claims<W>> = None;
        loop {
            let view = FlashView::new(self.shard, &self.target).giving(self.given());
            let decided = decide_over(view, self.shard, &self.target, |view| {
                self.blocked.borrow_mut().clear();
                match decision(view) {
                    Err(Stop::Need(Need::Locks)) => Ok(None),
                    other => other.map(Some),
                }
            });
            let decided = decided.await;
            self.claimed.borrow_mut().clear();
            if let Some(done) = decided? {
                return Ok(done);
            }
            // Those of before go first: two operations that hold some each
            // would wait for the other (N6).
            drop(claims.take());
            if self.ask_holder().await {
                continue;
            }
            let touches = locks::merged(self.blocked.take());
            let taken = Claims::take(self.shard, self.export, &touches, self.is_ahead());
            claims = Some(taken.await?);
            *self.claimed.borrow_mut() = touches;
        }
    }

    /// Stops a decision that touches what another client holds: it is made
    /// again when that has been given up.
    pub fn touch(&self, touches: impl IntoIterator<Item = Touch>) -> Result<(), Stop> {
        let locks = &self.shard.locks;
        let mut is_blocked = false;
        for touch in touches {
            let is_ours = self.claimed.borrow().iter().any(|c| c.covers(&touch));
            is_blocked |= !is_ours && locks.in_the_way(self.export.holder, &touch);
            // What is free now is claimed, too, if something else is not.
            self.blocked.borrow_mut().push(touch);
        }
        match is_blocked {
            true => Err(Need::Locks.into()),
            false => Ok(()),
        }
    }

    /// For an answer that shows a file: as it is here, or, if only somebody who
    /// has it to himself and is changing it is in the way, as he says that it is.
    pub fn see(&self, fid: Fid, bits: Bits, inode: &mut Inode) -> Result<Source, Stop> {
        let touch = Touch::see(fid, bits);
        let told = |said: &Said| glimpse::shown(&inode.attr, said);
        match self.look(touch, inode, told)? {
            None => Ok(Source::Here),
            Some(shown) => {
                inode.attr = shown;
                Ok(Source::Glimpsed)
            }
        }
    }

    /// For an answer that shows extended attributes, or ACLs: they are as they
    /// are here, also if somebody has the file to himself who has changed none.
    pub fn see_xattrs(&self, fid: Fid, inode: &Inode) -> Result<Source, Stop> {
        let touch = Touch::see(fid, Bits::XATTR.with(Bits::PERM));
        let told = |said: &Said| glimpse::has_xattrs(&inode.attr, said).then_some(());
        let told = self.look(touch, inode, told)?;
        Ok(told.map_or(Source::Here, |()| Source::Glimpsed))
    }

    /// `None` if nobody is in the way; what was `told` by the one who is, if he is
    /// to be believed.
    fn look<T>(
        &self,
        touch: Touch,
        inode: &Inode,
        told: impl FnOnce(&Said) -> Option<T>,
    ) -> Result<Option<T>, Stop> {
        let fid = touch.fid;
        let Err(blocked) = self.touch([touch]) else {
            return Ok(None);
        };
        let sole = self.shard.locks.sole(self.export.holder, &touch);
        let mut glimpse = self.glimpse.borrow_mut();
        match &*glimpse {
            Glimpse::Asked(of, asked, Some(said)) if *of == fid && sole == Some(*asked) => {
                let told = told(said).ok_or(blocked)?;
                glimpse::count(self.shard);
                return Ok(Some(told));
            }
            Glimpse::Unasked => {
                if let Some(sole) = sole.filter(|_| self.may_glimpse(fid, inode)) {
                    *glimpse = Glimpse::Wanted(fid, sole);
                }
            }
            _ => {}
        }
        Err(blocked)
    }

    /// Is it enough for the asker to be told once what the file is like? Not if it
    /// needs a lock, nor if it has the file open, or may have: its kernel takes the
    /// size of what is mapped for true until it is told of growth, which takes a
    /// lock (C17). And a file that changes no more is better kept by who looks.
    fn may_glimpse(&self, fid: Fid, inode: &Inode) -> bool {
        let (shard, export) = (self.shard, self.export);
        inode.attr.kind == FileKind::Regular
            && export.has(Features::GLIMPSE)
            && locks::needed(self.incoming, Of::Object, fid).is_none()
            && !opens::may_have(shard, export, fid)
            && opens::changed_within(shard, fid, glimpse::LATELY)
    }

    /// Asks what the last decision wanted to know; false if that was nothing.
    async fn ask_holder(&self) -> bool {
        let (fid, sole) = match &*self.glimpse.borrow() {
            Glimpse::Wanted(fid, sole) => (*fid, *sole),
            _ => return false,
        };
        let said = glimpse::ask(self.shard, sole, fid).await;
        *self.glimpse.borrow_mut() = Glimpse::Asked(fid, sole, said);
        true
    }

    /// Has another client the file to itself? What is here of it may be old.
    #[must_use]
    pub fn is_anothers(&self, fid: Fid) -> bool {
        let seen = Touch::see(fid, Bits::LOOKUP.with(Bits::ATTRS));
        self.shard.locks.in_the_way(self.export.holder, &seen)
    }

    /// A size change, or a page that is written back: the client may not be
    /// able to give up a lock before it is answered (C7, C16).
    fn is_ahead(&self) -> bool {
        match &self.incoming.request {
            Request::Setattr(op) => op.set.size.is_some(),
            Request::Write(_) => self.incoming.head.flags & head::flags::PAGE_WRITE != 0,
            _ => false,
        }
    }

    /// Grants what the client wants on `fid`; the last thing that a decision does.
    pub fn grant(&self, of: Of, fid: Fid) {
        locks::grant(self.shard, self.export, self.incoming, of, fid);
    }

    /// Does the answer grant anything of `fid`?
    #[must_use]
    pub fn is_granted(&self, fid: Fid) -> bool {
        let granted = self.incoming.granted.borrow();
        granted.grants.iter().any(|grant| grant.fid == fid)
    }

    /// Grants what the client wants on a file that was asked for by itself.
    pub fn grant_shown(&self, fid: Fid) {
        locks::grant_shown(self.shard, self.export, self.incoming, fid);
    }

    /// The same for a file that is shown by a name in `dir`.
    pub fn grant_named(&self, dir: Fid, fid: Fid) {
        locks::grant_named(self.shard, self.export, self.incoming, dir, fid);
    }

    /// Grants a welcome lock on the `nth` file that a listing of `dir` shows.
    pub fn grant_entry(&self, dir: Fid, file: (usize, Fid, FileKind)) {
        locks::grant_entry(self.shard, self.export, self.incoming, dir, file);
    }

    /// Waits for what the client needs to hold of `fid` with the answer.
    pub fn need(&self, of: Of, fid: Fid) -> Result<(), Stop> {
        let needed = locks::needed(self.incoming, of, fid);
        self.touch(needed)
    }

    /// The FID that a creation brings: a replayed one what it had, which what
    /// came after it names; one that the client has answered ahead of the box
    /// one of those that it was granted.
    #[must_use]
    pub fn given(&self) -> Option<Fid> {
        let brings = head::flags::REPLAY | head::flags::ORDERED;
        let brings = self.incoming.head.flags & brings != 0;
        match &self.incoming.request {
            Request::Create(op) if brings && !op.fid.is_none() => Some(op.fid),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.incoming.head.flags & head::flags::REPLAY != 0
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
        let view = FlashView::new(self.shard, &self.target);
        let (locks, holder) = (&self.shard.locks, self.export.holder);
        let touches = locks::of_change(&view, &change, |fid| locks.is_shared(holder, fid))?;
        self.touch(touches)?;
        let (orphans, made_in) = (change.orphans.clone(), change.made_in());
        let tx = stage(self.shard, &self.target, &mut change)?;
        let reply = reply(&change);
        let (transno, lsn) = self.shard.seal(tx, self.incoming, &reply)?;
        applied(self.shard, &self.target, &change);
        for (fid, _) in orphans.iter().filter(|(_, is_orphan)| *is_orphan) {
            locks::recall_opens(self.shard, *fid);
        }
        self.show(&change.inodes);
        let touched = change.inodes.iter().map(|(fid, _)| *fid);
        let committed = self.shard.flash.last_committed();
        let by = (self.incoming.client, transno);
        self.shard.meta.note_unseen(by, committed, touched, made_in);
        Ok(Outgoing {
            result: Ok((reply, Vec::new())),
            transno,
            lsn,
        })
    }

    /// Tells a client with locks what its change made of the files: nobody else
    /// will, its own locks are not called back for it.
    pub fn show(&self, inodes: &[(Fid, Inode)]) {
        if !self.export.has(Features::LOCKS) {
            return;
        }
        let shown = inodes.iter().map(|(fid, inode)| Shown {
            fid: *fid,
            attr: inode.attr.clone(),
        });
        self.incoming.granted.borrow_mut().shown.extend(shown);
    }

    /// The inode as it is now, from a decision.
    pub fn inode(&self, view: &super::FlashView<'_, W>, fid: Fid) -> Result<Inode, Stop> {
        Ok(view.inode(fid)?.ok_or(Errno::ESTALE)?)
    }
}

/// An answer that changed nothing.
#[must_use]
pub fn answered(reply: Reply) -> Outgoing {
    answered_with(reply, Vec::new())
}

/// One with bytes.
#[must_use]
pub fn answered_with(reply: Reply, bytes: Vec<Slice>) -> Outgoing {
    Outgoing {
        result: Ok((reply, bytes)),
        transno: Transno(0),
        lsn: Lsn(0),
    }
}

/// A refusal that has waited for what it rests on (L9).
#[must_use]
pub fn refused(errno: Errno) -> Outgoing {
    Outgoing {
        result: Err(errno),
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
