#![allow(clippy::unwrap_used, reason = "tests")]
//! The ledger against every order of events; the client over a network is
//! tested together with the box's sessions.

use super::call::Order;
use super::ledger::{Ledger, State, Welcome};
use super::lost::Loss;
use super::{Call, CallError, Context, Options, Pending};
use crate::base::codec::Bytes;
use crate::base::{
    Attr, BoxId, Errno, Fid, FileKind, MapEpoch, Mono, OpenId, SetAttr, ShardId, Slice, Time,
    Transno, Xid,
};
use crate::wire::head::flags;
use crate::wire::op::{
    Close, Data, Empty, Fsync, Intent, OfFile, Open, Read, Setattr, Write, Written,
};
use crate::wire::{
    Bounds, ConnectReply, Content, Features, Frame, Layout, NO_TAG, Reply, ReplyHead, Request,
    RequestHead, ShardMap,
};

const FILE: Fid = Fid::new(1, 7);

fn answer(incarnation: u64, recovering: bool, committed: u64) -> ConnectReply {
    ConnectReply {
        features: Features::OURS,
        incarnation,
        conn_count: 1,
        box_id: BoxId(1),
        generation: 1,
        root: Fid::new(1, 1),
        map: ShardMap {
            epoch: MapEpoch(1),
            ranges: vec![(0, ShardId(0))],
        },
        payload_max: 1 << 20,
        tags: 32,
        lease_ms: 1000,
        last_committed: Transno(committed),
        recovering,
        read_only: false,
        hash_kind: 1,
        hash_key: Bytes::default(),
        acls: true,
        xattrs: true,
    }
}

/// A connected ledger, and what it does.
struct Desk {
    ledger: Ledger,
    me: Context,
}

/// A request frame, decoded.
struct Sent {
    xid: Xid,
    head: RequestHead,
    request: Request,
}

fn read_back(frames: Vec<Frame>) -> Vec<Sent> {
    let decode = |frame: Frame| {
        let bounds = Bounds::agreed(1 << 20);
        let layout = Layout::of(&frame.bytes, &bounds).unwrap().unwrap();
        let payload: Vec<u8> = frame.payload.iter().flat_map(|p| p.to_vec()).collect();
        let message = layout
            .decode(&frame.bytes, &payload, Features::default())
            .unwrap();
        let Content::Request(head, request) = message.content else {
            panic!("a client sends requests");
        };
        Sent {
            xid: message.xid,
            head,
            request,
        }
    };
    frames.into_iter().map(decode).collect()
}

impl Desk {
    fn new(held_max: usize) -> Desk {
        let options = Options {
            retain_bytes_max: held_max,
            ..Options::default()
        };
        let mut ledger = Ledger::new(&options);
        assert_eq!(
            ledger.on_connected(&answer(1, false, 0), false),
            Welcome::Continue
        );
        ledger.enter(State::Full, Mono(0));
        Desk {
            ledger,
            me: Context::of(1, 1),
        }
    }

    fn call(&mut self, request: Request, payload: usize) -> Call {
        let payload = (payload > 0).then(|| Slice::from(vec![1; payload]));
        let pending = Pending::new(&self.me, request, payload);
        self.ledger.queue(&pending);
        Call(pending)
    }

