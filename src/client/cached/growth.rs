//! Files that are open here, and that others may make longer (C17). Who looks at
//! one through a mapping asks nobody how long it is, so the kernel must know
//! before whoever made it longer is answered. Others' growth calls back a lock on
//! the attributes or the bytes up to the end, and the callback says how far it
//! goes; so a file that may be mapped is never left without such a lock for long:
//!
//! ```text
//! callback ─► taken back ─► the size raised above ─► Raised, Cancel
//!                                                       │
//!   armed ◄─ raised above, if it has grown ◄─ asks ◄────┘ at once; after a second, if
//!                                                         that was so just before, too
//! ```

use super::Cached;
use crate::base::{Bits, Extent, Fid, LockId, Mode, Mono};
use crate::client::call::{Aim, Call, Context, Cred, Fill, Outcome, Pending};
use crate::client::ledger::State;
use crate::client::{Import, ahead};
use crate::wire::callback::Growing;
use crate::wire::op::{Intent, OfFile, Raised, Read};
use crate::wire::{Reply, Request};
use crate::world::World;
use crate::world::sync::Semaphore;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Two losses of the lock within this time, and it is fought over ...
const SOON: Duration = Duration::from_secs(2);
/// ... and not asked for again before this has gone by: a log that one client
/// writes and many have open costs each of them a callback a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Files that are asked about at a time.
const ASKED_MAX: usize = 16;

/// The files that may be mapped and are not armed, or were not so lately.
pub struct Watched {
    files: RefCell<BTreeMap<Fid, Watch>>,
    asking: Rc<Semaphore>,
}

impl Default for Watched {
    fn default() -> Watched {
        Watched {
            files: RefCell::default(),
            asking: Semaphore::new(ASKED_MAX),
        }
    }
}

