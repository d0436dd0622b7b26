//! What can be found: a name for programs, how bad it is, and what to do about
//! it. `docs/STORE.md` has the same table, with what each means.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// Nothing is wrong: what a crash leaves, for instance.
    Note,
    /// Something is not as it should be; nothing that only the box had is lost.
    Damage,
    /// Something that the origin may not have is lost.
    Loss,
}

impl fmt::Display for Gravity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Gravity::Note => "note",
            Gravity::Damage => "damage",
            Gravity::Loss => "loss",
        })
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $gravity:ident, $remedy:ident;)*) => {
        /// One class of findings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// All of them, for the test that the documentation names each.
            #[cfg(test)]
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// Its name for programs.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Kind::$name => $label,)* }
            }
            #[must_use]
            pub fn gravity(self) -> Gravity {
                match self { $(Kind::$name => Gravity::$gravity,)* }
            }
            /// What to do about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $(Kind::$name => $remedy,)* }
            }
        }
    };
}

const NOTHING: &str = "nothing: the next start deals with it";
const START: &str = "start and stop the box once: it writes the copy anew";
const RESCUE: &str = "rescue what is left with --evacuate DIR, then begin with a new cache file";
const DRAIN: &str =
    "carry everything to the origin (forebay flush --wait), then begin with a new cache file";
const AGAIN: &str = "nothing: it is fetched from the origin again, unless the origin is gone";
const RESTORE: &str =
    "rescue the rest of the file with --evacuate DIR; the bytes named are in no other place";

const NEW: &str = "bring back a copy of the cache file if there is one, or begin with a new one";
const WRITE: &str = "see to room and rights there, and rescue again into an empty DIR";

kinds! {
    /// A copy of the superblock is bad; the other is good.
    SuperblockCopy = "superblock-copy", Damage, START;
    /// No copy of the superblock is good: nothing else can be found.
    Superblock = "superblock", Loss, NEW;
    /// The file is shorter than its superblock says.
    CutShort = "cut-short", Loss, RESCUE;
    /// Which shard owns which segment is not known.
    Owners = "owner-table", Loss, RESCUE;
    RootCopy = "root-copy", Damage, START;
    /// Neither copy of a shard's root is good.
    Root = "root", Loss, RESCUE;
    /// The manifest that a root names is bad.
    Manifest = "manifest", Loss, RESCUE;
    /// Records that were acknowledged are bad: the box refuses this cache.
    Journal = "journal", Loss, RESCUE;
    TornTail = "torn-tail", Note, NOTHING;
    /// What the box itself would log while it replays.
    Replay = "replay", Note, NOTHING;
    /// All of an index table is unreadable.
    Table = "table", Loss, RESCUE;
    TableBlock = "table-block", Loss, RESCUE;
    /// Order, counts or filter of a table are wrong.
    TableShape = "table-shape", Damage, DRAIN;
    SegmentHeader = "segment-header", Note, NOTHING;
    /// A record of the index cannot be decoded.
    Record = "record", Loss, RESCUE;
    /// A key that no table of the index has.
    StrayKey = "stray-key", Damage, DRAIN;
    /// A name of a file that has no inode, or in something that is no directory.
    NameWithoutInode = "name-without-inode", Damage, RESCUE;
    /// A name that disagrees with its inode, or is not at its place.
    NameWrong = "name-wrong", Damage, DRAIN;
    EntryCount = "entry-count", Damage, DRAIN;
    LinkCount = "link-count", Damage, DRAIN;
    /// A directory that no way from the root leads to, or several.
    Parent = "parent", Damage, RESCUE;
    /// An extent whose bytes cannot be where it says.
    ExtentPlace = "extent-place", Loss, RESTORE;
    ExtentOverlap = "extent-overlap", Damage, RESCUE;
    /// Two extents use the same bytes of flash.
    FlashOverlap = "flash-overlap", Damage, RESCUE;
    /// The note of whose bytes lie where is wrong: reclaim would go astray.
    PlaceRecord = "place-record", Damage, DRAIN;
    /// Fewer bytes of a segment are counted as alive than are: it could be
    /// used again too early.
    Account = "account", Damage, DRAIN;
    /// More bytes are counted as alive than are: they are not used again.
    Leak = "leak", Damage, DRAIN;
    /// A record that is about a file which does not exist.
    NoSuchFile = "no-such-file", Damage, DRAIN;
    /// An owed operation that cannot be carried out.
    Owed = "owed", Damage, RESCUE;
    /// Something is owed, and write-back would not find it.
    NotQueued = "not-queued", Damage, RESCUE;
    /// A counter lags behind what was given out: something could be given twice.
    Counter = "counter", Damage, DRAIN;
    CleanData = "clean-data", Damage, AGAIN;
    DirtyData = "dirty-data", Loss, RESTORE;
    /// A rescue: something could not be written below DIR.
    NotWritten = "not-written", Loss, WRITE;
}
