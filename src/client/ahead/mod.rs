//! Changes that a client answers ahead of the box: those of files that it has
//! to itself (EX), and of what was born below them. It decides by the box's own
//! rules over its own records, answers, and sends the request ORDERED.
//!
//! ```text
//! change ─► all in the tree? ─ yes ─► decide ─► answered ─► sent in order ─► done
//!   │ no                                                       refused: told, lost
//!   └─► asked of the box, AFTER those before; the second one soon asks for EX
//!                                │ granted
//!                                ▼
//!                     prepare: attributes, ACLs?, names ─► a root of the tree
//! callback ─► the root leaves the tree ─► what was sent is done ─► above takes back ─► cancel
//! ```
//! `tree`, `decide`, `stock` and `asks` are the pure parts.
//!
//! Architecture invariant: nothing is answered ahead that the box could refuse
//! for a reason that can be known (L4): the lock, the rights, the FIDs and the
//! origin's limits are at hand, and the lease runs. A root that has begun to end
//! is in the tree no more.

mod answers;
mod asks;
mod busy;
pub(super) mod decide;
mod glimpse;
mod prepare;
mod stock;
mod sweep;
#[cfg(test)]
mod tests;
mod tree;

pub use answers::answer;
pub use busy::Change as Underway;
pub use glimpse::on_glimpse;
pub use tree::Tree;

use super::cached::{self, opens};
use super::call::{CallError, Context, Order, Outcome, Pending};
use super::{Import, LostChange, Terms, custody};
use crate::base::{Attr, Bits, Fid, FileKind, Mono, Name, Time, Transno};
use crate::namespace::draft::Change;
use crate::namespace::{Caller, Ctx};
use crate::wire::head::flags;
use crate::wire::op::Entry;
use crate::wire::{Features, FidsWanted, Granted, Reply, Request};
use crate::world::sync::Signal;
use crate::world::{Level, World};
use asks::Asks;
use busy::Busy;
use decide::{Asked, Decided};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use stock::{Clock, Stock};
use sweep::Sweeps;
use tree::TreeView;

/// A file that was not changed for so long is given up with one that another
/// client wants; somewhat less than the time after which the box would call it
/// back for whoever looks at it (`shard::locks::glimpse::LATELY`).
const IDLE: Duration = Duration::from_millis(1500);

/// Records of files and names in the tree; some 300 bytes each.
const RECORDS_MAX: usize = 1 << 17;

#[derive(Default)]
pub struct Ahead {
    /// `cached` answers by it, too.
    tree: Rc<RefCell<Tree>>,
    stock: RefCell<Stock>,
    clock: RefCell<Clock>,
    asks: RefCell<Asks>,
    sweeps: RefCell<Sweeps>,
    busy: Rc<Busy>,
    /// Changes of files that are being prepared wait here.
    preparing: RefCell<BTreeMap<Fid, Vec<Rc<Pending>>>>,
    /// Changes answered ahead; the requests that ask for them, which may be
    /// fewer; and those of these that the box has answered.
    decided: Cell<u64>,
    sent: Cell<u64>,
    answered: Cell<u64>,
    /// Those that were sent before the connection in use.
    resent: Cell<u64>,
    moved: Signal,
}

impl Ahead {
    #[must_use]
    pub fn tree(&self) -> Rc<RefCell<Tree>> {
        Rc::clone(&self.tree)
    }

    /// Has the client this file to itself?
    #[must_use]
    pub fn has(&self, fid: Fid) -> bool {
        self.tree.borrow().has(fid)
    }

    /// Was the file born below what the client has to itself, and does it know
    /// all of it now?
    #[must_use]
    pub fn has_born(&self, fid: Fid) -> bool {
        let root = self.tree.borrow().root_of(fid);
        root.is_some_and(|root| root != fid) && !self.busy.has(fid)
    }

