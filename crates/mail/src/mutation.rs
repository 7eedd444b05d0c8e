//! Deterministic mutations of inputs, for the tests that show a parser to be total. Never part of the product.

/// A small generator of pseudo-random numbers (xorshift64*): the same numbers in every run.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        drawn as usize % bound.max(1)
    }

    /// The seed with one to four places changed: octets replaced, taken out, doubled, or a piece of `spices` put in.
    pub(crate) fn mutate(&mut self, seed: &[u8], spices: &[&[u8]]) -> Vec<u8> {
        let mut out = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len() + 1);
            match self.below(6) {
                0 => out.truncate(at),
                1 if at < out.len() => out[at] = self.below(256) as u8,
                2 if at < out.len() => drop(out.remove(at)),
                3 => {
                    let end = (at + self.below(40)).min(out.len());
                    let piece = out[at..end].to_vec();
                    out.splice(at..at, piece);
                }
                _ => {
                    let spice = spices[self.below(spices.len())];
                    out.splice(at..at, spice.iter().copied());
                }
            }
        }
        out
    }
}

/// Runs `parse` over `rounds` mutations of each seed; that it returns is the test.
pub(crate) fn each(seeds: &[&[u8]], spices: &[&[u8]], rounds: usize, mut parse: impl FnMut(&[u8])) {
    let mut numbers = Numbers::new();
    for seed in seeds {
        for _ in 0..rounds {
            parse(&numbers.mutate(seed, spices));
        }
    }
}
