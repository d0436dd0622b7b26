//! Signals, sent to the testing thread alone: others have not blocked them.

use super::{options, reactor};
use crate::reactor::signals::Signals;
use crate::reactor::{Local, run};
use crate::world::World;
use rustix::process::Signal;
use std::thread;
use std::time::Duration;

fn raise(signal: Signal) {
    // SAFETY: no memory is involved; the signal is blocked in this thread.
    assert_eq!(unsafe { libc::raise(signal.as_raw()) }, 0);
}

#[test]
fn control_waits_for_a_signal() {
    thread::spawn(|| {
        let signals = Signals::block(&[Signal::TERM, Signal::HUP]).expect("blocked");
        raise(Signal::TERM);
        raise(Signal::HUP);
        let mut both = [0, 0].map(|_| signals.wait().expect("a signal"));
        both.sort_by_key(|signal| signal.as_raw());
        assert_eq!(both, [Signal::HUP, Signal::TERM]);
    })
    .join()
    .expect("no panic");
}

#[test]
fn a_task_waits_for_a_signal() {
    thread::spawn(|| {
        let signals = Signals::block(&[Signal::INT]).expect("blocked");
        let main = |world: Local| async move {
            let signals = signals.on(&world);
            world.spawn({
                let world = world.clone();
                async move {
                    world.sleep(Duration::from_millis(1)).await;
                    raise(Signal::INT);
                }
            });
            assert_eq!(signals.next().await, Ok(Signal::INT));
        };
        run(options(), main).expect("a ring");
        reactor(|_| async {});
    })
    .join()
    .expect("no panic");
}
