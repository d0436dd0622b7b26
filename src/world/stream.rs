//! Frames over a [`Conn`], the same for box and client.
//!
//! Receiving: small frames come many at a time out of one buffer; a payload
//! that is not in it yet is received straight into pool memory of its own
//! size, aligned for flash. Sending: frames are queued, and one task sends all
//! that are queued with one vectored send, because a send per frame costs up
//! to 21 times the throughput at depth.

use super::World;
use super::sync::Signal;
use crate::base::{Buf, DecodeError, Errno, Pool, Slice};
use crate::wire::{Bounds, Features, Frame, Layout, Message};
use crate::world::Conn;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

/// Receive buffer of a connection that is quiet (a write of 4 KiB with its
/// heads fits), and of one that is busy.
const QUIET: usize = 8 << 10;
const BUSY: usize = 64 << 10;

/// Payload parts up to this size are copied next to their heads: cheaper than
/// an element of the vector.
const COPY_MAX: usize = 4 << 10;

/// Frames up to this many bytes are sent at once, without an operation.
const AT_ONCE_MAX: usize = 16 << 10;

/// Most elements and bytes of one send.
const PARTS_MAX: usize = 256;
const SEND_MAX: usize = 4 << 20;

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The peer closed between two frames.
    Closed,
    /// The peer closed within a frame, or the connection broke.
    Broken(Errno),
    /// The peer does not keep to the protocol.
    Garbage(DecodeError),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::Closed => write!(f, "closed by the peer"),
            StreamError::Broken(e) => write!(f, "broken: {e}"),
            StreamError::Garbage(e) => write!(f, "bad frame: {e}"),
        }
    }
}

impl std::error::Error for StreamError {}

/// The receiving end.
pub struct Receiver<C> {
    conn: Rc<C>,
    pool: Pool,
    /// Always `Some` between calls; its bytes `start..end` are not decoded yet.
    buf: Option<Buf>,
    start: usize,
    end: usize,
    busy: bool,
    pub bounds: Bounds,
    pub features: Features,
}

impl<C: Conn> Receiver<C> {
    /// `first`: bytes of the stream that were received already.
    #[must_use]
    pub fn new(conn: Rc<C>, pool: &Pool, first: &[u8]) -> Receiver<C> {
        let mut buf = pool.take(first.len().max(QUIET));
        buf[..first.len()].copy_from_slice(first);
        Receiver {
            conn,
            pool: pool.clone(),
            buf: Some(buf),
            start: 0,
            end: first.len(),
            busy: false,
            bounds: Bounds::CONNECT,
            features: Features::default(),
        }
    }

    /// The next frame, with its payload in memory of its own.
    ///
    /// # Errors
    /// The stream is over; it must not be used any more.
    pub async fn next(&mut self) -> Result<(Message, Option<Slice>), StreamError> {
        let layout = loop {
            match Layout::of(self.pending(), &self.bounds).map_err(StreamError::Garbage)? {
                Some(layout) if self.pending().len() >= layout.payload_at => break layout,
                Some(layout) => self.fill(layout.payload_at).await?,
                None => self.fill(1).await?,
            }
        };
        let payload = match layout.payload_len {
            0 => None,
            _ => Some(self.payload(&layout).await?),
        };
        let heads = &self.pending()[..layout.payload_at];
        let message = layout
            .decode(heads, payload.as_deref().unwrap_or(&[]), self.features)
            .map_err(StreamError::Garbage)?;
        // Payload bytes that were in the buffer lie behind the heads.
        self.start += self.pending().len().min(layout.len());
        Ok((message, payload.map(Buf::freeze)))
    }

    fn pending(&self) -> &[u8] {
        match &self.buf {
            Some(buf) => &buf[self.start..self.end],
            None => &[],
        }
    }

    /// The payload, of which the first part may be in the buffer.
    async fn payload(&mut self, layout: &Layout) -> Result<Buf, StreamError> {
        let mut payload = self.pool.take(layout.payload_len);
        let here = &self.pending()[layout.payload_at..];
        let mut have = here.len().min(layout.payload_len);
        payload[..have].copy_from_slice(&here[..have]);
        while have < layout.payload_len {
            let (result, buf) = self.conn.recv(payload, have).await;
            payload = buf;
            match result {
                Ok(0) => return Err(StreamError::Broken(Errno::ECONNRESET)),
                Ok(n) => have += n,
                Err(e) => return Err(StreamError::Broken(e)),
            }
        }
        Ok(payload)
    }

