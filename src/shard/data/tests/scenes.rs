//! What must hold, one schedule each.
use super::*;
use crate::cache::What;

#[test]
fn a_cold_read_is_fetched_once_however_many_wait() {
    let bytes = pattern(3 << 20, 1);
    let bench = Rc::new(Bench::new(1, &bytes, 64, 64 << 20));
    let origin = bench.sim.origin(TARGET);
    let before = origin.calls();
    bench.sim.run(async {
        let reads = (0..8).map(|i| bench.read(1000 * i, 4096));
        for (i, got) in join::join_all(reads.collect()).await.iter().enumerate() {
            assert_eq!(got[..], bytes[1000 * i..][..4096]);
        }
    });
    assert_eq!(origin.calls() - before, 1);
    bench.forget();
    let again = bench.sim.run(bench.read(0, 4096));
    assert_eq!(again, bytes[..4096]);
    assert_eq!(origin.calls() - before, 1, "flash has it");
}

#[test]
fn reads_end_at_the_end_of_the_file() {
    let bytes = pattern(10_000, 2);
    let bench = Bench::new(2, &bytes, 64, 1 << 20);
    bench.sim.run(async {
        assert_eq!(bench.read(9_000, 4096).await, bytes[9_000..]);
        assert!(bench.read(10_000, 1).await.is_empty());
        assert!(bench.read(u64::MAX, 1).await.is_empty());
    });
}

/// F7: truncate and extend never bring origin bytes back.
#[test]
fn what_was_cut_off_stays_away() {
    let bytes = pattern(1 << 20, 3);
    let bench = Bench::new(3, &bytes, 64, 1 << 20);
    bench.sim.run(async {
        let cut = |size| {
            let shard = Rc::clone(&bench.shard);
            move |tx: &mut Tx, inode: &mut Inode| {
                truncate(&shard, tx, FID, inode, shard.world.wall(), size)
            }
        };
        bench.mutate(cut(1000)).await.unwrap();
        bench.mutate(cut(8000)).await.unwrap();
        let mut want = bytes[..1000].to_vec();
        want.resize(8000, 0);
        assert_eq!(bench.read(0, 9000).await, want);
        while !bench.flush(9).await {}
        assert_eq!(bench.origin_bytes(), want);
    });
}

/// F7: a small write to a cold file needs nothing of the origin.
#[test]
fn a_small_write_asks_the_origin_for_nothing() {
    let bench = Bench::new(4, &pattern(1 << 20, 4), 64, 1 << 20);
    let origin = bench.sim.origin(TARGET);
    let before = origin.calls();
    bench.sim.run(async {
        bench.write(5000, b"hello").await;
        assert_eq!(bench.read(5000, 5).await, b"hello");
    });
    assert_eq!(origin.calls(), before);
}

/// F8: a fetch under way does not undo what happens meanwhile.
#[test]
fn a_late_answer_fills_only_what_nothing_changed() {
    for seed in 0..12 {
        let bytes = pattern(1 << 20, 5);
        let bench = Rc::new(Bench::new(seed, &bytes, 64, 4 << 20));
        let reader = Rc::clone(&bench);
        bench.world.spawn(async move {
            reader.read(0, 1 << 20).await;
        });
        let mut want = bytes.clone();
        bench.sim.run(async {
            bench.world.sleep(Duration::from_micros(seed * 100)).await;
            bench.write(10_000, &[7; 5000]).await;
            want[10_000..15_000].fill(7);
            // Written, carried to the origin and forgotten while the fetch is out.
            while !bench.flush(9).await {}
            bench
                .mutate(|tx, inode| invalidate(&bench.shard, tx, FID, inode, 1 << 20))
                .await
                .unwrap();
            bench
                .mutate(|tx, inode| {
                    punch(
                        &bench.shard,
                        tx,
                        FID,
                        inode,
                        bench.shard.world.wall(),
                        50_000..60_000,
                    )
                })
                .await
                .unwrap();
            want[50_000..60_000].fill(0);
            assert_eq!(bench.read(0, 1 << 20).await, want, "seed {seed}");
            bench.forget();
            assert_eq!(
                bench.read(0, 1 << 20).await,
                want,
                "seed {seed}, from flash"
            );
        });
    }
}

