//! What a change does, decided over the client's own tree by the box's rules.
//! Whatever they refuse, or need to know more for, the box is asked itself.

use crate::base::codec::Bytes;
use crate::base::{Errno, Fid, FileKind, LockId};
use crate::namespace::create::{self, Created, New};
use crate::namespace::draft::{Change, Draft, stamp};
use crate::namespace::setattr::{self as attrs, Held};
use crate::namespace::{Ctx, Stop, View, access, link, rename, unlink, xattr};
use crate::wire::head::flags;
use crate::wire::op::{Create, Empty, Entry, Rename, Write, Written, XattrSet};
use crate::wire::{Reply, Request};

/// Units of `st_blocks` in a block, and its bytes.
const SECTORS: u64 = 8;
const BLOCK: u64 = 4096;

/// A change that needs nobody's leave.
pub struct Decided {
    pub reply: Reply,
    pub change: Change,
    /// The request as the box is to carry it out.
    pub request: Request,
}

/// What the caller adds to a request.
pub struct Asked<'a> {
    pub ctx: Ctx<'a>,
    /// Bits of umask, and [`flags`].
    pub umask: u16,
    pub flags: u16,
    /// Bytes to write.
    pub len: u64,
    /// Somebody has the file open for writing.
    pub is_writer: bool,
}

/// # Errors
/// Whatever stops it is for the box to say.
pub fn decide(view: &impl View, asked: &Asked<'_>, request: &Request) -> Result<Decided, Stop> {
    let done = |change| Decided {
        reply: Reply::Done(Empty {}),
        change,
        request: request.clone(),
    };
    match request {
        Request::Create(op) => born(view, asked, op),
        Request::Unlink(op) => {
            unlink::unlink(view, asked.ctx, op.parent, &op.name, op.dir).map(done)
        }
        Request::Link(op) => {
            let change = link::link(view, asked.ctx, op.fid, op.parent, &op.name)?;
            shown(op.fid, false, change, request.clone())
        }
        Request::Rename(op) => moved(view, asked, op).map(done),
        Request::Setattr(op) => {
            let held = Held {
                writer: asked.is_writer,
            };
            let mut change = attrs::setattr(view, asked.ctx, op.fid, &op.set, held)?;
            cut(&mut change);
            shown(op.fid, false, change, request.clone())
        }
        Request::XattrSet(op) => xattr::set(view, asked.ctx, op.fid, set(op)).map(done),
        Request::XattrRemove(op) => xattr::remove(view, asked.ctx, op.fid, &op.name.0).map(done),
        Request::Write(op) => written(view, asked, op),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

fn set(op: &XattrSet) -> xattr::Set<'_> {
    xattr::Set {
        name: &op.name.0,
        value: &op.value.0,
        flags: op.flags,
        clear_sgid: op.clear_sgid,
    }
}

fn born(view: &impl View, asked: &Asked<'_>, op: &Create) -> Result<Decided, Stop> {
    let is_plain = matches!(
        op.kind,
        FileKind::Regular | FileKind::Directory | FileKind::Symlink
    );
    if !is_plain || op.name.is_none() {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let new = New {
        parent: op.parent,
        name: op.name.as_ref(),
        kind: op.kind,
        mode: op.mode,
        umask: u32::from(asked.umask),
        rdev: op.rdev,
        link: &op.link.0,
        exclusive: op.exclusive,
    };
    match create::create(view, asked.ctx, &new)? {
        Created::New(fid, change) => {
            let request = Request::Create(Create { fid, ..op.clone() });
            shown(fid, true, *change, request)
        }
        Created::There(_) => Err(Errno::EEXIST.into()),
    }
}

/// A directory that changes its parent is the box's to move (N5).
fn moved(view: &impl View, asked: &Asked<'_>, op: &Rename) -> Result<Change, Stop> {
    let mv = rename::Move {
        from: op.from,
        from_name: &op.from_name,
        to: op.to,
        to_name: &op.to_name,
        flags: op.flags,
    };
    let change = rename::rename(view, asked.ctx, &mv)?.ok_or(Errno::EEXIST)?;
    let is_dir = |fid: Fid| fid != op.from && fid != op.to;
    let moves_dir = change.inodes.iter().any(|(fid, inode)| {
        is_dir(*fid) && inode.attr.kind == FileKind::Directory && inode.attr.nlink > 0
    });
    match moves_dir && op.from != op.to {
        true => Err(Errno::EXDEV.into()),
        false => Ok(change),
    }
}

/// Size and blocks after a truncation, as the box's data path makes them.
fn cut(change: &mut Change) {
    let Some((fid, size)) = change.truncated else {
        return;
    };
    if let Some((_, inode)) = change.inodes.iter_mut().find(|(f, _)| *f == fid) {
        let attr = &mut inode.attr;
        attr.size = size;
        attr.blocks = attr.blocks.min(size.div_ceil(BLOCK) * SECTORS);
    }
}

/// Bytes at an offset: what is not written straight on may leave holes, whose
/// blocks only the box can count.
fn written(view: &impl View, asked: &Asked<'_>, op: &Write) -> Result<Decided, Stop> {
    let mut inode = view.inode(op.fid)?.ok_or(Errno::ESTALE)?;
    let old = inode.attr.size;
    let offset = if op.append { old } else { op.offset };
    let end = offset.checked_add(asked.len).ok_or(Errno::EFBIG)?;
    let is_fit = inode.attr.kind == FileKind::Regular
        && !asked.ctx.bounds.read_only
        && end <= asked.ctx.bounds.file_size_max
        && offset <= old;
    if !is_fit {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if !asked.is_writer {
        let (bounds, caller) = (asked.ctx.bounds, asked.ctx.caller);
        access::check(view, bounds, caller, op.fid, &inode, access::WRITE)?;
    }
    let mut draft = Draft::new(view);
    if asked.flags & flags::KILL_PRIV != 0 {
        attrs::strip(&mut draft, asked.ctx, op.fid, &mut inode, true)?;
    }
    if asked.len > 0 {
        inode.attr.mtime = stamp(&mut inode, asked.ctx.now);
        let grown = end.div_ceil(BLOCK).saturating_sub(old.div_ceil(BLOCK));
        inode.attr.blocks += grown * SECTORS;
        inode.attr.size = old.max(end);
    }
    let reply = Reply::Written(Written {
        written: u32::try_from(asked.len).map_err(|_| Errno::EINVAL)?,
        offset,
        attr: inode.attr.clone(),
    });
    draft.put(op.fid, inode);
    let request = Request::Write(Write {
        offset,
        append: false,
        ..op.clone()
    });
    Ok(Decided {
        reply,
        change: draft.change,
        request,
    })
}

/// The answer that shows a file which the change put.
fn shown(fid: Fid, created: bool, change: Change, request: Request) -> Result<Decided, Stop> {
    let put = change.inodes.iter().find(|(f, _)| *f == fid);
    let attr = put.map(|(_, inode)| inode.attr.clone());
    let reply = Reply::Entry(Entry {
        fid,
        attr: attr.ok_or(Errno::ESTALE)?,
        created,
        layout: Bytes::default(),
        lock: LockId(0),
        lock_mode: 0,
        lock_bits: 0,
    });
    Ok(Decided {
        reply,
        change,
        request,
    })
}
