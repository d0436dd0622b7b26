//! A shard's life: started on its flash, serving what arrives, stopped cleanly.

use super::session::{Dispatch, Settings};
use super::{Shard, admin, data, session, writeback};
use crate::base::{BoxId, Generation, Lsn, ShardId, TargetId};
use crate::conf::TargetConf;
use crate::dlm::Limits;
use crate::flash::Flash;
use crate::wire::ShardMap;
use crate::world::race::within;
use crate::world::{Arrival, Level, World};
use std::rc::Rc;
use std::time::Duration;

/// What the control thread starts a shard with.
pub struct Begin {
    pub id: ShardId,
    pub box_id: BoxId,
    pub generation: Generation,
    pub map: ShardMap,
    pub lease: Duration,
    /// How long a check of all that is on flash takes; `None`: there is none.
    pub scrub: Option<Duration>,
    /// How many locks clients may have.
    pub locks: Limits,
    /// Bytes for cached file data in memory.
    pub memory: u64,
    pub targets: Vec<(TargetId, TargetConf)>,
}

/// Takes up what the flash holds; after it the shard may be handed clients.
///
/// # Errors
/// What keeps the shard from serving, for people.
pub async fn start<W: World>(
    world: W,
    flash: Flash<W>,
    begin: Begin,
) -> Result<Rc<Shard<W>>, String> {
    let shard = Shard::start(world, begin.id, flash, begin.memory, begin.targets).await;
    let shard = shard.map_err(|e| e.to_string())?;
    shard.sessions.configure(Settings {
        box_id: begin.box_id,
        generation: begin.generation.0,
        lease: begin.lease,
        map: begin.map,
    });
    shard.locks.configure(begin.locks, begin.lease);
    let flash = |e| format!("the cache cannot be read: {e}");
    writeback::start(&shard).await.map_err(flash)?;
    session::start(&shard, &Rc::new(Dispatch))
        .await
        .map_err(flash)?;
    if let Some(period) = begin.scrub {
        shard.world.spawn(data::scrub(Rc::clone(&shard), period));
    }
    Ok(shard)
}

/// Serves until told to stop, then leaves everything durable and clean.
///
/// # Errors
/// What kept the stop from being clean; nothing durable is lost by it.
pub async fn run<W: World>(shard: Rc<Shard<W>>) -> Result<(), String> {
    let handler = Rc::new(Dispatch);
    loop {
        match shard.world.arrival().await {
            Arrival::Client { conn, first } => session::accept(&shard, &handler, conn, &first),
            Arrival::Admin { request, reply } => {
                let asked = Rc::clone(&shard);
                let task = async move { reply(admin::answer(&asked, &request).await) };
                shard.world.spawn(task);
            }
            Arrival::Peer { from, .. } => {
                let line = format!("a message from shard {from}, which this release does not send");
                shard.world.log(Level::Warn, &line);
            }
            Arrival::Stop => break,
        }
    }
    let failed = |e| format!("the cache failed while stopping: {e}; the stop is not clean");
    session::stop(&shard).await.map_err(failed)?;
    drain(&shard).await;
    writeback::stop(&shard);
    shard
        .flash
        .commit(shard.applied.get().max(Lsn(0)))
        .await
        .map_err(failed)?;
    shard.flash.close().await.map_err(failed)
}

/// Carries to the origins what can be carried soon; what cannot stays on flash
/// and is carried after the next start.
async fn drain<W: World>(shard: &Rc<Shard<W>>) {
    let targets: Vec<TargetId> = shard.targets.borrow().keys().copied().collect();
    for target in targets {
        let line = match within(
            &shard.world,
            DRAIN_WITHIN,
            writeback::flush(shard, target, None),
        )
        .await
        {
            Some(Ok(())) => continue,
            Some(Err(e)) => {
                format!("target {target}: not all is at the origin ({e}); it stays in the cache")
            }
            None => format!("target {target}: the origin is slow; the rest stays in the cache"),
        };
        shard.world.log(Level::Warn, &line);
    }
}

/// How long a stop waits for a target's origin.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);
