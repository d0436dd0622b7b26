//! What the box makes of what a holder says, and of holders that say nothing.

use super::puppet::{LOCK, Puppet, alone, handle};
use super::{ask, counted, create, getattr};
use forebay::base::codec::Bytes;
use forebay::base::{Attr, Bits, Errno, Extent, Fid, FileKind, LockId, Mode, SetAttr};
use forebay::client::{CallError, Client};
use forebay::sim::{Cluster, SimWorld};
use forebay::wire::locks::Of;
use forebay::wire::op::{self, Empty, Glimpsed, Intent};
use forebay::wire::{Callback, Features, LockWant, Reply, Request};
use forebay::world::World;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

const ALL: u64 = u64::MAX;

/// A box, somebody who has a file to himself, and somebody who looks.
struct Scene {
    cluster: Cluster,
    holder: Puppet,
    b: Client<SimWorld>,
    fid: Fid,
    attr: Attr,
}

type Seen = Rc<RefCell<Option<Attr>>>;

impl Scene {
    /// B looks, and is answered at some time.
    fn look(&self) -> Seen {
        let seen = Seen::default();
        let (b, fid, told) = (self.b.clone(), self.fid, Rc::clone(&seen));
        let world = b.world().clone();
        world.spawn(async move {
            *told.borrow_mut() = Some(getattr(&b, fid).await.expect("shown"));
        });
        seen
    }

    async fn shown(&self, seen: &Seen) -> Attr {
        for _ in 0..2000 {
            if let Some(attr) = seen.take() {
                return attr;
            }
            self.cluster.sim.sleep(Duration::from_millis(1)).await;
        }
        panic!("nobody was answered");
    }

    /// As the holder has made the file: longer than the box knows.
    fn longer(&self) -> Attr {
        Attr {
            size: 4242,
            blocks: 16,
            version: 99,
            ..self.attr.clone()
        }
    }

    fn say(&mut self, lock: LockId, attr: Attr) {
        let fid = self.fid;
        self.holder.answer(Glimpsed {
            lock,
            fid,
            is_alone: true,
            attr: Some(attr),
            xattrs_at_box: false,
        });
    }

    async fn glimpses(&self) -> u64 {
        counted(&self.cluster, "glimpses").await
    }
}

fn on_scene<F: Future<Output = ()>>(features: u64, kind: FileKind, play: impl FnOnce(Scene) -> F) {
    let cluster = Cluster::new(1);
    let sim = cluster.sim.clone();
    sim.run(async {
        cluster.start();
        let b = cluster.client("b").await.expect("the box is up").client;
        let mut holder = Puppet::connect(&cluster, 7, features).await;
        let Request::Create(made) = create(b.root(), "f") else {
            panic!("it creates");
        };
        let made = Request::Create(op::Create { kind, ..made });
        let mut want = alone(Of::Object);
        if kind == FileKind::Directory {
            // It has no bytes, and is given whole or not at all.
            want.try_bits = want.try_bits.without(Bits::DATA);
        }
        let Reply::Entry(entry) = holder.ask(&made, &[want]).await else {
            panic!("it is made");
        };
        play(Scene {
            cluster,
            holder,
            b,
            fid: entry.fid,
            attr: entry.attr,
        })
        .await;
    });
}

fn on_file<F: Future<Output = ()>>(play: impl FnOnce(Scene) -> F) {
    on_scene(ALL, FileKind::Regular, play);
}

#[test]
fn what_the_holder_says_is_shown_and_nothing_is_granted() {
    on_file(async |mut s| {
        for round in 1..4 {
            let seen = s.look();
            let question = s.holder.question().await;
            assert_eq!(*seen.borrow(), None);
            let said = s.longer();
            s.say(question, said.clone());
            let told = s.shown(&seen).await;
            assert_eq!(told, Attr { version: 0, ..said });
            assert_eq!(s.glimpses().await, round, "each look asks");
        }
        assert_eq!(s.b.counters().locks, 0);
        assert!(s.b.known_attr(s.fid).is_none());
        assert_eq!(counted(&s.cluster, "locks called back").await, 0);
    });
}

/// A name leads to it, and the directory may be kept; the file may not.
#[test]
fn a_name_is_looked_up_by_a_glimpse_too() {
    on_file(async |mut s| {
        let (b, seen) = (s.b.clone(), Seen::default());
        let told = Rc::clone(&seen);
        b.world().clone().spawn(async move {
            *told.borrow_mut() = Some(super::lookup(&b, "f").await.expect("shown"));
        });
        let question = s.holder.question().await;
        s.say(question, s.longer());
        assert_eq!(s.shown(&seen).await.size, 4242);
        assert!(s.b.known_attr(s.fid).is_none());
        assert_eq!(counted(&s.cluster, "locks called back").await, 0);
    });
}

