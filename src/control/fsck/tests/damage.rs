//! Rot in each structure, turned on purpose: found, named, and no hindrance to
//! the check of all else.

use super::bed::{Image, checked, name, scene, view};
use super::{Finding, Kind, kinds};
use crate::base::limits::BLOCK;
use crate::base::{Codec, Fid, ShardId};
use crate::cache::Extent;
use crate::control::cli::Exit;
use crate::control::fsck::dump::entries_of_extents;
use crate::control::fsck::medium::load;
use crate::control::fsck::names::{Names, targets};
use crate::control::fsck::shard::View;
use crate::namespace::{Dirent, key};
use crate::store::superblock::COPY_BYTES;
use crate::store::volume::{OWNERS_AT, root_place};

/// The file of that name.
pub fn file(view: &View, called: &str) -> Fid {
    let entries = view.index.letter(key::table::DIRENT);
    let mut found = entries.filter_map(|(_, value)| Dirent::from_slice(&value).ok());
    let found = found.find(|d| d.name == name(called) && !d.fid.is_none());
    found.unwrap().fid
}

/// Where on the device the file's first byte lies.
fn data(view: &View, called: &str) -> u64 {
    let fid = file(view, called);
    let mut extents = view.index.range(entries_of_extents(fid));
    let extent = extents.find_map(|(_, value)| Extent::from_slice(&value).ok());
    let at = extent.unwrap().location().unwrap();
    view.volume.segment_at(at.segment).unwrap() + u64::from(at.offset)
}

fn only(found: &[Finding], kind: Kind) -> Finding {
    assert_eq!(kinds(found), [kind], "{found:#?}");
    found.iter().find(|f| f.kind == kind).unwrap().clone()
}

#[test]
fn a_bad_copy_of_the_superblock_is_found() {
    for copy in 0..2 {
        let at = copy * COPY_BYTES as u64;
        let found = checked(&scene().rot(at + 40)).unwrap();
        let bad = only(&found, Kind::SuperblockCopy);
        assert_eq!(bad.at, Some(at));
    }
    let both = scene().rot(40).rot(COPY_BYTES as u64 + 40);
    only(&checked(&both).unwrap(), Kind::Superblock);
}

#[test]
fn a_bad_owner_table_is_found_and_the_rest_is_checked() {
    let found = checked(&scene().rot(OWNERS_AT + 20)).unwrap();
    only(&found, Kind::Owners);
}

#[test]
fn a_bad_copy_of_a_root_is_found() {
    let newest = view(&scene()).root.sequence;
    let older = root_place(ShardId(0), newest + 1);
    let found = checked(&scene().rot(older + 30)).unwrap();
    assert_eq!(only(&found, Kind::RootCopy).at, Some(older));
    // Without the newer root, a start would go back to the older: that is told.
    let newer = root_place(ShardId(0), newest);
    let found = checked(&scene().rot(newer + 30)).unwrap();
    assert!(kinds(&found).contains(&Kind::RootCopy), "{found:#?}");
    let found = checked(&scene().rot(newer + 30).rot(older + 30)).unwrap();
    only(&found, Kind::Root);
}

#[test]
fn a_bad_manifest_is_found_and_the_older_one_is_tried() {
    let view = view(&scene());
    let segment = view.root.manifest.as_ref().unwrap().segment;
    let at = view.volume.segment_at(segment).unwrap();
    let found = checked(&scene().rot(at + 50)).unwrap();
    let bad = found.iter().find(|f| f.kind == Kind::Manifest).unwrap();
    assert_eq!(bad.segment, Some((segment, 0)));
}

#[test]
fn a_bad_block_of_a_table_is_found_and_the_others_are_read() {
    let view = view(&scene());
    let table = &view.found.manifest.tables[0];
    let at = view.volume.segment_at(table.segment).unwrap();
    let block = BLOCK as u64;
    let found = checked(&scene().rot(at + block + 100)).unwrap();
    let bad = found.iter().find(|f| f.kind == Kind::TableBlock).unwrap();
    assert_eq!(bad.segment, Some((table.segment, 4096)));
    // What is lost with it is not called missing.
    assert!(
        found.iter().all(|f| f.kind != Kind::NoSuchFile),
        "{found:#?}"
    );
    let meta = at + u64::from(table.meta_at);
    let found = checked(&scene().rot(meta + 50)).unwrap();
    let bad = found.iter().find(|f| f.kind == Kind::Table).unwrap();
    assert_eq!(bad.segment, Some((table.segment, table.meta_at)));
}

/// Tables that are whole and say what is not so.
#[test]
fn a_table_of_the_wrong_shape_is_found() {
    let view = view(&scene());
    let table = &view.found.manifest.tables[0];
    let at = view.volume.segment_at(table.segment).unwrap() + u64::from(table.meta_at);
    let mut meta = load(view.medium.as_ref(), at, table.meta_bytes as usize).unwrap();
    let end = 16 + u32::from_le_bytes(meta[12..16].try_into().unwrap()) as usize;
    // The filter comes last: without its bits it denies every key.
    let filter = table.entries as usize * 10 / 8;
    meta[end - filter..end].fill(0);
    let crc = crc32c::crc32c(&meta[12..end]);
    meta[8..12].copy_from_slice(&crc.to_le_bytes());
    let found = checked(&scene().with(at, &meta)).unwrap();
    let bad = only(&found, Kind::TableShape);
    assert!(bad.what.contains("filter"), "{}", bad.what);

    let segment = view.root.manifest.as_ref().unwrap().segment;
    let at = view.volume.segment_at(segment).unwrap();
    let mut manifest = view.found.manifest.clone();
    manifest.tables[0].entries += 1;
    let found = checked(&scene().with(at, &manifest.encode())).unwrap();
    let bad = only(&found, Kind::TableShape);
    assert!(bad.what.contains("entries"), "{}", bad.what);
}

