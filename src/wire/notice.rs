//! Unsolicited news from the box: frames of kind Notice. Lease, box time,
//! grants and `last_committed` are in their reply head; the body says what
//! else changed. `xid` is 0: nothing answers a notice.

use crate::base::{Transno, Xid};
use crate::choice;
use crate::record;
use crate::wire::FidRange;
use crate::wire::ShardMap;
use crate::wire::filelock::Locked;

choice! {
    /// The tag is the operation number in the common head.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Notice {
        /// Pushed when it advances, so that replay data can go (X6).
        Committed(Committed) = 1,
        Fids(FidRange) = 2,
        /// The shard map changed; requests with the old epoch are answered "moved".
        Map(ShardMap) = 3,
        /// The box is about to stop: form no new mutations (X1).
        Drain(Drain) = 4,
        /// A file lock that was waited for (feature FILE_LOCKS).
        Locked(Locked) = 16,
    }
}

record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Committed {
        pub last_committed: Transno,
        /// All of the client's requests below this xid are answered and durable.
        pub done: Xid,
    }
}

record! {
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Drain { pub after_ms: u32 }
}
