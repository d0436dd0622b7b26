//! Real boxes and real mounts for the end-to-end tests: each `Site` is a
//! directory of its own with a conf, an origin, a cache file and mount points,
//! and takes its processes and mounts down with it.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Path of the binary under test.
pub const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");

/// Why mount tests cannot run here; `None` where they can. With `CI=true`
/// a machine that cannot mount fails the tests instead of skipping them.
pub fn mounts_missing() -> Option<String> {
    let why = if !Path::new("/dev/fuse").exists() {
        Some("no /dev/fuse on this machine".to_owned())
    } else if !rustix::process::geteuid().is_root() && which("fusermount3").is_none() {
        Some("neither root nor fusermount3".to_owned())
    } else {
        None
    };
    if let Some(why) = &why {
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!ci, "mount tests cannot run, and CI=true: {why}");
        eprintln!("skipped: {why}");
    }
    why
}

/// First program of this name on PATH.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
}

/// The suite's binary, or None (a failure with CI=true) if it is not there.
pub fn suite(name: &str) -> Option<PathBuf> {
    let own = std::env::var_os("FOREBAY_SUITES").map(|dir| Path::new(&dir).join(name));
    let found = own.filter(|p| p.is_file()).or_else(|| which(name));
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!ci, "{name} is not installed, and CI=true");
        eprintln!("skipped: {name} is not installed; `cargo xtask test` installs it");
    }
    found
}

/// One box with everything around it.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub addr: SocketAddr,
    server: Option<Child>,
    mounts: Vec<PathBuf>,
    extra: String,
}

impl Site {
    /// Starts a box on a fresh directory. `extra` are further lines of conf;
    /// `$DIR` in them is the site's directory.
    pub fn start(extra: &str) -> Site {
        Site::start_on(extra, |_| {})
    }

