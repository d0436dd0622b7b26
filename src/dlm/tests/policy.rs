//! One test for each thing that the table decides.

use super::{A, B, C, FILE, WIDE, at, data, events, id, ms, own, want};
use crate::base::{Bits, Extent, Fid, LockId, Mode};
use crate::dlm::bounds::{FAR, REMEMBERED_MAX};
use crate::dlm::{
    Blocking, Claim, Event, Grant, Growth, Holder, Limits, Outcome, Refusal, Sole, Table, Want,
};
use std::time::Duration;

const BUSY: Outcome = Outcome::Nothing { contended: true };
const DECLINED: Outcome = Outcome::Nothing { contended: false };

#[track_caller]
fn granted(outcome: Outcome) -> Grant {
    match outcome {
        Outcome::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

fn called(table: &mut Table) -> Vec<(Holder, u64, Bits)> {
    let call = |event| match event {
        Event::Blocking(b) => Some((b.holder, b.lock.0, b.bits)),
        _ => None,
    };
    events(table).into_iter().filter_map(call).collect()
}

fn late_grants(table: &mut Table) -> Vec<(Holder, u64)> {
    let grant = |event| match event {
        Event::Granted { holder, grant } => Some((holder, grant.lock.0)),
        _ => None,
    };
    events(table).into_iter().filter_map(grant).collect()
}

fn expanding(n: u64, mode: Mode, start: u64, end: u64) -> Want {
    Want {
        expand: true,
        ..data(n, mode, start, end)
    }
}

fn maybe(n: u64, mode: Mode, bits: Bits) -> Want {
    Want {
        discretionary: true,
        ..want(n, mode, bits)
    }
}

#[test]
fn alone_an_extent_grows_to_the_whole_file_l1() {
    let mut table = Table::new(WIDE);
    let grant = granted(table.enqueue(ms(0), A, &expanding(1, Mode::Pw, 100, 200)));
    assert_eq!(grant.extent, Extent::ALL);
    // One's own locks are nobody's way.
    let grant = granted(table.enqueue(ms(0), A, &expanding(2, Mode::Pr, 5, 5)));
    assert_eq!(grant.extent, Extent::ALL);
}

#[test]
fn an_extent_grows_for_needed_data_only_l1() {
    let mut table = Table::new(WIDE);
    let mut open = expanding(1, Mode::Pr, 100, 200);
    (open.bits, open.try_bits) = (Bits::OPEN, Bits::DATA);
    let grant = granted(table.enqueue(ms(0), A, &open));
    assert_eq!(
        (grant.bits, grant.extent),
        (Bits::OPEN.with(Bits::DATA), at(100, 200))
    );
    let grant = granted(table.enqueue(ms(0), A, &data(2, Mode::Pr, 100, 200)));
    assert_eq!(grant.extent, at(100, 200));
}

#[test]
fn an_extent_grows_between_others_and_not_downward_l1() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), B, &data(1, Mode::Pw, 0, 9)));
    granted(table.enqueue(ms(0), C, &data(1, Mode::Pw, 1000, 1999)));
    let grant = granted(table.enqueue(ms(0), A, &expanding(1, Mode::Pw, 100, 200)));
    assert_eq!(grant.extent, at(100, 999));
    let grant = granted(table.enqueue(ms(0), A, &expanding(2, Mode::Pw, 5000, 5000)));
    assert_eq!(grant.extent, Extent::from(5000));
    // Those with whom it goes do not count.
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), B, &data(1, Mode::Pr, 0, 9)));
    let grant = granted(table.enqueue(ms(0), A, &expanding(1, Mode::Pr, 100, 200)));
    assert_eq!(grant.extent, Extent::ALL);
}

#[test]
fn a_few_waiters_bound_an_extent_and_more_keep_it_from_growing_downward_l1() {
    for (waiters, start) in [(1, 20), (4, 20), (5, 100)] {
        let mut table = Table::new(WIDE);
        // A's own lock keeps them all waiting, and does not count for A.
        granted(table.enqueue(ms(0), A, &data(1, Mode::Pw, 0, 19)));
        for n in 0..waiters {
            let out = table.enqueue(ms(0), Holder(10 + n), &data(1, Mode::Pr, 0, 19));
            assert_eq!(out, Outcome::Queued);
        }
        let grant = granted(table.enqueue(ms(0), A, &expanding(2, Mode::Pw, 100, 200)));
        assert_eq!(grant.extent, Extent::from(start), "{waiters} waiters");
    }
}

#[test]
fn among_many_a_writer_reaches_32_mib_and_a_reader_further_l1() {
    let far = 1 << 40;
    for (others, mode, end) in [
        (32, Mode::Pw, far - 1),
        (33, Mode::Pw, 1000 + FAR - 1),
        (33, Mode::Cw, far - 1),
        (33, Mode::Pr, far - 1),
    ] {
        let mut table = Table::new(WIDE);
        for n in 0..others {
            let want = data(1, Mode::Pw, far + n, far + n);
            granted(table.enqueue(ms(0), Holder(10 + n), &want));
        }
        let grant = granted(table.enqueue(ms(0), A, &expanding(1, mode, 1000, 1001)));
        let end = if mode == Mode::Cw {
            1000 + FAR - 1
        } else {
            end
        };
        assert_eq!(grant.extent, at(1000, end), "{others} others, {mode:?}");
        // Never less than what was asked for.
        let long = expanding(2, mode, 5000, 5000 + 2 * FAR);
        let grant = granted(table.enqueue(ms(0), A, &long));
        assert!(grant.extent.contains(long.extent));
    }
}

