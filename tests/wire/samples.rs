//! One fixed frame of every kind and operation, with every field different
//! from its neighbours so that swapped fields show.

use forebay::base::codec::{Bytes, Codec};
use forebay::base::{
    Attr, BoxId, ClientId, Errno, Extent, Fid, FileKind, HeldLock, LockId, LockKind, MapEpoch,
    Name, OpenId, OwnerKind, SetAttr, ShardId, SnapEpoch, Tag, Time, Transno, WaitId, Xid,
};
use forebay::base::{Bits, Mode};
use forebay::wire::callback::{Barrier, Blocking, Completion, Glimpse, Growing, LockDesc, Shrink};
use forebay::wire::fids::{FidRange, FidsGranted, FidsWanted, Holds};
use forebay::wire::filelock::{Getlk, LockAnswer, LockState, Locked, Relock, Setlk, Unwait};
use forebay::wire::head::{Owner, flags};
use forebay::wire::locks::{Asked, Granted, LockCancel, LockGrant, LockWant, Of, Shown};
use forebay::wire::notice::{Committed, Drain};
use forebay::wire::op::*;
use forebay::wire::{
    Callback, CallbackHead, ConnectReply, ConnectRequest, Features, Frame, Notice, Reply,
    ReplyHead, Request, RequestHead, ShardMap,
};

/// A named sample: a whole frame, or a record that no release sends in one yet.
pub struct Sample {
    pub name: String,
    pub bytes: Vec<u8>,
    pub is_frame: bool,
}

pub fn all() -> Vec<Sample> {
    let mut out = vec![
        frame(
            "connect",
            Frame::connect(Xid(1), &request_head(), &connect_request()),
        ),
        frame(
            "connect-reply",
            Frame::connect_reply(Xid(1), &reply_head(), Some(&connect_reply())),
        ),
        frame(
            "connect-refused",
            Frame::connect_reply(Xid(1), &failed(), None),
        ),
        frame(
            "reply-failed",
            Frame::reply(Xid(2), 16, &failed(), None, Vec::new(), true),
        ),
        frame(
            "early-reply",
            Frame::early_reply(Xid(3), 48, &reply_head(), true),
        ),
        frame(
            "request-asking",
            Frame::asking(
                Xid(4),
                &request_head(),
                &Request::Ping(Empty {}),
                &asked(),
                Vec::new(),
                true,
            ),
        ),
        frame(
            "reply-granting",
            Frame::granting(
                Xid(4),
                2,
                &reply_head(),
                Some(&Reply::Done(Empty {})),
                &granted(),
                Vec::new(),
                true,
            ),
        ),
        frame(
            "reply-failed-granting",
            Frame::granting(Xid(4), 16, &failed(), None, &granted(), Vec::new(), true),
        ),
        record("fids-wanted", &FidsWanted { count: 9 }),
        record("lock", &lock()),
    ];
    for request in requests() {
        let name = format!("request-{}", request.label().to_lowercase());
        let payload = match request {
            Request::Write(_) => vec![b"payload!".to_vec().into(), b"more".to_vec().into()],
            _ => Vec::new(),
        };
        let made = Frame::request(Xid(0x1122), &request_head(), &request, payload, true);
        out.push(frame(&name, made));
    }
    for reply in replies() {
        let name = format!("reply-{}", reply.label().to_lowercase());
        let payload = match reply {
            Reply::Data(_) => vec![b"data".to_vec().into()],
            _ => Vec::new(),
        };
        let made = Frame::reply(Xid(0x3344), 48, &reply_head(), Some(&reply), payload, true);
        out.push(frame(&name, made));
    }
    for notice in notices() {
        let name = format!("notice-{}", notice.label().to_lowercase());
        out.push(frame(&name, Frame::notice(&reply_head(), &notice, true)));
    }
    for callback in callbacks() {
        let name = format!("callback-{}", callback.label().to_lowercase());
        let made = Frame::callback(Xid(0x5566), &callback_head(), &callback, true);
        out.push(frame(&name, made));
    }
    let plain = Frame::request(
        Xid(4),
        &RequestHead::default(),
        &Request::Ping(Empty {}),
        Vec::new(),
        false,
    );
    out.push(frame("request-without-checksum", plain));
    out
}

fn frame(name: &str, frame: Frame) -> Sample {
    let mut bytes = frame.bytes;
    frame
        .payload
        .iter()
        .for_each(|part| bytes.extend_from_slice(part));
    Sample {
        name: name.to_owned(),
        bytes,
        is_frame: true,
    }
}

