//! What the kernel keeps of a mount, and that it is taken back: real mounts of
//! a tree in memory, whose requests are counted. Skipped, saying so, where this
//! machine cannot mount.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "kept/bed.rs"]
mod bed;
#[path = "mount_null/tree.rs"]
mod tree;

use bed::{ALL, Mapping, Mount, until};
use forebay::base::codec::Bytes;
use forebay::base::{Bits, Fid, FileKind, Name, OpenId};
use forebay::client::{Fill, Terms};
use forebay::wire::Request;
use forebay::wire::head::flags::PAGE_WRITE;
use forebay::wire::op::{Create, Intent, Unlink, Write};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

const ROOT: Fid = Fid::new(1, 1);

fn nothing() -> BTreeMap<&'static str, u64> {
    BTreeMap::new()
}

fn only(label: &'static str, count: u64) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([(label, count)])
}

/// Not std's, which asks for the time of birth: no LOOKUP tells that.
fn stat(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok()
}

/// How many names are looked up while `f` runs. Attributes of directories are
/// not counted: the kernel drops them with each of their names.
fn looked_up(m: &Mount, f: impl FnOnce()) -> u64 {
    m.asked(f).get("Lookup").copied().unwrap_or(0)
}

/// Another client writes.
fn write_elsewhere(m: &Mount, fid: Fid, offset: u64, bytes: &[u8]) {
    let write = Write {
        fid,
        open: OpenId(0),
        offset,
        append: false,
    };
    m.remote(Request::Write(write), Some(bytes));
}

fn create_elsewhere(m: &Mount, name: &str) {
    m.remote(
        Request::Create(Create {
            parent: ROOT,
            name: Some(Name::new(name.as_bytes()).unwrap()),
            kind: FileKind::Regular,
            mode: 0o644,
            rdev: 0,
            link: Bytes::default(),
            exclusive: true,
            open: OpenId(0),
            flags: 0,
            fid: Fid::NONE,
            intent: Intent::default(),
        }),
        None,
    );
}

fn read_byte(file: &File, at: u64) -> u8 {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0]
}

#[test]
fn what_terms_cover_is_not_asked_again() {
    let Some(m) = Mount::new(ALL) else { return };
    let f = m.path("f");
    fs::write(&f, vec![7; 100_000]).unwrap();
    let warm = || {
        assert!(stat(&f));
        assert_eq!(fs::read(&f).unwrap().len(), 100_000);
    };
    warm();
    warm();
    assert_eq!(m.asked(|| (0..20).for_each(|_| warm())), only("Open", 20));
    assert!(!stat(&m.path("none")));
    let again = m.asked(|| assert!(!stat(&m.path("none"))));
    assert_eq!(again, nothing(), "a name that is not there");
    m.end();
}

#[test]
fn nothing_is_kept_without_terms() {
    let Some(m) = Mount::new(Terms::default()) else {
        return;
    };
    fs::write(m.path("f"), "x").unwrap();
    for _ in 0..2 {
        let asked = m.asked(|| {
            assert!(stat(&m.path("f")));
            assert!(!stat(&m.path("none")));
            assert_eq!(fs::read(m.path("f")).unwrap(), b"x");
        });
        assert!(asked["Lookup"] >= 3 && asked["Getattr"] >= 1 && asked["Read"] >= 1);
    }
    m.end();
}

#[test]
fn listings_bring_names_and_attributes() {
    let Some(m) = Mount::new(ALL) else { return };
    for i in 0..100 {
        create_elsewhere(&m, &format!("f{i}"));
    }
    let list = || {
        let entries = fs::read_dir(m.root()).unwrap();
        entries.map(|e| e.unwrap().path()).collect::<Vec<_>>()
    };
    let paths = list();
    assert_eq!(paths.len(), 100);
    let asked = m.asked(|| assert!(paths.iter().all(|path| stat(path))));
    assert_eq!(asked, nothing());
    let fid = m.fid("f7");
    m.take_back(fid, Bits::LOOKUP).wait();
    assert_eq!(looked_up(&m, || assert!(stat(&m.path("f7")))), 1);
    let unlink = Unlink {
        parent: ROOT,
        name: Name::new(b"f9").unwrap(),
        dir: false,
    };
    m.remote(Request::Unlink(unlink), None);
    m.take_back(ROOT, Bits::UPDATE).wait();
    assert_eq!(list().len(), 99, "listings are read anew");
    m.end();
}