    /// A change of the `n`th file that is answered ahead of the box.
    fn ahead(&mut self, n: u32) {
        let fid = Fid::new(1, 1000 + n);
        let set = SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        };
        let pending = Pending::new(&self.me, Request::Setattr(Setattr { fid, set }), None);
        pending.order.set(Order::Ahead(0));
        pending.touched.borrow_mut().push(fid);
        assert!(self.ledger.queue_ahead(&pending, Ok((done(), None))));
    }

    fn write(&mut self, offset: u64, append: bool) -> Call {
        let request = Write {
            fid: FILE,
            open: OpenId(1),
            offset,
            append,
        };
        self.call(Request::Write(request), 1000)
    }

    /// What `pump` sends, without declarations of credentials.
    /// A page that is written back.
    fn write_page(&mut self) -> Call {
        self.me.flags = flags::PAGE_WRITE;
        let call = self.write(0, false);
        self.me.flags = 0;
        call
    }

    fn pump(&mut self) -> Vec<Sent> {
        let mut sent = read_back(self.ledger.pump());
        sent.retain(|s| !matches!(s.request, Request::DeclareCred(_)));
        sent
    }

    fn reply(&mut self, xid: Xid, transno: u64, committed: u64, reply: Reply) {
        let head = ReplyHead {
            transno: Transno(transno),
            last_committed: Transno(committed),
            ..ReplyHead::default()
        };
        let ended = self.ledger.on_reply(xid, &head, Some(reply), None);
        if let Some((pending, outcome)) = ended {
            pending.finish(outcome);
        }
    }

    fn refuse(&mut self, xid: Xid, errno: Errno) {
        let head = ReplyHead {
            status: errno.0,
            ..ReplyHead::default()
        };
        let ended = self.ledger.on_reply(xid, &head, None, None);
        if let Some((pending, outcome)) = ended {
            pending.finish(outcome);
        }
    }

    fn reconnect(&mut self, reply: &ConnectReply) -> Welcome {
        self.ledger.on_disconnected();
        self.ledger.enter(State::Connecting, Mono(0));
        self.ledger.on_connected(reply, false)
    }
}

fn written(offset: u64) -> Reply {
    let time = Time::default();
    Reply::Written(Written {
        written: 1000,
        offset,
        attr: Attr {
            kind: FileKind::Regular,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            ino: 1,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
        },
    })
}

fn getattr() -> Request {
    Request::Getattr(OfFile {
        fid: FILE,
        intent: Intent::default(),
    })
}

fn fsync() -> Request {
    Request::Fsync(Fsync {
        fid: FILE,
        data_only: false,
    })
}

/// The outcome of a call that has ended.
fn ended(call: &Call) -> super::Outcome {
    call.0.outcome.borrow_mut().take().expect("it has ended")
}

fn done() -> Reply {
    Reply::Done(Empty {})
}

#[test]
fn replays_go_in_transno_order_and_resends_in_xid_order() {
    let mut desk = Desk::new(1 << 20);
    for i in 0..6 {
        desk.write(i, false);
    }
    let sent = desk.pump();
    let xids: Vec<Xid> = sent.iter().map(|s| s.xid).collect();
    // Answered out of order; the first of the order is on flash already.
    desk.reply(xids[3], 10, 0, written(3));
    desk.reply(xids[0], 12, 0, written(0));
    desk.reply(xids[4], 11, 10, written(4));
    assert_eq!(desk.reconnect(&answer(2, true, 10)), Welcome::Recover);
    let mut replays = read_back(desk.ledger.replays());
    replays.retain(|s| !matches!(s.request, Request::DeclareCred(_)));
    let order: Vec<_> = replays.iter().map(|s| (s.head.transno.0, s.xid)).collect();
    assert_eq!(order, [(11, xids[4]), (12, xids[0])]);
    assert!(replays.iter().all(|s| s.head.flags == flags::REPLAY));
    assert!(replays.iter().all(|s| s.head.incarnation == 2));
    desk.reply(xids[4], 11, 10, done());
    assert!(desk.ledger.is_replaying());
    desk.reply(xids[0], 12, 10, done());
    assert!(!desk.ledger.is_replaying());
    let resent = read_back(desk.ledger.resends());
    let order: Vec<_> = resent.iter().map(|s| s.xid).collect();
    assert_eq!(order, [xids[1], xids[2], xids[5]]);
    assert!(resent.iter().all(|s| s.head.flags == flags::RESENT));
    assert_eq!(
        resent[0].head.tag, sent[1].head.tag,
        "a resend keeps its slot"
    );
    assert!(!desk.ledger.is_settled());
    for xid in order {
        desk.reply(xid, 13, 13, written(0));
    }
    assert!(desk.ledger.is_settled());
    assert_eq!(desk.ledger.counters().retained_bytes, 0);
}

