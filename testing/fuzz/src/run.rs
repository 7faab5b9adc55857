//! One run of a target.

use crate::{
    Target,
    mutate::{Random, mutate},
};
use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Most inputs that are kept for their outcome.
const MAX_KEPT: usize = 4_096;
/// A parser that works on one input for this long is broken, also without optimisation and on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(5);

/// What a run found: nothing, in so many inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Inputs that were tried.
    pub inputs: u64,
    /// Different outcomes that were seen.
    pub outcomes: usize,
}

/// An input that broke a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The target.
    pub target: &'static str,
    /// The input.
    pub input: Vec<u8>,
    /// What happened.
    pub what: String,
}

/// A search from a seed.
#[derive(Debug)]
pub struct Run {
    random: Random,
}

impl Run {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
        }
    }

    /// Tries inputs for some time.
    ///
    /// # Errors
    /// The first input that broke a rule.
    pub fn for_time(&mut self, target: &Target, time: Duration) -> Result<Done, Failure> {
        let end = Instant::now() + time;
        self.search(target, |_| Instant::now() < end)
    }

    /// Tries a number of inputs.
    ///
    /// # Errors
    /// The first input that broke a rule.
    pub fn for_inputs(&mut self, target: &Target, inputs: u64) -> Result<Done, Failure> {
        self.search(target, |done| done < inputs)
    }

    fn search(&mut self, target: &Target, go_on: impl Fn(u64) -> bool) -> Result<Done, Failure> {
        let mut seen = HashSet::new();
        let mut kept = target.seeds.clone();
        for seed in &target.seeds {
            seen.insert(attempt(target, seed)?);
        }
        let mut inputs = 0;
        while go_on(inputs) {
            let at = self.random.below(kept.len());
            let other = self.random.below(kept.len());
            let none = Vec::new();
            let (from, other) = (kept.get(at).unwrap_or(&none), kept.get(other).unwrap_or(&none));
            let input = mutate(&mut self.random, from, other, target.limit);
            let outcome = attempt(target, &input)?;
            inputs += 1;
            if kept.len() < MAX_KEPT && seen.insert(outcome) {
                kept.push(input);
            }
        }
        Ok(Done {
            inputs,
            outcomes: seen.len(),
        })
    }
}

/// Runs the check on one input; its outcome with numbers taken out, since positions and lengths are no news.
fn attempt(target: &Target, input: &[u8]) -> Result<String, Failure> {
    let failure = |what: String| Failure {
        target: target.name,
        input: input.to_vec(),
        what,
    };
    let start = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.check)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        failure(text.unwrap_or("a panic without a text").to_owned())
    })?;
    let took = start.elapsed();
    if took > TOO_LONG {
        return Err(failure(format!("took {took:?}")));
    }
    let words = outcome.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ');
    Ok(words.take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(check: fn(&[u8]) -> String) -> Target {
        Target {
            name: "test",
            limit: 64,
            seeds: vec![b"seed".to_vec()],
            check: Box::new(check),
        }
    }

    #[test]
    fn panics_broken_rules_and_their_inputs_are_reported() {
        let bad = target(|input| {
            assert!(!(input.len() > 4 && input.contains(&b'x')), "an x");
            String::new()
        });
        let failure = Run::new(1).for_inputs(&bad, 200_000).unwrap_err();
        assert!(
            failure.input.contains(&b'x') && failure.what.contains("an x"),
            "{failure:?}"
        );
        // The same seed, the same input.
        assert_eq!(Run::new(1).for_inputs(&bad, 200_000).unwrap_err(), failure);
    }

    /// What was reached once is where the search goes on: four right bytes in a row are not found by chance.
    #[test]
    fn new_outcomes_become_seeds() {
        let steps = target(|input| {
            let right = input.iter().zip(b"good").take_while(|(a, b)| a == b).count();
            assert!(right < 4, "all four");
            ["none", "one", "two", "three"][right].to_owned()
        });
        assert!(Run::new(2).for_inputs(&steps, 400_000).is_err());
    }

    #[test]
    fn a_clean_target_is_done() {
        let clean = target(|input| if input.len() > 2 { "long".into() } else { "short".into() });
        let done = Run::new(3).for_time(&clean, Duration::from_millis(20)).unwrap();
        assert!(done.inputs > 100 && done.outcomes == 2, "{done:?}");
    }
}
