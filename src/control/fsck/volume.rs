//! The fixed places at the start of a cache: superblock and owner table.

use super::kind::Kind;
use super::medium::{Medium, Shared, load};
use super::report::{Finding, Report};
use crate::base::limits::BLOCK;
use crate::base::{Errno, ShardId};
use crate::control::cli::Failure;
use crate::store::root::Root;
use crate::store::superblock::{COPY_BYTES, Superblock};
use crate::store::volume::{decode_owners, owners_bytes, owners_place, root_place};
use crate::store::{StoreError, Volume};

/// Reads superblock and owner table, and tells what is wrong with them. `None`:
/// so much that nothing else can be found.
///
/// # Errors
/// Refused: no Forebay cache, or one of another format.
pub fn open(medium: &Shared, report: &Report) -> Result<Option<Volume>, Failure> {
    let have = medium.bytes();
    let copies = [0, 1].map(|copy: u64| read_copy(medium.as_ref(), copy));
    let Some(superblock) = choose(&copies, report)? else {
        return Ok(None);
    };
    let says = superblock.devices.first().map_or(0, |d| d.bytes);
    if have < says {
        let what = format!("the cache has {have} bytes, its superblock says {says}");
        report.tell(Finding::new(Kind::CutShort, what).at(have));
    }
    let owners = match read_owners(medium.as_ref(), &superblock) {
        Ok(owners) => owners,
        Err(e) => {
            let at = owners_place(&superblock);
            report.tell(Finding::new(Kind::Owners, words(&e)).at(at));
            dealt(&superblock)
        }
    };
    Ok(Some(Volume { superblock, owners }))
}

/// An error without its advice, which is to run this.
#[must_use]
pub fn words(e: &StoreError) -> String {
    match e {
        StoreError::Corrupt { what, why, .. } => format!("{what}: {why}"),
        StoreError::Io { errno, .. } => format!("it cannot be read: {errno}"),
        e => e.to_string(),
    }
}

fn read_copy(medium: &dyn Medium, copy: u64) -> Result<Superblock, StoreError> {
    let at = copy * COPY_BYTES as u64;
    let there = medium.bytes().saturating_sub(at).min(COPY_BYTES as u64);
    if there == 0 {
        return Err(StoreError::Blank);
    }
    // A file that is cut short may still say what it was.
    let there = usize::try_from(there).unwrap_or(COPY_BYTES);
    let bytes = load(medium, at, there).map_err(|errno| StoreError::Io { at, errno })?;
    Superblock::decode(&bytes, at)
}

/// The copy that counts. Damage of the other one is told; a copy that was never
/// written (a cache that was just made) is none.
fn choose(
    copies: &[Result<Superblock, StoreError>; 2],
    report: &Report,
) -> Result<Option<Superblock>, Failure> {
    let foreign = |e: &StoreError| {
        let e = match e {
            StoreError::Truncated { .. } => StoreError::Blank,
            e => *e,
        };
        Failure::refused(e.to_string())
    };
    // A newer release's word counts, even beside a copy that could be read.
    let is_newer =
        |e: &&StoreError| matches!(e, StoreError::Version { .. } | StoreError::Features { .. });
    if let Some(e) = copies
        .iter()
        .filter_map(|c| c.as_ref().err())
        .find(is_newer)
    {
        return Err(foreign(e));
    }
    match copies {
        [Ok(a), Ok(b)] => Ok(Some(if a.sequence >= b.sequence { a } else { b }.clone())),
        [Ok(good), Err(e)] | [Err(e), Ok(good)] => {
            if *e != StoreError::Blank {
                let at = COPY_BYTES as u64 - good.place();
                let what = format!("{}; the other copy is good, and counts", words(e));
                report.tell(Finding::new(Kind::SuperblockCopy, what).at(at));
            }
            Ok(Some(good.clone()))
        }
        [Err(a), Err(b)] => {
            let is_ours =
                |e: &StoreError| matches!(e, StoreError::Corrupt { .. } | StoreError::Io { .. });
            if !is_ours(a) && !is_ours(b) {
                return Err(foreign(if *a == StoreError::Foreign { a } else { b }));
            }
            for e in [a, b] {
                report.tell(Finding::new(Kind::Superblock, words(e)));
            }
            Ok(None)
        }
    }
}

fn read_owners(medium: &dyn Medium, superblock: &Superblock) -> Result<Vec<ShardId>, StoreError> {
    let at = owners_place(superblock);
    let bytes = load(medium, at, owners_bytes(superblock.segments))
        .map_err(|errno| StoreError::Io { at, errno })?;
    decode_owners(superblock, &bytes)
}

/// As formatting deals segments: the best guess where the table is lost. It is
/// right as long as no shard was ever added.
fn dealt(superblock: &Superblock) -> Vec<ShardId> {
    let shards = u32::from(superblock.shards);
    let owner = |i: u32| ShardId(u16::try_from(i % shards).unwrap_or(0));
    (0..superblock.segments).map(owner).collect()
}

/// The readable copies of a shard's root, the one that counts first. Damage of
/// a copy is told.
pub fn roots(medium: &Shared, shard: ShardId, report: &Report) -> Vec<Root> {
    let mut roots = Vec::new();
    let mut bad = Vec::new();
    for copy in 0..2 {
        let at = root_place(shard, copy);
        let read = load(medium.as_ref(), at, BLOCK).map_err(|e: Errno| e.to_string());
        match read.and_then(|b| Root::decode(shard, &b).map_err(|e| e.to_string())) {
            Ok(root) => roots.push(root),
            Err(e) => bad.push((at, e)),
        }
    }
    let kind = match roots.is_empty() {
        true => Kind::Root,
        false => Kind::RootCopy,
    };
    for (at, e) in bad {
        report.tell(Finding::new(kind, e).shard(shard).at(at));
    }
    roots.sort_by_key(|root| std::cmp::Reverse(root.sequence));
    roots
}
