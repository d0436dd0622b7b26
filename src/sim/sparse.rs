//! Bytes of a simulated file: as long as any file can be, as big as what was
//! written.

use crate::base::limits::BLOCK;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A file's bytes. Blocks of zeros are not told from holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sparse {
    size: u64,
    blocks: BTreeMap<u64, Rc<[u8]>>,
}

impl Sparse {
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `out` from `offset` on; the count is short at the end of file.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let n = usize::try_from(self.size.saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(out.len());
        let mut done = 0;
        while done < n {
            let (block, within, len) = piece(offset + done as u64, n - done);
            let to = &mut out[done..done + len];
            match self.blocks.get(&block) {
                Some(bytes) => to.copy_from_slice(&bytes[within..within + len]),
                None => to.fill(0),
            }
            done += len;
        }
        n
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.size = self.size.max(offset + bytes.len() as u64);
        }
        self.fill(offset, bytes.len() as u64, |done, to| {
            to.copy_from_slice(&bytes[done..done + to.len()]);
        });
    }

    /// Cuts off or extends with a hole.
    pub fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size - size);
        }
        self.size = size;
    }

    /// Zeroes a range; the size stays.
    pub fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        let full = offset.div_ceil(BLOCK as u64)..end / BLOCK as u64;
        if full.start < full.end {
            let gone: Vec<u64> = self.blocks.range(full).map(|(b, _)| *b).collect();
            for block in gone {
                self.blocks.remove(&block);
            }
        }
        let mut at = offset;
        while at < end {
            let (block, within, len) = piece(at, usize::try_from(end - at).unwrap_or(usize::MAX));
            if let Some(bytes) = self.blocks.get_mut(&block) {
                Rc::make_mut(bytes)[within..within + len].fill(0);
            }
            // Over what holds no block in one step.
            at = if len == BLOCK {
                let next = self.blocks.range(block + 1..).next();
                next.map_or(end, |(b, _)| b * BLOCK as u64)
                    .max(at + len as u64)
            } else {
                at + len as u64
            };
        }
        self.blocks.retain(|_, bytes| bytes.iter().any(|b| *b != 0));
    }

    /// Pages of `self` or of `newer`, as `pick` says: what a machine without
    /// power may have kept of a file that was not synced.
    #[must_use]
    pub fn torn(&self, newer: &Sparse, mut pick: impl FnMut() -> bool) -> Sparse {
        let mut out = if pick() { newer.clone() } else { self.clone() };
        let size = out.size;
        let blocks: Vec<u64> = self
            .blocks
            .keys()
            .chain(newer.blocks.keys())
            .copied()
            .collect();
        for block in blocks {
            let from = if pick() { newer } else { self };
            match from.blocks.get(&block) {
                Some(bytes) => out.blocks.insert(block, Rc::clone(bytes)),
                None => out.blocks.remove(&block),
            };
        }
        out.size = u64::MAX;
        out.truncate(size);
        out
    }

    /// CRC32C over size and bytes, holes read as zeros.
    #[must_use]
    pub fn digest(&self) -> u32 {
        let mut crc = crc32c::crc32c(&self.size.to_le_bytes());
        for (block, bytes) in &self.blocks {
            if bytes.iter().any(|b| *b != 0) {
                crc = crc32c::crc32c_append(crc, &block.to_le_bytes());
                crc = crc32c::crc32c_append(crc, bytes);
            }
        }
        crc
    }

    fn fill(&mut self, offset: u64, len: u64, mut copy: impl FnMut(usize, &mut [u8])) {
        let len = usize::try_from(len).expect("bytes in memory");
        let mut done = 0;
        while done < len {
            let (block, within, n) = piece(offset + done as u64, len - done);
            let bytes = self
                .blocks
                .entry(block)
                .or_insert_with(|| vec![0; BLOCK].into());
            copy(done, &mut Rc::make_mut(bytes)[within..within + n]);
            done += n;
        }
    }
}

/// The block at `at`, the place in it, and how much of `len` lies in it.
fn piece(at: u64, len: usize) -> (u64, usize, usize) {
    let within = usize::try_from(at % BLOCK as u64).expect("below a block");
    (at / BLOCK as u64, within, len.min(BLOCK - within))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_vector(ops in proptest::collection::vec((0u8..3, 0u64..20_000, 0usize..9_000, 1u8..), 1..40)) {
            let mut sparse = Sparse::default();
            let mut plain: Vec<u8> = Vec::new();
            for (op, offset, len, fill) in ops {
                let at = offset as usize;
                match op {
                    0 if len > 0 => {
                        sparse.write(offset, &vec![fill; len]);
                        plain.resize(plain.len().max(at + len), 0);
                        plain[at..at + len].fill(fill);
                    }
                    1 => {
                        sparse.truncate(offset);
                        plain.resize(at, 0);
                    }
                    _ => {
                        sparse.punch(offset, len as u64);
                        let end = (at + len).min(plain.len());
                        if at < end { plain[at..end].fill(0); }
                    }
                }
                let mut out = vec![9; 30_000];
                let n = sparse.read(0, &mut out);
                prop_assert_eq!(&out[..n], &plain[..]);
            }
        }
    }
}