#[test]
fn names_are_taken_back() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "1").unwrap();
    fs::hard_link(m.path("d/a"), m.path("b")).unwrap();
    let look = |name: &str| looked_up(&m, || assert!(stat(&m.path(name))));
    look("d/a");
    look("b");
    assert_eq!((look("d/a"), look("b")), (0, 0));
    let fid = m.fid("b");
    m.take_back(fid, Bits::LOOKUP).wait();
    assert!(look("d/a") > 0, "each of its names");
    assert!(look("b") > 0);
    // What this mount moves goes on being believed, under its new name.
    fs::rename(m.path("b"), m.path("d/c")).unwrap();
    look("d/c");
    assert_eq!(look("d/c"), 0);
    m.take_back(fid, Bits::LOOKUP).wait();
    assert!(look("d/c") > 0);
    m.end();
}

#[test]
fn names_that_are_not_there_are_taken_back() {
    let Some(m) = Mount::new(ALL) else { return };
    assert!(!stat(&m.path("x")) && !stat(&m.path("y")));
    create_elsewhere(&m, "x");
    assert!(!stat(&m.path("x")), "believed while the lock is held");
    m.take_back(ROOT, Bits::UPDATE).wait();
    assert_eq!(looked_up(&m, || assert!(stat(&m.path("x")))), 1);
    assert_eq!(looked_up(&m, || assert!(!stat(&m.path("y")))), 1);
    m.end();
}

#[test]
fn attributes_are_taken_back() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), "1").unwrap();
    let size = || fs::metadata(m.path("f")).unwrap().len();
    assert_eq!(size(), 1);
    let fid = m.fid("f");
    for (bits, len) in [(Bits::UPDATE, 2), (Bits::PERM, 3), (Bits::XATTR, 4)] {
        write_elsewhere(&m, fid, 0, &vec![b'x'; len]);
        assert_eq!(m.asked(|| assert!(size() < len as u64)), nothing());
        m.take_back(fid, bits).wait();
        let asked = m.asked(|| assert_eq!(size(), len as u64));
        assert_eq!(asked, only("Getattr", 1));
    }
    m.end();
}

#[test]
fn pages_are_taken_back() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 3 * 4096]).unwrap();
    let fid = m.fid("f");
    let file = File::open(m.path("f")).unwrap();
    let mapping = Mapping::new(&file, 3 * 4096, false);
    let all = || [0, 5000, 9000].map(|at| read_byte(&file, at));
    assert_eq!(all(), [1; 3]);
    write_elsewhere(&m, fid, 0, &[2; 3 * 4096]);
    assert_eq!(all(), [1; 3], "believed while the lock is held");
    m.take_back(fid, Bits::DATA).wait();
    assert_eq!(mapping.resident(), 0);
    assert_eq!(all(), [2; 3]);
    assert_eq!(mapping.byte(5000), 2, "also through a mapping");
    assert_eq!(m.asked(|| assert_eq!(all(), [2; 3])), nothing());
    let again = m.asked(|| assert_eq!(fs::read(m.path("f")).unwrap()[0], 2));
    assert_eq!(again.get("Read"), None, "a new open keeps the pages");
    drop((mapping, file));
    m.end();
}

