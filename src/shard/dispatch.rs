//! From a request to its handler, and the glue between inodes and bytes.

use super::meta::{self, Call};
use super::{Incoming, Outgoing, Shard, custody, file, filelocks, session::Export};
use crate::base::{Errno, Fid, Lsn, Transno};
use crate::conf::Writeback;
use crate::namespace::xattr::CUSTODY;
use crate::shard::{contact, writeback};
use crate::wire::head::flags;
use crate::wire::op::Empty;
use crate::wire::{Reply, Request};
use crate::world::World;
use std::rc::Rc;

/// Runs one request to its end. Never panics on what a client sent.
pub async fn run<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    incoming: &Incoming,
) -> Outgoing {
    let out = match Call::new(shard, export, incoming) {
        Ok(call) => attempt(&call).await,
        Err(errno) => Err(errno),
    };
    let out = out.unwrap_or_else(meta::refused);
    shard
        .counters
        .on_request(out.result.as_ref().err().copied());
    out
}

/// The reply of an operation that was done before is given again from its
/// record: what the operation left in memory is made again, too.
pub fn repeated<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    incoming: &Incoming,
    reply: &Reply,
) {
    let Reply::Entry(entry) = reply else { return };
    match &incoming.request {
        Request::Create(op) => meta::opened(shard, export, op.open, entry.fid, op.flags),
        Request::Open(op) => meta::opened(shard, export, op.open, entry.fid, op.flags),
        _ => {}
    }
}

async fn attempt<W: World>(call: &Call<'_, W>) -> Result<Outgoing, Errno> {
    if let Some(fid) = subject(&call.incoming.request) {
        call.check_fid(fid)?;
    }
    is_admitted(call)?;
    let out = match handle(call).await {
        Ok(out) => out,
        Err(errno) => {
            meta::settle_refusal(call.shard, call.incoming).await?;
            return Err(errno);
        }
    };
    if out.transno > Transno(0) && is_on_names(&call.incoming.request) {
        through(call, None).await?;
    }
    Ok(out)
}

/// While the origin is away its policy says whether more may be owed to it.
/// A replay was accepted before, and is no more; so was what the client has
/// answered ahead of the box (L4).
fn is_admitted<W: World>(call: &Call<'_, W>) -> Result<(), Errno> {
    let head = &call.incoming.head;
    let is_accepted = head.transno > Transno(0) || head.flags & flags::ORDERED != 0;
    if is_accepted || !is_change(&call.incoming.request) {
        return Ok(());
    }
    contact::refuses_changes(call.shard, &call.target).map_or(Ok(()), Err)
}

fn is_change(request: &Request) -> bool {
    match request {
        // It changes nothing here, and asks for what the origin is to have.
        Request::XattrSet(op) if op.name.0 == CUSTODY => false,
        Request::Setattr(_)
        | Request::Create(_)
        | Request::Link(_)
        | Request::Unlink(_)
        | Request::Rename(_)
        | Request::XattrSet(_)
        | Request::XattrRemove(_)
        | Request::Write(_)
        | Request::Fallocate(_)
        | Request::CopyRange(_) => true,
        Request::Open(op) => op.flags & TRUNC != 0,
        Request::Lookup(_)
        | Request::Getattr(_)
        | Request::Readlink(_)
        | Request::Readdir(_)
        | Request::Close(_)
        | Request::Statfs(_)
        | Request::XattrGet(_)
        | Request::XattrList(_)
        | Request::Read(_)
        | Request::Fsync(_)
        | Request::Seek(_)
        | Request::Reopen(_)
        | Request::Ping(_)
        | Request::Disconnect(_)
        | Request::DeclareCred(_)
        | Request::ReplayDone(_)
        | Request::Abandon(_)
        | Request::Cancel(_)
        | Request::Claim(_)
        | Request::Raised(_)
        | Request::Glimpsed(_)
        | Request::Setlk(_)
        | Request::Getlk(_)
        | Request::Unwait(_)
        | Request::Relock(_)
        | Request::Fids(_) => false,
    }
}

const TRUNC: u32 = libc::O_TRUNC as u32;

