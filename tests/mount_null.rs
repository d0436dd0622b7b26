//! The mount alone: the kernel above it, and below it a file system in memory
//! instead of a box. Skipped, saying so, where this machine cannot mount.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "mount_null/tree.rs"]
mod tree;

use forebay::fuse::device::Device;
use forebay::fuse::server::serve;
use forebay::fuse::session::Session;
use forebay::fuse::sys::attach::{Attach, attach};
use forebay::reactor::{Descriptor, Options, Port, run};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tree::{Counts, Tree};

/// One mount, served by a thread of this process.
struct Mount {
    dir: tempfile::TempDir,
    counts: Counts,
    server: Option<JoinHandle<bool>>,
}

impl Mount {
    /// None where mounts cannot be made; a failure if `CI=true`.
    fn new() -> Option<Mount> {
        let is_root = rustix::process::geteuid().is_root();
        if !Path::new("/dev/fuse").exists() || !is_root {
            let ci = std::env::var("CI").is_ok_and(|v| v == "true");
            assert!(!ci, "mount tests cannot run, and CI=true");
            eprintln!("skipped: no /dev/fuse, or not root");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("forebay-null-")
            .tempdir()
            .unwrap();
        let counts = Counts::default();
        let what = Attach {
            source: String::from("null"),
            allow_other: true,
            max_read: 1 << 20,
            flags: Vec::new(),
        };
        let device = attach(&what, dir.path()).unwrap();
        let (tell, told) = mpsc::channel();
        let shared = counts.clone();
        let server = std::thread::spawn(move || {
            let options = Options::new("null", Port::alone().unwrap());
            let served = run(options, move |local| async move {
                let device = Descriptor::new(device);
                let tree = Tree::new(shared);
                let session = Session::new(local.clone(), tree, Device::new(device.clone()));
                tell.send(()).unwrap();
                let served = serve(local, session.clone(), device).await;
                session.quiet().await;
                served.is_ok() && session.is_unmounted()
            });
            served.unwrap()
        });
        told.recv().unwrap();
        Some(Mount {
            dir,
            counts,
            server: Some(server),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Unmounts; the server must end well.
    fn end(mut self) {
        let flags = rustix::mount::UnmountFlags::empty();
        rustix::mount::unmount(self.dir.path(), flags).unwrap();
        assert!(self.server.take().unwrap().join().unwrap());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.server.is_some() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.dir.path(), flags);
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn contents_come_back_as_they_were_written() {
    let Some(m) = Mount::new() else { return };
    let bytes: Vec<u8> = (0..5_000_001u32).map(|i| (i % 251) as u8).collect();
    fs::write(m.path("f"), &bytes).unwrap();
    assert!(fs::read(m.path("f")).unwrap() == bytes);
    let file = File::options()
        .read(true)
        .write(true)
        .open(m.path("f"))
        .unwrap();
    for (at, len) in [
        (0, 1),
        (4095, 2),
        (65_535, 70_000),
        (1_000_000, 1 << 20),
        (4_999_999, 2),
    ] {
        let piece: Vec<u8> = (0..len).map(|i| (i % 13) as u8).collect();
        file.write_all_at(&piece, at).unwrap();
        let mut got = vec![0; len];
        file.read_exact_at(&mut got, at).unwrap();
        assert!(got == piece, "{len} at {at}");
    }
    let mut end = [0; 10];
    assert_eq!(file.read_at(&mut end, 5_000_001).unwrap(), 0);
    assert_eq!(file.read_at(&mut end, 5_000_000).unwrap(), 1);
    drop(file);
    m.end();
}

#[test]
fn appends_land_at_the_end_whatever_the_offset() {
    let Some(m) = Mount::new() else { return };
    let open = || {
        File::options()
            .append(true)
            .create(true)
            .open(m.path("log"))
            .unwrap()
    };
    let (mut a, mut b) = (open(), open());
    for i in 0..50 {
        writeln!(a, "a{i}").unwrap();
        writeln!(b, "b{i}").unwrap();
    }
    let want: String = (0..50).map(|i| format!("a{i}\nb{i}\n")).collect();
    assert_eq!(fs::read_to_string(m.path("log")).unwrap(), want);
}

#[test]
fn names_are_made_moved_and_removed() {
    let Some(m) = Mount::new() else { return };
    fs::create_dir(m.path("d")).unwrap();
    fs::write(m.path("d/a"), "1").unwrap();
    fs::hard_link(m.path("d/a"), m.path("b")).unwrap();
    assert_eq!(fs::metadata(m.path("b")).unwrap().nlink(), 2);
    symlink("d/a", m.path("l")).unwrap();
    assert_eq!(fs::read_link(m.path("l")).unwrap(), Path::new("d/a"));
    assert_eq!(fs::read(m.path("l")).unwrap(), b"1");
    fs::rename(m.path("d/a"), m.path("c")).unwrap();
    let exists = File::options()
        .write(true)
        .create_new(true)
        .open(m.path("c"))
        .unwrap_err();
    assert_eq!(exists.raw_os_error(), Some(libc::EEXIST));
    let full = fs::create_dir(m.path("d/e")).and_then(|()| fs::remove_dir(m.path("d")));
    assert_eq!(full.unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_dir(m.path("d/e")).unwrap();
    fs::remove_dir(m.path("d")).unwrap();
    let long = m.path(&"n".repeat(255));
    fs::write(&long, "").unwrap();
    let longer = fs::write(m.path(&"n".repeat(256)), "").unwrap_err();
    assert_eq!(longer.raw_os_error(), Some(libc::ENAMETOOLONG));
    let all: BTreeSet<String> = names(m.dir.path()).into_iter().collect();
    let want = ["b", "c", "l", &"n".repeat(255)].map(str::to_owned);
    assert_eq!(all, BTreeSet::from(want));
    m.end();
}

#[test]
fn a_large_directory_is_listed_once_each() {
    let Some(m) = Mount::new() else { return };
    for i in 0..3000 {
        File::create(m.path(&format!("file-{i}"))).unwrap();
    }
    let before = m.counts.of("Readdir");
    let listed = names(m.dir.path());
    let asked = m.counts.of("Readdir") - before;
    assert_eq!(listed.len(), 3000);
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), 3000);
    assert!(asked <= 5, "{asked} round trips for 3000 entries");
}

#[test]
fn a_listing_goes_on_where_it_was_left() {
    let Some(m) = Mount::new() else { return };
    for i in 0..500 {
        File::create(m.path(&format!("{i}"))).unwrap();
    }
    let fd = File::open(m.dir.path()).unwrap();
    let mut dir = rustix::fs::Dir::read_from(&fd).unwrap();
    let mut seen = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry.unwrap();
        assert_ne!(entry.ino(), 0);
        seen.push((entry.file_name().to_owned(), entry.offset()));
    }
    assert_eq!(seen.len(), 502);
    assert_eq!(seen[0].0.to_bytes(), b".");
    assert_eq!(seen[1].0.to_bytes(), b"..");
    for (i, next) in [(0usize, 1usize), (1, 2), (100, 101), (400, 401), (7, 8)] {
        dir.seek(seen[i].1).unwrap();
        assert_eq!(dir.read().unwrap().unwrap().file_name(), &*seen[next].0);
    }
    dir.rewind();
    File::create(m.path("new")).unwrap();
    let again = dir.filter(|e| e.as_ref().unwrap().file_name().to_bytes() == b"new");
    assert_eq!(again.count(), 1, "a rewound listing shows new names");
}

#[test]
fn attributes_are_set_and_shown() {
    let Some(m) = Mount::new() else { return };
    fs::write(m.path("f"), "hello").unwrap();
    fs::set_permissions(m.path("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(m.path("f"), Some(12), Some(34)).unwrap();
    let file = File::options().write(true).open(m.path("f")).unwrap();
    file.set_len(3).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(5, 6);
    file.set_times(fs::FileTimes::new().set_modified(time))
        .unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.mode() & 0o777, 0o751);
    assert_eq!((meta.uid(), meta.gid(), meta.len()), (12, 34, 3));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (5, 6));
    assert!(meta.ino() > 100);
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let full = statx(&file, "", AtFlags::EMPTY_PATH, mask).unwrap();
    assert_eq!((full.stx_size, full.stx_uid, full.stx_nlink), (3, 12, 1));
    assert_eq!(
        (u32::from(full.stx_mode), full.stx_ino),
        (meta.mode(), meta.ino())
    );
    assert_eq!((full.stx_mtime.tv_sec, full.stx_mtime.tv_nsec), (5, 6));
    // Linux before 6.6 does not ask for it.
    if full.stx_mask & StatxFlags::BTIME.bits() != 0 {
        assert_eq!(full.stx_btime.tv_sec, 4);
    }
    let st = rustix::fs::statvfs(m.dir.path()).unwrap();
    assert_eq!(
        (st.f_blocks, st.f_bavail, st.f_files, st.f_namemax),
        (1000, 500, 70, 255)
    );
}

#[test]
fn extended_attributes() {
    use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
    let Some(m) = Mount::new() else { return };
    let f = m.path("f");
    File::create(&f).unwrap();
    setxattr(&f, "user.a", b"one", XattrFlags::empty()).unwrap();
    setxattr(&f, "user.big", &[7; 65536], XattrFlags::empty()).unwrap();
    let mut value = vec![0; 70_000];
    assert_eq!(getxattr(&f, "user.a", &mut value[..]).unwrap(), 3);
    assert_eq!(getxattr(&f, "user.big", &mut value[..]).unwrap(), 65536);
    let short = getxattr(&f, "user.big", &mut value[..10]);
    assert_eq!(short, Err(rustix::io::Errno::RANGE));
    let len = listxattr(&f, &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"user.a\0user.big\0");
    removexattr(&f, "user.a").unwrap();
    assert_eq!(
        getxattr(&f, "user.a", &mut value[..]),
        Err(rustix::io::Errno::NODATA)
    );
    let len = getxattr(m.dir.path(), forebay::fuse::PID_XATTR, &mut value[..]).unwrap();
    assert_eq!(value[..len], *std::process::id().to_string().as_bytes());
}

#[test]
fn removed_files_live_while_they_are_open() {
    let Some(m) = Mount::new() else { return };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(m.path("f"))
        .unwrap();
    fs::remove_file(m.path("f")).unwrap();
    file.write_all(b"still").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let nameless = File::options()
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(m.dir.path())
        .unwrap();
    assert_eq!(nameless.metadata().unwrap().nlink(), 0);
    assert!(names(m.dir.path()).is_empty());
    drop((file, nameless));
    // The kernel tells of the last close when it comes to it.
    while m.counts.of("Close") < 2 {
        std::thread::yield_now();
    }
    m.end();
}

#[test]
fn space_holes_and_copies() {
    let Some(m) = Mount::new() else { return };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(m.path("f"))
        .unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 10_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10_000);
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(5)).unwrap(),
        10_000
    );
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(5)).unwrap(),
        5
    );
    let other = File::create(m.path("g")).unwrap();
    let (mut from, mut to) = (0, 2);
    let n = rustix::fs::copy_file_range(&file, Some(&mut from), &other, Some(&mut to), 3).unwrap();
    assert_eq!(n, 3);
    assert_eq!(fs::read(m.path("g")).unwrap(), b"\0\0abc");
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert_eq!(m.counts.of("Fsync"), 2);
}

