//! Random histories of changes that are answered ahead, through the queue with
//! and without merging: the box comes to the same, refuses nothing, and each
//! change is in exactly one request.

use super::Unsent;
use crate::base::codec::Bytes;
use crate::base::{Attr, Fid, FileKind, OpenId, SetAttr, Slice, Time};
use crate::client::LostChange;
use crate::client::ahead::decide::{Asked, decide};
use crate::client::call::{Context, Cred, Order, Pending};
use crate::client::window::Window;
use crate::namespace::tests::{Fake, ROOT};
use crate::namespace::{Caller, Ctx, Inode};
use crate::wire::head::{flags, spends};
use crate::wire::op::{Empty, Setattr, Write, XattrSet};
use crate::wire::{Reply, Request};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

const FILES: u32 = 3;
const BYTES_MAX: usize = 16 << 10;
/// Flash that the box promises: eight changes without bytes.
const GRANTED: u64 = 8 * 4096;

#[derive(Clone, Debug)]
enum Step {
    Do {
        who: usize,
        file: u32,
        what: What,
        /// Time passes before it, and privileges go by it.
        late: bool,
        kills: bool,
    },
    /// The oldest request is sent.
    Send,
}

#[derive(Clone, Debug)]
enum What {
    Set(SetAttr),
    /// So many bytes, at the end of those of the last write or elsewhere.
    Write(Option<u64>, usize),
    /// Privileges of a kind that is no mode bit.
    Capability,
}

/// The box's records and bytes.
struct Box {
    real: Fake,
    bytes: BTreeMap<Fid, Vec<u8>>,
}

struct Both {
    /// Where each change is done by itself, and where requests are.
    plain: Box,
    merged: Box,
    unsent: Unsent,
    window: Window,
    now: u64,
    end: u64,
    made: Vec<LostChange>,
    sent: Vec<LostChange>,
}

fn file(n: u32) -> Fid {
    Fid::new(1, 100 + n)
}

fn who(n: usize) -> Rc<Cred> {
    let (uid, gid, groups) = [(0, 0, vec![]), (5, 50, vec![51]), (6, 60, vec![50])][n].clone();
    Rc::new(Cred { uid, gid, groups })
}

impl Box {
    fn new() -> Box {
        let mut real = Fake::default();
        let root = real.inodes[&ROOT].clone();
        let kinds = [FileKind::Regular, FileKind::Regular, FileKind::Directory];
        for (n, kind) in (0..FILES).zip(kinds) {
            let attr = Attr {
                kind,
                mode: 0o664,
                uid: 5,
                gid: 50 + n,
                nlink: 1,
                size: 0,
                ino: u64::from(n),
                ..root.attr.clone()
            };
            let inode = Inode {
                attr,
                ..root.clone()
            };
            real.inodes.insert(file(n), inode);
        }
        let bytes = BTreeMap::new();
        Box { real, bytes }
    }

    /// Does a request, if it is allowed; the files that it touches.
    fn run(&mut self, pending: &Pending, at: u64) -> Option<Vec<Fid>> {
        let request = pending.request.borrow().clone();
        let cred = &pending.context.cred;
        let caller = Caller {
            uid: cred.uid,
            gid: cred.gid,
            groups: cred.groups.clone(),
        };
        let bounds = self.real.bounds.clone();
        let asked = Asked {
            ctx: Ctx {
                caller: &caller,
                bounds: &bounds,
                now: Time::from_nanos(at.into()),
            },
            umask: 0,
            flags: pending.context.flags,
            len: pending.bytes() as u64,
            is_writer: false,
        };
        let change = decide(&self.real, &asked, &request).ok()?.change;
        let touched = change.inodes.iter().map(|(fid, _)| *fid).collect();
        self.real.apply(change);
        if let Request::Write(op) = &request {
            let bytes = self.bytes.entry(op.fid).or_default();
            let given: Vec<u8> = pending.payloads().iter().flat_map(|p| p.to_vec()).collect();
            assert_eq!(given.len(), pending.bytes());
            let at = usize::try_from(op.offset).expect("little");
            bytes.resize(bytes.len().max(at + given.len()), 0);
            bytes[at..at + given.len()].copy_from_slice(&given);
        }
        Some(touched)
    }

    fn shows(&self, n: u32) -> (Attr, Option<&[u8]>, bool) {
        let attr = self.real.inodes[&file(n)].attr.clone();
        let capability = (file(n), b"security.capability".to_vec());
        // Who does two things at once counts one version, and blocks are the data path's.
        let attr = Attr { version: 0, ..attr };
        let bytes = self.bytes.get(&file(n)).map(Vec::as_slice);
        (attr, bytes, self.real.xattrs.contains_key(&capability))
    }
}

impl Both {
    fn new() -> Both {
        let mut window = Window::default();
        window.on_grant(GRANTED);
        Both {
            plain: Box::new(),
            merged: Box::new(),
            unsent: Unsent::default(),
            window,
            now: 2_000_000_000_000,
            end: 0,
            made: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Do {
                who: n,
                file: at,
                what,
                late,
                kills,
            } => {
                self.now += u64::from(*late) * 7;
                let mut context = Context::new(who(*n));
                context.flags = if *kills { flags::KILL_PRIV } else { 0 };
                let (request, len) = self.request(file(*at), what);
                let fill = self.made.len().to_le_bytes()[0];
                let payload = (len > 0).then(|| Slice::from(vec![fill; len]));
                self.change(&Pending::new(&context, request, payload));
            }
            Step::Send => self.send(),
        }
    }

