//! Where everything lies on a device, and what a fresh one holds.
//!
//! ```text
//! 0        256K      512K            1M                          data_start
//! │ super A │ super B │ roots (A, B)  │ owners A │ owners B │ …   │ segments …
//! ```
//! Pure: whoever formats or opens does the I/O. The control thread does it with
//! plain files ([`Volume::writes`], [`Volume::read`]), `flash::device` over a
//! world.

use super::error::StoreError;
use super::root::{JournalPlace, Root};
use super::superblock::{COPY_BYTES, Device, SeqRange, Superblock};
use crate::base::limits::BLOCK;
use crate::base::{BoxId, Codec, Errno, Generation, MapEpoch, Reader, ShardId};
use std::ops::RangeInclusive;

/// Sizes that a segment may have; powers of two only.
pub const SEGMENT_BYTES: RangeInclusive<u32> = (256 << 10)..=(16 << 20);
pub const SHARDS_MAX: u16 = 64;
pub const SEGMENTS_MAX: u32 = 1 << 20;
/// Below this a shard has no room for its reserves.
pub const SEGMENTS_PER_SHARD_MIN: u32 = 32;
/// Where the root blocks begin: two for each possible shard.
pub const ROOTS_AT: u64 = 2 * COPY_BYTES as u64;
/// Where the two copies of the owner table begin.
pub const OWNERS_AT: u64 = ROOTS_AT + SHARDS_MAX as u64 * 2 * BLOCK as u64;

const OWNERS_HEAD: usize = 16;
const OWNERS_MAGIC: [u8; 8] = *b"FBowners";

/// How to make a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatOptions {
    /// Size of the file or device.
    pub bytes: u64,
    pub shards: u16,
    pub box_id: BoxId,
    /// `None`: by the size of the device.
    pub segment_bytes: Option<u32>,
    /// The release that formats.
    pub release: String,
}

