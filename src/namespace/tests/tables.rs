//! One table for each operation: who asks, what is there, what comes of it.

use super::super::create::{self, Created, New};
use super::super::setattr::{Held, setattr};
use super::super::{access, acl, entry, link, rename, unlink, xattr};
use super::{Fake, ROOT, inode, name};
use crate::base::codec::Bytes;
use crate::base::{Codec, Errno, Fid, FileKind, Name, SetAttr, Time};
use crate::namespace::Caller;
use crate::namespace::record::{Dirent, OwedOp, flag};

const OWNER: u32 = 10;
const GROUP: u32 = 20;

fn caller(uid: u32, gid: u32) -> Caller {
    Caller {
        uid,
        gid,
        groups: vec![],
    }
}

/// root, owner, member of the group, anybody else.
fn everybody() -> [Caller; 4] {
    [
        Caller::ROOT,
        caller(OWNER, 1),
        caller(1, GROUP),
        caller(2, 2),
    ]
}

/// Puts a file into a directory, as if it had always been there.
fn put(fake: &mut Fake, dir: Fid, n: &str, kind: FileKind, mode: u32) -> Fid {
    let fid = Fid::new(1, fake.next);
    fake.next += 1;
    let mut made = inode(kind, mode, OWNER, GROUP);
    made.parent = dir;
    if kind == FileKind::Directory {
        made.flags |= flag::COMPLETE;
        fake.inodes.get_mut(&dir).expect("dir").attr.nlink += 1;
    }
    let parent = fake.inodes[&dir].clone();
    let slot = entry::find(fake, dir, &parent, &name(n)).expect("complete");
    let dirent = Dirent {
        name: name(n),
        fid,
        kind,
        ino: 1,
    };
    fake.slots.insert((dir, slot.cookie()), dirent);
    fake.inodes.insert(fid, made);
    fake.inodes.get_mut(&dir).expect("dir").entries += 1;
    fid
}

fn new<'a>(parent: Fid, name: Option<&'a Name>, kind: FileKind, mode: u32) -> New<'a> {
    New {
        parent,
        name,
        kind,
        mode,
        umask: 0,
        rdev: 0,
        link: b"target",
        exclusive: true,
    }
}

fn make(fake: &mut Fake, who: &Caller, new: &New<'_>) -> Result<Fid, Errno> {
    fake.run(|v| match create::create(v, v.ctx(who), new)? {
        Created::New(fid, change) => Ok((fid, Some(*change))),
        Created::There(fid) => Ok((fid, None)),
    })
}

fn remove(fake: &mut Fake, who: &Caller, dir: Fid, n: &str, rmdir: bool) -> Result<(), Errno> {
    fake.run(|v| {
        Ok((
            (),
            Some(unlink::unlink(v, v.ctx(who), dir, &name(n), rmdir)?),
        ))
    })
}

fn set(fake: &mut Fake, who: &Caller, fid: Fid, set: &SetAttr) -> Result<(), Errno> {
    fake.run(|v| Ok(((), Some(setattr(v, v.ctx(who), fid, set, Held::default())?))))
}

#[test]
fn mode_bits_grant_by_class_and_the_first_class_decides() {
    let fake = Fake::default();
    for mode in 0..0o1000 {
        for kind in [FileKind::Regular, FileKind::Directory] {
            let file = inode(kind, mode, OWNER, GROUP);
            for (class, who) in everybody().iter().enumerate() {
                for want in 0..8 {
                    let has = match class {
                        0 if kind == FileKind::Directory || mode & 0o111 != 0 => 7,
                        0 => 6,
                        class => mode >> (9 - 3 * class) & 7,
                    };
                    let may = access::check(&fake, &fake.bounds, who, ROOT, &file, want);
                    assert_eq!(may.is_ok(), has & want == want, "{mode:o} {who:?} {want}");
                }
            }
        }
    }
}

