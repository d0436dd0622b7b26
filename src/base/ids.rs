//! Identities and orders, each a type of its own so that a transno is never
//! passed where an xid belongs.

use crate::base::codec::{Codec, DecodeError, Reader, Writer};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl Codec for $name {
            fn encode(&self, w: &mut Writer) {
                self.0.encode(w);
            }
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok($name(<$inner>::decode(r)?))
            }
        }

        impl $name {
            /// The next value; the counters are wide enough never to wrap.
            #[must_use]
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }
    };
}

number!(
    /// A pinned thread that owns a slice of the namespace and of the flash.
    ShardId(u16)
);
number!(
    /// An exported tree; stable over restarts (stored in the superblock by name).
    TargetId(u32)
);
number!(
    /// A client's request number, increasing over the life of the client.
    Xid(u64)
);
number!(
    /// The reply slot that a request occupies.
    Tag(u16)
);
number!(
    /// The shard's order of state-changing operations. Zero: changes nothing.
    Transno(u64)
);
number!(
    /// Position in a shard's journal, counting records. Never reused.
    Lsn(u64)
);
number!(
    /// How often the box's flash was opened for writing (F1).
    Generation(u64)
);
number!(
    /// Version of the sequence-to-shard table (N7).
    MapEpoch(u32)
);
number!(
    /// A client's identity, random, kept over reconnects and restarts of the box.
    ClientId(u128)
);
number!(
    /// Identity of a box, random, written when its flash is formatted.
    BoxId(u128)
);
number!(
    /// A client-chosen name of an open file, unique within the client.
    OpenId(u64)
);
number!(
    /// A client-chosen lock id (L1).
    LockId(u64)
);
number!(
    /// Snapshot epoch of a record or a dirty extent (F12).
    SnapEpoch(u32)
);

/// 128-bit file identity, never reused. `seq` decides the shard (through the
/// persisted table), `oid` counts within the sequence, `ver` is 0 today.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fid {
    pub seq: u64,
    pub oid: u32,
    pub ver: u32,
}

impl Fid {
    /// Not a file: "none" on the wire and on flash.
    pub const NONE: Fid = Fid {
        seq: 0,
        oid: 0,
        ver: 0,
    };

    #[must_use]
    pub const fn new(seq: u64, oid: u32) -> Fid {
        Fid { seq, oid, ver: 0 }
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self == Fid::NONE
    }

    /// The inode number of a file born under this FID (N12): marked by bit 62,
    /// which no origin of today sets, and below 2^63 for those who take it as
    /// signed.
    #[must_use]
    pub fn born_ino(self) -> u64 {
        1 << 62 | (self.seq & 0x3fff_ffff) << 32 | u64::from(self.oid)
    }

    /// Big-endian, so that byte order is value order (index keys rely on it).
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.seq.to_be_bytes());
        out[8..12].copy_from_slice(&self.oid.to_be_bytes());
        out[12..].copy_from_slice(&self.ver.to_be_bytes());
        out
    }

    #[must_use]
    pub fn from_bytes(b: [u8; 16]) -> Fid {
        let n = u128::from_be_bytes(b);
        Fid {
            seq: (n >> 64) as u64,
            oid: (n >> 32) as u32,
            ver: n as u32,
        }
    }
}

impl fmt::Display for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}:{:#x}:{:#x}", self.seq, self.oid, self.ver)
    }
}

impl fmt::Debug for Fid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Codec for Fid {
    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.to_bytes());
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Fid::from_bytes(r.array()?))
    }
}

crate::record! {
    /// Where bytes lie on flash: a logical segment and a byte offset in it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Location {
        pub segment: u32,
        pub offset: u32,
    }
}
