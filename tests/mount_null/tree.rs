//! A file system in memory that answers the requests of a mount, as plainly as
//! it can be written: no permissions, no limits, one thread.

use forebay::base::codec::Bytes;
use forebay::base::{Attr, Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice, Time};
use forebay::client::Context;
use forebay::fuse::upstream::{Answer, Export, Interrupt, Upstream};
use forebay::wire::op::{
    Blob, Create, Data, DirEntry, Empty, Entry, Listing, Offset, Readdir, Rename, Setattr,
    StatfsReply, Write, Written,
};
use forebay::wire::{Reply, Request};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// A file, and the directory it is in if it is one.
struct File {
    attr: Attr,
    bytes: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    entries: BTreeMap<u64, (Name, Fid)>,
    parent: Fid,
    opens: u32,
}

pub struct Tree {
    files: RefCell<BTreeMap<Fid, File>>,
    next: Cell<u32>,
    opens: Cell<u64>,
    pub counts: Counts,
}

/// What the mount asked for, for tests to look at. Shared with their thread.
#[derive(Clone, Default)]
pub struct Counts(pub std::sync::Arc<std::sync::Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    pub fn of(&self, label: &str) -> u64 {
        self.0
            .lock()
            .expect("no panic")
            .get(label)
            .copied()
            .unwrap_or(0)
    }
}

const ROOT: Fid = Fid::new(1, 1);

impl Tree {
    pub fn new(counts: Counts) -> Tree {
        let tree = Tree {
            files: RefCell::default(),
            next: Cell::new(1),
            opens: Cell::new(1),
            counts,
        };
        tree.add(FileKind::Directory, 0o777, ROOT);
        tree
    }

    fn add(&self, kind: FileKind, mode: u32, parent: Fid) -> Fid {
        let oid = self.next.get();
        self.next.set(oid + 1);
        let fid = Fid::new(1, oid);
        let attr = Attr {
            kind,
            mode,
            uid: 0,
            gid: 0,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            rdev: 0,
            ino: u64::from(oid) + 100,
            size: 0,
            blocks: 0,
            atime: Time { sec: 1, nsec: 0 },
            mtime: Time { sec: 1, nsec: 0 },
            ctime: Time { sec: 1, nsec: 0 },
            btime: Time { sec: 4, nsec: 0 },
            version: 1,
        };
        let file = File {
            attr,
            bytes: Vec::new(),
            xattrs: BTreeMap::new(),
            entries: BTreeMap::new(),
            parent,
            opens: 0,
        };
        self.files.borrow_mut().insert(fid, file);
        fid
    }

    /// Runs `f` on a file.
    fn with<T>(&self, fid: Fid, f: impl FnOnce(&mut File) -> T) -> Result<T, Errno> {
        self.files
            .borrow_mut()
            .get_mut(&fid)
            .map(f)
            .ok_or(Errno::ESTALE)
    }

    fn entry(&self, fid: Fid) -> Result<Reply, Errno> {
        let attr = self.with(fid, |f| f.attr.clone())?;
        Ok(Reply::Entry(Entry {
            fid,
            attr,
            created: false,
            layout: Bytes::default(),
            lock: forebay::base::LockId(0),
            lock_mode: 0,
            lock_bits: 0,
        }))
    }

    fn find(&self, dir: Fid, name: &Name) -> Result<(u64, Fid), Errno> {
        let hit = |f: &mut File| {
            let mut all = f.entries.iter();
            all.find(|(_, (n, _))| n == name)
                .map(|(cookie, (_, fid))| (*cookie, *fid))
        };
        self.with(dir, hit)?.ok_or(Errno::ENOENT)
    }

    fn bind(&self, dir: Fid, name: Name, fid: Fid) -> Result<(), Errno> {
        self.with(dir, |f| {
            let cookie = f.entries.keys().next_back().map_or(1, |c| c + 3);
            f.entries.insert(cookie, (name, fid));
        })
    }

    fn unbind(&self, dir: Fid, cookie: u64) -> Result<(), Errno> {
        let gone = self.with(dir, |f| f.entries.remove(&cookie))?;
        let (_, fid) = gone.ok_or(Errno::ENOENT)?;
        self.with(fid, |f| f.attr.nlink = f.attr.nlink.saturating_sub(1))?;
        self.collect(fid);
        Ok(())
    }

    fn collect(&self, fid: Fid) {
        let dead = |f: &mut File| {
            let names = if f.attr.kind == FileKind::Directory {
                1
            } else {
                0
            };
            f.attr.nlink <= names && f.opens == 0
        };
        if self.with(fid, dead) == Ok(true) {
            self.files.borrow_mut().remove(&fid);
        }
    }

