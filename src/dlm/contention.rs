//! Which files are fought over. A lock on such a file is called back before it
//! was of use, so the server does the operation itself and hands over nothing.
//!
//! Kept apart from the locks: where only operations meet there is no lock
//! between two of them, and their conflicts count all the same. Bounded, and
//! forgotten by age, so files cost nothing for having been busy once.

use super::bounds::{CONFLICTS_MAX, CONTENDED, HOLD_OFF, REMEMBERED_MAX, WINDOW, is_past};
use super::conflict::Shape;
use crate::base::{Bits, Fid, Mono};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Contention {
    files: BTreeMap<Fid, Window>,
    by_age: BTreeSet<(Mono, Fid)>,
}

/// What is remembered of one file.
#[derive(Debug)]
struct Window {
    touched: Mono,
    /// When the latest conflicting requests came, as a ring.
    requests: [Option<Mono>; CONFLICTS_MAX],
    next: usize,
    /// When there were too many within the window for the last time.
    contended: Option<Mono>,
    /// When each bit was called back last, ...
    called: [Option<Mono>; BITS],
    /// ... and last soon after it had been before.
    again: [Option<Mono>; BITS],
}

const BITS: usize = Bits::ALL.set.count_ones() as usize;

impl Contention {
    /// Somebody asked for what another has or waits for.
    pub fn on_conflict(&mut self, now: Mono, fid: Fid) {
        let window = self.touch(now, fid);
        // The one that is overwritten came CONFLICTS_MAX requests ago.
        let before = window.requests[window.next].replace(now);
        window.next = (window.next + 1) % CONFLICTS_MAX;
        if before.is_some_and(|t| !is_past(now, t, WINDOW)) {
            window.contended = Some(now);
        }
    }

    /// `bits` of a lock were called back.
    pub fn on_callback(&mut self, now: Mono, fid: Fid, bits: Bits) {
        let window = self.touch(now, fid);
        for (bit, called) in window.called.iter_mut().enumerate() {
            if bits.set & (1 << bit) != 0 {
                if called.is_some_and(|t| !is_past(now, t, HOLD_OFF * 2)) {
                    window.again[bit] = Some(now);
                }
                *called = Some(now);
            }
        }
    }

    #[must_use]
    pub fn is_contended(&self, now: Mono, fid: Fid) -> bool {
        let since = self.files.get(&fid).and_then(|w| w.contended);
        since.is_some_and(|t| !is_past(now, t, CONTENDED))
    }

    /// Does it not pay to hand this over, though nobody is in the way?
    #[must_use]
    pub fn is_spared(&self, now: Mono, fid: Fid, shape: &Shape) -> bool {
        let bits = match shape.writes_data() {
            true => shape.bits.with(Bits::UPDATE),
            false => shape.bits,
        };
        self.is_contended(now, fid) || !self.held_off(now, fid).and(bits).is_empty()
    }

    /// The bits that were called back just now.
    fn held_off(&self, now: Mono, fid: Fid) -> Bits {
        let window = self.files.get(&fid);
        window.map_or(Bits::NONE, |window| just_now(now, &window.called))
    }

    /// The bits that were called back just now, and soon before: who is given
    /// them beside what it asked for would be called back for them once more.
    #[must_use]
    pub fn fought_over(&self, now: Mono, fid: Fid) -> Bits {
        let window = self.files.get(&fid);
        window.map_or(Bits::NONE, |window| just_now(now, &window.again))
    }

    /// Files remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Forgets what no longer has a meaning.
    pub fn expire(&mut self, now: Mono) {
        while let Some((touched, fid)) = self.by_age.first().copied() {
            if !is_past(now, touched, CONTENDED) {
                break;
            }
            self.forget(touched, fid);
        }
    }

    fn forget(&mut self, touched: Mono, fid: Fid) {
        self.by_age.remove(&(touched, fid));
        self.files.remove(&fid);
    }

    fn touch(&mut self, now: Mono, fid: Fid) -> &mut Window {
        self.expire(now);
        if let Some(window) = self.files.get(&fid) {
            self.by_age.remove(&(window.touched, fid));
        } else if self.files.len() >= REMEMBERED_MAX
            && let Some((touched, oldest)) = self.by_age.first().copied()
        {
            self.forget(touched, oldest);
        }
        self.by_age.insert((now, fid));
        let window = self.files.entry(fid).or_insert(Window {
            touched: now,
            requests: [None; CONFLICTS_MAX],
            next: 0,
            contended: None,
            called: [None; BITS],
            again: [None; BITS],
        });
        window.touched = now;
        window
    }
}

fn just_now(now: Mono, called: &[Option<Mono>; BITS]) -> Bits {
    let is_recent = |called: Option<Mono>| called.is_some_and(|t| !is_past(now, t, HOLD_OFF));
    let bits = (0..BITS).filter(|bit| is_recent(called[*bit]));
    Bits {
        set: bits.map(|bit| 1 << bit).sum(),
    }
}
