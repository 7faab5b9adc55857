//! What governance may write, as calls and in words.

use alloy::dyn_abi::{DynSolType, DynSolValue, Specifier as _};
use alloy::json_abi::Function;
use alloy_primitives::{Address, B256, Bytes, U256, Uint, hex};
use alloy_sol_types::{SolCall, SolInterface as _};
use opg_contracts::{
    ChainParameters, Emission, EvidenceRegistry, FeatureTiers, Governor, PriceOracle, ReceiptLedger, Slashing, Staking,
    Timelock, Treasury, addresses,
};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};

use super::GovernanceError;
use crate::{Client, ClientError};

/// Blocks between a change of block rules and its activation that the contract asks for.
const NOTICE: u64 = 10;

/// One call that the timelock makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Contract.
    pub target: Address,
    /// Native coin sent with it, wei, out of the timelock's own.
    pub value: Amount,
    /// Function and arguments.
    pub calldata: Bytes,
}

/// One parameter of governance itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Seconds between a proposal and its vote.
    VotingDelay(u64),
    /// Seconds of a vote.
    VotingPeriod(u32),
    /// Votes that a proposer needs.
    ProposalThreshold(Amount),
    /// Part of wrapped OPG that has to vote, basis points.
    QuorumBps(u16),
    /// Seconds between queueing and execution.
    TimelockDelay(u64),
}

/// What can be proposed by name. A value that is `None` stays what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Rules of blocks.
    ChainParameters {
        /// Gas limit of a block.
        gas_limit: Option<u64>,
        /// Cost units of receipts and proofs of a block.
        verification_budget: Option<u64>,
        /// First height; chosen after the earliest execution if not given.
        at: Option<u64>,
    },
    /// Weights of the split of a charge.
    FeeSplit {
        /// Node, auditors, treasury, router.
        weights: [u16; 4],
    },
    /// Weights of the split of a charge of a closed model.
    ClosedFeeSplit {
        /// Node, auditors, treasury, router.
        weights: [u8; 4],
    },
    /// Escrow windows by mode: none, tee, zk, replay; seconds.
    EscrowWindows {
        /// In that order.
        windows: [Option<u64>; 4],
    },
    /// Parameters of staking.
    Staking {
        /// Least own stake of a validator.
        min_self_bond: Option<Amount>,
        /// Seconds that stake unbonds.
        unbonding: Option<u64>,
        /// Seconds in jail.
        jail_time: Option<u64>,
        /// Most seats.
        max_seats: Option<u16>,
        /// Most that a commission may change in an epoch, basis points.
        commission_step: Option<u16>,
        /// Fewest leader views from which a seat can be down.
        min_views: Option<u32>,
        /// Least part of them that it must win, millionths.
        min_led_ppm: Option<u32>,
    },
    /// Parameters of slashing.
    Slashing {
        /// Least bond of a report.
        challenger_bond: Option<Amount>,
        /// Seconds between verdict and slash.
        appeal_window: Option<u64>,
        /// Least slash for equivocation, millionths.
        equivocation_ppm: Option<u32>,
        /// Slash for being down, millionths.
        downtime_ppm: Option<u32>,
        /// Factor on the share of seats with the same fault.
        correlation: Option<u8>,
    },
    /// Drops a slashing case.
    DismissCase {
        /// Its number.
        id: u64,
    },
    /// Division of what the bucket for staking releases.
    Emission {
        /// Auditors, millionths.
        auditors_ppm: Option<u32>,
        /// Inference nodes, millionths.
        nodes_ppm: Option<u32>,
    },
    /// Who gets what is set aside for auditors or inference nodes.
    EmissionRecipient {
        /// Inference nodes, else auditors.
        nodes: bool,
        /// The account.
        to: Address,
    },
    /// Pays out of the treasury.
    Spend {
        /// To whom.
        to: Address,
        /// How much.
        amount: Amount,
        /// A token; `None`: native coin.
        token: Option<Address>,
    },
    /// Changes one feature tier, or adds one after the highest.
    Tier {
        /// Its number, from 0.
        index: usize,
        /// Least OPG held and staked.
        threshold: Option<Amount>,
        /// Discount on a gateway's own fee, basis points.
        discount_bps: Option<u16>,
        /// Rate limit.
        requests_per_minute: Option<u32>,
        /// Size limit.
        max_request_bytes: Option<u32>,
    },
    /// Limits of the price oracle.
    Oracle {
        /// Fewest feeds of a round.
        min_feeds: Option<u8>,
        /// Seconds for which a price is usable.
        max_age: Option<u32>,
    },
    /// What attestation evidence is judged by.
    EvidencePolicy {
        /// The document.
        policy: String,
    },
    /// Revokes a measurement or signer for ever.
    EvidenceRevoke {
        /// Which.
        subject: B256,
    },
    /// Parameters of governance itself.
    Governance {
        /// Which, and their new values.
        settings: Vec<Setting>,
    },
}

