//! The index as random operations against a `BTreeMap`.

use super::{SEGMENT, Tx, fresh, open, options};
use crate::base::{BoxId, ShardId};
use crate::flash::{Flash, Options, Peek, device};
use crate::sim::Sim;
use crate::sim::SimWorld;
use crate::store::FormatOptions;
use crate::world::World;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug)]
enum Step {
    /// Puts (long values too) and deletes in one transaction.
    Apply(Vec<(u16, Option<u16>)>),
    Get(u16),
    Scan(u16, u16, usize),
    Checkpoint,
    ForgetPages,
    Close,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..600u16;
    let pair = (key.clone(), prop::option::weighted(0.7, 0..2000u16));
    let step = prop_oneof![
        12 => prop::collection::vec(pair, 1..60).prop_map(Step::Apply),
        6 => key.clone().prop_map(Step::Get),
        4 => (key.clone(), key, 1..50usize).prop_map(|(a, b, n)| Step::Scan(a, b, n)),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::ForgetPages),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..120)
}

fn key(n: u16) -> Vec<u8> {
    format!("key {n:05}").into_bytes()
}

fn value(n: u16, salt: u16) -> Vec<u8> {
    let len = if n.is_multiple_of(97) {
        20_000
    } else {
        usize::from(n % 300)
    };
    let mut out = n.to_be_bytes().to_vec();
    out.resize(2 + len, u8::try_from(salt % 251).expect("small"));
    out
}

type Oracle = BTreeMap<Vec<u8>, Vec<u8>>;

fn run(seed: u64, steps: Vec<Step>) {
    let sim = Sim::new(seed);
    let (mut world, mut flash) = fresh(&sim);
    let mut oracle = Oracle::new();
    for (salt, step) in (0u16..).zip(steps) {
        match step {
            Step::Close => {
                sim.run(flash.close()).expect("the disk is sound");
                sim.crash_as("box", crate::sim::Crash::Process);
                world = sim.world("box");
                flash = sim.run(open(&world)).expect("closed cleanly");
            }
            Step::Crash => {
                sim.run(flash.commit(flash.applied()))
                    .expect("the disk is sound");
                sim.crash("box");
                world = sim.world("box");
                flash = sim.run(open(&world)).expect("everything was committed");
            }
            Step::ForgetPages => flash.0.cache.borrow_mut().clear(),
            step => sim.run(act(&flash, &mut oracle, step, salt)),
        }
    }
    sim.run(async {
        let all = flash
            .scan(b"".to_vec()..b"z".to_vec(), usize::MAX)
            .await
            .expect("sound");
        let all: Oracle = all.into_iter().map(|(k, v)| (k, v.to_vec())).collect();
        assert_eq!(all, oracle);
    });
    drop(world);
}

