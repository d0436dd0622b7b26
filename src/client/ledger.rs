//! The client's books, pure: which requests wait, which are on their way in
//! which reply slot, and which were answered but may still be lost with the
//! box's memory. Frames to send are returned.
//!
//! Replay and resend (DESIGN.md §10): a request whose reply was seen is
//! retained until `last_committed` passes its transno, and replayed in transno
//! order at a box that restarted; one whose reply was not seen is resent in xid
//! order, and answered from its reply record if it took effect.

use super::Options;
use super::cached::is_acl;
use super::call::{Aim, Call, CallError, Context, Cred, Order, Outcome, Pending};
use super::creds::Creds;
use super::handles::Handles;
use super::lost::{Loss, changes};
use super::merge;
use super::unsent::Unsent;
use super::window::Window;
use crate::base::{Fid, Mono, OpenId, SetAttr, Slice, Tag, Transno, Xid};
use crate::code;
use crate::wire::head::flags;
use crate::wire::op::{DeclareCred, Empty, Fsync, OpenFile, Reopen};
use crate::wire::{
    Asked, ConnectReply, Features, Frame, NO_TAG, Reply, ReplyHead, Request, RequestHead,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

code! {
    /// Where the import stands, after Lustre's.
    pub enum State {
        New = 0,
        Connecting = 1,
        /// Requests are sent.
        Full = 2,
        Disconnected = 3,
        /// The box restarted: opens, then unstable changes in order.
        Replay = 4,
        /// The box threw the client out; unstable work is lost, and was reported.
        Evicted = 5,
        Closed = 6,
    }
}

/// A change of state, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    pub at: Mono,
    pub to: State,
}

/// What the client has been doing, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls that were to go to the box.
    pub calls: u64,
    /// Requests sent to the box, each once: the round trips that callers waited
    /// for. Closes and small files that are fetched before they are read, for
    /// which nobody waits, are apart.
    pub sent: u64,
    pub closes: u64,
    pub fetched: u64,
    pub resent: u64,
    pub replayed: u64,
    /// Requests and writes lost by evictions.
    pub lost: u64,
    pub evictions: u64,
    pub connections: u64,
    /// Calls that were answered from memory, under locks.
    pub answered_here: u64,
    /// Changes that were answered before the box had them.
    pub ahead: u64,
    pub locks: u64,
    /// Files that are open, and of whose growth elsewhere nobody would be told.
    pub unwatched: u64,
    pub waiting: u64,
    pub unanswered: u64,
    pub retained: u64,
    pub retained_bytes: u64,
}

/// What CONNECT means for the requests at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// The box has all that it had: resend.
    Continue,
    /// The box lost its memory and knows the client: reopen, replay, resend.
    Recover,
    /// The box knows nothing of the client any more, and this is lost.
    Evicted(Loss),
}

/// State changes that are kept.
const HISTORY: usize = 16;

/// Opens declared in one frame.
const REOPEN_MAX: usize = 4096;

pub struct Ledger {
    state: State,
    history: VecDeque<Transition>,
    waiting: VecDeque<Rc<Pending>>,
    /// Fsync and close: they free what the others wait for (L5).
    urgent: VecDeque<Rc<Pending>>,
    /// Sent, in a reply slot, not answered.
    unanswered: BTreeMap<Xid, Rc<Pending>>,
    /// Sent on this connection, in no slot: void when it ends.
    control: BTreeMap<Xid, Rc<Pending>>,
    /// Answered, and not known to be on flash.
    retained: BTreeMap<Transno, Rc<Pending>>,
    /// Replays that are not answered yet.
    replaying: BTreeSet<Xid>,
    /// Payload bytes of unanswered and retained requests.
    held_bytes: usize,
    held_bytes_max: usize,
    /// Answered ahead of the box, not sent.
    ahead: Unsent,
    window: Window,
    /// Those that were sent and are not answered.
    ahead_sent: usize,
    /// Counts what was queued.
    queued: u64,
    creds: Creds,
    handles: Handles,
    /// Files that lost unstable writes and whose user was not told yet.
    damaged: BTreeSet<Fid>,
    tags: Vec<Tag>,
    tags_reserved: usize,
    next_xid: Xid,
    conn_count: u32,
    agreed: Agreed,
    committed_seen: Transno,
    commit_asked: bool,
    commit_wanted: bool,
    /// No connection within the deadline: what cannot be sent fails.
    overdue: bool,
    counters: Counters,
}

