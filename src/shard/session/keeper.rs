//! What happens to exports by the clock: leases, evictions, the recovery
//! window, notices of what became stable.

use super::export::Export;
use super::record::ClientRecord;
use super::{Handler, grants, request};
use crate::base::codec::Codec;
use crate::base::limits::TAGS_MAX;
use crate::base::{ClientId, Errno, Tag, Transno, Xid};
use crate::flash::Tx;
use crate::namespace::key;
use crate::shard::counters::Event;
use crate::shard::{Shard, locks};
use crate::wire::notice::{Committed, Notice};
use crate::wire::{Features, Frame};
use crate::world::race::within;
use crate::world::{Level, World};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How long unstable writes are gathered before the box makes them durable
/// and says so (X6).
const NOTICE_DELAY: Duration = Duration::from_millis(10);

/// How often leases are looked at.
const ROUND: Duration = Duration::from_millis(500);

/// A client is silent for so many leases before it is thrown out: one for the
/// connection to be given up by it, one to come back.
const LEASES: u32 = 2;

/// Records read in one scan.
const SCAN: usize = 1024;

/// The clients on flash. A damaged record is reported; its client is unknown.
pub async fn known_clients<W: World>(
    shard: &Rc<Shard<W>>,
) -> Result<BTreeMap<ClientId, ClientRecord>, Errno> {
    let mut known = BTreeMap::new();
    let mut from = vec![key::table::CLIENT];
    let to = vec![key::table::CLIENT + 1];
    loop {
        let found = shard.flash.scan(from.clone()..to.clone(), SCAN).await?;
        let Some((last, _)) = found.last() else {
            return Ok(known);
        };
        from = [last.as_slice(), &[0]].concat();
        for (key, value) in found {
            let id = key.get(1..).and_then(|id| id.try_into().ok());
            match (id, ClientRecord::from_slice(&value)) {
                (Some(id), Ok(record)) => {
                    known.insert(ClientId(u128::from_be_bytes(id)), record);
                }
                _ => {
                    let line = "a client's record is damaged: it is evicted";
                    shard.world.log(Level::Error, line);
                    shard.counters.on(Event::RecordDamaged);
                    shard.counters.on(Event::ClientEvicted);
                }
            }
        }
    }
}

/// Looks after leases and the recovery window until the shard stops.
pub async fn keep<W: World, H: Handler<W>>(shard: Rc<Shard<W>>, handler: Rc<H>) {
    let sessions = &shard.sessions;
    let mut window = true;
    while !sessions.stopping.get() {
        let now = shard.world.now();
        if window && now >= sessions.window_end.get() {
            window = false;
            end_window(&shard).await;
            handler.recovered(&shard).await;
        }
        locks::end_ghosts(&shard);
        locks::look(&shard);
        for export in shard.locks.overdue(now) {
            shard.counters.on(Event::ClientEvicted);
            let why = "it did not give up a lock in time";
            end(&shard, &handler, &export, why).await;
        }
        let all: Vec<_> = sessions.exports.borrow().values().cloned().collect();
        for export in all {
            let silent = now - export.state.heard.get();
            let lease = export.state.lease.get();
            if silent >= lease * LEASES {
                shard.counters.on(Event::ClientEvicted);
                let why = format!("silent for {} ms", silent.as_millis());
                end(&shard, &handler, &export, &why).await;
            } else {
                rest(&shard, &export);
            }
        }
        // Ends early when the shard stops; a spurious end does no harm.
        let stopped = async {
            while !sessions.stopping.get() {
                sessions.changed.wait().await;
            }
        };
        let _ = within(&shard.world, ROUND, stopped).await;
    }
}

/// The window is over: who did not come back is evicted, by name.
async fn end_window<W: World>(shard: &Rc<Shard<W>>) {
    let sessions = &shard.sessions;
    let gone = {
        let exports = sessions.exports.borrow();
        let is_here = |client| exports.contains_key(&client);
        sessions.recovery.borrow_mut().on_window_end(is_here)
    };
    sessions.changed.notify();
    for (client, record) in gone {
        let lost = if record.unstable {
            ", its unstable writes are lost with it"
        } else {
            ""
        };
        let line = format!(
            "client {:?} did not come back after the restart: evicted{lost}",
            record.name
        );
        shard.world.log(Level::Warn, &line);
        shard.counters.on(Event::ClientEvicted);
        if let Err(e) = forget(shard, client).await {
            let line = format!("its record cannot be removed: {e}");
            shard.world.log(Level::Error, &line);
        }
    }
}

/// Ends an export for good: nothing of it takes effect any more, its opens are
/// closed, its records removed.
pub async fn end<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    export: &Rc<Export>,
    why: &str,
) {
    if export.state.ended.replace(true) {
        return;
    }
    let line = format!("client {:?} is gone: {why}", export.name);
    shard.world.log(Level::Info, &line);
    export.hang_up();
    grants::end(shard, export);
    let sessions = &shard.sessions;
    sessions.recovery.borrow_mut().on_done(export.client);
    sessions.exports.borrow_mut().remove(&export.client);
    locks::leave(shard, export, why == GOODBYE);
    sessions.changed.notify();
    handler.dropped(shard, export).await;
    // A new export of the same client has a record of its own by now.
    let again = sessions.exports.borrow().contains_key(&export.client);
    if !again && let Err(e) = forget(shard, export.client).await {
        let line = format!("client {:?}: record not removed: {e}", export.name);
        shard.world.log(Level::Error, &line);
    }
}

