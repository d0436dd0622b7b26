//! How locks end: by a callback, with the lease, with the box, or because
//! there are too many.

use super::held::{Called, Ending};
use super::pins::HOLD;
use super::{attr, growth, opens, recall};
use crate::base::{Bits, Extent, Fid, LockId, Mode};
use crate::client::ledger::State;
use crate::client::{CallError, Import, ahead};
use crate::wire::callback::Growing;
use crate::wire::op::{Cancel, Claim};
use crate::wire::{CallbackHead, Frame, LockCancel, Request};
use crate::world::stream::Sender;
use crate::world::sync::Promise;
use crate::world::{Level, World};
use std::rc::Rc;
use std::time::Duration;

/// The box wants a lock back; perhaps for what makes the file longer.
pub fn on_callback<W: World>(
    import: &Rc<Import<W>>,
    head: &CallbackHead,
    growing: Option<Growing>,
) {
    let mut bits = Bits { set: head.bits };
    // Who calls a name back may be about to remove it: then OPEN is next, and
    // it is of no use without the name.
    if bits.has(Bits::LOOKUP) {
        bits = bits.with(Bits::OPEN);
    }
    let now = import.world.now();
    let called = import
        .cached
        .held
        .borrow_mut()
        .on_called(head.lock, bits, now);
    match called {
        Called::Ends(ending) => {
            let idle = match ending.mode {
                Mode::Ex => idle_around(import, ending.fid),
                _ => Vec::new(),
            };
            end_for(import, ending, growing);
            for fid in idle {
                give_up(import, fid);
            }
            return;
        }
        Called::Unknown => {
            let ending = Ending {
                lock: head.lock,
                fid: head.fid,
                bits: Bits::ALL,
                extent: Extent::ALL,
                mode: Mode::Nl,
            };
            let import = Rc::clone(import);
            let world = import.world.clone();
            world.spawn(async move { cancel(&import, &ending).await });
        }
        Called::Later(at) => end_later(import, head.lock, at - now),
        Called::Pending | Called::Ending => {}
    }
    if let Some(growing) = growing {
        let (import, of) = (Rc::clone(import), (head.fid, head.lock));
        let world = import.world.clone();
        world.spawn(async move { growth::on_growing(&import, of, growing).await });
    }
}

/// A file that the client does not change any more is wanted by another, who will
/// want its neighbours next, as whoever lists a directory does: those files that
/// the client has to itself and is through with, too. One callback for all of
/// them instead of one for each.
fn idle_around<W: World>(import: &Import<W>, fid: Fid) -> Vec<Fid> {
    let known = import.cached.known.borrow();
    let Some((dir, name)) = known.name_of(fid) else {
        return Vec::new();
    };
    let (ledger, now) = (
        import.ledger.borrow(),
        import.ahead.now(import.world.wall()),
    );
    let mut around = known.around(dir, &name, AROUND);
    around.retain(|fid| import.ahead.is_idle(*fid, now) && !ledger.handles().is_open(*fid));
    around
}

/// Names looked at on each side of the one that was called back.
const AROUND: usize = 128;

/// The pages of this fill are above now: locks that came with their bytes are
/// given up soon, if they were called back meanwhile.
pub fn on_filled<W: World>(import: &Rc<Import<W>>, fill: u64) {
    let now = import.world.now();
    let called = import.cached.held.borrow_mut().pins.on_filled(fill, now);
    for lock in called {
        end_later(import, lock, HOLD);
    }
}

fn end_later<W: World>(import: &Rc<Import<W>>, lock: LockId, after: Duration) {
    let import = Rc::clone(import);
    let world = import.world.clone();
    world.spawn(async move {
        import.world.sleep(after).await;
        let ending = import.cached.held.borrow_mut().unpin(lock);
        if let Some(ending) = ending {
            end(&import, ending);
        }
    });
}

/// Nothing rests on these bits any more here; those above are told, then the
/// box, when it has done what was answered under them. In a task of its own:
/// none waits for another (C3). What it returns is set at the end.
pub(super) fn end<W: World>(import: &Rc<Import<W>>, ending: Ending) -> Promise<()> {
    end_for(import, ending, None)
}

/// The same; for what is about to make the file longer, those above are told
/// that, too, and then the box.
fn end_for<W: World>(
    import: &Rc<Import<W>>,
    ending: Ending,
    growing: Option<Growing>,
) -> Promise<()> {
    if !ending.bits.and(DECLARED).is_empty() {
        opens::declare(import, ending.fid);
    }
    if ending.bits.has(Bits::LOOKUP) {
        for other in opens::give_up(&import.cached, ending.fid) {
            end(import, other);
        }
    }
    let size = attr(&import.cached, ending.fid).map(|attr| attr.size);
    let mut known = import.cached.known.borrow_mut();
    known.forget(ending.fid, ending.bits);
    drop(known);
    recall::forget(&import.cached, ending.fid, ending.bits);
    let is_alone = ending.mode == Mode::Ex;
    let below = match is_alone {
        true => ahead::on_ending(import, ending.fid),
        false => Vec::new(),
    };
    let mut unwatched = Vec::new();
    if growth::on_ending(import, (ending.fid, ending.bits), size) {
        unwatched.push(ending.fid);
    }
    let born = |fid: &&Fid| growth::on_ending(import, (**fid, Bits::ALL), None);
    unwatched.extend(below.iter().filter(born));
    let ended = Promise::default();
    let (import, done) = (Rc::clone(import), ended.clone());
    let world = import.world.clone();
    world.spawn(async move {
        if let Some(above) = import.cached.above() {
            let whole = |fid: &Fid| above.take_back(*fid, Bits::ALL, Extent::ALL);
            let all: Vec<_> = below.iter().map(whole).collect();
            above
                .take_back(ending.fid, ending.bits, ending.extent)
                .await;
            for taken in all {
                taken.await;
            }
        }
        if let Some(growing) = growing {
            growth::on_growing(&import, (ending.fid, ending.lock), growing).await;
        }
        if is_alone {
            ahead::caught_up(&import).await;
        }
        cancel(&import, &ending).await;
        import
            .cached
            .held
            .borrow_mut()
            .on_ended(ending.lock, ending.bits);
        done.set(());
        for fid in unwatched {
            let again = Rc::clone(&import);
            let world = import.world.clone();
            world.spawn(async move { growth::arm(&again, fid).await });
        }
    });
    ended
}

