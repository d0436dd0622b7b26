//! Opening and closing files without the box, under bit OPEN, and telling it of
//! them in time (N9).
//!
//! The box takes whoever holds OPEN for one who may have the file open. What it
//! does not know of a handle is what the handle may do: as long as PERM is held
//! the file's mode says that, to whoever opened it. So handles are declared
//! before OPEN or PERM ends, before this client changes the mode itself to one
//! that says less, and before anybody else than the opener uses them. A declaration is a frame on
//! the same connection as what must come after it, and nobody waits for it.
//!
//! What was born below a directory that the client has to itself (EX) it opens
//! by the same right: nobody else has seen it, and what takes its names away
//! declares it first. The box may hear of the handle before it hears of the file.

use super::held::Ending;
use super::{Cached, attr, entry};
use crate::base::{Attr, Bits, Fid, FileKind, Name, OpenId};
use crate::client::Import;
use crate::client::call::{CallError, Context, Cred};
use crate::client::ledger::changes_rights;
use crate::wire::op::{Close, Create, Empty, Open};
use crate::wire::{LockCancel, Reply, Request};
use crate::world::World;

/// What an open rests on: the file, its owner and mode, and the right itself.
const OPENABLE: Bits = Bits::LOOKUP.with(Bits::ATTRS).with(Bits::OPEN);

/// The kernel's own bit for "opened to be executed".
const FMODE_EXEC: u32 = 0x20;
const TRUNC: u32 = libc::O_TRUNC as u32;
const ACCMODE: u32 = libc::O_ACCMODE as u32;
const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

/// Opens a file here; `None` if the box is to be asked: for what it would
/// refuse, for a truncation, and to read what could not be kept.
pub fn open<W: World>(import: &Import<W>, context: &Context, op: &Open) -> Option<Reply> {
    let cached = &import.cached;
    let needed = match op.flags & ACCMODE == libc::O_WRONLY as u32 {
        true => OPENABLE,
        false => OPENABLE.with(Bits::DATA),
    };
    let is_born = import.ahead.has_born(op.fid);
    if !is_born && !cached.held.borrow().bits(op.fid).has(needed) {
        return None;
    }
    let attr = attr(cached, op.fid)?;
    let is_writer = op.flags & ACCMODE != libc::O_RDONLY as u32;
    let is_read_only = || import.agreed.borrow().as_ref().is_none_or(|a| a.read_only);
    let is_refused = op.flags & TRUNC != 0 || is_writer && is_read_only();
    if attr.kind != FileKind::Regular || is_refused || !permits(&attr, &context.cred, op.flags) {
        return None;
    }
    let mut ledger = import.ledger.borrow_mut();
    let handle = (op.fid, op.flags);
    let is_open = match is_born {
        true => ledger.open_alone(op.open, handle, &context.cred),
        false => ledger.open_here(op.open, handle, &context.cred),
    };
    is_open.then(|| entry(op.fid, attr))
}

/// A file is born with a handle, ahead of the box: which needs not know of it,
/// if the mode of the file gives its owner what the handle does.
pub fn born<W: World>(import: &Import<W>, context: &Context, op: &mut Create, attr: &Attr) {
    if op.open.0 == 0 || !permits(attr, &context.cred, op.flags) {
        return;
    }
    let mut ledger = import.ledger.borrow_mut();
    if ledger.open_alone(op.open, (op.fid, op.flags), &context.cred) {
        op.open = OpenId(0);
    }
}

/// Closes what was opened here.
pub fn close<W: World>(import: &Import<W>, op: &Close) -> Option<Result<Reply, CallError>> {
    let closed = import.ledger.borrow_mut().close_here(op.open)?;
    Some(closed.map(|()| Reply::Done(Empty {})))
}

/// Does the mode alone allow this, so that the box allows every use without
/// the handle? What an ACL or a capability allows goes by the handle.
fn permits(attr: &Attr, cred: &Cred, flags: u32) -> bool {
    let mut want = match flags & ACCMODE {
        f if f == libc::O_RDONLY as u32 => 0o4,
        f if f == libc::O_WRONLY as u32 => 0o2,
        _ => 0o6,
    };
    if flags & FMODE_EXEC != 0 {
        want |= 0o1;
    }
    if cred.uid == 0 {
        return want & 0o1 == 0 || attr.mode & 0o111 != 0;
    }
    let is_member = cred.gid == attr.gid || cred.groups.contains(&attr.gid);
    let mode = match (cred.uid == attr.uid, is_member) {
        (true, _) => attr.mode >> 6,
        (false, true) => attr.mode >> 3,
        (false, false) => attr.mode,
    };
    mode & want == want
}

