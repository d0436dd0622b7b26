//! Names in directories. A name's slot is at its cookie; colliding names form
//! a chain of consecutive ordinals. A chain has no holes: a removed entry
//! inside it stays as a gravestone, so that a look-up ends at the first empty
//! slot. A directory that is not complete keeps a gravestone for every name
//! removed here, since its removal at the origin is still owed.

use super::access;
use super::draft::Draft;
use super::hash::ORDINAL_MAX;
use super::record::{Dirent, Inode, flag};
use super::view::{Ctx, Need, Stop, View};
use crate::base::{Errno, Fid, FileKind, Name};

/// Where a name is, or would go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    Live(u64, Dirent),
    Free(u64),
}

impl Slot {
    #[must_use]
    pub fn cookie(&self) -> u64 {
        match self {
            Slot::Live(cookie, _) | Slot::Free(cookie) => *cookie,
        }
    }
    #[must_use]
    pub fn live(&self) -> Option<&Dirent> {
        match self {
            Slot::Live(_, dirent) => Some(dirent),
            Slot::Free(_) => None,
        }
    }
}

/// What the records alone say of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    Live(u64, Dirent),
    /// A gravestone says so, or the mark "complete".
    Absent(u64),
    /// Only the origin can tell; the slot is where the name would go.
    Unknown(u64),
}

/// Looks through the name's chain.
pub fn known(view: &impl View, dir: Fid, inode: &Inode, name: &Name) -> Result<Known, Stop> {
    let complete = inode.flags & flag::COMPLETE != 0;
    let base = view.cookie(name);
    let mut free = None;
    for ordinal in 0..=ORDINAL_MAX {
        let cookie = base + ordinal;
        match view.slot(dir, cookie)? {
            None => {
                let free = free.unwrap_or(cookie);
                let absent = complete || view.is_absent(dir, name);
                return Ok(if absent {
                    Known::Absent(free)
                } else {
                    Known::Unknown(free)
                });
            }
            Some(d) if d.name == *name && d.fid.is_none() => return Ok(Known::Absent(cookie)),
            Some(d) if d.name == *name => return Ok(Known::Live(cookie, d)),
            // Another name's gravestone is free only where it says nothing.
            Some(d) if d.fid.is_none() && complete => free = free.or(Some(cookie)),
            Some(_) => {}
        }
    }
    // 255 names of one 55-bit hash: not chance, but somebody with the key.
    free.map(Known::Absent).ok_or(Errno::ENOSPC.into())
}

/// Finds a name, asking the origin where the records cannot tell (N10).
pub fn find(view: &impl View, dir: Fid, inode: &Inode, name: &Name) -> Result<Slot, Stop> {
    match known(view, dir, inode, name)? {
        Known::Live(cookie, dirent) => Ok(Slot::Live(cookie, dirent)),
        Known::Absent(cookie) => Ok(Slot::Free(cookie)),
        Known::Unknown(_) => Err(Need::Name(dir, name.clone()).into()),
    }
}

/// LOOKUP: what `name` in `parent` is.
pub fn lookup(view: &impl View, ctx: Ctx<'_>, parent: Fid, name: &Name) -> Result<Fid, Stop> {
    let dir = directory(view, parent)?;
    access::check(view, ctx.bounds, ctx.caller, parent, &dir, access::EXEC)?;
    ctx.name_fits(name)?;
    let slot = find(view, parent, &dir, name)?;
    Ok(slot.live().ok_or(Errno::ENOENT)?.fid)
}

/// The inode, which must be a directory.
pub fn directory(view: &impl View, fid: Fid) -> Result<Inode, Stop> {
    let inode = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    if inode.attr.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    Ok(inode)
}

/// Fills a slot that [`find`] called free.
pub fn insert<V: View>(draft: &mut Draft<'_, V>, dir: Fid, cookie: u64, dirent: Dirent) {
    draft.put_slot(dir, cookie, Some(dirent));
}

/// Empties the slot of a live entry, leaving a gravestone where one is needed.
pub fn remove<V: View>(
    draft: &mut Draft<'_, V>,
    dir: Fid,
    complete: bool,
    cookie: u64,
    mut dirent: Dirent,
) -> Result<(), Stop> {
    let ordinal = cookie & 255;
    let followed = ordinal < ORDINAL_MAX && draft.slot(dir, cookie + 1)?.is_some();
    if followed || !complete {
        dirent.fid = Fid::NONE;
        draft.put_slot(dir, cookie, Some(dirent));
        return Ok(());
    }
    draft.put_slot(dir, cookie, None);
    // The chain now ends before this slot: gravestones at its end say nothing.
    for before in (cookie - ordinal..cookie).rev() {
        match draft.slot(dir, before)? {
            Some(d) if d.fid.is_none() => draft.put_slot(dir, before, None),
            _ => break,
        }
    }
    Ok(())
}