fn record(name: &str, value: &impl Codec) -> Sample {
    Sample {
        name: name.to_owned(),
        bytes: value.to_vec(),
        is_frame: false,
    }
}

fn name(s: &str) -> Name {
    Name::new(s.as_bytes()).expect("a name")
}

fn fid(n: u32) -> Fid {
    Fid::new(0x0101_0203, n)
}

fn time(n: u32) -> Time {
    Time {
        sec: 1_700_000_000 + i64::from(n),
        nsec: n * 1000 + 7,
    }
}

pub fn request_head() -> RequestHead {
    RequestHead {
        incarnation: 0x0102_0304_0506_0708,
        conn_count: 0x1112_1314,
        epoch: MapEpoch(0x2122_2324),
        last_xid: Xid(0x31),
        transno: Transno(0x41),
        grant: 0x51,
        tag: Tag(0x6162),
        flags: flags::RESENT | flags::KILL_PRIV,
        cred: 0x7172_7374,
        owner: 0x81,
        owner_kind: 0x91,
        pad: 0,
        umask: 0o022,
        deadline_ms: 0xa1a2_a3a4,
        trace: 0xb1,
        abandoned: Xid(0xc1),
        at: 0,
    }
}

fn reply_head() -> ReplyHead {
    ReplyHead {
        status: 0,
        epoch: MapEpoch(0x0102_0304),
        transno: Transno(0x11),
        last_committed: Transno(0x21),
        time: time(3),
        lease_ms: 0x4142_4344,
        estimate_us: 0x5152_5354,
        service_us: 0x6162_6364,
        batch_done: 0x71,
        grant_bytes: 0x8182_8384_8586_8788,
        grant_inodes: 0x9192_9394,
        grant_log: 0xa1a2_a3a4,
        snap_epoch: 0xb1,
        lock_volume: 0xc1,
        flags: 0,
        pre_version: 0xd1,
    }
}

fn failed() -> ReplyHead {
    ReplyHead {
        status: Errno::ENOENT.0,
        ..reply_head()
    }
}

fn callback_head() -> CallbackHead {
    CallbackHead {
        incarnation: 0x01,
        conn_count: 0x11,
        epoch: MapEpoch(0x21),
        lock: LockId(0x31),
        fid: fid(0x41),
        start: 0x51,
        end: 0x61,
        bits: 0x71,
        mode: 0x81,
        deadline_ms: 0x91,
        trace: 0xa1,
        snap_epoch: SnapEpoch(0xb1),
        flags: 0xc1,
    }
}

fn connect_request() -> ConnectRequest {
    ConnectRequest {
        features: first_release(),
        client: ClientId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        name: "host:/mnt".into(),
        target: "main".into(),
        incarnation: 0x11,
        conn_count: 0x21,
        shard: ShardId(0xffff),
        payload_max: 1 << 20,
        tags: 128,
        lease_ms: 10_000,
        replay_from: Transno(0x31),
        committed_seen: Transno(0x41),
        path: vec![BoxId(0x51), BoxId(0x61)],
        read_only: true,
    }
}

fn map() -> ShardMap {
    ShardMap {
        epoch: MapEpoch(0x71),
        ranges: vec![(0, ShardId(0)), (0x100, ShardId(1))],
    }
}

/// What the first release offers and grants.
fn first_release() -> Features {
    Features {
        bits: Features::BASE | Features::CHECKSUM | Features::NOTICES,
    }
}

fn connect_reply() -> ConnectReply {
    ConnectReply {
        features: first_release(),
        incarnation: 0x11,
        conn_count: 0x21,
        box_id: BoxId(0x51),
        generation: 0x61,
        root: fid(1),
        map: map(),
        payload_max: 1 << 20,
        tags: 128,
        lease_ms: 10_000,
        last_committed: Transno(0x81),
        recovering: true,
        read_only: false,
        hash_kind: 1,
        hash_key: Bytes((0..16).collect()),
        acls: true,
        xattrs: false,
    }
}

fn attr(n: u32) -> Attr {
    Attr {
        kind: FileKind::Regular,
        mode: 0o4755,
        uid: n + 1,
        gid: n + 2,
        nlink: n + 3,
        rdev: n + 4,
        ino: u64::from(n) + 5,
        size: u64::from(n) + 6,
        blocks: u64::from(n) + 7,
        atime: time(n + 8),
        mtime: time(n + 9),
        ctime: time(n + 10),
        btime: time(n + 11),
        version: u64::from(n) + 12,
    }
}

fn intent() -> Intent {
    Intent {
        lock: LockId(0x01),
        mode: 0x11,
        bits: 0x21,
        try_bits: 0x31,
    }
}

