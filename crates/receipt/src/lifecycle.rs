//! The one state machine of a request (D8). Every API and page takes its words from here.
//!
//! ```text
//! quoted → authorised → executed → checked | verified → final → settled → released
//! quoted, authorised → expired
//! executed, final, settled → disputed → refunded | slashed
//! final, settled → disputed → dismissed → settled | released
//! ```
//! `checked` is the end of verification for mode none, `verified` for the others: a receipt of mode none can never be
//! called verified, because no transition leads there.

use opg_primitives::mode::{Grade, Mode};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// A signed quote exists.
    Quoted,
    /// The payment is reserved.
    Authorised,
    /// The answer and the signed core exist.
    Executed,
    /// The signature was checked; the end of verification for mode none.
    Checked,
    /// The evidence was verified.
    Verified,
    /// In a finalised block.
    Final,
    /// The money is in the vault.
    Settled,
    /// The credits may be withdrawn.
    Released,
    /// The quote or reservation lapsed unused.
    Expired,
    /// Contested inside the escrow window.
    Disputed,
    /// The payer got the money back.
    Refunded,
    /// The node was punished and the payer got the money back.
    Slashed,
    /// The dispute failed.
    Dismissed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 13] = [
        Self::Quoted,
        Self::Authorised,
        Self::Executed,
        Self::Checked,
        Self::Verified,
        Self::Final,
        Self::Settled,
        Self::Released,
        Self::Expired,
        Self::Disputed,
        Self::Refunded,
        Self::Slashed,
        Self::Dismissed,
    ];

    /// The word that people and programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quoted => "quoted",
            Self::Authorised => "authorised",
            Self::Executed => "executed",
            Self::Checked => "checked",
            Self::Verified => "verified",
            Self::Final => "final",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Disputed => "disputed",
            Self::Refunded => "refunded",
            Self::Slashed => "slashed",
            Self::Dismissed => "dismissed",
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Released | Self::Expired | Self::Refunded | Self::Slashed)
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The payment was verified and reserved.
    Authorise,
    /// The answer was given and the core signed.
    Execute,
    /// A full node checked the signature of a receipt of mode none.
    Check,
    /// A full node verified the evidence.
    Verify {
        /// How.
        mode: Mode,
        /// At which grade.
        grade: Grade,
    },
    /// The block with the receipt was finalised.
    Finalise,
    /// The payment reached the vault.
    Settle,
    /// The escrow window passed.
    Release,
    /// Quote or reservation lapsed.
    Expire,
    /// Somebody contests it, or no proof came in time.
    Dispute,
    /// The dispute ended in favour of the payer.
    Refund,
    /// The dispute proved the node wrong.
    Slash,
    /// The dispute failed.
    Dismiss,
}

/// A request's state together with how it was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Lifecycle {
    state: State,
    mode: Mode,
    grade: Grade,
    /// Where the dispute began, in the four states that follow one.
    #[serde(skip_serializing_if = "Option::is_none")]
    disputed_from: Option<State>,
}

/// A transition that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request of mode {mode} that is {from} cannot take {event:?}")]
pub struct TransitionError {
    /// State before.
    pub from: State,
    /// Mode asked for.
    pub mode: Mode,
    /// What was tried.
    pub event: Event,
}

/// State, mode and grade that do not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request of mode {mode} cannot be {state} at grade {grade}")]
pub struct InvalidLifecycle {
    /// The state.
    pub state: State,
    /// The mode.
    pub mode: Mode,
    /// The grade.
    pub grade: Grade,
}

