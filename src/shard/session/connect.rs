//! CONNECT: features and limits are masked, the export is found or made, and
//! the client is on flash before it is answered (F9).

use super::export::{Export, State};
use super::{Settings, keeper};
use crate::base::codec::{Bytes, Codec};
use crate::base::limits::{PAYLOAD_MAX, TAGS_MAX};
use crate::base::{Errno, TargetId};
use crate::conf::Writeback;
use crate::flash::Tx;
use crate::namespace::key;
use crate::shard::session::Handler;
use crate::shard::{Shard, Target};
use crate::wire::{ConnectReply, ConnectRequest, Features};
use crate::world::World;
use std::rc::Rc;
use std::time::Duration;

/// Leases below this would end between two pings.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// Smallest payload bound that a client can work with.
const PAYLOAD_MIN: u32 = 4096;

/// The keyed hash of directory cookies: SipHash-1-3 of the name (N11).
const HASH_SIPHASH13: u8 = 1;

/// A refused CONNECT: what the client is told, and what the log is.
pub struct Refusal {
    pub errno: Errno,
    pub why: String,
}

fn refuse<T>(errno: Errno, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        errno,
        why: why.into(),
    })
}

/// Finds or makes the export for a client.
pub async fn admit<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    request: &ConnectRequest,
) -> Result<(Rc<Export>, ConnectReply), Refusal> {
    let settings = shard.sessions.settings.borrow().clone();
    let target = acceptable(shard, &settings, request)?;
    let export = match continued(shard, request)? {
        Some(export) => export,
        None => fresh(shard, handler, &target, &settings, request).await?,
    };
    let reply = answer(shard, &target, &settings, &export, request);
    Ok((export, reply))
}

/// What does not depend on the client's history.
fn acceptable<W: World>(
    shard: &Shard<W>,
    settings: &Settings,
    request: &ConnectRequest,
) -> Result<Rc<Target>, Refusal> {
    if !request.features.has(Features::BASE) {
        return refuse(Errno::EPROTO, "the client lacks the base protocol");
    }
    if request.path.contains(&settings.box_id) {
        return refuse(Errno::ELOOP, "the connection passed this box before (H1)");
    }
    if request.tags == 0 || request.payload_max < PAYLOAD_MIN {
        return refuse(Errno::EINVAL, "no reply slots, or a tiny payload");
    }
    let targets = shard.targets.borrow();
    let named = targets
        .values()
        .find(|t| t.conf.borrow().name == request.target);
    let Some(target) = named else {
        let starting = shard.starting.borrow();
        if starting.values().any(|conf| conf.name == request.target) {
            let why = format!("target {:?} has not met its origin yet", request.target);
            return refuse(Errno::EAGAIN, why);
        }
        let why = format!("no target {:?}", request.target);
        return refuse(Errno::ENODEV, why);
    };
    let committed = shard.flash.last_committed();
    if request.incarnation != 0 && request.committed_seen > committed {
        let why = format!(
            "the client saw {} committed, the flash has only {committed}: it went back",
            request.committed_seen
        );
        return refuse(Errno::ESTALE, why);
    }
    Ok(Rc::clone(target))
}

/// The export of a client that comes back to the same instance of the box.
fn continued<W: World>(
    shard: &Shard<W>,
    request: &ConnectRequest,
) -> Result<Option<Rc<Export>>, Refusal> {
    let exports = shard.sessions.exports.borrow();
    let Some(export) = exports.get(&request.client) else {
        return Ok(None);
    };
    let claim = request.incarnation;
    if request.conn_count <= export.state.conn_count.get() {
        return refuse(Errno::EALREADY, "an old CONNECT: a newer connection exists");
    }
    if claim != export.state.incarnation && claim != export.state.previous {
        return Ok(None);
    }
    let target = target_name(shard, export.target);
    if target.as_ref() != Some(&request.target) {
        return refuse(Errno::EINVAL, "the client was connected to another target");
    }
    Ok(Some(Rc::clone(export)))
}

