//! Front paths of files that are listed, and the operations on their names that
//! the origin lacks: found together, in one pass over the log.

use crate::base::{Errno, Fid, Name};
use crate::namespace::record::flag;
use crate::namespace::{Owed, OwedOp};
use crate::shard::{Shard, Target, meta, writeback};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Directories above a file. A longer chain is a loop, which only rot can make.
const DEPTH_MAX: usize = 1 << 12;

/// Files with the directories above them.
pub struct Paths {
    root: Fid,
    files: BTreeMap<Fid, Step>,
    asked: BTreeSet<Fid>,
    owed: BTreeMap<Fid, Vec<(u64, Rc<Owed>)>>,
}

struct Step {
    parent: Fid,
    /// Unknown where the origin has a name that nobody asked about.
    name: Option<Name>,
}

impl Paths {
    /// Paths of all of `fids`.
    ///
    /// # Errors
    /// Of reading the flash.
    pub async fn find<W: World>(
        shard: &Rc<Shard<W>>,
        target: &Target,
        fids: impl IntoIterator<Item = Fid>,
    ) -> Result<Paths, Errno> {
        let mut paths = Paths {
            root: target.root,
            files: BTreeMap::new(),
            asked: fids.into_iter().collect(),
            owed: BTreeMap::new(),
        };
        for fid in paths.asked.clone() {
            paths.climb(shard, fid).await?;
        }
        let mut from = Some(0);
        while let Some(at) = from {
            let (page, next) = writeback::owed_page(shard, at).await?;
            for (seq, record) in page {
                if record.target == target.id.0 {
                    paths.note(seq, &Rc::new(record));
                }
            }
            shard.world.yield_now().await;
            from = next;
        }
        Ok(paths)
    }

    async fn climb<W: World>(&mut self, shard: &Rc<Shard<W>>, fid: Fid) -> Result<(), Errno> {
        let mut at = fid;
        for _ in 0..DEPTH_MAX {
            if at == self.root || at.is_none() || self.files.contains_key(&at) {
                break;
            }
            let inode = match meta::inode(shard, at).await {
                Err(Errno::ESTALE) => break,
                inode => inode?,
            };
            let locator = &inode.locator;
            let is_named = locator.parent == inode.parent && inode.flags & flag::ORPHAN == 0;
            let step = Step {
                parent: inode.parent,
                name: locator.name.clone().filter(|_| is_named),
            };
            let parent = step.parent;
            self.files.insert(at, step);
            at = parent;
        }
        Ok(())
    }

    /// The last operation says what the name is now.
    fn note(&mut self, seq: u64, record: &Rc<Owed>) {
        match &record.op {
            OwedOp::Create(o) | OwedOp::Link(o) => self.rename(o.fid, o.parent, &o.name),
            OwedOp::Rename(o) => {
                self.rename(o.fid, o.to, &o.to_name);
                if let Some(other) = o.victim.filter(|_| o.exchange) {
                    self.rename(other, o.from, &o.from_name);
                }
            }
            OwedOp::Unlink(_) => {}
        }
        let subjects = match &record.op {
            OwedOp::Create(o) | OwedOp::Link(o) => [Some(o.fid), None],
            OwedOp::Unlink(o) => [Some(o.fid), None],
            OwedOp::Rename(o) => [Some(o.fid), o.victim],
        };
        for fid in subjects.into_iter().flatten() {
            if self.asked.contains(&fid) && writeback::moves(&record.op, fid) {
                let owed = self.owed.entry(fid).or_default();
                owed.push((seq, Rc::clone(record)));
            }
        }
    }

    fn rename(&mut self, fid: Fid, parent: Fid, name: &Name) {
        if let Some(step) = self.files.get_mut(&fid).filter(|s| s.parent == parent) {
            step.name = Some(name.clone());
        }
    }

    /// The file's path from the target's root; a name that is not known is shown
    /// as the FID in brackets.
    #[must_use]
    pub fn path(&self, fid: Fid) -> String {
        let mut parts = Vec::new();
        let mut at = fid;
        while at != self.root && parts.len() < DEPTH_MAX {
            let step = self.files.get(&at);
            let name = step.and_then(|step| step.name.as_ref());
            parts.push(name.map_or_else(|| format!("[{at}]"), ToString::to_string));
            match step {
                Some(step) if !step.parent.is_none() => at = step.parent,
                _ => break,
            }
        }
        parts.reverse();
        parts.join("/")
    }

    /// The directories over the file, up to the target's root.
    #[must_use]
    pub fn above(&self, fid: Fid) -> Vec<Fid> {
        let mut above = Vec::new();
        let mut at = fid;
        while let Some(step) = self.files.get(&at).filter(|_| above.len() < DEPTH_MAX) {
            if step.parent.is_none() {
                break;
            }
            above.push(step.parent);
            at = step.parent;
        }
        above
    }

    /// The owed operations that make, move or remove the file.
    #[must_use]
    pub fn owed(&self, fid: Fid) -> &[(u64, Rc<Owed>)] {
        self.owed.get(&fid).map_or(&[], Vec::as_slice)
    }
}
