//! One block of an index table: entries in key order, searched where they lie.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC32C of bytes 4 to the end of the payload |
//! | 4 | 4 | length of the payload, from 0 |
//! | 8 | 2 | number of entries |
//! | 10 | 2 | flags, zero (room for prefix compression) |
//! | 12 | | entries: key length u16, value length u32 (all ones: deleted), key, value |
//! | | 4 each | offset of each entry |
//!
//! The offsets come last because they are known last, and make a look-up a
//! binary search without decoding the block.

use crate::base::{DecodeError, Slice};
use std::cmp::Ordering;
use std::ops::Deref;

/// A block is closed when it reaches this; a longer one holds a long value.
pub const BLOCK_TARGET: usize = 8192;

const HEAD: usize = 12;
const ENTRY_HEAD: usize = 6;
const DELETED: u32 = u32::MAX;

/// Collects the entries of one block.
#[derive(Debug, Default)]
pub struct BlockBuilder {
    bytes: Vec<u8>,
    offsets: Vec<u32>,
}

impl BlockBuilder {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }
    /// Bytes of the block if one more entry of this size came in.
    #[must_use]
    pub fn bytes_with(&self, key: usize, value: usize) -> usize {
        let entries = if self.bytes.is_empty() {
            HEAD
        } else {
            self.bytes.len()
        };
        entries + ENTRY_HEAD + key + value + (self.offsets.len() + 1) * 4
    }
    /// Adds an entry; keys come in ascending order.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD, 0);
        }
        let offset = u32::try_from(self.bytes.len()).expect("blocks are small");
        self.offsets.push(offset);
        let key_len = u16::try_from(key.len()).expect("keys are bounded by the memtable");
        let len = value.map_or(DELETED, |v| u32::try_from(v.len()).expect("bounded values"));
        self.bytes.extend_from_slice(&key_len.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }
    /// The block's bytes, not padded; the builder is empty again.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.bytes);
        let count = u16::try_from(self.offsets.len()).expect("bounded by BLOCK_TARGET");
        for offset in self.offsets.drain(..) {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        let len = u32::try_from(out.len()).expect("blocks are small");
        out[4..8].copy_from_slice(&len.to_le_bytes());
        out[8..10].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// A checked block: every offset and length was proved to stay inside.
#[derive(Clone, Debug)]
pub struct Block {
    bytes: Slice,
    payload: usize,
    count: usize,
}

impl Block {
    /// Checks all of `bytes` (which may go on after the block).
    pub fn check(bytes: Slice) -> Result<Block, DecodeError> {
        let fault = |at, why| Err(DecodeError { at, why });
        if bytes.len() < HEAD {
            return fault(0, "block ends early");
        }
        let payload = word(&bytes, 4) as usize;
        if payload < HEAD || payload > bytes.len() {
            return fault(4, "block leaves its place");
        }
        if crc32c::crc32c(&bytes[4..payload]) != word(&bytes, 0) {
            return fault(0, "wrong checksum");
        }
        let count = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        let Some(entries_end) = payload.checked_sub(count * 4).filter(|&e| e >= HEAD) else {
            return fault(8, "more entries than bytes");
        };
        if bytes[10..12] != [0, 0] {
            return fault(10, "unknown flags");
        }
        for i in 0..count {
            let at = word(&bytes, entries_end + i * 4) as usize;
            if at < HEAD || at.checked_add(ENTRY_HEAD).is_none_or(|e| e > entries_end) {
                return fault(entries_end + i * 4, "entry leaves the block");
            }
            let key = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
            let value = match word(&bytes, at + 2) {
                DELETED => 0,
                len => len as usize,
            };
            let end = (at + ENTRY_HEAD + key).checked_add(value);
            if end.is_none_or(|e| e > entries_end) {
                return fault(at, "entry leaves the block");
            }
        }
        Ok(Block {
            bytes,
            payload,
            count,
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Bytes of memory that the block holds on to.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.bytes.len()
    }
    /// Key and value of entry `i`; `None` for a value is a deletion.
    #[must_use]
    pub fn entry(&self, i: usize) -> (&[u8], Option<&[u8]>) {
        let bytes = self.bytes.deref();
        let at = word(bytes, self.payload - self.count * 4 + i * 4) as usize;
        let key_len = usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let key_at = at + ENTRY_HEAD;
        let value_at = key_at + key_len;
        let value = match word(bytes, at + 2) {
            DELETED => None,
            len => Some(&bytes[value_at..value_at + len as usize]),
        };
        (&bytes[key_at..value_at], value)
    }
    /// Index of the first entry whose key is not less than `key`.
    #[must_use]
    pub fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let mid = low.midpoint(high);
            match self.entry(mid).0.cmp(key) {
                Ordering::Less => low = mid + 1,
                Ordering::Equal | Ordering::Greater => high = mid,
            }
        }
        low
    }
    /// `Some(None)`: deleted. `None`: not in this block.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let i = self.lower_bound(key);
        if i == self.count {
            return None;
        }
        let (found, value) = self.entry(i);
        (found == key).then_some(value)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_and_nothing_else() {
        let mut b = BlockBuilder::default();
        for i in 0..100u32 {
            let value = vec![1; i as usize];
            let value = (i % 7 != 0).then_some(&value[..]);
            b.push(&(i * 2).to_be_bytes(), value);
        }
        let bytes = b.finish();
        let block = Block::check(Slice::from(bytes.clone())).expect("whole");
        for i in 0..100u32 {
            let want = (i % 7 != 0).then_some(i as usize);
            let got = block.find(&(i * 2).to_be_bytes()).expect("is there");
            assert_eq!(got.map(<[u8]>::len), want);
            assert_eq!(block.find(&(i * 2 + 1).to_be_bytes()), None);
        }
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            assert!(Block::check(Slice::from(bad)).is_err(), "byte {i}");
        }
    }
}
