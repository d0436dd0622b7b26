//! Wakes from elsewhere, and fairness within.

use super::{options, reactor};
use crate::reactor::oneshot;
use crate::reactor::{Local, Options, run};
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

#[test]
fn no_wake_from_another_thread_is_lost() {
    // A lost wake hangs: each round sleeps until the other thread answers.
    let (ask, asked) = mpsc::channel::<oneshot::Answer<u32>>();
    let other = thread::spawn(move || {
        for (round, answer) in (0..).zip(asked) {
            answer.send(round);
        }
    });
    reactor(|_| async move {
        for round in 0..20_000 {
            let (answer, question) = oneshot::channel();
            ask.send(answer).expect("the other thread lives");
            assert_eq!(question.await, Some(round));
        }
    });
    other.join().expect("no panic");
}

#[test]
fn an_answer_dropped_is_none() {
    reactor(|_| async {
        let (answer, question) = oneshot::channel::<u32>();
        thread::spawn(move || drop(answer));
        assert_eq!(question.await, None);
        let (answer, question) = oneshot::channel::<u32>();
        assert!(answer.is_wanted());
        drop(question);
        assert!(!answer.is_wanted());
    });
}

#[test]
fn wakers_outlive_their_task_and_their_reactor() {
    let waker = reactor(|world| async move {
        let kept = Rc::new(RefCell::new(None::<Waker>));
        let keep = Rc::clone(&kept);
        world.spawn(poll_fn(move |cx| {
            *keep.borrow_mut() = Some(cx.waker().clone());
            Poll::Ready(())
        }));
        world.yield_now().await;
        // A later task gets the same place; the old waker is not its own.
        let polls = Rc::new(Cell::new(0));
        let count = Rc::clone(&polls);
        world.spawn(poll_fn(move |_| {
            count.set(count.get() + 1);
            Poll::Pending
        }));
        world.yield_now().await;
        let waker = kept.take().expect("kept");
        waker.wake_by_ref();
        world.yield_now().await;
        assert_eq!(polls.get(), 1, "a stale waker woke another task");
        waker
    });
    waker.wake_by_ref();
    thread::spawn(move || waker.wake())
        .join()
        .expect("no panic");
}

#[test]
fn yielding_lets_each_ready_task_run() {
    reactor(|world| async move {
        let ran = Rc::new(Cell::new(0));
        for _ in 0..100 {
            let ran = Rc::clone(&ran);
            world.spawn(async move { ran.set(ran.get() + 1) });
        }
        assert_eq!(ran.get(), 0);
        world.yield_now().await;
        assert_eq!(ran.get(), 100);
    });
}

#[test]
fn tasks_that_never_pause_starve_no_timer() {
    reactor(|world| async move {
        let stop = Rc::new(Cell::new(false));
        for _ in 0..2 {
            let (world, stop) = (world.clone(), Rc::clone(&stop));
            world.clone().spawn(async move {
                while !stop.get() {
                    world.yield_now().await;
                }
            });
        }
        world.sleep(Duration::from_millis(5)).await;
        stop.set(true);
    });
}

#[test]
fn tasks_die_with_the_main_one_and_may_spawn_while_they_do() {
    struct SpawnsWhenDropped(Local, Rc<Cell<u32>>);
    impl Drop for SpawnsWhenDropped {
        fn drop(&mut self) {
            self.1.set(self.1.get() + 1);
            self.0.spawn(async {});
        }
    }
    let dropped = reactor(|world| async move {
        let dropped = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let guard = SpawnsWhenDropped(world.clone(), Rc::clone(&dropped));
            world.spawn(async move {
                std::future::pending::<()>().await;
                drop(guard);
            });
        }
        world.yield_now().await;
        dropped
    });
    assert_eq!(dropped.get(), 3);
}

#[test]
fn a_panic_leaves_the_thread_fit_for_another_reactor() {
    thread::spawn(|| {
        let fell = std::panic::catch_unwind(|| {
            run(options(), |_: Local| async {
                assert!(options().cpu.is_some())
            })
        });
        assert!(fell.is_err());
        assert_eq!(reactor(|_| async { 7 }), 7);
    })
    .join()
    .expect("the second reactor ran");
}

#[test]
fn a_reactor_runs_on_the_cpu_it_was_given() {
    thread::spawn(|| {
        let set = rustix::thread::sched_getaffinity(None).expect("an affinity");
        let cpu = (0..rustix::thread::CpuSet::MAX_CPU).rfind(|cpu| set.is_set(*cpu));
        let options = Options { cpu, ..options() };
        let main = |_: Local| async { rustix::thread::sched_getcpu() };
        assert_eq!(run(options, main).ok(), cpu);
    })
    .join()
    .expect("no panic");
}
