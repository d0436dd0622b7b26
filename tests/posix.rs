//! What programs do on a local file system works on the mount, and is at the
//! origin after a flush.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use rustix::fs::{self as rfs, AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::Path;
use support::{Site, mounts_missing, sh};

/// Runs `body` on a fresh mount.
fn on_mount(body: impl FnOnce(&mut Site, &Path)) {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let mount = site.mount("mnt");
    body(&mut site, &mount);
    site.umount(&mount);
    site.stop();
}

#[test]
fn files_are_written_read_and_carried_to_the_origin() {
    on_mount(|site, m| {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
        fs::create_dir_all(m.join("a/b")).unwrap();
        fs::write(m.join("a/b/big"), &bytes).unwrap();
        fs::write(m.join("a/empty"), b"").unwrap();
        assert_eq!(fs::read(m.join("a/b/big")).unwrap(), bytes);
        let mut f = OpenOptions::new()
            .append(true)
            .open(m.join("a/b/big"))
            .unwrap();
        f.write_all(b"tail").unwrap();
        drop(f);
        assert_eq!(fs::metadata(m.join("a/b/big")).unwrap().len(), 3_000_004);
        site.flush();
        let at_origin = fs::read(site.origin().join("a/b/big")).unwrap();
        assert_eq!(at_origin[..3_000_000], bytes[..]);
        assert_eq!(&at_origin[3_000_000..], b"tail");
        assert_eq!(fs::read(site.origin().join("a/empty")).unwrap(), b"");
    });
}

