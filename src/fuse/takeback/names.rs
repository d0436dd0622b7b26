//! Names, those that are not there among them. Their invalidation needs the
//! directory's lock, which the kernel holds during LOOKUP and CREATE: it is
//! given a moment, and then the dentry epoch is raised instead, which needs no
//! lock; without epochs, the names' own timeouts are waited for (C2).
//! Names of directories only expire, once all who were told of them have gone on
//! (`kept::walkers`).

use super::{PAUSE_MAX, PAUSE_MIN};
use crate::base::Name;
use crate::fuse::abi::notify::Notice;
use crate::fuse::kept::names::Held;
use crate::fuse::kernel::Kernel;
use crate::fuse::notices::Latch;
use crate::fuse::session::Session;
use crate::fuse::upstream::Upstream;
use crate::world::race::within;
use crate::world::{Level, World};
use std::rc::Rc;
use std::time::Duration;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// Takes back `held`, as a part of `latch`.
    pub(super) fn take_names(self: &Rc<Self>, held: Vec<Held>, latch: &Rc<Latch>) {
        let held: Vec<Held> = held.into_iter().filter(|h| self.is_believed(h)).collect();
        if held.is_empty() {
            return;
        }
        let (session, part) = (Rc::clone(self), latch.part());
        self.spawn(async move {
            session.drop_names(held).await;
            drop(part);
        });
    }

    async fn drop_names(self: &Rc<Self>, held: Vec<Held>) {
        let latch = Rc::new(Latch::default());
        for name in &held {
            let (session, name, part) = (Rc::clone(self), name.clone(), latch.part());
            self.spawn(async move {
                session.drop_name(&name).await;
                drop(part);
            });
        }
        let is_raised = match self.has_epochs() {
            true if held.len() > SINGLY_MAX => self.raise_epoch(),
            true => {
                let ended = within(&self.world, GRACE, latch.ended()).await;
                ended.is_none() && self.raise_epoch()
            }
            false => false,
        };
        if is_raised {
            self.raise_after_listings(&held).await;
        } else {
            latch.ended().await;
        }
    }

    /// What an answer to a listing told is taken in at the epoch of then, and so
    /// may outlive a raise: another follows when it is known to be taken in.
    async fn raise_after_listings(&self, held: &[Held]) {
        let mut pause = PAUSE_MIN;
        loop {
            let mut left = held.iter().filter(|name| self.is_believed(name)).peekable();
            if left.peek().is_none() {
                return;
            }
            let is_over = |turn| self.dirs.borrow().is_over(turn);
            if left.all(|name| name.listing.is_none_or(is_over)) && self.raise_epoch() {
                continue;
            }
            self.world.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Invalidates one name, again and again while the kernel says that it has
    /// none: a reply that gives it may not be taken in yet (C5). A rename that is
    /// under way takes it elsewhere, where it is believed as before.
    async fn drop_name(&self, held: &Held) {
        let expires = self.may_expire(held).await;
        let mut pause = PAUSE_MIN;
        while self.is_believed(held) {
            let left = held.until - self.world.now();
            let permit = self.notices.permit();
            let Some(permit) = within(&self.world, left, permit).await else {
                return;
            };
            let Some((parent, name)) = self.place(held) else {
                return;
            };
            let notice = Notice::Entry {
                parent,
                name: Rc::clone(&name),
                expires,
            };
            let told = self.notices.post(notice, Some(permit));
            match within(&self.world, left, told.get()).await {
                None => return,
                Some(Ok(())) => {
                    let names = &mut self.kept.borrow_mut().names;
                    names.drop_at(held, (parent, &name));
                }
                Some(Err(_)) => {
                    self.world.sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Is it enough that the name expires? Of a directory it is, when nobody is
    /// left who might take it in afterwards: soon, as a rule at once. Who computes
    /// on and on without waiting for anything cannot be told from that; with
    /// epochs, one is raised meanwhile, and without, the name is dropped then.
    async fn may_expire(&self, held: &Held) -> bool {
        if !self.kept.borrow().walkers.knows(held.nodeid) {
            return false;
        }
        let until = self.world.now() + PATIENCE;
        let mut pause = PAUSE_MIN;
        while !self.are_gone(held.nodeid) {
            if self.world.now() >= until || !self.is_believed(held) {
                return false;
            }
            self.world.sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        true
    }

    fn are_gone(&self, dir: u64) -> bool {
        let walkers = &mut self.kept.borrow_mut().walkers;
        walkers.are_gone(dir, |thread| self.kernel.has_gone_on(thread))
    }

    /// May the kernel still answer with it?
    fn is_believed(&self, held: &Held) -> bool {
        self.place(held).is_some()
    }

    /// Where the kernel may still answer with it.
    fn place(&self, held: &Held) -> Option<(u64, Rc<Name>)> {
        if self.is_unmounted() {
            return None;
        }
        let names = &self.kept.borrow().names;
        names.place(held, self.world.now())
    }

    /// Ends all that the kernel believes of names; false if it cannot.
    pub(super) fn raise_epoch(&self) -> bool {
        match self.kernel.tell(&Notice::Epoch) {
            Ok(()) => {
                self.kept.borrow_mut().names.raise();
                true
            }
            Err(e) => {
                let line = format!("fuse: the kernel has no dentry epochs after all: {e}");
                self.world.log(Level::Warn, &line);
                self.epochs.set(false);
                false
            }
        }
    }

    pub(super) fn has_epochs(&self) -> bool {
        self.epochs.get()
    }
}

/// How long an invalidation may take: some µs, unless the directory is locked.
const GRACE: Duration = Duration::from_millis(4);
/// How long those who were told of a directory have to take it in.
const PATIENCE: Duration = Duration::from_millis(50);
/// More names than this are not told one by one.
const SINGLY_MAX: usize = 1024;
