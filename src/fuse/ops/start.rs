//! INIT: what kernel and mount agree on.

use crate::base::limits::{BLOCK, PAYLOAD_MAX};
use crate::base::{Codec, Errno};
use crate::fuse::abi::flag::init;
use crate::fuse::abi::input::InitIn;
use crate::fuse::abi::output::InitOut;
use crate::fuse::abi::{MAJOR, MINOR, MINOR_EPOCHS, MINOR_MIN};
use crate::fuse::kernel::Kernel;
use crate::fuse::session::{Outcome, Session};
use crate::fuse::upstream::Upstream;
use crate::world::{Level, World};

/// What this server wants of the kernel. Not among them, on purpose: the
/// kernel's own write-back (it owns size and mtime then, and breaks O_APPEND),
/// AUTO_INVAL_DATA, which asks for attributes before each read, and
/// ATOMIC_O_TRUNC: the file would be cut before the kernel finds that it is
/// being executed, and refuses.
const WANTED: u64 = init::ASYNC_READ
    | init::EXPORT_SUPPORT
    | init::BIG_WRITES
    | init::DONT_MASK
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::ABORT_ERROR
    | init::MAX_PAGES
    | init::EXPLICIT_INVAL_DATA
    | init::HANDLE_KILLPRIV_V2
    | init::SETXATTR_EXT
    | init::INIT_EXT
    | init::DIRECT_IO_ALLOW_MMAP;

/// What it cannot do without: requests would have other layouts or sizes.
const NEEDED: u64 = init::INIT_EXT | init::SETXATTR_EXT | init::MAX_PAGES;

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    /// A kernel of a later major number is answered with ours and asks again.
    pub(in crate::fuse) fn on_init(&self, args: InitIn) -> Result<Outcome, Errno> {
        let offered = u64::from(args.flags) | (u64::from(args.flags2) << 32);
        let agreed = offered & self.wanted();
        let too_old = args.major < MAJOR || (args.major == MAJOR && args.minor < MINOR_MIN);
        if too_old || (args.major == MAJOR && agreed & NEEDED != NEEDED) {
            self.world.log(
                Level::Error,
                &format!(
                    "the kernel's FUSE protocol {}.{} is too old: Linux 6.1 or later is needed",
                    args.major, args.minor
                ),
            );
            self.on_unmounted();
            return Err(Errno::EPROTO);
        }
        let max_write = self.export.payload_max.clamp(BLOCK, PAYLOAD_MAX);
        let out = InitOut {
            major: MAJOR,
            minor: MINOR,
            max_readahead: args.max_readahead.max(READ_AHEAD),
            flags: agreed as u32,
            max_background: BACKGROUND,
            congestion_threshold: BACKGROUND / 4 * 3,
            max_write: max_write as u32,
            time_gran: 1,
            max_pages: max_write.div_ceil(BLOCK) as u16,
            map_alignment: 0,
            flags2: (agreed >> 32) as u32,
            unused0: 0,
            unused1: 0,
            unused2: 0,
            unused3: 0,
        };
        if args.major == MAJOR {
            self.epochs.set(args.minor >= MINOR_EPOCHS);
            self.on_agreed(agreed);
        }
        Ok(Outcome::Bytes(out.to_vec()))
    }

    fn wanted(&self) -> u64 {
        let acl = if self.export.acls { init::POSIX_ACL } else { 0 };
        // Attributes in listings are worth their bytes only if the kernel may
        // believe them until they are asked for. What a symbolic link says
        // never changes while it lives.
        let kept = match self.upstream.keeps() {
            false => 0,
            true => init::DO_READDIRPLUS | init::READDIRPLUS_AUTO | init::CACHE_SYMLINKS,
        };
        // Else the kernel keeps them among its own processes.
        let locks = match self.export.file_locks {
            true => init::POSIX_LOCKS | init::FLOCK_LOCKS,
            false => 0,
        };
        WANTED | acl | kept | locks
    }
}

/// Requests that the kernel sends ahead of a reader or a direct writer. Its own
/// default of 12 starves deep queues.
const BACKGROUND: u16 = 128;
/// Bytes; the kernel takes the smaller of this and the device's `read_ahead_kb`.
const READ_AHEAD: u32 = 4 << 20;
