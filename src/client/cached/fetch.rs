//! Asking before anybody does: for small files' bytes that `follow` expects to
//! be read next, and for names that `series` expects to be looked up. Nobody
//! waits for the answers; what they bring is kept as what a caller asked for
//! would be.

use super::contents::FILE_MAX;
use super::follow::By;
use super::{Cached, attr};
use crate::base::{Bits, Fid, FileKind};
use crate::client::call::{Aim, Context, Fill, Pending};
use crate::client::{Import, ahead};
use crate::wire::op::{Intent, Named, OfFile, Read};
use crate::wire::{Features, Request};
use crate::world::World;
use std::rc::Rc;

/// A file is read: asks for those that are likely to be read next. Only from
/// its start, where whoever reads all of a file begins; larger files come in
/// between, and change nothing.
pub fn on_read<W: World>(import: &Rc<Import<W>>, context: &Context, op: &Read) {
    let is_first = op.offset == 0 && context.fill != Fill::Write;
    if !import.options.locks || !is_first || !is_agreed(import) {
        return;
    }
    let cached = &import.cached;
    let place = cached.known.borrow().name_of(op.fid);
    let Some((dir, name)) = place.filter(|_| is_small(cached, op.fid)) else {
        return;
    };
    let next = |by, count| {
        let mut fids = match by {
            By::Name => cached.known.borrow().after(dir, &name, count),
            By::Listing if cached.held.borrow().bits(dir).has(Bits::UPDATE) => {
                cached.listings.borrow_mut().after(dir, op.fid, count)
            }
            By::Listing => Vec::new(),
        };
        fids.retain(|fid| is_small(cached, *fid));
        fids
    };
    let mut wanted = cached.follow.borrow_mut().on_read(dir, op.fid, next);
    wanted.retain(|fid| !cached.contents.borrow().has(*fid));
    for fid in wanted {
        let intent = Intent::default();
        send(import, context, Request::Getattr(OfFile { fid, intent }));
    }
}

/// A name is looked up that is not known: asks for those that are likely to be
/// next.
pub fn on_lookup<W: World>(import: &Rc<Import<W>>, context: &Context, op: &Named) {
    let cached = &import.cached;
    if !import.options.locks || import.ahead.has(op.parent) {
        return;
    }
    let wanted = cached.series.borrow_mut().on_lookup(op.parent, &op.name);
    for name in wanted {
        let is_known = cached.known.borrow().name(op.parent, &name).is_some();
        if !is_known {
            let (parent, intent) = (op.parent, Intent::default());
            let request = Request::Lookup(Named {
                parent,
                name,
                intent,
            });
            send(import, context, request);
        }
    }
}

fn send<W: World>(import: &Rc<Import<W>>, context: &Context, request: Request) {
    let context = Context {
        aim: Aim::Fetch,
        ..Context::new(Rc::clone(&context.cred))
    };
    ahead::dispatch(import, Pending::new(&context, request, None));
}

fn is_agreed<W: World>(import: &Import<W>) -> bool {
    let agreed = import.agreed.borrow();
    agreed
        .as_ref()
        .is_some_and(|a| a.features.has(Features::INLINE_DATA))
}

fn is_small(cached: &Cached, fid: Fid) -> bool {
    let is_small = |size: u64| (1..=FILE_MAX as u64).contains(&size);
    attr(cached, fid).is_some_and(|a| a.kind == FileKind::Regular && is_small(a.size))
}
