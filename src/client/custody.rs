//! Where a file's newest bytes are safe is the box's to say, each time it is
//! asked, whatever this client holds and remembers of the file: the attribute
//! that tells it is none of the file's. It is asked AFTER all that was answered
//! ahead of the box, so what the box says counts that in.

use super::Import;
use super::call::{CallError, Outcome};
use crate::base::Errno;
use crate::namespace::xattr::CUSTODY;
use crate::wire::{Features, Request};
use crate::world::World;

/// Is it about that attribute?
#[must_use]
pub fn is_about(request: &Request) -> bool {
    match request {
        Request::XattrGet(op) | Request::XattrRemove(op) => op.name.0 == CUSTODY,
        Request::XattrSet(op) => op.name.0 == CUSTODY,
        _ => false,
    }
}

/// A box that does not know it would keep it as an attribute of the file.
pub fn answer<W: World>(import: &Import<W>) -> Option<Outcome> {
    let agreed = import.agreed.borrow();
    let agreed = agreed.as_ref()?;
    let is_known = agreed.features.has(Features::CUSTODY);
    (!is_known).then_some(Err(CallError::Failed(Errno::EOPNOTSUPP)))
}
