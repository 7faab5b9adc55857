//! Governance as a wallet sees it: votes, proposals and what becomes of them (docs/governance.md).
//!
//! What a proposal will do is said from the bytes that it will execute ([`Call::describe`]), never from what its author writes about it.

mod bounds;
mod change;
mod error;

pub use self::{
    change::{Call, Change, Setting},
    error::GovernanceError,
};

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use opg_contracts::{Governor, OPG, Staking, Timelock, addresses};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;

use crate::{
    Client, ClientError,
    chain::{Sent, amount},
    rpc::RpcError,
    wallet::Wallet,
};

/// Blocks that are searched for proposals at once: less than full nodes allow.
const LOG_SPAN: u64 = 9_000;
/// Longest title or description that is sent, bytes.
const MAX_DESCRIPTION: usize = 16_384;
/// Most calls of a proposal.
const MAX_CALLS: usize = 32;
/// Between two looks at a state that is waited for.
const POLL: Duration = Duration::from_millis(250);
/// How long the next block may take.
const BLOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Number of a proposal; shown as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProposalId(pub U256);

impl std::fmt::Display for ProposalId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#066x}", self.0)
    }
}

impl Serialize for ProposalId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How far a proposal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProposalState {
    /// The vote has not begun.
    Pending,
    /// It is voted on.
    Active,
    /// Its proposer, the guardian or the timelock dropped it.
    Canceled,
    /// Too few votes, or more against it.
    Defeated,
    /// Passed; it has to be queued.
    Succeeded,
    /// In the timelock.
    Queued,
    /// Dropped by the timelock.
    Expired,
    /// Done.
    Executed,
}

impl ProposalState {
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Pending,
            1 => Self::Active,
            2 => Self::Canceled,
            3 => Self::Defeated,
            4 => Self::Succeeded,
            5 => Self::Queued,
            6 => Self::Expired,
            7 => Self::Executed,
            _ => return None,
        })
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Canceled => "canceled",
            Self::Defeated => "defeated",
            Self::Succeeded => "succeeded",
            Self::Queued => "queued",
            Self::Expired => "expired",
            Self::Executed => "executed",
        }
    }
}

/// What an account says to a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Support {
    /// No.
    Against,
    /// Yes.
    For,
    /// Neither; counts for the quorum.
    Abstain,
}

/// Periods and limits of governance at the newest block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GovernanceState {
    /// Timestamp of the newest block, Unix seconds: the clock of all periods.
    pub now: u64,
    /// Seconds between a proposal and its vote.
    pub voting_delay: u64,
    /// Seconds of a vote.
    pub voting_period: u64,
    /// Seconds between queueing and execution.
    pub timelock_delay: u64,
    /// Votes that a proposer needs.
    pub proposal_threshold: Amount,
    /// Votes for a proposal or abstaining that it needs.
    pub quorum: Amount,
    /// Who may cancel what is queued, while its term lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardian: Option<Address>,
}

/// Votes of a proposal, wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// For it.
    #[serde(rename = "for")]
    pub yes: Amount,
    /// Against it.
    pub against: Amount,
    /// Neither.
    pub abstain: Amount,
    /// How many votes for it or abstaining it needs.
    pub quorum: Amount,
}

/// One proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Proposal {
    /// Its number.
    pub id: ProposalId,
    /// Who made it.
    pub proposer: Address,
    /// How far it is.
    pub state: ProposalState,
    /// What its author says about it: title in the first line. Not checked by anybody.
    pub description: String,
    /// What it does.
    pub calls: Vec<Call>,
    /// The same in words, from the bytes.
    pub effects: Vec<String>,
    /// Unix seconds at whose end the vote begins; votes are counted as of then.
    pub vote_start: u64,
    /// Unix seconds up to which votes are taken.
    pub vote_end: u64,
    /// Unix seconds from which it can be executed, once it is queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
    /// The votes.
    pub votes: Tally,
    /// Block with the proposal.
    pub block: u64,
    /// As the governor has it, with its mark of the proposer.
    #[serde(skip)]
    description_on_chain: String,
}

impl Proposal {
    /// First line of the description.
    #[must_use]
    pub fn title(&self) -> &str {
        self.description.lines().next().unwrap_or_default()
    }

    fn lists(&self) -> (Vec<Address>, Vec<U256>, Vec<Bytes>, B256) {
        lists(&self.calls, &self.description_on_chain)
    }
}

