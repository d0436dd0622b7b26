//! What goes into the table and what comes out of it.

use super::bounds::OWN;
use crate::base::{Bits, Extent, Fid, LockId, Mode};

/// A client's export. Locks of one holder never keep each other out: a client
/// looks after its own caches, and the shard's operations on its behalf run as
/// that client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder(pub u64);

/// Is this the id of one of the shard's own operations?
#[must_use]
pub const fn is_own(lock: LockId) -> bool {
    lock.0 & OWN != 0
}

/// A request for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Chosen by who asks, so that a callback for a grant still in flight finds
    /// it (L1). Neither granted nor waiting yet.
    pub lock: LockId,
    pub fid: Fid,
    pub mode: Mode,
    /// Needed: all of them are granted, or none.
    pub bits: Bits,
    /// Welcome: those are added that nobody else has or waits for.
    pub try_bits: Bits,
    /// The bytes that DATA is about; without meaning otherwise.
    pub extent: Extent,
    /// Which group, in mode GROUP; without meaning otherwise.
    pub group: u32,
    /// A larger extent is welcome, if DATA is needed.
    pub expand: bool,
    /// Wait for locks in the way, which are called back.
    pub wait: bool,
    /// The lock may be declined if handing it over does not pay.
    pub discretionary: bool,
    /// A size change or page write-back by a client that owes a callback on
    /// this file: it passes all who wait for that client (C7, C16). Set by the
    /// shard, never on a client's word.
    pub ahead: bool,
    /// What is done under it makes the file longer.
    pub growth: Growth,
}

/// How far a file is about to grow, for those who look at it through mappings
/// and are told before it has (C17).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Growth {
    /// Its size then; 0: it does not grow.
    pub size: u64,
    /// Its last byte then.
    pub last: u8,
}

impl Growth {
    pub const NONE: Growth = Growth { size: 0, last: 0 };
}

impl Want {
    /// Waits for `bits`, as they are.
    #[must_use]
    pub const fn of(lock: LockId, fid: Fid, mode: Mode, bits: Bits) -> Want {
        Want {
            lock,
            fid,
            mode,
            bits,
            try_bits: Bits::NONE,
            extent: Extent::ALL,
            group: 0,
            expand: false,
            wait: true,
            discretionary: false,
            ahead: false,
            growth: Growth::NONE,
        }
    }
}

/// A lock that a client says it had before the box restarted (L13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub lock: LockId,
    pub fid: Fid,
    pub mode: Mode,
    pub bits: Bits,
    pub extent: Extent,
    pub group: u32,
}

/// A lock as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub lock: LockId,
    pub fid: Fid,
    pub mode: Mode,
    pub bits: Bits,
    pub extent: Extent,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Granted(Grant),
    /// An [`Event::Granted`] follows, or an [`Event::Dropped`].
    Queued,
    /// No lock: none was needed and nothing welcome was free, or it was
    /// declined. A contended resource is better used without locks.
    Nothing {
        contended: bool,
    },
    Refused(Refusal),
}

/// Why a request changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody is in the way, and the request does not wait.
    WouldBlock,
    /// The table, or the holder's part of it, is full.
    TryLater,
    /// The peer misbehaved: an id of the other kind (clients' ids lack bit 63,
    /// the shard's own have it).
    BadId,
    /// The peer misbehaved: the holder's lock of this id is granted or waiting.
    DuplicateId,
    /// The peer misbehaved: bits without meaning, or an extent that ends before
    /// it starts.
    Malformed,
    /// Of requests ahead that would wait for each other, this one came last (C16).
    Deadlock,
    /// The claim is about an older version, or contradicts a granted lock (L13).
    Stale,
}

/// Why a conversion changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvertError {
    /// The holder has no such lock granted.
    Unknown,
    /// The new mode allows something that the old one does not.
    NotWeaker,
}

/// A holder is to give up `bits` of a lock, or to convert it so that `mode` on
/// `extent` is possible for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    pub holder: Holder,
    pub lock: LockId,
    pub fid: Fid,
    /// What the waiter that was found last asked for.
    pub mode: Mode,
    /// All bits of the lock that were ever called back and are not yet given up.
    pub bits: Bits,
    pub extent: Extent,
    /// The largest growth of those that wait, if the holder was not told of it:
    /// it keeps the lock until it has answered that, too ([`Table::told`]).
    ///
    /// [`Table::told`]: super::Table::told
    pub growth: Growth,
}

/// What the owner of the table has to carry out, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Blocking(Blocking),
    /// A waiter was granted.
    Granted {
        holder: Holder,
        grant: Grant,
    },
    /// A waiter of an evicted holder is gone; whoever waits for it stops.
    Dropped {
        holder: Holder,
        lock: LockId,
    },
    /// No client has any of what was asked back ([`Table::recall`]).
    ///
    /// [`Table::recall`]: super::Table::recall
    Recalled {
        fid: Fid,
    },
}

/// What a holder has on a file, the shard's own operations not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub locks: usize,
    /// Bits of all its locks.
    pub bits: Bits,
    /// Bits of those in a mode that writes.
    pub writes: Bits,
    /// Its locks' modes, as a sum of their numbers.
    pub modes: u8,
}

/// A client that has a file to itself, and by which lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sole {
    pub holder: Holder,
    pub lock: LockId,
}

/// One line of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub holder: Holder,
    /// What is granted, or asked for.
    pub grant: Grant,
    pub group: u32,
    pub is_granted: bool,
    /// Bits called back and not yet given up.
    pub called: Bits,
}
