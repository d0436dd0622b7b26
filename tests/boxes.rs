//! One box with several targets, on one shard and on several: each target is a
//! world of its own, whatever the others do, and all of them survive the box.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use forebay::base::codec::Bytes;
use forebay::base::{Errno, Fid, FileKind, Name, OpenId, SetAttr, Slice};
use forebay::client::{CallError, Client, Context, Options};
use forebay::reactor::{self, Local, Log, Port};
use forebay::wire::{Request, op};
use forebay::world::Level;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use support::{FOREBAY, Site, mounts_missing, sh, text, until};

/// Conf of the further targets of a box.
const OTHER: &str = "target.other.origin = posix:$DIR/other\n";
const FOUR: &str = "target.b.origin = posix:$DIR/b\ntarget.c.origin = posix:$DIR/c\n\
                    target.d.origin = posix:$DIR/d\n";

fn with_dirs(conf: &str, names: &[&str]) -> Site {
    Site::start_on(conf, |dir| {
        for name in names {
            fs::create_dir(dir.join(name)).unwrap();
        }
    })
}

#[test]
fn two_targets_are_two_worlds() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = with_dirs(OTHER, &["other"]);
    let (a, b) = (site.mount("a"), site.mount_target("other", "b"));
    // The same names in both, at the same time, with contents of their own.
    std::thread::scope(|scope| {
        for (dir, word) in [(&a, "main"), (&b, "other")] {
            scope.spawn(move || {
                fs::create_dir(dir.join("d")).unwrap();
                for i in 0..200 {
                    fs::write(dir.join(format!("d/f{i}")), format!("{word} {i}")).unwrap();
                }
                for i in (0..200).step_by(2) {
                    fs::remove_file(dir.join(format!("d/f{i}"))).unwrap();
                }
            });
        }
    });
    fs::write(a.join("only here"), b"x").unwrap();
    let check = |dir: &Path, word: &str| {
        let names = fs::read_dir(dir.join("d")).unwrap().count();
        assert_eq!(names, 100, "{}", dir.display());
        for i in (1..200).step_by(2) {
            let got = fs::read_to_string(dir.join(format!("d/f{i}"))).unwrap();
            assert_eq!(got, format!("{word} {i}"));
        }
    };
    check(&a, "main");
    check(&b, "other");
    assert!(!b.join("only here").exists());
    // Two file systems to the kernel: nothing is renamed or linked across.
    assert_ne!(
        fs::metadata(&a).unwrap().dev(),
        fs::metadata(&b).unwrap().dev()
    );
    let across = fs::rename(a.join("only here"), b.join("x")).unwrap_err();
    assert_eq!(across.raw_os_error(), Some(libc::EXDEV));

    let origin = |name: &str| site.target_status(name).1["origin"].clone();
    assert_eq!(origin("main"), site.origin().display().to_string());
    assert_eq!(origin("other"), site.path("other").display().to_string());
    assert_eq!(clients_of(&site, "main"), 1);
    assert_eq!(clients_of(&site, "other"), 1);

    // A flush carries the target that it names.
    site.flush();
    check(&site.origin(), "main");
    site.flush_target("other");
    check(&site.path("other"), "other");
    let nobody = site.forebay(&["flush", "nobody"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", text(&nobody));
    assert!(
        text(&nobody).contains("no target nobody"),
        "{}",
        text(&nobody)
    );
    // The end of one mount is nothing to the other.
    site.umount(&a);
    check(&b, "other");
    site.umount(&b);
    site.stop();
}

/// Clients that `status` lists for a target; it shows the target's number,
/// which is the order in the conf.
fn clients_of(site: &Site, target: &str) -> usize {
    let (shard, _) = site.target_status(target);
    let status = site.status();
    let number = ["main", "other"].iter().position(|t| *t == target).unwrap() + 1;
    let shard = usize::try_from(shard).unwrap();
    let clients = status["shard"][shard]["clients"].as_array().unwrap();
    clients.iter().filter(|c| c["target"] == number).count()
}

#[test]
fn a_read_only_origin_beside_one_that_is_not() {
    if mounts_missing().is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut site = Site::start_on(OTHER, |dir| {
        sh(
            dir,
            "mkdir other; echo old > other/old; mount --bind other other; \
             mount -o remount,ro,bind other",
        );
    });
    let (a, b) = (site.mount("a"), site.mount_target("other", "b"));
    for round in 0..3 {
        let refused = fs::write(b.join("new"), b"x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        let refused = fs::remove_file(b.join("old")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
        assert_eq!(fs::read_to_string(b.join("old")).unwrap(), "old\n");
        fs::write(a.join("new"), round.to_string()).unwrap();
    }
    site.flush();
    assert_eq!(fs::read_to_string(site.origin().join("new")).unwrap(), "2");
    site.umount(&a);
    site.umount(&b);
    site.stop();
    sh(site.dir.path(), "umount other");
}

/// N13: a FID is good only on the target that it belongs to, for every kind of
/// request, and whether the other target is on the same shard or not.
#[test]
fn fids_of_one_target_are_refused_on_another_n13() {
    for shards in ["shards = 0\n", "shards = 0-1\n"] {
        if shards.contains('1') && one_cpu() {
            continue;
        }
        let mut site = with_dirs(&format!("{shards}{OTHER}"), &["other"]);
        let on_one = site.target_status("main").0 == site.target_status("other").0;
        assert_eq!(on_one, !shards.contains('1'));
        natively(site.addr, |world, host| async move {
            let [ours, theirs] = [
                connect(&world, &host, "main").await,
                connect(&world, &host, "other").await,
            ];
            let me = Context::of(0, 0);
            let dir = theirs.at_root(me.clone()).directory("dir").await.unwrap();
            let file = dir.create_file("file").await.unwrap();
            let secret = Slice::from(b"theirs alone".to_vec());
            dir.write(file, 0, secret).await.unwrap();
            let root = ours.root();
            for (request, payload) in every_way(root, dir.fid(), file.fid) {
                let asked = format!("{request:?}");
                let got = ours.call(&me, request, payload).await;
                assert_eq!(got.err(), Some(CallError::Failed(Errno::ESTALE)), "{asked}");
            }
            // Nothing of it happened.
            let names: Vec<_> = dir.list().await.unwrap();
            assert_eq!(names.len(), 1);
            let bytes = dir.read(file, 0, 100).await.unwrap();
            assert_eq!(&bytes[..], b"theirs alone");
            ours.close().await;
            theirs.close().await;
        });
        site.stop();
    }
}

/// Requests to a target with root `root` that name a foreign directory and file.
fn every_way(root: Fid, dir: Fid, file: Fid) -> Vec<(Request, Option<Slice>)> {
    let name = || Name::new(b"file").unwrap();
    let intent = op::Intent::default;
    let flags = libc::O_RDWR.cast_unsigned();
    let create = |parent, kind| op::Create {
        parent,
        name: Some(Name::new(b"new").unwrap()),
        kind,
        mode: 0o600,
        rdev: 0,
        link: Bytes::default(),
        exclusive: true,
        open: OpenId(0),
        flags,
        fid: Fid::NONE,
        intent: intent(),
    };
    let rename = |from, to| op::Rename {
        from,
        from_name: name(),
        to,
        to_name: name(),
        flags: 0,
    };
    let truncate = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    let of = |fid| op::OfFile {
        fid,
        intent: intent(),
    };
    let quiet = vec![
        Request::Getattr(of(file)),
        Request::Statfs(of(dir)),
        Request::XattrList(of(file)),
        Request::Lookup(op::Named {
            parent: dir,
            name: name(),
            intent: intent(),
        }),
        Request::Readdir(op::Readdir {
            fid: dir,
            cookie: 0,
            bytes: 4096,
            attrs: true,
        }),
        Request::Setattr(op::Setattr {
            fid: file,
            set: truncate,
        }),
        Request::Create(create(dir, FileKind::Regular)),
        Request::Create(create(dir, FileKind::Directory)),
        Request::Link(op::Link {
            fid: file,
            parent: root,
            name: name(),
        }),
        Request::Unlink(op::Unlink {
            parent: dir,
            name: name(),
            dir: false,
        }),
        Request::Rename(rename(dir, root)),
        Request::Open(op::Open {
            fid: file,
            open: OpenId(9),
            flags,
            intent: intent(),
        }),
        Request::Read(op::Read {
            fid: file,
            open: OpenId(0),
            offset: 0,
            len: 100,
        }),
        Request::Fsync(op::Fsync {
            fid: file,
            data_only: false,
        }),
    ];
    let write = op::Write {
        fid: file,
        open: OpenId(0),
        offset: 0,
        append: false,
    };
    let payload = Slice::from(b"mine".to_vec());
    let mut all: Vec<_> = quiet.into_iter().map(|r| (r, None)).collect();
    all.push((Request::Write(write), Some(payload)));
    all
}

async fn connect(world: &Local, host: &str, target: &str) -> Client<Local> {
    let options = Options {
        name: format!("boxes:{target}"),
        ..Options::default()
    };
    let hosts = vec![host.to_owned()];
    Client::connect(world.clone(), hosts, target, options)
        .await
        .unwrap()
}

/// Runs `body` on a reactor of its own.
fn natively<F: Future<Output = ()> + 'static>(
    addr: SocketAddr,
    body: impl FnOnce(Local, String) -> F,
) {
    let mut options = reactor::Options::new("test", Port::alone().unwrap());
    options.log = Log::stderr(Level::Warn);
    reactor::run(options, |world| body(world, addr.to_string())).unwrap();
}

/// Shards are pinned: two of them need two CPUs.
fn one_cpu() -> bool {
    let one = std::thread::available_parallelism().is_ok_and(|n| n.get() < 2);
    if one {
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!ci, "two shards need two CPUs, and CI=true");
        eprintln!("skipped: two shards need two CPUs");
    }
    one
}