    fn create(&self, op: Create) -> Result<Reply, Errno> {
        if let Some(name) = &op.name
            && let Ok((_, fid)) = self.find(op.parent, name)
        {
            if op.exclusive {
                return Err(Errno::EEXIST);
            }
            self.with(fid, |f| f.opens += 1)?;
            return self.entry(fid);
        }
        let fid = self.add(op.kind, op.mode, op.parent);
        self.with(fid, |f| {
            f.opens = u32::from(op.open.0 > 0);
            f.attr.rdev = op.rdev;
            f.attr.size = op.link.0.len() as u64;
            f.bytes = op.link.0.clone();
            f.attr.nlink -= u32::from(op.name.is_none());
        })?;
        if let Some(name) = op.name {
            self.bind(op.parent, name, fid)?;
        }
        self.entry(fid)
    }

    fn rename(&self, op: Rename) -> Result<Reply, Errno> {
        let (from, fid) = self.find(op.from, &op.from_name)?;
        let there = self.find(op.to, &op.to_name);
        match there {
            Ok(_) if op.flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
            Ok((to, other)) if op.flags & libc::RENAME_EXCHANGE != 0 => {
                self.with(op.from, |f| f.entries.insert(from, (op.from_name, other)))?;
                self.with(op.to, |f| f.entries.insert(to, (op.to_name, fid)))?;
                return Ok(Reply::Done(Empty {}));
            }
            Ok((to, _)) => self.unbind(op.to, to)?,
            Err(_) => {}
        }
        self.with(op.from, |f| f.entries.remove(&from))?;
        self.bind(op.to, op.to_name, fid)?;
        Ok(Reply::Done(Empty {}))
    }

    fn list(&self, op: Readdir) -> Result<Reply, Errno> {
        let (entries, end, parent) = self.with(op.fid, |f| {
            let mut room = op.bytes as usize;
            let mut list = Vec::new();
            let mut rest = f.entries.range(op.cookie + 1..).peekable();
            while let Some((cookie, (name, fid))) =
                rest.next_if(|(_, (n, _))| n.as_bytes().len() + 40 <= room)
            {
                room -= name.as_bytes().len() + 40;
                list.push((*cookie, name.clone(), *fid));
            }
            (list, rest.peek().is_none(), f.parent)
        })?;
        let entries = entries.into_iter().map(|(cookie, name, fid)| {
            let attr = self.with(fid, |f| f.attr.clone())?;
            let (kind, ino) = (attr.kind, attr.ino);
            let attr = op.attrs.then_some(attr);
            Ok(DirEntry {
                name,
                fid,
                kind,
                ino,
                cookie,
                attr,
            })
        });
        let entries = entries.collect::<Result<Vec<_>, Errno>>()?;
        let parent_ino = self.with(parent, |f| f.attr.ino)?;
        Ok(Reply::Listing(Listing {
            entries,
            end,
            parent,
            parent_ino,
        }))
    }

    fn set(&self, op: &Setattr) -> Result<Reply, Errno> {
        let SetAttr {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
            ..
        } = op.set;
        self.with(op.fid, |f| {
            if let Some(size) = size {
                f.bytes.resize(size as usize, 0);
                f.attr.size = size;
            }
            f.attr.mode = mode.unwrap_or(f.attr.mode);
            f.attr.uid = uid.unwrap_or(f.attr.uid);
            f.attr.gid = gid.unwrap_or(f.attr.gid);
            f.attr.atime = atime.unwrap_or(f.attr.atime);
            f.attr.mtime = mtime.unwrap_or(f.attr.mtime);
            if op.set.mtime_now {
                f.attr.mtime = Time { sec: 77, nsec: 7 };
            }
        })?;
        self.entry(op.fid)
    }

    fn write(&self, op: &Write, data: &[u8]) -> Result<Reply, Errno> {
        self.with(op.fid, |f| {
            let at = if op.append {
                f.bytes.len()
            } else {
                op.offset as usize
            };
            let end = at + data.len();
            if f.bytes.len() < end {
                f.bytes.resize(end, 0);
            }
            f.bytes[at..end].copy_from_slice(data);
            f.attr.size = f.bytes.len() as u64;
            f.attr.blocks = f.attr.size.div_ceil(512);
            let attr = f.attr.clone();
            Reply::Written(Written {
                written: data.len() as u32,
                offset: at as u64,
                attr,
            })
        })
    }

    fn names(&self, request: Request) -> Result<Reply, Errno> {
        match request {
            Request::Lookup(op) => {
                let (_, fid) = self.find(op.parent, &op.name)?;
                self.entry(fid)
            }
            Request::Create(op) => self.create(op),
            Request::Rename(op) => self.rename(op),
            Request::Readdir(op) => self.list(op),
            Request::Link(op) => {
                self.with(op.fid, |f| f.attr.nlink += 1)?;
                self.bind(op.parent, op.name, op.fid)?;
                self.entry(op.fid)
            }
            Request::Unlink(op) => {
                let (cookie, fid) = self.find(op.parent, &op.name)?;
                if op.dir && !self.with(fid, |f| f.entries.is_empty())? {
                    return Err(Errno::ENOTEMPTY);
                }
                self.unbind(op.parent, cookie)?;
                Ok(Reply::Done(Empty {}))
            }
            other => self.attrs(other),
        }
    }

