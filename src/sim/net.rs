//! Connections: bounded buffers, latency, order within a connection and none
//! between two; cuts (both sides see a reset) and partitions (bytes and new
//! connections wait, nobody is told).

use super::executor::{Core, Sim, nanos};
use super::node::Node;
use crate::base::{Buf, Codec, Errno, ShardId, Slice};
use crate::wire::Head;
use crate::wire::head::{HEAD_LEN, MAGIC};
use crate::world::sync::Signal;
use crate::world::{Arrival, Conn};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::time::Duration;

/// How a node takes a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// Reads the first frame, as the control thread does, and hands it over.
    Framed,
    /// Hands the connection over at once, `first` empty.
    Raw,
    /// Refuses.
    Closed,
}

/// One end of a connection.
pub struct SimConn {
    link: Rc<Link>,
    /// 0: who connected; 1: who accepted.
    side: usize,
}

/// A connection: two pipes.
pub(super) struct Link {
    core: Weak<Core>,
    ends: [(u64, String); 2],
    pipes: [Pipe; 2],
    reset: Cell<bool>,
}

/// Bytes from end `i` to the other.
#[derive(Default)]
struct Pipe {
    /// Not yet arrived: when, and what; empty bytes are the end of stream.
    flight: RefCell<VecDeque<(u64, Vec<u8>)>>,
    arrived: RefCell<VecDeque<u8>>,
    /// The sender has shut down: nothing more enters.
    shut: Cell<bool>,
    /// The end of stream has arrived.
    ended: Cell<bool>,
    changed: Signal,
}

pub(super) async fn connect(
    core: &Rc<Core>,
    from: &Rc<Node>,
    addr: &str,
) -> Result<SimConn, Errno> {
    let latency = core.net_latency();
    core.sleep(latency).await;
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    let node = core.node(host).ok_or(Errno::EHOSTUNREACH)?;
    if core.is_cut(from.id, node.id) {
        core.sleep(CONNECT_TIMEOUT).await;
        return Err(Errno::ETIMEDOUT);
    }
    if !node.up.get() || node.accept.get() == Accept::Closed {
        return Err(Errno::ECONNREFUSED);
    }
    let link = Rc::new(Link {
        core: Rc::downgrade(core),
        ends: [(from.id, from.name.clone()), (node.id, node.name.clone())],
        pipes: Default::default(),
        reset: Cell::new(false),
    });
    core.links.borrow_mut().retain(|l| l.strong_count() > 0);
    core.links.borrow_mut().push(Rc::downgrade(&link));
    core.trace("connect", from.id << 32 | node.id);
    let accepted = SimConn {
        link: Rc::clone(&link),
        side: 1,
    };
    let accepting = accept(Rc::clone(core), Rc::clone(&node), accepted);
    core.spawn(node.id, Location::caller(), Box::pin(accepting));
    Ok(SimConn { link, side: 0 })
}

/// What the control thread does with a new connection.
async fn accept(core: Rc<Core>, node: Rc<Node>, conn: SimConn) {
    let slow = core.faults.borrow().accept_delay_one_in;
    if core.chance(slow) {
        core.sleep(Duration::from_millis(1 + core.below(5000)))
            .await;
    }
    let first = match node.accept.get() {
        Accept::Closed => return,
        Accept::Raw => Vec::new(),
        Accept::Framed => match first_frame(&conn).await {
            Some(frame) => frame,
            None => return,
        },
    };
    node.arrivals(ShardId(0))
        .push(Arrival::Client { conn, first });
}

/// The first frame, whole; `None` when the peer goes away or talks nonsense.
async fn first_frame(conn: &SimConn) -> Option<Vec<u8>> {
    let mut frame = receive(conn, Vec::new(), HEAD_LEN).await?;
    let head = Head::from_slice(&frame).ok()?;
    if head.magic != MAGIC || head.payload_len > 0 {
        return None;
    }
    let len = HEAD_LEN + usize::from(head.head_len) + head.body_len as usize;
    frame = receive(conn, frame, len).await?;
    Some(frame)
}

async fn receive(conn: &SimConn, mut got: Vec<u8>, len: usize) -> Option<Vec<u8>> {
    while got.len() < len {
        let (n, buf) = conn.recv(Buf::alone(len - got.len()), 0).await;
        match n {
            Ok(n) if n > 0 => got.extend_from_slice(&buf[..n]),
            _ => return None,
        }
    }
    Some(got)
}

impl Conn for SimConn {
    async fn recv(&self, mut buf: Buf, at: usize) -> (Result<usize, Errno>, Buf) {
        let pipe = &self.link.pipes[1 - self.side];
        let result = loop {
            if self.link.reset.get() {
                break Err(Errno::ECONNRESET);
            }
            let waiting = pipe.arrived.borrow().len();
            if waiting > 0 && at < buf.len() {
                let most = waiting.min(buf.len() - at);
                let n = self.link.short(most);
                for (to, byte) in buf[at..at + n]
                    .iter_mut()
                    .zip(pipe.arrived.borrow_mut().drain(..n))
                {
                    *to = byte;
                }
                break Ok(n);
            }
            if pipe.ended.get() || self.link.pipes[self.side].shut.get() || at >= buf.len() {
                break Ok(0);
            }
            pipe.changed.wait().await;
        };
        pipe.changed.notify();
        (result, buf)
    }

