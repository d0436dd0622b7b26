//! File locks of the client's users: asked for, waited for without a reply slot
//! (L6), and remembered, so that a box that restarted can be told.
//!
//! ```text
//! Setlk ─► Granted | refused
//!   └────► Queued ─► notice: over  |  connection lost: Setlk again, same wait
//!                └─► interrupted: Unwait ─► Withdrawn: EINTR | Granted: success
//! ```

use super::{Call, CallError, Client, Context, Import, Outcome};
use crate::base::{ClientId, Errno, Extent, Fid, HeldLock, LockKind, OpenId, OwnerKind, WaitId};
use crate::dlm::{FileLocks, LockAsked, LockOwner, OwnedLocks};
use crate::wire::filelock::{LockState, Locked, Relock, Setlk, Unwait};
use crate::wire::{Features, Frame, Notice, Reply, Request};
use crate::world::sync::Signal;
use crate::world::{Level, World};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

/// What is asked about a lock; the owner and its kind are in the [`Context`].
#[derive(Clone, Copy, Debug)]
pub struct LockCall {
    pub fid: Fid,
    pub open: OpenId,
    /// Of a flock: not looked at.
    pub range: Extent,
    /// None: gives it up.
    pub kind: Option<LockKind>,
    pub pid: u32,
    /// For as long as it takes, or until interrupted.
    pub wait: bool,
}

/// What the client knows of its file locks.
#[derive(Default)]
pub(super) struct Book {
    /// A copy of what the box granted: brought up to date by whoever asked,
    /// before the asker is told.
    held: FileLocks,
    /// What the box did not give back after an eviction or a restart, by the
    /// handles it was taken through. Each is told once.
    lost: BTreeMap<(Fid, LockOwner), Vec<OpenId>>,
    waits: BTreeMap<WaitId, Rc<Waiting>>,
    last_wait: u64,
    /// Calls that have no result yet, by their numbers.
    underway: BTreeMap<u64, Underway>,
    last_call: u64,
}

/// A call without a result. Once it was sent the box may have done it, and have
/// given others what it gives up: a box that restarts is not asked for that.
struct Underway {
    owner: LockOwner,
    asked: LockCall,
    /// The request, as it was last made; before it, another may have been sent.
    call: Option<Call>,
    is_sent: bool,
    /// A box that restarted was asked for less than the owner had.
    has_cost: bool,
}

/// One of them, until this is dropped.
struct Number<W: World> {
    client: Client<W>,
    number: u64,
}

impl<W: World> Drop for Number<W> {
    fn drop(&mut self) {
        let mut book = self.client.0.file_locks.borrow_mut();
        book.underway.remove(&self.number);
    }
}

/// A lock that is waited for.
#[derive(Default)]
struct Waiting {
    /// The status of the notice, once it came.
    over: Cell<Option<i32>>,
    /// The notice may have been missed.
    ask_again: Cell<bool>,
    changed: Signal,
}

/// Why a wait is looked at.
enum Turn {
    Over(i32),
    AskAgain,
    Interrupted,
}

impl<W: World> Client<W> {
    /// Takes a lock or gives it up.
    ///
    /// # Errors
    /// What the box answered: EAGAIN, EDEADLK, ENOLCK. EIO, once, if locks that
    /// the owner had on the file were lost, or if the call failed over a restart
    /// of the box that made them weaker. [`CallError::Interrupted`]: it was
    /// waited for, `raised` ended, and nobody waits any more.
    pub async fn lock(
        &self,
        context: &Context,
        asked: LockCall,
        raised: impl Future<Output = ()>,
    ) -> Result<(), CallError> {
        let kind = OwnerKind::of(context.owner_kind);
        let owner = LockOwner {
            client: self.id(),
            id: context.owner,
            kind: kind.ok_or(CallError::Failed(Errno::EINVAL))?,
        };
        let lost = self
            .0
            .file_locks
            .borrow_mut()
            .lost
            .remove(&(asked.fid, owner));
        if lost.is_some() {
            return Err(CallError::Failed(Errno::EIO));
        }
        let wait = (asked.wait && asked.kind.is_some()).then(|| self.begin_wait());
        let heard = Cell::new(false);
        let number = self.begin_lock(owner, asked);
        let way = Way {
            number: number.number,
            wait: wait.as_ref(),
            heard: &heard,
        };
        let mut result = self.settle_lock(context, asked, &way, raised).await;
        if result.is_err() && owner.kind != OwnerKind::Flock && self.has_cost(&number) {
            result = Err(CallError::Failed(Errno::EIO));
        }
        drop(number);
        let mut book = self.0.file_locks.borrow_mut();
        if let Some((id, _)) = wait {
            book.waits.remove(&id);
            if heard.get() && result == Err(CallError::TimedOut) {
                let left = self.clone().abandon(context.clone(), asked, id);
                self.world().spawn(left);
            }
        }
        if heard.get() {
            book.note(owner, &asked, result.is_ok());
        }
        result
    }

