//! Random histories, step by step against the naive table: the same answers,
//! the same events in the same order, the same list of locks; and what must
//! hold at every step, asked of the list.

use super::naive::{Naive, conflict};
use super::{at, ms};
use crate::base::{Bits, Fid, LockId, Mode, Mono};
use crate::dlm::bounds::{ANSWER, Limits, OWN};
use crate::dlm::{Claim, Event, Growth, Holder, Listed, Shape, Table, Want, is_own};
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    locks_max: 40,
    locks_soft: 30,
    holder_max: 14,
};

#[derive(Clone, Debug)]
enum Step {
    Ask(Holder, Want),
    Cancel(Holder, LockId, Bits),
    Convert(Holder, LockId, Mode),
    Claim(Holder, Claim, bool),
    Drop(Holder),
    Progress(Holder, Option<Fid>),
    Told(Holder, LockId, u64),
    /// Answers all callbacks of a holder, as a client does.
    Answer(Holder),
    /// The shard's operations end.
    Finish(Holder),
}

proptest! {
    #[test]
    fn the_table_does_what_lists_do_l1(
        steps in prop::collection::vec((pause(), step()), 1..90),
    ) {
        run(LIMITS, steps);
    }

    /// Everybody wants the same: deep queues, growth, contention.
    #[test]
    fn the_table_does_what_lists_do_on_one_busy_file_l1(
        steps in prop::collection::vec((pause(), busy()), 1..120),
    ) {
        run(LIMITS, steps);
    }
}

fn run(limits: Limits, steps: Vec<(u64, Step)>) {
    let mut table = Table::new(limits);
    let mut naive = Naive::new(limits, ANSWER);
    let mut now = 0;
    for (pause, step) in steps {
        now += pause;
        take(&mut table, &mut naive, ms(now), &step);
        agree(&mut table, &mut naive, ms(now));
    }
    everything_ends(&mut table, &mut naive, ms(now));
}

fn take(table: &mut Table, naive: &mut Naive, now: Mono, step: &Step) {
    match step {
        Step::Ask(holder, want) => {
            let conflicts = table.conflicts(*holder, want.fid, want.mode, want.bits, want.extent);
            let covers = table.covers(*holder, want.fid, want.mode, want.bits, want.extent);
            if want.group == 0 {
                let plain = Want {
                    lock: LockId(OWN | 99),
                    ahead: false,
                    ..*want
                };
                assert_eq!(conflicts, naive.is_in_conflict(*holder, &plain), "{step:?}");
                assert_eq!(covers, naive.is_covered(*holder, &plain), "{step:?}");
            }
            let out = match is_own(want.lock) {
                true => table.enqueue_own(now, *holder, want),
                false => table.enqueue(now, *holder, want),
            };
            assert_eq!(out, naive.enqueue(now, *holder, *want), "{step:?}");
        }
        Step::Cancel(holder, lock, bits) => {
            let out = table.cancel(now, *holder, *lock, *bits);
            assert_eq!(out, naive.cancel(now, *holder, *lock, *bits), "{step:?}");
        }
        Step::Convert(holder, lock, mode) => {
            let out = table.convert(now, *holder, *lock, *mode);
            assert_eq!(out, naive.convert(now, *holder, *lock, *mode), "{step:?}");
        }
        Step::Claim(holder, claim, is_current) => {
            let out = table.claim(now, *holder, claim, *is_current);
            let expected = naive.claim(now, *holder, claim, *is_current);
            assert_eq!(out, expected, "{step:?}");
        }
        Step::Drop(holder) => {
            table.drop_holder(now, *holder);
            naive.drop_holder(now, *holder);
        }
        Step::Progress(holder, of) => {
            table.progress(now, *holder, *of);
            naive.progress(now, *holder, *of);
        }
        Step::Told(holder, lock, size) => {
            table.told(now, *holder, *lock, *size);
            naive.told(now, *holder, *lock, *size);
        }
        Step::Answer(holder) => {
            for call in table.unanswered(*holder) {
                let size = call.growth.size;
                take(table, naive, now, &Step::Told(*holder, call.lock, size));
                let was = table.cancel(now, *holder, call.lock, call.bits);
                assert_eq!(was, naive.cancel(now, *holder, call.lock, call.bits));
            }
        }
        Step::Finish(holder) => {
            for n in 0..3 {
                let lock = LockId(OWN | n);
                let was = table.cancel_own(now, *holder, lock);
                assert_eq!(was, naive.cancel(now, *holder, lock, Bits::ALL));
            }
        }
    }
}

