//! Random operations of all kinds on the same few files from two and four
//! mounts at once, each result compared with what must be there.
//! `FOREBAY_TORTURE_SECS` says for how long; 600 is a good run by hand.

use super::{kind, on_mounts};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What must be at one name.
#[derive(Clone, Debug, Default)]
struct Slot(Option<Contents>);

#[derive(Clone, Debug)]
struct Contents {
    bytes: Vec<u8>,
    mode: u32,
}

const SLOTS: usize = 6;
const BYTES_MAX: usize = 20_000;

fn how_long() -> Duration {
    let secs = std::env::var("FOREBAY_TORTURE_SECS").ok();
    Duration::from_secs(secs.map_or(60, |s| s.parse().expect("seconds")))
}

#[test]
fn two_mounts_tear_at_the_same_files() {
    on_mounts("", 2, |_, mounts| torture(mounts, 2));
}

#[test]
fn four_mounts_tear_at_the_same_files() {
    on_mounts("", 4, |_, mounts| torture(mounts, 1));
}

/// A file's operations are one after another, so that each has one right
/// result; those on its neighbours in the directory go on beside it.
fn torture(mounts: &[PathBuf], threads: usize) {
    fs::create_dir(mounts[0].join("t")).unwrap();
    let slots: Vec<Mutex<Slot>> = (0..SLOTS).map(|_| Mutex::default()).collect();
    let until = Instant::now() + how_long();
    std::thread::scope(|scope| {
        for me in 0..mounts.len() * threads {
            let (slots, seed) = (&slots, me as u64 + 1);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed);
                while Instant::now() < until {
                    let n = rng.usize(0..SLOTS);
                    let Ok(mut slot) = slots[n].lock() else {
                        return; // Another thread has found something wrong.
                    };
                    let mount = &mounts[me % mounts.len()];
                    change(&mut rng, &path(mount, n), &mut slot);
                    let other = &mounts[rng.usize(0..mounts.len())];
                    check(&path(other, n), &slot);
                    check(&path(mount, n), &slot);
                }
            });
        }
    });
}

fn path(mount: &Path, n: usize) -> PathBuf {
    mount.join(format!("t/f{n}"))
}

fn change(rng: &mut fastrand::Rng, path: &Path, slot: &mut Slot) {
    let Some(there) = &mut slot.0 else {
        if rng.bool() {
            let bytes = bytes(rng);
            fs::write(path, &bytes).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
            let mode = 0o640;
            slot.0 = Some(Contents { bytes, mode });
        }
        return;
    };
    let open = || OpenOptions::new().write(true).open(path).unwrap();
    match rng.u8(0..9) {
        0 => {
            fs::remove_file(path).unwrap();
            slot.0 = None;
        }
        1 => {
            let len = rng.usize(0..BYTES_MAX);
            open().set_len(len as u64).unwrap();
            there.bytes.resize(len, 0);
        }
        2 => {
            let mode = rng.u32(0o600..0o700);
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            there.mode = mode;
        }
        3 => {
            let more = bytes(rng);
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            std::io::Write::write_all(&mut file, &more).unwrap();
            there.bytes.extend(more);
        }
        4 => {
            let (spare, new) = (path.with_extension("new"), bytes(rng));
            fs::write(&spare, &new).unwrap();
            fs::set_permissions(&spare, fs::Permissions::from_mode(0o600)).unwrap();
            fs::rename(&spare, path).unwrap();
            (there.bytes, there.mode) = (new, 0o600);
        }
        5 => {
            let link = path.with_extension("link");
            fs::hard_link(path, &link).unwrap();
            assert_eq!(fs::metadata(path).unwrap().nlink(), 2);
            fs::remove_file(&link).unwrap();
        }
        _ => {
            let (at, new) = (rng.usize(0..BYTES_MAX), bytes(rng));
            open().write_all_at(&new, at as u64).unwrap();
            let end = (at + new.len()).max(there.bytes.len());
            there.bytes.resize(end, 0);
            there.bytes[at..at + new.len()].copy_from_slice(&new);
        }
    }
}

fn bytes(rng: &mut fastrand::Rng) -> Vec<u8> {
    let (len, byte) = (rng.usize(1..6000), rng.u8(1..));
    vec![byte; len]
}

fn check(path: &Path, slot: &Slot) {
    let Some(there) = &slot.0 else {
        assert_eq!(kind(path), Some(std::io::ErrorKind::NotFound), "{path:?}");
        return;
    };
    let seen = fs::metadata(path).unwrap();
    let seen = (seen.len(), seen.mode() & 0o7777, seen.nlink());
    assert_eq!(seen, (there.bytes.len() as u64, there.mode, 1), "{path:?}");
    let bytes = fs::read(path).unwrap();
    if bytes != there.bytes {
        let at = bytes.iter().zip(&there.bytes).position(|(a, b)| a != b);
        panic!("{path:?}: other bytes from {at:?} on, {} long", bytes.len());
    }
}
