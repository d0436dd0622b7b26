//! What lies below a directory at the front, for who asks about a part of the
//! tree: a file's record names the directory that holds it, and that one's the
//! next.

use super::{Shard, locate};
use crate::base::{Errno, Fid, FileKind};
use crate::namespace::{Inode, OwedOp};
use crate::world::World;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Directories remembered.
const KNOWN_MAX: usize = 1 << 16;
/// Directories above a file. A longer chain is a loop, which only rot can make.
const DEPTH_MAX: usize = 1 << 12;

pub struct Below {
    top: Fid,
    root: Fid,
    /// Directories, and whether they are the top or below it.
    known: BTreeMap<Fid, bool>,
}

impl Below {
    /// Everything below `top`, itself included; of the root, the whole target.
    ///
    /// # Errors
    /// ESTALE: no target of this shard has such a file.
    pub fn new<W: World>(shard: &Shard<W>, top: Fid) -> Result<Below, Errno> {
        Ok(Below {
            top,
            root: shard.target_of(top)?.root,
            known: BTreeMap::new(),
        })
    }

    /// Is it the top, or below it? A file with several names counts where it was
    /// made or found, or was moved to last.
    ///
    /// # Errors
    /// Of reading the flash.
    pub async fn has<W: World>(&mut self, shard: &Rc<Shard<W>>, fid: Fid) -> Result<bool, Errno> {
        let is_ours = shard.target_of(fid).is_ok_and(|t| t.root == self.root);
        if !is_ours || self.top == self.root {
            return Ok(is_ours);
        }
        match locate::inode(shard, fid).await? {
            Some(inode) => self.holds(shard, fid, &inode).await,
            None => Ok(fid == self.top),
        }
    }

    /// The same, and true of what might have another name below.
    ///
    /// # Errors
    /// Of reading the flash.
    pub async fn may_have<W: World>(
        &mut self,
        shard: &Rc<Shard<W>>,
        fid: Fid,
    ) -> Result<bool, Errno> {
        let is_ours = shard.target_of(fid).is_ok_and(|t| t.root == self.root);
        match locate::inode(shard, fid).await? {
            Some(inode) if is_ours => {
                let has_names = inode.attr.kind != FileKind::Directory && inode.attr.nlink > 1;
                Ok(has_names || self.holds(shard, fid, &inode).await?)
            }
            _ => Ok(false),
        }
    }

    /// Does the operation make, move or remove something below?
    ///
    /// # Errors
    /// Of reading the flash.
    pub async fn concerns<W: World>(
        &mut self,
        shard: &Rc<Shard<W>>,
        op: &OwedOp,
    ) -> Result<bool, Errno> {
        let touched = match op {
            OwedOp::Create(o) | OwedOp::Link(o) => [o.fid, o.parent, o.parent],
            OwedOp::Unlink(o) => [o.fid, o.parent, o.parent],
            OwedOp::Rename(o) => [o.fid, o.from, o.to],
        };
        for fid in touched {
            if !fid.is_none() && self.has(shard, fid).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn holds<W: World>(
        &mut self,
        shard: &Rc<Shard<W>>,
        fid: Fid,
        inode: &Inode,
    ) -> Result<bool, Errno> {
        let mut passed = Vec::new();
        let (mut at, mut parent) = (fid, inode.parent);
        let is_below = loop {
            if at == self.top || self.top == self.root {
                break true;
            }
            if at == self.root || at.is_none() || parent == at || passed.len() > DEPTH_MAX {
                break false;
            }
            if let Some(known) = self.known.get(&at) {
                break *known;
            }
            passed.push(at);
            at = parent;
            parent = match at.is_none() {
                true => Fid::NONE,
                false => locate::inode(shard, at)
                    .await?
                    .map_or(Fid::NONE, |i| i.parent),
            };
        };
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        // The file itself is asked about once; its directories again and again.
        self.known
            .extend(passed.into_iter().skip(1).map(|dir| (dir, is_below)));
        Ok(is_below)
    }
}