    #[must_use]
    pub fn attr(&self, fid: Fid) -> Option<Attr> {
        self.tree.borrow().attr(fid).cloned()
    }

    /// What a name leads to, if that is known.
    #[must_use]
    pub fn find(&self, dir: Fid, name: &Name) -> Option<Option<Fid>> {
        self.tree.borrow().find(dir, name)
    }

    /// The box said what time it is.
    pub fn on_told(&self, told: Time, now: Time) {
        self.clock.borrow_mut().on_told(told, now);
    }

    /// The time by the box's clock.
    #[must_use]
    pub fn now(&self, wall: Time) -> Time {
        self.clock.borrow().now(wall)
    }

    /// Has the client this file to itself by a lock of its own, and has not
    /// changed it for a while?
    #[must_use]
    pub fn is_idle(&self, fid: Fid, now: Time) -> bool {
        let tree = self.tree.borrow();
        let is_quiet = |attr: &Attr| {
            let ago = now.nanos() - attr.ctime.nanos();
            attr.kind == FileKind::Regular && ago >= IDLE.as_nanos().cast_signed()
        };
        tree.root_of(fid) == Some(fid)
            && tree.attr(fid).is_some_and(is_quiet)
            && !self.busy.has(fid)
    }

    /// Changes that were answered here before the box had them.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.decided.get()
    }

    /// Does the box lack something that was answered?
    fn is_behind(&self) -> bool {
        self.answered.get() < self.sent.get()
    }

    /// Ends when the box has answered all that was answered here by now.
    async fn caught_up(&self) {
        let sent = self.sent.get();
        while self.answered.get() < sent {
            self.moved.wait().await;
        }
    }

    /// Ends when there are FIDs to create with, or none are on their way.
    async fn stocked(&self) {
        while self.stock.borrow().is_awaited() {
            self.moved.wait().await;
        }
    }

    /// Whether to ask for a file that is changed to oneself.
    pub fn asks(&self, fid: Fid, now: Mono) -> bool {
        !self.has(fid) && self.asks.borrow_mut().on_change(fid, now)
    }

    /// The same for a directory in which a name is removed: who has cleared
    /// others goes on here.
    pub fn clears(&self, dir: Fid, now: Mono) -> bool {
        let is_second = self.asks(dir, now);
        let is_shunned = self.asks.borrow().is_shunned(dir, now);
        let is_next = !is_shunned && self.sweeps.borrow().is_on(now);
        !self.has(dir) && (is_second || is_next)
    }
}

/// Can the box take what is answered ahead of it?
pub fn is_agreed<W: World>(import: &Import<W>) -> bool {
    let agreed = import.agreed.borrow();
    let has = |bit| agreed.as_ref().is_some_and(|a| a.features.has(bit));
    let is_wanted = import.options.locks && import.options.ahead;
    is_wanted && has(Features::LOCKS) && has(Features::ORDER | Features::FID_GRANTS)
}

/// What may be believed of a file that the client has to itself.
pub fn terms<W: World>(import: &Import<W>, fid: Fid) -> Option<Terms> {
    if !import.ahead.has(fid) {
        return None;
    }
    Some(import.cached.terms_of(Bits::ALL, import.world.now()))
}

/// Takes a call in: answers it ahead of the box, or has it asked.
pub fn dispatch<W: World>(import: &Rc<Import<W>>, pending: Rc<Pending>) {
    let changed = changed(&pending.request.borrow());
    let ahead = &import.ahead;
    if let Some(waiting) = changed
        .iter()
        .find(|fid| ahead.preparing.borrow().contains_key(fid))
    {
        let mut preparing = ahead.preparing.borrow_mut();
        preparing.entry(*waiting).or_default().push(pending);
        return;
    }
    let is_here = !changed.is_empty() && attempt(import, &pending, &changed);
    prepare::on_removal(import, &pending, is_here);
    if is_here {
        return;
    }
    let exposed = exposes(&ahead.tree.borrow(), &pending.request.borrow());
    if exposed.is_empty() {
        return ask(import, &pending, &changed);
    }
    // What leaves the tree can be seen by others: they must find it as it is.
    let import = Rc::clone(import);
    let world = import.world.clone();
    world.spawn(async move {
        for root in exposed {
            give_up(&import, root).await;
        }
        dispatch(&import, pending);
    });
}

