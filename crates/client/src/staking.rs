//! Staking as a wallet sees it: validators, stake behind them, rewards, and what unbonds (docs/specs/staking.md).

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use opg_contracts::{
    Staking, addresses,
    staking::{MAX_CANDIDATES, MAX_SEATS},
};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Client, ClientError,
    chain::{Sent, amount},
    wallet::Wallet,
};

/// Validators that are asked for side by side.
const AT_ONCE: usize = 8;
/// Most unbondings of an account that are read, newest first.
const MAX_UNBONDINGS: u64 = 256;
/// Blocks that are searched for registrations at once: less than full nodes allow.
const LOG_SPAN: u64 = 9_000;

/// A log, as far as it is needed.
#[derive(Deserialize)]
struct Registered {
    topics: Vec<B256>,
}

/// One validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Validator {
    /// Account that owns it.
    pub operator: Address,
    /// All stake behind it.
    pub stake: Amount,
    /// Its operator's own stake behind it.
    pub self_stake: Amount,
    /// Part of its rewards that the operator keeps, basis points.
    pub commission_bps: u16,
    /// Whether it has a seat in the current epoch.
    pub seated: bool,
    /// Whether it could get a seat at the end of the epoch, with enough stake.
    pub eligible: bool,
    /// In jail: Unix seconds from which it may ask to leave.
    pub jailed_until: Option<u64>,
    /// Never to be seated again.
    pub tombstoned: bool,
    /// Left for ever.
    pub exited: bool,
    /// Slashing cases that await their end: until then it takes no stake, and recent stake stays where it is.
    pub open_cases: u16,
}

/// The staking contract's state at the newest block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StakingState {
    /// The current epoch.
    pub epoch: u64,
    /// Stake behind all validators.
    pub total_stake: Amount,
    /// Least own stake of a validator with a seat.
    pub min_self_bond: Amount,
    /// Seconds between [`Client::unstake`] and [`Client::withdraw_unbonded`].
    pub unbonding_seconds: u64,
    /// Seats and candidates, most stake first.
    pub validators: Vec<Validator>,
}

/// An account's stake behind one validator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Position {
    /// The validator's operator.
    pub validator: Address,
    /// What the stake is worth.
    pub stake: Amount,
    /// Rewards that [`Client::claim_rewards`] would pay now.
    pub rewards: Amount,
}

/// Stake on its way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Unbonding {
    /// Its number among those of the account.
    pub id: u64,
    /// The validator that it was behind.
    pub validator: Address,
    /// What it is worth; a slash for an earlier fault lowers it.
    pub amount: Amount,
    /// Unix seconds from which it can be withdrawn.
    pub ready_at: u64,
}

/// All that an account has in staking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Positions {
    /// Behind which validators it has stake.
    pub positions: Vec<Position>,
    /// What it waits for.
    pub unbonding: Vec<Unbonding>,
}

impl Client {
    /// Validators with a seat, and candidates for one.
    ///
    /// # Errors
    /// [`ClientError::NoStaking`], or if no full node answers.
    pub async fn staking(&self) -> Result<StakingState, ClientError> {
        self.staking_of(Vec::new()).await
    }

    /// The same with everybody who ever registered, also who has left.
    ///
    /// # Errors
    /// As [`Client::staking`].
    pub async fn staking_with_former(&self) -> Result<StakingState, ClientError> {
        self.require_staking().await?;
        // Those of block 0 left no event.
        let mut known: Vec<Address> = self
            .network()
            .genesis
            .validators
            .iter()
            .map(|validator| validator.operator)
            .collect();
        let mut upper = self.height().await?;
        loop {
            let lower = upper.saturating_sub(LOG_SPAN);
            let filter = json!({
                "address": addresses::STAKING, "topics": [Staking::ValidatorRegistered::SIGNATURE_HASH],
                "fromBlock": format!("0x{lower:x}"), "toBlock": format!("0x{upper:x}"),
            });
            let logs: Vec<Registered> = self.rpc().call("eth_getLogs", [filter]).await?;
            known.extend(
                logs.iter()
                    .filter_map(|log| log.topics.get(1))
                    .map(|word| Address::from_word(*word)),
            );
            if lower == 0 {
                return self.staking_of(known).await;
            }
            upper = lower - 1;
        }
    }

