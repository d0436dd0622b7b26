//! One lock: every state against every event.

use super::{A, B, FILE, WIDE, events, id, ms, own, want};
use crate::base::{Bits, Extent, Mode};
use crate::dlm::bounds::ANSWER;
use crate::dlm::{self, ConvertError, Event, Outcome, Refusal, Table};

const BITS: Bits = Bits::UPDATE.with(Bits::PERM);

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Absent,
    /// B has EX on UPDATE.
    Waiting,
    Granted,
    /// B waits for PR on UPDATE.
    Called,
}
use State::{Absent, Called, Granted, Waiting};

#[derive(Clone, Copy, Debug)]
enum Input {
    Enqueue,
    Claim,
    ClaimOld,
    CancelAll,
    CancelCalled,
    CancelOther,
    CancelNothing,
    CancelForged,
    CancelAsOwn,
    Weaker,
    Harmless,
    Same,
    Stronger,
    ConvertForged,
    Progress,
    Deadline,
    Drop,
    DropOther,
}
use Input::*;

/// A's lock 1, EX on UPDATE and PERM. What the input answers, what becomes of
/// the lock, and the events.
const TABLE: [(Input, [&str; 4]); 18] = [
    (
        Enqueue,
        [
            "granted: EX 12",
            "duplicate: waiting",
            "duplicate: EX 12",
            "duplicate: EX 12 called 2",
        ],
    ),
    (
        Claim,
        [
            "true: EX 12",
            "false: waiting",
            "false: EX 12",
            "false: EX 12 called 2",
        ],
    ),
    (
        ClaimOld,
        [
            "false: absent",
            "false: waiting",
            "false: EX 12",
            "false: EX 12 called 2",
        ],
    ),
    (
        CancelAll,
        [
            "false: absent",
            "true: absent",
            "true: absent",
            "true: absent, B granted",
        ],
    ),
    (
        CancelCalled,
        [
            "false: absent",
            "true: absent",
            "true: EX 10",
            "true: EX 10, B granted",
        ],
    ),
    (
        CancelOther,
        [
            "false: absent",
            "true: absent",
            "true: EX 2",
            "true: EX 2 called 2",
        ],
    ),
    // A request is withdrawn whatever it is told to give up.
    (
        CancelNothing,
        [
            "false: absent",
            "true: absent",
            "true: EX 12",
            "true: EX 12 called 2",
        ],
    ),
    (
        CancelForged,
        [
            "false: absent",
            "false: waiting",
            "false: EX 12",
            "false: EX 12 called 2",
        ],
    ),
    (
        CancelAsOwn,
        [
            "false: absent",
            "false: waiting",
            "false: EX 12",
            "false: EX 12 called 2",
        ],
    ),
    (
        Weaker,
        [
            "unknown: absent",
            "unknown: waiting",
            "ok: PR 12",
            "ok: PR 12, B granted",
        ],
    ),
    // Answered, but still in the way: called back once more.
    (
        Harmless,
        [
            "unknown: absent",
            "unknown: waiting",
            "ok: PW 12",
            "ok: PW 12 called 2, A called 2",
        ],
    ),
    (
        Same,
        [
            "unknown: absent",
            "unknown: waiting",
            "not weaker: EX 12",
            "not weaker: EX 12 called 2",
        ],
    ),
    (
        Stronger,
        [
            "unknown: absent",
            "unknown: waiting",
            "not weaker: EX 12",
            "not weaker: EX 12 called 2",
        ],
    ),
    (
        ConvertForged,
        [
            "unknown: absent",
            "unknown: waiting",
            "unknown: EX 12",
            "unknown: EX 12 called 2",
        ],
    ),
    (
        Progress,
        [
            "10000: absent",
            "10000: waiting",
            "10000: EX 12",
            "14000: EX 12 called 2",
        ],
    ),
    (
        Deadline,
        [
            "[]: absent",
            "[Holder(2)]: waiting",
            "[]: EX 12",
            "[Holder(1)]: EX 12 called 2",
        ],
    ),
    (
        Drop,
        [
            "-: absent",
            "-: absent, A dropped",
            "-: absent",
            "-: absent, B granted",
        ],
    ),
    (
        DropOther,
        [
            "-: absent",
            "-: EX 12, A granted",
            "-: EX 12",
            // It was asked for in earnest: the holder still answers.
            "-: EX 12 called 2, B dropped",
        ],
    ),
];

