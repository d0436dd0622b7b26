//! Carrying one inode's state: bytes, attributes, xattrs, then fsync, then the
//! note that what did not change meanwhile is clean. One pass at a time.

use super::engine::Engine;
use super::{Shard, Tx, locate, lost, origin, settle, tasks, xattrs};
use crate::base::{Attr, Codec, Errno, Fid, FileKind, SetAttr, Slice};
use crate::flash::Peek;
use crate::namespace::record::flag;
use crate::namespace::{Inode, key};
use crate::origin::{Found, OriginOp, Place};
use crate::shard::data::{self, DirtyPart, Flush};
use crate::world::World;
use crate::world::sync::Promise;
use std::rc::Rc;

const OWED: u32 = flag::ATTRS_OWED | flag::DATA_OWED | flag::XATTRS_OWED;
/// Bytes merged into one write, and writes of one file under way at a time.
const WRITE_BYTES: u64 = 2 << 20;
const WRITES: usize = 4;

/// Starts a pass, or joins the one under way.
pub fn begin<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
) -> Promise<Result<(), Errno>> {
    if let Some(pass) = engine.carrying.borrow().get(&fid) {
        return pass.clone();
    }
    let promise: Promise<Result<(), Errno>> = Promise::default();
    engine.carrying.borrow_mut().insert(fid, promise.clone());
    let (shard, engine, end) = (Rc::clone(shard), Rc::clone(engine), promise.clone());
    shard.world.clone().spawn(async move {
        let moves = engine.moves.get();
        let result = match pass(&shard, &engine, fid).await {
            // A directory above it moved, or is moving.
            Err(Errno::ESTALE | Errno::ENOENT)
                if engine.is_moving() || engine.moves.get() != moves =>
            {
                Err(Errno::EAGAIN)
            }
            Err(errno @ (Errno::ESTALE | Errno::ENOENT)) => {
                missed(&shard, &engine, fid, errno).await
            }
            result => result,
        };
        engine.contact.on_end(shard.world.now(), result.err());
        engine.carrying.borrow_mut().remove(&fid);
        match result {
            Ok(()) => engine.failures.borrow_mut().clear(fid),
            // Nothing went wrong, the file only changed too fast.
            Err(Errno::EAGAIN) => engine.on_dirty(fid, shard.world.wall()),
            Err(e) => engine.file_failed(&shard, fid, e),
        }
        end.set(result);
        engine.progressed.notify();
        engine.wake();
    });
    promise
}

/// The file was not where the pass looked for it, here or at the origin.
async fn missed<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    errno: Errno,
) -> Result<(), Errno> {
    match locate::inode(shard, fid).await? {
        // Its removal was carried, or its last close let it go, under the pass.
        None => drop_mark(shard, engine, fid),
        Some(inode) if inode.flags & flag::ORPHAN != 0 => {
            engine.dirty.borrow_mut().remove(&fid);
            Ok(())
        }
        Some(_) => match lost::mend(shard, engine, fid, None).await? {
            true => Err(Errno::EAGAIN),
            false => Err(errno),
        },
    }
}

/// A whole pass that begins after this call: what is owed now is carried when
/// it returns.
pub async fn fresh<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
) -> Result<(), Errno> {
    let under_way = engine.carrying.borrow().get(&fid).cloned();
    if let Some(pass) = under_way {
        // Whatever it carried, it may have read before the call.
        let _ = pass.get().await;
    }
    for _ in 0..PASSES {
        locate::stand_still(engine).await;
        match begin(shard, engine, fid).get().await {
            Err(Errno::EAGAIN) => {}
            end => return end,
        }
    }
    Err(Errno::EAGAIN)
}

/// Attempts at a file that changes while it is carried.
const PASSES: usize = 8;
/// Rounds of one pass: far more than the parts of any file need, so that only
/// one that is written faster than it is carried gets there.
const ROUNDS: usize = 4096;

/// Carries all that is owed. One round takes as many changed parts as a
/// transaction holds, and a file may have any number of them.
async fn pass<W: World>(shard: &Rc<Shard<W>>, engine: &Rc<Engine>, fid: Fid) -> Result<(), Errno> {
    for _ in 0..ROUNDS {
        if !round(shard, engine, fid).await? {
            return Ok(());
        }
    }
    Err(Errno::EAGAIN)
}

