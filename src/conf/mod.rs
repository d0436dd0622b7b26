//! L1: the flat conf file: types, parsing, defaults and faults.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A whole, valid conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    pub listen: SocketAddr,
    pub shards: Shards,
    /// Bytes of memory for caches and buffers over all shards.
    pub memory: u64,
    pub admin_socket: PathBuf,
    pub cache_path: PathBuf,
    pub cache_size: u64,
    /// How long a silent client keeps what it was granted.
    pub lease: Duration,
    pub targets: Vec<TargetConf>,
}

/// Where the shards run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    /// One for every two CPUs, at least one.
    Auto,
    /// One pinned to each of these CPUs.
    Cpus(Vec<usize>),
}

/// One exported tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConf {
    pub name: String,
    pub origin: PathBuf,
    pub authority: Authority,
    pub writeback: Writeback,
    /// Dirty bytes above which write-back starts whatever their age.
    pub writeback_bytes: u64,
    pub disconnected: Disconnected,
    pub disconnected_max: Duration,
    /// Threads for origin calls.
    pub origin_threads: usize,
    pub prefetch: Prefetch,
}

/// Who else writes the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    Exclusive,
    Shared,
}

/// How far the origin may lag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writeback {
    /// Dirty data is at most this old.
    Lag(Duration),
    /// A reply to fsync or to an operation on names means "at the origin".
    Through,
    /// Read-only cache: writes are refused with EROFS.
    Off,
}

/// What clients may do while the origin is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disconnected {
    ReadWrite,
    ReadOnly,
    Fail,
}

/// How far reads run ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    Sequential,
    WholeFile,
    None,
}