/// What a frame needs to know of the last CONNECT.
#[derive(Default)]
struct Agreed {
    incarnation: u64,
    epoch: crate::base::MapEpoch,
    checksum: bool,
    locks: bool,
    tags: u16,
    payload_max: usize,
}

impl Ledger {
    pub fn new(options: &Options) -> Ledger {
        Ledger {
            state: State::New,
            history: VecDeque::new(),
            waiting: VecDeque::new(),
            urgent: VecDeque::new(),
            unanswered: BTreeMap::new(),
            control: BTreeMap::new(),
            retained: BTreeMap::new(),
            replaying: BTreeSet::new(),
            held_bytes: 0,
            held_bytes_max: options.retain_bytes_max,
            ahead: Unsent::default(),
            window: Window::default(),
            ahead_sent: 0,
            queued: 0,
            creds: Creds::default(),
            handles: Handles::default(),
            damaged: BTreeSet::new(),
            tags: Vec::new(),
            tags_reserved: 0,
            next_xid: Xid(1),
            conn_count: 0,
            agreed: Agreed::default(),
            committed_seen: Transno(0),
            commit_asked: false,
            commit_wanted: false,
            overdue: false,
            counters: Counters::default(),
        }
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn enter(&mut self, state: State, at: Mono) {
        if self.state == State::Closed {
            return;
        }
        self.state = state;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Transition { at, to: state });
    }

    pub fn history(&self) -> Vec<Transition> {
        self.history.iter().copied().collect()
    }

    pub fn counters(&self) -> Counters {
        Counters {
            waiting: (self.waiting.len() + self.urgent.len() + self.ahead.len()) as u64,
            unanswered: self.unanswered.len() as u64,
            retained: self.retained.len() as u64,
            retained_bytes: self.held_bytes as u64,
            ..self.counters
        }
    }

    // ---- calls ------------------------------------------------------------

    /// Takes a call in; `pump` sends it. False if it fails at once.
    pub fn queue(&mut self, pending: &Rc<Pending>) -> bool {
        self.counters.calls += 1;
        if let Some(why) = self.refusal(pending) {
            pending.finish(Err(why));
            return false;
        }
        let urgent = is_urgent(&pending.request.borrow(), &pending.context);
        self.number(pending);
        let queue = match urgent {
            true => &mut self.urgent,
            false => &mut self.waiting,
        };
        queue.push_back(Rc::clone(pending));
        true
    }

    /// Takes in a change that is answered ahead of the box, at this moment or,
    /// if too much is under way, as soon as some of it is answered. False: it
    /// goes with one that was not sent yet, and is no request of its own.
    pub fn queue_ahead(&mut self, pending: &Rc<Pending>, outcome: Outcome) -> bool {
        self.counters.calls += 1;
        let bytes_max = self.agreed.payload_max;
        if self.ahead.merge(pending, &mut self.window, bytes_max) {
            pending.finish(outcome);
            return false;
        }
        if let Ok((reply, _)) = &outcome {
            self.track_opens(&pending.request.borrow(), reply);
        }
        self.number(pending);
        *pending.later.borrow_mut() = Some(outcome);
        self.ahead.push(pending);
        self.window.enter(pending);
        true
    }

    fn number(&mut self, pending: &Pending) {
        self.queued += 1;
        pending.queued.set(self.queued);
    }