/// What LOCKOWNER means to this kernel is what the mount takes it for.
#[test]
fn reads_say_what_they_are_for() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 4 * 4096]).unwrap();
    let fills = || -> Vec<Fill> {
        let reads = m.seen().into_iter().filter(|s| s.label == "Read");
        reads.map(|s| s.fill).collect()
    };
    let kept = File::open(m.path("f")).unwrap();
    fills();
    read_byte(&kept, 0);
    let got = fills();
    assert!(
        !got.is_empty() && got.iter().all(|f| *f == Fill::Read),
        "{got:?}"
    );
    drop(kept);
    m.take_back(m.fid("f"), Bits::DATA).wait();
    m.set_terms(Terms {
        pages: false,
        ..ALL
    });
    let direct = File::open(m.path("f")).unwrap();
    read_byte(&direct, 0);
    assert_eq!(fills(), [Fill::No], "a caller's own buffer");
    let mapping = Mapping::new(&direct, 4096, false);
    mapping.byte(0);
    let got = fills();
    assert!(
        !got.is_empty() && got.iter().all(|f| *f == Fill::Read),
        "{got:?}"
    );
    let writer = File::options().write(true).open(m.path("f")).unwrap();
    mapping.byte(0);
    let got = fills();
    assert!(
        !got.is_empty() && got.iter().all(|f| *f == Fill::Write),
        "{got:?}"
    );
    drop((mapping, direct, writer));
    m.end();
}

#[test]
fn the_first_open_for_writing_drops_pages_read_under_less() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 2 * 4096]).unwrap();
    let reader = File::open(m.path("f")).unwrap();
    let mapping = Mapping::new(&reader, 2 * 4096, false);
    assert_eq!((mapping.byte(0), mapping.byte(4096)), (1, 1));
    assert_eq!(mapping.resident(), 2);
    let writer = File::options().write(true).open(m.path("f")).unwrap();
    assert_eq!(
        mapping.resident(),
        0,
        "dropped before the open was answered"
    );
    assert_eq!(read_byte(&reader, 0), 1);
    writer.write_all_at(&[2; 10], 4096).unwrap();
    assert_eq!((read_byte(&reader, 4096), mapping.byte(4096)), (2, 2));
    assert_eq!(read_byte(&reader, 0), 1);
    drop((mapping, reader, writer));
    m.end();
}

/// A READ whose answer is older than a write of this machine.
#[test]
fn pages_read_beside_a_write_are_not_older() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 4096]).unwrap();
    let reader = File::open(m.path("f")).unwrap();
    let writer = File::options().write(true).open(m.path("f")).unwrap();
    m.hold_answers("Read");
    std::thread::scope(|s| {
        let read = s.spawn(|| read_byte(&reader, 0));
        m.wait_held(1);
        // The kernel itself waits for the folio before it writes past it.
        let write = s.spawn(|| writer.write_all_at(&[2; 10], 0).unwrap());
        m.release();
        write.join().unwrap();
        assert!([1, 2].contains(&read.join().unwrap()));
    });
    assert_eq!(read_byte(&reader, 0), 2);
    drop((reader, writer));
    m.end();
}

fn held_name(hold: &'static str, act: impl FnOnce(&Path) + Send) {
    let Some(m) = Mount::new(ALL) else { return };
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "1").unwrap();
    fs::write(m.path("d/gone"), "1").unwrap();
    assert!(stat(&m.path("d/a")) && stat(&m.path("d/gone")));
    let fid = m.fid("d/a");
    m.hold(hold);
    std::thread::scope(|s| {
        let dir = m.path("d");
        let held = s.spawn(move || act(&dir));
        m.wait_held(1);
        // Ends before the request that holds the directory, and not by a
        // timeout; and so does the next, which finds the name given up.
        m.take_back(fid, Bits::LOOKUP).wait();
        m.take_back(fid, Bits::LOOKUP).wait();
        assert!(stat(m.root()), "others are answered meanwhile");
        m.release();
        held.join().unwrap();
    });
    let asked = m.asked(|| assert!(stat(&m.path("d/a"))));
    assert!(asked["Lookup"] >= 1, "{asked:?}");
    m.end();
}

