//! Calls by name and by path, for tools and tests.

use super::{CallError, Client, Context};
use crate::base::codec::Bytes;
use crate::base::{Attr, Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice};
use crate::wire::op::{
    Close, Create, Data, DirEntry, Entry, Fsync, Intent, Named, OfFile, Open, Read, Readdir,
    Rename, Setattr, StatfsReply, Unlink, Write,
};
use crate::wire::{Reply, Request};
use crate::world::World;

/// A client with a caller: every call is made in its name.
pub struct Directory<W: World> {
    client: Client<W>,
    context: Context,
    fid: Fid,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub fid: Fid,
    pub open: OpenId,
}

impl<W: World> Clone for Directory<W> {
    fn clone(&self) -> Self {
        Directory {
            client: self.client.clone(),
            context: self.context.clone(),
            fid: self.fid,
        }
    }
}

impl<W: World> Client<W> {
    /// The target's root, in the name of `context`.
    #[must_use]
    pub fn at_root(&self, context: Context) -> Directory<W> {
        Directory {
            client: self.clone(),
            context,
            fid: self.root(),
        }
    }
}

type Result<T> = std::result::Result<T, CallError>;

impl<W: World> Directory<W> {
    #[must_use]
    pub fn fid(&self) -> Fid {
        self.fid
    }

    async fn ask(&self, request: Request) -> Result<Reply> {
        let (reply, _) = self.client.call(&self.context, request, None).await?;
        Ok(reply)
    }

    async fn entry(&self, request: Request) -> Result<Entry> {
        match self.ask(request).await? {
            Reply::Entry(entry) => Ok(entry),
            _ => Err(CallError::Protocol),
        }
    }

    async fn done(&self, request: Request) -> Result<()> {
        self.ask(request).await.map(|_| ())
    }

    /// What `name` is here.
    pub async fn lookup(&self, name: &str) -> Result<Entry> {
        self.entry(Request::Lookup(Named {
            parent: self.fid,
            name: name_of(name)?,
            intent: Intent::default(),
        }))
        .await
    }

