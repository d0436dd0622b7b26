//! The journal's way to flash: groups are written in their order, a few of them
//! at a time, and become durable in that order, whichever write ends first.
//!
//! A few, because a group that somebody waits for would else stand behind one
//! that has just begun: a wait is one write of the device, not up to two, and
//! the device is not idle between them.
//!
//! - A group's flushed mark is what was durable when its write began, so it is
//!   true whatever becomes of the groups before it (F3).
//! - Nobody is answered, and no mark moves, past a group whose write has not
//!   ended: durability stays a prefix of the order. Where a crash leaves a whole
//!   group behind a torn one, recovery ends at the torn one.
//! - The first group of a segment brings the segment's header, which seals the
//!   segment before: it waits until all of that is durable.

use super::log::SealedGroup;
use super::state::State;
use crate::base::{Errno, Lsn};
use crate::store::Record;
use crate::store::journal::encode_group;
use crate::world::World;
use crate::world::sync::Signal;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Writes under way at a time: what flash still gains from. More would split what
/// many wait for into more and smaller groups (`docs/PERFORMANCE.md`).
const IN_FLIGHT_MAX: usize = 4;

/// Groups that are being written, in their order.
#[derive(Default)]
pub(super) struct Flight {
    groups: RefCell<VecDeque<Rc<Flying>>>,
    /// A group has landed, or the shard was fenced.
    landed: Signal,
}

struct Flying {
    sealed: SealedGroup,
    /// The flushed mark that the group carries, and its last record: once it is
    /// written.
    landed: Cell<Option<Landed>>,
}

#[derive(Clone, Copy)]
struct Landed {
    mark: Lsn,
    last: Lsn,
}

impl Flight {
    fn len(&self) -> usize {
        self.groups.borrow().len()
    }

    /// Bytes of groups that are being written.
    pub fn bytes(&self) -> usize {
        let groups = self.groups.borrow();
        groups.iter().map(|flying| flying.sealed.bytes()).sum()
    }

    fn take_off(&self, sealed: SealedGroup) -> Rc<Flying> {
        let flying = Rc::new(Flying {
            sealed,
            landed: Cell::new(None),
        });
        self.groups.borrow_mut().push_back(Rc::clone(&flying));
        flying
    }

    /// The oldest group, if it is written.
    fn pop(&self) -> Option<(Rc<Flying>, Landed)> {
        let mut groups = self.groups.borrow_mut();
        let landed = groups.front()?.landed.get()?;
        groups.pop_front().map(|flying| (flying, landed))
    }
}

impl<W: World> State<W> {
    /// The task that writes groups, until the flash is closed.
    pub async fn flush_groups(self: Rc<Self>) {
        while !self.fenced.get() {
            if self.flight.len() >= IN_FLIGHT_MAX {
                self.flight.landed.wait().await;
                continue;
            }
            let Some(sealed) = self.next_group() else {
                if self.closing.get() {
                    return;
                }
                self.work.wait().await;
                continue;
            };
            if let Err(errno) = self.make_way(&sealed).await {
                return self.fence("journal", errno);
            }
            let flying = self.flight.take_off(sealed);
            let state = Rc::clone(&self);
            self.world.spawn(async move { state.fly(&flying).await });
        }
    }

    fn next_group(&self) -> Option<SealedGroup> {
        let (group, is_bare) = self.log.borrow_mut().pop(self.closing.get())?;
        if is_bare {
            self.applied.set(self.applied.get().next());
        }
        Some(group)
    }

    /// Waits for what must be on flash before the group's write may begin.
    async fn make_way(&self, sealed: &SealedGroup) -> Result<(), Errno> {
        if let Some(zeroed) = &sealed.zeroed {
            zeroed.get().await?;
        }
        while sealed.header.is_some() && self.flight.len() > 0 {
            if self.fenced.get() {
                return Err(Errno::EIO);
            }
            self.flight.landed.wait().await;
        }
        Ok(())
    }

    async fn fly(self: Rc<Self>, flying: &Rc<Flying>) {
        match self.write_group(&flying.sealed).await {
            Ok(landed) => flying.landed.set(Some(landed)),
            Err(errno) => self.fence("journal", errno),
        }
        if !self.fenced.get() {
            self.land();
        }
        self.flight.landed.notify();
    }

    async fn write_group(&self, sealed: &SealedGroup) -> Result<Landed, Errno> {
        let group = &sealed.group;
        // Data first: a record must never be durable before its bytes (F4).
        for write in &group.waits {
            write.get().await?;
        }
        let mark = self.durable.get();
        let header = group.header(self.shard, self.generation, sealed.sequence, mark);
        let (head, tail) = encode_group(&header, &group.records, self.world.pool());
        let mut parts = Vec::with_capacity(group.parts.len() + 3);
        parts.extend(sealed.header.clone());
        parts.push(head);
        parts.extend(group.parts.iter().cloned());
        if !tail.is_empty() {
            parts.push(tail);
        }
        let offset = if sealed.header.is_some() {
            0
        } else {
            group.offset
        };
        let at = self.place(sealed.segment, offset)?;
        self.device.write(at, parts, true).await?;
        let last = header.last();
        Ok(Landed { mark, last })
    }

    /// What is written and has nothing unwritten before it is durable.
    fn land(self: &Rc<Self>) {
        let mut is_news = false;
        while let Some((flying, landed)) = self.flight.pop() {
            let group = &flying.sealed.group;
            self.proved.set(self.proved.get().max(landed.mark));
            self.durable.set(landed.last);
            let committed = self.committed.get().max(group.transno);
            self.committed.set(committed);
            self.data.borrow_mut().on_written(&group.places);
            if let Ok(flying) = Rc::try_unwrap(flying) {
                self.log.borrow_mut().recycle(flying.sealed);
            }
            is_news = true;
        }
        if is_news {
            self.reap();
            self.prove();
            self.progress.notify();
        }
    }

    /// A segment that was emptied is free only when a durable mark says that
    /// the emptying is durable. Where nothing else would carry that mark, an
    /// empty record does, so that who waits for room gets it.
    pub fn prove(self: &Rc<Self>) {
        let is_waiting = self.space.borrow().waits_for_proof(self.proved.get());
        let is_idle = self.log.borrow().is_idle() && self.flight.len() == 0;
        if is_waiting && is_idle && !self.closing.get() && self.journal(&Record::default()).is_ok()
        {
            self.log.borrow_mut().is_due = true;
            self.work.notify();
        }
    }

    /// Writes everything that is queued, whoever else should have.
    #[cfg(test)]
    pub async fn write_all(self: &Rc<Self>) -> Result<(), Errno> {
        loop {
            let flying: Vec<_> = self.flight.groups.borrow().iter().cloned().collect();
            for flying in flying {
                flying
                    .landed
                    .set(Some(self.write_group(&flying.sealed).await?));
            }
            self.land();
            let Some(sealed) = self.log.borrow_mut().pop(true) else {
                return Ok(());
            };
            self.flight.take_off(sealed.0);
        }
    }
}
