//! What write-back could not carry and nobody has been told: the next fsync of
//! the file tells, once for each failure. The data stays and is retried.

use crate::base::{Errno, Fid};
use std::collections::BTreeMap;

/// Files remembered. Beyond it the newest failures are shown by `status` and
/// the log alone.
const FILES_MAX: usize = 1 << 14;

#[derive(Default)]
pub struct Failures(BTreeMap<Fid, Errno>);

impl Failures {
    /// An attempt failed. An origin that is away has refused nothing: what waits
    /// for it is carried when it is back.
    pub fn note(&mut self, fid: Fid, errno: Errno) {
        let is_news = self.0.contains_key(&fid) || self.0.len() < FILES_MAX;
        if is_news && is_refusal(errno) {
            self.0.insert(fid, errno);
        }
    }

    /// All of it is at the origin by now.
    pub fn clear(&mut self, fid: Fid) {
        self.0.remove(&fid);
    }

    pub fn take(&mut self, fid: Fid) -> Option<Errno> {
        self.0.remove(&fid)
    }
}

/// What an origin says that is there and does not take the data.
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOSPC
            | Errno::EDQUOT
            | Errno::EACCES
            | Errno::EPERM
            | Errno::EROFS
            | Errno::EFBIG
            | Errno::EIO
            | Errno::EEXIST
            | Errno::ESTALE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_and_not_after_success() {
        let (a, b) = (Fid::new(1, 1), Fid::new(1, 2));
        let mut failures = Failures::default();
        failures.note(a, Errno::ENOSPC);
        failures.note(b, Errno::ETIMEDOUT);
        assert_eq!(failures.take(b), None);
        assert_eq!(failures.take(a), Some(Errno::ENOSPC));
        assert_eq!(failures.take(a), None);
        failures.note(a, Errno::EDQUOT);
        failures.clear(a);
        assert_eq!(failures.take(a), None);
    }

    #[test]
    fn failures_are_bounded_and_the_known_ones_stay() {
        let mut failures = Failures::default();
        for oid in 0..2 * u32::try_from(FILES_MAX).expect("small") {
            failures.note(Fid::new(1, oid), Errno::EDQUOT);
        }
        assert_eq!(failures.0.len(), FILES_MAX);
        assert_eq!(failures.take(Fid::new(1, 0)), Some(Errno::EDQUOT));
    }
}