fn agree(table: &mut Table, naive: &mut Naive, now: Mono) {
    let events: Vec<Event> = table.events().collect();
    assert_eq!(events, std::mem::take(&mut naive.events));
    let listed: Vec<Listed> = table.locks().collect();
    assert_eq!(listed, naive.listed());
    assert_eq!(table.len(), listed.len());
    assert_eq!(table.next_deadline(), naive.next_deadline());
    assert_eq!(table.overdue(now), naive.overdue(now));
    for holder in holders() {
        assert_eq!(table.unanswered(holder), naive.unanswered(holder));
    }
    for fid in files() {
        assert_eq!(table.is_contended(now, fid), naive.contended(now, fid));
    }
    no_two_are_incompatible(&listed);
    whoever_waits_has_a_reason(&listed);
}

fn shape(line: &Listed) -> Shape {
    Shape {
        mode: line.grant.mode,
        bits: line.grant.bits,
        extent: line.grant.extent,
        group: line.group,
    }
}

fn meet(a: &Listed, b: &Listed) -> bool {
    a.holder != b.holder && a.grant.fid == b.grant.fid && conflict(&shape(a), &shape(b))
}

fn no_two_are_incompatible(listed: &[Listed]) {
    let granted: Vec<&Listed> = listed.iter().filter(|l| l.is_granted).collect();
    for (n, a) in granted.iter().enumerate() {
        for b in &granted[..n] {
            assert!(!meet(a, b), "{a:?} {b:?}");
        }
    }
}

/// Somebody is in its way; and every client's lock in its way was called back
/// for that bit, so that the wait has an end.
fn whoever_waits_has_a_reason(listed: &[Listed]) {
    for (n, waiter) in listed.iter().enumerate().filter(|(_, l)| !l.is_granted) {
        assert!(listed[..n].iter().any(|l| meet(l, waiter)), "{waiter:?}");
        for lock in listed.iter().filter(|l| l.is_granted && meet(l, waiter)) {
            let bits = shape(lock).in_way(&shape(waiter));
            let is_called = lock.called.has(bits) || is_own(lock.grant.lock);
            assert!(is_called, "{lock:?} {waiter:?}");
        }
    }
}

/// If all answer, all who wait are granted; and then nothing is left of it.
fn everything_ends(table: &mut Table, naive: &mut Naive, now: Mono) {
    for _ in 0..100 {
        for holder in holders() {
            take(table, naive, now, &Step::Answer(holder));
            for line in table.locks().collect::<Vec<_>>() {
                if line.is_granted && line.holder == holder && is_own(line.grant.lock) {
                    assert!(table.cancel_own(now, holder, line.grant.lock));
                    naive.cancel(now, holder, line.grant.lock, Bits::ALL);
                }
            }
        }
        agree(table, naive, now);
    }
    assert!(table.locks().all(|l| l.is_granted), "{:?}", naive.listed());
    assert_eq!(table.next_deadline(), None);
    for line in table.locks().collect::<Vec<_>>() {
        assert!(table.cancel(now, line.holder, line.grant.lock, Bits::ALL));
    }
    assert!(table.is_empty());
    assert_eq!(table.resources(), 0);
    assert_eq!(table.locks().count(), 0);
}

fn holders() -> impl Iterator<Item = Holder> {
    (0..4).map(Holder)
}

fn files() -> impl Iterator<Item = Fid> {
    (0..2).map(|n| Fid::new(9, n))
}

fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0u64), 3 => 1..400u64, 1 => 400..6_000u64, 1 => Just(31_000)]
}

