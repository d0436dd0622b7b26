//! Which locks a request asks for: what its answer could be kept under.

use super::held::Held;
use crate::base::{Bits, Extent, Fid, FileKind, LockId, Mode};
use crate::client::call::{Aim, Context, Fill};
use crate::client::custody;
use crate::wire::head::flags;
use crate::wire::locks::Of;
use crate::wire::op::Open;
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

/// What is to be asked of a file for this client alone.
pub struct Alone<'a> {
    /// It has it: nothing more is asked.
    pub has: &'a dyn Fn(Fid) -> bool,
    /// It changes it: should it?
    pub asks: &'a dyn Fn(Fid) -> bool,
    /// It removes a name in it: should it?
    pub clears: &'a dyn Fn(Fid) -> bool,
}

/// The bits that a client must have to itself to change a file by itself.
#[must_use]
pub fn all_of(kind: FileKind) -> Bits {
    match kind {
        FileKind::Regular => SHOWN.with(Bits::DATA),
        _ => SHOWN,
    }
}

pub fn of(
    held: &mut Held,
    context: &Context,
    request: &Request,
    alone: &Alone<'_>,
) -> Vec<LockWant> {
    let mut wants = Vec::new();
    let missing = |held: &mut Held, wants: &mut Vec<_>, of, fid: Fid, bits| {
        if !(alone.has)(fid) {
            missing(held, wants, of, fid, bits);
        }
    };
    match request {
        Request::Lookup(op) => {
            wants.push(welcome(held.ask(1), Of::Object, USED));
            missing(held, &mut wants, Of::Parent, op.parent, Bits::UPDATE);
        }
        Request::Create(op) => {
            let asks = (alone.asks)(op.parent);
            wants.push(match asks && op.kind == FileKind::Directory {
                true => whole(held.ask(1), Of::Object, all_of(op.kind)),
                false => welcome(held.ask(1), Of::Object, USED),
            });
            if asks {
                alone_in(held, &mut wants, op.parent);
            }
        }
        Request::Unlink(op) if (alone.clears)(op.parent) => {
            alone_in(held, &mut wants, op.parent);
        }
        Request::Write(op) => {
            let is_page = context.flags & flags::PAGE_WRITE != 0;
            let bits = all_of(FileKind::Regular);
            if !is_page && (alone.asks)(op.fid) && !held.is_alone(op.fid, bits) {
                wants.push(whole(held.ask(1), Of::Object, bits));
            }
        }
        Request::Getattr(op) => {
            let bits = match context.aim {
                Aim::Fetch => USED,
                _ => SHOWN,
            };
            missing(held, &mut wants, Of::Object, op.fid, bits);
            if let Some(want) = wants.first_mut().filter(|_| context.aim == Aim::Watch) {
                want.bits = want.try_bits.and(Bits::UPDATE);
                want.try_bits = want.try_bits.without(Bits::UPDATE);
            }
        }
        // Nothing of it is kept.
        _ if custody::is_about(request) => {}
        Request::XattrGet(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::XattrList(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::Setattr(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::Link(op) => missing(held, &mut wants, Of::Object, op.fid, SHOWN),
        Request::Open(op) => {
            let bits = match is_reading(op) {
                true => USED,
                false => SHOWN.with(Bits::OPEN),
            };
            missing(held, &mut wants, Of::Object, op.fid, bits);
        }
        Request::Readdir(op) => {
            missing(held, &mut wants, Of::Object, op.fid, SHOWN);
            if op.attrs {
                let first = held.ask(ENTRIES_MAX);
                wants.push(match context.aim {
                    Aim::Alone => whole(first, Of::Entries, all_of(FileKind::Regular)),
                    _ => welcome(first, Of::Entries, SHOWN),
                });
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

/// Is the file opened for reading only?
#[must_use]
pub fn is_reading(op: &Open) -> bool {
    op.flags & ACCMODE == libc::O_RDONLY as u32 && op.flags & TRUNC == 0
}

/// The directory of a name that is made or removed, to oneself.
fn alone_in(held: &mut Held, wants: &mut Vec<LockWant>, dir: Fid) {
    let bits = all_of(FileKind::Directory);
    if !held.is_alone(dir, bits) {
        wants.push(whole(held.ask(1), Of::Parent, bits));
    }
}

fn whole(lock: LockId, of: Of, bits: Bits) -> LockWant {
    LockWant {
        mode: Mode::Ex,
        ..welcome(lock, of, bits)
    }
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
