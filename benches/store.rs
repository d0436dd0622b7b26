//! Micro-benchmarks of the index and of the journal, on flash in memory: what
//! they cost in processor time, without a device.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use forebay::base::{Generation, Lsn, Pool, ShardId, Slice};
use forebay::flash::Need;
use forebay::flash::{Flash, Tx};
use forebay::sim::{Sim, SimWorld};
use forebay::store::Record;
use forebay::store::journal::{GroupHeader, Use, encode_group, parse_group, push_record};
use std::hint::black_box;

const ENTRIES: u32 = 100_000;

fn key(n: u32) -> Vec<u8> {
    let mut key = b"D0123456789abcdef".to_vec();
    key.extend_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
    key
}

/// What a create puts: inode, name, owed record, reply.
fn create(n: u32) -> Tx {
    let mut tx = Tx::default();
    for (table, len) in [(b'I', 180), (b'D', 60), (b'W', 70), (b'T', 90)] {
        let mut key = key(n);
        key[0] = table;
        tx.put(key, vec![table; len]);
    }
    tx
}

fn filled(sim: &Sim, checkpointed: bool) -> Flash<SimWorld> {
    let flash = Flash::in_memory(sim.world("bench"));
    sim.run(async {
        for n in 0..ENTRIES {
            let mut tx = Tx::default();
            tx.put(key(n), vec![7; 60]);
            flash.apply(tx).expect("there is room");
            if n % 256 == 0 {
                flash.throttle().await;
            }
        }
        if checkpointed {
            flash.checkpoint().await.expect("there is room");
        }
        for n in 0..ENTRIES {
            flash.get(&key(n)).await.expect("memory is sound");
        }
    });
    flash
}

fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for (name, checkpointed) in [("memtable", false), ("table", true)] {
        let sim = Sim::new(1);
        let flash = filled(&sim, checkpointed);
        let mut n = 0;
        group.bench_function(format!("peek, {name}"), |b| {
            b.iter(|| {
                n = (n + 7919) % ENTRIES;
                black_box(flash.peek(&key(n)))
            });
        });
        group.bench_function(format!("peek absent, {name}"), |b| {
            b.iter(|| {
                n = (n + 7919) % ENTRIES;
                black_box(flash.peek(&key(n + ENTRIES)))
            });
        });
        group.bench_function(format!("scan 128, {name}"), |b| {
            b.iter(|| {
                n = (n + 7919) % ENTRIES;
                sim.run(flash.scan(key(n)..vec![b'E'], 128))
                    .expect("memory is sound")
            });
        });
    }
    group.finish();
}

fn journal(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    let sim = Sim::new(1);
    let flash = Flash::in_memory(sim.world("bench"));
    let mut n = 0;
    group.throughput(Throughput::Elements(32));
    group.bench_function("32 creates, one commit", |b| {
        b.iter(|| {
            sim.run(async {
                for _ in 0..32 {
                    n = (n + 1) % ENTRIES;
                    flash.apply(create(n)).expect("there is room");
                }
                flash
                    .commit(flash.applied())
                    .await
                    .expect("memory is sound");
            });
        });
    });
    group.throughput(Throughput::Bytes(4096));
    let bytes = Slice::from(vec![3; 4096]);
    group.bench_function("write 4 KiB over itself, commit", |b| {
        let mut old: Vec<forebay::flash::Appended> = Vec::new();
        b.iter(|| {
            let data = flash.append(&bytes, Need::Dirty).expect("there is room");
            let mut tx = Tx {
                data: data.clone(),
                ..Tx::default()
            };
            tx.freed = old.iter().map(|p| (p.at, p.len)).collect();
            old = data;
            tx.put(b"extent".to_vec(), vec![1; 40]);
            let lsn = flash.apply(tx).expect("there is room");
            sim.run(flash.commit(lsn)).expect("memory is sound");
        });
    });
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let mut records = Vec::new();
    for n in 0..200u8 {
        let puts = vec![
            (vec![n; 24], Some(vec![n; 180])),
            (vec![n; 25], Some(vec![n; 60])),
        ];
        push_record(
            &mut records,
            &Record {
                puts,
                ..Record::default()
            },
        );
    }
    let header = GroupHeader {
        shard: ShardId(0),
        generation: Generation(1),
        segment_sequence: 1,
        first: Lsn(1),
        flushed: Lsn(0),
        count: 200,
        records_bytes: u32::try_from(records.len()).expect("small"),
        data_bytes: 0,
    };
    let of = Use {
        shard: ShardId(0),
        generation: Generation(1),
        segment_sequence: 1,
    };
    let pool = Pool::new([1, 1, 1]);
    let mut group = c.benchmark_group("recovery");
    group.throughput(Throughput::Elements(200));
    group.bench_function("encode a group of 200", |b| {
        b.iter(|| encode_group(black_box(&header), &records, &pool));
    });
    let (head, tail) = encode_group(&header, &records, &pool);
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&tail);
    group.bench_function("parse a group of 200", |b| {
        b.iter_batched(
            || (),
            |()| parse_group(black_box(&bytes), 0, of),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, index, journal, recovery);
criterion_main!(benches);