impl Call {
    /// A call by signature and arguments in text, such as `setLimits(uint8,uint32)` and `3`, `60`.
    ///
    /// # Errors
    /// [`GovernanceError::Field`] naming what does not fit.
    pub fn by_signature(
        target: Address,
        value: Amount,
        signature: &str,
        arguments: &[String],
    ) -> Result<Self, GovernanceError> {
        const FORM: &str = "a function such as transfer(address,uint256)";
        let function = Function::parse(signature).map_err(|_| GovernanceError::field("signature", FORM, signature))?;
        if function.inputs.len() != arguments.len() {
            let expected = format!("{} arguments for {signature}", function.inputs.len());
            return Err(GovernanceError::field("arguments", expected, arguments.len()));
        }
        let mut values = Vec::new();
        for (input, text) in function.inputs.iter().zip(arguments) {
            let kind: DynSolType = input
                .resolve()
                .map_err(|_| GovernanceError::field("signature", FORM, signature))?;
            let value = kind
                .coerce_str(text)
                .map_err(|error| GovernanceError::field("arguments", &input.ty, format!("{text:?} ({error})")))?;
            values.push(value);
        }
        let mut calldata = function.selector().to_vec();
        calldata.extend(DynSolValue::Tuple(values).abi_encode_params());
        Ok(Self {
            target,
            value,
            calldata: calldata.into(),
        })
    }

    fn new(target: Address, call: impl SolCall) -> Self {
        Self {
            target,
            value: Amount::ZERO,
            calldata: call.abi_encode().into(),
        }
    }

    /// Whether the values of a call that this version knows are in their contract's ranges, if it is executed at `height` on a network whose nodes
    /// unbond for `unbonding` seconds. Others are not judged.
    ///
    /// # Errors
    /// [`GovernanceError::Field`] naming the value.
    pub fn check_bounds(&self, height: u64, unbonding: u64) -> Result<(), GovernanceError> {
        super::bounds::check(self, height, unbonding)
    }

    /// What it does, from its bytes alone.
    #[must_use]
    pub fn describe(&self) -> String {
        let known = match self.target {
            addresses::RECEIPT_LEDGER => ledger(&self.calldata),
            addresses::TREASURY => treasury(&self.calldata),
            addresses::CHAIN_PARAMETERS => chain_parameters(&self.calldata),
            addresses::FEATURE_TIERS => tiers(&self.calldata),
            addresses::PRICE_ORACLE => oracle(&self.calldata),
            addresses::STAKING => staking(&self.calldata),
            addresses::SLASHING => slashing(&self.calldata),
            addresses::EMISSION => emission(&self.calldata),
            addresses::EVIDENCE_REGISTRY => evidence(&self.calldata),
            addresses::GOVERNOR => governor(&self.calldata),
            addresses::TIMELOCK => timelock(&self.calldata),
            _ => None,
        };
        let mut text = known.unwrap_or_else(|| {
            let selector = self
                .calldata
                .get(..4)
                .map_or_else(|| "none".into(), hex::encode_prefixed);
            format!(
                "calls {} with {} bytes of data (function {selector}), which this version does not know",
                self.target,
                self.calldata.len()
            )
        });
        if !self.value.is_zero() {
            text += &format!(", and sends {} native OPG", self.value);
        }
        text
    }
}

fn ledger(data: &[u8]) -> Option<String> {
    use ReceiptLedger::ReceiptLedgerCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setWindows(call) => {
            let [none, tee, zk, replay] = call.windows.map(|window| window.to::<u64>());
            format!(
                "sets the escrow windows of receipts recorded later: none {none} s, tee {tee} s, zk {zk} s, replay {replay} s"
            )
        }
        Calls::setClosedWeights(call) => {
            let [node, auditors, treasury, router] = call.weights;
            format!(
                "splits charges of closed models that are credited later by the weights node {node}, auditors {auditors}, treasury {treasury}, router {router}"
            )
        }
        Calls::setWeights(call) => {
            let [node, auditors, treasury, router] = call.weights;
            format!(
                "splits charges that are credited later by the weights node {node}, auditors {auditors}, treasury {treasury}, router {router}"
            )
        }
        _ => return None,
    })
}

