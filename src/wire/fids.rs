//! What a client needs to create files by itself (feature FID_GRANTS): FIDs,
//! granted ahead of need, and what the target can hold.

use crate::base::Fid;
use crate::record;

record! {
    /// Asks for FIDs to create with.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FidsWanted { pub count: u32 }
}

record! {
    /// Granted FIDs: `first .. first + count` in sequence `seq`. On the box's
    /// flash before they are sent (F9).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FidRange { pub seq: u64, pub first: u32, pub count: u32 }
}

record! {
    /// What the target's origin can hold and the export allows (O6): a client
    /// answers nothing ahead of the box that these would refuse (L4).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Holds {
        pub read_only: bool,
        pub name_max: u32,
        pub link_max: u32,
        pub file_size_max: u64,
        pub owners: bool,
        pub special_files: bool,
        pub symlinks: bool,
        pub hard_links: bool,
        pub xattrs: bool,
        pub acls: bool,
    }
}

record! {
    /// The answer to [`FidsWanted`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FidsGranted { pub range: FidRange, pub holds: Holds }
}

impl FidRange {
    #[must_use]
    pub fn contains(&self, fid: Fid) -> bool {
        fid.seq == self.seq && fid.ver == 0 && fid.oid.wrapping_sub(self.first) < self.count
    }

    /// Takes the first of them.
    pub fn take(&mut self) -> Option<Fid> {
        let count = self.count.checked_sub(1)?;
        let fid = Fid::new(self.seq, self.first);
        self.first = self.first.wrapping_add(1);
        self.count = count;
        Some(fid)
    }
}
