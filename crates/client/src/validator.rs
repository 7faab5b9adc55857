//! What an operator does with its validator: register, change keys or commission, leave jail, leave for ever (docs/specs/staking.md §3).

use alloy_primitives::{Address, B256, Bytes, U64, keccak256};
use alloy_sol_types::SolCall as _;
use opg_contracts::{Staking, ValidatorKeys::KeyRegistration, addresses};
use opg_primitives::money::Amount;

use crate::{
    Client, ClientError, Validator,
    chain::{Asset, Sent},
    wallet::Wallet,
};

/// A validator that cannot be registered or changed so. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// One validator for an operator, ever.
    #[error(
        "{operator} has registered a validator before, and an operator has one for ever; use another wallet with --key"
    )]
    Registered {
        /// The operator.
        operator: Address,
    },
    /// The operator has no validator, or has left.
    #[error(
        "{operator} is no validator that can be changed: it has not registered or has left; `opg validators` lists them"
    )]
    NotRegistered {
        /// The operator.
        operator: Address,
    },
    /// Too little own stake.
    #[error("field `bond`: expected at least {needed} OPG (the network's least own stake), got {got}")]
    Bond {
        /// The network's minimum.
        needed: Amount,
        /// What was offered.
        got: Amount,
    },
    /// A key was registered before, by anybody.
    #[error(
        "key `{key}` of the keys file was registered before, and keys are taken for ever; make new ones with `opg node init`"
    )]
    KeyTaken {
        /// `identity`, `bls` or `system`.
        key: &'static str,
    },
    /// The system account must sign nothing but system transactions.
    #[error("system account {system} {reason}; it must be unused (decision D16): make new keys with `opg node init`")]
    SystemAccount {
        /// The account.
        system: Address,
        /// What is wrong.
        reason: &'static str,
    },
    /// The keys cannot be proven; the reason names the file and the key.
    #[error("{0}")]
    Keys(String),
    /// A commission out of its range.
    #[error("field `commission`: expected {expected}, got {got} basis points")]
    Commission {
        /// What would be good.
        expected: String,
        /// What was given.
        got: u16,
    },
    /// It is free, or not yet.
    #[error("{operator} cannot leave jail: {reason}")]
    Jail {
        /// The operator.
        operator: Address,
        /// Why.
        reason: String,
    },
}

/// What a registration locks and gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewValidator {
    /// The validator's own stake.
    pub bond: Amount,
    /// Its commission, basis points.
    pub commission_bps: u16,
    /// Native coin that the system account is filled up to, for its transactions' gas.
    pub gas: Amount,
}

impl Client {
    /// The current epoch, which proofs of possession name.
    ///
    /// # Errors
    /// [`ClientError::NoStaking`], or if no full node answers.
    pub async fn epoch(&self) -> Result<u64, ClientError> {
        if !self.has_staking() {
            return Err(ClientError::NoStaking);
        }
        self.view(addresses::STAKING, Staking::epochCall {}).await
    }

    /// Checks what the contract would refuse, in words.
    ///
    /// # Errors
    /// [`RegistrationError`], or too little OPG.
    pub async fn check_registration(
        &self,
        operator: Address,
        keys: &KeyRegistration,
        bls: &[u8],
        terms: &NewValidator,
    ) -> Result<(), ClientError> {
        if self.validator(operator).await?.is_some() {
            return Err(RegistrationError::Registered { operator }.into());
        }
        let needed = self.staking().await?.min_self_bond;
        if terms.bond < needed {
            return Err(RegistrationError::Bond {
                needed,
                got: terms.bond,
            }
            .into());
        }
        if terms.commission_bps > 10_000 {
            return Err(RegistrationError::Commission {
                expected: "at most 10,000".into(),
                got: terms.commission_bps,
            }
            .into());
        }
        let balances = self.balances(operator).await?;
        if balances.opg < terms.bond {
            return Err(ClientError::InsufficientFunds {
                address: operator,
                asset: "OPG",
                available: balances.opg,
                needed: terms.bond,
            });
        }
        self.check_keys(keys, bls).await
    }

    /// Whether keys are free, and the system account unused.
    async fn check_keys(&self, keys: &KeyRegistration, bls: &[u8]) -> Result<(), ClientError> {
        let at = addresses::STAKING;
        let taken = |key: B256| self.view(at, Staking::keyTakenCall { key });
        let system = keys.system;
        let nonce = self.rpc().call::<_, U64>("eth_getTransactionCount", (system, "latest"));
        let code = self.rpc().call::<_, Bytes>("eth_getCode", (system, "latest"));
        let (identity, bls, known, nonce, code) = futures::try_join!(
            taken(keys.consensusKey),
            taken(keccak256(bls)),
            self.view(at, Staking::keyOfSystemCall { system }),
            async { Ok(nonce.await?) },
            async { Ok(code.await?) },
        )?;
        for (key, taken) in [("identity", identity), ("bls", bls), ("system", !known.is_zero())] {
            if taken {
                return Err(RegistrationError::KeyTaken { key }.into());
            }
        }
        let reason = match (nonce.is_zero(), code.is_empty()) {
            (true, true) => return Ok(()),
            (false, _) => "has sent transactions",
            (true, false) => "has code",
        };
        Err(RegistrationError::SystemAccount { system, reason }.into())
    }

