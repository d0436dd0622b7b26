//! Keeping a connection: connect, CONNECT, bring the box up to date, receive;
//! and again, for ever, with jittered back-off over the host list.

use super::ledger::{State, Welcome};
use super::{CallError, ConnectError, Import, ahead, cached, filelocks};
use crate::base::limits::{PAYLOAD_MAX, TAGS_MAX};
use crate::base::{Errno, Mono};
use crate::wire::connect::{ANY_SHARD, Features};
use crate::wire::op::Empty;
use crate::wire::{
    Bounds, Callback, ConnectReply, ConnectRequest, Content, Frame, NO_TAG, Request, RequestHead,
};
use crate::world::race::within;
use crate::world::stream::{Receiver, Sender, StreamError};
use crate::world::{Level, World};
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// How long one host may take to accept, and to answer CONNECT.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// First and longest wait between two rounds over the hosts; each is drawn
/// from half to one and a half of itself, so that clients come back spread.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_LAST: Duration = Duration::from_secs(2);

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The connection in use.
pub struct Link<W: World> {
    pub sender: Sender<W::Conn>,
    heard: Rc<Cell<Mono>>,
}

/// A connection on which CONNECT was answered.
pub struct Fresh<W: World> {
    host: String,
    receiver: Receiver<W::Conn>,
    sender: Sender<W::Conn>,
    reply: ConnectReply,
    /// When its CONNECT was sent.
    sent: Mono,
}

/// Why one host did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// Worth another try.
    Network(Errno),
    /// The box said no.
    Refused(Errno),
    /// The box answered outside the protocol.
    Protocol(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Network(e) => write!(f, "{e}"),
            Refusal::Refused(e) => write!(f, "refused: {e}"),
            Refusal::Protocol(why) => write!(f, "protocol: {why}"),
        }
    }
}

impl Refusal {
    /// Another try would end the same way.
    fn is_final(&self) -> bool {
        match self {
            Refusal::Network(_) => false,
            Refusal::Refused(e) => !matches!(*e, Errno::EAGAIN | Errno::EBUSY | Errno::EALREADY),
            Refusal::Protocol(_) => true,
        }
    }

    fn into_error(self) -> ConnectError {
        match self {
            Refusal::Network(e) => ConnectError::Unreachable(e),
            Refusal::Refused(Errno::ENODEV) => ConnectError::NoTarget,
            Refusal::Refused(Errno::EAGAIN) => ConnectError::Starting,
            Refusal::Refused(Errno::EPROTO) | Refusal::Protocol(_) => ConnectError::Incompatible,
            Refusal::Refused(e) => ConnectError::Refused(e),
        }
    }
}

/// The first connection of a client, within its bound.
pub async fn first<W: World>(import: &Rc<Import<W>>) -> Result<Fresh<W>, ConnectError> {
    let began = import.world.now();
    let mut told = false;
    let mut pause = BACKOFF_FIRST;
    import.enter(State::Connecting);
    loop {
        let mut last = Refusal::Network(Errno::EHOSTUNREACH);
        for host in &import.hosts {
            match attempt(import, host).await {
                Ok(fresh) => {
                    // Who connected may ask for the root at once.
                    *import.agreed.borrow_mut() = Some(fresh.reply.clone());
                    return Ok(fresh);
                }
                Err(why) if why.is_final() => return Err(why.into_error()),
                Err(why) => last = why,
            }
        }
        let waited = import.world.now() - began;
        let bound = match last {
            // The box is there and has the target: it is waited for as later
            // on, for ever unless the user says how long.
            Refusal::Refused(Errno::EAGAIN) => {
                if !std::mem::replace(&mut told, true) {
                    let line = format!(
                        "target {} is starting: its origin has not answered the box yet; trying on",
                        import.target
                    );
                    import.world.log(Level::Warn, &line);
                }
                import.options.deadline
            }
            _ => Some(import.options.first_connect),
        };
        if bound.is_some_and(|bound| waited >= bound) {
            return Err(last.into_error());
        }
        back_off(import, &mut pause).await;
    }
}

