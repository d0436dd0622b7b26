//! A disk with a volatile cache, and its fault contract:
//!
//! - A write completes after a random time; writes in flight complete in any
//!   order. A read sees completed writes only, never a part of one in flight.
//! - A flush makes durable every write that completed before the flush was
//!   submitted; a durable write flushes after itself.
//! - **Process crash**: completed writes stay, still without a flush; each in
//!   flight happens or not.
//! - **Power loss**: of each write that no flush covered, in flight or
//!   completed, every sector of 512 bytes is kept or not: all, none or a torn
//!   mixture, each write for itself, hence in any order. Durable bytes stay.
//! - On request: a read or write fails with EIO (a failed write may have
//!   happened in part), or a bit turns on the medium and stays turned.

use super::executor::Core;
use super::node::Crash;
use crate::base::limits::BLOCK;
use crate::base::{Errno, Slice};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// One machine's disk. Sparse: what was never written reads as zeros.
pub struct Disk {
    state: RefCell<State>,
    bytes_max: Cell<u64>,
    watch: RefCell<Option<Watch>>,
}

/// What is done with a crash image; it may not use the disk.
type Watch = Box<dyn FnMut(CrashImage)>;

/// What a power loss at one moment leaves of a disk.
pub struct CrashImage(Image);

#[derive(Default)]
struct State {
    /// What reads see.
    seen: Image,
    /// What survives a power loss for certain.
    durable: Image,
    /// Submitted and not yet covered by a flush, in order of submission.
    loose: BTreeMap<u64, Write>,
    submitted: u64,
    completed: u64,
}

#[derive(Clone, Default)]
struct Image(BTreeMap<u64, Rc<[u8]>>);

struct Write {
    offset: u64,
    bytes: Vec<u8>,
    /// Its place in the order of completions; `None` in flight.
    completed: Option<u64>,
}

impl Write {
    fn range(&self) -> (u64, u64) {
        (self.offset, self.offset + self.bytes.len() as u64)
    }
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            state: RefCell::default(),
            bytes_max: Cell::new(1 << 40),
            watch: RefCell::default(),
        }
    }
}

impl Disk {
    /// Bounds the disk; reads and writes past it fail with ENXIO.
    pub fn limit(&self, bytes: u64) {
        self.bytes_max.set(bytes);
    }

    /// Forgets everything: a new, empty disk.
    pub fn wipe(&self) {
        *self.state.borrow_mut() = State::default();
    }

    /// From now on, at every flush, `watch` gets what a power loss would leave:
    /// once before anything is made durable, once after. `None` ends it.
    pub fn watch_flushes(&self, watch: Option<Box<dyn FnMut(CrashImage)>>) {
        *self.watch.borrow_mut() = watch;
    }

    /// Makes the disk what `image` says, all of it durable.
    pub fn restore(&self, image: &CrashImage) {
        *self.state.borrow_mut() = State {
            seen: image.0.clone(),
            durable: image.0.clone(),
            ..State::default()
        };
    }

    fn show(&self, core: &Core) {
        if let Some(watch) = &mut *self.watch.borrow_mut() {
            watch(CrashImage(self.state.borrow().after_power_loss(core)));
        }
    }