#[test]
fn a_name_is_taken_back_beside_a_lookup() {
    held_name("Lookup", |dir| assert!(!stat(&dir.join("b"))));
}

#[test]
fn a_name_is_taken_back_beside_a_create() {
    held_name("Create", |dir| fs::write(dir.join("b"), "").unwrap());
}

#[test]
fn a_name_is_taken_back_beside_an_unlink() {
    held_name("Unlink", |dir| fs::remove_file(dir.join("gone")).unwrap());
}

#[test]
fn pages_are_taken_back_beside_a_read_of_them() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 8 * 4096]).unwrap();
    let fid = m.fid("f");
    let file = File::open(m.path("f")).unwrap();
    let mapping = Mapping::new(&file, 8 * 4096, false);
    // One page at a time.
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
    m.hold_answers("Read");
    let before = m.count("Read") + 1;
    std::thread::scope(|s| {
        let read = s.spawn(|| read_byte(&file, 0));
        m.wait_held(1);
        m.take_back(fid, Bits::DATA).wait();
        write_elsewhere(&m, fid, 0, &[2; 4096]);
        m.release();
        assert_eq!(read.join().unwrap(), 2, "asked again: its answer was over");
    });
    // Dropped all the same; by then the reader has had its byte, or asks anew.
    until(|| mapping.resident() == 0 || m.count("Read") >= before + 2);
    assert_eq!(read_byte(&file, 0), 2);
    drop((mapping, file));
    m.end();
}

#[test]
fn dirty_pages_are_written_when_they_are_taken_back() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 4 * 4096]).unwrap();
    let fid = m.fid("f");
    let file = File::options()
        .read(true)
        .write(true)
        .open(m.path("f"))
        .unwrap();
    let mapping = Mapping::new(&file, 4 * 4096, true);
    mapping.store(5, 9);
    mapping.store(3 * 4096, 9);
    m.seen();
    m.take_back(fid, Bits::DATA).wait();
    let writes: Vec<_> = m
        .seen()
        .into_iter()
        .filter(|s| s.label == "Write")
        .collect();
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert!(writes.iter().all(|w| w.flags & PAGE_WRITE != 0));
    write_elsewhere(&m, fid, 6, &[8]);
    assert_eq!(
        (mapping.byte(5), mapping.byte(6), mapping.byte(3 * 4096)),
        (9, 8, 9)
    );
    drop((mapping, file));
    m.end();
}

#[test]
fn a_held_truncation_holds_up_only_its_own_pages() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 4 * 4096]).unwrap();
    fs::write(m.path("g"), "g").unwrap();
    let fid = m.fid("f");
    let file = File::options()
        .read(true)
        .write(true)
        .open(m.path("f"))
        .unwrap();
    let mapping = Mapping::new(&file, 4 * 4096, true);
    mapping.store(5, 9);
    m.hold("Setattr");
    std::thread::scope(|s| {
        let cut = s.spawn(|| file.set_len(2 * 4096).unwrap());
        m.wait_held(1);
        let taking = m.take_back(fid, Bits::DATA);
        for i in 0..50 {
            fs::write(m.path(&format!("n{i}")), "n").unwrap();
            assert_eq!(fs::read(m.path("g")).unwrap(), b"g");
        }
        assert!(!taking.is_done(), "the kernel writes after the truncation");
        m.release();
        taking.wait();
        cut.join().unwrap();
    });
    assert_eq!(read_byte(&file, 5), 9);
    drop((mapping, file));
    m.end();
}