    /// Has this owner, of a process's files, locks on the file, as far as this
    /// client asked for them? Locks that were lost are forgotten with this.
    #[must_use]
    pub fn has_locks(&self, fid: Fid, owner: u64) -> bool {
        let owner = LockOwner {
            client: self.id(),
            id: owner,
            kind: OwnerKind::Posix,
        };
        let mut book = self.0.file_locks.borrow_mut();
        book.lost.remove(&(fid, owner));
        book.held.has_any(fid, owner)
    }

    /// A handle is about to be closed: its locks end with it (L12).
    pub fn locks_closed(&self, fid: Fid, open: OpenId) {
        let mut book = self.0.file_locks.borrow_mut();
        book.held.close(fid, self.id(), open);
        book.lost
            .retain(|(of, _), opens| *of != fid || !opens.contains(&open));
    }

    fn begin_lock(&self, owner: LockOwner, asked: LockCall) -> Number<W> {
        let mut book = self.0.file_locks.borrow_mut();
        book.last_call += 1;
        let number = book.last_call;
        let underway = Underway {
            owner,
            asked,
            call: None,
            is_sent: false,
            has_cost: false,
        };
        book.underway.insert(number, underway);
        let client = self.clone();
        Number { client, number }
    }

    /// Has a restart of the box made the owner's locks weaker meanwhile?
    fn has_cost(&self, number: &Number<W>) -> bool {
        let book = self.0.file_locks.borrow();
        book.underway
            .get(&number.number)
            .is_some_and(|underway| underway.has_cost)
    }

    fn begin_wait(&self) -> (WaitId, Rc<Waiting>) {
        let mut book = self.0.file_locks.borrow_mut();
        book.last_wait += 1;
        let id = WaitId { id: book.last_wait };
        let waiting = Rc::new(Waiting::default());
        book.waits.insert(id, Rc::clone(&waiting));
        (id, waiting)
    }

    /// Asks until there is a result, over any number of connections.
    async fn settle_lock(
        &self,
        context: &Context,
        asked: LockCall,
        way: &Way<'_>,
        raised: impl Future<Output = ()>,
    ) -> Result<(), CallError> {
        let Way { wait, heard, .. } = *way;
        let mut raised = Raised {
            future: pin!(raised),
            is_raised: false,
        };
        loop {
            let request = Request::Setlk(Setlk {
                fid: asked.fid,
                open: asked.open,
                range: asked.range,
                kind: asked.kind,
                pid: asked.pid,
                wait: wait.map(|(id, _)| *id),
            });
            let outcome = self.ask_lock(context, request, way, &mut raised).await;
            let state = match (state_of(outcome), wait) {
                // Not sent this time: but the box may have the wait.
                (Err(CallError::Interrupted), Some((id, _))) if heard.get() => {
                    return self.unwait(context, &asked, *id).await;
                }
                (state, _) => {
                    heard.set(heard.get() || !is_unsent(&state));
                    state?
                }
            };
            let (id, waiting) = match (state, wait) {
                (LockState::Granted, _) => return Ok(()),
                (LockState::Queued, Some(wait)) => wait,
                _ => return Err(CallError::Protocol),
            };
            match waiting.turn(&mut raised).await {
                Turn::Over(0) => return Ok(()),
                Turn::Over(status) => return Err(CallError::Failed(Errno(status))),
                Turn::AskAgain => {}
                Turn::Interrupted => return self.unwait(context, &asked, *id).await,
            }
        }
    }

