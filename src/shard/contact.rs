//! Whether a target's origin is there: the one owner of that, and the door that
//! every call to an origin goes through, because the calls are what tells.
//!
//! ```text
//! connected ─ silence, a failure ─► suspect ─ more of it ─► disconnected
//!     ▲                                │                     │       ▲
//!     └──────────── an answer ─────────┴──────── reconnecting ◄───────┘
//! ```
//! An origin is *silent* while calls are under way and none is answered; a mount
//! whose server is away hangs so. It *fails* if calls end with the errors of a
//! broken mount. What clients may do meanwhile is the target's `disconnected`
//! policy; what is cached is read whatever it says. An origin that is not there
//! when the box starts is away from the beginning (`absence`).

mod absence;
mod policy;

pub use absence::{missing, present, reconnect, reports_absence};
pub use policy::{refuses_changes, refuses_misses, unless_away};

use super::Shard;
use crate::base::{Errno, Mono, TargetId};
use crate::origin::{OriginCall, OriginOp, OriginReply};
use crate::world::sync::Signal;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How an origin answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginState {
    #[default]
    Connected,
    /// It is silent, or the last calls failed as if it were away.
    Suspect,
    /// It is away.
    Disconnected,
    /// It was away and is being asked whether it is back, and still itself.
    Reconnecting,
}

/// Silence after which an origin is suspect and is asked for a sign of life: a
/// call that is only slow leaves threads that can answer it.
pub const SUSPECT_AFTER: Duration = Duration::from_secs(5);
/// Silence after which it counts as away.
pub const AWAY_AFTER: Duration = Duration::from_secs(20);
/// Failures in a row that look like an absent origin, until it counts as one.
const ABSENT_AFTER: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is known of one target's origin.
#[derive(Default)]
pub struct Contact {
    /// Calls under way, by number, with their beginnings.
    under_way: RefCell<BTreeMap<u64, Mono>>,
    calls: Cell<u64>,
    /// The last answer, whatever it said.
    heard: Cell<Mono>,
    /// Counts calls that an absence of the origin may have overtaken: what it
    /// had answered before one, and not synced, it may have forgotten.
    outages: Cell<u64>,
    failures: Cell<u32>,
    /// Some of them were those of a broken mount, or of a probe: EIO alone may
    /// be one bad file's, which pauses write-back and says nothing of the rest.
    broken: Cell<bool>,
    failing_since: Cell<Mono>,
    paused_until: Cell<Mono>,
    /// How often somebody asked for another try, whatever was found before, and
    /// the last of these that a try has answered which began after it.
    asked: Cell<u64>,
    tried: Cell<u64>,
    probing: Cell<bool>,
    /// Probed after failures; others that would probe wait for the end of it.
    reconnecting: Cell<bool>,
    /// A task tries until it is back.
    reviving: Cell<bool>,
    watched: Cell<bool>,
    /// The state that was told last, and since when.
    told: Cell<OriginState>,
    told_at: Cell<Mono>,
    changed: Signal,
    last_error: RefCell<Option<(Errno, String)>>,
}

/// Those of a shard, by target; made when first asked for.
#[derive(Default)]
pub struct Contacts(RefCell<BTreeMap<TargetId, Rc<Contact>>>);

impl Contacts {
    pub fn of(&self, target: TargetId) -> Rc<Contact> {
        Rc::clone(self.0.borrow_mut().entry(target).or_default())
    }
}

impl Contact {
    #[must_use]
    pub fn state(&self, now: Mono) -> OriginState {
        let silence = self.silence(now).unwrap_or_default();
        let away = self.is_broken() || silence >= AWAY_AFTER;
        match away {
            true if self.probing.get() => OriginState::Reconnecting,
            true => OriginState::Disconnected,
            false if self.failures.get() > 0 || silence >= SUSPECT_AFTER => OriginState::Suspect,
            false => OriginState::Connected,
        }
    }