fn treasury(data: &[u8]) -> Option<String> {
    use Treasury::TreasuryCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::spend(call) if call.token == addresses::OPG => {
            format!("pays {} OPG out of the treasury to {}", opg(call.amount), call.to)
        }
        Calls::spend(call) => format!(
            "pays {} of the smallest units of token {} out of the treasury to {}",
            call.amount, call.token, call.to
        ),
        Calls::spendNative(call) => {
            format!(
                "pays {} native OPG out of the treasury to {}",
                opg(call.amount),
                call.to
            )
        }
        _ => return None,
    })
}

fn chain_parameters(data: &[u8]) -> Option<String> {
    use ChainParameters::ChainParametersCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::schedule(call) => format!(
            "from block {} on: gas limit {}, verification budget {}; refused if executed after block {}",
            call.activation,
            call.gasLimit,
            call.verificationBudget,
            call.activation.saturating_sub(NOTICE)
        ),
        _ => return None,
    })
}

fn tiers(data: &[u8]) -> Option<String> {
    use FeatureTiers::FeatureTiersCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setTiers(call) => {
            let tier = |(i, tier): (usize, &FeatureTiers::Tier)| {
                format!(
                    "{i}: from {} OPG, {} bps off, {} requests a minute of at most {} bytes",
                    Amount(tier.threshold),
                    tier.discountBps,
                    tier.requestsPerMinute,
                    tier.maxRequestBytes
                )
            };
            let list: Vec<_> = call.tiers_.iter().enumerate().map(tier).collect();
            format!("replaces all feature tiers by {}", list.join("; "))
        }
        _ => return None,
    })
}

fn oracle(data: &[u8]) -> Option<String> {
    use PriceOracle::PriceOracleCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setLimits(call) => format!(
            "asks for {} price feeds a round, and lets a price be used for {} s",
            call.minFeeds_, call.maxAge_
        ),
        _ => return None,
    })
}

fn staking(data: &[u8]) -> Option<String> {
    use Staking::StakingCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setParameters(call) => {
            let p = call.parameters_;
            format!(
                "sets staking to: least own stake {} OPG, unbonding {} s, jail {} s, at most {} seats, commission step {} bps, down from {} views below {} ppm won",
                Amount(p.minSelfBond),
                p.unbonding,
                p.jailTime,
                p.maxSeats,
                p.commissionStep,
                p.minViews,
                p.minLedPpm
            )
        }
        _ => return None,
    })
}

fn slashing(data: &[u8]) -> Option<String> {
    use Slashing::SlashingCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setParameters(call) => {
            let p = call.parameters_;
            format!(
                "sets slashing to: bond of a report at least {} OPG, appeal {} s, equivocation at least {} ppm, downtime {} ppm, correlation {}",
                Amount(p.minBond),
                p.appealWindow,
                p.equivocationPpm,
                p.downtimePpm,
                p.correlation
            )
        }
        Calls::dismiss(call) => format!("drops slashing case {} and gives back its bond", call.id),
        _ => return None,
    })
}

fn emission(data: &[u8]) -> Option<String> {
    use Emission::EmissionCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setParts(call) => format!(
            "of what the bucket for staking releases later, {} ppm are for auditors and {} ppm for inference nodes, the rest for validators",
            call.auditorsPpm, call.nodesPpm
        ),
        Calls::setRecipient(call) => {
            let pool = if call.pool.is_zero() {
                "auditors"
            } else {
                "inference nodes"
            };
            format!("pays what is set aside for {pool} to {}", call.to)
        }
        _ => return None,
    })
}

fn evidence(data: &[u8]) -> Option<String> {
    use EvidenceRegistry::EvidenceRegistryCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setPolicy(call) => {
            let text = String::from_utf8_lossy(&call.policy_).into_owned();
            format!(
                "judges attestation evidence from the next block on by {}",
                crate::text::one_line(&text, 2_000)
            )
        }
        Calls::revoke(call) => format!(
            "revokes the measurement or signer {} at once and for ever",
            call.subject
        ),
        Calls::setOwner(call) => format!("hands the policy of attestation evidence over to {}", call.owner_),
        _ => return None,
    })
}