    /// May so many bytes be answered ahead of the box now?
    pub fn takes_ahead(&self, bytes: usize) -> bool {
        self.window.takes(bytes)
            && !matches!(self.state, State::Closed | State::Evicted)
            && !self.overdue
    }

    /// Why a call fails without being sent.
    fn refusal(&mut self, pending: &Pending) -> Option<CallError> {
        if self.state == State::Closed {
            return Some(CallError::Closed);
        }
        if self.overdue {
            return Some(CallError::TimedOut);
        }
        // Each loss is told once, to whoever asks whether the bytes are safe.
        let told = match &*pending.request.borrow() {
            Request::Fsync(r) => self.damaged.remove(&r.fid),
            Request::Close(r) => self.damaged.remove(&r.fid),
            _ => false,
        };
        told.then_some(CallError::Evicted)
    }

    /// Takes back a call that was not sent.
    pub fn interrupt(&mut self, call: &Call) -> bool {
        for queue in [&mut self.waiting, &mut self.urgent] {
            if let Some(at) = queue.iter().position(|p| Rc::ptr_eq(p, &call.0)) {
                queue.remove(at);
                call.0.finish(Err(CallError::Interrupted));
                return true;
            }
        }
        false
    }

    /// Would a call without data that is made now be sent now? What it says of
    /// locks is said only then: a callback for them is not answered meanwhile.
    pub fn is_clear(&self) -> bool {
        let is_idle = self.waiting.is_empty() && self.urgent.is_empty();
        self.state == State::Full && is_idle && self.tags.len() > self.tags_reserved
    }

    /// The frames that may be sent now.
    pub fn pump(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while self.state == State::Full {
            let Some(pending) = self.next_to_send() else {
                break;
            };
            let Some(tag) = self.tags.pop() else {
                break;
            };
            pending.tag.set(tag);
            pending.xid.set(self.take_xid());
            match &pending.context {
                _ if closes(&pending).is_some() => self.counters.closes += 1,
                context if matches!(context.aim, Aim::Fetch | Aim::Alone) => {
                    self.counters.fetched += 1;
                }
                _ => self.counters.sent += 1,
            }
            self.held_bytes += pending.bytes();
            if pending.is_ahead() {
                self.ahead_sent += 1;
            }
            self.send(&pending, 0, &mut frames);
            self.unanswered.insert(pending.xid.get(), pending);
        }
        if self.state == State::Full && self.wants_commit() {
            self.commit_asked = true;
            let fsync = Fsync {
                fid: Fid::NONE,
                data_only: true,
            };
            frames.push(self.control(Request::Fsync(fsync)).1);
        }
        frames
    }

    fn next_to_send(&mut self) -> Option<Rc<Pending>> {
        if self.tags.is_empty() {
            return None;
        }
        if self.urgent.front().is_some_and(|p| self.follows(p)) {
            return self.urgent.pop_front();
        }
        // They take no slot from those who wait for their end.
        let most = usize::from(self.agreed.tags) * 3 / 4;
        let is_next =
            |p: &Rc<Pending>| self.ahead_sent < most.max(1) && self.has_room(p) && !self.is_held(p);
        if self.ahead.front().is_some_and(is_next) {
            return self.ahead.pop_front();
        }
        let is_next = |p: &Rc<Pending>| {
            let tag = self.tags.len() > self.tags_reserved;
            tag && self.follows(p) && self.has_room(p)
        };
        match self.waiting.front().is_some_and(is_next) {
            true => self.waiting.pop_front(),
            false => None,
        }
    }

    /// Changes wait a moment for more. And the newest stays while others are on
    /// their way, since the next may go with it: until they are answered, or
    /// something else is to be sent. The box would not run it before.
    fn is_held(&self, pending: &Pending) -> bool {
        let is_newest = self.ahead.len() == 1;
        let may_grow = || merge::may_grow(&pending.request.borrow(), pending.bytes());
        let stays = self.ahead_sent > 0 && is_newest && may_grow();
        !self.is_awaited() && (self.ahead.waits_for_more() || stays)
    }

