//! A mount whose upstream lends what it says: the tree in memory, with terms
//! that tests set, requests that they hold, and takings that they call.

use crate::tree::{Counts, Tree};
use forebay::base::{Bits, Errno, Extent, Fid, OpenId, Slice};
use forebay::client::{Above, Context, Fill, Terms};
use forebay::fuse::device::Device;
use forebay::fuse::server::serve;
use forebay::fuse::session::Session;
use forebay::fuse::sys::attach::{Attach, attach};
use forebay::fuse::upstream::{Answer, Export, Interrupt, Upstream};
use forebay::reactor::{Descriptor, Inbox, Local, Mail, Options, Port, run};
use forebay::wire::Request;
use forebay::world::sync::Signal;
use forebay::world::{Arrival, World};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A minute: whatever ends meanwhile did not end by its timeout.
pub const LONG: Duration = Duration::from_secs(60);

pub const ALL: Terms = Terms {
    name: LONG,
    attr: LONG,
    entries: LONG,
    pages: true,
};

/// Longer than anything but [`LONG`] takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A READ or WRITE, as it reached the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub label: &'static str,
    pub fill: Fill,
    pub flags: u16,
    pub offset: u64,
}

/// What the test's thread and the mount's have in common.
#[derive(Default)]
pub struct Shared {
    terms: Mutex<Terms>,
    /// Requests of this label wait before, or after, they take effect.
    before: Mutex<Option<&'static str>>,
    after: Mutex<Option<&'static str>>,
    held: Mutex<usize>,
    /// Whatever a reply names is taken back at once; counts what was.
    strikes: Mutex<Option<usize>>,
    seen: Mutex<Vec<Seen>>,
    orders: Mutex<VecDeque<Order>>,
}

enum Order {
    TakeBack(Fid, Bits, Extent),
    TakeAll,
    Grown(Fid, u64, u8),
    /// Another client's doing: not counted, and nobody is told.
    Remote(Request, Option<Vec<u8>>),
    Release,
}

/// The upstream, in the mount's thread.
struct Lender(Rc<Inner>);

struct Inner {
    local: Local,
    tree: Tree,
    shared: Arc<Shared>,
    above: RefCell<Option<Rc<dyn Above>>>,
    released: Signal,
}

impl Inner {
    async fn wait(&self, gate: &Mutex<Option<&'static str>>, label: &'static str) {
        if *gate.lock().unwrap() != Some(label) {
            return;
        }
        *self.shared.held.lock().unwrap() += 1;
        while *gate.lock().unwrap() == Some(label) {
            self.released.wait().await;
        }
        *self.shared.held.lock().unwrap() -= 1;
    }

    fn above(&self) -> Rc<dyn Above> {
        Rc::clone(self.above.borrow().as_ref().unwrap())
    }

    async fn obey(&self, order: Order) {
        match order {
            Order::TakeBack(fid, bits, range) => self.above().take_back(fid, bits, range).await,
            Order::TakeAll => self.above().take_back_all().await,
            Order::Grown(fid, size, last) => self.above().grown(fid, size, last).await,
            Order::Remote(request, payload) => {
                let context = Context::of(0, 0);
                let payload = payload.map(Slice::from);
                let none = Interrupt::default();
                let done = self.tree.call(&context, request, payload, &none);
                assert!(done.await.is_ok());
            }
            Order::Release => {
                *self.shared.before.lock().unwrap() = None;
                *self.shared.after.lock().unwrap() = None;
                self.released.notify();
            }
        }
    }
}

impl Upstream for Lender {
    fn export(&self) -> Export {
        self.0.tree.export()
    }

    fn next_open(&self) -> OpenId {
        self.0.tree.next_open()
    }

    async fn call(
        &self,
        context: &Context,
        request: Request,
        payload: Option<Slice>,
        interrupt: &Interrupt,
    ) -> Result<Answer, Errno> {
        let label = request.label();
        let offset = match &request {
            Request::Read(op) => Some(op.offset),
            Request::Write(op) => Some(op.offset),
            _ => None,
        };
        if let Some(offset) = offset {
            self.0.shared.seen.lock().unwrap().push(Seen {
                label,
                fill: context.fill,
                flags: context.flags,
                offset,
            });
        }
        self.0.wait(&self.0.shared.before, label).await;
        let answer = self.0.tree.call(context, request, payload, interrupt).await;
        self.0.wait(&self.0.shared.after, label).await;
        answer
    }

