use super::*;
use proptest::prelude::*;

mod oracle;

use oracle::{BYTES, Oracle, range};

const READ: LockKind = LockKind::Read;
const WRITE: LockKind = LockKind::Write;

fn fid(n: u64) -> Fid {
    Fid {
        seq: n,
        ..Fid::NONE
    }
}

fn client(n: u64) -> ClientId {
    ClientId(u128::from(n))
}

fn owner(n: u64, id: u64, kind: OwnerKind) -> LockOwner {
    let client = client(n);
    LockOwner { client, id, kind }
}

fn process(n: u64) -> LockOwner {
    owner(n, 7, OwnerKind::Posix)
}

fn ask(owner: LockOwner, (start, end): (u64, u64), kind: LockKind) -> LockAsked {
    let range = Extent { start, end };
    let pid = 1;
    LockAsked {
        owner,
        open: OpenId(owner.id),
        lock: HeldLock { range, kind, pid },
    }
}

fn wait(id: u64) -> Option<WaitId> {
    Some(WaitId { id })
}

fn granted(n: u64, id: u64) -> LockWoken {
    LockWoken {
        wait: Wait {
            client: client(n),
            id: WaitId { id },
        },
        outcome: LockOutcome::Granted,
    }
}

/// Asks, and expects that nobody is woken.
fn set(locks: &mut FileLocks, file: u64, asked: LockAsked, id: Option<WaitId>) -> LockOutcome {
    let (outcome, woken) = locks.set(fid(file), asked, id);
    assert_eq!(woken, [], "{asked:?}");
    outcome
}

use LockOutcome::{Deadlock, Granted, Queued, TooMany, WouldBlock};

#[test]
fn waits_are_granted_in_the_order_they_came() {
    let mut locks = FileLocks::default();
    assert_eq!(
        set(&mut locks, 1, ask(process(1), (0, 9), WRITE), None),
        Granted
    );
    for client in 2..6 {
        let asked = ask(process(client), (0, 9), READ);
        assert_eq!(set(&mut locks, 1, asked, wait(client)), Queued);
        assert_eq!(
            set(&mut locks, 1, asked, wait(client)),
            Queued,
            "asked again"
        );
    }
    let writer = ask(process(6), (5, 5), WRITE);
    assert_eq!(set(&mut locks, 1, writer, wait(6)), Queued);
    let woken = locks.release(fid(1), process(1));
    assert_eq!(woken, [2, 3, 4, 5].map(|client| granted(client, client)));
    for client in 2..5 {
        assert_eq!(locks.release(fid(1), process(client)), []);
    }
    assert_eq!(locks.release(fid(1), process(5)), [granted(6, 6)]);
    locks.release(fid(1), process(6));
    assert!(!locks.is_locked(fid(1)) && locks.clients.is_empty() && locks.waits_of.is_empty());
}

#[test]
fn a_client_that_is_dropped_wakes_who_waits_for_it() {
    let mut locks = FileLocks::default();
    let flock = |client| owner(client, 1, OwnerKind::Flock);
    set(&mut locks, 1, ask(process(1), (0, 9), WRITE), None);
    set(&mut locks, 2, ask(flock(1), (0, 0), WRITE), None);
    set(&mut locks, 3, ask(process(2), (0, 9), WRITE), None);
    set(&mut locks, 3, ask(process(1), (0, 9), WRITE), wait(1));
    set(&mut locks, 3, ask(process(3), (0, 9), WRITE), wait(2));
    set(&mut locks, 1, ask(process(3), (9, 9), READ), wait(3));
    set(&mut locks, 2, ask(flock(2), (0, 0), READ), wait(4));
    let woken = locks.drop_client(client(1));
    assert_eq!(woken, [granted(3, 3), granted(2, 4)]);
    assert!(!locks.is_waiting(client(1), WaitId { id: 1 }));
    // The wait that went was not in the way of the one behind it.
    assert_eq!(locks.release(fid(3), process(2)), [granted(3, 2)]);
    assert_eq!(locks.drop_client(client(1)), []);
}