    /// For how long it has been away, if it is.
    #[must_use]
    pub fn away(&self, now: Mono) -> Option<Duration> {
        let silence = self.silence(now).filter(|silence| *silence >= AWAY_AFTER);
        let absent = self.is_broken().then(|| now - self.failing_since.get());
        silence.max(absent)
    }

    /// For how long it has been suspect or away, if it is.
    #[must_use]
    pub fn troubled(&self, now: Mono) -> Option<Duration> {
        let silence = self
            .silence(now)
            .filter(|silence| *silence >= SUSPECT_AFTER);
        let failing = self.failures.get() > 0;
        silence.max(failing.then(|| now - self.failing_since.get()))
    }

    /// Its calls fail as those of a broken mount do: a probe comes first.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.failures.get() >= ABSENT_AFTER
    }

    fn is_broken(&self) -> bool {
        self.is_absent() && self.broken.get()
    }

    /// How long calls have been under way without any answer.
    fn silence(&self, now: Mono) -> Option<Duration> {
        let under_way = self.under_way.borrow();
        let (_, oldest) = under_way.first_key_value()?;
        Some(now - (*oldest).max(self.heard.get()))
    }

    /// See the field: unchanged over a while, nothing was forgotten in it.
    #[must_use]
    pub fn outages(&self) -> u64 {
        self.outages.get()
    }
    #[must_use]
    pub fn last_error(&self) -> Option<(Errno, String)> {
        self.last_error.borrow().clone()
    }
    pub fn note(&self, errno: Errno, what: String) {
        *self.last_error.borrow_mut() = Some((errno, what));
    }

    /// How long to leave the origin alone.
    #[must_use]
    pub fn pause(&self, now: Mono) -> Option<Duration> {
        if self.is_asked() {
            return None;
        }
        let left = self.paused_until.get() - now;
        (!left.is_zero()).then_some(left)
    }
    /// Tries again at once.
    pub fn resume(&self) {
        self.paused_until.set(Mono(0));
        self.asked.set(self.asked.get() + 1);
    }
    /// Is a try that was asked for still to come, or under way?
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_absent() && self.tried.get() < self.asked.get()
    }

    /// An operation of write-back ended. Any answer but those of an absent
    /// origin is a sign of life, an error as well.
    pub fn on_end(&self, now: Mono, error: Option<Errno>) {
        if !error.is_some_and(|e| e == Errno::EIO || is_broken(e)) {
            let was_broken = self.is_broken();
            self.failures.set(0);
            self.broken.set(false);
            self.paused_until.set(Mono(0));
            if was_broken {
                self.changed.notify();
            }
            return;
        }
        if self.failures.get() == 0 {
            self.failing_since.set(now);
        }
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        let broken = self.broken.get() || error.is_some_and(is_broken);
        self.broken.set(broken);
        if self.is_absent() {
            let pause = PAUSE_FIRST * 2u32.saturating_pow((failures - ABSENT_AFTER).min(10));
            self.paused_until.set(now + pause.min(PAUSE_MAX));
        }
    }

    /// It was not there when it was looked for: away, without more calls.
    fn on_missing(&self, now: Mono) {
        self.failing_since.set(now);
        self.failures.set(ABSENT_AFTER);
        self.broken.set(true);
    }

    fn begin(&self, now: Mono) -> u64 {
        let number = self.calls.replace(self.calls.get() + 1);
        self.under_way.borrow_mut().insert(number, now);
        number
    }

    fn end(&self, number: u64, now: Mono, error: Option<Errno>) {
        let begun = self.under_way.borrow_mut().remove(&number);
        let broken = error.is_some_and(is_broken);
        if !broken {
            self.heard.set(now);
        }
        if broken || begun.is_some_and(|begun| now - begun >= SUSPECT_AFTER) {
            self.outages.set(self.outages.get() + 1);
        }
    }
}