/// Keeps a client connected until it is closed.
pub async fn keep<W: World>(import: Rc<Import<W>>, mut fresh: Fresh<W>) {
    loop {
        let host = fresh.host.clone();
        let end = run(&import, fresh).await;
        if let Some(link) = import.link.borrow_mut().take() {
            link.sender.close();
        }
        if is_closed(&import) {
            return;
        }
        import
            .world
            .log(Level::Warn, &format!("connection to {host} lost: {end}"));
        import.ledger.borrow_mut().on_disconnected();
        import.enter(State::Disconnected);
        match again(&import).await {
            Some(next) => fresh = next,
            None => return,
        }
    }
}

/// Connects again; `None` once the client is closed.
async fn again<W: World>(import: &Rc<Import<W>>) -> Option<Fresh<W>> {
    let since = import.world.now();
    let mut pause = BACKOFF_FIRST;
    let mut told = None;
    loop {
        for host in &import.hosts {
            if is_closed(import) {
                return None;
            }
            import.enter(State::Connecting);
            match attempt(import, host).await {
                Ok(fresh) if is_closed(import) => {
                    fresh.sender.close();
                    return None;
                }
                Ok(fresh) => return Some(fresh),
                Err(why) => {
                    if told.as_ref() != Some(&why) {
                        let level = if why.is_final() {
                            Level::Error
                        } else {
                            Level::Warn
                        };
                        let line = format!("cannot reconnect to {host}: {why}; trying on");
                        import.world.log(level, &line);
                    }
                    told = Some(why);
                }
            }
        }
        import.enter(State::Disconnected);
        let away = import.world.now() - since;
        if import.options.deadline.is_some_and(|d| away >= d) {
            import.ledger.borrow_mut().on_overdue();
        }
        back_off(import, &mut pause).await;
    }
}

fn is_closed<W: World>(import: &Import<W>) -> bool {
    import.ledger.borrow().state() == State::Closed
}

async fn back_off<W: World>(import: &Import<W>, pause: &mut Duration) {
    let percent = 50 + u32::try_from(import.world.random() % 100).unwrap_or(50);
    import.world.sleep(*pause * percent / 100).await;
    *pause = (*pause * 2).min(BACKOFF_LAST);
}

/// Connects to one host and sends CONNECT.
async fn attempt<W: World>(import: &Rc<Import<W>>, host: &str) -> Result<Fresh<W>, Refusal> {
    let world = &import.world;
    let conn = within(world, HANDSHAKE, world.connect(host)).await;
    let conn = conn
        .ok_or(Refusal::Network(Errno::ETIMEDOUT))?
        .map_err(Refusal::Network)?;
    let conn = Rc::new(conn);
    let mut receiver = Receiver::new(Rc::clone(&conn), world.pool(), &[]);
    let sender = Sender::start(world, conn);
    let (frame, request) = connect_frame(import);
    let sent = world.now();
    sender.push(frame);
    let answer = within(world, HANDSHAKE, receiver.next()).await;
    let checked = match answer {
        None => Err(Refusal::Network(Errno::ETIMEDOUT)),
        Some(Err(StreamError::Garbage(e))) => Err(Refusal::Protocol(e.why)),
        Some(Err(StreamError::Broken(e))) => Err(Refusal::Network(e)),
        Some(Err(StreamError::Closed)) => Err(Refusal::Network(Errno::ECONNRESET)),
        Some(Ok((message, _))) => match message.content {
            Content::Connected(_, Some(reply)) => check(import, &request, *reply),
            Content::Connected(head, None) => {
                Err(Refusal::Refused(head.failure().unwrap_or(Errno::EPROTO)))
            }
            _ => Err(Refusal::Protocol("CONNECT answered with something else")),
        },
    };
    let reply = checked.inspect_err(|_| sender.close())?;
    receiver.bounds = Bounds::agreed(reply.payload_max);
    receiver.features = reply.features;
    Ok(Fresh {
        host: host.to_owned(),
        receiver,
        sender,
        reply,
        sent,
    })
}

