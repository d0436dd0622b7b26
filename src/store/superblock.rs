//! The superblock: what a store is, apart from what it holds. Two copies at
//! fixed places; the older is overwritten, so that one is whole at any crash.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `FOREBAY\0` |
//! | 8 | 4 | format version, never moved, so that every release can name it |
//! | 12 | 4 | CRC32C of the version and of all bytes from 16 on |
//! | 16 | 4 | length of the body |
//! | 20 | | body: [`Superblock`] |

use super::error::StoreError;
use crate::base::{
    BoxId, ClientId, Codec, DecodeError, Fid, Generation, MapEpoch, ShardId, TargetId,
};
use crate::record;

/// First bytes of every store.
pub const MAGIC: [u8; 8] = *b"FOREBAY\0";
/// The one format of this release.
pub const FORMAT: u32 = 1;
/// Bytes reserved for each copy.
pub const COPY_BYTES: usize = 256 << 10;
/// Feature bits that this release understands; an unknown one refuses the store.
pub const FEATURES: u64 = 0;

const HEAD: usize = 20;

record! {
    /// What a store is. `docs/STORE.md` has the byte table.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Superblock {
        /// Counts writes of the superblock; the copy with the higher one is valid.
        pub sequence: u64,
        pub features: u64,
        pub box_id: BoxId,
        /// How often the store was opened for writing (F1).
        pub generation: Generation,
        pub segment_bytes: u32,
        /// Logical segments over all devices.
        pub segments: u32,
        pub shards: u16,
        pub devices: Vec<Device>,
        /// Which copy of the segment owner table is valid.
        pub owners_slot: u8,
        pub map_epoch: MapEpoch,
        /// Which shard owns which FID sequences (N7).
        pub map: Vec<SeqRange>,
        pub targets: Vec<TargetEntry>,
        /// The first FID sequence never given out (F9).
        pub next_seq: u64,
        /// The last stop left nothing to recover.
        pub clean: bool,
        /// The release that wrote this superblock.
        pub release: String,
        /// Clients that gave back their lock before a clean stop (X2).
        pub clean_clients: Vec<ClientId>,
        /// Copies of everything that is kept (F13).
        pub copies: u8,
    }
}

record! {
    /// One device and the logical segments on it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Device {
        pub id: u128,
        pub bytes: u64,
        /// Byte offset of its first segment.
        pub offset: u64,
        pub first_segment: u32,
        pub segments: u32,
    }
}

record! {
    /// FID sequences `first..=last` live on `shard`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SeqRange { pub first: u64, pub last: u64, pub shard: ShardId }
}

record! {
    /// An exported tree that the store holds data of.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TargetEntry {
        pub id: TargetId,
        pub name: String,
        pub root: Fid,
        /// Little-endian form of the key of the name hash (N11).
        pub hash_key: u128,
    }
}

impl Superblock {
    /// The bytes of one copy, [`COPY_BYTES`] long.
    ///
    /// # Errors
    /// `Options` if the lists outgrow the copy.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let body = self.to_vec();
        if HEAD + body.len() > COPY_BYTES {
            return Err(StoreError::Options {
                why: "more targets or clients than a superblock holds",
            });
        }
        let len = u32::try_from(body.len()).expect("below COPY_BYTES");
        let mut out = Vec::with_capacity(COPY_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&body);
        let crc = checksum(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out.resize(COPY_BYTES, 0);
        Ok(out)
    }

    /// Reads one copy that stands at byte `at` of the device.
    pub fn decode(bytes: &[u8], at: u64) -> Result<Superblock, StoreError> {
        let corrupt =
            |at_in, why| StoreError::corrupt("superblock", at, DecodeError { at: at_in, why });
        if bytes.len() < HEAD {
            return Err(StoreError::Truncated {
                have: at + bytes.len() as u64,
                says: at + COPY_BYTES as u64,
            });
        }
        if bytes[..8] != MAGIC {
            let blank = bytes.iter().all(|&b| b == 0);
            return Err(if blank {
                StoreError::Blank
            } else {
                StoreError::Foreign
            });
        }
        let word =
            |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        if word(8) != FORMAT {
            return Err(StoreError::Version {
                found: word(8),
                ours: FORMAT,
            });
        }
        let end = HEAD
            .checked_add(word(16) as usize)
            .filter(|&e| e <= bytes.len());
        let end = end.ok_or(corrupt(16, "length leaves the copy"))?;
        if checksum(&bytes[..end]) != word(12) {
            return Err(corrupt(12, "wrong checksum"));
        }
        let block = Superblock::from_slice(&bytes[HEAD..end])
            .map_err(|e| StoreError::corrupt("superblock", at, e))?;
        block.check(at)?;
        Ok(block)
    }

