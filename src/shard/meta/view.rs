//! The records of the flash index as the namespace core reads them.

use super::fids;
use crate::base::{Attr, Codec, Fid, Name, Reader};
use crate::flash::Peek;
use crate::namespace::{Dirent, Inode, Need, View, hash, key};
use crate::shard::{Shard, Target};
use crate::world::World;
use std::rc::Rc;

/// A synchronous look at a target's records, with what the origin has denied
/// since the operation began. That word stays true without a record: only this
/// box makes names, and one made and removed since left a gravestone.
pub struct FlashView<'a, W: World> {
    shard: &'a Shard<W>,
    target: &'a Target,
    pub(super) absent: Vec<(Fid, Name)>,
    /// The FID that the next file born gets, if it had one before a restart.
    given: Option<Fid>,
}

impl<'a, W: World> FlashView<'a, W> {
    pub fn new(shard: &'a Shard<W>, target: &'a Target) -> FlashView<'a, W> {
        FlashView {
            shard,
            target,
            absent: Vec::new(),
            given: None,
        }
    }

    /// The same, giving birth to `fid`.
    pub fn giving(self, fid: Option<Fid>) -> FlashView<'a, W> {
        FlashView { given: fid, ..self }
    }

    /// The attributes of `fid` alone; `None`: there is no such inode. They come
    /// first in its record.
    pub fn attr(&self, fid: Fid) -> Result<Option<Attr>, Need> {
        let key = key::inode(fid);
        let Some(bytes) = self.record(&key)? else {
            return Ok(None);
        };
        match Attr::decode(&mut Reader::new(&bytes)) {
            Ok(attr) => Ok(Some(attr)),
            Err(_) => Err(Need::Damaged(key)),
        }
    }

    fn record(&self, key: &[u8]) -> Result<Option<Rc<[u8]>>, Need> {
        match self.shard.flash.peek(key) {
            Peek::Found(bytes) => Ok(Some(bytes)),
            Peek::Absent => Ok(None),
            Peek::NotLoaded => Err(Need::Record(key.to_vec())),
        }
    }

    fn decoded<T: Codec>(&self, key: Vec<u8>) -> Result<Option<T>, Need> {
        match self.record(&key)? {
            Some(bytes) => match T::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(Need::Damaged(key)),
            },
            None => Ok(None),
        }
    }
}

impl<W: World> View for FlashView<'_, W> {
    fn inode(&self, fid: Fid) -> Result<Option<Inode>, Need> {
        self.decoded(key::inode(fid))
    }
    fn slot(&self, dir: Fid, cookie: u64) -> Result<Option<Dirent>, Need> {
        self.decoded(key::dirent(dir, cookie))
    }
    fn xattr(&self, fid: Fid, name: &[u8]) -> Result<Option<Rc<[u8]>>, Need> {
        self.record(&key::xattr(fid, name))
    }
    fn cookie(&self, name: &Name) -> u64 {
        hash::cookie(&self.target.hash_key, name)
    }
    fn is_absent(&self, dir: Fid, name: &Name) -> bool {
        self.absent.iter().any(|(d, n)| *d == dir && n == name)
    }
    fn fresh(&self) -> Result<(Fid, u64), Need> {
        match self.given {
            Some(fid) => Ok((fid, fid.born_ino())),
            None => fids::next(self.shard, self.target),
        }
    }
    fn is_open(&self, fid: Fid) -> bool {
        super::is_open(self.shard, fid)
    }
}