    async fn drain(&self) {}

    fn keeps(&self) -> bool {
        true
    }

    fn terms(&self, fid: Fid) -> Terms {
        if self.0.shared.strikes.lock().unwrap().is_some() {
            let inner = Rc::clone(&self.0);
            self.0.local.spawn(async move {
                inner.above().take_back(fid, Bits::ALL, Extent::ALL).await;
                if let Some(count) = &mut *inner.shared.strikes.lock().unwrap() {
                    *count += 1;
                }
            });
        }
        *self.0.shared.terms.lock().unwrap()
    }

    fn tell(&self, above: Rc<dyn Above>) {
        *self.0.above.borrow_mut() = Some(above);
    }
}

/// One mount, served by a thread of this process.
pub struct Mount {
    dir: tempfile::TempDir,
    counts: Counts,
    shared: Arc<Shared>,
    inbox: Inbox,
    server: Option<JoinHandle<bool>>,
}

/// Something that was ordered, and when it is done.
pub struct Ordered<'a>(&'a Mount, mpsc::Receiver<()>);

impl Ordered<'_> {
    pub fn wait(self) {
        if self.1.recv_timeout(PATIENCE).is_err() {
            // So that the test fails, instead of waiting for what it holds.
            let _ = self.0.order(Order::Release).1.recv_timeout(PATIENCE);
            panic!("what was ordered does not end");
        }
    }
    pub fn is_done(&self) -> bool {
        self.1.try_recv().is_ok()
    }
}

impl Mount {
    /// None where mounts cannot be made; a failure if `CI=true`.
    pub fn new(terms: Terms) -> Option<Mount> {
        let is_root = rustix::process::geteuid().is_root();
        if !Path::new("/dev/fuse").exists() || !is_root {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "mount tests cannot run, and CI=true");
            eprintln!("skipped: no /dev/fuse, or not root");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("forebay-kept-")
            .tempdir()
            .unwrap();
        let counts = Counts::default();
        let shared = Arc::new(Shared::default());
        *shared.terms.lock().unwrap() = terms;
        let what = Attach {
            source: String::from("kept"),
            allow_other: true,
            max_read: 1 << 20,
            flags: Vec::new(),
        };
        let device = attach(&what, dir.path()).unwrap();
        let port = Port::alone().unwrap();
        let inbox = port.inbox();
        let (tell, told) = mpsc::channel();
        let theirs = (counts.clone(), Arc::clone(&shared));
        let server = std::thread::spawn(move || {
            let (counts, shared) = theirs;
            let served = run(Options::new("kept", port), move |local| async move {
                let device = Descriptor::new(device);
                let inner = Rc::new(Inner {
                    local: local.clone(),
                    tree: Tree::new(counts),
                    shared,
                    above: RefCell::default(),
                    released: Signal::default(),
                });
                let lender = Lender(Rc::clone(&inner));
                let session = Session::new(local.clone(), lender, Device::new(device.clone()));
                local.spawn(obey(local.clone(), inner));
                tell.send(()).unwrap();
                let served = serve(local, session.clone(), device).await;
                session.quiet().await;
                served.unwrap();
                session.is_unmounted()
            });
            served.unwrap()
        });
        told.recv().unwrap();
        Some(Mount {
            dir,
            counts,
            shared,
            inbox,
            server: Some(server),
        })
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The tree's number of a file, as its inode number tells it.
    pub fn fid(&self, name: &str) -> Fid {
        use std::os::unix::fs::MetadataExt;
        let ino = std::fs::symlink_metadata(self.path(name)).unwrap().ino();
        Fid::new(1, u32::try_from(ino - 100).unwrap())
    }

    pub fn count(&self, label: &str) -> u64 {
        self.counts.of(label)
    }

    /// How often each kind of request was made while `f` ran.
    pub fn asked(&self, f: impl FnOnce()) -> BTreeMap<&'static str, u64> {
        let before = self.counts.0.lock().unwrap().clone();
        f();
        let mut after = self.counts.0.lock().unwrap().clone();
        // Nobody waits for closes.
        after.remove("Close");
        after.retain(|label, count| {
            *count -= before.get(label).copied().unwrap_or(0);
            *count > 0
        });
        after
    }