fn connect_frame<W: World>(import: &Import<W>) -> (Frame, ConnectRequest) {
    let options = &import.options;
    let mut ledger = import.ledger.borrow_mut();
    let (committed_seen, replay_from, incarnation) = ledger.claims();
    let mut bits = Features::OURS.bits;
    if !options.checksum {
        bits &= !Features::CHECKSUM;
    }
    if !options.locks {
        bits &= !Features::LOCKS;
    }
    let request = ConnectRequest {
        features: Features { bits },
        client: import.id,
        name: options.name.clone(),
        target: import.target.clone(),
        incarnation,
        conn_count: ledger.next_connection(),
        shard: ANY_SHARD,
        payload_max: u32::try_from(PAYLOAD_MAX).unwrap_or(u32::MAX),
        tags: options.tags.clamp(1, TAGS_MAX),
        lease_ms: u32::try_from(options.lease.as_millis()).unwrap_or(u32::MAX),
        replay_from,
        committed_seen,
        path: Vec::new(),
        read_only: options.read_only,
    };
    let head = RequestHead {
        conn_count: request.conn_count,
        tag: NO_TAG,
        ..RequestHead::default()
    };
    (
        Frame::connect(ledger.connect_xid(), &head, &request),
        request,
    )
}

/// A grant that was not asked for is a protocol error.
fn check<W: World>(
    import: &Import<W>,
    asked: &ConnectRequest,
    reply: ConnectReply,
) -> Result<ConnectReply, Refusal> {
    let fail = |why| Err(Refusal::Protocol(why));
    if !reply.features.is_subset(asked.features) || !reply.features.has(Features::BASE) {
        return fail("features that were not offered");
    }
    if reply.conn_count != asked.conn_count || reply.incarnation == 0 {
        return fail("answer to another CONNECT");
    }
    if reply.tags == 0 || reply.tags > asked.tags || reply.payload_max > asked.payload_max {
        return fail("limits that were not offered");
    }
    if reply.payload_max < 4096 || reply.lease_ms == 0 {
        return fail("limits too small to work with");
    }
    if reply.tags < import.ledger.borrow().tags_granted() {
        return fail("fewer reply slots than before");
    }
    Ok(reply)
}

/// Works a connection until it ends.
async fn run<W: World>(import: &Rc<Import<W>>, fresh: Fresh<W>) -> StreamError {
    let Fresh {
        host,
        mut receiver,
        sender,
        reply,
        sent,
    } = fresh;
    let heard = Rc::new(Cell::new(import.world.now()));
    let lease = Duration::from_millis(u64::from(reply.lease_ms));
    import.cached.on_connected(lease, sent);
    *import.link.borrow_mut() = Some(Link {
        sender: sender.clone(),
        heard: Rc::clone(&heard),
    });
    greet(import, &sender, &host, &reply).await;
    import.world.spawn(ping(Rc::clone(import), sender, lease));
    loop {
        let (message, data) = match receiver.next().await {
            Ok(got) => got,
            Err(end) => return end,
        };
        heard.set(import.world.now());
        match message.content {
            Content::Reply(head, reply) => {
                import.cached.on_heard(message.xid);
                import.ahead.on_told(head.time, import.world.wall());
                cached::on_volume(import, head.lock_volume);
                let ended = {
                    let mut ledger = import.ledger.borrow_mut();
                    ledger.on_reply(message.xid, &head, reply, data)
                };
                if let Some((pending, outcome)) = ended {
                    cached::on_answer(import, &pending, &outcome, &message.locks.granted);
                    if !pending.is_ahead() {
                        pending.finish(outcome);
                    }
                }
            }
            Content::Notice(head, notice) => {
                import.file_locks.borrow_mut().on_notice(&notice);
                import.ledger.borrow_mut().on_committed(head.last_committed);
            }
            Content::Callback(head, Callback::Blocking(_)) => {
                cached::on_callback(import, &head, None);
            }
            Content::Callback(head, Callback::Growing(growing)) => {
                cached::on_callback(import, &head, Some(growing));
            }
            Content::Callback(head, Callback::Glimpse(asked)) => {
                ahead::on_glimpse(import, &head, &asked);
            }
            Content::EarlyReply(_) | Content::Callback(..) => {}
            _ => {
                let why = "a frame that only a client sends, or that was not agreed";
                return StreamError::Garbage(crate::base::DecodeError { at: 4, why });
            }
        }
        advance(import);
    }
}