    async fn send(&self, parts: Vec<Slice>) -> Result<(), Errno> {
        let pipe = &self.link.pipes[self.side];
        for part in parts {
            let mut sent = 0;
            while sent < part.len() {
                let Some(core) = self.link.core.upgrade() else {
                    return Err(Errno::ECONNRESET);
                };
                if core.chance(core.faults.borrow().net_drop_one_in) {
                    self.link.reset();
                }
                if self.link.reset.get() {
                    return Err(Errno::ECONNRESET);
                }
                if pipe.shut.get() || self.link.pipes[1 - self.side].shut.get() {
                    return Err(Errno::EPIPE);
                }
                let room = PIPE_BYTES_MAX.saturating_sub(pipe.held());
                if room == 0 {
                    pipe.changed.wait().await;
                    continue;
                }
                let n = room.min(part.len() - sent);
                self.link
                    .enter(&core, self.side, part[sent..sent + n].to_vec());
                sent += n;
            }
        }
        Ok(())
    }

    /// Nothing, ever: the harder case for whoever sends.
    fn try_send(&self, _: &[u8]) -> usize {
        0
    }

    fn shutdown(&self) {
        let pipe = &self.link.pipes[self.side];
        if pipe.shut.replace(true) {
            return;
        }
        if let Some(core) = self.link.core.upgrade() {
            self.link.enter(&core, self.side, Vec::new());
        }
        self.link.pipes.iter().for_each(|p| p.changed.notify());
    }

    fn peer(&self) -> String {
        self.link.ends[1 - self.side].1.clone()
    }
}

impl Drop for SimConn {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Pipe {
    fn held(&self) -> usize {
        let flight: usize = self.flight.borrow().iter().map(|(_, b)| b.len()).sum();
        flight + self.arrived.borrow().len()
    }
}

impl Link {
    /// Sends bytes on their way, behind those sent before.
    fn enter(self: &Rc<Self>, core: &Rc<Core>, side: usize, bytes: Vec<u8>) {
        let latency = core.net_latency();
        let pipe = &self.pipes[side];
        let last = pipe.flight.borrow().back().map_or(0, |(at, _)| *at);
        let due = last.max(core.now().saturating_add(nanos(latency)));
        core.trace("send", due ^ u64::from(crc32c::crc32c(&bytes)));
        pipe.flight.borrow_mut().push_back((due, bytes));
        let (link, wait) = (Rc::downgrade(self), Duration::from_nanos(due - core.now()));
        core.after(wait, move || {
            if let Some(link) = link.upgrade() {
                link.pump(side);
            }
        });
    }

    /// Lets arrive what is due.
    fn pump(&self, side: usize) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        if core.is_cut(self.ends[0].0, self.ends[1].0) {
            return; // `heal` pumps again
        }
        let pipe = &self.pipes[side];
        loop {
            let mut flight = pipe.flight.borrow_mut();
            match flight.front() {
                Some((due, _)) if *due <= core.now() => {}
                _ => break,
            }
            let Some((_, bytes)) = flight.pop_front() else {
                break;
            };
            if bytes.is_empty() {
                pipe.ended.set(true);
            }
            pipe.arrived.borrow_mut().extend(bytes);
        }
        pipe.changed.notify();
    }

    fn reset(&self) {
        self.reset.set(true);
        for pipe in &self.pipes {
            pipe.flight.borrow_mut().clear();
            pipe.changed.notify();
        }
    }

    /// Now and then fewer bytes than there are, as sockets do.
    fn short(&self, most: usize) -> usize {
        match self.core.upgrade() {
            Some(core) if core.chance(8) => {
                1 + usize::try_from(core.below(most as u64)).expect("below a length")
            }
            _ => most,
        }
    }
}

impl Sim {
    /// Breaks all connections between two nodes.
    pub fn cut(&self, a: &str, b: &str) {
        if let (Some(a), Some(b)) = (self.core.node(a), self.core.node(b)) {
            self.core
                .reset_links(|x, y| (x, y) == (a.id, b.id) || (x, y) == (b.id, a.id));
        }
    }

    /// Holds back everything between two nodes until [`Sim::heal`].
    pub fn partition(&self, a: &str, b: &str) {
        if let (Some(a), Some(b)) = (self.core.node(a), self.core.node(b)) {
            self.core.cuts.borrow_mut().push((a.id, b.id));
        }
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.core.cuts.borrow_mut().clear();
        for link in self.core.live_links() {
            link.pump(0);
            link.pump(1);
        }
    }
}

impl Core {
    fn live_links(&self) -> Vec<Rc<Link>> {
        self.links
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    pub(super) fn reset_links(&self, between: impl Fn(u64, u64) -> bool) {
        for link in self.live_links() {
            if between(link.ends[0].0, link.ends[1].0) {
                link.reset();
            }
        }
    }

    fn is_cut(&self, a: u64, b: u64) -> bool {
        self.cuts
            .borrow()
            .iter()
            .any(|c| *c == (a, b) || *c == (b, a))
    }

    fn net_latency(&self) -> Duration {
        let mean = self.faults.borrow().net_latency;
        self.latency(mean)
    }
}

/// Bytes sent and not yet received, each way.
const PIPE_BYTES_MAX: usize = 256 << 10;
/// How long a connect to the other side of a partition waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
