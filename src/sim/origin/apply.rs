//! The operations, each with the contract that [`OriginOp`] gives it.

use super::volatile::{Body, Change, Id, ROOT, Volatile};
use crate::base::limits::SYMLINK_MAX;
use crate::base::{Attr, Errno, FileKind, Identity, Name, SetAttr, Slice};
use crate::origin::{OriginOp, OriginReply, Place, Statfs, is_hidden};
use crate::sim::executor::Core;

type Result<T> = std::result::Result<T, Errno>;

impl Volatile {
    pub(super) fn apply(&mut self, core: &Core, op: OriginOp) -> OriginReply {
        let label = label(&op);
        let reply = match op {
            OriginOp::Read {
                file,
                offset,
                mut buf,
            } => {
                let result = self.read(&file, offset, &mut buf);
                OriginReply::Read { result, buf }
            }
            op => self.run(core, op).unwrap_or_else(OriginReply::Failed),
        };
        let errno = match &reply {
            OriginReply::Failed(e) => u64::from(e.0.unsigned_abs()),
            _ => 0,
        };
        core.trace(label, errno);
        reply
    }

    fn run(&mut self, core: &Core, op: OriginOp) -> Result<OriginReply> {
        self.refuse_if_read_only(&op)?;
        match op {
            OriginOp::Probe => {
                self.limits.clock = self.clock(core);
                self.limits.root = self.identity(ROOT);
                return Ok(OriginReply::Probed(Box::new(self.limits.clone())));
            }
            OriginOp::Stat { place } => return self.stat(&place),
            OriginOp::Lookup { dir, name } => return self.lookup(&dir, &name),
            OriginOp::List { dir } => return self.list(core, &dir),
            OriginOp::XattrList { file } => return self.xattr_list(&file),
            OriginOp::XattrGet { file, name } => return self.xattr_get(&file, &name),
            OriginOp::Statfs => return Ok(OriginReply::Statfs(statfs())),
            OriginOp::Create {
                dir,
                name,
                kind,
                attr,
                link,
            } => {
                return self.create(core, &dir, name, kind, &attr, link);
            }
            OriginOp::Link { file, dir, name } => self.link(core, &file, &dir, name)?,
            OriginOp::Fsync { file } => {
                let id = self.find(&file)?;
                self.sync(id)?;
                return Ok(OriginReply::Found(Box::new(self.found(id))));
            }
            OriginOp::Unlink {
                dir,
                name,
                identity,
                is_dir,
            } => {
                self.unlink(core, &dir, name, &identity, is_dir)?;
            }
            OriginOp::Rename {
                from,
                to,
                identity,
                victim,
                exchange,
            } => {
                self.rename(core, from, to, &identity, victim.as_ref(), exchange)?;
            }
            OriginOp::Write { file, offset, data } => self.write(core, &file, offset, &data)?,
            OriginOp::Truncate { file, size } => {
                self.change_bytes(core, &file, |body| body.bytes.truncate(size))?;
            }
            OriginOp::Punch { file, offset, len } => {
                self.change_bytes(core, &file, |body| body.bytes.punch(offset, len))?;
            }
            OriginOp::SetAttr { file, set } => self.set_attr(core, &file, &set)?,
            OriginOp::XattrSet { file, name, value } => {
                self.change_body(core, &file, |body| {
                    body.xattrs.insert(name, value.0);
                    Ok(())
                })?;
            }
            OriginOp::XattrRemove { file, name } => {
                self.change_body(core, &file, |body| {
                    body.xattrs.remove(&name);
                    Ok(())
                })?;
            }
            OriginOp::Forget { .. } | OriginOp::Read { .. } => {}
        }
        Ok(OriginReply::Done)
    }

    fn refuse_if_read_only(&self, op: &OriginOp) -> Result<()> {
        if self.limits.read_only && !only_looks(op) {
            return Err(Errno::EROFS);
        }
        Ok(())
    }

    fn stat(&self, place: &Place) -> Result<OriginReply> {
        let id = self.find(place)?;
        Ok(OriginReply::Found(Box::new(self.found(id))))
    }

    fn lookup(&self, dir: &Place, name: &Name) -> Result<OriginReply> {
        if dir.path.is_empty() && is_hidden(name) {
            return Ok(OriginReply::Absent);
        }
        let dir = self.find_dir(dir)?;
        Ok(match self.files[&dir].entries.get(name) {
            Some(id) => OriginReply::Found(Box::new(self.found(*id))),
            None => OriginReply::Absent,
        })
    }