pub fn requests() -> Vec<Request> {
    let of_file = || OfFile {
        fid: fid(2),
        intent: intent(),
    };
    let xattr = || XattrName {
        fid: fid(3),
        name: Bytes(b"user.a".to_vec()),
    };
    vec![
        Request::Ping(Empty {}),
        Request::Disconnect(Empty {}),
        Request::DeclareCred(DeclareCred {
            id: 1,
            uid: 2,
            gid: 3,
            groups: vec![4, 5],
        }),
        Request::Reopen(Reopen {
            opens: vec![OpenFile {
                fid: fid(4),
                open: OpenId(5),
                flags: 6,
            }],
        }),
        Request::ReplayDone(Empty {}),
        Request::Lookup(Named {
            parent: fid(1),
            name: name("a"),
            intent: intent(),
        }),
        Request::Getattr(of_file()),
        Request::Setattr(Setattr {
            fid: fid(6),
            set: SetAttr {
                mode: Some(0o600),
                uid: None,
                gid: Some(7),
                size: Some(8),
                atime: None,
                mtime: Some(time(9)),
                ctime: None,
                atime_now: true,
                mtime_now: false,
                kill_priv: true,
            },
        }),
        Request::Readlink(of_file()),
        Request::Readdir(Readdir {
            fid: fid(7),
            cookie: 8,
            bytes: 9,
            attrs: true,
        }),
        Request::Create(Create {
            parent: fid(1),
            name: Some(name("new")),
            kind: FileKind::Symlink,
            mode: 0o777,
            rdev: 8,
            link: Bytes(b"to".to_vec()),
            exclusive: true,
            open: OpenId(9),
            flags: 10,
            fid: Fid::NONE,
            intent: intent(),
        }),
        Request::Link(Link {
            fid: fid(8),
            parent: fid(1),
            name: name("l"),
        }),
        Request::Unlink(Unlink {
            parent: fid(1),
            name: name("u"),
            dir: true,
        }),
        Request::Rename(Rename {
            from: fid(1),
            from_name: name("f"),
            to: fid(2),
            to_name: name("t"),
            flags: 1,
        }),
        Request::Open(Open {
            fid: fid(9),
            open: OpenId(10),
            flags: 11,
            intent: intent(),
        }),
        Request::Close(Close {
            fid: fid(9),
            open: OpenId(10),
        }),
        Request::Statfs(of_file()),
        Request::XattrGet(xattr()),
        Request::XattrSet(XattrSet {
            fid: fid(3),
            name: Bytes(b"user.a".to_vec()),
            value: Bytes(b"v".to_vec()),
            flags: 1,
            clear_sgid: true,
        }),
        Request::XattrList(of_file()),
        Request::XattrRemove(xattr()),
        Request::Read(Read {
            fid: fid(9),
            open: OpenId(10),
            offset: 11,
            len: 12,
        }),
        Request::Claim(Claim {
            locks: granted().grants,
        }),
        Request::Cancel(Cancel {
            locks: vec![cancel()],
        }),
        Request::Raised(Raised {
            lock: LockId(7),
            size: 8,
        }),
        Request::Glimpsed(Glimpsed {
            lock: LockId(7),
            fid: fid(8),
            is_alone: true,
            attr: Some(attr(9)),
            xattrs_at_box: true,
        }),
        Request::Write(Write {
            fid: fid(9),
            open: OpenId(10),
            offset: 11,
            append: true,
        }),
        Request::Fsync(Fsync {
            fid: fid(9),
            data_only: true,
        }),
        Request::Fallocate(Fallocate {
            fid: fid(9),
            mode: 1,
            offset: 2,
            len: 3,
        }),
        Request::Seek(Seek {
            fid: fid(9),
            offset: 1,
            whence: 3,
        }),
        Request::CopyRange(CopyRange {
            from: fid(1),
            from_offset: 2,
            to: fid(3),
            to_offset: 4,
            len: 5,
        }),
        Request::Fids(FidsWanted { count: 9 }),
        Request::Abandon(Abandon {
            xids: vec![Xid(1), Xid(2)],
        }),
        Request::Setlk(Setlk {
            fid: fid(1),
            open: OpenId(2),
            range: Extent { start: 3, end: 4 },
            kind: Some(LockKind::Write),
            pid: 5,
            wait: Some(WaitId { id: 6 }),
        }),
        Request::Getlk(Getlk {
            fid: fid(1),
            range: Extent { start: 2, end: 3 },
            kind: LockKind::Read,
        }),
        Request::Unwait(Unwait {
            fid: fid(1),
            range: Extent { start: 2, end: 3 },
            kind: LockKind::Read,
            wait: WaitId { id: 4 },
        }),
        Request::Relock(Relock {
            fid: fid(1),
            owner: 2,
            owner_kind: OwnerKind::Flock,
            opens: vec![OpenId(3)],
            locks: vec![held_lock()],
        }),
    ]
}

