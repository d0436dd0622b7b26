//! L1: the native protocol, as types and bytes. No I/O and no state: framing
//! (`frame`), the fixed headers (`head`), CONNECT and its features (`connect`),
//! and the operations (`op`). `docs/PROTOCOL.md` has the byte tables; the
//! golden vectors under `tests/wire/` are a peer that never upgrades.
//!
//! Architecture invariant: a receiver decodes only what the connection's
//! features allow; fields are added behind a feature bit, never changed.

pub mod connect;
pub mod head;
pub mod op;

pub use connect::{ConnectReply, ConnectRequest, Features, ShardMap};
pub use head::{Head, Kind, ReplyHead, RequestHead};
pub use op::{Reply, Request};
