//! `cargo xtask compare`: the same work on Forebay's mount, on the gfproxy
//! thin client's and on the bare disk, in turn within each round, so that a
//! machine's mood hits all three. Prints medians and ratios.

mod bed;
mod peer;
mod rows;
mod trees;

use crate::shell::{self, output};
use bed::{Scratch, Site};
use clap::Args;
use peer::Peer;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;

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
    /// Files in the rows of a whole tree
    #[arg(long, default_value_t = 10_000)]
    tree: usize,
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

/// Two clients of one file system; the disk has only itself.
struct Place {
    first: PathBuf,
    second: PathBuf,
    /// What the rows of a whole tree unpack.
    archive: PathBuf,
}

/// What is done in one row; it returns a rate.
struct Work {
    name: &'static str,
    unit: &'static str,
    run: Run,
}

type Run = fn(&Place, &Options) -> Result<f64, String>;

impl Work {
    const fn new(name: &'static str, unit: &'static str, run: Run) -> Work {
        Work { name, unit, run }
    }
}

/// One row: what was done, in which unit, and each mount's rates.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    unit: &'static str,
    forebay: f64,
    gfproxy: Option<f64>,
    disk: f64,
    /// Seconds that it took Forebay afterwards to bring its origin everything.
    carried: f64,
}

pub fn run(options: &Options) -> Result<(), String> {
    shell::run(
        "cargo",
        &["build", "--release", "--quiet", "--bin", "forebay"],
    )?;
    let dir = Scratch::new()?;
    trees::pack(&dir.0, options)?;
    let site = Site::start(&dir.0)?;
    let peer = if options.no_peer {
        None
    } else {
        Some(Peer::start(&dir.0)?)
    };
    let disk = dir.0.join("disk");
    fs::create_dir(&disk).map_err(|e| e.to_string())?;
    let place = |mounts: &[PathBuf; 2]| Place {
        first: mounts[0].clone(),
        second: mounts[1].clone(),
        archive: trees::archive(&dir.0),
    };
    let places = [
        Some(place(&site.mounts)),
        peer.as_ref().map(|peer| place(&peer.mounts)),
        Some(place(&[disk.clone(), disk])),
    ];
    let mut rows = Vec::new();
    let is_wanted = |work: &&Work| options.only.split(',').any(|part| work.name.contains(part));
    let work = rows::WORK.iter().chain(&trees::WORK);
    for Work { name, unit, run } in work.filter(is_wanted) {
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut carried = Vec::new();
        for _ in 0..options.rounds {
            for (rates, place) in rates.iter_mut().zip(&places) {
                let Some(place) = place else { continue };
                rates.push(run(place, options).map_err(|e| format!("{name}: {e}"))?);
                // What a row leaves to be done later must not slow the next
                // one, whoever's that is.
                if place.first == site.mounts[0] {
                    carried.push(site.carry()?);
                }
                output("sync", &[])?;
            }
        }
        let [forebay, gfproxy, disk] = rates.map(median);
        let row = Row {
            name,
            unit,
            forebay: forebay.unwrap_or(0.0),
            gfproxy,
            disk: disk.unwrap_or(0.0),
            carried: median(carried).unwrap_or(0.0),
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
            "{:<34}{:>9}{:>12}{:>12}{:>12}{:>9}{:>8}{:>11}",
            "work", "unit", "forebay", "gfproxy", "disk", "x peer", "x disk", "carried s"
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
        "{:<34}{:>9}{:>12.0}{:>12}{:>12.0}{:>9}{:>8}{:>11.2}",
        row.name,
        row.unit,
        row.forebay,
        peer,
        row.disk,
        ratio(row.gfproxy),
        ratio(Some(row.disk)),
        row.carried
    )
}

fn median(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// Past the kernel's caches.
fn cold(at: &Place, o: &Options, work: Run) -> Result<f64, String> {
    drop_caches();
    work(at, o)
}

/// What was done once already.
fn warm(at: &Place, o: &Options, work: Run) -> Result<f64, String> {
    work(at, o)?;
    work(at, o)
}

/// Empties the kernel's caches, so that "cold" rows go past them.
fn drop_caches() {
    let _ = output("sync", &[]);
    let _ = fs::write("/proc/sys/vm/drop_caches", "3");
}
