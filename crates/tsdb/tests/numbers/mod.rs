//! Numbers for tests that do random things, and how many such things they do.

// Each test binary uses its part.
#![allow(dead_code)]

/// Numbers that look random and are the same for one seed (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn upto(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % max.saturating_add(1)
    }
}

/// A number that the caller of the test may give in the environment.
pub fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
