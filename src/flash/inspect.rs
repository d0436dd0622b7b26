//! A shard's flash as a start would find it, without a start: read by the same
//! rules, and not a byte written. For the offline check and the rescue of what a
//! dead box's flash holds.

use super::Options;
use super::device::Device;
use super::open::restore;
use crate::base::{Lsn, Transno};
use crate::store::journal::GroupHeader;
use crate::store::manifest::Manifest;
use crate::store::memtable::Memtable;
use crate::store::root::Root;
use crate::store::space::Role;
use crate::store::{StoreError, Volume};
use crate::world::World;

/// What a start would begin with.
pub struct Inspection {
    /// As of the checkpoint.
    pub manifest: Manifest,
    /// What the journal holds beyond the checkpoint.
    pub memtable: Memtable,
    /// Live bytes of each segment that has any, after replay.
    pub live: Vec<(u32, u32)>,
    /// What each segment of the shard is used for.
    pub roles: Vec<(u32, Role)>,
    pub journal: Vec<JournalSegment>,
    /// Records replayed; those among them that stood behind damage.
    pub replayed: u64,
    pub salvaged: u64,
    /// The journal ends in a group that a crash tore.
    pub is_torn: bool,
    /// The last record, and the highest transno.
    pub last: Lsn,
    pub transno: Transno,
    /// Why a start would refuse the journal.
    pub fault: Option<StoreError>,
}

/// A segment of the journal, with the groups that follow one another in it.
pub struct JournalSegment {
    pub segment: u32,
    pub sequence: u64,
    /// Offset in the segment and header of each group.
    pub groups: Vec<(u32, GroupHeader)>,
    /// Where the order of groups ends.
    pub end: u32,
}

/// Reads a shard from `root` on. Damage of the journal is a part of the answer:
/// what stands before it counts, and what is whole behind it, too.
///
/// # Errors
/// The manifest that the root names cannot be read, or is none of this shard.
pub async fn inspect<W: World>(
    world: W,
    volume: &Volume,
    root: Root,
) -> Result<Inspection, StoreError> {
    let (device, shard) = (Device::World(world.clone()), root.shard);
    let options = Options::fitting(volume.shard_bytes(shard), 0);
    let state = restore(device, world, volume.clone(), options, root).await?;
    let (mut journal, mut recovered, mut fault, mut salvaged) = (Vec::new(), None, None, 0);
    match state.walk().await {
        Ok(walk) => {
            journal.extend(walk.links.iter().map(|link| JournalSegment {
                segment: link.segment,
                sequence: link.sequence,
                groups: groups_of(&link.scan),
                end: link.scan.end,
            }));
            match state.replay(&walk).await {
                Ok(found) => recovered = Some(found),
                Err(e) => {
                    fault = Some(e);
                    salvaged = state.salvage().await;
                }
            }
        }
        Err(e) => fault = Some(e),
    }
    let mut space = state.space.borrow_mut();
    space.settle();
    let owned = volume.owned_by(shard).into_iter();
    Ok(Inspection {
        manifest: state.base.borrow().manifest.clone(),
        memtable: std::mem::take(&mut state.index.borrow_mut().active),
        live: space.live(),
        roles: owned.filter_map(|s| Some((s, space.role(s)?))).collect(),
        journal,
        replayed: recovered.as_ref().map_or(0, |r| r.replayed),
        salvaged,
        is_torn: recovered.is_some_and(|r| r.is_torn),
        last: state.applied.get(),
        transno: state.transno.get(),
        fault,
    })
}

fn groups_of(scan: &crate::store::recovery::Scan) -> Vec<(u32, GroupHeader)> {
    let groups = scan.groups.iter();
    groups.map(|g| (g.offset, g.header.clone())).collect()
}
