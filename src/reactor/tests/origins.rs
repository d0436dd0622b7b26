//! Origin pools: what hangs, hangs alone.

use super::{options, pattern};
use crate::base::{Buf, Errno, TargetId};
use crate::origin::{Origin, OriginCall, OriginOp, OriginReply, Place};
use crate::reactor::{Local, Options, Origins, run};
use crate::world::World;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;

/// Answers when its gate is open; a write panics.
#[derive(Default)]
struct Gated {
    open: Mutex<bool>,
    opened: Condvar,
    calls: AtomicUsize,
    at_once: AtomicUsize,
    at_once_max: AtomicUsize,
}

impl Gated {
    fn open(&self) {
        *self.open.lock().expect("whole") = true;
        self.opened.notify_all();
    }
}

impl Origin for Gated {
    fn call(&self, op: OriginOp) -> OriginReply {
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once_max.fetch_max(now, Ordering::SeqCst);
        let open = self.open.lock().expect("whole");
        drop(self.opened.wait_while(open, |open| !*open).expect("whole"));
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match op {
            OriginOp::Read { mut buf, .. } => {
                buf.fill(9);
                let result = Ok(buf.len());
                OriginReply::Read { result, buf }
            }
            OriginOp::Write { .. } => panic!("on purpose"),
            _ => OriginReply::Done,
        }
    }
}

const HUNG: TargetId = TargetId(1);
const WELL: TargetId = TargetId(2);

fn statfs(target: TargetId) -> OriginCall {
    let op = OriginOp::Statfs;
    OriginCall { target, op }
}

fn root() -> Place {
    Place {
        identity: None,
        path: Vec::new(),
    }
}

fn read(target: TargetId) -> OriginCall {
    let op = OriginOp::Read {
        file: root(),
        offset: 0,
        buf: Buf::alone(10),
    };
    OriginCall { target, op }
}

/// A reactor with a target that hangs and one that does not.
fn with_origins<F: Future<Output = ()> + 'static>(
    threads: usize,
    main: impl FnOnce(Local, Arc<Gated>) -> F,
) {
    let hung = Arc::new(Gated::default());
    let well = Arc::new(Gated::default());
    well.open();
    let origins = Origins::default();
    origins.set(HUNG, Arc::clone(&hung) as Arc<dyn Origin>, threads);
    origins.set(WELL, well, threads);
    let options = Options {
        origins,
        ..options()
    };
    run(options, |world| main(world, hung)).expect("a ring");
}

#[test]
fn a_hung_origin_delays_no_other_target() {
    with_origins(2, |world, hung| async move {
        let done = Rc::new(Cell::new(0));
        // Threads, queue and beyond.
        for _ in 0..200 {
            let (world, done) = (world.clone(), Rc::clone(&done));
            world.clone().spawn(async move {
                let reply = world.origin(statfs(HUNG)).await;
                assert!(matches!(reply, OriginReply::Done));
                done.set(done.get() + 1);
            });
        }
        world.yield_now().await;
        for _ in 0..100 {
            let reply = world.origin(statfs(WELL)).await;
            assert!(matches!(reply, OriginReply::Done));
        }
        assert_eq!(done.get(), 0);
        hung.open();
        while done.get() < 200 {
            world.sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(hung.calls.load(Ordering::SeqCst), 200);
        assert!(hung.at_once_max.load(Ordering::SeqCst) <= 2, "bounded");
    });
}

#[test]
fn calls_given_up_leave_room_for_those_that_wait() {
    with_origins(1, |world, hung| async move {
        let done = Rc::new(Cell::new(0));
        let spawn = |count: usize| {
            for _ in 0..count {
                let (world, done) = (world.clone(), Rc::clone(&done));
                world.clone().spawn(async move {
                    world.origin(statfs(HUNG)).await;
                    done.set(done.get() + 1);
                });
            }
        };
        spawn(100);
        world.yield_now().await;
        for _ in 0..200 {
            let mut call = pin!(world.origin(statfs(HUNG)));
            poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        spawn(1);
        world.yield_now().await;
        hung.open();
        while done.get() < 101 {
            world.sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(hung.calls.load(Ordering::SeqCst), 101, "none given up ran");
    });
}

#[test]
fn buffers_come_back_filled_or_refused() {
    with_origins(1, |world, _| async move {
        let OriginReply::Read { result, buf } = world.origin(read(WELL)).await else {
            panic!("a read is answered as one");
        };
        assert_eq!((result, &buf[..]), (Ok(10), &[9; 10][..]));
        let reply = world.origin(read(TargetId(77))).await;
        let OriginReply::Read { result, buf } = reply else {
            panic!("a read is refused as one");
        };
        assert_eq!((result, buf.len()), (Err(Errno::ENXIO), 10));
    });
}

#[test]
fn a_panic_in_an_origin_is_an_error_and_the_thread_goes_on() {
    with_origins(1, |world, _| async move {
        let op = OriginOp::Write {
            file: root(),
            offset: 0,
            data: pattern(1, 10),
        };
        let target = WELL;
        let reply = world.origin(OriginCall { target, op }).await;
        assert!(matches!(reply, OriginReply::Failed(Errno::EIO)));
        let reply = world.origin(statfs(WELL)).await;
        assert!(matches!(reply, OriginReply::Done));
    });
}