    /// Receives once, with room for a frame of `need` bytes.
    async fn fill(&mut self, need: usize) -> Result<(), StreamError> {
        let mut buf = self.buf.take().unwrap_or_else(|| self.pool.take(QUIET));
        let pending = self.end - self.start;
        let size = need.max(if self.busy { BUSY } else { QUIET });
        if buf.len() < size || (pending == 0 && buf.len() > size) {
            let mut other = self.pool.take(size.max(pending));
            other[..pending].copy_from_slice(&buf[self.start..self.end]);
            buf = other;
        } else {
            buf.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, pending);
        let room = buf.len() - pending;
        let (result, buf) = self.conn.recv(buf, pending).await;
        self.buf = Some(buf);
        match result {
            Ok(0) if pending == 0 => Err(StreamError::Closed),
            Ok(0) => Err(StreamError::Broken(Errno::ECONNRESET)),
            Ok(n) => {
                self.end += n;
                self.busy = n >= room.min(QUIET);
                Ok(())
            }
            Err(e) => Err(StreamError::Broken(e)),
        }
    }
}

/// The sending end; a cheap handle. Frames leave in the order of `push`.
pub struct Sender<C>(Rc<Outbox<C>>);

struct Outbox<C> {
    conn: Rc<C>,
    queue: RefCell<Vec<Frame>>,
    queued_bytes: Cell<usize>,
    closed: Cell<bool>,
    /// Something was queued, or the outbox closed.
    filled: Signal,
    /// Something was sent, or the outbox closed.
    drained: Signal,
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Self {
        Sender(Rc::clone(&self.0))
    }
}

impl<C: Conn> Sender<C> {
    /// Starts the task that sends; it ends when the connection breaks or
    /// [`close`](Sender::close) is called.
    pub fn start<W: World<Conn = C>>(world: &W, conn: Rc<C>) -> Sender<C> {
        let sender = Sender(Rc::new(Outbox {
            conn,
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            closed: Cell::new(false),
            filled: Signal::default(),
            drained: Signal::default(),
        }));
        world.spawn(drain(world.clone(), sender.clone()));
        sender
    }

    /// Queues a frame; after the end of the connection it is dropped.
    pub fn push(&self, frame: Frame) {
        let outbox = &self.0;
        if outbox.closed.get() {
            return;
        }
        outbox
            .queued_bytes
            .set(outbox.queued_bytes.get() + frame.len());
        outbox.queue.borrow_mut().push(frame);
        outbox.filled.notify();
    }

    /// Counts `bytes` of a frame that is being made as if they were queued.
    pub fn reserve(&self, bytes: usize) {
        self.0.queued_bytes.set(self.0.queued_bytes.get() + bytes);
    }

    /// Gives back what `reserve` counted.
    pub fn release(&self, bytes: usize) {
        self.0.sent(bytes);
    }

    /// Waits until less than `bytes` are queued or on their way. Whoever
    /// produces frames for a peer that does not read them stops here.
    pub async fn below(&self, bytes: usize) {
        while self.0.queued_bytes.get() >= bytes && !self.0.closed.get() {
            self.0.drained.wait().await;
        }
    }

    /// Waits until all that was queued has been sent, or the end.
    pub async fn flushed(&self) {
        self.below(1).await;
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Ends the connection in both directions; what is queued is dropped.
    pub fn close(&self) {
        if !self.0.closed.replace(true) {
            self.0.conn.shutdown();
            self.0.queue.borrow_mut().clear();
            self.0.filled.notify();
            self.0.drained.notify();
        }
    }
}

impl<C> Outbox<C> {
    fn sent(&self, bytes: usize) {
        let left = self.queued_bytes.get().saturating_sub(bytes);
        self.queued_bytes.set(left);
        self.drained.notify();
    }
}

/// The sending task.
async fn drain<W: World>(world: W, sender: Sender<W::Conn>) {
    let outbox = &sender.0;
    // The same memory for each batch.
    let mut run = Vec::new();
    loop {
        run.shrink_to(RUN_KEPT);
        while outbox.queue.borrow().is_empty() && !outbox.closed.get() {
            outbox.filled.wait().await;
        }
        if outbox.closed.get() {
            return;
        }
        // The other tasks of this turn add their frames to the same send.
        world.yield_now().await;
        let mut frames = std::mem::take(&mut *outbox.queue.borrow_mut()).into_iter();
        while let Some(batch) = Batch::of(world.pool(), &mut run, &mut frames) {
            let bytes = batch.bytes;
            let parts = batch.rest(outbox.conn.as_ref(), world.pool());
            if !parts.is_empty() && outbox.conn.send(parts).await.is_err() {
                sender.close();
                return;
            }
            outbox.sent(bytes);
        }
    }
}

/// Memory that a quiet connection keeps for its next batch.
const RUN_KEPT: usize = 2 << 10;

/// What one send takes.
struct Batch<'a> {
    parts: Vec<Slice>,
    /// Frames and small payloads copied together, after `parts`.
    run: &'a mut Vec<u8>,
    bytes: usize,
}

