//! L2: what a name and an inode are, and which operations POSIX allows on
//! them. Pure: each operation is one synchronous function that reads a
//! [`View`] of records and returns a [`Change`], an errno, or a [`Need`].
//!
//! ```text
//! create link unlink rename setattr xattr ─► Draft (view + what changed) ─► Change
//!        └── access, acl, entry ──────────────────┘
//! ```
//!
//! Architecture invariant: "not loaded" and "not known" are never "absent"
//! (N10). A decision that lacks a record, a name of an incomplete directory or
//! a file's xattrs stops with the need and is run again, from the start.

pub mod access;
pub mod acl;
pub mod create;
pub mod draft;
pub mod entry;
pub mod hash;
pub mod key;
pub mod link;
pub mod record;
pub mod rename;
pub mod setattr;
pub mod unlink;
pub mod view;
pub mod xattr;

pub use access::Caller;
pub use draft::{Change, Draft};
pub use record::{Dirent, Inode, Observed, Owed, OwedOp};
pub use view::{Bounds, Ctx, Need, Stop, View};

#[cfg(test)]
pub(crate) mod tests;
