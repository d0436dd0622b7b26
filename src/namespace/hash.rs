//! Directory cookies: a keyed hash of the name, and a collision ordinal (N11).

use crate::base::Name;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// The hash function of CONNECT's `hash_kind`: SipHash-1-3, as below.
pub const SIPHASH13: u8 = 1;

/// Highest ordinal: 254, so that "the cookie after" any cookie is below 2^63.
pub const ORDINAL_MAX: u64 = 254;

/// The cookie of `name` with ordinal 0: 55 bits of hash above 8 bits of
/// ordinal. At least 256, so that 0 ("from the start"), "." and ".." are free.
#[must_use]
pub fn cookie(key: &[u8; 16], name: &Name) -> u64 {
    let mut hasher = SipHasher13::new_with_key(key);
    hasher.write(name.as_bytes());
    let hash = hasher.finish() >> 9;
    hash.max(1) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_stable_and_in_range() {
        let key = [7; 16];
        let name = |s: &str| Name::new(s.as_bytes()).expect("a name");
        // Pinned: clients compute the same, and the flash holds them.
        assert_eq!(cookie(&key, &name("a")), cookie(&key, &name("a")));
        assert_ne!(cookie(&key, &name("a")), cookie(&[8; 16], &name("a")));
        for i in 0..10_000 {
            let c = cookie(&key, &name(&i.to_string()));
            assert!(c >= 256 && c + ORDINAL_MAX + 1 < 1 << 63 && c & 255 == 0);
        }
    }
}
