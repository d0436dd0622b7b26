//! Rot that nobody has read is found, by name, and where it can be mended it is.
use super::*;
use crate::base::Location;
use crate::cache::What;

const PERIOD: Duration = Duration::from_secs(10);

impl Bench {
    fn location(&self, offset: u64) -> Location {
        let file = self.shard.data.loaded(FID).unwrap();
        let map = file.map.borrow();
        let segment = map.lookup(offset..offset + 1, 0).next().unwrap();
        let What::Bytes { piece, at, .. } = segment.what else {
            panic!("nothing is cached at {offset}");
        };
        Location {
            offset: piece.at.offset + at.start,
            ..piece.at
        }
    }

    fn damage(&self, offset: u64) {
        let Location {
            segment,
            offset: within,
        } = self.location(offset);
        let at = self.volume.segment_at(segment).unwrap();
        self.sim.disk("box").rot(at + u64::from(within), 3);
    }

    fn count(&self, what: &str) -> u64 {
        self.shard.counters.to_json()[what].as_u64().unwrap()
    }

    fn errors(&self) -> usize {
        let log = self.sim.log();
        log.iter()
            .filter(|l| l.contains("damaged on flash and nowhere else"))
            .count()
    }
}

#[test]
fn rot_that_nobody_reads_is_found() {
    let bytes = pattern(3 << 20, 21);
    let bench = Bench::new(21, &bytes, 64, 64 << 20);
    let ours = pattern(1 << 20, 22);
    bench.sim.run(async {
        bench.read(0, 3 << 20).await;
        // More than a segment of what only the box has, so that one is sealed.
        bench.write(0, &ours).await;
        bench.write(1 << 20, &ours).await;
        bench.shard.flash.checkpoint().await.unwrap();
        bench.damage(5000);
        bench.damage((2 << 20) + 5000);
        bench.world.spawn(scrub(Rc::clone(&bench.shard), PERIOD));
        bench.world.sleep(3 * PERIOD).await;
        assert!(scrub_progress(&bench.shard).passes >= 2);
        assert_eq!(bench.count("damaged ranges fetched again"), 1);
        assert_eq!(bench.count("damaged ranges that only the box had"), 1);
        assert_eq!(bench.errors(), 1, "named once, over several passes");
        let found = lost(&bench.shard);
        let [one] = &found[..] else {
            panic!("{found:?}");
        };
        assert!(one.fid == FID && one.range.contains(&5000), "{one:?}");
        // What the origin has is there again; what it has not is never shown.
        bench.forget();
        let clean = bench.read(2 << 20, 1 << 20).await;
        assert_eq!(clean, bytes[2 << 20..]);
        let bad = read(&bench.shard, FID, one.range.start, 5001).await;
        assert_eq!(bad.err(), Some(Errno::EIO));
        assert_eq!(bench.read(1 << 20, 4096).await, ours[..4096]);
    });
}

#[test]
fn what_is_lost_is_so_until_it_is_written_anew() {
    let bench = Bench::new(23, &[], 64, 64 << 20);
    let ours = pattern(1 << 20, 24);
    bench.sim.run(async {
        bench.write(0, &ours).await;
        bench.shard.flash.checkpoint().await.unwrap();
        bench.damage(0);
        bench.forget();
        // Whoever reads it finds it as well as a pass does.
        assert_eq!(read(&bench.shard, FID, 0, 10).await.err(), Some(Errno::EIO));
        assert_eq!(lost(&bench.shard).len(), 1);
        let end = lost(&bench.shard)[0].range.end;
        let parts = dirty_parts(&bench.shard, FID).await.unwrap();
        let carried = read_dirty(&bench.shard, &parts, &parts.parts[0]).await;
        assert_eq!(carried.err(), Some(Errno::EIO), "nothing false is carried");
        bench.write(0, &ours[..usize::try_from(end).unwrap()]).await;
        assert_eq!(lost(&bench.shard), []);
        assert_eq!(bench.read(0, 1 << 20).await, ours);
        assert_eq!(bench.errors(), 1);
    });
}

/// A box that is often restarted gets round all the same.
#[test]
fn a_pass_goes_on_where_a_restart_cut_it_short() {
    let bytes = pattern(8 << 20, 25);
    let mut bench = Bench::new(25, &bytes, 64, 64 << 20);
    bench.sim.run(async {
        bench.read(0, 8 << 20).await;
        bench.shard.flash.checkpoint().await.unwrap();
    });
    let mut checked = 0;
    for _ in 0..20 {
        bench.world.spawn(scrub(Rc::clone(&bench.shard), PERIOD));
        bench.sim.run(async {
            bench.world.sleep(PERIOD / 5).await;
            bench.commit().await;
        });
        let progress = scrub_progress(&bench.shard);
        checked += progress.bytes;
        if progress.passes > 0 {
            assert!(checked < 16 << 20, "{checked} bytes for 8 MiB");
            return;
        }
        bench.restart(64 << 20);
    }
    panic!("no pass ended; {checked} bytes were checked");
}
