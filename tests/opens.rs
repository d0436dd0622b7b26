//! Round trips of a mount to its box, call by call; and what is open stays so,
//! whatever others do to it, though the box was told nothing of it.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use support::{Site, mounts_missing, until};

/// A site whose mounts any user can reach.
fn site(conf: &str) -> Option<Site> {
    if mounts_missing().is_some() {
        return None;
    }
    let site = Site::start(conf);
    fs::set_permissions(site.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(site)
}

/// The numbers of a mount.
fn counters(mount: &Path) -> BTreeMap<String, u64> {
    let mut text = [0; 4096];
    let len = rustix::fs::getxattr(mount, "system.forebay.counters", &mut text).unwrap();
    let lines = std::str::from_utf8(&text[..len]).unwrap().lines();
    let pairs = lines.map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}

/// Requests that somebody waits for while `f` runs.
fn trips(mount: &Path, f: impl FnOnce()) -> u64 {
    let before = counters(mount)["sent"];
    f();
    counters(mount)["sent"] - before
}

fn read(path: &Path) {
    let mut buf = [0; 4096];
    let mut file = File::open(path).unwrap();
    file.read_exact(&mut buf).unwrap();
}

fn list(path: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(path).unwrap() {
        rustix::fs::lstat(entry.unwrap().path()).unwrap();
        count += 1;
    }
    count
}

/// What was fought over a moment ago is not handed over for a second: waits for
/// the mount to know the directory for more than a moment.
fn known(mount: &Path, dir: &Path) {
    let look = || rustix::fs::lstat(dir).map(drop).unwrap();
    until("the directory is known", || trips(mount, look) == 0);
}

fn getfattr(path: &Path, name: &str) -> bool {
    rustix::fs::getxattr(path, name, &mut [0u8; 64]).is_ok()
}

/// What each call costs, on a mount that has not seen the file before, and
/// once more.
#[test]
fn each_call_costs_so_many_round_trips() {
    let Some(mut site) = site("") else { return };
    let first = site.mount("first");
    fs::create_dir(first.join("d")).unwrap();
    for n in 0..20 {
        fs::write(first.join(format!("d/f{n}")), [7; 4096]).unwrap();
    }
    symlink("f0", first.join("d/l")).unwrap();
    rustix::fs::setxattr(
        first.join("d/f0"),
        "user.a",
        b"1",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    type Row = (&'static str, [u64; 2], fn(&Path));
    // The name, the trips when cold and when warm, and the call; in each the
    // directory is known.
    let rows: [Row; 8] = [
        ("stat", [1, 0], |d| {
            rustix::fs::lstat(d.join("f0")).unwrap();
        }),
        ("stat of nothing", [1, 0], |d| {
            rustix::fs::lstat(d.join("none")).unwrap_err();
        }),
        ("open, read, close", [2, 0], |d| read(&d.join("f0"))),
        ("open to write, close", [1, 0], |d| {
            OpenOptions::new().write(true).open(d.join("f0")).unwrap();
        }),
        ("getxattr", [2, 0], |d| {
            assert!(getfattr(&d.join("f0"), "user.a"))
        }),
        ("getxattr of nothing", [2, 0], |d| {
            assert!(!getfattr(&d.join("f0"), "user.b"));
        }),
        ("readlink", [2, 0], |d| {
            fs::read_link(d.join("l")).unwrap();
        }),
        ("list with attributes", [1, 0], |d| assert_eq!(list(d), 21)),
    ];
    let mut wrong = Vec::new();
    for (n, (name, expected, call)) in rows.iter().enumerate() {
        let mount = site.mount(&format!("m{n}"));
        let dir = mount.join("d");
        known(&mount, &dir);
        let seen = [trips(&mount, || call(&dir)), trips(&mount, || call(&dir))];
        if seen != *expected {
            wrong.push(format!("{name}: {seen:?} and not {expected:?}"));
        }
        site.umount(&mount);
    }
    // Changes: each costs itself, and the looks before it. A mount of its own
    // for each, because the second in a directory asks for it.
    type Change = (&'static str, u64, fn(&Path));
    let changes: [Change; 7] = [
        ("create, write, close", 3, |d| {
            fs::write(d.join("new"), b"x").unwrap();
        }),
        ("open to append, write, close", 2, |d| {
            let mut log = OpenOptions::new().append(true).open(d.join("new")).unwrap();
            log.write_all(b"y").unwrap();
        }),
        ("chmod", 2, |d| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(d.join("new"), mode).unwrap();
        }),
        ("mkdir", 2, |d| fs::create_dir(d.join("sub")).unwrap()),
        ("rename", 4, |d| {
            fs::rename(d.join("new"), d.join("sub/new")).unwrap();
        }),
        ("unlink", 3, |d| fs::remove_file(d.join("sub/new")).unwrap()),
        ("rmdir", 2, |d| fs::remove_dir(d.join("sub")).unwrap()),
    ];
    for (n, (name, expected, call)) in changes.into_iter().enumerate() {
        let mount = site.mount(&format!("c{n}"));
        let dir = mount.join("d");
        known(&mount, &dir);
        let seen = trips(&mount, || call(&dir));
        if seen != expected {
            wrong.push(format!("{name}: {seen} and not {expected}"));
        }
        site.umount(&mount);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Reads past the kernel's own pages: what the mount or the box has.
fn read_direct(path: &Path) -> Vec<u8> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let mut file = OpenOptions::new();
    let file = file.read(true).custom_flags(direct).open(path).unwrap();
    let mut buf = vec![0; 4096];
    let len = file.read_at(&mut buf, 0).unwrap();
    buf.truncate(len);
    buf
}

/// Where files are read, a look-up brings the bytes: one round trip for all.
/// They are as true as the lock that they came under.
#[test]
fn small_files_come_with_the_answer_that_shows_them() {
    let Some(mut site) = site("") else { return };
    let first = site.mount("first");
    fs::create_dir(first.join("d")).unwrap();
    for n in 0..40 {
        fs::write(first.join(format!("d/f{n:02}")), [n; 4096]).unwrap();
    }
    fs::write(first.join("d/large"), vec![7; 100_000]).unwrap();
    let mount = site.mount("reader");
    let file = |n: u8| mount.join(format!("d/f{n:02}"));
    rustix::fs::lstat(mount.join("d")).unwrap();
    assert_eq!(
        trips(&mount, || read(&file(20))),
        2,
        "nobody reads here yet"
    );
    assert_eq!(trips(&mount, || read(&file(5))), 1);
    assert_eq!(
        trips(&mount, || assert_eq!(read_direct(&file(5)), [5; 4096])),
        0
    );
    let large = mount.join("d/large");
    assert_eq!(
        trips(&mount, || read(&large)),
        2,
        "its bytes do not come with it"
    );
    // Changes of others, and of its own.
    let other = first.join("d/f05");
    fs::write(&other, [50; 4096]).unwrap();
    assert_eq!(read_direct(&file(5)), [50; 4096]);
    fs::write(file(5), [51; 100]).unwrap();
    assert_eq!(read_direct(&file(5)), [51; 100]);
    assert_eq!(read_direct(&other), [51; 100]);
    append(&other).write_all(&[52; 100]).unwrap();
    assert_eq!(read_direct(&file(5)).len(), 200);
    fs::remove_file(&other).unwrap();
    assert!(File::open(file(5)).is_err());
}

/// Files that are read in a row are there before they are asked for.
#[test]
fn who_reads_in_order_waits_for_no_round_trips() {
    let Some(mut site) = site("") else { return };
    let first = site.mount("first");
    fs::create_dir(first.join("d")).unwrap();
    for n in 0..80 {
        fs::write(first.join(format!("d/f{n:02}")), [n; 4096]).unwrap();
    }
    let by_name: fn(&Path) -> Vec<PathBuf> = |dir| {
        let mut all = by_listing(dir);
        all.sort();
        all
    };
    for (n, order) in [by_name, by_listing].into_iter().enumerate() {
        let mount = site.mount(&format!("m{n}"));
        assert_eq!(list(&mount.join("d")), 80);
        let files = order(&mount.join("d"));
        let mut bytes: Vec<u8> = Vec::new();
        let mut spared = 0;
        for file in &files {
            let waited = trips(&mount, || bytes.push(fs::read(file).unwrap()[4095]));
            spared += u64::from(waited == 0);
        }
        assert!(spared > 0, "each of the reads waited");
        assert!(counters(&mount)["fetched"] > 0);
        let expected = files.iter().map(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name[1..].parse::<u8>().unwrap()
        });
        assert!(bytes.iter().copied().eq(expected));
        site.umount(&mount);
    }
}

/// Names that count are there before they are looked up, in a directory that
/// nobody lists.
#[test]
fn who_counts_through_names_waits_for_no_round_trips() {
    let Some(mut site) = site("") else { return };
    let first = site.mount("first");
    fs::create_dir(first.join("d")).unwrap();
    for n in 0..80 {
        fs::write(first.join(format!("d/shot.{n:04}.exr")), [n; 4096]).unwrap();
    }
    let mount = site.mount("second");
    known(&mount, &mount.join("d"));
    let mut spared = 0;
    for n in 0..80 {
        let path = mount.join(format!("d/shot.{n:04}.exr"));
        let look = || assert_eq!(rustix::fs::lstat(&path).unwrap().st_size, 4096);
        spared += u64::from(trips(&mount, look) == 0);
    }
    assert!(spared > 0, "each of the looks waited");
    let fetched = counters(&mount)["fetched"];
    assert!(
        (76..76 + 16).contains(&fetched),
        "each once, and some after the end: {fetched}"
    );
    // What is not there is not believed to be, when somebody makes it.
    let next = mount.join("d/shot.0080.exr");
    rustix::fs::lstat(&next).unwrap_err();
    fs::write(first.join("d/shot.0080.exr"), b"new").unwrap();
    assert_eq!(fs::read(&next).unwrap(), b"new");
}

fn by_listing(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Who is alone in a directory waits for nothing there.
#[test]
fn changes_are_answered_ahead_of_the_box() {
    let Some(mut site) = site("") else { return };
    let mount = site.mount("alone");
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    let ahead = || counters(&mount)["ahead"];
    let before = ahead();
    until("the directory is its own", || {
        let spare = dir.join("spare");
        fs::write(&spare, b"x").unwrap();
        fs::remove_file(&spare).unwrap();
        ahead() > before
    });
    let made = |name: &str, all: u64, f: &dyn Fn()| {
        let before = ahead();
        f();
        assert_eq!(ahead() - before, all, "{name}");
    };
    made("create and write", 2, &|| {
        fs::write(dir.join("a"), b"x").unwrap()
    });
    made("chmod", 1, &|| {
        fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    });
    made("mkdir", 1, &|| fs::create_dir(dir.join("sub")).unwrap());
    made("rename", 1, &|| {
        fs::rename(dir.join("a"), dir.join("sub/a")).unwrap()
    });
    made("link", 1, &|| {
        fs::hard_link(dir.join("sub/a"), dir.join("b")).unwrap()
    });
    made("symlink", 1, &|| symlink("b", dir.join("l")).unwrap());
    made("unlink", 2, &|| {
        fs::remove_file(dir.join("sub/a")).unwrap();
        fs::remove_file(dir.join("b")).unwrap();
    });
    made("rmdir", 1, &|| fs::remove_dir(dir.join("sub")).unwrap());
    let other = site.mount("other");
    assert_eq!(fs::read_link(other.join("d/l")).unwrap(), Path::new("b"));
    assert_eq!(fs::read_dir(other.join("d")).unwrap().count(), 1);
}

/// The calls that unpack an archive wait for no round trip where the directory is
/// its maker's own, and those about owner, mode and times go in one request.
#[test]
fn what_is_unpacked_waits_for_no_round_trips() {
    const FILES: u64 = 50;
    let Some(mut site) = site("") else { return };
    let mount = site.mount("alone");
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    let before = counters(&mount)["ahead"];
    until("the directory is its own", || {
        let spare = dir.join("spare");
        fs::write(&spare, b"x").unwrap();
        fs::remove_file(&spare).unwrap();
        counters(&mount)["ahead"] > before
    });
    let refused = |site: &Site| {
        let status = site.status();
        let of = &status["shard"][0]["counters"]["refused"]["ENODATA(61)"];
        of.as_u64().unwrap_or(0)
    };
    let (before, had) = (counters(&mount), refused(&site));
    for n in 0..FILES {
        let mut file = File::create_new(dir.join(format!("f{n}"))).unwrap();
        file.write_all(b"x").unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        rustix::fs::fchown(&file, Some(rustix::fs::Uid::ROOT), None).unwrap();
        let mode = fs::Permissions::from_mode(0o640);
        file.set_permissions(mode).unwrap();
    }
    let after = counters(&mount);
    assert_eq!(after["ahead"] - before["ahead"], 5 * FILES);
    // The kernel asks whether a file has a capability before the first write.
    assert_eq!(refused(&site), had);
    // How many go together depends on how soon they come.
    assert!(after["sent"] - before["sent"] < 5 * FILES, "{after:?}");
}

/// A process of an ordinary user that has a file open.
struct Holder {
    child: Child,
    tell: ChildStdin,
    said: BufReader<std::process::ChildStdout>,
}

const USER: u32 = 65_534;

impl Holder {
    fn new(path: &Path) -> Holder {
        let script = "exec 3<\"$1\"; echo open; read -r _; cat <&3; echo; read -r _";
        let mut child = Command::new("bash")
            .args(["-ec", script, "bash"])
            .arg(path)
            .uid(USER)
            .gid(USER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tell = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut holder = Holder { child, tell, said };
        assert_eq!(holder.hear(), "open");
        holder
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it reads through its open file, which it keeps.
    fn read(&mut self) -> String {
        writeln!(self.tell).unwrap();
        self.hear()
    }

    fn end(mut self) {
        writeln!(self.tell).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// Files at the origin, with those that wait without a name.
fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_under(&path)),
            false => files.push(path),
        }
    }
    files
}

/// N9: by another mount, by its own, and over a box that dies meanwhile.
#[test]
fn an_open_file_outlives_its_name_and_the_box_n9() {
    let Some(mut site) = site("lease = 3s") else {
        return;
    };
    let (a, b) = (site.mount("a"), site.mount("b"));
    for (remover, dies) in [(&a, false), (&b, false), (&a, true), (&b, true)] {
        let bytes = vec![5; 300_000];
        fs::write(b.join("f"), &bytes).unwrap();
        site.flush();
        // Looked at, so that the open needs no word.
        assert_eq!(fs::metadata(a.join("f")).unwrap().len(), 300_000);
        let file = File::open(a.join("f")).unwrap();
        fs::remove_file(remover.join("f")).unwrap();
        if dies {
            site.kill();
            site.serve();
        }
        let mut seen = vec![0; 300_000];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == bytes, "{} {dies}", remover.display());
        // Space is freed at the last close, at the origin too.
        drop(file);
        until("nothing is left at the origin", || {
            site.flush();
            files_under(&site.origin()).is_empty()
        });
    }
}

/// A handle carries the right that it was opened with, which ends for new ones.
#[test]
fn an_open_file_is_read_though_its_mode_forbids_it_by_now() {
    let Some(mut site) = site("") else { return };
    let (a, b) = (site.mount("a"), site.mount("b"));
    for remote in [true, false] {
        let (path, text) = (a.join("f"), format!("secret {remote}"));
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::metadata(&path).unwrap();
        let mut holder = Holder::new(&path);
        let at = if remote { b.join("f") } else { path.clone() };
        fs::set_permissions(&at, fs::Permissions::from_mode(0o000)).unwrap();
        // Not out of the pages that it had read, if it had.
        append(&b.join("f")).write_all(b"!").unwrap();
        assert_eq!(holder.read(), format!("{text}!"));
        let refused = Command::new("cat").arg(&path).uid(USER).gid(USER).output();
        assert!(!refused.unwrap().status.success());
        holder.end();
        fs::remove_file(&path).unwrap();
    }
}

/// What is remembered of extended attributes follows every change of them.
#[test]
fn extended_attributes_are_the_same_on_every_mount() {
    let Some(mut site) = site("") else { return };
    let (a, b) = (site.mount("a"), site.mount("b"));
    fs::write(a.join("f"), b"x").unwrap();
    let value = |mount: &Path, name: &str| {
        let mut buf = [0; 64];
        let len = rustix::fs::getxattr(mount.join("f"), name, &mut buf[..]);
        len.ok().map(|len| buf[..len].to_vec())
    };
    let listed = |mount: &Path| {
        let mut buf = [0; 256];
        let len = rustix::fs::listxattr(mount.join("f"), &mut buf[..]).unwrap();
        String::from_utf8_lossy(&buf[..len]).contains("user.a")
    };
    let see = |expected: Option<&[u8]>| {
        // The second time out of memory.
        for mount in [&a, &b, &a, &b] {
            assert_eq!(value(mount, "user.a").as_deref(), expected);
            assert_eq!(listed(mount), expected.is_some());
        }
    };
    see(None);
    let none = rustix::fs::XattrFlags::empty();
    for (n, by) in [&a, &b, &b, &a].into_iter().enumerate() {
        let text = [b'0' + n as u8; 3];
        rustix::fs::setxattr(by.join("f"), "user.a", &text, none).unwrap();
        see(Some(&text));
        if n % 2 == 1 {
            rustix::fs::removexattr(by.join("f"), "user.a").unwrap();
            see(None);
        }
    }
    // A write takes a capability away.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(a.join("f"), "security.capability", &capability, none).unwrap();
    let has = |mount: &Path| value(mount, "security.capability").is_some();
    assert!(has(&a) && has(&b) && has(&a));
    fs::set_permissions(a.join("f"), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(has(&a) && has(&b));
    let write = ["-ec", "printf y >> \"$1\"", "bash"];
    let mut writer = Command::new("bash");
    writer.args(write).arg(a.join("f")).uid(USER).gid(USER);
    assert!(writer.status().unwrap().success());
    assert!(!has(&a) && !has(&b));
}

/// A listing that is read again from its start shows what has changed since.
#[test]
fn an_open_directory_that_is_read_again_shows_what_there_is() {
    let Some(mut site) = site("") else { return };
    let (a, b) = (site.mount("a"), site.mount("b"));
    fs::create_dir(a.join("d")).unwrap();
    for n in 0..300 {
        fs::write(a.join(format!("d/f{n}")), b"x").unwrap();
    }
    let mut dir = rustix::fs::Dir::new(File::open(a.join("d")).unwrap()).unwrap();
    let mut count = || {
        dir.rewind();
        dir.by_ref().map(Result::unwrap).count() - 2
    };
    assert_eq!((count(), count()), (300, 300));
    for n in 0..5 {
        fs::write(a.join(format!("d/own{n}")), b"x").unwrap();
        assert_eq!(count(), 301 + n);
        assert_eq!(list(&a.join("d")), 301 + n);
    }
    for n in 0..5 {
        fs::remove_file(b.join(format!("d/own{n}"))).unwrap();
        assert_eq!(count(), 304 - n);
        assert_eq!(list(&a.join("d")), 304 - n);
    }
    known(&a, &a.join("d"));
    list(&a.join("d"));
    assert_eq!(trips(&a, || assert_eq!(list(&a.join("d")), 300)), 0);
}

/// Locks need the handle at the box, and end with it.
#[test]
fn a_file_opened_without_a_word_can_be_locked_l12() {
    let Some(mut site) = site("") else { return };
    let (a, b) = (site.mount("a"), site.mount("b"));
    fs::write(a.join("f"), b"x").unwrap();
    fs::metadata(a.join("f")).unwrap();
    for _ in 0..3 {
        let file = OpenOptions::new().read(true).write(true).open(a.join("f"));
        let file = file.unwrap();
        assert!(ofd(&file, libc::F_WRLCK));
        let other = OpenOptions::new().write(true).open(b.join("f")).unwrap();
        assert!(!ofd(&other, libc::F_WRLCK));
        drop(file);
        until("the lock ends with its handle", || {
            ofd(&other, libc::F_WRLCK)
        });
        // The close of the handle would end it a little later.
        assert!(ofd(&other, libc::F_UNLCK));
    }
}

/// An open-file-description lock of the whole file; false if another is in the
/// way. The kernel says nothing when such a lock ends with its last close.
fn ofd(file: &File, kind: i32) -> bool {
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the kernel only reads the record.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) == 0 }
}