#[test]
fn creating_is_refused_in_the_order_of_linux() {
    let mut fake = Fake::default();
    let shut = put(&mut fake, ROOT, "shut", FileKind::Directory, 0o700);
    let seen = put(&mut fake, ROOT, "seen", FileKind::Directory, 0o755);
    let file = put(&mut fake, seen, "file", FileKind::Regular, 0o644);
    let (here, there) = (name("new"), name("file"));
    let long = Name::new(&[b'x'; 255]).expect("fits");
    fake.bounds.name_max = 200;
    let other = caller(1, 1);
    let regular = FileKind::Regular;
    for (who, parent, name, kind, wanted) in [
        (&other, shut, &here, regular, Errno::EACCES),
        (&other, file, &here, regular, Errno::ENOTDIR),
        (&other, seen, &here, regular, Errno::EACCES),
        // The name is looked at before the right to write.
        (&other, seen, &there, regular, Errno::EEXIST),
        (&other, seen, &long, regular, Errno::ENAMETOOLONG),
        (
            &Caller::ROOT,
            Fid::new(1, 999),
            &here,
            regular,
            Errno::ESTALE,
        ),
        (&caller(OWNER, 1), seen, &here, FileKind::Char, Errno::EPERM),
    ] {
        let made = make(&mut fake, who, &new(parent, Some(name), kind, 0o644));
        assert_eq!(made, Err(wanted), "{who:?} {name} {kind:?}");
    }
    fake.bounds.read_only = true;
    let root = &Caller::ROOT;
    let exists = make(&mut fake, root, &new(seen, Some(&there), regular, 0o644));
    assert_eq!(exists, Err(Errno::EEXIST));
    let made = make(&mut fake, root, &new(seen, Some(&here), regular, 0o644));
    assert_eq!(made, Err(Errno::EROFS));
}

#[test]
fn new_files_inherit_from_their_directory() {
    let mut fake = Fake::default();
    let plain = put(&mut fake, ROOT, "plain", FileKind::Directory, 0o777);
    let sgid = put(&mut fake, ROOT, "sgid", FileKind::Directory, 0o2777);
    let (root, other) = (Caller::ROOT, caller(1, 1));
    let (file, dir) = (FileKind::Regular, FileKind::Directory);
    for (n, (who, parent, kind, mode, wanted)) in [
        (&other, plain, file, 0o4755, (1, 0o4755)),
        (&other, plain, dir, 0o755, (1, 0o755)),
        (&other, sgid, file, 0o2755, (GROUP, 0o755)),
        (&other, sgid, file, 0o2745, (GROUP, 0o2745)),
        (&root, sgid, file, 0o2755, (GROUP, 0o2755)),
        (&other, sgid, dir, 0o755, (GROUP, 0o2755)),
    ]
    .into_iter()
    .enumerate()
    {
        let name = name(&format!("n{n}"));
        let fid = make(&mut fake, who, &new(parent, Some(&name), kind, mode)).expect("made");
        let attr = &fake.inodes[&fid].attr;
        assert_eq!((attr.gid, attr.mode), wanted, "case {n}");
    }
    let name = name("masked");
    let masked = New {
        umask: 0o027,
        ..new(plain, Some(&name), file, 0o666)
    };
    let fid = make(&mut fake, &other, &masked).expect("made");
    assert_eq!(fake.inodes[&fid].attr.mode, 0o640);
}

#[test]
fn a_default_acl_is_inherited_and_replaces_the_umask() {
    let mut fake = Fake::default();
    let dir = put(&mut fake, ROOT, "dir", FileKind::Directory, 0o777);
    let acl = acl_bytes(&[(1, 7, 0), (2, 7, 55), (4, 5, 0), (16, 7, 0), (32, 4, 0)]);
    let default = xattr::Set {
        name: acl::DEFAULT,
        value: &acl,
        flags: 0,
        clear_sgid: false,
    };
    let root = Caller::ROOT;
    fake.run(|v| Ok(((), Some(xattr::set(v, v.ctx(&root), dir, default)?))))
        .expect("set");
    let (file_name, dir_name) = (name("f"), name("d"));
    let file = New {
        umask: 0o077,
        ..new(dir, Some(&file_name), FileKind::Regular, 0o640)
    };
    let file = make(&mut fake, &root, &file).expect("made");
    assert_eq!(
        fake.inodes[&file].attr.mode, 0o640,
        "the mask is the group's"
    );
    let of = |fake: &Fake, fid: Fid, name: &[u8]| fake.xattrs.get(&(fid, name.to_vec())).cloned();
    let stored = of(&fake, file, acl::ACCESS).expect("an access ACL");
    let wanted = acl_bytes(&[(1, 6, 0), (2, 7, 55), (4, 5, 0), (16, 4, 0), (32, 0, 0)]);
    assert_eq!(&stored[..], &wanted[..]);
    assert!(of(&fake, file, acl::DEFAULT).is_none());
    let sub = new(dir, Some(&dir_name), FileKind::Directory, 0o777);
    let sub = make(&mut fake, &root, &sub).expect("made");
    assert_eq!(of(&fake, sub, acl::DEFAULT).as_deref(), Some(&acl[..]));
    // The named user reads through the mask, and a chmod moves the mask.
    let named = caller(55, 1);
    let may = |fake: &Fake, want| {
        let inode = fake.inodes[&file].clone();
        access::check(fake, &fake.bounds, &named, file, &inode, want).is_ok()
    };
    assert!(may(&fake, access::READ) && !may(&fake, access::WRITE));
    let chmod = SetAttr {
        mode: Some(0o660),
        ..SetAttr::default()
    };
    set(&mut fake, &root, file, &chmod).expect("chmod");
    assert!(may(&fake, access::WRITE));
}

