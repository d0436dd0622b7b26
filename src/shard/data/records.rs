//! The data path's records in the index: extents of a file, and for each
//! segment what lies where in it (so that reclaim need not look at every file).

use super::Tx;
use crate::base::codec::Codec;
use crate::base::{Fid, Location, Slice};
use crate::cache::extent::PIECE_MAX;
use crate::cache::{Change, Extent, Piece};
use crate::flash::Appended;
use crate::namespace::key;
use crate::record;
use std::ops::Range;

record! {
    /// Under [`key::summary`]: whose extent begins there.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Placed {
        pub fid: Fid,
        pub offset: u64,
    }
}

/// Puts the change of a file's map into the transaction.
pub(super) fn stage(tx: &mut Tx, fid: Fid, change: Change) {
    for at in change.deletes {
        tx.delete(key::extent(fid, at));
    }
    for (at, extent) in change.puts {
        tx.put(key::extent(fid, at), extent.to_vec());
    }
    for Location { segment, offset } in change.unplaced {
        tx.delete(key::summary(segment, offset));
    }
    for (Location { segment, offset }, at) in change.placed {
        let placed = Placed { fid, offset: at };
        tx.put(key::summary(segment, offset), placed.to_vec());
    }
    tx.freed.extend(change.freed);
}

/// All extent records of a file.
pub(super) fn extents_of(fid: Fid) -> Range<Vec<u8>> {
    key::extent(fid, 0)..key::extent(fid, u64::MAX)
}

/// The offset in a key of [`extents_of`].
pub(super) fn offset_of(key: &[u8]) -> Option<u64> {
    let (_, offset) = key.split_last_chunk::<8>()?;
    Some(u64::from_be_bytes(*offset))
}

/// All summary records of a segment. An extent never begins at its last byte.
pub(super) fn summaries_of(segment: u32) -> Range<Vec<u8>> {
    key::summary(segment, 0)..key::summary(segment, u32::MAX)
}

pub(super) fn piece_of(appended: Appended) -> Piece {
    Piece {
        at: appended.at,
        len: appended.len,
        crcs: appended.crcs,
    }
}

pub(super) fn appended_of(piece: &Piece) -> Appended {
    Appended {
        at: piece.at,
        len: piece.len,
        crcs: piece.crcs.clone(),
    }
}

/// `bytes` cut into pieces of at most [`PIECE_MAX`].
pub(super) fn pieces(bytes: &Slice) -> impl Iterator<Item = Slice> + '_ {
    let step = PIECE_MAX as usize;
    let cut = move |at| bytes.part(at..bytes.len().min(at + step));
    (0..bytes.len()).step_by(step).map(cut)
}

/// A stored extent of a file.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<(u64, Extent)> {
    Some((offset_of(key)?, Extent::from_slice(value).ok()?))
}
