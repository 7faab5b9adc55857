//! The sampler, specified so that another implementation makes the same choices.
//!
//! - Temperature 0: the largest logit; of equal ones the smallest id.
//! - Otherwise: `p_i ∝ exp((l_i − max l) / temperature)` in `f64`; tokens sorted by falling probability, then rising
//!   id; the shortest prefix whose sum reaches `top_p` of the total is kept; the choice is the first kept token at
//!   which the running sum exceeds `u` times the sum of the kept ones.
//! - `u = (SplitMix64(seed, position) >> 11) · 2⁻⁵³`, where position counts the answer's tokens from 0.

/// Parameters of one answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// 0 to 2.
    pub temperature: f32,
    /// Above 0, at most 1.
    pub top_p: f32,
    /// Seed.
    pub seed: u64,
}

impl Sampler {
    /// Picks the token at a position of the answer. `None` for no logits.
    #[must_use]
    pub fn pick(&self, logits: &[f32], position: u64) -> Option<u32> {
        let (best, &max) = logits
            .iter()
            .enumerate()
            // `max_by` would take the last of equal ones.
            .reduce(|best, other| if other.1 > best.1 { other } else { best })?;
        let id = |index: usize| u32::try_from(index).ok();
        if self.temperature <= 0.0 {
            return id(best);
        }
        let temperature = f64::from(self.temperature);
        let mut weights: Vec<(usize, f64)> = logits
            .iter()
            .map(|&logit| ((f64::from(logit) - f64::from(max)) / temperature).exp())
            .enumerate()
            .collect();
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let wanted = total * f64::from(self.top_p);
        let mut kept_sum = 0.0;
        let kept = weights
            .iter()
            .position(|(_, weight)| {
                kept_sum += weight;
                kept_sum >= wanted
            })
            .map_or(weights.len(), |last| last + 1);
        let target = uniform(self.seed, position) * kept_sum;
        let mut sum = 0.0;
        let choice = weights.iter().take(kept).find(|(_, weight)| {
            sum += weight;
            sum > target
        });
        // Rounding can leave the target at the very end.
        choice
            .or_else(|| weights.get(kept.saturating_sub(1)))
            .and_then(|(index, _)| id(*index))
    }
}

/// A number in `[0, 1)` for a position of the answer.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
pub fn uniform(seed: u64, position: u64) -> f64 {
    (split_mix(seed, position) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Output number `index` of SplitMix64 (Steele, Lea, Flood 2014) with a seed.
const fn split_mix(seed: u64, index: u64) -> u64 {
    let z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_gives_the_published_numbers() {
        // First outputs for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(split_mix(1_234_567, index as u64), expected);
        }
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let greedy = Sampler {
            temperature: 0.0,
            top_p: 1.0,
            seed: 9,
        };
        assert_eq!(greedy.pick(&[1.0, 3.0, 3.0, -1.0], 0), Some(1));
        assert_eq!(greedy.pick(&[], 0), None);
    }

    #[test]
    fn frequencies_follow_the_distribution() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        let count = |sampler: Sampler| {
            let mut counts = [0u32; 3];
            (0..20_000).for_each(|position| counts[sampler.pick(&logits, position).unwrap() as usize] += 1);
            counts.map(|count| f64::from(count) / 20_000.0)
        };
        let near = |got: [f64; 3], expected: [f64; 3]| {
            assert!(
                got.iter()
                    .zip(expected)
                    .all(|(got, expected)| (got - expected).abs() < 0.015),
                "{got:?}"
            );
        };
        near(
            count(Sampler {
                temperature: 1.0,
                top_p: 1.0,
                seed: 1,
            }),
            [0.5, 0.3, 0.2],
        );
        // 0.5 + 0.3 reaches 0.75; the third is never taken.
        near(
            count(Sampler {
                temperature: 1.0,
                top_p: 0.75,
                seed: 2,
            }),
            [0.625, 0.375, 0.0],
        );
        near(
            count(Sampler {
                temperature: 1.0,
                top_p: 0.1,
                seed: 3,
            }),
            [1.0, 0.0, 0.0],
        );
        // Temperature 1/2 squares the weights: 25, 9, 4.
        near(
            count(Sampler {
                temperature: 0.5,
                top_p: 1.0,
                seed: 4,
            }),
            [25.0 / 38.0, 9.0 / 38.0, 4.0 / 38.0],
        );
    }

    #[test]
    fn extreme_logits_do_not_overflow() {
        let sampler = Sampler {
            temperature: 0.01,
            top_p: 1.0,
            seed: 0,
        };
        assert_eq!(sampler.pick(&[f32::MIN, 0.0, f32::MAX], 0), Some(2));
    }
}