fn acl_bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        let id = if matches!(tag, 2 | 8) { *id } else { u32::MAX };
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    out
}

#[test]
fn sticky_directories_protect_what_others_own() {
    // (mode of the directory, its owner, who asks, what comes of it)
    for (mode, dir_owner, who, wanted) in [
        (0o777, 99, caller(2, 2), Ok(())),
        (0o1777, 99, caller(2, 2), Err(Errno::EPERM)),
        (0o1777, 99, caller(OWNER, 2), Ok(())),
        (0o1777, 2, caller(2, 2), Ok(())),
        (0o1777, 99, Caller::ROOT, Ok(())),
        (0o1755, 99, caller(OWNER, 2), Err(Errno::EACCES)),
    ] {
        let mut fake = Fake::default();
        let dir = put(&mut fake, ROOT, "dir", FileKind::Directory, mode);
        fake.inodes.get_mut(&dir).expect("dir").attr.uid = dir_owner;
        put(&mut fake, dir, "file", FileKind::Regular, 0o600);
        put(&mut fake, dir, "sub", FileKind::Directory, 0o700);
        let (from, to) = (name("file"), name("moved"));
        let mv = rename::Move {
            from: dir,
            from_name: &from,
            to: dir,
            to_name: &to,
            flags: 0,
        };
        let moved = rename::rename(&fake, fake.ctx(&who), &mv).map(|_| ());
        assert_eq!(moved, wanted.map_err(Into::into), "rename {mode:o} {who:?}");
        assert_eq!(remove(&mut fake, &who, dir, "file", false), wanted);
        assert_eq!(remove(&mut fake, &who, dir, "sub", true), wanted);
    }
}

#[test]
fn removing_is_refused_by_type_and_by_content() {
    let mut fake = Fake::default();
    let dir = put(&mut fake, ROOT, "dir", FileKind::Directory, 0o755);
    put(&mut fake, dir, "file", FileKind::Regular, 0o644);
    let root = Caller::ROOT;
    for (parent, n, rmdir, wanted) in [
        (ROOT, "none", false, Errno::ENOENT),
        (ROOT, "dir", false, Errno::EISDIR),
        (ROOT, "dir", true, Errno::ENOTEMPTY),
        (dir, "file", true, Errno::ENOTDIR),
    ] {
        assert_eq!(
            remove(&mut fake, &root, parent, n, rmdir),
            Err(wanted),
            "{n}"
        );
    }
    fake.bounds.read_only = true;
    assert_eq!(
        remove(&mut fake, &root, ROOT, "none", false),
        Err(Errno::EROFS)
    );
}

#[test]
fn an_open_file_outlives_its_last_name_and_goes_with_the_last_close() {
    let mut fake = Fake::default();
    let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o644);
    fake.open.insert(fid);
    remove(&mut fake, &Caller::ROOT, ROOT, "file", false).expect("removed");
    assert!(fake.kept.contains(&fid));
    let release =
        |fake: &Fake| unlink::release(fake, fake.ctx(&Caller::ROOT), fid).expect("loaded");
    assert_eq!(release(&fake), None, "still open");
    fake.open.clear();
    let change = release(&fake).expect("it goes");
    assert_eq!(change.gone, vec![fid]);
    assert!(change.forgotten.is_empty(), "its removal is still owed");
}

#[test]
fn a_file_moved_among_the_orphans_is_owed_its_removal_at_the_close() {
    let mut fake = Fake::default();
    let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o644);
    fake.open.insert(fid);
    remove(&mut fake, &Caller::ROOT, ROOT, "file", false).expect("removed");
    // Write-back carried the removal out while it was open.
    let inode = fake.inodes.get_mut(&fid).expect("it is there");
    inode.locator.name = Some(name("orphan"));
    inode.flags |= flag::UNNAMED;
    fake.open.clear();
    let release = unlink::release(&fake, fake.ctx(&Caller::ROOT), fid);
    let change = release.expect("loaded").expect("it goes");
    let [OwedOp::Unlink(owed)] = &change.owed[..] else {
        panic!("{:?}", change.owed);
    };
    assert_eq!(
        (owed.parent, owed.name.clone()),
        (Fid::NONE, name("orphan"))
    );
}

