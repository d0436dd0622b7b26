//! Open files: opening, contents, sync, and closing.

use crate::base::codec::Bytes;
use crate::base::{Bits, Codec, Errno, Extent, Fid, FileKind, Name, OpenId, Slice};
use crate::client::Fill;
use crate::fuse::abi::flag::{FSYNC_DATA_ONLY, OPEN_KILL_SUIDGID, write};
use crate::fuse::abi::input::{
    CopyFileRangeIn, CreateIn, FallocateIn, FsyncIn, InHeader, LseekIn, OpenIn, ReadIn, ReleaseIn,
    WriteIn,
};
use crate::fuse::abi::output::{OffsetOut, WriteOut};
use crate::fuse::kernel::Kernel;
use crate::fuse::session::{Origin, Outcome, Session};
use crate::fuse::upstream::Upstream;
use crate::wire::op::{
    Close, CopyRange, Create, Entry, Fallocate, Fsync, Intent, Open, Read, Seek, Write,
};
use crate::wire::{Reply, Request, head};
use crate::world::{Level, World};
use std::rc::Rc;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    pub(super) async fn on_open(&self, from: &Origin, args: OpenIn) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let open = self.upstream.next_open();
        let request = Open {
            fid,
            open,
            flags: args.flags,
            intent: Intent::default(),
        };
        let mut ask = self.plain(from, Request::Open(request));
        ask.context.flags = kill_flag(args.open_flags);
        self.call(ask).await?;
        let nodeid = from.head.nodeid;
        let out = self.opened(from, nodeid, fid, open, args.flags).await;
        Ok(Outcome::Bytes(out.to_vec()))
    }

    /// CREATE, and TMPFILE where there is no name.
    pub(super) async fn on_create(
        &self,
        from: &Origin,
        name: Option<Name>,
        args: CreateIn,
    ) -> Result<Outcome, Errno> {
        let open = self.upstream.next_open();
        let create = Create {
            parent: self.node(from.head.nodeid)?.fid,
            name,
            kind: FileKind::Regular,
            mode: args.mode & 0o7777,
            rdev: 0,
            link: Bytes::default(),
            exclusive: args.flags & libc::O_EXCL.cast_unsigned() != 0,
            open,
            flags: args.flags,
            fid: Fid::NONE,
            intent: Intent::default(),
        };
        let kill = kill_flag(args.open_flags);
        let name = create.name.clone();
        let entry = self.create(from, create, args.umask, kill).await?;
        // It may have been there: then it has pages, perhaps, and a number that
        // must stay its own until the reply counts it.
        let Entry { fid, ref attr, .. } = entry;
        let is_known = self.is_known(fid);
        let nodeid = self.nodes.borrow_mut().remember(fid, attr.ino);
        let opened = self.opened(from, nodeid, fid, open, args.flags).await;
        let mut out = match &name {
            Some(name) => self.changed(from, (from.head.nodeid, name), &entry, is_known),
            None => self.entry(from, None, &entry),
        };
        self.nodes.borrow_mut().forget(nodeid, 1);
        out.extend(opened.to_vec());
        Ok(Outcome::Bytes(out))
    }

    /// Answered at once; nobody waits for the close to reach the box.
    pub(super) fn on_release(
        self: &Rc<Self>,
        from: &Origin,
        args: ReleaseIn,
    ) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let open = OpenId(args.fh);
        self.upstream.locks_closed(fid, open);
        self.kept.borrow_mut().pages.close(args.fh);
        let ask = self.plain(from, Request::Close(Close { fid, open }));
        let session = Rc::clone(self);
        self.spawn(async move {
            if let Err(e) = session.call(ask).await {
                let line = format!("close of {fid} at the box failed: {e}");
                session.world.log(Level::Warn, &line);
            }
        });
        Ok(Outcome::Done)
    }

    /// What fills pages and was overtaken by their taking back is asked again:
    /// the kernel must not be given what is over, not even for a moment. It is
    /// not over if a lock came with it that is still held: then what was called
    /// back meanwhile is an earlier lock, and who asked again would never end
    /// beside another who does the same.
    pub(super) async fn on_read(&self, from: &Origin, args: ReadIn) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let InHeader { nodeid, unique, .. } = from.head;
        let range = Extent::of(args.offset, u64::from(args.size)).unwrap_or(Extent::ALL);
        loop {
            let begun = self.kept.borrow().races.now();
            let fill = self.kept.borrow().pages.purpose(nodeid, unique);
            let parts = self.read(from, fid, &args, fill).await?;
            let is_gone = {
                let races = &self.kept.borrow().races;
                match self.upstream.covers_fill(unique) {
                    true => races.own_since(begun, fid, range),
                    false => races.since(begun, fid, range).has(Bits::DATA),
                }
            };
            if fill == Fill::No || !is_gone {
                return Ok(Outcome::Data(parts));
            }
            self.upstream.filled(unique);
        }
    }

    /// Reads in full up to the end of the file (C10): the kernel takes a short
    /// answer for that end.
    async fn read(
        &self,
        from: &Origin,
        fid: Fid,
        args: &ReadIn,
        fill: Fill,
    ) -> Result<Vec<Slice>, Errno> {
        let mut parts: Vec<Slice> = Vec::new();
        let mut have = 0u32;
        while have < args.size {
            let read = Read {
                fid,
                open: OpenId(args.fh),
                offset: args
                    .offset
                    .checked_add(u64::from(have))
                    .ok_or(Errno::EINVAL)?,
                len: args.size - have,
            };
            let mut ask = self.plain(from, Request::Read(read));
            ask.context.fill = fill;
            ask.context.fill_id = match fill {
                Fill::No => 0,
                _ => from.head.unique,
            };
            let (reply, payload) = self.call(ask).await?;
            let Reply::Data(data) = reply else {
                return Err(Errno::EIO);
            };
            let got = payload.as_ref().map_or(0, |p| p.len());
            if let Some(part) = payload {
                let part = part.part(0..got.min((args.size - have) as usize));
                have += part.len() as u32;
                parts.push(part);
            }
            if data.eof {
                break;
            }
            // More bytes should be there, and none came: an error is not an end.
            if got == 0 {
                return Err(Errno::EIO);
            }
            // Who waits for the lock may be before the rest.
            self.upstream.filled(from.head.unique);
        }
        Ok(parts)
    }

    pub(super) async fn on_write(
        &self,
        from: &Origin,
        args: WriteIn,
        payload: Option<Slice>,
    ) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let is_page = args.write_flags & write::CACHE != 0;
        let request = Write {
            fid,
            open: OpenId(args.fh),
            offset: args.offset,
            // The box knows the true end, the kernel may not (C9).
            append: !is_page && args.flags & libc::O_APPEND.cast_unsigned() != 0,
        };
        let last = payload.as_ref().and_then(|bytes| bytes.last().copied());
        let mut ask = self.plain(from, Request::Write(request));
        ask.payload = payload;
        if args.write_flags & write::KILL_SUIDGID != 0 {
            ask.context.flags |= head::flags::KILL_PRIV;
        }
        let nodeid = from.head.nodeid;
        if is_page {
            if self.kept.borrow().pages.is_condemned(nodeid) {
                return Err(Errno::EIO);
            }
            ask.context.flags |= head::flags::PAGE_WRITE;
        }
        let written = match self.call(ask).await?.0 {
            Reply::Written(done) if done.written <= args.size => done,
            _ => return Err(Errno::EIO),
        };
        let range = Extent::of(written.offset, u64::from(written.written));
        if let Some(range) = range {
            self.kept
                .borrow_mut()
                .sizes
                .reach(nodeid, range.end.saturating_add(1));
        }
        if let Some(range) = range.filter(|_| !is_page) {
            self.drop_written(nodeid, fid, range, from.fills).await;
            // The kernel takes them for written where it thought the end was.
            let is_misplaced = written.offset != args.offset && written.written > 0;
            if is_misplaced && self.kept.borrow().pages.may_map(nodeid) {
                let (end, last) = (range.end + 1, last.unwrap_or(0));
                self.this().grown(fid, end, last).await;
            }
        }
        let written = written.written;
        self.sync_if_asked(from, fid, args.flags).await?;
        Ok(write_out(written))
    }

    /// Files opened with O_SYNC or O_DSYNC, and mounts with `sync`: the kernel
    /// passes the flags on with each write, and leaves the rest to us.
    async fn sync_if_asked(&self, from: &Origin, fid: Fid, flags: u32) -> Result<(), Errno> {
        let flags = flags.cast_signed();
        if flags & libc::O_DSYNC == 0 {
            return Ok(());
        }
        let data_only = flags & libc::O_SYNC != libc::O_SYNC;
        let fsync = Request::Fsync(Fsync { fid, data_only });
        self.ask(from, fsync).await.map(|_| ())
    }

    pub(super) async fn on_fsync(&self, from: &Origin, args: FsyncIn) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let data_only = args.fsync_flags & FSYNC_DATA_ONLY != 0;
        let fsync = Request::Fsync(Fsync { fid, data_only });
        self.ask(from, fsync).await.map(|_| Outcome::Done)
    }

    pub(super) async fn on_fallocate(
        &self,
        from: &Origin,
        args: FallocateIn,
    ) -> Result<Outcome, Errno> {
        let request = Fallocate {
            fid: self.node(from.head.nodeid)?.fid,
            mode: args.mode,
            offset: args.offset,
            len: args.len,
        };
        self.ask(from, Request::Fallocate(request))
            .await
            .map(|_| Outcome::Done)
    }

    /// SEEK_DATA and SEEK_HOLE; the kernel does the others itself.
    pub(super) async fn on_lseek(&self, from: &Origin, args: LseekIn) -> Result<Outcome, Errno> {
        let seek = Seek {
            fid: self.node(from.head.nodeid)?.fid,
            offset: args.offset,
            whence: args.whence,
        };
        match self.ask(from, Request::Seek(seek)).await? {
            Reply::Offset(found) => {
                let offset = found.offset;
                Ok(Outcome::Bytes(OffsetOut { offset }.to_vec()))
            }
            _ => Err(Errno::EIO),
        }
    }

    /// Copies at most [`COPY_MAX`] bytes; the caller goes on after a short copy.
    pub(super) async fn on_copy(
        &self,
        from: &Origin,
        args: CopyFileRangeIn,
        wide: bool,
    ) -> Result<Outcome, Errno> {
        let copy = CopyRange {
            from: self.node(from.head.nodeid)?.fid,
            from_offset: args.offset_in,
            to: self.node(args.nodeid_out)?.fid,
            to_offset: args.offset_out,
            len: args.len.min(COPY_MAX),
        };
        match self.ask(from, Request::CopyRange(copy)).await? {
            Reply::Written(done) if u64::from(done.written) > args.len => Err(Errno::EIO),
            Reply::Written(done) if wide => {
                let offset = u64::from(done.written);
                Ok(Outcome::Bytes(OffsetOut { offset }.to_vec()))
            }
            Reply::Written(done) => Ok(write_out(done.written)),
            _ => Err(Errno::EIO),
        }
    }
}

fn kill_flag(open_flags: u32) -> u16 {
    match open_flags & OPEN_KILL_SUIDGID {
        0 => 0,
        _ => head::flags::KILL_PRIV,
    }
}

fn write_out(size: u32) -> Outcome {
    Outcome::Bytes(WriteOut { size, padding: 0 }.to_vec())
}

/// Bounds how long one copy keeps its caller from a signal.
const COPY_MAX: u64 = 16 << 20;
