//! One request in its task: answered from its record, or run, committed and
//! answered.

use super::connection::{GONE, checksum, nothing};
use super::export::{Export, Link};
use super::record::ReplyRecord;
use super::recovery::Turn;
use super::slots::Answer;
use super::{grants, keeper};
use crate::base::codec::Codec;
use crate::base::{ClientId, Errno, Lsn, Slice, Transno, Xid};
use crate::namespace::key;
use crate::shard::{Incoming, Outgoing, Shard, dispatch, filelocks, meta};
use crate::wire::head::{flags, reply_flags};
use crate::wire::op::OpenFile;
use crate::wire::{Frame, Granted, Notice, Reply, ReplyHead, Request};
use crate::world::{Level, World};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// What the session needs of the operations above it.
pub trait Handler<W: World>: 'static {
    /// Runs one request to its end.
    fn run(
        &self,
        shard: &Rc<Shard<W>>,
        export: &Rc<Export>,
        incoming: &Incoming,
    ) -> impl Future<Output = Outgoing>;

    /// The operation was done and answered before a restart, and is answered
    /// again: what it left in memory is made again.
    fn repeated(
        &self,
        shard: &Rc<Shard<W>>,
        export: &Rc<Export>,
        incoming: &Incoming,
        reply: &Reply,
    );

    /// A client that comes back declares an open file that it held before.
    fn reopened(
        &self,
        shard: &Rc<Shard<W>>,
        export: &Rc<Export>,
        open: &OpenFile,
    ) -> impl Future<Output = Result<(), Errno>>;

    /// The export is gone for good: its open files are to be closed.
    fn dropped(&self, shard: &Rc<Shard<W>>, export: &Rc<Export>) -> impl Future<Output = ()>;

    /// No client of before the restart can come back any more: what only
    /// their open files kept may go.
    fn recovered(&self, shard: &Rc<Shard<W>>) -> impl Future<Output = ()>;
}

/// The box's own operations.
pub struct Dispatch;

impl<W: World> Handler<W> for Dispatch {
    async fn run(
        &self,
        shard: &Rc<Shard<W>>,
        export: &Rc<Export>,
        incoming: &Incoming,
    ) -> Outgoing {
        dispatch::run(shard, export, incoming).await
    }

    fn repeated(
        &self,
        shard: &Rc<Shard<W>>,
        export: &Rc<Export>,
        incoming: &Incoming,
        reply: &Reply,
    ) {
        dispatch::repeated(shard, export, incoming, reply);
    }

    async fn reopened(
        &self,
        shard: &Rc<Shard<W>>,
        export: &Rc<Export>,
        open: &OpenFile,
    ) -> Result<(), Errno> {
        meta::reopen(shard, export, std::slice::from_ref(open));
        Ok(())
    }

    async fn dropped(&self, shard: &Rc<Shard<W>>, export: &Rc<Export>) {
        // Before anything is awaited: the client may come back as somebody new.
        filelocks::dropped(shard, export);
        meta::close_all(shard, export).await;
    }

    async fn recovered(&self, shard: &Rc<Shard<W>>) {
        if let Err(e) = meta::reap_orphans(shard).await {
            let line = format!("files without names stay until the next start: {e}");
            shard.world.log(Level::Error, &line);
        }
    }
}

/// A request with what its answer needs.
pub(super) struct Asked {
    pub incoming: Incoming,
    /// The connection that it came on, which counts `reserved` for the answer.
    pub link: Rc<dyn Link>,
    pub reserved: usize,
}