fn lists(calls: &[Call], description: &str) -> (Vec<Address>, Vec<U256>, Vec<Bytes>, B256) {
    (
        calls.iter().map(|call| call.target).collect(),
        calls.iter().map(|call| call.value.to_u256()).collect(),
        calls.iter().map(|call| call.calldata.clone()).collect(),
        keccak256(description),
    )
}

/// Votes of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Votes {
    /// From OPG that it holds or that was delegated to it.
    pub held: Amount,
    /// From stake of its own or of who named it.
    pub staked: Amount,
    /// Who has the votes of the OPG that the account holds; nobody until it delegates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_delegate: Option<Address>,
    /// Who has the votes of its stake.
    pub staked_delegate: Address,
}

impl Votes {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> Amount {
        self.held.saturating_add(self.staked)
    }
}

/// What would be proposed: the calls, and text about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Title in the first line, then reasons.
    pub description: String,
    /// What it does, in this order, all or nothing.
    pub calls: Vec<Call>,
}

impl Draft {
    /// Reads a draft from JSON, as `opg gov propose … --dry-run --json` prints it under `draft`.
    ///
    /// # Errors
    /// [`GovernanceError::Field`].
    pub fn from_json(text: &str) -> Result<Self, GovernanceError> {
        #[derive(Deserialize)]
        struct Printed {
            draft: Draft,
        }
        match serde_json::from_str::<Self>(text) {
            Ok(draft) => Ok(draft),
            Err(error) => match serde_json::from_str::<Printed>(text) {
                Ok(printed) => Ok(printed.draft),
                Err(_) => Err(GovernanceError::field(
                    "draft",
                    "a JSON object with `description` and `calls`",
                    error,
                )),
            },
        }
    }

    /// What it does, in words.
    #[must_use]
    pub fn effects(&self) -> Vec<String> {
        self.calls.iter().map(Call::describe).collect()
    }
}

#[derive(Debug, Deserialize)]
struct CreatedLog {
    topics: Vec<B256>,
    data: Bytes,
    #[serde(rename = "blockNumber")]
    block_number: U256,
}

impl Client {
    /// Periods and limits.
    ///
    /// # Errors
    /// [`GovernanceError::None`], or if no full node answers.
    pub async fn governance(&self) -> Result<GovernanceState, ClientError> {
        self.require_governance().await?;
        let at = addresses::GOVERNOR;
        let now = self.block_time().await?;
        let before = U256::from(now.saturating_sub(1));
        let (delay, period, threshold, quorum, timelock, guardian, until) = futures::try_join!(
            self.view(at, Governor::votingDelayCall {}),
            self.view(at, Governor::votingPeriodCall {}),
            self.view(at, Governor::proposalThresholdCall {}),
            self.view(at, Governor::quorumCall { timepoint: before }),
            self.view(addresses::TIMELOCK, Timelock::getMinDelayCall {}),
            self.view(addresses::TIMELOCK, Timelock::guardianCall {}),
            self.view(addresses::TIMELOCK, Timelock::guardianUntilCall {}),
        )?;
        Ok(GovernanceState {
            now,
            voting_delay: seconds(delay),
            voting_period: seconds(period),
            timelock_delay: seconds(timelock),
            proposal_threshold: amount(threshold)?,
            quorum: amount(quorum)?,
            guardian: (!guardian.is_zero() && until.to::<u64>() > now).then_some(guardian),
        })
    }

