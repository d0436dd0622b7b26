//! The bytes that an extent refers to, read and verified.

use super::medium::load;
use super::shard::View;
use crate::base::limits::BLOCK;
use crate::cache::Extent;
use crate::cache::extent::Content;
use crate::flash::Appended;
use crate::store::segment::HEADER_BYTES;
use crate::store::space::Role;
use std::ops::Range;

/// What was read of an extent.
pub struct Bytes {
    /// As long as the extent; zeros where they are damaged.
    pub bytes: Vec<u8>,
    /// Parts that are not what was written, counted from the extent's start.
    pub bad: Vec<Range<u64>>,
}

/// Why an extent's bytes cannot be where it says; `None` if they can.
#[must_use]
pub fn misplaced(view: &View, extent: &Extent) -> Option<String> {
    let Content::Bytes { piece, .. } = &extent.content else {
        return None;
    };
    let (segment, offset) = (piece.at.segment, piece.at.offset);
    let end = offset.checked_add(piece.len);
    let most = view.volume.superblock.segment_bytes;
    match view.role(segment) {
        None => Some(format!("segment {segment} does not belong to the shard")),
        Some(Role::Free) => Some(format!("segment {segment} counts as free")),
        Some(role @ (Role::Manifest | Role::Index)) => {
            Some(format!("segment {segment} is used for {role:?}"))
        }
        Some(_) if offset < HEADER_BYTES || end.is_none_or(|end| end > most) => Some(format!(
            "segment {segment} ends before {offset}+{}",
            piece.len
        )),
        Some(_) => None,
    }
}

/// Reads an extent of bytes, at most a segment long. Checksums cover blocks
/// counted from the start of the piece, so whole blocks are read, and one that
/// is bad makes bad what the extent shows of it.
#[must_use]
pub fn read(view: &View, extent: &Extent) -> Bytes {
    let len = usize::try_from(extent.len).unwrap_or(0);
    let mut out = Bytes {
        bytes: vec![0; len.min(view.volume.superblock.segment_bytes as usize)],
        bad: Vec::new(),
    };
    let Content::Bytes { piece, skip, .. } = &extent.content else {
        return out;
    };
    let appended = Appended {
        at: piece.at,
        len: piece.len,
        crcs: piece.crcs.clone(),
    };
    let (block, end) = (HEADER_BYTES, u64::from(*skip) + out.bytes.len() as u64);
    let end = u32::try_from(end).unwrap_or(piece.len).min(piece.len);
    for from in (skip / block * block..end).step_by(BLOCK) {
        let to = from.saturating_add(block).min(piece.len);
        let shown = from.max(*skip)..to.min(end);
        let place = (shown.start - skip) as usize..(shown.end - skip) as usize;
        match read_block(view, &appended, from..to) {
            Some(bytes) => {
                let part = (shown.start - from) as usize..(shown.end - from) as usize;
                out.bytes[place].copy_from_slice(&bytes[part]);
            }
            None => {
                let bad = place.start as u64..place.end as u64;
                match out.bad.last_mut() {
                    Some(last) if last.end == bad.start => last.end = bad.end,
                    _ => out.bad.push(bad),
                }
            }
        }
    }
    out
}

fn read_block(view: &View, piece: &Appended, range: Range<u32>) -> Option<Vec<u8>> {
    let at = view.volume.segment_at(piece.at.segment)?;
    let offset = piece.at.offset.checked_add(range.start)?;
    if offset.checked_add(range.end - range.start)? > view.volume.superblock.segment_bytes {
        return None;
    }
    let len = (range.end - range.start) as usize;
    let bytes = load(view.medium.as_ref(), at + u64::from(offset), len).ok()?;
    piece.verifies(range.start, &bytes).then_some(bytes)
}
