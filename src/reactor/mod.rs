//! L4: the real world. One reactor is one thread with one io_uring, an
//! executor, timers and a port to the other threads of its process.
//!
//! ```text
//!   other threads ──► queues + doorbell ─┐            tasks (`async fn`s over World)
//!                                        ▼                 │ start         ▲ wake
//!   turn: collect ► timers ► run ready tasks ► one enter ► reap completions┘
//! ```
//!
//! A turn runs every ready task, then enters the kernel once: what the tasks
//! started is submitted in a batch, and all that completed is reaped before
//! any of it runs. A reactor without work sleeps in that enter, and says so
//! beforehand, so that others ring only then.
//!
//! Architecture invariant: memory that the kernel may write belongs to its
//! operation's slot until the completion, whoever gave up waiting (`slots`).
//! All `unsafe` of the box but FUSE's and the origin's lies here.
//!
//! Start at [`run`], then `local` (the `World`), `slots` and `job`.

mod doorbell;
mod executor;
mod features;
pub mod flash;
mod job;
mod linger;
mod local;
mod log;
mod oneshot;
mod origins;
mod port;
mod random;
mod resolve;
mod ring;
mod run;
pub mod signals;
mod slots;
pub mod spsc;
mod stream;
mod timers;

#[cfg(test)]
mod tests;

pub use features::{Features, Mode, SetupError};
pub use job::Descriptor;
pub use local::Local;
pub use log::Log;
pub use origins::{Origins, refusal};
pub use port::{Inbox, Mail, Port};
pub use run::{Options, run};
pub use stream::Stream;
