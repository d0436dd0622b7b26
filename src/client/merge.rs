//! Two changes that one request can ask for, pure: the caller's next change of
//! a file, while the one before has not been sent. The box must come to the same
//! by the one as by the two, and refuse it only if it had refused one of them.

use crate::base::{SetAttr, Time};
use crate::wire::Request;
use crate::wire::op::{Setattr, Write};

/// What asks for both. `len`: bytes that `first` writes.
#[must_use]
pub fn merged(first: &Request, len: usize, then: &Request) -> Option<Request> {
    match (first, then) {
        (Request::Setattr(one), Request::Setattr(two)) if one.fid == two.fid => {
            let set = set(&one.set, &two.set)?;
            Some(Request::Setattr(Setattr { fid: one.fid, set }))
        }
        (Request::Write(one), Request::Write(two)) if goes_on(one, len, two) => Some(first.clone()),
        _ => None,
    }
}

/// Is a change worth waiting with, for the next may go with it?
#[must_use]
pub fn may_grow(request: &Request, len: usize) -> bool {
    match request {
        Request::Setattr(op) => op.set.size.is_none(),
        Request::Write(op) => !op.append && len < LARGE,
        _ => false,
    }
}

/// Bytes that are worth a request of their own.
const LARGE: usize = 64 << 10;

fn goes_on(one: &Write, len: usize, two: &Write) -> bool {
    let end = one.offset.checked_add(len as u64);
    let is_same = (one.fid, one.open) == (two.fid, two.open);
    is_same && !one.append && !two.append && end == Some(two.offset)
}

/// Attributes that are set to both, one after the other, by one caller.
fn set(one: &SetAttr, two: &SetAttr) -> Option<SetAttr> {
    let is_plain = |set: &SetAttr| set.size.is_none() && set.ctime.is_none();
    if !is_plain(one) || !is_plain(two) || strip_twice(one, two) {
        return None;
    }
    let atime = time((one.atime, one.atime_now), (two.atime, two.atime_now))?;
    let mtime = time((one.mtime, one.mtime_now), (two.mtime, two.mtime_now))?;
    Some(SetAttr {
        mode: two.mode.or(one.mode),
        uid: two.uid.or(one.uid),
        gid: two.gid.or(one.gid),
        atime: atime.0,
        atime_now: atime.1,
        mtime: mtime.0,
        mtime_now: mtime.1,
        kill_priv: one.kill_priv || two.kill_priv,
        ..SetAttr::default()
    })
}

/// A new owner takes setuid and setgid away, by the group at that moment, and
/// from a mode that was set just before, too: a single request does it once,
/// and never to the mode that it sets.
fn strip_twice(one: &SetAttr, two: &SetAttr) -> bool {
    const PRIVILEGES: u32 = libc::S_ISUID | libc::S_ISGID;
    let strips = |set: &SetAttr| set.kill_priv || set.uid.is_some() || set.gid.is_some();
    let is_marked = one.mode.is_some_and(|mode| mode & PRIVILEGES != 0);
    strips(two) && (strips(one) || is_marked)
}

/// A time as it is set last. "Now" is the time of the request, which is that of
/// the second: it stands only if that says it, too.
fn time(one: (Option<Time>, bool), two: (Option<Time>, bool)) -> Option<(Option<Time>, bool)> {
    let is_set = |(at, now): (Option<Time>, bool)| at.is_some() || now;
    match (one, two) {
        _ if is_set(two) => Some(two),
        ((_, true), _) => None,
        _ => Some(one),
    }
}
