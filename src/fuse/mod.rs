//! L5: the mount. The kernel's FUSE protocol (`abi`), its device (`device`) and
//! the system calls around it (`sys`); the tables that translate between kernel
//! and box (`nodes`, `dirs`, `callers`); the operations (`ops`); and the mount
//! process (`mount`, `options`, `mounts`). What the kernel may believe without
//! asking (`terms`, `kept`), and how it is taken back (`takeback`, `notices`).
//!
//! ```text
//!  kernel ─ /dev/fuse ─► device ─► session ─► ops ─► Upstream (src/client) ═══ box
//!                          ▲          one task a request       │
//!                          └───────────── reply ◄──────────────┘
//! ```
//! All of it runs on one thread and one ring, beside its caller where there is one
//! (`beside`). The device is polled and drained, never read by a call that could
//! wait (C18).
//!
//! Architecture invariant: nothing here keeps contents or attributes, and of
//! names only what the kernel was told. It may keep what the client's locks
//! cover, and not longer.

pub mod abi;
pub mod beside;
pub mod callers;
pub mod device;
pub mod dirs;
pub mod fault;
mod journal;
pub mod kept;
pub mod kernel;
pub mod mount;
pub mod mounts;
pub mod nodes;
pub mod notices;
mod ops;
pub mod options;
pub mod server;
pub mod session;
pub mod sys;
mod takeback;
mod terms;
pub mod upstream;

/// The extended attribute of a mount's root that tells the process behind it.
/// In the `system` name space, because reading one there needs no permission
/// and so no question to the box.
pub const PID_XATTR: &str = "system.forebay.pid";

/// The one that tells what the mount has been doing since it began.
pub const COUNTERS_XATTR: &str = "system.forebay.counters";
