//! All inodes of a shard, in few bytes each, for what records say of each other.

use super::index::Index;
use crate::base::{Attr, Codec, Fid, FileKind, Reader};
use crate::namespace::{Inode, key};

/// What the checks need of an inode: about a hundred bytes.
#[derive(Clone, Debug)]
pub struct Node {
    pub fid: Fid,
    pub parent: Fid,
    pub ino: u64,
    /// As the inode says.
    pub entries: u64,
    pub nlink: u32,
    pub flags: u32,
    pub kind: FileKind,
    /// As the names say: how many it has, and for a directory what is in it.
    pub names: u32,
    pub live: u64,
    pub subdirs: u32,
    /// One of its names stands in the directory that it calls its parent.
    pub is_in_parent: bool,
    /// Write-back has it on its list.
    pub is_queued: bool,
    /// It has extents that the origin lacks.
    pub is_dirty: bool,
}

impl Node {
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
    #[must_use]
    pub fn has(&self, bits: u32) -> bool {
        self.flags & bits != 0
    }

    fn of(fid: Fid, inode: &Inode) -> Node {
        Node {
            fid,
            parent: inode.parent,
            ino: inode.attr.ino,
            entries: inode.entries,
            nlink: inode.attr.nlink,
            flags: inode.flags,
            kind: inode.attr.kind,
            names: 0,
            live: 0,
            subdirs: 0,
            is_in_parent: false,
            is_queued: false,
            is_dirty: false,
        }
    }
}

/// The inodes, in the order of their FIDs.
pub struct Census {
    nodes: Vec<Node>,
}

impl Census {
    /// Counts them; `bad` hears of each key and record that is none.
    #[must_use]
    pub fn take(index: &Index, mut bad: impl FnMut(&[u8], &str)) -> Census {
        let mut nodes = Vec::new();
        for (key, value) in index.letter(key::table::INODE) {
            let Some(fid) = super::names::fid_key(&key) else {
                bad(&key, "no FID in the key");
                continue;
            };
            match Inode::from_slice(&value) {
                Ok(inode) => nodes.push(Node::of(fid, &inode)),
                Err(e) => {
                    let has_attr = Attr::decode(&mut Reader::new(&value)).is_ok();
                    let part = if has_attr {
                        ", its attributes are good"
                    } else {
                        ""
                    };
                    bad(&key, &format!("inode {fid}: {e}{part}"));
                }
            }
        }
        Census { nodes }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    #[must_use]
    pub fn place(&self, fid: Fid) -> Option<usize> {
        self.nodes.binary_search_by_key(&fid, |n| n.fid).ok()
    }
    #[must_use]
    pub fn find(&self, fid: Fid) -> Option<&Node> {
        self.nodes.get(self.place(fid)?)
    }
    pub fn find_mut(&mut self, fid: Fid) -> Option<&mut Node> {
        let at = self.place(fid)?;
        self.nodes.get_mut(at)
    }
    #[must_use]
    pub fn node(&self, place: usize) -> Option<&Node> {
        self.nodes.get(place)
    }
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }
}