#[test]
fn tmpfiles_are_linked_once_into_the_tree_unless_exclusive() {
    for exclusive in [false, true] {
        let mut fake = Fake::default();
        let tmp = New {
            exclusive,
            ..new(ROOT, None, FileKind::Regular, 0o600)
        };
        let root = Caller::ROOT;
        let fid = make(&mut fake, &root, &tmp).expect("made");
        assert_eq!(fake.inodes[&fid].attr.nlink, 0);
        let linked = fake.run(|v| {
            let change = link::link(v, v.ctx(&root), fid, ROOT, &name("named"))?;
            Ok((change.owed.clone(), Some(change)))
        });
        if exclusive {
            assert_eq!(linked, Err(Errno::ENOENT));
            continue;
        }
        let owed = linked.expect("linked");
        assert!(matches!(&owed[..], [OwedOp::Create(_)]), "{owed:?}");
        assert!(!fake.kept.contains(&fid));
        assert_eq!(fake.inodes[&fid].attr.nlink, 1);
        assert_eq!(fake.inodes[&fid].flags & flag::ORPHAN, 0);
    }
}

#[test]
fn links_are_refused_to_directories_and_past_the_limit() {
    let mut fake = Fake::default();
    let dir = put(&mut fake, ROOT, "dir", FileKind::Directory, 0o755);
    let file = put(&mut fake, ROOT, "file", FileKind::Regular, 0o644);
    let root = Caller::ROOT;
    let linked = |fake: &mut Fake, fid, n: &str| {
        fake.run(|v| Ok(((), Some(link::link(v, v.ctx(&root), fid, ROOT, &name(n))?))))
    };
    assert_eq!(linked(&mut fake, dir, "new"), Err(Errno::EPERM));
    assert_eq!(linked(&mut fake, file, "dir"), Err(Errno::EEXIST));
    fake.bounds.link_max = 2;
    assert_eq!(linked(&mut fake, file, "two"), Ok(()));
    assert_eq!(linked(&mut fake, file, "three"), Err(Errno::EMLINK));
    let sub = name("sub");
    let mkdir = new(dir, Some(&sub), FileKind::Directory, 0o755);
    assert_eq!(make(&mut fake, &root, &mkdir), Err(Errno::EMLINK));
}

#[test]
fn who_may_change_which_attribute() {
    let at = Some(Time { sec: 5, nsec: 0 });
    let none = SetAttr::default;
    let chmod = SetAttr {
        mode: Some(0o600),
        ..none()
    };
    let give = SetAttr {
        uid: Some(77),
        ..none()
    };
    let keep = SetAttr {
        uid: Some(OWNER),
        ..none()
    };
    let group = SetAttr {
        gid: Some(1),
        ..none()
    };
    let foreign = SetAttr {
        gid: Some(88),
        ..none()
    };
    let times = SetAttr {
        atime: at,
        mtime: at,
        ..none()
    };
    let touch = SetAttr {
        atime_now: true,
        mtime_now: true,
        ..none()
    };
    let half = SetAttr {
        mtime_now: true,
        ..none()
    };
    let size = SetAttr {
        size: Some(3),
        mtime_now: true,
        ..none()
    };
    let (ok, perm, acces) = (Ok(()), Err(Errno::EPERM), Err(Errno::EACCES));
    // The file is 0664: root, owner (group 1), member of its group, other.
    for (what, wanted) in [
        (&chmod, [ok, ok, perm, perm]),
        (&give, [ok, perm, perm, perm]),
        (&keep, [ok, ok, perm, perm]),
        (&group, [ok, ok, perm, perm]),
        (&foreign, [ok, perm, perm, perm]),
        (&times, [ok, ok, perm, perm]),
        (&touch, [ok, ok, ok, acces]),
        (&half, [ok, ok, perm, perm]),
        (&size, [ok, ok, ok, acces]),
    ] {
        for (who, wanted) in everybody().iter().zip(wanted) {
            let mut fake = Fake::default();
            let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o664);
            assert_eq!(set(&mut fake, who, fid, what), wanted, "{what:?} {who:?}");
        }
    }
    let mut fake = Fake::default();
    fake.bounds.owners = false;
    let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o664);
    assert_eq!(
        set(&mut fake, &Caller::ROOT, fid, &give),
        perm,
        "nor can the origin"
    );
}

