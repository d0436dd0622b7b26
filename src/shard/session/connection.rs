//! One connection: CONNECT, then requests in the order of the stream.

use super::export::{Export, Link};
use super::request::{self, Asked};
use super::slots::Arrived;
use super::{Handler, OPENS_MAX, REPLY_BYTES_MAX, connect, grants, keeper};
use crate::base::limits::PAYLOAD_MAX;
use crate::base::{Errno, Transno};
use crate::shard::{Incoming, Shard, filelocks, locks};
use crate::wire::head::flags;
use crate::wire::op::Empty;
use crate::wire::{
    Bounds, ConnectRequest, Content, Features, Frame, Message, NO_TAG, Reply, ReplyHead, Request,
};
use crate::world::race::within;
use crate::world::stream::{Receiver, Sender, StreamError};
use crate::world::{Conn, Level, World};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// How long a peer may take to say CONNECT, and to take in a refusal.
const HANDSHAKE: Duration = Duration::from_secs(10);
const REFUSAL: Duration = Duration::from_secs(1);

/// Commits that one client may be waiting for at a time.
const COMMITS_MAX: u32 = 8;

/// A connection's sending end, as its export sees it.
pub struct Wire<C> {
    sender: Sender<C>,
    peer: String,
}

impl<C: Conn> Link for Wire<C> {
    fn send(&self, frame: Frame, reserved: usize) {
        self.sender.push(frame);
        self.sender.release(reserved);
    }
    fn reserve(&self, bytes: usize) {
        self.sender.reserve(bytes);
    }
    fn release(&self, bytes: usize) {
        self.sender.release(bytes);
    }
    fn close(&self) {
        self.sender.close();
    }
    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
    fn peer(&self) -> String {
        self.peer.clone()
    }
}

/// Why a connection ended.
enum End {
    Stream(StreamError),
    /// The client did what no client does.
    Misuse(&'static str),
    Goodbye,
    /// The client was thrown out, or has a newer connection.
    Superseded,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Stream(e) => write!(f, "{e}"),
            End::Misuse(why) => write!(f, "misuse: {why}"),
            End::Goodbye => write!(f, "goodbye"),
            End::Superseded => write!(f, "superseded"),
        }
    }
}

/// A connection that CONNECT has tied to an export.
struct Connection<W: World, H> {
    shard: Rc<Shard<W>>,
    handler: Rc<H>,
    export: Rc<Export>,
    sender: Sender<W::Conn>,
    link: Rc<dyn Link>,
    conn_count: u32,
}

/// Serves a connection to its end.
pub async fn serve<W: World, H: Handler<W>>(
    shard: Rc<Shard<W>>,
    handler: Rc<H>,
    conn: W::Conn,
    first: Vec<u8>,
) {
    let peer = conn.peer();
    let conn = Rc::new(conn);
    let mut receiver = Receiver::new(Rc::clone(&conn), shard.world.pool(), &first);
    let sender = Sender::start(&shard.world, conn);
    let greeting = within(&shard.world, HANDSHAKE, receiver.next()).await;
    let (xid, head, request) = match greeting {
        Some(Ok((
            Message {
                xid,
                content: Content::Connect(head, request),
                ..
            },
            None,
        ))) => (xid, head, request),
        Some(Err(StreamError::Closed)) => return,
        other => {
            let why = match other {
                None => String::from("no CONNECT in time"),
                Some(Err(e)) => e.to_string(),
                Some(Ok(_)) => String::from("something else than CONNECT"),
            };
            log(&shard, Level::Warn, &peer, &format!("closed: {why}"));
            sender.close();
            return;
        }
    };
    match connect::admit(&shard, &handler, &request).await {
        Ok((export, reply)) => {
            let connection = attach(&shard, &handler, &export, &sender, &peer, &request);
            receiver.bounds = Bounds::agreed(reply.payload_max);
            receiver.features = reply.features;
            let own = request::reply_head(&shard, &export);
            sender.push(Frame::connect_reply(xid, &own, Some(&reply)));
            locks::again(&shard, &export);
            let end = connection.receive(&mut receiver).await;
            connection.finish(&peer, &end).await;
        }
        Err(refusal) => {
            let why = format!("{:?} refused: {}", request.name, refusal.why);
            log(&shard, Level::Warn, &peer, &why);
            let own = ReplyHead {
                status: refusal.errno.0,
                time: shard.world.wall(),
                epoch: head.epoch,
                ..ReplyHead::default()
            };
            sender.push(Frame::connect_reply(xid, &own, None));
            let _ = within(&shard.world, REFUSAL, sender.flushed()).await;
            sender.close();
        }
    }
}

fn log<W: World>(shard: &Shard<W>, level: Level, peer: &str, line: &str) {
    shard.world.log(level, &format!("client at {peer}: {line}"));
}

