//! Where the newest copy is, and why: of files as they are made, carried,
//! refused, and found again after a crash; and what a flush of a directory takes.

use super::*;
use crate::shard::custody::{self, Asked, Custody, Place as Where, Reason};
use serde_json::Value;

async fn custody_of(shard: &Box, fid: Fid) -> Custody {
    let target = Rc::clone(&shard.targets.borrow()[&TARGET]);
    let custody = custody::of(shard, &target, fid, (None, &[])).await;
    custody.expect("known")
}

async fn report(shard: &Box, path: &str, limit: usize, after: &str) -> Value {
    let target = Rc::clone(&shard.targets.borrow()[&TARGET]);
    let asked = Asked { path, limit, after };
    let report = custody::report(shard, &target, &asked).await;
    report.expect("known")
}

async fn dir(front: &Front<'_>, at: Fid, what: &str) -> Fid {
    let made = front.create(at, &name(what), FileKind::Directory).await;
    made.expect("created")
}

async fn file(front: &Front<'_>, at: Fid, what: &str, len: usize) -> Fid {
    let made = front.create(at, &name(what), FileKind::Regular).await;
    let fid = made.expect("created");
    front.write(fid, 0, &vec![7; len]).await.expect("written");
    fid
}

#[test]
fn a_file_is_on_flash_until_the_origin_has_it() {
    let sim = scene(20, async |_, shard, front| {
        let d = dir(front, front.root(), "d").await;
        let f = file(front, d, "f", 5000).await;
        shard.world.sleep(Duration::from_secs(7)).await;
        let custody = custody_of(shard, f).await;
        assert_eq!((custody.place, custody.dirty_bytes), (Where::Flash, 5000));
        assert_eq!(custody.age.as_secs(), 7);
        let Reason::Owed(Why::Lag { next }) = custody.reason else {
            panic!("{custody:?}");
        };
        assert!(next > Duration::from_secs(1700), "half the lag: {next:?}");
        assert_eq!(custody.names, ["create f"]);
        assert_eq!(flush(shard, TARGET, None).await, Ok(()));
        let custody = custody_of(shard, f).await;
        assert_eq!((custody.place, custody.dirty_bytes), (Where::Origin, 0));
        assert_eq!((custody.reason, custody.names.len()), (Reason::None, 0));
        // A new name alone is owed, too.
        let (old, new) = (name("f"), name("g"));
        let moved = front.rename((d, &old), (d, &new), false).await;
        moved.expect("renamed");
        let custody = custody_of(shard, f).await;
        assert_eq!((custody.place, custody.dirty_bytes), (Where::Flash, 0));
        assert_eq!(custody.names.len(), 1);
        assert_eq!(flush(shard, TARGET, Some(f)).await, Ok(()));
        assert_eq!(custody_of(shard, f).await.place, Where::Origin);
    });
    let left = "the simulator's origin has the file";
    assert!(
        sim.origin(TARGET).tree().0.contains_key(&b"d/g"[..]),
        "{left}"
    );
}

/// O1: whatever the origin's host loses with its power, it has what custody said
/// is at the origin: bytes and name.
#[test]
fn what_is_said_to_be_at_the_origin_outlives_its_power_o1() {
    let (mut at_origin, mut before) = (0, 0);
    for seed in 7000..7150 {
        scene_at(seed, seed % 2 == 0, async |sim, shard, front| {
            let d = dir(front, front.root(), "d").await;
            let f = file(front, d, "f", 9000).await;
            let g = file(front, front.root(), "g", 100).await;
            let flushed = Rc::clone(shard);
            shard.world.spawn(async move {
                let _ = flush(&flushed, TARGET, None).await;
            });
            let pause = Duration::from_micros(sim.random() % 60_000);
            shard.world.sleep(pause).await;
            let (f, g) = (custody_of(shard, f).await, custody_of(shard, g).await);
            let origin = sim.origin(TARGET);
            origin.power_cut(sim);
            let tree = origin.tree();
            for (custody, path, len) in [(f, "d/f", 9000), (g, "g", 100)] {
                if custody.place == Where::Origin {
                    at_origin += 1;
                    let there = tree.0.get(path.as_bytes());
                    let len_there = there.map(|file| file.bytes.size());
                    assert_eq!(len_there, Some(len), "seed {seed}: {path}");
                } else {
                    before += 1;
                    assert_eq!(custody.place, Where::Flash, "seed {seed}");
                }
            }
        });
    }
    let both = at_origin > 30 && before > 30;
    assert!(both, "{at_origin} were at the origin, {before} were not");
}

