//! The fixed headers. Every frame is: common head (32 bytes), request head or
//! reply head (by kind), body, padding, payload. A body is the operation's
//! record; the payload is file data and starts at a multiple of 8 from the
//! frame's start, so that a receiver may place it in aligned memory of its own.

use crate::base::{ClientId, Errno, Fid, LockId, MapEpoch, SnapEpoch, Tag, Time, Transno, Xid};
use crate::{code, record};

code! {
    /// What a frame is. Callbacks travel from the box to the client on the
    /// client's own connection, reversed; their replies carry the same xid.
    pub enum Kind {
        Request = 1,
        Reply = 2,
        /// "Still working": moves the deadline of `xid`, carries no result.
        EarlyReply = 3,
        Callback = 4,
        CallbackReply = 5,
        /// Unsolicited: a new `last_committed`, lease or grant (X6).
        Notice = 6,
    }
}

record! {
    /// First 32 bytes of every frame.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Head {
        /// [`MAGIC`]; a peer that sends anything else loses its connection.
        pub magic: u32,
        pub kind: Kind,
        /// Length of the kind's own head, for heads that grew behind a feature.
        pub head_len: u8,
        /// Tag of the operation ([`Request`](super::Request) or callback).
        pub op: u16,
        /// Bytes of body after the heads, at most `limits::BODY_MAX`.
        pub body_len: u32,
        /// Bytes of payload after body and padding, at most `limits::PAYLOAD_MAX`.
        pub payload_len: u32,
        pub xid: u64,
        /// CRC32C of the whole frame with this field as zero, if
        /// `Features::CHECKSUM` is on and always in CONNECT; else 0.
        pub crc: u32,
        pub reserved: u32,
    }
}

/// "FBAY", little-endian.
pub const MAGIC: u32 = 0x5941_4246;
pub const HEAD_LEN: usize = 32;
pub const REQUEST_HEAD_LEN: usize = 88;
pub const REPLY_HEAD_LEN: usize = 88;
pub const CALLBACK_HEAD_LEN: usize = 88;

/// [`RequestHead::tag`] of requests that hold no reply slot: those of the
/// connection itself (ping, credentials, opens, abandons).
pub const NO_TAG: Tag = Tag(u16::MAX);

record! {
    /// What every request says of itself.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct RequestHead {
        /// Incarnation of the export that the client believes in; 0 in CONNECT.
        pub incarnation: u64,
        /// Counts the client's connections; a lower one than the export has is dropped.
        pub conn_count: u32,
        pub epoch: MapEpoch,
        /// Highest xid below which the client has seen all replies.
        pub last_xid: Xid,
        /// The transno of a replayed request, else 0.
        pub transno: Transno,
        /// Bytes of flash that the client may still use on the box's promise
        /// ([`ReplyHead::grant_bytes`]), or has used and not heard of. In a
        /// replay: the version of the object before the operation, for replay in
        /// gaps (0: any).
        pub grant: u64,
        pub tag: Tag,
        /// [`flags`].
        pub flags: u16,
        /// Credential declared before on this connection; 0 is "the box's own".
        pub cred: u32,
        /// The client's lock owner: (client, this, kind).
        pub owner: u64,
        pub owner_kind: u8,
        pub pad: u8,
        /// Bits of umask to apply at create.
        pub umask: u16,
        /// How long the client waits, in milliseconds; 0: for ever.
        pub deadline_ms: u32,
        pub trace: u64,
        /// An earlier sent request that the client gave up (C11); 0: none.
        pub abandoned: Xid,
        /// When the client did it, in nanoseconds since 1970 on the box's clock
        /// as far as it knows that; 0: now. Only with ORDERED.
        pub at: u64,
    }
}

