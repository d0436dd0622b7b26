//! Sessions with clients: frames, exports, reply slots, replay and resend.
use super::{Incoming, Tx};
use crate::base::{ClientId, Fid, OpenId, TargetId};
use crate::wire::Reply;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The shard's exports, by client.
#[derive(Default)]
pub struct Sessions {}

/// The shard's state for one connected client.
pub struct Export {
    pub client: ClientId,
    pub name: String,
    pub target: TargetId,
    pub read_only: bool,
    pub creds: RefCell<BTreeMap<u32, Cred>>,
    pub opens: RefCell<BTreeMap<OpenId, (Fid, u32)>>,
}

/// Who asks, in the box's ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cred {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Puts the reply record of `incoming` into its transaction.
pub fn record_reply(_tx: &mut Tx, _incoming: &Incoming, _reply: &Reply) {}
