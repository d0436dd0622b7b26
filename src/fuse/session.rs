//! The state of one mount between its requests, and how a request is carried
//! to the client and its answer to the kernel.

use super::abi::flag::{init, read};
use super::abi::input::{InHeader, InitIn};
use super::abi::parse::Op;
use super::callers::Callers;
use super::device::{Device, Message};
use super::dirs::Dirs;
use super::kept::Kept;
use super::kernel::Kernel;
use super::nodes::{Node, Nodes};
use super::notices::{Letter, Notices};
use super::takeback::Taker;
use super::upstream::{Answer, Export, Interrupt, Upstream};
use crate::base::{Errno, Mono, NumberMap, Slice};
use crate::client::{Context, Cred};
use crate::wire::{Reply, Request};
use crate::world::sync::Signal;
use crate::world::{Level, World};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

/// One mount: what the kernel knows of it, and who answers for it. Lives on
/// the mount's one thread; no borrow of a cell is held over an await.
pub struct Session<W: World, U: Upstream, K: Kernel = Device> {
    pub(super) world: W,
    pub(super) upstream: U,
    pub(super) kernel: K,
    pub(super) export: Export,
    pub(super) nodes: RefCell<Nodes>,
    pub(super) dirs: RefCell<Dirs>,
    callers: RefCell<Callers>,
    /// Requests that were not answered yet, by `unique`.
    unanswered: RefCell<NumberMap<Interrupt>>,
    /// Tasks that run, answered ones (closes) among them.
    running: Cell<usize>,
    ended: Signal,
    /// Bits of INIT that both sides have; 0 until then.
    pub(super) agreed: Cell<u64>,
    unmounted: Cell<bool>,
    changed: Signal,
    /// What the kernel may believe.
    pub(super) kept: RefCell<Kept>,
    /// What it is told where it may make the teller wait.
    pub(super) notices: Notices,
    /// Since when the reply that is being made gives something to believe.
    pub(super) given: Cell<Option<Mono>>,
    /// Whether all names can be taken back at once (Linux 6.16).
    pub(super) epochs: Cell<bool>,
    this: Weak<Session<W, U, K>>,
}

/// Who sent a request, and which.
pub(super) struct Origin {
    pub head: InHeader,
    pub caller: Rc<Cred>,
    pub interrupt: Interrupt,
    /// When it came, in the order of takings (`kept::races`).
    pub begun: u64,
    /// How many page fills of its node had begun by then (`kept::pages`).
    pub fills: u64,
}

/// One request to the box, and all that goes with it.
pub(super) struct Ask {
    pub context: Context,
    pub request: Request,
    /// Data to write.
    pub payload: Option<Slice>,
    pub interrupt: Interrupt,
}

/// The answer to a request that did not fail.
#[derive(Debug)]
pub(super) enum Outcome {
    Done,
    Bytes(Vec<u8>),
    Data(Vec<Slice>),
    /// The kernel waits for no answer.
    Silent,
}

impl<W: World, U: Upstream, K: Kernel> Session<W, U, K> {
    #[must_use]
    pub fn new(world: W, upstream: U, kernel: K) -> Rc<Session<W, U, K>> {
        let export = upstream.export();
        let session = Rc::new_cyclic(|this| Session {
            world,
            kernel,
            export,
            nodes: RefCell::new(Nodes::new(export.root)),
            dirs: RefCell::default(),
            callers: RefCell::default(),
            unanswered: RefCell::default(),
            running: Cell::new(0),
            ended: Signal::default(),
            agreed: Cell::new(0),
            unmounted: Cell::new(false),
            changed: Signal::default(),
            kept: RefCell::default(),
            notices: Notices::default(),
            given: Cell::default(),
            epochs: Cell::new(false),
            this: Weak::clone(this),
            upstream,
        });
        let taker = Taker(Rc::downgrade(&session));
        session.upstream.tell(Rc::new(taker));
        session
    }

