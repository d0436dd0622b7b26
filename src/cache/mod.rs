//! L2: which bytes of a file are where, and which of them are worth keeping.
//! Pure: no flash, no clock, no tasks; `shard::data` joins it to both.
//!
//! ```text
//! read ─► memory (S3-FIFO of 64 KiB chunks) ─► extent (flash, hole or absent) ─► origin
//!              ▲ readahead: what to bring in early       ▲ reclaim: which segment to empty
//! ```
//!
//! Architecture invariant: a range of a file is *cached*, an *authoritative
//! hole* or *absent*, and nothing but absent ranges may ever be fetched (F7).
//! Start reading at [`extent::ExtentMap`].

pub mod extent;
pub mod memory;
pub mod readahead;
pub mod reclaim;

pub use extent::{Change, Extent, ExtentMap, Piece, Segment, What};
