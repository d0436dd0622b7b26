//! The changes that were answered ahead of the box and have not been sent, in
//! their order. They wait a moment for more, unless somebody waits for them or a
//! file is closed: one send takes them all, and the next change of the same file may go with the
//! last one ([`merge`](super::merge)), so that one request does both.
//!
//! What is merged takes the place of the earlier of the two. That passes only
//! changes that touch none of its files, and nobody but this client, which knows
//! both, can tell: others see none of it until all has been done.

use super::call::{Order, Part, Pending};
use super::merge;
use super::window::Window;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// How long changes wait for more of them: some hundred fit in, and whoever
/// wants them at the box has them sent at once.
pub const MOMENT: Duration = Duration::from_millis(1);

/// So many wait for no more.
const FILLED: usize = 128;

/// Changes that are looked at for the last one of a file.
const LOOKED_AT: usize = 32;

/// Changes in one request: an eviction names each.
const PARTS_MAX: usize = 256;

#[derive(Default)]
pub struct Unsent {
    changes: VecDeque<Rc<Pending>>,
    /// Those queued up to this number have waited long enough.
    due: u64,
}

impl Unsent {
    pub fn push(&mut self, pending: &Rc<Pending>) {
        self.changes.push_back(Rc::clone(pending));
    }

    #[must_use]
    pub fn front(&self) -> Option<&Rc<Pending>> {
        self.changes.front()
    }

    pub fn pop_front(&mut self) -> Option<Rc<Pending>> {
        self.changes.pop_front()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rc<Pending>> {
        self.changes.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// All that are here are to be sent now.
    pub fn press(&mut self) {
        let newest = self.changes.back().map(|pending| pending.queued.get());
        self.due = newest.unwrap_or(self.due);
    }

    /// Do the first of them wait for more?
    #[must_use]
    pub fn waits_for_more(&self) -> bool {
        let is_due = |first: &Rc<Pending>| first.queued.get() <= self.due;
        self.changes.len() < FILLED && self.front().is_some_and(|first| !is_due(first))
    }

    /// All of them; none is left.
    pub fn take(&mut self) -> VecDeque<Rc<Pending>> {
        std::mem::take(&mut self.changes)
    }

    /// Has `next` go with the last change of its file, if one request can do
    /// both: it is answered, for what it needs is in the window. `bytes_max`: the
    /// longest payload.
    pub fn merge(&self, next: &Pending, window: &mut Window, bytes_max: usize) -> bool {
        let Some(last) = self.last_of(next) else {
            return false;
        };
        let bytes = last.bytes() + next.bytes();
        let is_fit = bytes <= bytes_max && last.parts.borrow().len() < PARTS_MAX;
        // Who still waits for the first cannot be passed by who makes the second.
        let is_answered = last.later.borrow().is_none();
        if !is_fit || !is_answered || !is_alike(last, next) {
            return false;
        }
        let both = {
            let (first, then) = (last.request.borrow(), next.request.borrow());
            merge::merged(&first, last.bytes(), &then)
        };
        let Some(both) = both else {
            return false;
        };
        if !window.grow(last.bytes(), bytes) {
            return false;
        }
        let mut parts = last.parts.borrow_mut();
        if parts.is_empty() {
            parts.push(Part::of(last));
        }
        parts.push(Part::of(next));
        drop(parts);
        *last.request.borrow_mut() = both;
        last.bytes.set(bytes);
        last.order.set(next.order.get());
        last.touched.borrow_mut().extend(next.touched.take());
        let mut asked = last.asked.borrow_mut();
        asked.cancels.append(&mut next.asked.borrow_mut().cancels);
        true
    }

    /// The last change that touches any file that `next` touches.
    fn last_of(&self, next: &Pending) -> Option<&Rc<Pending>> {
        let touched = next.touched.borrow();
        let is_one = |fid: &crate::base::Fid| touched.contains(fid);
        let mut last = self.changes.iter().rev().take(LOOKED_AT);
        last.find(|pending| pending.touched.borrow().iter().any(is_one))
    }
}

/// Are both of one caller, who asks for them in one way?
fn is_alike(one: &Pending, two: &Pending) -> bool {
    let (a, b) = (&one.context, &two.context);
    let is_ahead = |pending: &Pending| matches!(pending.order.get(), Order::Ahead(_));
    let is_caller = Rc::ptr_eq(&a.cred, &b.cred) || a.cred == b.cred;
    let is_way = (a.flags, a.owner, a.owner_kind) == (b.flags, b.owner, b.owner_kind);
    is_ahead(one) && is_ahead(two) && is_caller && is_way
}

#[cfg(test)]
mod tests;