    /// For tasks that outlive the call which starts them.
    pub(super) fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("whoever calls holds it")
    }

    /// Takes in a request: at once what concerns this table alone, the rest in
    /// a task of its own.
    pub fn on_message(self: &Rc<Self>, message: Message) {
        let Message { head, op, payload } = message;
        let op = match op {
            Ok(op) => op,
            Err(errno) => return self.refuse(head, errno),
        };
        match op {
            Op::Forget(list) => {
                let mut nodes = self.nodes.borrow_mut();
                for f in list {
                    if nodes.forget(f.nodeid, f.lookups) {
                        self.kept.borrow_mut().forget(f.nodeid);
                    }
                }
            }
            Op::Interrupt(unique) => {
                // Unknown: answered meanwhile, which is an answer too.
                if let Some(interrupt) = self.unanswered.borrow().get(&unique) {
                    interrupt.raise();
                }
            }
            Op::Init(args) => self.init(head, args),
            op => self.start(head, op, payload),
        }
    }

    /// What waits for the agreement runs after the kernel has been told of it.
    fn init(self: &Rc<Self>, head: InHeader, args: InitIn) {
        let session = Rc::clone(self);
        self.spawn(async move { session.answer(&head, session.on_init(args)).await });
    }

    fn refuse(self: &Rc<Self>, head: InHeader, errno: Errno) {
        let session = Rc::clone(self);
        self.spawn(async move { session.answer(&head, Err(errno)).await });
    }

    fn start(self: &Rc<Self>, head: InHeader, op: Op, payload: Option<Slice>) {
        let interrupt = Interrupt::default();
        self.unanswered
            .borrow_mut()
            .insert(head.unique, interrupt.clone());
        let origin = Origin {
            head,
            caller: self.callers.borrow_mut().of(&head, self.world.now()),
            interrupt,
            begun: self.kept.borrow().races.now(),
            fills: self.kept.borrow().pages.begun(head.nodeid),
        };
        let is_fill = self.begins_fill(&origin, &op);
        let session = Rc::clone(self);
        self.spawn(async move {
            let outcome = session.run(&origin, op, payload).await;
            session.unanswered.borrow_mut().remove(&origin.head.unique);
            session.answer(&origin.head, outcome).await;
            if is_fill {
                session.filled(origin.head.nodeid, origin.head.unique);
            }
        });
    }

    /// A READ that does not tell the lock owner fills pages; its folios are
    /// locked until it is answered.
    fn begins_fill(&self, from: &Origin, op: &Op) -> bool {
        let Op::Read(args) = op else { return false };
        if args.read_flags & read::LOCKOWNER != 0 {
            return false;
        }
        let InHeader { nodeid, unique, .. } = from.head;
        let pages = &mut self.kept.borrow_mut().pages;
        pages.begin(nodeid, unique, args.offset, args.size, from.begun);
        true
    }

    /// What the kernel is to be told next where it may make the teller wait:
    /// each notice goes in a context of its own (C3). Never ends.
    pub async fn next_notice(&self) -> Option<Letter> {
        self.notices.next().await
    }

    /// Requests that the kernel waits for.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.borrow().len()
    }

    /// Runs `task` and counts it until it ends.
    pub(super) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let session = Rc::clone(self);
        self.running.set(self.running.get() + 1);
        self.world.spawn(async move {
            task.await;
            session.running.set(session.running.get() - 1);
            session.ended.notify();
        });
    }

    /// The kernel and this mount have agreed how to talk.
    pub(super) fn on_agreed(&self, flags: u64) {
        self.agreed.set(flags);
        self.changed.notify();
    }

    /// Ends when the kernel has said INIT, and so the mount answers; false if
    /// it was unmounted instead.
    pub async fn started(&self) -> bool {
        while self.agreed.get() == 0 && !self.unmounted.get() {
            self.changed.wait().await;
        }
        !self.unmounted.get()
    }

    /// Nothing more will come: unmounted, or a kernel that we cannot talk to.
    pub(super) fn on_unmounted(&self) {
        self.unmounted.set(true);
        self.changed.notify();
    }

    /// Ends when nothing more will come.
    pub(super) async fn unmounted(&self) {
        while !self.unmounted.get() {
            self.changed.wait().await;
        }
    }

    #[must_use]
    pub fn is_unmounted(&self) -> bool {
        self.unmounted.get()
    }

    /// Ends when no task runs.
    pub async fn quiet(&self) {
        while self.running.get() > 0 {
            self.ended.wait().await;
        }
    }

    async fn answer(&self, head: &InHeader, outcome: Result<Outcome, Errno>) {
        let given = self.given.take();
        let sent = match &outcome {
            Ok(Outcome::Silent) => Ok(()),
            Ok(Outcome::Done) => self.kernel.reply(head.unique, &[]).await,
            Ok(Outcome::Bytes(bytes)) => self.kernel.reply(head.unique, &[bytes]).await,
            Ok(Outcome::Data(parts)) => {
                let parts: Vec<&[u8]> = parts.iter().map(|p| &p[..]).collect();
                self.kernel.reply(head.unique, &parts).await
            }
            Err(errno) => self.kernel.refuse(head.unique, *errno).await,
        };
        match sent {
            // ENOENT: the connection was aborted and the request with it; the
            // node and the open it names go with the mount.
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
            Err(e) => self.world.log(
                Level::Error,
                &format!(
                    "fuse: the kernel refused the answer to opcode {}: {e}",
                    head.opcode
                ),
            ),
        }
        if let Some(given) = given {
            self.on_written(given);
        }
    }

    /// The kernel counts from when a reply is written. If the process was
    /// stopped since the reply was made, that is longer than it was meant.
    fn on_written(&self, given: Mono) {
        let late = self.world.now() - given;
        if late > LATE_MAX {
            self.this().take_back_late(late);
        }
    }

    /// Asks the box, without data in either direction.
    pub(super) async fn ask(&self, from: &Origin, request: Request) -> Result<Reply, Errno> {
        let plain = self.plain(from, request);
        Ok(self.call(plain).await?.0)
    }

    /// A request of this caller with no flags, umask or data.
    pub(super) fn plain(&self, from: &Origin, request: Request) -> Ask {
        Ask {
            context: Context::new(Rc::clone(&from.caller)),
            request,
            payload: None,
            interrupt: from.interrupt.clone(),
        }
    }

    /// Asks the box. ENOSYS becomes EOPNOTSUPP: the kernel takes the first for
    /// "never ask again", which one box's refusal is not.
    pub(super) async fn call(&self, ask: Ask) -> Result<Answer, Errno> {
        let Ask {
            context,
            request,
            payload,
            interrupt,
        } = ask;
        let answer = self.upstream.call(&context, request, payload, &interrupt);
        match answer.await {
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            other => other,
        }
    }

    /// The node of a request; ESTALE if the kernel was not given it.
    pub(super) fn node(&self, nodeid: u64) -> Result<Node, Errno> {
        self.nodes.borrow().find(nodeid).ok_or(Errno::ESTALE)
    }

    pub(super) fn has(&self, bit: u64) -> bool {
        self.agreed.get() & bit != 0
    }

    /// Whether shared mappings can work on this kernel.
    #[must_use]
    pub fn maps_shared(&self) -> bool {
        self.has(init::DIRECT_IO_ALLOW_MMAP)
    }
}

/// Between the making of a reply and its writing: less than the margin after
/// which the box passes locks on.
const LATE_MAX: Duration = Duration::from_millis(50);