#[test]
fn every_state_takes_every_event_l1() {
    let mut wrong = Vec::new();
    for (input, row) in TABLE {
        for (state, expected) in [Absent, Waiting, Granted, Called].into_iter().zip(row) {
            let mut table = in_state(state);
            let answer = apply(&mut table, input);
            let seen = format!("{answer}: {}{}", lock(&table), tail(&mut table));
            if seen != expected {
                wrong.push(format!("{input:?} in {state:?}: {seen}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn in_state(state: State) -> Table {
    let mut table = Table::new(WIDE);
    let ex = want(1, Mode::Ex, BITS);
    if state == Waiting {
        let first = want(9, Mode::Ex, Bits::UPDATE);
        assert!(matches!(
            table.enqueue(ms(0), B, &first),
            Outcome::Granted(_)
        ));
        assert_eq!(table.enqueue(ms(0), A, &ex), Outcome::Queued);
    }
    if matches!(state, Granted | Called) {
        assert!(matches!(table.enqueue(ms(0), A, &ex), Outcome::Granted(_)));
    }
    if state == Called {
        let read = want(9, Mode::Pr, Bits::UPDATE);
        assert_eq!(table.enqueue(ms(0), B, &read), Outcome::Queued);
    }
    events(&mut table);
    table
}

fn apply(table: &mut Table, input: Input) -> String {
    let now = ms(1);
    let claim = dlm::Claim {
        lock: id(1),
        fid: FILE,
        mode: Mode::Ex,
        bits: BITS,
        extent: Extent::ALL,
        group: 0,
    };
    let all = Bits::ALL;
    let converted = |out: Result<(), ConvertError>| match out {
        Ok(()) => "ok".to_string(),
        Err(ConvertError::Unknown) => "unknown".to_string(),
        Err(ConvertError::NotWeaker) => "not weaker".to_string(),
    };
    match input {
        Enqueue => match table.enqueue(now, A, &want(1, Mode::Ex, BITS)) {
            Outcome::Granted(_) => "granted".to_string(),
            Outcome::Refused(Refusal::DuplicateId) => "duplicate".to_string(),
            other => format!("{other:?}"),
        },
        Claim => table.claim(now, A, &claim, true).is_ok().to_string(),
        ClaimOld => table.claim(now, A, &claim, false).is_ok().to_string(),
        CancelAll => table.cancel(now, A, id(1), all).to_string(),
        CancelCalled => table.cancel(now, A, id(1), Bits::UPDATE).to_string(),
        CancelOther => table.cancel(now, A, id(1), Bits::PERM).to_string(),
        CancelNothing => table.cancel(now, A, id(1), Bits::LOOKUP).to_string(),
        CancelForged => {
            let by_other = table.cancel(now, B, id(1), all);
            let of_other = table.cancel(now, A, id(9), all);
            let unknown = table.cancel(now, A, id(7), all);
            (by_other || of_other || unknown).to_string()
        }
        CancelAsOwn => {
            let as_own = table.cancel_own(now, A, id(1));
            (as_own || table.cancel_own(now, A, own(1))).to_string()
        }
        Weaker => converted(table.convert(now, A, id(1), Mode::Pr)),
        Harmless => converted(table.convert(now, A, id(1), Mode::Pw)),
        Same => converted(table.convert(now, A, id(1), Mode::Ex)),
        Stronger => converted(table.convert(now, A, id(1), Mode::Group)),
        ConvertForged => converted(table.convert(now, B, id(1), Mode::Nl)),
        Progress => {
            table.progress(ms(9_000), A, Some(FILE));
            let end = table.next_deadline().unwrap_or(ms(10_000));
            (end - ms(0)).as_millis().to_string()
        }
        Deadline => {
            assert_eq!(table.overdue(ms(9_999)), []);
            format!("{:?}", table.overdue(ms(0) + ANSWER))
        }
        Drop => {
            table.drop_holder(now, A);
            "-".to_string()
        }
        DropOther => {
            table.drop_holder(now, B);
            "-".to_string()
        }
    }
}

fn lock(table: &Table) -> String {
    let Some(line) = table.locks().find(|l| l.holder == A) else {
        return "absent".to_string();
    };
    if !line.is_granted {
        return "waiting".to_string();
    }
    let mode = format!("{:?}", line.grant.mode).to_uppercase();
    let called = match line.called.set {
        0 => String::new(),
        set => format!(" called {set:x}"),
    };
    format!("{mode} {:x}{called}", line.grant.bits.set)
}

fn tail(table: &mut Table) -> String {
    let name = |holder| if holder == A { "A" } else { "B" };
    let show = |event| match event {
        Event::Blocking(b) => format!(", {} called {:x}", name(b.holder), b.bits.set),
        Event::Granted { holder, .. } => format!(", {} granted", name(holder)),
        Event::Dropped { holder, .. } => format!(", {} dropped", name(holder)),
        Event::Recalled { .. } => ", recalled".to_string(),
    };
    events(table).into_iter().map(show).collect()
}