#[test]
fn an_append_is_replayed_where_it_took_place() {
    let mut desk = Desk::new(1 << 20);
    desk.write(0, true);
    let xid = desk.pump()[0].xid;
    desk.reply(xid, 5, 4, written(4096));
    desk.reconnect(&answer(2, true, 4));
    let replays = read_back(desk.ledger.replays());
    let Request::Write(write) = &replays.last().unwrap().request else {
        panic!("the write is replayed");
    };
    assert_eq!((write.offset, write.append), (4096, false));
}

#[test]
fn a_connection_that_comes_back_to_the_same_box_only_resends() {
    let mut desk = Desk::new(1 << 20);
    desk.write(0, false);
    let answered = desk.pump()[0].xid;
    desk.reply(answered, 5, 0, written(0));
    let read = desk.call(getattr(), 0);
    let unanswered = desk.pump()[0].xid;
    assert_eq!(desk.reconnect(&answer(1, false, 0)), Welcome::Continue);
    let resent = read_back(desk.ledger.resends());
    let kinds: Vec<_> = resent.iter().map(|s| s.request.label()).collect();
    assert_eq!(kinds, ["DeclareCred", "Getattr"], "declared again");
    assert_eq!(resent[1].xid, unanswered);
    assert!(!read.is_done());
    assert!(!desk.ledger.is_settled(), "the write is still unstable");
}

#[test]
fn an_evicted_client_loses_changes_once_and_reads_go_on() {
    let mut desk = Desk::new(1 << 20);
    desk.write(0, false);
    let stable_xid = desk.pump()[0].xid;
    desk.reply(stable_xid, 5, 0, written(0));
    let change = desk.write(1, false);
    let read = desk.call(getattr(), 0);
    desk.pump();
    let late = desk.call(getattr(), 0);
    let welcome = desk.reconnect(&answer(9, false, 0));
    assert_eq!(
        welcome,
        Welcome::Evicted(Loss {
            files: [FILE].into(),
            ahead: Vec::new(),
        })
    );
    assert_eq!(ended(&change).unwrap_err(), CallError::Evicted);
    assert!(!read.is_done() && !late.is_done());
    desk.ledger.enter(State::Full, Mono(0));
    assert!(desk.ledger.resends().is_empty());
    assert_eq!(desk.pump().len(), 2, "both reads, as new");
    let told = desk.call(fsync(), 0);
    assert_eq!(ended(&told).unwrap_err(), CallError::Evicted);
    assert!(!desk.call(fsync(), 0).is_done(), "told once");
}

/// What takes the pages back waits for their writes, and they are as old as the
/// lock that is gone.
#[test]
fn pages_that_were_not_sent_are_lost_by_an_eviction_c8() {
    let mut desk = Desk::new(1 << 20);
    let page = desk.write_page();
    let write = desk.write(1, false);
    desk.reconnect(&answer(9, false, 0));
    assert_eq!(ended(&page).unwrap_err(), CallError::Evicted);
    assert!(!write.is_done());
    desk.ledger.enter(State::Full, Mono(0));
    assert_eq!(
        desk.pump().len(),
        1,
        "the other is younger than the eviction"
    );
}

/// Who waits for a lock holds a slot, perhaps the last; who owes it must be
/// able to give it up (C7, C16).
#[test]
fn pages_and_size_changes_go_ahead_of_what_waits_for_them() {
    let mut desk = Desk::new(1 << 20);
    for _ in 0..40 {
        desk.call(getattr(), 0);
    }
    desk.pump();
    desk.write_page();
    let set = SetAttr {
        size: Some(5),
        ..SetAttr::default()
    };
    desk.call(Request::Setattr(Setattr { fid: FILE, set }), 0);
    let ahead = desk.pump();
    assert!(matches!(ahead[0].request, Request::Write(_)));
    assert!(matches!(ahead[1].request, Request::Setattr(_)));
}