#[test]
fn sixteen_conflicts_in_four_seconds_are_borne_and_the_next_is_contention() {
    for (step, is_contended) in [(249, true), (251, false)] {
        let mut table = Table::new(WIDE);
        granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, Bits::UPDATE)));
        let mut ask = want(0, Mode::Pr, Bits::UPDATE);
        ask.wait = false;
        for n in 0..17u64 {
            assert!(!table.is_contended(ms(n * step), FILE), "{n}");
            ask.lock = LockId(n);
            let out = table.enqueue(ms(n * step), B, &ask);
            assert_eq!(out, Outcome::Refused(Refusal::WouldBlock));
        }
        let last = 16 * step;
        assert_eq!(table.is_contended(ms(last), FILE), is_contended);
        // On other bits, where nobody is in the way, nor was called back.
        let out = table.enqueue(ms(last), B, &maybe(90, Mode::Pr, Bits::XATTR));
        assert_eq!(out == BUSY, is_contended, "{out:?}");
        assert!(!table.is_contended(ms(last + 30_000), FILE));
        if is_contended {
            // What is needed is granted all the same.
            granted(table.enqueue(ms(last), B, &want(91, Mode::Pr, Bits::XATTR)));
            assert!(table.is_contended(ms(last + 29_999), FILE));
            let late = table.enqueue(ms(last + 30_000), B, &maybe(92, Mode::Pr, Bits::XATTR));
            granted(late);
        }
    }
}

#[test]
fn contention_outlives_the_locks_and_is_bounded() {
    let mut table = Table::new(WIDE);
    let mut contend = |n: u32, times: u64| {
        let fid = Fid::new(1, n);
        let now = ms(u64::from(n) / 1000);
        granted(table.enqueue(now, A, &Want::of(id(1), fid, Mode::Ex, Bits::PERM)));
        for _ in 0..times {
            let mut ask = Want::of(id(1), fid, Mode::Ex, Bits::PERM);
            ask.wait = false;
            table.enqueue(now, B, &ask);
        }
        assert!(table.cancel(now, A, id(1), Bits::ALL));
        assert_eq!((table.len(), table.resources()), (0, 0));
        (table.is_contended(now, fid), table.remembered())
    };
    assert_eq!(contend(0, 17), (true, 1));
    for n in 1..2 * u32::try_from(REMEMBERED_MAX).expect("small") {
        assert!(contend(n, 1).1 <= REMEMBERED_MAX);
    }
    // Half a minute later the next conflict clears all the others away.
    granted(table.enqueue(ms(60_000), A, &want(1, Mode::Ex, Bits::PERM)));
    assert_eq!(
        table.enqueue(ms(60_000), B, &maybe(1, Mode::Ex, Bits::PERM)),
        DECLINED
    );
    assert_eq!(table.remembered(), 1);
}

#[test]
fn what_may_be_declined_is_held_off_for_a_second_after_a_callback() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pw, Bits::UPDATE.with(Bits::PERM))));
    assert_eq!(
        table.enqueue(ms(0), B, &want(1, Mode::Pr, Bits::UPDATE)),
        Outcome::Queued
    );
    assert!(table.cancel(ms(5), A, id(1), Bits::ALL));
    let again = maybe(2, Mode::Pr, Bits::UPDATE);
    assert_eq!(table.enqueue(ms(999), A, &again), DECLINED);
    // Data is another matter, but not for a writer, who changes times.
    let read = Want {
        bits: Bits::DATA,
        ..maybe(3, Mode::Pr, Bits::DATA)
    };
    granted(table.enqueue(ms(999), C, &read));
    assert!(table.cancel(ms(999), B, id(1), Bits::ALL));
    assert!(table.cancel(ms(999), C, id(3), Bits::ALL));
    assert_eq!(
        table.enqueue(ms(999), A, &maybe(4, Mode::Pw, Bits::DATA)),
        DECLINED
    );
    granted(table.enqueue(ms(999), A, &maybe(5, Mode::Pr, Bits::PERM)));
    granted(table.enqueue(ms(1000), A, &again));
}

#[test]
fn what_may_be_declined_neither_waits_nor_calls_back() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pw, Bits::UPDATE)));
    let out = table.enqueue(ms(0), B, &maybe(1, Mode::Pr, Bits::UPDATE));
    assert_eq!(out, DECLINED);
    assert_eq!(events(&mut table), []);
    assert_eq!(table.len(), 1);
}

