//! A Bloom filter over the keys of one table: ten bits a key, six probes,
//! about one false answer in a hundred.

const BITS_PER_KEY: usize = 10;
const PROBES: u64 = 6;

/// Stable over releases: it is part of the format (FNV-1a, then a finalizer,
/// because FNV's low bits alone are weak).
#[must_use]
pub fn hash(key: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in key {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 33)
}

/// The filter's bytes for keys with these hashes.
#[must_use]
pub fn build(hashes: &[u64]) -> Vec<u8> {
    let mut bits = vec![0u8; (hashes.len() * BITS_PER_KEY).div_ceil(8).max(8)];
    let len = bits.len() as u64 * 8;
    for &h in hashes {
        for bit in probes(h, len) {
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    bits
}

/// False: the key is not in the table. An empty filter excludes nothing.
#[must_use]
pub fn may_hold(bits: &[u8], hash: u64) -> bool {
    let len = bits.len() as u64 * 8;
    len == 0 || probes(hash, len).all(|bit| bits[bit / 8] & (1 << (bit % 8)) != 0)
}

fn probes(hash: u64, len: u64) -> impl Iterator<Item = usize> {
    let step = hash.rotate_left(32) | 1;
    (0..PROBES).map(move |i| (hash.wrapping_add(i.wrapping_mul(step)) % len) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_denies_a_key_and_seldom_admits_another() {
        let key = |i: u32| hash(&i.to_be_bytes());
        let bits = build(&(0..10_000).map(key).collect::<Vec<_>>());
        assert!((0..10_000).all(|i| may_hold(&bits, key(i))));
        let wrong = (10_000..20_000)
            .filter(|&i| may_hold(&bits, key(i)))
            .count();
        assert!(wrong < 300, "{wrong} of 10000");
    }
}
