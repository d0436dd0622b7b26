//! Handlers end to end: requests made by hand, a flash in memory, the
//! simulated origin.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cold;
mod opens;
mod shared;
mod warm;

use crate::base::{
    Attr, ClientId, Errno, Fid, FileKind, Name, OpenId, SetAttr, ShardId, Slice, Tag, TargetId,
    Time, Transno, Xid,
};
use crate::conf::{Authority, Disconnected, Prefetch, TargetConf, Writeback};
use crate::flash::Flash;
use crate::origin::{OriginOp, OriginReply, Place};
use crate::shard::session::{Cred, Export};
use crate::shard::{Incoming, Outgoing, Shard, dispatch};
use crate::sim::{Sim, SimWorld};
use crate::wire::op::{self, DirEntry, Entry, Intent};
use crate::wire::{Reply, Request, RequestHead};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

const TARGET: TargetId = TargetId(1);
/// The credential of an ordinary user, uid and gid 1000.
const USER: u32 = 7;

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).unwrap()
}

fn conf() -> TargetConf {
    TargetConf {
        name: "main".into(),
        origin: "/nowhere".into(),
        authority: Authority::Exclusive,
        writeback: Writeback::Lag(Duration::from_secs(15)),
        writeback_bytes: 1 << 30,
        disconnected: Disconnected::ReadWrite,
        disconnected_max: Duration::from_secs(3600),
        origin_threads: 4,
        prefetch: Prefetch::None,
    }
}

/// A box with one target, and clients that are nothing but requests.
struct Rig {
    sim: Sim,
    flash: Flash<SimWorld>,
    shard: Rc<Shard<SimWorld>>,
    export: Rc<Export>,
    next: Cell<u64>,
}

