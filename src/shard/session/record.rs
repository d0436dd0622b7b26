//! What a shard keeps of its clients on flash: who they are, and what it
//! answered to their last changes (F9, F10).

use crate::base::{Time, Transno, Xid};
use crate::record;
use crate::wire::{Features, Reply};

record! {
    /// A client, under [`key::client`](crate::namespace::key::client), from
    /// before it is answered to after it is evicted or says goodbye.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ClientRecord {
        pub incarnation: u64,
        /// The one before: what a client claims that never saw the answer to
        /// the CONNECT which made this one.
        pub previous: u64,
        pub target: u32,
        pub name: String,
        pub features: Features,
        pub lease_ms: u32,
        pub read_only: bool,
        /// It may hold unstable writes: after a crash of the box, nobody else
        /// is served before it has replayed them or its time is up. Durable
        /// before the first of them is answered, cleared when all are stable.
        pub unstable: bool,
        /// It gave back everything at a controlled stop (X2).
        pub clean: bool,
        pub since: Time,
    }
}

record! {
    /// The answer to the last change in a reply slot, under
    /// [`key::reply`](crate::namespace::key::reply), written in the
    /// transaction of the change.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct ReplyRecord {
        pub xid: Xid,
        /// Index in a batch, else 0 (L7).
        pub index: u32,
        pub transno: Transno,
        pub op: u16,
        pub reply: Reply,
    }
}
