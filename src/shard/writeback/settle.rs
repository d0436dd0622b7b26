//! Noting on flash what the origin now has: identities, locators (O2), graves
//! dug, records struck off the log; in one transaction for several records.
//! Decided without an await; what is not in memory is loaded and it starts over.

use super::batch::Done;
use super::engine::Engine;
use super::{Shard, Tx, owe};
use crate::base::{Attr, Codec, Errno, Fid, FileKind, Identity, Locator, Name};
use crate::flash::Peek;
use crate::namespace::record::{OwedUnlink, flag};
use crate::namespace::{Inode, Observed, OwedOp, key};
use crate::origin::Found;
use crate::shard::Target;
use crate::world::{Level, World};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Why a decision stopped.
enum Stop {
    /// Not in memory: load it, then begin again.
    Load(Vec<u8>),
    Failed(Errno),
}

/// Inodes as the transaction will leave them; `None` is deleted.
struct Edits<'a, W: World> {
    shard: &'a Shard<W>,
    engine: &'a Engine,
    tx: Tx,
    inodes: BTreeMap<Fid, Option<Inode>>,
}

pub async fn settle<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    target: &Rc<Target>,
    done: &[Done],
) -> Result<(), Errno> {
    decide(shard, engine, |edits| {
        for done in done {
            edits.settle_one(target, done)?;
            edits.tx.delete(key::owed(done.seq));
        }
        Ok(())
    })
    .await
}

/// Notes the identity of a file that was made out of turn.
pub async fn birth<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    found: &Found,
) -> Result<(), Errno> {
    decide(shard, engine, |edits| edits.born(fid, None, found)).await
}

/// Further names of a file at the origin.
pub async fn aliases_of<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<Aliases, Errno> {
    match shard.flash.get(&key::aliases(fid)).await? {
        Some(bytes) => Vec::from_slice(&bytes).map_err(|_| Errno::EIO),
        None => Ok(Aliases::new()),
    }
}

/// Marks a directory whose times the box's own doings at the origin changed.
pub async fn owe_times<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    dir: Fid,
) -> Result<(), Errno> {
    decide(shard, engine, |edits| {
        if let Some(mut inode) = edits.inode(dir)? {
            inode.flags |= flag::ATTRS_OWED;
            edits.inodes.insert(dir, Some(inode));
            super::note_dirty(edits.shard, &mut edits.tx, dir);
        }
        Ok(())
    })
    .await
}

async fn decide<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    mut decision: impl FnMut(&mut Edits<'_, W>) -> Result<(), Stop>,
) -> Result<(), Errno> {
    let mut is_emptied = false;
    loop {
        let key = {
            let mut edits = Edits {
                shard,
                engine,
                tx: Tx::default(),
                inodes: BTreeMap::new(),
            };
            match decision(&mut edits) {
                Ok(()) => match edits.apply() {
                    Err(Errno::ENOSPC) if !is_emptied => None,
                    applied => return applied,
                },
                Err(Stop::Failed(e)) => return Err(e),
                Err(Stop::Load(key)) => Some(key),
            }
        };
        match key {
            Some(key) => drop(shard.flash.get(&key).await?),
            // The journal is full: what empties it needs room there as well.
            None => {
                shard.flash.checkpoint().await?;
                is_emptied = true;
            }
        }
    }
}

