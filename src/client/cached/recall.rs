//! Listings, extended attributes and small files' bytes: answered from what is
//! remembered, learnt from answers, and forgotten for the client's own changes.

use super::held::Rests;
use super::xattrs::{LISTED, covers};
use super::{Cached, attr};
use crate::base::codec::Bytes;
use crate::base::{Bits, Errno, Fid, Slice};
use crate::client::call::{CallError, Context, Fill, Outcome};
use crate::client::custody;
use crate::wire::head::flags::KILL_PRIV;
use crate::wire::op::{Blob, Data, Read, Readdir, XattrName};
use crate::wire::{Reply, Request};

/// What an entry with attributes rests on.
const ENTRY: Bits = Bits::LOOKUP.with(Bits::ATTRS);

/// Answers GET and LIST of extended attributes, and listings.
pub fn answer(
    cached: &Cached,
    context: &Context,
    request: &Request,
) -> Option<Result<Reply, CallError>> {
    match request {
        Request::XattrGet(op) => value(cached, op),
        Request::XattrList(op) => list(cached, op.fid, context.cred.uid == 0).map(Ok),
        Request::Readdir(op) => listing(cached, op).map(Ok),
        _ => None,
    }
}

/// Answers READ. Not one that fills pages which may be stored to: they need
/// more than was asked for with the bytes (C6).
pub fn read(cached: &Cached, context: &Context, op: &Read) -> Option<(Reply, Slice)> {
    if op.offset == 0 {
        let name = cached.known.borrow().name_of(op.fid);
        let interest = &mut cached.interest.borrow_mut();
        name.iter().for_each(|(dir, _)| interest.on_read(*dir));
    }
    let is_covered = holds(cached, op.fid, Bits::DATA) || cached.tree.borrow().has(op.fid);
    if context.fill == Fill::Write || !is_covered {
        return None;
    }
    let contents = &mut cached.contents.borrow_mut();
    let (bytes, size) = contents.read(op.fid, op.offset, op.len)?;
    let eof = op.offset.saturating_add(bytes.len() as u64) >= size;
    Some((Reply::Data(Data { eof, size }), bytes))
}

fn value(cached: &Cached, op: &XattrName) -> Option<Result<Reply, CallError>> {
    if !holds(cached, op.fid, covers(&op.name.0)) {
        return None;
    }
    let xattrs = cached.xattrs.borrow();
    Some(match xattrs.value(op.fid, &op.name.0)? {
        Some(value) => Ok(blob(value)),
        None => Err(CallError::Failed(Errno::ENODATA)),
    })
}

fn list(cached: &Cached, fid: Fid, is_root: bool) -> Option<Reply> {
    if !holds(cached, fid, LISTED) {
        return None;
    }
    cached.xattrs.borrow().list(fid, is_root).map(blob)
}

fn blob(bytes: &[u8]) -> Reply {
    let bytes = Bytes(bytes.to_vec());
    Reply::Blob(Blob { bytes })
}

fn listing(cached: &Cached, op: &Readdir) -> Option<Reply> {
    if !holds(cached, op.fid, Bits::UPDATE) {
        return None;
    }
    let listings = cached.listings.borrow();
    let found = listings.answer(op, |name, fid| {
        let leads = cached.known.borrow().name(op.fid, name) == Some(fid);
        match leads && holds(cached, fid, ENTRY) {
            true => attr(cached, fid),
            false => None,
        }
    });
    found.map(Reply::Listing)
}

fn holds(cached: &Cached, fid: Fid, bits: Bits) -> bool {
    cached.held.borrow().bits(fid).has(bits)
}