    /// Does somebody wait for what was answered ahead to be done?
    fn is_awaited(&self) -> bool {
        !self.waiting.is_empty() || !self.urgent.is_empty() || self.window.is_full()
    }

    /// Do changes wait for more of them, whose time is to be watched?
    pub fn waits_for_more(&self) -> bool {
        self.state == State::Full && self.ahead.waits_for_more()
    }

    /// What was answered ahead until now is sent by the next `pump`.
    pub fn press(&mut self) {
        self.ahead.press();
    }

    fn has_room(&self, pending: &Pending) -> bool {
        let bytes = pending.bytes();
        bytes == 0 || self.held_bytes == 0 || self.held_bytes + bytes <= self.held_bytes_max
    }

    /// Has all been sent that the request must not pass?
    fn follows(&self, pending: &Pending) -> bool {
        let first = self.ahead.front();
        pending.order.get() == Order::Any
            || first.is_none_or(|first| first.queued.get() > pending.queued.get())
    }

    /// Somebody waits for it, or so much is held that writers soon would.
    fn wants_commit(&self) -> bool {
        let wanted = self.commit_wanted || self.held_bytes >= self.held_bytes_max / 4;
        wanted && !self.commit_asked && !self.retained.is_empty()
    }

    /// Has `pump` ask for a commit whatever is held, as long as this is set.
    pub fn want_commit(&mut self, wanted: bool) {
        self.commit_wanted = wanted;
    }

    /// Nothing waits, is unanswered or unstable.
    pub fn is_settled(&self) -> bool {
        self.state == State::Closed
            || (self.waiting.is_empty()
                && self.urgent.is_empty()
                && self.ahead.is_empty()
                && self.unanswered.is_empty()
                && self.retained.is_empty())
    }

    /// The last request that was made; those after it are sent later.
    pub fn last_xid(&self) -> Xid {
        Xid(self.next_xid.0.saturating_sub(1))
    }

    fn take_xid(&mut self) -> Xid {
        let xid = self.next_xid;
        self.next_xid = xid.next();
        xid
    }

    /// A request of the connection itself: it holds no slot.
    pub fn control(&mut self, request: Request) -> (Call, Frame) {
        let nobody = Context::new(Rc::new(Cred::default()));
        let pending = Pending::new(&nobody, request, None);
        pending.xid.set(self.take_xid());
        let head = self.head(&pending, 0, 0);
        let frame = self.frame(&pending, &head);
        self.control.insert(pending.xid.get(), Rc::clone(&pending));
        (Call(pending), frame)
    }

    /// Writes the request's frame, after its credential's if that is new here.
    fn send(&mut self, pending: &Rc<Pending>, extra: u16, frames: &mut Vec<Frame>) {
        let cred = &pending.context.cred;
        // There are more numbers than slots, so one is free.
        let (id, is_new) = self.creds.hold(cred).unwrap_or((0, false));
        if is_new {
            let declare = DeclareCred {
                id,
                uid: cred.uid,
                gid: cred.gid,
                groups: cred.groups.clone(),
            };
            frames.push(self.control(Request::DeclareCred(declare)).1);
        }
        let head = self.head(pending, id, extra);
        frames.push(self.frame(pending, &head));
    }

    fn head(&self, pending: &Pending, cred: u32, extra: u16) -> RequestHead {
        let context = &pending.context;
        let seen = self.unanswered.keys().next().copied();
        let (ordered, at) = match pending.order.get() {
            Order::Any => (0, 0),
            Order::After => (flags::AFTER, 0),
            Order::Ahead(at) => (flags::ORDERED, at),
        };
        RequestHead {
            incarnation: self.agreed.incarnation,
            conn_count: self.conn_count,
            epoch: self.agreed.epoch,
            last_xid: Xid(seen.unwrap_or(pending.xid.get()).0.saturating_sub(1)),
            transno: match extra & flags::REPLAY {
                0 => Transno(0),
                _ => pending.transno.get(),
            },
            tag: pending.tag.get(),
            flags: context.flags | extra | ordered,
            cred,
            owner: context.owner,
            owner_kind: context.owner_kind,
            umask: context.umask,
            trace: context.trace,
            at,
            grant: match extra & flags::REPLAY {
                0 => self.window.claimed(),
                _ => 0,
            },
            ..RequestHead::default()
        }
    }

