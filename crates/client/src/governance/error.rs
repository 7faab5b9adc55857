//! What can be wrong with a proposal or a vote, and what to do about it.

use alloy_primitives::Address;
use opg_primitives::money::Amount;

use super::ProposalId;

/// A proposal or vote that is not possible. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GovernanceError {
    /// The network has none.
    #[error("this network has no governance: its genesis file has no `parameters.governance`")]
    None,
    /// A value that cannot be used.
    #[error("field `{field}`: expected {expected}, got {got}")]
    Field {
        /// Which.
        field: &'static str,
        /// What would be good.
        expected: String,
        /// What was given.
        got: String,
    },
    /// No such proposal.
    #[error("no proposal {id}; `opg gov ls` lists them")]
    Unknown {
        /// What was asked for.
        id: String,
    },
    /// Digits of several proposals.
    #[error("{count} proposals begin with {id}; give more digits, `opg gov ls` shows them")]
    Ambiguous {
        /// What was asked for.
        id: String,
        /// How many.
        count: usize,
    },
    /// The same calls with the same text by the same account.
    #[error("proposal {id} is the same and there already; give it another title or description")]
    Exists {
        /// The proposal.
        id: ProposalId,
    },
    /// Too few votes to propose.
    #[error(
        "{account} has {votes} votes, proposing needs {needed} (`proposal_threshold`); OPG votes after `opg gov delegate`"
    )]
    Threshold {
        /// The proposer.
        account: Address,
        /// Votes it has.
        votes: Amount,
        /// Votes it needs.
        needed: Amount,
    },
    /// The proposal is not where this can be done.
    #[error("proposal {id} is {state} and cannot be {action}: {hint}")]
    State {
        /// The proposal.
        id: ProposalId,
        /// Where it is.
        state: &'static str,
        /// What was asked for.
        action: &'static str,
        /// What to do.
        hint: String,
    },
    /// The timelock's delay is not over.
    #[error("proposal {id} is queued and can be executed in {left} s")]
    Early {
        /// The proposal.
        id: ProposalId,
        /// Seconds.
        left: u64,
    },
    /// A call of the proposal is refused.
    #[error(
        "proposal {id} cannot be executed: {message}; what it was made for may have changed, then a new proposal is needed"
    )]
    Execution {
        /// The proposal.
        id: ProposalId,
        /// The full node's words.
        message: String,
    },
    /// One vote each.
    #[error("{account} has voted on proposal {id} already, and a vote stays")]
    Voted {
        /// The proposal.
        id: ProposalId,
        /// The voter.
        account: Address,
    },
    /// Nothing to vote with.
    #[error(
        "{account} had no votes when the vote began (Unix second {at}); for later proposals run `opg gov delegate` now"
    )]
    NoVotes {
        /// The voter.
        account: Address,
        /// When votes were counted.
        at: u64,
    },
    /// Votes of stake need consent.
    #[error(
        "{to} takes no votes of others' stake: it has to run `opg gov accept-votes`, or leave {from}'s stake out with --held-only"
    )]
    NotAccepted {
        /// Whose stake.
        from: Address,
        /// Who should have the votes.
        to: Address,
    },
}

impl GovernanceError {
    pub(crate) fn field(field: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Self::Field {
            field,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }
}
