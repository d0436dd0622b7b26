//! One owed record, carried to the origin. Every case may be a repetition: the
//! box may have died after the origin did it and before that was noted (O3).

use super::engine::Engine;
use super::{Shard, locate, origin, settle};
use crate::base::{Attr, Errno, Fid, FileKind, Identity, Name};
use crate::namespace::record::{OwedName, OwedRename, OwedUnlink, flag};
use crate::namespace::{Inode, OwedOp, key};
use crate::origin::{Found, OriginOp, OriginReply, Place};
use crate::world::World;
use crate::world::sync::Promise;
use std::rc::Rc;

/// What an applied record changed at the origin.
#[derive(Default)]
pub struct Applied {
    /// Directories to sync; NONE is the one of orphans.
    pub dirs: Vec<Fid>,
    /// A file that is now there.
    pub born: Option<Found>,
    /// The file that lost its last name was moved to the orphans (O4).
    pub kept: Option<Identity>,
}

pub async fn record<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    seq: u64,
    op: &OwedOp,
) -> Result<Applied, Errno> {
    match op {
        OwedOp::Create(o) => {
            // An attempt of before, whose end nobody knows or an error hides.
            let tried = seq < engine.recovered_below || engine.has_failed(seq);
            create(shard, engine, o, tried).await
        }
        OwedOp::Link(o) => link(shard, engine, o).await,
        OwedOp::Unlink(o) => unlink(shard, engine, o).await,
        OwedOp::Rename(o) => rename(shard, engine, o).await,
    }
}

/// A file that was removed again before it ever reached the origin is not made
/// there: with it go its other records, which find nothing to do (O8).
async fn create<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    o: &OwedName,
    tried: bool,
) -> Result<Applied, Errno> {
    let Some(inode) = locate::inode(shard, o.fid).await? else {
        return Ok(Applied::default());
    };
    let dirs = vec![o.parent];
    if inode.locator.identity.is_some() {
        // Made late, before this record's turn.
        return Ok(Applied {
            dirs,
            ..Applied::default()
        });
    }
    let born = if inode.attr.nlink > 0 {
        Some(make(shard, engine, o.parent, &o.name, o.fid, &inode).await?)
    } else if tried {
        leftover(shard, engine, o, &inode).await?
    } else {
        return Ok(Applied::default());
    };
    Ok(Applied {
        dirs,
        born,
        kept: None,
    })
}

/// Makes the file. The origin takes over what an interrupted attempt left:
/// bytes, children and further names follow only an identity that is on flash.
async fn make<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    parent: Fid,
    name: &Name,
    fid: Fid,
    inode: &Inode,
) -> Result<Found, Errno> {
    let dir = locate::directory(shard, engine, parent).await?;
    let op = OriginOp::Create {
        dir: dir.clone(),
        name: name.clone(),
        kind: inode.attr.kind,
        attr: inode.attr.clone(),
        link: locate::link_of(inode),
    };
    let found = origin::found(shard, engine.target, op).await?;
    let found = found.ok_or(Errno::EIO)?;
    match is_known_as_another(shard, engine, &found, fid).await? {
        true => Err(Errno::EEXIST),
        false => Ok(found),
    }
}

/// The origin took over what stood there, and it is a file that the box knows.
async fn is_known_as_another<W: World>(
    shard: &Shard<W>,
    engine: &Engine,
    found: &Found,
    fid: Fid,
) -> Result<bool, Errno> {
    let key = key::identity(engine.target, &found.identity);
    let known = shard.flash.get(&key).await?;
    Ok(known.is_some_and(|bytes| bytes[..] != fid.to_bytes()))
}