#[test]
fn welcome_bits_come_if_nobody_is_in_the_way_l1() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), B, &want(1, Mode::Ex, Bits::XATTR)));
    assert_eq!(
        table.enqueue(ms(0), C, &want(1, Mode::Ex, Bits::XATTR.with(Bits::PERM))),
        Outcome::Queued
    );
    events(&mut table);
    let mut open = want(1, Mode::Pr, Bits::OPEN);
    open.try_bits = Bits::XATTR.with(Bits::PERM).with(Bits::UPDATE);
    let grant = granted(table.enqueue(ms(0), A, &open));
    // XATTR is another's, and PERM is waited for.
    assert_eq!(grant.bits, Bits::OPEN.with(Bits::UPDATE));
    let mut only = want(2, Mode::Pr, Bits::NONE);
    only.try_bits = Bits::XATTR;
    assert_eq!(table.enqueue(ms(0), A, &only), DECLINED);
    only.try_bits = Bits::XATTR.with(Bits::LOOKUP);
    assert_eq!(granted(table.enqueue(ms(0), A, &only)).bits, Bits::LOOKUP);
    only.lock = id(3);
    only.try_bits = Bits::NONE;
    assert_eq!(table.enqueue(ms(0), A, &only), DECLINED);
    assert_eq!(events(&mut table), []);
}

#[test]
fn nothing_granted_leaves_nothing_behind_l1() {
    let mut table = Table::new(WIDE);
    assert_eq!(
        table.enqueue(ms(0), A, &want(1, Mode::Pr, Bits::NONE)),
        DECLINED
    );
    let claim = claim_of(1, Mode::Ex, Bits::UPDATE);
    assert_eq!(table.claim(ms(0), A, &claim, false), Err(Refusal::Stale));
    assert_eq!((table.len(), table.resources()), (0, 0));
}

/// Else it could hold on for ever, each lock under cover of the last.
#[test]
fn a_client_does_not_pass_those_who_wait_for_it_l1() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &data(1, Mode::Pr, 0, 99)));
    let write = data(1, Mode::Pw, 0, 9);
    assert_eq!(table.enqueue(ms(0), B, &write), Outcome::Queued);
    let next = data(2, Mode::Pr, 0, 9);
    assert_eq!(table.enqueue(ms(0), A, &next), Outcome::Queued);
    // Nor do its operations, under cover of one another.
    let read = |n| Want {
        lock: own(n),
        ..next
    };
    granted(table.enqueue_own(ms(0), A, &read(1)));
    assert!(table.cancel(ms(0), A, id(1), Bits::ALL));
    assert_eq!(table.enqueue_own(ms(0), A, &read(2)), Outcome::Queued);
    events(&mut table);
    assert!(table.cancel_own(ms(0), A, own(1)));
    assert_eq!(late_grants(&mut table), [(B, 1)]);
}

#[test]
fn an_operation_that_the_clients_locks_allow_passes_those_who_wait_c7() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &data(1, Mode::Pw, 0, 49)));
    granted(table.enqueue(ms(0), A, &data(2, Mode::Pw, 50, 99)));
    assert_eq!(
        table.enqueue(ms(0), B, &data(1, Mode::Pr, 0, 99)),
        Outcome::Queued
    );
    events(&mut table);
    let conflicts = |t: &Table, mode, end| t.conflicts(A, FILE, mode, Bits::DATA, at(10, end));
    // Two locks together, no hole between; not beyond them, nor in another mode.
    assert!(!conflicts(&table, Mode::Pw, 90) && !conflicts(&table, Mode::Pr, 90));
    assert!(conflicts(&table, Mode::Pw, 100) && conflicts(&table, Mode::Ex, 90));
    assert!(!table.conflicts_ahead(A, FILE, Mode::Pw, Bits::DATA, at(10, 100)));
    let write = Want {
        lock: own(1),
        ..data(1, Mode::Pw, 10, 90)
    };
    granted(table.enqueue_own(ms(0), A, &write));
    assert_eq!(events(&mut table), [], "the shard's own is not called back");
}

/// The last lock that was missing comes after the operation in the queue.
#[test]
fn an_operation_passes_as_soon_as_the_clients_locks_allow_it_c7() {
    let mut table = Table::new(WIDE);
    let both = Bits::UPDATE.with(Bits::PERM);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pr, Bits::UPDATE)));
    granted(table.enqueue(ms(0), C, &want(1, Mode::Ex, Bits::PERM)));
    let read = Want {
        lock: own(1),
        ..want(0, Mode::Pr, both)
    };
    let write = want(1, Mode::Ex, Bits::UPDATE);
    assert_eq!(table.enqueue(ms(0), B, &write), Outcome::Queued);
    assert_eq!(table.enqueue_own(ms(0), A, &read), Outcome::Queued);
    let perm = want(2, Mode::Pr, Bits::PERM);
    assert_eq!(table.enqueue(ms(0), A, &perm), Outcome::Queued);
    events(&mut table);
    assert!(table.cancel(ms(0), C, id(1), Bits::ALL));
    assert_eq!(late_grants(&mut table), [(A, 2), (A, own(1).0)]);
}

#[test]
fn a_size_change_of_who_owes_a_callback_passes_those_who_wait_c16() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &data(1, Mode::Pw, 0, 99)));
    assert_eq!(
        table.enqueue(ms(0), B, &want(1, Mode::Ex, Bits::DATA.with(Bits::UPDATE))),
        Outcome::Queued
    );
    assert!(table.is_owing(A, FILE) && !table.is_owing(B, FILE));
    let mut truncate = want(1, Mode::Pw, Bits::UPDATE);
    truncate.lock = own(1);
    truncate.wait = false;
    assert_eq!(
        table.enqueue_own(ms(0), A, &truncate),
        Outcome::Refused(Refusal::WouldBlock)
    );
    truncate.ahead = true;
    granted(table.enqueue_own(ms(0), A, &truncate));
    assert!(table.cancel(ms(0), A, id(1), Bits::ALL));
    assert_eq!(late_grants(&mut table), []);
    assert!(table.cancel_own(ms(0), A, own(1)));
    assert_eq!(late_grants(&mut table), [(B, 1)]);
}