    /// Votes that an account has now, held and staked.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn votes(&self, account: Address) -> Result<Votes, ClientError> {
        let (held, held_delegate) = futures::try_join!(
            self.view(addresses::OPG, OPG::getVotesCall { account }),
            self.view(addresses::OPG, OPG::delegatesCall { account }),
        )?;
        let (staked, staked_delegate) = if self.has_staking() {
            futures::try_join!(
                self.view(addresses::STAKING, Staking::getVotesCall { account }),
                self.view(addresses::STAKING, Staking::delegatesCall { account }),
            )?
        } else {
            (U256::ZERO, account)
        };
        Ok(Votes {
            held: amount(held)?,
            staked: amount(staked)?,
            held_delegate: (!held_delegate.is_zero()).then_some(held_delegate),
            staked_delegate,
        })
    }

    /// Gives the votes of the wallet's OPG and stake to `to`. Without a delegation held OPG has no votes; stake has them from the start. What
    /// is as it should be is not sent again.
    ///
    /// # Errors
    /// [`GovernanceError::NotAccepted`] if somebody else does not take votes of stake, and there is some.
    pub async fn delegate_votes(&self, wallet: &Wallet, to: Address, staked: bool) -> Result<Vec<Sent>, ClientError> {
        self.require_governance().await?;
        let from = wallet.address();
        let before = self.votes(from).await?;
        let mut calls: Vec<(Address, Bytes)> = Vec::new();
        if before.held_delegate != Some(to) {
            let call = OPG::delegateCall { delegatee: to };
            calls.push((addresses::OPG, call.abi_encode().into()));
        }
        if staked && self.has_staking() && before.staked_delegate != to {
            if to != from {
                self.require_accepts(from, to).await?;
            }
            calls.push((
                addresses::STAKING,
                Staking::delegateVotesCall { to }.abi_encode().into(),
            ));
        }
        let mut sent = Vec::new();
        for (target, call) in calls {
            sent.push(self.call(wallet, target, call).await?);
        }
        Ok(sent)
    }

    /// Whether somebody takes votes of others' stake.
    async fn require_accepts(&self, from: Address, to: Address) -> Result<(), ClientError> {
        let call = Staking::acceptsVotesCall { account: to };
        if self.view(addresses::STAKING, call).await? {
            return Ok(());
        }
        Err(GovernanceError::NotAccepted { from, to }.into())
    }

    /// Says whether the wallet takes votes of others' stake.
    ///
    /// # Errors
    /// [`ClientError::NoStaking`], or if the wallet cannot pay the gas.
    pub async fn accept_votes(&self, wallet: &Wallet, accepts: bool) -> Result<Sent, ClientError> {
        if !self.has_staking() {
            return Err(ClientError::NoStaking);
        }
        let call = Staking::setAcceptsVotesCall { accepts };
        self.call(wallet, addresses::STAKING, call.abi_encode().into()).await
    }

    /// Checks a draft: there are calls, they are of contracts and their values in the contracts' ranges, and the description fits.
    ///
    /// # Errors
    /// [`GovernanceError`] naming what is wrong.
    pub async fn check_draft(&self, draft: &Draft) -> Result<(), ClientError> {
        let size = draft.description.len();
        if draft.description.trim().is_empty() || size > MAX_DESCRIPTION {
            let expected = format!("1 to {MAX_DESCRIPTION} bytes of text");
            return Err(GovernanceError::field("description", expected, format!("{size} bytes")).into());
        }
        // The governor would take it for its mark of a proposer.
        if draft.description.contains("#proposer=") {
            return Err(GovernanceError::field("description", "no `#proposer=`, which is added", "one").into());
        }
        if draft.calls.is_empty() || draft.calls.len() > MAX_CALLS {
            let expected = format!("1 to {MAX_CALLS} calls");
            return Err(GovernanceError::field("calls", expected, draft.calls.len()).into());
        }
        let height = self.height().await?;
        for call in &draft.calls {
            let code: Bytes = self.rpc().call("eth_getCode", (call.target, "latest")).await?;
            if code.is_empty() {
                // A call of an account without code succeeds and does nothing.
                return Err(GovernanceError::field("target", "a contract", call.target).into());
            }
            call.check_bounds(height, self.network().genesis.parameters.unbonding)?;
        }
        Ok(())
    }

    /// Makes a proposal and waits until it is final. Its text is marked with the proposer, so that nobody else can make it first and drop it.
    ///
    /// # Errors
    /// [`GovernanceError::Threshold`] if the wallet has too few votes, and everything that [`Client::check_draft`] finds.
    pub async fn propose(&self, wallet: &Wallet, draft: &Draft) -> Result<(Sent, ProposalId), ClientError> {
        let state = self.governance().await?;
        self.check_draft(draft).await?;
        let account = wallet.address();
        self.require_threshold(account, state.proposal_threshold).await?;
        let description = format!("{}\n#proposer={account:#x}", draft.description.trim_end());
        let (targets, values, calldatas, hash) = lists(&draft.calls, &description);
        let id = Governor::getProposalIdCall {
            targets: targets.clone(),
            values: values.clone(),
            calldatas: calldatas.clone(),
            descriptionHash: hash,
        };
        let id = ProposalId(self.view(addresses::GOVERNOR, id).await?);
        if self.state_of(id).await?.is_some() {
            return Err(GovernanceError::Exists { id }.into());
        }
        let call = Governor::proposeCall {
            targets,
            values,
            calldatas,
            description,
        };
        let sent = self.call(wallet, addresses::GOVERNOR, call.abi_encode().into()).await?;
        Ok((sent, id))
    }

    /// Every proposal, newest first.
    ///
    /// # Errors
    /// [`GovernanceError::None`], or if no full node answers.
    pub async fn proposals(&self) -> Result<Vec<Proposal>, ClientError> {
        self.require_governance().await?;
        let mut found = Vec::new();
        let mut upper = self.height().await?;
        loop {
            let lower = upper.saturating_sub(LOG_SPAN);
            for log in self.created(lower, upper).await?.into_iter().rev() {
                found.push(self.proposal_of(log).await?);
            }
            if lower == 0 {
                return Ok(found);
            }
            upper = lower - 1;
        }
    }

    /// One proposal, by its number (decimal, or hex with `0x`) or the first digits of its hex.
    ///
    /// # Errors
    /// [`GovernanceError::Unknown`] or [`GovernanceError::Ambiguous`].
    pub async fn proposal(&self, id: &str) -> Result<Proposal, ClientError> {
        self.require_governance().await?;
        let digits = id.strip_prefix("0x").unwrap_or(id).to_ascii_lowercase();
        let decimal = (!id.starts_with("0x") && digits.len() > 64)
            .then(|| U256::from_str_radix(&digits, 10).ok())
            .flatten();
        let prefix = match decimal {
            Some(number) => format!("{number:064x}"),
            None if (4..=64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()) => digits,
            None => {
                let expected = "the number of a proposal, or the first 4 digits or more of its hex";
                return Err(GovernanceError::field("ID", expected, crate::text::one_line(id, 100)).into());
            }
        };
        let mut matching: Vec<CreatedLog> = Vec::new();
        let mut upper = self.height().await?;
        loop {
            let lower = upper.saturating_sub(LOG_SPAN);
            for log in self.created(lower, upper).await? {
                if format!("{:064x}", decode(&log)?.proposalId).starts_with(&prefix) {
                    matching.push(log);
                }
            }
            if lower == 0 {
                break;
            }
            upper = lower - 1;
        }
        let count = matching.len();
        match (matching.pop(), count) {
            (Some(log), 1) => self.proposal_of(log).await,
            (None, _) => Err(GovernanceError::Unknown { id: prefix }.into()),
            _ => Err(GovernanceError::Ambiguous { id: prefix, count }.into()),
        }
    }

    /// Votes on a proposal with all that the wallet had when the vote began.
    ///
    /// # Errors
    /// [`GovernanceError`]: the vote is not on, the wallet has voted, or had no votes.
    pub async fn vote(
        &self,
        wallet: &Wallet,
        proposal: &Proposal,
        support: Support,
        reason: &str,
    ) -> Result<(Sent, Amount), ClientError> {
        self.require_state(proposal, ProposalState::Active, "voted on").await?;
        let account = wallet.address();
        let id = proposal.id;
        let voted = Governor::hasVotedCall {
            proposalId: id.0,
            account,
        };
        if self.view(addresses::GOVERNOR, voted).await? {
            return Err(GovernanceError::Voted { id, account }.into());
        }
        let weight = self.votes_at(account, proposal.vote_start).await?;
        if weight.is_zero() {
            let at = proposal.vote_start;
            return Err(GovernanceError::NoVotes { account, at }.into());
        }
        let code = match support {
            Support::Against => 0,
            Support::For => 1,
            Support::Abstain => 2,
        };
        let input = if reason.is_empty() {
            let call = Governor::castVoteCall {
                proposalId: id.0,
                support: code,
            };
            call.abi_encode()
        } else {
            let call = Governor::castVoteWithReasonCall {
                proposalId: id.0,
                support: code,
                reason: reason.into(),
            };
            call.abi_encode()
        };
        let sent = self.call(wallet, addresses::GOVERNOR, input.into()).await?;
        Ok((sent, weight))
    }

    /// Hands a proposal that passed to the timelock. Anyone may.
    ///
    /// # Errors
    /// [`GovernanceError::State`] unless it passed.
    pub async fn queue_proposal(&self, wallet: &Wallet, proposal: &Proposal) -> Result<Sent, ClientError> {
        self.require_state(proposal, ProposalState::Succeeded, "queued").await?;
        let (targets, values, calldatas, hash) = proposal.lists();
        let call = Governor::queueCall {
            targets,
            values,
            calldatas,
            descriptionHash: hash,
        };
        self.call(wallet, addresses::GOVERNOR, call.abi_encode().into()).await
    }

    /// Executes a queued proposal whose delay is over. Anyone may.
    ///
    /// # Errors
    /// [`GovernanceError::State`] or [`GovernanceError::Early`] unless it can be executed, [`GovernanceError::Execution`] if one of its calls is
    /// refused.
    pub async fn execute_proposal(&self, wallet: &Wallet, proposal: &Proposal) -> Result<Sent, ClientError> {
        self.require_state(proposal, ProposalState::Queued, "executed").await?;
        let (id, now) = (proposal.id, self.block_time().await?);
        let eta = self.eta(id).await?.unwrap_or_default();
        if eta > now {
            return Err(GovernanceError::Early { id, left: eta - now }.into());
        }
        let (targets, values, calldatas, hash) = proposal.lists();
        let call = Governor::executeCall {
            targets,
            values,
            calldatas,
            descriptionHash: hash,
        };
        let sent = self.call(wallet, addresses::GOVERNOR, call.abi_encode().into()).await;
        sent.map_err(|error| match error {
            ClientError::Rpc(RpcError::Refused { message, .. }) => GovernanceError::Execution { id, message }.into(),
            other => other,
        })
    }

    /// Waits until a proposal is in the state, and, if it is to be executed, its delay over; gives up when it cannot come there any more.
    ///
    /// # Errors
    /// [`ClientError::Timeout`].
    pub async fn wait_proposal(
        &self,
        proposal: &Proposal,
        wanted: ProposalState,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let start = Instant::now();
        let order = |state: ProposalState| match state {
            ProposalState::Pending => 0,
            ProposalState::Active => 1,
            ProposalState::Succeeded => 2,
            ProposalState::Queued => 3,
            // Ends.
            _ => 4,
        };
        loop {
            let state = self.state_of(proposal.id).await?.unwrap_or(ProposalState::Canceled);
            let there = state == wanted && {
                let eta = match wanted {
                    ProposalState::Queued => self.eta(proposal.id).await?.unwrap_or_default(),
                    _ => 0,
                };
                eta <= self.block_time().await?
            };
            if there || order(state) > order(wanted) || (state == ProposalState::Succeeded && wanted != state) {
                return Ok(());
            }
            if start.elapsed() > timeout {
                return Err(ClientError::Timeout {
                    what: format!("proposal {} becoming {}", proposal.id, wanted.as_str()),
                    seconds: timeout.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn require_governance(&self) -> Result<(), ClientError> {
        let code: Bytes = self.rpc().call("eth_getCode", (addresses::GOVERNOR, "latest")).await?;
        if code.is_empty() {
            return Err(GovernanceError::None.into());
        }
        Ok(())
    }

    pub(crate) fn has_staking(&self) -> bool {
        self.network().genesis.parameters.staking.is_some()
    }

    async fn votes_at(&self, account: Address, at: u64) -> Result<Amount, ClientError> {
        let call = Governor::getVotesCall {
            account,
            timepoint: U256::from(at),
        };
        amount(self.view(addresses::GOVERNOR, call).await?)
    }

    /// Whether an account has the votes to propose. They count from the second after they came: then a block is waited for.
    async fn require_threshold(&self, account: Address, needed: Amount) -> Result<(), ClientError> {
        let start = Instant::now();
        loop {
            let now = self.block_time().await?;
            if self.votes_at(account, now.saturating_sub(1)).await? >= needed {
                return Ok(());
            }
            let votes = self.votes(account).await?.total();
            if votes < needed {
                return Err(GovernanceError::Threshold { account, votes, needed }.into());
            }
            if start.elapsed() > BLOCK_PATIENCE {
                return Err(ClientError::Timeout {
                    what: "a new block".into(),
                    seconds: BLOCK_PATIENCE.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `None` if there is no such proposal.
    async fn state_of(&self, id: ProposalId) -> Result<Option<ProposalState>, ClientError> {
        let call = Governor::proposalSnapshotCall { proposalId: id.0 };
        if self.view(addresses::GOVERNOR, call).await?.is_zero() {
            return Ok(None);
        }
        let code = self
            .view(addresses::GOVERNOR, Governor::stateCall { proposalId: id.0 })
            .await?;
        let state = ProposalState::from_code(code);
        state.map(Some).ok_or_else(|| ClientError::Proof {
            what: format!("proposal {id} is in state {code}, which does not exist"),
        })
    }

    /// Whether a proposal is where something can be done with it.
    async fn require_state(
        &self,
        proposal: &Proposal,
        wanted: ProposalState,
        action: &'static str,
    ) -> Result<(), ClientError> {
        let id = proposal.id;
        let state = self.state_of(id).await?;
        let state = state.ok_or_else(|| GovernanceError::Unknown { id: id.to_string() })?;
        if state == wanted {
            return Ok(());
        }
        let now = self.block_time().await?;
        let hint = match state {
            ProposalState::Pending => {
                format!("the vote begins in {} s", (proposal.vote_start + 1).saturating_sub(now))
            }
            ProposalState::Active => {
                format!("the vote ends in {} s", (proposal.vote_end + 1).saturating_sub(now))
            }
            ProposalState::Succeeded => format!("queue it: `opg gov queue {id}`"),
            ProposalState::Queued => format!("execute it: `opg gov execute {id}`"),
            ProposalState::Executed => "nothing is left to do".into(),
            ProposalState::Canceled | ProposalState::Defeated | ProposalState::Expired => {
                "it has ended; a new proposal is needed".into()
            }
        };
        Err(GovernanceError::State {
            id,
            state: state.as_str(),
            action,
            hint,
        }
        .into())
    }

    async fn eta(&self, id: ProposalId) -> Result<Option<u64>, ClientError> {
        let call = Governor::proposalEtaCall { proposalId: id.0 };
        let eta = self.view(addresses::GOVERNOR, call).await?;
        Ok((!eta.is_zero()).then(|| seconds(eta)))
    }

    async fn created(&self, lower: u64, upper: u64) -> Result<Vec<CreatedLog>, ClientError> {
        let filter = json!({
            "address": addresses::GOVERNOR, "topics": [Governor::ProposalCreated::SIGNATURE_HASH],
            "fromBlock": format!("0x{lower:x}"), "toBlock": format!("0x{upper:x}"),
        });
        Ok(self.rpc().call("eth_getLogs", [filter]).await?)
    }

    async fn proposal_of(&self, log: CreatedLog) -> Result<Proposal, ClientError> {
        let event = decode(&log)?;
        let at = addresses::GOVERNOR;
        let id = ProposalId(event.proposalId);
        // The quorum of a vote that has not begun is not known yet: that of now stands for it.
        let now = self.block_time().await?;
        let timepoint = event.voteStart.min(U256::from(now.saturating_sub(1)));
        let (state, votes, quorum, eta) = futures::try_join!(
            self.state_of(id),
            self.view(at, Governor::proposalVotesCall { proposalId: id.0 }),
            self.view(at, Governor::quorumCall { timepoint }),
            self.eta(id),
        )?;
        let calls = event.targets.iter().zip(&event.values).zip(&event.calldatas);
        let calls: Vec<Call> = calls
            .map(|((target, value), calldata)| {
                Ok::<_, ClientError>(Call {
                    target: *target,
                    value: amount(*value)?,
                    calldata: calldata.clone(),
                })
            })
            .collect::<Result<_, _>>()?;
        let mark = format!("#proposer={:#x}", event.proposer);
        let description = event.description.trim_end();
        let description = description.strip_suffix(&mark).unwrap_or(description).trim_end();
        Ok(Proposal {
            id,
            proposer: event.proposer,
            state: state.unwrap_or(ProposalState::Canceled),
            description: description.into(),
            effects: calls.iter().map(Call::describe).collect(),
            calls,
            vote_start: seconds(event.voteStart),
            vote_end: seconds(event.voteEnd),
            eta,
            votes: Tally {
                yes: amount(votes.forVotes)?,
                against: amount(votes.againstVotes)?,
                abstain: amount(votes.abstainVotes)?,
                quorum: amount(quorum)?,
            },
            block: log.block_number.saturating_to(),
            description_on_chain: event.description,
        })
    }
}

fn decode(log: &CreatedLog) -> Result<Governor::ProposalCreated, ClientError> {
    Governor::ProposalCreated::decode_raw_log(log.topics.iter().copied(), &log.data).map_err(|error| {
        ClientError::Proof {
            what: format!("event of a proposal: {error}"),
        }
    })
}

/// Seconds are far below 2^64; what is not, is for ever.
fn seconds(value: U256) -> u64 {
    value.saturating_to()
}
