//! The real [`World`]: a handle to the reactor of this thread.

use crate::base::{Buf, Errno, Mono, Pool, ShardId, Slice, Time};
use crate::origin::{OriginCall, OriginReply};
use crate::reactor::executor::Executor;
use crate::reactor::features::Features;
use crate::reactor::flash::FlashFile;
use crate::reactor::job::{Descriptor, Job, Kind, Parts};
use crate::reactor::linger::Linger;
use crate::reactor::log::Log;
use crate::reactor::origins::{self, Origins};
use crate::reactor::port::{Delivery, Mail, Post, Refused};
use crate::reactor::random::Random;
use crate::reactor::slots::{Driver, Operation};
use crate::reactor::stream::{Stream, done};
use crate::reactor::timers::{self, Timers};
use crate::world::{Arrival, Level, World};
use rustix::event::PollFlags;
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// The world of a reactor thread. Cheap to clone; stays in its thread.
#[derive(Clone)]
pub struct Local(pub(super) Rc<Inner>);

pub(super) struct Inner {
    pub name: String,
    pub executor: Executor,
    pub driver: Rc<Driver>,
    pub timers: Rc<Timers>,
    pub linger: Linger,
    pub post: Post,
    pub flash: Option<FlashFile>,
    pub pool: Pool,
    /// The pool whose numbered buffers the ring has registered, or one without.
    pub registered: Pool,
    pub origins: Origins,
    pub random: RefCell<Random>,
    pub log: Log,
}

impl Local {
    /// Adopts a connected socket.
    pub fn adopt(&self, socket: OwnedFd) -> Result<Stream, Errno> {
        Stream::from_fd(self, socket)
    }

    /// What of io_uring is in use.
    #[must_use]
    pub fn features(&self) -> Features {
        self.0.driver.ring().borrow().features().clone()
    }

    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.0.post.id()
    }

    /// Waits until `fd` has something to read, or an error or hang-up to tell.
    pub async fn poll_readable(&self, fd: &Descriptor) -> Result<(), Errno> {
        let events = u32::from(PollFlags::IN.bits());
        let kind = Kind::Poll { events };
        let on = fd.clone();
        let (result, _) = self.start(Job { on, kind }).await;
        done(result).map(|_| ())
    }

    /// Reads a stream (a pipe, an eventfd, a FUSE device) into `buf`.
    pub async fn read(&self, fd: &Descriptor, buf: Buf) -> (Result<usize, Errno>, Buf) {
        let on = fd.clone();
        let kind = Kind::ReadStream { buf };
        let (result, job) = self.start(Job { on, kind }).await;
        let Kind::ReadStream { buf } = job.kind else {
            unreachable!("a job comes back as it went")
        };
        (done(result), buf)
    }

    /// Writes `parts` to a stream in **one** call, as message devices want it;
    /// tells how much was taken.
    pub async fn writev(&self, fd: &Descriptor, parts: Vec<Slice>) -> Result<usize, Errno> {
        let on = fd.clone();
        let parts = Parts::new(parts);
        if !parts.fits_one_call() {
            return Err(Errno::EINVAL);
        }
        let kind = Kind::WriteStream { parts };
        let (result, _) = self.start(Job { on, kind }).await;
        done(result)
    }

    /// Writes `message` in one call from a kernel thread of its own, for
    /// devices that may make the writer wait: neither this thread nor another
    /// such write waits with it. Who gives up waiting leaves it to its end.
    pub async fn write_apart(&self, fd: &Descriptor, message: Vec<u8>) -> Result<usize, Errno> {
        let on = fd.clone();
        let parts = Parts::new(vec![Slice::from(message)]);
        let kind = Kind::WriteApart { parts };
        let (result, _) = self.start(Job { on, kind }).await;
        done(result)
    }

    pub(super) fn start(&self, job: Job) -> Operation {
        self.0.driver.start(job)
    }
}

impl World for Local {
    type Conn = Stream;

    fn now(&self) -> Mono {
        timers::now()
    }

    fn wall(&self) -> Time {
        let now = clock_gettime(ClockId::Realtime);
        Time {
            sec: now.tv_sec,
            nsec: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }

    fn random(&self) -> u64 {
        self.0.random.borrow_mut().next()
    }

    fn pool(&self) -> &Pool {
        &self.0.pool
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.executor.spawn(task);
    }

    fn sleep(&self, for_: Duration) -> impl Future<Output = ()> {
        self.0.timers.sleep(for_)
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        let mut yielded = false;
        poll_fn(move |cx| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            // To the end of the queue of ready tasks.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    async fn connect(&self, addr: &str) -> Result<Stream, Errno> {
        Stream::connect(self, addr).await
    }

    async fn flash_read(&self, offset: u64, buf: Buf) -> (Result<(), Errno>, Buf) {
        match &self.0.flash {
            Some(flash) => {
                let buffers = &self.0.registered;
                flash.read(&self.0.driver, buffers, offset, buf).await
            }
            None => (Err(Errno::ENXIO), buf),
        }
    }

    async fn flash_write(
        &self,
        offset: u64,
        parts: Vec<Slice>,
        durable: bool,
    ) -> Result<(), Errno> {
        let flash = self.0.flash.as_ref().ok_or(Errno::ENXIO)?;
        let buffers = &self.0.registered;
        let driver = &self.0.driver;
        flash.write(driver, buffers, offset, parts, durable).await
    }

    async fn flash_sync(&self) -> Result<(), Errno> {
        let flash = self.0.flash.as_ref().ok_or(Errno::ENXIO)?;
        flash.sync(&self.0.driver).await
    }

    async fn origin(&self, call: OriginCall) -> OriginReply {
        match self.0.origins.pool(call.target) {
            Some(pool) => pool.call(call.op).await,
            None => origins::refusal(call.op, Errno::ENXIO),
        }
    }

    async fn arrival(&self) -> Arrival<Stream> {
        loop {
            let delivery = poll_fn(|cx| match self.0.post.poll(cx.waker()) {
                Some(delivery) => Poll::Ready(delivery),
                None => Poll::Pending,
            })
            .await;
            return match delivery {
                Delivery::Stop => Arrival::Stop,
                Delivery::Peer(from, message) => Arrival::Peer { from, message },
                Delivery::Mail(Mail::Admin { request, reply }) => Arrival::Admin { request, reply },
                Delivery::Mail(Mail::Client { socket, first }) => match self.adopt(socket) {
                    Ok(conn) => Arrival::Client { conn, first },
                    // It hung up on the way here.
                    Err(e) => {
                        self.log(
                            Level::Debug,
                            &format!("a client was gone at hand-over: {e}"),
                        );
                        continue;
                    }
                },
            };
        }
    }

    fn tell(&self, to: ShardId, message: Vec<u8>) -> Result<(), Vec<u8>> {
        self.0.post.tell(to, message).map_err(|refused| {
            let (why, message) = match refused {
                Refused::NoShard(message) => ("there is none", message),
                Refused::Behind(message) => ("it is too far behind", message),
            };
            let line = format!("shard {to} was not told something: {why}");
            self.log(Level::Error, &line);
            message
        })
    }

    fn log(&self, level: Level, line: &str) {
        self.0.log.write(level, &self.0.name, line);
    }
}
