//! How good a node is for a model, from what this router has measured. Pure: time is an argument, in seconds.
//!
//! `score = exp(Σ wᵢ · ln xᵢ)` with every x in (0, 1]. Shares of success decay with a half-life of ten minutes and rest on
//! a share that decays over seven days: a node that was not used for an hour is judged by its week, and one bad minute
//! is forgotten in ten.

use std::collections::VecDeque;

/// Half-life of recent measurements, seconds.
const SHORT: f64 = 600.0;
/// Half-life of the share that recent ones rest on, seconds.
const LONG: f64 = 7.0 * 86_400.0;
/// Weight of the long share against recent requests.
const FLOOR: f64 = 3.0;
/// What is assumed about a node before anything is known, and how many requests that counts for.
const PRIOR: (f64, f64) = (0.9, 2.0);
/// Smallest x: no single one decides alone.
const LEAST: f64 = 0.01;
/// x of what was never measured.
const UNKNOWN: f64 = 0.5;
/// Samples of a time or a speed that are kept.
const SAMPLES: usize = 64;

/// A decaying share of successes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Decayed {
    good: f64,
    all: f64,
    at: f64,
}

impl Decayed {
    fn at(self, now: f64, half_life: f64) -> Self {
        let keep = (-(now - self.at).max(0.0) / half_life).exp2();
        Self {
            good: self.good * keep,
            all: self.all * keep,
            at: now.max(self.at),
        }
    }

    fn add(&mut self, good: bool, now: f64, half_life: f64) {
        *self = self.at(now, half_life);
        self.good += f64::from(u8::from(good));
        self.all += 1.0;
    }
}

/// The last values of something, for medians and other quantiles.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window(VecDeque<f64>);

impl Window {
    /// Adds a value; the oldest one goes.
    pub(crate) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.0.len() >= SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The value below which a share `q` of the others lies; `None` without values.
    #[must_use]
    pub(crate) fn quantile(&self, q: f64) -> Option<f64> {
        let mut sorted: Vec<f64> = self.0.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let at = (q.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(at).copied()
    }
}

/// Measurements of one node and model.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Measured {
    short: Decayed,
    long: Decayed,
    first_byte: Window,
    speed: Window,
    requests: u64,
}

impl Measured {
    /// A request ended well or by the node's fault. Faults of the caller are not recorded.
    pub(crate) fn outcome(&mut self, good: bool, now: f64) {
        self.short.add(good, now, SHORT);
        self.long.add(good, now, LONG);
        self.requests += 1;
    }

    /// Seconds to the first byte of an answer, and bytes a second after it.
    pub(crate) fn answer(&mut self, first_byte: f64, speed: Option<f64>) {
        self.first_byte.add(first_byte);
        if let Some(speed) = speed {
            self.speed.add(speed);
        }
    }

    /// Whether nothing was ever measured.
    #[must_use]
    pub(crate) const fn is_new(&self) -> bool {
        self.requests == 0
    }

    /// Share of success, in (0, 1).
    #[must_use]
    pub(crate) fn success(&self, now: f64) -> f64 {
        let (short, long) = (self.short.at(now, SHORT), self.long.at(now, LONG));
        let (assumed, weight) = PRIOR;
        let week = (long.good + assumed * weight) / (long.all + weight);
        (short.good + week * FLOOR) / (short.all + FLOOR)
    }
}

/// What is known about a node besides measurements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Terms {
    /// Price of a typical request; `None` if the node names none.
    pub(crate) price: Option<f64>,
    /// Bond.
    pub(crate) bond: f64,
}

/// Every x of a score, in the order of the weights: success, first byte, speed, price, audit, stake.
pub(crate) type Inputs = [f64; 6];

/// Scores of nodes that serve one model, in the order given. Times, speeds, prices and bonds count relative to the best of
/// them.
#[must_use]
pub(crate) fn scores(nodes: &[(&Measured, Terms)], weights: &[f64; 6], now: f64) -> Vec<f64> {
    let best = |values: Vec<Option<f64>>, least: bool| {
        let known = values.into_iter().flatten().filter(|v| *v > 0.0);
        if least {
            known.fold(f64::INFINITY, f64::min)
        } else {
            known.fold(0.0, f64::max)
        }
    };
    let median = |window: &Window| window.quantile(0.5);
    let first = best(nodes.iter().map(|(m, _)| median(&m.first_byte)).collect(), true);
    let speed = best(nodes.iter().map(|(m, _)| median(&m.speed)).collect(), false);
    let price = best(nodes.iter().map(|(_, t)| t.price).collect(), true);
    let bond = best(nodes.iter().map(|(_, t)| Some(t.bond)).collect(), false);
    let input = |(measured, terms): &(&Measured, Terms)| -> Inputs {
        // Nobody else to compare with, or a value of zero: nothing speaks against the node.
        let ratio = |value: Option<f64>, of: fn(f64, f64) -> f64, best: f64| match value {
            None => UNKNOWN,
            Some(value) if value > 0.0 && best > 0.0 && best.is_finite() => of(value, best),
            Some(_) => 1.0,
        };
        [
            measured.success(now),
            ratio(median(&measured.first_byte), |value, best| best / value, first),
            ratio(median(&measured.speed), |value, best| value / best, speed),
            ratio(terms.price, |value, best| (best / value).powi(2), price),
            1.0,
            if bond > 0.0 { terms.bond / bond } else { 1.0 },
        ]
    };
    nodes.iter().map(|node| score(&input(node), weights)).collect()
}