    /// Ends a wait. It may have been granted before the box heard of this:
    /// then the lock is there, which is a success.
    async fn unwait(
        &self,
        context: &Context,
        asked: &LockCall,
        wait: WaitId,
    ) -> Result<(), CallError> {
        let request = Request::Unwait(Unwait {
            fid: asked.fid,
            range: asked.range,
            kind: asked.kind.unwrap_or(LockKind::Write),
            wait,
        });
        match state_of(self.call(context, request, None).await)? {
            LockState::Granted => Ok(()),
            LockState::Withdrawn => Err(CallError::Interrupted),
            LockState::Queued | LockState::InTheWay => Err(CallError::Protocol),
        }
    }

    /// Ends a wait that its caller has given up because the box was away: as
    /// soon as it is there again, and the lock with it if it was granted.
    async fn abandon(self, context: Context, asked: LockCall, wait: WaitId) {
        loop {
            match self.unwait(&context, &asked, wait).await {
                Err(CallError::TimedOut) => self.changed().await,
                Err(_) => return,
                Ok(()) => break,
            }
        }
        let unlock = LockCall {
            kind: None,
            wait: false,
            ..asked
        };
        // Without an answer the client is evicted or closed, and so is the lock.
        let never = std::future::pending();
        let _: Result<(), CallError> = Box::pin(self.lock(&context, unlock, never)).await;
    }

    /// A call that an interrupt ends if it has not been sent yet (C11).
    async fn ask_lock<F: Future<Output = ()>>(
        &self,
        context: &Context,
        request: Request,
        way: &Way<'_>,
        raised: &mut Raised<'_, F>,
    ) -> Outcome {
        let call = self.begin(context, request, None);
        if let Some(underway) = self.0.file_locks.borrow_mut().underway.get_mut(&way.number) {
            underway.is_sent = underway.is_sent();
            underway.call = Some(call.clone());
        }
        let mut reply = pin!(call.clone().reply());
        poll_fn(|cx| {
            if !raised.is_raised && raised.poll(cx) {
                self.interrupt(&call);
            }
            reply.as_mut().poll(cx)
        })
        .await
    }
}

/// How a call is known while it is under way.
struct Way<'a> {
    number: u64,
    wait: Option<&'a (WaitId, Rc<Waiting>)>,
    /// The box has answered, and may have a wait by now.
    heard: &'a Cell<bool>,
}

impl Underway {
    fn is_sent(&self) -> bool {
        self.is_sent || self.call.as_ref().is_some_and(Call::is_sent)
    }
}

/// A future that is asked no more once it has ended.
struct Raised<'a, F> {
    future: Pin<&'a mut F>,
    is_raised: bool,
}

impl<F: Future<Output = ()>> Raised<'_, F> {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        self.is_raised |= !self.is_raised && self.future.as_mut().poll(cx).is_ready();
        self.is_raised
    }
}

impl Waiting {
    async fn turn<F: Future<Output = ()>>(&self, raised: &mut Raised<'_, F>) -> Turn {
        loop {
            if let Some(status) = self.over.get() {
                return Turn::Over(status);
            }
            let mut changed = pin!(self.changed.wait());
            let is_interrupted = poll_fn(|cx| match raised.poll(cx) {
                true => Poll::Ready(true),
                false if self.ask_again.get() => Poll::Ready(false),
                false => changed.as_mut().poll(cx).map(|()| false),
            });
            if is_interrupted.await {
                return Turn::Interrupted;
            }
            if self.over.get().is_none() && self.ask_again.replace(false) {
                return Turn::AskAgain;
            }
        }
    }
}

impl Book {
    /// A lock was granted, given up, or refused.
    fn note(&mut self, owner: LockOwner, asked: &LockCall, is_done: bool) {
        match asked.kind {
            Some(kind) if is_done => {
                let (range, pid) = (asked.range, asked.pid);
                let lock = HeldLock { range, kind, pid };
                let open = asked.open;
                self.held.note(asked.fid, LockAsked { owner, open, lock });
            }
            None if is_done => {
                // What has no room here stays, and is claimed in vain at most.
                let _ = self.held.unlock(asked.fid, owner, asked.range);
            }
            // A flock that was refused has cost the one before it.
            _ if owner.kind == OwnerKind::Flock => {
                self.held.release(asked.fid, owner);
            }
            _ => {}
        }
    }