fn governor(data: &[u8]) -> Option<String> {
    use Governor::GovernorCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::setVotingDelay(call) => format!("lets a vote begin {} s after its proposal", call.newVotingDelay),
        Calls::setVotingPeriod(call) => format!("lets a vote last {} s", call.newVotingPeriod),
        Calls::setProposalThreshold(call) => {
            format!(
                "lets accounts with {} votes or more propose",
                opg(call.newProposalThreshold)
            )
        }
        Calls::updateQuorumNumerator(call) => {
            format!(
                "sets the quorum to {} basis points of wrapped OPG",
                call.newQuorumNumerator
            )
        }
        Calls::updateTimelock(call) => format!(
            "lets the governor obey timelock {}, while all contracts go on obeying the old one",
            call.newTimelock
        ),
        _ => return None,
    })
}

fn timelock(data: &[u8]) -> Option<String> {
    use Timelock::TimelockCalls as Calls;
    Some(match Calls::abi_decode(data).ok()? {
        Calls::updateDelay(call) => format!("lets queued operations wait {} s", call.newDelay),
        Calls::grantRole(call) => format!("gives role {} of the timelock to {}", call.role, call.account),
        Calls::revokeRole(call) => format!("takes role {} of the timelock from {}", call.role, call.account),
        _ => return None,
    })
}

/// Wei as OPG, if it is an amount at all.
fn opg(wei: U256) -> String {
    Amount::try_from(wei).map_or_else(|_| format!("{wei} wei of"), |amount| amount.to_string())
}

impl Client {
    /// The calls of a change, with what it leaves as it is read from the chain.
    ///
    /// # Errors
    /// [`GovernanceError::Field`] if it changes nothing or names a tier that cannot be, or if no full node answers.
    pub async fn calls_of(&self, change: &Change) -> Result<Vec<Call>, ClientError> {
        self.governance().await?;
        let call = match change {
            Change::ChainParameters {
                gas_limit,
                verification_budget,
                at,
            } => {
                return self
                    .schedule(*gas_limit, *verification_budget, *at)
                    .await
                    .map(|call| vec![call]);
            }
            Change::ClosedFeeSplit { weights } => Call::new(
                addresses::RECEIPT_LEDGER,
                ReceiptLedger::setClosedWeightsCall { weights: *weights },
            ),
            Change::FeeSplit { weights } => Call::new(
                addresses::RECEIPT_LEDGER,
                ReceiptLedger::setWeightsCall { weights: *weights },
            ),
            Change::EscrowWindows { windows } => {
                something(windows.iter().any(Option::is_some), "--none, --tee, --zk or --replay")?;
                let rules = self
                    .view(addresses::RECEIPT_LEDGER, ReceiptLedger::rulesCall {})
                    .await?;
                let now = [rules.windowNone, rules.windowTee, rules.windowZk, rules.windowReplay];
                let mut next = now;
                for (next, given) in next.iter_mut().zip(windows) {
                    if let Some(given) = given {
                        *next = time("escrow window", *given)?;
                    }
                }
                Call::new(
                    addresses::RECEIPT_LEDGER,
                    ReceiptLedger::setWindowsCall { windows: next },
                )
            }
            Change::Staking { .. } => self.staking_parameters(change).await?,
            Change::Slashing { .. } => self.slashing_parameters(change).await?,
            Change::DismissCase { id } => Call::new(addresses::SLASHING, Slashing::dismissCall { id: U256::from(*id) }),
            Change::Emission {
                auditors_ppm,
                nodes_ppm,
            } => {
                something(
                    auditors_ppm.is_some() || nodes_ppm.is_some(),
                    "--auditors-ppm or --nodes-ppm",
                )?;
                let part = |i: u64| self.view(addresses::EMISSION, Emission::partsCall(U256::from(i)));
                let (auditors, nodes) = futures::try_join!(part(0), part(1))?;
                let call = Emission::setPartsCall {
                    auditorsPpm: auditors_ppm.unwrap_or(auditors),
                    nodesPpm: nodes_ppm.unwrap_or(nodes),
                };
                Call::new(addresses::EMISSION, call)
            }
            Change::EmissionRecipient { nodes, to } => {
                let pool = U256::from(u8::from(*nodes));
                Call::new(addresses::EMISSION, Emission::setRecipientCall { pool, to: *to })
            }
            Change::Spend { to, amount, token } => {
                let (to, amount) = (*to, amount.to_u256());
                match token {
                    Some(token) => {
                        let token = *token;
                        Call::new(addresses::TREASURY, Treasury::spendCall { token, to, amount })
                    }
                    None => Call::new(addresses::TREASURY, Treasury::spendNativeCall { to, amount }),
                }
            }
            Change::Tier { .. } => self.tier_change(change).await?,
            Change::Oracle { min_feeds, max_age } => {
                something(min_feeds.is_some() || max_age.is_some(), "--min-feeds or --max-age")?;
                let (feeds, age) = futures::try_join!(
                    self.view(addresses::PRICE_ORACLE, PriceOracle::minFeedsCall {}),
                    self.view(addresses::PRICE_ORACLE, PriceOracle::maxAgeCall {}),
                )?;
                let call = PriceOracle::setLimitsCall {
                    minFeeds_: min_feeds.unwrap_or(feeds),
                    maxAge_: max_age.unwrap_or(age),
                };
                Call::new(addresses::PRICE_ORACLE, call)
            }
            Change::EvidencePolicy { policy } => {
                let policy_ = policy.clone().into_bytes().into();
                Call::new(
                    addresses::EVIDENCE_REGISTRY,
                    EvidenceRegistry::setPolicyCall { policy_ },
                )
            }
            Change::EvidenceRevoke { subject } => Call::new(
                addresses::EVIDENCE_REGISTRY,
                EvidenceRegistry::revokeCall { subject: *subject },
            ),
            Change::Governance { settings } => {
                something(
                    !settings.is_empty(),
                    "--delay, --period, --threshold, --quorum-bps or --timelock-delay",
                )?;
                return settings.iter().map(setting).collect();
            }
        };
        Ok(vec![call])
    }