/// Runs a request in its slot, to its answer.
pub(super) async fn run<W: World, H: Handler<W>>(
    shard: Rc<Shard<W>>,
    handler: Rc<H>,
    export: Rc<Export>,
    asked: Asked,
) {
    let Asked {
        incoming,
        link,
        reserved,
    } = asked;
    let began = shard.world.now();
    let (tag, xid, op) = (incoming.head.tag, incoming.xid, incoming.request.tag());
    if let Some(answer) = recorded(&shard, &export, &incoming).await {
        handler.repeated(&shard, &export, &incoming, &answer.reply);
        let answer = Rc::new(answer);
        export.answered(tag, xid, Some(Rc::clone(&answer)));
        link.send(again(&shard, &export, xid, op, &answer), reserved);
        return;
    }
    let outgoing = execute(&shard, &handler, &export, &incoming).await;
    let answer = match &outgoing.result {
        Ok((reply, _)) if outgoing.transno > Transno(0) => Some(Rc::new(Answer {
            transno: outgoing.transno,
            reply: reply.clone(),
            granted: incoming.granted.borrow().clone(),
        })),
        _ => None,
    };
    export.answered(tag, xid, answer);
    let mut head = reply_head(&shard, &export);
    head.transno = outgoing.transno;
    head.service_us = shard.sessions.estimate.note(shard.world.now() - began);
    if incoming.contended.get() {
        head.flags |= reply_flags::CONTENDED;
    }
    let granted = incoming.granted.take();
    let frame = framed(&export, xid, op, head, outgoing.result, &granted);
    // A resend may have come on a newer connection meanwhile.
    let newest = export.state.link.borrow().clone();
    match newest {
        Some(newest) if !Rc::ptr_eq(&newest, &link) => {
            newest.send(frame, 0);
            link.release(reserved);
        }
        _ => link.send(frame, reserved),
    }
}

/// The answer that was given before the box restarted, if there is one.
async fn recorded<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    incoming: &Incoming,
) -> Option<Answer> {
    if incoming.head.flags & flags::RESENT == 0 {
        return None;
    }
    let key = key::reply(export.client, incoming.head.tag);
    let bytes = shard.flash.get(&key).await.ok()??;
    let record = ReplyRecord::from_slice(&bytes).ok()?;
    if record.xid != incoming.xid || record.op != incoming.request.tag() {
        return None;
    }
    Some(Answer {
        transno: record.transno,
        reply: record.reply,
        granted: Granted::default(),
    })
}

/// Runs the operation and waits for what its answer promises.
async fn execute<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    export: &Rc<Export>,
    incoming: &Incoming,
) -> Outgoing {
    shard.sessions.gate().await;
    let is_replayable = is_replayable(incoming);
    // A client with locks is waited for after a restart, as one with unstable
    // changes is: others must not change what it still believes.
    let is_waited_for = is_replayable || !incoming.asked.wants.is_empty();
    if is_waited_for && let Err(e) = keeper::mark_unstable(shard, export).await {
        return failed(e);
    }
    if export.is_ended() {
        return failed(GONE);
    }
    let mut outgoing = handler.run(shard, export, incoming).await;
    if let Err(e) = settle(shard, export, incoming, &outgoing).await {
        shard
            .world
            .log(Level::Error, &format!("an operation is not durable: {e}"));
        outgoing.result = Err(e);
    }
    outgoing
}

fn failed(errno: Errno) -> Outgoing {
    Outgoing {
        result: Err(errno),
        transno: Transno(0),
        lsn: Lsn(0),
    }
}

/// Changes that are answered before they are on flash: until then the client
/// keeps them, and replays them to a box that lost them. A replay does the same
/// again: it says where a write went, and which FID a new file was given.
///
/// One that the client answered ahead says when it was, too, which is what a
/// change of attributes lacks else.
fn is_replayable(incoming: &Incoming) -> bool {
    match &incoming.request {
        Request::Write(_)
        | Request::Create(_)
        | Request::Link(_)
        | Request::Unlink(_)
        | Request::Rename(_) => true,
        Request::Setattr(_) | Request::XattrSet(_) | Request::XattrRemove(_) => {
            incoming.head.flags & flags::ORDERED != 0
        }
        _ => false,
    }
}

/// Waits until what the answer promises is stable: what is not replayed, what
/// builds on another client's change (L9), and everything when asked (Fsync).
/// A journal that does not keep up makes all wait, which bounds what clients keep.
async fn settle<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    incoming: &Incoming,
    outgoing: &Outgoing,
) -> Result<(), Errno> {
    let last = &export.state.last_lsn;
    let is_change = outgoing.transno > Transno(0);
    if is_change {
        last.set(last.get().max(outgoing.lsn));
    }
    match &incoming.request {
        Request::Fsync(_) => shard.flash.commit(last.get()).await,
        _ if !is_change => Ok(()),
        request if is_replayable(incoming) && !shard.meta.is_mixed(outgoing.transno) => {
            note_unstable(shard, export, outgoing);
            let is_behind = shard.flash.uncommitted() > UNCOMMITTED_MAX;
            if is_behind && !matches!(request, Request::Write(_)) {
                shard.flash.commit(outgoing.lsn).await?;
            }
            Ok(())
        }
        _ => shard.flash.commit(outgoing.lsn).await,
    }
}

