//! The verbs that end at once: check, status, flush, shutdown; and the two
//! that hand over to `fuse`.

use super::admin::{self, Command};
use super::cli::{Exit, Failure, Find, Mount};
use super::progress;
use crate::conf::Conf;
use crate::fuse;
use crate::fuse::fault::{Fault, FaultKind};
use serde_json::Value;
use std::path::Path;

/// Validates a conf file and says what it amounts to.
pub fn check(path: &Path) -> Result<(), Failure> {
    let conf = Conf::load(path).map_err(|faults| Failure::usage(faults.to_string()))?;
    println!("{}: good", path.display());
    println!("  listen        {}", conf.listen);
    println!(
        "  cache         {} bytes at {}",
        conf.cache_size,
        conf.cache_path.display()
    );
    for target in &conf.targets {
        println!(
            "  target        {} = {}",
            target.name,
            target.origin.display()
        );
        println!(
            "    writeback   {:?}, at most {} dirty bytes",
            target.writeback, target.writeback_bytes
        );
        println!("    prefetch    {:?}", target.prefetch);
    }
    Ok(())
}

pub fn status(find: &Find, json: bool) -> Result<(), Failure> {
    let status = admin::ask(find, &Command::Status)?;
    if json {
        println!("{status}");
    } else {
        print_tree(&status, 0);
    }
    Ok(())
}

pub fn flush(what: &str, wait: bool, find: &Find) -> Result<(), Failure> {
    let (target, path) = target_and_path(what);
    let shown = progress::show(find, &target, &path, wait);
    let command = Command::Flush { target, path, wait };
    let ended = admin::ask(find, &command).map(|_| ());
    shown.end();
    ended
}

/// TARGET, or TARGET/PATH.
pub fn target_and_path(what: &str) -> (String, String) {
    let (target, path) = what.split_once('/').unwrap_or((what, ""));
    (target.to_owned(), path.to_owned())
}

pub fn shutdown(find: &Find) -> Result<(), Failure> {
    admin::ask(find, &Command::Shutdown).map(|_| ())
}

pub fn mount(mount: &Mount) -> Result<(), Failure> {
    let wish = fuse::mount::Wish {
        source: &mount.source,
        dir: &mount.dir,
        foreground: mount.foreground,
        options: &mount.options,
    };
    Ok(fuse::mount::mount(&wish)?)
}

pub fn umount(dir: &Path) -> Result<(), Failure> {
    Ok(fuse::mount::umount(dir)?)
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        let exit = match fault.kind {
            FaultKind::Failed => Exit::Failed,
            FaultKind::Usage => Exit::Usage,
            FaultKind::Refused => Exit::Refused,
        };
        Failure {
            exit,
            message: fault.message,
        }
    }
}

/// Prints a JSON value the way people read: a key and its value a line, what
/// is inside one step to the right.
fn print_tree(value: &Value, depth: usize) {
    let pad = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::Object(_) | Value::Array(_) => {
                        println!("{pad}{key}:");
                        print_tree(inner, depth + 1);
                    }
                    Value::String(text) => println!("{pad}{key}: {text}"),
                    other => println!("{pad}{key}: {other}"),
                }
            }
        }
        Value::Array(list) => {
            for (n, inner) in list.iter().enumerate() {
                if n > 0 {
                    println!("{pad}-");
                }
                print_tree(inner, depth);
            }
        }
        Value::String(text) => println!("{pad}{text}"),
        other => println!("{pad}{other}"),
    }
}