    pub fn set_terms(&self, terms: Terms) {
        *self.shared.terms.lock().unwrap() = terms;
    }

    fn order(&self, order: Order) -> Ordered<'_> {
        self.shared.orders.lock().unwrap().push_back(order);
        let (tell, told) = mpsc::channel();
        let reply = Box::new(move |_| {
            let _ = tell.send(());
        });
        let request = String::new();
        assert!(self.inbox.send(Mail::Admin { request, reply }).is_ok());
        Ordered(self, told)
    }

    pub fn take_back(&self, fid: Fid, bits: Bits) -> Ordered<'_> {
        self.order(Order::TakeBack(fid, bits, Extent::ALL))
    }
    pub fn take_back_all(&self) -> Ordered<'_> {
        self.order(Order::TakeAll)
    }
    pub fn grown(&self, fid: Fid, size: u64, last: u8) -> Ordered<'_> {
        self.order(Order::Grown(fid, size, last))
    }
    pub fn remote(&self, request: Request, payload: Option<&[u8]>) {
        let payload = payload.map(<[u8]>::to_vec);
        self.order(Order::Remote(request, payload)).wait();
    }

    /// Requests of this kind wait before they are carried out.
    pub fn hold(&self, label: &'static str) {
        *self.shared.before.lock().unwrap() = Some(label);
    }
    /// Their answers wait.
    pub fn hold_answers(&self, label: &'static str) {
        *self.shared.after.lock().unwrap() = Some(label);
    }
    pub fn wait_held(&self, count: usize) {
        until(|| *self.shared.held.lock().unwrap() >= count);
    }
    pub fn release(&self) {
        self.order(Order::Release).wait();
    }

    /// From now on, whatever a reply names is taken back at once.
    pub fn strike(&self, on: bool) {
        *self.shared.strikes.lock().unwrap() = on.then_some(0);
    }
    pub fn struck(&self) -> usize {
        self.shared.strikes.lock().unwrap().unwrap_or(0)
    }

    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// Unmounts; the server must end well.
    pub fn end(mut self) {
        // What is being taken back keeps it busy for a moment.
        let flags = rustix::mount::UnmountFlags::empty();
        until(|| rustix::mount::unmount(self.dir.path(), flags).is_ok());
        assert!(self.server.take().unwrap().join().unwrap());
    }
}

async fn obey(local: Local, inner: Rc<Inner>) {
    loop {
        let Arrival::Admin { reply, .. } = local.arrival().await else {
            return;
        };
        let order = inner.shared.orders.lock().unwrap().pop_front().unwrap();
        let inner = Rc::clone(&inner);
        local.spawn(async move {
            inner.obey(order).await;
            reply(String::new());
        });
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.server.is_some() {
            // Held requests go with the connection.
            let flags = rustix::mount::UnmountFlags::FORCE | rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.dir.path(), flags);
        }
    }
}

/// Waits for `condition`, and fails if it does not come.
pub fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it does not come");
        std::thread::yield_now();
    }
}

/// A shared mapping of the first bytes of a file.
pub struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    pub fn new(file: &std::fs::File, len: usize, is_writable: bool) -> Mapping {
        use std::os::fd::AsRawFd;
        let prot = match is_writable {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        let flags = libc::MAP_SHARED;
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours; the descriptor is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { at: at.cast(), len }
    }

    pub fn byte(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: inside the mapping; volatile, as others change it.
        unsafe { self.at.add(at).read_volatile() }
    }

    pub fn store(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: inside the mapping, which is writable.
        unsafe { self.at.add(at).write_volatile(byte) }
    }

    /// Writes what was stored.
    pub fn sync(&self) -> std::io::Result<()> {
        // SAFETY: the whole of a mapping.
        match unsafe { libc::msync(self.at.cast(), self.len, libc::MS_SYNC) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// How many of its pages the kernel keeps.
    pub fn resident(&self) -> usize {
        let mut pages = vec![0u8; self.len.div_ceil(4096)];
        // SAFETY: one byte for each page of the mapping.
        let told = unsafe { libc::mincore(self.at.cast(), self.len, pages.as_mut_ptr()) };
        assert_eq!(told, 0);
        pages.iter().filter(|p| **p & 1 != 0).count()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nothing refers to it.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}
