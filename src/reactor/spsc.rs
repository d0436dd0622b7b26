//! A lock-free ring between two threads: one sends, one receives. Positions
//! only ever grow; each side writes its own and reads the other's, and keeps
//! the last value it read, so that a busy ring seldom touches the other
//! side's cache line.

#[cfg(loom)]
use loom::sync::Arc;
#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
use std::cell::Cell;
use std::mem::MaybeUninit;
#[cfg(not(loom))]
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The two ends of a ring that holds `capacity` items, rounded up to a power
/// of two.
#[must_use]
pub fn ring<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = capacity.max(1).next_power_of_two();
    let ring = Arc::new(Ring {
        sent: Line(AtomicUsize::new(0)),
        taken: Line(AtomicUsize::new(0)),
        cells: (0..capacity)
            .map(|_| Slot::new(MaybeUninit::uninit()))
            .collect(),
    });
    let sender = Sender {
        ring: Arc::clone(&ring),
        next: Cell::new(0),
        taken: Cell::new(0),
    };
    let receiver = Receiver {
        ring,
        next: Cell::new(0),
        sent: Cell::new(0),
    };
    (sender, receiver)
}

/// A cache line of its own (two: the prefetcher pulls pairs).
#[repr(align(128))]
struct Line<T>(T);

struct Ring<T> {
    /// Items written. Only the sender changes it.
    sent: Line<AtomicUsize>,
    /// Items read. Only the receiver changes it; `taken <= sent`.
    taken: Line<AtomicUsize>,
    /// Item `n` lies in cell `n % len`; those in `taken..sent` are initialised.
    cells: Box<[Slot<MaybeUninit<T>>]>,
}

// SAFETY: a cell is touched by one thread at a time. The sender writes cell n
// only when `taken + len > n`, which the receiver published (release) after it
// had read what lay there; the receiver reads it only when `sent > n`, which
// the sender published after it had written. `T: Send` lets items cross.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; the ring owns its items.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    fn cell(&self, position: usize) -> &Slot<MaybeUninit<T>> {
        &self.cells[position & (self.cells.len() - 1)]
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let sent = self.sent.0.load(Ordering::Relaxed);
        let mut at = self.taken.0.load(Ordering::Relaxed);
        while at != sent {
            // SAFETY: both ends are gone, and cells in taken..sent hold items
            // that nobody has read out.
            self.cell(at)
                .with_mut(|cell| unsafe { (*cell).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

/// The end that sends. Not `Sync`: one thread sends.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    next: Cell<usize>,
    /// `taken` as last seen.
    taken: Cell<usize>,
}

impl<T: Send> Sender<T> {
    /// Gives the item back when the ring is full.
    pub fn push(&self, item: T) -> Result<(), T> {
        let next = self.next.get();
        let len = self.ring.cells.len();
        if next.wrapping_sub(self.taken.get()) == len {
            self.taken.set(self.ring.taken.0.load(Ordering::Acquire));
            if next.wrapping_sub(self.taken.get()) == len {
                return Err(item);
            }
        }
        self.ring.cell(next).with_mut(|cell| {
            // SAFETY: next < taken + len, so the receiver is done with the
            // cell, and it does not look at it before `sent` passes it.
            unsafe { (*cell).write(item) };
        });
        self.next.set(next.wrapping_add(1));
        self.ring.sent.0.store(self.next.get(), Ordering::Release);
        Ok(())
    }
}

/// The end that receives. Not `Sync`: one thread receives.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    next: Cell<usize>,
    /// `sent` as last seen.
    sent: Cell<usize>,
}

impl<T: Send> Receiver<T> {
    pub fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let next = self.next.get();
        let item = self.ring.cell(next).with_mut(|cell| {
            // SAFETY: next < sent, so the sender has initialised the cell, and
            // it does not write it again before `taken` passes it. The item is
            // read once: `next` moves on.
            unsafe { (*cell).assume_init_read() }
        });
        self.next.set(next.wrapping_add(1));
        self.ring.taken.0.store(self.next.get(), Ordering::Release);
        Some(item)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        let next = self.next.get();
        if next == self.sent.get() {
            self.sent.set(self.ring.sent.0.load(Ordering::Acquire));
        }
        next == self.sent.get()
    }
}

#[cfg(loom)]
use loom::cell::UnsafeCell as Slot;

/// What loom's cell is, without loom.
#[cfg(not(loom))]
struct Slot<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> Slot<T> {
    fn new(value: T) -> Slot<T> {
        Slot(std::cell::UnsafeCell::new(value))
    }
    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::thread;

    /// Every schedule of three sends through a ring of two.
    #[test]
    fn items_arrive_once_and_in_order() {
        loom::model(|| {
            let (sender, receiver) = ring(2);
            let other = thread::spawn(move || {
                for n in 0..3 {
                    let mut item = Box::new(n);
                    while let Err(back) = sender.push(item) {
                        item = back;
                        thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < 3 {
                match receiver.pop() {
                    Some(item) => {
                        assert_eq!(*item, next);
                        next += 1;
                    }
                    None => thread::yield_now(),
                }
            }
            other.join().expect("no panic");
        });
    }

    /// What is left in the ring when both ends go is dropped, once, by
    /// whichever goes last. Loom reports what is leaked.
    #[test]
    fn items_left_behind_are_dropped() {
        loom::model(|| {
            let (sender, receiver) = ring(2);
            let item = Arc::new(());
            let kept = Arc::clone(&item);
            let other = thread::spawn(move || {
                assert!(sender.push(Arc::clone(&item)).is_ok());
                assert!(sender.push(item).is_ok());
            });
            drop(receiver.pop());
            drop(receiver);
            other.join().expect("no panic");
            assert_eq!(Arc::strong_count(&kept), 1);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::thread;

    #[test]
    fn two_threads_see_every_item_in_order() {
        let count = if cfg!(miri) { 300 } else { 200_000_u64 };
        let (sender, receiver) = ring(8);
        let other = thread::spawn(move || {
            for n in 0..count {
                let mut item = Box::new(n);
                while let Err(back) = sender.push(item) {
                    item = back;
                    thread::yield_now();
                }
            }
        });
        for n in 0..count {
            let item = loop {
                match receiver.pop() {
                    Some(item) => break item,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*item, n);
        }
        assert!(receiver.pop().is_none());
        other.join().expect("no panic");
    }

    #[test]
    fn what_is_left_is_dropped() {
        let item = Arc::new(());
        let (sender, receiver) = ring(4);
        for _ in 0..3 {
            assert!(sender.push(Arc::clone(&item)).is_ok());
        }
        drop(receiver.pop());
        drop(sender);
        assert_eq!(Arc::strong_count(&item), 3);
        drop(receiver);
        assert_eq!(Arc::strong_count(&item), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        /// Against a queue with a bound: any mix of pushes and pops.
        #[test]
        fn it_is_a_bounded_queue(
            capacity in 1_usize..9,
            steps in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let (sender, receiver) = ring(capacity);
            let bound = capacity.next_power_of_two();
            let mut model = VecDeque::new();
            for (n, is_push) in steps.into_iter().enumerate() {
                if is_push {
                    let sent = sender.push(n);
                    prop_assert_eq!(sent.is_ok(), model.len() < bound);
                    model.extend(sent.ok().map(|()| n));
                } else {
                    prop_assert_eq!(receiver.pop(), model.pop_front());
                }
                prop_assert_eq!(receiver.is_empty(), model.is_empty());
            }
        }
    }
}