    /// Seats, candidates and `known`.
    async fn staking_of(&self, known: Vec<Address>) -> Result<StakingState, ClientError> {
        let at = addresses::STAKING;
        self.require_staking().await?;
        let (epoch, total, parameters, count) = futures::try_join!(
            self.view(at, Staking::epochCall {}),
            self.view(at, Staking::totalStakeCall {}),
            self.view(at, Staking::parametersCall {}),
            self.view(at, Staking::candidateCountCall {}),
        )?;
        let seats = self.view(at, Staking::seatsCall { epoch_: epoch }).await?;
        let seated: Vec<Address> = seats.iter().take(MAX_SEATS).map(|seat| seat.operator).collect();
        let count = usize::try_from(count).unwrap_or(MAX_CANDIDATES).min(MAX_CANDIDATES);
        let mut operators: Vec<Address> = stream::iter(0..count)
            .map(|slot| self.view(at, Staking::candidatesCall(U256::from(slot))))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        operators.extend(&seated);
        operators.extend(known);
        operators.sort_unstable();
        operators.dedup();
        let seated = &seated;
        let mut validators: Vec<Validator> = stream::iter(operators)
            .map(|operator| async move {
                let found = self.read_validator(operator).await?;
                Ok::<_, ClientError>(found.map(|validator| Validator {
                    seated: seated.contains(&operator),
                    ..validator
                }))
            })
            .buffered(AT_ONCE)
            .try_filter_map(|found| async { Ok(found) })
            .try_collect()
            .await?;
        validators.sort_by(|a, b| b.stake.cmp(&a.stake).then(a.operator.cmp(&b.operator)));
        Ok(StakingState {
            epoch,
            total_stake: amount(total)?,
            min_self_bond: Amount(parameters.minSelfBond),
            unbonding_seconds: parameters.unbonding.to(),
            validators,
        })
    }

    /// One validator of the newest block; `None` if the account never registered one.
    ///
    /// # Errors
    /// [`ClientError::NoStaking`], or if no full node answers.
    pub async fn validator(&self, operator: Address) -> Result<Option<Validator>, ClientError> {
        self.require_staking().await?;
        let Some(validator) = self.read_validator(operator).await? else {
            return Ok(None);
        };
        let epoch = self.view(addresses::STAKING, Staking::epochCall {}).await?;
        let seats = self
            .view(addresses::STAKING, Staking::seatsCall { epoch_: epoch })
            .await?;
        Ok(Some(Validator {
            seated: seats.iter().any(|seat| seat.operator == operator),
            ..validator
        }))
    }

    /// What `account` has staked, has earned and waits for.
    ///
    /// # Errors
    /// [`ClientError::NoStaking`], or if no full node answers.
    pub async fn positions(&self, account: Address) -> Result<Positions, ClientError> {
        let at = addresses::STAKING;
        self.require_staking().await?;
        let (operators, count) = futures::try_join!(
            self.view(at, Staking::positionsOfCall { account }),
            self.view(at, Staking::unbondingCountCall { account }),
        )?;
        let mut positions = Vec::new();
        for operator in operators {
            let (stake, rewards) = futures::try_join!(
                self.view(at, Staking::stakeOf_1Call { operator, account }),
                self.view(at, Staking::pendingRewardsCall { operator, account }),
            )?;
            positions.push(Position {
                validator: operator,
                stake: amount(stake)?,
                rewards: amount(rewards)?,
            });
        }
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let mut unbonding = Vec::new();
        for id in count.saturating_sub(MAX_UNBONDINGS)..count {
            let number = U256::from(id);
            let entry = self.view(at, Staking::unbondingsCall { account, _1: number }).await?;
            // Paid out ones keep their number.
            if entry.shares == 0 {
                continue;
            }
            let value = self
                .view(at, Staking::unbondingValueCall { account, id: number })
                .await?;
            unbonding.push(Unbonding {
                id,
                validator: entry.operator,
                amount: amount(value)?,
                ready_at: entry.readyAt.to(),
            });
        }
        Ok(Positions { positions, unbonding })
    }

