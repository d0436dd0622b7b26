//! What is open on a mount stays so, whatever others do to it, though the box
//! was told nothing of it.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
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
        fs::set_permissions(&at, fs::Permissions::from_mode(0)).unwrap();
        // Not out of the pages that it had read, if it had.
        append(&b.join("f")).write_all(b"!").unwrap();
        assert_eq!(holder.read(), format!("{text}!"));
        let refused = Command::new("cat").arg(&path).uid(USER).gid(USER).output();
        assert!(!refused.unwrap().status.success());
        holder.end();
        fs::remove_file(&path).unwrap();
    }
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
        file.try_lock().unwrap();
        let other = File::open(b.join("f")).unwrap();
        assert!(other.try_lock().is_err());
        drop(file);
        until("the lock ends with its handle", || other.try_lock().is_ok());
    }
}
