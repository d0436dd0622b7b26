//! The newest part of the index, in memory: what the journal holds beyond the
//! last checkpoint.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Keys in order; `None` is a deletion that older tables must not show through.
#[derive(Clone, Debug, Default)]
pub struct Memtable {
    map: BTreeMap<Vec<u8>, Option<Rc<[u8]>>>,
    bytes: usize,
}

/// What a node of the map costs beside its bytes, roughly.
const ENTRY_BYTES: usize = 96;

impl Memtable {
    pub fn insert(&mut self, key: Vec<u8>, value: Option<Rc<[u8]>>) {
        let (key_len, len) = (key.len(), value.as_ref().map_or(0, |v| v.len()));
        self.bytes += len;
        match self.map.insert(key, value) {
            Some(old) => self.bytes -= old.map_or(0, |v| v.len()),
            None => self.bytes += key_len + ENTRY_BYTES,
        }
    }
    /// `Some(None)`: deleted here. `None`: ask the older tables.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<Option<Rc<[u8]>>> {
        self.map.get(key).cloned()
    }
    pub fn range<'a>(
        &'a self,
        range: Range<&[u8]>,
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a Option<Rc<[u8]>>)> + use<'a> {
        use std::ops::Bound::{Excluded, Included};
        // An inverted range would make the map panic.
        let end = range.end.max(range.start);
        self.map
            .range::<[u8], _>((Included(range.start), Excluded(end)))
    }
    pub fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Option<Rc<[u8]>>)> {
        self.map.iter()
    }
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}