/// Tells the box of the handles of `fid` that it knows nothing of, before
/// whatever is sent after this.
pub fn declare<W: World>(import: &Import<W>, fid: Fid) {
    let mut ledger = import.ledger.borrow_mut();
    if ledger.handles().count_here() == 0 {
        return;
    }
    let frames = ledger.declare(fid);
    drop(ledger);
    if let Some(link) = import.link.borrow().as_ref() {
        for frame in frames {
            link.sender.push(frame);
        }
    }
}

/// A request is about to be sent: what the box must know before, and the locks
/// that it gives up with it.
pub fn before<W: World>(
    import: &Import<W>,
    context: &Context,
    request: &Request,
) -> Vec<LockCancel> {
    if let Some(fid) = changes_rights(request)
        && !keeps_rights(import, fid, request)
    {
        declare(import, fid);
    }
    for fid in uses(request).into_iter().flatten() {
        let is_lent = import.ledger.borrow().handles().is_lent(fid, &context.cred);
        if is_lent {
            declare(import, fid);
        }
    }
    match request {
        // A lock ends with its handle, which the box must see closed (L12).
        Request::Setlk(op) => declare(import, op.fid),
        Request::Unlink(op) if !op.dir => return spared(import, (op.parent, &op.name)),
        Request::Rename(op) if op.flags & EXCHANGE == 0 => {
            return spared(import, (op.to, &op.to_name));
        }
        _ => {}
    }
    Vec::new()
}

/// Does everybody who opened the file here keep by its mode what the handle does?
/// User 0 does, and an owner whose own bits stay: no ACL says otherwise.
fn keeps_rights<W: World>(import: &Import<W>, fid: Fid, request: &Request) -> bool {
    let set = match request {
        Request::Setattr(op) => Some(&op.set),
        _ => None,
    };
    let after = set.and_then(|set| {
        let attr = attr(&import.cached, fid)?;
        Some(Attr {
            mode: set.mode.unwrap_or(attr.mode),
            uid: set.uid.unwrap_or(attr.uid),
            ..attr
        })
    });
    let may = |opener: &Cred, flags: u32| {
        let is_owner = |attr: &Attr| attr.uid == opener.uid && permits(attr, opener, flags);
        let is_root = opener.uid == 0 && flags & FMODE_EXEC == 0;
        is_root || after.as_ref().is_some_and(is_owner)
    };
    import.ledger.borrow().handles().keep(fid, may)
}

/// The files whose bytes or size a request uses, perhaps by the right of a handle.
fn uses(request: &Request) -> [Option<Fid>; 2] {
    match request {
        Request::Read(op) => [Some(op.fid), None],
        Request::Write(op) => [Some(op.fid), None],
        Request::Setattr(op) => [Some(op.fid), None],
        Request::Fallocate(op) => [Some(op.fid), None],
        Request::Seek(op) => [Some(op.fid), None],
        Request::CopyRange(op) => [Some(op.from), Some(op.to)],
        _ => [None, None],
    }
}

/// The client takes a name away itself. If it is the file's last, OPEN would be
/// called back: it goes with the request instead, after what is open is told.
fn spared<W: World>(import: &Import<W>, (dir, name): (Fid, &Name)) -> Vec<LockCancel> {
    let cached = &import.cached;
    if let Some(Some(fid)) = import.ahead.find(dir, name) {
        let is_last = import.ahead.attr(fid).is_none_or(|attr| attr.nlink <= 1);
        if is_last {
            declare(import, fid);
        }
    }
    let Some(fid) = cached.known.borrow().name(dir, name) else {
        return Vec::new();
    };
    let is_last = attr(cached, fid).is_none_or(|attr| attr.nlink <= 1);
    if !is_last || !import.ledger.borrow().is_clear() {
        return Vec::new();
    }
    declare(import, fid);
    let in_use = import.ledger.borrow().handles().is_open(fid);
    let endings = give_up(cached, fid);
    let cancels = endings.into_iter().map(|ending| LockCancel {
        lock: ending.lock,
        bits: ending.bits,
        in_use,
    });
    cancels.collect()
}

/// OPEN of `fid` ends, by the client's own will.
pub fn give_up(cached: &Cached, fid: Fid) -> Vec<Ending> {
    cached.held.borrow_mut().give_up(fid, Bits::OPEN)
}