#[test]
fn who_is_ahead_waits_before_all_others_c16() {
    let mut table = Table::new(WIDE);
    let update = |lock, ahead| Want {
        lock,
        ahead,
        ..want(0, Mode::Ex, Bits::UPDATE)
    };
    granted(table.enqueue_own(ms(0), C, &update(own(1), false)));
    for (holder, lock, ahead) in [(A, own(1), false), (A, own(2), true), (B, own(3), true)] {
        let out = table.enqueue_own(ms(0), holder, &update(lock, ahead));
        assert_eq!(out, Outcome::Queued);
    }
    let mut order = Vec::new();
    let mut granted = vec![(C, own(1).0)];
    while let Some((holder, lock)) = granted.pop() {
        assert!(table.cancel_own(ms(0), holder, LockId(lock)));
        granted.extend(late_grants(&mut table));
        order.extend(granted.last().copied());
    }
    assert_eq!(order, [(A, own(2).0), (B, own(3).0), (A, own(1).0)]);
}

#[test]
fn of_crossed_size_changes_the_last_is_refused_c16() {
    for (parties, out) in [
        (2, Outcome::Refused(Refusal::Deadlock)),
        (3, Outcome::Refused(Refusal::Deadlock)),
    ] {
        // Each reads one bit, and wants to write that of the next.
        let mut table = Table::new(WIDE);
        let bit = |n: u64| Bits {
            set: 1 << (n % parties),
        };
        for n in 0..parties {
            granted(table.enqueue(ms(0), Holder(n), &want(1, Mode::Pr, bit(n))));
        }
        for n in 0..parties {
            let size = Want {
                lock: own(1),
                ahead: true,
                ..want(0, Mode::Pw, bit(n + 1))
            };
            let expected = if n + 1 < parties {
                Outcome::Queued
            } else {
                out
            };
            assert_eq!(table.enqueue_own(ms(0), Holder(n), &size), expected);
        }
        // The one that was refused gives up its lock, and the others go on.
        assert!(table.cancel(ms(0), Holder(parties - 1), id(1), Bits::ALL));
        assert_eq!(late_grants(&mut table), [(Holder(parties - 2), own(1).0)]);
    }
}

#[test]
fn a_waiter_passes_those_it_does_not_meet_and_no_others_l1() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, Bits::UPDATE)));
    assert_eq!(
        table.enqueue(ms(0), B, &want(1, Mode::Ex, Bits::UPDATE)),
        Outcome::Queued
    );
    granted(table.enqueue(ms(0), C, &want(1, Mode::Ex, Bits::PERM)));
    // A reader goes with nobody before it, though A would let it: B is first.
    assert!(table.convert(ms(0), A, id(1), Mode::Pr).is_ok());
    assert_eq!(
        table.enqueue(ms(0), C, &want(2, Mode::Pr, Bits::UPDATE)),
        Outcome::Queued
    );
    events(&mut table);
    assert!(table.cancel(ms(0), A, id(1), Bits::ALL));
    assert_eq!(late_grants(&mut table), [(B, 1)]);
    assert!(table.cancel(ms(0), B, id(1), Bits::UPDATE));
    assert_eq!(late_grants(&mut table), [(C, 2)]);
}

#[test]
fn a_callback_is_sent_once_for_each_bit_l1() {
    let mut table = Table::new(WIDE);
    let all = Bits::ALL.without(Bits::DATA);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, all)));
    let both = Bits::UPDATE.with(Bits::PERM);
    table.enqueue(ms(0), B, &want(1, Mode::Pr, Bits::UPDATE));
    assert_eq!(called(&mut table), [(A, 1, Bits::UPDATE)]);
    table.enqueue(ms(0), C, &want(1, Mode::Pr, Bits::UPDATE));
    assert_eq!(called(&mut table), []);
    table.enqueue(ms(0), C, &want(2, Mode::Pw, both));
    assert_eq!(called(&mut table), [(A, 1, both)]);
    let again = Blocking {
        holder: A,
        lock: id(1),
        fid: FILE,
        mode: Mode::Pw,
        bits: both,
        extent: Extent::ALL,
        growth: Growth::NONE,
    };
    assert_eq!(table.unanswered(A), [again]);
    assert_eq!(table.unanswered(B), []);
}

fn longer(n: u64, size: u64) -> Want {
    Want {
        growth: Growth { size, last: 7 },
        ..data(n, Mode::Pw, 10, size - 1)
    }
}

fn growth_told(table: &mut Table) -> Vec<(Holder, u64)> {
    let told = |event: Event| match event {
        Event::Blocking(b) => Some((b.holder, b.growth.size)),
        _ => None,
    };
    events(table).into_iter().filter_map(told).collect()
}