#[test]
fn a_failed_replay_is_told_by_the_next_fsync() {
    let mut desk = Desk::new(1 << 20);
    desk.write(0, false);
    let xid = desk.pump()[0].xid;
    desk.reply(xid, 5, 0, written(0));
    desk.reconnect(&answer(2, true, 0));
    desk.ledger.replays();
    desk.refuse(xid, Errno::ESTALE);
    assert!(!desk.ledger.is_replaying());
    assert_eq!(desk.ledger.counters().retained_bytes, 0);
    let told = desk.call(fsync(), 0);
    assert_eq!(ended(&told).unwrap_err(), CallError::Evicted);
}

#[test]
fn writers_wait_when_too_much_is_unstable_and_a_commit_is_asked_for() {
    let mut desk = Desk::new(4000);
    for i in 0..6 {
        desk.write(i, false);
    }
    let sent = desk.pump();
    assert_eq!(sent.len(), 4, "four of 1000 bytes fit");
    desk.call(getattr(), 0);
    assert!(desk.pump().is_empty(), "what waits keeps its order");
    desk.reply(sent[0].xid, 1, 0, written(0));
    let asked = desk.pump();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].head.tag, NO_TAG);
    assert!(matches!(&asked[0].request, Request::Fsync(f) if f.fid.is_none()));
    assert!(desk.pump().is_empty(), "asked once");
    desk.ledger.on_committed(Transno(1));
    assert_eq!(desk.pump().len(), 1, "room for one more");
    // The answer to the commit allows the next one to be asked for.
    desk.reply(sent[1].xid, 2, 1, written(1));
    desk.reply(asked[0].xid, 0, 1, done());
    assert_eq!(desk.pump().len(), 1);
}

/// L5: reads do not use up the slots that fsync and close need.
#[test]
fn slots_are_kept_for_fsync_and_close() {
    let mut desk = Desk::new(1 << 20);
    for _ in 0..40 {
        desk.call(getattr(), 0);
    }
    assert_eq!(desk.pump().len(), 30, "two of 32 are kept");
    desk.call(fsync(), 0);
    let close = Close {
        fid: FILE,
        open: OpenId(1),
    };
    desk.call(Request::Close(close), 0);
    let kinds: Vec<_> = desk.pump().iter().map(|s| s.request.label()).collect();
    assert_eq!(kinds, ["Fsync", "Close"]);
}

#[test]
fn opens_are_declared_again_unless_they_are_being_closed() {
    let mut desk = Desk::new(1 << 20);
    for open in 1..=3 {
        let open = Open {
            fid: FILE,
            open: OpenId(open),
            flags: 2,
            intent: Intent::default(),
        };
        desk.call(Request::Open(open), 0);
    }
    for sent in desk.pump() {
        desk.reply(sent.xid, 0, 0, done());
    }
    for open in 1..=2 {
        let close = Close {
            fid: FILE,
            open: OpenId(open),
        };
        desk.call(Request::Close(close), 0);
    }
    let sent = desk.pump();
    desk.reply(sent[0].xid, 0, 0, done());
    desk.reconnect(&answer(2, true, 0));
    let declared = read_back(desk.ledger.replays());
    let Request::Reopen(reopen) = &declared[0].request else {
        panic!("opens come first");
    };
    let opens: Vec<_> = reopen.opens.iter().map(|o| o.open.0).collect();
    assert_eq!(opens, [3], "1 is closed, 2 is being closed");
}