/// Has a request asked of the box.
fn ask<W: World>(import: &Rc<Import<W>>, pending: &Rc<Pending>, changed: &[Fid]) {
    let ahead = &import.ahead;
    if ahead.is_behind() {
        pending.order.set(Order::After);
    }
    if !changed.is_empty() {
        *pending.underway.borrow_mut() = Some(ahead.busy.begin(changed));
    }
    let request = pending.request.borrow();
    let cancels = cached::on_begin(import, &pending.context, &request);
    *pending.asked.borrow_mut() = cached::asks(import, &pending.context, &request, cancels);
    pending.since.set(import.cached.since());
    drop(request);
    if import.ledger.borrow_mut().queue(pending) {
        import.pump();
    }
}

/// Answers a change ahead of the box, if all that it touches is in the tree.
fn attempt<W: World>(import: &Rc<Import<W>>, pending: &Rc<Pending>, changed: &[Fid]) -> bool {
    let ahead = &import.ahead;
    let is_ours = {
        let tree = ahead.tree.borrow();
        changed
            .iter()
            .all(|fid| tree.has(*fid) && !ahead.busy.has(*fid))
    };
    let is_page = pending.context.flags & flags::PAGE_WRITE != 0;
    if !is_ours || is_page || !is_agreed(import) {
        return false;
    }
    let is_fit = import.cached.is_within_lease(import.world.now());
    if !is_fit || !import.ledger.borrow().takes_ahead(pending.bytes()) {
        return false;
    }
    let at = ahead.clock.borrow_mut().stamp(import.world.wall());
    let Some((decided, root)) = decided(import, pending, at) else {
        return false;
    };
    let Decided {
        reply,
        change,
        mut request,
    } = decided;
    if let (Request::Create(op), Reply::Entry(entry)) = (&mut request, &reply) {
        opens::born(import, &pending.context, op, &entry.attr);
    }
    let wrote = match (&request, &pending.payload) {
        (Request::Write(op), Some(bytes)) => {
            let size = ahead.attr(op.fid).map_or(0, |attr| attr.size);
            let before = cached::Wrote::before(&import.cached, op.fid, size);
            Some((before, (op.fid, op.offset), bytes))
        }
        _ => None,
    };
    let cancels = cached::on_begin(import, &pending.context, &request);
    if let Some((before, (fid, offset), bytes)) = wrote {
        before.keep(&import.cached, fid, offset, bytes);
    }
    pending.asked.borrow_mut().cancels = cancels;
    if change.born.is_some() {
        ahead.stock.borrow_mut().take();
        restock(import, &pending.context);
    }
    let touched: Vec<Fid> = change.inodes.iter().map(|(fid, _)| *fid).collect();
    ahead.tree.borrow_mut().apply(change, root);
    // A file that lost its last name is decided about no more, and what was known
    // of it is older than that.
    for gone in touched.iter().filter(|fid| !ahead.has(**fid)) {
        import.cached.forget(*gone);
    }
    *pending.touched.borrow_mut() = touched;
    *pending.request.borrow_mut() = request;
    pending.since.set(import.cached.since());
    pending.order.set(Order::Ahead(at));
    let outcome = Ok((reply, None));
    let is_own = import.ledger.borrow_mut().queue_ahead(pending, outcome);
    ahead.decided.set(ahead.decided.get() + 1);
    ahead.sent.set(ahead.sent.get() + u64::from(is_own));
    import.pump();
    if ahead.tree.borrow().len() > RECORDS_MAX {
        relieve(import);
    }
    true
}

