//! Keys of the metadata index. The first byte is the table; the rest orders
//! the table the way it is scanned. All numbers are big-endian.

use crate::base::{ClientId, Fid, Identity, Tag, TargetId};

/// Tables of the index.
pub mod table {
    pub const DIRENT: u8 = b'D';
    pub const EXTENT: u8 = b'E';
    pub const INODE: u8 = b'I';
    pub const IDENTITY: u8 = b'O';
    /// Inodes with something owed by state: data, attributes, xattrs.
    pub const DIRTY: u8 = b'Y';
    pub const OWED: u8 = b'W';
    pub const ORPHAN: u8 = b'R';
    /// Further names at origins that find files by name.
    pub const ALIASES: u8 = b'A';
    pub const XATTR: u8 = b'X';
    pub const CLIENT: u8 = b'C';
    /// FIDs that clients were granted to create with.
    pub const FIDS: u8 = b'F';
    pub const REPLY: u8 = b'T';
    /// Which extent lies where in a segment, for reclaim.
    pub const SUMMARY: u8 = b'S';
    /// Files that are gone and have extents left to delete.
    pub const GONE: u8 = b'G';
    /// Counters and the box's own settings, by name.
    pub const BOX: u8 = b'B';
}

#[must_use]
pub fn inode(fid: Fid) -> Vec<u8> {
    key(table::INODE, &[&fid.to_bytes()])
}

/// A name's place in its directory: `cookie` is the keyed hash of the name
/// and the collision ordinal in the low 8 bits (N11), always below 2^63.
#[must_use]
pub fn dirent(parent: Fid, cookie: u64) -> Vec<u8> {
    key(table::DIRENT, &[&parent.to_bytes(), &cookie.to_be_bytes()])
}

#[must_use]
pub fn extent(fid: Fid, offset: u64) -> Vec<u8> {
    key(table::EXTENT, &[&fid.to_bytes(), &offset.to_be_bytes()])
}

#[must_use]
pub fn xattr(fid: Fid, name: &[u8]) -> Vec<u8> {
    key(table::XATTR, &[&fid.to_bytes(), name])
}

#[must_use]
pub fn identity(target: TargetId, id: &Identity) -> Vec<u8> {
    let parts: [&[u8]; 5] = [
        &target.0.to_be_bytes(),
        &id.dev.to_be_bytes(),
        &id.ino.to_be_bytes(),
        &id.birth.to_be_bytes(),
        &id.handle.0,
    ];
    key(table::IDENTITY, &parts)
}

#[must_use]
pub fn dirty(fid: Fid) -> Vec<u8> {
    key(table::DIRTY, &[&fid.to_bytes()])
}

#[must_use]
pub fn orphan(fid: Fid) -> Vec<u8> {
    key(table::ORPHAN, &[&fid.to_bytes()])
}

/// The FID in a key of the orphan table.
#[must_use]
pub fn orphaned(key: &[u8]) -> Option<Fid> {
    let (_, fid) = key.split_first()?;
    Some(Fid::from_bytes(fid.try_into().ok()?))
}

#[must_use]
pub fn aliases(fid: Fid) -> Vec<u8> {
    key(table::ALIASES, &[&fid.to_bytes()])
}

#[must_use]
pub fn owed(seq: u64) -> Vec<u8> {
    key(table::OWED, &[&seq.to_be_bytes()])
}

#[must_use]
pub fn client(id: ClientId) -> Vec<u8> {
    key(table::CLIENT, &[&id.0.to_be_bytes()])
}

#[must_use]
pub fn fids(id: ClientId) -> Vec<u8> {
    key(table::FIDS, &[&id.0.to_be_bytes()])
}

#[must_use]
pub fn reply(id: ClientId, tag: Tag) -> Vec<u8> {
    key(table::REPLY, &[&id.0.to_be_bytes(), &tag.0.to_be_bytes()])
}

#[must_use]
pub fn summary(segment: u32, offset: u32) -> Vec<u8> {
    key(
        table::SUMMARY,
        &[&segment.to_be_bytes(), &offset.to_be_bytes()],
    )
}

#[must_use]
pub fn gone(fid: Fid) -> Vec<u8> {
    key(table::GONE, &[&fid.to_bytes()])
}

#[must_use]
pub fn setting(name: &str) -> Vec<u8> {
    key(table::BOX, &[name.as_bytes()])
}

fn key(table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|p| p.len()).sum::<usize>());
    out.push(table);
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}