impl Watched {
    /// Files that are being asked about.
    #[must_use]
    pub fn count(&self) -> usize {
        let files = self.files.borrow();
        files.values().filter(|watch| watch.is_running).count()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Watch {
    /// What those above take for its size, as far as that is known.
    raised: Option<u64>,
    /// How often there was no lock, and how much of that was made up for: only
    /// then is what those above think the size.
    losses: u64,
    checked: u64,
    /// When the lock was lost last, and whether there was one since.
    lost: Option<Mono>,
    had: bool,
    /// Not to be asked for before.
    not_before: Mono,
    is_running: bool,
}

impl Watch {
    fn on_lost(&mut self, now: Mono) {
        self.losses += 1;
        let is_soon = self.lost.is_some_and(|before| now - before < SOON);
        if std::mem::replace(&mut self.had, false) && is_soon {
            self.not_before = now + PAUSE;
        }
        self.lost = Some(now);
    }

    fn is_checked(&self) -> bool {
        self.checked == self.losses
    }
}

/// The box wants a lock back for what makes the file longer: it may, once those
/// above know. The lock itself ends as any other.
pub(super) async fn on_growing<W: World>(
    import: &Rc<Import<W>>,
    (fid, lock): (Fid, LockId),
    growing: Growing,
) {
    let Growing { size, last } = growing;
    raise(import, fid, size, last).await;
    let sender = import.link.borrow().as_ref().map(|l| l.sender.clone());
    // Over a new connection the box says it again.
    if let Some(sender) = sender {
        let raised = Request::Raised(Raised { lock, size });
        sender.push(import.ledger.borrow_mut().control(raised).1);
    }
}

/// Those above see the file as at least so long from now on, if they look at it.
async fn raise<W: World>(import: &Rc<Import<W>>, fid: Fid, size: u64, last: u8) {
    let above = import.cached.above().filter(|above| above.may_map(fid));
    let Some(above) = above else {
        return;
    };
    above.grown(fid, size, last).await;
    let mut files = import.cached.watched.files.borrow_mut();
    files.entry(fid).or_default().raised = Some(size);
}

/// Bits of a lock on `fid` end, under which the file was `size` bytes long. True
/// if another is to be asked for ([`arm`]) when they have.
pub(super) fn on_ending<W: World>(
    import: &Import<W>,
    (fid, bits): (Fid, Bits),
    size: Option<u64>,
) -> bool {
    if bits.and(TOLD_BY).is_empty() || !may_map(import, fid) {
        return false;
    }
    let mut files = import.cached.watched.files.borrow_mut();
    let watch = files.entry(fid).or_default();
    watch.raised = watch.raised.max(size);
    // Another lock tells of growth as well.
    if is_armed(import, fid) {
        return false;
    }
    watch.on_lost(import.world.now());
    !std::mem::replace(&mut watch.is_running, true)
}

/// Nothing is held any more, of no file.
pub(super) fn on_cleared<W: World>(import: &Rc<Import<W>>) {
    let mapped = import.cached.above().map(|above| above.mapped());
    for fid in mapped.into_iter().flatten() {
        if let Some(watch) = import.cached.watched.files.borrow_mut().get_mut(&fid) {
            watch.raised = None;
        }
        lacks(import, fid);
    }
}

/// The file may be mapped from now on, or be so without a lock: sees to it that
/// there is one.
pub fn watch<W: World>(import: &Rc<Import<W>>, fid: Fid) {
    if import.options.locks && !is_armed(import, fid) {
        lacks(import, fid);
    }
}

/// There is no lock, and nobody knows since when.
fn lacks<W: World>(import: &Rc<Import<W>>, fid: Fid) {
    let mut files = import.cached.watched.files.borrow_mut();
    files.entry(fid).or_default().losses += 1;
    drop(files);
    run(import, fid);
}

fn run<W: World>(import: &Rc<Import<W>>, fid: Fid) {
    let is_running = {
        let mut files = import.cached.watched.files.borrow_mut();
        let watch = files.entry(fid).or_default();
        std::mem::replace(&mut watch.is_running, true)
    };
    if !is_running {
        let import = Rc::clone(import);
        let world = import.world.clone();
        world.spawn(async move { arm(&import, fid).await });
    }
}

/// Does others' growth of the file call back something that is held here?
fn is_armed<W: World>(import: &Import<W>, fid: Fid) -> bool {
    let held = import.cached.held.borrow();
    let to_end = Extent::from(u64::MAX);
    held.bits(fid).has(Bits::UPDATE)
        || held.covers_data(fid, Mode::Pr, to_end)
        || import.ahead.has(fid)
}

/// What is called back when others make a file longer.
const TOLD_BY: Bits = Bits::UPDATE.with(Bits::DATA);

fn may_map<W: World>(import: &Import<W>, fid: Fid) -> bool {
    let above = import.cached.above();
    above.is_some_and(|above| above.may_map(fid))
}

fn found(cached: &Cached, fid: Fid) -> Watch {
    let files = cached.watched.files.borrow();
    files.get(&fid).copied().unwrap_or_default()
}

/// Asks until a lock is held again, or nobody can look.
pub(super) async fn arm<W: World>(import: &Rc<Import<W>>, fid: Fid) {
    let cached = &import.cached;
    let is_open = || may_map(import, fid) && import.ledger.borrow().state() != State::Closed;
    while is_open() {
        let (now, watch) = (import.world.now(), found(cached, fid));
        let was_armed = is_armed(import, fid);
        if was_armed && watch.is_checked() {
            break;
        }
        if now < watch.not_before && !was_armed {
            import.world.sleep(watch.not_before - now).await;
            continue;
        }
        let permit = cached.watched.asking.acquire().await;
        let has_asked = ask(import, fid).await;
        drop(permit);
        if has_asked && is_armed(import, fid) {
            let mut files = cached.watched.files.borrow_mut();
            let found = files.entry(fid).or_default();
            (found.checked, found.had) = (watch.losses, true);
        } else {
            import.world.sleep(PAUSE).await;
        }
    }
    let mut files = cached.watched.files.borrow_mut();
    if let Some(watch) = files.get_mut(&fid) {
        watch.is_running = false;
    }
    if !may_map(import, fid) {
        files.remove(&fid);
    }
    // What nobody can look at any more is of no use to remember.
    if files.len() > REMEMBERED_MAX {
        files.retain(|fid, watch| watch.is_running || may_map(import, *fid));
    }
}

/// Files that are remembered before it is looked which of them are still open.
const REMEMBERED_MAX: usize = 1024;

/// Asks for the attributes and their lock; and if the file is not as long as those
/// above think, for the last byte, and the lock that comes with it. The lock is
/// needed, not just welcome: the box may show a file without one that another
/// client has to itself, and nobody would tell of its growth then.
async fn ask<W: World>(import: &Rc<Import<W>>, fid: Fid) -> bool {
    let nobody = Context::new(Rc::new(Cred::default()));
    let intent = Intent::default();
    let getattr = Request::Getattr(OfFile { fid, intent });
    let watcher = Context {
        aim: Aim::Watch,
        ..nobody.clone()
    };
    let Ok((Reply::Entry(entry), _)) = asked(import, &watcher, getattr).await else {
        return false;
    };
    let mut size = entry.attr.size;
    let resized = || import.cached.above().map(|above| above.resized(fid));
    for _ in 0..TRIES {
        let before = resized();
        let is_known = found(&import.cached, fid).raised == Some(size);
        if size == 0 || is_known && is_armed(import, fid) {
            return true;
        }
        let reader = import.ledger.borrow().handles().any(fid);
        let Some((open, cred)) = reader else {
            return false;
        };
        let context = Context {
            fill: Fill::Read,
            ..cred.map_or_else(|| nobody.clone(), Context::new)
        };
        let read = Request::Read(Read {
            fid,
            open,
            offset: size - 1,
            len: 1,
        });
        match asked(import, &context, read).await {
            // Their own change of the size is the later word.
            _ if before == Some(None) || resized() != before => return false,
            Ok((Reply::Data(data), bytes)) if data.size == size => {
                let last = bytes.and_then(|bytes| bytes.first().copied());
                raise(import, fid, size, last.unwrap_or(0)).await;
                return true;
            }
            Ok((Reply::Data(data), _)) => size = data.size,
            _ => return false,
        }
    }
    false
}

/// A size is asked for so often in a row while others go on changing it.
const TRIES: u32 = 3;

async fn asked<W: World>(import: &Rc<Import<W>>, context: &Context, request: Request) -> Outcome {
    let pending = Pending::new(context, request, None);
    let call = Call(Rc::clone(&pending));
    ahead::dispatch(import, pending);
    call.reply().await
}
