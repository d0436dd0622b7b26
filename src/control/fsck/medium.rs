//! What is checked: bytes by offset, read and never written. A cache file under
//! the lock of the box, or memory in tests.

use crate::base::Errno;
use crate::control::cli::Failure;
use crate::control::serve::patiently;
use crate::store::StoreError;
use rustix::fs::{FileType, FlockOperation, SeekFrom};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

/// Bytes that can be read at any offset.
pub trait Medium {
    /// How many there are.
    fn bytes(&self) -> u64;

    /// Fills `out` from offset `at`. EIO where there is less.
    ///
    /// # Errors
    /// EIO past the end, and what the device says.
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno>;
}

/// A medium that several readers share.
pub type Shared = Rc<dyn Medium>;

/// `len` bytes at `at`.
///
/// # Errors
/// As [`Medium::read`].
pub fn load(medium: &dyn Medium, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
    // Before memory is taken: the length may be rot.
    let end = at.checked_add(len as u64);
    if end.is_none_or(|end| end > medium.bytes()) {
        return Err(Errno::EIO);
    }
    let mut out = vec![0; len];
    medium.read(at, &mut out)?;
    Ok(out)
}

/// A cache file or device, under the lock that keeps boxes away.
pub struct CacheFile {
    file: File,
    bytes: u64,
}

impl CacheFile {
    /// Opens for reading only, through the page cache: nobody else writes. The
    /// lock is shared: boxes are kept out, other checks are not.
    ///
    /// # Errors
    /// Refused while a box uses it; failed if it cannot be read.
    pub fn open(path: &Path) -> Result<CacheFile, Failure> {
        let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let lock = || rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
        match patiently(|e| *e == rustix::io::Errno::AGAIN, lock) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN) => {
                return Err(Failure::refused(format!(
                    "{}: a running box is using it: stop the box first (forebay shutdown)",
                    path.display()
                )));
            }
            Err(e) => return Err(failed(e.into())),
        }
        let stat = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
        let bytes = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => {
                rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| failed(e.into()))?
            }
            FileType::RegularFile => u64::try_from(stat.st_size).unwrap_or(0),
            _ => {
                let why = StoreError::Foreign;
                return Err(Failure::refused(format!("{}: {why}", path.display())));
            }
        };
        Ok(CacheFile { file, bytes })
    }
}

impl Medium for CacheFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        self.file
            .read_exact_at(out, at)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => Errno::EIO,
                _ => Errno::of(&e),
            })
    }
}

#[cfg(test)]
impl Medium for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Errno> {
        let at = usize::try_from(at).map_err(|_| Errno::EIO)?;
        let end = at.checked_add(out.len()).ok_or(Errno::EIO)?;
        out.copy_from_slice(self.get(at..end).ok_or(Errno::EIO)?);
        Ok(())
    }
}
