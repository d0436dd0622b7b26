//! The frame around every record that stands alone on flash: magic, checksum,
//! length. The checksum covers the length too, so that a torn length is a torn
//! record and not a wild read.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic |
//! | 8 | 4 | CRC32C of bytes 12 to the end of the body |
//! | 12 | 4 | length of the body |
//! | 16 | | body |

use crate::base::limits::BLOCK;
use crate::base::{Codec, DecodeError, Reader};

pub const FRAME_HEAD: usize = 16;

/// `value` in its frame, padded with zeros to a multiple of the block.
pub fn seal<T: Codec>(magic: [u8; 8], value: &T) -> Vec<u8> {
    let body = value.to_vec();
    let mut out = Vec::with_capacity((FRAME_HEAD + body.len()).next_multiple_of(BLOCK));
    out.extend_from_slice(&magic);
    out.extend_from_slice(&[0; 4]);
    let len = u32::try_from(body.len()).expect("records on flash are bounded by their areas");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&body);
    let crc = crc32c::crc32c(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// The record in `bytes`, which may go on after it.
pub fn open<T: Codec>(magic: [u8; 8], bytes: &[u8]) -> Result<T, DecodeError> {
    T::from_slice(body(magic, bytes)?)
}

/// The checked body of a frame.
pub fn body(magic: [u8; 8], bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let mut r = Reader::new(bytes);
    if r.array::<8>()? != magic {
        return Err(r.fault("wrong magic"));
    }
    let crc = u32::decode(&mut r)?;
    let len = u32::decode(&mut r)? as usize;
    let body = r.take(len)?;
    if crc32c::crc32c(&bytes[12..FRAME_HEAD + len]) != crc {
        return Err(r.fault("wrong checksum"));
    }
    Ok(body)
}