    /// Registers a validator with the wallet as its operator: gives its system account coin for gas, approves exactly the bond, and locks
    /// it. `keys` makes the proofs for an epoch. Waits until all is final.
    ///
    /// # Errors
    /// As [`Client::check_registration`], or if a transaction fails.
    pub async fn register_validator<E: Into<ClientError>>(
        &self,
        wallet: &Wallet,
        terms: &NewValidator,
        bls: &[u8],
        keys: impl Fn(u64) -> Result<KeyRegistration, E>,
    ) -> Result<Vec<Sent>, ClientError> {
        let operator = wallet.address();
        let first = keys(self.epoch().await?).map_err(Into::into)?;
        self.check_registration(operator, &first, bls, terms).await?;
        let mut sent = Vec::new();
        let has = self.balances(first.system).await?.native;
        let missing = terms.gas.saturating_sub(has);
        if !missing.is_zero() {
            sent.push(self.send(wallet, first.system, missing, Asset::Native).await?);
        }
        sent.append(&mut self.allow(wallet, addresses::STAKING, terms.bond).await?);
        // Proofs are good for two epochs, and epochs may be short.
        let keys = keys(self.epoch().await?).map_err(Into::into)?;
        let call = Staking::registerCall {
            keys,
            commissionBps: terms.commission_bps,
            bond: terms.bond.to_u256(),
        };
        sent.push(self.call(wallet, addresses::STAKING, call.abi_encode().into()).await?);
        Ok(sent)
    }

    /// Gives the wallet's validator other keys, from its next seat on.
    ///
    /// # Errors
    /// [`RegistrationError`], or if a transaction fails.
    pub async fn rotate_keys<E: Into<ClientError>>(
        &self,
        wallet: &Wallet,
        gas: Amount,
        bls: &[u8],
        keys: impl Fn(u64) -> Result<KeyRegistration, E>,
    ) -> Result<Vec<Sent>, ClientError> {
        self.own_validator(wallet.address()).await?;
        let keys_of = |epoch| keys(epoch).map_err(Into::into);
        let first = keys_of(self.epoch().await?)?;
        self.check_keys(&first, bls).await?;
        let mut sent = Vec::new();
        let missing = gas.saturating_sub(self.balances(first.system).await?.native);
        if !missing.is_zero() {
            sent.push(self.send(wallet, first.system, missing, Asset::Native).await?);
        }
        let call = Staking::rotateKeysCall {
            keys: keys_of(self.epoch().await?)?,
        };
        sent.push(self.call(wallet, addresses::STAKING, call.abi_encode().into()).await?);
        Ok(sent)
    }

    /// The validator of an operator that has not left.
    ///
    /// # Errors
    /// [`RegistrationError::NotRegistered`].
    pub async fn own_validator(&self, operator: Address) -> Result<Validator, ClientError> {
        let found = self.validator(operator).await?;
        let found = found.filter(|validator| !validator.exited);
        found.ok_or_else(|| RegistrationError::NotRegistered { operator }.into())
    }

    /// Takes the wallet's validator out of the network for ever. A seat lasts until its epoch ends; stake is taken out by
    /// [`Client::unstake`].
    ///
    /// # Errors
    /// [`RegistrationError::NotRegistered`], or if the transaction fails.
    pub async fn exit_validator(&self, wallet: &Wallet) -> Result<Sent, ClientError> {
        self.own_validator(wallet.address()).await?;
        self.call(wallet, addresses::STAKING, Staking::exitCall {}.abi_encode().into())
            .await
    }

    /// Takes the wallet's validator out of jail.
    ///
    /// # Errors
    /// [`RegistrationError::Jail`] saying why not, or if the transaction fails.
    pub async fn unjail(&self, wallet: &Wallet) -> Result<Sent, ClientError> {
        let operator = wallet.address();
        let validator = self.own_validator(operator).await?;
        let (least, now) = (self.staking().await?.min_self_bond, self.block_time().await?);
        let reason = match validator.jailed_until {
            None => Some("it is not in jail".to_owned()),
            Some(_) if validator.tombstoned => Some("it is tombstoned, for ever".to_owned()),
            Some(_) if validator.open_cases != 0 => Some("a slashing case about it is open".to_owned()),
            Some(until) if until > now => Some(format!("{} s are left", until - now)),
            Some(_) if validator.self_stake < least => Some(format!(
                "its own stake is {} OPG, the least is {least}; add to it with `opg stake`",
                validator.self_stake
            )),
            Some(_) => None,
        };
        if let Some(reason) = reason {
            return Err(RegistrationError::Jail { operator, reason }.into());
        }
        self.call(wallet, addresses::STAKING, Staking::unjailCall {}.abi_encode().into())
            .await
    }

    /// Sets the commission of the wallet's validator: once an epoch, by a bounded step.
    ///
    /// # Errors
    /// [`RegistrationError::Commission`], or if the transaction fails.
    pub async fn set_commission(&self, wallet: &Wallet, bps: u16) -> Result<Sent, ClientError> {
        let operator = wallet.address();
        let now = self.own_validator(operator).await?.commission_bps;
        let parameters = self.view(addresses::STAKING, Staking::parametersCall {}).await?;
        let (entry, epoch) = futures::try_join!(
            self.view(addresses::STAKING, Staking::validatorsCall { operator }),
            self.epoch()
        )?;
        let wrong = |expected: String| RegistrationError::Commission { expected, got: bps };
        if bps > 10_000 || now.abs_diff(bps) > parameters.commissionStep {
            let (least, most) = (
                now.saturating_sub(parameters.commissionStep),
                now.saturating_add(parameters.commissionStep).min(10_000),
            );
            return Err(wrong(format!("{least} to {most} (one step an epoch from {now})")).into());
        }
        if u64::from(entry.commissionEpoch) == epoch.saturating_add(1) {
            return Err(wrong("one change an epoch, and it has changed in this one".into()).into());
        }
        let call = Staking::setCommissionCall { commissionBps: bps };
        self.call(wallet, addresses::STAKING, call.abi_encode().into()).await
    }
}