#[test]
fn the_box_is_believed_where_the_holder_says_so() {
    on_file(async |mut s| {
        let seen = s.look();
        let (lock, fid) = (s.holder.question().await, s.fid);
        s.holder.answer(Glimpsed {
            lock,
            fid,
            is_alone: true,
            attr: None,
            xattrs_at_box: false,
        });
        let attr = Attr {
            version: 0,
            ..s.attr.clone()
        };
        assert_eq!(s.shown(&seen).await, attr);
        assert_eq!(s.glimpses().await, 1);
    });
}

/// Extended attributes are as the box has them, if their holder has changed none,
/// nor what an ACL depends on. What is asked so is not remembered.
#[test]
fn extended_attributes_are_the_boxs_where_the_holder_has_none_of_its_own() {
    type Ask = fn(Fid) -> Request;
    let asks: [Ask; 2] = [
        |fid| {
            let name = Bytes(b"user.a".to_vec());
            Request::XattrGet(op::XattrName { fid, name })
        },
        |fid| {
            let intent = Intent::default();
            Request::XattrList(op::OfFile { fid, intent })
        },
    ];
    let chmod: fn(&mut Attr) = |attr| attr.mode ^= 0o22;
    let same: fn(&mut Attr) = |_| {};
    let cases = [
        (true, same, true),
        (false, same, false),
        (true, chmod, false),
    ];
    for (ask_for, (xattrs_at_box, change, is_believed)) in
        asks.iter().flat_map(|a| cases.map(|c| (a, c)))
    {
        on_file(async |mut s| {
            let (b, fid, done) = (s.b.clone(), s.fid, Rc::new(Cell::new(false)));
            let (request, told) = (ask_for(fid), Rc::clone(&done));
            b.world().clone().spawn(async move {
                let answer = ask(&b, request).await;
                assert!(matches!(
                    answer,
                    Ok(Reply::Blob(_)) | Err(CallError::Failed(Errno::ENODATA))
                ));
                told.set(true);
            });
            let lock = s.holder.question().await;
            let mut attr = s.longer();
            change(&mut attr);
            s.holder.answer(Glimpsed {
                lock,
                fid,
                is_alone: true,
                attr: Some(attr),
                xattrs_at_box,
            });
            if !is_believed {
                s.holder.gives_up().await;
            }
            s.cluster.sim.sleep(Duration::from_millis(200)).await;
            assert!(done.get());
            assert_eq!(s.glimpses().await, u64::from(is_believed));
            let called = counted(&s.cluster, "locks called back").await;
            assert_eq!(called, u64::from(!is_believed));
        });
    }
}

/// The holder knows nothing, or says what the box has not accepted.
#[test]
fn who_cannot_be_believed_is_called_back() {
    let lies: [fn(&mut Attr); 8] = [
        |attr| attr.mode ^= 0o4000,
        |attr| attr.uid += 1,
        |attr| attr.gid += 1,
        |attr| attr.nlink += 1,
        |attr| attr.rdev += 1,
        |attr| attr.ino += 1,
        |attr| attr.kind = FileKind::Fifo,
        |attr| attr.btime.sec += 1,
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        on_file(async |mut s| {
            let seen = s.look();
            let question = s.holder.question().await;
            let mut said = s.longer();
            lie(&mut said);
            s.say(question, said);
            s.holder.gives_up().await;
            let told = s.shown(&seen).await;
            assert_eq!((told.size, told.mode), (0, s.attr.mode), "lie {n}");
            assert_eq!(s.glimpses().await, 0, "lie {n}");
        });
    }
    on_file(async |mut s| {
        let seen = s.look();
        let (lock, fid) = (s.holder.question().await, s.fid);
        s.holder.answer(Glimpsed {
            lock,
            fid,
            is_alone: false,
            attr: Some(s.longer()),
            xattrs_at_box: true,
        });
        s.holder.gives_up().await;
        assert_eq!(s.shown(&seen).await.size, 0);
    });
}

/// What is late, or was not asked of this client, or not so, changes nothing.
#[test]
fn late_and_forged_answers_change_nothing() {
    on_file(async |mut s| {
        let mut other = Puppet::connect(&s.cluster, 8, ALL).await;
        let seen = s.look();
        let question = s.holder.question().await;
        let forged = Glimpsed {
            lock: question,
            fid: s.fid,
            is_alone: true,
            attr: Some(s.longer()),
            xattrs_at_box: true,
        };
        other.answer(forged.clone());
        s.holder.answer(Glimpsed {
            lock: LockId(question.0 + 1),
            ..forged.clone()
        });
        s.holder.answer(Glimpsed {
            fid: s.b.root(),
            ..forged.clone()
        });
        let called = s.holder.called_within(Duration::from_millis(400)).await;
        assert_eq!((called, seen.take()), (None, None), "the question stands");
        // Then it is too late.
        let (head, callback) = s.holder.called().await;
        assert!(matches!(callback, Callback::Blocking(_)), "{callback:?}");
        s.holder.answer(forged);
        s.cluster.sim.sleep(Duration::from_millis(100)).await;
        assert_eq!(*seen.borrow(), None);
        s.holder.cancel(head.lock);
        assert_eq!(s.shown(&seen).await.size, 0);
        assert_eq!(s.glimpses().await, 0);
    });
}

