//! A journal group: the records of one group commit, with the small data that
//! rides along, in one contiguous write.
//!
//! | part | bytes | holds |
//! |---|---|---|
//! | head | 4096 | magic, CRC, [`GroupHeader`], the first bytes of the records |
//! | data | blocks | small data, each piece at a block |
//! | tail | blocks | the rest of the records, zeros to the block |
//!
//! The data comes before the tail because its place must be known when it is
//! appended, and how long the records will be is known only when the group
//! closes. The CRC covers header and records; data has checksums of its own in
//! the records that refer to it (F4).

use super::record::Record;
use crate::base::limits::BLOCK;
use crate::base::{Codec, DecodeError, Generation, Lsn, Pool, Reader, ShardId, Slice, Writer};
use crate::record;

/// Bytes of records that fit into the head block.
pub const HEAD_ROOM: usize = BLOCK - HEAD;
/// The longest record that a segment of `segment_bytes` can hold.
#[must_use]
pub const fn record_bytes_max(segment_bytes: u32) -> usize {
    segment_bytes as usize - 4 * BLOCK
}

/// magic 4, CRC 4, then the header's fixed fields.
const HEAD: usize = 8 + HEADER;
const HEADER: usize = 2 + 8 + 8 + 8 + 8 + 4 + 4 + 4;
const MAGIC: [u8; 4] = *b"FBgr";

record! {
    /// What a group says about itself.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GroupHeader {
        pub shard: ShardId,
        pub generation: Generation,
        /// Sequence number of the journal segment: a group of an earlier use of
        /// the segment never matches.
        pub segment_sequence: u64,
        pub first: Lsn,
        /// All records up to this one were durable when the group was written (F3).
        pub flushed: Lsn,
        /// At least one: a group without records would have no place in the order.
        pub count: u32,
        pub records_bytes: u32,
        pub data_bytes: u32,
    }
}

impl GroupHeader {
    /// The last record of the group.
    #[must_use]
    pub fn last(&self) -> Lsn {
        Lsn(self.first.0.saturating_add(u64::from(self.count)) - 1)
    }
    /// Bytes of the whole group on flash.
    #[must_use]
    pub fn group_bytes(&self) -> usize {
        group_bytes(self.records_bytes as usize, self.data_bytes as usize)
    }
}

/// Bytes that a group takes on flash.
#[must_use]
pub fn group_bytes(records: usize, data: usize) -> usize {
    BLOCK + data + records.saturating_sub(HEAD_ROOM).next_multiple_of(BLOCK)
}

/// Appends one record to a group's records.
pub fn push_record(records: &mut Vec<u8>, tx: &Record) {
    let mut w = Writer::over(std::mem::take(records));
    let at = w.len();
    w.zeros(4);
    tx.encode(&mut w);
    *records = w.into_vec();
    let len = u32::try_from(records.len() - at - 4).expect("checked against the segment");
    records[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// The head block and the tail blocks of a group, in memory of `pool`.
#[must_use]
pub fn encode_group(header: &GroupHeader, records: &[u8], pool: &Pool) -> (Slice, Slice) {
    debug_assert_eq!(header.records_bytes as usize, records.len());
    let mut w = Writer::over(Vec::with_capacity(BLOCK - HEAD_ROOM));
    w.bytes(&MAGIC);
    w.zeros(4);
    header.encode(&mut w);
    let mut own = w.into_vec();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&own[8..]), records);
    own[4..8].copy_from_slice(&crc.to_le_bytes());
    let (front, rest) = records.split_at(records.len().min(HEAD_ROOM));
    (blocks(&[&own, front], pool), blocks(&[rest], pool))
}

/// Whole blocks: the parts, and zeros after them.
fn blocks(parts: &[&[u8]], pool: &Pool) -> Slice {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut buf = pool.take(len.next_multiple_of(BLOCK));
    let mut at = 0;
    for part in parts {
        buf[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    buf[at..].fill(0);
    buf.freeze()
}

/// A group as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Where it begins in its segment.
    pub offset: u32,
    pub header: GroupHeader,
    pub records: Vec<Record>,
}

/// What stands at a place of a journal segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole group of this use of the segment.
    Whole(Group),
    /// It began as a group of this use, and is not whole.
    Torn(DecodeError),
    /// Zeros, or what an earlier use of the segment left.
    Nothing,
}

/// Which groups belong to the present use of a journal segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub shard: ShardId,
    pub generation: Generation,
    pub segment_sequence: u64,
}

/// Looks for a group at `offset` of a segment's bytes.
#[must_use]
pub fn parse_group(segment: &[u8], offset: u32, of: Use) -> Found {
    parse_if(segment, offset, |header| {
        header.shard == of.shard
            && header.generation == of.generation
            && header.segment_sequence == of.segment_sequence
    })
}

/// The same of any generation: for a segment whose header, which would tell it,
/// cannot be read.
#[must_use]
pub fn parse_group_of_any(segment: &[u8], offset: u32, shard: ShardId, sequence: u64) -> Found {
    parse_if(segment, offset, |header| {
        header.shard == shard && header.segment_sequence == sequence
    })
}

