//! The transaction as handlers build it.

use crate::base::{Location, Transno};
use crate::store::{Appended, Record};

/// One atomic change: all of it is in the journal, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Tx {
    pub puts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Flash that the change lets go.
    pub freed: Vec<(Location, u32)>,
    /// Bytes appended for this change: verified together with it in recovery.
    pub data: Vec<Appended>,
    /// Its bytes take room that was promised (L4).
    pub is_promised: bool,
    pub transno: Transno,
    /// What memory must forget if the change is dropped without being applied.
    pub undo: Undo,
}

/// Steps that run when this is dropped, unless it was [disarmed](Undo::disarm).
/// State in memory that runs ahead of a transaction (extent maps) hangs its
/// way back here: a handler may give a transaction up at any point, and
/// `apply` may refuse it, and neither has to know what had been prepared.
#[derive(Default)]
pub struct Undo(Vec<Box<dyn FnOnce()>>);

impl Undo {
    pub fn push(&mut self, step: impl FnOnce() + 'static) {
        self.0.push(Box::new(step));
    }
    /// The change was applied: nothing is to be taken back.
    pub fn disarm(&mut self) {
        self.0.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for step in self.0.drain(..).rev() {
            step();
        }
    }
}

/// A copy of a transaction is for looking at: taking back stays with the one copied.
impl Clone for Undo {
    fn clone(&self) -> Undo {
        Undo::default()
    }
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Undo({})", self.0.len())
    }
}

impl Tx {
    /// The part that goes to the journal, and the way back in memory.
    pub(super) fn split(self) -> (Record, Undo) {
        let record = Record {
            puts: self.puts,
            freed: self.freed,
            data: self.data,
            transno: self.transno,
            ..Record::default()
        };
        (record, self.undo)
    }

    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.puts.push((key, Some(value)));
    }
    pub fn delete(&mut self, key: Vec<u8>) {
        self.puts.push((key, None));
    }
}