/// Bits of [`RequestHead::flags`].
pub mod flags {
    /// The effect was seen before and may be lost: run again as `transno`.
    pub const REPLAY: u16 = 1;
    /// The reply was never seen: run, or answer from the reply record.
    pub const RESENT: u16 = 2;
    /// Clear setuid, setgid and capabilities with the operation (L11).
    pub const KILL_PRIV: u16 = 4;
    /// The body is followed by lock wants and early cancels
    /// ([`Asked`](crate::wire::Asked)); needs LOCKS.
    pub const LOCKS: u16 = 8;
    /// Page write-back: served under the lock that covered the page (C7).
    pub const PAGE_WRITE: u16 = 16;
    /// Runs after all ORDERED requests that came before it on the connection,
    /// and before those that come later; needs ORDER. The client has answered
    /// it to its caller already.
    pub const ORDERED: u16 = 32;
    /// Runs after all ORDERED requests that came before it; needs ORDER.
    pub const AFTER: u16 = 64;
}

/// Bits of [`ReplyHead::flags`].
pub mod reply_flags {
    /// The body is followed by granted locks
    /// ([`Granted`](crate::wire::Granted)); needs LOCKS.
    pub const GRANTS: u32 = 1;
    /// The object is contended: locks on it are not worth asking for now.
    pub const CONTENDED: u32 = 2;
}

record! {
    /// What every reply says.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct ReplyHead {
        /// 0, or an errno.
        pub status: i32,
        pub epoch: MapEpoch,
        /// The operation's place in the shard's order; 0 if it changed nothing.
        pub transno: Transno,
        /// All transnos up to this one are on flash.
        pub last_committed: Transno,
        /// Box time at the reply (O13).
        pub time: Time,
        /// The lease, in milliseconds from receipt.
        pub lease_ms: u32,
        /// What the shard thinks a request takes now, and what this one took.
        pub estimate_us: u32,
        pub service_us: u32,
        /// For a batch: index of the last operation that was done, plus one.
        pub batch_done: u32,
        /// What the client may have answered ahead of the box at a time (L4), in
        /// bytes of flash: each request counts as [`spends`]. 0: nothing.
        pub grant_bytes: u64,
        /// 0: files are granted as FIDs ...
        pub grant_inodes: u32,
        /// ... and records are counted in `grant_bytes`.
        pub grant_log: u32,
        /// Snapshot epoch in force.
        pub snap_epoch: u32,
        /// Shards' lock volume, for the client's lock LRU.
        pub lock_volume: u32,
        /// [`reply_flags`].
        pub flags: u32,
        /// Version of the object before the operation (0: not told).
        pub pre_version: u64,
    }
}

/// Flash that a request answered ahead may take: its records, and its bytes in
/// whole blocks.
#[must_use]
pub fn spends(bytes: usize) -> u64 {
    const BLOCK: u64 = 4096;
    (bytes as u64).next_multiple_of(BLOCK) + BLOCK
}

impl ReplyHead {
    /// The errno, if the operation failed. A status that is no errno is EIO.
    #[must_use]
    pub fn failure(&self) -> Option<Errno> {
        match self.status {
            0 => None,
            n if (1..4096).contains(&n) => Some(Errno(n)),
            _ => Some(Errno::EIO),
        }
    }
}

record! {
    /// What a callback says of itself; answered by a frame with the same xid
    /// and a [`RequestHead`].
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct CallbackHead {
        pub incarnation: u64,
        pub conn_count: u32,
        pub epoch: MapEpoch,
        /// The lock it is about, as the client named it (L1).
        pub lock: LockId,
        pub fid: Fid,
        /// The range that is wanted, sent first when it is flushed (H6).
        pub start: u64,
        pub end: u64,
        /// Inode bits that are wanted, and the mode they are wanted in.
        pub bits: u64,
        pub mode: u32,
        /// The client is evicted if it neither answers nor sends data for so long.
        pub deadline_ms: u32,
        pub trace: u64,
        pub snap_epoch: SnapEpoch,
        pub flags: u32,
    }
}

record! {
    /// A file-lock or open-file owner, box-wide (L12).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Owner {
        pub client: ClientId,
        pub id: u64,
        pub kind: u8,
    }
}
