//! rename(2) with its flags.

use super::access;
use super::create::may_add;
use super::draft::{Change, Draft, stamp};
use super::entry::{self, Slot};
use super::record::{Dirent, Inode, OwedOp, OwedRename, flag};
use super::unlink::{is_empty, may_delete};
use super::view::{Ctx, Stop, View};
use crate::base::{Errno, Fid, FileKind, Name};

pub const NOREPLACE: u32 = libc::RENAME_NOREPLACE;
pub const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

/// The two names of a rename.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    pub from: Fid,
    pub from_name: &'a Name,
    pub to: Fid,
    pub to_name: &'a Name,
    pub flags: u32,
}

/// What stands under one of the names.
struct End {
    dir: Fid,
    dir_inode: Inode,
    slot: Slot,
    /// What the name names, if anything.
    node: Option<(Fid, Inode)>,
}

impl End {
    fn is_dir(&self) -> bool {
        matches!(&self.node, Some((_, inode)) if inode.attr.kind == FileKind::Directory)
    }
}

/// Deeper trees than this are refused: the walk to the root must end even if
/// records were damaged into a loop.
const DEPTH_MAX: usize = 4096;

/// `None`: both names are links of one inode, and nothing happens.
pub fn rename(view: &impl View, ctx: Ctx<'_>, mv: &Move<'_>) -> Result<Option<Change>, Stop> {
    let known = NOREPLACE | EXCHANGE;
    if mv.flags & !known != 0 || mv.flags & known == known {
        return Err(Errno::EINVAL.into());
    }
    ctx.writable()?;
    let from = end(view, ctx, mv.from, mv.from_name)?;
    let to = end(view, ctx, mv.to, mv.to_name)?;
    let exchange = mv.flags & EXCHANGE != 0;
    let Some((source, source_inode)) = from.node.clone() else {
        return Err(Errno::ENOENT.into());
    };
    if mv.flags & NOREPLACE != 0 && to.node.is_some() {
        return Err(Errno::EEXIST.into());
    }
    if exchange && to.node.is_none() {
        return Err(Errno::ENOENT.into());
    }
    no_loops(view, &from, &to, source, exchange)?;
    if to.node.as_ref().is_some_and(|(fid, _)| *fid == source) {
        return Ok(None);
    }
    allowed(view, ctx, &from, &to, (source, &source_inode), exchange)?;
    if exchange {
        swap(view, ctx, mv, &from, &to)
    } else {
        replace(view, ctx, mv, &from, &to)
    }
    .map(Some)
}

fn end(view: &impl View, ctx: Ctx<'_>, dir: Fid, name: &Name) -> Result<End, Stop> {
    let dir_inode = entry::directory(view, dir)?;
    access::check(view, ctx.bounds, ctx.caller, dir, &dir_inode, access::EXEC)?;
    ctx.name_fits(name)?;
    let slot = entry::find(view, dir, &dir_inode, name)?;
    let node = match slot.live() {
        Some(d) => Some((d.fid, view.inode(d.fid)?.ok_or(Errno::ESTALE)?)),
        None => None,
    };
    Ok(End {
        dir,
        dir_inode,
        slot,
        node,
    })
}

/// A directory must not move below itself (EINVAL), nor over an ancestor of
/// its own (ENOTEMPTY; EINVAL when exchanging).
fn no_loops(
    view: &impl View,
    from: &End,
    to: &End,
    source: Fid,
    exchange: bool,
) -> Result<(), Stop> {
    if from.dir == to.dir {
        return Ok(());
    }
    if from.is_dir() && is_ancestor(view, source, to.dir)? {
        return Err(Errno::EINVAL.into());
    }
    if let Some((victim, _)) = &to.node
        && to.is_dir()
        && is_ancestor(view, *victim, from.dir)?
    {
        let refusal = if exchange {
            Errno::EINVAL
        } else {
            Errno::ENOTEMPTY
        };
        return Err(refusal.into());
    }
    Ok(())
}

/// Is `above` the directory `below` or one that holds it?
fn is_ancestor(view: &impl View, above: Fid, mut below: Fid) -> Result<bool, Stop> {
    for _ in 0..DEPTH_MAX {
        if below == above {
            return Ok(true);
        }
        let parent = view.inode(below)?.ok_or(Errno::ESTALE)?.parent;
        if parent.is_none() || parent == below {
            return Ok(false);
        }
        below = parent;
    }
    Err(Errno::ELOOP.into())
}

