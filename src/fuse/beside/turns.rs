//! Whether one process and the mount take turns, pure.

use crate::base::Mono;
use std::time::Duration;

/// So many requests of one caller in a row, each alone, are turns.
const TURNS: u32 = 16;
/// Those must have come within this time: what waits for the box or computes
/// between its calls gains nothing.
const SOON: Duration = Duration::from_millis(4);
/// A request with more bytes takes longer than the waking of a CPU, and what
/// follows from it can go on beside the caller.
const BYTES_MAX: usize = 64 << 10;
/// A close may be under way from the call before; nobody waits for it.
const OTHERS_MAX: usize = 1;

/// A request of the kernel, as far as it counts here.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The thread; 0: nobody waits for the answer.
    pub caller: u32,
    /// Requests that were unanswered when it came.
    pub others: usize,
    /// How many it brings, or asks for.
    pub bytes: usize,
}

/// Where the mount should run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    Stay,
    /// Beside the caller, wherever that is by now.
    Join,
    /// By itself.
    Part,
}

#[derive(Debug, Default)]
pub struct Turns {
    caller: u32,
    /// Turns since `begun`.
    count: u32,
    begun: Mono,
    is_beside: bool,
}

impl Turns {
    pub fn on_request(&mut self, asked: Asked, now: Mono) -> Advice {
        if asked.caller == 0 {
            return Advice::Stay;
        }
        let is_turn = asked.others <= OTHERS_MAX && asked.bytes <= BYTES_MAX;
        if !is_turn || asked.caller != self.caller || self.count == 0 {
            let goes_on = is_turn && asked.caller == self.caller && self.is_beside;
            self.caller = asked.caller;
            self.begun = now;
            self.count = u32::from(is_turn);
            return if goes_on { Advice::Stay } else { self.part() };
        }
        self.count += 1;
        if self.count <= TURNS {
            return Advice::Stay;
        }
        self.count = 0;
        if now - self.begun > SOON {
            return self.part();
        }
        self.is_beside = true;
        Advice::Join
    }

    /// The mount was put back where it came from.
    pub fn on_parted(&mut self) {
        *self = Turns::default();
    }

    fn part(&mut self) -> Advice {
        match std::mem::take(&mut self.is_beside) {
            true => Advice::Part,
            false => Advice::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(20);

    fn one(caller: u32) -> Asked {
        Asked {
            caller,
            others: 0,
            bytes: 0,
        }
    }

    /// The advice on each of `count` such requests, but for those to stay.
    fn ask(turns: &mut Turns, now: &mut Mono, asked: Asked, count: u32) -> Vec<Advice> {
        let mut given = Vec::new();
        for _ in 0..count {
            *now = *now + STEP;
            let advice = turns.on_request(asked, *now);
            given.extend((advice != Advice::Stay).then_some(advice));
        }
        given
    }

    #[test]
    fn one_caller_is_joined_and_followed() {
        let (mut turns, mut now) = (Turns::default(), Mono(0));
        assert_eq!(ask(&mut turns, &mut now, one(7), TURNS), []);
        assert_eq!(ask(&mut turns, &mut now, one(7), 1), [Advice::Join]);
        // Looked for again every so often.
        let more = ask(&mut turns, &mut now, one(7), 2 * (TURNS + 1));
        assert_eq!(more, [Advice::Join; 2]);
        // What nobody waits for changes nothing.
        assert_eq!(ask(&mut turns, &mut now, one(0), 3), []);
        assert_eq!(ask(&mut turns, &mut now, one(8), 1), [Advice::Part]);
        assert_eq!(ask(&mut turns, &mut now, one(8), TURNS), [Advice::Join]);
    }

    #[test]
    fn whoever_asks_much_at_once_is_left() {
        let deep = Asked {
            others: 2,
            ..one(7)
        };
        let large = Asked {
            bytes: BYTES_MAX + 1,
            ..one(7)
        };
        for other in [deep, large] {
            let (mut turns, mut now) = (Turns::default(), Mono(0));
            assert_eq!(ask(&mut turns, &mut now, other, 99), []);
            let joined = ask(&mut turns, &mut now, one(7), TURNS + 1);
            assert_eq!(joined, [Advice::Join]);
            assert_eq!(ask(&mut turns, &mut now, other, 99), [Advice::Part]);
        }
    }

    #[test]
    fn whoever_does_other_things_between_calls_is_left() {
        let (mut turns, mut now) = (Turns::default(), Mono(0));
        let joined = ask(&mut turns, &mut now, one(7), TURNS + 1);
        assert_eq!(joined, [Advice::Join]);
        let mut slow = Vec::new();
        for _ in 0..2 * (TURNS + 1) {
            now = now + SOON / TURNS;
            slow.extend(ask(&mut turns, &mut now, one(7), 1));
        }
        assert_eq!(slow, [Advice::Part]);
    }

    #[test]
    fn two_that_take_turns_with_each_other_are_left_alone() {
        let (mut turns, mut now) = (Turns::default(), Mono(0));
        for _ in 0..99 {
            assert_eq!(ask(&mut turns, &mut now, one(7), 3), []);
            assert_eq!(ask(&mut turns, &mut now, one(8), 3), []);
        }
    }

    #[test]
    fn who_was_put_back_begins_anew() {
        let (mut turns, mut now) = (Turns::default(), Mono(0));
        let joined = ask(&mut turns, &mut now, one(7), TURNS + 1);
        assert_eq!(joined, [Advice::Join]);
        turns.on_parted();
        assert_eq!(ask(&mut turns, &mut now, one(8), 1), [], "it is apart");
        assert_eq!(ask(&mut turns, &mut now, one(8), TURNS), [Advice::Join]);
    }
}