    async fn schedule(
        &self,
        gas_limit: Option<u64>,
        verification_budget: Option<u64>,
        at: Option<u64>,
    ) -> Result<Call, ClientError> {
        something(
            gas_limit.is_some() || verification_budget.is_some(),
            "--gas-limit or --verification-budget",
        )?;
        let (state, height) = futures::try_join!(self.governance(), self.height())?;
        // A block takes a second or more, so this height is not reached before the proposal can be executed; twice that and a few minutes
        // leave time to queue and execute it.
        let wait = state.voting_delay + state.voting_period + state.timelock_delay;
        let activation = at.unwrap_or_else(|| height.saturating_add(2 * wait + 300).saturating_add(NOTICE));
        let now = self
            .view(
                addresses::CHAIN_PARAMETERS,
                ChainParameters::valuesAtCall { height: activation },
            )
            .await?;
        let call = ChainParameters::scheduleCall {
            gasLimit: gas_limit.unwrap_or(now.gasLimit),
            verificationBudget: verification_budget.unwrap_or(now.verificationBudget),
            activation,
        };
        Ok(Call::new(addresses::CHAIN_PARAMETERS, call))
    }

    async fn staking_parameters(&self, change: &Change) -> Result<Call, ClientError> {
        let Change::Staking {
            min_self_bond,
            unbonding,
            jail_time,
            max_seats,
            commission_step,
            min_views,
            min_led_ppm,
        } = change
        else {
            return Err(ClientError::NoStaking);
        };
        if !self.has_staking() {
            return Err(ClientError::NoStaking);
        }
        let now = self.view(addresses::STAKING, Staking::parametersCall {}).await?;
        let now = Staking::Parameters {
            minSelfBond: now.minSelfBond,
            unbonding: now.unbonding,
            jailTime: now.jailTime,
            maxSeats: now.maxSeats,
            commissionStep: now.commissionStep,
            minViews: now.minViews,
            minLedPpm: now.minLedPpm,
        };
        let next = Staking::Parameters {
            minSelfBond: min_self_bond.map_or(now.minSelfBond, |bond| bond.0),
            unbonding: unbonding.map_or(Ok(now.unbonding), |s| time("unbonding", s))?,
            jailTime: jail_time.map_or(Ok(now.jailTime), |s| time("jail time", s))?,
            maxSeats: max_seats.unwrap_or(now.maxSeats),
            commissionStep: commission_step.unwrap_or(now.commissionStep),
            minViews: min_views.unwrap_or(now.minViews),
            minLedPpm: min_led_ppm.unwrap_or(now.minLedPpm),
        };
        something(next != now, "a parameter of staking with another value than now")?;
        Ok(Call::new(
            addresses::STAKING,
            Staking::setParametersCall { parameters_: next },
        ))
    }