/// Whoever makes the file longer waits until each holder that was called back
/// for that has seen to it, whatever it has given up before (C17).
#[test]
fn a_lock_stays_until_its_holder_knows_how_far_the_file_grows_c17() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pr, Bits::UPDATE)));
    table.enqueue(ms(0), B, &longer(1, 20));
    assert_eq!(growth_told(&mut table), [(A, 20)]);
    table.enqueue(ms(0), B, &longer(2, 15));
    assert_eq!(growth_told(&mut table), [], "it was told of more");
    table.enqueue(ms(0), B, &longer(3, 30));
    assert_eq!(growth_told(&mut table), [(A, 30)], "of more than before");
    assert_eq!(table.unanswered(A)[0].growth.size, 30);
    assert!(table.cancel(ms(1), A, id(1), Bits::UPDATE));
    assert_eq!(late_grants(&mut table), []);
    table.told(ms(2), A, id(1), 20);
    assert_eq!(
        late_grants(&mut table),
        [],
        "two of them may go on, not all"
    );
    assert_eq!(
        table.next_deadline(),
        Some(ms(10_000)),
        "and it has to answer"
    );
    table.told(ms(3), A, id(1), 30);
    assert_eq!(late_grants(&mut table), [(B, 1), (B, 2), (B, 3)]);
    assert_eq!(table.next_deadline(), None);
    table.told(ms(4), A, id(1), 40);
    assert_eq!(
        growth_told(&mut table),
        [],
        "there is no such lock any more"
    );
}

/// In the other order, too; and who was told keeps its lock as long as it likes.
#[test]
fn to_know_how_far_a_file_grows_gives_up_nothing_c17() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pr, Bits::UPDATE)));
    table.enqueue(ms(0), B, &longer(1, 20));
    table.told(ms(1), A, id(1), 20);
    assert_eq!(late_grants(&mut table), []);
    table.enqueue(ms(1), C, &longer(1, 20));
    assert_eq!(growth_told(&mut table), [], "so far it may grow");
    assert_eq!(table.unanswered(A)[0].growth, Growth::NONE);
    // As the owner of the table says of a client that knows nothing of this.
    table.told(ms(1), A, id(1), u64::MAX);
    table.enqueue(ms(1), C, &longer(2, 90));
    assert_eq!(growth_told(&mut table), []);
    assert!(table.cancel(ms(2), A, id(1), Bits::UPDATE));
    assert_eq!(late_grants(&mut table), [(B, 1)]);
}

#[test]
fn each_bit_given_up_gives_time_for_the_others_l1() {
    let mut table = Table::new(WIDE);
    let all = Bits::ALL.without(Bits::DATA);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, all)));
    table.enqueue(ms(0), B, &want(1, Mode::Pr, Bits::UPDATE));
    table.enqueue(ms(9_000), B, &want(2, Mode::Pr, Bits::PERM));
    assert_eq!(table.next_deadline(), Some(ms(10_000)));
    assert!(table.cancel(ms(9_500), A, id(1), Bits::XATTR));
    assert_eq!(table.next_deadline(), Some(ms(10_000)));
    assert!(table.cancel(ms(9_500), A, id(1), Bits::UPDATE));
    assert_eq!(table.next_deadline(), Some(ms(19_500)));
    assert!(table.cancel(ms(9_500), A, id(1), Bits::PERM));
    assert_eq!(table.next_deadline(), None);
}

#[test]
fn what_is_called_back_is_not_kept() {
    let mut table = Table::new(WIDE);
    let both = Bits::UPDATE.with(Bits::PERM);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pr, both)));
    let kept = |table: &Table, mode| table.kept(A, FILE, mode, Extent::ALL);
    assert_eq!(kept(&table, Mode::Pr), both);
    assert_eq!(kept(&table, Mode::Ex), Bits::NONE);
    assert_eq!(table.kept(B, FILE, Mode::Pr, Extent::ALL), Bits::NONE);
    table.enqueue(ms(0), B, &want(1, Mode::Pw, Bits::UPDATE));
    assert_eq!(kept(&table, Mode::Pr), Bits::PERM);
    // Of bytes all are asked about, or none.
    granted(table.enqueue(ms(0), A, &data(2, Mode::Pr, 0, 9)));
    let part = table.kept(A, FILE, Mode::Pr, Extent { start: 3, end: 9 });
    assert_eq!(part, Bits::PERM.with(Bits::DATA));
    assert_eq!(kept(&table, Mode::Pr), Bits::PERM);
}

#[test]
fn who_sends_data_has_more_time_but_not_for_ever() {
    let mut table = Table::with_time(WIDE, Duration::from_secs(2));
    granted(table.enqueue(ms(0), A, &data(1, Mode::Pw, 0, 9)));
    table.enqueue(ms(0), B, &data(1, Mode::Pr, 0, 9));
    table.progress(ms(500), A, Some(FILE));
    assert_eq!(table.next_deadline(), Some(ms(2_000)), "never less");
    table.progress(ms(1_900), B, Some(FILE));
    table.progress(ms(1_900), B, None);
    table.progress(ms(1_900), A, Some(Fid::new(1, 1)));
    assert_eq!(
        table.next_deadline(),
        Some(ms(2_000)),
        "another's, elsewhere"
    );
    for n in 2..30 {
        let of = (n % 2 == 0).then_some(FILE);
        table.progress(ms(n * 900), A, of);
    }
    assert_eq!(table.next_deadline(), Some(ms(20_000)));
    assert_eq!(table.overdue(ms(19_999)), []);
    assert_eq!(table.overdue(ms(20_000)), [A]);
    table.drop_holder(ms(20_000), A);
    assert_eq!(table.overdue(ms(30_000)), []);
}

