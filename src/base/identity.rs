//! How a file is known at the origin, apart from its name at the front (O2, O5).

use crate::base::codec::Bytes;
use crate::base::ids::Fid;
use crate::base::name::Name;
use crate::record;

record! {
    /// What tells one origin file from another, over renames and restarts (O5).
    /// `handle` is the file handle where the origin gives one; otherwise it is
    /// empty and (dev, ino, birth) decide.
    #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Identity {
        pub handle: Bytes,
        pub handle_type: i32,
        pub dev: u64,
        pub ino: u64,
        /// Birth time in nanoseconds, 0 where unknown.
        pub birth: u64,
    }
}

impl Identity {
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.ino == 0
    }
}

record! {
    /// Where an inode is found at the origin. Changes only when write-back
    /// applies an operation (O2). Without identity the file is not at the
    /// origin yet.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Locator {
        /// The directory that names it at the origin; NONE for a target's root.
        pub parent: Fid,
        /// Its name there; None for a target's root.
        pub name: Option<Name>,
        pub identity: Option<Identity>,
    }
}
