//! From a lock to a root of the tree: what the client must know of a file
//! before it decides about it alone.

use super::tree::Found;
use super::{ask, dispatch, is_agreed, restock};
use crate::base::{Attr, Errno, Fid, FileKind, Mode};
use crate::client::call::{Aim, Call, Context, Outcome, Pending};
use crate::client::{CallError, Import};
use crate::namespace::Dirent;
use crate::wire::op::{Intent, OfFile, Readdir};
use crate::wire::{Granted, Reply, Request};
use crate::world::World;
use crate::world::race::within;
use std::rc::Rc;
use std::time::Duration;

/// How long changes wait for a directory's names, which the box may have to ask
/// its origin for.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes of a directory's names that are asked for at a time, and how often: a
/// larger one is not known in full.
const LISTED: u32 = 64 << 10;
const LISTINGS_MAX: usize = 8;

/// Begins for each lock that an answer brought. Changes of the file wait.
pub fn begin<W: World>(import: &Rc<Import<W>>, pending: &Pending, granted: &Granted) {
    // Who asked for what it lists knows what there is to know.
    let context = &pending.context;
    let grants = granted.grants.iter().filter(|_| context.aim != Aim::Alone);
    let clears = match &*pending.request.borrow() {
        Request::Unlink(op) if !op.dir => Some(op.parent),
        _ => None,
    };
    for grant in grants {
        let fid = grant.fid;
        let ahead = &import.ahead;
        if grant.mode != Mode::Ex || ahead.has(fid) || !is_agreed(import) {
            continue;
        }
        if ahead.preparing.borrow().contains_key(&fid) {
            continue;
        }
        ahead.preparing.borrow_mut().insert(fid, Vec::new());
        restock(import, context);
        if clears == Some(fid) {
            sweep(import, context, fid, false);
        }
        let (import, context) = (Rc::clone(import), context.clone());
        let world = import.world.clone();
        world.spawn(async move {
            import.ahead.busy.quiet(fid).await;
            let known = know(&import, &context, fid).await;
            let _ = within(&import.world, PATIENCE, import.ahead.stocked()).await;
            // All of it was learnt under the lock if the lock is still there.
            if let Ok((attr, found)) = known
                && attr.nlink > 0
                && import.cached.is_alone(fid, attr.kind)
            {
                let mut tree = import.ahead.tree.borrow_mut();
                tree.add_root(fid, &attr, found);
            }
            let waiting = import.ahead.preparing.borrow_mut().remove(&fid);
            for pending in waiting.into_iter().flatten() {
                dispatch(&import, pending);
            }
        });
    }
}

/// A name is removed, here or by the box: it may be the first of many.
pub fn on_removal<W: World>(import: &Rc<Import<W>>, pending: &Pending, is_here: bool) {
    let dir = match &*pending.request.borrow() {
        Request::Unlink(op) if !op.dir => op.parent,
        _ => return,
    };
    if import.ahead.has(dir) {
        sweep(import, &pending.context, dir, is_here);
    }
}

/// Asks for files that may be removed next, if it is time to.
fn sweep<W: World>(import: &Rc<Import<W>>, context: &Context, dir: Fid, is_here: bool) {
    let now = import.world.now();
    let mut sweeps = import.ahead.sweeps.borrow_mut();
    let Some(part) = sweeps.on_removal(dir, is_here, now) else {
        return;
    };
    drop(sweeps);
    let context = Context {
        aim: Aim::Alone,
        ..context.clone()
    };
    let request = Request::Readdir(Readdir {
        fid: dir,
        cookie: part.cookie,
        bytes: part.bytes,
        attrs: true,
    });
    // Nobody waits for it.
    drop(send(import, &context, request));
}

/// Takes in the files that were asked for so: what is shown of them was shown
/// at the instant at which the client got them to itself.
pub fn adopt<W: World>(import: &Import<W>, pending: &Pending, outcome: &Outcome) {
    let request = pending.request.borrow();
    let Request::Readdir(op) = &*request else {
        return;
    };
    if pending.context.aim != Aim::Alone {
        return;
    }
    let ahead = &import.ahead;
    let Ok((Reply::Listing(listed), _)) = outcome else {
        return ahead.sweeps.borrow_mut().on_part(op.fid, 0, None);
    };
    let mut came = 0;
    for entry in &listed.entries {
        let is_new = !ahead.has(entry.fid)
            && !ahead.busy.has(entry.fid)
            && !ahead.preparing.borrow().contains_key(&entry.fid);
        let attr = entry.attr.as_ref().filter(|attr| attr.nlink > 0);
        if let Some(attr) = attr
            && is_new
            && attr.kind != FileKind::Directory
            && import.cached.is_alone(entry.fid, attr.kind)
        {
            let mut tree = ahead.tree.borrow_mut();
            tree.add_root(entry.fid, attr, Found::default());
            came += 1;
        }
    }
    let next = listed.entries.last().filter(|_| !listed.end);
    let next = next.map(|entry| entry.cookie);
    ahead.sweeps.borrow_mut().on_part(op.fid, came, next);
}

async fn know<W: World>(
    import: &Rc<Import<W>>,
    context: &Context,
    fid: Fid,
) -> Result<(Attr, Found), CallError> {
    let of_file = || OfFile {
        fid,
        intent: Intent::default(),
    };
    let attr = send(import, context, Request::Getattr(of_file()));
    let xattrs = send(import, context, Request::XattrList(of_file()));
    let names = send(import, context, listing(fid, 0));
    let (attr, xattrs) = (attr.reply().await, xattrs.reply().await);
    let names = within(&import.world, PATIENCE, names.reply()).await;
    let (Reply::Entry(entry), _) = attr? else {
        return Err(CallError::Protocol);
    };
    let entries = match (entry.attr.kind, names) {
        (FileKind::Directory, Some(Ok((first, _)))) => all_names(import, context, fid, first).await,
        _ => None,
    };
    let is_plain = match xattrs {
        Ok((Reply::Blob(blob), _)) => blob.bytes.0.is_empty(),
        Err(CallError::Failed(errno)) => errno == Errno::EOPNOTSUPP,
        _ => false,
    };
    Ok((entry.attr, Found { entries, is_plain }))
}

/// All names, if they are not too many; `None`: not known.
async fn all_names<W: World>(
    import: &Rc<Import<W>>,
    context: &Context,
    fid: Fid,
    first: Reply,
) -> Option<Vec<Dirent>> {
    let mut all = Vec::new();
    let mut reply = first;
    for _ in 0..LISTINGS_MAX {
        let Reply::Listing(listed) = reply else {
            return None;
        };
        let next = listed.entries.last().map(|entry| entry.cookie);
        all.extend(listed.entries.into_iter().map(|entry| Dirent {
            name: entry.name,
            fid: entry.fid,
            kind: entry.kind,
            ino: entry.ino,
        }));
        if listed.end {
            return Some(all);
        }
        let more = send(import, context, listing(fid, next?));
        let more = within(&import.world, PATIENCE, more.reply()).await?;
        reply = more.ok()?.0;
    }
    None
}

fn listing(fid: Fid, cookie: u64) -> Request {
    Request::Readdir(Readdir {
        fid,
        cookie,
        bytes: LISTED,
        attrs: false,
    })
}

fn send<W: World>(import: &Rc<Import<W>>, context: &Context, request: Request) -> Call {
    let pending = Pending::new(context, request, None);
    ask(import, &pending, &[]);
    Call(pending)
}
