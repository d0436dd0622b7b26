//! How much a client has answered ahead of the box, bounded by the box's promise
//! of room (L4): what exceeds it ends when something before it was answered.

use super::call::Pending;
use crate::wire::head::spends;
use std::collections::VecDeque;
use std::rc::Rc;

/// Flash that answered requests may take at most, whatever is promised: so long
/// does who wants a lock of this client's wait for what it answered.
const SPENT_MAX: u64 = 8 << 20;

#[derive(Default)]
pub struct Window {
    granted: u64,
    /// By requests whose callers have their answers.
    spent: u64,
    /// Those whose callers wait, in their order.
    waiting: VecDeque<Rc<Pending>>,
}

impl Window {
    /// Is there any room for a request with so many bytes?
    #[must_use]
    pub fn takes(&self, bytes: usize) -> bool {
        spends(bytes) <= self.max()
    }

    /// The box promises so much from now on.
    pub fn on_grant(&mut self, bytes: u64) {
        self.granted = bytes;
        self.advance();
    }

    /// What the box is told: what may still be used.
    #[must_use]
    pub fn claimed(&self) -> u64 {
        self.granted.max(self.spent)
    }

    /// Does a caller wait for room?
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A request is answered ahead with what its `later` says.
    pub fn enter(&mut self, pending: &Rc<Pending>) {
        self.waiting.push_back(Rc::clone(pending));
        self.advance();
    }

    /// One that was answered has grown; false: there is no room for that.
    pub fn grow(&mut self, from: usize, to: usize) -> bool {
        let more = spends(to).saturating_sub(spends(from));
        let is_fit = self.spent + more <= self.max();
        if is_fit {
            self.spent += more;
        }
        is_fit
    }

    /// The box has answered it.
    pub fn leave(&mut self, pending: &Rc<Pending>) {
        if pending.later.take().is_some() {
            self.waiting.retain(|other| !Rc::ptr_eq(other, pending));
        } else {
            self.spent = self.spent.saturating_sub(spends(pending.bytes()));
        }
        self.advance();
    }

    /// The box has thrown the client out: nothing is under way, or promised.
    pub fn clear(&mut self) {
        *self = Window::default();
    }

    fn advance(&mut self) {
        while let Some(first) = self.waiting.front() {
            let spends = spends(first.bytes());
            if self.spent > 0 && self.spent + spends > self.max() {
                return;
            }
            self.spent += spends;
            if let Some(outcome) = first.later.take() {
                first.finish(outcome);
            }
            self.waiting.pop_front();
        }
    }

    fn max(&self) -> u64 {
        self.granted.min(SPENT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::call::{Context, Cred};
    use crate::wire::op::Empty;
    use crate::wire::{Reply, Request};

    fn pending() -> Rc<Pending> {
        let nobody = Context::new(Rc::new(Cred::default()));
        let pending = Pending::new(&nobody, Request::Ping(Empty {}), None);
        *pending.later.borrow_mut() = Some(Ok((Reply::Done(Empty {}), None)));
        pending
    }

    fn is_answered(pending: &Pending) -> bool {
        pending.outcome.borrow().is_some()
    }

    #[test]
    fn no_more_is_answered_than_was_promised() {
        let mut window = Window::default();
        assert!(!window.takes(0), "nothing was promised");
        window.on_grant(2 * spends(0));
        let all: Vec<_> = (0..4).map(|_| pending()).collect();
        all.iter().for_each(|p| window.enter(p));
        assert_eq!(
            all.iter().map(|p| is_answered(p)).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        window.leave(&all[0]);
        assert!(is_answered(&all[2]) && !is_answered(&all[3]));
        window.on_grant(0);
        assert_eq!(window.claimed(), 2 * spends(0), "until that is answered");
        assert!(!window.takes(0));
        // The box may answer first who still waits.
        window.leave(&all[3]);
        assert!(window.waiting.is_empty());
        window.leave(&all[1]);
        window.leave(&all[2]);
        assert_eq!(window.claimed(), 0);
    }

    #[test]
    fn a_smaller_promise_lets_no_caller_wait_for_ever() {
        let mut window = Window::default();
        window.on_grant(spends(0));
        let (first, second) = (pending(), pending());
        window.enter(&first);
        window.enter(&second);
        window.on_grant(0);
        assert!(!is_answered(&second));
        window.leave(&first);
        assert!(is_answered(&second), "it is on its way alone");
    }
}
