//! A small generator whose seed can be printed and given again (`PARTITA_TEST_SEED`).

/// xorshift64*.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded by `PARTITA_TEST_SEED` or by the clock; prints the seed.
    pub fn from_environment(test: &str) -> Self {
        let given = std::env::var("PARTITA_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = given.unwrap_or_else(|| now.map_or(1, |d| d.as_nanos() as u64 & 0xffff_ffff));
        println!("{test}: PARTITA_TEST_SEED={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}
