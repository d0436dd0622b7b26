//! What the table says, carried out: callbacks to clients, grants to those who
//! wait; and what clients answer.

use super::Locks;
use crate::base::{Bits, Fid, LockId, Xid};
use crate::dlm::{self, Event, Growth, Holder};
use crate::shard::session::Export;
use crate::shard::{Shard, counters, meta};
use crate::wire::callback::{Blocking, Growing};
use crate::wire::head::flags;
use crate::wire::{
    Callback, CallbackHead, Features, Frame, LockCancel, LockGrant, Request, RequestHead,
};
use crate::world::{Level, World};
use std::rc::Rc;

/// Carries out what the table has decided since it was last asked.
pub fn pump<W: World>(shard: &Rc<Shard<W>>) {
    let events: Vec<Event> = shard.locks.table.borrow_mut().events().collect();
    for event in events {
        match event {
            Event::Blocking(blocking) => {
                shard.counters.on(counters::Event::CalledBack);
                call(shard, &blocking);
            }
            Event::Granted { holder, grant } => tell(&shard.locks, holder, grant.lock, true),
            Event::Dropped { holder, lock } => tell(&shard.locks, holder, lock, false),
            Event::Recalled { fid } => meta::unopened(shard, fid),
        }
    }
}

/// The file has lost its last name: whoever may open it without asking is to
/// say whether it has it open. Nobody waits for that (N9).
pub fn recall_opens<W: World>(shard: &Rc<Shard<W>>, fid: Fid) {
    let now = shard.world.now();
    let mut table = shard.locks.table.borrow_mut();
    let is_held = table.recall(now, fid, Bits::OPEN);
    drop(table);
    if is_held {
        pump(shard);
    }
}

/// A waiting claim has its lock, or never will.
fn tell(locks: &Locks, holder: Holder, lock: LockId, is_granted: bool) {
    let wait = locks.waits.borrow_mut().remove(&(holder, lock));
    if let Some(wait) = wait {
        wait.set(is_granted);
    }
}

/// Sends a callback; without a connection it waits for the next one.
fn call<W: World>(shard: &Shard<W>, blocking: &dlm::Blocking) {
    let dlm::Blocking {
        holder,
        lock,
        fid,
        mode,
        bits,
        extent,
        growth,
    } = *blocking;
    let export = shard.locks.exports.borrow().get(&holder).cloned();
    let Some(export) = export else {
        return;
    };
    let locks = &shard.locks;
    let xid = Xid(locks.next_xid.get());
    locks.next_xid.set(xid.0 + 1);
    let head = CallbackHead {
        incarnation: export.incarnation(),
        lock,
        fid,
        start: extent.start,
        end: extent.end,
        bits: bits.set,
        mode: mode as u32,
        ..CallbackHead::default()
    };
    let can_be_told = export.has(Features::GROWTH);
    let callback = match growth.size > 0 && can_be_told {
        true => Callback::Growing(Growing {
            size: growth.size,
            last: growth.last,
        }),
        false => Callback::Blocking(Blocking {
            keep_bits: !bits.set,
            keep_mode: mode as u32,
        }),
    };
    let checksum = export.has(Features::CHECKSUM);
    export.send(Frame::callback(xid, &head, &callback, checksum));
    if growth.size > 0 && !can_be_told {
        let now = shard.world.now();
        let mut table = locks.table.borrow_mut();
        table.told(now, holder, lock, u64::MAX);
    }
}

/// The client has seen to it that a file may grow (C17).
pub fn on_raised<W: World>(shard: &Rc<Shard<W>>, export: &Export, lock: LockId, size: u64) {
    let now = shard.world.now();
    let mut table = shard.locks.table.borrow_mut();
    table.told(now, export.holder, lock, size);
    drop(table);
    pump(shard);
}

/// The client has a new connection: callbacks that it may have missed, again.
pub fn again<W: World>(shard: &Shard<W>, export: &Export) {
    let missed = shard.locks.table.borrow().unanswered(export.holder);
    for blocking in &missed {
        call(shard, blocking);
    }
}

/// The client gives up locks. What it does not hold, or never held, changes nothing.
pub fn on_cancel<W: World>(shard: &Rc<Shard<W>>, export: &Export, cancels: &[LockCancel]) {
    if cancels.is_empty() {
        return;
    }
    let now = shard.world.now();
    {
        let mut table = shard.locks.table.borrow_mut();
        for cancel in cancels {
            table.cancel(now, export.holder, cancel.lock, cancel.bits);
        }
    }
    pump(shard);
}

/// A request of the client has come. If it brings what the answer to a callback
/// waits for, the client is given more time (H6): bytes of the file, or changes
/// that it has answered ahead of the box, which all come before any such answer.
pub fn on_sent<W: World>(shard: &Shard<W>, export: &Export, head: &RequestHead, request: &Request) {
    let of = match request {
        _ if head.flags & flags::ORDERED != 0 => None,
        Request::Write(op) => Some(op.fid),
        _ => return,
    };
    let now = shard.world.now();
    let mut table = shard.locks.table.borrow_mut();
    table.progress(now, export.holder, of);
}

/// The client says what it held before the box restarted (L13). What
/// contradicts a granted lock is refused, by calling it back.
pub fn on_claim<W: World>(shard: &Rc<Shard<W>>, export: &Export, claimed: &[LockGrant]) {
    let now = shard.world.now();
    for lock in claimed {
        let claim = dlm::Claim {
            lock: lock.lock,
            fid: lock.fid,
            mode: lock.mode,
            bits: lock.bits,
            extent: lock.extent,
            group: 0,
        };
        let mut table = shard.locks.table.borrow_mut();
        let refused = table.claim(now, export.holder, &claim, true).is_err();
        drop(table);
        if refused {
            let line = format!(
                "client {:?}: its claim of {:?} on {} is refused: others have it by now",
                export.name, lock.mode, lock.fid
            );
            shard.world.log(Level::Warn, &line);
            call(
                shard,
                &dlm::Blocking {
                    holder: export.holder,
                    lock: lock.lock,
                    fid: lock.fid,
                    mode: lock.mode,
                    bits: lock.bits,
                    extent: lock.extent,
                    growth: Growth::NONE,
                },
            );
        }
    }
    pump(shard);
}
