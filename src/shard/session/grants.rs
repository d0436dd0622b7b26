//! Room on flash that is promised to clients which answer changes ahead of the
//! box (L4). A client hears in every reply how much it may have under way, and
//! says in every request by how much it still goes: until it has heard of less,
//! the room is kept.

use super::export::Export;
use crate::shard::Shard;
use crate::world::World;
use std::cell::Cell;

/// The most that one client is promised.
const BYTES_MAX: u64 = 16 << 20;
/// The least that is worth it.
const BYTES_MIN: u64 = 64 << 10;
/// While less than one part in so many of the flash is free, nothing more is
/// promised: half of what reclaim keeps free.
const LOW_SHARE: u64 = 32;
/// Of that, all promises together take one part in so many at most, so that what
/// is under way by them when they end still finds room, ...
const PROMISED_SHARE: u64 = 2;
/// ... and one client's so much.
const CLIENT_SHARE: u64 = 8;

/// What one client was promised.
#[derive(Default)]
pub struct Grant {
    /// It works ahead.
    wanted: Cell<bool>,
    /// What it was told last.
    told: Cell<u64>,
    /// What is kept for it.
    kept: Cell<u64>,
}

/// Promises of a shard.
#[derive(Default)]
pub struct Promised(Cell<u64>);

impl Promised {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.get()
    }
}

impl Export {
    /// Is room kept for what this client answers ahead?
    #[must_use]
    pub fn is_promised(&self) -> bool {
        self.state.grant.kept.get() > 0
    }
}

/// The client asks for what it needs to work ahead.
pub fn want(export: &Export) {
    export.state.grant.wanted.set(true);
}

/// A request says by what promise its client goes. One made before a restart is
/// taken up again.
pub fn on_request<W: World>(shard: &Shard<W>, export: &Export, by: u64) {
    let grant = &export.state.grant;
    if by == grant.kept.get() && by == grant.told.get() {
        return;
    }
    let by = by.min(most(shard.flash.room().1));
    if by > 0 {
        grant.wanted.set(true);
    }
    keep(shard, export, grant.told.get().max(by));
}

/// What the client may have under way from now on.
pub fn tell<W: World>(shard: &Shard<W>, export: &Export) -> u64 {
    let grant = &export.state.grant;
    if !grant.wanted.get() {
        return 0;
    }
    let (free, total) = shard.flash.room();
    let low = total / LOW_SHARE;
    let others = shard.sessions.promised.bytes() - grant.kept.get();
    let told = grant.told.get();
    let next = if free < low {
        0
    } else if told > 0 || free < low + low / 2 {
        told
    } else {
        let left = (low / PROMISED_SHARE).saturating_sub(others);
        let share = most(total).min(left);
        if share < BYTES_MIN { 0 } else { share }
    };
    if next != told {
        grant.told.set(next);
        keep(shard, export, grant.kept.get().max(next));
    }
    next
}

/// The client is gone.
pub fn end<W: World>(shard: &Shard<W>, export: &Export) {
    export.state.grant.wanted.set(false);
    export.state.grant.told.set(0);
    keep(shard, export, 0);
}

fn most(total: u64) -> u64 {
    BYTES_MAX.min(total / LOW_SHARE / CLIENT_SHARE)
}

fn keep<W: World>(shard: &Shard<W>, export: &Export, bytes: u64) {
    let before = export.state.grant.kept.replace(bytes);
    if before != bytes {
        let promised = &shard.sessions.promised.0;
        promised.set(promised.get() - before + bytes);
        shard.flash.promise(promised.get());
    }
}
