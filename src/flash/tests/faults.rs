//! Rot, failed writes, and stores that are not what they should be.

use super::{BYTES, Tx, format, fresh, open, put};
use crate::base::{BoxId, Errno, Slice};
use crate::flash::{Need, device};
use crate::sim::{Crash, Sim};
use crate::store::{FormatOptions, StoreError, Volume};
use crate::world::World;

#[test]
fn rot_below_the_flushed_mark_is_corruption_and_never_a_torn_tail() {
    let sim = Sim::new(1);
    let (_world, flash) = fresh(&sim);
    let place = sim.run(async {
        let first = flash.0.log.borrow().place();
        for i in 0..20u8 {
            let lsn = flash.apply(put(&[i], &[i; 100])).expect("room");
            flash.commit(lsn).await.expect("sound");
        }
        flash
            .0
            .place(first.segment, first.offset)
            .expect("is there")
    });
    for group in [0, 7, 18] {
        sim.crash_as("box", Crash::Process);
        sim.disk("box").rot(place + group * 4096 + 120, 3);
        let world = sim.world("box");
        let opened = sim.run(open(&world));
        let err = opened.err().expect("acknowledged records are damaged");
        assert!(
            matches!(
                err,
                StoreError::Corrupt {
                    what: "journal",
                    ..
                }
            ),
            "{err}"
        );
        sim.disk("box").rot(place + group * 4096 + 120, 3);
    }
    sim.crash_as("box", Crash::Process);
    let world = sim.world("box");
    let flash = sim.run(open(&world)).expect("mended");
    assert!(sim.run(flash.get(&[19])).expect("sound").is_some());
}

/// The header is all that leads to a segment: without it, what stands behind
/// would look like a segment that was never begun.
#[test]
fn rot_in_a_header_of_the_journal_is_corruption_and_no_end_of_it() {
    let sim = Sim::new(6);
    let (_world, flash) = fresh(&sim);
    let first = flash.0.log.borrow().place();
    let second = sim.run(async {
        // Into the second segment, and on there, without a checkpoint.
        for i in 0..200u32 {
            let lsn = flash.apply(put(&i.to_be_bytes(), &[1; 20])).expect("room");
            flash.commit(lsn).await.expect("sound");
            let place = flash.0.log.borrow().place();
            if place.segment != first.segment && place.offset > 40_000 {
                return place;
            }
        }
        panic!("the journal never went on");
    });
    for place in [first, second] {
        let at = flash.0.place(place.segment, 0).expect("is there");
        sim.crash_as("box", Crash::Process);
        sim.disk("box").rot(at + 20, 3);
        let world = sim.world("box");
        let err = sim.run(open(&world)).err().expect("a header is damaged");
        let what = "journal";
        assert!(
            matches!(err, StoreError::Corrupt { what: w, .. } if w == what),
            "{err}"
        );
        sim.disk("box").rot(at + 20, 3);
    }
    sim.crash_as("box", Crash::Process);
    let world = sim.world("box");
    sim.run(open(&world)).expect("mended");
}

#[test]
fn rotten_bytes_are_named_and_never_returned() {
    let sim = Sim::new(2);
    let (_world, flash) = fresh(&sim);
    let pieces = sim.run(async {
        let pieces = flash
            .append(&Slice::from(vec![7; 100_000]), Need::Dirty)
            .expect("room");
        let tx = Tx {
            data: pieces.clone(),
            ..Tx::default()
        };
        let lsn = flash.apply(tx).expect("room");
        flash.commit(lsn).await.expect("sound");
        pieces
    });
    let at = flash
        .0
        .place(pieces[0].at.segment, pieces[0].at.offset)
        .expect("is there");
    sim.disk("box").rot(at + 50_000, 0);
    let read = |range| sim.run(flash.read(&pieces[0], range));
    assert_eq!(read(0..100_000).err(), Some(Errno::EIO));
    assert_eq!(read(50_000..50_010).err(), Some(Errno::EIO));
    let good = read(10..40_000).expect("another block");
    assert!(good.len() == 39_990 && good.iter().all(|&b| b == 7));
    assert!(sim.log().iter().any(|l| l.contains("wrong checksum")));
}

#[test]
fn a_failed_write_fences_and_reads_go_on() {
    let sim = Sim::new(3);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        let lsn = flash.apply(put(b"kept", b"1")).expect("room");
        flash.commit(lsn).await.expect("sound");
    });
    sim.faults(|f| f.disk_write_error_one_in = 1);
    sim.run(async {
        let lsn = flash.apply(put(b"lost", b"2")).expect("room");
        assert_eq!(flash.commit(lsn).await, Err(Errno::EIO));
        assert_eq!(flash.apply(put(b"more", b"3")), Err(Errno::EIO));
        assert!(
            flash
                .append(&Slice::from(vec![1; 10]), Need::Dirty)
                .is_err()
        );
        assert!(flash.get(b"kept").await.expect("reads go on").is_some());
        assert_eq!(flash.checkpoint().await, Err(Errno::EIO));
        flash.throttle().await;
    });
    assert!(flash.is_fenced());
    sim.faults(|f| f.disk_write_error_one_in = 0);
    sim.crash("box");
    let world = sim.world("box");
    let flash = sim
        .run(open(&world))
        .expect("what is on flash is a sound prefix");
    assert!(sim.run(flash.get(b"kept")).expect("sound").is_some());
}