/// What a reply names is taken back before the kernel has taken the reply in.
#[test]
fn a_reply_does_not_outlive_what_it_says() {
    let Some(m) = Mount::new(ALL) else { return };
    let count = 300;
    for i in 0..count {
        create_elsewhere(&m, &format!("f{i}"));
    }
    assert!(stat(m.root()));
    m.strike(true);
    for i in 0..count {
        assert!(stat(&m.path(&format!("f{i}"))));
    }
    until(|| m.struck() >= count);
    m.strike(false);
    let mut asked = 0;
    for i in 0..count {
        let path = m.path(&format!("f{i}"));
        asked += u64::from(m.asked(|| assert!(stat(&path))) != nothing());
    }
    assert_eq!(asked, count as u64, "some were still believed");
    // Attributes alone, through files that are open: names play no part.
    m.strike(true);
    let files: Vec<File> = (0..count)
        .map(|i| File::open(m.path(&format!("f{i}"))).unwrap())
        .collect();
    let struck = m.struck();
    assert!(struck > 0);
    until(|| m.struck() >= count);
    m.strike(false);
    for file in &files {
        let asked = m.asked(|| assert!(rustix::fs::fstat(file).is_ok()));
        assert_eq!(asked, only("Getattr", 1));
    }
    drop(files);
    m.end();
}

#[test]
fn everything_is_taken_back_and_old_pages_are_lost() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 2 * 4096]).unwrap();
    assert!(!stat(&m.path("x")));
    let file = File::options()
        .read(true)
        .write(true)
        .open(m.path("f"))
        .unwrap();
    let mapping = Mapping::new(&file, 2 * 4096, true);
    mapping.store(5, 9);
    assert!(stat(&m.path("f")));
    create_elsewhere(&m, "x");
    m.seen();
    m.take_back_all().wait();
    let writes = m.seen().into_iter().filter(|s| s.label == "Write").count();
    assert_eq!(writes, 0, "old pages do not come over new data");
    assert_eq!(mapping.byte(5), 1);
    let lost = mapping.sync().unwrap_err();
    assert_eq!(
        lost.raw_os_error(),
        Some(libc::EIO),
        "and who stored is told"
    );
    assert!(stat(&m.path("x")));
    let asked = m.asked(|| assert!(stat(&m.path("f"))));
    assert!(asked["Lookup"] >= 1, "{asked:?}");
    mapping.store(5, 7);
    mapping.sync().unwrap();
    assert_eq!(m.seen().iter().filter(|s| s.label == "Write").count(), 1);
    drop((mapping, file));
    m.end();
}

#[test]
fn growth_elsewhere_is_seen_through_a_mapping() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 4096]).unwrap();
    let fid = m.fid("f");
    let file = File::open(m.path("f")).unwrap();
    let mapping = Mapping::new(&file, 3 * 4096, false);
    assert_eq!(mapping.byte(0), 1);
    for last in [2 * 4096, 2 * 4096 + 9] {
        m.take_back(fid, Bits::DATA.with(Bits::UPDATE)).wait();
        write_elsewhere(&m, fid, 4096, &vec![3; last + 1 - 4096]);
        m.grown(fid, last as u64 + 1, 3).wait();
        assert_eq!((mapping.byte(4096), mapping.byte(last)), (3, 3));
    }
    drop((mapping, file));
    m.end();
}

/// Not a check: how long what is kept takes. `--nocapture` shows it.
#[test]
fn what_is_kept_costs_little() {
    let Some(m) = Mount::new(ALL) else { return };
    fs::write(m.path("f"), vec![1; 4096]).unwrap();
    let path = m.path("f");
    let each = |what: &str, count: u32, f: &dyn Fn()| {
        f();
        let start = std::time::Instant::now();
        (0..count).for_each(|_| f());
        println!("{what}: {:?}", start.elapsed() / count);
    };
    each("warm stat", 100_000, &|| assert!(stat(&path)));
    each("open, read 4 KiB, close", 5_000, &|| {
        assert_eq!(read_byte(&File::open(&path).unwrap(), 9), 1);
    });
    let fid = m.fid("f");
    each("take back all of a file, stat", 1_000, &|| {
        m.take_back(fid, Bits::ALL).wait();
        assert!(stat(&path));
    });
    m.set_terms(Terms::default());
    m.take_back_all().wait();
    each("stat without terms", 5_000, &|| assert!(stat(&path)));
    m.end();
}
