//! Random numbers that nobody outside can guess: keys of name hashes and
//! identities are made of them. Fetched from the kernel by the hundred.

/// A stock of random bytes.
pub(super) struct Random {
    stock: [u8; STOCK_LEN],
    used: usize,
}

impl Random {
    pub fn new() -> Random {
        Random {
            stock: [0; STOCK_LEN],
            used: STOCK_LEN,
        }
    }

    /// # Panics
    /// If the kernel has no random numbers to give, which after boot it has.
    pub fn next(&mut self) -> u64 {
        if self.used == STOCK_LEN {
            getrandom::fill(&mut self.stock).expect("the kernel gives random bytes after boot");
            self.used = 0;
        }
        let at = self.used;
        self.used += 8;
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.stock[at..at + 8]);
        u64::from_ne_bytes(bytes)
    }
}

const STOCK_LEN: usize = 512;
