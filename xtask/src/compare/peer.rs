//! The peer: GlusterFS with its proxy daemon (gfproxy) and thin client, set up
//! on this machine from Debian's packages, in a directory of its own.

use crate::shell::{self, output};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Two mounted gfproxy thin clients; dropping them takes everything down.
pub struct Peer {
    pub mounts: [PathBuf; 2],
    clients: Vec<Child>,
    daemon: Option<Child>,
}

const VOLUME: &str = "forebay-compare";
const WAIT: Duration = Duration::from_secs(60);

impl Peer {
    /// Creates a volume on a brick under `dir` and mounts its thin client.
    pub fn start(dir: &Path) -> Result<Peer, String> {
        install()?;
        let daemon = start_daemon()?;
        let brick = dir.join("brick");
        let mounts = [dir.join("gfproxy"), dir.join("gfproxy-2")];
        for d in mounts.iter().chain([&brick]) {
            std::fs::create_dir_all(d).map_err(|e| format!("{}: {e}", d.display()))?;
        }
        remove_volume();
        let host = output("hostname", &[])?.trim().to_owned();
        let at = format!("{host}:{}", brick.display());
        gluster(&["volume", "create", VOLUME, &at, "force"])?;
        gluster(&["volume", "start", VOLUME])?;
        gluster(&["volume", "set", VOLUME, "config.gfproxyd", "enable"])?;
        let port = proxy_port()?;
        let volfile = thin_volfile(dir, &host, port)?;
        let mut peer = Peer {
            mounts,
            clients: Vec::new(),
            daemon,
        };
        for mount in peer.mounts.clone() {
            let client = Command::new("glusterfs")
                .args(["--no-daemon", "-f"])
                .arg(&volfile)
                .args(["--process-name", "fuse"])
                .arg(&mount)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|e| format!("glusterfs: {e}"))?;
            peer.clients.push(client);
            wait_for("the thin client's mount", || is_mounted(&mount))?;
        }
        Ok(peer)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let _ = output("umount", &[&mount.display().to_string()]);
        }
        for client in &mut self.clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        remove_volume();
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn install() -> Result<(), String> {
    if shell::has("glusterd") && shell::has("glusterfs") {
        return Ok(());
    }
    if !shell::is_root() {
        return Err(
            "the peer needs root and the packages glusterfs-server, glusterfs-client".into(),
        );
    }
    shell::run("apt-get", &["update", "-qq"])?;
    let packages = [
        "install",
        "-y",
        "-qq",
        "glusterfs-server",
        "glusterfs-client",
    ];
    shell::run(
        "env",
        &[
            &["DEBIAN_FRONTEND=noninteractive", "apt-get"],
            &packages[..],
        ]
        .concat(),
    )
}

/// Starts glusterd unless one answers.
fn start_daemon() -> Result<Option<Child>, String> {
    if gluster(&["volume", "list"]).is_ok() {
        return Ok(None);
    }
    let daemon = Command::new("glusterd")
        .arg("--no-daemon")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("glusterd: {e}"))?;
    wait_for("glusterd", || gluster(&["volume", "list"]).is_ok())?;
    Ok(Some(daemon))
}

fn remove_volume() {
    // Stopping the volume alone leaves its proxy daemon running.
    let _ = gluster(&["volume", "set", VOLUME, "config.gfproxyd", "disable"]);
    let _ = gluster(&["volume", "stop", VOLUME, "force"]);
    let _ = gluster(&["volume", "delete", VOLUME]);
}

fn gluster(args: &[&str]) -> Result<String, String> {
    output("gluster", &[&["--mode=script"], args].concat())
}

/// The port that the volume's proxy daemon listens on.
fn proxy_port() -> Result<u16, String> {
    let mut found = None;
    wait_for("gfproxyd to listen", || {
        let pids = output("pgrep", &["-f", &format!("gfproxyd/{VOLUME}")]).unwrap_or_default();
        let listening = output("ss", &["-Hltnp"]).unwrap_or_default();
        let of_proxy = |line: &&str| {
            pids.lines()
                .any(|pid| line.contains(&format!("pid={pid},")))
        };
        let line = listening.lines().find(of_proxy);
        found = line
            .and_then(|l| l.split_whitespace().nth(3))
            .and_then(|addr| addr.rsplit(':').next())
            .and_then(|port| port.parse().ok());
        found.is_some()
    })?;
    found.ok_or_else(|| "gfproxyd has no port".to_owned())
}

/// The thin client's volume file with the proxy's address put in: mounting by
/// name fails in 10.3, which asks for the file under a wrong key.
fn thin_volfile(dir: &Path, host: &str, port: u16) -> Result<PathBuf, String> {
    let made = format!("/var/lib/glusterd/vols/{VOLUME}/trusted-{VOLUME}.tcp-gfproxy-fuse.vol");
    let text = std::fs::read_to_string(&made).map_err(|e| format!("{made}: {e}"))?;
    let mut out = String::new();
    for line in text.lines() {
        out.push_str(line);
        out.push('\n');
        if line.trim() == "type protocol/client" {
            out.push_str(&format!(
                "    option remote-host {host}\n    option remote-port {port}\n"
            ));
        }
    }
    let path = dir.join("thin.vol");
    std::fs::write(&path, out).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let wanted = dir.display().to_string();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(&wanted))
}

/// Waits until `ready`, at most [`WAIT`].
fn wait_for(what: &str, mut ready: impl FnMut() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > WAIT {
            return Err(format!("{what}: not there after {} s", WAIT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
