//! The cache file before the shards start: opened, locked, formatted if it is
//! new, checked, and claimed with a new generation.

use super::cli::Failure;
use super::serve::patiently;
use crate::base::{BoxId, Errno, ShardId, TargetId};
use crate::conf::{Conf, Shards};
use crate::reactor;
use crate::shard::meta::root as root_of;
use crate::store::StoreError;
use crate::store::superblock::{SeqRange, TargetEntry};
use crate::store::volume::{FormatOptions, Volume};
use rustix::fs::{FallocateFlags, FileType, FlockOperation};
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The box's flash, held: dropping it lets another box open it.
pub struct Cache {
    /// For the superblock, through the page cache.
    file: File,
    /// For the shards, past the page cache. It holds the lock, and is in their
    /// rings: another box gets the lock only when the last write has ended (F1).
    pub flash: OwnedFd,
    pub volume: Volume,
    /// The last stop was clean, by a release of this name.
    pub was_clean: bool,
    pub last_release: String,
    pub was_formatted: bool,
}

impl Cache {
    /// Opens and claims the cache of `conf`; formats it if it is new or blank.
    /// With `force`, an unclean stop of another release is no hindrance.
    pub fn open(conf: &Conf, force: bool) -> Result<Cache, Failure> {
        let path = &conf.cache_path;
        let file = open(path)?;
        let flash = reactor::flash::open(path).map_err(|e| Failure::failed(e.to_string()))?;
        let lock = || rustix::fs::flock(&flash, FlockOperation::NonBlockingLockExclusive);
        if patiently(|e| *e == rustix::io::Errno::AGAIN, lock).is_err() {
            return Err(refused(path, StoreError::InUse));
        }
        let bytes = ensure_size(&file, conf)?;
        let (volume, was_formatted) = match read(&file, bytes) {
            Err(StoreError::Blank) => (format(&file, bytes, conf)?, true),
            Err(e) => return Err(refused(path, e)),
            Ok(volume) => (volume, false),
        };
        check_shards(conf, &volume)?;
        let (was_clean, last_release) =
            (volume.superblock.clean, volume.superblock.release.clone());
        let ours = env!("CARGO_PKG_VERSION");
        if !was_clean && !was_formatted && last_release != ours && !force {
            return Err(Failure::refused(format!(
                "{}: release {last_release} stopped uncleanly here, and this is {ours}: start \
                 {last_release} and stop it cleanly, or use --force",
                path.display()
            )));
        }
        let mut cache = Cache {
            file,
            flash,
            volume,
            was_clean,
            last_release,
            was_formatted,
        };
        let claimed = cache.volume.claim();
        cache.write_superblock(claimed, path)?;
        for target in &conf.targets {
            cache.add_target(&target.name, path)?;
        }
        Ok(cache)
    }

    /// The table entry of a target; a new target gets its id, its root FID in
    /// sequences of its own, and its hash key, all durable before use (F9).
    fn add_target(&mut self, name: &str, path: &Path) -> Result<(), Failure> {
        if self
            .volume
            .superblock
            .targets
            .iter()
            .any(|t| t.name == name)
        {
            return Ok(());
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key)
            .map_err(|e| Failure::failed(format!("no randomness from the kernel: {e}")))?;
        let changed = self.volume.next_superblock(|s| {
            let id = s.targets.iter().map(|t| t.id.0).max().unwrap_or(0) + 1;
            let root = root_of(TargetId(id));
            let last = root.seq | u64::from(u32::MAX);
            s.next_seq = s.next_seq.max(last + 1);
            let shard = u16::try_from(u64::from(id - 1) % u64::from(s.shards.max(1)));
            let shard = ShardId(shard.unwrap_or(0));
            s.map.push(SeqRange {
                first: root.seq,
                last,
                shard,
            });
            s.map_epoch = s.map_epoch.next();
            s.targets.push(TargetEntry {
                id: TargetId(id),
                name: name.to_owned(),
                root,
                hash_key: u128::from_le_bytes(key),
            });
        });
        self.write_superblock(changed, path)
    }

