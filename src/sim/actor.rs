//! A client that does the model's operations on a box and tells what it saw in
//! the model's words.

use super::model::{How, Id, Op, Outcome, ROOT, Seen, Shown, pattern};
use super::sparse::Sparse;
use super::tree::{self, Tree};
use super::world::SimWorld;
use crate::base::codec::Bytes;
use crate::base::limits::PAYLOAD_MAX;
use crate::base::{Attr, Errno, Fid, FileKind, OpenId, SetAttr, Slice};
use crate::client::{CallError, Client, Context};
use crate::wire::op::{self, Entry, Intent, Listing};
use crate::wire::{Reply, Request};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The FIDs of the model's files, the same for all clients of a target.
pub type Fids = Rc<RefCell<BTreeMap<Id, Fid>>>;

/// One client program.
pub struct Actor {
    pub client: Client<SimWorld>,
    context: Context,
    fids: Fids,
    /// Handles that it holds open.
    opens: RefCell<BTreeMap<Id, Vec<OpenId>>>,
}

type Answer<T> = Result<T, CallError>;

impl Actor {
    #[must_use]
    pub fn new(client: Client<SimWorld>, fids: Fids) -> Actor {
        fids.borrow_mut().insert(ROOT, client.root());
        Actor {
            client,
            context: Context::of(0, 0),
            fids,
            opens: RefCell::default(),
        }
    }

    /// Does `op`. The FID is that of a file just created.
    ///
    /// # Errors
    /// What is no answer of the box to the operation.
    pub async fn perform(&self, op: &Op) -> Answer<(Outcome, Option<Fid>)> {
        match self.run(op).await {
            Ok((seen, fid)) => Ok((Ok(seen), fid)),
            Err(CallError::Failed(errno)) => Ok((Err(errno), None)),
            Err(other) => Err(other),
        }
    }

    async fn run(&self, op: &Op) -> Answer<(Seen, Option<Fid>)> {
        match op {
            Op::Create { kind, .. } => {
                let open = self.client.next_open();
                let entry = self.entry(self.create(op, open)).await?;
                if *kind == FileKind::Regular {
                    self.close(entry.fid, open).await?;
                }
                return Ok((Seen::File(shown(&entry.attr)), Some(entry.fid)));
            }
            Op::Open(id) => {
                let (open, flags) = (self.client.next_open(), libc::O_RDWR.cast_unsigned());
                let (fid, intent) = (self.fid(*id), Intent::default());
                self.ask(Request::Open(op::Open {
                    fid,
                    open,
                    flags,
                    intent,
                }))
                .await?;
                self.opens.borrow_mut().entry(*id).or_default().push(open);
            }
            Op::Close(id) => {
                let open = self.opens.borrow_mut().get_mut(id).and_then(Vec::pop);
                self.close(self.fid(*id), open.unwrap_or_default()).await?;
            }
            Op::Write {
                file,
                offset,
                len,
                fill,
                append,
            } => {
                let (fid, open) = (self.fid(*file), self.open(*file));
                let (offset, append) = (*offset, *append);
                let request = Request::Write(op::Write {
                    fid,
                    open,
                    offset,
                    append,
                });
                let bytes = Slice::from(pattern(*fill, *len));
                let (reply, _) = self
                    .client
                    .call(&self.context, request, Some(bytes))
                    .await?;
                match reply {
                    Reply::Written(w) if w.written as usize == *len => {}
                    _ => return Err(CallError::Protocol),
                }
            }
            Op::Read { file, offset, len } => {
                return Ok((self.read(*file, *offset, *len).await?, None));
            }
            Op::Lookup { .. } | Op::Getattr(_) | Op::Link { .. } => {
                let entry = self.entry(self.request(op)).await?;
                return Ok((Seen::File(shown(&entry.attr)), None));
            }
            Op::Readdir(id) => {
                let entries = self.list(self.fid(*id)).await?;
                let mut names: Vec<_> = entries.into_iter().map(|e| (e.name, e.kind)).collect();
                names.sort();
                return Ok((Seen::Names(names), None));
            }
            Op::Readlink(_) | Op::XattrGet { .. } => {
                return Ok((Seen::Bytes(self.blob(self.request(op)).await?), None));
            }
            Op::XattrList(_) => {
                let list = self.blob(self.request(op)).await?;
                let mut names: Vec<_> = list.split_inclusive(|b| *b == 0).collect();
                names.sort_unstable();
                return Ok((Seen::Bytes(names.concat()), None));
            }
            _ => {
                self.ask(self.request(op)).await?;
            }
        }
        Ok((Seen::Done, None))
    }

    fn create(&self, op: &Op, open: OpenId) -> Request {
        let Op::Create {
            dir,
            name,
            kind,
            mode,
            link,
        } = op
        else {
            return Request::Ping(op::Empty {});
        };
        let regular = *kind == FileKind::Regular;
        Request::Create(op::Create {
            parent: self.fid(*dir),
            name: Some(name.clone()),
            kind: *kind,
            mode: *mode,
            rdev: 0,
            link: Bytes(link.clone()),
            exclusive: true,
            open: if regular { open } else { OpenId(0) },
            flags: libc::O_RDWR.cast_unsigned(),
            fid: Fid::NONE,
            intent: Intent::default(),
        })
    }

