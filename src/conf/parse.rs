//! From text to a [`Conf`], collecting every fault on the way.

use super::value::{self, Wanted};
use super::{
    Authority, CACHE_SIZE_MIN, Conf, DEFAULT_ADMIN_SOCKET, DEFAULT_LEASE, DEFAULT_MEMORY,
    DEFAULT_PORT, DEFAULT_SCRUB, Disconnected, Fault, Faults, Prefetch, Shards, TargetConf,
    Writeback,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Parses `text`; `file` is only for the faults.
pub fn parse(file: &str, text: &str) -> Result<Conf, Faults> {
    let mut parser = Parser::new(file);
    for (index, line) in text.lines().enumerate() {
        parser.line(index + 1, line);
    }
    parser.into_conf()
}

struct Parser<'a> {
    file: &'a str,
    faults: Vec<Fault>,
    /// Line of each key seen, to report repeats and conflicts.
    seen: BTreeMap<String, usize>,
    conf: Conf,
    /// Targets in order of first mention; `origin` empty until its key came.
    targets: Vec<TargetConf>,
}

impl<'a> Parser<'a> {
    fn new(file: &'a str) -> Parser<'a> {
        let conf = Conf {
            listen: SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)),
            shards: Shards::Auto,
            memory: DEFAULT_MEMORY,
            admin_socket: PathBuf::from(DEFAULT_ADMIN_SOCKET),
            cache_path: PathBuf::new(),
            cache_size: 0,
            lease: DEFAULT_LEASE,
            scrub: Some(DEFAULT_SCRUB),
            targets: Vec::new(),
        };
        Parser {
            file,
            faults: Vec::new(),
            seen: BTreeMap::new(),
            conf,
            targets: Vec::new(),
        }
    }

    fn fault(&mut self, line: usize, key: &str, what: &str, remedy: &str) {
        self.faults.push(Fault {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    fn line(&mut self, number: usize, line: &str) {
        let text = line.split('#').next().unwrap_or("").trim();
        if text.is_empty() {
            return;
        }
        let Some((key, value)) = text.split_once('=') else {
            return self.fault(number, text, "no value", "write `key = value`, one a line");
        };
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() {
            return self.fault(
                number,
                key,
                "empty value",
                "give a value, or remove the line",
            );
        }
        if let Some(first) = self.seen.insert(key.to_owned(), number) {
            let what = format!("given twice, first in line {first}");
            return self.fault(number, key, &what, "keep one of the two lines");
        }
        match self.assign(key, value) {
            Ok(()) => {}
            Err(Refused::Value(wanted)) => {
                self.fault(number, key, &format!("bad value `{value}`"), &wanted);
            }
            Err(Refused::Key(remedy)) => self.fault(number, key, "unknown key", &remedy),
        }
    }

    fn assign(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        match key {
            "listen" => {
                self.conf.listen = value.parse().map_err(|_| {
                    "write ADDRESS:PORT, such as 0.0.0.0:9880 or [::]:9880".to_owned()
                })?;
            }
            "shards" => {
                self.conf.shards = match value {
                    "auto" => Shards::Auto,
                    list => Shards::Cpus(value::cpus(list)?),
                }
            }
            "memory" => {
                self.conf.memory = match value {
                    "auto" => DEFAULT_MEMORY,
                    size => at_least(size, 16 << 20, "memory")?,
                }
            }
            "admin.socket" => self.conf.admin_socket = PathBuf::from(value),
            "cache.path" => self.conf.cache_path = PathBuf::from(value),
            "cache.size" => self.conf.cache_size = at_least(value, CACHE_SIZE_MIN, "cache")?,
            "cache.scrub" => {
                self.conf.scrub = match value {
                    "off" => None,
                    time => Some(
                        bounded_time(time, 1, 366 * 86_400).map_err(|w| format!("{w}, or off"))?,
                    ),
                }
            }
            "lease" => self.conf.lease = bounded_time(value, 1, 600)?,
            _ => return self.assign_section(key, value),
        }
        Ok(())
    }

    fn assign_section(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        let mut parts = key.splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("target"), Some(name), Some(field)) => {
                if !is_target_name(name) {
                    let wanted = "name targets with letters, digits, - and _, at most 64";
                    return Err(Refused::Key(wanted.to_owned()));
                }
                let at = self
                    .targets
                    .iter()
                    .position(|t| t.name == name)
                    .unwrap_or_else(|| {
                        self.targets.push(TargetConf::new(name, PathBuf::new()));
                        self.targets.len() - 1
                    });
                assign_target(&mut self.targets[at], field, value)
            }
            (Some("fileset" | "credmap"), Some(_), Some(_)) => Err(Refused::Key(
                "this release has no filesets and no credential maps yet: remove the line".into(),
            )),
            _ => Err(Refused::Key(format!(
                "did you mean `{}`?",
                nearest(key, &TOP_KEYS)
            ))),
        }
    }

    fn into_conf(mut self) -> Result<Conf, Faults> {
        for key in ["cache.path", "cache.size"] {
            if !self.seen.contains_key(key) {
                self.fault(0, key, "missing", "add it: the box needs flash to cache on");
            }
        }
        if self.targets.is_empty() {
            self.fault(
                0,
                "target",
                "no target",
                "add `target.NAME.origin = posix:/some/dir`",
            );
        }
        let targets = std::mem::take(&mut self.targets);
        for target in &targets {
            let key = format!("target.{}.origin", target.name);
            if target.origin.as_os_str().is_empty() && !self.seen.contains_key(&key) {
                self.fault(0, &key, "missing", "add `= posix:/the/origin/directory`");
            }
        }
        self.check_conflicts(&targets);
        self.conf.targets = targets;
        if self.faults.is_empty() {
            Ok(self.conf)
        } else {
            Err(Faults(self.faults))
        }
    }

    fn check_conflicts(&mut self, targets: &[TargetConf]) {
        let given = |t: &&TargetConf| !t.origin.as_os_str().is_empty();
        let targets: Vec<&TargetConf> = targets.iter().filter(given).collect();
        for (i, target) in targets.iter().enumerate() {
            let key = format!("target.{}.origin", target.name);
            let line = self.seen.get(&key).copied().unwrap_or(0);
            for other in &targets[..i] {
                let (a, b) = (&target.origin, &other.origin);
                if a.starts_with(b) || b.starts_with(a) {
                    let what = format!("overlaps the origin of target {}", other.name);
                    let remedy =
                        "two targets on one tree would not see each other: give each its own";
                    self.fault(line, &key, &what, remedy);
                }
            }
            if self.conf.cache_path.starts_with(&target.origin) {
                let remedy = "keep the cache outside of every origin";
                self.fault(line, &key, "holds cache.path", remedy);
            }
        }
    }
}

