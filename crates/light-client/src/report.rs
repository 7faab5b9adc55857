//! What a verification found, step by step, in words that people and programs read.

use crate::{checkpoint::Checkpoint, error::ProofError};
use opg_primitives::{
    ids::ReceiptId,
    mode::{Grade, Mode},
};
use opg_receipt::{ReceiptError, State};
use serde::Serialize;
use std::fmt;

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// The file is canonical.
    File,
    /// The signed core decodes.
    Core,
    /// Chain and registry are those of the genesis.
    Genesis,
    /// The keys in the file are those that the core names.
    Keyset,
    /// The node's signature.
    Signature,
    /// The quote's signature, and that the core keeps it.
    Quote,
    /// The content opens the commitments.
    Opening,
    /// What the core says about itself, price arithmetic included.
    Price,
    /// What the node recorded about the provider of a closed model; only of such.
    Upstream,
    /// The payer's authorization.
    Payment,
    /// The validator sets of later epochs; only where the genesis has epochs.
    Handovers,
    /// The certificate of the block.
    Finality,
    /// The path from receipt to block.
    Inclusion,
    /// The keyset's registration.
    Registration,
    /// The payment's settlement.
    Settlement,
    /// Evidence of the mode served.
    Evidence,
    /// Age of the newest trusted point.
    Anchor,
}

impl StepName {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Core => "core",
            Self::Genesis => "genesis",
            Self::Keyset => "keyset",
            Self::Signature => "signature",
            Self::Quote => "quote",
            Self::Opening => "opening",
            Self::Price => "price",
            Self::Upstream => "upstream",
            Self::Payment => "payment",
            Self::Handovers => "handovers",
            Self::Finality => "finality",
            Self::Inclusion => "inclusion",
            Self::Registration => "registration",
            Self::Settlement => "settlement",
            Self::Evidence => "evidence",
            Self::Anchor => "anchor",
        }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Ok,
    /// It does not.
    Failed,
    /// It was not checked; the detail says why.
    Skipped,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was checked.
    pub name: StepName,
    /// How it ended.
    pub status: Status,
    /// One line for people.
    pub detail: String,
    /// What was expected, for a failed comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was found, for a failed comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
}

/// What a verifier asks of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Requirement {
    /// Mode that must have been served; none asks for a signature only.
    pub mode: Mode,
    /// Lowest grade of the evidence.
    pub grade: Grade,
}

/// The result (D9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// Everything holds, and evidence proves the work.
    Verified {
        /// How.
        mode: Mode,
        /// At which grade.
        grade: Grade,
    },
    /// Everything holds, but only a signature stands behind the work, and no more was required.
    Unproven,
    /// Nothing is wrong, but the file does not show the receipt in a final block.
    NotFinal,
    /// Everything holds, but less was served than required.
    RequirementNotMet {
        /// What was required.
        required: Requirement,
        /// Mode served.
        served: Mode,
        /// Grade served.
        grade: Grade,
    },
    /// Everything holds as seen from a trusted point that is older than the unbonding period (D12).
    OldAnchor {
        /// Seconds since the trusted point.
        age: u64,
        /// Seconds that are allowed.
        limit: u64,
    },
    /// A step failed.
    Invalid,
}

impl Verdict {
    /// Whether a program should go on: exit code 0 or 1.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Verified { .. } | Self::Unproven)
    }

    /// Exit code of a command line: 0 or 1.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if self.is_success() { 0 } else { 1 }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A proof needs no hardware: its grade says nothing more.
            Self::Verified { mode: Mode::Zk, .. } => write!(f, "VERIFIED (zk)"),
            Self::Verified { mode, grade } => write!(f, "VERIFIED ({mode}, {grade})"),
            Self::Unproven => f.write_str("UNPROVEN (signature only)"),
            Self::NotFinal => f.write_str("NOT FINAL (no finalised block in the file)"),
            Self::RequirementNotMet {
                required,
                served: Mode::None,
                ..
            } => write!(
                f,
                "REQUIREMENT NOT MET: UNPROVEN (signature only), required {} at {}",
                required.mode, required.grade
            ),
            Self::RequirementNotMet {
                required,
                served,
                grade,
            } => write!(
                f,
                "REQUIREMENT NOT MET: {served} at {grade}, required {} at {}",
                required.mode, required.grade
            ),
            Self::OldAnchor { age, limit } => write!(
                f,
                "OLD ANCHOR (weak subjectivity): the trusted point is {age} s old, at most {limit} s are safe"
            ),
            Self::Invalid => f.write_str("INVALID"),
        }
    }
}