#[test]
fn targets_spread_over_shards_are_warm_after_kills() {
    if mounts_missing().is_some() || one_cpu() {
        return;
    }
    let mut site = with_dirs(&format!("shards = 0-1\n{FOUR}"), &["b", "c", "d"]);
    let targets = ["main", "b", "c", "d"];
    let origin = |target: &str| match target {
        "main" => "origin".to_owned(),
        other => other.to_owned(),
    };
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
    for target in targets {
        fs::write(site.path(&origin(target)).join("cold"), &bytes).unwrap();
    }
    let shards: Vec<u64> = targets.iter().map(|t| site.target_status(t).0).collect();
    let spread: BTreeSet<u64> = shards.iter().copied().collect();
    assert_eq!(spread, BTreeSet::from([0, 1]), "over both: {shards:?}");

    let mounts: Vec<_> = targets
        .iter()
        .map(|t| (*t, site.mount_target(t, &format!("mnt-{t}"))))
        .collect();
    for (target, m) in &mounts {
        assert_eq!(fs::read(m.join("cold")).unwrap(), bytes, "{target}");
        // Listed whole, the directory needs no origin to take new names (N10).
        assert_eq!(fs::read_dir(m).unwrap().count(), 1, "{target}");
        fs::write(m.join("made here"), target).unwrap();
        fs::File::open(m.join("made here"))
            .unwrap()
            .sync_all()
            .unwrap();
    }
    for round in 0..3 {
        site.kill();
        // What is read now comes from flash: no origin is there.
        for target in targets {
            let at = site.path(&origin(target));
            fs::rename(&at, at.with_extension("away")).unwrap();
        }
        site.serve();
        let now: Vec<u64> = targets.iter().map(|t| site.target_status(t).0).collect();
        assert_eq!(now, shards, "a target stays on its shard");
        for (target, m) in &mounts {
            assert_eq!(fs::read(m.join("cold")).unwrap(), bytes, "{target}");
            let made = fs::read_to_string(m.join("made here")).unwrap();
            assert_eq!(made, *target);
            fs::write(m.join(format!("round {round}")), target).unwrap();
        }
        for target in targets {
            let at = site.path(&origin(target));
            fs::rename(at.with_extension("away"), &at).unwrap();
        }
    }
    for (target, m) in &mounts {
        site.flush_target(target);
        let at = site.path(&origin(target));
        for name in ["made here", "round 0", "round 1", "round 2"] {
            let carried = fs::read_to_string(at.join(name)).unwrap();
            assert_eq!(carried, *target, "{name}");
        }
        site.umount(m);
    }
    site.stop();
}

