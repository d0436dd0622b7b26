//! What the origin shows, made into records. Asked once for all who wait.

use super::decide::{decide, own, stage_into};
use super::{Answer, FlashView, Question, fids};
use crate::base::codec::Bytes;
use crate::base::{Codec, Errno, Fid, FileKind, Identity, Locator, Name, SnapEpoch};
use crate::flash::{Peek, Tx};
use crate::namespace::entry::{self, Known};
use crate::namespace::record::flag;
use crate::namespace::{Dirent, Draft, Inode, Need, Observed, Stop, View, key, xattr};
use crate::origin::{Found, OriginOp, OriginReply, is_hidden};
use crate::shard::writeback::Aliases;
use crate::shard::{Shard, Target, contact, writeback};
use crate::world::{Level, World};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;

/// Entries of a listing in one transaction.
const CHUNK: usize = 128;

/// Asks the origin for one name. Whether it is there: then it is in the records.
pub async fn name<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    dir: Fid,
    name: &Name,
) -> Answer {
    if dir == target.root && is_hidden(name) {
        return Ok(false);
    }
    let (s, t, n) = (Rc::clone(shard), Rc::clone(target), name.clone());
    let question = Question::Name(dir, name.clone());
    ask(
        shard,
        target,
        question,
        Box::pin(async move {
            let place = writeback::place(&s, dir).await?;
            let op = || OriginOp::Lookup {
                dir: place.clone(),
                name: n.clone(),
            };
            match call(&s, &t, op).await? {
                OriginReply::Found(found) => admit(&s, &t, dir, &[(n, *found)]).await,
                OriginReply::Absent => Ok(false),
                _ => Err(Errno::EIO),
            }
        }),
    )
    .await
}

/// Imports all names of a directory and marks it complete.
pub async fn listing<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    dir: Fid,
) -> Result<(), Errno> {
    let (s, t) = (Rc::clone(shard), Rc::clone(target));
    ask(
        shard,
        target,
        Question::Listing(dir),
        Box::pin(async move {
            let place = writeback::place(&s, dir).await?;
            let op = || OriginOp::List { dir: place.clone() };
            let reply = call(&s, &t, op).await?;
            let OriginReply::Listed(mut entries) = reply else {
                return Err(Errno::EIO);
            };
            if dir == t.root {
                entries.retain(|(name, _)| !is_hidden(name));
            }
            for chunk in entries.chunks(CHUNK) {
                admit(&s, &t, dir, chunk).await?;
                s.world.yield_now().await;
            }
            let values = inherited(&s, &t, dir).await;
            // Names that came or went here meanwhile are known here, and names
            // come and go at the origin only through this box: all are known now.
            own(&s, &t, |view| {
                let Some(mut inode) = view.inode(dir)? else {
                    return Ok(None);
                };
                inode.flags |= flag::COMPLETE;
                let mut draft = Draft::new(view);
                if let Some(values) = &values
                    && inode.flags & flag::XATTRS_COMPLETE == 0
                {
                    xattr::import(&mut draft, dir, &mut inode, values);
                }
                draft.put(dir, inode);
                Ok(Some(draft.change))
            })
            .await?;
            Ok(true)
        }),
    )
    .await
    .map(|_| ())
}

/// The xattrs of a directory that is being listed, where they are not known: its
/// default ACL decides what new files are, and a complete directory takes new
/// files by itself. A failure leaves them to be asked for when they are needed.
async fn inherited<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    dir: Fid,
) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let inode = super::inode(shard, dir).await.ok()?;
    if !target.bounds().acls || inode.flags & flag::XATTRS_COMPLETE != 0 {
        return None;
    }
    fetch_xattrs(shard, target, dir).await.ok()
}

/// Imports all xattrs of a file.
pub async fn xattrs<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    fid: Fid,
) -> Result<(), Errno> {
    let (s, t) = (Rc::clone(shard), Rc::clone(target));
    ask(
        shard,
        target,
        Question::Xattrs(fid),
        Box::pin(async move {
            let values = fetch_xattrs(&s, &t, fid).await?;
            own(&s, &t, |view| {
                let Some(mut inode) = view.inode(fid)? else {
                    return Ok(None);
                };
                if inode.flags & flag::XATTRS_COMPLETE != 0 {
                    return Ok(None);
                }
                let mut draft = Draft::new(view);
                xattr::import(&mut draft, fid, &mut inode, &values);
                draft.put(fid, inode);
                Ok(Some(draft.change))
            })
            .await?;
            Ok(true)
        }),
    )
    .await
    .map(|_| ())
}

