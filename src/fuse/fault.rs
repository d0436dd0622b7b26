//! Why a mount or an unmount did not come about, in words for the user.

use std::fmt;

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The machine, the network or the box stood in the way.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Something is in use, or there already.
    Refused,
}

impl Fault {
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Failed, message)
    }
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Usage, message)
    }
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Refused, message)
    }
    fn new(kind: FaultKind, message: impl Into<String>) -> Fault {
        let message = message.into();
        Fault { kind, message }
    }

    /// As one message from the mount process to the command that started it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kind = match self.kind {
            FaultKind::Failed => b'F',
            FaultKind::Usage => b'U',
            FaultKind::Refused => b'R',
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(self.message.as_bytes());
        bytes
    }

    /// From such a message; one that was cut off is a failure by itself.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Fault {
        let kind = match bytes.first() {
            Some(b'U') => FaultKind::Usage,
            Some(b'R') => FaultKind::Refused,
            Some(b'F') => FaultKind::Failed,
            _ => return Fault::failed("the mount process ended without a word"),
        };
        Fault::new(kind, String::from_utf8_lossy(&bytes[1..]).into_owned())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_cross_the_pipe() {
        for fault in [Fault::failed("a"), Fault::usage("b"), Fault::refused("ç")] {
            assert_eq!(Fault::from_bytes(&fault.to_bytes()), fault);
        }
        assert_eq!(Fault::from_bytes(b"").kind, FaultKind::Failed);
    }
}