#[test]
fn flock_gives_up_the_old_lock_before_it_takes_the_new_one() {
    let mut locks = FileLocks::default();
    let flock = |client| owner(client, 1, OwnerKind::Flock);
    let all = (0, u64::MAX);
    set(&mut locks, 1, ask(flock(1), all, READ), None);
    set(&mut locks, 1, ask(flock(2), all, READ), None);
    assert_eq!(
        set(&mut locks, 1, ask(flock(3), all, WRITE), wait(3)),
        Queued
    );
    // Two upgrades: the first one fails and loses its lock, the second has it.
    assert_eq!(
        set(&mut locks, 1, ask(flock(1), all, WRITE), None),
        WouldBlock
    );
    assert!(!locks.has(fid(1), &ask(flock(1), all, READ)));
    let (outcome, woken) = locks.set(fid(1), ask(flock(2), all, WRITE), wait(2));
    assert_eq!((outcome, woken), (Queued, vec![granted(3, 3)]));
    assert_eq!(locks.release(fid(1), flock(3)), [granted(2, 2)]);
    // Down again: readers come in.
    set(&mut locks, 1, ask(flock(1), all, READ), wait(1));
    let (outcome, woken) = locks.set(fid(1), ask(flock(2), all, READ), None);
    assert_eq!((outcome, woken), (Granted, vec![granted(1, 1)]));
}

#[test]
fn what_is_made_weaker_is_shared_where_it_was_held() {
    let mut locks = FileLocks::default();
    let (one, two) = (process(1), process(2));
    locks.note(fid(1), ask(one, (10, 29), WRITE));
    locks.note(fid(1), ask(one, (40, 49), WRITE));
    assert!(!locks.weaken(fid(1), two, Extent::ALL), "it has none");
    let range = Extent { start: 20, end: 44 };
    assert!(locks.weaken(fid(1), one, range));
    assert!(!locks.weaken(fid(1), one, range), "they are shared");
    let left = locks.held_by(client(1)).remove(0).locks;
    let left = left.iter().map(|l| (l.range.start, l.range.end, l.kind));
    let parts = [
        (10, 19, WRITE),
        (20, 29, READ),
        (40, 44, READ),
        (45, 49, WRITE),
    ];
    assert_eq!(left.collect::<Vec<_>>(), parts);
}

#[test]
fn flock_and_fcntl_do_not_meet_and_ofd_and_posix_do() {
    let mut locks = FileLocks::default();
    let all = (0, u64::MAX);
    let of = |kind| owner(1, 1, kind);
    set(&mut locks, 1, ask(of(OwnerKind::Flock), all, WRITE), None);
    set(
        &mut locks,
        1,
        ask(of(OwnerKind::Posix), (3, 4), WRITE),
        None,
    );
    let ofd = ask(of(OwnerKind::Ofd), (4, 5), READ);
    assert_eq!(set(&mut locks, 1, ofd, None), WouldBlock);
    let found = locks.test(fid(1), ofd).expect("in the way");
    assert_eq!(found.owner, of(OwnerKind::Posix));
    assert_eq!(found.lock.range, Extent { start: 3, end: 4 });
}

#[test]
fn circles_of_two_and_three_processes_are_deadlocks() {
    for length in 2..=3 {
        let mut locks = FileLocks::default();
        for n in 0..length {
            set(&mut locks, n, ask(process(n), (0, 0), WRITE), None);
        }
        for n in 0..length - 1 {
            let asked = ask(process(n), (0, 0), READ);
            assert_eq!(set(&mut locks, n + 1, asked, wait(1)), Queued);
        }
        let last = ask(process(length - 1), (0, 0), READ);
        assert_eq!(set(&mut locks, 0, last, wait(1)), Deadlock);
        // It did not wait, and not to wait is no deadlock.
        assert_eq!(set(&mut locks, 0, last, None), WouldBlock);
        let woken = locks.release(fid(length - 1), process(length - 1));
        assert_eq!(woken, [granted(length - 2, 1)]);
        assert_eq!(set(&mut locks, 0, last, wait(1)), Queued);
    }
}