/// The tree of a target is not there when the box starts: the policy decides
/// about what was never read, and the first flush afterwards finds it.
#[test]
fn a_start_without_the_origin_is_an_absence_like_any_other() {
    if mounts_missing().is_some() {
        return;
    }
    let conf = format!("{OTHER}target.other.disconnected = read-only\n");
    let mut site = with_dirs(&conf, &["other"]);
    fs::write(site.path("other").join("cold"), "refused").unwrap();
    fs::write(site.origin().join("cold"), "awaited").unwrap();
    let (main, other) = (site.mount("m"), site.mount_target("other", "o"));
    assert_eq!(fs::read_dir(&main).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    site.stop();
    for dir in [site.origin(), site.path("other")] {
        fs::rename(&dir, dir.with_extension("away")).unwrap();
    }
    site.serve();
    for target in ["main", "other"] {
        let (_, status) = site.target_status(target);
        let state = status["state"].as_str().unwrap().to_owned();
        assert!(
            ["disconnected", "reconnecting"].contains(&&*state),
            "{state}"
        );
    }
    let refused = fs::read(other.join("cold")).unwrap_err();
    let timed_out = rustix::io::Errno::TIMEDOUT.raw_os_error();
    assert_eq!(refused.raw_os_error(), Some(timed_out));
    fs::write(main.join("made"), "meanwhile").unwrap();
    let cold = main.join("cold");
    let reader = std::thread::spawn(move || fs::read_to_string(cold));
    until("the miss is at the box", || {
        site.status().to_string().contains("\"requests running\":1")
    });
    for dir in [site.origin(), site.path("other")] {
        fs::rename(dir.with_extension("away"), &dir).unwrap();
    }
    site.flush();
    let made = fs::read_to_string(site.origin().join("made")).unwrap();
    assert_eq!(made, "meanwhile");
    assert_eq!(reader.join().unwrap().unwrap(), "awaited");
    site.flush_target("other");
    assert_eq!(fs::read_to_string(other.join("cold")).unwrap(), "refused");
    site.umount(&main);
    site.umount(&other);
    site.stop();
}

#[test]
fn a_cache_keeps_its_number_of_shards() {
    if one_cpu() {
        return;
    }
    let mut site = with_dirs(&format!("shards = 0-1\n{OTHER}"), &["other"]);
    site.stop();
    let conf = fs::read_to_string(site.conf()).unwrap();
    let serve = |shards: &str| {
        let changed = site.path("changed.conf");
        fs::write(&changed, conf.replace("shards = 0-1", shards)).unwrap();
        Command::new(FOREBAY)
            .args(["serve", "-c"])
            .arg(changed)
            .output()
            .unwrap()
    };
    let fewer = serve("shards = 0");
    assert_eq!(fewer.status.code(), Some(3), "{}", text(&fewer));
    let said = text(&fewer);
    assert!(
        said.contains("made for 2 shards") && said.contains("name 2 CPUs"),
        "{said}"
    );
    // CPUs that this machine does not have.
    let nowhere = serve("shards = 1022-1023");
    assert_eq!(nowhere.status.code(), Some(1), "{}", text(&nowhere));
    let said = text(&nowhere);
    assert!(
        said.contains("CPU 102") && said.contains("set `shards`"),
        "{said}"
    );
    site.serve();
    site.stop();
}
