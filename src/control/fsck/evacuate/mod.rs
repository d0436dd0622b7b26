//! The rescue: what a dead box has and its origin has not, as files below a
//! directory, with a list of what is what.
//!
//! ```text
//! DIR/forebay-evacuated.json          every file, its ranges, the owed operations
//! DIR/TARGET/a/b                      files by the paths that clients see
//! DIR/TARGET/.forebay-orphans/FID     files without a name, or whose way is lost
//! DIR/TARGET/.forebay-owed.txt        operations on names, in their order
//! ```
//! A file is as long as clients see it, with holes for what is neither dirty nor
//! cached: those ranges are the origin's, and listed. One that owes nothing but
//! attributes is listed only.
//!
//! Architecture invariant: nothing is written outside DIR. Names are single
//! components by their type; no symbolic link is made before all else is
//! written, so none leads anywhere; and nothing that is there is written over.

mod list;
mod plan;
mod tree;
mod write;

use super::each_shard;
use super::kind::Kind;
use super::medium::Shared;
use super::names::{self, Names, TargetName, shown};
use super::owed;
use super::report::{Finding, Report};
use super::shard::View;
use crate::control::cli::Failure;
use crate::store::Superblock;
use list::List;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tree::Tree;

/// How much was rescued.
#[derive(Default)]
struct Rescued {
    files: Cell<u64>,
    /// Those of them that need the origin to be whole.
    partial: Cell<u64>,
    bytes: Cell<u64>,
    owed: Cell<u64>,
}

/// Rescues into `dir`, which must be empty, or not there yet.
///
/// # Errors
/// Refused: the directory is not empty, or it is no cache of this format.
/// Failed: the directory or the list in it cannot be written.
pub fn all(medium: &Shared, dir: &Path, report: &Report) -> Result<(), Failure> {
    let quiet = Report::new(Box::new(std::io::sink()), report.is_json, false);
    let volume = super::volume::open(medium, &quiet)?;
    make_empty(dir)?;
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", dir.display()));
    let list = volume.map(|v| start_list(dir, &v.superblock)).transpose();
    let mut list = list.map_err(failed)?;
    let (rescued, mut result) = (Rescued::default(), Ok(()));
    each_shard(medium, report, |view| {
        if let (Some(list), Ok(())) = (list.as_mut(), &result) {
            result = shard(view, dir, list, &rescued, report);
        }
    })?;
    result.map_err(failed)?;
    let tally = report.tally();
    if let Some(list) = list {
        list.finish(tally.damages, tally.losses).map_err(failed)?;
    }
    let synced = File::open(dir).and_then(|d| Ok(rustix::fs::syncfs(&d)?));
    synced.map_err(failed)?;
    report.summary(&[
        (
            "files and directories that owe something",
            rescued.files.get(),
        ),
        (
            "of them not whole without the origin",
            rescued.partial.get(),
        ),
        ("bytes of data", rescued.bytes.get()),
        ("owed operations", rescued.owed.get()),
    ]);
    Ok(())
}

/// The directory, made if it is not there. Only its owner may look: what is
/// rescued belongs to anybody.
fn make_empty(dir: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("{}: {e}", dir.display()));
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Failure::refused(format!(
                "{}: not empty: name an empty or a new directory to rescue into",
                dir.display()
            ))),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir);
            made.map_err(failed)
        }
        Err(e) => Err(failed(e)),
    }
}

fn start_list(dir: &Path, superblock: &Superblock) -> std::io::Result<List> {
    let file = File::create_new(dir.join("forebay-evacuated.json"))?;
    List::begin(file, superblock)
}

/// Where a target's files go.
fn target_dir(dir: &Path, target: &TargetName) -> PathBuf {
    let name = target.name.as_str();
    let is_plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
    // The list is in the same directory.
    let is_plain = is_plain && name.len() <= 255 && name != "forebay-evacuated.json";
    dir.join(match is_plain {
        true => name.to_owned(),
        false => format!("target-{}", target.id),
    })
}

fn shard(
    view: &View,
    dir: &Path,
    list: &mut List,
    rescued: &Rescued,
    report: &Report,
) -> std::io::Result<()> {
    let targets = names::targets(view);
    let names = Names::new(view, &targets);
    let mut lines = owed::all(view);
    owed::tell(view, &targets, &mut lines);
    for target in &targets {
        let items = plan::items(view, target, &names, &lines);
        let own: Vec<_> = lines.iter().filter(|l| l.target == target.id.0).collect();
        if items.is_empty() && own.is_empty() {
            continue;
        }
        let root = target_dir(dir, target);
        fs::create_dir(&root)?;
        let mut tree = Tree::new(view, &names, target, root.clone());
        for item in &items {
            report.progress(|| {
                format!(
                    "{}: {} files",
                    shown(target.name.as_bytes()),
                    rescued.files.get()
                )
            });
            let written = write::item(view, &names, &mut tree, item, report);
            rescued.files.set(rescued.files.get() + 1);
            rescued.bytes.set(rescued.bytes.get() + written.bytes);
            let partial = u64::from(!written.is_whole);
            rescued.partial.set(rescued.partial.get() + partial);
            list.file(&written.json)?;
        }
        for (path, e) in tree.finish() {
            let what = format!("{}: {e}", path.display());
            report.tell(Finding::new(Kind::NotWritten, what));
        }
        rescued.owed.set(rescued.owed.get() + own.len() as u64);
        let mut text = File::create_new(root.join(".forebay-owed.txt"))?;
        writeln!(
            text,
            "# What the origin of {} is owed, in order.",
            shown(target.name.as_bytes())
        )?;
        writeln!(
            text,
            "# Each is told by the paths of its time: after all before it."
        )?;
        for line in own {
            writeln!(text, "{}", line.text)?;
            list.owed(line.json.clone());
        }
    }
    Ok(())
}