/// A read of a few bytes brings in the block around them, and not what of it
/// was overwritten while the read was under way.
#[test]
fn a_block_that_changed_under_a_read_is_not_kept() {
    for micros in 0..100 {
        let mut want = pattern(4096, 8);
        let mut bench = Bench::new(micros, &[], 64, 4 << 20);
        let world = bench.world.clone();
        let sim = bench.sim.clone();
        sim.run(async {
            bench.write(0, &want).await;
            bench.commit().await;
        });
        bench.restart(4 << 20);
        let bench = Rc::new(bench);
        let reader = Rc::clone(&bench);
        sim.run(async {
            world.spawn(async move {
                reader.read(0, 8).await;
            });
            world.sleep(Duration::from_micros(micros)).await;
            bench.write(2048, b"new here").await;
            want[2048..2056].copy_from_slice(b"new here");
            world.sleep(Duration::from_millis(10)).await;
            assert_eq!(bench.read(0, 4096).await, want, "after {micros} us");
        });
    }
}

/// F8, the schedule that only the watch catches: while an answer with old bytes
/// is on its way, the range is written, carried to the origin, called clean and
/// reclaimed, so that it is absent again when the answer comes.
#[test]
fn an_answer_older_than_a_write_back_fills_nothing() {
    let bytes = pattern(100_000, 15);
    let bench = Bench::new(15, &bytes, 64, 4 << 20);
    let mut want = bytes.clone();
    want[10_000..15_000].fill(7);
    bench.sim.run(async {
        let (file, inode) = file::present(&bench.shard, FID).await.unwrap();
        let fetch = fetch::start(&bench.shard, &file, &inode, 0);
        bench.write(10_000, &[7; 5000]).await;
        let flush = dirty_parts(&bench.shard, FID).await.unwrap();
        let done = flush.parts.len();
        bench
            .mutate(|tx, inode| mark_clean(&bench.shard, tx, inode, &flush, done))
            .await
            .unwrap();
        let mut tx = Tx::default();
        let clean = bulk::clean_of(&file.map.borrow(), 9);
        assert_eq!(clean.first(), Some(&(10_000..15_000)));
        bench.shard.data.drop_all(&mut tx, &file, clean);
        bench.shard.apply(tx).unwrap();
        bench.shard.data.forget_contents(FID, 0..100_000);
        assert!(!fetch.is_set(), "the answer is still on its way");
        // The origin still shows the old bytes, as the late answer does.
        assert!(fetch.get().await.is_ok());
        bench.write_at_origin(10_000, &[7; 5000]);
        assert!(bench.read(0, 100_000).await == want);
    });
}

#[test]
fn an_origin_error_reaches_the_reader_and_is_not_remembered() {
    let bytes = pattern(100_000, 6);
    let bench = Bench::new(6, &bytes, 64, 1 << 20);
    bench.sim.run(async {
        bench.sim.faults(|f| f.origin_read_error_one_in = 1);
        assert!(read(&bench.shard, FID, 0, 4096).await.is_err());
        bench.sim.faults(|f| f.origin_read_error_one_in = 0);
        assert_eq!(bench.read(0, 4096).await, bytes[..4096]);
    });
}

#[test]
fn damaged_clean_bytes_are_fetched_again_and_dirty_ones_are_an_error() {
    let bytes = pattern(100_000, 7);
    let bench = Bench::new(7, &bytes, 64, 1 << 20);
    let damage = |offset: u64| {
        let file = bench.shard.data.loaded(FID).unwrap();
        let map = file.map.borrow();
        let What::Bytes { piece, .. } = map.lookup(offset..offset + 1, 0).next().unwrap().what
        else {
            panic!("cached");
        };
        let at = bench.volume.segment_at(piece.at.segment).unwrap();
        let at = at + u64::from(piece.at.offset);
        bench.sim.disk("box").rot(at, 3);
    };
    bench.sim.run(async {
        bench.read(0, 4096).await;
        bench.commit().await;
        damage(0);
        bench.forget();
        assert_eq!(bench.read(0, 4096).await, bytes[..4096]);
        let counted = bench.shard.counters.to_json();
        assert_eq!(counted["damaged ranges fetched again"], 1);
        bench.write(0, &[1; 100]).await;
        bench.commit().await;
        damage(0);
        bench.forget();
        assert_eq!(read(&bench.shard, FID, 0, 10).await.err(), Some(Errno::EIO));
    });
}

