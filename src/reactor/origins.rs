//! Origin calls, on threads of their target (O10). A shard never waits for an
//! origin but in a task: a call that hangs holds one thread of one target.
//!
//! Each pool is bounded twice: in threads, started as they are needed, and in
//! calls that wait for one. A call past that waits in its own task, in order.

use crate::base::{Errno, TargetId};
use crate::origin::{Origin, OriginOp, OriginReply};
use crate::reactor::oneshot::{self, Answer};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Poll, Waker};
use std::thread;

/// The pools of all targets; a handle for shards and control.
#[derive(Clone, Default)]
pub struct Origins {
    pools: Arc<RwLock<BTreeMap<TargetId, Arc<OriginPool>>>>,
}

impl Origins {
    /// Gives `target` an origin, called from at most `threads` threads. One
    /// that it had before ends once its calls have.
    pub fn set(&self, target: TargetId, origin: Arc<dyn Origin>, threads: usize) {
        let pool = Arc::new(OriginPool::new(target, origin, threads));
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.insert(target, pool);
    }

    pub fn remove(&self, target: TargetId) {
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        pools.remove(&target);
    }

    pub(super) fn pool(&self, target: TargetId) -> Option<Arc<OriginPool>> {
        let pools = self.pools.read().unwrap_or_else(PoisonError::into_inner);
        pools.get(&target).cloned()
    }
}

/// What a call gets that cannot be made: an error, and its buffer back.
#[must_use]
pub fn refusal(op: OriginOp, errno: Errno) -> OriginReply {
    match op {
        OriginOp::Read { buf, .. } => OriginReply::Read {
            result: Err(errno),
            buf,
        },
        _ => OriginReply::Failed(errno),
    }
}

/// One target's threads and the calls that wait for them.
pub(super) struct OriginPool {
    shared: Arc<Shared>,
    target: TargetId,
    threads_max: usize,
}

struct Shared {
    origin: Arc<dyn Origin>,
    state: Mutex<State>,
    /// A call was queued, or the pool was closed.
    queued: Condvar,
}

#[derive(Default)]
struct State {
    calls: VecDeque<Call>,
    /// Tasks that found the queue full.
    waiting: Vec<Waker>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Call {
    op: OriginOp,
    answer: Answer<OriginReply>,
}

impl OriginPool {
    fn new(target: TargetId, origin: Arc<dyn Origin>, threads: usize) -> OriginPool {
        OriginPool {
            shared: Arc::new(Shared {
                origin,
                state: Mutex::default(),
                queued: Condvar::new(),
            }),
            target,
            threads_max: threads.max(1),
        }
    }

    pub async fn call(&self, op: OriginOp) -> OriginReply {
        let (answer, question) = oneshot::channel();
        let mut call = Some(Call { op, answer });
        poll_fn(|cx| {
            if let Some(queued) = call.take() {
                call = self.enqueue(queued, cx.waker());
            }
            match call {
                None => Poll::Ready(()),
                Some(_) => Poll::Pending,
            }
        })
        .await;
        // No value: the origin's code panicked. Its thread lives on.
        let reply = question.await;
        reply.unwrap_or(OriginReply::Failed(Errno::EIO))
    }

    /// Queues the call, or gives it back when too many wait, and keeps the
    /// waker. A target that can have no thread at all refuses it.
    fn enqueue(&self, call: Call, waker: &Waker) -> Option<Call> {
        let mut state = self.shared.lock();
        if state.calls.len() >= CALLS_MAX {
            state.waiting.push(waker.clone());
            return Some(call);
        }
        if state.idle <= state.calls.len() && state.threads < self.threads_max {
            let started = self.start_thread(state.threads);
            state.threads += usize::from(started.is_ok());
            if state.threads == 0 {
                drop(state);
                let Call { op, answer } = call;
                answer.send(refusal(op, Errno::EAGAIN));
                return None;
            }
        }
        state.calls.push_back(call);
        drop(state);
        self.shared.queued.notify_one();
        None
    }

    fn start_thread(&self, number: usize) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = format!("origin {}.{number}", self.target);
        let thread = thread::Builder::new().name(name);
        thread.spawn(move || shared.serve()).map(|_| ())
    }
}

impl Drop for OriginPool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.queued.notify_all();
    }
}

impl Shared {
    /// The state stays whole whoever panics: no call is made under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread's life: calls, one after another, until the pool is closed and
    /// has no more.
    fn serve(&self) {
        while let Some(Call { op, answer }) = self.next() {
            if !answer.is_wanted() {
                continue;
            }
            let reply = catch_unwind(AssertUnwindSafe(|| self.origin.call(op)));
            if let Ok(reply) = reply {
                answer.send(reply);
            }
        }
    }

    fn next(&self) -> Option<Call> {
        let mut state = self.lock();
        loop {
            if let Some(call) = state.calls.pop_front() {
                // All of them at half: some may have given up, and waking
                // only as many as there is room could wake just those.
                let waiting = if state.calls.len() <= CALLS_MAX / 2 {
                    std::mem::take(&mut state.waiting)
                } else {
                    Vec::new()
                };
                drop(state);
                waiting.into_iter().for_each(Waker::wake);
                return Some(call);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self
                .queued
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// Calls that may wait for a thread of their target.
const CALLS_MAX: usize = 64;
