//! A file name: one path component, any bytes but `/` and NUL.

use crate::base::codec::{Codec, DecodeError, Reader, Writer};
use crate::base::errno::Errno;
use crate::base::limits::NAME_MAX;
use std::fmt;

/// One path component: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// ENAMETOOLONG above 255 bytes; EINVAL for what no directory can hold.
    pub fn new(bytes: &[u8]) -> Result<Name, Errno> {
        if bytes.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let odd = bytes.is_empty() || bytes == b"." || bytes == b"..";
        if odd || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(Errno::EINVAL);
        }
        Ok(Name(bytes.into()))
    }
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Codec for Name {
    fn encode(&self, w: &mut Writer) {
        w.blob(&self.0);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.at();
        let bytes = r.blob()?;
        Name::new(bytes).map_err(|_| DecodeError {
            at,
            why: "not a file name",
        })
    }
}