impl Lifecycle {
    /// A fresh quote for a mode.
    #[must_use]
    pub const fn quoted(mode: Mode) -> Self {
        Self {
            state: State::Quoted,
            mode,
            grade: Grade::None,
            disputed_from: None,
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The mode.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The grade of the verified evidence, none before.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        self.grade
    }

    /// The state after an event.
    ///
    /// # Errors
    /// [`TransitionError`] if the event is not possible in this state.
    pub fn apply(mut self, event: Event) -> Result<Self, TransitionError> {
        use State::{
            Authorised, Checked, Dismissed, Disputed, Executed, Expired, Final, Quoted, Refunded, Released, Settled,
            Slashed, Verified,
        };
        let next = match (self.state, event) {
            (Quoted, Event::Authorise) => Authorised,
            (Quoted | Authorised, Event::Expire) => Expired,
            (Authorised, Event::Execute) => Executed,
            (Executed, Event::Check) if self.mode == Mode::None => Checked,
            (Executed, Event::Verify { mode, grade })
                if mode == self.mode && mode != Mode::None && grade != Grade::None =>
            {
                self.grade = grade;
                Verified
            }
            (Checked | Verified, Event::Finalise) => Final,
            (Final, Event::Settle) => Settled,
            (Settled, Event::Release) => Released,
            (Executed | Final | Settled, Event::Dispute) => Disputed,
            (Disputed, Event::Refund) => Refunded,
            (Disputed, Event::Slash) => Slashed,
            // A receipt without a verdict in time cannot win its dispute (D10).
            (Disputed, Event::Dismiss) if self.disputed_from != Some(Executed) => Dismissed,
            // A dispute that came before the money leaves the payment to be settled; one that came after leaves the
            // escrow to run out.
            (Dismissed, Event::Settle) if self.disputed_from == Some(Final) => Settled,
            (Dismissed, Event::Release) if self.disputed_from == Some(Settled) => Released,
            (from, event) => {
                return Err(TransitionError {
                    from,
                    mode: self.mode,
                    event,
                });
            }
        };
        self.disputed_from = match next {
            Disputed => Some(self.state),
            Refunded | Slashed | Dismissed => self.disputed_from,
            _ => None,
        };
        self.state = next;
        Ok(self)
    }

    fn is_valid(&self) -> bool {
        let evidence = self.grade != Grade::None;
        // Evidence as it is before and after verification.
        let before = !evidence;
        let after = evidence == (self.mode != Mode::None);
        match (self.state, self.disputed_from) {
            (State::Quoted | State::Authorised | State::Executed | State::Expired, None) => before,
            (State::Checked, None) => self.mode == Mode::None && before,
            (State::Verified, None) => self.mode != Mode::None && after,
            (State::Final | State::Settled | State::Released, None) => after,
            (State::Disputed | State::Refunded | State::Slashed, Some(State::Executed)) => before,
            (
                State::Disputed | State::Refunded | State::Slashed | State::Dismissed,
                Some(State::Final | State::Settled),
            ) => after,
            _ => false,
        }
    }
}

/// What a JSON document claims before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    state: State,
    mode: Mode,
    grade: Grade,
    #[serde(default)]
    disputed_from: Option<State>,
}

impl TryFrom<Unchecked> for Lifecycle {
    type Error = InvalidLifecycle;

    fn try_from(raw: Unchecked) -> Result<Self, InvalidLifecycle> {
        let Unchecked {
            state,
            mode,
            grade,
            disputed_from,
        } = raw;
        let lifecycle = Self {
            state,
            mode,
            grade,
            disputed_from,
        };
        if lifecycle.is_valid() {
            Ok(lifecycle)
        } else {
            Err(InvalidLifecycle { state, mode, grade })
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = opg_primitives::mode::UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| opg_primitives::mode::UnknownWord {
                what: "state",
                expected: "a lifecycle state such as final",
                got: text.chars().take(40).collect(),
            })
    }
}

/// The words for people: what was done and how, such as `final, unproven (signature only)` or
/// `verified (tee, simulated)`. A proof needs no hardware, so `verified (zk)` says all.
impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checked = matches!(
            self.state,
            State::Checked | State::Final | State::Settled | State::Released
        );
        match (self.mode, self.grade) {
            (Mode::None, _) if checked => write!(f, "{}, unproven (signature only)", self.state),
            (_, Grade::None) => write!(f, "{}", self.state),
            (Mode::Zk, _) => write!(f, "{} (zk)", self.state),
            (mode, grade) => write!(f, "{} ({mode}, {grade})", self.state),
        }
    }
}