/// Makes `sender` the export's connection; the one before is closed.
fn attach<W: World, H: Handler<W>>(
    shard: &Rc<Shard<W>>,
    handler: &Rc<H>,
    export: &Rc<Export>,
    sender: &Sender<W::Conn>,
    peer: &str,
    request: &ConnectRequest,
) -> Connection<W, H> {
    let link: Rc<dyn Link> = Rc::new(Wire {
        sender: sender.clone(),
        peer: peer.to_owned(),
    });
    export.hang_up();
    *export.state.link.borrow_mut() = Some(Rc::clone(&link));
    export.state.conn_count.set(request.conn_count);
    export.state.heard.set(shard.world.now());
    // A replay of the connection before may be waiting for its turn.
    shard.sessions.changed.notify();
    let line = format!(
        "{:?} connected, incarnation {}{}",
        export.name,
        export.state.incarnation,
        if export.state.recovering.get() {
            ", recovering"
        } else {
            ""
        }
    );
    log(shard, Level::Info, peer, &line);
    Connection {
        shard: Rc::clone(shard),
        handler: Rc::clone(handler),
        export: Rc::clone(export),
        sender: sender.clone(),
        link,
        conn_count: request.conn_count,
    }
}

impl<W: World, H: Handler<W>> Connection<W, H> {
    async fn receive(&self, receiver: &mut Receiver<W::Conn>) -> End {
        loop {
            // A client that does not read its replies is not served further.
            self.sender.below(REPLY_BYTES_MAX).await;
            if self.sender.is_closed() {
                return End::Superseded;
            }
            let (message, payload) = match receiver.next().await {
                Ok(got) => got,
                Err(_) if self.sender.is_closed() => return End::Superseded,
                Err(end) => return End::Stream(end),
            };
            self.export.state.heard.set(self.shard.world.now());
            let Content::Request(head, request) = message.content else {
                return End::Misuse("a frame that only a box sends");
            };
            let known = head.incarnation == self.export.state.incarnation;
            if !known || head.conn_count != self.conn_count {
                return End::Misuse("a request of another connection");
            }
            if head.flags & flags::REPLAY == 0 {
                grants::on_request(&self.shard, &self.export, head.grant);
            }
            let incoming = Incoming {
                client: self.export.client,
                xid: message.xid,
                head,
                request,
                payload,
                asked: message.locks.asked,
                granted: RefCell::default(),
                contended: Cell::new(false),
            };
            if let Err(end) = self.take(incoming).await {
                return end;
            }
        }
    }

    /// One request: done here if it is about the connection, else in a task.
    async fn take(&self, incoming: Incoming) -> Result<(), End> {
        locks::on_cancel(&self.shard, &self.export, &incoming.asked.cancels);
        if incoming.head.flags & flags::REPLAY != 0 {
            return self.replay(incoming).await;
        }
        if incoming.head.tag == NO_TAG {
            return self.control(incoming).await;
        }
        let resent = incoming.head.flags & flags::RESENT != 0;
        let (tag, xid) = (incoming.head.tag, incoming.xid);
        let arrived = self
            .export
            .state
            .slots
            .borrow_mut()
            .on_request(tag, xid, resent);
        match arrived {
            Arrived::New => {
                locks::on_sent(&self.shard, &self.export, &incoming.head, &incoming.request);
                self.start(incoming);
            }
            // Its answer goes to the connection in use when it is ready.
            Arrived::Running | Arrived::Stale => {}
            Arrived::Answered(answer) => {
                let op = incoming.request.tag();
                request::answer_again(&self.shard, &self.export, xid, op, &answer);
            }
            Arrived::Misuse(why) => return Err(End::Misuse(why)),
        }
        Ok(())
    }

    fn start(&self, incoming: Incoming) {
        let reserved = reply_bytes(&incoming);
        self.link.reserve(reserved);
        let flags = match self.export.has(Features::ORDER) {
            true => incoming.head.flags,
            false => 0,
        };
        let asked = Asked {
            incoming,
            link: Rc::clone(&self.link),
            reserved,
        };
        let task = request::run(
            Rc::clone(&self.shard),
            Rc::clone(&self.handler),
            Rc::clone(&self.export),
            asked,
        );
        let order = &self.export.state.order;
        if flags & flags::ORDERED != 0 {
            order.push(&self.shard.world, task);
        } else if flags & flags::AFTER != 0 {
            let passed = order.passed();
            self.shard.world.spawn(async move {
                passed.await;
                task.await;
            });
        } else {
            self.shard.world.spawn(task);
        }
    }

    /// A replay runs in the stream's order and, among all clients, in its turn.
    async fn replay(&self, incoming: Incoming) -> Result<(), End> {
        let (xid, op) = (incoming.xid, incoming.request.tag());
        if incoming.head.transno == Transno(0) {
            return Err(End::Misuse("a replay without its transno"));
        }
        let result = request::replay(
            &self.shard,
            &self.handler,
            &self.export,
            &self.link,
            incoming,
        )
        .await;
        if self.sender.is_closed() {
            return Err(End::Superseded);
        }
        request::reply(&self.shard, &self.export, xid, op, result);
        Ok(())
    }

