//! One file: its bytes, its attributes, and what is said of it in the list.

use super::plan::Item;
use super::tree::{Tree, own, stamp};
use crate::base::codec::{Bytes, Codec};
use crate::base::{Fid, FileKind};
use crate::cache::{Extent, ExtentMap};
use crate::control::fsck::dump::{entries_of_extents, link, owes};
use crate::control::fsck::kind::Kind;
use crate::control::fsck::names::{Names, entry_key, shown};
use crate::control::fsck::owed::{time, word};
use crate::control::fsck::pieces;
use crate::control::fsck::report::Report;
use crate::control::fsck::shard::{View, hex};
use crate::namespace::{key, xattr};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What became of a file.
pub struct Written {
    pub json: Value,
    /// Bytes of data that were written.
    pub bytes: u64,
    /// All of it that clients saw is there.
    pub is_whole: bool,
}

/// Ranges of a file, by what became of their bytes.
#[derive(Default)]
struct Ranges {
    dirty: Vec<Range<u64>>,
    /// Only the origin has them.
    missing: Vec<Range<u64>>,
    /// They were here, and are not what was written.
    damaged: Vec<Range<u64>>,
    written: u64,
}

/// Rescues one file. What cannot be rescued of it is told, and listed.
pub fn item(
    view: &View,
    names: &Names<'_>,
    tree: &mut Tree<'_>,
    item: &Item,
    report: &Report,
) -> Written {
    let mut ranges = Ranges::default();
    let made = match item.is_written {
        true => make(view, tree, item, &mut ranges, report).map(Some),
        false => Ok(None),
    };
    let attr = &item.inode.attr;
    let mut not_set = Vec::new();
    let (place, xattrs) = match &made {
        Ok(None) => (None, xattrs(view, item.fid)),
        Ok(Some(place)) => {
            let xattrs = xattrs(view, item.fid);
            if attr.kind == FileKind::Regular {
                not_set = dress(place, item, &xattrs);
            }
            (Some(shown(place.as_os_str().as_encoded_bytes())), xattrs)
        }
        Err(e) => {
            let finding = view.finding(Kind::NotWritten, e.to_string()).fid(item.fid);
            report.tell(finding.path(names.path(item.fid)));
            (None, xattrs(view, item.fid))
        }
    };
    let pairs =
        |ranges: &[Range<u64>]| json!(ranges.iter().map(|r| (r.start, r.end)).collect::<Vec<_>>());
    let listed: Vec<Value> = xattrs
        .iter()
        .map(|(name, value)| json!({"name": shown(name), "value_hex": hex(value)}))
        .collect();
    let ways = item.ways.iter().map(|way| {
        let names: Vec<String> = way.iter().map(|n| shown(n.as_bytes())).collect();
        names.join("/")
    });
    let is_whole = place.is_some() && ranges.missing.is_empty() && ranges.damaged.is_empty();
    let json = json!({
        "paths": ways.collect::<Vec<_>>(), "fid": item.fid.to_string(),
        "target": item.fid.seq >> 32, "written_to": place, "type": word(attr.kind),
        "size": attr.size, "mode": format!("{:04o}", attr.mode), "uid": attr.uid, "gid": attr.gid,
        "rdev": attr.rdev, "nlink": attr.nlink, "atime": time(attr.atime),
        "mtime": time(attr.mtime), "ctime": time(attr.ctime), "link": link(&item.inode),
        "owes": owes(item.inode.flags), "whole": is_whole, "dirty": pairs(&ranges.dirty),
        "missing": pairs(&ranges.missing), "damaged": pairs(&ranges.damaged),
        "xattrs": listed, "not_set": not_set,
    });
    Written {
        json,
        bytes: ranges.written,
        is_whole,
    }
}

/// Makes the file at its first name, or among the orphans where that cannot be;
/// where it is then.
fn make(
    view: &View,
    tree: &mut Tree<'_>,
    item: &Item,
    ranges: &mut Ranges,
    report: &Report,
) -> io::Result<PathBuf> {
    let Some(way) = item.ways.first() else {
        let place = tree.orphan(item.fid)?;
        return make_at(view, tree, item, (&place, None), ranges, report);
    };
    let place = tree.path(way);
    let made = match tree.parents(way, item.inode.parent) {
        Ok(()) => make_at(view, tree, item, (&place, Some(way)), ranges, report),
        Err(e) => Err(e),
    };
    match made {
        Ok(place) => {
            for other in item.ways.get(1..).unwrap_or_default() {
                // A further name is told by the list; that it is a file, too, is a courtesy.
                let other_place = tree.path(other);
                if item.inode.attr.kind == FileKind::Regular
                    && tree.parents(other, Fid::NONE).is_ok()
                {
                    let _ = fs::hard_link(&place, other_place);
                }
            }
            Ok(place)
        }
        // Another file stands at the name, or the way is too long: the bytes
        // matter more than where they are.
        Err(e) if e.kind() != io::ErrorKind::StorageFull => {
            *ranges = Ranges::default();
            let place = tree.orphan(item.fid)?;
            make_at(view, tree, item, (&place, None), ranges, report)
        }
        Err(e) => Err(e),
    }
}