async fn act(flash: &Flash<SimWorld>, oracle: &mut Oracle, step: Step, salt: u16) {
    match step {
        Step::Apply(pairs) => {
            let mut tx = Tx::default();
            for (k, v) in pairs {
                match v {
                    Some(v) => {
                        tx.put(key(k), value(v, salt));
                        oracle.insert(key(k), value(v, salt));
                    }
                    None => {
                        tx.delete(key(k));
                        oracle.remove(&key(k));
                    }
                }
            }
            flash.apply(tx).expect("there is room");
            flash.throttle().await;
        }
        Step::Get(k) => {
            let want = oracle.get(&key(k));
            match flash.peek(&key(k)) {
                Peek::Found(got) => assert_eq!(Some(&got.to_vec()), want),
                Peek::Absent => assert_eq!(want, None),
                Peek::NotLoaded => {}
            }
            let got = flash.get(&key(k)).await.expect("the disk is sound");
            assert_eq!(got.map(|v| v.to_vec()).as_ref(), want);
        }
        Step::Scan(a, b, limit) => {
            let range = key(a.min(b))..key(a.max(b));
            let got = flash
                .scan(range.clone(), limit)
                .await
                .expect("the disk is sound");
            let got: Vec<_> = got.into_iter().map(|(k, v)| (k, v.to_vec())).collect();
            let want: Vec<_> = oracle
                .range(range)
                .take(limit)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            assert_eq!(got, want);
        }
        Step::Checkpoint => flash.checkpoint().await.expect("there is room"),
        Step::ForgetPages | Step::Close | Step::Crash => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn the_index_is_a_map(seed: u64, steps in steps()) {
        run(seed, steps);
    }
}

#[test]
fn many_levels_keep_the_newest_value() {
    let sim = Sim::new(3);
    let (_world, flash) = fresh(&sim);
    let mut oracle = Oracle::new();
    sim.run(async {
        for round in 0..160u16 {
            for i in 0..100u16 {
                let n = (i * 61 + round * 17) % 4000;
                let mut tx = Tx::default();
                if (i + round).is_multiple_of(9) {
                    tx.delete(key(n));
                    oracle.remove(&key(n));
                } else {
                    let v = [&round.to_be_bytes()[..], &[1; 400]].concat();
                    tx.put(key(n), v.clone());
                    oracle.insert(key(n), v);
                }
                flash.apply(tx).expect("there is room");
            }
            flash.throttle().await;
            flash.commit(flash.applied()).await.expect("sound");
        }
        flash.checkpoint().await.expect("there is room");
        sim.sleep(std::time::Duration::from_secs(1)).await;
        let deep = flash.0.index.borrow().version.levels[1].len();
        assert!(deep > 0, "compaction never ran");
        for n in 0..4000 {
            let got = flash.get(&key(n)).await.expect("sound").map(|v| v.to_vec());
            assert_eq!(got.as_ref(), oracle.get(&key(n)));
        }
    });
}

/// Passing deleted keys loads each page once and looks at none again, however
/// many there are and however small the cache is.
#[test]
fn a_scan_passes_deleted_keys_in_one_go() {
    const KEYS: u32 = 100_000;
    const ROOMY: u64 = 256 << 20;
    let key = |n: u32| format!("gone {n:08}").into_bytes();
    let sim = Sim::new(4);
    let world = sim.world("box");
    sim.run(async {
        // Room for all of it, and a cache for a few pages.
        let mut plan = FormatOptions::new(ROOMY, 1, BoxId(5));
        plan.segment_bytes = Some(SEGMENT);
        let mut volume = device::format(&world, &plan).await.expect("formatted");
        device::claim(&world, &mut volume).await.expect("claimed");
        let options = Options {
            memtable_bytes: 128 << 10,
            journal_bytes: 8 << 20,
            ..options()
        };
        let opened = Flash::open_with(world.clone(), ShardId(0), &volume, options).await;
        let (flash, _) = opened.expect("just formatted");
        for delete in [false, true] {
            for first in (0..KEYS).step_by(200) {
                let mut tx = Tx::default();
                for n in first..first + 200 {
                    match delete {
                        false => tx.put(key(n), n.to_be_bytes().to_vec()),
                        true => tx.delete(key(n)),
                    }
                }
                flash.apply(tx).expect("there is room");
                flash.throttle().await;
                flash.commit(flash.applied()).await.expect("sound");
            }
        }
        let mut last = Tx::default();
        last.put(key(KEYS), b"here".to_vec());
        flash.apply(last).expect("there is room");
        flash.checkpoint().await.expect("there is room");
        // A table that changes meanwhile makes a scan begin again.
        while flash.0.has_to_compact() {
            world.sleep(Duration::from_millis(1)).await;
        }
        flash.0.cache.borrow_mut().clear();
        let version = std::rc::Rc::clone(&flash.0.index.borrow().version);
        let mut pages = 0;
        for table in version.levels.iter().flatten() {
            pages += 1 + flash.0.load_meta(table).await.expect("sound").blocks.len();
        }
        let looks = flash.0.cache.borrow().looks();
        let found = flash.scan(key(0)..key(KEYS + 1), 1).await.expect("sound");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, key(KEYS));
        // Each page is looked for once, and its table's meta when it is loaded.
        let looks = flash.0.cache.borrow().looks() - looks;
        assert!(looks <= 2 * pages, "{looks} looks at {pages} pages");
        assert!(pages > 100, "{pages} pages");
    });
}
