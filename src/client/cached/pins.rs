//! Locks that are not given up yet although they are called back, pure: those
//! that came with the bytes of pages. Two clients that fill the same page, one
//! of them to store to it, would else take the lock from each other before
//! either has used it, and ask again, for ever: the callback for the one that
//! waits comes with the grant. So whoever has waited for a lock fills its pages
//! under it, and whoever waits for those has a moment to look at them.
//!
//! Architecture invariant: what a pin waits for is done here, without the box:
//! the answer to one READ is given to the kernel.

use crate::base::{Bits, LockId, Mono};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long filled pages stay, at least. GFS2 has its glocks held for a while
/// for the same reason; here it is what a thread needs to wake and copy.
pub const HOLD: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub struct Pins {
    pins: BTreeMap<LockId, Pin>,
}

#[derive(Debug)]
struct Pin {
    /// What whoever fills the pages calls that.
    fill: u64,
    /// Set when they are filled.
    until: Option<Mono>,
    /// To be given up then.
    called: Bits,
}

/// What a callback for a pinned lock waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The pages are being filled, or it is waited for already.
    Fill,
    /// The time is to be waited for.
    Until(Mono),
}

impl Pins {
    /// `lock` has come with the answer that fills pages; `called`: what of it
    /// was called back before.
    pub fn pin(&mut self, lock: LockId, fill: u64, called: Bits) {
        let until = None;
        let pin = Pin {
            fill,
            until,
            called,
        };
        self.pins.insert(lock, pin);
    }

    /// Is there a lock that came with the answer to this fill, which is not over?
    /// One that is asked again needs another: it may be for more by then (C6).
    #[must_use]
    pub fn has(&self, fill: u64) -> bool {
        let mut pins = self.pins.values();
        pins.any(|pin| pin.fill == fill && pin.until.is_none())
    }

    /// `bits` of a lock are called back: what they wait for, if for anything.
    pub fn on_called(&mut self, lock: LockId, bits: Bits, now: Mono) -> Option<Waits> {
        let pin = self.pins.get_mut(&lock)?;
        let is_waited_for = !pin.called.is_empty();
        let waits = match pin.until {
            Some(until) if until <= now && !is_waited_for => {
                self.pins.remove(&lock);
                return None;
            }
            Some(until) if !is_waited_for => Waits::Until(until),
            _ => Waits::Fill,
        };
        pin.called = pin.called.with(bits);
        Some(waits)
    }

    /// The pages are filled. The locks that were called back meanwhile; their
    /// time is to be waited for.
    pub fn on_filled(&mut self, fill: u64, now: Mono) -> Vec<LockId> {
        let is_over = |pin: &Pin| pin.until.is_some_and(|until| until <= now);
        self.pins
            .retain(|_, pin| !is_over(pin) || !pin.called.is_empty());
        let mut called = Vec::new();
        for (lock, pin) in &mut self.pins {
            if pin.fill == fill && pin.until.is_none() {
                pin.until = Some(now + HOLD);
                if !pin.called.is_empty() {
                    called.push(*lock);
                }
            }
        }
        called
    }

    /// The lock is pinned no longer: what of it was called back.
    pub fn unpin(&mut self, lock: LockId) -> Bits {
        let pin = self.pins.remove(&lock);
        pin.map_or(Bits::NONE, |pin| pin.called)
    }

    pub fn clear(&mut self) {
        self.pins.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: LockId = LockId(7);

    fn at(micros: u64) -> Mono {
        Mono(micros * 1000)
    }

    #[test]
    fn what_is_called_back_waits_for_its_pages_and_a_moment() {
        let mut pins = Pins::default();
        pins.pin(LOCK, 3, Bits::NONE);
        assert!(pins.has(3) && !pins.has(4));
        assert_eq!(pins.on_called(LOCK, Bits::DATA, at(0)), Some(Waits::Fill));
        assert!(pins.on_filled(4, at(1)).is_empty());
        assert_eq!(pins.on_filled(3, at(1)), [LOCK]);
        assert!(!pins.has(3), "it is over");
        assert!(pins.on_filled(3, at(2)).is_empty(), "once");
        // Asked again over a new connection: it is waited for already.
        assert_eq!(pins.on_called(LOCK, Bits::ALL, at(5000)), Some(Waits::Fill));
        assert_eq!(pins.unpin(LOCK), Bits::ALL);
        assert_eq!(pins.on_called(LOCK, Bits::DATA, at(5000)), None);
        assert_eq!(pins.unpin(LOCK), Bits::NONE);
    }

    #[test]
    fn what_was_called_back_before_it_came_waits_too() {
        let mut pins = Pins::default();
        pins.pin(LOCK, 3, Bits::DATA);
        assert_eq!(pins.on_filled(3, at(1)), [LOCK]);
    }

    #[test]
    fn who_is_called_back_later_waits_for_what_is_left_of_the_moment() {
        let mut pins = Pins::default();
        pins.pin(LOCK, 3, Bits::NONE);
        assert!(pins.on_filled(3, at(0)).is_empty());
        let until = Waits::Until(at(1000));
        assert_eq!(pins.on_called(LOCK, Bits::DATA, at(999)), Some(until));
        assert_eq!(pins.on_called(LOCK, Bits::DATA, at(999)), Some(Waits::Fill));
        pins.pin(LockId(8), 4, Bits::NONE);
        assert!(pins.on_filled(4, at(0)).is_empty());
        assert_eq!(pins.on_called(LockId(8), Bits::DATA, at(1000)), None);
    }

    #[test]
    fn pins_that_are_over_are_forgotten() {
        let mut pins = Pins::default();
        for n in 0..9 {
            pins.pin(LockId(n), n, Bits::NONE);
            pins.on_filled(n, at(n * 2000));
        }
        assert_eq!(pins.pins.len(), 1);
    }
}
