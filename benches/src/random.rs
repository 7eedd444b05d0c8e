//! Chance that can be repeated: numbers that depend on a seed and a position alone, so that a load is the same in every run and
//! no thread waits for another's generator.

/// A sequence of numbers that its seed decides.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed and a position.
    pub fn new(seed: u64, position: u64) -> Self {
        Self(mix(seed ^ mix(position)))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: no division, and no bias that a load would show.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// The next number from zero up to one.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next number of a normal distribution around 0 with deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.share(), self.share());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}

/// Scatters the bits of a number over all of it (the finalizer of SplitMix64).
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed, position| {
            let mut random = Random::new(seed, position);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(numbers(1, 2), numbers(1, 2));
        assert_ne!(numbers(1, 2), numbers(1, 3));
        assert_ne!(numbers(1, 2), numbers(2, 2));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut counts = [0; 10];
        let (mut sum, mut squares) = (0.0, 0.0);
        for position in 0..10_000 {
            let mut random = Random::new(7, position);
            counts[usize::try_from(random.below(10)).unwrap()] += 1;
            let normal = random.normal();
            sum += normal;
            squares += normal * normal;
        }
        assert!(
            counts.iter().all(|count| (900..1100).contains(count)),
            "{counts:?}"
        );
        assert!((sum / 10_000.0).abs() < 0.05, "{sum}");
        assert!((squares / 10_000.0 - 1.0).abs() < 0.05, "{squares}");
    }
}
