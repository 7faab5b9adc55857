//! Parks a node that fails. Pure: time is an argument, in seconds.

use std::collections::VecDeque;

/// So many failures …
const FAILURES: usize = 3;
/// … within so many seconds …
const WITHIN: f64 = 60.0;
/// … park a node for so many; then one request shows whether it is back.
const PARK: f64 = 15.0;
/// A trial that never reports back gives the next request a chance after so many seconds.
const TRIAL: f64 = 330.0;

/// Failures of one node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Breaker {
    failures: VecDeque<f64>,
    /// Until when it is parked.
    parked: Option<f64>,
    /// When the one trial after it began.
    trial: Option<f64>,
}

impl Breaker {
    /// Whether a request may go to the node. Changes nothing.
    #[must_use]
    pub(crate) fn allows(&self, now: f64) -> bool {
        match (self.parked, self.trial) {
            (None, _) => true,
            (Some(until), None) => now >= until,
            (Some(_), Some(began)) => now >= began + TRIAL,
        }
    }

    /// A request goes to the node: if it is parked, this is the trial.
    pub(crate) fn sent(&mut self, now: f64) {
        if self.parked.is_some() {
            self.trial = Some(now);
        }
    }

    /// An answer that is not the node's fault.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The node's fault.
    pub(crate) fn failed(&mut self, now: f64) {
        if self.parked.is_some() {
            self.parked = Some(now + PARK);
            self.trial = None;
            return;
        }
        self.failures.retain(|at| now - at < WITHIN);
        self.failures.push_back(now);
        if self.failures.len() >= FAILURES {
            self.failures.clear();
            self.parked = Some(now + PARK);
            self.trial = None;
        }
    }

    /// A request ended without saying anything about the node: its caller left, or a faster node answered.
    pub(crate) fn undecided(&mut self) {
        self.trial = None;
    }

    /// Whether the node is parked.
    #[must_use]
    pub(crate) const fn is_parked(&self) -> bool {
        self.parked.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_minute_park_and_one_trial_returns() {
        let mut breaker = Breaker::default();
        for at in [0.0, 1.0] {
            breaker.failed(at);
            assert!(breaker.allows(at));
        }
        breaker.failed(2.0);
        assert!(!breaker.allows(2.0) && !breaker.allows(16.9) && breaker.allows(17.0));
        breaker.sent(17.0);
        assert!(!breaker.allows(17.1), "one trial at a time");
        breaker.failed(18.0);
        assert!(
            !breaker.allows(32.9) && breaker.allows(33.0),
            "a failed trial parks again"
        );
        breaker.sent(33.0);
        breaker.succeeded();
        assert!(breaker.allows(33.0) && !breaker.is_parked());
    }

    #[test]
    fn rare_failures_and_interrupted_trials() {
        let mut breaker = Breaker::default();
        for minute in 0..10 {
            breaker.failed(f64::from(minute) * 31.0);
        }
        assert!(!breaker.is_parked());
        breaker.failed(280.0);
        assert!(breaker.is_parked());
        breaker.sent(300.0);
        assert!(!breaker.allows(301.0));
        breaker.undecided();
        assert!(breaker.allows(301.0));
        breaker.sent(301.0);
        assert!(breaker.allows(301.0 + TRIAL), "a trial that nobody heard of again");
    }

    #[test]
    fn a_success_forgets_failures() {
        let mut breaker = Breaker::default();
        breaker.failed(0.0);
        breaker.failed(1.0);
        breaker.succeeded();
        breaker.failed(2.0);
        assert!(!breaker.is_parked());
    }
}
