//! Where the work is done: a box with its mounts, in a directory that goes away.

use crate::shell::{self, output};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// A directory that goes away.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Result<Scratch, String> {
        let dir = shell::target().join(format!("compare-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A box with its mounts.
pub struct Site {
    pub mounts: [PathBuf; 2],
    socket: PathBuf,
    server: Child,
}

impl Site {
    pub fn start(dir: &Path) -> Result<Site, String> {
        let forebay = shell::target().join("release/forebay");
        let mounts = [dir.join("forebay"), dir.join("forebay-2")];
        fs::create_dir_all(dir.join("origin")).map_err(|e| e.to_string())?;
        let (conf, at) = (dir.join("forebay.conf"), dir.display());
        let text = format!(
            "listen = 127.0.0.1:0\nadmin.socket = {at}/admin.sock\ncache.path = {at}/cache.fb\n\
             cache.size = 4G\nmemory = 1G\ntarget.main.origin = posix:{at}/origin\n"
        );
        fs::write(&conf, text).map_err(|e| e.to_string())?;
        let mut server = Command::new(&forebay)
            .args(["serve", "-c"])
            .arg(&conf)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", forebay.display()))?;
        let out = server.stdout.take().ok_or("no output")?;
        let ready = BufReader::new(out)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ready on ").map(str::to_owned));
        let addr = ready.ok_or("the box did not start")?;
        let socket = dir.join("admin.sock");
        let site = Site {
            mounts,
            socket,
            server,
        };
        for mount in &site.mounts {
            fs::create_dir_all(mount).map_err(|e| e.to_string())?;
            let (forebay, at) = (forebay.display().to_string(), mount.display().to_string());
            output(&forebay, &["mount", &format!("{addr}/main"), &at])?;
        }
        Ok(site)
    }

    /// Returns when the origin has everything, with the seconds it took.
    pub fn carry(&self) -> Result<f64, String> {
        let begun = Instant::now();
        let forebay = shell::target().join("release/forebay");
        let socket = self.socket.display().to_string();
        output(
            &forebay.display().to_string(),
            &["flush", "main", "--wait", "--socket", &socket],
        )?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let forebay = shell::target()
            .join("release/forebay")
            .display()
            .to_string();
        for mount in &self.mounts {
            let _ = output(&forebay, &["umount", &mount.display().to_string()]);
        }
        // SIGTERM, by its id: a clean stop.
        let _ = output("kill", &[&self.server.id().to_string()]);
        let _ = self.server.wait();
    }
}
