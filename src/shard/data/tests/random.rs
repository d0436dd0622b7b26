//! Random operations, with write-back, reclaim, fetches and lost memory between
//! them, against a vector; at the end the origin holds the same.
use super::*;

const SIZE: u64 = 3 << 20;

#[derive(Clone, Debug)]
enum Op {
    Write(u64, usize, u8),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Read(u64, u32),
    Flush(usize),
    Reclaim,
    Forget,
    GiveUp(u64, usize),
    Seek(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = || {
        prop_oneof![
            0..SIZE,
            (0..SIZE / 4096).prop_map(|b| b * 4096),
            0..20_000u64
        ]
    };
    let len = || prop_oneof![1..10_000usize, Just(4096), 1..700_000usize];
    prop_oneof![
        6 => (at(), len(), any::<u8>()).prop_map(|(at, len, seed)| Op::Write(at, len, seed)),
        2 => at().prop_map(Op::Truncate),
        2 => (at(), len()).prop_map(|(at, len)| Op::Punch(at, len as u64)),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, keep)| Op::Zero(at, len as u64, keep)),
        6 => (at(), len()).prop_map(|(at, len)| Op::Read(at, len as u32)),
        3 => prop_oneof![Just(99usize), 0..4usize].prop_map(Op::Flush),
        2 => Just(Op::Reclaim),
        2 => Just(Op::Forget),
        1 => (at(), len()).prop_map(|(at, len)| Op::GiveUp(at, len)),
        1 => at().prop_map(Op::Seek),
    ]
}

/// Runs the operations one after another; with `background`, reads and passes
/// of write-back run beside them.
async fn run_all(bench: &Rc<Bench>, mut want: Vec<u8>, ops: &[Op], background: bool) {
    for op in ops {
        step(bench, &mut want, op, background).await;
        assert_eq!(bench.inode().await.attr.size, want.len() as u64);
    }
    same(&bench.read(0, u32::MAX).await, &want, "all of it");
    while !bench.flush(usize::MAX).await {}
    same(&bench.origin_bytes(), &want, "the origin");
    assert_eq!(bench.shard.data.dirty_bytes(), 0);
    assert_eq!(bench.inode().await.flags & flag::DATA_OWED, 0);
    assert_eq!(bench.inode().await.origin_size, want.len() as u64);
}

/// Megabytes are no message.
fn same(got: &[u8], want: &[u8], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    if got != want {
        let first = got.iter().zip(want).position(|(a, b)| a != b);
        panic!("{what} differs at {first:?}");
    }
}

async fn step(bench: &Rc<Bench>, want: &mut Vec<u8>, op: &Op, background: bool) {
    let shard = &bench.shard;
    match *op {
        Op::Write(at, len, seed) => {
            let bytes = pattern(len, u64::from(seed));
            bench.write(at, &bytes).await;
            let (at, end) = (at as usize, at as usize + len);
            want.resize(want.len().max(end), 0);
            want[at..end].copy_from_slice(&bytes);
        }
        Op::Truncate(size) => {
            let cut = |tx: &mut Tx, inode: &mut Inode| {
                truncate(shard, tx, FID, inode, shard.world.wall(), size)
            };
            bench.mutate(cut).await.unwrap();
            want.resize(size as usize, 0);
        }
        Op::Punch(at, len) => {
            let hole = |tx: &mut Tx, inode: &mut Inode| {
                punch(shard, tx, FID, inode, shard.world.wall(), at..at + len)
            };
            bench.mutate(hole).await.unwrap();
            let end = want.len().min((at + len) as usize);
            want[end.min(at as usize)..end].fill(0);
        }
        Op::Zero(at, len, keep) => {
            let zeros = |tx: &mut Tx, inode: &mut Inode| {
                zero(
                    shard,
                    tx,
                    FID,
                    inode,
                    shard.world.wall(),
                    at..at + len,
                    keep,
                )
            };
            bench.mutate(zeros).await.unwrap();
            if !keep {
                want.resize(want.len().max((at + len) as usize), 0);
            }
            let end = want.len().min((at + len) as usize);
            want[end.min(at as usize)..end].fill(0);
        }
        Op::Read(at, len) => {
            let end = want.len().min(at as usize + len as usize);
            let part = &want[end.min(at as usize)..end];
            if background {
                let reader = Rc::clone(bench);
                let ahead = at + 1000;
                bench.world.spawn(async move {
                    reader.read(ahead, len).await;
                });
            }
            same(&bench.read(at, len).await, part, "a read");
        }
        Op::Flush(most) if background => {
            let flusher = Rc::clone(bench);
            bench.world.spawn(async move {
                flusher.flush_alone(most).await;
            });
        }
        Op::Flush(most) => drop(bench.flush(most).await),
        Op::Reclaim => {
            room::empty_all(shard).await;
        }
        Op::Forget => bench.forget(),
        Op::GiveUp(at, len) => {
            load(shard, FID).await.unwrap();
            let (mut tx, mut inode) = (Tx::default(), bench.inode().await);
            let bytes = Slice::from(vec![0xee; len]);
            // Whether there is room does not matter: it is given up.
            let _ = write(
                shard,
                &mut tx,
                FID,
                &mut inode,
                shard.world.wall(),
                at,
                &bytes,
            );
        }
        Op::Seek(at) => {
            for hole in [false, true] {
                let Ok(found) = seek(shard, FID, at, hole).await else {
                    continue;
                };
                // A hole may be taken for data, never data for a hole.
                let skipped = at as usize..(found as usize).min(want.len());
                if !hole {
                    assert!(want[skipped].iter().all(|b| *b == 0), "data skipped");
                }
            }
        }
    }
}

impl Bench {
    /// One pass at a time is the duty of the one who writes back.
    async fn flush_alone(&self, most: usize) {
        if self.flushing.replace(true) {
            return;
        }
        self.flush(most).await;
        self.flushing.set(false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_vector(
        seed in any::<u64>(),
        len in 0..SIZE as usize,
        memory in prop_oneof![Just(0u64), Just(1 << 20), Just(64 << 20)],
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let bytes = pattern(len, seed);
        let bench = Rc::new(Bench::new(seed, &bytes, 80, memory));
        bench.sim.run(run_all(&bench, bytes, &ops, false));
    }

    #[test]
    fn agrees_with_a_vector_while_others_read_and_write_back(
        seed in any::<u64>(),
        len in 0..SIZE as usize,
        memory in prop_oneof![Just(0u64), Just(1 << 20), Just(64 << 20)],
        ops in prop::collection::vec(op(), 1..40),
    ) {
        let bytes = pattern(len, seed);
        let bench = Rc::new(Bench::new(seed, &bytes, 80, memory));
        bench.sim.run(async {
            run_all_beside(&bench, bytes, &ops).await;
        });
    }
}

/// As [`run_all`], with the passes in the background finished before the end.
async fn run_all_beside(bench: &Rc<Bench>, bytes: Vec<u8>, ops: &[Op]) {
    let mut want = bytes;
    for op in ops {
        step(bench, &mut want, op, true).await;
    }
    while bench.flushing.get() {
        bench.world.sleep(Duration::from_millis(1)).await;
    }
    run_all(bench, want, &[], false).await;
}