    /// After every shard closed cleanly: says so on flash.
    pub fn mark_clean(&mut self, path: &Path) -> Result<(), Failure> {
        let changed = self.volume.next_superblock(|s| s.clean = true);
        self.write_superblock(changed, path)
    }

    fn write_superblock(
        &mut self,
        changed: Result<(u64, Vec<u8>), StoreError>,
        path: &Path,
    ) -> Result<(), Failure> {
        let (at, bytes) = changed.map_err(|e| refused(path, e))?;
        let written = self
            .file
            .write_all_at(&bytes, at)
            .and_then(|()| self.file.sync_data());
        written.map_err(|e| failed(path, &e))
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    if let Some(dir) = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty() && !d.exists())
    {
        std::fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| failed(path, &e))
}

/// The size of the cache in bytes; a new file is given its size and its space.
fn ensure_size(file: &File, conf: &Conf) -> Result<u64, Failure> {
    let path = &conf.cache_path;
    let stat = rustix::fs::fstat(file).map_err(|e| failed(path, &e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
        let bytes = rustix::fs::seek(file, rustix::fs::SeekFrom::End(0));
        let bytes = bytes.map_err(|e| failed(path, &e.into()))?;
        return Ok(bytes.min(conf.cache_size));
    }
    if stat.st_size == 0 {
        // Space is taken now, so that a full disk is told here and not at a write.
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, conf.cache_size).map_err(|e| {
            Failure::failed(format!(
                "{}: no room for cache.size = {} bytes ({e}): free space, or lower cache.size",
                path.display(),
                conf.cache_size
            ))
        })?;
        return Ok(conf.cache_size);
    }
    u64::try_from(stat.st_size).map_err(|_| Failure::failed("a cache of negative size"))
}

fn read(file: &File, bytes: u64) -> Result<Volume, StoreError> {
    Volume::read(bytes, |at, len| {
        let mut out = vec![0; len];
        file.read_exact_at(&mut out, at)
            .map_err(|e| Errno::of(&e))?;
        Ok(out)
    })
}

fn format(file: &File, bytes: u64, conf: &Conf) -> Result<Volume, Failure> {
    let path = &conf.cache_path;
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|e| Failure::failed(format!("no randomness from the kernel: {e}")))?;
    let options = FormatOptions::new(bytes, shard_count(conf), BoxId(u128::from_le_bytes(id)));
    let volume = Volume::plan(&options).map_err(|e| refused(path, e))?;
    let mut writes = volume.writes().map_err(|e| refused(path, e))?;
    let superblock = writes.pop();
    let put = |(at, bytes): (u64, Vec<u8>)| file.write_all_at(&bytes, at);
    let written = writes
        .into_iter()
        .try_for_each(put)
        .and_then(|()| file.sync_all());
    let written = written
        .and_then(|()| superblock.map_or(Ok(()), put))
        .and_then(|()| file.sync_all());
    written.map_err(|e| failed(path, &e))?;
    Ok(volume)
}

/// How many shards a conf asks for.
#[must_use]
pub fn shard_count(conf: &Conf) -> u16 {
    match &conf.shards {
        Shards::Cpus(cpus) => u16::try_from(cpus.len()).unwrap_or(u16::MAX),
        Shards::Auto => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            u16::try_from((cpus / 2).clamp(1, 64)).unwrap_or(1)
        }
    }
}

/// An explicit number of shards must be the one that the cache was made for.
fn check_shards(conf: &Conf, volume: &Volume) -> Result<(), Failure> {
    let have = volume.superblock.shards;
    if matches!(conf.shards, Shards::Cpus(_)) && shard_count(conf) != have {
        return Err(Failure::refused(format!(
            "{}: made for {have} shards, and `shards` names {}: name {have} CPUs, or use auto",
            conf.cache_path.display(),
            shard_count(conf)
        )));
    }
    Ok(())
}

fn refused(path: &Path, e: StoreError) -> Failure {
    Failure::refused(format!("{}: {e}", path.display()))
}

fn failed(path: &Path, e: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {e}", path.display()))
}
