//! Attributes, extended attributes, links' targets, and the file system's size.

use super::names::of_file;
use super::{blob_in, entry_in};
use crate::base::codec::Bytes;
use crate::base::{Codec, Errno, SetAttr};
use crate::fuse::abi::ROOT_ID;
use crate::fuse::abi::flag::SETXATTR_ACL_KILL_SGID;
use crate::fuse::abi::input::SetxattrIn;
use crate::fuse::abi::output::{GetxattrOut, StatfsOut, Validity};
use crate::fuse::abi::parse::Op;
use crate::fuse::kernel::Kernel;
use crate::fuse::session::{Origin, Outcome, Session};
use crate::fuse::upstream::Upstream;
use crate::fuse::{COUNTERS_XATTR, PID_XATTR};
use crate::namespace::xattr::CUSTODY;
use crate::wire::op::{Intent, OfFile, Setattr, StatfsReply, XattrName, XattrSet};
use crate::wire::{Reply, Request};
use crate::world::World;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    pub(super) async fn on_getattr(&self, from: &Origin, op: Op) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let entry = entry_in(self.ask(from, of_file(fid)).await?)?;
        let (validity, attr) = self.attrs(from, fid, &entry.attr);
        Ok(Outcome::Bytes(match op {
            Op::Statx => validity.statx_out(&attr),
            _ => validity.attr_out(&attr).to_vec(),
        }))
    }

    pub(super) async fn on_setattr(&self, from: &Origin, set: SetAttr) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let nodeid = from.head.nodeid;
        let is_resize = set.size.is_some();
        let ask = self.plain(from, Request::Setattr(Setattr { fid, set }));
        let answer = match is_resize {
            true => self.resizing(nodeid, self.call(ask)).await,
            false => self.call(ask).await,
        };
        let entry = entry_in(answer?.0)?;
        // The kernel takes this answer in whatever it was told to drop after it
        // was written: it is shown once, and asked for again.
        let (_, attr) = self.attrs(from, fid, &entry.attr);
        let validity = Validity::default();
        Ok(Outcome::Bytes(validity.attr_out(&attr).to_vec()))
    }

    pub(super) async fn on_readlink(&self, from: &Origin) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let intent = Intent::default();
        let reply = self.ask(from, Request::Readlink(OfFile { fid, intent }));
        Ok(Outcome::Bytes(blob_in(reply.await?)?))
    }

    pub(super) async fn on_statfs(&self, from: &Origin) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let intent = Intent::default();
        match self
            .ask(from, Request::Statfs(OfFile { fid, intent }))
            .await?
        {
            Reply::Statfs(st) => Ok(Outcome::Bytes(statfs_out(&st).to_vec())),
            _ => Err(Errno::EIO),
        }
    }

    pub(super) async fn on_setxattr(
        &self,
        from: &Origin,
        args: SetxattrIn,
        name: Vec<u8>,
        value: Vec<u8>,
    ) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let set = XattrSet {
            fid,
            name: Bytes(name),
            value: Bytes(value),
            flags: args.flags,
            clear_sgid: args.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0,
        };
        if set.name.0 == CUSTODY {
            return self.carry(from, set).await;
        }
        self.ask(from, Request::XattrSet(set))
            .await
            .map(|_| Outcome::Done)
    }

    /// Waits until the origin has the file. The box answers every now and then
    /// that it is still at it, so that no reply slot is held for as long as an
    /// origin may take (L6), and a signal ends the wait.
    async fn carry(&self, from: &Origin, set: XattrSet) -> Result<Outcome, Errno> {
        loop {
            let asked = self.ask(from, Request::XattrSet(set.clone())).await;
            match asked {
                Err(Errno::EINPROGRESS) if from.interrupt.is_raised() => return Err(Errno::EINTR),
                Err(Errno::EINPROGRESS) => {}
                ended => return ended.map(|_| Outcome::Done),
            }
        }
    }

    /// `PID_XATTR` of the root is answered here, so that `forebay umount` finds
    /// the process behind a mount even while the box is away; and what the mount
    /// has been doing, as `COUNTERS_XATTR`.
    pub(super) async fn on_getxattr(
        &self,
        from: &Origin,
        size: u32,
        name: Vec<u8>,
    ) -> Result<Outcome, Errno> {
        if from.head.nodeid == ROOT_ID && name == PID_XATTR.as_bytes() {
            return sized(std::process::id().to_string().into_bytes(), size);
        }
        if from.head.nodeid == ROOT_ID && name == COUNTERS_XATTR.as_bytes() {
            return sized(self.upstream.counters().into_bytes(), size);
        }
        let fid = self.node(from.head.nodeid)?.fid;
        let name = Bytes(name);
        let reply = self.ask(from, Request::XattrGet(XattrName { fid, name }));
        sized(blob_in(reply.await?)?, size)
    }

    pub(super) async fn on_listxattr(&self, from: &Origin, size: u32) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let intent = Intent::default();
        let reply = self.ask(from, Request::XattrList(OfFile { fid, intent }));
        sized(blob_in(reply.await?)?, size)
    }

    pub(super) async fn on_removexattr(
        &self,
        from: &Origin,
        name: Vec<u8>,
    ) -> Result<Outcome, Errno> {
        let fid = self.node(from.head.nodeid)?.fid;
        let name = Bytes(name);
        let remove = Request::XattrRemove(XattrName { fid, name });
        self.ask(from, remove).await.map(|_| Outcome::Done)
    }
}

/// A value for a caller with room for `size` bytes; 0 asks for its length.
fn sized(value: Vec<u8>, size: u32) -> Result<Outcome, Errno> {
    let len = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
    match size {
        0 => Ok(Outcome::Bytes(
            GetxattrOut {
                size: len,
                padding: 0,
            }
            .to_vec(),
        )),
        _ if len > size => Err(Errno::ERANGE),
        _ => Ok(Outcome::Bytes(value)),
    }
}

fn statfs_out(st: &StatfsReply) -> StatfsOut {
    StatfsOut {
        blocks: st.blocks,
        bfree: st.bfree,
        bavail: st.bavail,
        files: st.files,
        ffree: st.ffree,
        bsize: st.bsize,
        namelen: st.namelen,
        frsize: st.bsize,
        padding: 0,
        spare0: 0,
        spare1: 0,
        spare2: 0,
    }
}
