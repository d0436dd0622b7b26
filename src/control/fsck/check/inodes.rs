//! What all passes together say of each inode: its names, its links, its place,
//! and whether write-back would find what it owes.

use super::Check;
use crate::control::fsck::census::Node;
use crate::control::fsck::kind::Kind;
use crate::control::fsck::names::entries_of;
use crate::namespace::record::flag;

const OWED: u32 = flag::DATA_OWED | flag::ATTRS_OWED | flag::XATTRS_OWED;

impl Check<'_> {
    pub(super) fn inodes(&self) {
        for node in self.census.iter() {
            let is_root = self
                .names
                .target_of(node.fid)
                .is_some_and(|t| t.root == node.fid);
            if node.is_dir() {
                self.directory(node, is_root);
            } else {
                self.file(node);
            }
            self.owing(node);
        }
        self.loops();
    }

    fn directory(&self, node: &Node, is_root: bool) {
        let index = &self.view.index;
        let knows_entries = !index.may_lack(&entries_of(node.fid));
        if knows_entries && node.entries != node.live {
            let what = format!("says {} entries, and has {}", node.entries, node.live);
            self.about(Kind::EntryCount, node.fid, what);
        }
        // Others count what the origin has, too: at least what is known here.
        let links = 2 + node.subdirs;
        let is_exact = node.has(flag::COUNTS_LINKS | flag::UNBORN);
        let is_wrong = match is_exact {
            true => node.nlink != links,
            false => node.nlink < links,
        };
        if knows_entries && node.nlink > 0 && is_wrong {
            let what = format!(
                "has {} links, and {} subdirectories",
                node.nlink, node.subdirs
            );
            self.about(Kind::LinkCount, node.fid, what);
        }
        let expected = u32::from(!is_root && node.nlink > 0);
        let knows_name = !index.may_lack(&entries_of(node.parent));
        if knows_name && node.names != expected {
            let what = format!("has {} names, and should have {expected}", node.names);
            self.about(Kind::Parent, node.fid, what);
        }
    }

    fn file(&self, node: &Node) {
        let knows_name = !self.view.index.may_lack(&entries_of(node.parent));
        // The origin may have names of it that nobody asked for; a file that is
        // not there yet has none but ours.
        let is_wrong = match node.has(flag::UNBORN) {
            true => node.names != node.nlink && knows_name,
            false => node.names > node.nlink,
        };
        if is_wrong {
            let what = format!("has {} links, and {} names", node.nlink, node.names);
            self.about(Kind::LinkCount, node.fid, what);
        }
        if node.nlink == 0 && !node.has(flag::ORPHAN) {
            let what = "has no links, and is not marked as being without names";
            self.about(Kind::LinkCount, node.fid, what);
        }
    }

    fn owing(&self, node: &Node) {
        if node.has(OWED) && !node.is_queued {
            let what = "owes the origin something, and is not on write-back's list";
            self.about(Kind::NotQueued, node.fid, what);
        }
        if node.is_dirty && !node.has(flag::DATA_OWED) && !self.gone.contains(&node.fid) {
            let what = "has bytes that the origin lacks, and is not marked as owing them";
            self.about(Kind::NotQueued, node.fid, what);
        }
        let is_unmade = node.has(flag::UNBORN) && node.nlink > 0;
        if is_unmade && !self.created.contains(&node.fid) && !self.view.is_partial {
            let what = "is not at the origin, and no owed operation makes it there";
            self.about(Kind::NotQueued, node.fid, what);
        }
    }

    /// Directories that lead to themselves: none of them has a way to the root.
    fn loops(&self) {
        const UNSEEN: u8 = 0;
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut seen = vec![UNSEEN; self.census.len()];
        for first in 0..self.census.len() {
            let mut way = Vec::new();
            let mut at = Some(first);
            while let Some(place) = at {
                let Some(node) = self.census.node(place).filter(|n| n.is_dir()) else {
                    break;
                };
                match seen[place] {
                    UNSEEN => seen[place] = OPEN,
                    OPEN => {
                        let what = "is a directory below itself";
                        self.about(Kind::Parent, node.fid, what);
                        break;
                    }
                    _ => break,
                }
                way.push(place);
                at = self.census.place(node.parent);
            }
            for place in way {
                seen[place] = DONE;
            }
        }
    }
}