/// True if there was more than one round takes.
async fn round<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
) -> Result<bool, Errno> {
    // Bytes follow only an identity that is on flash (see `apply::make`).
    loop {
        let progressed = engine.progressed.wait();
        if !engine.unsettled.borrow().contains(&fid) {
            break;
        }
        progressed.await;
    }
    let Some(inode) = locate::inode(shard, fid).await? else {
        return drop_mark(shard, engine, fid).map(|()| false);
    };
    if inode.flags & OWED == 0 {
        return drop_mark(shard, engine, fid).map(|()| false);
    }
    // Not there yet (its creation puts it back among the dirty), or without a
    // name: what nobody can open after the last close need not be carried.
    let root = shard.target_of(fid)?.root;
    let unborn = fid != root && inode.locator.identity.is_none();
    if unborn || inode.flags & flag::ORPHAN != 0 {
        engine.dirty.borrow_mut().remove(&fid);
        return Ok(false);
    }
    let outages = engine.contact.outages();
    let settled = !changes_again(shard, engine, fid, &inode.attr);
    let file = locate::place_of(shard, fid, &inode).await?;
    let flush = match inode.flags & flag::DATA_OWED != 0 {
        true => Some(Rc::new(data::dirty_parts(shard, fid).await?)),
        false => None,
    };
    if let Some(flush) = &flush {
        bytes(shard, engine, &file, flush).await?;
    }
    // After the bytes: writing clears setuid, and changes the times.
    attributes(shard, engine, fid, &file, &inode, flush.is_some()).await?;
    let op = OriginOp::Fsync { file };
    let found = origin::found(shard, engine.target, op)
        .await?
        .ok_or(Errno::EIO)?;
    // Bytes that the origin lost are told by the fsync of the descriptor that
    // wrote them; attributes alone are not.
    if flush.is_none() && engine.contact.outages() != outages {
        return Err(Errno::EAGAIN);
    }
    let sent = Sent {
        inode,
        settled,
        flush,
        found,
    };
    note(shard, engine, fid, &sent).await?;
    Ok(sent.flush.is_some_and(|flush| flush.rest.is_some()))
}

/// A round that is through.
struct Sent {
    inode: Inode,
    /// No name was under way in it (a directory) when it was read.
    settled: bool,
    flush: Option<Rc<Flush>>,
    /// What the origin shows now.
    found: Found,
}

/// What is marked dirty and owes nothing, or is gone.
fn drop_mark<W: World>(shard: &Shard<W>, engine: &Engine, fid: Fid) -> Result<(), Errno> {
    engine.dirty.borrow_mut().remove(&fid);
    let mut tx = Tx::default();
    // Decided on a record read before an await: it counts only if it still holds.
    let owes = match shard.flash.peek(&key::inode(fid)) {
        Peek::Found(bytes) => Inode::from_slice(&bytes).is_ok_and(|i| i.flags & OWED != 0),
        Peek::Absent => false,
        Peek::NotLoaded => true,
    };
    if owes {
        engine.on_dirty(fid, shard.world.wall());
        return Ok(());
    }
    tx.delete(key::dirty(fid));
    shard.apply(tx).map(|_| ())
}

/// Brings the file's length and bytes to what they are here.
async fn bytes<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    file: &Place,
    flush: &Rc<Flush>,
) -> Result<(), Errno> {
    let place = file.clone();
    let op = OriginOp::Stat { place };
    let there = origin::found(shard, engine.target, op)
        .await?
        .ok_or(Errno::ESTALE)?;
    let truncate = |size| OriginOp::Truncate {
        file: file.clone(),
        size,
    };
    // An attempt that failed may have left bytes past the cut, too.
    let mut len = there.attr.size;
    if len > flush.cut {
        commit(shard).await?;
        origin::done(shard, engine.target, truncate(flush.cut)).await?;
        len = flush.cut;
    }
    let mut jobs = Vec::new();
    for run in runs(&flush.parts) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            continue;
        };
        if first.hole {
            let end = (first.offset + first.len).min(len);
            if end > first.offset {
                jobs.push(Job::Punch(first.offset, end - first.offset));
            }
        } else {
            jobs.push(Job::Write(run.to_vec()));
            len = len.max(last.offset + last.len);
        }
    }
    // In turn: holes are cut at the length that the writes before them leave.
    let all = Rc::new(Pass {
        file: file.clone(),
        flush: Rc::clone(flush),
    });
    let jobs = jobs.into_iter().map(|job| {
        let (shard, engine, all) = (Rc::clone(shard), Rc::clone(engine), Rc::clone(&all));
        async move { job.run(&shard, &engine, &all).await }
    });
    let ends = tasks::together(&shard.world, WRITES, jobs.collect()).await;
    ends.into_iter().collect::<Result<(), Errno>>()?;
    if len != flush.size {
        origin::done(shard, engine.target, truncate(flush.size)).await?;
    }
    Ok(())
}

struct Pass {
    file: Place,
    flush: Rc<Flush>,
}

enum Job {
    Punch(u64, u64),
    Write(Vec<DirtyPart>),
}

