//! An origin that is absent: at the box's start, or because its calls fail as
//! those of a broken mount. A task probes it until it is back, and still itself;
//! meanwhile misses wait here and are asked then, not failed.

use super::{Contact, is_broken, tell};
use crate::base::{Errno, TargetId};
use crate::shard::{Shard, Target, meta, writeback};
use crate::world::{Level, World};
use std::rc::Rc;
use std::time::Duration;

/// Between two probes of an origin that is absent.
const PROBE_RETRY: Duration = Duration::from_secs(2);

/// The origin was not there at the start: it is away until a probe succeeds.
pub fn missing<W: World>(shard: &Rc<Shard<W>>, target: TargetId) {
    let contact = shard.contacts.of(target);
    contact.on_missing(shard.world.now());
    tell(&shard.world, target, &contact);
    revive(shard, target, &contact);
}

/// Ends when the origin is not absent. One that is only silent is asked: its
/// calls end when it is back.
pub async fn present<W: World>(shard: &Shard<W>, target: TargetId) {
    let contact = shard.contacts.of(target);
    while contact.is_broken() {
        contact.changed.wait().await;
    }
}

/// A miss failed with `errno`. Whether that says that the origin is absent:
/// then it is counted, and the miss is to be tried again once it is `present`.
pub fn reports_absence<W: World>(shard: &Rc<Shard<W>>, target: TargetId, errno: Errno) -> bool {
    if !is_broken(errno) {
        return false;
    }
    let contact = shard.contacts.of(target);
    contact.note(errno, "a call to the origin".to_owned());
    contact.on_end(shard.world.now(), Some(errno));
    tell(&shard.world, target, &contact);
    if contact.is_broken() {
        revive(shard, target, &contact);
    }
    true
}

/// Has a task probe the origin until it is back. Write-back probes as well, but
/// only between its operations.
fn revive<W: World>(shard: &Rc<Shard<W>>, id: TargetId, contact: &Rc<Contact>) {
    if contact.reviving.replace(true) {
        return;
    }
    let (shard, contact) = (Rc::clone(shard), Rc::clone(contact));
    shard.world.clone().spawn(async move {
        while contact.is_broken() {
            let Some(target) = shard.targets.borrow().get(&id).cloned() else {
                break;
            };
            if !reconnect(&shard, &target).await {
                shard.world.sleep(PROBE_RETRY).await;
            }
        }
        contact.reviving.set(false);
    });
}

/// Probes an origin whose calls failed: the mount may be a new one, and must
/// show the same tree. Joins a probe that is under way. False: not yet, try
/// again later.
pub async fn reconnect<W: World>(shard: &Rc<Shard<W>>, target: &Target) -> bool {
    let contact = shard.contacts.of(target.id);
    if contact.reconnecting.get() {
        while contact.reconnecting.get() {
            contact.changed.wait().await;
        }
        return !contact.is_absent();
    }
    if !contact.is_absent() {
        return true;
    }
    contact.reconnecting.set(true);
    // Asked for later, another try is owed: this one may have failed before.
    let asked = contact.asked.get();
    contact.probing.set(true);
    let probed = meta::confirm(shard, target.id).await;
    contact.probing.set(false);
    contact.reconnecting.set(false);
    contact.tried.set(asked);
    note_probe(shard, target, &contact, probed.err());
    contact.changed.notify();
    writeback::wake(shard, target.id);
    probed.is_ok()
}

/// Whatever it said: an origin that fails its probe is not there.
fn note_probe<W: World>(
    shard: &Shard<W>,
    target: &Target,
    contact: &Contact,
    failed: Option<Errno>,
) {
    let error = failed.map(|errno| {
        let is_news = contact.last_error().is_none_or(|(last, _)| last != errno);
        if errno == Errno::ESTALE && is_news {
            let name = target.conf.borrow().name.clone();
            let line = meta::StartError::OtherRoot { target: name }.to_string();
            shard.world.log(Level::Error, &line);
        }
        contact.note(errno, "probe of the origin".to_owned());
        Errno::ENOTCONN
    });
    contact.on_end(shard.world.now(), error);
    tell(&shard.world, target.id, contact);
}