async fn handle<W: World>(call: &Call<'_, W>) -> Result<Outgoing, Errno> {
    match &call.incoming.request {
        Request::Lookup(op) => meta::lookup(call, op).await,
        Request::Getattr(op) => meta::getattr(call, op).await,
        Request::Setattr(op) => meta::setattr(call, op).await,
        Request::Readlink(op) => meta::readlink(call, op).await,
        Request::Readdir(op) => meta::readdir(call, op).await,
        Request::Create(op) => meta::create(call, op).await,
        Request::Link(op) => meta::link(call, op).await,
        Request::Unlink(op) => meta::unlink(call, op).await,
        Request::Rename(op) => meta::rename(call, op).await,
        Request::Open(op) => meta::open(call, op).await,
        Request::Close(op) => {
            filelocks::closed(call, op);
            meta::close(call, op).await
        }
        Request::Setlk(op) => filelocks::setlk(call, op).await,
        Request::Getlk(op) => filelocks::getlk(call, op).await,
        Request::Unwait(op) => filelocks::unwait(call, op),
        Request::Fids(op) => meta::grant_fids(call, op).await,
        Request::Statfs(_) => meta::statfs(call).await,
        Request::XattrGet(op) if op.name.0 == CUSTODY => custody::get(call, op.fid).await,
        Request::XattrSet(op) if op.name.0 == CUSTODY => custody::set(call, op).await,
        Request::XattrGet(op) => meta::xattr_get(call, op).await,
        Request::XattrSet(op) => meta::xattr_set(call, op).await,
        Request::XattrList(op) => meta::xattr_list(call, op).await,
        Request::XattrRemove(op) => meta::xattr_remove(call, op).await,
        Request::Read(op) => file::read(call, op).await,
        Request::Write(op) => file::write(call, op).await,
        Request::Fsync(op) => {
            call.shard.flash.commit(call.shard.applied.get()).await?;
            through(call, Some(op.fid)).await?;
            let failure = writeback::take_failure(call.shard, call.target.id, op.fid);
            failure.map_or(Ok(()), Err)?;
            Ok(done())
        }
        Request::Fallocate(op) => file::fallocate(call, op).await,
        Request::Seek(op) => file::seek(call, op).await,
        Request::CopyRange(op) => file::copy_range(call, op).await,
        Request::Reopen(op) => {
            meta::reopen(call.shard, call.export, &op.opens);
            Ok(done())
        }
        // The session's own; here only if it has nothing to do for them.
        Request::Ping(_)
        | Request::Disconnect(_)
        | Request::DeclareCred(_)
        | Request::ReplayDone(_)
        | Request::Abandon(_)
        | Request::Cancel(_)
        | Request::Claim(_)
        | Request::Raised(_)
        | Request::Glimpsed(_) => Ok(done()),
        // Only in the order of the stream, before anything else is served.
        Request::Relock(_) => Err(Errno::EINVAL),
    }
}

fn done() -> Outgoing {
    Outgoing {
        result: Ok((Reply::Done(Empty {}), Vec::new())),
        transno: Transno(0),
        lsn: Lsn(0),
    }
}

/// Under `writeback = through` "done" means "at the origin".
async fn through<W: World>(call: &Call<'_, W>, fid: Option<Fid>) -> Result<(), Errno> {
    let is_through = call.target.conf.borrow().writeback == Writeback::Through;
    if is_through {
        writeback::flush(call.shard, call.target.id, fid).await?;
    }
    Ok(())
}

fn is_on_names(request: &Request) -> bool {
    matches!(
        request,
        Request::Create(_) | Request::Link(_) | Request::Unlink(_) | Request::Rename(_)
    )
}

/// The file or directory that the request is about, which must be the target's.
fn subject(request: &Request) -> Option<Fid> {
    Some(match request {
        Request::Lookup(op) => op.parent,
        Request::Getattr(op) | Request::Readlink(op) => op.fid,
        Request::XattrList(op) | Request::Statfs(op) => op.fid,
        Request::Setattr(op) => op.fid,
        Request::Readdir(op) => op.fid,
        Request::Create(op) => op.parent,
        Request::Link(op) => op.fid,
        Request::Unlink(op) => op.parent,
        Request::Rename(op) => op.from,
        Request::Open(op) => op.fid,
        Request::XattrGet(op) | Request::XattrRemove(op) => op.fid,
        Request::XattrSet(op) => op.fid,
        Request::Read(op) => op.fid,
        Request::Write(op) => op.fid,
        Request::Fsync(op) => op.fid,
        Request::Fallocate(op) => op.fid,
        Request::Seek(op) => op.fid,
        Request::CopyRange(op) => op.to,
        Request::Setlk(op) => op.fid,
        Request::Getlk(op) => op.fid,
        Request::Unwait(op) => op.fid,
        Request::Close(_)
        | Request::Reopen(_)
        | Request::Ping(_)
        | Request::Disconnect(_)
        | Request::DeclareCred(_)
        | Request::ReplayDone(_)
        | Request::Relock(_)
        | Request::Abandon(_)
        | Request::Fids(_)
        | Request::Cancel(_)
        | Request::Claim(_)
        | Request::Raised(_)
        | Request::Glimpsed(_) => return None,
    })
}