    fn frame(&self, pending: &Pending, head: &RequestHead) -> Frame {
        let payload = pending.payloads();
        let request = pending.request.borrow();
        let none = Asked::default();
        let asked = pending.asked.borrow();
        let asked = if self.agreed.locks { &*asked } else { &none };
        Frame::asking(
            pending.xid.get(),
            head,
            &request,
            asked,
            payload,
            self.agreed.checksum,
        )
    }

    // ---- answers ----------------------------------------------------------

    /// Takes in a reply. One that nobody waits for (an answer given twice, to a
    /// request and to its resend) is ignored.
    /// The request that has ended is returned, with what came of it.
    pub fn on_reply(
        &mut self,
        xid: Xid,
        head: &ReplyHead,
        reply: Option<Reply>,
        data: Option<Slice>,
    ) -> Option<(Rc<Pending>, Outcome)> {
        self.on_committed(head.last_committed);
        self.window.on_grant(head.grant_bytes);
        let outcome = match (head.failure(), reply) {
            (Some(errno), _) => Err(CallError::Failed(errno)),
            (None, Some(reply)) => Ok((reply, data)),
            (None, None) => Err(CallError::Protocol),
        };
        if let Some(pending) = self.control.remove(&xid) {
            match &*pending.request.borrow() {
                Request::Fsync(_) => self.commit_asked = false,
                Request::Reopen(op) if outcome.is_ok() => self.handles.on_told(&op.opens),
                // The box hangs up next, and nobody must connect again.
                Request::Disconnect(_) => self.state = State::Closed,
                _ => {}
            }
            pending.finish(outcome);
        } else if self.replaying.remove(&xid) {
            self.on_replayed(xid, &outcome);
        } else if let Some(pending) = self.unanswered.remove(&xid) {
            self.tags.push(pending.tag.get());
            self.creds.release(&pending.context.cred);
            if pending.is_ahead() {
                self.ahead_sent -= 1;
                self.window.leave(&pending);
            }
            pending.transno.set(head.transno);
            self.on_answered(&pending, &outcome);
            return Some((pending, outcome));
        }
        None
    }

    /// Keeps what the reply does not promise to keep, and tracks opens.
    fn on_answered(&mut self, pending: &Rc<Pending>, outcome: &Outcome) {
        let transno = pending.transno.get();
        let mut retain = false;
        if let Ok((reply, _)) = outcome {
            self.track_opens(&pending.request.borrow(), reply);
            retain = transno > self.committed_seen;
            // A replay must do again what was done, not what it would do now.
            match (&mut *pending.request.borrow_mut(), reply) {
                (Request::Write(write), Reply::Written(done)) => {
                    write.offset = done.offset;
                    write.append = false;
                }
                (Request::Create(create), Reply::Entry(entry)) if entry.created => {
                    create.fid = entry.fid;
                }
                _ => {}
            }
        }
        if retain {
            self.retained.insert(transno, Rc::clone(pending));
        } else {
            self.held_bytes = self.held_bytes.saturating_sub(pending.bytes());
        }
    }

