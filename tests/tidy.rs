//! The house rules that a compiler does not hold: layers, where `unsafe` and
//! each crate may stand, file sizes, banned words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each module of `src/` with its layer. A module imports only lower layers;
/// within L3 the order of this table counts, elsewhere siblings are strangers.
const LAYERS: [(&str, u32); 16] = [
    ("base", 0),
    ("conf", 10),
    ("wire", 10),
    ("cache", 20),
    ("dlm", 20),
    ("namespace", 20),
    ("store", 20),
    ("origin", 30),
    ("world", 31),
    ("flash", 32),
    ("shard", 33),
    ("client", 33),
    ("reactor", 40),
    ("sim", 40),
    ("control", 51),
    ("fuse", 50),
];

/// What `origin` implements on top of its own types stands a step higher.
const RAISED: [(&str, u32); 1] = [("origin/posix", 40)];

/// Where `unsafe` may stand.
const UNSAFE: [&str; 3] = ["src/reactor/", "src/fuse/sys", "src/origin/posix/sys.rs"];

/// Longest file without its tests, in lines.
const FILE_MAX: usize = 1000;

const BANNED: [&str; 6] = [
    "todo!(",
    "unimplemented!(",
    "dbg!(",
    "FIXME",
    "XXX",
    "#[ignore",
];

#[test]
fn modules_import_only_lower_layers() {
    let layers: BTreeMap<&str, u32> = LAYERS.into();
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let Some(module) = module_of(&path) else {
            continue;
        };
        if path.ends_with("tests.rs") || path.contains("/tests/") {
            continue;
        }
        let own = RAISED
            .iter()
            .find(|(at, _)| path.starts_with(&format!("src/{at}")))
            .map_or_else(|| layers.get(module).copied(), |(_, layer)| Some(*layer));
        let own = own.unwrap_or_else(|| panic!("{path}: module {module} has no layer"));
        for (n, line) in code_lines(&text) {
            for other in imports(line) {
                let Some(&layer) = layers.get(other.as_str()) else {
                    continue;
                };
                if other != module && layer >= own {
                    wrong.push(format!(
                        "{path}:{n}: {module} (L{}) imports {other}",
                        own / 10
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_its_places() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("tools")) {
        if UNSAFE.iter().any(|at| path.starts_with(at)) {
            continue;
        }
        for (n, line) in code_lines(&text) {
            if line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|w| w == "unsafe")
            {
                wrong.push(format!("{path}:{n}: {}", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_keep_their_budget() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src")
        .into_iter()
        .chain(sources("tools"))
        .chain(sources("xtask"))
    {
        if path.ends_with("tests.rs") || path.contains("/tests/") {
            continue;
        }
        let lines = text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or("")
            .lines()
            .count();
        if lines > FILE_MAX {
            wrong.push(format!("{path}: {lines} lines, {FILE_MAX} at most"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources("src") {
        if path.ends_with("tests.rs") {
            continue;
        }
        assert!(
            text.starts_with("//!"),
            "{path} does not begin with its description"
        );
    }
}

#[test]
fn no_banned_words() {
    let mut wrong = Vec::new();
    let all = ["src", "tools", "tests", "benches", "xtask"];
    for (path, text) in all.into_iter().flat_map(sources) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (n, line) in text.lines().enumerate() {
            for word in BANNED {
                if line.contains(word) {
                    wrong.push(format!("{path}:{}: {word}", n + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All Rust files under `dir` of the repository, as (path from the root, text).
fn sources(dir: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut out = Vec::new();
    let mut open: Vec<PathBuf> = vec![root.join(dir)];
    while let Some(dir) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).expect("under the root");
                let text = std::fs::read_to_string(&path).expect("readable source");
                out.push((name.display().to_string(), text));
            }
        }
    }
    out.sort();
    out
}

/// The top module of a file under `src/`; None for the crate's own files.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    inside.split_once('/').map(|(module, _)| module)
}

/// Lines that are not comments, with their numbers, up to the file's tests:
/// tests may reach up, for instance into the simulator.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    lines
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Modules that a line names by `crate::`.
fn imports(line: &str) -> Vec<String> {
    let after = line.split("crate::").skip(1);
    let word = |rest: &str| {
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    after.map(word).collect()
}
