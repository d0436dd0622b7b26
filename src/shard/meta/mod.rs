//! Operations on names and attributes.
use super::{Shard, Tx};
use crate::base::{Codec, Errno, Fid};
use crate::namespace::{Inode, key};
use crate::world::World;

/// State of the metadata operations that lives in memory only.
#[derive(Default)]
pub struct Meta {}

/// The inode as it is now; ESTALE if there is none, EIO if its record is damaged.
pub async fn inode<W: World>(shard: &Shard<W>, fid: Fid) -> Result<Inode, Errno> {
    let bytes = shard
        .flash
        .get(&key::inode(fid))
        .await?
        .ok_or(Errno::ESTALE)?;
    Inode::from_slice(&bytes).map_err(|_| Errno::EIO)
}

/// Puts the inode into the transaction.
pub fn put_inode(tx: &mut Tx, fid: Fid, inode: &Inode) {
    tx.put(key::inode(fid), inode.to_vec());
}