    fn track_opens(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Open(open), _) => {
                self.handles.opened(open.open, (open.fid, open.flags));
            }
            (Request::Create(create), Reply::Entry(entry)) if create.open.0 != 0 => {
                self.handles.opened(create.open, (entry.fid, create.flags));
            }
            (Request::Close(close), _) => self.handles.closed(close.open),
            _ => {}
        }
    }

    /// Everything up to `transno` is on flash.
    pub fn on_committed(&mut self, transno: Transno) {
        if transno <= self.committed_seen {
            return;
        }
        self.committed_seen = transno;
        let kept = self.retained.split_off(&transno.next());
        for pending in std::mem::replace(&mut self.retained, kept).into_values() {
            self.held_bytes = self.held_bytes.saturating_sub(pending.bytes());
        }
    }

    // ---- connections ------------------------------------------------------

    /// Highest committed transno ever seen, first transno to replay, and the
    /// incarnation, for CONNECT.
    pub fn claims(&self) -> (Transno, Transno, u64) {
        let first = self.retained.keys().next().copied().unwrap_or_default();
        (self.committed_seen, first, self.agreed.incarnation)
    }

    /// The number of the connection that is being made.
    pub fn next_connection(&mut self) -> u32 {
        self.conn_count = self.conn_count.saturating_add(1);
        self.conn_count
    }

    pub fn connect_xid(&mut self) -> Xid {
        self.take_xid()
    }

    /// Takes in the answer to CONNECT.
    pub fn on_connected(&mut self, reply: &ConnectReply, checksum: bool) -> Welcome {
        self.counters.connections += 1;
        self.overdue = false;
        let before = std::mem::replace(
            &mut self.agreed,
            Agreed {
                incarnation: reply.incarnation,
                epoch: reply.map.epoch,
                checksum,
                locks: reply.features.has(Features::LOCKS),
                tags: reply.tags,
                payload_max: reply.payload_max as usize,
            },
        );
        self.grow_tags(before.tags);
        let welcome = if reply.recovering {
            Welcome::Recover
        } else if before.incarnation == 0 || before.incarnation == reply.incarnation {
            Welcome::Continue
        } else {
            Welcome::Evicted(self.on_evicted())
        };
        self.on_committed(reply.last_committed);
        welcome
    }

    fn grow_tags(&mut self, before: u16) {
        self.tags.extend((before..self.agreed.tags).rev().map(Tag));
        self.tags_reserved = usize::from(self.agreed.tags / 16);
    }

    /// Tags granted before; a box that grants fewer cannot take the requests over.
    pub fn tags_granted(&self) -> u16 {
        self.agreed.tags
    }

    /// The connection is gone.
    pub fn on_disconnected(&mut self) {
        self.creds.forget_declared();
        self.commit_asked = false;
        self.replaying.clear();
        for pending in std::mem::take(&mut self.control).into_values() {
            pending.finish(Err(CallError::Closed));
        }
    }

    /// The requests that bring a restarted box up to date: opens, then
    /// unstable changes in their order.
    pub fn replays(&mut self) -> Vec<Frame> {
        let opens = self.handles.tell_all(self.conn_count, &self.closing());
        let mut frames = self.reopen(&opens);
        let retained: Vec<_> = self.retained.values().cloned().collect();
        for pending in retained {
            self.counters.replayed += 1;
            // A handle that was closed since must not be opened for ever.
            if let Request::Create(create) = &mut *pending.request.borrow_mut()
                && !self.handles.has(create.open)
            {
                create.open = OpenId(0);
            }
            self.send(&pending, flags::REPLAY, &mut frames);
            self.replaying.insert(pending.xid.get());
        }
        frames
    }

    /// The frames that declare handles.
    fn reopen(&mut self, opens: &[OpenFile]) -> Vec<Frame> {
        let chunks = opens.chunks(REOPEN_MAX).map(<[OpenFile]>::to_vec);
        chunks
            .map(|opens| self.control(Request::Reopen(Reopen { opens })).1)
            .collect()
    }

    /// Handles whose close is on its way.
    fn closing(&self) -> BTreeSet<OpenId> {
        self.unanswered.values().filter_map(|p| closes(p)).collect()
    }

    pub fn is_replaying(&self) -> bool {
        !self.replaying.is_empty()
    }

    pub fn replay_done(&mut self) -> Frame {
        self.control(Request::ReplayDone(Empty {})).1
    }

    /// A replay was answered. What failed is lost, and whoever asks is told.
    fn on_replayed(&mut self, xid: Xid, outcome: &Outcome) {
        let found = self.retained.iter().find(|(_, p)| p.xid.get() == xid);
        let Some((transno, pending)) = found.map(|(t, p)| (*t, Rc::clone(p))) else {
            return;
        };
        self.creds.release(&pending.context.cred);
        if outcome.is_err() {
            self.retained.remove(&transno);
            self.held_bytes = self.held_bytes.saturating_sub(pending.bytes());
            self.counters.lost += 1;
            self.damaged.extend(changes(&pending.request.borrow()));
        }
    }

    /// A change that was answered ahead was refused, and is lost.
    pub fn on_refused(&mut self, request: &Request) {
        self.counters.lost += 1;
        self.damaged.extend(changes(request));
    }

    /// Everything unanswered, once more, in xid order.
    pub fn resends(&mut self) -> Vec<Frame> {
        let opens = self.handles.tell_again(self.conn_count, &self.closing());
        let mut frames = self.reopen(&opens);
        let unanswered: Vec<_> = self.unanswered.values().cloned().collect();
        for pending in unanswered {
            self.counters.resent += 1;
            // The number is held since it was first sent.
            self.creds.release(&pending.context.cred);
            self.send(&pending, flags::RESENT, &mut frames);
        }
        frames
    }

    /// The box forgot the client. What only reads is sent again as new; the
    /// rest fails, and unstable writes are lost.
    fn on_evicted(&mut self) -> Loss {
        let mut loss = Loss::default();
        self.counters.evictions += 1;
        for pending in std::mem::take(&mut self.retained).into_values() {
            self.counters.lost += 1;
            loss.note(&pending);
        }
        let unanswered = std::mem::take(&mut self.unanswered);
        for pending in unanswered.values().filter(|p| p.is_ahead()) {
            loss.note(pending);
        }
        for pending in unanswered.into_values().rev() {
            self.tags.push(pending.tag.get());
            self.creds.release(&pending.context.cred);
            if only_reads(&pending.request.borrow()) {
                self.waiting.push_front(pending);
            } else {
                self.counters.lost += 1;
                pending.finish(Err(CallError::Evicted));
            }
        }
        for pending in self.ahead.take() {
            self.counters.lost += 1;
            loss.note(&pending);
            if pending.later.take().is_some() {
                pending.finish(Err(CallError::Evicted));
            }
        }
        self.window.clear();
        self.ahead_sent = 0;
        self.lose_pages();
        self.held_bytes = 0;
        self.handles.clear();
        self.committed_seen = Transno(0);
        self.damaged.extend(loss.files.iter().copied());
        loss
    }

    // ---- open files -------------------------------------------------------

    /// Opens a file without the box, for a lock lets the client; false if it
    /// must be asked after all.
    pub fn open_here(&mut self, open: OpenId, handle: (Fid, u32), by: &Rc<Cred>) -> bool {
        !self.is_changing(handle.0) && self.handles.open_here(open, handle, by)
    }

    /// The same, for a file that was born ahead of the box: what is under way for
    /// it is under way in order.
    pub fn open_alone(&mut self, open: OpenId, handle: (Fid, u32), by: &Rc<Cred>) -> bool {
        self.handles.open_here(open, handle, by)
    }

    /// Closes what was opened so, and says what became of the file's writes;
    /// `None` if the box knows the handle.
    pub fn close_here(&mut self, open: OpenId) -> Option<Result<(), CallError>> {
        let fid = self.handles.here(open)?;
        self.handles.closed(open);
        let is_damaged = self.damaged.remove(&fid);
        Some(if is_damaged {
            Err(CallError::Evicted)
        } else {
            Ok(())
        })
    }

    pub fn handles(&self) -> &Handles {
        &self.handles
    }

    /// The frames that tell the box of the handles of a file which it knows
    /// nothing of. Without a connection it is told on the next.
    pub fn declare(&mut self, fid: Fid) -> Vec<Frame> {
        let opens = match self.state {
            State::Full => self.handles.tell(fid, self.conn_count),
            _ => {
                self.handles.tell(fid, 0);
                Vec::new()
            }
        };
        self.reopen(&opens)
    }

    /// Is a request under way that changes who may use the file?
    fn is_changing(&self, fid: Fid) -> bool {
        let queued = self
            .waiting
            .iter()
            .chain(&self.urgent)
            .chain(self.ahead.iter());
        let mut all = queued.chain(self.unanswered.values());
        all.any(|p| changes_rights(&p.request.borrow()) == Some(fid))
    }

    // ---- ends -------------------------------------------------------------

    /// No connection within the deadline: what was not sent fails.
    pub fn on_overdue(&mut self) {
        self.overdue = true;
        self.fail_waiting(&CallError::TimedOut);
    }

    /// Pages that were not sent yet are as old as the lock that is gone (C8), and
    /// their writes are waited for by who takes the pages back.
    fn lose_pages(&mut self) {
        for queue in [&mut self.waiting, &mut self.urgent] {
            queue.retain(|pending| {
                let is_lost = is_page(&pending.context);
                if is_lost {
                    self.counters.lost += 1;
                    pending.finish(Err(CallError::Evicted));
                }
                !is_lost
            });
        }
    }

    fn fail_waiting(&mut self, why: &CallError) {
        for queue in [&mut self.waiting, &mut self.urgent] {
            for pending in std::mem::take(queue) {
                pending.finish(Err(why.clone()));
            }
        }
    }

    pub fn fail_all(&mut self, why: &CallError) {
        self.fail_waiting(why);
        for map in [&mut self.unanswered, &mut self.control] {
            for pending in std::mem::take(map).into_values() {
                pending.finish(Err(why.clone()));
            }
        }
        for pending in self.ahead.take() {
            if pending.later.take().is_some() {
                pending.finish(Err(why.clone()));
            }
        }
        self.retained.clear();
        self.replaying.clear();
        self.held_bytes = 0;
    }
}

