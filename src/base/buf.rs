//! Memory for I/O: aligned to the flash block, pooled, and handed around by
//! value, so that whoever holds a `Buf` is its only writer.
//!
//! The pool's memory is what the reactor registers with io_uring; a buffer
//! taken past the pool's size is plain memory that is freed when dropped.

use crate::base::limits::BLOCK;
use crossbeam_queue::ArrayQueue;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

/// Idle memory of one size.
type Home = Arc<ArrayQueue<Memory>>;

/// An allocation. Numbered memory is never freed before its pool: the number
/// is its place in the table of an io_uring.
struct Memory {
    bytes: Box<[u8]>,
    number: Option<u16>,
}

/// Owned memory whose first byte is aligned to [`BLOCK`]. Derefs to its `len`
/// bytes; `resize` moves the end within the capacity.
pub struct Buf {
    /// Always `Some` until drop.
    mem: Option<Memory>,
    start: usize,
    cap: usize,
    len: usize,
    home: Option<Home>,
}

impl Buf {
    /// Zeroed memory outside any pool; capacity is `len` rounded up to a block.
    #[must_use]
    pub fn alone(len: usize) -> Buf {
        let cap = len.next_multiple_of(BLOCK).max(BLOCK);
        let mem = Memory {
            bytes: aligned(cap),
            number: None,
        };
        Buf::of(mem, cap, len, None)
    }

    fn of(mem: Memory, cap: usize, len: usize, home: Option<Home>) -> Buf {
        let address = mem.bytes.as_ptr().addr();
        let start = address.next_multiple_of(BLOCK) - address;
        Buf {
            mem: Some(mem),
            start,
            cap,
            len,
            home,
        }
    }

    /// Copies `bytes` into memory of its own.
    #[must_use]
    pub fn copied(bytes: &[u8]) -> Buf {
        let mut buf = Buf::alone(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    #[must_use]
    pub fn capacity(&self) -> usize {
        self.cap
    }

    /// Moves the end. Bytes between the old and the new end are whatever the
    /// memory held: callers overwrite them.
    ///
    /// # Panics
    /// If `len` exceeds the capacity: sizes are the caller's own.
    pub fn resize(&mut self, len: usize) {
        assert!(
            len <= self.cap,
            "buffer of {} asked to hold {len}",
            self.cap
        );
        self.len = len;
    }

    /// Shares the buffer for reading.
    #[must_use]
    pub fn freeze(self) -> Slice {
        let range = 0..self.len;
        Slice {
            buf: Arc::new(self),
            range,
        }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let mem = self.mem.as_ref().expect("held until drop");
        &mem.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let mem = self.mem.as_mut().expect("held until drop");
        &mut mem.bytes[self.start..self.start + self.len]
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let (Some(home), Some(mem)) = (self.home.take(), self.mem.take()) {
            // A full home means the pool was over-drawn: the surplus is freed.
            let _ = home.push(mem);
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({}/{})", self.len, self.cap)
    }
}

/// A read-only view of a shared buffer; cloning shares.
#[derive(Clone)]
pub struct Slice {
    buf: Arc<Buf>,
    range: Range<usize>,
}

impl Slice {
    /// The part `range` of this slice.
    ///
    /// # Panics
    /// If `range` leaves the slice.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Slice {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "part leaves the slice"
        );
        let start = self.range.start + range.start;
        Slice {
            buf: Arc::clone(&self.buf),
            range: start..start + range.len(),
        }
    }

    /// The number of the buffer, if it is `pool`'s and has one.
    #[must_use]
    pub fn number_in(&self, pool: &Pool) -> Option<u16> {
        pool.number(&self.buf)
    }

    /// Bytes of memory that this slice keeps in use, however short it is.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buf.capacity()
    }

