//! Which locks a request asks for: what its answer could be kept under.

use super::held::Held;
use crate::base::{Bits, Extent, Fid, LockId, Mode};
use crate::client::call::{Context, Fill};
use crate::wire::locks::Of;
use crate::wire::{LockWant, Request};

/// What the attributes and names in an answer rest on.
const SHOWN: Bits = Bits::LOOKUP.with(Bits::ATTRS).with(Bits::XATTR);

/// And what an open and a read that follow could be done under without asking.
/// Whoever has to wait for DATA has to wait for the attributes, too.
const USED: Bits = SHOWN.with(Bits::OPEN).with(Bits::DATA);

/// Entries of a listing that can be in one answer.
const ENTRIES_MAX: u64 = 1 << 16;

const ACCMODE: u32 = libc::O_ACCMODE as u32;
const TRUNC: u32 = libc::O_TRUNC as u32;

pub fn of(held: &mut Held, context: &Context, request: &Request) -> Vec<LockWant> {
    let mut wants = Vec::new();
    match request {
        Request::Lookup(op) => {
            wants.push(welcome(held.ask(1), Of::Object, USED));
            missing(held, &mut wants, Of::Parent, op.parent, Bits::UPDATE);
        }
        Request::Create(_) => wants.push(welcome(held.ask(1), Of::Object, USED)),
        Request::Getattr(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::XattrGet(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::XattrList(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::Setattr(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::Link(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::Open(op) => {
            let is_reading = op.flags & ACCMODE == libc::O_RDONLY as u32 && op.flags & TRUNC == 0;
            let bits = match is_reading {
                true => USED,
                false => SHOWN.with(Bits::OPEN),
            };
            missing(held, &mut wants, Of::Object, op.fid, bits);
        }
        Request::Readdir(op) => {
            missing(held, &mut wants, Of::Object, op.fid, SHOWN);
            if op.attrs {
                let first = held.ask(ENTRIES_MAX);
                wants.push(welcome(first, Of::Entries, SHOWN));
            }
        }
        Request::Read(op) => {
            let mode = match context.fill {
                Fill::No => None,
                Fill::Read => Some((Mode::Pr, Extent::of(op.offset, u64::from(op.len)))),
                // Of the whole file: two clients that store to parts of it
                // through mappings would owe each other pages (C16).
                Fill::Write => Some((Mode::Pw, Some(Extent::ALL))),
            };
            if let Some((mode, Some(extent))) = mode
                && !held.covers_data(op.fid, mode, extent)
            {
                wants.push(LockWant {
                    lock: held.ask(1),
                    of: Of::Object,
                    mode,
                    bits: Bits::DATA,
                    try_bits: Bits::NONE,
                    extent,
                });
            }
        }
        _ => {}
    }
    wants
}

fn welcome(lock: LockId, of: Of, bits: Bits) -> LockWant {
    LockWant {
        lock,
        of,
        mode: Mode::Pr,
        bits: Bits::NONE,
        try_bits: bits,
        extent: Extent::ALL,
    }
}

/// Asks for those of `bits` that are not held.
fn missing(held: &mut Held, wants: &mut Vec<LockWant>, of: Of, fid: Fid, bits: Bits) {
    let bits = bits.without(held.bits(fid));
    if !bits.is_empty() {
        wants.push(welcome(held.ask(1), of, bits));
    }
}