#[test]
fn a_refusal_and_what_waits_behind_it_are_named() {
    scene(21, async |sim, shard, front| {
        let d = dir(front, front.root(), "d").await;
        let f = file(front, d, "f", 10).await;
        sim.faults(|f| f.origin_error_one_in = 1);
        assert!(flush(shard, TARGET, None).await.is_err());
        let of_dir = custody_of(shard, d).await.reason;
        let Reason::Owed(Why::Refused { errno, next }) = of_dir else {
            panic!("{of_dir:?}");
        };
        assert!(next <= Duration::from_secs(1), "{next:?}");
        let waiting = Why::Waiting {
            on: "create d".to_owned(),
            errno: Some(errno),
        };
        let of_file = custody_of(shard, f).await;
        assert_eq!(of_file.place, Where::Flash);
        assert_eq!(of_file.reason, Reason::Owed(waiting));
        sim.faults(|f| f.origin_error_one_in = 0);
        assert_eq!(flush(shard, TARGET, None).await, Ok(()));
        assert_eq!(custody_of(shard, f).await.place, Where::Origin);
    });
}

#[test]
fn an_absent_origin_is_named_with_the_time_since() {
    scene(22, async |sim, shard, front| {
        let f = file(front, front.root(), "f", 10).await;
        sim.origin(TARGET).goes_away();
        let flushed = Rc::clone(shard);
        shard.world.spawn(async move {
            let _ = flush(&flushed, TARGET, None).await;
        });
        let mut last = Reason::None;
        for secs in [2, 8, 50] {
            shard.world.sleep(Duration::from_secs(secs)).await;
            let custody = custody_of(shard, f).await;
            assert_eq!(custody.place, Where::Flash);
            last = custody.reason;
            let is_named = match &last {
                Reason::Owed(Why::Carrying) => secs == 2,
                Reason::Owed(Why::Suspect { since }) => secs == 8 && since.as_secs() >= 5,
                Reason::Owed(Why::Away { since }) => secs == 50 && since.as_secs() >= 50,
                _ => false,
            };
            assert!(is_named, "after {secs} s: {last:?}");
        }
        sim.origin(TARGET).comes_back();
        assert_eq!(flush(shard, TARGET, None).await, Ok(()), "{last:?}");
        assert_eq!(custody_of(shard, f).await.place, Where::Origin);
    });
}

/// A box that lost its memory knows the same, before it has read its backlog.
#[test]
fn custody_outlives_the_box() {
    let sim = Sim::new(23);
    let lag = Duration::from_secs(3600);
    let world = sim.world("box");
    let (f, g) = sim.run(async {
        let shard = open(world, lag, true).await;
        let front = Front(&shard);
        let f = file(&front, front.root(), "f", 3000).await;
        assert_eq!(flush(&shard, TARGET, None).await, Ok(()));
        let d = dir(&front, front.root(), "d").await;
        (f, file(&front, d, "g", 4000).await)
    });
    sim.crash_as("box", Crash::Power);
    let world = sim.world("box");
    sim.run(async {
        let shard = open(world, lag, false).await;
        assert_eq!(custody_of(&shard, f).await.place, Where::Origin);
        let custody = custody_of(&shard, g).await;
        assert_eq!((custody.place, custody.names.len()), (Where::Flash, 1));
        assert_eq!(custody.dirty_bytes, 4000);
    });
}

/// Everything below it, what that needs above it, and nothing else.
#[test]
fn a_directory_is_flushed_with_all_below_it_and_what_that_needs() {
    for handles in [true, false] {
        scene_at(24, handles, async |sim, shard, front| {
            let root = front.root();
            let a = dir(front, root, "a").await;
            let b = dir(front, a, "b").await;
            let c = dir(front, b, "c").await;
            let x = dir(front, root, "x").await;
            let deep = file(front, c, "deep", 3000).await;
            file(front, b, "f", 2000).await;
            file(front, a, "beside", 10).await;
            file(front, root, "other", 10).await;
            file(front, x, "stays", 10).await;
            let linked = file(front, x, "linked", 700).await;
            front.link(linked, c, &name("link")).await.expect("linked");
            file(front, x, "moved", 500).await;
            let (from, to) = (name("moved"), name("here"));
            let moved = front.rename((x, &from), (b, &to), false).await;
            moved.expect("renamed");
            assert_eq!(flush_below(shard, TARGET, b).await, Ok(()));
            let tree = sim.origin(TARGET).tree();
            let size = |path: &str| tree.0.get(path.as_bytes()).map(|e| e.bytes.size());
            assert_eq!(size("a/b/c/deep"), Some(3000));
            assert_eq!(size("a/b/f"), Some(2000));
            assert_eq!(size("a/b/c/link"), Some(700));
            assert_eq!(size("a/b/here"), Some(500));
            for not_wanted in ["other", "a/beside", "x/stays", "x/moved"] {
                assert_eq!(size(not_wanted), None, "{not_wanted}");
            }
            assert_eq!(custody_of(shard, deep).await.place, Where::Origin);
            assert_eq!(custody_of(shard, c).await.place, Where::Origin);
            let below = report(shard, "a/b", 10, "").await;
            assert_eq!(below["summary"]["files"], 0, "{below}");
            assert_eq!(below["summary"]["names owed"], 0, "{below}");
            // Under whichever name it was written.
            front.write(linked, 700, &[1; 100]).await.expect("written");
            assert_eq!(flush_below(shard, TARGET, b).await, Ok(()));
            let linked = sim.origin(TARGET).tree().0[&b"a/b/c/link"[..]].bytes.size();
            assert_eq!(linked, 800);
            // Removals below it, too.
            front.unlink(c, &name("deep"), false).await.expect("gone");
            front.unlink(c, &name("link"), false).await.expect("gone");
            front.unlink(b, &name("c"), true).await.expect("gone");
            front
                .unlink(root, &name("other"), false)
                .await
                .expect("gone");
            assert_eq!(flush_below(shard, TARGET, b).await, Ok(()));
            let tree = sim.origin(TARGET).tree();
            assert!(!tree.0.contains_key(&b"a/b/c"[..]));
        });
    }
}