fn make_at(
    view: &View,
    tree: &mut Tree<'_>,
    item: &Item,
    (place, way): (&Path, Option<&Vec<crate::base::Name>>),
    ranges: &mut Ranges,
    report: &Report,
) -> io::Result<PathBuf> {
    match (item.inode.attr.kind, way) {
        (FileKind::Directory, Some(way)) => {
            tree.dir(way, Some(item.fid))?;
        }
        (FileKind::Directory, None) => fs::create_dir(place)?,
        (FileKind::Regular, _) => {
            let mut options = OpenOptions::new();
            let file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(place)?;
            if let Err(e) = fill(view, &file, item, ranges, report) {
                // Half of a file, under its name, would be taken for it.
                let _ = fs::remove_file(place);
                return Err(e);
            }
        }
        (FileKind::Symlink, _) => {
            let to = item.inode.link.clone().unwrap_or_default();
            tree.link(place.to_path_buf(), to.0, &item.inode);
        }
        // What they are is in the list: making them takes rights and gives no bytes.
        (FileKind::Fifo | FileKind::Socket | FileKind::Char | FileKind::Block, _) => {}
    }
    Ok(place.to_path_buf())
}

/// Writes what is here of the file's bytes.
fn fill(
    view: &View,
    file: &File,
    item: &Item,
    ranges: &mut Ranges,
    report: &Report,
) -> io::Result<()> {
    let (size, origin_size) = (item.inode.attr.size, item.inode.origin_size);
    file.set_len(size)?;
    let map = extents(view, item.fid, report);
    let mut at = 0;
    for (start, extent) in map.iter() {
        gap(ranges, at..start.min(size), origin_size);
        at = start.saturating_add(extent.len).min(size).max(at);
        if start >= size {
            break;
        }
        let shown = extent.len.min(size - start);
        if extent.is_dirty() {
            push(&mut ranges.dirty, start..start + shown);
        }
        if extent.is_hole() {
            continue;
        }
        let read = match pieces::misplaced(view, extent) {
            None => pieces::read(view, extent),
            Some(_) => pieces::Bytes {
                bytes: Vec::new(),
                bad: std::iter::once(0..extent.len).collect(),
            },
        };
        let mut from = 0;
        for bad in read.bad.iter().chain([&(shown..shown)]) {
            let good = from..bad.start.min(shown);
            if let Some(bytes) = part(&read.bytes, &good) {
                file.write_all_at(bytes, start + good.start)?;
                ranges.written += bytes.len() as u64;
            }
            from = bad.end;
            let bad = start + bad.start.min(shown)..start + bad.end.min(shown);
            if !bad.is_empty() {
                spoiled(view, item.fid, extent, bad, ranges, report);
            }
        }
    }
    gap(ranges, at..size, origin_size);
    Ok(())
}

fn part<'a>(bytes: &'a [u8], range: &Range<u64>) -> Option<&'a [u8]> {
    let start = usize::try_from(range.start).ok()?;
    let end = usize::try_from(range.end).ok()?;
    bytes.get(start..end).filter(|part| !part.is_empty())
}

/// Bad clean bytes are the origin's to give; bad dirty ones are nowhere.
fn spoiled(
    view: &View,
    fid: Fid,
    extent: &Extent,
    bad: Range<u64>,
    ranges: &mut Ranges,
    report: &Report,
) {
    let kind = match extent.is_dirty() {
        true => Kind::DirtyData,
        false => Kind::CleanData,
    };
    let what = format!("bytes {} to {} are damaged", bad.start, bad.end);
    report.tell(view.finding(kind, what).fid(fid));
    match extent.is_dirty() {
        true => push(&mut ranges.damaged, bad),
        false => push(&mut ranges.missing, bad),
    }
}

/// A range without an extent: the origin's as far as its bytes count, and a hole
/// from there on.
fn gap(ranges: &mut Ranges, range: Range<u64>, origin_size: u64) {
    let missing = range.start..range.end.min(origin_size);
    if !missing.is_empty() {
        push(&mut ranges.missing, missing);
    }
}

fn push(list: &mut Vec<Range<u64>>, range: Range<u64>) {
    match list.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => list.push(range),
    }
}

fn extents(view: &View, fid: Fid, report: &Report) -> ExtentMap {
    let mut map = ExtentMap::default();
    for (key, value) in view.index.range(entries_of_extents(fid)) {
        let Some((_, at)) = entry_key(&key) else {
            continue;
        };
        let loaded = match Extent::from_slice(&value) {
            Ok(extent) => map.load(at, extent),
            Err(e) => Err(e.why),
        };
        if let Err(why) = loaded {
            let what = format!("the extent at {at}: {why}");
            report.tell(view.finding(Kind::Record, what).fid(fid));
        }
    }
    map
}

/// Names and values of a file's extended attributes.
fn xattrs(view: &View, fid: Fid) -> Vec<(Vec<u8>, Vec<u8>)> {
    let list: Option<Vec<Bytes>> = view.index.record(&key::xattr(fid, xattr::LIST));
    let names = list.unwrap_or_default().into_iter();
    names
        .filter_map(|Bytes(name)| {
            let value = view.index.get(&key::xattr(fid, &name))?;
            Some((name, value.to_vec()))
        })
        .collect()
}

/// Gives a file its attributes, as far as we may; what could not be given.
fn dress(path: &Path, item: &Item, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
    let attr = &item.inode.attr;
    let mut not_set = Vec::new();
    for (name, value) in xattrs {
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::lsetxattr(path, name.as_slice(), value, flags).is_err() {
            not_set.push(shown(name));
        }
    }
    if !own(path, attr) {
        not_set.push("owner".to_owned());
    }
    // After the owner, whose change takes set-user-ID away.
    let mode = fs::Permissions::from_mode(attr.mode & 0o7777);
    if fs::set_permissions(path, mode).is_err() {
        not_set.push("mode".to_owned());
    }
    if !stamp(path, attr.atime, attr.mtime) {
        not_set.push("times".to_owned());
    }
    not_set
}
