//! Who keeps copies above a client's own memory: for a mount, the kernel. What
//! it may believe rests on the client's locks and ends with them.

use crate::base::{Bits, Extent, Fid};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// How long what an answer said of a file may be believed without asking
/// again. Zero: not at all. Never longer than what is left of the lease (C1).
///
/// They are asked for after each answer, before anything else of the client
/// runs, and must hold for what that answer said: an answer that was given
/// without a lock must be brought up to date from one that a later answer
/// brought, or the terms be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// That the name leads to the file: LOOKUP is held.
    pub name: Duration,
    /// Its attributes: UPDATE and PERM are held.
    pub attr: Duration,
    /// Of a directory: that names which were not found are not there, and the
    /// entries that were listed: UPDATE is held.
    pub entries: Duration,
    /// Pages may be kept: DATA is held for the whole file.
    pub pages: bool,
}

/// Ends when the thing is done.
pub type Ending = Pin<Box<dyn Future<Output = ()>>>;

/// The caches above a client. The client calls, each time its locks on a file
/// end, before it tells the box that they have.
pub trait Above {
    /// Takes back what is believed of `fid` under `bits`; of DATA, within
    /// `range`. Ends when nobody above believes it any more (C2, C4, C5): what
    /// was changed in memory above has been written to the client by then. New
    /// answers rest on new locks, and are not waited for.
    ///
    /// It begins with the call, not with the first poll: from then on
    /// [`Terms`] must not count what is taken back, and a read for pages that
    /// began before and ends after is asked again. The client must go on
    /// serving page writes of the range until the end (C7).
    fn take_back(&self, fid: Fid, bits: Bits, range: Extent) -> Ending;

    /// The lease is over, or the client was evicted: takes back everything, of
    /// every file, pages that were not written among them (L2, C8).
    fn take_back_all(&self) -> Ending;

    /// `fid` is, or is about to be, `size` bytes long, and `last` is its last
    /// byte then: who looks at it through a mapping may look so far from now on
    /// (C17). What is there, it asks. For after the pages about the old end were
    /// taken back. The file may turn out to be shorter.
    fn grown(&self, _fid: Fid, _size: u64, _last: u8) -> Ending {
        Box::pin(async {})
    }

    /// How often those above have begun or ended changing the size of `fid`
    /// themselves; `None` while they do: what was asked before is not the size.
    fn resized(&self, _fid: Fid) -> Option<u64> {
        Some(0)
    }

    /// May anybody above look at `fid` through a mapping?
    fn may_map(&self, _fid: Fid) -> bool {
        false
    }

    /// All files of which that is so.
    fn mapped(&self) -> Vec<Fid> {
        Vec::new()
    }
}
