//! Rot anywhere: whatever the bytes are, the check, the listing and the rescue
//! come to an end, and say what they found.

use super::bed::{Image, checked, quiet, scene, view};
use crate::control::fsck::medium::Medium;
use crate::control::fsck::{dump, evacuate};

/// Bytes of the scene that are not zero, roughly: what rot would meet.
fn used(image: &Image) -> Vec<u64> {
    let mut block = vec![0; 4096];
    let blocks = (0..image.bytes() / 4096).filter(|i| {
        image.read(i * 4096, &mut block).unwrap();
        block.iter().any(|b| *b != 0)
    });
    blocks.collect()
}

#[test]
fn nothing_rotten_stops_the_check() {
    let base = scene();
    let blocks = used(&base);
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut image = base.clone();
        for _ in 0..rng.u32(1..12) {
            let block = blocks[rng.usize(0..blocks.len())];
            // The beginnings of blocks are where the structure is.
            let near = [16, 64, 512, 4096][rng.usize(0..4)];
            let offset = rng.u64(0..near);
            image = image.rot(block * 4096 + offset);
        }
        if rng.u32(0..6) == 0 {
            let len = rng.u64(0..image.bytes());
            image = image.cut(len);
        }
        // Either way it ends; a refusal is an answer, too.
        let _ = checked(&image);
        if seed % 8 == 0 {
            let _ = dump::all(&image.shared(), &quiet());
            let dir = tempfile::tempdir().unwrap();
            let _ = evacuate::all(&image.shared(), &dir.path().join("to"), &quiet());
        }
    }
}

/// Every block that the check relies on, one after the other.
#[test]
fn no_block_in_use_rots_unseen() {
    let base = scene();
    let view = view(&base);
    let mut unseen = Vec::new();
    for (segment, role) in &view.found.roles {
        use crate::store::space::Role;
        let at = view.volume.segment_at(*segment).unwrap();
        let end = match role {
            Role::Index => {
                let tables = &view.found.manifest.tables;
                let table = tables.iter().find(|t| t.segment == *segment).unwrap();
                table.meta_at + 4096
            }
            _ => continue,
        };
        for offset in (0..end).step_by(4096) {
            let image = base.clone().rot(at + u64::from(offset) + 9);
            if checked(&image).unwrap().is_empty() {
                unseen.push((*segment, offset));
            }
        }
    }
    // A block may go on after what it holds: its second page is seen only
    // where the block is that long.
    assert!(unseen.is_empty(), "{unseen:?}");
}