impl Rig {
    /// With an origin that `scene` has filled.
    fn new(scene: impl FnOnce(&Scene<'_>)) -> Rig {
        let sim = Sim::new(1);
        scene(&Scene { sim: &sim });
        let flash = Flash::in_memory(sim.world("box"));
        let shard = boot(&sim, &flash);
        let export = export(1);
        Rig {
            sim,
            flash,
            shard,
            export,
            next: Cell::new(1),
        }
    }

    fn root(&self) -> Fid {
        self.shard.targets.borrow()[&TARGET].root
    }

    /// Memory is lost, the flash is not, and the client comes back without
    /// what it had open.
    fn restart(&mut self) {
        self.shard = boot(&self.sim, &self.flash);
        self.export = export(1);
    }

    fn calls(&self) -> u64 {
        self.sim.origin(TARGET).calls()
    }

    fn ask_as(&self, cred: u32, request: Request) -> Outgoing {
        self.run(incoming(
            self.next.replace(self.next.get() + 1),
            cred,
            request,
        ))
    }

    fn run(&self, incoming: Incoming) -> Outgoing {
        self.sim
            .run(async { dispatch::run(&self.shard, &self.export, &incoming).await })
    }

    fn ask(&self, request: Request) -> Result<Reply, Errno> {
        self.ask_as(0, request).result.map(|(reply, _)| reply)
    }

    fn entry(&self, request: Request) -> Result<Entry, Errno> {
        match self.ask(request)? {
            Reply::Entry(entry) => Ok(entry),
            other => panic!("{other:?}"),
        }
    }

    fn lookup(&self, parent: Fid, n: &str) -> Result<Entry, Errno> {
        self.entry(Request::Lookup(op::Named {
            parent,
            name: name(n),
            intent: Intent::default(),
        }))
    }

    fn create(&self, parent: Fid, n: &str, kind: FileKind) -> Result<Entry, Errno> {
        self.entry(creation(parent, n, kind))
    }

    fn getattr(&self, fid: Fid) -> Result<Attr, Errno> {
        let intent = Intent::default();
        Ok(self
            .entry(Request::Getattr(op::OfFile { fid, intent }))?
            .attr)
    }

    fn unlink(&self, parent: Fid, n: &str, dir: bool) -> Result<Reply, Errno> {
        let name = name(n);
        self.ask(Request::Unlink(op::Unlink { parent, name, dir }))
    }

    fn rename(&self, from: (Fid, &str), to: (Fid, &str), flags: u32) -> Result<Reply, Errno> {
        self.ask(Request::Rename(op::Rename {
            from: from.0,
            from_name: name(from.1),
            to: to.0,
            to_name: name(to.1),
            flags,
        }))
    }

    fn open(&self, fid: Fid, open: u64, flags: i32) -> Result<Entry, Errno> {
        self.entry(Request::Open(op::Open {
            fid,
            open: OpenId(open),
            flags: flags as u32,
            intent: Intent::default(),
        }))
    }

    fn close(&self, fid: Fid, open: u64) {
        let open = OpenId(open);
        self.ask(Request::Close(op::Close { fid, open })).unwrap();
    }

    fn write(&self, fid: Fid, open: u64, offset: u64, bytes: &[u8]) -> Result<Attr, Errno> {
        let request = Request::Write(op::Write {
            fid,
            open: OpenId(open),
            offset,
            append: false,
        });
        let mut incoming = incoming(self.next.replace(self.next.get() + 1), 0, request);
        incoming.payload = Some(Slice::from(bytes.to_vec()));
        match self.run(incoming).result?.0 {
            Reply::Written(written) => Ok(written.attr),
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, fid: Fid) -> Result<Vec<u8>, Errno> {
        let request = Request::Read(op::Read {
            fid,
            open: OpenId(0),
            offset: 0,
            len: 1 << 16,
        });
        let (_, parts) = self.ask_as(0, request).result?;
        Ok(parts.iter().flat_map(|p| p.to_vec()).collect())
    }

    /// All entries, `bytes` at a time.
    fn list(&self, fid: Fid, bytes: u32, attrs: bool) -> Result<Vec<DirEntry>, Errno> {
        let mut all = Vec::new();
        let mut cookie = 0;
        loop {
            let request = Request::Readdir(op::Readdir {
                fid,
                cookie,
                bytes,
                attrs,
            });
            let Reply::Listing(listing) = self.ask(request)? else {
                panic!("not a listing");
            };
            cookie = listing.entries.last().map_or(cookie, |e| e.cookie);
            all.extend(listing.entries);
            if listing.end {
                return Ok(all);
            }
        }
    }

    fn names(&self, fid: Fid) -> Vec<String> {
        let mut names: Vec<String> = self
            .list(fid, 4096, false)
            .unwrap()
            .iter()
            .map(|e| e.name.to_string())
            .collect();
        names.sort();
        names
    }
}

fn boot(sim: &Sim, flash: &Flash<SimWorld>) -> Rc<Shard<SimWorld>> {
    let world = sim.world("box");
    let flash = flash.clone();
    sim.run(async {
        Shard::start(world, ShardId(0), flash, 64 << 20, vec![(TARGET, conf())]).await
    })
    .unwrap()
}

fn export(client: u128) -> Rc<Export> {
    let export = Export::new(ClientId(client), "test".into(), TARGET, false);
    let cred = Cred {
        uid: 1000,
        gid: 1000,
        groups: vec![],
    };
    export.creds.borrow_mut().insert(USER, cred);
    Rc::new(export)
}

fn incoming(xid: u64, cred: u32, request: Request) -> Incoming {
    Incoming {
        client: ClientId(1),
        xid: Xid(xid),
        head: RequestHead {
            incarnation: 1,
            conn_count: 1,
            epoch: Default::default(),
            last_xid: Xid(0),
            transno: Transno(0),
            grant: 0,
            tag: Tag(0),
            flags: 0,
            cred,
            owner: 0,
            owner_kind: 0,
            pad: 0,
            umask: 0o022,
            deadline_ms: 0,
            trace: 0,
            abandoned: Xid(0),
            at: 0,
        },
        asked: Default::default(),
        granted: Default::default(),
        contended: Default::default(),
        request,
        payload: None,
    }
}

fn creation(parent: Fid, n: &str, kind: FileKind) -> Request {
    Request::Create(op::Create {
        parent,
        name: Some(name(n)),
        kind,
        mode: 0o777,
        rdev: 0,
        link: crate::base::codec::Bytes(b"there".to_vec()),
        exclusive: true,
        open: OpenId(0),
        flags: 0,
        fid: Fid::NONE,
        intent: Intent::default(),
    })
}

/// Sets up what the origin holds before the box first looks.
struct Scene<'a> {
    sim: &'a Sim,
}

impl Scene<'_> {
    fn apply(&self, op: OriginOp) {
        let reply = self.sim.origin(TARGET).apply(self.sim, op);
        assert!(!matches!(reply, OriginReply::Failed(_)), "{reply:?}");
    }

    fn make(&self, path: &[&str], kind: FileKind) {
        let (last, dir) = path.split_last().unwrap();
        let at = Time { sec: 50, nsec: 5 };
        self.apply(OriginOp::Create {
            dir: place(dir),
            name: name(last),
            kind,
            attr: Attr {
                kind,
                mode: 0o755,
                uid: 1000,
                gid: 1000,
                nlink: 1,
                rdev: 0,
                ino: 0,
                size: 0,
                blocks: 0,
                atime: at,
                mtime: at,
                ctime: at,
                btime: at,
                version: 0,
            },
            link: (kind == FileKind::Symlink).then(|| b"target".to_vec()),
        });
    }

    fn write(&self, path: &[&str], bytes: &[u8]) {
        self.apply(OriginOp::Write {
            file: place(path),
            offset: 0,
            data: vec![Slice::from(bytes.to_vec())],
        });
    }
}

fn place(path: &[&str]) -> Place {
    Place {
        identity: None,
        path: path.iter().map(|n| name(n)).collect(),
    }
}

fn chmod(fid: Fid, mode: u32) -> Request {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    Request::Setattr(op::Setattr { fid, set })
}