#[test]
fn a_list_is_whole_and_oldest_first_over_pages() {
    scene(25, async |_, shard, front| {
        let d = dir(front, front.root(), "d").await;
        file(front, d, "gone", 10).await;
        assert_eq!(flush(shard, TARGET, None).await, Ok(()));
        let mut wanted = Vec::new();
        for n in 0..40 {
            shard.world.sleep(Duration::from_secs(1)).await;
            let in_root = n % 4 == 0;
            let at = if in_root { front.root() } else { d };
            let f = format!("f{n}");
            file(front, at, &f, 100).await;
            if !in_root {
                wanted.push(format!("d/{f}"));
            }
        }
        // The first of them under another name; a removal; and a name alone.
        let (old, new) = (name("f1"), name("g1"));
        let moved = front.rename((d, &old), (d, &new), false).await;
        moved.expect("renamed");
        wanted[0] = "d/g1".to_owned();
        shard.world.sleep(Duration::from_secs(1)).await;
        front.unlink(d, &name("gone"), false).await.expect("gone");
        wanted.push("d/gone".to_owned());
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let page = report(shard, "d", 7, &after).await;
            let sum = &page["summary"];
            // With the directory itself, whose times are owed.
            assert_eq!(sum["files"], 31, "{sum}");
            assert_eq!(sum["flash bytes"], 3000, "{sum}");
            assert_eq!(sum["names owed"], 32, "{sum}");
            assert_eq!(sum["oldest seconds"], 39, "{sum}");
            let rows = page["owed"].as_array().expect("rows");
            assert!(rows.len() <= 7);
            listed.extend(rows.iter().cloned());
            let Some(next) = page["next"].as_str() else {
                assert_eq!(sum["more"], 0);
                break;
            };
            assert_eq!(sum["more"], 32 - listed.len());
            after = next.to_owned();
        }
        let ages: Vec<_> = listed.iter().map(|r| r["age seconds"].as_u64()).collect();
        assert!(ages.is_sorted_by(|a, b| a >= b), "{ages:?}");
        let files = listed.iter().filter(|row| row["path"] != "d");
        let paths: Vec<_> = files
            .map(|row| row["path"].as_str().expect("a path"))
            .collect();
        assert_eq!(paths, wanted);
        let removal = &listed[31];
        assert_eq!(removal["names owed"][0], "remove gone", "{removal}");
        assert_eq!(removal["where"], "flash", "{removal}");
    });
}

/// The name is reserved here. What an origin has under it is the origin's own.
#[test]
fn an_attribute_of_that_name_at_the_origin_is_left_alone() {
    scene(26, async |sim, shard, front| {
        let (root, origin) = (front.root(), sim.origin(TARGET));
        let at = |path| Place {
            identity: None,
            path,
        };
        let (own, f) = (b"user.forebay.custody".to_vec(), name("f"));
        let file = || at(vec![f.clone()]);
        let made = OriginOp::Create {
            dir: at(vec![]),
            name: f.clone(),
            kind: FileKind::Regular,
            attr: front.inode(root).await.attr,
            link: None,
        };
        assert!(matches!(origin.apply(sim, made), OriginReply::Found(_)));
        let set = OriginOp::XattrSet {
            file: file(),
            name: own.clone(),
            value: Bytes(b"theirs".to_vec()),
        };
        assert!(matches!(origin.apply(sim, set), OriginReply::Done));
        let fid = meta::child(shard, &front.target(), root, &f).await;
        let fid = fid.expect("an answer").expect("a file");
        assert_eq!(custody_of(shard, fid).await.place, Where::Origin);
        front.xattr(fid, b"user.x", b"ours").await.expect("set");
        assert_eq!(custody_of(shard, fid).await.place, Where::Flash);
        assert_eq!(flush(shard, TARGET, None).await, Ok(()));
        let there = &origin.tree().0[&b"f"[..]].xattrs;
        assert_eq!(there[&own], b"theirs");
        assert_eq!(there[&b"user.x"[..]], b"ours");
    });
}
