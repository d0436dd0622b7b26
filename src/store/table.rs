//! An index table: sorted blocks, then a sparse index and a Bloom filter, all
//! in one segment. Written front to back in chunks, never changed, dropped as
//! a whole.

use super::block::{BLOCK_TARGET, BlockBuilder};
use super::segment::HEADER_BYTES;
use super::{bloom, frame};
use crate::base::codec::Bytes;
use crate::base::limits::BLOCK;
use crate::base::{DecodeError, Slice};
use crate::record;

/// Longest key and value of the index.
pub const KEY_BYTES_MAX: usize = 1024;
pub const VALUE_BYTES_MAX: usize = 128 << 10;

const MAGIC: [u8; 8] = *b"FBtable1";

record! {
    /// A table as the manifest lists it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TableEntry {
        /// Never reused; of two tables in level 0 the higher one is newer.
        pub id: u64,
        pub level: u8,
        pub segment: u32,
        /// Smallest and largest key.
        pub first: Bytes,
        pub last: Bytes,
        pub entries: u32,
        /// Offset in the segment and length of the sparse index and the filter.
        pub meta_at: u32,
        pub meta_bytes: u32,
    }
}

impl TableEntry {
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        self.first.0.as_slice() <= key && key <= self.last.0.as_slice()
    }
    /// Shares keys with `first..=last`.
    #[must_use]
    pub fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        self.first.0.as_slice() <= last && first <= self.last.0.as_slice()
    }
}

record! {
    /// What a reader needs of a table before it reads blocks.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct TableMeta { pub blocks: Vec<BlockEntry>, pub filter: Bytes }
}

record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct BlockEntry {
        pub first: Bytes,
        /// Offset in the segment, and length padded to the flash block.
        pub at: u32,
        pub bytes: u32,
    }
}

impl TableMeta {
    /// Reads and checks the meta part of `table` in a segment of `segment_bytes`.
    pub fn decode(bytes: &Slice, segment_bytes: u32) -> Result<TableMeta, DecodeError> {
        let meta: TableMeta = frame::open(MAGIC, bytes)?;
        let sound = meta.blocks.iter().all(|b| {
            let whole = b.at.is_multiple_of(HEADER_BYTES) && b.bytes.is_multiple_of(HEADER_BYTES);
            let end = b.at.checked_add(b.bytes);
            whole && b.bytes > 0 && end.is_some_and(|e| e <= segment_bytes)
        });
        if sound && !meta.blocks.is_empty() {
            Ok(meta)
        } else {
            Err(DecodeError {
                at: 0,
                why: "a block leaves the table",
            })
        }
    }
    /// The block that would hold `key`; the last one that begins at or before it.
    #[must_use]
    pub fn block_of(&self, key: &[u8]) -> Option<usize> {
        let after = self.blocks.partition_point(|b| b.first.0.as_slice() <= key);
        after.checked_sub(1)
    }
    /// Bytes of memory, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let keys: usize = self.blocks.iter().map(|b| b.first.0.len() + 48).sum();
        keys + self.filter.0.len()
    }
}

/// Builds one table.
pub struct TableBuilder {
    id: u64,
    segment: u32,
    segment_bytes: usize,
    block: BlockBuilder,
    block_first: Vec<u8>,
    blocks: Vec<BlockEntry>,
    hashes: Vec<u64>,
    /// Bytes of the index keys so far.
    index_bytes: usize,
    /// Finished bytes not taken yet, and where in the segment they begin.
    out: Vec<u8>,
    out_at: usize,
    first: Option<Vec<u8>>,
    last: Vec<u8>,
}