#[test]
fn a_transaction_that_is_given_up_leaves_no_trace() {
    let bytes = pattern(100_000, 8);
    let bench = Bench::new(8, &bytes, 64, 1 << 20);
    bench.sim.run(async {
        bench.write(0, &[1; 100]).await;
        let (mut tx, mut inode) = (Tx::default(), bench.inode().await);
        let junk = Slice::from(vec![9; 50_000]);
        write(
            &bench.shard,
            &mut tx,
            FID,
            &mut inode,
            bench.shard.world.wall(),
            0,
            &junk,
        )
        .unwrap();
        drop(tx);
        let mut want = bytes.clone();
        want[..100].fill(1);
        assert_eq!(bench.read(0, 100_000).await, want);
        assert_eq!(bench.shard.data.dirty_bytes(), 100);
    });
}

#[test]
fn a_scan_larger_than_the_flash_is_served_and_dirty_bytes_survive_it() {
    let bytes = pattern(60 << 20, 9);
    let bench = Bench::new(9, &bytes, 40, 2 << 20);
    start(&bench.shard);
    bench.sim.run(async {
        bench.write(123_456, &[5; 70_000]).await;
        let mut want = bytes.clone();
        want[123_456..193_456].fill(5);
        for at in (0..want.len()).step_by(128 << 10) {
            let got = bench.read(at as u64, 128 << 10).await;
            assert!(got == want[at..][..got.len()], "at {at}");
            assert_eq!(got.len(), 128 << 10);
        }
        assert_eq!(bench.shard.data.dirty_bytes(), 70_000);
        bench.forget();
        assert_eq!(bench.read(123_456, 70_000).await, [5; 70_000]);
        // What was read last stayed: reclaim made room for it.
        let cached = bench.sim.origin(TARGET).calls();
        bench.read(59 << 20, 4096).await;
        assert_eq!(bench.sim.origin(TARGET).calls(), cached);
    });
}