    async fn slashing_parameters(&self, change: &Change) -> Result<Call, ClientError> {
        let Change::Slashing {
            challenger_bond,
            appeal_window,
            equivocation_ppm,
            downtime_ppm,
            correlation,
        } = change
        else {
            return Err(ClientError::NoStaking);
        };
        if !self.has_staking() {
            return Err(ClientError::NoStaking);
        }
        let now = self.view(addresses::SLASHING, Slashing::parametersCall {}).await?;
        let now = Slashing::Parameters {
            minBond: now.minBond,
            appealWindow: now.appealWindow,
            equivocationPpm: now.equivocationPpm,
            downtimePpm: now.downtimePpm,
            correlation: now.correlation,
        };
        let next = Slashing::Parameters {
            minBond: challenger_bond.map_or(now.minBond, |bond| bond.0),
            appealWindow: appeal_window.map_or(Ok(now.appealWindow), |s| time("appeal window", s))?,
            equivocationPpm: equivocation_ppm.unwrap_or(now.equivocationPpm),
            downtimePpm: downtime_ppm.unwrap_or(now.downtimePpm),
            correlation: correlation.unwrap_or(now.correlation),
        };
        something(next != now, "a parameter of slashing with another value than now")?;
        Ok(Call::new(
            addresses::SLASHING,
            Slashing::setParametersCall { parameters_: next },
        ))
    }

    async fn tier_change(&self, change: &Change) -> Result<Call, ClientError> {
        let Change::Tier {
            index,
            threshold,
            discount_bps,
            requests_per_minute,
            max_request_bytes,
        } = change
        else {
            return Err(GovernanceError::None.into());
        };
        let mut tiers = self.view(addresses::FEATURE_TIERS, FeatureTiers::tiersCall {}).await?;
        let last = tiers.last().cloned();
        if let Some(last) = last.filter(|_| *index == tiers.len()) {
            // A new highest one begins with the terms of the one below.
            tiers.push(last);
        }
        let count = tiers.len();
        let Some(tier) = tiers.get_mut(*index) else {
            let expected = format!("0 to {count}: a tier, or the next one");
            return Err(GovernanceError::field("INDEX", expected, index).into());
        };
        let before = tier.clone();
        tier.threshold = threshold.map_or(tier.threshold, |threshold| threshold.0);
        tier.discountBps = discount_bps.unwrap_or(tier.discountBps);
        tier.requestsPerMinute = requests_per_minute.unwrap_or(tier.requestsPerMinute);
        tier.maxRequestBytes = max_request_bytes.unwrap_or(tier.maxRequestBytes);
        something(
            *tier != before,
            "--threshold, --discount-bps, --requests-per-minute or --max-request-bytes with another value than now",
        )?;
        Ok(Call::new(
            addresses::FEATURE_TIERS,
            FeatureTiers::setTiersCall { tiers_: tiers },
        ))
    }
}

fn setting(setting: &Setting) -> Result<Call, ClientError> {
    let governor = addresses::GOVERNOR;
    Ok(match setting {
        Setting::VotingDelay(seconds) => {
            let most = Uint::<48, 1>::MAX.to::<u64>();
            if *seconds > most {
                return Err(GovernanceError::field("--delay", format!("at most {most}"), seconds).into());
            }
            let call = Governor::setVotingDelayCall {
                newVotingDelay: Uint::from(*seconds),
            };
            Call::new(governor, call)
        }
        Setting::VotingPeriod(seconds) => {
            let call = Governor::setVotingPeriodCall {
                newVotingPeriod: *seconds,
            };
            Call::new(governor, call)
        }
        Setting::ProposalThreshold(votes) => {
            let call = Governor::setProposalThresholdCall {
                newProposalThreshold: votes.to_u256(),
            };
            Call::new(governor, call)
        }
        Setting::QuorumBps(bps) => {
            let call = Governor::updateQuorumNumeratorCall {
                newQuorumNumerator: U256::from(*bps),
            };
            Call::new(governor, call)
        }
        Setting::TimelockDelay(seconds) => {
            let call = Timelock::updateDelayCall {
                newDelay: U256::from(*seconds),
            };
            Call::new(addresses::TIMELOCK, call)
        }
    })
}

