//! Handlers of bytes: they join the inode's rules (who may, how large, what a
//! write takes away) with the data path, in one transaction.

use super::locks::{Touch, of_edit};
use super::meta::{self, Call, FlashView, may_use, shown};
use super::{Outgoing, Tx, data};
use crate::base::limits::PAYLOAD_MAX;
use crate::base::{Bits, Errno, Extent, Fid, FileKind, Lsn, OpenId, Slice, Transno};
use crate::dlm::Growth;
use crate::namespace::draft::{Change, Draft, stamp};
use crate::namespace::{Inode, Stop, setattr};
use crate::wire::locks::Of;
use crate::wire::op::{self, Data, Offset, Written};
use crate::wire::{Reply, head};
use crate::world::World;

const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
const PUNCH: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32;
const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;

pub async fn read<W: World>(call: &Call<'_, W>, op: &op::Read) -> Result<Outgoing, Errno> {
    call.decide(|view| {
        let inode = regular(call, view, op.fid)?;
        may_use(call, view, (op.fid, &inode), op.open, false)?;
        let range = Extent::of(op.offset, u64::from(op.len));
        call.touch(reading(op.fid, range))?;
        call.need(Of::Object, op.fid)?;
        call.grant(Of::Object, op.fid);
        Ok(())
    })
    .await?;
    let parts = data::read(call.shard, op.fid, op.offset, op.len).await?;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    let got: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let size = meta::inode(call.shard, op.fid).await?.attr.size;
    let eof = op.offset.saturating_add(got) >= size;
    Ok(Outgoing {
        result: Ok((Reply::Data(Data { eof, size }), parts)),
        transno: Transno(0),
        lsn: Lsn(0),
    })
}

pub async fn write<W: World>(call: &Call<'_, W>, op: &op::Write) -> Result<Outgoing, Errno> {
    // A client that streams faster than the flash writes waits here.
    call.shard.flash.throttle().await;
    let empty = Slice::from(Vec::new());
    let all = call.incoming.payload.as_ref().unwrap_or(&empty);
    let is_page = call.incoming.head.flags & head::flags::PAGE_WRITE != 0;
    let change = |tx: &mut Tx, inode: &mut Inode| {
        let size = inode.attr.size;
        let offset = if op.append { size } else { op.offset };
        let bytes = &match is_page {
            true => within(all, offset, size),
            false => all.clone(),
        };
        let range = Extent::of(offset, bytes.len() as u64);
        let from = match op.append {
            true => call.shard.locks.size_to_come(op.fid, size),
            false => offset,
        };
        call.touch(growing(writing(op.fid, range), size, (from, bytes)))?;
        fits(call, offset, bytes.len() as u64)?;
        if !bytes.is_empty() {
            tx.is_promised = call.is_promised();
            data::write(call.shard, tx, op.fid, inode, call.now(), offset, bytes)
                .map_err(|e| meta::data_stop(e, op.fid))?;
        }
        Ok(offset)
    };
    let written = u32::try_from(all.len()).map_err(|_| Errno::EINVAL)?;
    let reply = |offset, inode: &Inode| {
        Reply::Written(Written {
            written,
            offset,
            attr: inode.attr.clone(),
        })
    };
    edit(call, (op.fid, op.open), change, reply).await
}

