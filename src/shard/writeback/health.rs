//! Whether the origin is there, judged by how its calls end.

use super::engine::Engine;
use super::{Shard, locate, origin};
use crate::base::{Errno, Mono};
use crate::origin::{OriginOp, OriginReply};
use crate::shard::Target;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// How an origin answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginState {
    #[default]
    Connected,
    /// The last calls failed as if it were away.
    Suspect,
    /// It is away: a probe comes before the next attempt.
    Disconnected,
}

/// Failures in a row that look like an absent origin, until it counts as one.
const ABSENT_AFTER: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
pub struct Health {
    state: Cell<OriginState>,
    failures: Cell<u32>,
    paused_until: Cell<Mono>,
    /// Somebody asks for another try, whatever was found before.
    asked: Cell<bool>,
    last_error: RefCell<Option<(Errno, String)>>,
}

impl Health {
    pub fn state(&self) -> OriginState {
        self.state.get()
    }
    pub fn last_error(&self) -> Option<(Errno, String)> {
        self.last_error.borrow().clone()
    }
    pub fn note(&self, errno: Errno, what: String) {
        *self.last_error.borrow_mut() = Some((errno, what));
    }

    /// How long to leave the origin alone.
    pub fn pause(&self, now: Mono) -> Option<Duration> {
        let left = self.paused_until.get() - now;
        (!left.is_zero()).then_some(left)
    }
    /// Tries again at once.
    pub fn resume(&self) {
        self.paused_until.set(Mono(0));
        self.asked
            .set(self.state.get() == OriginState::Disconnected);
    }
    /// Is a try that was asked for still to come?
    pub fn is_asked(&self) -> bool {
        self.asked.get()
    }

    /// An operation ended. Any answer but those of an absent origin is a sign
    /// of life, an error as well.
    pub fn on_end(&self, now: Mono, error: Option<Errno>) {
        self.asked.set(false);
        if !error.is_some_and(looks_absent) {
            self.state.set(OriginState::Connected);
            self.failures.set(0);
            return;
        }
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        if failures < ABSENT_AFTER {
            self.state.set(OriginState::Suspect);
            return;
        }
        self.state.set(OriginState::Disconnected);
        let pause = PAUSE_FIRST * 2u32.saturating_pow((failures - ABSENT_AFTER).min(10));
        self.paused_until.set(now + pause.min(PAUSE_MAX));
    }
}

fn looks_absent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOTCONN
            | Errno::EIO
            | Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::ESHUTDOWN
            | Errno::ENODEV
    )
}

/// Probes an origin that was away: the mount may be a new one, and must show
/// the same tree. False: not yet, try again later.
pub async fn reconnect<W: World>(shard: &Rc<Shard<W>>, engine: &Engine, target: &Target) -> bool {
    if engine.health.state() != OriginState::Disconnected {
        return true;
    }
    let errno = match probe(shard, engine, target).await {
        Ok(()) => {
            engine.health.on_end(shard.world.now(), None);
            let line = format!("target {}: the origin is back", engine.target);
            shard.world.log(Level::Info, &line);
            engine.progressed.notify();
            return true;
        }
        Err(e) => e,
    };
    engine.health.note(errno, "probe of the origin".to_owned());
    // Whatever it said: an origin that fails its probe is not there.
    engine
        .health
        .on_end(shard.world.now(), Some(Errno::ENOTCONN));
    engine.progressed.notify();
    false
}

async fn probe<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    target: &Target,
) -> Result<(), Errno> {
    let limits = match origin::call(shard, engine.target, OriginOp::Probe).await {
        OriginReply::Probed(limits) => limits,
        OriginReply::Failed(e) => return Err(e),
        _ => return Err(Errno::EIO),
    };
    let root = locate::inode(shard, target.root).await?;
    let known = root.and_then(|inode| inode.locator.identity);
    // Another tree under the mount point: an empty directory whose mount failed.
    if known.is_some_and(|known| known != limits.root) {
        return Err(Errno::ESTALE);
    }
    *target.limits.borrow_mut() = Some(*limits);
    Ok(())
}
