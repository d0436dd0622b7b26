//! `cargo xtask compare`: the same work on Forebay's mount, on the gfproxy
//! thin client's and on the bare disk, in turn within each round, so that a
//! machine's mood hits all three. Prints medians and ratios.

use crate::peer::Peer;
use crate::shell::{self, output};
use clap::Args;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

#[derive(Args)]
pub struct Options {
    /// Rounds; the median of each row is shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Files in the small-file rows
    #[arg(long, default_value_t = 1000)]
    files: usize,
    /// MiB in the streaming rows
    #[arg(long, default_value_t = 512)]
    mib: usize,
    /// Seconds of each random row
    #[arg(long, default_value_t = 3)]
    seconds: usize,
    /// Leave out the peer
    #[arg(long)]
    no_peer: bool,
    /// Only rows whose name contains this, or one of these, separated by commas
    #[arg(long, default_value = "")]
    only: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// One row: what was done, in which unit, and each mount's rates.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    unit: &'static str,
    forebay: f64,
    gfproxy: Option<f64>,
    disk: f64,
}

pub fn run(options: &Options) -> Result<(), String> {
    shell::run(
        "cargo",
        &["build", "--release", "--quiet", "--bin", "forebay"],
    )?;
    let dir = Scratch::new()?;
    let site = Box_::start(&dir.0)?;
    let peer = if options.no_peer {
        None
    } else {
        Some(Peer::start(&dir.0)?)
    };
    let disk = dir.0.join("disk");
    fs::create_dir(&disk).map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    for (name, unit, work) in WORK
        .iter()
        .filter(|(name, ..)| options.only.split(',').any(|part| name.contains(part)))
    {
        let mut rates: [Vec<f64>; 3] = Default::default();
        for _ in 0..options.rounds {
            let places = [
                Some(site.mount.as_path()),
                peer.as_ref().map(|p| p.mount.as_path()),
                Some(&disk),
            ];
            for (rates, place) in rates.iter_mut().zip(places) {
                if let Some(place) = place {
                    rates.push(work(place, options).map_err(|e| format!("{name}: {e}"))?);
                }
            }
        }
        let [forebay, gfproxy, disk] = rates.map(median);
        let row = Row {
            name,
            unit,
            forebay: forebay.unwrap_or(0.0),
            gfproxy,
            disk: disk.unwrap_or(0.0),
        };
        eprintln!("{}", line(&row));
        rows.push(row);
    }
    if options.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&rows).map_err(|e| e.to_string())?
        );
    } else {
        println!(
            "{:<34}{:>9}{:>12}{:>12}{:>12}{:>9}{:>8}",
            "work", "unit", "forebay", "gfproxy", "disk", "x peer", "x disk"
        );
        rows.iter().for_each(|row| println!("{}", line(row)));
    }
    Ok(())
}

fn line(row: &Row) -> String {
    let ratio =
        |to: Option<f64>| to.map_or("-".to_owned(), |to| format!("{:.2}", row.forebay / to));
    let peer = row.gfproxy.map_or("-".to_owned(), |p| format!("{p:.0}"));
    format!(
        "{:<34}{:>9}{:>12.0}{:>12}{:>12.0}{:>9}{:>8}",
        row.name,
        row.unit,
        row.forebay,
        peer,
        row.disk,
        ratio(row.gfproxy),
        ratio(Some(row.disk))
    )
}

