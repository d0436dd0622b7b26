//! Reply slots, pure: which request occupies each tag of a client, and the
//! answer that was given, so that an operation takes effect once whatever is
//! resent. Over a restart the reply record on flash takes their place.

use crate::base::{Tag, Transno, Xid};
use crate::wire::{Granted, Reply};
use std::rc::Rc;

/// An answer that can be given again: of an operation that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub transno: Transno,
    pub reply: Reply,
    pub granted: Granted,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    xid: Xid,
    running: bool,
    /// `None`: it changed nothing, so it is simply run again.
    answer: Option<Rc<Answer>>,
}

/// What an arriving request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Not known here: run it (after a look at the reply record, if resent).
    New,
    /// It is running: its answer goes to the newest connection.
    Running,
    /// It was answered; the answer again.
    Answered(Rc<Answer>),
    /// A later request has taken its slot: nobody waits for it.
    Stale,
    /// The client uses a slot twice, or one it does not have.
    Misuse(&'static str),
}

/// The slots of one client.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Slot>,
}

impl Slots {
    #[must_use]
    pub fn new(tags: u16) -> Slots {
        Slots {
            slots: vec![Slot::default(); usize::from(tags)],
        }
    }

    /// A request arrives in slot `tag`; if it is to be run, it occupies it.
    pub fn on_request(&mut self, tag: Tag, xid: Xid, resent: bool) -> Arrived {
        let Some(slot) = self.slots.get_mut(usize::from(tag.0)) else {
            return Arrived::Misuse("a reply slot that was not granted");
        };
        if xid < slot.xid {
            return Arrived::Stale;
        }
        if xid == slot.xid {
            return match (&slot.answer, slot.running, resent) {
                (_, _, false) => Arrived::Misuse("a request sent twice and not marked resent"),
                (_, true, true) => Arrived::Running,
                (Some(answer), false, true) => Arrived::Answered(Rc::clone(answer)),
                (None, false, true) => {
                    slot.running = true;
                    Arrived::New
                }
            };
        }
        if slot.running {
            return Arrived::Misuse("a reply slot that is in use");
        }
        *slot = Slot {
            xid,
            running: true,
            answer: None,
        };
        Arrived::New
    }

    /// The request in slot `tag` has been answered.
    pub fn on_answer(&mut self, tag: Tag, xid: Xid, answer: Option<Rc<Answer>>) {
        if let Some(slot) = self.slots.get_mut(usize::from(tag.0))
            && slot.xid == xid
        {
            slot.running = false;
            slot.answer = answer;
        }
    }

    /// Slots that the client was granted.
    #[must_use]
    pub fn tags(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    #[must_use]
    pub fn running(&self) -> usize {
        self.slots.iter().filter(|slot| slot.running).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::op::Empty;

    fn answer(transno: u64) -> Rc<Answer> {
        Rc::new(Answer {
            transno: Transno(transno),
            reply: Reply::Done(Empty {}),
            granted: Granted::default(),
        })
    }

    /// Every state of a slot against every kind of arrival.
    #[test]
    fn each_state_meets_each_arrival() {
        let states = ["free", "running", "answered", "read"];
        let arrivals = [(4, true), (5, false), (5, true), (6, false), (6, true)];
        let mut table = String::new();
        for state in states {
            for (xid, resent) in arrivals {
                let mut slots = Slots::new(1);
                if state != "free" {
                    slots.on_request(Tag(0), Xid(5), false);
                }
                match state {
                    "answered" => slots.on_answer(Tag(0), Xid(5), Some(answer(9))),
                    "read" => slots.on_answer(Tag(0), Xid(5), None),
                    _ => {}
                }
                let got = match slots.on_request(Tag(0), Xid(xid), resent) {
                    Arrived::New => "new",
                    Arrived::Running => "running",
                    Arrived::Answered(_) => "answered",
                    Arrived::Stale => "stale",
                    Arrived::Misuse(_) => "misuse",
                };
                table.push_str(&format!("{state} {xid} {resent}: {got}\n"));
            }
        }
        let expected = "free 4 true: new\nfree 5 false: new\nfree 5 true: new\n\
            free 6 false: new\nfree 6 true: new\n\
            running 4 true: stale\nrunning 5 false: misuse\nrunning 5 true: running\n\
            running 6 false: misuse\nrunning 6 true: misuse\n\
            answered 4 true: stale\nanswered 5 false: misuse\nanswered 5 true: answered\n\
            answered 6 false: new\nanswered 6 true: new\n\
            read 4 true: stale\nread 5 false: misuse\nread 5 true: new\n\
            read 6 false: new\nread 6 true: new\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_late_answer_does_not_touch_the_next_request() {
        let mut slots = Slots::new(2);
        slots.on_request(Tag(1), Xid(3), false);
        slots.on_answer(Tag(1), Xid(2), Some(answer(1)));
        assert_eq!(slots.on_request(Tag(1), Xid(3), true), Arrived::Running);
        assert_eq!(slots.running(), 1);
        assert!(matches!(
            slots.on_request(Tag(2), Xid(4), false),
            Arrived::Misuse(_)
        ));
    }
}
