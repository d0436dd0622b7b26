//! A file name: one path component, any bytes but `/` and NUL.

use crate::base::codec::{Codec, DecodeError, Reader, Writer};
use crate::base::errno::Errno;
use crate::base::limits::NAME_MAX;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// One path component: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`. A copy
/// takes no memory of its own: a listing of a thousand names is copied several
/// times on its way.
#[derive(Clone)]
pub struct Name(Held);

/// Most names lie in place.
#[derive(Clone)]
enum Held {
    Short(u8, [u8; SHORT_MAX]),
    Long(Arc<[u8]>),
}

const SHORT_MAX: usize = 30;

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
        if bytes.len() > SHORT_MAX {
            return Ok(Name(Held::Long(bytes.into())));
        }
        let mut short = [0; SHORT_MAX];
        short[..bytes.len()].copy_from_slice(bytes);
        Ok(Name(Held::Short(bytes.len() as u8, short)))
    }
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Held::Short(len, short) => &short[..usize::from(*len)],
            Held::Long(long) => long,
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

impl Codec for Name {
    fn encode(&self, w: &mut Writer) {
        w.blob(self.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a name lies says nothing of what it is, or of its order.
    #[test]
    fn short_and_long_names_are_alike() {
        let names: Vec<Name> = (1..=NAME_MAX)
            .map(|len| Name::new(&vec![b'a'; len]).expect("a name"))
            .collect();
        assert!(names.is_sorted());
        for (len, name) in (1..).zip(&names) {
            assert_eq!(name.as_bytes().len(), len);
            assert_eq!(Name::from_slice(&name.to_vec()).as_ref(), Ok(name));
            assert_eq!(&name.clone(), name);
        }
        let after = Name::new(b"b").expect("a name");
        assert!(names.iter().all(|name| *name < after));
        assert!(Name::new(&[b'a'; NAME_MAX + 1]).is_err());
    }
}