/// The client gives up all locks of a file by its own will. What is returned is
/// set when the box knows.
pub fn give_up<W: World>(import: &Rc<Import<W>>, fid: Fid) -> Vec<Promise<()>> {
    let endings = import.cached.held.borrow_mut().give_up(fid, Bits::ALL);
    import.cached.forget(fid);
    let ended = endings.into_iter().map(|ending| end(import, ending));
    ended.collect()
}

/// What ends the client's word on its handles: who may open the file without a
/// word, and what its mode lets whoever opened it do.
const DECLARED: Bits = Bits::OPEN.with(Bits::PERM);

/// Tells the box, over however many connections it takes.
async fn cancel<W: World>(import: &Rc<Import<W>>, ending: &Ending) {
    let in_use = import.ledger.borrow().handles().is_open(ending.fid);
    let lock = LockCancel {
        lock: ending.lock,
        bits: ending.bits,
        in_use,
    };
    loop {
        let state = import.ledger.borrow().state();
        let sender = import.link.borrow().as_ref().map(|l| l.sender.clone());
        match (state, sender) {
            (State::Closed, _) => return,
            (State::Full, Some(sender)) => {
                let locks = vec![lock];
                let request = Request::Cancel(Cancel { locks });
                let (call, frame) = import.ledger.borrow_mut().control(request);
                sender.push(frame);
                if !matches!(call.reply().await, Err(CallError::Closed)) {
                    return;
                }
            }
            _ => import.changed.wait().await,
        }
    }
}

/// Watches the lease: when it is over, nobody above believes anything any more.
/// Locks and what is known stay, for a box that still has them (L2).
pub async fn watch<W: World>(import: Rc<Import<W>>) {
    let cached = &import.cached;
    let state = || import.ledger.borrow().state();
    while matches!(state(), State::New | State::Connecting) {
        import.changed.wait().await;
    }
    while state() != State::Closed {
        let left = cached.lease.borrow().left(import.world.now());
        if !left.is_zero() {
            cached.lapsed.set(false);
            import.world.sleep(left).await;
            continue;
        }
        if !cached.lapsed.replace(true) {
            let line = "the box was not heard for a lease: nothing cached is used until it is";
            import.world.log(Level::Warn, line);
            if let Some(above) = cached.above() {
                above.take_back_all().await;
            }
        }
        import.world.sleep(RECHECK).await;
    }
}

/// How often a lease that is over is looked at.
const RECHECK: Duration = Duration::from_millis(50);

/// The box restarted. What is remembered may lack what it lost; only the right
/// to store bytes is claimed again, since nobody else has those bytes.
pub async fn on_restarted<W: World>(import: &Rc<Import<W>>) {
    let cached = &import.cached;
    let (ends, kept) = cached.held.borrow_mut().keep_writing();
    cached.known.borrow_mut().clear();
    recall::clear(cached);
    *cached.claims.borrow_mut() = kept;
    let Some(above) = cached.above() else {
        return;
    };
    let all: Vec<_> = ends
        .iter()
        .map(|end| above.take_back(end.fid, end.bits, end.extent))
        .collect();
    for end in all {
        end.await;
    }
    growth::on_cleared(import);
}

/// The box has thrown the client out: nothing is held. Until the box knows that
/// nothing of before is believed any more either, it lets nobody else change it.
/// The connection goes on meanwhile: the taking back may wait for its answers.
pub fn on_evicted<W: World>(import: &Rc<Import<W>>, sender: &Sender<W::Conn>) {
    let cached = &import.cached;
    cached.held.borrow_mut().clear();
    cached.known.borrow_mut().clear();
    recall::clear(cached);
    let taken = cached.above().map(|above| above.take_back_all());
    let (import, sender) = (Rc::clone(import), sender.clone());
    let world = import.world.clone();
    world.spawn(async move {
        if let Some(taken) = taken {
            taken.await;
        }
        growth::on_cleared(&import);
        // If the connection has ended, the box counts the lease out.
        if !sender.is_closed() {
            let nothing = Request::Cancel(Cancel { locks: Vec::new() });
            sender.push(import.ledger.borrow_mut().control(nothing).1);
        }
    });
}

/// The frame that claims what is kept over a restart, before the replay is
/// said to be over (L13).
pub fn claim<W: World>(import: &Import<W>) -> Option<Frame> {
    let locks = import.cached.claims.take();
    if locks.is_empty() {
        return None;
    }
    let request = Request::Claim(Claim { locks });
    Some(import.ledger.borrow_mut().control(request).1)
}
