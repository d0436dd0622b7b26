//! Processes that are in a directory of a mount keep their place, whatever is
//! taken back of what the kernel believes.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use support::{Site, mounts_missing};

/// A process that is in a directory.
struct Sitter(Child);

impl Sitter {
    fn start(dir: &Path) -> Sitter {
        let child = Command::new("sleep").arg("600").current_dir(dir).spawn();
        Sitter(child.unwrap())
    }

    /// Where it is, as getcwd(2) tells it.
    fn place(&self) -> PathBuf {
        fs::read_link(format!("/proc/{}/cwd", self.0.id())).unwrap()
    }
}

impl Drop for Sitter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another client moves it away and back, and the box is killed and comes again:
/// nobody looks at the directory by its name meanwhile.
#[test]
fn who_is_in_a_directory_stays_there() {
    if mounts_missing().is_some() {
        return;
    }
    let mut site = Site::start("");
    let (here, there) = (site.mount("here"), site.mount("there"));
    let dir = here.join("a/b");
    fs::create_dir_all(&dir).unwrap();
    let sitter = Sitter::start(&dir);
    assert_eq!(sitter.place(), dir);

    fs::rename(there.join("a"), there.join("c")).unwrap();
    fs::rename(there.join("c"), there.join("a")).unwrap();
    assert_eq!(sitter.place(), dir, "after a callback");
    for name in ["a", "a/b"] {
        assert!(fs::metadata(here.join(name)).unwrap().is_dir());
    }

    site.kill();
    site.serve();
    // Answered by the new box, after what is taken back.
    assert_eq!(fs::read_dir(&here).unwrap().count(), 1);
    assert_eq!(sitter.place(), dir, "after a restart");

    drop(sitter);
    site.umount(&here);
    site.umount(&there);
    site.stop();
}