/// The refusals of `vfs_rename`, in its order.
fn allowed(
    view: &impl View,
    ctx: Ctx<'_>,
    from: &End,
    to: &End,
    (source, source_inode): (Fid, &Inode),
    exchange: bool,
) -> Result<(), Stop> {
    may_delete(view, ctx, (from.dir, &from.dir_inode), source_inode)?;
    match &to.node {
        None => may_add(view, ctx, to.dir, &to.dir_inode)?,
        Some((_, victim)) => {
            may_delete(view, ctx, (to.dir, &to.dir_inode), victim)?;
            match (from.is_dir(), to.is_dir()) {
                _ if exchange => {}
                (true, false) => return Err(Errno::ENOTDIR.into()),
                (false, true) => return Err(Errno::EISDIR.into()),
                _ => {}
            }
        }
    }
    if from.dir != to.dir {
        // A directory that changes its parent has its ".." written.
        if from.is_dir() {
            access::check(
                view,
                ctx.bounds,
                ctx.caller,
                source,
                source_inode,
                access::WRITE,
            )?;
        }
        if let (true, true, Some((victim, inode))) = (exchange, to.is_dir(), &to.node) {
            access::check(view, ctx.bounds, ctx.caller, *victim, inode, access::WRITE)?;
        }
        let full = |dir: &Inode| dir.attr.nlink >= ctx.bounds.link_max;
        let gains = from.is_dir() && !to.is_dir() && full(&to.dir_inode);
        let swaps = exchange && to.is_dir() && !from.is_dir() && full(&from.dir_inode);
        if gains || swaps {
            return Err(Errno::EMLINK.into());
        }
    }
    match &to.node {
        Some((fid, victim)) if !exchange && to.is_dir() => is_empty(*fid, victim),
        _ => Ok(()),
    }
}

fn replace(
    view: &impl View,
    ctx: Ctx<'_>,
    mv: &Move<'_>,
    from: &End,
    to: &End,
) -> Result<Change, Stop> {
    let mut draft = Draft::new(view);
    let moved = moved(&mut draft, ctx, from, to.dir)?;
    let source_is_dir = i32::from(from.is_dir());
    let mut owed = owed(mv, from, to, false);
    let (mut entries, mut subdirs) = (1, source_is_dir);
    if let Some((victim, _)) = &to.node {
        owed.victim_last = draft.drop_name(*victim, to.is_dir(), ctx.now)?;
        entries -= 1;
        subdirs -= i32::from(to.is_dir());
    }
    let arrived = Dirent {
        name: mv.to_name.clone(),
        ..moved.clone()
    };
    entry::insert(&mut draft, to.dir, to.slot.cookie(), arrived);
    let complete = from.dir_inode.flags & flag::COMPLETE != 0;
    entry::remove(&mut draft, from.dir, complete, from.slot.cookie(), moved)?;
    draft.edit_dir(to.dir, ctx.now, entries, subdirs)?;
    draft.edit_dir(from.dir, ctx.now, -1, -source_is_dir)?;
    draft.change.owed.push(OwedOp::Rename(owed));
    Ok(draft.change)
}

fn swap(
    view: &impl View,
    ctx: Ctx<'_>,
    mv: &Move<'_>,
    from: &End,
    to: &End,
) -> Result<Change, Stop> {
    let mut draft = Draft::new(view);
    let there = moved(&mut draft, ctx, from, to.dir)?;
    let here = moved(&mut draft, ctx, to, from.dir)?;
    let renamed = |d: Dirent, name: &Name| Dirent {
        name: name.clone(),
        ..d
    };
    let (to_slot, from_slot) = (to.slot.cookie(), from.slot.cookie());
    draft.put_slot(to.dir, to_slot, Some(renamed(there, mv.to_name)));
    draft.put_slot(from.dir, from_slot, Some(renamed(here, mv.from_name)));
    let gained = i32::from(from.is_dir()) - i32::from(to.is_dir());
    draft.edit_dir(to.dir, ctx.now, 0, gained)?;
    draft.edit_dir(from.dir, ctx.now, 0, -gained)?;
    draft
        .change
        .owed
        .push(OwedOp::Rename(owed(mv, from, to, true)));
    Ok(draft.change)
}

/// Stamps what moves from `end` into `dir` and returns its entry.
fn moved<V: View>(
    draft: &mut Draft<'_, V>,
    ctx: Ctx<'_>,
    end: &End,
    dir: Fid,
) -> Result<Dirent, Stop> {
    let dirent = end.slot.live().ok_or(Errno::ENOENT)?.clone();
    let mut inode = draft.load(dirent.fid)?;
    stamp(&mut inode, ctx.now);
    inode.parent = dir;
    draft.put(dirent.fid, inode);
    Ok(dirent)
}

fn owed(mv: &Move<'_>, from: &End, to: &End, exchange: bool) -> OwedRename {
    let victim = to.node.as_ref();
    OwedRename {
        from: mv.from,
        from_name: mv.from_name.clone(),
        to: mv.to,
        to_name: mv.to_name.clone(),
        fid: from.slot.live().map_or(Fid::NONE, |d| d.fid),
        dir: from.is_dir(),
        victim: victim.map(|(fid, _)| *fid),
        victim_identity: victim.and_then(|(_, inode)| inode.locator.identity.clone()),
        victim_last: false,
        exchange,
    }
}