/// The state that the answer to CONNECT leads to.
async fn greet<W: World>(
    import: &Rc<Import<W>>,
    sender: &Sender<W::Conn>,
    host: &str,
    reply: &ConnectReply,
) {
    let checksum = reply.features.has(Features::CHECKSUM);
    let welcome = import.ledger.borrow_mut().on_connected(reply, checksum);
    *import.agreed.borrow_mut() = Some(reply.clone());
    import.world.log(
        Level::Info,
        &format!(
            "connected to {host}, generation {}, {}",
            reply.generation,
            match &welcome {
                Welcome::Continue => "going on",
                Welcome::Recover => "replaying",
                Welcome::Evicted(_) => "evicted before",
            }
        ),
    );
    import.file_locks.borrow_mut().on_connected();
    import.ahead.on_connected();
    match welcome {
        Welcome::Continue => full(import, sender),
        Welcome::Recover => {
            cached::on_restarted(import).await;
            import.enter(State::Replay);
            for frame in import.ledger.borrow_mut().replays() {
                sender.push(frame);
            }
            for frame in filelocks::claims(import) {
                sender.push(frame);
            }
            advance(import);
        }
        Welcome::Evicted(loss) => {
            import.enter(State::Evicted);
            ahead::on_evicted(import);
            cached::on_evicted(import, sender);
            for fid in &loss.files {
                let line = format!("evicted by the box: unstable changes of {fid} are lost");
                import.world.log(Level::Error, &line);
            }
            for change in &loss.ahead {
                let what = ahead::described(&change.request);
                let line = format!("evicted by the box: it had not done yet: {what}");
                import.world.log(Level::Error, &line);
            }
            import.note_lost(loss.ahead);
            tell_lost(import);
            filelocks::evicted(import);
            full(import, sender);
        }
    }
}

/// Says how many requests an eviction, or replays that failed, have lost.
fn tell_lost<W: World>(import: &Import<W>) {
    let lost = import.ledger.borrow().counters().lost;
    let news = lost - import.lost_told.replace(lost);
    if news > 0 {
        let line = format!("{news} unstable requests, on names or bytes, are lost");
        import.world.log(Level::Error, &line);
    }
}

/// What an answer makes possible: the end of replay, the next requests.
fn advance<W: World>(import: &Rc<Import<W>>) {
    let replayed = {
        let ledger = import.ledger.borrow();
        ledger.state() == State::Replay && !ledger.is_replaying()
    };
    let sender = import.link.borrow().as_ref().map(|l| l.sender.clone());
    if let (true, Some(sender)) = (replayed, sender) {
        tell_lost(import);
        if let Some(claim) = cached::claim(import) {
            sender.push(claim);
        }
        sender.push(import.ledger.borrow_mut().replay_done());
        full(import, &sender);
    } else {
        import.pump();
        import.changed.notify();
    }
}

fn full<W: World>(import: &Rc<Import<W>>, sender: &Sender<W::Conn>) {
    import.enter(State::Full);
    for frame in import.ledger.borrow_mut().resends() {
        sender.push(frame);
    }
    import.pump();
}

/// Keeps the lease alive while nothing else is said, and ends a connection
/// that has been silent for all of it.
async fn ping<W: World>(import: Rc<Import<W>>, sender: Sender<W::Conn>, lease: Duration) {
    while !sender.is_closed() {
        import.world.sleep(lease / 3).await;
        let heard = match import.link.borrow().as_ref() {
            Some(link) => link.heard.get(),
            None => return,
        };
        let silent = import.world.now() - heard;
        if silent >= lease {
            let line = "the box has been silent for a lease: connecting again";
            import.world.log(Level::Warn, line);
            sender.close();
        } else if silent >= lease / 4 && !sender.is_closed() {
            let mut ledger = import.ledger.borrow_mut();
            import.cached.on_send(ledger.last_xid(), import.world.now());
            let frame = ledger.control(Request::Ping(Empty {})).1;
            drop(ledger);
            sender.push(frame);
        }
    }
}

/// Tells the box that this client does not come back, and ends. Without an
/// answer in time the box finds out by the lease.
pub async fn goodbye<W: World>(import: &Rc<Import<W>>) {
    let said = async { while !say_goodbye(import).await {} };
    let _ = within(&import.world, GOODBYE, said).await;
    import.shut();
}

/// `false` if the connection broke before the answer.
async fn say_goodbye<W: World>(import: &Rc<Import<W>>) -> bool {
    while import.ledger.borrow().state() != State::Full {
        import.changed.wait().await;
    }
    let sender = import.link.borrow().as_ref().map(|l| l.sender.clone());
    let Some(sender) = sender else {
        return true;
    };
    let request = Request::Disconnect(Empty {});
    let (call, frame) = import.ledger.borrow_mut().control(request);
    sender.push(frame);
    !matches!(call.reply().await, Err(CallError::Closed))
}