#[test]
fn two_readers_that_both_want_to_write_are_a_deadlock() {
    let mut locks = FileLocks::default();
    for n in 1..3 {
        set(&mut locks, 1, ask(process(n), (0, 9), READ), None);
    }
    assert_eq!(
        set(&mut locks, 1, ask(process(1), (0, 0), WRITE), wait(1)),
        Queued
    );
    assert_eq!(
        set(&mut locks, 1, ask(process(2), (0, 0), WRITE), wait(1)),
        Deadlock
    );
    assert_eq!(locks.release(fid(1), process(2)), [granted(1, 1)]);
}

#[test]
fn open_files_that_wait_for_each_other_are_no_deadlock() {
    for kind in [OwnerKind::Ofd, OwnerKind::Flock] {
        let mut locks = FileLocks::default();
        let file = |client| owner(client, 1, kind);
        set(&mut locks, 1, ask(file(1), (0, 0), WRITE), None);
        set(&mut locks, 2, ask(file(2), (0, 0), WRITE), None);
        assert_eq!(
            set(&mut locks, 2, ask(file(1), (0, 0), WRITE), wait(1)),
            Queued
        );
        assert_eq!(
            set(&mut locks, 1, ask(file(2), (0, 0), WRITE), wait(1)),
            Queued
        );
    }
}

#[test]
fn a_handle_that_is_closed_takes_its_locks_along() {
    let mut locks = FileLocks::default();
    let ofd = |n, open| LockAsked {
        open: OpenId(open),
        ..ask(owner(n, open, OwnerKind::Ofd), (0, 0), READ)
    };
    for (n, open) in [(1, 5), (1, 6), (2, 5)] {
        assert_eq!(set(&mut locks, 1, ofd(n, open), None), Granted);
    }
    let writer = ask(process(3), (0, 0), WRITE);
    assert_eq!(set(&mut locks, 1, writer, wait(1)), Queued);
    assert_eq!(locks.close(fid(1), client(1), OpenId(5)), []);
    assert_eq!(locks.close(fid(1), client(1), OpenId(5)), []);
    assert_eq!(locks.close(fid(1), client(2), OpenId(5)), []);
    assert_eq!(locks.held_by(client(1)).len(), 1);
    assert_eq!(locks.close(fid(1), client(1), OpenId(6)), [granted(3, 1)]);

    // What a process gave up and took again through another handle is not its first handle's.
    let through = |open| LockAsked {
        open: OpenId(open),
        ..writer
    };
    locks.release(fid(1), process(3));
    assert_eq!(set(&mut locks, 1, through(5), None), Granted);
    locks.release(fid(1), process(3));
    assert_eq!(set(&mut locks, 1, through(6), None), Granted);
    locks.close(fid(1), client(3), OpenId(5));
    assert!(locks.has(fid(1), &writer));
    assert_eq!(locks.held_by(client(3))[0].opens, [OpenId(6)]);
}

/// A process with threads waits in one of them, and takes in another what
/// somebody waits for that it waits for.
#[test]
fn a_wait_that_turns_into_a_deadlock_ends() {
    let mut locks = FileLocks::default();
    set(&mut locks, 1, ask(process(1), (0, 0), WRITE), None);
    set(&mut locks, 2, ask(process(3), (0, 0), READ), None);
    assert_eq!(
        set(&mut locks, 2, ask(process(1), (0, 0), WRITE), wait(1)),
        Queued
    );
    assert_eq!(
        set(&mut locks, 1, ask(process(2), (0, 0), WRITE), wait(2)),
        Queued
    );
    let (outcome, woken) = locks.set(fid(2), ask(process(2), (0, 0), READ), None);
    let wait = granted(1, 1).wait;
    let outcome_of_1 = LockWoken {
        wait,
        outcome: Deadlock,
    };
    assert_eq!((outcome, woken), (Granted, vec![outcome_of_1]));
}