#[test]
fn privileges_go_with_owner_and_bytes() {
    let chown = SetAttr {
        gid: Some(GROUP),
        ..SetAttr::default()
    };
    let truncate = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    let killing = SetAttr {
        kill_priv: true,
        ..truncate.clone()
    };
    let (root, owner) = (Caller::ROOT, caller(OWNER, GROUP));
    for (who, what, kind, mode, wanted) in [
        (&owner, &chown, FileKind::Regular, 0o6775, 0o775),
        (&root, &chown, FileKind::Regular, 0o6775, 0o775),
        // Setgid without execute is the mark of mandatory locking.
        (&owner, &chown, FileKind::Regular, 0o6765, 0o2765),
        (&owner, &chown, FileKind::Directory, 0o6775, 0o6775),
        (&owner, &truncate, FileKind::Regular, 0o6775, 0o775),
        (&root, &truncate, FileKind::Regular, 0o6775, 0o6775),
        (&root, &killing, FileKind::Regular, 0o6775, 0o775),
    ] {
        let mut fake = Fake::default();
        let fid = put(&mut fake, ROOT, "file", kind, mode);
        set(&mut fake, who, fid, what).expect("allowed");
        let is = fake.inodes[&fid].attr.mode;
        assert_eq!(is, wanted, "{who:?} {what:?} {mode:o} became {is:o}");
    }
}

#[test]
fn stamps_do_not_go_back_with_the_clock() {
    let mut fake = Fake::default();
    let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o644);
    let last = Time {
        sec: 9_000,
        nsec: 7,
    };
    fake.inodes.get_mut(&fid).expect("file").attr.ctime = last;
    let chmod = SetAttr {
        mode: Some(0o600),
        ..SetAttr::default()
    };
    set(&mut fake, &Caller::ROOT, fid, &chmod).expect("chmod");
    assert_eq!(fake.inodes[&fid].attr.ctime, last);
}

#[test]
fn xattrs_obey_their_namespaces() {
    let plain = 0;
    let create = libc::XATTR_CREATE as u32;
    let replace = libc::XATTR_REPLACE as u32;
    let (root, owner, other) = (Caller::ROOT, caller(OWNER, 1), caller(2, 2));
    let long = [b"user.".as_slice(), &[b'x'; 251]].concat();
    for (who, kind, mode, name, flags, wanted) in [
        (
            &owner,
            FileKind::Regular,
            0o644,
            b"user.a".as_slice(),
            plain,
            Ok(()),
        ),
        (
            &other,
            FileKind::Regular,
            0o644,
            b"user.a",
            plain,
            Err(Errno::EACCES),
        ),
        (
            &root,
            FileKind::Symlink,
            0o777,
            b"user.a",
            plain,
            Err(Errno::EPERM),
        ),
        (
            &root,
            FileKind::Fifo,
            0o666,
            b"user.a",
            plain,
            Err(Errno::EPERM),
        ),
        (
            &other,
            FileKind::Directory,
            0o1777,
            b"user.a",
            plain,
            Err(Errno::EPERM),
        ),
        (
            &owner,
            FileKind::Regular,
            0o644,
            b"trusted.a",
            plain,
            Err(Errno::EPERM),
        ),
        (&root, FileKind::Symlink, 0o777, b"trusted.a", plain, Ok(())),
        (
            &owner,
            FileKind::Regular,
            0o644,
            b"security.a",
            plain,
            Err(Errno::EPERM),
        ),
        (
            &root,
            FileKind::Regular,
            0o644,
            b"system.a",
            plain,
            Err(Errno::EOPNOTSUPP),
        ),
        (
            &root,
            FileKind::Regular,
            0o644,
            b"user.",
            plain,
            Err(Errno::EOPNOTSUPP),
        ),
        (
            &root,
            FileKind::Regular,
            0o644,
            b"",
            plain,
            Err(Errno::ERANGE),
        ),
        (
            &root,
            FileKind::Regular,
            0o644,
            &long,
            plain,
            Err(Errno::ERANGE),
        ),
        (
            &owner,
            FileKind::Regular,
            0o644,
            b"user.a",
            replace,
            Err(Errno::ENODATA),
        ),
        (
            &owner,
            FileKind::Regular,
            0o644,
            b"user.old",
            create,
            Err(Errno::EEXIST),
        ),
        (
            &owner,
            FileKind::Regular,
            0o644,
            b"user.old",
            replace,
            Ok(()),
        ),
        (
            &root,
            FileKind::Regular,
            0o644,
            acl::DEFAULT,
            plain,
            Err(Errno::EINVAL),
        ),
    ] {
        let mut fake = Fake::default();
        let fid = put(&mut fake, ROOT, "file", kind, mode);
        if kind == FileKind::Regular {
            store(&mut fake, &root, fid, b"user.old", b"1", 0).expect("set");
        }
        let is = store(&mut fake, who, fid, name, b"v", flags);
        assert_eq!(is, wanted, "{who:?} {kind:?} {}", name.escape_ascii());
        let got = xattr::get(&fake, fake.ctx(&root), fid, name);
        if wanted.is_ok() {
            assert_eq!(got.as_deref(), Ok(b"v".as_slice()));
        }
    }
}

