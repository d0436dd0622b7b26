//! POSIX error numbers as a type. Zero is not an error and cannot be built.

use crate::base::codec::{Codec, DecodeError, Reader, Writer};
use std::fmt;

/// A Linux errno. Crosses the wire as its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! names {
    ($($name:ident),* $(,)?) => {
        impl Errno {
            $(pub const $name: Errno = Errno(libc::$name);)*
            /// The symbolic name, or "E?" for a number without one here.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* _ => "E?" }
            }
        }
    };
}
names!(
    EPERM,
    ENOENT,
    EINTR,
    EIO,
    ENXIO,
    E2BIG,
    EBADF,
    EAGAIN,
    ENOMEM,
    EACCES,
    EBUSY,
    EEXIST,
    EXDEV,
    ENODEV,
    ENOTDIR,
    EISDIR,
    EINVAL,
    ENFILE,
    EFBIG,
    ENOSPC,
    EROFS,
    EMLINK,
    ERANGE,
    EDEADLK,
    ENAMETOOLONG,
    ENOLCK,
    ENOSYS,
    ENOTEMPTY,
    ELOOP,
    ENODATA,
    EPROTO,
    EOVERFLOW,
    EOPNOTSUPP,
    ENOTCONN,
    ETIMEDOUT,
    ECONNREFUSED,
    ECONNRESET,
    EHOSTUNREACH,
    EALREADY,
    EINPROGRESS,
    ESTALE,
    EDQUOT,
    EPIPE,
    ENOTBLK,
    ETXTBSY,
    ESHUTDOWN,
    ECANCELED,
);

impl Errno {
    /// The errno inside an I/O error; EIO where there is none.
    #[must_use]
    pub fn of(e: &std::io::Error) -> Errno {
        Errno(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<Errno> for std::io::Error {
    fn from(e: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(e.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.label(), self.0)
    }
}

impl std::error::Error for Errno {}

impl Codec for Errno {
    fn encode(&self, w: &mut Writer) {
        self.0.encode(w);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match i32::decode(r)? {
            n if (1..4096).contains(&n) => Ok(Errno(n)),
            _ => Err(r.fault("not an errno")),
        }
    }
}
