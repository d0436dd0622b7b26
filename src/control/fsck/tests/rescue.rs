//! What a rescue brings out of an image.

use super::Kind;
use super::bed::{DIRTY, Image, SMALL, quiet, scene, scene_with, view};
use super::damage::file;
use crate::control::cli::Exit;
use crate::control::fsck::evacuate;
use crate::control::fsck::report::Finding;
use crate::sim::model::pattern;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn rescue(image: &Image, dir: &Path) -> (Vec<Finding>, Value) {
    let report = quiet();
    evacuate::all(&image.shared(), dir, &report).unwrap();
    let list = fs::read(dir.join("forebay-evacuated.json")).unwrap();
    (
        report.findings.take(),
        serde_json::from_slice(&list).unwrap(),
    )
}

fn entry<'a>(list: &'a Value, path: &str) -> &'a Value {
    let files = list["files"].as_array().unwrap();
    let found = files.iter().find(|f| f["paths"][0] == path);
    found.unwrap_or_else(|| panic!("{path}: {list:#}"))
}

#[test]
fn what_the_origin_lacks_is_rescued() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let (found, list) = rescue(&scene(), &to);
    assert!(found.is_empty(), "{found:#?}");
    let bytes = |path: &str| fs::read(to.join("main/d").join(path)).unwrap();
    assert!(bytes("moved") == pattern(SMALL.1, SMALL.0));
    assert!(bytes("dirty") == pattern(DIRTY.1, DIRTY.0));
    let link = fs::read_link(to.join("main/d/link")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));
    // What was carried is the origin's, and stays there.
    assert!(!to.join("main/d/clean").exists());
    let dirty = entry(&list, "d/dirty");
    assert_eq!(dirty["dirty"][0][1], DIRTY.0);
    assert_eq!(dirty["missing"], serde_json::json!([]));
    let owed = fs::read_to_string(to.join("main/.forebay-owed.txt")).unwrap();
    let order = [
        "create regular main/d/small",
        "rename main/d/small to main/d/moved",
        "unlink main/d/gone",
    ];
    let at: Vec<_> = order.iter().map(|op| owed.find(op).expect(op)).collect();
    assert!(at.is_sorted(), "{owed}");
    assert_eq!(
        list["owed"].as_array().unwrap().len(),
        owed.lines().count() - 2
    );
}

#[test]
fn a_directory_that_is_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), b"x").unwrap();
    let refused = evacuate::all(&scene().shared(), dir.path(), &quiet());
    assert_eq!(refused.unwrap_err().exit, Exit::Refused);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn damaged_bytes_are_left_out_and_listed() {
    let view = view(&scene());
    let fid = file(&view, "dirty");
    let range = super::super::dump::entries_of_extents(fid);
    let (_, value) = view.index.range(range).next().unwrap();
    let extent: crate::cache::Extent = crate::base::Codec::from_slice(&value).unwrap();
    let at = extent.location().unwrap();
    let at = view.volume.segment_at(at.segment).unwrap() + u64::from(at.offset);
    let dir = tempfile::tempdir().unwrap();
    let (found, list) = rescue(&scene().rot(at + 4096), dir.path());
    assert!(
        found.iter().any(|f| f.kind == Kind::DirtyData),
        "{found:#?}"
    );
    let dirty = entry(&list, "d/dirty");
    assert_eq!(dirty["damaged"], serde_json::json!([[4096, 8192]]));
    let mut want = pattern(DIRTY.1, DIRTY.0);
    want[4096..8192].fill(0);
    assert!(fs::read(dir.path().join("main/d/dirty")).unwrap() == want);
}

/// A file whose inode cannot be read: its bytes are there, and its name.
#[test]
fn bytes_without_an_inode_are_rescued() {
    let image = scene_with(|shard| {
        let mut tx = crate::flash::Tx::default();
        let (_, dirent) = super::wrong::find(shard, "dirty");
        tx.put(crate::namespace::key::inode(dirent.fid), vec![1, 2, 3]);
        vec![tx]
    });
    let dir = tempfile::tempdir().unwrap();
    rescue(&image, dir.path());
    let rescued = fs::read(dir.path().join("main/d/dirty")).unwrap();
    assert!(rescued == pattern(DIRTY.1, DIRTY.0));
}

/// The header of the journal's one segment is bad: nothing leads to its groups.
#[test]
fn records_behind_a_bad_header_are_rescued() {
    let view = view(&scene());
    let part = view.found.journal.iter().find(|p| !p.groups.is_empty());
    let at = view.volume.segment_at(part.unwrap().segment).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (found, _) = rescue(&scene().rot(at + 20), dir.path());
    assert!(found.iter().any(|f| f.kind == Kind::Journal), "{found:#?}");
    let rescued = fs::read(dir.path().join("main/d/dirty")).unwrap();
    assert!(rescued == pattern(DIRTY.1, DIRTY.0));
}

/// A journal that no box would start with still gives what is whole in it.
#[test]
fn records_behind_damage_are_rescued() {
    let view = view(&scene());
    let part = view
        .found
        .journal
        .iter()
        .find(|p| !p.groups.is_empty())
        .unwrap();
    let at = view.volume.segment_at(part.segment).unwrap() + u64::from(part.groups[0].0);
    let dir = tempfile::tempdir().unwrap();
    let (found, _) = rescue(&scene().rot(at + 60), dir.path());
    let bad = found.iter().find(|f| f.kind == Kind::Journal).unwrap();
    assert!(!bad.what.contains(" 0 whole records"), "{}", bad.what);
    let rescued = fs::read(dir.path().join("main/d/dirty")).unwrap();
    assert!(rescued == pattern(DIRTY.1, DIRTY.0));
}