/// What stands at the name, if an interrupted [`OriginOp::Create`] of ours may
/// have left it there.
async fn newborn<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    dir: Place,
    name: &Name,
    fid: Fid,
    inode: &Inode,
) -> Result<Option<Found>, Errno> {
    let at = way_to(&dir, name);
    let name = name.clone();
    let lookup = OriginOp::Lookup { dir, name };
    let Some(found) = origin::found(shard, engine.target, lookup).await? else {
        return Ok(None);
    };
    let attr = &found.attr;
    let alike = attr.kind == inode.attr.kind
        && match attr.kind {
            FileKind::Regular => attr.size == 0 && attr.nlink == 1,
            FileKind::Symlink => attr.nlink == 1 && found.link == locate::link_of(inode),
            FileKind::Char | FileKind::Block => attr.nlink == 1 && attr.rdev == inode.attr.rdev,
            FileKind::Fifo | FileKind::Socket => attr.nlink == 1,
            FileKind::Directory => true,
        };
    if !alike {
        return Ok(None);
    }
    if is_known_as_another(shard, engine, &found, fid).await? {
        return Ok(None);
    }
    if attr.kind == FileKind::Directory {
        let dir = Place {
            identity: Some(found.identity.clone()),
            path: at,
        };
        match origin::call(shard, engine.target, OriginOp::List { dir }).await {
            OriginReply::Listed(entries) if entries.is_empty() => {}
            OriginReply::Listed(_) => return Ok(None),
            OriginReply::Failed(e) => return Err(e),
            _ => return Err(Errno::EIO),
        }
    }
    Ok(Some(found))
}

/// A file now dead may have been made by an attempt that was not noted. Found,
/// it counts as born, so that its removal, later in the log, finds it.
async fn leftover<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    o: &OwedName,
    inode: &Inode,
) -> Result<Option<Found>, Errno> {
    let parent = locate::inode(shard, o.parent).await?.ok_or(Errno::ESTALE)?;
    let root = shard.target_of(o.parent)?.root;
    if o.parent != root && parent.locator.identity.is_none() {
        return Ok(None); // Nothing can be in a directory that is not there.
    }
    let dir = locate::place_of(shard, o.parent, &parent).await?;
    newborn(shard, engine, dir, &o.name, o.fid, inode).await
}

/// Makes a directory that is dead here and that the origin never had, because
/// an earlier record still needs it there. The later removal finds it.
pub async fn late_birth<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
) -> Result<Place, Errno> {
    birth_once(shard, engine, fid, false).await?;
    locate::place_now(shard, fid).await
}

/// Makes a file again that the origin has lost, under all its names there.
pub async fn rebirth<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
) -> Result<(), Errno> {
    birth_once(shard, engine, fid, true).await?;
    for (parent, name) in settle::aliases_of(shard, fid).await? {
        let dir = locate::directory(shard, engine, parent).await?;
        let op = OriginOp::Link {
            file: locate::place_now(shard, fid).await?,
            dir: dir.clone(),
            name,
        };
        origin::done(shard, engine.target, op).await?;
        origin::done(shard, engine.target, OriginOp::Fsync { file: dir }).await?;
    }
    Ok(())
}

async fn birth_once<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    again: bool,
) -> Result<(), Errno> {
    let under_way = engine.births.borrow().get(&fid).cloned();
    if let Some(birth) = under_way {
        return birth.get().await;
    }
    let birth: Promise<Result<(), Errno>> = Promise::default();
    engine.births.borrow_mut().insert(fid, birth.clone());
    let result = give_birth(shard, engine, fid, again).await;
    engine.births.borrow_mut().remove(&fid);
    birth.set(result);
    result
}

async fn give_birth<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    fid: Fid,
    again: bool,
) -> Result<(), Errno> {
    let inode = locate::inode(shard, fid).await?.ok_or(Errno::ESTALE)?;
    if inode.locator.identity.is_some() && !again {
        return Ok(());
    }
    let (parent, name) = (inode.locator.parent, inode.locator.name.clone());
    let name = name.ok_or(Errno::ESTALE)?;
    let found = make(shard, engine, parent, &name, fid, &inode).await?;
    let file = locate::directory(shard, engine, parent).await?;
    origin::done(shard, engine.target, OriginOp::Fsync { file }).await?;
    settle::birth(shard, engine, fid, &found).await?;
    shard.flash.commit(shard.applied.get()).await?;
    // Outside a batch nobody else says that it is on flash.
    engine.unsettled.borrow_mut().remove(&fid);
    engine.progressed.notify();
    Ok(())
}

