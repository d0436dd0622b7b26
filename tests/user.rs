//! A mount by somebody who is not root, through the setuid helper fusermount3.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::{FOREBAY, Site, mounts_missing, text, which};

const NOBODY: u32 = 65534;

/// As `mounts_missing`, for what this test needs on top.
fn user_missing() -> bool {
    let why = if mounts_missing().is_some() {
        return true;
    } else if !rustix::process::geteuid().is_root() {
        "only root can become another user"
    } else if which("fusermount3").is_none() {
        "no fusermount3: install fuse3"
    } else if ["setpriv", "unshare", "nsenter"]
        .iter()
        .any(|p| which(p).is_none())
    {
        "no setpriv, unshare, nsenter: install util-linux"
    } else {
        return false;
    };
    let ci = std::env::var("CI").is_ok_and(|v| v == "true");
    assert!(!ci, "a user's mount cannot be tested, and CI=true: {why}");
    eprintln!("skipped: {why}");
    true
}

/// A mount name space in which every user may open /dev/fuse, as on any
/// machine whose udev set it up: containers often have it for root alone, and
/// the machine's own node is not a test's to change.
struct Space {
    keeper: Child,
    mnt: PathBuf,
}

impl Space {
    fn new(dir: &Path, mnt: &Path) -> Space {
        let node = dir.join("fuse");
        let script = format!(
            "mknod -m 666 '{0}' c 10 229 && mount --bind '{0}' /dev/fuse && echo made && \
             exec cat",
            node.display()
        );
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = keeper.stdout.as_mut().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "made\n");
        Space {
            keeper,
            mnt: mnt.to_owned(),
        }
    }

    /// Runs a program inside, as root.
    fn as_root(&self, args: &[&str]) -> Output {
        let space = format!("--mount=/proc/{}/ns/mnt", self.keeper.id());
        Command::new("nsenter")
            .arg(space)
            .args(args)
            .current_dir("/")
            .output()
            .unwrap()
    }

    /// As nobody, with nobody's groups.
    fn as_nobody(&self, args: &[&str]) -> Output {
        let who = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--",
        ];
        self.as_root(&[&who[..], args].concat())
    }

    fn sh_as_nobody(&self, script: &str) -> String {
        let out = self.as_nobody(&["sh", "-ec", script]);
        assert!(out.status.success(), "`{script}`: {}", text(&out));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // A mount that is left ends its process with it; usually none is.
        let mnt = self.mnt.display().to_string();
        let _ = self.as_root(&["umount", "--lazy", &mnt]);
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[test]
fn a_user_mounts_writes_reads_and_unmounts() {
    if user_missing() {
        return;
    }
    let mut site = Site::start_on("", |dir| {
        chown(dir.join("origin"), Some(NOBODY), Some(NOBODY)).unwrap();
    });
    let space = Space::new(site.dir.path(), &site.path("mnt"));
    // What is built may be where only its owner may look.
    let forebay = site.path("forebay").display().to_string();
    fs::copy(FOREBAY, &forebay).unwrap();
    fs::set_permissions(site.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let m = site.path("mnt");
    fs::create_dir(&m).unwrap();
    let source = format!("{}/main", site.addr);
    let dir = m.display().to_string();

    // Not on somebody else's directory, and it says why.
    let refused = space.as_nobody(&[&forebay, "mount", &source, &dir]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(
        text(&refused).contains("yours to write"),
        "{}",
        text(&refused)
    );

    chown(&m, Some(NOBODY), Some(NOBODY)).unwrap();
    let out = space.as_nobody(&[&forebay, "mount", &source, &dir]);
    assert!(out.status.success(), "mount: {}", text(&out));
    let got = space.sh_as_nobody(&format!(
        "cd {dir}; mkdir d; echo hello > d/file; mv d/file d/moved; ln -s moved d/link; \
         sync d/moved; cat d/link; stat -c %u:%g d/moved"
    ));
    assert_eq!(got, "hello\n65534:65534\n");
    let table = space.sh_as_nobody("cat /proc/self/mounts");
    let line = table.lines().find(|l| l.contains(&dir)).unwrap();
    assert!(
        line.contains("fuse.forebay") && line.contains("user_id=65534"),
        "{line}"
    );
    assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
    // Without allow_other it is nobody else's, not even root's.
    let root = space.as_root(&["ls", &dir]);
    assert!(text(&root).contains("Permission denied"), "{}", text(&root));

    let out = space.as_nobody(&[&forebay, "umount", &dir]);
    assert!(out.status.success(), "umount: {}", text(&out));
    assert_eq!(space.sh_as_nobody(&format!("ls -A {dir}")), "");
    site.flush();
    let carried = site.origin().join("d/moved");
    assert_eq!(fs::read_to_string(&carried).unwrap(), "hello\n");
    let meta = fs::metadata(&carried).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY));
    site.stop();
}
