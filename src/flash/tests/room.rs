//! Room: what is let go comes back, and a full flash can always be emptied.

use super::{SEGMENT, Tx, fresh, put};
use crate::base::{Errno, Slice};
use crate::flash::{Appended, Flash, Need};
use crate::sim::{Sim, SimWorld};
use crate::store::space::Role;
use std::collections::VecDeque;

async fn keep(flash: &Flash<SimWorld>, len: usize, need: Need) -> Result<Vec<Appended>, Errno> {
    let pieces = flash.append(&Slice::from(vec![5; len]), need)?;
    let tx = Tx {
        data: pieces.clone(),
        ..Tx::default()
    };
    match flash.apply(tx) {
        Ok(lsn) => flash.commit(lsn).await?,
        Err(errno) => {
            flash.discard(&pieces);
            return Err(errno);
        }
    }
    Ok(pieces)
}

async fn let_go(flash: &Flash<SimWorld>, pieces: Vec<Appended>) -> Result<(), Errno> {
    let tx = Tx {
        freed: pieces.iter().map(|p| (p.at, p.len)).collect(),
        ..Tx::default()
    };
    let lsn = flash.apply(tx)?;
    flash.commit(lsn).await
}

#[test]
fn many_times_the_capacity_passes_through() {
    for need in [Need::Dirty, Need::Clean] {
        let sim = Sim::new(6);
        let (_world, flash) = fresh(&sim);
        sim.run(async {
            let mut alive = VecDeque::new();
            for i in 0..1500usize {
                // Small ones ride in the journal, whose segments become data.
                let len = if i.is_multiple_of(3) { 90_000 } else { 20_000 };
                alive.push_back(keep(&flash, len, need).await.expect("old ones were let go"));
                if alive.len() > 60 {
                    let_go(&flash, alive.pop_front().expect("is there"))
                        .await
                        .expect("room");
                }
            }
            for piece in alive.iter().flatten() {
                let bytes = flash.read(piece, 0..piece.len).await.expect("alive");
                assert!(bytes.iter().all(|&b| b == 5));
            }
        });
    }
}

#[test]
fn a_full_flash_refuses_clean_bytes_first_and_can_be_emptied() {
    let sim = Sim::new(7);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        let mut alive = Vec::new();
        let full = loop {
            match keep(&flash, 60_000, Need::Clean).await {
                Ok(pieces) => alive.push(pieces),
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, Errno::ENOSPC);
        let clean = alive.len();
        while let Ok(pieces) = keep(&flash, 60_000, Need::Dirty).await {
            alive.push(pieces);
        }
        assert!(alive.len() > clean, "dirty bytes may go further");
        assert_eq!(flash.usage().free_bytes, 0);
        // Records go on in the reserve: unlink and truncate must not wait for room.
        for i in 0..200u32 {
            let lsn = flash
                .apply(put(&i.to_be_bytes(), &[1; 500]))
                .expect("reserve");
            flash.commit(lsn).await.expect("sound");
        }
        for pieces in alive {
            let_go(&flash, pieces)
                .await
                .expect("letting go needs no room");
        }
        flash.checkpoint().await.expect("reserve");
        keep(&flash, 60_000, Need::Clean).await.expect("room again");
        assert!(flash.usage().free_bytes > flash.usage().total_bytes / 3);
    });
}

#[test]
fn what_was_promised_fits_on_a_full_flash_l4() {
    let sim = Sim::new(7);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        let (large, small) = (60_000, 100);
        let rounds = 8;
        flash.promise(rounds * (large as u64 + small as u64).next_multiple_of(4096) + 8192);
        while keep(&flash, large, Need::Dirty).await.is_ok() {}
        while keep(&flash, small, Need::Dirty).await.is_ok() {}
        let (free, _) = flash.room();
        assert!(free > 0, "nobody else may have it");
        for _ in 0..rounds {
            let promised = keep(&flash, large, Need::Promised).await;
            promised.expect("it was promised");
            let promised = keep(&flash, small, Need::Promised).await;
            promised.expect("it was promised");
        }
        flash.promise(0);
        let mut more = 0;
        while keep(&flash, large, Need::Dirty).await.is_ok() {
            more += 1;
        }
        assert!(more > 0, "what was not used is everybody's again");
    });
}

#[test]
fn appended_bytes_without_a_record_can_be_given_up() {
    let sim = Sim::new(8);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        for _ in 0..600 {
            let pieces = flash
                .append(&Slice::from(vec![5; 100_000]), Need::Dirty)
                .expect("room");
            flash.discard(&pieces);
            flash.throttle().await;
            let lsn = flash.apply(put(b"k", b"v")).expect("room");
            flash.commit(lsn).await.expect("sound");
        }
    });
}

#[test]
fn room_comes_without_further_traffic() {
    let sim = Sim::new(9);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        let mut alive = Vec::new();
        while let Ok(pieces) = keep(&flash, 200_000, Need::Dirty).await {
            alive.push(pieces);
        }
        let tx = Tx {
            freed: alive.iter().flatten().map(|p| (p.at, p.len)).collect(),
            ..Tx::default()
        };
        let lsn = flash.apply(tx).expect("reserve");
        flash.commit(lsn).await.expect("sound");
        while flash
            .append(&Slice::from(vec![1; 200_000]), Need::Dirty)
            .is_err()
        {
            sim.sleep(std::time::Duration::from_millis(1)).await;
        }
    });
}

/// F4's other half: recovery verifies the data of records above the last mark,
/// so a segment that such a record filled must not be written over, even if a
/// later record of the same group let it go.
#[test]
fn bytes_let_go_stay_until_a_durable_mark_covers_it() {
    let sim = Sim::new(10);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        let whole = Slice::from(vec![1; SEGMENT as usize - 4096]);
        let pieces = flash.append(&whole, Need::Dirty).expect("room");
        let segment = pieces[0].at.segment;
        let freed = pieces.iter().map(|p| (p.at, p.len)).collect();
        let fill = Tx {
            data: pieces,
            ..put(b"filled", b"yes")
        };
        flash.apply(fill).expect("room");
        let empty = Tx {
            freed,
            ..Tx::default()
        };
        let lsn = flash.apply(empty).expect("room");
        flash.commit(lsn).await.expect("sound");
        let role = || flash.0.space.borrow().role(segment);
        assert_eq!(
            role(),
            Some(Role::Sealed),
            "durable, but no durable mark says so"
        );
        sim.sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(role(), Some(Role::Free), "an empty record carried the mark");
    });
}
