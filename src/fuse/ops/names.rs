//! Names: looking them up, making, moving and removing them.

use super::entry_in;
use crate::base::codec::Bytes;
use crate::base::{Errno, Fid, FileKind, Name, OpenId};
use crate::fuse::abi::input::{MkdirIn, MknodIn};
use crate::fuse::abi::parse::{LookupName, Op};
use crate::fuse::kernel::Kernel;
use crate::fuse::session::{Origin, Outcome, Session};
use crate::fuse::upstream::Upstream;
use crate::wire::op::{Create, Entry, Intent, Link, Named, OfFile, Readdir, Rename, Unlink};
use crate::wire::{Reply, Request};
use crate::world::World;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// The operations that name a directory and an entry of it.
    pub(super) async fn on_name(&self, from: &Origin, op: Op) -> Result<Outcome, Errno> {
        let parent = self.node(from.head.nodeid)?.fid;
        match op {
            Op::Lookup(name) => self.on_lookup(from, parent, name).await,
            Op::Symlink { name, link } => {
                let mut create = creation(parent, name, FileKind::Symlink, 0o777);
                create.link = Bytes(link);
                self.make(from, create, 0).await
            }
            Op::Mknod { name, args } => self.on_mknod(from, parent, name, args).await,
            Op::Mkdir { name, args } => self.on_mkdir(from, parent, name, args).await,
            Op::Unlink(name) => self.remove(from, parent, name, false).await,
            Op::Rmdir(name) => self.remove(from, parent, name, true).await,
            Op::Rename {
                newdir,
                flags,
                from: from_name,
                to: to_name,
            } => {
                let to = self.node(newdir)?.fid;
                let (old, new) = (from_name.clone(), to_name.clone());
                let rename = Rename {
                    from: parent,
                    from_name,
                    to,
                    to_name,
                    flags,
                };
                self.ask(from, Request::Rename(rename)).await?;
                let is_exchange = flags & libc::RENAME_EXCHANGE != 0;
                let (old, new) = ((from.head.nodeid, &old), (newdir, &new));
                self.kept.borrow_mut().names.moved(old, new, is_exchange);
                self.links_changed(from.head.nodeid);
                self.links_changed(newdir);
                Ok(Outcome::Done)
            }
            Op::Link { nodeid, name } => {
                let fid = self.node(nodeid)?.fid;
                let at = name.clone();
                let link = Request::Link(Link { fid, parent, name });
                let entry = entry_in(self.ask(from, link).await?)?;
                let at = (from.head.nodeid, &at);
                Ok(Outcome::Bytes(self.changed(from, at, &entry, true)))
            }
            _ => Err(Errno::EIO),
        }
    }

    /// An absent name is an error, and a negative entry only while the client
    /// is told when another one makes it.
    async fn on_lookup(
        &self,
        from: &Origin,
        parent: Fid,
        name: LookupName,
    ) -> Result<Outcome, Errno> {
        let name = match name {
            LookupName::Child(name) => name,
            LookupName::Itself => return self.look_at(from, parent).await,
            LookupName::Parent => {
                let above = self.parent_of(from, parent).await?;
                return self.look_at(from, above).await;
            }
        };
        let lookup = Request::Lookup(Named {
            parent,
            name: name.clone(),
            intent: Intent::default(),
        });
        let out = match self.ask(from, lookup).await {
            Ok(reply) => {
                let at = Some((from.head.nodeid, &name));
                self.entry(from, at, &entry_in(reply)?)
            }
            Err(Errno::ENOENT) => self.absent(from, parent, &name).ok_or(Errno::ENOENT)?,
            Err(e) => return Err(e),
        };
        Ok(Outcome::Bytes(out))
    }

    async fn look_at(&self, from: &Origin, fid: Fid) -> Result<Outcome, Errno> {
        let entry = entry_in(self.ask(from, of_file(fid)).await?)?;
        Ok(Outcome::Bytes(self.entry(from, None, &entry)))
    }

    /// The directory that holds this directory, which its listing tells.
    async fn parent_of(&self, from: &Origin, fid: Fid) -> Result<Fid, Errno> {
        let list = Readdir {
            fid,
            cookie: 0,
            bytes: 0,
            attrs: false,
        };
        match self.ask(from, Request::Readdir(list)).await? {
            Reply::Listing(listing) if !listing.parent.is_none() => Ok(listing.parent),
            Reply::Listing(_) => Err(Errno::ESTALE),
            _ => Err(Errno::EIO),
        }
    }

    async fn on_mknod(
        &self,
        from: &Origin,
        parent: Fid,
        name: Name,
        args: MknodIn,
    ) -> Result<Outcome, Errno> {
        let kind = match args.mode & libc::S_IFMT {
            0 => FileKind::Regular,
            _ => FileKind::from_mode(args.mode).ok_or(Errno::EINVAL)?,
        };
        let mut create = creation(parent, name, kind, args.mode & 0o7777);
        create.rdev = args.rdev;
        self.make(from, create, args.umask).await
    }

    async fn on_mkdir(
        &self,
        from: &Origin,
        parent: Fid,
        name: Name,
        args: MkdirIn,
    ) -> Result<Outcome, Errno> {
        let create = creation(parent, name, FileKind::Directory, args.mode & 0o7777);
        let made = self.make(from, create, args.umask).await;
        self.links_changed(from.head.nodeid);
        made
    }

    async fn make(&self, from: &Origin, create: Create, umask: u32) -> Result<Outcome, Errno> {
        let name = create.name.clone();
        let entry = self.create(from, create, umask, 0).await?;
        let at = name.as_ref().map(|name| (from.head.nodeid, name));
        Ok(Outcome::Bytes(self.entry(from, at, &entry)))
    }

    /// Creates, and opens if `create.open` is set.
    pub(super) async fn create(
        &self,
        from: &Origin,
        create: Create,
        umask: u32,
        flags: u16,
    ) -> Result<Entry, Errno> {
        let mut ask = self.plain(from, Request::Create(create));
        ask.context.umask = (umask & 0o777) as u16;
        ask.context.flags = flags;
        entry_in(self.call(ask).await?.0)
    }

    async fn remove(
        &self,
        from: &Origin,
        parent: Fid,
        name: Name,
        dir: bool,
    ) -> Result<Outcome, Errno> {
        let gone = name.clone();
        let unlink = Request::Unlink(Unlink { parent, name, dir });
        self.ask(from, unlink).await?;
        let nodeid = from.head.nodeid;
        self.kept.borrow_mut().names.remove(nodeid, &gone);
        if dir {
            self.links_changed(from.head.nodeid);
        }
        Ok(Outcome::Done)
    }
}

/// The attributes of a file.
pub(super) fn of_file(fid: Fid) -> Request {
    let intent = Intent::default();
    Request::Getattr(OfFile { fid, intent })
}

/// The creation of a name that must be new, without opening it.
fn creation(parent: Fid, name: Name, kind: FileKind, mode: u32) -> Create {
    Create {
        parent,
        name: Some(name),
        kind,
        mode,
        rdev: 0,
        link: Bytes::default(),
        exclusive: true,
        open: OpenId(0),
        flags: 0,
        fid: Fid::NONE,
        intent: Intent::default(),
    }
}
