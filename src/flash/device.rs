//! What a shard's store stands on: the world's flash, or plain memory (tests,
//! benches, and boxes without a cache device). And the superblock over a world.

use crate::base::limits::BLOCK;
use crate::base::{Buf, Errno, Slice};
use crate::store::superblock::COPY_BYTES;
use crate::store::volume::{check_size, decode_owners, owners_bytes, owners_place};
use crate::store::{FormatOptions, StoreError, Superblock, Volume};
use crate::world::World;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Block-addressed storage.
pub(super) enum Device<W> {
    World(W),
    Memory(Rc<RefCell<BTreeMap<u64, Slice>>>),
}

impl<W: World> Clone for Device<W> {
    fn clone(&self) -> Self {
        match self {
            Device::World(world) => Device::World(world.clone()),
            Device::Memory(blocks) => Device::Memory(Rc::clone(blocks)),
        }
    }
}

impl<W: World> Device<W> {
    pub fn memory() -> Device<W> {
        Device::Memory(Rc::default())
    }

    pub fn is_memory(&self) -> bool {
        matches!(self, Device::Memory(_))
    }

    pub async fn read(&self, at: u64, mut buf: Buf) -> (Result<(), Errno>, Buf) {
        match self {
            Device::World(world) => world.flash_read(at, buf).await,
            Device::Memory(blocks) => {
                let blocks = blocks.borrow();
                for (i, out) in (0u64..).zip(buf.chunks_mut(BLOCK)) {
                    match blocks.get(&(at / BLOCK as u64 + i)) {
                        Some(block) => out.copy_from_slice(block),
                        None => out.fill(0),
                    }
                }
                drop(blocks);
                (Ok(()), buf)
            }
        }
    }

    pub async fn write(&self, at: u64, parts: Vec<Slice>, durable: bool) -> Result<(), Errno> {
        match self {
            Device::World(world) => world.flash_write(at, parts, durable).await,
            Device::Memory(blocks) => {
                let mut blocks = blocks.borrow_mut();
                let mut index = at / BLOCK as u64;
                for part in parts {
                    for start in (0..part.len()).step_by(BLOCK) {
                        blocks.insert(index, part.part(start..start + BLOCK));
                        index += 1;
                    }
                }
                Ok(())
            }
        }
    }

    /// `len` bytes at `at`, both multiples of the block.
    pub async fn load(&self, at: u64, len: usize) -> Result<Slice, StoreError> {
        let (result, buf) = self.read(at, Buf::alone(len)).await;
        result.map_err(|errno| StoreError::Io { at, errno })?;
        Ok(buf.freeze())
    }

    async fn store(&self, at: u64, bytes: Vec<u8>, durable: bool) -> Result<(), StoreError> {
        let written = self.write(at, vec![Slice::from(bytes)], durable).await;
        written.map_err(|errno| StoreError::Io { at, errno })
    }

    pub async fn format(&self, options: &FormatOptions) -> Result<Volume, StoreError> {
        let volume = Volume::plan(options)?;
        let mut writes = volume.writes()?;
        let superblock = writes.pop();
        for (at, bytes) in writes {
            self.store(at, bytes, false).await?;
        }
        // The last write makes it a store, so it is durable, and the others before it.
        if let Some((at, bytes)) = superblock {
            self.store(at, vec![0; BLOCK], true).await?;
            self.store(at, bytes, true).await?;
        }
        Ok(volume)
    }

    pub async fn volume(&self, have: u64) -> Result<Volume, StoreError> {
        let head = self.load(0, 2 * COPY_BYTES).await?;
        let superblock = Superblock::choose(&head)?;
        check_size(&superblock, have)?;
        let len = owners_bytes(superblock.segments);
        let owners = self.load(owners_place(&superblock), len).await?;
        let owners = decode_owners(&superblock, &owners)?;
        Ok(Volume { superblock, owners })
    }
}

/// Makes a store on the world's flash. What was there is gone.
pub async fn format<W: World>(world: &W, options: &FormatOptions) -> Result<Volume, StoreError> {
    Device::World(world.clone()).format(options).await
}

/// Reads what the world's flash of `have` bytes holds, changing nothing.
pub async fn load<W: World>(world: &W, have: u64) -> Result<Volume, StoreError> {
    Device::World(world.clone()).volume(have).await
}

/// Writes the superblock after a change of it; durable when it returns.
pub async fn update<W: World>(
    world: &W,
    volume: &mut Volume,
    change: impl FnOnce(&mut Superblock),
) -> Result<(), StoreError> {
    let (at, bytes) = volume.next_superblock(change)?;
    Device::World(world.clone()).store(at, bytes, true).await
}

/// Opens for writing: a new generation, durable when it returns (F1). Once for
/// the box, before its shards open.
pub async fn claim<W: World>(world: &W, volume: &mut Volume) -> Result<(), StoreError> {
    let (at, bytes) = volume.claim()?;
    Device::World(world.clone()).store(at, bytes, true).await
}