/// What the change does, and under whose lock; `None`: the box must say.
fn decided<W: World>(import: &Import<W>, pending: &Pending, at: u64) -> Option<(Decided, Fid)> {
    let ahead = &import.ahead;
    let (tree, stock) = (ahead.tree.borrow(), ahead.stock.borrow());
    let request = pending.request.borrow();
    if is_reserved(import, &request) {
        return None;
    }
    let caller = caller(&pending.context);
    let is_absent = |dir: Fid, name: &Name| import.cached.is_known(dir, name, None);
    let view = TreeView {
        tree: &tree,
        fresh: stock.next().map(|fid| (fid, fid.born_ino())),
        is_absent: &is_absent,
    };
    let asked = Asked {
        ctx: Ctx {
            caller: &caller,
            bounds: stock.bounds()?,
            now: Time::from_nanos(at.into()),
        },
        umask: pending.context.umask,
        flags: pending.context.flags,
        len: pending.bytes() as u64,
        is_writer: match &*request {
            Request::Write(op) => import.ledger.borrow().handles().has_writer(op.fid),
            Request::Setattr(op) => import.ledger.borrow().handles().has_writer(op.fid),
            _ => false,
        },
    };
    let decided = decide::decide(&view, &asked, &request).ok()?;
    let root = root_of(&tree, &request, &decided.change)?;
    Some((decided, root))
}

fn caller(context: &Context) -> Caller {
    let cred = &context.cred;
    Caller {
        uid: cred.uid,
        gid: cred.gid,
        groups: cred.groups.clone(),
    }
}

/// Under whose lock a change is made; what is removed goes nowhere.
fn root_of(tree: &Tree, request: &Request, change: &Change) -> Option<Fid> {
    match request {
        Request::Unlink(_) => tree.each_root(change),
        _ => tree.one_root(change),
    }
}

/// Names at the root that may be the box's own (O15).
fn is_reserved<W: World>(import: &Import<W>, request: &Request) -> bool {
    let root = import.agreed.borrow().as_ref().map(|a| a.root);
    let is_own =
        |dir: Fid, name: &Name| Some(dir) == root && name.as_bytes().starts_with(b".forebay-");
    match request {
        Request::Create(op) => op.name.as_ref().is_some_and(|name| is_own(op.parent, name)),
        Request::Link(op) => is_own(op.parent, &op.name),
        Request::Rename(op) => is_own(op.to, &op.to_name),
        _ => false,
    }
}

/// The files that a request changes, or whose names; of an unlink only the
/// directory is known.
fn changed(request: &Request) -> Vec<Fid> {
    match request {
        _ if custody::is_about(request) => Vec::new(),
        Request::Create(op) => vec![op.parent],
        Request::Link(op) => vec![op.parent, op.fid],
        Request::Unlink(op) => vec![op.parent],
        Request::Rename(op) if op.from == op.to => vec![op.from],
        Request::Rename(op) => vec![op.from, op.to],
        Request::Setattr(op) => vec![op.fid],
        Request::XattrSet(op) => vec![op.fid],
        Request::XattrRemove(op) => vec![op.fid],
        Request::Write(op) => vec![op.fid],
        Request::Fallocate(op) => vec![op.fid],
        Request::CopyRange(op) => vec![op.to],
        Request::Open(op) if op.flags & libc::O_TRUNC.cast_unsigned() != 0 => vec![op.fid],
        _ => Vec::new(),
    }
}

/// Roots whose files get a name elsewhere, or by the box's hand.
fn exposes(tree: &Tree, request: &Request) -> Vec<Fid> {
    let born = |fid: Option<Fid>| {
        let fid = fid?;
        tree.root_of(fid).filter(|root| *root != fid)
    };
    let named = |dir: Fid, name: &Name| born(tree.find(dir, name).flatten());
    let roots = match request {
        Request::Link(op) => [born(Some(op.fid)), None],
        Request::Rename(op) => [named(op.from, &op.from_name), named(op.to, &op.to_name)],
        _ => [None, None],
    };
    roots.into_iter().flatten().collect()
}