/// What a holder says while its lock goes may be old: the box's own word counts.
#[test]
fn a_lock_that_is_gone_meanwhile_proves_nothing() {
    on_file(async |mut s| {
        let seen = s.look();
        let question = s.holder.question().await;
        s.holder.cancel(LOCK);
        s.say(question, s.longer());
        assert_eq!(s.shown(&seen).await.size, 0);
        assert_eq!(s.glimpses().await, 0);
    });
}

/// The same for one that somebody else asks for by then: he may have been let in
/// before the answer is. And nobody is asked whose lock is called back already.
#[test]
fn a_lock_that_is_called_back_meanwhile_proves_nothing() {
    on_file(async |mut s| {
        let seen = s.look();
        let question = s.holder.question().await;
        let (c, fid) = (s.cluster.client("c").await.expect("up").client, s.fid);
        c.world()
            .clone()
            .spawn(async move { chmod(&c, fid, 0o604).await });
        let (head, callback) = s.holder.called().await;
        assert!(matches!(callback, Callback::Blocking(_)), "{callback:?}");
        let later = s.look();
        s.say(question, s.longer());
        let called = s.holder.called_within(Duration::from_millis(100)).await;
        assert_eq!((called, seen.take(), later.take()), (None, None, None));
        s.holder.cancel(head.lock);
        for seen in [seen, later] {
            assert_eq!(s.shown(&seen).await.size, 0);
        }
        assert_eq!(s.glimpses().await, 0);
    });
}

async fn chmod(c: &Client<SimWorld>, fid: Fid, mode: u32) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    let request = Request::Setattr(op::Setattr { fid, set });
    ask(c, request).await.expect("changed");
}

#[test]
fn who_has_said_goodbye_keeps_nobody_waiting() {
    on_file(async |mut s| {
        let seen = s.look();
        s.holder.question().await;
        let before = s.cluster.sim.now();
        s.holder.say(&Request::Disconnect(Empty {}));
        assert_eq!(s.shown(&seen).await.size, 0);
        assert!(s.cluster.sim.now() - before < Duration::from_millis(200));
    });
}

/// A file that changes no more is given to whoever looks at it.
#[test]
fn an_idle_holder_is_called_back() {
    on_file(async |mut s| {
        s.cluster.sim.sleep(Duration::from_millis(2100)).await;
        let seen = s.look();
        s.holder.gives_up().await;
        s.shown(&seen).await;
        assert!(s.b.known_attr(s.fid).is_some(), "and may be kept");
    });
}

#[test]
fn only_files_and_only_who_knows_of_it_are_glimpsed() {
    let without = ALL & !Features::GLIMPSE;
    for (features, kind) in [(without, FileKind::Regular), (ALL, FileKind::Directory)] {
        on_scene(features, kind, async |mut s| {
            let seen = s.look();
            s.holder.gives_up().await;
            s.shown(&seen).await;
        });
    }
}

/// Who asks so that a lock is called back at once.
fn asks_of(features: u64, first: fn(Fid) -> Option<Request>, bits: Bits) {
    on_file(async move |mut s| {
        let mut asker = Puppet::connect(&s.cluster, 9, features).await;
        if let Some(first) = first(s.fid) {
            asker.say(&first);
        }
        let want = LockWant {
            lock: LockId(5),
            of: Of::Object,
            mode: Mode::Pr,
            bits,
            try_bits: Bits::UPDATE,
            extent: Extent::ALL,
        };
        let (fid, intent) = (s.fid, Intent::default());
        s.b.world().clone().spawn(async move {
            let getattr = Request::Getattr(op::OfFile { fid, intent });
            asker.ask(&getattr, &[want]).await;
        });
        s.holder.gives_up().await;
    });
}

#[test]
fn who_needs_a_lock_or_may_map_the_file_is_not_put_off_c17() {
    asks_of(ALL, |_| None, Bits::UPDATE);
    asks_of(ALL, |fid| Some(handle(fid)), Bits::NONE);
    asks_of(ALL & !Features::GLIMPSE, |_| None, Bits::NONE);
}

/// What its writer has open, and changed a moment ago, is not given to who only
/// looks at it: that would keep it from being the writer's alone.
#[test]
fn what_is_being_written_is_given_to_no_passer_by() {
    on_file(async |mut s| {
        s.holder.cancel(LOCK);
        s.holder.say(&handle(s.fid));
        getattr(&s.b, s.fid).await.expect("shown");
        assert!(s.b.known_attr(s.fid).is_none());
        s.cluster.sim.sleep(Duration::from_millis(1100)).await;
        getattr(&s.b, s.fid).await.expect("shown");
        assert!(s.b.known_attr(s.fid).is_some());
    });
}
