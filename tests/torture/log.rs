//! An append log: every record has its number and a checksum, and those that
//! were fsynced must be there, whole and in order, whoever was killed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Bytes of a record.
pub const RECORD: usize = 512;
/// One fsync for so many records.
const SYNC_EVERY: u64 = 3;

fn record(n: u64) -> Vec<u8> {
    let mut out: Vec<u8> = n.to_le_bytes().repeat((RECORD - 4) / 8);
    out.resize(RECORD - 4, 0xA5);
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// What a writer was told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Records that an fsync has covered.
    pub synced: u64,
    /// Records whose write was answered.
    pub written: u64,
}

/// Appends from record `first` on, until told to stop or until it fails.
pub fn append(path: &Path, first: u64, is_over: impl Fn() -> bool) -> (Told, io::Result<()>) {
    let mut told = Told {
        synced: first,
        written: first,
    };
    let done = append_all(path, &mut told, is_over);
    (told, done)
}

fn append_all(path: &Path, told: &mut Told, is_over: impl Fn() -> bool) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    while !is_over() {
        file.write_all(&record(told.written))?;
        told.written += 1;
        if told.written.is_multiple_of(SYNC_EVERY) {
            file.sync_data()?;
            told.synced = told.written;
        }
    }
    file.sync_all()?;
    told.synced = told.written;
    Ok(())
}

/// Every record that is there is right; how many there are.
pub fn check(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (there, rest) = (bytes.len() / RECORD, bytes.len() % RECORD);
    assert_eq!(rest, 0, "{}: record {there} is a part", path.display());
    for (n, got) in (0..).zip(bytes.chunks(RECORD)) {
        assert!(
            got == record(n),
            "{}: record {n} of {there} is wrong",
            path.display()
        );
    }
    there as u64
}
