//! Reading directories. The listing is a scan of the directory's slots in
//! cookie order, so an entry that is there throughout is listed exactly once,
//! whatever comes and goes beside it and however often the client stops (N11).

use super::call::{Call, answered};
use super::{opens, shown};
use crate::base::limits::BODY_MAX;
use crate::base::{Attr, Bits, Codec, Errno, Fid, Lsn};
use crate::namespace::record::flag;
use crate::namespace::{Dirent, Inode, Need, Stop, View, access, entry::directory, key};
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
    let dir = directory(view, fid)?;
    if !opens::holds(call.export, fid) {
        access::check(view, &call.bounds, &call.caller, fid, &dir, access::READ)?;
    }
    if dir.flags & flag::COMPLETE == 0 {
        return Err(Need::Listing(fid).into());
    }
    Ok(dir)
}

/// One entry on its way into the answer.
struct Found {
    /// Its place in the directory, and in the whole answer.
    at: u64,
    nth: usize,
    dirent: Dirent,
    /// What is shown of its file; `None`: it went away meanwhile.
    shown: Option<Option<Attr>>,
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
        let seen = call.shard.applied.get();
        let mut is_last = slots.len() < SCAN;
        let mut page = Vec::with_capacity(slots.len());
        let before = entries.len();
        let mut is_full = false;
        for (key, bytes) in slots {
            let cookie = key.last_chunk::<8>().ok_or(Errno::EIO)?;
            let at = u64::from_be_bytes(*cookie);
            next = at.saturating_add(1);
            let dirent = Dirent::from_slice(&bytes).map_err(|_| Errno::EIO)?;
            if dirent.fid.is_none() {
                continue;
            }
            let mut bytes = ENTRY_BYTES + dirent.name.as_bytes().len();
            bytes += if op.attrs { ATTR_BYTES } else { 0 };
            let nth = before + page.len();
            // One is always listed, so that a small buffer ends in its own error.
            if used + bytes > room && nth > 0 {
                (is_full, is_last, next) = (true, false, at);
                break;
            }
            used += bytes;
            page.push(Found {
                at,
                nth,
                dirent,
                shown: Some(None),
            });
        }
        if op.attrs {
            show(call, op.fid, seen, &mut page).await?;
        }
        entries.extend(page.into_iter().filter_map(entry));
        if is_full && entries.is_empty() {
            // All that there was room for has gone away.
            used = 0;
        } else if is_full || is_last {
            return Ok((entries, is_last));
        }
    }
}

fn entry(found: Found) -> Option<DirEntry> {
    Some(DirEntry {
        attr: found.shown?,
        name: found.dirent.name,
        fid: found.dirent.fid,
        kind: found.dirent.kind,
        ino: found.dirent.ino,
        cookie: found.at.saturating_add(1),
    })
}

/// Adds to each entry of a page the attributes of its file, and grants a lock on
/// it at the same instant. In the order of the FIDs, in which the records lie;
/// what has to be loaded stops it there, and it goes on from there. `seen`: the
/// shard's last change when the page was read.
async fn show<W: World>(
    call: &Call<'_, W>,
    dir: Fid,
    seen: Lsn,
    page: &mut [Found],
) -> Result<(), Errno> {
    page.sort_unstable_by_key(|found| found.dirent.fid);
    let mut done = 0;
    call.decide(|view| {
        let is_as_read = call.shard.applied.get() == seen;
        while let Some(found) = page.get_mut(done) {
            if !is_as_read && !is_still_there(view, dir, found)? {
                found.shown = None;
            } else {
                found.shown = shown_as(call, view, dir, found)?;
            }
            done += 1;
        }
        Ok(())
    })
    .await?;
    page.sort_unstable_by_key(|found| found.nth);
    for found in page.iter() {
        shown::settle(call.shard, call.incoming, found.dirent.fid).await?;
    }
    Ok(())
}

/// A lock on the file says that this name leads to it: as it is now, not as it
/// was when the page was read.
fn is_still_there<W: World>(
    view: &super::FlashView<'_, W>,
    dir: Fid,
    found: &mut Found,
) -> Result<bool, Stop> {
    let slot = view.slot(dir, found.at)?;
    let same = |s: &Dirent| s.name == found.dirent.name && !s.fid.is_none();
    match slot.filter(same) {
        Some(now) => {
            found.dirent = now;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// The file's attributes, if they may be shown; `None`: there is no such file.
fn shown_as<W: World>(
    call: &Call<'_, W>,
    view: &super::FlashView<'_, W>,
    dir: Fid,
    found: &Found,
) -> Result<Option<Option<Attr>>, Stop> {
    let fid = found.dirent.fid;
    let Some(attr) = view.attr(fid)? else {
        return Ok(None);
    };
    // A listing waits for nobody; who wants to know looks it up.
    if call.is_anothers(fid) {
        return Ok(Some(None));
    }
    call.grant_entry(dir, (found.nth, fid, attr.kind));
    Ok(Some(Some(attr)))
}