pub fn replies() -> Vec<Reply> {
    vec![
        Reply::Done(Empty {}),
        Reply::Entry(Entry {
            fid: fid(1),
            attr: attr(100),
            created: true,
            layout: Bytes(vec![1, 2]),
            lock: LockId(3),
            lock_mode: 4,
            lock_bits: 5,
        }),
        Reply::Blob(Blob {
            bytes: Bytes(b"blob".to_vec()),
        }),
        Reply::Listing(Listing {
            entries: vec![DirEntry {
                name: name("e"),
                fid: fid(2),
                kind: FileKind::Directory,
                ino: 3,
                cookie: 4,
                attr: Some(attr(200)),
            }],
            end: true,
            parent: fid(5),
            parent_ino: 6,
        }),
        Reply::Statfs(StatfsReply {
            bsize: 1,
            blocks: 2,
            bfree: 3,
            bavail: 4,
            files: 5,
            ffree: 6,
            namelen: 7,
        }),
        Reply::Data(Data { eof: true, size: 1 }),
        Reply::Written(Written {
            written: 1,
            offset: 2,
            attr: attr(300),
        }),
        Reply::Offset(Offset { offset: 1 }),
        Reply::Fids(FidsGranted {
            range: FidRange {
                seq: 1,
                first: 2,
                count: 3,
            },
            holds: Holds {
                read_only: false,
                name_max: 255,
                link_max: 4,
                file_size_max: 5,
                owners: true,
                special_files: false,
                symlinks: true,
                hard_links: false,
                xattrs: true,
                acls: false,
            },
        }),
        Reply::Lock(LockAnswer {
            state: LockState::InTheWay,
            found: Some(held_lock()),
        }),
    ]
}

fn notices() -> Vec<Notice> {
    vec![
        Notice::Committed(Committed {
            last_committed: Transno(1),
            done: Xid(2),
        }),
        Notice::Fids(FidRange {
            seq: 1,
            first: 2,
            count: 3,
        }),
        Notice::Map(map()),
        Notice::Drain(Drain { after_ms: 1 }),
        Notice::Locked(Locked {
            wait: WaitId { id: 1 },
            status: 2,
        }),
    ]
}

fn held_lock() -> HeldLock {
    HeldLock {
        range: Extent { start: 1, end: 2 },
        kind: LockKind::Write,
        pid: 3,
    }
}

fn callbacks() -> Vec<Callback> {
    vec![
        Callback::Blocking(Blocking {
            keep_bits: 1,
            keep_mode: 2,
        }),
        Callback::Completion(Completion {
            grant: lock(),
            status: 1,
        }),
        Callback::Glimpse(Glimpse { fid: fid(1) }),
        Callback::Barrier(Barrier {
            epoch: SnapEpoch(1),
            expires_ms: 2,
        }),
        Callback::Shrink(Shrink {
            volume: 1,
            locks_max: 2,
        }),
        Callback::Growing(Growing { size: 1, last: 2 }),
    ]
}

fn asked() -> Asked {
    Asked {
        wants: vec![LockWant {
            lock: LockId(1),
            of: Of::Parent,
            mode: Mode::Pr,
            bits: Bits::LOOKUP,
            try_bits: Bits::ATTRS,
            extent: Extent { start: 5, end: 6 },
        }],
        cancels: vec![cancel()],
        data_max: 7,
    }
}

fn cancel() -> LockCancel {
    LockCancel {
        lock: LockId(7),
        bits: Bits::DATA,
        in_use: true,
    }
}

fn granted() -> Granted {
    Granted {
        grants: vec![LockGrant {
            lock: LockId(1),
            fid: fid(2),
            mode: Mode::Pw,
            bits: Bits::DATA,
            extent: Extent { start: 3, end: 4 },
        }],
        shown: vec![Shown {
            fid: fid(5),
            attr: attr(6),
        }],
    }
}

fn lock() -> LockDesc {
    LockDesc {
        lock: LockId(1),
        fid: fid(2),
        mode: 3,
        bits: 4,
        start: 5,
        end: 6,
        version: 7,
        owner: Some(Owner {
            client: ClientId(8),
            id: 9,
            kind: 10,
        }),
        in_use: true,
    }
}
