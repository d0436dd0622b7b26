//! Bytes of files: read, write, truncate, punch, sync.

use super::descriptors::Descriptors;
use super::node::{Node, Root, retry};
use crate::base::{Errno, FileKind, Slice};
use crate::origin::{Found, Place};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, OFlags};
use std::io::IoSlice;

/// Pieces in one `pwritev` (the kernel's IOV_MAX).
const PIECES_MAX: usize = 1024;
/// Zeros written at a time where the file system cannot punch.
const ZEROS: usize = 1 << 20;

/// Fills `buf` from `offset`; fewer bytes only at end of file.
pub fn read(
    root: &Root,
    open: &Descriptors,
    place: &Place,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize, Errno> {
    let fd = open.reader(root, place)?;
    let mut done = 0;
    while done < buf.len() {
        let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        match retry(|| rustix::io::pread(&*fd, &mut buf[done..], at))? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

pub fn write(
    root: &Root,
    open: &Descriptors,
    place: &Place,
    offset: u64,
    data: &[Slice],
) -> Result<(), Errno> {
    let fd = open.writer(root, place)?;
    let parts: Vec<&[u8]> = data.iter().map(|part| &part[..]).collect();
    write_all(&fd, offset, &parts)
}

/// Goes on after short writes; a write of nothing is the file system's fault.
fn write_all(fd: &OwnedFd, mut at: u64, parts: &[&[u8]]) -> Result<(), Errno> {
    let (mut first, mut skip) = (0, 0);
    while first < parts.len() {
        if skip == parts[first].len() {
            (first, skip) = (first + 1, 0);
            continue;
        }
        let mut slices = vec![IoSlice::new(&parts[first][skip..])];
        let more = parts[first + 1..].iter().take(PIECES_MAX - 1);
        slices.extend(more.map(|part| IoSlice::new(part)));
        let mut n = retry(|| rustix::io::pwritev(fd, &slices, at))?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        at = at.checked_add(n as u64).ok_or(Errno::EFBIG)?;
        while first < parts.len() && n >= parts[first].len() - skip {
            n -= parts[first].len() - skip;
            (first, skip) = (first + 1, 0);
        }
        skip += n;
    }
    Ok(())
}

pub fn truncate(root: &Root, open: &Descriptors, place: &Place, size: u64) -> Result<(), Errno> {
    let fd = open.writer(root, place)?;
    retry(|| rustix::fs::ftruncate(&*fd, size))
}

/// Makes the range read as zeros without changing the size.
pub fn punch(
    root: &Root,
    open: &Descriptors,
    place: &Place,
    offset: u64,
    len: u64,
) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    let fd = open.writer(root, place)?;
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match retry(|| rustix::fs::fallocate(&*fd, how, offset, len)) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => zero(&fd, offset, len),
        other => other,
    }
}

fn zero(fd: &OwnedFd, offset: u64, len: u64) -> Result<(), Errno> {
    let size = retry(|| rustix::fs::fstat(fd))?.st_size;
    let size = u64::try_from(size).map_err(|_| Errno::EIO)?;
    let end = offset.checked_add(len).ok_or(Errno::EINVAL)?.min(size);
    let zeros = vec![0; ZEROS];
    let mut at = offset;
    while at < end {
        let n = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
        write_all(fd, at, &[&zeros[..n]])?;
        at += n as u64;
    }
    Ok(())
}

/// Makes a file or a directory durable, and tells what it looks like now. What
/// cannot be opened (symbolic links, fifos, devices) is durable with its
/// directory.
pub fn fsync(root: &Root, open: &Descriptors, place: &Place) -> Result<Found, Errno> {
    let mut node = root.find(place)?;
    let identity = root.identity(&node)?;
    match node.kind()? {
        FileKind::Regular => {
            let failure = open.take_failure(&identity);
            match open.written(&identity) {
                Some(fd) => {
                    retry(|| rustix::fs::fsync(&*fd))?;
                    open.synced(&identity);
                }
                None => sync_unwritten(&node)?,
            }
            failure.map_or(Ok(()), Err)?;
        }
        FileKind::Directory => {
            let fd = node.reopen(OFlags::RDONLY)?;
            retry(|| rustix::fs::fsync(&fd))?;
        }
        _ => {}
    }
    node.refresh()?;
    root.found(&node)
}

/// Only attributes or xattrs of it changed. Without the right to read it its
/// inode is reached through a descriptor for writing.
fn sync_unwritten(node: &Node) -> Result<(), Errno> {
    let fd = match node.reopen(OFlags::RDONLY) {
        Err(Errno::EACCES) => node.reopen(OFlags::WRONLY)?,
        other => other?,
    };
    retry(|| rustix::fs::fsync(&fd))
}