#[test]
fn every_number_has_a_bound() {
    let mut locks = FileLocks::default();
    let byte = |n: usize| (2 * n as u64, 2 * n as u64);
    for n in 1..FILE_LOCKS_MAX {
        assert_eq!(
            set(&mut locks, 1, ask(process(1), byte(n), WRITE), None),
            Granted
        );
    }
    set(
        &mut locks,
        1,
        ask(process(2), (1 << 40, 1 << 41), READ),
        None,
    );
    assert_eq!(
        set(&mut locks, 1, ask(process(3), (0, 0), READ), None),
        TooMany
    );
    // An unlock that splits needs room as well; one that does not, does not.
    let middle = Extent::of((1 << 40) + 5, 1).expect("a byte");
    assert_eq!(locks.unlock(fid(1), process(2), middle), Err(TooMany));
    let whole = ask(process(2), (1 << 40, 1 << 41), READ);
    assert!(locks.has(fid(1), &whole), "nothing changed");
    assert_eq!(
        locks.unlock(fid(1), process(1), Extent { start: 2, end: 2 }),
        Ok(vec![])
    );
    assert_eq!(locks.unlock(fid(1), process(2), middle), Ok(vec![]));

    let mut files = 2;
    while set(&mut locks, files, ask(process(1), (0, 0), WRITE), None) == Granted {
        files += 1;
    }
    assert_eq!(locks.clients[&client(1)].locks, CLIENT_LOCKS_MAX);
    let held = locks.held_by(client(1));
    let counted: usize = held.iter().map(|owned| owned.locks.len()).sum();
    assert_eq!(CLIENT_LOCKS_MAX, counted);

    for n in 0..FILE_WAITS_MAX as u64 {
        assert_eq!(
            set(&mut locks, 2, ask(process(9), (0, 0), READ), wait(n)),
            Queued
        );
    }
    let more = ask(process(8), (0, 0), READ);
    assert_eq!(set(&mut locks, 2, more, wait(0)), TooMany);
    for n in FILE_WAITS_MAX as u64..CLIENT_WAITS_MAX as u64 {
        let file = 3 + n / FILE_WAITS_MAX as u64;
        assert_eq!(
            set(&mut locks, file, ask(process(9), (0, 0), READ), wait(n)),
            Queued
        );
    }
    let asked = ask(process(9), (0, 0), READ);
    assert_eq!(set(&mut locks, 99, asked, wait(1 << 20)), TooMany);
    locks.drop_client(client(9));
    locks.drop_client(client(1));
    locks.drop_client(client(2));
    assert!(locks.files.is_empty() && locks.clients.is_empty() && locks.waits_of.is_empty());
}

/// What a history is made of.
#[derive(Clone, Debug)]
enum Step {
    Set(u64, LockAsked, bool),
    Unlock(u64, LockOwner, Extent),
    Release(u64, LockOwner),
    /// The n-th of those that wait.
    Withdraw(usize),
    Drop(ClientId),
}

/// Runs a step on both, and compares what they say and what they hold.
fn step(locks: &mut FileLocks, oracle: &mut Oracle, n: usize, step: &Step) {
    match step {
        Step::Set(file, asked, waits) => {
            let id = waits.then_some(WaitId { id: n as u64 });
            let got = locks.set(fid(*file), *asked, id);
            assert_eq!(got, oracle.set(*file, *asked, id), "{step:?}");
            let found = locks.test(fid(*file), *asked);
            assert_eq!(found.is_some(), oracle.is_blocked(*file, asked), "{step:?}");
            if let Some(found) = found {
                assert!(oracle.is_in_the_way(*file, asked, &found), "{found:?}");
            }
        }
        Step::Unlock(file, owner, range) => {
            let got = locks.unlock(fid(*file), *owner, *range);
            assert_eq!(got, Ok(oracle.unlock(*file, *owner, *range)), "{step:?}");
        }
        Step::Release(file, owner) => {
            let got = locks.release(fid(*file), *owner);
            assert_eq!(got, oracle.unlock(*file, *owner, Extent::ALL), "{step:?}");
        }
        Step::Withdraw(nth) => {
            let known = oracle.nth_wait(*nth);
            let gone = Wait {
                client: client(0),
                id: WaitId { id: u64::MAX },
            };
            assert_eq!(locks.withdraw(known.unwrap_or(gone)), known.is_some());
            if let Some(wait) = known {
                oracle.withdraw(wait);
            }
        }
        Step::Drop(client) => {
            assert_eq!(
                locks.drop_client(*client),
                oracle.drop_client(*client),
                "{step:?}"
            );
        }
    }
    agree(locks, oracle);
}