async fn link<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    o: &OwedName,
) -> Result<Applied, Errno> {
    let Some(inode) = locate::inode(shard, o.fid).await? else {
        return Ok(Applied::default());
    };
    if inode.locator.identity.is_none() && inode.attr.nlink == 0 {
        return Ok(Applied::default());
    }
    let op = OriginOp::Link {
        file: locate::place_of(shard, o.fid, &inode).await?,
        dir: locate::directory(shard, engine, o.parent).await?,
        name: o.name.clone(),
    };
    origin::done(shard, engine.target, op).await?;
    Ok(Applied {
        dirs: vec![o.parent],
        ..Applied::default()
    })
}

async fn unlink<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    o: &OwedUnlink,
) -> Result<Applied, Errno> {
    let inode = locate::inode(shard, o.fid).await?;
    let identity = inode.and_then(|inode| inode.locator.identity);
    let Some(identity) = identity.or(o.identity.clone()) else {
        return Ok(Applied::default()); // It never was there.
    };
    let entry = Entry {
        dir: o.parent,
        name: &o.name,
        fid: o.fid,
        identity,
        is_dir: o.dir,
    };
    remove(shard, engine, entry, o.last).await
}

/// A name at the origin that is to go.
struct Entry<'a> {
    dir: Fid,
    name: &'a Name,
    fid: Fid,
    identity: Identity,
    is_dir: bool,
}

async fn remove<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    entry: Entry<'_>,
    last: bool,
) -> Result<Applied, Errno> {
    let dir = locate::directory(shard, engine, entry.dir).await?;
    let is_kept =
        last && !entry.is_dir && !entry.dir.is_none() && locate::is_kept(shard, entry.fid).await?;
    if is_kept && keep(shard, engine, &dir, &entry).await? {
        return Ok(Applied {
            dirs: vec![entry.dir, Fid::NONE],
            born: None,
            kept: Some(entry.identity),
        });
    }
    let op = OriginOp::Unlink {
        dir,
        name: entry.name.clone(),
        identity: entry.identity,
        is_dir: entry.is_dir,
    };
    origin::done(shard, engine.target, op).await?;
    Ok(Applied {
        dirs: vec![entry.dir],
        ..Applied::default()
    })
}

/// Moves the last name of an open file to the orphans (O4). False: the name is
/// not there any more, so that nothing is left to move.
async fn keep<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    dir: &Place,
    entry: &Entry<'_>,
) -> Result<bool, Errno> {
    for _ in 0..2 {
        let op = OriginOp::Rename {
            from: (dir.clone(), entry.name.clone()),
            to: (origin::orphans(), origin::orphan_name(entry.fid)),
            identity: entry.identity.clone(),
            victim: None,
            exchange: false,
        };
        match origin::done(shard, engine.target, op).await {
            Ok(()) => return Ok(true),
            Err(Errno::ENOENT) => make_orphans(shard, engine, entry.fid).await?,
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

/// Makes the directory of orphans where it is missing.
async fn make_orphans<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Engine,
    near: Fid,
) -> Result<(), Errno> {
    let root = shard.target_of(near)?.root;
    let inode = locate::inode(shard, root).await?.ok_or(Errno::ESTALE)?;
    let dir = locate::place_of(shard, root, &inode).await?;
    let op = OriginOp::Create {
        dir: dir.clone(),
        name: origin::orphans_name(),
        kind: FileKind::Directory,
        attr: Attr {
            mode: 0o700,
            uid: inode.attr.uid,
            gid: inode.attr.gid,
            ..inode.attr
        },
        link: None,
    };
    match origin::done(shard, engine.target, op).await {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e),
    }
    origin::done(shard, engine.target, OriginOp::Fsync { file: dir }).await?;
    settle::owe_times(shard, engine, root).await
}

async fn rename<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    o: &OwedRename,
) -> Result<Applied, Errno> {
    let subject = identity_of(shard, o.fid).await?;
    let victim = match o.victim {
        Some(fid) => identity_of(shard, fid).await?.or(o.victim_identity.clone()),
        None => None,
    };
    let dirs = vec![o.from, o.to];
    let (from, to) = ((o.from, &o.from_name), (o.to, &o.to_name));
    match (subject, victim) {
        (Some(subject), Some(victim)) => {
            let kept = keep_victim(shard, engine, o, &victim).await?;
            move_name(shard, engine, from, to, (subject, Some(victim), o.exchange)).await?;
            let kept_dir = kept.is_some().then_some(Fid::NONE);
            Ok(Applied {
                dirs: dirs.into_iter().chain(kept_dir).collect(),
                born: None,
                kept,
            })
        }
        // Of two that change places one never reached the origin.
        (Some(subject), None) => {
            move_name(shard, engine, from, to, (subject, None, false)).await?;
            Ok(Applied {
                dirs,
                ..Applied::default()
            })
        }
        (None, Some(victim)) if o.exchange => {
            move_name(shard, engine, to, from, (victim, None, false)).await?;
            Ok(Applied {
                dirs,
                ..Applied::default()
            })
        }
        // What replaces the victim is dead by now: the victim goes, that is all.
        (None, Some(victim)) => {
            let entry = Entry {
                dir: o.to,
                name: &o.to_name,
                fid: o.victim.unwrap_or(Fid::NONE),
                identity: victim,
                is_dir: o.dir,
            };
            remove(shard, engine, entry, o.victim_last).await
        }
        (None, None) => Ok(Applied::default()),
    }
}