/// The reason of a client that has let everything go before it went.
pub const GOODBYE: &str = "goodbye";

/// The client says that it does not come back: nobody waits for it any more,
/// now or after a restart.
pub async fn on_goodbye<W: World>(shard: &Rc<Shard<W>>, export: &Rc<Export>) {
    let sessions = &shard.sessions;
    sessions.recovery.borrow_mut().on_done(export.client);
    sessions.changed.notify();
    let mut tx = Tx::default();
    tx.delete(key::client(export.client));
    let committed = match shard.apply(tx) {
        Ok(lsn) => shard.flash.commit(lsn).await,
        Err(e) => Err(e),
    };
    if let Err(e) = committed {
        let line = format!("client {:?}: its goodbye is not on flash: {e}", export.name);
        shard.world.log(Level::Error, &line);
    }
}

/// Removes a client's records.
async fn forget<W: World>(shard: &Rc<Shard<W>>, client: ClientId) -> Result<(), Errno> {
    let from = key::reply(client, Tag(0));
    let to = key::reply(client, Tag(u16::MAX));
    let replies = shard.flash.scan(from..to, usize::from(TAGS_MAX)).await?;
    if shard.sessions.exports.borrow().contains_key(&client) {
        return Ok(());
    }
    let mut tx = Tx::default();
    tx.delete(key::client(client));
    tx.delete(key::fids(client));
    for (key, _) in replies {
        tx.delete(key);
    }
    shard.apply(tx).map(|_| ())
}

/// Puts on flash that the client may hold unstable writes, before the first
/// of them is answered.
pub async fn mark_unstable<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
) -> Result<(), Errno> {
    if export.state.marked_unstable.get() {
        return Ok(());
    }
    let mut tx = Tx::default();
    tx.put(key::client(export.client), export.record(true).to_vec());
    let lsn = shard.apply(tx)?;
    shard.flash.commit(lsn).await?;
    export.state.marked_unstable.set(true);
    Ok(())
}

/// Has the client locks, or open files, which others must not remove before
/// it has declared them again?
fn believes<W: World>(shard: &Shard<W>, export: &Export) -> bool {
    shard.locks.held(export.holder) > 0 || !export.opens.borrow().is_empty()
}

/// Takes the mark off a client whose writes are all stable and that has been
/// quiet for a round. Need not be durable itself.
fn rest<W: World>(shard: &Rc<Shard<W>>, export: &Rc<Export>) {
    let state = &export.state;
    let stable = state.last_unstable.get() <= shard.flash.last_committed();
    let idle = shard.world.now() - state.heard.get() >= ROUND;
    let busy = state.noticing.get() || state.recovering.get() || export.info().running > 0;
    let busy = busy || believes(shard, export);
    if !state.marked_unstable.get() || !stable || !idle || busy {
        return;
    }
    let mut tx = Tx::default();
    tx.put(key::client(export.client), export.record(false).to_vec());
    if shard.apply(tx).is_ok() {
        state.marked_unstable.set(false);
    }
}

/// Has the client told when its unstable writes are durable (X6).
pub fn notice_later<W: World>(shard: &Rc<Shard<W>>, export: &Rc<Export>) {
    if export.state.noticing.replace(true) {
        return;
    }
    let (shard, export) = (Rc::clone(shard), Rc::clone(export));
    let world = shard.world.clone();
    world.spawn(async move {
        notice(&shard, &export).await;
        export.state.noticing.set(false);
    });
}

async fn notice<W: World>(shard: &Rc<Shard<W>>, export: &Rc<Export>) {
    let mut told = Transno(0);
    while told < export.state.last_unstable.get() && !export.is_ended() {
        shard.world.sleep(NOTICE_DELAY).await;
        let upto = export.state.last_unstable.get();
        if shard
            .flash
            .commit(export.state.last_lsn.get())
            .await
            .is_err()
        {
            // The flash is fenced: it is logged there, and the client keeps
            // what it has.
            return;
        }
        told = upto;
        if !export.has(Features::NOTICES) {
            continue;
        }
        let head = request::reply_head(shard, export);
        let notice = Notice::Committed(Committed {
            last_committed: head.last_committed,
            done: Xid(0),
        });
        export.send(Frame::notice(
            &head,
            &notice,
            export.has(Features::CHECKSUM),
        ));
    }
}

/// Everything stable, every client marked so, every connection closed.
pub async fn stop<W: World>(shard: &Rc<Shard<W>>) -> Result<(), Errno> {
    let sessions = &shard.sessions;
    sessions.stopping.set(true);
    sessions.changed.notify();
    let exports: Vec<_> = sessions.exports.borrow().values().cloned().collect();
    for export in &exports {
        export.hang_up();
    }
    let mut last = None;
    for export in &exports {
        // One that still replays keeps its mark: what it did not send is unstable.
        // One that believes something keeps it, too: it is waited for before
        // others change that.
        let replays = export.state.recovering.get() && export.state.marked_unstable.get();
        let unstable = replays || believes(shard, export);
        let mut record = export.record(unstable);
        record.clean = !replays;
        let mut tx = Tx::default();
        tx.put(key::client(export.client), record.to_vec());
        last = Some(shard.apply(tx)?);
    }
    match last {
        Some(lsn) => shard.flash.commit(lsn).await,
        None => Ok(()),
    }
}