#[test]
fn only_what_was_not_sent_is_interrupted_or_timed_out() {
    let mut desk = Desk::new(1 << 20);
    let read = Read {
        fid: FILE,
        open: OpenId(1),
        offset: 0,
        len: 1,
    };
    let sent = desk.call(Request::Read(read), 0);
    desk.pump();
    assert!(!desk.ledger.interrupt(&sent));
    desk.ledger.enter(State::Disconnected, Mono(0));
    let waiting = desk.call(getattr(), 0);
    desk.ledger.on_overdue();
    assert_eq!(ended(&waiting).unwrap_err(), CallError::TimedOut);
    let later = desk.call(getattr(), 0);
    assert_eq!(ended(&later).unwrap_err(), CallError::TimedOut);
    assert!(!sent.is_done());
    desk.reconnect(&answer(1, false, 0));
    desk.ledger.enter(State::Full, Mono(0));
    assert!(!desk.call(getattr(), 0).is_done(), "connected again");
    desk.reply(Xid(1), 0, 0, done());
    desk.reply(Xid(2), 0, 0, Reply::Data(Data { eof: true, size: 0 }));
    desk.ledger.fail_all(&CallError::Closed);
    assert!(desk.ledger.is_settled());
}

/// Else a file that others removed meanwhile would go while it is open (N9).
#[test]
fn a_handle_is_declared_on_each_connection_until_the_box_answers() {
    let mut d = Desk::new(1 << 20);
    let by = std::rc::Rc::clone(&d.me.cred);
    assert!(d.ledger.open_here(OpenId(9), (FILE, 0), &by));
    let declared = |sent: &[Sent]| match &sent[0].request {
        Request::Reopen(op) => op.opens[0].open == OpenId(9),
        _ => false,
    };
    assert!(declared(&read_back(d.ledger.declare(FILE))));
    assert!(
        d.ledger.close_here(OpenId(9)).is_none(),
        "the box is to be told"
    );
    for _ in 0..2 {
        d.ledger.next_connection();
        assert_eq!(d.reconnect(&answer(1, false, 0)), Welcome::Continue);
        d.ledger.enter(State::Full, Mono(0));
        let sent = read_back(d.ledger.resends());
        assert!(declared(&sent));
    }
    let sent = read_back(d.ledger.declare(FILE));
    assert!(sent.is_empty(), "it was told on this connection");
}

/// What was answered ahead of the box goes in one send: when its moment is over,
/// there is much of it, or somebody waits for the box.
#[test]
fn changes_wait_a_moment_for_more_of_them() {
    let mut desk = Desk::new(1 << 20);
    let ping = desk.call(Request::Ping(Empty {}), 0);
    let xid = desk.pump()[0].xid;
    let head = ReplyHead {
        grant_bytes: 4 << 20,
        ..ReplyHead::default()
    };
    desk.ledger.on_reply(xid, &head, Some(done()), None);
    drop(ping);

    (0..3).for_each(|n| desk.ahead(n));
    assert!(desk.pump().is_empty() && desk.ledger.waits_for_more());
    desk.ledger.press();
    assert!(!desk.ledger.waits_for_more());
    let sent = desk.pump().len();
    assert_eq!(sent, 2, "their moment is over, but the newest may grow");

    (10..12).for_each(|n| desk.ahead(n));
    assert_eq!(desk.pump().len(), 1, "the newest of before is due");
    let asking = desk.call(getattr(), 0);
    asking.0.order.set(Order::After);
    assert_eq!(desk.pump().len(), 3, "who asks waits for those before");

    (20..148).for_each(|n| desk.ahead(n));
    assert!(!desk.pump().is_empty(), "so many wait for no more");
}

/// A caller who waits for room waits for what is not sent.
#[test]
fn changes_that_fill_the_window_are_sent() {
    let mut desk = Desk::new(1 << 20);
    desk.ahead(0);
    assert!(desk.pump().is_empty());
    desk.ahead(1);
    assert_eq!(desk.pump().len(), 2, "nothing is promised: one waits");
}