/// Errors of a mount whose server is away. EIO is not among them: it may be one
/// bad file's.
fn is_broken(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOTCONN
            | Errno::ETIMEDOUT
            | Errno::EHOSTUNREACH
            | Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::ESHUTDOWN
            | Errno::ENODEV
    )
}

/// A call under way; whose caller gives it up is no sign of silence any more.
struct UnderWay<'a> {
    contact: &'a Contact,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.contact.under_way.borrow_mut().remove(&self.number);
    }
}

/// One call to the target's origin.
pub async fn call<W: World>(shard: &Shard<W>, target: TargetId, op: OriginOp) -> OriginReply {
    let contact = shard.contacts.of(target);
    let number = contact.begin(shard.world.now());
    let under_way = UnderWay {
        contact: &contact,
        number,
    };
    watch(shard, target, &contact);
    let reply = shard.world.origin(OriginCall { target, op }).await;
    let error = match &reply {
        OriginReply::Failed(errno) => Some(*errno),
        OriginReply::Read { result, .. } => result.as_ref().err().copied(),
        _ => None,
    };
    let now = shard.world.now();
    let was_silent = contact.told.get() != OriginState::Connected;
    contact.end(number, now, error);
    drop(under_way);
    if was_silent {
        tell(&shard.world, target, &contact);
    }
    reply
}

/// Looks at the silence of a target's origin while calls are under way.
fn watch<W: World>(shard: &Shard<W>, target: TargetId, contact: &Rc<Contact>) {
    if contact.watched.replace(true) {
        return;
    }
    let (world, contact) = (shard.world.clone(), Rc::clone(contact));
    shard.world.spawn(async move {
        while let Some(silence) = contact.silence(world.now()) {
            tell(&world, target, &contact);
            // Whoever waits by it looks again, and at the policy's clock.
            contact.changed.notify();
            if silence >= SUSPECT_AFTER && !contact.probing.replace(true) {
                let (asking, asked) = (world.clone(), Rc::clone(&contact));
                world.spawn(async move { ask_for_life(&asking, target, &asked).await });
            }
            let next = [SUSPECT_AFTER, AWAY_AFTER]
                .into_iter()
                .find(|at| *at > silence);
            let wait = next.map_or(SUSPECT_AFTER, |at| at - silence);
            world.sleep(wait).await;
        }
        contact.watched.set(false);
        tell(&world, target, &contact);
        contact.changed.notify();
    });
}

/// A call that any origin answers at once, if it answers.
async fn ask_for_life<W: World>(world: &W, target: TargetId, contact: &Contact) {
    let op = OriginOp::Statfs;
    let reply = world.origin(OriginCall { target, op }).await;
    contact.probing.set(false);
    if !matches!(reply, OriginReply::Failed(e) if is_broken(e)) {
        contact.heard.set(world.now());
    }
    tell(world, target, contact);
}

/// Logs a change of the state and wakes those that wait by it.
fn tell<W: World>(world: &W, target: TargetId, contact: &Contact) {
    let now = world.now();
    let (before, state) = (contact.told.get(), contact.state(now));
    if before == state {
        return;
    }
    contact.changed.notify();
    contact.told.set(state);
    let since = now - contact.told_at.replace(now);
    let is_away = |s| matches!(s, OriginState::Disconnected | OriginState::Reconnecting);
    match state {
        _ if is_away(state) && !is_away(before) => {
            let line = format!(
                "target {target}: the origin is away; what is cached is served, the rest \
                 goes by the target's `disconnected` policy"
            );
            world.log(Level::Error, &line);
        }
        OriginState::Suspect if before == OriginState::Connected => {
            let line = format!("target {target}: the origin does not answer");
            world.log(Level::Warn, &line);
        }
        OriginState::Connected => {
            let line = format!(
                "target {target}: the origin is back, {} s after the last change",
                since.as_secs()
            );
            world.log(Level::Info, &line);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
