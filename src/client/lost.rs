//! What an eviction, or a refusal, undid of what callers had their answers to.

use super::call::{Part, Pending};
use crate::base::{Fid, Slice};
use crate::wire::Request;
use std::collections::BTreeSet;

/// A change that was answered, and has not come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostChange {
    pub request: Request,
    /// What was to be written, if that is little.
    pub bytes: Option<Vec<u8>>,
}

impl LostChange {
    /// Bytes that are kept for who asks.
    const BYTES_MAX: usize = 256;

    /// The changes that a request was to make.
    pub(super) fn of(pending: &Pending) -> Vec<LostChange> {
        let parts = pending.parts.borrow();
        match parts.is_empty() {
            true => vec![LostChange::part(&Part::of(pending))],
            false => parts.iter().map(LostChange::part).collect(),
        }
    }

    fn part(part: &Part) -> LostChange {
        let is_little = |bytes: &&Slice| bytes.len() <= LostChange::BYTES_MAX;
        let bytes = part.payload.as_ref().filter(is_little);
        LostChange {
            request: part.request.clone(),
            bytes: bytes.map(|b| b.to_vec()),
        }
    }
}

/// What an eviction cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Files that lost changes which were not on flash yet.
    pub files: BTreeSet<Fid>,
    /// Changes that were answered ahead of the box, in their order.
    pub ahead: Vec<LostChange>,
}

impl Loss {
    /// A request will not be done.
    pub(super) fn note(&mut self, pending: &Pending) {
        self.files.extend(changes(&pending.request.borrow()));
        if pending.is_ahead() {
            self.ahead.extend(LostChange::of(pending));
        }
    }
}

/// The file that a request makes, or whose bytes it changes.
pub(super) fn changes(request: &Request) -> Option<Fid> {
    match request {
        Request::Write(r) => Some(r.fid),
        Request::Fallocate(r) => Some(r.fid),
        Request::CopyRange(r) => Some(r.to),
        Request::Setattr(r) => Some(r.fid),
        // Known once it was answered.
        Request::Create(r) if !r.fid.is_none() => Some(r.fid),
        _ => None,
    }
}
