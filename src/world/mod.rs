//! L3: everything outside a shard, as one trait. Shards, the client and the
//! write-back engine are plain `async fn`s over a [`World`]; there are two
//! implementations: `reactor` (io_uring, sockets, flash, threads) and `sim`
//! (a seeded clock, network, disk and origin).
//!
//! Architecture invariant: nothing above L2 reads a clock, draws a random
//! number, opens a file or spawns a task but through this trait.

use crate::base::{Buf, Errno, Mono, Pool, ShardId, Slice, Time};
use crate::origin::{OriginCall, OriginReply};
use std::future::Future;
use std::time::Duration;

/// A connected byte stream. Dropping it closes it; after `shutdown` both sides
/// of every pending operation end with an error or end of stream.
pub trait Conn: 'static {
    /// Receives at least one byte into `buf[at..]`, the buffer's length being
    /// the bound. `Ok(0)` is end of stream.
    fn recv(&self, buf: Buf, at: usize) -> impl Future<Output = (Result<usize, Errno>, Buf)>;
    /// Sends all of `parts`, in order, as few system calls as it takes.
    /// One send at a time is the caller's duty.
    fn send(&self, parts: Vec<Slice>) -> impl Future<Output = Result<(), Errno>>;
    /// Hands over what the stream takes of `bytes` without waiting, and tells
    /// how much: short frames leave a turn earlier so, and without an operation
    /// of their own. 0 also on an error, which the next `send` meets. Not while
    /// a send is pending.
    fn try_send(&self, bytes: &[u8]) -> usize;
    fn shutdown(&self);
    /// Who is at the other end, for logs and credential maps.
    fn peer(&self) -> String;
}

/// What a thread of the box, or a client, can reach of the outside. Cheap to
/// clone (a handle). Not `Send`: a world belongs to its thread.
pub trait World: Clone + 'static {
    type Conn: Conn;

    fn now(&self) -> Mono;
    fn wall(&self) -> Time;
    fn random(&self) -> u64;
    fn pool(&self) -> &Pool;

    /// Runs `task` on this thread until it ends.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
    fn sleep(&self, for_: Duration) -> impl Future<Output = ()>;
    /// Lets the other ready tasks of this thread run once.
    fn yield_now(&self) -> impl Future<Output = ()>;

    /// Connects to `addr` ("host:port"); ETIMEDOUT, ECONNREFUSED and the like.
    fn connect(&self, addr: &str) -> impl Future<Output = Result<Self::Conn, Errno>>;

    /// Reads `buf.len()` bytes of flash at `offset`; both are multiples of
    /// [`BLOCK`](crate::base::limits::BLOCK).
    fn flash_read(&self, offset: u64, buf: Buf) -> impl Future<Output = (Result<(), Errno>, Buf)>;
    /// Writes `parts` one after another at `offset` (each part and the offset
    /// multiples of the block). With `durable` the result covers this write
    /// **and every flash write that completed before this one was submitted**
    /// (a device flush follows the write).
    fn flash_write(
        &self,
        offset: u64,
        parts: Vec<Slice>,
        durable: bool,
    ) -> impl Future<Output = Result<(), Errno>>;
    /// Makes every flash write that completed before this call durable.
    fn flash_sync(&self) -> impl Future<Output = Result<(), Errno>>;

    /// Runs an origin call on the target's own bounded threads (O10).
    fn origin(&self, call: OriginCall) -> impl Future<Output = OriginReply>;

    /// The next thing that the control thread (or another shard) hands to this
    /// shard; never ends before [`Arrival::Stop`].
    fn arrival(&self) -> impl Future<Output = Arrival<Self::Conn>>;

    /// Sends a message to another shard of the same box.
    ///
    /// # Errors
    /// Gives the message back, with a log line, if there is no such shard or
    /// it is too far behind: the sender decides what the loss means.
    fn tell(&self, to: ShardId, message: Vec<u8>) -> Result<(), Vec<u8>>;

    /// One line for the box's log; the world adds time and place.
    fn log(&self, level: Level, line: &str);
}

/// What reaches a shard from outside its thread.
pub enum Arrival<C> {
    /// A client's connection for this shard; `first` is what was read of it
    /// already (its CONNECT frame, whole).
    Client { conn: C, first: Vec<u8> },
    /// A command of the administrator, as JSON; the answer is JSON too.
    Admin {
        request: String,
        reply: Box<dyn FnOnce(String)>,
    },
    /// From another shard.
    Peer { from: ShardId, message: Vec<u8> },
    /// Commit, write back what policy demands, mark clean, return.
    Stop,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

pub mod race;
pub mod stream;
pub mod sync;