#[test]
fn a_group_whose_data_never_arrived_ends_the_log_for_good() {
    let sim = Sim::new(4);
    let (_world, flash) = fresh(&sim);
    let (place, small) = sim.run(async {
        let lsn = flash.apply(put(b"a", b"1")).expect("room");
        flash.commit(lsn).await.expect("sound");
        let small = flash
            .append(&Slice::from(vec![9; 5000]), Need::Dirty)
            .expect("room");
        let mut tx = put(b"b", b"2");
        tx.data = small.clone();
        let lsn = flash.apply(tx).expect("room");
        flash.commit(lsn).await.expect("sound");
        let at = small[0].at;
        (
            flash.0.place(at.segment, at.offset).expect("is there"),
            small,
        )
    });
    // As if the last group had been torn in its data.
    sim.crash_as("box", Crash::Process);
    sim.disk("box").rot(place + 4096, 1);
    let world = sim.world("box");
    let flash = sim.run(open(&world)).expect("a torn tail is no damage");
    assert!(sim.run(flash.get(b"b")).expect("sound").is_none());
    sim.run(async {
        let lsn = flash.apply(put(b"c", b"3")).expect("room");
        flash.commit(lsn).await.expect("sound");
    });
    // The bytes turn up after all: the seal keeps the record dead.
    sim.crash_as("box", Crash::Process);
    sim.disk("box").rot(place + 4096, 1);
    let world = sim.world("box");
    let flash = sim.run(open(&world)).expect("sealed");
    sim.run(async {
        assert!(flash.get(b"a").await.expect("sound").is_some());
        assert!(flash.get(b"b").await.expect("sound").is_none());
        assert!(flash.get(b"c").await.expect("sound").is_some());
    });
    drop(small);
}

#[test]
fn stores_that_are_not_ours_are_refused() {
    let sim = Sim::new(5);
    let world = sim.world("box");
    sim.run(async {
        assert_eq!(open(&world).await.err(), Some(StoreError::Blank));
        let volume = format(&world).await;
        let cut = device::load(&world, BYTES - 4096).await;
        assert!(matches!(cut, Err(StoreError::Truncated { .. })));
        let no_shard =
            crate::flash::Flash::open(world.clone(), crate::base::ShardId(1), &volume).await;
        assert!(matches!(
            no_shard.err(),
            Some(StoreError::NoShard { asked: 1, have: 1 })
        ));
        let junk = Slice::from(vec![0x5a; 512 << 10]);
        world.flash_write(0, vec![junk], true).await.expect("sound");
        assert_eq!(open(&world).await.err(), Some(StoreError::Foreign));
        let small = FormatOptions::new(1 << 20, 1, BoxId(1));
        assert!(matches!(
            Volume::plan(&small),
            Err(StoreError::TooSmall { .. })
        ));
    });
}

#[test]
fn a_damaged_table_is_found_though_nobody_needs_it() {
    let sim = Sim::new(9);
    let (_world, flash) = fresh(&sim);
    sim.run(async {
        for table in 0..3u8 {
            for i in 0..100u8 {
                flash.apply(put(&[table, i], &[i; 100])).expect("room");
            }
            flash.checkpoint().await.expect("sound");
        }
        let tables = flash.0.index.borrow().version.entries();
        let mut sound = 0;
        let mut after = None;
        while let Some((id, checked)) = flash.check_table(after).await {
            assert!(checked.expect("sound") > 10_000, "table {id}");
            after = Some(id);
            sound += 1;
        }
        assert_eq!(sound, tables.len());
        // The last byte of the second one's blocks.
        let bad = tables.iter().min_by_key(|t| (t.id <= 1, t.id));
        let bad = bad.expect("there are three");
        let at = flash.0.place(bad.segment, bad.meta_at).expect("is there");
        sim.disk("box").rot(at - 4096 + 8, 1);
        sim.disk("box").rot(at - 8192 + 8, 1);
        let mut found = Vec::new();
        let mut after = None;
        while let Some((id, checked)) = flash.check_table(after).await {
            found.extend(checked.is_err().then_some(id));
            after = Some(id);
        }
        assert_eq!(found, [bad.id]);
        assert_eq!(flash.damaged(), 1);
    });
}