impl<W: World> Edits<'_, W> {
    fn apply(mut self) -> Result<(), Errno> {
        for (fid, inode) in self.inodes {
            let value = inode.map(|inode| inode.to_vec());
            self.tx.puts.push((key::inode(fid), value));
        }
        self.shard.apply(self.tx).map(|_| ())
    }

    fn inode(&mut self, fid: Fid) -> Result<Option<Inode>, Stop> {
        if let Some(inode) = self.inodes.get(&fid) {
            return Ok(inode.clone());
        }
        match self.peek(key::inode(fid))? {
            Some(bytes) => {
                let inode = Inode::from_slice(&bytes).map_err(|_| Stop::Failed(Errno::EIO))?;
                Ok(Some(inode))
            }
            None => Ok(None),
        }
    }

    fn peek(&self, key: Vec<u8>) -> Result<Option<Rc<[u8]>>, Stop> {
        match self.shard.flash.peek(&key) {
            Peek::Found(bytes) => Ok(Some(bytes)),
            Peek::Absent => Ok(None),
            Peek::NotLoaded => Err(Stop::Load(key)),
        }
    }

    fn settle_one(&mut self, target: &Target, done: &Done) -> Result<(), Stop> {
        let applied = &done.applied;
        match &done.record.op {
            OwedOp::Create(o) => {
                let at = Some((o.parent, &o.name));
                match &applied.born {
                    Some(found) => self.born(o.fid, at, found),
                    None => Ok(()),
                }
            }
            OwedOp::Link(o) => self.linked(o.fid, o.parent, &o.name),
            OwedOp::Unlink(o) if o.last => {
                self.bury(target, o.fid, o.identity.as_ref(), applied.kept.as_ref())
            }
            OwedOp::Unlink(o) => self.unnamed(o.fid, (o.parent, &o.name), None),
            OwedOp::Rename(o) => {
                let (from, to) = ((o.from, &o.from_name), (o.to, &o.to_name));
                self.unnamed(o.fid, from, Some(to))?;
                match o.victim {
                    Some(victim) if o.exchange => self.unnamed(victim, to, Some(from)),
                    Some(victim) if o.victim_last => {
                        let known = o.victim_identity.as_ref();
                        self.bury(target, victim, known, applied.kept.as_ref())
                    }
                    Some(victim) => self.unnamed(victim, to, None),
                    None => Ok(()),
                }
            }
        }
    }

    /// The file is at the origin now. Its attributes are still owed: it was made
    /// with them, but only its own fsync makes them durable.
    fn born(&mut self, fid: Fid, at: Option<(Fid, &Name)>, found: &Found) -> Result<(), Stop> {
        let Some(mut inode) = self.inode(fid)? else {
            // Graves stay until their removal is carried, so this is rot.
            let line = format!("file {fid} is at the origin but not in the index");
            self.shard.world.log(Level::Error, &line);
            return Ok(());
        };
        if let Some((parent, name)) = at {
            inode.locator.parent = parent;
            inode.locator.name = Some(name.clone());
        }
        let before = inode.locator.identity.replace(found.identity.clone());
        if let Some(before) = before.filter(|before| *before != found.identity) {
            self.tx.delete(key::identity(self.engine.target, &before));
            // Made again, empty: all of it is owed.
            inode.origin_size = 0;
            if inode.attr.kind == FileKind::Regular && inode.attr.size > 0 {
                inode.flags |= flag::DATA_OWED;
            }
            if inode.flags & flag::XATTRS != 0 {
                inode.flags |= flag::XATTRS_OWED;
            }
        }
        inode.flags &= !flag::UNBORN;
        inode.observed = observed(found);
        inode.flags |= flag::ATTRS_OWED;
        let identity = key::identity(self.engine.target, &found.identity);
        self.tx.put(identity, fid.to_vec());
        // It was passed over while it was not there.
        super::note_dirty(self.shard, &mut self.tx, fid);
        self.engine.unsettled.borrow_mut().insert(fid);
        self.inodes.insert(fid, Some(inode));
        Ok(())
    }

    /// A further name, kept for the day on which the locator's name goes.
    fn linked(&mut self, fid: Fid, parent: Fid, name: &Name) -> Result<(), Stop> {
        let Some(mut inode) = self.inode(fid)? else {
            return Ok(());
        };
        let mut aliases = self.aliases(fid, &inode)?;
        if also_named(&mut inode, &mut aliases, parent, name) {
            self.put_aliases(fid, inode, aliases);
        }
        Ok(())
    }

    /// The inode lost the name `from` at the origin, perhaps for `to`, and lives.
    /// Its locator follows to a name that it still has: the directory of one
    /// that it lost may go, and with it the way.
    fn unnamed(
        &mut self,
        fid: Fid,
        from: (Fid, &Name),
        to: Option<(Fid, &Name)>,
    ) -> Result<(), Stop> {
        let Some(mut inode) = self.inode(fid)? else {
            return Ok(());
        };
        let own = |(parent, name): (Fid, &Name)| (parent, name.clone());
        let mut next = to.map(own);
        if inode.attr.kind == FileKind::Directory {
            if let Some((parent, name)) = next {
                inode.locator.parent = parent;
                inode.locator.name = Some(name);
                self.inodes.insert(fid, Some(inode));
            }
            return Ok(());
        }
        let located = inode.locator.parent == from.0;
        let located = located && inode.locator.name.as_ref() == Some(from.1);
        let mut aliases = self.aliases(fid, &inode)?;
        aliases.retain(|alias| *alias != own(from));
        if located {
            inode.locator.name = None;
            if let Some((parent, name)) = next.take().or_else(|| aliases.pop()) {
                inode.locator.parent = parent;
                inode.locator.name = Some(name);
            }
        } else if let Some((parent, name)) = next {
            also_named(&mut inode, &mut aliases, parent, &name);
        }
        self.put_aliases(fid, inode, aliases);
        Ok(())
    }

    fn aliases(&self, fid: Fid, inode: &Inode) -> Result<Aliases, Stop> {
        if inode.flags & flag::ALIASES == 0 {
            return Ok(Aliases::new());
        }
        let bytes = self.peek(key::aliases(fid))?;
        let decoded = bytes.map(|bytes| Vec::from_slice(&bytes));
        let decoded = decoded.transpose().map_err(|_| Stop::Failed(Errno::EIO))?;
        Ok(decoded.unwrap_or_default())
    }

    fn put_aliases(&mut self, fid: Fid, mut inode: Inode, aliases: Aliases) {
        note_aliases(&mut self.tx, fid, &mut inode, &aliases);
        self.inodes.insert(fid, Some(inode));
    }

    /// The last name is gone at the origin. The inode goes, unless the file is
    /// still open: then it waits for its last close, among the orphans if it
    /// ever was at the origin.
    fn bury(
        &mut self,
        target: &Target,
        fid: Fid,
        known: Option<&Identity>,
        kept: Option<&Identity>,
    ) -> Result<(), Stop> {
        let Some(mut inode) = self.inode(fid)? else {
            return Ok(());
        };
        if inode.attr.nlink > 0 {
            return Ok(());
        }
        let identity = inode.locator.identity.clone().or(known.cloned());
        let is_open = self.peek(key::orphan(fid))?.is_some();
        if let Some(kept) = kept {
            let locator = super::origin::orphan_locator(fid, kept.clone());
            if !is_open {
                // Closed since it was moved: its removal from there is owed.
                owe(self.shard, &mut self.tx, target.id, removal(fid, &locator));
            }
            inode.locator = locator;
            inode.flags |= flag::UNNAMED;
            self.inodes.insert(fid, Some(inode));
            return Ok(());
        }
        if let Some(identity) = identity {
            self.tx.delete(key::identity(target.id, &identity));
        }
        if is_open {
            inode.flags |= flag::UNNAMED;
            inode.locator.identity = None;
            self.inodes.insert(fid, Some(inode));
        } else {
            self.tx.delete(key::dirty(fid));
            if inode.flags & flag::ALIASES != 0 {
                self.tx.delete(key::aliases(fid));
            }
            self.inodes.insert(fid, None);
        }
        Ok(())
    }
}