    fn request(&mut self, fid: Fid, what: &What) -> (Request, usize) {
        match what {
            What::Set(set) => {
                let set = set.clone();
                (Request::Setattr(Setattr { fid, set }), 0)
            }
            What::Write(at, len) => {
                let offset = at.unwrap_or(self.end);
                self.end = offset + *len as u64;
                let open = OpenId(0);
                let append = false;
                let write = Write {
                    fid,
                    open,
                    offset,
                    append,
                };
                (Request::Write(write), *len)
            }
            What::Capability => {
                let set = XattrSet {
                    fid,
                    name: Bytes(b"security.capability".to_vec()),
                    value: Bytes(vec![1; 20]),
                    flags: 0,
                    clear_sgid: false,
                };
                (Request::XattrSet(set), 0)
            }
        }
    }

    /// As `ahead::attempt`: what is allowed is answered, and queued.
    fn change(&mut self, pending: &Rc<Pending>) {
        let Some(touched) = self.plain.run(pending, self.now) else {
            return;
        };
        self.made.extend(LostChange::of(pending));
        *pending.touched.borrow_mut() = touched;
        pending.order.set(Order::Ahead(self.now));
        if self.unsent.merge(pending, &mut self.window, BYTES_MAX) {
            MERGED.with(|all| all.set(all.get() + 1));
            self.is_bounded();
            return;
        }
        *pending.later.borrow_mut() = Some(Ok((Reply::Done(Empty {}), None)));
        self.unsent.push(pending);
        self.window.enter(pending);
        self.is_bounded();
    }

    /// What was answered has room, unless it is the only one.
    fn is_bounded(&self) {
        let is_answered = |p: &&Rc<Pending>| p.later.borrow().is_none();
        let answered: Vec<_> = self.unsent.iter().filter(is_answered).collect();
        let spent: u64 = answered.iter().map(|p| spends(p.bytes())).sum();
        assert!(spent <= GRANTED || answered.len() == 1, "{spent}");
        assert_eq!(self.window.claimed(), spent.max(GRANTED));
        // Nobody is answered before who waits for the change before.
        let waits = |p: &&Rc<Pending>| p.later.borrow().is_some();
        assert!(
            self.unsent
                .iter()
                .filter(waits)
                .all(|p| p.parts.borrow().is_empty())
        );
    }

    fn send(&mut self) {
        let Some(pending) = self.unsent.pop_front() else {
            return;
        };
        let Order::Ahead(at) = pending.order.get() else {
            panic!("it was answered ahead");
        };
        assert!(pending.bytes() <= BYTES_MAX);
        let request = pending.request.borrow().clone();
        let done = self.merged.run(&pending, at);
        assert!(done.is_some(), "{request:?} is refused");
        self.sent.extend(LostChange::of(&pending));
        self.window.leave(&pending);
        if self.unsent.is_empty() {
            self.agree();
        }
    }

    fn agree(&self) {
        for n in 0..FILES {
            assert_eq!(self.plain.shows(n), self.merged.shows(n));
        }
        assert_eq!(self.made.len(), self.sent.len());
        assert_eq!(self.window.claimed(), GRANTED, "nothing is spent");
        for n in 0..FILES {
            let of = |all: &[LostChange]| {
                let about = format!("{:?}", file(n));
                let told = all.iter().map(|lost| format!("{lost:?}"));
                told.filter(|t| t.contains(&about)).collect::<Vec<_>>()
            };
            assert_eq!(of(&self.made), of(&self.sent));
        }
    }
}

fn sets() -> impl Strategy<Value = SetAttr> {
    let id = || prop_oneof![4 => Just(None), 1 => (50..53u32).prop_map(Some)];
    let uid = prop_oneof![4 => Just(None), 1 => (5..7u32).prop_map(Some)];
    let mode = prop_oneof![Just(None), (0..0o10000u32).prop_map(Some)];
    let time = || prop_oneof![2 => Just(0), 1 => Just(1), 1 => Just(2)];
    let size = prop_oneof![9 => Just(None), 1 => (0..100u64).prop_map(Some)];
    let all = (
        mode,
        uid,
        id(),
        time(),
        time(),
        size,
        prop::bool::weighted(0.1),
    );
    all.prop_map(|(mode, uid, gid, atime, mtime, size, kill_priv)| {
        let at = |n: u64| (n == 1).then(|| Time::from_nanos(i128::from(n) * 5_000));
        SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: at(atime),
            mtime: at(mtime),
            ctime: None,
            atime_now: atime == 2,
            mtime_now: mtime == 2,
            kill_priv,
        }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let offset = prop_oneof![3 => Just(None), 1 => (0..50u64).prop_map(Some)];
    let what = prop_oneof![
        6 => sets().prop_map(What::Set),
        4 => (offset, 1..6000usize).prop_map(|(at, len)| What::Write(at, len)),
        1 => Just(What::Capability),
    ];
    let who = prop_oneof![3 => Just(0usize), 3 => Just(1), 1 => Just(2)];
    let change = (
        who,
        0..FILES,
        what,
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    let one = prop_oneof![
        5 => change.prop_map(|(who, file, what, late, kills)| {
            Step::Do { who, file, what, late, kills }
        }),
        1 => Just(Step::Send),
    ];
    proptest::collection::vec(one, 10..80)
}

thread_local! {
    /// Changes that went with others, in all histories: they are what it is about.
    static MERGED: Cell<usize> = const { Cell::new(0) };
}

const HISTORIES: u32 = 600;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(HISTORIES) })]
    fn histories_agree(steps in steps()) {
        let mut both = Both::new();
        for step in &steps {
            both.step(step);
        }
        while !both.unsent.is_empty() {
            both.send();
        }
    }
}

#[test]
fn one_request_for_two_changes_does_what_two_do() {
    histories_agree();
    let merged = MERGED.with(Cell::get);
    assert!(merged > HISTORIES as usize, "{merged}");
}
