//! Questions about what the client has to itself, answered from the tree, by the
//! box's own rules.

use super::tree::TreeView;
use super::{Tree, caller};
use crate::base::codec::Bytes;
use crate::base::{Errno, Fid, Mono, Name, Time};
use crate::client::Import;
use crate::client::cached::entry;
use crate::client::call::{CallError, Context, Outcome};
use crate::namespace::{Ctx, Stop, xattr};
use crate::wire::op::Blob;
use crate::wire::{Reply, Request};
use crate::world::World;

/// Answers a question, if that needs no box.
pub fn answer<W: World>(
    import: &Import<W>,
    context: &Context,
    request: &Request,
) -> Option<Outcome> {
    let tree = import.ahead.tree.borrow();
    // While the box changes a file for this client, only it knows it.
    let busy = &import.ahead.busy;
    let outcome = match request {
        Request::Lookup(op) if !busy.has(op.parent) => match tree.find(op.parent, &op.name)? {
            None => Err(Errno::ENOENT),
            Some(fid) if busy.has(fid) => return None,
            Some(fid) => Ok(entry(fid, tree.attr(fid)?.clone())),
        },
        Request::Getattr(op) if !busy.has(op.fid) => Ok(entry(op.fid, tree.attr(op.fid)?.clone())),
        Request::Readlink(op) => {
            let Bytes(bytes) = tree.inode(op.fid)?.link.clone()?;
            Ok(blob(bytes))
        }
        // The kernel asks for a capability before the first write to any file.
        Request::XattrGet(op) if !busy.has(op.fid) => {
            xattrs(import, context, &tree, op.fid, |view, ctx| {
                let value = xattr::get(view, ctx, op.fid, &op.name.0)?;
                Ok(value.to_vec())
            })?
        }
        Request::XattrList(op) if !busy.has(op.fid) => {
            xattrs(import, context, &tree, op.fid, |view, ctx| {
                xattr::list(view, ctx, op.fid)
            })?
        }
        _ => return None,
    };
    drop(tree);
    if !may_see(import, context, import.world.now()) {
        return None;
    }
    let told = outcome.map(|reply| (reply, None));
    Some(told.map_err(CallError::Failed))
}

/// What the box would say; `None`: it knows more than the tree.
fn xattrs<W: World>(
    import: &Import<W>,
    context: &Context,
    tree: &Tree,
    fid: Fid,
    decide: impl FnOnce(&TreeView<'_>, Ctx<'_>) -> Result<Vec<u8>, Stop>,
) -> Option<Result<Reply, Errno>> {
    if !tree.has(fid) {
        return None;
    }
    let is_absent = |_: Fid, _: &Name| false;
    let view = TreeView {
        tree,
        fresh: None,
        is_absent: &is_absent,
    };
    let (caller, stock) = (caller(context), import.ahead.stock.borrow());
    let ctx = Ctx {
        caller: &caller,
        bounds: stock.bounds()?,
        now: Time::default(),
    };
    match decide(&view, ctx) {
        Ok(bytes) => Some(Ok(blob(bytes))),
        Err(Stop::Refused(errno)) => Some(Err(errno)),
        Err(_) => None,
    }
}

fn may_see<W: World>(import: &Import<W>, context: &Context, now: Mono) -> bool {
    let is_allowed = import.options.callers_checked || context.cred.uid == 0;
    is_allowed && import.cached.is_within_lease(now)
}

fn blob(bytes: Vec<u8>) -> Reply {
    let bytes = Bytes(bytes);
    Reply::Blob(Blob { bytes })
}