async fn fetch_xattrs<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    fid: Fid,
) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Errno> {
    let file = writeback::place(shard, fid).await?;
    let list = || OriginOp::XattrList { file: file.clone() };
    let list = call(shard, target, list).await;
    let names = match list {
        Ok(OriginReply::Bytes(names)) => names,
        Ok(_) => return Err(Errno::EIO),
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut values = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| xattr::is_kept(name)) {
        let op = || OriginOp::XattrGet {
            file: file.clone(),
            name: name.to_vec(),
        };
        match call(shard, target, op).await {
            Ok(OriginReply::Bytes(value)) => values.push((name.to_vec(), value)),
            Ok(OriginReply::Absent) | Err(Errno::ENODATA) => {}
            Ok(_) => return Err(Errno::EIO),
            Err(errno) => return Err(errno),
        }
    }
    Ok(values)
}

/// One call to the target's origin, once it is there; its failure as an errno.
/// Whoever may not wait so long for it leaves (`contact::unless_away`).
pub async fn call<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Target,
    op: impl Fn() -> OriginOp,
) -> Result<OriginReply, Errno> {
    loop {
        contact::present(shard, target.id).await;
        match contact::call(shard, target.id, op()).await {
            OriginReply::Failed(errno) if contact::reports_absence(shard, target.id, errno) => {}
            OriginReply::Failed(errno) => return Err(errno),
            reply => return Ok(reply),
        }
    }
}

/// Joins the same question if it is being asked, else asks it in a task of its
/// own, so that no client's leaving takes the answer from the others, and nor
/// does the patience of those that may not wait for an origin that is away.
async fn ask<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    question: Question,
    work: Pin<Box<dyn Future<Output = Answer>>>,
) -> Answer {
    let asked = shard.meta.asked.borrow().get(&question).cloned();
    if let Some(promise) = asked {
        return contact::unless_away(shard, target, promise.get()).await?;
    }
    if let Some(errno) = contact::refuses_misses(shard, target) {
        return Err(errno);
    }
    let promise = crate::world::sync::Promise::default();
    let waited = promise.clone();
    shard
        .meta
        .asked
        .borrow_mut()
        .insert(question.clone(), waited);
    let (s, p) = (Rc::clone(shard), promise.clone());
    let id = target.id;
    shard.world.spawn(async move {
        // Before the file is located: write-back goes on first thing, too.
        contact::present(&s, id).await;
        let mut answer = work.await;
        // A client that is shown a file goes on to use its FID: a crash must
        // not take it back.
        if answer == Ok(true)
            && let Err(e) = s.flash.commit(s.applied.get()).await
        {
            answer = Err(e);
        }
        s.meta.asked.borrow_mut().remove(&question);
        p.set(answer);
    });
    contact::unless_away(shard, target, promise.get()).await?
}

/// Adds what the origin shows in a directory, where nothing is known here.
/// Whether the last of `found` has a live name in the records afterwards.
async fn admit<W: World>(
    shard: &Rc<Shard<W>>,
    target: &Rc<Target>,
    dir: Fid,
    found: &[(Name, Found)],
) -> Answer {
    decide(shard, target, |view| {
        let Some(inode) = view.inode(dir)? else {
            return Ok(false);
        };
        if inode.attr.nlink == 0 {
            return Ok(false);
        }
        let mut admission = Admission {
            shard,
            target,
            draft: Draft::new(view),
            dir: (dir, inode),
            known: BTreeMap::new(),
            aliases: BTreeMap::new(),
            tx: Tx::default(),
        };
        for (name, found) in found {
            admission.add(name, found)?;
        }
        admission.apply()?;
        let Some((name, _)) = found.last() else {
            return Ok(false);
        };
        let Some(inode) = view.inode(dir)? else {
            return Ok(false);
        };
        let there = entry::known(view, dir, &inode, name)?;
        Ok(matches!(there, Known::Live(..)))
    })
    .await
}

/// A transaction that imports names of one directory.
struct Admission<'a, W: World> {
    shard: &'a Shard<W>,
    target: &'a Target,
    draft: Draft<'a, FlashView<'a, W>>,
    dir: (Fid, Inode),
    /// Identities that this transaction made known (hard links in one listing).
    known: BTreeMap<Identity, Fid>,
    /// Further names of files, as this transaction leaves them.
    aliases: BTreeMap<Fid, Aliases>,
    tx: Tx,
}

