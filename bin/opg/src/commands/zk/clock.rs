//! Where the time of proving and verifying and the bytes of a proof go.

use std::time::Instant;

use opg_zkml::Stage;

use super::{millis, stage_name};

/// A step that time or bytes are spent in.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// A node of the graph.
    Layer(usize),
    /// What comes before, between and after the nodes.
    Stage(String),
}

/// When steps began, and how much of the proof had been read by then.
pub(super) struct Clock(Vec<(Step, Instant, usize)>);

/// Time in milliseconds and bytes of a step.
pub(super) type Span = (Step, f64, usize);

/// What was measured, if anything was.
#[derive(Default)]
pub(super) struct Measured {
    /// Steps of the prover.
    pub(super) proving: Vec<Span>,
    /// Steps of the verifier.
    pub(super) verifying: Vec<Span>,
}

impl Clock {
    /// Starts with a step that the protocol does not report.
    pub(super) fn start(first: &str) -> Self {
        Self(vec![(Step::Stage(first.to_owned()), Instant::now(), 0)])
    }

    /// A step begins, when `read` bytes of the proof have been read.
    pub(super) fn mark(&mut self, stage: Stage<'_>, read: usize) {
        let step = match stage {
            Stage::Node(number, _) => Step::Layer(number),
            other => Step::Stage(stage_name(other)),
        };
        self.0.push((step, Instant::now(), read));
    }

    /// Time and bytes of every step but the last, which ends nothing.
    pub(super) fn spans(self) -> Vec<Span> {
        let ends = self
            .0
            .iter()
            .skip(1)
            .map(|(_, at, read)| (*at, *read))
            .collect::<Vec<_>>();
        let starts = self.0.into_iter().zip(ends);
        starts
            .map(|((step, at, read), (end, until))| (step, millis(end - at), until - read))
            .collect()
    }
}

impl Measured {
    /// Milliseconds of proving, milliseconds of verifying, bytes of a step.
    pub(super) fn of(&self, step: &Step) -> (Option<f64>, Option<f64>, Option<usize>) {
        let find = |spans: &[Span]| {
            spans
                .iter()
                .find(|(other, ..)| other == step)
                .map(|(_, ms, bytes)| (*ms, *bytes))
        };
        let (proving, verifying) = (find(&self.proving), find(&self.verifying));
        (
            proving.map(|(ms, _)| ms),
            verifying.map(|(ms, _)| ms),
            verifying.map(|(_, bytes)| bytes),
        )
    }

    /// Steps that are no layers, in the order in which they came.
    pub(super) fn stages(&self) -> Vec<&Step> {
        let mut out: Vec<&Step> = Vec::new();
        for (step, ..) in self.proving.iter().chain(&self.verifying) {
            if matches!(step, Step::Stage(_)) && !out.contains(&step) {
                out.push(step);
            }
        }
        out
    }
}
