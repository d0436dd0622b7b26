//! Files that a client opens and closes without a word (bit OPEN; N9).

use forebay::base::codec::Bytes;
use forebay::base::{Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice};
use forebay::client::{CallError, Client, Context, Options};
use forebay::sim::cluster::BOX;
use forebay::sim::{Cluster, SimWorld};
use forebay::wire::op::{self, Entry, Intent};
use forebay::wire::{Reply, Request};
use forebay::world::World;
use std::rc::Rc;
use std::time::Duration;

const USER: u32 = 1000;
const RDONLY: u32 = libc::O_RDONLY as u32;
const RDWR: u32 = libc::O_RDWR as u32;
const TRUNC: u32 = libc::O_TRUNC as u32;

/// One client, and the two who use it.
struct Desk {
    client: Client<SimWorld>,
    user: Context,
    root: Context,
}

type Result<T> = std::result::Result<T, CallError>;

impl Desk {
    async fn new(cluster: &Cluster, name: &str) -> Desk {
        // Waits until the box serves.
        drop(cluster.client(name).await.unwrap());
        let options = Options {
            name: name.to_owned(),
            locks: true,
            callers_checked: true,
            ..Options::default()
        };
        let hosts = vec![format!("{BOX}:9880")];
        let world = cluster.sim.world(name);
        Desk {
            client: Client::connect(world, hosts, "main", options)
                .await
                .unwrap(),
            user: Context::of(USER, USER),
            root: Context::of(0, 0),
        }
    }

    async fn entry(&self, by: &Context, request: Request) -> Result<Entry> {
        match self.client.call(by, request, None).await?.0 {
            Reply::Entry(entry) => Ok(entry),
            _ => Err(CallError::Protocol),
        }
    }

    /// A file of the user's with some bytes, as another client makes it.
    async fn make(&self, name: &str) -> Fid {
        let create = op::Create {
            parent: self.client.root(),
            name: Name::new(name.as_bytes()).ok(),
            kind: FileKind::Regular,
            mode: 0o600,
            rdev: 0,
            link: Bytes::default(),
            exclusive: true,
            open: OpenId(0),
            flags: 0,
            fid: Fid::NONE,
            intent: Intent::default(),
        };
        let fid = self
            .entry(&self.root, Request::Create(create))
            .await
            .unwrap()
            .fid;
        self.write(&self.root, fid, OpenId(0)).await.unwrap();
        let owned = SetAttr {
            uid: Some(USER),
            gid: Some(USER),
            ..SetAttr::default()
        };
        self.set(&self.root, fid, owned).await;
        fid
    }

    async fn set(&self, by: &Context, fid: Fid, set: SetAttr) {
        let set = Request::Setattr(op::Setattr { fid, set });
        self.entry(by, set).await.unwrap();
    }

    async fn chmod(&self, fid: Fid, mode: u32) {
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        self.set(&self.user, fid, set).await;
    }

    async fn look(&self, name: &str) -> Result<Entry> {
        let look = op::Named {
            parent: self.client.root(),
            name: Name::new(name.as_bytes()).unwrap(),
            intent: Intent::default(),
        };
        self.entry(&self.root, Request::Lookup(look)).await
    }

    async fn open(&self, by: &Context, fid: Fid, flags: u32) -> Result<OpenId> {
        let open = self.client.next_open();
        let request = op::Open {
            fid,
            open,
            flags,
            intent: Intent::default(),
        };
        self.entry(by, Request::Open(request)).await?;
        Ok(open)
    }

    async fn close(&self, fid: Fid, open: OpenId) {
        let close = Request::Close(op::Close { fid, open });
        self.client.call(&self.user, close, None).await.unwrap();
    }

    async fn read(&self, by: &Context, fid: Fid, open: OpenId) -> Result<Vec<u8>> {
        let read = op::Read {
            fid,
            open,
            offset: 0,
            len: 100,
        };
        let (_, data) = self.client.call(by, Request::Read(read), None).await?;
        Ok(data.map_or_else(Vec::new, |d| d.to_vec()))
    }

    async fn write(&self, by: &Context, fid: Fid, open: OpenId) -> Result<()> {
        let write = op::Write {
            fid,
            open,
            offset: 0,
            append: false,
        };
        let bytes = Slice::from(b"bytes".to_vec());
        let written = self.client.call(by, Request::Write(write), Some(bytes));
        written.await.map(|_| ())
    }

    async fn unlink(&self, name: &str) {
        let unlink = Request::Unlink(op::Unlink {
            parent: self.client.root(),
            name: Name::new(name.as_bytes()).unwrap(),
            dir: false,
        });
        self.client.call(&self.root, unlink, None).await.unwrap();
    }

    fn sent(&self) -> u64 {
        self.client.counters().sent
    }
}

/// A box with two clients; the second has made the file `f`, the first has
/// looked it up.
fn with_two<F: Future<Output = ()>>(scenario: impl FnOnce(Rc<Cluster>, Desk, Desk, Fid) -> F) {
    let cluster = Cluster::new(3);
    let cluster = Rc::new(cluster);
    let inside = Rc::clone(&cluster);
    cluster.run(async {
        inside.start();
        let (a, b) = (Desk::new(&inside, "a").await, Desk::new(&inside, "b").await);
        let fid = b.make("f").await;
        a.look("f").await.unwrap();
        scenario(inside, a, b, fid).await;
    });
}