    /// What a box that restarted is to be asked for: not for what calls under
    /// way give up, nor for more than they leave. A flock is given up before it
    /// becomes another.
    fn claimable(&mut self, client: ClientId) -> Vec<OwnedLocks> {
        for underway in self.underway.values_mut().filter(|u| u.is_sent()) {
            let (owner, asked) = (underway.owner, underway.asked);
            match asked.kind {
                Some(kind) if owner.kind == OwnerKind::Flock => {
                    if self.held.kind_of(asked.fid, owner) != Some(kind) {
                        self.held.release(asked.fid, owner);
                    }
                }
                Some(LockKind::Write) => {}
                Some(LockKind::Read) => {
                    underway.has_cost |= self.held.weaken(asked.fid, owner, asked.range);
                }
                // What has no room here stays, and is claimed in vain at most.
                None => drop(self.held.unlock(asked.fid, owner, asked.range)),
            }
        }
        self.held.held_by(client)
    }

    pub fn on_notice(&mut self, notice: &Notice) {
        let Notice::Locked(Locked { wait, status }) = notice else {
            return;
        };
        // Unknown: withdrawn meanwhile, or told twice.
        if let Some(waiting) = self.waits.get(wait) {
            waiting.over.set(Some(*status));
            waiting.changed.notify();
        }
    }

    /// There is a connection again: notices may have been missed.
    pub fn on_connected(&mut self) {
        for waiting in self.waits.values() {
            waiting.ask_again.set(true);
            waiting.changed.notify();
        }
    }

    /// The box has none of what the client had.
    pub fn on_evicted(&mut self, client: ClientId) -> usize {
        let held = self.held.held_by(client);
        let count = held.len();
        held.into_iter().for_each(|own| self.lose(own));
        count
    }

    fn lose(&mut self, own: OwnedLocks) {
        self.held.release(own.fid, own.owner);
        self.lost.insert((own.fid, own.owner), own.opens);
    }
}

/// The requests that give a restarted box back what it had granted. They go out
/// before ReplayDone; what is refused is lost, and told to its owner.
pub(super) fn claims<W: World>(import: &Rc<Import<W>>) -> Vec<Frame> {
    let agreed = import.agreed.borrow().as_ref().map(|a| a.features);
    if !agreed.is_some_and(|features| features.has(Features::FILE_LOCKS)) {
        evicted(import);
        return Vec::new();
    }
    let held = import.file_locks.borrow_mut().claimable(import.id);
    let each = held.into_iter().map(|own| {
        let request = Request::Relock(Relock {
            fid: own.fid,
            owner: own.owner.id,
            owner_kind: own.owner.kind,
            opens: own.opens.clone(),
            locks: own.locks.clone(),
        });
        let (call, frame) = import.ledger.borrow_mut().control(request);
        let import = Rc::clone(import);
        let world = import.world.clone();
        world.spawn(async move {
            // Without an answer the connection broke: they are claimed again.
            if let Err(CallError::Failed(errno)) = call.reply().await {
                let line = format!("file locks on {} are lost in the restart: {errno}", own.fid);
                import.world.log(Level::Error, &line);
                import.file_locks.borrow_mut().lose(own);
            }
        });
        frame
    });
    each.collect()
}

/// The box threw the client out, or has no file locks any more.
pub(super) fn evicted<W: World>(import: &Import<W>) {
    let lost = import.file_locks.borrow_mut().on_evicted(import.id);
    if lost > 0 {
        let line = format!("evicted by the box: the file locks of {lost} owners are lost");
        import.world.log(Level::Error, &line);
    }
}

fn is_unsent(state: &Result<LockState, CallError>) -> bool {
    matches!(
        state,
        Err(CallError::Interrupted | CallError::TimedOut | CallError::Closed)
    )
}

fn state_of(outcome: Outcome) -> Result<LockState, CallError> {
    match outcome?.0 {
        Reply::Lock(answer) => Ok(answer.state),
        _ => Err(CallError::Protocol),
    }
}