#[test]
fn who_was_called_back_after_a_late_grant_has_all_its_time() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, Bits::PERM)));
    table.enqueue(ms(0), B, &want(1, Mode::Ex, Bits::PERM));
    table.enqueue(ms(0), C, &want(1, Mode::Ex, Bits::PERM));
    events(&mut table);
    assert!(table.cancel(ms(8_000), A, id(1), Bits::ALL));
    let seen = events(&mut table);
    assert!(matches!(seen[0], Event::Granted { holder: B, .. }));
    assert!(matches!(
        seen[1],
        Event::Blocking(Blocking { holder: B, .. })
    ));
    assert_eq!((seen.len(), table.next_deadline()), (2, Some(ms(18_000))));
}

#[test]
fn a_full_table_refuses_clients_and_lets_the_shard_finish_l5() {
    let limits = Limits {
        locks_max: 4,
        locks_soft: 3,
        holder_max: 3,
    };
    let mut table = Table::new(limits);
    for n in 0..3 {
        let file = Want {
            fid: Fid::new(1, n),
            ..want(u64::from(n), Mode::Pr, Bits::PERM)
        };
        granted(table.enqueue(ms(0), A, &file));
    }
    let later = Outcome::Refused(Refusal::TryLater);
    let more = want(9, Mode::Pr, Bits::PERM);
    assert_eq!(table.enqueue(ms(0), A, &more), later, "the holder's part");
    // At the soft bound what may be declined is.
    let optional = maybe(8, Mode::Pr, Bits::PERM);
    assert_eq!(table.enqueue(ms(0), B, &optional), DECLINED);
    granted(table.enqueue(ms(0), B, &more));
    assert_eq!(table.enqueue(ms(0), C, &more), later, "the table");
    let claim = claim_of(9, Mode::Pr, Bits::PERM);
    assert_eq!(table.claim(ms(0), C, &claim, true), Err(Refusal::TryLater));
    granted(table.enqueue_own(
        ms(0),
        C,
        &Want {
            lock: own(9),
            ..more
        },
    ));
    granted(table.enqueue(
        ms(0),
        C,
        &Want {
            ahead: true,
            ..more
        },
    ));
    assert_eq!(table.len(), 6);
    assert!(table.cancel(ms(0), A, id(0), Bits::ALL));
    assert!(table.cancel(ms(0), A, id(1), Bits::ALL));
    assert!(table.cancel(ms(0), A, id(2), Bits::ALL));
    granted(table.enqueue(ms(0), A, &more));
}

#[test]
fn holders_with_more_than_their_share_are_asked_for_what_is_too_much() {
    let limits = Limits {
        locks_max: 400,
        locks_soft: 100,
        holder_max: 200,
    };
    let mut table = Table::new(limits);
    let mut volumes = vec![table.volume(0)];
    let mut next = 0;
    for (holder, count) in [(A, 10), (B, 40), (C, 100)] {
        for _ in 0..count {
            next += 1;
            let file = Want::of(id(next), Fid::new(1, next as u32), Mode::Pr, Bits::PERM);
            granted(table.enqueue(ms(0), holder, &file));
            volumes.push(table.volume(0));
            assert_eq!(table.shrink().is_empty(), next <= 100);
        }
    }
    assert_eq!(volumes.first(), Some(&200), "there is room");
    assert_eq!(volumes.last(), Some(&33), "an equal share");
    assert!(volumes.is_sorted_by(|a, b| a >= b));
    assert_eq!(table.volume(10), 10, "others have a share, too");
    let asked = table.shrink();
    assert_eq!(asked, [(B, 5), (C, 46)]);
}

#[test]
fn ids_with_bit_63_are_the_shards_own_l1() {
    let mut table = Table::new(WIDE);
    let bad = Outcome::Refused(Refusal::BadId);
    let theirs = want(1, Mode::Ex, Bits::DATA);
    let ours = Want {
        lock: own(1),
        ..theirs
    };
    assert_eq!(table.enqueue(ms(0), A, &ours), bad);
    assert_eq!(table.enqueue_own(ms(0), A, &theirs), bad);
    let mut claim = claim_of(1, Mode::Ex, Bits::DATA);
    claim.lock = own(1);
    assert_eq!(table.claim(ms(0), A, &claim, true), Err(Refusal::BadId));
    granted(table.enqueue_own(ms(0), A, &ours));
    // A client does not reach it, nor gains anything by it.
    assert!(!table.cancel(ms(0), A, own(1), Bits::ALL));
    assert!(table.convert(ms(0), A, own(1), Mode::Nl).is_err());
    assert!(!table.covers(A, FILE, Mode::Pr, Bits::DATA, at(0, 0)));
    assert_eq!(table.held(A, FILE).locks, 0);
    assert_eq!(table.writers(FILE), []);
    // It is waited for, and never called back.
    assert_eq!(table.enqueue(ms(0), B, &theirs), Outcome::Queued);
    assert_eq!(events(&mut table), []);
    assert_eq!(table.next_deadline(), None);
    assert!(table.cancel_own(ms(0), A, own(1)));
    assert_eq!(late_grants(&mut table), [(B, 1)]);
}