#[test]
fn a_bad_header_of_data_is_a_note() {
    let view = view(&scene());
    let at = data(&view, "dirty") & !((1 << 20) - 1);
    let found = checked(&scene().rot(at + 20)).unwrap();
    assert!(kinds(&found).is_empty(), "{found:#?}");
    assert!(
        found.iter().any(|f| f.kind == Kind::SegmentHeader),
        "{found:#?}"
    );
}

#[test]
fn a_bad_block_of_names_takes_no_inode_with_it() {
    let view = view(&scene());
    for table in &view.found.manifest.tables {
        let at = view.volume.segment_at(table.segment).unwrap();
        for offset in (u64::from(BLOCK as u32)..u64::from(table.meta_at)).step_by(BLOCK) {
            let found = checked(&scene().rot(at + offset + 20)).unwrap();
            let kinds = kinds(&found);
            let told = [Kind::Table, Kind::TableBlock];
            assert!(
                kinds.iter().any(|k| told.contains(k)),
                "{offset}: {found:#?}"
            );
            // A lost record is no damage of what refers to it.
            let others = [
                Kind::NameWithoutInode,
                Kind::NoSuchFile,
                Kind::Owed,
                Kind::Parent,
            ];
            assert!(
                !kinds.iter().any(|k| others.contains(k)),
                "{offset}: {found:#?}"
            );
        }
    }
}

#[test]
fn a_bad_record_below_the_mark_is_loss_and_a_torn_tail_a_note() {
    let view = view(&scene());
    let groups: Vec<_> = view
        .found
        .journal
        .iter()
        .flat_map(|part| {
            part.groups
                .iter()
                .map(|(at, g)| (part.segment, *at, g.clone()))
        })
        .collect();
    let place = |segment, at: u32| view.volume.segment_at(segment).unwrap() + u64::from(at);
    let last = groups.last().unwrap().2.flushed;
    let (segment, at, _) = groups.iter().find(|(_, _, g)| g.last() <= last).unwrap();
    let found = checked(&scene().rot(place(*segment, *at) + 60)).unwrap();
    let bad = found.iter().find(|f| f.kind == Kind::Journal).unwrap();
    assert_eq!(bad.segment, Some((*segment, *at)));
    let (segment, at, _) = groups.last().unwrap();
    let found = checked(&scene().rot(place(*segment, *at) + 100)).unwrap();
    assert!(kinds(&found).is_empty(), "{found:#?}");
    let torn = found.iter().find(|f| f.kind == Kind::TornTail).unwrap();
    assert_eq!(torn.segment, Some((*segment, *at)));
}

#[test]
fn bad_bytes_are_told_by_path_and_range() {
    let view = view(&scene());
    for (called, kind) in [("clean", Kind::CleanData), ("dirty", Kind::DirtyData)] {
        let at = data(&view, called);
        let found = checked(&scene().rot(at + 5000)).unwrap();
        let bad = only(&found, kind);
        assert_eq!(bad.path, Some(format!("main/d/{called}")));
        assert_eq!(bad.at, Some(at + 4096));
        assert!(bad.what.contains("bytes 4096 to 8192"), "{}", bad.what);
    }
    let at = data(&view, "moved");
    let found = checked(&scene().rot(at + 10)).unwrap();
    assert_eq!(only(&found, Kind::DirtyData).path.unwrap(), "main/d/moved");
}

#[test]
fn a_file_that_is_cut_short_is_told_as_that() {
    let found = checked(&scene().cut(20 << 20)).unwrap();
    assert!(kinds(&found).contains(&Kind::CutShort), "{found:#?}");
    let found = checked(&scene().cut(600 << 10)).unwrap();
    assert!(kinds(&found).contains(&Kind::CutShort), "{found:#?}");
}

#[test]
fn what_is_no_cache_of_ours_is_refused() {
    let refused = |image: &Image| checked(image).unwrap_err().exit;
    assert_eq!(refused(&Image::new(Vec::new())), Exit::Refused);
    assert_eq!(refused(&Image::new(vec![0; 1 << 20])), Exit::Refused);
    assert_eq!(refused(&Image::new(vec![7; 1 << 20])), Exit::Refused);
    assert_eq!(refused(&Image::new(vec![7; 10])), Exit::Refused);
    assert_eq!(refused(&scene().rot(8)), Exit::Refused);
}

#[test]
fn paths_are_found() {
    let view = view(&scene());
    let targets = targets(&view);
    let names = Names::new(&view, &targets);
    assert_eq!(names.path(file(&view, "dirty")).unwrap(), "main/d/dirty");
    assert_eq!(names.path(targets[0].root).unwrap(), "main");
    assert_eq!(names.path(Fid::new(1 << 32 | 9, 9)), None);
}
