//! Crashes at any moment, on a disk that tears, drops and reorders what was
//! not flushed: after it the state is that of a prefix of the transactions,
//! and the prefix holds everything that was acknowledged.

use super::{Tx, fresh, open};
use crate::base::{Codec, Location, Lsn, Slice, Transno};
use crate::flash::{Appended, Flash, Need};
use crate::sim::Sim;
use crate::sim::SimWorld;
use crate::sim::disk::CrashImage;
use crate::world::World;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// What each file holds after each transaction: the oracle.
type Files = BTreeMap<u8, (Vec<u8>, Vec<Appended>)>;

const COUNT: &[u8] = b"count";

#[derive(Default)]
struct Run {
    /// State after transaction `i`.
    history: Vec<Files>,
    acknowledged: Rc<Cell<u64>>,
}

/// One file replaced by new bytes, in one transaction, as the data path does it.
fn replace(flash: &Flash<SimWorld>, files: &mut Files, i: u64, seed: u64) -> Option<Lsn> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let file = rng.u8(0..12);
    let len = match rng.u8(0..10) {
        0..6 => rng.usize(1..5000),
        6..9 => rng.usize(5000..60_000),
        _ => rng.usize(100_000..400_000),
    };
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    let need = if rng.bool() { Need::Dirty } else { Need::Clean };
    let pieces = flash.append(&Slice::from(bytes.clone()), need).ok()?;
    let mut tx = Tx {
        transno: Transno(i),
        data: pieces.clone(),
        ..Tx::default()
    };
    if let Some((_, old)) = files.get(&file) {
        tx.freed = old.iter().map(|p| (p.at, p.len)).collect();
    }
    tx.put(COUNT.to_vec(), i.to_be_bytes().to_vec());
    tx.put(vec![b'f', file], encode(&pieces));
    let lsn = flash.apply(tx);
    if lsn.is_err() {
        flash.discard(&pieces);
    }
    let lsn = lsn.ok()?;
    files.insert(file, (bytes, pieces));
    Some(lsn)
}

fn encode(pieces: &[Appended]) -> Vec<u8> {
    Codec::to_vec(&pieces.to_vec())
}

/// Writes until the node dies under it.
async fn load(flash: Flash<SimWorld>, run: Rc<RefCell<Run>>, world: SimWorld, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    loop {
        let i = run.borrow().history.len() as u64;
        let mut files = run.borrow().history.last().cloned().unwrap_or_default();
        let Some(lsn) = replace(&flash, &mut files, i, rng.u64(..)) else {
            world.sleep(Duration::from_millis(1)).await;
            continue;
        };
        run.borrow_mut().history.push(files);
        match rng.u8(0..8) {
            0..3 => {
                let acknowledged = Rc::clone(&run.borrow().acknowledged);
                let (flash, i) = (flash.clone(), i);
                world.spawn(async move {
                    if flash.commit(lsn).await.is_ok() {
                        assert!(flash.last_committed() >= Transno(i));
                        acknowledged.set(acknowledged.get().max(i));
                    }
                });
            }
            3 => world.sleep(Duration::from_micros(rng.u64(0..3000))).await,
            _ => flash.throttle().await,
        }
        world.yield_now().await;
    }
}