enum Refused {
    Value(Wanted),
    /// The key itself, with what to do instead.
    Key(String),
}

impl From<Wanted> for Refused {
    fn from(wanted: Wanted) -> Refused {
        Refused::Value(wanted)
    }
}

fn assign_target(target: &mut TargetConf, field: &str, value: &str) -> Result<(), Refused> {
    match field {
        "origin" => target.origin = origin(value)?,
        "authority" => {
            // Shared authority needs revalidation, which comes with conflict detection.
            target.authority =
                value::word(value, &[("exclusive", Authority::Exclusive)]).map_err(|w| {
                    format!("{w}: this release cannot share an origin with other writers")
                })?;
        }
        "writeback" => {
            target.writeback = match value {
                "through" => Writeback::Through,
                "off" => Writeback::Off,
                lag => Writeback::Lag(
                    value::time(lag).map_err(|w| format!("{w}, or through, or off"))?,
                ),
            }
        }
        "writeback.bytes" => target.writeback_bytes = at_least(value, 1 << 20, "dirty bytes")?,
        "disconnected" => {
            let words = [
                ("read-write", Disconnected::ReadWrite),
                ("read-only", Disconnected::ReadOnly),
                ("fail", Disconnected::Fail),
            ];
            target.disconnected = value::word(value, &words)?;
        }
        "disconnected.max" => target.disconnected_max = value::time(value)?,
        "origin.threads" => target.origin_threads = value::count(value, 1, 256)?,
        "prefetch" => {
            let words = [
                ("sequential", Prefetch::Sequential),
                ("whole-file", Prefetch::WholeFile),
                ("none", Prefetch::None),
            ];
            target.prefetch = value::word(value, &words)?;
        }
        _ => {
            let near = nearest(field, &TARGET_KEYS);
            return Err(Refused::Key(format!(
                "did you mean `target.{}.{near}`?",
                target.name
            )));
        }
    }
    Ok(())
}

fn origin(value: &str) -> Result<PathBuf, Wanted> {
    match value.split_once(':') {
        Some(("posix", path)) if path.starts_with('/') => Ok(PathBuf::from(path)),
        Some(("posix", _)) => Err("write an absolute path: posix:/srv/home".to_owned()),
        Some(("forebay", _)) => {
            Err("this release cannot chain boxes: use a posix origin".to_owned())
        }
        _ => Err("write posix:/the/directory".to_owned()),
    }
}

fn at_least(value: &str, min: u64, what: &str) -> Result<u64, Wanted> {
    let size = value::size(value)?;
    if size < min {
        return Err(format!("{what} of at least {}M is needed", min >> 20));
    }
    Ok(size)
}

fn bounded_time(value: &str, min_s: u64, max_s: u64) -> Result<Duration, Wanted> {
    let time = value::time(value)?;
    let ok = (Duration::from_secs(min_s)..=Duration::from_secs(max_s)).contains(&time);
    if ok {
        Ok(time)
    } else {
        Err(format!("write a time from {min_s}s to {max_s}s"))
    }
}

fn is_target_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.len() <= 64 && name.chars().all(plain)
}

/// The known key that shares the most leading letters with `key`, for a hint.
fn nearest<'k>(key: &str, known: &[&'k str]) -> &'k str {
    let common = |k: &str| {
        k.bytes()
            .zip(key.bytes())
            .take_while(|(a, b)| a == b)
            .count()
    };
    known
        .iter()
        .copied()
        .max_by_key(|k| common(k))
        .unwrap_or("listen")
}

const TOP_KEYS: [&str; 9] = [
    "listen",
    "shards",
    "memory",
    "admin.socket",
    "cache.path",
    "cache.size",
    "cache.scrub",
    "lease",
    "target.NAME.origin",
];
const TARGET_KEYS: [&str; 8] = [
    "origin",
    "authority",
    "writeback",
    "writeback.bytes",
    "disconnected",
    "disconnected.max",
    "origin.threads",
    "prefetch",
];