#[test]
fn a_known_file_is_opened_and_closed_without_a_word() {
    with_two(|_, a, b, fid| async move {
        let sent = a.sent();
        for _ in 0..3 {
            let open = a.open(&a.user, fid, RDONLY).await.unwrap();
            a.close(fid, open).await;
            let open = a.open(&a.user, fid, RDWR).await.unwrap();
            a.close(fid, open).await;
        }
        assert_eq!(a.sent(), sent);
        let open = a.open(&a.user, fid, RDWR).await.unwrap();
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        a.write(&a.user, fid, open).await.unwrap();
        a.close(fid, open).await;
        assert_eq!(a.sent(), sent + 2, "a READ and a WRITE");
        // What changes something, and what the mode does not allow.
        a.open(&a.user, fid, RDWR | TRUNC).await.unwrap();
        let other = Context::of(7, 7);
        let refused = a.open(&other, fid, RDONLY).await;
        assert_eq!(refused, Err(CallError::Failed(Errno::EACCES)));
        assert_eq!(a.sent(), sent + 4);
        assert!(b.sent() > 0);
    });
}

#[test]
fn an_open_file_is_read_whoever_removes_it_n9() {
    with_two(|cluster, a, b, fid| async move {
        let open = a.open(&a.user, fid, RDONLY).await.unwrap();
        b.unlink("f").await;
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        cluster.crash();
        cluster.start();
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        a.close(fid, open).await;
        let again = a.open(&a.user, fid, RDONLY).await;
        drop(again);
        assert_ne!(a.read(&a.root, fid, open).await, Ok(b"bytes".to_vec()));

        let fid = b.make("g").await;
        a.look("g").await.unwrap();
        let open = a.open(&a.user, fid, RDONLY).await.unwrap();
        a.unlink("g").await;
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        a.close(fid, open).await;
    });
}

/// A handle carries the right that it was opened with.
#[test]
fn an_open_file_is_used_whatever_its_mode_is_by_now() {
    with_two(|_, a, b, fid| async move {
        let open = a.open(&a.user, fid, RDWR).await.unwrap();
        b.chmod(fid, 0).await;
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        a.write(&a.user, fid, open).await.unwrap();
        assert!(a.open(&a.user, fid, RDONLY).await.is_err());
        a.close(fid, open).await;

        // The client's own doing, and an open beside it.
        b.chmod(fid, 0o600).await;
        a.look("f").await.unwrap();
        let open = a.open(&a.user, fid, RDWR).await.unwrap();
        a.chmod(fid, 0).await;
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        a.write(&a.user, fid, open).await.unwrap();
        a.close(fid, open).await;
    });
}

/// A change of the mode that leaves its openers what their handles do is no
/// reason to tell of these: the close is not sent either.
#[test]
fn handles_are_told_only_where_the_mode_takes_something_away() {
    with_two(|cluster, a, b, _| async move {
        let cases = [
            (&a.user, 0o640, 0),
            (&a.root, 0, 0),
            (&a.user, 0o400, 1),
            (&a.user, 0o077, 1),
        ];
        for (n, (by, mode, told)) in cases.into_iter().enumerate() {
            let what = format!("f{n}");
            let fid = b.make(&what).await;
            // What was made a moment ago is nobody else's to keep yet.
            cluster.sim.sleep(Duration::from_secs(3)).await;
            a.look(&what).await.unwrap();
            let before = a.client.counters().closes;
            let open = a.open(by, fid, RDWR).await.unwrap();
            let set = SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            };
            a.set(by, fid, set).await;
            a.write(by, fid, open).await.unwrap();
            a.close(fid, open).await;
            let closes = a.client.counters().closes - before;
            assert_eq!(closes, told, "{mode:o}");
        }
    });
}

/// As after fork and setuid: whoever has the descriptor uses it.
#[test]
fn an_open_file_is_used_by_others_than_the_opener() {
    with_two(|_, a, _, fid| async move {
        let other = Context::of(7, 7);
        let open = a.open(&a.user, fid, RDWR).await.unwrap();
        assert_eq!(a.read(&other, fid, open).await.unwrap(), b"bytes");
        a.write(&other, fid, open).await.unwrap();
        a.close(fid, open).await;
    });
}

/// What was declared on a connection that broke is declared on the next.
#[test]
fn what_was_opened_here_is_declared_over_a_broken_connection() {
    with_two(|cluster, a, b, fid| async move {
        let open = a.open(&a.user, fid, RDONLY).await.unwrap();
        cluster.sim.partition("a", BOX);
        cluster
            .sim
            .world("b")
            .spawn(async move { b.unlink("f").await });
        cluster.sim.sleep(Duration::from_secs(4)).await;
        cluster.sim.heal();
        assert_eq!(a.read(&a.user, fid, open).await.unwrap(), b"bytes");
        a.close(fid, open).await;
    });
}