fn median(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

type Work = fn(&Path, &Options) -> Result<f64, String>;

/// The rows, in an order in which each finds what the earlier ones left.
const WORK: [(&str, &str, Work); 16] = [
    ("write 1 MiB blocks, fsync at end", "MiB/s", |at, o| {
        stream(at, o, "write")
    }),
    ("read 1 MiB blocks, page cache cold", "MiB/s", |at, o| {
        stream(at, o, "read")
    }),
    ("read 1 MiB blocks again, warm", "MiB/s", reread),
    ("random read 4 KiB direct, depth 1", "op/s", |at, o| {
        random(at, o, "randread", 1)
    }),
    ("random read 4 KiB direct, depth 16", "op/s", |at, o| {
        random(at, o, "randread", 16)
    }),
    ("random write 4 KiB direct, depth 1", "op/s", |at, o| {
        random(at, o, "randwrite", 1)
    }),
    ("random write 4 KiB direct, depth 16", "op/s", |at, o| {
        random(at, o, "randwrite", 16)
    }),
    ("write 4 KiB + fsync", "op/s", append_fsync),
    ("create + write 4 KiB", "files/s", create),
    ("stat, cold", "files/s", |at, o| cold(at, o, stat)),
    ("stat, warm", "files/s", |at, o| warm(at, o, stat)),
    ("list with attributes, cold", "files/s", |at, o| {
        cold(at, o, list)
    }),
    ("list with attributes, warm", "files/s", |at, o| {
        warm(at, o, list)
    }),
    ("open + read 4 KiB, cold", "files/s", |at, o| {
        cold(at, o, open_read)
    }),
    ("open + read 4 KiB, warm", "files/s", |at, o| {
        warm(at, o, open_read)
    }),
    ("unlink", "files/s", unlink),
];

fn stream(at: &Path, o: &Options, rw: &str) -> Result<f64, String> {
    drop_caches();
    let size = format!("--size={}M", o.mib);
    let rw = format!("--rw={rw}");
    let args = [
        rw.as_str(),
        "--bs=1M",
        &size,
        "--ioengine=psync",
        "--end_fsync=1",
    ];
    Ok(fio(at, "stream", &args)? / f64::from(1u32 << 20))
}

/// Reads the whole file once more, out of whatever kept it.
fn reread(at: &Path, _: &Options) -> Result<f64, String> {
    let mut buf = vec![0; 1 << 20];
    let mut pass = || -> std::io::Result<f64> {
        let mut file = File::open(at.join("stream"))?;
        let (begun, mut bytes) = (Instant::now(), 0);
        loop {
            match file.read(&mut buf)? {
                0 => break,
                n => bytes += n,
            }
        }
        Ok(bytes as f64 / begun.elapsed().as_secs_f64())
    };
    let rate = pass().and_then(|_| pass()).map_err(|e| e.to_string())?;
    Ok(rate / f64::from(1u32 << 20))
}

fn random(at: &Path, o: &Options, rw: &str, depth: u32) -> Result<f64, String> {
    let (rw, size) = (format!("--rw={rw}"), format!("--size={}M", o.mib));
    let (depth, time) = (
        format!("--iodepth={depth}"),
        format!("--runtime={}", o.seconds),
    );
    let args = [
        rw.as_str(),
        "--bs=4k",
        &size,
        "--direct=1",
        "--ioengine=io_uring",
        &depth,
        &time,
        "--time_based",
    ];
    Ok(fio(at, "stream", &args)? / 4096.0)
}

/// Bytes a second of one fio job on the file `name`.
fn fio(at: &Path, name: &str, args: &[&str]) -> Result<f64, String> {
    let file = format!("--filename={}", at.join(name).display());
    let fixed = [
        "--name=compare",
        file.as_str(),
        "--output-format=json",
        "--thread",
    ];
    let text = output("fio", &[&fixed[..], args].concat())?;
    // fio may print notes before the JSON.
    let json = text.find('{').map_or("", |at| &text[at..]);
    let report: serde_json::Value = serde_json::from_str(json).map_err(|e| format!("fio: {e}"))?;
    let job = &report["jobs"][0];
    let rate = |side: &str| job[side]["bw_bytes"].as_f64().unwrap_or(0.0);
    Ok(rate("read").max(rate("write")))
}

fn append_fsync(at: &Path, o: &Options) -> Result<f64, String> {
    let path = at.join("log");
    let mut file = File::create(&path).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let mut done = 0u32;
    while begun.elapsed().as_secs_f64() < o.seconds as f64 {
        file.write_all(&[7; 4096])
            .and_then(|()| file.sync_data())
            .map_err(|e| e.to_string())?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

fn create(at: &Path, o: &Options) -> Result<f64, String> {
    let dir = at.join("small");
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
    }
    fs::create_dir(&dir).map_err(|e| e.to_string())?;
    each(o, &dir, |path| {
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(path)?
            .write_all(&[5; 4096])
    })
}

/// Past the kernel's caches.
fn cold(at: &Path, o: &Options, work: Work) -> Result<f64, String> {
    drop_caches();
    work(at, o)
}

/// What was done once already.
fn warm(at: &Path, o: &Options, work: Work) -> Result<f64, String> {
    work(at, o)?;
    work(at, o)
}

fn stat(at: &Path, o: &Options) -> Result<f64, String> {
    each(o, &at.join("small"), |path| fs::metadata(path).map(|_| ()))
}

/// As `ls -l`: each entry with its attributes.
fn list(at: &Path, _: &Options) -> Result<f64, String> {
    let begun = Instant::now();
    let mut count = 0u32;
    for entry in fs::read_dir(at.join("small")).map_err(|e| e.to_string())? {
        let entry = entry.and_then(|e| e.metadata());
        entry.map_err(|e| e.to_string())?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn open_read(at: &Path, o: &Options) -> Result<f64, String> {
    let mut buf = [0; 4096];
    each(o, &at.join("small"), |path| {
        File::open(path)?.read_exact(&mut buf)
    })
}

fn unlink(at: &Path, o: &Options) -> Result<f64, String> {
    let rate = each(o, &at.join("small"), |path| fs::remove_file(path));
    // The next round's reading rows want files again.
    rate.and_then(|rate| create(at, o).map(|_| rate))
}

/// Files a second over all small files.
fn each(
    o: &Options,
    dir: &Path,
    mut op: impl FnMut(&Path) -> std::io::Result<()>,
) -> Result<f64, String> {
    let paths: Vec<PathBuf> = (0..o.files)
        .map(|i| dir.join(format!("file.{i:06}")))
        .collect();
    let begun = Instant::now();
    for path in &paths {
        op(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(paths.len() as f64 / begun.elapsed().as_secs_f64())
}

/// Empties the kernel's caches, so that "cold" rows go past them.
fn drop_caches() {
    let _ = output("sync", &[]);
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
}

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch, String> {
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

/// A box with its mount.
struct Box_ {
    mount: PathBuf,
    server: Child,
}

impl Box_ {
    fn start(dir: &Path) -> Result<Box_, String> {
        let forebay = shell::target().join("release/forebay");
        let (mount, origin) = (dir.join("forebay"), dir.join("origin"));
        for d in [&mount, &origin] {
            fs::create_dir_all(d).map_err(|e| e.to_string())?;
        }
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
        let (forebay, mount_at) = (forebay.display().to_string(), mount.display().to_string());
        output(&forebay, &["mount", &format!("{addr}/main"), &mount_at])?;
        Ok(Box_ { mount, server })
    }
}

impl Drop for Box_ {
    fn drop(&mut self) {
        let forebay = shell::target()
            .join("release/forebay")
            .display()
            .to_string();
        let _ = output(&forebay, &["umount", &self.mount.display().to_string()]);
        // SIGTERM, by its id: a clean stop.
        let _ = output("kill", &[&self.server.id().to_string()]);
        let _ = self.server.wait();
    }
}