/// Gives the locks of a file back, by the client's own will, and waits for it.
async fn give_up<W: World>(import: &Rc<Import<W>>, fid: Fid) {
    let ended = cached::give_up(import, fid);
    for end in ended {
        end.get().await;
    }
}

/// There is too much in the tree.
fn relieve<W: World>(import: &Rc<Import<W>>) {
    let root = import.ahead.tree.borrow().oldest_root();
    if let Some(root) = root {
        cached::give_up(import, root);
    }
}

/// Asks for FIDs, if they run short.
fn restock<W: World>(import: &Rc<Import<W>>, context: &Context) {
    let Some(count) = import.ahead.stock.borrow_mut().wants() else {
        return;
    };
    let request = Request::Fids(FidsWanted { count });
    let pending = Pending::new(context, request, None);
    let call = super::Call(Rc::clone(&pending));
    let (own, world) = (Rc::clone(import), import.world.clone());
    world.spawn(async move {
        let reply = call.reply().await;
        let granted = match &reply {
            Ok((Reply::Fids(granted), _)) => Some(granted),
            _ => None,
        };
        own.ahead.stock.borrow_mut().on_granted(granted);
        own.ahead.moved.notify();
    });
    ask(import, &pending, &[]);
}

/// An answer has come, before its caller is told.
pub fn on_answer<W: World>(
    import: &Rc<Import<W>>,
    pending: &Pending,
    outcome: &Outcome,
    granted: &Granted,
) {
    let ahead = &import.ahead;
    let request = pending.request.borrow();
    let mut tree = ahead.tree.borrow_mut();
    if pending.is_ahead() {
        tree.on_answered(&pending.touched.borrow());
    }
    let mut unsure = None;
    if let (false, Ok((reply, _))) = (pending.is_ahead(), outcome) {
        let has_changed = pending.transno.get() > Transno(0);
        unsure = on_changed(&mut tree, &request, reply, has_changed);
    }
    for shown in &granted.shown {
        tree.on_shown(shown.fid, &shown.attr);
    }
    match outcome {
        // Without a version: as another client has it to itself.
        Ok((Reply::Entry(entry), _)) if entry.attr.version > 0 => {
            tree.on_shown(entry.fid, &entry.attr);
        }
        Ok((Reply::Written(done), _)) => {
            let fid = changed(&request).first().copied();
            tree.on_shown(fid.unwrap_or(Fid::NONE), &done.attr);
        }
        _ => {}
    }
    drop(tree);
    if let Some(root) = unsure {
        cached::give_up(import, root);
    }
    if pending.is_ahead() {
        ahead.answered.set(ahead.answered.get() + 1);
        ahead.moved.notify();
        if let Err(why) = outcome {
            refused(import, pending, why);
        }
    } else {
        prepare::adopt(import, pending, outcome);
        prepare::begin(import, pending, granted);
    }
}