    /// Requests of the connection itself.
    async fn control(&self, incoming: Incoming) -> Result<(), End> {
        let Incoming { xid, request, .. } = incoming;
        let op = request.tag();
        let export = &self.export;
        let result = match request {
            Request::Ping(_) | Request::Abandon(_) => Ok(()),
            Request::Cancel(cancel) => {
                // Nothing named: nothing is left of before this connection.
                if cancel.locks.is_empty() {
                    locks::on_clean(&self.shard, export.client);
                }
                locks::on_cancel(&self.shard, export, &cancel.locks);
                Ok(())
            }
            Request::Disconnect(_) => {
                // Durable before it is answered: a box that dies now must not
                // wait for this client when it starts again.
                keeper::on_goodbye(&self.shard, export).await;
                request::reply(&self.shard, export, xid, op, Ok(()));
                let _ = within(&self.shard.world, REFUSAL, self.sender.flushed()).await;
                return Err(End::Goodbye);
            }
            Request::Claim(claim) => {
                if !export.state.recovering.get() {
                    return Err(End::Misuse("locks claimed outside of a recovery"));
                }
                locks::on_claim(&self.shard, export, &claim.locks);
                Ok(())
            }
            Request::Raised(raised) => {
                locks::on_raised(&self.shard, export, raised.lock, raised.size);
                Ok(())
            }
            Request::Glimpsed(glimpsed) => {
                locks::on_glimpsed(&self.shard, export, glimpsed);
                Ok(())
            }
            Request::DeclareCred(cred) => {
                export.declare(cred).map_err(End::Misuse)?;
                Ok(())
            }
            Request::Reopen(reopen) => {
                if export.opens.borrow().len() + reopen.opens.len() > OPENS_MAX {
                    return Err(End::Misuse("more open files than a client may have"));
                }
                let mut result = Ok(());
                for open in &reopen.opens {
                    let opened = self.handler.reopened(&self.shard, export, open).await;
                    result = result.and(opened);
                }
                result
            }
            Request::Relock(relock) => filelocks::claim(&self.shard, export, &relock),
            Request::ReplayDone(_) => {
                export.state.recovering.set(false);
                let sessions = &self.shard.sessions;
                sessions.recovery.borrow_mut().on_done(export.client);
                sessions.changed.notify();
                Ok(())
            }
            Request::Fsync(fsync) if fsync.fid.is_none() => {
                return self.commit(xid, op);
            }
            _ => return Err(End::Misuse("an operation without a reply slot")),
        };
        request::reply(&self.shard, export, xid, op, result);
        Ok(())
    }

    /// Makes everything that the client was answered durable.
    fn commit(&self, xid: crate::base::Xid, op: u16) -> Result<(), End> {
        let waiting = &self.export.state.commits;
        if waiting.get() >= COMMITS_MAX {
            return Err(End::Misuse("too many commits at a time"));
        }
        waiting.set(waiting.get() + 1);
        let (shard, export) = (Rc::clone(&self.shard), Rc::clone(&self.export));
        self.shard.world.spawn(async move {
            let result = shard.flash.commit(export.state.last_lsn.get()).await;
            export.state.commits.set(export.state.commits.get() - 1);
            request::reply(&shard, &export, xid, op, result);
        });
        Ok(())
    }

    /// The connection is over; the export stays for its lease, unless the
    /// client said goodbye.
    async fn finish(&self, peer: &str, end: &End) {
        let level = match end {
            End::Misuse(_) | End::Stream(StreamError::Garbage(_)) => Level::Warn,
            _ => Level::Info,
        };
        let line = format!("{:?} connection ended: {end}", self.export.name);
        log(&self.shard, level, peer, &line);
        self.sender.close();
        let current = {
            let link = self.export.state.link.borrow();
            link.as_ref().is_some_and(|l| Rc::ptr_eq(l, &self.link))
        };
        if !current {
            return;
        }
        self.export.hang_up();
        self.export.state.heard.set(self.shard.world.now());
        let client = self.export.client;
        self.shard.sessions.recovery.borrow_mut().on_lost(client);
        if matches!(end, End::Goodbye) {
            keeper::end(&self.shard, &self.handler, &self.export, keeper::GOODBYE).await;
        }
    }
}

/// Bytes that the reply to a request may have.
fn reply_bytes(incoming: &Incoming) -> usize {
    let payload = match &incoming.request {
        Request::Read(read) => read.len as usize,
        Request::Readdir(readdir) => readdir.bytes as usize,
        Request::XattrGet(_) | Request::XattrList(_) => crate::base::limits::XATTR_VALUE_MAX,
        _ => incoming.asked.data_max as usize,
    };
    256 + payload.min(PAYLOAD_MAX)
}

/// The features that a frame to this export is made with.
pub fn checksum(export: &Export) -> bool {
    export.has(Features::CHECKSUM)
}

/// The answer of operations that have nothing to say.
pub fn nothing() -> Reply {
    Reply::Done(Empty {})
}

/// The errno of a request from a client that is gone.
pub const GONE: Errno = Errno::ESTALE;