    /// The requests that say no more than the operation does.
    fn request(&self, op: &Op) -> Request {
        let fid = |id: &Id| self.fid(*id);
        let intent = Intent::default;
        let of = |id: &Id| op::OfFile {
            fid: fid(id),
            intent: intent(),
        };
        match op {
            Op::Link { file, dir, name } => {
                let (fid, parent, name) = (fid(file), fid(dir), name.clone());
                Request::Link(op::Link { fid, parent, name })
            }
            Op::Unlink { dir, name, is_dir } => {
                let (parent, name, dir) = (fid(dir), name.clone(), *is_dir);
                Request::Unlink(op::Unlink { parent, name, dir })
            }
            Op::Rename {
                from,
                name,
                to,
                to_name,
                how,
            } => Request::Rename(op::Rename {
                from: fid(from),
                from_name: name.clone(),
                to: fid(to),
                to_name: to_name.clone(),
                flags: match how {
                    How::Replace => 0,
                    How::NoReplace => libc::RENAME_NOREPLACE,
                    How::Exchange => libc::RENAME_EXCHANGE,
                },
            }),
            Op::Truncate { file, size } => self.set(*file, |set| set.size = Some(*size)),
            Op::Chmod { file, mode } => self.set(*file, |set| set.mode = Some(*mode)),
            Op::Chown { file, uid, gid } => {
                self.set(*file, |set| (set.uid, set.gid) = (Some(*uid), Some(*gid)))
            }
            Op::Utimes { file, mtime } => self.set(*file, |set| set.mtime = Some(*mtime)),
            Op::Punch { file, offset, len } => {
                let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE).cast_unsigned();
                let (fid, offset, len) = (fid(file), *offset, *len);
                Request::Fallocate(op::Fallocate {
                    fid,
                    mode,
                    offset,
                    len,
                })
            }
            Op::Zero {
                file,
                offset,
                len,
                keep_size,
            } => {
                let keep = if *keep_size {
                    libc::FALLOC_FL_KEEP_SIZE
                } else {
                    0
                };
                let mode = (libc::FALLOC_FL_ZERO_RANGE | keep).cast_unsigned();
                let (fid, offset, len) = (fid(file), *offset, *len);
                Request::Fallocate(op::Fallocate {
                    fid,
                    mode,
                    offset,
                    len,
                })
            }
            Op::Fsync(id) => Request::Fsync(op::Fsync {
                fid: fid(id),
                data_only: false,
            }),
            Op::Getattr(id) => Request::Getattr(of(id)),
            Op::Lookup { dir, name } => {
                let (parent, name, intent) = (fid(dir), name.clone(), intent());
                Request::Lookup(op::Named {
                    parent,
                    name,
                    intent,
                })
            }
            Op::Readlink(id) => Request::Readlink(of(id)),
            Op::XattrSet { file, name, value } => Request::XattrSet(op::XattrSet {
                fid: fid(file),
                name: Bytes(name.clone()),
                value: Bytes(value.clone()),
                flags: 0,
                clear_sgid: false,
            }),
            Op::XattrGet { file, name } => {
                let (fid, name) = (fid(file), Bytes(name.clone()));
                Request::XattrGet(op::XattrName { fid, name })
            }
            Op::XattrRemove { file, name } => {
                let (fid, name) = (fid(file), Bytes(name.clone()));
                Request::XattrRemove(op::XattrName { fid, name })
            }
            Op::XattrList(id) => Request::XattrList(of(id)),
            _ => Request::Ping(op::Empty {}),
        }
    }

    fn set(&self, file: Id, change: impl FnOnce(&mut SetAttr)) -> Request {
        let mut set = SetAttr::default();
        change(&mut set);
        let fid = self.fid(file);
        Request::Setattr(op::Setattr { fid, set })
    }

    /// Reads in requests of at most 64 KiB; each is full or ends the file (C10).
    async fn read(&self, file: Id, offset: u64, len: usize) -> Answer<Seen> {
        let mut out: Vec<u8> = Vec::new();
        while out.len() < len {
            let want = (len - out.len()).min(READ_BYTES);
            let at = offset + out.len() as u64;
            let bytes = self
                .read_at(self.fid(file), self.open(file), at, want)
                .await?;
            out.extend_from_slice(&bytes);
            if bytes.len() < want {
                break;
            }
        }
        Ok(Seen::Data(out.len(), crc32c::crc32c(&out)))
    }

    /// One request.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn read_at(&self, fid: Fid, open: OpenId, offset: u64, len: usize) -> Answer<Slice> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let request = Request::Read(op::Read {
            fid,
            open,
            offset,
            len,
        });
        match self.client.call(&self.context, request, None).await? {
            (Reply::Data(_), data) => Ok(data.unwrap_or_else(|| Slice::from(Vec::new()))),
            _ => Err(CallError::Protocol),
        }
    }

    /// All entries, asked for in small portions.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn list(&self, fid: Fid) -> Answer<Vec<op::DirEntry>> {
        let mut all: Vec<op::DirEntry> = Vec::new();
        loop {
            let cookie = all.last().map_or(0, |e| e.cookie);
            let (bytes, attrs) = (LIST_BYTES, false);
            let request = Request::Readdir(op::Readdir {
                fid,
                cookie,
                bytes,
                attrs,
            });
            let Reply::Listing(Listing { entries, end, .. }) = self.ask(request).await? else {
                return Err(CallError::Protocol);
            };
            if entries.is_empty() && !end {
                return Err(CallError::Protocol);
            }
            all.extend(entries);
            if end {
                return Ok(all);
            }
        }
    }

    /// The whole tree as this client sees it.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn tree(&self) -> Answer<Tree> {
        let mut tree = Tree::default();
        let mut known: BTreeMap<Fid, tree::Entry> = BTreeMap::new();
        let mut todo = vec![(Vec::new(), self.client.root())];
        while let Some((path, fid)) = todo.pop() {
            if let Some(entry) = known.get(&fid) {
                tree.0.insert(path, entry.clone());
                continue;
            }
            let entry = self.look_at(fid, known.len() as u64).await?;
            if entry.kind == FileKind::Directory {
                for child in self.list(fid).await? {
                    let mut below: Vec<u8> = path.clone();
                    if !below.is_empty() {
                        below.push(b'/');
                    }
                    below.extend_from_slice(child.name.as_bytes());
                    todo.push((below, child.fid));
                }
            }
            known.insert(fid, entry.clone());
            tree.0.insert(path, entry);
        }
        Ok(tree)
    }

    /// All of one file.
    async fn look_at(&self, fid: Fid, same: u64) -> Answer<tree::Entry> {
        let of = || op::OfFile {
            fid,
            intent: Intent::default(),
        };
        let attr = self.entry(Request::Getattr(of())).await?.attr;
        let mut bytes = Sparse::default();
        if attr.kind == FileKind::Regular {
            while bytes.size() < attr.size {
                let at = bytes.size();
                let got = self.read_at(fid, OpenId(0), at, PAYLOAD_MAX).await?;
                if got.is_empty() {
                    return Err(CallError::Protocol);
                }
                bytes.write(at, &got);
            }
        }
        let link = match attr.kind {
            FileKind::Symlink => Some(self.blob(Request::Readlink(of())).await?),
            _ => None,
        };
        let mut xattrs = BTreeMap::new();
        let list = self.blob(Request::XattrList(of())).await?;
        for name in list.split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let request = Request::XattrGet(op::XattrName {
                fid,
                name: Bytes(name.to_vec()),
            });
            xattrs.insert(name.to_vec(), self.blob(request).await?);
        }
        Ok(tree::Entry {
            kind: attr.kind,
            mode: attr.mode,
            uid: attr.uid,
            gid: attr.gid,
            rdev: attr.rdev,
            bytes,
            link,
            xattrs,
            mtime: attr.mtime,
            same,
        })
    }

    async fn close(&self, fid: Fid, open: OpenId) -> Answer<()> {
        self.ask(Request::Close(op::Close { fid, open }))
            .await
            .map(|_| ())
    }

    /// # Errors
    /// As [`Client::call`].
    pub async fn ask(&self, request: Request) -> Answer<Reply> {
        Ok(self.client.call(&self.context, request, None).await?.0)
    }

    /// # Errors
    /// As [`Client::call`].
    pub async fn entry(&self, request: Request) -> Answer<Entry> {
        match self.ask(request).await? {
            Reply::Entry(entry) => Ok(entry),
            _ => Err(CallError::Protocol),
        }
    }

    /// # Errors
    /// As [`Client::call`].
    pub async fn blob(&self, request: Request) -> Answer<Vec<u8>> {
        match self.ask(request).await? {
            Reply::Blob(blob) => Ok(blob.bytes.0),
            _ => Err(CallError::Protocol),
        }
    }

    /// A file that the model knows and the box never named is no file.
    fn fid(&self, id: Id) -> Fid {
        self.fids.borrow().get(&id).copied().unwrap_or(Fid::NONE)
    }

    fn open(&self, id: Id) -> OpenId {
        let opens = self.opens.borrow();
        opens
            .get(&id)
            .and_then(|o| o.last())
            .copied()
            .unwrap_or_default()
    }
}

fn shown(attr: &Attr) -> Shown {
    Shown {
        kind: attr.kind,
        mode: attr.mode,
        uid: attr.uid,
        gid: attr.gid,
        nlink: attr.nlink,
        size: match attr.kind {
            FileKind::Directory => 0,
            _ => attr.size,
        },
    }
}

/// An errno that no operation of the workload may see.
#[must_use]
pub fn is_alien(errno: Errno) -> bool {
    [Errno::EIO, Errno::ENOSYS, Errno::EPROTO].contains(&errno)
}

const READ_BYTES: usize = 64 << 10;
const LIST_BYTES: u32 = 400;
