//! Reading directories. The listing is a scan of the directory's slots in
//! cookie order, so an entry that is there throughout is listed exactly once,
//! whatever comes and goes beside it and however often the client stops (N11).

use super::call::{Call, answered};
use super::{opens, shown};
use crate::base::limits::BODY_MAX;
use crate::base::{Bits, Codec, Errno, Fid};
use crate::namespace::record::flag;
use crate::namespace::{Dirent, Inode, Need, Stop, View, access, entry, key};
use crate::shard::Outgoing;
use crate::shard::locks::Touch;
use crate::wire::Reply;
use crate::wire::locks::Of;
use crate::wire::op::{self, DirEntry, Listing};
use crate::world::World;

/// Slots read at a time.
const SCAN: usize = 256;
/// Bytes of an encoded entry besides its name, and of its attributes.
const ENTRY_BYTES: usize = 4 + 16 + 1 + 8 + 8 + 1;
const ATTR_BYTES: usize = 1 + 5 * 4 + 3 * 8 + 4 * 12 + 8;
/// What a listing takes besides its entries, with room to spare.
const REPLY_BYTES: usize = 1024;

pub async fn readdir<W: World>(call: &Call<'_, W>, op: &op::Readdir) -> Result<Outgoing, Errno> {
    let dir = call
        .decide(|view| {
            let dir = listable(call, view, op.fid)?;
            call.grant(Of::Object, op.fid);
            Ok(dir)
        })
        .await?;
    shown::settle(call.shard, call.incoming, op.fid).await?;
    let room = (op.bytes as usize).min(BODY_MAX - REPLY_BYTES);
    let (entries, end) = collect(call, op, room).await?;
    let parent = if dir.parent.is_none() {
        op.fid
    } else {
        dir.parent
    };
    let parent_ino = match super::inode(call.shard, parent).await {
        Ok(inode) => inode.attr.ino,
        Err(_) => dir.attr.ino,
    };
    Ok(answered(Reply::Listing(Listing {
        entries,
        end,
        parent,
        parent_ino,
    })))
}

/// The directory, complete. Reading was allowed when it was opened, or is now.
fn listable<W: World>(
    call: &Call<'_, W>,
    view: &super::FlashView<'_, W>,
    fid: Fid,
) -> Result<Inode, Stop> {
    call.touch([Touch::see(fid, Bits::ATTRS)])?;
    let dir = entry::directory(view, fid)?;
    if !opens::holds(call.export, fid) {
        access::check(view, &call.bounds, &call.caller, fid, &dir, access::READ)?;
    }
    if dir.flags & flag::COMPLETE == 0 {
        return Err(Need::Listing(fid).into());
    }
    Ok(dir)
}

async fn collect<W: World>(
    call: &Call<'_, W>,
    op: &op::Readdir,
    room: usize,
) -> Result<(Vec<DirEntry>, bool), Errno> {
    let mut entries = Vec::new();
    let mut used = 0;
    let mut next = op.cookie;
    let end = key::dirent(op.fid, u64::MAX);
    loop {
        let range = key::dirent(op.fid, next)..end.clone();
        let slots = call.shard.flash.scan(range, SCAN).await?;
        let is_last = slots.len() < SCAN;
        for (key, bytes) in slots {
            let cookie = key.last_chunk::<8>().ok_or(Errno::EIO)?;
            next = u64::from_be_bytes(*cookie).saturating_add(1);
            let dirent = Dirent::from_slice(&bytes).map_err(|_| Errno::EIO)?;
            if dirent.fid.is_none() {
                continue;
            }
            let at = next.saturating_sub(1);
            let mut bytes = ENTRY_BYTES + dirent.name.as_bytes().len();
            bytes += if op.attrs { ATTR_BYTES } else { 0 };
            // One is always listed, so that a small buffer ends in its own error.
            if used + bytes > room && !entries.is_empty() {
                return Ok((entries, false));
            }
            let nth = entries.len();
            if let Some(entry) = shown_as(call, op, dirent, at, nth).await? {
                used += bytes;
                entries.push(entry);
            }
        }
        if is_last {
            return Ok((entries, true));
        }
    }
}

/// The entry with its attributes, if wanted; `None` if its file went away
/// between the scan and now.
async fn shown_as<W: World>(
    call: &Call<'_, W>,
    op: &op::Readdir,
    mut dirent: Dirent,
    at: u64,
    nth: usize,
) -> Result<Option<DirEntry>, Errno> {
    let mut attr = None;
    if op.attrs {
        let found = call
            .decide(|view| {
                // A lock on the file says that this name leads to it: as it is
                // now, not as it was when the slots were read.
                let slot = view.slot(op.fid, at)?;
                let Some(now) = slot.filter(|s| s.name == dirent.name && !s.fid.is_none()) else {
                    return Ok(None);
                };
                let Some(inode) = view.inode(now.fid)? else {
                    return Ok(None);
                };
                // A listing waits for nobody; who wants to know looks it up.
                let is_theirs = call.is_anothers(now.fid);
                if !is_theirs {
                    call.grant_entry(nth, now.fid);
                }
                Ok(Some((now, (!is_theirs).then_some(inode.attr))))
            })
            .await?;
        let Some((now, seen)) = found else {
            return Ok(None);
        };
        dirent = now;
        shown::settle(call.shard, call.incoming, dirent.fid).await?;
        attr = seen;
    }
    Ok(Some(DirEntry {
        name: dirent.name,
        fid: dirent.fid,
        kind: dirent.kind,
        ino: dirent.ino,
        cookie: at.saturating_add(1),
        attr,
    }))
}