    /// Follows `path` down; empty components are left out, links not followed.
    pub async fn walk(&self, path: &str) -> Result<Directory<W>> {
        let mut at = self.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at.fid = at.lookup(name).await?.fid;
        }
        Ok(at)
    }

    /// A directory `name`, made if it is not there.
    pub async fn directory(&self, name: &str) -> Result<Directory<W>> {
        let entry = match self
            .create(name, FileKind::Directory, 0o755, OpenId(0))
            .await
        {
            Err(CallError::Failed(Errno::EEXIST)) => self.lookup(name).await?,
            other => other?,
        };
        Ok(Directory {
            fid: entry.fid,
            ..self.clone()
        })
    }

    async fn create(&self, name: &str, kind: FileKind, mode: u32, open: OpenId) -> Result<Entry> {
        self.entry(Request::Create(Create {
            parent: self.fid,
            name: Some(name_of(name)?),
            kind,
            mode,
            rdev: 0,
            link: Bytes::default(),
            exclusive: kind != FileKind::Regular,
            open,
            flags: read_write(),
            fid: Fid::NONE,
            intent: Intent::default(),
        }))
        .await
    }

    /// Opens a regular file for reading and writing, made if it is not there.
    pub async fn create_file(&self, name: &str) -> Result<File> {
        let open = self.client.next_open();
        let entry = self.create(name, FileKind::Regular, 0o644, open).await?;
        Ok(File {
            fid: entry.fid,
            open,
        })
    }

    /// Opens what is there for reading and writing.
    pub async fn open(&self, name: &str) -> Result<(File, Attr)> {
        let fid = self.lookup(name).await?.fid;
        let open = self.client.next_open();
        let entry = self
            .entry(Request::Open(Open {
                fid,
                open,
                flags: read_write(),
                intent: Intent::default(),
            }))
            .await?;
        Ok((File { fid, open }, entry.attr))
    }

    pub async fn close(&self, file: File) -> Result<()> {
        self.done(Request::Close(Close {
            fid: file.fid,
            open: file.open,
        }))
        .await
    }

    /// Up to `len` bytes; short only at the end of the file.
    pub async fn read(&self, file: File, offset: u64, len: u32) -> Result<Slice> {
        let request = Request::Read(Read {
            fid: file.fid,
            open: file.open,
            offset,
            len,
        });
        match self.client.call(&self.context, request, None).await? {
            (Reply::Data(Data { .. }), data) => Ok(data.unwrap_or_else(|| Slice::from(Vec::new()))),
            _ => Err(CallError::Protocol),
        }
    }

    /// Writes all of `bytes` (at most one payload); unstable until `fsync`.
    pub async fn write(&self, file: File, offset: u64, bytes: Slice) -> Result<u32> {
        let request = Request::Write(Write {
            fid: file.fid,
            open: file.open,
            offset,
            append: false,
        });
        match self
            .client
            .call(&self.context, request, Some(bytes))
            .await?
        {
            (Reply::Written(done), _) => Ok(done.written),
            _ => Err(CallError::Protocol),
        }
    }

    /// Everything written to the file so far is on the box's flash.
    pub async fn fsync(&self, file: File) -> Result<()> {
        self.done(Request::Fsync(Fsync {
            fid: file.fid,
            data_only: false,
        }))
        .await
    }

    pub async fn stat(&self, fid: Fid) -> Result<Attr> {
        let intent = Intent::default();
        let entry = self.entry(Request::Getattr(OfFile { fid, intent })).await?;
        Ok(entry.attr)
    }

    pub async fn truncate(&self, file: File, size: u64) -> Result<Attr> {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let request = Request::Setattr(Setattr { fid: file.fid, set });
        Ok(self.entry(request).await?.attr)
    }

    pub async fn unlink(&self, name: &str) -> Result<()> {
        self.remove(name, false).await
    }

    pub async fn rmdir(&self, name: &str) -> Result<()> {
        self.remove(name, true).await
    }

    async fn remove(&self, name: &str, dir: bool) -> Result<()> {
        self.done(Request::Unlink(Unlink {
            parent: self.fid,
            name: name_of(name)?,
            dir,
        }))
        .await
    }

    /// Moves `name` to `to_name` in `to`, replacing what is there.
    pub async fn rename(&self, name: &str, to: &Directory<W>, to_name: &str) -> Result<()> {
        self.done(Request::Rename(Rename {
            from: self.fid,
            from_name: name_of(name)?,
            to: to.fid,
            to_name: name_of(to_name)?,
            flags: 0,
        }))
        .await
    }

    /// All entries, in the order of their cookies.
    pub async fn list(&self) -> Result<Vec<DirEntry>> {
        let mut all: Vec<DirEntry> = Vec::new();
        loop {
            let request = Request::Readdir(Readdir {
                fid: self.fid,
                cookie: all.last().map_or(0, |entry| entry.cookie),
                bytes: 64 << 10,
                attrs: false,
            });
            let Reply::Listing(listing) = self.ask(request).await? else {
                return Err(CallError::Protocol);
            };
            let stuck = listing.entries.is_empty();
            all.extend(listing.entries);
            if listing.end || stuck {
                return Ok(all);
            }
        }
    }

    pub async fn statfs(&self) -> Result<StatfsReply> {
        let intent = Intent::default();
        let request = Request::Statfs(OfFile {
            fid: self.fid,
            intent,
        });
        match self.ask(request).await? {
            Reply::Statfs(statfs) => Ok(statfs),
            _ => Err(CallError::Protocol),
        }
    }
}

fn name_of(name: &str) -> Result<Name> {
    Name::new(name.as_bytes()).map_err(CallError::Failed)
}

fn read_write() -> u32 {
    libc::O_RDWR.cast_unsigned()
}
