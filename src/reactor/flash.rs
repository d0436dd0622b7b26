//! The box's flash, as one file or device, on the ring.
//!
//! A durable write must cover the writes that completed before it. With
//! `RWF_DSYNC` it does where the kernel follows the write with a flush. On a
//! device that has force-unit-access the kernel writes through instead and
//! flushes nothing, so that earlier writes may still lie in the device's cache:
//! there, a durable write after unsynced ones is a write and an fdatasync.

use crate::base::limits::BLOCK;
use crate::base::{Buf, Errno, Pool, Slice};
use crate::reactor::job::{Descriptor, Job, Kind, Parts};
use crate::reactor::slots::Driver;
use crate::reactor::stream::done;
use rustix::fs::{FileType, Mode, OFlags};
use std::cell::Cell;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Opens a cache file or device for a reactor, past the page cache.
pub fn open(path: &Path) -> Result<OwnedFd, OpenError> {
    let fault = |error: rustix::io::Errno| OpenError {
        path: path.to_path_buf(),
        error: error.into(),
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
    rustix::fs::open(path, flags, Mode::empty()).map_err(fault)
}

/// Why the flash could not be opened.
#[derive(Debug)]
pub struct OpenError {
    pub path: PathBuf,
    pub error: io::Error,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.error.raw_os_error() {
            Some(libc::EINVAL) => write!(
                f,
                "{path}: its file system cannot do direct I/O (O_DIRECT): put the cache file \
                 on ext4 or XFS, or name a block device in `cache.path`"
            ),
            _ => write!(f, "{path}: {}", self.error),
        }
    }
}

impl std::error::Error for OpenError {}

/// The flash of one reactor.
pub(super) struct FlashFile {
    file: Descriptor,
    cover: Cover,
}

impl FlashFile {
    pub fn new(fd: OwnedFd) -> FlashFile {
        FlashFile {
            cover: Cover::new(writes_through(&fd)),
            file: Descriptor::new(fd),
        }
    }

    pub fn file(&mut self) -> &mut Descriptor {
        &mut self.file
    }

    pub async fn read(
        &self,
        driver: &Rc<Driver>,
        buffers: &Pool,
        offset: u64,
        mut buf: Buf,
    ) -> (Result<(), Errno>, Buf) {
        let mut at = 0;
        while at < buf.len() {
            let Some(from) = offset.checked_add(at as u64) else {
                return (Err(Errno::EINVAL), buf);
            };
            let registered = buffers.number(&buf);
            let kind = Kind::ReadAt {
                buf,
                at,
                offset: from,
                registered,
            };
            let on = self.file.clone();
            let (result, job) = driver.start(Job { on, kind }).await;
            let Kind::ReadAt { buf: back, .. } = job.kind else {
                unreachable!("a job comes back as it went")
            };
            buf = back;
            match done(result) {
                // Direct I/O moves whole blocks; a tail of one is read again.
                Ok(n) if n >= BLOCK || at + n == buf.len() => at += n - n % BLOCK.min(n),
                // The end of the flash is no place to read.
                Ok(_) => return (Err(Errno::EIO), buf),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return (Err(e), buf),
            }
        }
        (Ok(()), buf)
    }

    pub async fn write(
        &self,
        driver: &Rc<Driver>,
        buffers: &Pool,
        offset: u64,
        parts: Vec<Slice>,
        durable: bool,
    ) -> Result<(), Errno> {
        let mut parts = Parts::new(parts);
        let at_once = durable && self.cover.by_dsync() && parts.fits_one_call();
        let registered = parts.sole().and_then(|slice| slice.number_in(buffers));
        let mut written: u64 = 0;
        let mut calls = 0;
        while !parts.is_done() {
            let kind = Kind::WriteAt {
                parts,
                offset: offset.checked_add(written).ok_or(Errno::EINVAL)?,
                durable: at_once,
                registered,
            };
            let on = self.file.clone();
            let (result, job) = driver.start(Job { on, kind }).await;
            let Kind::WriteAt { parts: back, .. } = job.kind else {
                unreachable!("a job comes back as it went")
            };
            parts = back;
            calls += 1;
            match done(result) {
                Ok(0) => return Err(Errno::ENOSPC),
                Ok(n) => {
                    written += n as u64;
                    parts.advance(n);
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return Err(e),
            }
        }
        if at_once && calls == 1 {
            return Ok(());
        }
        self.cover.on_unsynced();
        if durable {
            self.sync(driver).await?;
        }
        Ok(())
    }

    pub async fn sync(&self, driver: &Rc<Driver>) -> Result<(), Errno> {
        let covers = self.cover.unsynced();
        let on = self.file.clone();
        let kind = Kind::Sync;
        let (result, _) = driver.start(Job { on, kind }).await;
        done(result)?;
        self.cover.on_synced(covers);
        Ok(())
    }
}

/// Which completed writes a flush has covered.
struct Cover {
    /// A durable write flushes nothing but itself.
    writes_through: bool,
    /// Completed writes that asked for no durability, counted.
    unsynced: Cell<u64>,
    /// How many of them a flush is known to cover.
    synced: Cell<u64>,
}

impl Cover {
    fn new(writes_through: bool) -> Cover {
        Cover {
            writes_through,
            unsynced: Cell::new(0),
            synced: Cell::new(0),
        }
    }

    /// Does a write with `RWF_DSYNC` leave nothing before it uncovered?
    fn by_dsync(&self) -> bool {
        !self.writes_through || self.synced.get() == self.unsynced.get()
    }

    fn on_unsynced(&self) {
        self.unsynced.set(self.unsynced.get() + 1);
    }

    /// What a flush that begins now will cover.
    fn unsynced(&self) -> u64 {
        self.unsynced.get()
    }

    /// A flush that began at `covers` succeeded.
    fn on_synced(&self, covers: u64) {
        self.synced.set(self.synced.get().max(covers));
    }
}

/// Does the device behind `fd` have both a volatile cache and writes through
/// it? Where that cannot be told, it is assumed.
fn writes_through(fd: &OwnedFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return true;
    };
    let device = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => stat.st_rdev,
        _ => stat.st_dev,
    };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // A partition's queue is its disk's.
    let queues = [
        format!("/sys/dev/block/{major}:{minor}/queue"),
        format!("/sys/dev/block/{major}:{minor}/../queue"),
    ];
    let property = |name: &str| {
        let mut found = queues
            .iter()
            .filter_map(|queue| fs::read_to_string(format!("{queue}/{name}")).ok());
        found.next()
    };
    match (property("fua"), property("write_cache")) {
        (Some(fua), Some(cache)) => fua.trim() != "0" && cache.trim() != "write through",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_covers_what_completed_before_it_began() {
        let cover = Cover::new(true);
        assert!(cover.by_dsync(), "nothing before it");
        cover.on_unsynced();
        assert!(!cover.by_dsync());
        let first = cover.unsynced();
        cover.on_unsynced();
        let second = cover.unsynced();
        cover.on_synced(first);
        assert!(!cover.by_dsync(), "one completed while the flush ran");
        cover.on_synced(second);
        assert!(cover.by_dsync());
        // Flushes may end out of order.
        cover.on_synced(first);
        assert!(cover.by_dsync());
    }

    #[test]
    fn where_every_sync_flushes_one_call_is_enough() {
        let cover = Cover::new(false);
        cover.on_unsynced();
        assert!(cover.by_dsync());
    }
}