    /// Locks `value` behind a validator: first an approval for exactly that, if the one there is smaller. Waits until it is final.
    ///
    /// # Errors
    /// If the wallet has too little OPG or gas, the validator takes no stake, or a minute passes.
    pub async fn stake(&self, wallet: &Wallet, validator: Address, value: Amount) -> Result<Sent, ClientError> {
        self.allow(wallet, addresses::STAKING, value).await?;
        let call = Staking::stakeCall {
            operator: validator,
            amount: value.to_u256(),
        };
        self.call(wallet, addresses::STAKING, call.abi_encode().into()).await
    }

    /// Takes `value` from behind a validator, or everything. It can be withdrawn after the unbonding time.
    ///
    /// # Errors
    /// If the wallet has less there, cannot pay the gas, or a minute passes.
    pub async fn unstake(
        &self,
        wallet: &Wallet,
        validator: Address,
        value: Option<Amount>,
    ) -> Result<Sent, ClientError> {
        let call = Staking::unstakeCall {
            operator: validator,
            amount: value.map_or(U256::MAX, Amount::to_u256),
        };
        self.call(wallet, addresses::STAKING, call.abi_encode().into()).await
    }

    /// Pays the wallet its rewards from one validator.
    ///
    /// # Errors
    /// If the wallet cannot pay the gas, or a minute passes.
    pub async fn claim_rewards(&self, wallet: &Wallet, validator: Address) -> Result<Sent, ClientError> {
        let call = Staking::claimCall { operator: validator };
        self.call(wallet, addresses::STAKING, call.abi_encode().into()).await
    }

    /// Pays the wallet what has unbonded.
    ///
    /// # Errors
    /// If it is not ready or frozen by an open case, the wallet cannot pay the gas, or a minute passes.
    pub async fn withdraw_unbonded(&self, wallet: &Wallet, id: u64) -> Result<Sent, ClientError> {
        let call = Staking::withdrawCall {
            account: wallet.address(),
            id: U256::from(id),
        };
        self.call(wallet, addresses::STAKING, call.abi_encode().into()).await
    }

    /// Without this, answers of an address without code would not be understood.
    pub(crate) async fn require_staking(&self) -> Result<(), ClientError> {
        let code: Bytes = self.rpc().call("eth_getCode", (addresses::STAKING, "latest")).await?;
        if code.is_empty() {
            return Err(ClientError::NoStaking);
        }
        Ok(())
    }

    /// A validator without its seat, which stands in the epoch's list.
    async fn read_validator(&self, operator: Address) -> Result<Option<Validator>, ClientError> {
        let at = addresses::STAKING;
        let entry = self.view(at, Staking::validatorsCall { operator }).await?;
        if entry.keyId == 0 {
            return Ok(None);
        }
        let own = Staking::stakeOf_1Call {
            operator,
            account: operator,
        };
        let (stake, self_stake, eligible) = futures::try_join!(
            self.view(at, Staking::stakeOf_0Call { operator }),
            self.view(at, own),
            self.view(at, Staking::isEligibleCall { operator }),
        )?;
        let jailed_until: u64 = entry.jailedUntil.to();
        Ok(Some(Validator {
            operator,
            stake: amount(stake)?,
            self_stake: amount(self_stake)?,
            commission_bps: entry.commissionBps,
            seated: false,
            eligible,
            jailed_until: (jailed_until != 0).then_some(jailed_until),
            tombstoned: entry.tombstoned,
            exited: entry.exited,
            open_cases: entry.openCases,
        }))
    }
}
