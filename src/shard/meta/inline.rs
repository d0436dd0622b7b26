//! The bytes of a small file, in the answer that shows it: who looks a file up
//! to read it needs no second round trip (feature INLINE_DATA).
//!
//! All of them or none, and only what can be had without the origin. They go to
//! a client that holds DATA of the whole file by this very answer, or did
//! before: nobody else changes them until it has given that up, so it may keep
//! them. A callback that overtakes the answer ends the lock as it arrives (L1),
//! and the bytes with it.

use super::call::{Call, Source};
use super::{inode, opens};
use crate::base::{Fid, FileKind, Slice};
use crate::namespace::{Inode, Stop, View, access};
use crate::shard::data;
use crate::wire::Features;
use crate::world::World;

/// Larger files are not sent so.
const INLINE_MAX: u64 = 64 << 10;

/// What goes with an answer that shows `fid` as `shown`; empty: nothing. For
/// after the locks were granted, and before what it shows is settled (L9).
pub async fn bytes<W: World>(
    call: &Call<'_, W>,
    fid: Fid,
    (shown, source): (&Inode, Source),
) -> Vec<Slice> {
    let size = shown.attr.size;
    let size_max = u64::from(call.incoming.asked.data_max).min(INLINE_MAX);
    let is_small = shown.attr.kind == FileKind::Regular && (1..=size_max).contains(&size);
    // Of what is glimpsed the newest bytes are not here.
    let is_here = source == Source::Here && call.export.has(Features::INLINE_DATA);
    if !is_small || !is_here {
        return Vec::new();
    }
    let locks = &call.shard.locks;
    if !locks.covers_bytes(call.export.holder, fid) || !may_read(call, fid).await {
        return Vec::new();
    }
    let found = data::read_near(call.shard, fid, size).await;
    let Ok(Some(parts)) = found else {
        return Vec::new();
    };
    // The client's own changes are not kept out by its locks.
    match inode(call.shard, fid).await {
        Ok(now) if now.data_version == shown.data_version && now.attr.size == size => parts,
        _ => Vec::new(),
    }
}

async fn may_read<W: World>(call: &Call<'_, W>, fid: Fid) -> bool {
    let allowed = call.decide(|view| {
        let inode = view
            .inode(fid)?
            .ok_or(Stop::Refused(crate::base::Errno::ESTALE))?;
        if opens::holds(call.export, fid) {
            return Ok(());
        }
        access::check(view, &call.bounds, &call.caller, fid, &inode, access::READ)
    });
    allowed.await.is_ok()
}
