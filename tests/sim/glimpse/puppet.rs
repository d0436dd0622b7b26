//! A client that does what a test says, frame by frame.

use forebay::base::{Bits, ClientId, Extent, Fid, LockId, Mode, OpenId, Slice, Tag, Transno, Xid};
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, SimConn};
use forebay::wire::connect::ANY_SHARD;
use forebay::wire::head::flags;
use forebay::wire::locks::Of;
use forebay::wire::op::{Cancel, Glimpsed};
use forebay::wire::{
    Asked, Callback, CallbackHead, ConnectRequest, Content, Features, Frame, LockCancel, LockWant,
    NO_TAG, Reply, Request, RequestHead,
};
use forebay::world::World;
use forebay::world::race::within;
use forebay::world::stream::{Receiver, Sender};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

pub struct Puppet {
    receiver: Receiver<SimConn>,
    sender: Sender<SimConn>,
    head: RequestHead,
    checksum: bool,
    next: u64,
    callbacks: VecDeque<(CallbackHead, Callback)>,
    world: forebay::sim::SimWorld,
}

/// Of the puppet's first request, which asks for a lock.
pub const LOCK: LockId = LockId(1);

impl Puppet {
    /// Connects with these features of this release's.
    pub async fn connect(cluster: &Cluster, id: u128, features: u64) -> Puppet {
        let world = cluster.sim.world(&format!("puppet{id}"));
        let conn = Rc::new(
            world
                .connect(&format!("{BOX}:9880"))
                .await
                .expect("connected"),
        );
        let mut receiver = Receiver::new(Rc::clone(&conn), world.pool(), &[]);
        let sender = Sender::start(&world, conn);
        let request = ConnectRequest {
            features: Features {
                bits: Features::OURS.bits & features,
            },
            client: ClientId(id),
            name: format!("puppet{id}"),
            target: "main".into(),
            incarnation: 0,
            conn_count: 1,
            shard: ANY_SHARD,
            payload_max: 1 << 20,
            tags: 16,
            lease_ms: 10_000,
            replay_from: Transno(0),
            committed_seen: Transno(0),
            path: Vec::new(),
            read_only: false,
        };
        let head = RequestHead {
            tag: NO_TAG,
            conn_count: 1,
            ..RequestHead::default()
        };
        sender.push(Frame::connect(Xid(1), &head, &request));
        let (message, _) = receiver.next().await.expect("an answer");
        let Content::Connected(_, Some(reply)) = message.content else {
            panic!("{:?}", message.content);
        };
        receiver.features = reply.features;
        Puppet {
            receiver,
            sender,
            head: RequestHead {
                incarnation: reply.incarnation,
                ..head
            },
            checksum: reply.features.has(Features::CHECKSUM),
            next: 2,
            callbacks: VecDeque::new(),
            world,
        }
    }

    fn push(&mut self, tag: Tag, request: &Request, asked: &Asked, bytes: Option<&[u8]>) -> Xid {
        let xid = Xid(self.next);
        self.next += 1;
        let asks = !asked.wants.is_empty();
        let head = RequestHead {
            tag,
            flags: if asks { flags::LOCKS } else { 0 },
            ..self.head
        };
        let payload = bytes.iter().map(|b| Slice::from(b.to_vec())).collect();
        let frame = Frame::asking(xid, &head, request, asked, payload, self.checksum);
        self.sender.push(frame);
        xid
    }

    /// What comes next; callbacks are kept.
    async fn take(&mut self) -> Option<(Xid, Reply)> {
        let (message, _) = self.receiver.next().await.expect("connected");
        match message.content {
            Content::Callback(head, callback) => {
                self.callbacks.push_back((head, callback));
                None
            }
            Content::Reply(_, reply) => reply.map(|reply| (message.xid, reply)),
            _ => None,
        }
    }

    /// Asks, with a wish for a lock, and waits for the answer.
    pub async fn ask(&mut self, request: &Request, wants: &[LockWant]) -> Reply {
        let asked = Asked {
            wants: wants.to_vec(),
            ..Asked::default()
        };
        let xid = self.push(Tag(0), request, &asked, None);
        loop {
            match self.take().await {
                Some((of, reply)) if of == xid => return reply,
                _ => {}
            }
        }
    }

    /// Something about the connection, for which nobody waits.
    pub fn say(&mut self, request: &Request) {
        self.push(NO_TAG, request, &Asked::default(), None);
    }

    /// The next callback, if one comes within this time.
    pub async fn called_within(&mut self, time: Duration) -> Option<(CallbackHead, Callback)> {
        let world = self.world.clone();
        let next = async {
            while self.callbacks.is_empty() {
                self.take().await;
            }
        };
        within(&world, time, next).await?;
        self.callbacks.pop_front()
    }

    pub async fn called(&mut self) -> (CallbackHead, Callback) {
        let called = self.called_within(Duration::from_secs(5)).await;
        called.expect("a callback")
    }

    /// The number of the question that it is asked next.
    pub async fn question(&mut self) -> LockId {
        let (head, callback) = self.called().await;
        assert!(matches!(callback, Callback::Glimpse(_)), "{callback:?}");
        head.lock
    }

    /// The lock that it is asked for next, which it gives up.
    pub async fn gives_up(&mut self) {
        let (head, callback) = self.called().await;
        let is_blocking = matches!(callback, Callback::Blocking(_) | Callback::Growing(_));
        assert!(is_blocking, "{callback:?}");
        self.cancel(head.lock);
    }

    pub fn cancel(&mut self, lock: LockId) {
        let lock = LockCancel {
            lock,
            bits: Bits::ALL,
            in_use: false,
        };
        let locks = vec![lock];
        self.say(&Request::Cancel(Cancel { locks }));
    }

    pub fn answer(&mut self, glimpsed: Glimpsed) {
        self.say(&Request::Glimpsed(glimpsed));
    }
}

/// All of a file to oneself.
pub fn alone(of: Of) -> LockWant {
    let shown = Bits::LOOKUP.with(Bits::ATTRS).with(Bits::XATTR);
    LockWant {
        lock: LOCK,
        of,
        mode: Mode::Ex,
        bits: Bits::NONE,
        try_bits: shown.with(Bits::DATA),
        extent: Extent::ALL,
    }
}

/// A handle that the client says it has.
pub fn handle(fid: Fid) -> Request {
    let open = forebay::wire::op::OpenFile {
        fid,
        open: OpenId(9),
        flags: 0,
    };
    Request::Reopen(forebay::wire::op::Reopen { opens: vec![open] })
}