#[test]
fn malformed_requests_change_nothing_l1() {
    let mut table = Table::new(WIDE);
    let malformed = Outcome::Refused(Refusal::Malformed);
    let unknown = Bits { set: 1 << 7 };
    assert_eq!(
        table.enqueue(ms(0), A, &want(1, Mode::Pr, unknown)),
        malformed
    );
    let mut tried = want(1, Mode::Pr, Bits::PERM);
    tried.try_bits = unknown;
    assert_eq!(table.enqueue(ms(0), A, &tried), malformed);
    assert_eq!(table.enqueue(ms(0), A, &data(1, Mode::Pr, 5, 4)), malformed);
    let empty = claim_of(1, Mode::Pr, Bits::NONE);
    assert_eq!(table.claim(ms(0), A, &empty, true), Err(Refusal::Malformed));
    assert_eq!((table.len(), table.resources()), (0, 0));
}

fn claim_of(n: u64, mode: Mode, bits: Bits) -> Claim {
    Claim {
        lock: id(n),
        fid: FILE,
        mode,
        bits,
        extent: Extent::ALL,
        group: 0,
    }
}

#[test]
fn claims_are_granted_unless_they_contradict_l13() {
    let mut table = Table::new(WIDE);
    let ex = claim_of(1, Mode::Ex, Bits::UPDATE);
    assert_eq!(table.claim(ms(0), A, &ex, false), Err(Refusal::Stale));
    assert!(table.claim(ms(0), A, &ex, true).is_ok());
    assert_eq!(table.claim(ms(0), B, &ex, true), Err(Refusal::Stale));
    assert_eq!(events(&mut table), [], "nobody is called back for a claim");
    let other = claim_of(1, Mode::Ex, Bits::PERM);
    assert!(table.claim(ms(0), B, &other, true).is_ok());
    assert_eq!(
        table.claim(ms(0), B, &other, true),
        Err(Refusal::DuplicateId)
    );
    // Who waits already does not wait for ever.
    table.enqueue(ms(0), C, &want(1, Mode::Pr, Bits::UPDATE.with(Bits::XATTR)));
    events(&mut table);
    let late = claim_of(2, Mode::Ex, Bits::XATTR);
    assert!(table.claim(ms(0), B, &late, true).is_ok());
    assert_eq!(called(&mut table), [(B, 2, Bits::XATTR)]);
}

#[test]
fn a_dropped_holder_is_told_nothing_and_its_waiting_operations_end_l3() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, Bits::UPDATE)));
    let ours = Want {
        lock: own(1),
        ..want(0, Mode::Ex, Bits::UPDATE)
    };
    assert_eq!(table.enqueue_own(ms(0), B, &ours), Outcome::Queued);
    events(&mut table);
    assert!(table.cancel(ms(0), A, id(1), Bits::ALL));
    // B's grant is on its way; B is evicted before anybody took it.
    table.drop_holder(ms(0), B);
    let dropped = Event::Dropped {
        holder: B,
        lock: own(1),
    };
    assert_eq!(events(&mut table), [dropped]);
    assert_eq!((table.len(), table.resources()), (0, 0));
    table.drop_holder(ms(0), B);
    assert_eq!(events(&mut table), []);
}

#[test]
fn what_is_held_is_told_l1() {
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &data(1, Mode::Pw, 0, 9)));
    granted(table.enqueue(ms(0), B, &data(1, Mode::Pw, 10, 19)));
    granted(table.enqueue(ms(0), B, &data(2, Mode::Pw, 30, 39)));
    granted(table.enqueue(ms(0), B, &want(3, Mode::Pr, Bits::PERM)));
    granted(table.enqueue(ms(0), C, &data(1, Mode::Pr, 50, 59)));
    assert_eq!(table.writers(FILE), [A, B]);
    assert_eq!(table.writers(Fid::new(1, 1)), []);
    let held = table.held(B, FILE);
    assert_eq!((held.locks, held.bits), (3, Bits::DATA.with(Bits::PERM)));
    assert_eq!(held.writes, Bits::DATA);
    assert_eq!(held.modes, Mode::Pw as u8 | Mode::Pr as u8);
    let covers = |start, end| table.covers(B, FILE, Mode::Pr, Bits::DATA, at(start, end));
    assert!(covers(10, 19) && covers(35, 39) && !covers(19, 30) && !covers(9, 10));
    assert_eq!(table.lock(B, id(3)).map(|g| g.bits), Some(Bits::PERM));
    assert_eq!(table.lock(A, id(3)), None);
}

#[test]
fn a_thousand_holders_of_one_file_come_and_go_l1() {
    let mut table = Table::new(WIDE);
    let read = want(1, Mode::Pr, Bits::UPDATE);
    for n in 10..1010 {
        granted(table.enqueue(ms(0), Holder(n), &read));
    }
    assert_eq!(
        table.enqueue(ms(0), A, &want(1, Mode::Ex, Bits::UPDATE)),
        Outcome::Queued
    );
    assert_eq!(called(&mut table).len(), 1000);
    for n in 10..1010 {
        assert_eq!(late_grants(&mut table), []);
        assert!(table.cancel(ms(0), Holder(n), id(1), Bits::ALL));
    }
    assert_eq!(late_grants(&mut table), [(A, 1)]);
    assert!(table.cancel(ms(0), A, id(1), Bits::ALL));
    assert_eq!((table.len(), table.resources()), (0, 0));
}