/// The identity of a file that should be at the origin; `None` if it is dead
/// and never was.
async fn identity_of<W: World>(shard: &Rc<Shard<W>>, fid: Fid) -> Result<Option<Identity>, Errno> {
    match locate::inode(shard, fid).await? {
        Some(inode) if inode.flags & flag::UNBORN == 0 => Ok(inode.locator.identity),
        Some(inode) if inode.attr.nlink > 0 => Err(Errno::ENOENT),
        _ => Ok(None),
    }
}

/// Gives an open file that a rename replaces a name among the orphans first, so
/// that the replacement itself stays one step.
async fn keep_victim<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    o: &OwedRename,
    identity: &Identity,
) -> Result<Option<Identity>, Errno> {
    let Some(fid) = o.victim.filter(|_| o.victim_last && !o.dir && !o.exchange) else {
        return Ok(None);
    };
    if !locate::is_kept(shard, fid).await? {
        return Ok(None);
    }
    let dir = locate::directory(shard, engine, o.to).await?;
    for attempt in 0..2 {
        let op = OriginOp::Link {
            file: Place {
                identity: Some(identity.clone()),
                path: way_to(&dir, &o.to_name),
            },
            dir: origin::orphans(),
            name: origin::orphan_name(fid),
        };
        match origin::done(shard, engine.target, op).await {
            Ok(()) => return Ok(Some(identity.clone())),
            Err(Errno::ENOENT) if attempt == 0 => make_orphans(shard, engine, fid).await?,
            Err(Errno::ENOENT | Errno::ESTALE) => break,
            Err(e) => return Err(e),
        }
    }
    // Not at its name: replaced before a crash, and then it is there already.
    let (dir, name) = (origin::orphans(), origin::orphan_name(fid));
    let there = origin::found(shard, engine.target, OriginOp::Lookup { dir, name }).await?;
    Ok(there
        .map(|found| found.identity)
        .filter(|there| there == identity))
}

async fn move_name<W: World>(
    shard: &Rc<Shard<W>>,
    engine: &Rc<Engine>,
    from: (Fid, &Name),
    to: (Fid, &Name),
    (identity, victim, exchange): (Identity, Option<Identity>, bool),
) -> Result<(), Errno> {
    let op = OriginOp::Rename {
        from: (
            locate::directory(shard, engine, from.0).await?,
            from.1.clone(),
        ),
        to: (locate::directory(shard, engine, to.0).await?, to.1.clone()),
        identity,
        victim,
        exchange,
    };
    origin::done(shard, engine.target, op).await
}

fn way_to(dir: &Place, name: &Name) -> Vec<Name> {
    let mut path = dir.path.clone();
    path.push(name.clone());
    path
}