/// Changes that may be on their way to flash before one on names waits for its
/// own; writes are bounded by their bytes.
const UNCOMMITTED_MAX: u64 = 1024;

fn note_unstable<W: World>(shard: &Rc<Shard<W>>, export: &Rc<Export>, outgoing: &Outgoing) {
    let newest = export.state.last_unstable.get().max(outgoing.transno);
    export.state.last_unstable.set(newest);
    keeper::notice_later(shard, export);
}

/// A replayed operation, when its turn has come.
pub(super) async fn replay<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    export: &Rc<Export>,
    link: &Rc<dyn Link>,
    incoming: Incoming,
) -> Result<(), Errno> {
    let sessions = &shard.sessions;
    let transno = incoming.head.transno;
    let mut announced = false;
    loop {
        if export.is_ended() || link.is_closed() {
            return Err(GONE);
        }
        let turn = sessions
            .recovery
            .borrow_mut()
            .on_replay(export.client, transno);
        match turn {
            Turn::Run => break,
            Turn::Done => return Ok(()),
            Turn::Late => return Err(GONE),
            Turn::Wait => {
                // Its arrival may be what another replay waits for.
                if !std::mem::replace(&mut announced, true) {
                    sessions.changed.notify();
                }
                sessions.changed.wait().await;
            }
        }
    }
    let outgoing = handler.run(shard, export, &incoming).await;
    if outgoing.transno > Transno(0) {
        note_unstable(shard, export, &outgoing);
    }
    let state = &export.state;
    state.last_lsn.set(state.last_lsn.get().max(outgoing.lsn));
    sessions
        .recovery
        .borrow_mut()
        .on_replayed(export.client, transno);
    sessions.changed.notify();
    outgoing.result.map(|_| ())
}

/// Gives an answer again.
pub(super) fn answer_again<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    xid: Xid,
    op: u16,
    answer: &Answer,
) {
    export.send(again(shard, export, xid, op, answer));
}

fn again<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    xid: Xid,
    op: u16,
    answer: &Answer,
) -> Frame {
    let mut head = reply_head(shard, export);
    head.transno = answer.transno;
    framed(
        export,
        xid,
        op,
        head,
        Ok((answer.reply.clone(), Vec::new())),
        &answer.granted,
    )
}

/// Answers a request of the connection itself.
pub(super) fn reply<W: World>(
    shard: &Rc<Shard<W>>,
    export: &Rc<Export>,
    xid: Xid,
    op: u16,
    result: Result<(), Errno>,
) {
    let head = reply_head(shard, export);
    let result = result.map(|()| (nothing(), Vec::new()));
    let frame = framed(export, xid, op, head, result, &Granted::default());
    export.send(frame);
}

fn framed(
    export: &Export,
    xid: Xid,
    op: u16,
    mut head: ReplyHead,
    result: Result<(Reply, Vec<Slice>), Errno>,
    granted: &Granted,
) -> Frame {
    let checksum = checksum(export);
    match result {
        Ok((reply, payload)) => {
            Frame::granting(xid, op, &head, Some(&reply), granted, payload, checksum)
        }
        Err(errno) => {
            head.status = errno.0;
            Frame::granting(xid, op, &head, None, granted, Vec::new(), checksum)
        }
    }
}

/// Tells a client something that it did not ask for; nothing while it has no
/// connection.
pub fn tell<W: World>(shard: &Shard<W>, client: ClientId, notice: &Notice) {
    let export = shard.sessions.exports.borrow().get(&client).cloned();
    if let Some(export) = export {
        let head = reply_head(shard, &export);
        export.send(Frame::notice(&head, notice, checksum(&export)));
    }
}

/// What every reply says of the shard.
pub(super) fn reply_head<W: World>(shard: &Shard<W>, export: &Export) -> ReplyHead {
    let lease: Duration = export.state.lease.get();
    ReplyHead {
        epoch: shard.sessions.settings.borrow().map.epoch,
        last_committed: shard.flash.last_committed(),
        time: shard.world.wall(),
        lease_ms: u32::try_from(lease.as_millis()).unwrap_or(u32::MAX),
        estimate_us: shard.sessions.estimate.0.get(),
        grant_bytes: grants::tell(shard, export),
        lock_volume: shard.locks.volume(),
        ..ReplyHead::default()
    }
}
