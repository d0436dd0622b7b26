//! The record: the one unit of change, of the journal, and of recovery.

use crate::base::limits::BLOCK;
use crate::base::{Codec, DecodeError, Location, Lsn, Reader, ShardId, SnapEpoch, Transno, Writer};
use crate::record;

/// One atomic change, as the journal keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub puts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Flash that the change lets go.
    pub freed: Vec<(Location, u32)>,
    /// Bytes appended for this change: verified together with it in recovery.
    pub data: Vec<Appended>,
    pub transno: Transno,
    /// The snapshot epoch that the change belongs to (F12).
    pub epoch: SnapEpoch,
    /// The records of the same operation on other shards (N1, N4).
    pub participants: Vec<(ShardId, Lsn)>,
    /// Changes of shared fields, as opposed to values (N2): key and operand.
    pub deltas: Vec<(Vec<u8>, Vec<u8>)>,
}

record! {
    /// Where appended bytes went, with a CRC32C for each block of 4 KiB counted
    /// from the start of the piece (the last block may be short).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Appended {
        pub at: Location,
        pub len: u32,
        pub crcs: Vec<u32>,
    }
}

impl Appended {
    /// Do the checksums from byte `from` on (a multiple of the block) fit `bytes`?
    #[must_use]
    pub fn verifies(&self, from: u32, bytes: &[u8]) -> bool {
        let first = from as usize / BLOCK;
        let crcs = self.crcs.get(first..).unwrap_or_default();
        let blocks = bytes.chunks(BLOCK);
        crcs.len() >= blocks.len() && blocks.zip(crcs).all(|(b, &crc)| crc32c::crc32c(b) == crc)
    }
}

/// By hand, because byte strings go as one copy and not byte by byte.
impl Codec for Record {
    fn encode(&self, w: &mut Writer) {
        self.transno.encode(w);
        self.epoch.encode(w);
        list(w, &self.participants, |w, p| {
            p.0.encode(w);
            p.1.encode(w);
        });
        list(w, &self.deltas, |w, (key, operand)| {
            w.blob(key);
            w.blob(operand);
        });
        list(w, &self.puts, |w, (key, value)| {
            w.blob(key);
            value.is_some().encode(w);
            if let Some(value) = value {
                w.blob(value);
            }
        });
        list(w, &self.freed, |w, (at, len)| {
            at.encode(w);
            len.encode(w);
        });
        self.data.encode(w);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Record, DecodeError> {
        Ok(Record {
            transno: Codec::decode(r)?,
            epoch: Codec::decode(r)?,
            participants: Codec::decode(r)?,
            deltas: items(r, |r| Ok((r.blob()?.to_vec(), r.blob()?.to_vec())))?,
            puts: items(r, |r| {
                let key = r.blob()?.to_vec();
                let value = if bool::decode(r)? {
                    Some(r.blob()?.to_vec())
                } else {
                    None
                };
                Ok((key, value))
            })?,
            freed: Codec::decode(r)?,
            data: Codec::decode(r)?,
        })
    }
}

fn list<T>(w: &mut Writer, items: &[T], mut each: impl FnMut(&mut Writer, &T)) {
    u32::try_from(items.len())
        .expect("a transaction is bounded by its segment")
        .encode(w);
    items.iter().for_each(|item| each(w, item));
}

fn items<T>(
    r: &mut Reader<'_>,
    mut each: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = u32::decode(r)? as usize;
    if count > r.remaining() {
        return Err(r.fault("list longer than its bytes"));
    }
    let mut out = Vec::new();
    for _ in 0..count {
        out.push(each(r)?);
    }
    Ok(out)
}
