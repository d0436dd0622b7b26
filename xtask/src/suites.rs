//! What the tests need besides this repository: Debian packages, and test
//! suites from crates.io at pinned versions under `target/suites`.

use crate::shell;
use std::path::PathBuf;

/// A program and the Debian package that has it.
const PACKAGES: [(&str, &str); 5] = [
    ("fio", "fio"),
    ("fusermount3", "fuse3"),
    ("dbench", "dbench"),
    ("setfacl", "acl"),
    ("setfattr", "attr"),
];

/// A crate with a binary of the same name, and its version.
const SUITES: [(&str, &str); 2] = [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// Installs what is missing. Without root, says what to install and goes on:
/// the tests that need it say that they are skipped.
pub fn install() -> Result<PathBuf, String> {
    let missing = |(program, _): &&(&str, &str)| !shell::has(program);
    let packages: Vec<&str> = PACKAGES.iter().filter(missing).map(|(_, p)| *p).collect();
    if !packages.is_empty() {
        install_packages(&packages)?;
    }
    let home = shell::target().join("suites");
    for (name, version) in SUITES {
        let stamp = home.join(format!("{name}-{version}"));
        if stamp.exists() && home.join("bin").join(name).exists() {
            continue;
        }
        let (spec, root) = (format!("{name}@{version}"), home.display().to_string());
        shell::run(
            "cargo",
            &["install", "--locked", "--quiet", "--root", &root, &spec],
        )?;
        std::fs::write(&stamp, "").map_err(|e| format!("{}: {e}", stamp.display()))?;
    }
    Ok(home.join("bin"))
}

fn install_packages(packages: &[&str]) -> Result<(), String> {
    let wanted = packages.join(" ");
    if !shell::is_root() || !shell::has("apt-get") {
        eprintln!("missing: {wanted}; install them to run the tests that need them");
        return Ok(());
    }
    shell::run("apt-get", &["update", "-qq"])?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(packages);
    shell::run(
        "env",
        &[&["DEBIAN_FRONTEND=noninteractive", "apt-get"], &args[..]].concat(),
    )
}
