//! Chance from a seed: cores roll no other dice, so a run with the same seeds and inputs is the same run.

/// SplitMix64. Not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Rolls that follow from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll().checked_rem(end).unwrap_or(0)
    }

    /// The pause before try number `times`: doubles from `first` to `longest`, 50-100 % of it.
    pub fn pause(&mut self, times: u32, (first, longest): (u64, u64)) -> u64 {
        let doubled = first.saturating_mul(1 << times.saturating_sub(1).min(32));
        let half = doubled.min(longest) / 2;
        half + self.below(half)
    }
}
