//! Single files: large ones, read and written, and a directory of small ones.

use super::{Options, Place, Work, cold, drop_caches, warm};
use crate::shell::output;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The rows, in an order in which each finds what the earlier ones left.
pub const WORK: [Work; 17] = [
    Work::new("write 1 MiB blocks, fsync at end", "MiB/s", |at, o| {
        stream(&at.first, o, "write")
    }),
    Work::new("read 1 MiB blocks, page cache cold", "MiB/s", |at, o| {
        stream(&at.first, o, "read")
    }),
    Work::new("read 1 MiB blocks again, warm", "MiB/s", |at, _| {
        reread(&at.first)
    }),
    Work::new("random read 4 KiB direct, depth 1", "op/s", |at, o| {
        random(&at.first, o, "randread", 1)
    }),
    Work::new("random read 4 KiB direct, depth 16", "op/s", |at, o| {
        random(&at.first, o, "randread", 16)
    }),
    Work::new("random write 4 KiB direct, depth 1", "op/s", |at, o| {
        random(&at.first, o, "randwrite", 1)
    }),
    Work::new("random write 4 KiB direct, depth 16", "op/s", |at, o| {
        random(&at.first, o, "randwrite", 16)
    }),
    Work::new("write 4 KiB + fsync", "op/s", append_fsync),
    Work::new("create + write 4 KiB", "files/s", create),
    Work::new("stat, cold", "files/s", |at, o| cold(at, o, stat)),
    Work::new("stat, warm", "files/s", |at, o| warm(at, o, stat)),
    Work::new("list with attributes, cold", "files/s", |at, o| {
        cold(at, o, list)
    }),
    Work::new("list with attributes, warm", "files/s", |at, o| {
        warm(at, o, list)
    }),
    Work::new("open + read 4 KiB, cold", "files/s", |at, o| {
        cold(at, o, open_read)
    }),
    Work::new("open + read 4 KiB, warm", "files/s", |at, o| {
        warm(at, o, open_read)
    }),
    Work::new("unlink", "files/s", unlink),
    Work::new(
        "create by two clients in one place",
        "files/s",
        create_by_two,
    ),
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
fn reread(at: &Path) -> Result<f64, String> {
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

fn append_fsync(at: &Place, o: &Options) -> Result<f64, String> {
    let path = at.first.join("log");
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

fn create(at: &Place, o: &Options) -> Result<f64, String> {
    let dir = at.first.join("small");
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

fn stat(at: &Place, o: &Options) -> Result<f64, String> {
    each(o, &at.first.join("small"), |path| {
        fs::metadata(path).map(|_| ())
    })
}

/// As `ls -l`: each entry with its attributes.
fn list(at: &Place, _: &Options) -> Result<f64, String> {
    let begun = Instant::now();
    let mut count = 0u32;
    for entry in fs::read_dir(at.first.join("small")).map_err(|e| e.to_string())? {
        let entry = entry.and_then(|e| e.metadata());
        entry.map_err(|e| e.to_string())?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

fn open_read(at: &Place, o: &Options) -> Result<f64, String> {
    let mut buf = [0; 4096];
    each(o, &at.first.join("small"), |path| {
        File::open(path)?.read_exact(&mut buf)
    })
}

fn unlink(at: &Place, o: &Options) -> Result<f64, String> {
    let rate = each(o, &at.first.join("small"), |path| fs::remove_file(path));
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

/// Both clients of a place make files in one directory, as fast as each can.
fn create_by_two(at: &Place, o: &Options) -> Result<f64, String> {
    let dir = at.first.join("both");
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
    }
    fs::create_dir(&dir).map_err(|e| e.to_string())?;
    let begun = Instant::now();
    let make = |mount: &Path, who: &str| {
        (0..o.files).try_for_each(|i| {
            let path = mount.join("both").join(format!("{who}.{i:06}"));
            let made = OpenOptions::new().create_new(true).write(true).open(&path);
            made.map(drop)
                .map_err(|e| format!("{}: {e}", path.display()))
        })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| make(&at.second, "b"));
        let own = make(&at.first, "a");
        let other = other.join().unwrap_or_else(|_| Err("a panic".to_owned()));
        own.and(other)
    })?;
    Ok(2.0 * o.files as f64 / begun.elapsed().as_secs_f64())
}