impl Job {
    async fn run<W: World>(
        self,
        shard: &Rc<Shard<W>>,
        engine: &Engine,
        pass: &Pass,
    ) -> Result<(), Errno> {
        let file = pass.file.clone();
        let op = match self {
            Job::Punch(offset, len) => OriginOp::Punch { file, offset, len },
            Job::Write(parts) => {
                let offset = parts.first().map_or(0, |part| part.offset);
                let mut bytes: Vec<Slice> = Vec::new();
                for part in &parts {
                    let read = data::read_dirty(shard, &pass.flush, part).await?;
                    let got: u64 = read.iter().map(|slice| slice.len() as u64).sum();
                    bytes.extend(read);
                    if got < part.len {
                        break; // The file was truncated meanwhile.
                    }
                }
                OriginOp::Write {
                    file,
                    offset,
                    data: bytes,
                }
            }
        };
        // What was just read may be newer than the last commit, and must not be
        // at the origin if a crash takes it back here.
        commit(shard).await?;
        origin::done(shard, engine.target, op).await
    }
}

async fn commit<W: World>(shard: &Shard<W>) -> Result<(), Errno> {
    shard.flash.commit(shard.applied.get()).await
}

/// Adjacent parts with bytes merged into large writes; holes alone.
fn runs(parts: &[DirtyPart]) -> Vec<&[DirtyPart]> {
    let mut out = Vec::new();
    let mut start = 0;
    for (i, part) in parts.iter().enumerate() {
        let next = parts.get(i + 1);
        let bytes = part.offset + part.len - parts[start].offset;
        let goes_on = next.is_some_and(|next| {
            !part.hole
                && !next.hole
                && next.offset == part.offset + part.len
                && bytes + next.len <= WRITE_BYTES
        });
        if !goes_on {
            out.push(&parts[start..=i]);
            start = i + 1;
        }
    }
    out
}

/// Owner and mode, then xattrs (an ACL must come after the mode, capabilities
/// after the owner), times last (O13).
async fn attributes<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    file: &Place,
    inode: &Inode,
    wrote: bool,
) -> Result<(), Errno> {
    let has_xattrs = inode.flags & flag::XATTRS_OWED != 0;
    let mut set = SetAttr::default();
    if wrote || has_xattrs || inode.flags & flag::ATTRS_OWED != 0 {
        set.atime = Some(inode.attr.atime);
        set.mtime = Some(inode.attr.mtime);
    }
    let owner = SetAttr {
        mode: Some(inode.attr.mode),
        uid: Some(inode.attr.uid),
        gid: Some(inode.attr.gid),
        ..SetAttr::default()
    };
    let send = |set| {
        let file = file.clone();
        origin::done(shard, engine.target, OriginOp::SetAttr { file, set })
    };
    if has_xattrs {
        send(owner).await?;
        xattrs::carry(shard, engine, fid, file).await?;
        return send(set).await;
    }
    send(SetAttr {
        atime: set.atime,
        mtime: set.mtime,
        ..owner
    })
    .await
}

/// Marks clean what is still as it was carried.
async fn note<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    sent: &Sent,
) -> Result<(), Errno> {
    loop {
        let key = key::inode(fid);
        match shard.flash.peek(&key) {
            Peek::NotLoaded => {}
            Peek::Absent => return drop_mark(shard, engine, fid),
            Peek::Found(bytes) => {
                let inode = Inode::from_slice(&bytes).map_err(|_| Errno::EIO)?;
                match try_note(shard, engine, (fid, inode), sent) {
                    Err(Errno::EAGAIN) => data::load(shard, fid).await?,
                    end => return end,
                }
            }
        }
        shard.flash.get(&key).await?;
    }
}

fn try_note<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    (fid, mut inode): (Fid, Inode),
    sent: &Sent,
) -> Result<(), Errno> {
    let mut tx = Tx::default();
    if let Some(flush) = &sent.flush
        && inode.flags & flag::DATA_OWED != 0
    {
        data::mark_clean(shard, &mut tx, &mut inode, flush, flush.parts.len())?;
    }
    let is_same = inode.attr.version == sent.inode.attr.version;
    let is_dir = inode.attr.kind == FileKind::Directory;
    if match is_dir {
        true => is_same && sent.settled && !changes_again(shard, engine, fid, &inode.attr),
        false => settle::same_attributes(&sent.inode.attr, &inode.attr),
    } {
        inode.flags &= !flag::ATTRS_OWED;
    }
    if is_same {
        inode.flags &= !flag::XATTRS_OWED;
    }
    inode.observed = settle::observed(&sent.found);
    let wall = shard.world.wall();
    let is_clean = inode.flags & OWED == 0;
    match is_clean {
        true => tx.delete(key::dirty(fid)),
        false => tx.put(key::dirty(fid), wall.to_vec()),
    }
    tx.put(key::inode(fid), inode.to_vec());
    shard.apply(tx)?;
    engine.dirty.borrow_mut().remove(&fid);
    if !is_clean {
        engine.on_dirty(fid, wall);
    }
    Ok(())
}

/// Names that are still to be made or removed in a directory will change its
/// times at the origin: they are owed until those are through.
fn changes_again<W: World>(shard: &Shard<W>, engine: &Engine, fid: Fid, attr: &Attr) -> bool {
    let next = shard.writeback.next.get().unwrap_or(0);
    attr.kind == FileKind::Directory
        && (engine.graph.borrow().touches(fid) || !engine.is_read(next))
}
