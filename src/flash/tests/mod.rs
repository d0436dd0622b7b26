//! The flash against the simulated disk.

mod crash;
mod faults;
mod index;
mod room;

use super::{Flash, Options, Tx, device};
use crate::base::{BoxId, ShardId};
use crate::sim::Sim;
use crate::sim::SimWorld;
use crate::store::{FormatOptions, StoreError, Volume};

/// Small enough that every test goes through checkpoints and compaction.
const SEGMENT: u32 = 256 << 10;
const BYTES: u64 = 24 << 20;

fn options() -> Options {
    Options {
        memtable_bytes: 24 << 10,
        journal_bytes: 1 << 20,
        cache_bytes: 64 << 10,
        queue_bytes: 1 << 20,
    }
}

async fn format(world: &SimWorld) -> Volume {
    let format = FormatOptions {
        segment_bytes: Some(SEGMENT),
        ..FormatOptions::new(BYTES, 1, BoxId(5))
    };
    device::format(world, &format)
        .await
        .expect("the disk is large enough")
}

/// Opens what is on the node's disk, as a start of the box does.
async fn open(world: &SimWorld) -> Result<Flash<SimWorld>, StoreError> {
    let mut volume = device::load(world, BYTES).await?;
    device::claim(world, &mut volume).await?;
    let (flash, _) = Flash::open_with(world.clone(), ShardId(0), &volume, options()).await?;
    Ok(flash)
}

/// A fresh flash on node "box" of `sim`.
fn fresh(sim: &Sim) -> (SimWorld, Flash<SimWorld>) {
    let world = sim.world("box");
    let flash = sim.run(async {
        format(&world).await;
        open(&world).await.expect("just formatted")
    });
    (world, flash)
}

fn put(key: &[u8], value: &[u8]) -> Tx {
    let mut tx = Tx::default();
    tx.put(key.to_vec(), value.to_vec());
    tx
}
