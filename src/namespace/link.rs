//! Hard links.

use super::access;
use super::create::{attach, may_add};
use super::draft::{Change, Draft, stamp};
use super::entry;
use super::record::{Dirent, OwedName, OwedOp, flag};
use super::view::{Ctx, Stop, View};
use crate::base::{Errno, Fid, FileKind, Name};

/// Gives `fid` another name; one without names only if O_TMPFILE made it so.
pub fn link(
    view: &impl View,
    ctx: Ctx<'_>,
    fid: Fid,
    parent: Fid,
    name: &Name,
) -> Result<Change, Stop> {
    let mut file = view.inode(fid)?.ok_or(Errno::ESTALE)?;
    let dir = entry::directory(view, parent)?;
    access::check(view, ctx.bounds, ctx.caller, parent, &dir, access::EXEC)?;
    ctx.name_fits(name)?;
    let slot = entry::find(view, parent, &dir, name)?;
    if slot.live().is_some() {
        return Err(Errno::EEXIST.into());
    }
    ctx.writable()?;
    may_add(view, ctx, parent, &dir)?;
    if file.attr.kind == FileKind::Directory || !ctx.bounds.hard_links {
        return Err(Errno::EPERM.into());
    }
    let unnamed = file.attr.nlink == 0;
    if unnamed && file.flags & flag::LINKABLE == 0 {
        return Err(Errno::ENOENT.into());
    }
    if file.attr.nlink >= ctx.bounds.link_max {
        return Err(Errno::EMLINK.into());
    }
    let mut draft = Draft::new(view);
    stamp(&mut file, ctx.now);
    file.attr.nlink += 1;
    if unnamed {
        return adopt(draft, ctx, (fid, file), (parent, slot.cookie(), name));
    }
    let owed = OwedName {
        parent,
        name: name.clone(),
        fid,
        kind: file.attr.kind,
    };
    let dirent = Dirent {
        name: name.clone(),
        fid,
        kind: file.attr.kind,
        ino: file.attr.ino,
    };
    draft.put(fid, file);
    entry::insert(&mut draft, parent, slot.cookie(), dirent);
    draft.edit_dir(parent, ctx.now, 1, 0)?;
    draft.change.owed.push(OwedOp::Link(owed));
    Ok(draft.change)
}

/// The first name of an O_TMPFILE inode: to the origin this is its creation,
/// and what it held back until now is owed from here on.
fn adopt<V: View>(
    mut draft: Draft<'_, V>,
    ctx: Ctx<'_>,
    (fid, mut file): (Fid, super::Inode),
    (parent, cookie, name): (Fid, u64, &Name),
) -> Result<Change, Stop> {
    file.flags &= !(flag::ORPHAN | flag::LINKABLE | flag::UNNAMED);
    file.parent = parent;
    file.locator.parent = parent;
    file.locator.name = Some(name.clone());
    if file.flags & (flag::DATA_OWED | flag::ATTRS_OWED | flag::XATTRS_OWED) != 0 {
        draft.change.dirty.push(fid);
    }
    draft.put(fid, file);
    draft.change.orphans.push((fid, false));
    attach(&mut draft, ctx, parent, cookie, name, fid)?;
    Ok(draft.change)
}