    fn attrs(&self, request: Request) -> Result<Reply, Errno> {
        match request {
            Request::Getattr(op) => self.entry(op.fid),
            Request::Setattr(op) => self.set(&op),
            Request::Readlink(op) => blob(self.with(op.fid, |f| f.bytes.clone())?),
            Request::XattrGet(op) => {
                let value = self.with(op.fid, |f| f.xattrs.get(&op.name.0).cloned())?;
                blob(value.ok_or(Errno::ENODATA)?)
            }
            Request::XattrSet(op) => {
                self.with(op.fid, |f| f.xattrs.insert(op.name.0, op.value.0))?;
                Ok(Reply::Done(Empty {}))
            }
            Request::XattrList(op) => blob(self.with(op.fid, |f| {
                f.xattrs
                    .keys()
                    .flat_map(|k| [k, &b"\0"[..]].concat())
                    .collect()
            })?),
            Request::XattrRemove(op) => {
                let had = self.with(op.fid, |f| f.xattrs.remove(&op.name.0))?;
                had.map(|_| Reply::Done(Empty {})).ok_or(Errno::ENODATA)
            }
            Request::Statfs(_) => Ok(Reply::Statfs(StatfsReply {
                bsize: 4096,
                blocks: 1000,
                bfree: 600,
                bavail: 500,
                files: 70,
                ffree: 60,
                namelen: 255,
            })),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn opened(&self, request: Request, payload: Option<Slice>) -> Result<Answer, Errno> {
        let reply = match request {
            Request::Open(op) => {
                self.with(op.fid, |f| {
                    f.opens += 1;
                    if op.flags & libc::O_TRUNC.cast_unsigned() != 0 {
                        f.bytes.clear();
                        f.attr.size = 0;
                    }
                })?;
                self.entry(op.fid)?
            }
            Request::Close(op) => {
                self.with(op.fid, |f| f.opens -= 1)?;
                self.collect(op.fid);
                Reply::Done(Empty {})
            }
            Request::Read(op) => {
                let (bytes, size) = self.with(op.fid, |f| {
                    let from = f.bytes.len().min(op.offset as usize);
                    // Less than asked, at times, to see that the rest is fetched.
                    let to = f.bytes.len().min(from + (op.len as usize).min(600_000));
                    (f.bytes[from..to].to_vec(), f.attr.size)
                })?;
                let eof = op.offset + bytes.len() as u64 >= size;
                return Ok((Reply::Data(Data { eof, size }), Some(Slice::from(bytes))));
            }
            Request::Write(op) => self.write(&op, &payload.ok_or(Errno::EPROTO)?)?,
            Request::Fsync(_) => Reply::Done(Empty {}),
            Request::Fallocate(op) => {
                self.with(op.fid, |f| {
                    let end = (op.offset + op.len) as usize;
                    f.bytes.resize(f.bytes.len().max(end), 0);
                    f.attr.size = f.bytes.len() as u64;
                })?;
                self.entry(op.fid)?
            }
            Request::Seek(op) => {
                let size = self.with(op.fid, |f| f.attr.size)?;
                let is_hole = op.whence == libc::SEEK_HOLE.cast_unsigned();
                if op.offset >= size {
                    return Err(Errno::ENXIO);
                }
                Reply::Offset(Offset {
                    offset: if is_hole { size } else { op.offset },
                })
            }
            Request::CopyRange(op) => {
                let bytes = self.with(op.from, |f| {
                    let from = f.bytes.len().min(op.from_offset as usize);
                    let to = f.bytes.len().min(from + op.len as usize);
                    f.bytes[from..to].to_vec()
                })?;
                let to = Write {
                    fid: op.to,
                    open: OpenId(0),
                    offset: op.to_offset,
                    append: false,
                };
                self.write(&to, &bytes)?
            }
            other => self.names(other)?,
        };
        Ok((reply, None))
    }
}

fn blob(bytes: Vec<u8>) -> Result<Reply, Errno> {
    Ok(Reply::Blob(Blob {
        bytes: Bytes(bytes),
    }))
}

impl Upstream for Tree {
    fn export(&self) -> Export {
        Export {
            root: ROOT,
            acls: false,
            payload_max: 1 << 20,
            file_locks: false,
        }
    }

    fn next_open(&self) -> OpenId {
        let id = self.opens.get();
        self.opens.set(id + 1);
        OpenId(id)
    }

    async fn call(
        &self,
        _: &Context,
        request: Request,
        payload: Option<Slice>,
        interrupt: &Interrupt,
    ) -> Result<Answer, Errno> {
        *self
            .counts
            .0
            .lock()
            .expect("no panic")
            .entry(request.label())
            .or_default() += 1;
        // A box that is away: what is asked of it waits until it is given up.
        if matches!(&request, Request::Lookup(op) if op.name.as_bytes() == b"away") {
            interrupt.raised().await;
            return Err(Errno::EINTR);
        }
        self.opened(request, payload)
    }

    async fn drain(&self) {}
}
