//! The mounts of this machine that are ours, from `/proc/self/mountinfo`.
//! Reading it asks no file system anything, so it works beside a dead mount.

use super::sys::attach::FSTYPE;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// `major:minor` of its device number.
    pub device: String,
    pub dir: PathBuf,
    pub fstype: String,
    pub source: String,
}

impl MountInfo {
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.fstype == FSTYPE
    }
}

/// What is mounted on `dir`, topmost; None if nothing is.
pub fn mounted_on(dir: &Path) -> io::Result<Option<MountInfo>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    let dir = place(dir)?;
    let lines = table.split(|&b| b == b'\n').filter_map(parse);
    Ok(lines.rev().find(|m| m.dir == dir))
}

/// The absolute path of `dir` with no symbolic link in it, found without
/// touching what is mounted there: its parent is asked instead.
pub fn place(dir: &Path) -> io::Result<PathBuf> {
    let link = std::fs::read_link(dir).is_ok();
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) if !link => {
            let parent = match parent.as_os_str().is_empty() {
                true => Path::new("."),
                false => parent,
            };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => dir.canonicalize(),
    }
}

/// `36 35 98:0 /root /dir rw,noatime master:1 - fstype source rw`
fn parse(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(&unescaped(bytes)).into_owned();
    Some(MountInfo {
        device: text(fields.get(2)?),
        dir: PathBuf::from(OsString::from_vec(unescaped(fields.get(4)?))),
        fstype: text(fields.get(dash + 1)?),
        source: text(fields.get(dash + 2)?),
    })
}

/// Undoes the kernel's `\040` for blanks, tabs, newlines and backslashes.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) => {
                let number = d.iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0'));
                out.push((number & 0xff) as u8);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

/// Lets the kernel read ahead of sequential readers of mapped files by `kib`.
/// INIT cannot: the device's own bound of 128 KiB comes first (measured).
pub fn set_read_ahead(mount: &MountInfo, kib: u32) -> io::Result<()> {
    let path = format!("/sys/class/bdi/{}/read_ahead_kb", mount.device);
    std::fs::write(path, kib.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            b"36 35 0:98 / /mnt/a\\040b rw,nosuid shared:1 - fuse.forebay h:1,i/t rw,user_id=0";
        let mount = parse(line).expect("a mount");
        assert_eq!(mount.dir, Path::new("/mnt/a b"));
        assert_eq!(
            (mount.device.as_str(), mount.source.as_str()),
            ("0:98", "h:1,i/t")
        );
        assert!(mount.is_ours());
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 0:98 / /mnt - "), None);
    }

    #[test]
    fn only_octal_is_unescaped() {
        assert_eq!(unescaped(b"a\\134b\\x\\04"), b"a\\b\\x\\04");
    }

    #[test]
    fn the_root_is_mounted() {
        let proc = mounted_on(Path::new("/proc/"))
            .expect("readable")
            .expect("mounted");
        assert_eq!(proc.fstype, "proc");
    }
}