/// Names kept for one file, besides its locator's.
const ALIASES_MAX: usize = 64;

/// Names at the origin besides the locator's, under [`key::aliases`].
pub type Aliases = Vec<(Fid, Name)>;

/// The file has this name at the origin, too. Whether that was news.
pub fn also_named(inode: &mut Inode, aliases: &mut Aliases, parent: Fid, name: &Name) -> bool {
    if inode.locator.name.is_none() {
        inode.locator.parent = parent;
        inode.locator.name = Some(name.clone());
        return true;
    }
    let alias = (parent, name.clone());
    let is_located = inode.locator.parent == parent && inode.locator.name.as_ref() == Some(name);
    if is_located || aliases.len() >= ALIASES_MAX || aliases.contains(&alias) {
        return false;
    }
    aliases.push(alias);
    true
}

/// Puts the record of further names, which the inode's flag promises.
pub fn note_aliases(tx: &mut Tx, fid: Fid, inode: &mut Inode, aliases: &Aliases) {
    if !aliases.is_empty() {
        inode.flags |= flag::ALIASES;
        tx.put(key::aliases(fid), Codec::to_vec(aliases));
    } else if inode.flags & flag::ALIASES != 0 {
        inode.flags &= !flag::ALIASES;
        tx.delete(key::aliases(fid));
    }
}

fn removal(fid: Fid, locator: &Locator) -> OwedOp {
    OwedOp::Unlink(OwedUnlink {
        parent: Fid::NONE,
        name: super::origin::orphan_name(fid),
        fid,
        dir: false,
        last: true,
        identity: locator.identity.clone(),
    })
}

pub fn finds_by_handle(target: &Target) -> bool {
    target.limits.borrow().as_ref().is_some_and(|l| l.handles)
}

/// The attributes that creation carries.
pub fn same_attributes(a: &Attr, b: &Attr) -> bool {
    (a.mode, a.uid, a.gid, a.atime, a.mtime) == (b.mode, b.uid, b.gid, b.atime, b.mtime)
}

pub fn observed(found: &Found) -> Observed {
    Observed {
        ctime: found.attr.ctime,
        mtime: found.attr.mtime,
        size: found.attr.size,
    }
}