/// Holds the flash a state of the history that has all that was acknowledged?
/// Which one.
async fn check(flash: &Flash<SimWorld>, history: &[Files], acknowledged: u64) -> usize {
    let count = flash.get(COUNT).await.expect("sound");
    let count = count.map_or(0, |v| {
        u64::from_be_bytes(v[..].try_into().expect("8 bytes"))
    });
    assert!(
        count >= acknowledged,
        "{acknowledged} was acknowledged, {count} came back"
    );
    assert_eq!(flash.last_committed(), Transno(count));
    let count = usize::try_from(count).expect("small");
    let files = &history[count];
    let stored = flash
        .scan(b"f".to_vec()..b"g".to_vec(), 1000)
        .await
        .expect("sound");
    assert_eq!(stored.len(), files.len());
    for (file, (bytes, pieces)) in files {
        let got = flash
            .get(&[b'f', *file])
            .await
            .expect("sound")
            .expect("is there");
        assert_eq!(got.to_vec(), encode(pieces));
        let mut back = Vec::new();
        for piece in pieces {
            back.extend_from_slice(&flash.read(piece, 0..piece.len).await.expect("whole"));
        }
        assert!(back == *bytes, "bytes of file {file} after {count}");
    }
    // The accounts agree with what is alive.
    let mut live: BTreeMap<u32, u32> = BTreeMap::new();
    for piece in files.values().flat_map(|(_, pieces)| pieces) {
        *live.entry(piece.at.segment).or_default() += piece.len;
    }
    let counted: BTreeMap<u32, u32> = flash.0.space.borrow().live().into_iter().collect();
    assert_eq!(counted, live);
    count
}

fn survive(seed: u64, crashes: usize) {
    let sim = Sim::new(seed);
    let (mut world, mut flash) = fresh(&sim);
    let acknowledged = Rc::new(Cell::new(0));
    let run = Rc::new(RefCell::new(Run {
        history: vec![Files::new()],
        acknowledged,
    }));
    for _ in 0..crashes {
        world.spawn(load(flash, Rc::clone(&run), world.clone(), sim.random()));
        let pause = Duration::from_micros(sim.random() % 60_000);
        sim.run(sim.sleep(pause));
        sim.crash("box");
        world = sim.world("box");
        flash = sim.run(async {
            let flash = open(&world).await.expect("a crash is no damage");
            let mut found = run.take();
            let count = check(&flash, &found.history, found.acknowledged.get()).await;
            found.history.truncate(count + 1);
            run.replace(found);
            flash
        });
        assert!(
            !sim.log().iter().any(|l| l.contains("ERROR")),
            "{:?}",
            sim.log()
        );
    }
}

#[test]
fn a_prefix_with_all_that_was_acknowledged_survives() {
    for seed in 0..6 {
        survive(seed, 8);
    }
}

/// A power loss at each flush of a long history, before it and after it: every
/// image opens, and holds what was acknowledged by then.
#[test]
fn what_every_flush_leaves_is_recovered() {
    const TRANSACTIONS: usize = 10_000;
    let sim = Sim::new(11);
    let (world, flash) = fresh(&sim);
    let run = Rc::new(RefCell::new(Run {
        history: vec![Files::new()],
        ..Run::default()
    }));
    let images: Rc<RefCell<Vec<(CrashImage, u64)>>> = Rc::default();
    let (keep, watched) = (Rc::clone(&images), Rc::clone(&run));
    sim.disk("box").watch_flushes(Some(Box::new(move |image| {
        let acknowledged = watched.borrow().acknowledged.get();
        keep.borrow_mut().push((image, acknowledged));
    })));
    world.spawn(load(flash, Rc::clone(&run), world.clone(), 12));
    let mut checked = 0;
    while run.borrow().history.len() < TRANSACTIONS {
        sim.run(sim.sleep(Duration::from_millis(20)));
        let found = run.take();
        for (image, acknowledged) in images.take() {
            let after = Sim::new(checked);
            after.disk("box").restore(&image);
            after.run(async {
                let flash = open(&after.world("box")).await;
                let flash = flash.expect("a power loss is no damage");
                check(&flash, &found.history, acknowledged).await;
            });
            checked += 1;
        }
        run.replace(found);
    }
    assert!(checked > 4_000, "{checked} images");
}

#[test]
fn freed_bytes_are_not_reused_under_a_location() {
    // A location is a plain value: two live pieces never share one.
    let sim = Sim::new(1);
    let (_world, flash) = fresh(&sim);
    let mut seen: Vec<Location> = Vec::new();
    for need in [Need::Dirty, Need::Clean, Need::Dirty] {
        for piece in flash
            .append(&Slice::from(vec![1; 9000]), need)
            .expect("room")
        {
            assert!(!seen.contains(&piece.at));
            seen.push(piece.at);
        }
    }
}