fn step() -> impl Strategy<Value = Step> {
    let holder = || (0..4u64).prop_map(Holder);
    let lock = || (0..6u64).prop_map(LockId);
    let claim = (holder(), asked(2, 6), any::<bool>()).prop_filter_map(
        "clients claim",
        |(holder, want, is_current)| {
            let claim = Claim {
                lock: want.lock,
                fid: want.fid,
                mode: want.mode,
                bits: want.bits,
                extent: want.extent,
                group: want.group,
            };
            let fits = !is_own(want.lock) && !want.bits.is_empty();
            fits.then_some(Step::Claim(holder, claim, is_current))
        },
    );
    prop_oneof![
        10 => (holder(), asked(2, 6)).prop_map(|(h, w)| Step::Ask(h, w)),
        3 => (holder(), lock(), bits()).prop_map(|(h, l, b)| Step::Cancel(h, l, b)),
        2 => (holder(), lock()).prop_map(|(h, l)| Step::Cancel(h, l, Bits::ALL)),
        2 => (holder(), lock(), mode()).prop_map(|(h, l, m)| Step::Convert(h, l, m)),
        1 => claim,
        1 => holder().prop_map(Step::Drop),
        1 => (holder(), 0..3u32).prop_map(|(h, n)| {
            Step::Progress(h, (n < 2).then(|| Fid::new(9, n)))
        }),
        1 => (holder(), lock(), 0..4u64).prop_map(|(h, l, n)| Step::Told(h, l, n)),
        2 => holder().prop_map(Step::Answer),
        2 => holder().prop_map(Step::Finish),
    ]
}

fn busy() -> impl Strategy<Value = Step> {
    let holder = || (0..4u64).prop_map(Holder);
    let lock = || (0..20u64).prop_map(LockId);
    prop_oneof![
        12 => (holder(), asked(1, 20)).prop_map(|(h, w)| Step::Ask(h, w)),
        3 => (holder(), lock(), bits()).prop_map(|(h, l, b)| Step::Cancel(h, l, b)),
        1 => (holder(), lock(), mode()).prop_map(|(h, l, m)| Step::Convert(h, l, m)),
        1 => (holder(), lock(), 0..4u64).prop_map(|(h, l, n)| Step::Told(h, l, n)),
        1 => holder().prop_map(Step::Answer),
        1 => holder().prop_map(Step::Finish),
    ]
}

fn asked(files: u32, ids: u64) -> impl Strategy<Value = Want> {
    let lock =
        prop_oneof![5 => (0..ids).prop_map(LockId), 1 => (0..3u64).prop_map(|n| LockId(OWN | n))];
    let rare = || prop::bool::weighted(0.15);
    let often = || prop::bool::weighted(0.8);
    let tried = prop_oneof![3 => Just(Bits::NONE), 1 => bits()];
    let needed = prop_oneof![9 => bits(), 1 => Just(Bits::NONE)];
    let what = (lock, 0..files, mode(), needed, tried);
    let how = (
        0..14u64,
        0..4u64,
        any::<bool>(),
        often(),
        rare(),
        rare(),
        0..3u32,
        prop_oneof![3 => Just(0), 1 => 1..4u64],
    );
    (what, how).prop_map(|((lock, file, mode, bits, try_bits), how)| {
        let (start, len, expand, wait, discretionary, ahead, group, size) = how;
        let is_group = mode == Mode::Group;
        Want {
            lock,
            fid: Fid::new(9, file),
            mode,
            bits,
            try_bits,
            extent: at(start, (start + len).min(15)),
            group: if is_group { group } else { 0 },
            expand,
            wait,
            discretionary,
            ahead,
            growth: Growth { size, last: 0 },
        }
    })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        5 => Just(Mode::Pr),
        4 => Just(Mode::Pw),
        3 => Just(Mode::Ex),
        2 => Just(Mode::Cw),
        2 => Just(Mode::Cr),
        1 => Just(Mode::Nl),
        1 => Just(Mode::Group),
    ]
}

fn bits() -> impl Strategy<Value = Bits> {
    prop_oneof![
        3 => Just(Bits::DATA),
        2 => Just(Bits::UPDATE),
        1 => Just(Bits::LOOKUP.with(Bits::UPDATE)),
        1 => Just(Bits::DATA.with(Bits::UPDATE)),
        1 => (1..128u64).prop_map(|set| Bits { set }),
    ]
}