#[test]
fn what_the_origin_holds_is_served() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let o = site.origin();
    sh(
        &o,
        "mkdir d; seq 200000 > d/numbers; ln -s d/numbers link; ln d/numbers d/hard; mkfifo p",
    );
    let m = site.mount("mnt");
    assert_eq!(
        fs::read(m.join("d/numbers")).unwrap(),
        fs::read(o.join("d/numbers")).unwrap()
    );
    assert_eq!(
        fs::read_link(m.join("link")).unwrap(),
        Path::new("d/numbers")
    );
    assert!(
        fs::symlink_metadata(m.join("p"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let (a, b) = (
        fs::metadata(m.join("d/numbers")).unwrap(),
        fs::metadata(m.join("d/hard")).unwrap(),
    );
    assert_eq!(
        (a.ino(), a.nlink()),
        (b.ino(), 2),
        "hard links are one file (O5)"
    );
    let mut names: Vec<_> = fs::read_dir(m.join("d"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["hard", "numbers"]);
    assert_eq!(
        fs::metadata(m.join("absent")).unwrap_err().raw_os_error(),
        Some(libc::ENOENT)
    );
    site.umount(&m);
    site.stop();
}

#[test]
fn truncate_holes_and_fallocate() {
    on_mount(|site, m| {
        let path = m.join("sparse");
        let f = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        f.write_all_at(&[1; 100_000], 0).unwrap();
        f.set_len(50).unwrap();
        f.set_len(100_000).unwrap();
        let mut back = vec![9; 100_000];
        f.read_exact_at(&mut back, 0).unwrap();
        assert!(back[..50].iter().all(|&b| b == 1) && back[50..].iter().all(|&b| b == 0));
        f.write_all_at(b"far", 10 << 20).unwrap();
        assert_eq!(f.metadata().unwrap().len(), (10 << 20) + 3);
        let data = rfs::seek(&f, SeekFrom::Data(200_000)).unwrap();
        assert!(data > 200_000 && data <= 10 << 20, "data at {data}");
        let hole = rfs::seek(&f, SeekFrom::Hole(0)).unwrap();
        assert!(hole <= 100_000, "hole at {hole}");
        rfs::fallocate(
            &f,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            10,
            20,
        )
        .unwrap();
        rfs::fallocate(&f, FallocateFlags::ZERO_RANGE, 40, 5).unwrap();
        rfs::fallocate(&f, FallocateFlags::empty(), 0, 11 << 20).unwrap();
        let mut head = [0; 50];
        f.read_exact_at(&mut head, 0).unwrap();
        let want = |i: usize| u8::from(!(10..30).contains(&i) && !(40..45).contains(&i));
        assert!(head.iter().enumerate().all(|(i, &b)| b == want(i)));
        assert_eq!(f.metadata().unwrap().len(), 11 << 20);
        site.flush();
        assert_eq!(
            fs::read(site.origin().join("sparse")).unwrap(),
            fs::read(&path).unwrap()
        );
    });
}

#[test]
fn rename_in_all_its_ways() {
    on_mount(|site, m| {
        let p = |n: &str| m.join(n);
        fs::write(p("a"), b"A").unwrap();
        fs::write(p("b"), b"B").unwrap();
        let with =
            |from: &str, to: &str, flags| rfs::renameat_with(CWD, p(from), CWD, p(to), flags);
        assert_eq!(
            with("a", "b", RenameFlags::NOREPLACE),
            Err(rustix::io::Errno::EXIST)
        );
        with("a", "b", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(
            (fs::read(p("a")).unwrap(), fs::read(p("b")).unwrap()),
            (b"B".to_vec(), b"A".to_vec())
        );
        fs::rename(p("a"), p("b")).unwrap();
        assert_eq!(fs::read(p("b")).unwrap(), b"B");
        fs::create_dir_all(p("d/e")).unwrap();
        fs::write(p("d/e/f"), b"F").unwrap();
        assert_eq!(
            fs::rename(p("d"), p("d/e/x")).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        fs::rename(p("d"), p("moved")).unwrap();
        assert_eq!(fs::read(p("moved/e/f")).unwrap(), b"F");
        fs::create_dir(p("full")).unwrap();
        fs::write(p("full/x"), b"").unwrap();
        let code = fs::rename(p("moved"), p("full"))
            .unwrap_err()
            .raw_os_error();
        assert_eq!(code, Some(libc::ENOTEMPTY));
        site.flush();
        assert_eq!(fs::read(site.origin().join("moved/e/f")).unwrap(), b"F");
        assert!(!site.origin().join("a").exists() && !site.origin().join("d").exists());
    });
}

#[test]
fn links_nodes_and_unlinked_files() {
    on_mount(|site, m| {
        fs::write(m.join("one"), b"1").unwrap();
        fs::hard_link(m.join("one"), m.join("two")).unwrap();
        assert_eq!(fs::metadata(m.join("two")).unwrap().nlink(), 2);
        symlink("one", m.join("sym")).unwrap();
        sh(
            m,
            "mkfifo pipe; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"",
        );
        assert!(
            fs::symlink_metadata(m.join("sock"))
                .unwrap()
                .file_type()
                .is_socket()
        );
        let mut f = OpenOptions::new()
            .read(true)
            .write(true)
            .open(m.join("one"))
            .unwrap();
        fs::remove_file(m.join("one")).unwrap();
        fs::remove_file(m.join("two")).unwrap();
        assert_eq!(f.metadata().unwrap().nlink(), 0);
        f.write_all(b"still here").unwrap();
        f.rewind().unwrap();
        let mut text = String::new();
        f.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
        site.flush();
        f.rewind().unwrap();
        text.clear();
        f.read_to_string(&mut text).unwrap();
        assert_eq!(
            text, "still here",
            "after the name is gone at the origin too"
        );
        assert!(!site.origin().join("one").exists());
        assert_eq!(
            fs::read_link(site.origin().join("sym")).unwrap(),
            Path::new("one")
        );
    });
}

#[test]
fn attributes_xattrs_and_acls() {
    on_mount(|site, m| {
        let path = m.join("f");
        fs::write(&path, b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        rfs::setxattr(&path, "user.colour", b"blue", rfs::XattrFlags::CREATE).unwrap();
        let again = rfs::setxattr(&path, "user.colour", b"red", rfs::XattrFlags::CREATE);
        assert_eq!(again, Err(rustix::io::Errno::EXIST));
        let mut value = [0; 16];
        let n = rfs::getxattr(&path, "user.colour", &mut value).unwrap();
        assert_eq!(&value[..n], b"blue");
        sh(
            m,
            "setfacl -m u:1234:r f; getfacl f | grep -q user:1234:r--; mkdir d; setfacl -d -m g:77:rx d; touch d/g; getfacl d/g | grep -q group:77",
        );
        sh(m, "touch -d '2001-02-03 04:05:06.789' f; chown 12:34 f");
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(
            (meta.mtime(), meta.mtime_nsec()),
            (981_173_106, 789_000_000)
        );
        assert_eq!((meta.uid(), meta.gid()), (12, 34));
        site.flush();
        let there = fs::metadata(site.origin().join("f")).unwrap();
        assert_eq!(
            (there.mtime(), there.uid(), there.mode()),
            (meta.mtime(), 12, meta.mode())
        );
        let n = rfs::getxattr(site.origin().join("f"), "user.colour", &mut value).unwrap();
        assert_eq!(&value[..n], b"blue");
        sh(&site.origin(), "getfacl f | grep -q user:1234:r--");
        rfs::removexattr(&path, "user.colour").unwrap();
    });
}

#[test]
fn mapped_and_direct_io() {
    on_mount(|_, m| {
        sh(
            m,
            "python3 - <<'P'
import mmap, os
fd = os.open('map', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
a = mmap.mmap(fd, 1 << 20, mmap.MAP_SHARED)
a[5:10] = b'hello'
a.flush()
assert os.pread(fd, 5, 5) == b'hello'
os.pwrite(fd, b'world', 5)
assert a[5:10] == b'world'
p = mmap.mmap(fd, 1 << 20, mmap.MAP_PRIVATE)
p[0:4] = b'mine'
assert os.pread(fd, 4, 0) == bytes(4)
P",
        );
        let f = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_DIRECT)
            .open(m.join("direct"))
            .unwrap();
        f.write_all_at(&[3; 8192], 4096).unwrap();
        let mut back = [0; 8192];
        f.read_exact_at(&mut back, 4096).unwrap();
        assert_eq!(back, [3; 8192]);
    });
}

#[test]
fn temporary_files_and_copies() {
    on_mount(|_, m| {
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let tmp = rfs::open(m, flags, Mode::from_raw_mode(0o600)).unwrap();
        let mut tmp = File::from(tmp);
        tmp.write_all(b"unnamed").unwrap();
        let proc_path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tmp));
        rfs::linkat(
            CWD,
            &proc_path,
            CWD,
            m.join("named"),
            AtFlags::SYMLINK_FOLLOW,
        )
        .unwrap();
        assert_eq!(fs::read(m.join("named")).unwrap(), b"unnamed");
        let from = File::open(m.join("named")).unwrap();
        let to = File::create(m.join("copy")).unwrap();
        let n = rfs::copy_file_range(&from, None, &to, None, 7).unwrap();
        assert_eq!(n, 7);
        assert_eq!(fs::read(m.join("copy")).unwrap(), b"unnamed");
        assert!(rfs::statvfs(m).unwrap().f_blocks > 0);
    });
}

#[test]
fn odd_names_and_a_directory_of_100_000() {
    on_mount(|_, m| {
        use std::os::unix::ffi::OsStrExt;
        let longest = [0xFFu8; 255];
        for name in [&longest[..], b"\n\t \\", "größe".as_bytes(), b"-rf", b"..."] {
            let path = m.join(std::ffi::OsStr::from_bytes(name));
            fs::write(&path, name).unwrap();
            assert_eq!(fs::read(&path).unwrap(), name);
        }
        let too_long = m.join("x".repeat(256));
        assert_eq!(
            fs::write(too_long, b"").unwrap_err().raw_os_error(),
            Some(libc::ENAMETOOLONG)
        );
        let big = m.join("big");
        fs::create_dir(&big).unwrap();
        for i in 0..100_000 {
            File::create(big.join(format!("f{i}"))).unwrap();
        }
        let mut seen: Vec<u32> = fs::read_dir(&big)
            .unwrap()
            .map(|e| {
                e.unwrap().file_name().to_str().unwrap()[1..]
                    .parse()
                    .unwrap()
            })
            .collect();
        seen.sort_unstable();
        assert!(
            seen.iter().copied().eq(0..100_000),
            "each name once, {} seen",
            seen.len()
        );
    });
}

#[test]
fn two_mounts_see_one_file_system() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let (a, b) = (site.mount("a"), site.mount("b"));
    for round in 0..50 {
        fs::write(a.join("f"), format!("round {round}")).unwrap();
        assert_eq!(
            fs::read_to_string(b.join("f")).unwrap(),
            format!("round {round}")
        );
        fs::rename(b.join("f"), b.join("g")).unwrap();
        assert!(!a.join("f").exists() && a.join("g").exists());
        fs::remove_file(a.join("g")).unwrap();
        assert!(!b.join("g").exists());
    }
    site.umount(&a);
    site.umount(&b);
    site.stop();
}

#[test]
fn through_means_at_the_origin_and_off_means_read_only() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("target.main.writeback = through\n");
    let m = site.mount("mnt");
    let mut f = File::create(m.join("f")).unwrap();
    assert!(
        site.origin().join("f").exists(),
        "a name is at the origin when it is answered"
    );
    f.write_all(b"through").unwrap();
    f.sync_all().unwrap();
    assert_eq!(fs::read(site.origin().join("f")).unwrap(), b"through");
    drop(f);
    site.umount(&m);
    site.stop();

    let mut site = Site::start("target.main.writeback = off\n");
    fs::write(site.origin().join("old"), b"old").unwrap();
    let m = site.mount("mnt");
    assert_eq!(fs::read(m.join("old")).unwrap(), b"old");
    let refused = fs::write(m.join("new"), b"x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    site.umount(&m);
    site.stop();
}