/// Names, and extended attributes, that the box has changed for this client.
/// Returns a root about which nothing is sure now.
fn on_changed(tree: &mut Tree, request: &Request, reply: &Reply, has_changed: bool) -> Option<Fid> {
    // A new mode goes into an ACL, and what is written takes a capability away.
    let is_about = matches!(request, Request::XattrSet(_) | Request::XattrRemove(_));
    for fid in changed(request) {
        tree.doubt_xattrs(fid, is_about);
    }
    let named = |entry: &Entry| Some((entry.fid, entry.attr.kind, entry.attr.ino));
    match (request, reply) {
        (Request::Create(op), Reply::Entry(entry)) => {
            if let Some(name) = &op.name {
                tree.set_name(op.parent, name, named(entry));
            }
        }
        (Request::Link(op), Reply::Entry(entry)) => {
            tree.set_name(op.parent, &op.name, named(entry));
        }
        (Request::Unlink(op), _) => tree.set_name(op.parent, &op.name, None),
        // Two names of one file: nothing happened. The tree may know one only.
        (Request::Rename(_), _) if !has_changed => {}
        (Request::Rename(op), _) => {
            let moved = tree.named(op.from, &op.from_name);
            let other = tree.named(op.to, &op.to_name);
            let swaps = op.flags & libc::RENAME_EXCHANGE != 0;
            let (here, there) = (if swaps { other } else { None }, moved);
            if there.is_none() && tree.has(op.to) {
                return tree.root_of(op.to);
            }
            if swaps && here.is_none() && tree.has(op.from) {
                return tree.root_of(op.from);
            }
            tree.set_name(op.from, &op.from_name, here);
            tree.set_name(op.to, &op.to_name, there);
        }
        _ => {}
    }
    None
}

/// The box does not do what was answered. It is lost, and whoever asks about
/// the file is told; what stands in the tree is wrong.
fn refused<W: World>(import: &Rc<Import<W>>, pending: &Pending, why: &CallError) {
    let line = format!(
        "a change that was answered before the box had it is lost: {}: {why}",
        described(&pending.request.borrow())
    );
    import.world.log(Level::Error, &line);
    import
        .ledger
        .borrow_mut()
        .on_refused(&pending.request.borrow());
    import.note_lost(LostChange::of(pending));
    let roots: Vec<Fid> = {
        let tree = import.ahead.tree.borrow();
        let touched = pending.touched.borrow();
        touched
            .iter()
            .filter_map(|fid| tree.root_of(*fid))
            .collect()
    };
    for root in roots {
        cached::give_up(import, root);
    }
}

/// A change, for the log.
pub fn described(request: &Request) -> String {
    let at = |verb: &str, dir: Fid, name: &Name| {
        format!(
            "{verb} {:?} in directory {dir}",
            name.as_bytes().escape_ascii().to_string()
        )
    };
    match request {
        Request::Create(op) => match &op.name {
            Some(name) => at("create", op.parent, name),
            None => format!("create a file without a name in directory {}", op.parent),
        },
        Request::Link(op) => at("link", op.parent, &op.name),
        Request::Unlink(op) => at("remove", op.parent, &op.name),
        Request::Rename(op) => format!(
            "{} to {:?}",
            at("rename", op.from, &op.from_name),
            op.to_name.as_bytes().escape_ascii().to_string()
        ),
        Request::Write(op) => format!("write to {} at {}", op.fid, op.offset),
        Request::Setattr(op) => format!("attributes of {}", op.fid),
        other => format!("{} of {:?}", other.label(), changed(other)),
    }
}

/// A lock that had `fid` for this client alone begins to end: the files that
/// rested on it, besides itself.
pub fn on_ending<W: World>(import: &Import<W>, fid: Fid) -> Vec<Fid> {
    let ahead = &import.ahead;
    ahead.asks.borrow_mut().on_lost(fid, import.world.now());
    ahead.sweeps.borrow_mut().on_lost(fid);
    let mut files = ahead.tree.borrow_mut().remove_root(fid);
    files.retain(|file| *file != fid);
    for file in &files {
        opens::declare(import, *file);
        import.cached.forget(*file);
    }
    files
}

/// Ends when the box has done all that was answered under locks that have begun
/// to end.
pub async fn caught_up<W: World>(import: &Rc<Import<W>>) {
    import.ledger.borrow_mut().press();
    import.pump();
    import.ahead.caught_up().await;
}

/// The box threw the client out, and what it had not done is lost.
pub fn on_evicted<W: World>(import: &Import<W>) {
    let ahead = &import.ahead;
    ahead.tree.borrow_mut().clear();
    ahead.stock.borrow_mut().clear();
    ahead.answered.set(ahead.sent.get());
    ahead.moved.notify();
}