fn parse_if(segment: &[u8], offset: u32, is_ours: impl Fn(&GroupHeader) -> bool) -> Found {
    let Some(bytes) = segment.get(offset as usize..) else {
        return Found::Nothing;
    };
    let mut r = Reader::new(bytes);
    let Ok(magic) = r.array::<4>() else {
        return Found::Nothing;
    };
    if magic != MAGIC {
        return Found::Nothing;
    }
    let (Ok(crc), Ok(header)) = (u32::decode(&mut r), GroupHeader::decode(&mut r)) else {
        return Found::Nothing;
    };
    if !is_ours(&header) {
        return Found::Nothing;
    }
    match parse_records(bytes, crc, &header) {
        Ok(records) => Found::Whole(Group {
            offset,
            header,
            records,
        }),
        Err(e) => Found::Torn(e),
    }
}

fn parse_records(bytes: &[u8], crc: u32, header: &GroupHeader) -> Result<Vec<Record>, DecodeError> {
    let fault = |at, why| DecodeError { at, why };
    let data = header.data_bytes as usize;
    let len = header.records_bytes as usize;
    if !data.is_multiple_of(BLOCK) || header.count == 0 || bytes.len() < BLOCK {
        return Err(fault(8, "impossible group"));
    }
    let front = len.min(HEAD_ROOM);
    let tail_at = BLOCK
        .checked_add(data)
        .ok_or(fault(8, "impossible group"))?;
    let tail_end = tail_at.checked_add(len - front);
    let tail = tail_end.and_then(|end| bytes.get(tail_at..end));
    let tail = tail.ok_or(fault(8, "group leaves its segment"))?;
    let mut records = bytes[HEAD..HEAD + front].to_vec();
    records.extend_from_slice(tail);
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[8..HEAD]), &records) != crc {
        return Err(fault(4, "wrong checksum"));
    }
    let mut r = Reader::new(&records);
    let mut out = Vec::new();
    for _ in 0..header.count {
        out.push(Record::from_slice(r.blob()?)?);
    }
    r.end()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Transno;

    const OF: Use = Use {
        shard: ShardId(3),
        generation: Generation(2),
        segment_sequence: 7,
    };

    fn group(values: &[usize], data: usize) -> (GroupHeader, Vec<Record>, Vec<u8>) {
        let txs: Vec<Record> = values
            .iter()
            .map(|&len| {
                let mut tx = Record {
                    transno: Transno(len as u64),
                    ..Record::default()
                };
                tx.puts.push((b"key".to_vec(), Some(vec![7; len])));
                tx.puts.push((b"gone".to_vec(), None));
                tx
            })
            .collect();
        let mut records = Vec::new();
        txs.iter().for_each(|tx| push_record(&mut records, tx));
        let header = GroupHeader {
            shard: OF.shard,
            generation: OF.generation,
            segment_sequence: OF.segment_sequence,
            first: Lsn(10),
            flushed: Lsn(9),
            count: u32::try_from(txs.len()).expect("few"),
            records_bytes: u32::try_from(records.len()).expect("few"),
            data_bytes: u32::try_from(data).expect("few"),
        };
        let (head, tail) = encode_group(&header, &records, &Pool::new([1, 1, 1]));
        let mut bytes = head.to_vec();
        bytes.resize(BLOCK + data, 0xda);
        bytes.extend_from_slice(&tail);
        (header, txs, bytes)
    }

    #[test]
    fn header_constants_are_true() {
        let (header, ..) = group(&[1], 0);
        assert_eq!(header.to_vec().len(), HEADER);
    }

    #[test]
    fn groups_read_back_whatever_their_length() {
        for (values, data) in [
            (vec![1], 0),
            (vec![5000, 1, 9000], 8192),
            (vec![3900; 40], 4096),
        ] {
            let (header, txs, bytes) = group(&values, data);
            assert_eq!(bytes.len(), header.group_bytes());
            let mut segment = vec![0; 4096];
            segment.extend_from_slice(&bytes);
            let want = Found::Whole(Group {
                offset: 4096,
                header,
                records: txs,
            });
            assert_eq!(parse_group(&segment, 4096, OF), want);
            let other = Use {
                generation: Generation(1),
                ..OF
            };
            assert_eq!(parse_group(&segment, 4096, other), Found::Nothing);
        }
    }

    #[test]
    fn any_flipped_byte_outside_the_data_is_seen() {
        let (header, _, bytes) = group(&[5000], 4096);
        let used = HEAD + HEAD_ROOM;
        let tail = BLOCK + 4096..BLOCK + 4096 + header.records_bytes as usize - HEAD_ROOM;
        for i in (0..used).chain(tail) {
            let mut bad = bytes.clone();
            bad[i] ^= 0x40;
            assert!(
                !matches!(parse_group(&bad, 0, OF), Found::Whole(_)),
                "byte {i}"
            );
        }
        for cut in 0..bytes.len() {
            let _ = parse_group(&bytes[..cut], 0, OF);
        }
    }
}