    fn list(&self, core: &Core, place: &Place) -> Result<OriginReply> {
        let dir = self.find_dir(place)?;
        let entries = &self.files[&dir].entries;
        let mut listed: Vec<_> = entries
            .iter()
            .filter(|(name, _)| !place.path.is_empty() || !is_hidden(name))
            .map(|(name, id)| (name.clone(), self.found(*id)))
            .collect();
        // No order is promised.
        let turn = core.below(listed.len() as u64) as usize;
        listed.rotate_left(turn);
        Ok(OriginReply::Listed(listed))
    }

    fn read(&self, file: &Place, offset: u64, out: &mut [u8]) -> Result<usize> {
        let id = self.find(file)?;
        match self.files[&id].body.kind {
            FileKind::Regular => Ok(self.files[&id].body.bytes.read(offset, out)),
            FileKind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    fn xattr_list(&self, file: &Place) -> Result<OriginReply> {
        let id = self.find(file)?;
        let mut names = Vec::new();
        for name in self.files[&id].body.xattrs.keys() {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(OriginReply::Bytes(names))
    }

    fn xattr_get(&self, file: &Place, name: &[u8]) -> Result<OriginReply> {
        let id = self.find(file)?;
        let value = self.files[&id].body.xattrs.get(name);
        Ok(OriginReply::Bytes(value.ok_or(Errno::ENODATA)?.clone()))
    }

    fn create(
        &mut self,
        core: &Core,
        dir: &Place,
        name: Name,
        kind: FileKind,
        attr: &Attr,
        link: Option<Vec<u8>>,
    ) -> Result<OriginReply> {
        let dir = self.find_dir(dir)?;
        self.check_name(&name)?;
        let link = match (kind, link) {
            (FileKind::Symlink, Some(link)) if (1..=SYMLINK_MAX).contains(&link.len()) => {
                Some(link)
            }
            (FileKind::Symlink, _) => return Err(Errno::EINVAL),
            (_, _) => None,
        };
        let id = match self.files[&dir].entries.get(&name).copied() {
            Some(there) if self.is_newborn(there, kind, attr.rdev, link.as_ref()) => there,
            Some(_) => return Err(Errno::EEXIST),
            None => {
                // Made closed, then opened; links have no mode to open.
                let mode = if kind == FileKind::Symlink { 0o777 } else { 0 };
                let mut body = Body::new(kind, mode, self.clock(core));
                body.rdev = if is_device(kind) { attr.rdev } else { 0 };
                body.link = link;
                let id = self.make(core, body);
                self.change_names(core, vec![(dir, name, Some(id))]);
                id
            }
        };
        self.dress(id, attr);
        Ok(OriginReply::Found(Box::new(self.found(id))))
    }

    /// Could it be what an interrupted `Create` left?
    fn is_newborn(&self, id: Id, kind: FileKind, rdev: u32, link: Option<&Vec<u8>>) -> bool {
        let file = &self.files[&id];
        file.body.kind == kind
            && file.body.bytes.size() == 0
            && file.entries.is_empty()
            && file.links == 1
            && file.body.link.as_ref() == link
            && (!is_device(kind) || file.body.rdev == rdev)
    }

    fn dress(&mut self, id: Id, attr: &Attr) {
        let (atime, mtime) = (self.coarse(attr.atime), self.coarse(attr.mtime));
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        let body = &mut file.body;
        (body.uid, body.gid, body.atime, body.mtime) = (attr.uid, attr.gid, atime, mtime);
        body.mode = match body.kind {
            FileKind::Symlink => 0o777,
            _ => attr.mode & 0o7777,
        };
    }

    /// The name is there already and means the file: success.
    fn link(&mut self, core: &Core, file: &Place, dir: &Place, name: Name) -> Result<()> {
        let (id, dir) = (self.find(file)?, self.find_dir(dir)?);
        self.check_name(&name)?;
        match self.files[&dir].entries.get(&name) {
            Some(there) if *there == id => {}
            Some(_) => return Err(Errno::EEXIST),
            None if self.is_dir(id) || !self.limits.hard_links => return Err(Errno::EPERM),
            None if self.files[&id].links >= self.limits.link_max => return Err(Errno::EMLINK),
            None => {
                self.touch(core, id);
                self.change_names(core, vec![(dir, name, Some(id))]);
            }
        }
        Ok(())
    }

    fn unlink(
        &mut self,
        core: &Core,
        dir: &Place,
        name: Name,
        identity: &Identity,
        is_dir: bool,
    ) -> Result<()> {
        let dir = self.find_dir(dir)?;
        let Some(id) = self.files[&dir].entries.get(&name).copied() else {
            return Ok(());
        };
        if !self.is(id, identity) {
            return Err(Errno::ESTALE);
        }
        match (is_dir, self.is_dir(id)) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !self.files[&id].entries.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.touch(core, id);
        self.change_names(core, vec![(dir, name, None)]);
        Ok(())
    }

    fn rename(
        &mut self,
        core: &Core,
        from: (Place, Name),
        to: (Place, Name),
        identity: &Identity,
        victim: Option<&Identity>,
        exchange: bool,
    ) -> Result<()> {
        let (from_dir, to_dir) = (self.find_dir(&from.0)?, self.find_dir(&to.0)?);
        self.check_name(&to.1)?;
        let at_from = self.files[&from_dir].entries.get(&from.1).copied();
        let at_to = self.files[&to_dir].entries.get(&to.1).copied();
        let is = |id: Option<Id>, wanted: &Identity| id.is_some_and(|id| self.is(id, wanted));
        let there = is(at_to, identity);
        match (exchange, victim) {
            (true, None) => return Err(Errno::EINVAL),
            (true, Some(victim)) if there && is(at_from, victim) => return Ok(()),
            (true, Some(victim)) if !is(at_to, victim) => return Err(Errno::ESTALE),
            (false, _) if there && !is(at_from, identity) => return Ok(()),
            _ => {}
        }
        let Some(id) = at_from.filter(|id| self.is(*id, identity)) else {
            return Err(Errno::ESTALE);
        };
        if at_to == Some(id) {
            // Two names of one file: the box means that one of them goes.
            self.change_names(core, vec![(from_dir, from.1, None)]);
            return Ok(());
        }
        if at_to.is_some() && !victim.is_some_and(|victim| is(at_to, victim)) {
            return Err(Errno::EEXIST);
        }
        self.check_rename(id, at_to, (from_dir, to_dir), exchange)?;
        if exchange && let Some(other) = at_to {
            self.check_rename(other, Some(id), (to_dir, from_dir), true)?;
        }
        self.touch(core, id);
        let back = at_to.filter(|_| exchange);
        let changes = vec![(to_dir, to.1, Some(id)), (from_dir, from.1, back)];
        self.change_names(core, changes);
        Ok(())
    }

    fn check_rename(
        &self,
        id: Id,
        onto: Option<Id>,
        (from, to): (Id, Id),
        exchange: bool,
    ) -> Result<()> {
        if self.is_dir(id) && self.is_below(to, id) {
            return Err(Errno::EINVAL);
        }
        if onto.is_some_and(|there| self.is_dir(there) && self.is_below(from, there)) {
            return Err(if exchange {
                Errno::EINVAL
            } else {
                Errno::ENOTEMPTY
            });
        }
        match onto {
            Some(there) if !exchange => match (self.is_dir(id), self.is_dir(there)) {
                (true, false) => Err(Errno::ENOTDIR),
                (false, true) => Err(Errno::EISDIR),
                (true, true) if !self.files[&there].entries.is_empty() => Err(Errno::ENOTEMPTY),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// `id` is `root` or lies below it.
    fn is_below(&self, id: Id, root: Id) -> bool {
        id == root
            || self.files[&root]
                .entries
                .values()
                .any(|child| self.is_dir(*child) && self.is_below(id, *child))
    }

    fn write(&mut self, core: &Core, file: &Place, offset: u64, data: &[Slice]) -> Result<()> {
        let len: u64 = data.iter().map(|d| d.len() as u64).sum();
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
        if end > self.limits.file_size_max {
            return Err(Errno::EFBIG);
        }
        self.change_bytes(core, file, |body| {
            let mut at = offset;
            for part in data {
                body.bytes.write(at, part);
                at += part.len() as u64;
            }
        })
    }

    fn set_attr(&mut self, core: &Core, file: &Place, set: &SetAttr) -> Result<()> {
        let now = self.clock(core);
        let (atime, mtime) = (
            set.atime.map(|t| self.coarse(t)),
            set.mtime.map(|t| self.coarse(t)),
        );
        self.change_body(core, file, |body| {
            if set.uid.is_some() || set.gid.is_some() {
                body.uid = set.uid.unwrap_or(body.uid);
                body.gid = set.gid.unwrap_or(body.gid);
                body.lose_privileges();
            }
            if let Some(mode) = set.mode
                && body.kind != FileKind::Symlink
            {
                body.mode = mode & 0o7777;
            }
            if let Some(size) = set.size {
                if body.kind != FileKind::Regular {
                    return Err(Errno::EINVAL);
                }
                body.bytes.truncate(size);
                body.mtime = now;
            }
            body.atime = atime.unwrap_or(body.atime);
            body.mtime = mtime.unwrap_or(body.mtime);
            if set.atime_now {
                body.atime = now;
            }
            if set.mtime_now {
                body.mtime = now;
            }
            if set.kill_priv {
                body.lose_privileges();
            }
            Ok(())
        })
    }

    fn change_bytes(
        &mut self,
        core: &Core,
        file: &Place,
        change: impl FnOnce(&mut Body),
    ) -> Result<()> {
        let now = self.clock(core);
        self.change_body(core, file, |body| {
            match body.kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
            change(body);
            body.mtime = now;
            Ok(())
        })
    }

    fn change_body(
        &mut self,
        core: &Core,
        file: &Place,
        change: impl FnOnce(&mut Body) -> Result<()>,
    ) -> Result<()> {
        let id = self.find(file)?;
        let now = self.clock(core);
        let file = self.files.get_mut(&id).ok_or(Errno::ESTALE)?;
        change(&mut file.body)?;
        file.body.ctime = now;
        Ok(())
    }

    /// Changes names, and the times of the directories.
    fn change_names(&mut self, core: &Core, changes: Vec<(Id, Name, Option<Id>)>) {
        let now = self.clock(core);
        for (dir, _, _) in &changes {
            if let Some(dir) = self.files.get_mut(dir) {
                (dir.body.mtime, dir.body.ctime) = (now, now);
            }
        }
        let change = |(dir, name, to)| Change { dir, name, to };
        self.change(changes.into_iter().map(change).collect());
    }

    fn touch(&mut self, core: &Core, id: Id) {
        let now = self.clock(core);
        if let Some(file) = self.files.get_mut(&id) {
            file.body.ctime = now;
        }
    }

    fn check_name(&self, name: &Name) -> Result<()> {
        if name.as_bytes().len() > self.limits.name_max as usize {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(())
    }
}

impl Body {
    /// What chown does to files that are not directories, root or not.
    fn lose_privileges(&mut self) {
        if self.kind != FileKind::Directory {
            let group = if self.mode & 0o010 != 0 { 0o2000 } else { 0 };
            self.mode &= !(0o4000 | group);
        }
    }
}

pub(super) fn only_looks(op: &OriginOp) -> bool {
    matches!(
        op,
        OriginOp::Probe
            | OriginOp::Stat { .. }
            | OriginOp::Lookup { .. }
            | OriginOp::List { .. }
            | OriginOp::Read { .. }
            | OriginOp::XattrList { .. }
            | OriginOp::XattrGet { .. }
            | OriginOp::Statfs
            | OriginOp::Forget { .. }
    )
}

fn is_device(kind: FileKind) -> bool {
    matches!(kind, FileKind::Char | FileKind::Block)
}

fn statfs() -> Statfs {
    Statfs {
        bsize: 4096,
        blocks: 1 << 30,
        bfree: 1 << 29,
        bavail: 1 << 29,
        files: 1 << 30,
        ffree: 1 << 29,
        namelen: 255,
    }
}

fn label(op: &OriginOp) -> &'static str {
    match op {
        OriginOp::Probe => "probe",
        OriginOp::Stat { .. } => "stat",
        OriginOp::Lookup { .. } => "lookup",
        OriginOp::List { .. } => "list",
        OriginOp::Read { .. } => "read",
        OriginOp::XattrList { .. } => "xattr list",
        OriginOp::XattrGet { .. } => "xattr get",
        OriginOp::Statfs => "statfs",
        OriginOp::Create { .. } => "create",
        OriginOp::Link { .. } => "link",
        OriginOp::Unlink { .. } => "unlink",
        OriginOp::Rename { .. } => "rename",
        OriginOp::Write { .. } => "write",
        OriginOp::Truncate { .. } => "truncate",
        OriginOp::Punch { .. } => "punch",
        OriginOp::SetAttr { .. } => "setattr",
        OriginOp::XattrSet { .. } => "xattr set",
        OriginOp::XattrRemove { .. } => "xattr remove",
        OriginOp::Fsync { .. } => "fsync",
        OriginOp::Forget { .. } => "forget",
    }
}
