//! What a file is like that another client has to itself, asked of that client:
//! it answers from what it has answered its own callers, and keeps its lock. So
//! looking at a file that is being written does not stop whoever writes it.
//!
//! ```text
//! shown, and one EX in the way? ─► Glimpse ─► Glimpsed ─► the lock still there? ─► shown
//!                                     │ no answer, or none to go by    │ no
//!                                     └───────────► claimed ◄──────────┘
//! ```
//! The answer is formed after the question was asked, and each who looks asks for
//! himself: what one was told may be older than what the next has heard of by
//! other ways. While the very lock is there and nobody asks for it, nobody but its
//! holder has changed the file, nor any name of it; so what it said is true at
//! some instant while the operation was under way, names and all. Once the lock is
//! gone, or is called back, that is not known, and the box's own record counts.
//!
//! Nothing is granted on what a client said: it goes on changing the file.

use super::{Locks, Touch};
use crate::base::{Attr, Fid, LockId, Xid};
use crate::dlm::{Holder, Sole};
use crate::shard::session::Export;
use crate::shard::{Shard, counters};
use crate::wire::callback::Glimpse;
use crate::wire::op::Glimpsed;
use crate::wire::{Callback, CallbackHead, Features, Frame};
use crate::world::World;
use crate::world::race::within;
use crate::world::sync::Promise;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A file whose record has not changed for so long is being written no more: its
/// lock is called back, and whoever looks may keep what he sees.
pub const LATELY: Duration = Duration::from_secs(2);

/// The holder answers from memory, so this is time for the way there and back. A
/// client that is stopped, or behind a line slower than this, is called back.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the holder of a file said of it.
#[derive(Clone, Debug)]
pub struct Said {
    /// It is like this; `None`: as the box has it, where nothing is missing that
    /// was answered.
    attr: Option<Attr>,
    /// Its extended attributes are as the box has them.
    xattrs_here: bool,
}

/// Questions under way: at most one for each request.
#[derive(Default)]
pub struct Glimpses {
    /// By whom they were put to, and their number.
    asked: RefCell<BTreeMap<(Holder, LockId), Question>>,
}

struct Question {
    fid: Fid,
    answer: Promise<Option<Said>>,
}

impl Glimpses {
    /// Nobody will answer what this holder was asked.
    pub fn leave(&self, holder: Holder) {
        let asked = self.asked.borrow();
        let theirs = (holder, LockId(0))..=(holder, LockId(u64::MAX));
        for (_, question) in asked.range(theirs) {
            question.answer.set(None);
        }
    }
}

impl Locks {
    /// Who has a file to himself, if nothing else keeps `holder` from what it
    /// touches, and he can be asked what it is like.
    #[must_use]
    pub fn sole(&self, holder: Holder, touch: &Touch) -> Option<Sole> {
        let table = self.table.borrow();
        let sole = table.sole(holder, touch.fid, touch.mode, touch.bits)?;
        let exports = self.exports.borrow();
        let export = exports.get(&sole.holder)?;
        (export.has(Features::GLIMPSE) && export.is_connected()).then_some(sole)
    }
}

/// Asks who has `fid` to himself what it is like; `None`: it must be called back.
pub async fn ask<W: World>(shard: &Shard<W>, sole: Sole, fid: Fid) -> Option<Said> {
    inquire(shard, sole, fid).await.flatten()
}

/// The same; `None` if there was no answer, and `Some(None)` if the client said
/// that it does not have that file to itself.
pub async fn inquire<W: World>(shard: &Shard<W>, sole: Sole, fid: Fid) -> Option<Option<Said>> {
    let locks = &shard.locks;
    let export = locks.exports.borrow().get(&sole.holder).cloned()?;
    if !export.has(Features::GLIMPSE) || !export.is_connected() {
        return None;
    }
    let xid = Xid(locks.next_xid.get());
    locks.next_xid.set(xid.0 + 1);
    let number = LockId(xid.0);
    let answer = Promise::default();
    let question = Question {
        fid,
        answer: answer.clone(),
    };
    let key = (sole.holder, number);
    locks.glimpses.asked.borrow_mut().insert(key, question);
    let head = CallbackHead {
        incarnation: export.incarnation(),
        lock: number,
        fid,
        ..CallbackHead::default()
    };
    let callback = Callback::Glimpse(Glimpse { fid });
    let checksum = export.has(Features::CHECKSUM);
    export.send(Frame::callback(xid, &head, &callback, checksum));
    let said = within(&shard.world, PATIENCE, answer.get()).await;
    locks.glimpses.asked.borrow_mut().remove(&key);
    said
}

/// Does what the box has of a file lack nothing that its holder has answered?
#[must_use]
pub fn is_all_here(here: &Attr, said: &Said) -> bool {
    let Some(there) = &said.attr else {
        return true;
    };
    // Every change stamps the file.
    (here.ctime, here.mtime, here.size) == (there.ctime, there.mtime, there.size)
}

/// A client answers. What it was not asked, or not any more, changes nothing.
pub fn on_glimpsed<W: World>(shard: &Rc<Shard<W>>, export: &Export, glimpsed: Glimpsed) {
    let asked = shard.locks.glimpses.asked.borrow();
    let key = (export.holder, glimpsed.lock);
    let Some(question) = asked.get(&key).filter(|q| q.fid == glimpsed.fid) else {
        return;
    };
    question.answer.set(glimpsed.is_alone.then_some(Said {
        attr: glimpsed.attr,
        xattrs_here: glimpsed.xattrs_at_box,
    }));
}

/// The file as its holder said, to be shown to others. `None` if that differs
/// from what is here in more than bytes that are written change: a client must
/// not be able to show anybody a mode, an owner or a link that the box has not
/// accepted (and may refuse), nor one that is not on flash (L9).
///
/// The version is none: the holder counts its own changes, of which fewer may
/// reach the box. An answer without one is never remembered.
#[must_use]
pub fn shown(here: &Attr, said: &Said) -> Option<Attr> {
    let said = said.attr.as_ref().unwrap_or(here);
    let shown = Attr {
        size: said.size,
        blocks: said.blocks,
        atime: said.atime,
        mtime: said.mtime,
        ctime: said.ctime,
        version: 0,
        ..here.clone()
    };
    let is_all = Attr {
        version: 0,
        ..said.clone()
    };
    (is_all == shown).then_some(shown)
}

/// Are extended attributes here as the file's holder shows them, ACLs among them,
/// which go with the mode?
#[must_use]
pub fn has_xattrs(here: &Attr, said: &Said) -> bool {
    said.xattrs_here && shown(here, said).is_some()
}

/// A holder was believed.
pub fn count<W: World>(shard: &Shard<W>) {
    shard.counters.on(counters::Event::Glimpsed);
}