impl<'a> Batch<'a> {
    fn of(
        pool: &Pool,
        run: &'a mut Vec<u8>,
        frames: &mut impl Iterator<Item = Frame>,
    ) -> Option<Batch<'a>> {
        run.clear();
        let mut batch = Batch {
            parts: Vec::new(),
            run,
            bytes: 0,
        };
        for frame in frames {
            batch.bytes += frame.len();
            batch.run.extend_from_slice(&frame.bytes);
            for part in frame.payload {
                if part.len() <= COPY_MAX {
                    batch.run.extend_from_slice(&part);
                } else {
                    batch.close_run(pool, 0);
                    batch.parts.push(part);
                }
            }
            if batch.bytes >= SEND_MAX || batch.parts.len() >= PARTS_MAX {
                break;
            }
        }
        (batch.bytes > 0).then_some(batch)
    }

    /// The parts that are left to send, once the stream took what it takes at once.
    fn rest(mut self, conn: &impl Conn, pool: &Pool) -> Vec<Slice> {
        let is_short = self.parts.is_empty() && self.run.len() <= AT_ONCE_MAX;
        let sent = if is_short { conn.try_send(self.run) } else { 0 };
        self.close_run(pool, sent);
        self.parts
    }

    /// Makes a part of the run, without its first `sent` bytes.
    fn close_run(&mut self, pool: &Pool, sent: usize) {
        let left = &self.run[sent..];
        if !left.is_empty() {
            let mut buf = pool.take(left.len());
            buf.copy_from_slice(left);
            self.parts.push(buf.freeze());
        }
        self.run.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that takes at most so many bytes at once.
    struct Taking(usize, RefCell<Vec<u8>>);

    impl Conn for Taking {
        async fn recv(&self, buf: Buf, _: usize) -> (Result<usize, Errno>, Buf) {
            (Ok(0), buf)
        }
        async fn send(&self, _: Vec<Slice>) -> Result<(), Errno> {
            Ok(())
        }
        fn try_send(&self, bytes: &[u8]) -> usize {
            let n = bytes.len().min(self.0);
            self.1.borrow_mut().extend_from_slice(&bytes[..n]);
            n
        }
        fn shutdown(&self) {}
        fn peer(&self) -> String {
            String::new()
        }
    }

    fn frame(fill: u8, payloads: &[usize]) -> Frame {
        Frame {
            bytes: vec![fill; 100],
            payload: payloads
                .iter()
                .map(|&len| Slice::from(vec![fill + 100; len]))
                .collect(),
        }
    }

    /// Whatever the stream takes at once, the rest follows, in order and once.
    #[test]
    fn what_is_not_taken_at_once_is_sent_after_it() {
        let pool = Pool::new([4, 4, 4]);
        let batches: [&[&[usize]]; 5] = [
            &[&[]],
            &[&[10], &[]],
            &[&[COPY_MAX]],
            &[&[COPY_MAX + 1], &[5]],
            &[&[3, COPY_MAX + 1, 3], &[], &[AT_ONCE_MAX]],
        ];
        for (payloads, takes) in batches
            .iter()
            .flat_map(|b| [0, 1, 150, usize::MAX].map(|t| (b, t)))
        {
            let frames = || (1..).zip(*payloads).map(|(fill, p)| frame(fill, p));
            let whole: Vec<u8> = frames()
                .flat_map(|f| {
                    let payload: Vec<u8> = f.payload.iter().flat_map(|p| p.to_vec()).collect();
                    [f.bytes, payload].concat()
                })
                .collect();
            let conn = Taking(takes, RefCell::default());
            let mut queue = frames();
            let mut sent = 0;
            let mut run = Vec::new();
            while let Some(batch) = Batch::of(&pool, &mut run, &mut queue) {
                sent += batch.bytes;
                for part in batch.rest(&conn, &pool) {
                    conn.1.borrow_mut().extend_from_slice(&part);
                }
            }
            assert_eq!(sent, whole.len());
            assert_eq!(*conn.1.borrow(), whole, "{payloads:?}, {takes} at once");
        }
    }
}
