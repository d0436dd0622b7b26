//! What it costs to make and to take apart a frame.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::base::{Attr, Fid, FileKind, Name, Time, Xid};
use forebay::wire::op::{Entry, Intent, Named, Write};
use forebay::wire::{Bounds, Features, Frame, Layout, Reply, ReplyHead, Request, RequestHead};
use std::hint::black_box;

fn lookup() -> Request {
    Request::Lookup(Named {
        parent: Fid::new(1, 2),
        name: Name::new(b"a-file-of-ordinary-name").expect("a name"),
        intent: Intent::default(),
    })
}

fn entry() -> Reply {
    let time = Time { sec: 1, nsec: 2 };
    Reply::Entry(Entry {
        fid: Fid::new(1, 3),
        attr: Attr {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 1,
            gid: 2,
            nlink: 1,
            rdev: 0,
            ino: 3,
            size: 4,
            blocks: 8,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 5,
        },
        created: false,
        layout: Default::default(),
        lock: Default::default(),
        lock_mode: 0,
        lock_bits: 0,
    })
}

fn decode(frame: &Frame, payload: &[u8], features: Features) {
    let bounds = Bounds::agreed(1 << 20);
    let layout = Layout::of(&frame.bytes, &bounds)
        .expect("valid")
        .expect("whole");
    black_box(
        layout
            .decode(&frame.bytes, payload, features)
            .expect("valid"),
    );
}

fn codec(c: &mut Criterion) {
    let (request, reply) = (lookup(), entry());
    let (ask, answer) = (RequestHead::default(), ReplyHead::default());
    for checksum in [false, true] {
        let features = if checksum {
            Features::OURS
        } else {
            Features::default()
        };
        let suffix = if checksum { " checked" } else { "" };
        c.bench_function(&format!("encode lookup{suffix}"), |b| {
            b.iter(|| Frame::request(Xid(1), &ask, black_box(&request), Vec::new(), checksum));
        });
        let frame = Frame::request(Xid(1), &ask, &request, Vec::new(), checksum);
        c.bench_function(&format!("decode lookup{suffix}"), |b| {
            b.iter(|| decode(black_box(&frame), &[], features));
        });
        c.bench_function(&format!("encode entry{suffix}"), |b| {
            b.iter(|| {
                Frame::reply(
                    Xid(1),
                    16,
                    &answer,
                    Some(black_box(&reply)),
                    Vec::new(),
                    checksum,
                )
            });
        });
        let frame = Frame::reply(Xid(1), 16, &answer, Some(&reply), Vec::new(), checksum);
        c.bench_function(&format!("decode entry{suffix}"), |b| {
            b.iter(|| decode(black_box(&frame), &[], features));
        });
    }
    write(c);
}

fn write(c: &mut Criterion) {
    let request = Request::Write(Write {
        fid: Fid::new(1, 2),
        open: forebay::base::OpenId(3),
        offset: 4,
        append: false,
    });
    let bytes = vec![7u8; 1 << 20];
    let payload = forebay::base::Slice::from(bytes.clone());
    let mut group = c.benchmark_group("write of 1 MiB, checked");
    group.throughput(Throughput::Bytes(1 << 20));
    let make = || {
        let head = RequestHead::default();
        Frame::request(Xid(1), &head, &request, vec![payload.clone()], true)
    };
    group.bench_function("encode", |b| b.iter(make));
    let frame = make();
    group.bench_function("decode", |b| {
        b.iter(|| decode(black_box(&frame), &bytes, Features::OURS));
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