pub async fn fallocate<W: World>(
    call: &Call<'_, W>,
    op: &op::Fallocate,
) -> Result<Outgoing, Errno> {
    let keep = op.mode & KEEP_SIZE != 0;
    let kind = op.mode & !KEEP_SIZE;
    if !matches!(kind, 0 | PUNCH | ZERO) || kind == PUNCH && !keep {
        return Err(Errno::EOPNOTSUPP);
    }
    if op.len == 0 {
        return Err(Errno::EINVAL);
    }
    let change = |tx: &mut Tx, inode: &mut Inode| {
        // Growth alone ends zeros that pages show past the old end, too.
        let size = match keep {
            true => 0,
            false => op.offset.saturating_add(op.len),
        };
        let growth = Growth { size, last: 0 };
        let touch = Touch::write(op.fid, Extent::from(op.offset));
        call.touch([touch.growing(inode.attr.size, growth)])?;
        fits(call, op.offset, op.len)?;
        let end = op.offset + op.len;
        let now = call.now();
        let done = match kind {
            PUNCH => data::punch(call.shard, tx, op.fid, inode, now, op.offset..end),
            ZERO => data::zero(call.shard, tx, op.fid, inode, now, op.offset..end, keep),
            // Space is the flash's, and not set aside by file: only the size counts.
            _ if !keep && end > inode.attr.size => {
                data::truncate(call.shard, tx, op.fid, inode, now, end)
            }
            _ => Ok(()),
        };
        done.map_err(|e| meta::data_stop(e, op.fid))?;
        inode.attr.mtime = stamp(inode, now);
        Ok(())
    };
    let reply = |(), inode: &Inode| meta::entry(op.fid, inode, false);
    edit(call, (op.fid, OpenId(0)), change, reply).await
}

pub async fn seek<W: World>(call: &Call<'_, W>, op: &op::Seek) -> Result<Outgoing, Errno> {
    let hole = match op.whence {
        w if w == libc::SEEK_DATA as u32 => false,
        w if w == libc::SEEK_HOLE as u32 => true,
        _ => return Err(Errno::EINVAL),
    };
    call.decide(|view| {
        let inode = regular(call, view, op.fid)?;
        may_use(call, view, (op.fid, &inode), OpenId(0), false)?;
        call.touch(reading(op.fid, Some(Extent::from(op.offset))))
    })
    .await?;
    let offset = data::seek(call.shard, op.fid, op.offset, hole).await?;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    Ok(meta::answered(Reply::Offset(Offset { offset })))
}

/// Copies at most one payload's worth: the client asks again for the rest. One
/// transaction, so that a repeated request finds its reply, not half a copy.
pub async fn copy_range<W: World>(
    call: &Call<'_, W>,
    op: &op::CopyRange,
) -> Result<Outgoing, Errno> {
    call.check_fid(op.from)?;
    let len = op.len.min(PAYLOAD_MAX as u64);
    let overlap = op.from_offset.abs_diff(op.to_offset) < op.len;
    if op.from == op.to && overlap {
        return Err(Errno::EINVAL);
    }
    call.decide(|view| {
        let inode = regular(call, view, op.from)?;
        may_use(call, view, (op.from, &inode), OpenId(0), false)?;
        call.touch(reading(op.from, Extent::of(op.from_offset, len)))
    })
    .await?;
    let len = u32::try_from(len).map_err(|_| Errno::EINVAL)?;
    let parts = data::read(call.shard, op.from, op.from_offset, len).await?;
    let bytes = joined(call, &parts);
    let change = |tx: &mut Tx, inode: &mut Inode| {
        let range = Extent::of(op.to_offset, bytes.len() as u64);
        let by = (op.to_offset, &bytes);
        call.touch(growing(writing(op.to, range), inode.attr.size, by))?;
        fits(call, op.to_offset, bytes.len() as u64)?;
        if !bytes.is_empty() {
            data::write(
                call.shard,
                tx,
                op.to,
                inode,
                call.now(),
                op.to_offset,
                &bytes,
            )
            .map_err(|e| meta::data_stop(e, op.to))?;
        }
        Ok(())
    };
    let written = u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)?;
    let reply = |(), inode: &Inode| {
        Reply::Written(Written {
            written,
            offset: op.to_offset,
            attr: inode.attr.clone(),
        })
    };
    edit(call, (op.to, OpenId(0)), change, reply).await
}

fn reading(fid: Fid, range: Option<Extent>) -> Option<Touch> {
    range.map(|range| Touch::read(fid, range))
}

/// Bytes that change, and with them size and times, though not of nothing.
fn writing(fid: Fid, range: Option<Extent>) -> Option<Touch> {
    range.map(|range| Touch::write(fid, range))
}