#[test]
fn a_flash_full_of_dirty_bytes_says_so() {
    let bench = Bench::new(10, &[], 40, 1 << 20);
    start(&bench.shard);
    bench.sim.run(async {
        let block = Slice::from(vec![1; 1 << 20]);
        let mut written = 0;
        let full = loop {
            let put = |tx: &mut Tx, inode: &mut Inode| {
                write(
                    &bench.shard,
                    tx,
                    FID,
                    inode,
                    bench.shard.world.wall(),
                    written << 20,
                    &block,
                )
            };
            match bench.mutate(put).await {
                Ok(()) => written += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, Errno::ENOSPC);
        assert!((15..40).contains(&written), "{written} MiB of 40");
        assert_eq!(bench.read(0, 4 << 20).await, vec![1; 4 << 20]);
        // Clean again, it makes room.
        while !bench.flush(99).await {}
        bench.write(9 << 20, &[2; 1 << 20]).await;
        assert_eq!(bench.read(0, 4096).await, [1; 4096]);
    });
}

#[test]
fn sequential_reads_find_their_bytes_in_memory() {
    let bytes = pattern(16 << 20, 11);
    let bench = Bench::new(11, &bytes, 64, 256 << 20);
    bench.sim.run(async {
        for pass in 0..2 {
            let begin = bench.sim.now();
            for at in (0..bytes.len()).step_by(256 << 10) {
                assert!(bench.read(at as u64, 256 << 10).await == bytes[at..][..256 << 10]);
            }
            let took = bench.sim.now() - begin;
            // One after another, 16 fetches would take 32 ms and more.
            assert!(took < Duration::from_millis(26), "pass {pass}: {took:?}");
        }
    });
}

#[test]
fn holes_and_data_are_told_apart() {
    let bench = Bench::new(12, &pattern(8192, 12), 64, 1 << 20);
    bench.sim.run(async {
        bench.write(100_000, &[1; 10]).await;
        let shard = &bench.shard;
        assert_eq!(seek(shard, FID, 0, false).await, Ok(0));
        assert_eq!(seek(shard, FID, 0, true).await, Ok(8192));
        assert_eq!(seek(shard, FID, 8192, false).await, Ok(100_000));
        assert_eq!(seek(shard, FID, 100_000, true).await, Ok(100_010));
        assert_eq!(seek(shard, FID, 100_010, true).await, Err(Errno::ENXIO));
        assert_eq!(bench.inode().await.attr.blocks, 16 + 8);
        bench
            .mutate(|tx, inode| zero(shard, tx, FID, inode, shard.world.wall(), 0..200_000, false))
            .await
            .unwrap();
        assert_eq!(seek(shard, FID, 0, false).await, Err(Errno::ENXIO));
        assert_eq!(bench.inode().await.attr.blocks, 0);
        assert_eq!(bench.inode().await.attr.size, 200_000);
    });
}

#[test]
fn what_was_cached_and_committed_is_there_after_a_crash() {
    let bytes = pattern(2 << 20, 13);
    let mut bench = Bench::new(13, &bytes, 64, 8 << 20);
    let mut want = bytes.clone();
    want[5..50_000].fill(9);
    bench.sim.run(async {
        bench.read(0, 2 << 20).await;
        bench.write(5, &[9; 49_995]).await;
        bench.commit().await;
    });
    bench.restart(8 << 20);
    let calls = bench.sim.origin(TARGET).calls();
    start(&bench.shard);
    let got = bench.sim.run(bench.read(0, 2 << 20));
    assert!(got == want);
    assert_eq!(bench.sim.origin(TARGET).calls(), calls);
    assert_eq!(bench.shard.data.dirty_bytes(), 49_995);
}

/// A file with more extents than a transaction holds can be cut, forgotten,
/// written back and removed.
#[test]
fn many_small_extents_are_no_obstacle() {
    let bench = Bench::new(14, &[], 64, 8 << 20);
    start(&bench.shard);
    bench.sim.run(async {
        for i in (0..4000).rev() {
            bench.write(i * 600, &[3; 500]).await;
        }
        let shard = &bench.shard;
        let cut = |tx: &mut Tx, inode: &mut Inode| {
            truncate(shard, tx, FID, inode, shard.world.wall(), 600 * 2500)
        };
        bench.mutate(cut).await.unwrap();
        assert_eq!(bench.shard.data.dirty_bytes(), 2500 * 500);
        let mut passes = 1;
        while !bench.flush(usize::MAX).await {
            passes += 1;
        }
        assert!((2..10).contains(&passes), "{passes} passes");
        assert_eq!(bench.origin_bytes(), bench.read(0, 600 * 2500).await);
        let drop_clean =
            |tx: &mut Tx, inode: &mut Inode| invalidate(shard, tx, FID, inode, 600 * 2500);
        bench.mutate(drop_clean).await.unwrap();
        assert_eq!(bench.origin_bytes(), bench.read(0, 600 * 2500).await);
        for i in 0..2000 {
            bench.write(i * 600, &[4; 500]).await;
        }
        bench.mutate(|tx, _| remove(shard, tx, FID)).await.unwrap();
        let mark = crate::namespace::key::gone(FID);
        assert!(shard.flash.get(&mark).await.unwrap().is_some());
        while shard.flash.get(&mark).await.unwrap().is_some() {
            bench.world.sleep(Duration::from_millis(1)).await;
        }
        bench.forget();
        load(shard, FID).await.unwrap();
        assert!(shard.data.loaded(FID).unwrap().map.borrow().is_empty());
        assert_eq!(bench.shard.data.dirty_bytes(), 0);
    });
}