fn store(
    fake: &mut Fake,
    who: &Caller,
    fid: Fid,
    name: &[u8],
    value: &[u8],
    flags: u32,
) -> Result<(), Errno> {
    let set = xattr::Set {
        name,
        value,
        flags,
        clear_sgid: false,
    };
    fake.run(|v| Ok(((), Some(xattr::set(v, v.ctx(who), fid, set)?))))
}

#[test]
fn lists_hide_trusted_names_and_end_with_the_last_one() {
    let mut fake = Fake::default();
    let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o644);
    let root = Caller::ROOT;
    for name in [b"user.b".as_slice(), b"trusted.x", b"user.a"] {
        store(&mut fake, &root, fid, name, b"v", 0).expect("set");
    }
    let list = |fake: &Fake, who| xattr::list(fake, fake.ctx(who), fid).expect("loaded");
    assert_eq!(list(&fake, &root), b"user.b\0trusted.x\0user.a\0");
    assert_eq!(list(&fake, &caller(OWNER, 1)), b"user.b\0user.a\0");
    for name in [b"user.b".as_slice(), b"trusted.x", b"user.a"] {
        fake.run(|v| Ok(((), Some(xattr::remove(v, v.ctx(&root), fid, name)?))))
            .expect("removed");
    }
    assert!(fake.xattrs.is_empty(), "the list itself goes, too");
    assert_eq!(fake.inodes[&fid].flags & flag::XATTRS, 0);
    let gone = fake.run(|v| Ok(((), Some(xattr::remove(v, v.ctx(&root), fid, b"user.a")?))));
    assert_eq!(gone, Err(Errno::ENODATA));
}

#[test]
fn the_name_that_tells_custody_is_no_attribute_of_a_file() {
    let mut fake = Fake::default();
    let fid = put(&mut fake, ROOT, "file", FileKind::Regular, 0o644);
    let root = Caller::ROOT;
    let refused = Err(Errno::EOPNOTSUPP);
    let is = store(&mut fake, &root, fid, xattr::CUSTODY, b"flash", 0);
    assert_eq!(is, refused);
    assert!(!xattr::is_kept(xattr::CUSTODY), "nor taken from an origin");
    // One that was stored before the name was reserved.
    store(&mut fake, &root, fid, b"user.custody", b"v", 0).expect("set");
    let names: Vec<Bytes> = [xattr::CUSTODY, b"user.custody"]
        .map(|name| Bytes(name.to_vec()))
        .to_vec();
    let list = (fid, xattr::LIST.to_vec());
    fake.xattrs.insert(list, Codec::to_vec(&names).into());
    let listed = xattr::list(&fake, fake.ctx(&root), fid).expect("loaded");
    assert_eq!(listed, b"user.custody\0");
    let remove = |v: &Fake| {
        Ok((
            (),
            Some(xattr::remove(v, v.ctx(&root), fid, xattr::CUSTODY)?),
        ))
    };
    assert_eq!(fake.run(remove), refused);
    // Who may read the file may ask, and who may write it may wish.
    let other = caller(2, 2);
    assert!(xattr::may_see_custody(&fake, fake.ctx(&other), fid).is_ok());
    let wished = xattr::may_wish_custody(&fake, fake.ctx(&other), fid);
    assert_eq!(wished, Err(Errno::EACCES.into()));
    assert!(xattr::may_wish_custody(&fake, fake.ctx(&caller(OWNER, 1)), fid).is_ok());
}
