//! The disk's fault contract, as its documentation states it.

use forebay::base::limits::BLOCK;
use forebay::base::{Buf, Errno, Slice};
use forebay::sim::{Crash, Faults, Sim, SimWorld};
use forebay::world::World;
use std::collections::BTreeSet;

fn block(fill: u8) -> Slice {
    vec![fill; BLOCK].into()
}

async fn read(world: &SimWorld, at: u64) -> Vec<u8> {
    let (result, buf) = world.flash_read(at, Buf::alone(BLOCK)).await;
    result.unwrap();
    buf.to_vec()
}

/// Which bytes each sector of the block holds: old (1) or new (2).
fn sectors(bytes: &[u8]) -> Vec<u8> {
    let sectors = bytes.chunks(512);
    assert!(
        sectors.clone().all(|s| s.iter().all(|b| *b == s[0])),
        "sectors are whole"
    );
    sectors.map(|s| s[0]).collect()
}

#[test]
fn what_is_durable_stays_and_the_rest_may_tear() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        sim.run(async {
            world.flash_write(0, vec![block(1)], true).await.unwrap();
            world.flash_write(0, vec![block(2)], false).await.unwrap();
            assert_eq!(read(&world, 0).await, vec![2; BLOCK]);
        });
        sim.crash_as("box", Crash::Power);
        let world = sim.world("box");
        let now = sectors(&sim.run(read(&world, 0)));
        match (now.contains(&1), now.contains(&2)) {
            (false, _) => kept += 1,
            (_, false) => lost += 1,
            _ => torn += 1,
        }
        assert!(
            now.iter().all(|s| [1, 2].contains(s)),
            "never anything else"
        );
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "{kept} {lost} {torn}");
}

#[test]
fn a_process_crash_keeps_what_completed_until_power_goes() {
    let mut lost = 0;
    for seed in 0..100 {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        sim.run(async { world.flash_write(0, vec![block(2)], false).await.unwrap() });
        sim.crash_as("box", Crash::Process);
        let world = sim.world("box");
        assert_eq!(sim.run(read(&world, 0)), vec![2; BLOCK]);
        sim.crash_as("box", Crash::Power);
        let world = sim.world("box");
        lost += usize::from(sim.run(read(&world, 0)) != vec![2; BLOCK]);
    }
    assert!(lost > 20, "nobody flushed: {lost}");
}

#[test]
fn a_flush_covers_what_completed_before_it() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        sim.run(async {
            for i in 0..4 {
                world
                    .flash_write(i * 4096, vec![block(7)], false)
                    .await
                    .unwrap();
            }
            // The second write rides on the flush of the first, or on a sync.
            if seed % 2 == 0 {
                world.flash_sync().await.unwrap();
            } else {
                world
                    .flash_write(1 << 20, vec![block(8)], true)
                    .await
                    .unwrap();
            }
        });
        sim.crash_as("box", Crash::Power);
        let world = sim.world("box");
        for i in 0..4 {
            assert_eq!(
                sim.run(read(&world, i * 4096)),
                vec![7; BLOCK],
                "seed {seed}"
            );
        }
    }
}

/// Unflushed writes survive in any combination: also the later without the earlier.
#[test]
fn unflushed_writes_are_reordered() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        sim.run(async {
            for i in 0..2 {
                world
                    .flash_write(i * 4096, vec![block(1)], false)
                    .await
                    .unwrap();
            }
        });
        sim.crash_as("box", Crash::Power);
        let world = sim.world("box");
        let there = |at| sim.run(read(&world, at)) == vec![1; BLOCK];
        seen.insert((there(0), there(4096)));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// Bytes under durable ones never come back.
#[test]
fn overwritten_bytes_stay_gone() {
    for seed in 0..200 {
        let sim = Sim::new(seed);
        let world = sim.world("box");
        sim.run(async {
            world.flash_write(0, vec![block(1)], false).await.unwrap();
            world.flash_write(0, vec![block(2)], true).await.unwrap();
        });
        sim.crash_as("box", Crash::Power);
        let world = sim.world("box");
        assert_eq!(sim.run(read(&world, 0)), vec![2; BLOCK], "seed {seed}");
    }
}

#[test]
fn errors_and_rot_come_when_asked_for() {
    let faults = Faults {
        disk_read_error_one_in: 3,
        disk_write_error_one_in: 3,
        disk_rot_one_in: 3,
        ..Faults::default()
    };
    let sim = Sim::with(1, faults);
    let world = sim.world("box");
    let (mut write_errors, mut read_errors, mut rotten) = (0, 0, 0);
    sim.run(async {
        for i in 0..100u64 {
            let written = world.flash_write(i * 4096, vec![block(1)], true).await;
            write_errors += usize::from(written == Err(Errno::EIO));
            let (result, buf) = world.flash_read(i * 4096, Buf::alone(BLOCK)).await;
            read_errors += usize::from(result == Err(Errno::EIO));
            let bits: u32 = buf.iter().map(|b| (b ^ 1).count_ones()).sum();
            rotten += usize::from(written.is_ok() && result.is_ok() && bits == 1);
        }
    });
    assert!(write_errors > 10 && read_errors > 10 && rotten > 5);
}

#[test]
fn bounds_and_alignment_are_checked() {
    let sim = Sim::new(1);
    let world = sim.world("box");
    sim.disk("box").limit(8192);
    sim.run(async {
        let odd = world.flash_write(512, vec![block(1)], false).await;
        assert_eq!(odd, Err(Errno::EINVAL));
        let part = world.flash_write(0, vec![vec![1; 100].into()], false).await;
        assert_eq!(part, Err(Errno::EINVAL));
        let past = world.flash_write(8192, vec![block(1)], false).await;
        assert_eq!(past, Err(Errno::ENXIO));
        assert_eq!(read(&world, 4096).await, vec![0; BLOCK], "never written");
    });
}