    /// Takes the buffer back if nobody else shares it and the slice covers its start.
    pub fn into_buf(self) -> Result<Buf, Slice> {
        let Slice { buf, range } = self;
        if range.start != 0 {
            return Err(Slice { buf, range });
        }
        match Arc::try_unwrap(buf) {
            Ok(mut buf) => {
                buf.resize(range.end);
                Ok(buf)
            }
            Err(buf) => Err(Slice { buf, range }),
        }
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buf[self.range.clone()]
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Slice {
        Buf::copied(&bytes).freeze()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({})", self.len())
    }
}

/// A pool of aligned buffers in three sizes. Taking never fails: past the
/// pool's stock it falls back to plain memory, which `misses` of the owner's
/// metrics would show. Safe to share between threads (origin threads fill the
/// shard's buffers).
#[derive(Clone)]
pub struct Pool {
    classes: [(usize, Home); 3],
    /// Numbered buffers of the largest size, taken before others of it. Holds
    /// all of them at once, so that none is ever surplus.
    numbered: Home,
}

impl Pool {
    /// `counts`: how many idle buffers of 4 KiB, 64 KiB and 1 MiB to keep.
    #[must_use]
    pub fn new(counts: [usize; 3]) -> Pool {
        let class = |i: usize| (Pool::SIZES[i], Arc::new(ArrayQueue::new(counts[i].max(1))));
        Pool {
            classes: [class(0), class(1), class(2)],
            numbered: Arc::new(ArrayQueue::new(1)),
        }
    }

    /// The same with `numbered` buffers of 1 MiB, allocated at once, that have
    /// the numbers 0, 1, … for a ring to register.
    #[must_use]
    pub fn with_numbered(counts: [usize; 3], numbered: u16) -> Pool {
        let home = ArrayQueue::new(usize::from(numbered).max(1));
        for number in 0..numbered {
            let memory = Memory {
                bytes: aligned(Pool::SIZES[2]),
                number: Some(number),
            };
            let _ = home.push(memory);
        }
        Pool {
            numbered: Arc::new(home),
            ..Pool::new(counts)
        }
    }

    /// All numbered buffers that are idle, by number.
    #[must_use]
    pub fn take_numbered(&self) -> Vec<Buf> {
        let next = || {
            let home = Some(Arc::clone(&self.numbered));
            let memory = self.numbered.pop()?;
            Some(Buf::of(memory, Pool::SIZES[2], Pool::SIZES[2], home))
        };
        let mut bufs: Vec<Buf> = std::iter::from_fn(next).collect();
        bufs.sort_by_key(|buf| self.number(buf));
        bufs
    }

    /// The number of a buffer, if it is this pool's and has one.
    #[must_use]
    pub fn number(&self, buf: &Buf) -> Option<u16> {
        let home = buf.home.as_ref()?;
        let ours = Arc::ptr_eq(home, &self.numbered);
        buf.mem.as_ref().filter(|_| ours)?.number
    }

    pub const SIZES: [usize; 3] = [BLOCK, 64 << 10, 1 << 20];

    /// Memory of `len` bytes, contents unspecified (zero or old bytes).
    #[must_use]
    pub fn take(&self, len: usize) -> Buf {
        match self.classes.iter().find(|(size, _)| *size >= len) {
            None => Buf::alone(len),
            Some((size, home)) => {
                if *size == Pool::SIZES[2]
                    && let Some(mem) = self.numbered.pop()
                {
                    return Buf::of(mem, *size, len, Some(Arc::clone(&self.numbered)));
                }
                let mem = home.pop().unwrap_or_else(|| Memory {
                    bytes: aligned(*size),
                    number: None,
                });
                Buf::of(mem, *size, len, Some(Arc::clone(home)))
            }
        }
    }
}

/// A zeroed allocation that holds an aligned run of `cap` bytes.
fn aligned(cap: usize) -> Box<[u8]> {
    vec![0; cap + BLOCK].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let pool = Pool::new([4, 4, 4]);
        for len in [1, 4096, 5000, 1 << 20, 3 << 20] {
            let buf = pool.take(len);
            assert_eq!(buf.len(), len);
            assert!(buf.as_ptr().addr().is_multiple_of(BLOCK));
        }
        let mut a = pool.take(10);
        a.copy_from_slice(b"0123456789");
        let slice = a.freeze();
        let part = slice.part(2..5);
        assert_eq!(&part[..], b"234");
        drop(slice);
        assert!(part.into_buf().is_err());
    }

    #[test]
    fn numbered_buffers_are_never_freed_nor_confused() {
        let pool = Pool::with_numbered([1, 1, 1], 3);
        let other = Pool::with_numbered([1, 1, 1], 3);
        let all: Vec<Buf> = (0..5).map(|_| pool.take(1 << 20)).collect();
        let mut numbers: Vec<_> = all.iter().map(|buf| pool.number(buf)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [None, None, Some(0), Some(1), Some(2)]);
        assert!(all.iter().all(|buf| other.number(buf).is_none()));
        drop(all);
        let back = pool.take_numbered();
        let numbers: Vec<_> = back.iter().map(|buf| pool.number(buf)).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2)]);
    }
}
