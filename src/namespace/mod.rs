//! L2: what a name and an inode are, and which operations POSIX allows on
//! them. Pure: decides over a [`View`](view) of records and returns effects.

pub mod key;
pub mod record;

pub use record::{Dirent, Inode, Observed, Owed, OwedOp};
