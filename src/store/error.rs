//! Why a store cannot be used, by whose fault, and what to do about it.

use crate::base::{DecodeError, Errno};
use std::fmt;

/// Everything that can be wrong with a cache file or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing but zeros where the superblock belongs: never formatted.
    Blank,
    /// Holds something that is not a Forebay store.
    Foreign,
    /// Too small to be formatted: bytes there are, bytes needed.
    TooSmall { have: u64, need: u64 },
    /// Shorter than its superblock says.
    Truncated { have: u64, says: u64 },
    /// Written in a format that this release does not know.
    Version { found: u32, ours: u32 },
    /// Uses features that this release does not know.
    Features { unknown: u64 },
    /// Another box holds the lock.
    InUse,
    /// Asked to open a shard that the store was not formatted for.
    NoShard { asked: u16, have: u16 },
    /// Options that no store can have.
    Options { why: &'static str },
    /// Bytes that were durable are not what was written.
    Corrupt {
        what: &'static str,
        /// Byte offset on the device.
        at: u64,
        why: &'static str,
    },
    /// The device failed.
    Io { at: u64, errno: Errno },
}

impl StoreError {
    pub(crate) fn corrupt(what: &'static str, at: u64, e: DecodeError) -> StoreError {
        StoreError::Corrupt {
            what,
            at: at.saturating_add(e.at as u64),
            why: e.why,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Blank => {
                write!(
                    f,
                    "the cache is not formatted yet: start the box with a writable cache.path"
                )
            }
            StoreError::Foreign => write!(
                f,
                "not a Forebay cache: it holds something else; point cache.path elsewhere, or empty it yourself"
            ),
            StoreError::TooSmall { have, need } => write!(
                f,
                "the cache has {have} bytes and needs at least {need}: raise cache.size"
            ),
            StoreError::Truncated { have, says } => write!(
                f,
                "the cache is cut short: {have} bytes of {says}; bring the whole file back, or run forebay-fsck --evacuate"
            ),
            StoreError::Version { found, ours } => write!(
                f,
                "the cache has format {found}, this release knows format {ours}: drain it with the release that wrote it"
            ),
            StoreError::Features { unknown } => write!(
                f,
                "the cache uses features {unknown:#x} that this release does not know: use a newer release"
            ),
            StoreError::InUse => write!(
                f,
                "another box is using the cache: stop it first, or give this one a cache.path of its own"
            ),
            StoreError::NoShard { asked, have } => write!(
                f,
                "shard {asked} does not exist, the cache was made for {have}: set shards to that number"
            ),
            StoreError::Options { why } => write!(f, "the cache cannot be made like this: {why}"),
            StoreError::Corrupt { what, at, why } => write!(
                f,
                "{what} at byte {at} is damaged ({why}): what was stored is not there; run forebay-fsck"
            ),
            StoreError::Io { at, errno } => {
                write!(f, "the cache device failed at byte {at}: {errno}")
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for Errno {
    fn from(_: StoreError) -> Errno {
        Errno::EIO
    }
}