fn agree(locks: &FileLocks, oracle: &Oracle) {
    let mut waits = 0;
    for file in 0..2 {
        let held = locks.files.get(&fid(file)).map(|f| &f.held);
        for (owner, held) in held.into_iter().flatten() {
            assert!(!held.is_empty());
            for pair in held.windows(2) {
                let gap = pair[1].range.start - pair[0].range.end;
                let touches = gap == 1 && pair[0].kind == pair[1].kind;
                assert!(
                    pair[0].range.end < pair[1].range.start && !touches,
                    "{owner:?} {held:?}"
                );
            }
        }
        assert_eq!(oracle::by_byte(held), oracle.held(file));
        waits += locks.files.get(&fid(file)).map_or(0, |f| f.waiting.len());
        let is_locked = oracle.is_locked(file);
        assert_eq!(locks.is_locked(fid(file)), is_locked);
    }
    assert_eq!(waits, oracle.waits());
    let indexed: usize = locks.waits_of.values().map(BTreeSet::len).sum();
    assert_eq!(waits, indexed);
    let counted: usize = locks.clients.values().map(|c| c.locks).sum();
    let of_file = |f: &File| f.held.values().map(Vec::len).sum::<usize>();
    let of_files: usize = locks.files.values().map(of_file).sum();
    assert_eq!(counted, of_files);
}

fn owners() -> impl Strategy<Value = LockOwner> {
    let kinds = [OwnerKind::Posix, OwnerKind::Ofd, OwnerKind::Flock];
    let weighted = prop_oneof![4 => Just(0usize), 1 => Just(1), 1 => Just(2)];
    (0..3u64, 0..2u64, weighted).prop_map(move |(client, id, kind)| owner(client, id, kinds[kind]))
}

fn ranges() -> impl Strategy<Value = Extent> {
    (0..BYTES, 0..BYTES).prop_map(|(a, b)| range(a.min(b), a.max(b)))
}

fn steps() -> impl Strategy<Value = Step> {
    let asked = (owners(), ranges(), any::<bool>(), 0..3u32);
    let asked = asked.prop_map(|(owner, range, is_read, pid)| {
        let kind = if is_read { READ } else { WRITE };
        LockAsked {
            owner,
            open: OpenId(owner.id),
            lock: HeldLock { range, kind, pid },
        }
    });
    prop_oneof![
        8 => (0..2u64, asked, any::<bool>()).prop_map(|(f, a, w)| Step::Set(f, a, w)),
        4 => (0..2u64, owners(), ranges()).prop_map(|(f, o, r)| Step::Unlock(f, o, r)),
        2 => (0..2u64, owners()).prop_map(|(f, o)| Step::Release(f, o)),
        1 => (0..8usize).prop_map(Step::Withdraw),
        1 => (0..3u64).prop_map(|n| Step::Drop(client(n))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whatever the history, the table is what a table of bytes is.
    #[test]
    fn any_history_agrees_with_a_table_of_bytes(history in prop::collection::vec(steps(), 1..60)) {
        let (mut locks, mut oracle) = (FileLocks::default(), Oracle::default());
        for (n, each) in history.iter().enumerate() {
            step(&mut locks, &mut oracle, n, each);
        }
    }
}

/// Two processes: every three steps after one another.
#[test]
fn all_short_histories_agree_with_a_table_of_bytes() {
    let mut all = Vec::new();
    let ranges = [(0, 0), (1, 1), (0, 1), (0, BYTES - 1)];
    for (start, end) in ranges {
        let range = range(start, end);
        for client in 0..2 {
            for kind in [READ, WRITE] {
                let lock = HeldLock {
                    range,
                    kind,
                    pid: 1,
                };
                let asked = LockAsked {
                    owner: process(client),
                    open: OpenId(1),
                    lock,
                };
                all.extend([false, true].map(|waits| Step::Set(0, asked, waits)));
            }
            all.push(Step::Unlock(0, process(client), range));
        }
    }
    for (a, b) in all.iter().flat_map(|a| all.iter().map(move |b| (a, b))) {
        for c in &all {
            let (mut locks, mut oracle) = (FileLocks::default(), Oracle::default());
            for (n, each) in [a, b, c].into_iter().enumerate() {
                step(&mut locks, &mut oracle, n, each);
            }
        }
    }
}