    /// The valid one of the two copies that begin the device: `head` holds both.
    pub fn choose(head: &[u8]) -> Result<Superblock, StoreError> {
        let half = COPY_BYTES.min(head.len());
        let (a, b) = head.split_at(half);
        let a = Superblock::decode(a, 0);
        let b = Superblock::decode(b, COPY_BYTES as u64);
        match (a, b) {
            (Ok(a), Ok(b)) => Ok(if a.sequence >= b.sequence { a } else { b }),
            (Ok(one), Err(e)) | (Err(e), Ok(one)) if !is_newer(&e) => Ok(one),
            (Err(e), _) | (_, Err(e)) if is_newer(&e) => Err(e),
            (Err(a), Err(b)) if gravity(&b) > gravity(&a) => Err(b),
            (Err(a), _) | (_, Err(a)) => Err(a),
        }
    }

    /// Byte offset on the device of the copy that this sequence number belongs to.
    #[must_use]
    pub fn place(&self) -> u64 {
        (self.sequence % 2) * COPY_BYTES as u64
    }

    fn check(&self, at: u64) -> Result<(), StoreError> {
        let wrong = |why| {
            Err(StoreError::Corrupt {
                what: "superblock",
                at,
                why,
            })
        };
        if self.features & !FEATURES != 0 {
            return Err(StoreError::Features {
                unknown: self.features & !FEATURES,
            });
        }
        if !super::volume::SEGMENT_BYTES.contains(&self.segment_bytes)
            || !self.segment_bytes.is_power_of_two()
        {
            return wrong("impossible segment size");
        }
        if self.shards == 0 || self.shards > super::volume::SHARDS_MAX {
            return wrong("impossible number of shards");
        }
        if self.segments > super::volume::SEGMENTS_MAX || self.owners_slot > 1 {
            return wrong("impossible segment table");
        }
        if self.devices.len() != 1 {
            return wrong("this format version keeps one device");
        }
        let device = &self.devices[0];
        if device.first_segment != 0 || device.segments != self.segments {
            return wrong("devices do not add up to the segments");
        }
        let bytes = u64::from(self.segments) * u64::from(self.segment_bytes);
        match device.offset.checked_add(bytes) {
            Some(end) if end <= device.bytes => Ok(()),
            _ => wrong("segments leave the device"),
        }
    }
}

/// A copy of another version must not be passed over for an older one of ours:
/// the newer release may have moved everything else.
fn is_newer(e: &StoreError) -> bool {
    matches!(e, StoreError::Version { .. } | StoreError::Features { .. })
}

/// Of two unreadable copies, the one that tells more about the store.
fn gravity(e: &StoreError) -> u8 {
    match e {
        StoreError::Truncated { .. } => 0,
        StoreError::Blank => 1,
        StoreError::Foreign => 2,
        _ => 3,
    }
}

fn checksum(copy: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&copy[8..12]);
    crc32c::crc32c_append(crc, &copy[16..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::volume::{FormatOptions, Volume};

    fn block(sequence: u64) -> Superblock {
        let options = FormatOptions::new(100 << 20, 2, BoxId(7));
        let mut block = Volume::plan(&options).expect("fits").superblock;
        block.sequence = sequence;
        block
    }

    fn head(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut head = vec![0; 2 * COPY_BYTES];
        head[..a.len()].copy_from_slice(a);
        head[COPY_BYTES..COPY_BYTES + b.len()].copy_from_slice(b);
        head
    }

    #[test]
    fn the_newer_whole_copy_wins() {
        let (old, new) = (block(4), block(5));
        let (a, b) = (old.encode().expect("fits"), new.encode().expect("fits"));
        assert_eq!(Superblock::choose(&head(&a, &b)), Ok(new));
        let mut torn = b;
        torn[40] ^= 1;
        assert_eq!(Superblock::choose(&head(&a, &torn)), Ok(old));
        assert_eq!(Superblock::choose(&head(&a, &[])), Ok(block(4)));
    }

    #[test]
    fn what_is_not_ours_is_refused_by_kind() {
        let a = block(4).encode().expect("fits");
        assert_eq!(Superblock::choose(&head(&[], &[])), Err(StoreError::Blank));
        assert_eq!(
            Superblock::choose(&head(b"hello", &[])),
            Err(StoreError::Foreign)
        );
        let mut newer = a.clone();
        newer[8] = 9;
        let version = Err(StoreError::Version {
            found: 9,
            ours: FORMAT,
        });
        assert_eq!(Superblock::choose(&head(&newer, &a)), version);
        assert_eq!(Superblock::choose(&head(&a, &newer)), version);
        assert!(matches!(
            Superblock::choose(&a[..8]),
            Err(StoreError::Truncated { .. })
        ));
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let a = block(4).encode().expect("fits");
        let len = HEAD + block(4).to_vec().len();
        for bit in 0..len * 8 {
            let mut bad = a.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad, 0).is_err(), "bit {bit}");
        }
    }
}