/// All steps and the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Identifier of the receipt, once the core was read.
    pub receipt_id: Option<ReceiptId>,
    /// Mode served.
    pub mode: Option<Mode>,
    /// Grade of the evidence.
    pub grade: Option<Grade>,
    /// Furthest state that the file proves; absent if a step failed.
    pub state: Option<State>,
    /// Height of the final block.
    pub height: Option<u64>,
    /// Points that the hand-overs lead through, for the caller's [`CheckpointBook`](crate::CheckpointBook); none if a step
    /// failed. Keep them only if the verdict is a success: an old anchor proves nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checkpoints: Vec<Checkpoint>,
    /// Every step, in order, skipped ones included.
    pub steps: Vec<Step>,
    /// The result.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Report {
    /// The step of a name.
    #[must_use]
    pub fn step(&self, name: StepName) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// The first step that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.status == Status::Failed)
    }
}

/// Why a step did not end well.
#[derive(Debug)]
pub(crate) enum Outcome {
    Failed {
        detail: String,
        expected: Option<String>,
        got: Option<String>,
    },
    Skipped(String),
}

impl Outcome {
    pub(crate) fn skipped(detail: impl Into<String>) -> Self {
        Self::Skipped(detail.into())
    }

    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self::Failed {
            detail: detail.into(),
            expected: None,
            got: None,
        }
    }

    pub(crate) fn differs(what: impl fmt::Display, expected: impl ToString, got: impl ToString) -> Self {
        let (expected, got) = (expected.to_string(), got.to_string());
        let detail = format!("{what}: expected {expected}, got {got}");
        Self::Failed {
            detail,
            expected: Some(expected),
            got: Some(got),
        }
    }
}

impl From<ReceiptError> for Outcome {
    fn from(error: ReceiptError) -> Self {
        let detail = error.to_string();
        match error {
            ReceiptError::Value { expected, got, .. } => Self::Failed {
                detail,
                expected: Some(expected),
                got: Some(got),
            },
            _ => Self::failed(detail),
        }
    }
}

impl From<ProofError> for Outcome {
    fn from(error: ProofError) -> Self {
        let detail = error.to_string();
        match error {
            ProofError::Mismatch { expected, got, .. } => Self::Failed {
                detail,
                expected: Some(expected),
                got: Some(got),
            },
            ProofError::Quorum { expected, got, .. } => Self::Failed {
                detail,
                expected: Some(expected.to_string()),
                got: Some(got.to_string()),
            },
            _ => Self::failed(detail),
        }
    }
}

/// The steps as they are taken.
#[derive(Debug, Default)]
pub(crate) struct Steps(pub(crate) Vec<Step>);

impl Steps {
    /// Records a step; gives its value if it went well.
    pub(crate) fn record<T>(&mut self, name: StepName, result: Result<(T, String), Outcome>) -> Option<T> {
        let (value, status, detail, expected, got) = match result {
            Ok((value, detail)) => (Some(value), Status::Ok, detail, None, None),
            Err(Outcome::Failed { detail, expected, got }) => (None, Status::Failed, detail, expected, got),
            Err(Outcome::Skipped(detail)) => (None, Status::Skipped, detail, None, None),
        };
        self.0.push(Step {
            name,
            status,
            detail,
            expected,
            got,
        });
        value
    }

    pub(crate) fn first_failure(&self) -> Option<StepName> {
        self.0
            .iter()
            .find(|step| step.status == Status::Failed)
            .map(|step| step.name)
    }
}