/// `bytes` written at `from` make a file of `size` longer.
fn growing(touch: Option<Touch>, size: u64, (from, bytes): (u64, &Slice)) -> Option<Touch> {
    let growth = Growth {
        size: from.saturating_add(bytes.len() as u64),
        last: bytes.last().copied().unwrap_or(0),
    };
    touch.map(|touch| touch.growing(size, growth))
}

/// The part of a page that is of the file. Storing through a mapping makes no
/// file longer, and a kernel may take one for longer than it is (C17).
fn within(page: &Slice, offset: u64, size: u64) -> Slice {
    let len = size.saturating_sub(offset).min(page.len() as u64);
    match usize::try_from(len) {
        Ok(len) if len < page.len() => page.part(0..len),
        _ => page.clone(),
    }
}

fn joined<W: World>(call: &Call<'_, W>, parts: &[Slice]) -> Slice {
    if let [one] = parts {
        return one.clone();
    }
    let len = parts.iter().map(|part| part.len()).sum();
    let mut buf = call.shard.world.pool().take(len);
    let mut at = 0;
    for part in parts {
        buf[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    buf.freeze()
}

/// The inode of a file with bytes.
fn regular<W: World>(call: &Call<'_, W>, view: &FlashView<'_, W>, fid: Fid) -> Result<Inode, Stop> {
    let inode = call.inode(view, fid)?;
    match inode.attr.kind {
        FileKind::Regular => Ok(inode),
        FileKind::Directory => Err(Errno::EISDIR.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// EFBIG for what would end past the largest size.
fn fits<W: World>(call: &Call<'_, W>, offset: u64, len: u64) -> Result<(), Stop> {
    match offset.checked_add(len) {
        Some(end) if end <= call.bounds.file_size_max => Ok(()),
        _ => Err(Errno::EFBIG.into()),
    }
}

/// A capability that goes is an xattr.
fn xattrs_of(change: &Change) -> Bits {
    match change.xattrs.is_empty() {
        true => Bits::NONE,
        false => Bits::XATTR,
    }
}

/// One change of a file's bytes: the rules, the privileges that it costs (L11),
/// `change`, the inode, the reply, in one transaction. The data path does its
/// own part of the inode (size, times, version, what is owed).
async fn edit<W: World, T>(
    call: &Call<'_, W>,
    (fid, open): (Fid, OpenId),
    mut change: impl FnMut(&mut Tx, &mut Inode) -> Result<T, Stop>,
    reply: impl Fn(T, &Inode) -> Reply,
) -> Result<Outgoing, Errno> {
    let kill = call.incoming.head.flags & head::flags::KILL_PRIV != 0;
    let page = call.incoming.head.flags & head::flags::PAGE_WRITE != 0;
    call.decide(|view| {
        call.check_export()?;
        let inode = regular(call, view, fid)?;
        if call.bounds.read_only {
            return Err(Errno::EROFS.into());
        }
        // The kernel writes pages back under whatever handle is at hand.
        if !page {
            may_use(call, view, (fid, &inode), open, true)?;
        }
        let mut draft = Draft::new(view);
        let mut inode = inode;
        if kill {
            let before = inode.clone();
            setattr::strip(&mut draft, call.ctx(), fid, &mut inode, true)?;
            let bits = of_edit(&before, &inode).with(xattrs_of(&draft.change));
            call.touch((!bits.is_empty()).then(|| Touch::change(fid, bits)))?;
        }
        let mut tx = Tx::default();
        meta::stage_into(call.shard, &call.target, draft.change, &mut tx)?;
        let last = inode.attr.ctime;
        let done = change(&mut tx, &mut inode)?;
        inode.attr.ctime = inode.attr.ctime.max(last);
        let reply = reply(done, &inode);
        meta::put_inode(&mut tx, fid, &inode);
        let (transno, lsn) = call.shard.seal(tx, call.incoming, &reply)?;
        let meta = &call.shard.meta;
        let committed = call.shard.flash.last_committed();
        let by = (call.incoming.client, transno);
        meta.note_unseen(by, committed, std::iter::once(fid), None);
        call.grant(Of::Object, fid);
        Ok(Outgoing {
            result: Ok((reply, Vec::new())),
            transno,
            lsn,
        })
    })
    .await
}