impl<W: World> Admission<'_, W> {
    fn add(&mut self, name: &Name, found: &Found) -> Result<(), Stop> {
        let (dir, dir_inode) = &mut self.dir;
        let Known::Unknown(cookie) = entry::known(&self.draft, *dir, dir_inode, name)? else {
            return Ok(());
        };
        let is_dir = found.attr.kind == FileKind::Directory;
        dir_inode.entries += 1;
        if is_dir && dir_inode.flags & flag::COUNTS_LINKS != 0 {
            dir_inode.attr.nlink = dir_inode.attr.nlink.saturating_add(1);
        }
        let dir = *dir;
        let (fid, ino) = match self.identified(&found.identity)? {
            None => self.birth(dir, name, found)?,
            Some((fid, inode)) if inode.attr.nlink > 0 && !is_dir => {
                self.also_named(fid, inode, name)?
            }
            Some((fid, _)) => {
                // Moved at the origin behind the box's back, or on its way out.
                let line = format!("{name} in {dir} is {fid}, which has its place: left out");
                self.shard.world.log(Level::Warn, &line);
                self.dir.1.entries -= 1;
                return Ok(());
            }
        };
        let dirent = Dirent {
            name: name.clone(),
            fid,
            kind: found.attr.kind,
            ino,
        };
        entry::insert(&mut self.draft, dir, cookie, dirent);
        Ok(())
    }

    /// The file that the identity is known as (O5).
    fn identified(&self, identity: &Identity) -> Result<Option<(Fid, Inode)>, Stop> {
        let fid = match self.known.get(identity) {
            Some(fid) => *fid,
            None => {
                let key = key::identity(self.target.id, identity);
                match self.shard.flash.peek(&key) {
                    Peek::Found(bytes) => {
                        Fid::from_slice(&bytes).map_err(|_| Need::Damaged(key))?
                    }
                    Peek::Absent => return Ok(None),
                    Peek::NotLoaded => return Err(Need::Record(key).into()),
                }
            }
        };
        Ok(self.draft.inode(fid)?.map(|inode| (fid, inode)))
    }

    /// A further name of a file that is known: its way to the origin may lead
    /// over it one day.
    fn also_named(&mut self, fid: Fid, mut inode: Inode, name: &Name) -> Result<(Fid, u64), Stop> {
        let ino = inode.attr.ino;
        let mut aliases = match self.aliases.get(&fid) {
            Some(aliases) => aliases.clone(),
            None if inode.flags & flag::ALIASES == 0 => Aliases::new(),
            None => {
                let key = key::aliases(fid);
                match self.shard.flash.peek(&key) {
                    Peek::Found(bytes) => {
                        Vec::from_slice(&bytes).map_err(|_| Need::Damaged(key))?
                    }
                    Peek::Absent => Aliases::new(),
                    Peek::NotLoaded => return Err(Need::Record(key).into()),
                }
            }
        };
        if writeback::also_named(&mut inode, &mut aliases, self.dir.0, name) {
            writeback::note_aliases(&mut self.tx, fid, &mut inode, &aliases);
            self.draft.put(fid, inode);
        }
        self.aliases.insert(fid, aliases);
        Ok((fid, ino))
    }

    fn birth(&mut self, dir: Fid, name: &Name, found: &Found) -> Result<(Fid, u64), Stop> {
        if found.identity.is_none() {
            return Err(Errno::EIO.into());
        }
        let (fid, _) = fids::next(self.shard, self.target)?;
        fids::used(self.shard, self.target, fid);
        let locator = Locator {
            parent: dir,
            name: Some(name.clone()),
            identity: Some(found.identity.clone()),
        };
        let inode = imported(found, locator);
        let ino = inode.attr.ino;
        self.draft.put(fid, inode);
        self.tx
            .put(key::identity(self.target.id, &found.identity), fid.to_vec());
        self.known.insert(found.identity.clone(), fid);
        Ok((fid, ino))
    }

    fn apply(mut self) -> Result<(), Stop> {
        if self.draft.change.slots.is_empty() {
            return Ok(());
        }
        let (dir, inode) = self.dir;
        self.draft.put(dir, inode);
        stage_into(self.shard, self.target, self.draft.change, &mut self.tx)?;
        self.shard.apply(self.tx)?;
        Ok(())
    }
}

/// The inode of a file that the origin shows for the first time.
pub fn imported(found: &Found, locator: Locator) -> Inode {
    let mut attr = found.attr.clone();
    attr.version = 1;
    let mut flags = 0;
    if attr.kind == FileKind::Directory && attr.nlink < 2 {
        flags |= flag::COUNTS_LINKS;
        attr.nlink = 2;
    }
    attr.nlink = attr.nlink.max(1);
    let observed = Observed {
        ctime: attr.ctime,
        mtime: attr.mtime,
        size: attr.size,
    };
    let origin_size = if attr.kind == FileKind::Regular {
        attr.size
    } else {
        0
    };
    Inode {
        attr,
        flags,
        parent: locator.parent,
        entries: 0,
        locator,
        observed,
        data_version: 0,
        snap_epoch: SnapEpoch::default(),
        layout: Bytes::default(),
        link: found.link.clone().map(Bytes),
        origin_size,
    }
}
