//! A [`World`] of one medium: what recovery needs of the outside, and nothing
//! else. Reading never waits; writing is refused, so that a check cannot change
//! what it checks, whatever it runs.

use super::medium::Shared;
use crate::base::{Buf, Errno, Mono, Pool, ShardId, Slice, Time};
use crate::origin::{OriginCall, OriginReply};
use crate::world::{Arrival, Conn, Level, World};
use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A handle.
#[derive(Clone)]
pub struct Offline(Rc<Inner>);

struct Inner {
    medium: Shared,
    pool: Pool,
    log: RefCell<Vec<String>>,
}

/// Log lines kept: what is rotten may have much to say.
const LINES_MAX: usize = 100;

impl Offline {
    #[must_use]
    pub fn new(medium: Shared) -> Offline {
        Offline(Rc::new(Inner {
            medium,
            pool: Pool::new([1, 1, 1]),
            log: RefCell::default(),
        }))
    }

    /// Runs what only reads; `None` if it waits for something else after all.
    pub fn run<T>(&self, reading: impl Future<Output = T>) -> Option<T> {
        match pin!(reading).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// What was logged since the last call.
    #[must_use]
    pub fn take_log(&self) -> Vec<String> {
        self.0.log.take()
    }
}

impl World for Offline {
    type Conn = Nobody;

    fn now(&self) -> Mono {
        Mono(0)
    }
    fn wall(&self) -> Time {
        Time::default()
    }
    fn random(&self) -> u64 {
        0
    }
    fn pool(&self) -> &Pool {
        &self.0.pool
    }
    /// Reading begins no tasks; a task that something else begins never runs.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(task);
    }
    async fn sleep(&self, _for: Duration) {}
    async fn yield_now(&self) {}
    async fn connect(&self, _addr: &str) -> Result<Nobody, Errno> {
        Err(Errno::ECONNREFUSED)
    }
    async fn flash_read(&self, offset: u64, mut buf: Buf) -> (Result<(), Errno>, Buf) {
        let end = offset.checked_add(buf.len() as u64);
        let result = match end.filter(|end| *end <= self.0.medium.bytes()) {
            Some(_) => self.0.medium.read(offset, &mut buf),
            None => Err(Errno::EIO),
        };
        (result, buf)
    }
    async fn flash_write(&self, _at: u64, _parts: Vec<Slice>, _durable: bool) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }
    async fn flash_sync(&self) -> Result<(), Errno> {
        Err(Errno::EROFS)
    }
    async fn origin(&self, _call: OriginCall) -> OriginReply {
        OriginReply::Failed(Errno::ENOTCONN)
    }
    async fn arrival(&self) -> Arrival<Nobody> {
        Arrival::Stop
    }
    fn tell(&self, _to: ShardId, message: Vec<u8>) -> Result<(), Vec<u8>> {
        Err(message)
    }
    fn log(&self, _level: Level, line: &str) {
        let mut log = self.0.log.borrow_mut();
        if log.len() < LINES_MAX {
            log.push(line.to_owned());
        }
    }
}

/// A connection that cannot be.
pub enum Nobody {}

impl Conn for Nobody {
    async fn recv(&self, _buf: Buf, _at: usize) -> (Result<usize, Errno>, Buf) {
        match *self {}
    }
    async fn send(&self, _parts: Vec<Slice>) -> Result<(), Errno> {
        match *self {}
    }
    fn try_send(&self, _bytes: &[u8]) -> usize {
        match *self {}
    }
    fn shutdown(&self) {
        match *self {}
    }
    fn peer(&self) -> String {
        match *self {}
    }
}