fn something(is: bool, expected: &'static str) -> Result<(), ClientError> {
    if is {
        return Ok(());
    }
    Err(GovernanceError::field("change", expected, "nothing to change").into())
}

/// Seconds in 40 bits, as contracts keep them.
fn time(field: &'static str, seconds: u64) -> Result<Uint<40, 1>, ClientError> {
    let most = Uint::<40, 1>::MAX.to::<u64>();
    if seconds > most {
        return Err(GovernanceError::field(field, format!("at most {most} s"), seconds).into());
    }
    Ok(Uint::from(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(target: Address, call: impl SolCall) -> String {
        Call::new(target, call).describe()
    }

    #[test]
    fn a_call_is_described_from_its_bytes() {
        let to = Address::repeat_byte(7);
        let amount = U256::from(5_u64) * U256::from(10_u64).pow(U256::from(18_u64));
        let spend = Treasury::spendCall {
            token: addresses::OPG,
            to,
            amount,
        };
        let text = describe(addresses::TREASURY, spend.clone());
        assert_eq!(text, format!("pays 5 OPG out of the treasury to {to}"));
        // The same bytes mean nothing elsewhere, and others nothing there.
        let text = describe(to, spend);
        assert!(text.contains("does not know") && text.contains("0x"), "{text}");
        for data in [&[][..], &[1, 2], &[0xff; 40]] {
            let call = Call {
                target: addresses::TREASURY,
                value: Amount(1),
                calldata: data.to_vec().into(),
            };
            let text = call.describe();
            assert!(text.contains("does not know") && text.contains("native OPG"), "{text}");
        }
        let text = describe(addresses::TIMELOCK, Timelock::updateDelayCall { newDelay: U256::MAX });
        assert!(text.contains(&U256::MAX.to_string()), "{text}");
    }

    #[test]
    fn signatures_and_arguments_become_calldata() {
        let target = Address::repeat_byte(1);
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let call = Call::by_signature(
            target,
            Amount::ZERO,
            "spend(address,address,uint256)",
            &strings(&[
                "0x0000000000000000000000000000000000001001",
                "0x0707070707070707070707070707070707070707",
                "12",
            ]),
        )
        .unwrap();
        let expected = Treasury::spendCall {
            token: addresses::OPG,
            to: Address::repeat_byte(7),
            amount: U256::from(12),
        };
        assert_eq!(call.calldata, expected.abi_encode());
        let windows = Call::by_signature(target, Amount::ZERO, "setWindows(uint40[4])", &strings(&["[1,2,3,4]"]));
        let expected = ReceiptLedger::setWindowsCall {
            windows: [1, 2, 3, 4].map(Uint::<40, 1>::from),
        };
        assert_eq!(windows.unwrap().calldata, expected.abi_encode());
        for (signature, arguments, named) in [
            ("spend", &["1"][..], "signature"),
            ("spend(adress)", &["1"], "signature"),
            ("spend(address)", &[], "1 arguments"),
            ("spend(address)", &["0x12"], "address"),
            ("spend(uint8)", &["256"], "uint8"),
        ] {
            let error = Call::by_signature(target, Amount::ZERO, signature, &strings(arguments)).unwrap_err();
            assert!(error.to_string().contains(named), "{signature}: {error}");
        }
    }

    #[test]
    fn drafts_are_read_as_they_are_printed() {
        let draft = super::super::Draft {
            description: "Title\n\nwhy".into(),
            calls: vec![Call {
                target: Address::repeat_byte(1),
                value: Amount(3),
                calldata: Bytes::from_static(&[1, 2, 3, 4]),
            }],
        };
        let plain = serde_json::to_string(&draft).unwrap();
        assert_eq!(super::super::Draft::from_json(&plain).unwrap(), draft);
        let printed = serde_json::json!({ "draft": draft, "dry_run": true }).to_string();
        assert_eq!(super::super::Draft::from_json(&printed).unwrap(), draft);
        for bad in ["", "{}", r#"{"description":"x","calls":[{"target":"0x12"}]}"#] {
            assert!(super::super::Draft::from_json(bad).is_err(), "{bad}");
        }
    }
}
