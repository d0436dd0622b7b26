//! L1: the flat conf file: types (`mod`), parsing (`parse`), values (`value`),
//! faults (`fault`). Pure but for [`Conf::load`], which reads the file.
//!
//! `key = value`, one a line, `#` starts a comment. Unknown keys, bad values
//! and conflicts are faults with file, line, key and remedy, all of them at once.

mod fault;
mod parse;
pub mod value;

#[cfg(test)]
mod tests;

pub use fault::{Fault, Faults};
pub use parse::parse;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A whole, valid conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conf {
    pub listen: SocketAddr,
    pub shards: Shards,
    /// Bytes of memory for cached file data, over all shards.
    pub memory: u64,
    pub admin_socket: PathBuf,
    pub cache_path: PathBuf,
    pub cache_size: u64,
    /// How long a silent client keeps what it was granted.
    pub lease: Duration,
    /// In what time everything on flash is read and checked once; `None`: never.
    pub scrub: Option<Duration>,
    pub targets: Vec<TargetConf>,
}

/// Where the shards run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shards {
    /// One for every two CPUs, at least one: clients and origin threads of a
    /// small machine need the rest.
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

impl TargetConf {
    /// A target with every policy at its default.
    #[must_use]
    pub fn new(name: &str, origin: PathBuf) -> TargetConf {
        TargetConf {
            name: name.to_owned(),
            origin,
            authority: Authority::Exclusive,
            writeback: Writeback::Lag(Duration::from_secs(15)),
            writeback_bytes: 256 << 20,
            disconnected: Disconnected::ReadWrite,
            disconnected_max: Duration::from_secs(4 * 3600),
            origin_threads: 8,
            prefetch: Prefetch::Sequential,
        }
    }
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

impl Conf {
    /// Reads and parses a conf file. A file that cannot be read is a fault too.
    pub fn load(path: &Path) -> Result<Conf, Faults> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => parse(&file, &text),
            Err(e) => Err(Faults(vec![Fault {
                file,
                line: 0,
                key: "conf".to_owned(),
                what: format!("cannot be read: {e}"),
                remedy: "give an existing file with -c, or leave -c out for the default".to_owned(),
            }])),
        }
    }

    /// The embedded default: everything under `dir`.
    #[must_use]
    pub fn embedded(dir: &Path) -> Conf {
        Conf {
            listen: SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)),
            shards: Shards::Auto,
            memory: DEFAULT_MEMORY,
            admin_socket: dir.join("admin.sock"),
            cache_path: dir.join("cache.fb"),
            cache_size: 1 << 30,
            lease: DEFAULT_LEASE,
            scrub: Some(DEFAULT_SCRUB),
            targets: vec![TargetConf::new("main", dir.join("origin"))],
        }
    }
}

pub const DEFAULT_PORT: u16 = 9880;
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/forebay/admin.sock";
/// `memory = auto`: small enough for any machine that has a flash to cache on.
pub const DEFAULT_MEMORY: u64 = 256 << 20;
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
pub const DEFAULT_SCRUB: Duration = Duration::from_secs(7 * 86_400);
/// Smallest cache that holds its own structures and some data.
pub const CACHE_SIZE_MIN: u64 = 64 << 20;