    /// The same, after `prepare` did something to the directory.
    pub fn start_on(extra: &str, prepare: impl FnOnce(&Path)) -> Site {
        let dir = tempfile::Builder::new()
            .prefix("forebay-test-")
            .tempdir()
            .expect("temp dir");
        let dir_of = |name: &str| std::fs::create_dir(dir.path().join(name)).expect("fresh dir");
        dir_of("origin");
        prepare(dir.path());
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut site = Site {
            dir,
            addr,
            server: None,
            mounts: Vec::new(),
            extra: extra.to_owned(),
        };
        site.serve();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn origin(&self) -> PathBuf {
        self.path("origin")
    }
    pub fn conf(&self) -> PathBuf {
        self.path("forebay.conf")
    }

    /// Writes the conf. The port is the kernel's choice at first and kept then.
    fn write_conf(&self) {
        let dir = self.dir.path().display();
        let mut text = format!(
            "listen = {}\nadmin.socket = {dir}/admin.sock\ncache.path = {dir}/cache.fb\n\
             target.main.origin = posix:{dir}/origin\n",
            self.addr
        );
        if !self.extra.contains("cache.size") {
            text.push_str("cache.size = 512M\n");
        }
        text.push_str(&self.extra.replace("$DIR", &dir.to_string()));
        std::fs::write(self.conf(), text).expect("conf is writable");
    }

    /// Starts the box and waits until it says that it is ready.
    pub fn serve(&mut self) {
        self.write_conf();
        let mut child = Command::new(FOREBAY)
            .args(["serve", "-c"])
            .arg(self.conf())
            .stdout(Stdio::piped())
            .stderr(self.log())
            .spawn()
            .expect("the box starts");
        let out = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(out);
        let mut line = String::new();
        loop {
            line.clear();
            let n = lines.read_line(&mut line).expect("readable");
            assert!(
                n > 0,
                "the box ended before it was ready: {}",
                self.log_text()
            );
            if let Some(addr) = line.trim().strip_prefix("ready on ") {
                self.addr = addr.parse().expect("an address");
                break;
            }
        }
        // Whatever else it prints must not block it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        self.server = Some(child);
    }

    fn log(&self) -> std::fs::File {
        let path = self.path("box.log");
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("log opens")
    }
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.path("box.log")).unwrap_or_default()
    }

    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("the box runs").id()
    }

    /// kill -9 of the box, and its reaping.
    pub fn kill(&mut self) {
        let mut child = self.server.take().expect("the box runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be reaped");
    }

    /// A clean stop; the box must end with success.
    pub fn stop(&mut self) {
        let out = self.forebay(&["shutdown"]);
        assert!(out.status.success(), "shutdown: {}", text(&out));
        let status = self
            .server
            .take()
            .expect("the box runs")
            .wait()
            .expect("it can be reaped");
        assert!(
            status.success(),
            "the box ended with {status}: {}",
            self.log_text()
        );
    }

    /// A command to this box.
    pub fn forebay(&self, args: &[&str]) -> Output {
        Command::new(FOREBAY)
            .args(args)
            .arg("--socket")
            .arg(self.path("admin.sock"))
            .output()
            .expect("forebay runs")
    }

    /// Mounts the target `main` on `name` under the site's directory.
    pub fn mount(&mut self, name: &str) -> PathBuf {
        self.mount_target("main", name)
    }

    /// Mounts any target on `name` under the site's directory.
    pub fn mount_target(&mut self, target: &str, name: &str) -> PathBuf {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).expect("mount point");
        let source = format!("{}/{target}", self.addr);
        let out = Command::new(FOREBAY)
            .args(["mount", &source])
            .arg(&dir)
            .output()
            .expect("forebay mount runs");
        assert!(out.status.success(), "mount: {}", text(&out));
        self.mounts.push(dir.clone());
        dir
    }

    /// kill -9 of a mount's process; what still uses it sees ENOTCONN.
    pub fn kill_mount(&mut self, dir: &Path) {
        assert!(mount_pid(dir).is_some(), "the mount has a process");
        end_mount(dir);
        self.mounts.retain(|m| m != dir);
    }

    pub fn umount(&mut self, dir: &Path) {
        let out = Command::new(FOREBAY)
            .arg("umount")
            .arg(dir)
            .output()
            .expect("umount runs");
        assert!(out.status.success(), "umount: {}", text(&out));
        self.mounts.retain(|m| m != dir);
    }

    /// Everything that `main` owes is at the origin when this returns.
    pub fn flush(&self) {
        self.flush_target("main");
    }

    pub fn flush_target(&self, target: &str) {
        let out = self.forebay(&["flush", target, "--wait"]);
        assert!(out.status.success(), "flush: {}", text(&out));
    }

    pub fn status(&self) -> serde_json::Value {
        let out = self.forebay(&["status", "--json"]);
        assert!(out.status.success(), "status: {}", text(&out));
        serde_json::from_slice(&out.stdout).expect("status is JSON")
    }

    /// What `status` says of one target, and the shard that says it.
    pub fn target_status(&self, name: &str) -> (u64, serde_json::Value) {
        let status = self.status();
        let shards = status["shard"].as_array().expect("a list of shards");
        let mut found = shards.iter().flat_map(|shard| {
            let targets = shard["targets"].as_array().into_iter().flatten();
            let own = targets.filter(|t| t["target"] == name);
            own.map(|t| (shard["shard"].as_u64().expect("a number"), t.clone()))
        });
        let one = found.next();
        assert!(found.next().is_none(), "{name} is listed twice: {status}");
        one.unwrap_or_else(|| panic!("{name} is not listed: {status}"))
    }
}

/// Waits until something can be observed, looking again and again; the bound
/// is only there to end a test that would hang.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < give_up, "not within two minutes: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for dir in std::mem::take(&mut self.mounts) {
            // A test that failed may leave files open and unsent bytes: end the
            // mount process, detach, never hang.
            end_mount(&dir);
        }
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the box's log ---\n{}", self.log_text());
        }
    }
}

/// Ends a mount's process and detaches it, whatever uses it.
pub fn end_mount(dir: &Path) {
    if let Some(pid) = mount_pid(dir) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    let _ = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
}

/// The process behind a mount, which answers this by itself.
pub fn mount_pid(dir: &Path) -> Option<rustix::process::Pid> {
    let mut value = [0; 16];
    let n = rustix::fs::getxattr(dir, "system.forebay.pid", &mut value).ok()?;
    let pid = std::str::from_utf8(&value[..n]).ok()?.trim().parse().ok()?;
    rustix::process::Pid::from_raw(pid)
}

/// Both outputs of a command, for messages.
pub fn text(out: &Output) -> String {
    let mut all = String::from_utf8_lossy(&out.stdout).into_owned();
    all.push_str(&String::from_utf8_lossy(&out.stderr));
    all
}

/// Runs a shell script with `dir` as working directory; it must succeed.
pub fn sh(dir: &Path, script: &str) -> String {
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(dir)
        .output()
        .expect("bash runs");
    assert!(
        out.status.success(),
        "`{script}` in {}: {}",
        dir.display(),
        text(&out)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The whole content of a file.
pub fn slurp(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    file.read_to_end(&mut bytes)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    bytes
}