impl FormatOptions {
    #[must_use]
    pub fn new(bytes: u64, shards: u16, box_id: BoxId) -> FormatOptions {
        FormatOptions {
            bytes,
            shards,
            box_id,
            segment_bytes: None,
            release: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What a store is and which shard owns which segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub superblock: Superblock,
    /// The shard of each segment.
    pub owners: Vec<ShardId>,
}

impl Volume {
    /// A fresh store: segments dealt to the shards in turn, so that each shard
    /// uses the whole breadth of a striped device. The table, not this
    /// arithmetic, decides from then on.
    pub fn plan(options: &FormatOptions) -> Result<Volume, StoreError> {
        if options.shards == 0 || options.shards > SHARDS_MAX {
            return Err(StoreError::Options {
                why: "between 1 and 64 shards",
            });
        }
        let segment_bytes = options
            .segment_bytes
            .unwrap_or(segment_bytes_for(options.bytes));
        if !SEGMENT_BYTES.contains(&segment_bytes) || !segment_bytes.is_power_of_two() {
            return Err(StoreError::Options {
                why: "segments are a power of two between 256 KiB and 16 MiB",
            });
        }
        let most = options.bytes / u64::from(segment_bytes);
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(SEGMENTS_MAX);
        let offset = data_start(most);
        let segments = options.bytes.saturating_sub(offset) / u64::from(segment_bytes);
        let segments = u32::try_from(segments)
            .unwrap_or(u32::MAX)
            .min(SEGMENTS_MAX);
        let least = SEGMENTS_PER_SHARD_MIN * u32::from(options.shards);
        if segments < least {
            return Err(StoreError::TooSmall {
                have: options.bytes,
                need: offset + u64::from(least) * u64::from(segment_bytes),
            });
        }
        let owners = (0..segments).map(|i| {
            let shard = i % u32::from(options.shards);
            ShardId(u16::try_from(shard).expect("below SHARDS_MAX"))
        });
        Ok(Volume {
            superblock: fresh(options, segment_bytes, segments, offset),
            owners: owners.collect(),
        })
    }

    /// Everything that formatting writes: (byte offset, bytes), each a multiple
    /// of the block. The superblock comes last and must be written after a
    /// flush of the others: until then the device is not a store.
    pub fn writes(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let mut out = Vec::new();
        for shard in 0..self.superblock.shards {
            let shard = ShardId(shard);
            let root = self.first_root(shard).encode();
            // Both copies: a root of an earlier store must not outlive it.
            out.push((root_place(shard, 0), root.clone()));
            out.push((root_place(shard, 1), root));
        }
        out.push((self.owners_place(), self.encode_owners()));
        let copy = self.superblock.encode()?;
        out.push((
            COPY_BYTES as u64 - self.superblock.place(),
            vec![0; COPY_BYTES],
        ));
        out.push((self.superblock.place(), copy));
        Ok(out)
    }

    /// Reads a store of `have` bytes through `read_at(offset, len)`.
    pub fn read(
        have: u64,
        mut read_at: impl FnMut(u64, usize) -> Result<Vec<u8>, Errno>,
    ) -> Result<Volume, StoreError> {
        let mut load = |at, len| read_at(at, len).map_err(|errno| StoreError::Io { at, errno });
        if have == 0 {
            return Err(StoreError::Blank);
        }
        if have < OWNERS_AT {
            let need = usize::try_from(have).expect("below OWNERS_AT");
            return Err(match Superblock::choose(&load(0, need)?) {
                Ok(_) => StoreError::Truncated {
                    have,
                    says: OWNERS_AT,
                },
                Err(e) => e,
            });
        }
        let superblock = Superblock::choose(&load(0, 2 * COPY_BYTES)?)?;
        check_size(&superblock, have)?;
        let at = owners_place(&superblock);
        let owners = load(at, owners_bytes(superblock.segments))?;
        let owners = decode_owners(&superblock, &owners)?;
        Ok(Volume { superblock, owners })
    }

    /// Moves the superblock on by one write: where it goes, and its bytes. The
    /// write must be durable before what it announces is relied on.
    pub fn next_superblock(
        &mut self,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(u64, Vec<u8>), StoreError> {
        change(&mut self.superblock);
        self.superblock.sequence += 1;
        Ok((self.superblock.place(), self.superblock.encode()?))
    }

    /// Opens for writing: a new generation, no longer clean (F1).
    pub fn claim(&mut self) -> Result<(u64, Vec<u8>), StoreError> {
        self.next_superblock(|s| {
            s.generation = s.generation.next();
            s.clean = false;
            s.clean_clients.clear();
            env!("CARGO_PKG_VERSION").clone_into(&mut s.release);
        })
    }

    /// Byte offset on the device of a segment; `None` if there is no such one.
    #[must_use]
    pub fn segment_at(&self, segment: u32) -> Option<u64> {
        let device = self.superblock.devices.first()?;
        let index = segment.checked_sub(device.first_segment)?;
        (index < device.segments)
            .then(|| device.offset + u64::from(index) * u64::from(self.superblock.segment_bytes))
    }

    /// The segments of one shard, in order.
    #[must_use]
    pub fn owned_by(&self, shard: ShardId) -> Vec<u32> {
        let all = self.owners.iter().zip(0u32..);
        all.filter(|(owner, _)| **owner == shard)
            .map(|(_, i)| i)
            .collect()
    }

    /// Bytes of flash that a shard owns.
    #[must_use]
    pub fn shard_bytes(&self, shard: ShardId) -> u64 {
        let segments = self.owners.iter().filter(|&&o| o == shard).count() as u64;
        segments * u64::from(self.superblock.segment_bytes)
    }

    fn first_root(&self, shard: ShardId) -> Root {
        let first = self.owned_by(shard).first().copied().unwrap_or(0);
        Root::first(shard, JournalPlace::begin(first))
    }

    fn owners_place(&self) -> u64 {
        owners_place(&self.superblock)
    }

    fn encode_owners(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(owners_bytes(self.superblock.segments));
        out.extend_from_slice(&OWNERS_MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.superblock.segments.to_le_bytes());
        for owner in &self.owners {
            out.extend_from_slice(&owner.0.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out.resize(owners_bytes(self.superblock.segments), 0);
        out
    }
}

/// EOF where the superblock says there is more.
pub fn check_size(superblock: &Superblock, have: u64) -> Result<(), StoreError> {
    let says = superblock.devices.first().map_or(0, |d| d.bytes);
    if have < says {
        return Err(StoreError::Truncated { have, says });
    }
    Ok(())
}

/// Reads the owner table of `superblock`.
pub fn decode_owners(superblock: &Superblock, bytes: &[u8]) -> Result<Vec<ShardId>, StoreError> {
    let at = owners_place(superblock);
    let wrong = |e| StoreError::corrupt("segment owner table", at, e);
    let mut r = Reader::new(bytes);
    let magic = r.array::<8>().map_err(wrong)?;
    let crc = u32::decode(&mut r).map_err(wrong)?;
    let count = u32::decode(&mut r).map_err(wrong)?;
    if magic != OWNERS_MAGIC || count != superblock.segments {
        return Err(wrong(r.fault("not this store's table")));
    }
    let end = OWNERS_HEAD + count as usize * 2;
    if bytes.len() < end || crc32c::crc32c(&bytes[12..end]) != crc {
        return Err(wrong(r.fault("wrong checksum")));
    }
    let mut owners = Vec::with_capacity(count as usize);
    for _ in 0..count {
        owners.push(ShardId::decode(&mut r).map_err(wrong)?);
    }
    if owners.iter().any(|o| o.0 >= superblock.shards) {
        return Err(wrong(r.fault("a segment belongs to no shard")));
    }
    Ok(owners)
}

/// Bytes of one copy of the owner table.
#[must_use]
pub fn owners_bytes(segments: u32) -> usize {
    (OWNERS_HEAD + segments as usize * 2).next_multiple_of(BLOCK)
}

#[must_use]
pub fn owners_place(superblock: &Superblock) -> u64 {
    OWNERS_AT + u64::from(superblock.owners_slot) * owners_bytes(superblock.segments) as u64
}

/// Byte offset of a root block; copies alternate by sequence number.
#[must_use]
pub fn root_place(shard: ShardId, sequence: u64) -> u64 {
    ROOTS_AT + (u64::from(shard.0) * 2 + sequence % 2) * BLOCK as u64
}

/// The first segment starts at a whole MiB, which every erase block divides well.
fn data_start(segments: u32) -> u64 {
    (OWNERS_AT + 2 * owners_bytes(segments) as u64).next_multiple_of(1 << 20)
}

/// About 256 segments on a small device, so that reserves stay a small part;
/// at most 16 MiB on a large one, so that reclaim takes small steps.
fn segment_bytes_for(bytes: u64) -> u32 {
    let ideal = (bytes / 256).next_power_of_two();
    let ideal = u32::try_from(ideal).unwrap_or(u32::MAX);
    ideal.clamp(1 << 20, *SEGMENT_BYTES.end())
}

fn fresh(options: &FormatOptions, segment_bytes: u32, segments: u32, offset: u64) -> Superblock {
    Superblock {
        sequence: 2,
        features: 0,
        box_id: options.box_id,
        generation: Generation(0),
        segment_bytes,
        segments,
        shards: options.shards,
        devices: vec![Device {
            id: options.box_id.0,
            bytes: options.bytes,
            offset,
            first_segment: 0,
            segments,
        }],
        owners_slot: 0,
        map_epoch: MapEpoch(1),
        map: Vec::<SeqRange>::new(),
        targets: Vec::new(),
        next_seq: 1,
        clean: true,
        release: options.release.clone(),
        clean_clients: Vec::new(),
        copies: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(volume: &Volume, bytes: u64) -> Vec<u8> {
        let mut image = vec![0; usize::try_from(bytes).expect("small")];
        for (at, part) in volume.writes().expect("fits") {
            let at = usize::try_from(at).expect("small");
            image[at..at + part.len()].copy_from_slice(&part);
        }
        image
    }

    fn read(image: &[u8]) -> Result<Volume, StoreError> {
        Volume::read(image.len() as u64, |at, len| {
            let at = usize::try_from(at).expect("small");
            image
                .get(at..at + len)
                .map(<[u8]>::to_vec)
                .ok_or(Errno::EIO)
        })
    }

    #[test]
    fn a_formatted_volume_reads_back() {
        let options = FormatOptions::new(100 << 20, 3, BoxId(9));
        let mut volume = Volume::plan(&options).expect("fits");
        let mut image = image(&volume, options.bytes);
        assert_eq!(read(&image), Ok(volume.clone()));
        assert!(volume.owned_by(ShardId(2)).len() >= 32);
        let last = volume.superblock.segments - 1;
        let end = volume.segment_at(last).expect("is there") + (1 << 20);
        assert!(end <= options.bytes);
        assert_eq!(volume.segment_at(last + 1), None);
        let (at, bytes) = volume.claim().expect("fits");
        let at = usize::try_from(at).expect("small");
        image[at..at + bytes.len()].copy_from_slice(&bytes);
        assert_eq!(
            read(&image).expect("valid").superblock.generation,
            Generation(1)
        );
    }

    #[test]
    fn faults_have_their_names() {
        let small = FormatOptions::new(8 << 20, 1, BoxId(9));
        assert!(matches!(
            Volume::plan(&small),
            Err(StoreError::TooSmall { .. })
        ));
        let options = FormatOptions::new(64 << 20, 1, BoxId(9));
        let volume = Volume::plan(&options).expect("fits");
        let image = image(&volume, options.bytes);
        let cut = read(&image[..image.len() - 4096]);
        assert!(matches!(cut, Err(StoreError::Truncated { .. })));
        let mut bad = image;
        let at = usize::try_from(OWNERS_AT).expect("small") + 17;
        bad[at] ^= 1;
        assert!(matches!(read(&bad), Err(StoreError::Corrupt { .. })));
        assert_eq!(read(&[0; 4096]), Err(StoreError::Blank));
        assert_eq!(read(&[]), Err(StoreError::Blank));
    }
}