    /// Bytes in blocks that were ever written.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        (self.state.borrow().seen.0.len() * BLOCK) as u64
    }

    /// The first `bytes` of what reads see.
    #[must_use]
    pub fn image(&self, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.state.borrow().seen.read(0, &mut out);
        out
    }

    /// Turns a bit at `offset`, for good.
    pub fn rot(&self, offset: u64, bit: u8) {
        let mut state = self.state.borrow_mut();
        for write in state.loose.values_mut() {
            if let Some(at) = offset.checked_sub(write.offset)
                && let Some(byte) = usize::try_from(at)
                    .ok()
                    .and_then(|i| write.bytes.get_mut(i))
            {
                *byte ^= 1 << (bit % 8);
            }
        }
        state.seen.flip(offset, bit);
        state.durable.flip(offset, bit);
    }

    /// The order of completions so far, for a flush submitted now.
    pub(super) fn mark(&self) -> u64 {
        self.state.borrow().completed
    }

    pub(super) fn read(&self, core: &Core, offset: u64, out: &mut [u8]) -> Result<(), Errno> {
        self.check(offset, out.len())?;
        let (error, rot) = {
            let faults = core.faults.borrow();
            (faults.disk_read_error_one_in, faults.disk_rot_one_in)
        };
        if core.chance(error) {
            return Err(Errno::EIO);
        }
        if core.chance(rot) {
            let at = offset + core.below(out.len() as u64);
            self.rot(at, core.below(8) as u8);
        }
        self.state.borrow().seen.read(offset, out);
        core.trace("disk read", offset);
        Ok(())
    }

    /// Takes the bytes; the number names the write.
    pub(super) fn submit(&self, core: &Core, offset: u64, parts: Vec<Slice>) -> Result<u64, Errno> {
        let bytes = parts
            .iter()
            .flat_map(|p| p.iter().copied())
            .collect::<Vec<u8>>();
        if parts.iter().any(|p| !p.len().is_multiple_of(BLOCK)) {
            return Err(Errno::EINVAL);
        }
        self.check(offset, bytes.len())?;
        core.trace("disk write", offset ^ u64::from(crc32c::crc32c(&bytes)));
        let mut state = self.state.borrow_mut();
        state.submitted += 1;
        let number = state.submitted;
        let completed = None;
        state.loose.insert(
            number,
            Write {
                offset,
                bytes,
                completed,
            },
        );
        Ok(number)
    }

    /// The write reaches the device's cache.
    pub(super) fn complete(&self, core: &Core, number: u64) -> Result<(), Errno> {
        let one_in = core.faults.borrow().disk_write_error_one_in;
        let fails = core.chance(one_in);
        let mut state = self.state.borrow_mut();
        let State {
            loose,
            seen,
            completed,
            ..
        } = &mut *state;
        let Some(write) = loose.get_mut(&number) else {
            return Err(Errno::EIO);
        };
        if fails {
            seen.write_torn(core, write);
            return Err(Errno::EIO);
        }
        *completed += 1;
        write.completed = Some(*completed);
        seen.write(write.offset, &write.bytes);
        core.trace("disk done", number);
        Ok(())
    }

    /// Makes durable what completed before `mark`, and `also`.
    pub(super) fn flush(&self, core: &Core, mark: u64, also: Option<u64>) -> Result<(), Errno> {
        core.trace("disk flush", mark);
        self.show(core);
        let mut state = self.state.borrow_mut();
        let State { loose, durable, .. } = &mut *state;
        let mut covered: Vec<(u64, u64)> = loose
            .iter()
            .filter_map(|(number, w)| w.completed.map(|at| (at, *number)))
            .collect();
        // Newest first: what a covered write overlays goes with it, so that no
        // older bytes can come back over durable ones.
        covered.sort_unstable_by(|a, b| b.cmp(a));
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        covered.retain(|(at, number)| {
            let range = loose[number].range();
            let overlaid = ranges.iter().any(|r| r.0 < range.1 && range.0 < r.1);
            let taken = *at <= mark || also == Some(*number) || overlaid;
            if taken {
                ranges.push(range);
            }
            taken
        });
        for (_, number) in covered.iter().rev() {
            if let Some(write) = loose.remove(number) {
                durable.write(write.offset, &write.bytes);
            }
        }
        drop(state);
        self.show(core);
        Ok(())
    }

    pub(super) fn crash(&self, core: &Core, kind: Crash) {
        let mut state = self.state.borrow_mut();
        let State {
            loose,
            seen,
            completed,
            ..
        } = &mut *state;
        match kind {
            // The cache keeps its bytes, loose until the next process flushes.
            Crash::Process => loose.retain(|_, write| {
                if write.completed.is_none() && core.chance(2) {
                    *completed += 1;
                    write.completed = Some(*completed);
                    seen.write(write.offset, &write.bytes);
                }
                write.completed.is_some()
            }),
            Crash::Power => {
                state.durable = state.after_power_loss(core);
                state.seen = state.durable.clone();
                state.loose.clear();
            }
        }
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), Errno> {
        if !offset.is_multiple_of(BLOCK as u64) || !len.is_multiple_of(BLOCK) {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.bytes_max.get()) {
            return Err(Errno::ENXIO);
        }
        Ok(())
    }
}

impl State {
    /// What is durable, and of everything loose all, nothing or a part.
    fn after_power_loss(&self, core: &Core) -> Image {
        let mut left = self.durable.clone();
        let mut loose: Vec<&Write> = self.loose.values().collect();
        loose.sort_by_key(|w| w.completed.unwrap_or(u64::MAX));
        for write in loose {
            left.write_torn(core, write);
        }
        left
    }
}

impl Image {
    fn read(&self, offset: u64, out: &mut [u8]) {
        for (i, chunk) in out.chunks_mut(BLOCK).enumerate() {
            match self.0.get(&(offset / BLOCK as u64 + i as u64)) {
                Some(block) => chunk.copy_from_slice(&block[..chunk.len()]),
                None => chunk.fill(0),
            }
        }
    }
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(BLOCK).enumerate() {
            self.0
                .insert(offset / BLOCK as u64 + i as u64, chunk.into());
        }
    }
    /// All of the write, nothing, or a mixture of its sectors.
    fn write_torn(&mut self, core: &Core, write: &Write) {
        match core.below(3) {
            0 => {}
            1 => self.write(write.offset, &write.bytes),
            _ => {
                for (i, sector) in write.bytes.chunks(SECTOR).enumerate() {
                    if core.chance(2) {
                        let at = write.offset + (i * SECTOR) as u64;
                        let within = usize::try_from(at % BLOCK as u64).expect("below a block");
                        let block = self.0.entry(at / BLOCK as u64);
                        let block = block.or_insert_with(|| vec![0; BLOCK].into());
                        let block = Rc::make_mut(block);
                        block[within..within + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
    }
    fn flip(&mut self, offset: u64, bit: u8) {
        let within = usize::try_from(offset % BLOCK as u64).expect("below a block");
        if let Some(block) = self.0.get_mut(&(offset / BLOCK as u64)) {
            Rc::make_mut(block)[within] ^= 1 << (bit % 8);
        }
    }
}

/// What a device writes whole or not at all.
const SECTOR: usize = 512;
