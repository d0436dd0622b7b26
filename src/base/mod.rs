//! L0: words that every other module speaks: identities, units, errors, time,
//! attributes, buffers and the byte codec. Nothing here does I/O, and nothing
//! here knows a module above it.

pub mod attr;
pub mod buf;
pub mod codec;
pub mod errno;
pub mod filelock;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod lock;
pub mod maps;
pub mod name;
pub mod time;

pub use attr::{Attr, FileKind, SetAttr};
pub use buf::{Buf, Pool, Slice};
pub use codec::{Codec, DecodeError, Reader, Writer};
pub use errno::Errno;
pub use filelock::{HeldLock, LockKind, OwnerKind, WaitId};
pub use identity::{Identity, Locator};
pub use ids::*;
pub use lock::{Bits, Extent, Mode};
pub use maps::{FidMap, NumberMap};
pub use name::Name;
pub use time::{Mono, Time};