fn target_name<W: World>(shard: &Shard<W>, id: TargetId) -> Option<String> {
    let targets = shard.targets.borrow();
    targets.get(&id).map(|t| t.conf.borrow().name.clone())
}

/// A new export: for a new client, for one from before a restart (which may
/// replay), or for one that was evicted (which starts afresh).
async fn fresh<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    target: &Rc<Target>,
    settings: &Settings,
    request: &ConnectRequest,
) -> Result<Rc<Export>, Refusal> {
    let sessions = &shard.sessions;
    let old = sessions.exports.borrow().get(&request.client).cloned();
    if let Some(old) = old {
        keeper::end(shard, handler, &old, "it came back as somebody new").await;
    }
    let (recovering, before) = {
        let recovery = sessions.recovery.borrow();
        let before = recovery
            .known(request.client)
            .map(|r| (r.incarnation, r.unstable));
        (recovery.admits(request.client, request.incarnation), before)
    };
    if before.is_some() && !recovering {
        sessions.recovery.borrow_mut().on_done(request.client);
        sessions.changed.notify();
    }
    let (stored, unstable) = before.unwrap_or((0, false));
    let incarnation = stored.max(request.incarnation).saturating_add(1);
    let tags = request.tags.min(TAGS_MAX);
    let state = State::new(incarnation, request.incarnation, tags, shard.world.wall());
    let mut export = Export::new(
        request.client,
        request.name.clone(),
        target.id,
        request.read_only || is_read_only(target),
    );
    export.state = state;
    export.holder = shard.locks.join();
    let lease = Duration::from_millis(u64::from(request.lease_ms));
    export
        .state
        .lease
        .set(lease.clamp(LEASE_MIN, settings.lease.max(LEASE_MIN)));
    export
        .state
        .features
        .set(request.features.masked(Features::OURS));
    export.state.recovering.set(recovering);
    export.state.marked_unstable.set(recovering && unstable);
    let mut tx = Tx::default();
    let record = export.record(recovering && unstable);
    tx.put(key::client(request.client), record.to_vec());
    let stored = match shard.flash.apply(tx) {
        Ok(lsn) => shard.flash.commit(lsn).await,
        Err(e) => Err(e),
    };
    if let Err(e) = stored {
        return refuse(e, format!("its record cannot be stored: {e}"));
    }
    let export = Rc::new(export);
    let mut exports = sessions.exports.borrow_mut();
    if exports.contains_key(&request.client) {
        return refuse(Errno::EALREADY, "a newer connection came meanwhile");
    }
    exports.insert(request.client, Rc::clone(&export));
    shard.locks.enter(&export);
    Ok(export)
}

fn is_read_only(target: &Target) -> bool {
    let origin = target.limits.borrow().as_ref().is_some_and(|l| l.read_only);
    origin || target.conf.borrow().writeback == Writeback::Off
}

fn answer<W: World>(
    shard: &Shard<W>,
    target: &Target,
    settings: &Settings,
    export: &Export,
    request: &ConnectRequest,
) -> ConnectReply {
    let limits = target.limits.borrow();
    let state = &export.state;
    // The offer may differ from that of the connection before.
    state.features.set(request.features.masked(Features::OURS));
    ConnectReply {
        features: state.features.get(),
        incarnation: state.incarnation,
        conn_count: request.conn_count,
        box_id: settings.box_id,
        generation: settings.generation,
        root: target.root,
        map: settings.map.clone(),
        payload_max: request
            .payload_max
            .min(u32::try_from(PAYLOAD_MAX).unwrap_or(u32::MAX)),
        tags: state.slots.borrow().tags().min(request.tags),
        lease_ms: u32::try_from(state.lease.get().as_millis()).unwrap_or(u32::MAX),
        last_committed: shard.flash.last_committed(),
        recovering: state.recovering.get(),
        read_only: export.read_only,
        hash_kind: HASH_SIPHASH13,
        hash_key: Bytes(target.hash_key.to_vec()),
        acls: limits.as_ref().is_none_or(|l| l.acls),
        xattrs: limits.as_ref().is_none_or(|l| l.xattrs),
    }
}
