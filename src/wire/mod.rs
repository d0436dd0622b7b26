//! L1: the native protocol, as types and bytes. No I/O and no state: framing
//! (`frame`), the fixed headers (`head`), CONNECT and its features (`connect`),
//! and the operations (`op`). `docs/PROTOCOL.md` has the byte tables; the
//! golden vectors under `tests/wire/` are a peer that never upgrades.
//!
//! Architecture invariant: a receiver decodes only what the connection's
//! features allow; fields are added behind a feature bit, never changed.

pub mod callback;
pub mod connect;
pub mod fids;
pub mod filelock;
pub mod frame;
pub mod head;
pub mod locks;
pub mod notice;
pub mod op;

pub use callback::Callback;
pub use connect::{ConnectReply, ConnectRequest, Features, ShardMap};
pub use fids::{FidRange, FidsGranted, FidsWanted, Holds};
pub use frame::{Bounds, Content, Frame, Layout, Message};
pub use head::{CallbackHead, Head, Kind, NO_TAG, ReplyHead, RequestHead};
pub use locks::{Asked, Granted, LockCancel, LockGrant, LockWant, Shown};
pub use notice::Notice;
pub use op::{Reply, Request};

#[cfg(test)]
mod tests;
