//! The lock table against its rules: the conflict function and the states of a
//! lock exhausted, random histories against a naive table, and one test for
//! each policy.

mod conflict;
mod histories;
mod naive;
mod policy;
mod states;

use super::bounds::{Limits, OWN};
use super::{Event, Holder, Table, Want};
use crate::base::{Bits, Extent, Fid, LockId, Mode, Mono};
use std::time::Duration;

const A: Holder = Holder(1);
const B: Holder = Holder(2);
const C: Holder = Holder(3);

const FILE: Fid = Fid {
    seq: 7,
    oid: 1,
    ver: 0,
};

const WIDE: Limits = Limits {
    locks_max: 1 << 20,
    locks_soft: 1 << 20,
    holder_max: 1 << 20,
};

fn ms(n: u64) -> Mono {
    Mono::default() + Duration::from_millis(n)
}

fn id(n: u64) -> LockId {
    LockId(n)
}

fn own(n: u64) -> LockId {
    LockId(OWN | n)
}

const fn at(start: u64, end: u64) -> Extent {
    Extent { start, end }
}

fn want(n: u64, mode: Mode, bits: Bits) -> Want {
    Want::of(LockId(n), FILE, mode, bits)
}

fn data(n: u64, mode: Mode, start: u64, end: u64) -> Want {
    Want {
        extent: at(start, end),
        ..want(n, mode, Bits::DATA)
    }
}

fn events(table: &mut Table) -> Vec<Event> {
    table.events().collect()
}