#[test]
fn what_is_recalled_is_called_back_once_and_its_end_is_told() {
    let both = Bits::OPEN.with(Bits::PERM);
    let recalled = [Event::Recalled { fid: FILE }];
    let mut table = Table::new(WIDE);
    assert!(!table.recall(ms(0), FILE, Bits::OPEN), "nobody has it");
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pr, both)));
    granted(table.enqueue(ms(0), B, &want(2, Mode::Pr, Bits::OPEN)));
    granted(table.enqueue(ms(0), B, &want(3, Mode::Pr, Bits::PERM)));
    assert!(table.recall(ms(0), FILE, Bits::OPEN));
    let calls = [(A, 1, Bits::OPEN), (B, 2, Bits::OPEN)];
    assert_eq!(called(&mut table), calls);
    assert!(table.recall(ms(0), FILE, Bits::OPEN));
    assert_eq!(called(&mut table), []);
    assert!(table.cancel(ms(1), A, id(1), Bits::PERM));
    assert!(table.cancel(ms(1), B, id(2), Bits::ALL));
    assert_eq!(events(&mut table), []);
    assert!(table.cancel(ms(1), A, id(1), Bits::OPEN));
    assert_eq!(events(&mut table), recalled);
    // And to whoever does not answer, as for any callback.
    granted(table.enqueue(ms(2), C, &want(4, Mode::Pr, Bits::OPEN)));
    assert!(table.recall(ms(2), FILE, Bits::OPEN));
    assert_eq!(called(&mut table), [(C, 4, Bits::OPEN)]);
    let deadline = table.next_deadline().expect("a callback is out");
    assert_eq!(table.overdue(deadline), [C]);
    table.drop_holder(ms(3), C);
    assert_eq!(events(&mut table), recalled);
    assert!(!table.is_held(FILE, Bits::OPEN) && table.is_held(FILE, Bits::PERM));
}

/// Who has a file to himself is named to who looks at it, as long as nothing else
/// is in the way and nobody wants his lock.
#[test]
fn who_has_a_file_to_himself_is_known() {
    let seen = Bits::LOOKUP.with(Bits::UPDATE);
    let sole = |table: &Table, bits| table.sole(B, FILE, Mode::Cr, bits);
    let found = |holder, lock| {
        let lock = id(lock);
        Some(Sole { holder, lock })
    };
    let mut table = Table::new(WIDE);
    assert_eq!(sole(&table, seen), None);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Ex, seen)));
    assert_eq!(sole(&table, seen), found(A, 1));
    assert_eq!(sole(&table, Bits::UPDATE), found(A, 1));
    assert_eq!(sole(&table, Bits::PERM), None, "it is not in the way");
    assert_eq!(
        sole(&table, seen.with(Bits::PERM)),
        None,
        "not of all of it"
    );
    assert_eq!(table.sole(A, FILE, Mode::Cr, seen), None, "its own");
    granted(table.enqueue(ms(0), C, &want(2, Mode::Ex, Bits::PERM)));
    assert_eq!(sole(&table, seen.with(Bits::PERM)), None, "two are");
    assert_eq!(sole(&table, seen), found(A, 1));
    let outcome = table.enqueue(ms(0), C, &want(3, Mode::Pr, Bits::UPDATE));
    assert_eq!(outcome, Outcome::Queued);
    assert_eq!(sole(&table, seen), None, "it is called back");
    assert!(table.cancel(ms(1), A, id(1), Bits::ALL));
    assert_eq!(sole(&table, seen), None, "others may look beside who looks");
    // What the shard does for a client for itself is no lock of that client.
    let mut table = Table::new(WIDE);
    let change = Want {
        lock: own(1),
        ..want(1, Mode::Ex, seen)
    };
    granted(table.enqueue_own(ms(0), A, &change));
    assert_eq!(sole(&table, seen), None);
}

/// Who would have a file to himself has no use for a part of it, and would ask for
/// the rest, and be called back for each, over and over.
#[test]
fn a_file_to_oneself_is_given_whole_or_not_at_all_l1() {
    let all = Bits::LOOKUP.with(Bits::ATTRS);
    let alone = |n| Want {
        try_bits: all,
        discretionary: true,
        ..want(n, Mode::Ex, Bits::NONE)
    };
    let mut table = Table::new(WIDE);
    granted(table.enqueue(ms(0), A, &want(1, Mode::Pr, Bits::PERM)));
    assert_eq!(table.enqueue(ms(1), B, &alone(1)), DECLINED);
    let looks = Want {
        mode: Mode::Pr,
        ..alone(2)
    };
    let grant = granted(table.enqueue(ms(2), B, &looks));
    assert_eq!(grant.bits, all, "who looks takes what there is");
    assert!(table.cancel(ms(3), A, id(1), Bits::ALL));
    let grant = granted(table.enqueue(ms(4), B, &alone(3)));
    assert_eq!((grant.mode, grant.bits), (Mode::Ex, all));
}
