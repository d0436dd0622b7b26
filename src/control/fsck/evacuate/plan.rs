//! Which files are rescued, and where they go.

use crate::base::codec::Bytes;
use crate::base::{Attr, Codec, Fid, FileKind, Locator, Name, SnapEpoch, Time};
use crate::cache::Extent;
use crate::control::fsck::dump::entries_of_extents;
use crate::control::fsck::index::Index;
use crate::control::fsck::names::{Names, TargetName, all_names, entry_key, fid_key};
use crate::control::fsck::owed::Line;
use crate::control::fsck::shard::View;
use crate::namespace::record::flag;
use crate::namespace::{Inode, Observed, OwedOp, key};
use std::collections::BTreeSet;

/// A file to be rescued.
pub struct Item {
    pub fid: Fid,
    pub inode: Inode,
    /// Its ways below the target, each a list of names; none for one without a
    /// name, or whose way is lost.
    pub ways: Vec<Vec<Name>>,
    /// It is more than attributes that the origin lacks. Of others nothing but
    /// holes might come of it, under the name of a file that the origin has.
    pub is_written: bool,
}

const OWED: u32 = flag::UNBORN | flag::DATA_OWED | flag::ATTRS_OWED | flag::XATTRS_OWED;

/// What the origin lacks of a target: files with bytes, attributes or names that
/// it is owed. Directories come before what is in them.
#[must_use]
pub fn items(view: &View, target: &TargetName, names: &Names<'_>, owed: &[Line]) -> Vec<Item> {
    let named_anew = named_anew(owed);
    let mut wanted = wanted(view);
    wanted.extend(&named_anew);
    wanted.retain(|fid| fid.seq >> 32 == u64::from(target.id.0));
    let named = all_names(&view.index, &wanted);
    let mut items = Vec::new();
    for fid in wanted {
        let Some(inode) = inode(&view.index, fid) else {
            continue;
        };
        let mut ways: Vec<Vec<Name>> = named
            .get(&fid)
            .into_iter()
            .flatten()
            .filter_map(|(parent, name)| {
                let (_, mut way) = names.way(*parent)?;
                way.push(name.clone());
                Some(way)
            })
            .collect();
        if fid == target.root {
            ways = vec![Vec::new()];
        }
        let is_written = inode.attr.kind != FileKind::Regular
            || inode.flags & (flag::UNBORN | flag::DATA_OWED) != 0
            || named_anew.contains(&fid)
            || dirty_end(&view.index, fid).is_some();
        items.push(Item {
            fid,
            inode,
            ways,
            is_written,
        });
    }
    items.sort_by_key(|item| item.ways.first().map_or(usize::MAX, Vec::len));
    items
}

/// Files that an owed operation gives a name.
fn named_anew(owed: &[Line]) -> BTreeSet<Fid> {
    let mut fids = BTreeSet::new();
    for line in owed {
        match &line.owed.op {
            OwedOp::Create(o) | OwedOp::Link(o) => fids.extend([o.fid]),
            OwedOp::Rename(o) => {
                fids.insert(o.fid);
                fids.extend(o.victim.filter(|_| o.exchange));
            }
            OwedOp::Unlink(_) => {}
        }
    }
    fids
}

/// Files that owe something by state: by write-back's list, by their flags (the
/// list may be damaged), and by their extents (the inodes may be).
fn wanted(view: &View) -> BTreeSet<Fid> {
    let index = &view.index;
    let mut fids = BTreeSet::new();
    for letter in [key::table::DIRTY, key::table::ORPHAN] {
        fids.extend(index.letter(letter).filter_map(|(key, _)| fid_key(&key)));
    }
    let inodes = index.letter(key::table::INODE);
    let owing = inodes
        .filter(|(_, value)| Inode::from_slice(value).is_ok_and(|inode| inode.flags & OWED != 0));
    fids.extend(owing.filter_map(|(key, _)| fid_key(&key)));
    if view.is_partial {
        let extents = index.letter(key::table::EXTENT);
        let dirty =
            extents.filter(|(_, value)| Extent::from_slice(value).is_ok_and(|e| e.is_dirty()));
        fids.extend(dirty.filter_map(|(key, _)| entry_key(&key).map(|(fid, _)| fid)));
    }
    fids
}

/// The inode of a file that counts: not of one that is gone, nor of one without
/// names that nobody wrote to. A file whose inode is lost, but not its bytes, is
/// given one that says the little that its extents tell.
fn inode(index: &Index, fid: Fid) -> Option<Inode> {
    if index.get(&key::gone(fid)).is_some() {
        return None;
    }
    match index.record::<Inode>(&key::inode(fid)) {
        Some(inode) if inode.attr.nlink > 0 => Some(inode),
        Some(inode) => dirty_end(index, fid).map(|_| inode),
        None => dirty_end(index, fid).map(|end| nameless(fid, end)),
    }
}

/// Where the last dirty bytes of a file end, if it has any.
fn dirty_end(index: &Index, fid: Fid) -> Option<u64> {
    let extents = index.range(entries_of_extents(fid));
    let dirty = extents.filter_map(|(key, value)| {
        let extent = Extent::from_slice(&value).ok().filter(Extent::is_dirty)?;
        Some(entry_key(&key)?.1.saturating_add(extent.len))
    });
    dirty.max()
}

/// An inode for bytes whose own is lost.
fn nameless(fid: Fid, size: u64) -> Inode {
    let time = Time::default();
    Inode {
        attr: Attr {
            kind: FileKind::Regular,
            mode: 0o600,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            ino: fid.born_ino(),
            size,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
        },
        flags: flag::DATA_OWED,
        parent: Fid::NONE,
        entries: 0,
        locator: Locator::default(),
        observed: Observed::default(),
        data_version: 0,
        snap_epoch: SnapEpoch::default(),
        layout: Bytes::default(),
        link: None,
        // What is not here may be at the origin.
        origin_size: size,
    }
}