fn score(inputs: &Inputs, weights: &[f64; 6]) -> f64 {
    let sum: f64 = inputs
        .iter()
        .zip(weights)
        .map(|(x, w)| w * x.clamp(LEAST, 1.0).ln())
        .sum();
    sum.exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Quality;
    use proptest::prelude::*;

    const TERMS: Terms = Terms {
        price: Some(1.0),
        bond: 1.0,
    };

    fn of(nodes: &[(&Measured, Terms)], now: f64) -> Vec<f64> {
        scores(nodes, &Quality::default().weights(), now)
    }

    #[test]
    fn failures_weigh_and_fade() {
        let (mut good, mut bad) = (Measured::default(), Measured::default());
        for second in 0..20 {
            good.outcome(true, f64::from(second));
            bad.outcome(second < 10, f64::from(second));
        }
        assert!(good.success(20.0) > 0.97);
        assert!(bad.success(20.0) < 0.6);
        // An hour without requests: the last minutes are forgotten, the week is not.
        let later = bad.success(3_620.0);
        assert!(later > bad.success(20.0) && later < 0.62, "{later}");
        for second in 0..40 {
            bad.outcome(true, 3_700.0 + f64::from(second));
        }
        assert!(bad.success(3_800.0) > 0.9);
        assert_eq!(Measured::default().success(5.0), 0.9);
    }

    #[test]
    fn each_input_moves_the_score_by_its_weight() {
        let measured = |first: f64, speed: f64| {
            let mut m = Measured::default();
            m.outcome(true, 0.0);
            m.answer(first, Some(speed));
            m
        };
        let (fast, late, slow) = (measured(0.1, 100.0), measured(0.2, 100.0), measured(0.1, 50.0));
        let cheap = |price| Terms {
            price: Some(price),
            bond: 1.0,
        };
        let same = of(&[(&fast, TERMS), (&fast, TERMS)], 0.0);
        assert_eq!(same[0], same[1]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let s = of(&[(&fast, TERMS), (&late, TERMS)], 0.0);
        close(s[1] / s[0], 0.5f64.powf(0.20));
        let s = of(&[(&fast, TERMS), (&slow, TERMS)], 0.0);
        close(s[1] / s[0], 0.5f64.powf(0.15));
        let s = of(&[(&fast, cheap(1.0)), (&fast, cheap(2.0))], 0.0);
        close(s[1] / s[0], 0.25f64.powf(0.15));
        let s = of(&[(&fast, TERMS), (&fast, Terms { bond: 0.5, ..TERMS })], 0.0);
        close(s[1] / s[0], 0.5f64.powf(0.05));
        let s = of(&[(&fast, TERMS), (&fast, Terms { price: None, bond: 1.0 })], 0.0);
        close(s[1] / s[0], 0.5f64.powf(0.15));
    }

    #[test]
    fn quantiles_of_the_last_values() {
        let mut window = Window::default();
        assert_eq!(window.quantile(0.5), None);
        for value in 0..200 {
            window.add(f64::from(value));
        }
        window.add(f64::NAN);
        assert_eq!((window.quantile(0.0), window.quantile(1.0)), (Some(136.0), Some(199.0)));
        assert_eq!(window.quantile(0.95), Some(196.0));
    }

    proptest! {
        #[test]
        fn a_score_is_always_in_its_interval(
            values in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>(), any::<f64>(), any::<bool>()), 1..6),
            now in any::<f64>(),
        ) {
            let measured: Vec<(Measured, Terms)> = values.into_iter().map(|(first, speed, price, bond, good)| {
                let mut m = Measured::default();
                m.outcome(good, 1.0);
                m.answer(first, Some(speed));
                (m, Terms { price: Some(price), bond })
            }).collect();
            let now = if now.is_finite() { now } else { 0.0 };
            let nodes: Vec<(&Measured, Terms)> = measured.iter().map(|(m, t)| (m, *t)).collect();
            for score in of(&nodes, now) {
                prop_assert!(score > 0.0 && score <= 1.0, "{score}");
            }
        }
    }
}