impl TableBuilder {
    #[must_use]
    pub fn new(id: u64, segment: u32, segment_bytes: u32) -> TableBuilder {
        TableBuilder {
            id,
            segment,
            segment_bytes: segment_bytes as usize,
            block: BlockBuilder::default(),
            block_first: Vec::new(),
            blocks: Vec::new(),
            hashes: Vec::new(),
            index_bytes: 0,
            out: Vec::new(),
            out_at: HEADER_BYTES as usize,
            first: None,
            last: Vec::new(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Is there room for one more entry of this size, and for the meta part after it?
    #[must_use]
    pub fn fits(&self, key: usize, value: usize) -> bool {
        let entry = BLOCK + (key + value).next_multiple_of(BLOCK);
        let open = self.block.bytes_with(key, value).next_multiple_of(BLOCK);
        let meta = self.index_bytes + 2 * (KEY_BYTES_MAX + 16) + (self.hashes.len() + 1) * 10 / 8;
        let meta = (meta + 64).next_multiple_of(BLOCK);
        self.out_at + self.out.len() + open + entry + meta <= self.segment_bytes
    }

    /// Adds an entry; keys come in ascending order, each once.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let len = value.map_or(0, <[u8]>::len);
        if !self.block.is_empty() && self.block.bytes_with(key.len(), len) > BLOCK_TARGET {
            self.close_block();
        }
        if self.block.is_empty() {
            self.block_first = key.to_vec();
        }
        self.block.push(key, value);
        self.hashes.push(bloom::hash(key));
        if self.first.is_none() {
            self.first = Some(key.to_vec());
        }
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    /// Finished bytes, once there are at least `least`: offset in the segment, bytes.
    pub fn take_chunk(&mut self, least: usize) -> Option<(u32, Vec<u8>)> {
        if self.out.len() < least.max(1) {
            return None;
        }
        let at = u32::try_from(self.out_at).expect("inside the segment");
        self.out_at += self.out.len();
        Some((at, std::mem::take(&mut self.out)))
    }

    /// The last bytes (with the meta part) and the table's entry, level 0.
    /// `None` if nothing was pushed.
    #[must_use]
    pub fn finish(mut self) -> Option<(u32, Vec<u8>, TableEntry)> {
        let first = self.first.take()?;
        self.close_block();
        let meta = TableMeta {
            blocks: std::mem::take(&mut self.blocks),
            filter: Bytes(bloom::build(&self.hashes)),
        };
        let meta = frame::seal(MAGIC, &meta);
        let whole = |n: usize| u32::try_from(n).expect("inside the segment");
        let entry = TableEntry {
            id: self.id,
            level: 0,
            segment: self.segment,
            first: Bytes(first),
            last: Bytes(self.last),
            entries: whole(self.hashes.len()),
            meta_at: whole(self.out_at + self.out.len()),
            meta_bytes: whole(meta.len()),
        };
        self.out.extend_from_slice(&meta);
        Some((whole(self.out_at), self.out, entry))
    }

    fn close_block(&mut self) {
        let mut bytes = self.block.finish();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let whole = |n: usize| u32::try_from(n).expect("inside the segment");
        self.index_bytes += self.block_first.len() + 12;
        self.blocks.push(BlockEntry {
            first: Bytes(std::mem::take(&mut self.block_first)),
            at: whole(self.out_at + self.out.len()),
            bytes: whole(bytes.len()),
        });
        self.out.append(&mut bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::block::Block;

    #[test]
    fn a_full_table_stays_in_its_segment_and_finds_its_keys() {
        let bytes = 256 << 10;
        let mut builder = TableBuilder::new(1, 5, bytes);
        let mut image = vec![0; bytes as usize];
        let mut place = |at: u32, part: &[u8]| {
            image[at as usize..at as usize + part.len()].copy_from_slice(part);
        };
        let mut n = 0u64;
        while builder.fits(200, 300) {
            let key = [&[9; 192][..], &n.to_be_bytes()].concat();
            builder.push(&key, Some(&[3; 300]));
            if let Some((at, part)) = builder.take_chunk(64 << 10) {
                place(at, &part);
            }
            n += 1;
        }
        assert!(n > 300, "{n} entries in 256 KiB");
        let (at, part, entry) = builder.finish().expect("not empty");
        place(at, &part);
        assert_eq!(u64::from(entry.entries), n);
        let slice = Slice::from(image);
        let at = entry.meta_at as usize;
        let meta = TableMeta::decode(&slice.part(at..at + entry.meta_bytes as usize), bytes);
        let meta = meta.expect("whole");
        for i in 0..n {
            let key = [&[9; 192][..], &i.to_be_bytes()].concat();
            assert!(bloom::may_hold(&meta.filter.0, bloom::hash(&key)));
            let b = &meta.blocks[meta.block_of(&key).expect("covered")];
            let at = b.at as usize;
            let block = Block::check(slice.part(at..at + b.bytes as usize)).expect("whole");
            assert_eq!(block.find(&key), Some(Some(&[3; 300][..])));
        }
    }
}
