//! From a request to its handler.
use super::{Incoming, Outgoing, Shard, session::Export};
use crate::base::{Errno, Lsn, Transno};
use crate::world::World;
use std::rc::Rc;

/// Runs one request to its end. Never panics on what a client sent.
pub async fn run<W: World>(
    _shard: &Rc<Shard<W>>,
    _export: &Rc<Export>,
    _in: &Incoming,
) -> Outgoing {
    Outgoing {
        result: Err(Errno::ENOSYS),
        transno: Transno(0),
        lsn: Lsn(0),
    }
}
