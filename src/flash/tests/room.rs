//! Room: what is let go comes back, and a full flash can always be emptied.

use super::{Tx, fresh, put};
use crate::base::{Errno, Slice};
use crate::flash::{Appended, Flash};
use crate::sim::{Sim, SimWorld};
use std::collections::VecDeque;

async fn keep(flash: &Flash<SimWorld>, len: usize, dirty: bool) -> Result<Vec<Appended>, Errno> {
    let pieces = flash.append(&Slice::from(vec![5; len]), dirty)?;
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
    for dirty in [true, false] {
        let sim = Sim::new(6);
        let (_world, flash) = fresh(&sim);
        sim.run(async {
            let mut alive = VecDeque::new();
            for i in 0..1500usize {
                // Small ones ride in the journal, whose segments become data.
                let len = if i.is_multiple_of(3) { 90_000 } else { 20_000 };
                alive.push_back(
                    keep(&flash, len, dirty)
                        .await
                        .expect("old ones were let go"),
                );
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
            match keep(&flash, 60_000, false).await {
                Ok(pieces) => alive.push(pieces),
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, Errno::ENOSPC);
        let clean = alive.len();
        while let Ok(pieces) = keep(&flash, 60_000, true).await {
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
        keep(&flash, 60_000, false).await.expect("room again");
        assert!(flash.usage().free_bytes > flash.usage().total_bytes / 3);
    });
}

#[test]
fn appended_bytes_without_a_record_can_be_given_up() {
    let sim = Sim::new(8);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        for _ in 0..600 {
            let pieces = flash
                .append(&Slice::from(vec![5; 100_000]), true)
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
        while let Ok(pieces) = keep(&flash, 200_000, true).await {
            alive.push(pieces);
        }
        let tx = Tx {
            freed: alive.iter().flatten().map(|p| (p.at, p.len)).collect(),
            ..Tx::default()
        };
        let lsn = flash.apply(tx).expect("reserve");
        flash.commit(lsn).await.expect("sound");
        while flash.append(&Slice::from(vec![1; 200_000]), true).is_err() {
            sim.sleep(std::time::Duration::from_millis(1)).await;
        }
    });
}
