//! The system calls that rustix lacks: file handles and path limits. The only
//! unsafe code of the origin.

use crate::base::Errno;
use rustix::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The kernel's own bound on the bytes of a handle.
const HANDLE_MAX: usize = 128;

/// `struct file_handle` with room for the largest handle.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    data: [u8; HANDLE_MAX],
}

impl RawHandle {
    fn empty() -> RawHandle {
        RawHandle {
            bytes: HANDLE_MAX as u32,
            kind: 0,
            data: [0; HANDLE_MAX],
        }
    }
}

/// The handle of what `fd` refers to: its type and bytes. EOPNOTSUPP where the
/// file system has none.
pub fn handle_of(fd: impl AsFd) -> Result<(i32, Vec<u8>), Errno> {
    let mut handle = RawHandle::empty();
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the path is a NUL-terminated constant; `handle` is laid out as
    // `struct file_handle` with `bytes` telling its true capacity, which the
    // kernel does not exceed; both pointers outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if result < 0 {
        return Err(last());
    }
    let len = (handle.bytes as usize).min(HANDLE_MAX);
    Ok((handle.kind, handle.data[..len].to_vec()))
}

/// Opens a handle with O_PATH on the file system of `mount`. ESTALE when the
/// file is gone, EPERM without CAP_DAC_READ_SEARCH.
pub fn open_handle(mount: impl AsFd, kind: i32, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    if bytes.len() > HANDLE_MAX {
        return Err(Errno::ESTALE);
    }
    let mut handle = RawHandle::empty();
    handle.bytes = bytes.len() as u32;
    handle.kind = kind;
    handle.data[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: `handle` is a whole `struct file_handle` whose `bytes` bytes of
    // data are initialised; the kernel only reads it, during the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            &raw mut handle,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        )
    };
    if fd < 0 {
        return Err(last());
    }
    let fd = i32::try_from(fd).map_err(|_| Errno::EIO)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Most links a file may have on the file system of `fd`; `None` if it does not say.
pub fn link_max(fd: impl AsFd) -> Option<u64> {
    // SAFETY: takes a live descriptor and a constant; touches no memory of ours.
    let n = unsafe { libc::fpathconf(fd.as_fd().as_raw_fd(), libc::_PC_LINK_MAX) };
    u64::try_from(n).ok()
}

fn last() -> Errno {
    Errno::of(&std::io::Error::last_os_error())
}
