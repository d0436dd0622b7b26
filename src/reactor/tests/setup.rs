//! What is probed at start, and what a refusal tells.

use super::{options, reactor};
use crate::base::{Pool, Slice};
use crate::reactor::{Local, Mode, Options, SetupError, run};
use crate::world::World;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::io;
use std::thread;

#[test]
fn features_are_recorded() {
    reactor(|world| async move {
        let features = world.features();
        assert_ne!(features.mode, Mode::Plain, "Linux 6.1 has better");
        assert!(!features.registered_files);
        assert!(features.to_string().contains("TASKRUN"), "{features}");
    });
}

#[test]
fn without_locked_memory_buffers_stay_unregistered() {
    let Some(limit) = getrlimit(Resource::Memlock).current else {
        // No limit to run into.
        return;
    };
    let numbered = u16::try_from(limit >> 20)
        .unwrap_or(u16::MAX)
        .saturating_add(2);
    if numbered > 1024 {
        return;
    }
    // Capabilities belong to a thread; this one gives up locking memory.
    let main = |world: Local| async move {
        assert_eq!(world.features().registered_buffers, 0);
        let buf = world.pool().take(1 << 20).freeze();
        let number = Slice::number_in(&buf, &world.0.registered);
        assert_eq!(number, None, "a number that the ring does not know");
    };
    thread::spawn(move || {
        let all = capabilities(None).expect("capabilities");
        let effective = all.effective.difference(CapabilitySet::IPC_LOCK);
        set_capabilities(None, CapabilitySets { effective, ..all }).expect("given up");
        let options = Options {
            pool: Pool::with_numbered([1; 3], numbered),
            ..options()
        };
        run(options, main).expect("a ring");
    })
    .join()
    .expect("no panic");
}

#[test]
fn refusals_name_the_remedy() {
    let text = |errno| SetupError::of(io::Error::from_raw_os_error(errno)).to_string();
    for errno in [libc::ENOSYS, libc::EPERM] {
        assert!(text(errno).contains("kernel.io_uring_disabled"));
    }
    assert!(text(libc::ENOMEM).contains("LimitMEMLOCK"));
    assert!(text(libc::EMFILE).contains("ulimit -n"));
    let missing = SetupError::TooOld { missing: "RECV" };
    assert!(missing.to_string().contains("Linux 6.1"));
}

#[test]
fn a_cpu_that_is_not_there_is_named() {
    let cpu = Some(1_000_000);
    let options = Options { cpu, ..options() };
    let fault = run(options, |_: Local| async {}).expect_err("a refusal");
    let text = fault.to_string();
    assert!(
        text.contains("1000000") && text.contains("shards"),
        "{text}"
    );
}
