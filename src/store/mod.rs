//! L2: the flash format and the rules of using it, pure: byte forms, the
//! journal's recovery table, the index's tables, the accounting of segments.
//! `docs/STORE.md` has the byte tables and the reason for each order.
//!
//! ```text
//! superblock ─► roots (one a shard) ─► manifest ─► index tables
//!                      │                  └─► live bytes of each segment
//!                      └─► journal segment ─► next ─► … (transactions, small data)
//! ```
//! Start reading at [`volume`] (where things lie), then [`journal`] and
//! [`recovery`]. `flash` drives all of it over a world.
//!
//! Architecture invariant: nothing here does I/O, and nothing here trusts a
//! byte that came from flash: every length and offset is checked first.

pub mod block;
pub mod bloom;
pub mod error;
pub mod frame;
pub mod journal;
pub mod manifest;
pub mod memtable;
pub mod record;
pub mod recovery;
pub mod root;
pub mod segment;
pub mod space;
pub mod superblock;
pub mod table;

pub mod volume;

pub use error::StoreError;
pub use record::{Appended, Record};
pub use superblock::Superblock;
pub use volume::{FormatOptions, Volume};