/// Takes in what an answer shows, as far as locks cover it now and no change of
/// the client's own could be missing in it.
pub fn learn(
    cached: &Cached,
    context: &Context,
    request: &Request,
    outcome: &Outcome,
    rests: Rests,
) {
    let is_fresh = |fid| cached.known.borrow().is_fresh(fid, rests.asked);
    let holds = |fid, bits| {
        let held = cached.held.borrow();
        held.bits_under(fid, rests).has(bits)
    };
    match (request, outcome) {
        // True when it was asked, and no longer.
        _ if custody::is_about(request) => {}
        (Request::XattrGet(op), Ok((Reply::Blob(blob), _)))
            if holds(op.fid, covers(&op.name.0)) && is_fresh(op.fid) =>
        {
            let value = Some(&blob.bytes.0[..]);
            let xattrs = &mut cached.xattrs.borrow_mut();
            xattrs.on_value(op.fid, &op.name.0, value);
        }
        (Request::XattrGet(op), Err(CallError::Failed(Errno::ENODATA)))
            if holds(op.fid, covers(&op.name.0)) && is_fresh(op.fid) =>
        {
            let xattrs = &mut cached.xattrs.borrow_mut();
            xattrs.on_value(op.fid, &op.name.0, None);
        }
        (Request::XattrList(op), Ok((Reply::Blob(blob), _)))
            if holds(op.fid, LISTED) && is_fresh(op.fid) =>
        {
            let xattrs = &mut cached.xattrs.borrow_mut();
            xattrs.on_list(op.fid, context.cred.uid == 0, &blob.bytes.0);
        }
        (Request::Readdir(op), Ok((Reply::Listing(part), _)))
            if holds(op.fid, Bits::UPDATE) && is_fresh(op.fid) =>
        {
            cached.listings.borrow_mut().on_part(op, part);
        }
        (
            Request::Lookup(_) | Request::Getattr(_) | Request::Open(_),
            Ok((Reply::Entry(entry), Some(bytes))),
        ) if holds(entry.fid, Bits::DATA)
            && is_fresh(entry.fid)
            && entry.attr.size == bytes.len() as u64 =>
        {
            cached.contents.borrow_mut().on_bytes(entry.fid, bytes);
        }
        // It may have been there, and have been cut.
        (Request::Create(_), Ok((Reply::Entry(entry), _))) => {
            cached.known.borrow_mut().disturb(entry.fid);
            cached.contents.borrow_mut().forget(entry.fid);
        }
        _ => {}
    }
}

/// What rested on these bits is forgotten.
pub fn forget(cached: &Cached, fid: Fid, bits: Bits) {
    cached.xattrs.borrow_mut().forget(fid, bits);
    if bits.has(Bits::UPDATE) {
        cached.listings.borrow_mut().forget(fid);
    }
    if bits.has(Bits::DATA) {
        cached.contents.borrow_mut().forget(fid);
    }
}

/// What a write ahead of the box makes of a file's bytes: kept by
/// [`Wrote::keep`] when it is decided.
pub struct Wrote {
    before: Option<Slice>,
    size: u64,
}

impl Wrote {
    /// Before the write of a file that is the client's own, and which has `size`
    /// bytes.
    #[must_use]
    pub fn before(cached: &Cached, fid: Fid, size: u64) -> Wrote {
        let before = cached.contents.borrow().whole(fid);
        Wrote { before, size }
    }

    pub fn keep(self, cached: &Cached, fid: Fid, offset: u64, bytes: &Slice) {
        let before = (self.before.as_ref(), self.size);
        let contents = &mut cached.contents.borrow_mut();
        contents.on_written(fid, before, (offset, bytes));
    }
}

pub fn clear(cached: &Cached) {
    cached.xattrs.borrow_mut().clear();
    cached.listings.borrow_mut().clear();
    cached.contents.borrow_mut().clear();
}

/// The client's own change begins, or has ended: its own locks are not called
/// back for it.
pub fn on_own(cached: &Cached, context: &Context, request: &Request) {
    let mut listings = cached.listings.borrow_mut();
    match request {
        Request::Create(op) => listings.forget(op.parent),
        Request::Link(op) => listings.forget(op.parent),
        Request::Unlink(op) => listings.forget(op.parent),
        Request::Rename(op) => {
            listings.forget(op.from);
            listings.forget(op.to);
        }
        _ => {}
    }
    if let Some(fid) = changes_xattrs(request, context.flags & KILL_PRIV != 0) {
        cached.known.borrow_mut().disturb(fid);
        cached.xattrs.borrow_mut().forget(fid, Bits::ALL);
    }
    if let Some(fid) = changes_bytes(request) {
        cached.known.borrow_mut().disturb(fid);
        cached.contents.borrow_mut().forget(fid);
    }
}

/// The file whose bytes or size a request changes.
fn changes_bytes(request: &Request) -> Option<Fid> {
    match request {
        Request::Write(op) => Some(op.fid),
        Request::Fallocate(op) => Some(op.fid),
        Request::CopyRange(op) => Some(op.to),
        Request::Setattr(op) if op.set.size.is_some() => Some(op.fid),
        Request::Open(op) if op.flags & TRUNC != 0 => Some(op.fid),
        _ => None,
    }
}

const TRUNC: u32 = libc::O_TRUNC as u32;

/// The file whose extended attributes a request may change: with the mode go
/// ACLs, and with privileges a capability.
fn changes_xattrs(request: &Request, kills: bool) -> Option<Fid> {
    match request {
        Request::XattrSet(op) => Some(op.fid),
        Request::XattrRemove(op) => Some(op.fid),
        Request::Setattr(op) => Some(op.fid),
        Request::Write(op) if kills => Some(op.fid),
        Request::Fallocate(op) if kills => Some(op.fid),
        Request::CopyRange(op) if kills => Some(op.to),
        Request::Open(op) if kills => Some(op.fid),
        _ => None,
    }
}