#[test]
fn a_signal_ends_a_wait_that_was_not_sent() {
    let Some(m) = Mount::new() else { return };
    let mut child = std::process::Command::new("stat")
        .arg(m.path("away"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while m.counts.of("Lookup") == 0 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(fs::metadata(m.dir.path()).is_ok(), "the mount goes on");
    m.end();
}

/// A shared mapping of a whole file, unmapped when dropped.
struct Mapping {
    at: *mut u8,
    len: usize,
}

impl Mapping {
    fn new(file: &File, len: usize) -> std::io::Result<Mapping> {
        use std::os::fd::AsRawFd;
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // memory of ours; the descriptor is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0) };
        match at {
            libc::MAP_FAILED => Err(std::io::Error::last_os_error()),
            at => Ok(Mapping { at: at.cast(), len }),
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is `len` bytes long, inside the file, and lives
        // as long as the borrow of self.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and no slice of it is left.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}

#[test]
fn stores_through_a_mapping_reach_the_file() {
    let Some(m) = Mount::new() else { return };
    let len = 5 * 4096 + 100;
    fs::write(m.path("f"), vec![1u8; len]).unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(m.path("f"))
        .unwrap();
    let mut mapping = match Mapping::new(&file, len) {
        Ok(mapping) => mapping,
        // Linux before 6.6 has no shared mappings of directly opened files.
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return,
        Err(e) => panic!("{e}"),
    };
    assert!(mapping.bytes().iter().all(|&b| b == 1));
    for at in [0, 4095, 4096, 3 * 4096 + 7, len - 1] {
        mapping.bytes()[at] = 9;
    }
    // A store is seen by reads of this machine at once, and goes out with them.
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096).unwrap();
    assert_eq!(byte, [9]);
    file.write_all_at(&[7; 10], 2 * 4096).unwrap();
    assert_eq!(
        mapping.bytes()[2 * 4096],
        7,
        "a write is seen by the mapping"
    );
    let before = m.counts.of("Write");
    mapping.bytes()[4 * 4096] = 9;
    drop(mapping);
    // So an unmount, which a mapping would have kept away, finds nothing dirty.
    assert!(
        m.counts.of("Write") > before,
        "the end of a mapping writes it"
    );
    drop(file);
    let got = fs::read(m.path("f")).unwrap();
    assert_eq!(got.len(), len);
    for (at, byte) in got.iter().enumerate() {
        let want = match at {
            0 | 4095 | 4096 => 9,
            16384 => 9,
            _ if at == 3 * 4096 + 7 || at == len - 1 => 9,
            8192..8202 => 7,
            _ => 1,
        };
        assert_eq!(*byte, want, "at {at}");
    }
    m.end();
}

#[test]
fn synchronous_writes_are_followed_by_a_sync() {
    let Some(m) = Mount::new() else { return };
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DSYNC)
        .open(m.path("f"))
        .unwrap();
    file.write_all(b"1").unwrap();
    assert_eq!(m.counts.of("Fsync"), 1);
    file.write_all(b"2").unwrap();
    assert_eq!(m.counts.of("Fsync"), 2);
}

#[test]
fn renames_that_exchange_or_must_not_replace() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let Some(m) = Mount::new() else { return };
    fs::write(m.path("a"), "a").unwrap();
    fs::write(m.path("b"), "b").unwrap();
    let rename = |flags| renameat_with(CWD, m.path("a"), CWD, m.path("b"), flags);
    assert_eq!(
        rename(RenameFlags::NOREPLACE),
        Err(rustix::io::Errno::EXIST)
    );
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read_to_string(m.path("a")).unwrap(), "b");
    rename(RenameFlags::empty()).unwrap();
    assert_eq!(names(m.dir.path()), ["b"]);
    assert_eq!(fs::read_to_string(m.path("b")).unwrap(), "b");
}
