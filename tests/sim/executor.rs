//! Tasks and time: virtual, deterministic, and honest about being stuck.

use forebay::sim::Sim;
use forebay::world::sync::Signal;
use forebay::world::{Level, World};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Tasks that race each other, in an order that only the seed decides.
fn race(seed: u64) -> (u64, Vec<u32>) {
    let sim = Sim::new(seed);
    let world = sim.world("box");
    let order = Rc::new(RefCell::new(Vec::new()));
    for i in 0..20 {
        let (world_, order) = (world.clone(), Rc::clone(&order));
        world.spawn(async move {
            world_.yield_now().await;
            order.borrow_mut().push(i);
            world_
                .sleep(Duration::from_micros(world_.random() % 50))
                .await;
            world_.log(Level::Info, &format!("task {i}"));
        });
    }
    sim.run(async { world.sleep(Duration::from_secs(1)).await });
    let order = order.borrow().clone();
    (sim.trace_hash(), order)
}

#[test]
fn one_seed_is_one_run() {
    let runs: Vec<_> = (0..50).map(|seed| (race(seed), race(seed))).collect();
    assert!(runs.iter().all(|(a, b)| a == b));
    let orders: std::collections::BTreeSet<_> = runs.iter().map(|(a, _)| a.1.clone()).collect();
    assert!(orders.len() > 40, "seeds must differ: {}", orders.len());
}

#[test]
fn sleeping_takes_no_time() {
    let sim = Sim::new(1);
    let world = sim.world("box");
    let before = world.now();
    sim.run(async { world.sleep(Duration::from_secs(20 * 3600)).await });
    assert!(world.now() - before >= Duration::from_secs(20 * 3600));
}

#[test]
#[should_panic(expected = "nothing can move any more")]
fn a_deadlock_is_reported() {
    let sim = Sim::new(1);
    let world = sim.world("box");
    world.spawn(async { Signal::default().wait().await });
    sim.run(async { Signal::default().wait().await });
}

#[test]
#[should_panic(expected = "the hang bound has passed")]
fn a_hang_is_reported() {
    let sim = Sim::new(1);
    sim.hang_after(Duration::from_secs(60));
    let world = sim.world("box");
    let ticking = world.clone();
    world.spawn(async move {
        loop {
            ticking.sleep(Duration::from_secs(1)).await;
        }
    });
    sim.run(async { Signal::default().wait().await });
}

#[test]
#[should_panic(expected = "tasks spin")]
fn spinning_is_reported() {
    let sim = Sim::new(1);
    let world = sim.world("box");
    sim.run(async {
        loop {
            world.yield_now().await;
        }
    });
}

/// Drops of a crashed node's tasks run; the tasks themselves do not.
#[test]
fn a_crash_ends_tasks_where_they_stand() {
    struct Note(Rc<RefCell<Vec<&'static str>>>, &'static str);
    impl Drop for Note {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }
    let sim = Sim::new(3);
    let notes = Rc::new(RefCell::new(Vec::new()));
    for name in ["a", "b"] {
        let world = sim.world(name);
        let (inside, note) = (world.clone(), Note(Rc::clone(&notes), name));
        world.spawn(async move {
            inside.sleep(Duration::from_secs(10)).await;
            note.0.borrow_mut().push("ran on");
        });
    }
    let (old, other) = (sim.world("a"), sim.world("b"));
    sim.run(async { sim.sleep(Duration::from_secs(1)).await });
    sim.crash("a");
    assert_eq!(*notes.borrow(), ["a"]);
    assert!(!old.is_alive() && other.is_alive() && sim.world("a").is_alive());
    old.spawn(async { unreachable!("a dead world runs nothing") });
    sim.run(async { other.sleep(Duration::from_secs(60)).await });
    assert_eq!(*notes.borrow(), ["a", "ran on", "b"]);
}