/// What goes ahead of calls that wait: what others wait for who hold slots
/// themselves. A page that is written back ends a callback (C7), and a size
/// change lets pages be written (C16).
fn is_urgent(request: &Request, context: &Context) -> bool {
    match request {
        Request::Fsync(_) | Request::Close(_) => true,
        Request::Setattr(op) => op.set.size.is_some(),
        _ => is_page(context),
    }
}

fn is_page(context: &Context) -> bool {
    context.flags & flags::PAGE_WRITE != 0
}

/// The open that a request ends.
fn closes(pending: &Pending) -> Option<OpenId> {
    match &*pending.request.borrow() {
        Request::Close(close) => Some(close.open),
        _ => None,
    }
}

/// The file whose owner, mode or ACLs a request may change.
pub fn changes_rights(request: &Request) -> Option<Fid> {
    match request {
        Request::Setattr(r) if changes_owner(&r.set) => Some(r.fid),
        Request::XattrSet(r) if is_acl(&r.name.0) => Some(r.fid),
        Request::XattrRemove(r) if is_acl(&r.name.0) => Some(r.fid),
        _ => None,
    }
}

fn changes_owner(set: &SetAttr) -> bool {
    set.mode.is_some() || set.uid.is_some() || set.gid.is_some()
}

/// Sending it twice, or to another incarnation of the box, does no harm.
fn only_reads(request: &Request) -> bool {
    matches!(
        request,
        Request::Ping(_)
            | Request::Lookup(_)
            | Request::Getattr(_)
            | Request::Readlink(_)
            | Request::Readdir(_)
            | Request::Statfs(_)
            | Request::XattrGet(_)
            | Request::XattrList(_)
            | Request::Read(_)
            | Request::Seek(_)
            | Request::Getlk(_)
            | Request::Unwait(_)
    )
}

/// Requests in no slot carry this.
const _: () = assert!(NO_TAG.0 == u16::MAX);
