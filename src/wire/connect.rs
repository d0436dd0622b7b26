//! CONNECT: the client offers features and limits, the box masks and echoes.
//! A grant that was not offered is a protocol error. Peers are refused by
//! missing feature, never by version.

use crate::base::codec::Bytes;
use crate::base::{BoxId, ClientId, Fid, MapEpoch, ShardId, Transno};
use crate::record;

record! {
    /// A set of protocol features. Bits are never reused.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features {
        pub bits: u64,
    }
}

impl Features {
    /// The base protocol; a peer without it is refused.
    pub const BASE: u64 = 1;
    /// CRC32C in every frame.
    pub const CHECKSUM: u64 = 1 << 1;
    /// Never used: several operations in one request.
    pub const BATCH: u64 = 1 << 2;
    /// Locks and callbacks.
    pub const LOCKS: u64 = 1 << 3;
    /// FID ranges granted ahead of need.
    pub const FID_GRANTS: u64 = 1 << 4;
    /// Files striped over shards.
    pub const STRIPES: u64 = 1 << 5;
    /// Snapshot epochs and barriers.
    pub const SNAPSHOTS: u64 = 1 << 6;
    /// Data of small files in the reply to lookup and open.
    pub const INLINE_DATA: u64 = 1 << 7;
    /// Unsolicited notices.
    pub const NOTICES: u64 = 1 << 8;
    /// flock and fcntl locks.
    pub const FILE_LOCKS: u64 = 1 << 9;
    /// Requests in an order of their own, answered ahead by the client.
    pub const ORDER: u64 = 1 << 10;
    /// Callbacks that say how far a file is about to grow, and their answer.
    pub const GROWTH: u64 = 1 << 11;
    /// Who has a file to himself is asked what it is like, and keeps it.
    pub const GLIMPSE: u64 = 1 << 12;
    /// An extended attribute that is none: where a file's newest bytes are safe.
    pub const CUSTODY: u64 = 1 << 13;

    /// What this release can do.
    pub const OURS: Features = Features {
        bits: Features::BASE
            | Features::CHECKSUM
            | Features::LOCKS
            | Features::NOTICES
            | Features::FILE_LOCKS
            | Features::FID_GRANTS
            | Features::INLINE_DATA
            | Features::ORDER
            | Features::GROWTH
            | Features::GLIMPSE
            | Features::CUSTODY,
    };

    #[must_use]
    pub const fn has(self, bit: u64) -> bool {
        self.bits & bit == bit
    }
    #[must_use]
    pub const fn masked(self, by: Features) -> Features {
        Features {
            bits: self.bits & by.bits,
        }
    }
    /// Nothing in `self` that is not in `of`.
    #[must_use]
    pub const fn is_subset(self, of: Features) -> bool {
        self.bits & !of.bits == 0
    }
}

record! {
    /// First request on every connection (operation tag [`CONNECT`]).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ConnectRequest {
        pub features: Features,
        pub client: ClientId,
        /// What the client calls itself in lists: host name and mount point.
        pub name: String,
        pub target: String,
        /// Incarnation that the client was connected to before, 0 if none.
        pub incarnation: u64,
        pub conn_count: u32,
        /// The shard that this connection is for; [`ANY_SHARD`] while the
        /// client knows no map: the one that has the target's root.
        pub shard: ShardId,
        pub payload_max: u32,
        pub tags: u16,
        pub lease_ms: u32,
        /// First transno that the client will replay, and the highest
        /// last_committed that it has seen (F10: a box that went back is refused).
        pub replay_from: Transno,
        pub committed_seen: Transno,
        /// Boxes that this connection has passed through (H1).
        pub path: Vec<BoxId>,
        pub read_only: bool,
    }
}

/// [`ConnectRequest::shard`] of a client that has no shard map yet.
pub const ANY_SHARD: ShardId = ShardId(u16::MAX);

/// The operation tag of CONNECT in the common head.
pub const CONNECT: u16 = 1;

record! {
    /// Which shard owns which FID sequences (N7): `[seq, next entry's seq)`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ShardMap {
        pub epoch: MapEpoch,
        pub ranges: Vec<(u64, ShardId)>,
    }
}

impl ShardMap {
    #[must_use]
    pub fn shard_of(&self, fid: Fid) -> Option<ShardId> {
        let after = self.ranges.partition_point(|(seq, _)| *seq <= fid.seq);
        after.checked_sub(1).map(|i| self.ranges[i].1)
    }
}

record! {
    /// The box's answer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ConnectReply {
        pub features: Features,
        pub incarnation: u64,
        pub conn_count: u32,
        pub box_id: BoxId,
        /// Generation of the box's flash; clients log it.
        pub generation: u64,
        /// The target's root.
        pub root: Fid,
        pub map: ShardMap,
        pub payload_max: u32,
        pub tags: u16,
        pub lease_ms: u32,
        pub last_committed: Transno,
        /// Known client, kept state: replay and resend; else start afresh.
        pub recovering: bool,
        pub read_only: bool,
        /// Name-hash function and key for directory cookies (N11).
        pub hash_kind: u8,
        pub hash_key: Bytes,
        pub acls: bool,
        pub xattrs: bool,
    }
}
