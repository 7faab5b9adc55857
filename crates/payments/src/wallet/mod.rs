//! The payer's side of channels: what was signed, what was charged, and what may still be spent. No I/O: the caller keeps the JSON,
//! sends the headers and says what time it is.
//!
//! A [`ChannelWallet`] signs vouchers before the server asks: one round trip per call. It counts by itself and adopts a server's
//! count only together with its own signature on a voucher that covers it.

mod limits;
#[cfg(test)]
mod tests;

pub use limits::{LimitError, SpendLimits, SpendLog};

use crate::{
    channel::{ChannelConfig, Deposit, DepositAuthorization, Voucher},
    eip712::Domain,
    signature::SecretKey,
    x402::{
        BATCH_SETTLEMENT, BatchAction, BatchExtra, BatchPayload, ChannelState, ChargeExtra, PaymentRequirements,
        SignedDeposit, SignedVoucher, VoucherState, X402Error,
    },
};
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};

/// Why a wallet does not sign, or does not believe a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// The offer cannot be read.
    #[error(transparent)]
    Offer(#[from] X402Error),
    /// The offer is not for this channel.
    #[error("offer.{field} is {got}, this channel has {expected}")]
    OtherChannel {
        /// Field of the offer.
        field: &'static str,
        /// The channel's value.
        expected: String,
        /// The offer's value.
        got: String,
    },
    /// The channel does not hold enough: deposit first.
    #[error("the channel holds {balance} wei, the voucher would need {needed} wei: deposit {missing} wei or more")]
    Balance {
        /// Deposited.
        balance: u128,
        /// Ceiling needed.
        needed: u128,
        /// Difference.
        missing: u128,
    },
    /// A sum does not fit 128 bits.
    #[error("{0} does not fit 128 bits")]
    Range(&'static str),
    /// The server says that it charged more than the call's bound, or counts what was never signed.
    #[error("the server reports {what} {got} wei, at most {limit} wei are possible")]
    Overcharged {
        /// What it reports.
        what: &'static str,
        /// Reported.
        got: u128,
        /// Possible.
        limit: u128,
    },
    /// The server's state does not carry this wallet's signature.
    #[error("the server's state is not adopted: {problem}")]
    NotOurs {
        /// What is missing or wrong.
        problem: &'static str,
    },
}

/// One channel of the payer, as the caller persists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelWallet {
    /// Chain of the channel.
    pub chain_id: u64,
    /// The channel.
    pub config: ChannelConfig,
    /// Deposited and confirmed, less refunds and withdrawals.
    pub balance: Amount,
    /// Charged so far, as far as this wallet knows.
    pub charged: Amount,
    /// Highest ceiling signed.
    pub signed: Amount,
    /// Bounds of calls in flight: voucher ceiling and bound.
    pub in_flight: Vec<InFlight>,
}

/// A call whose charge is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Ceiling of its voucher: names the call.
    pub ceiling: Amount,
    /// The most that it can cost.
    pub bound: Amount,
}

impl ChannelWallet {
    /// The channel that an offer of `batch-settlement` asks for. Nothing is deposited yet.
    ///
    /// # Errors
    /// The offer is not one of `batch-settlement`, or cannot be read.
    pub fn for_offer(
        offer: &PaymentRequirements,
        payer: Address,
        authorizer: Address,
        salt: B256,
    ) -> Result<Self, WalletError> {
        let extra = batch_extra(offer)?;
        let chain_id = offer.network.strip_prefix("eip155:").and_then(|id| id.parse().ok());
        Ok(Self {
            chain_id: chain_id.ok_or_else(|| WalletError::OtherChannel {
                field: "network",
                expected: "eip155:<chain id>".to_owned(),
                got: offer.network.chars().take(40).collect(),
            })?,
            config: ChannelConfig {
                payer,
                payer_authorizer: authorizer,
                receiver: offer.pay_to,
                receiver_authorizer: extra.receiver_authorizer,
                token: offer.asset,
                withdraw_delay: extra.withdraw_delay,
                salt,
            },
            balance: Amount::ZERO,
            charged: Amount::ZERO,
            signed: Amount::ZERO,
            in_flight: Vec::new(),
        })
    }

    /// The channel's id.
    #[must_use]
    pub fn id(&self) -> B256 {
        self.config.id(&self.domain())
    }

    fn domain(&self) -> Domain {
        Domain::batch_settlement(self.chain_id)
    }

    /// What could still be signed for.
    #[must_use]
    pub fn available(&self) -> Amount {
        let bound = self
            .in_flight
            .iter()
            .fold(self.charged, |sum, call| sum.saturating_add(call.bound));
        self.balance.saturating_sub(bound)
    }

    /// Whether an offer is for this channel.
    ///
    /// # Errors
    /// The first field that differs.
    pub fn check_offer(&self, offer: &PaymentRequirements) -> Result<(), WalletError> {
        let extra = batch_extra(offer)?;
        let network = crate::x402::network(self.chain_id);
        if offer.network != network {
            return Err(WalletError::OtherChannel {
                field: "network",
                expected: network,
                got: offer.network.chars().take(40).collect(),
            });
        }
        let differ = |field, expected: Address, got: Address| {
            Err(WalletError::OtherChannel {
                field,
                expected: expected.to_string(),
                got: got.to_string(),
            })
        };
        let config = &self.config;
        if offer.asset != config.token {
            return differ("asset", config.token, offer.asset);
        }
        if offer.pay_to != config.receiver {
            return differ("payTo", config.receiver, offer.pay_to);
        }
        if extra.receiver_authorizer != config.receiver_authorizer {
            return differ(
                "extra.receiverAuthorizer",
                config.receiver_authorizer,
                extra.receiver_authorizer,
            );
        }
        if extra.withdraw_delay > config.withdraw_delay {
            return Err(WalletError::OtherChannel {
                field: "extra.withdrawDelay",
                expected: config.withdraw_delay.to_string(),
                got: extra.withdraw_delay.to_string(),
            });
        }
        Ok(())
    }

    /// Signs for a call that costs at most `bound`, without being asked first. With `headroom`, calls may overlap and each ceiling is
    /// new; without, the ceiling is exactly what a stock server expects and the call before must have ended. Persist the wallet
    /// before the header leaves.
    ///
    /// # Errors
    /// A call is in flight and `headroom` is off, or the channel does not hold enough.
    pub fn sign_call(
        &mut self,
        bound: Amount,
        headroom: bool,
        authorizer: &SecretKey,
    ) -> Result<BatchPayload, WalletError> {
        if !headroom && !self.in_flight.is_empty() {
            return Err(WalletError::NotOurs {
                problem: "a call is in flight and the server takes one at a time",
            });
        }
        let base = self
            .in_flight
            .iter()
            .try_fold(self.charged, |sum, call| sum.checked_add(call.bound));
        let needed = base
            .and_then(|base| base.checked_add(bound))
            .ok_or(WalletError::Range("the voucher's ceiling"))?;
        let ceiling = if headroom {
            needed.max(self.signed.saturating_add(Amount(1)))
        } else {
            needed
        };
        if ceiling > self.balance {
            return Err(WalletError::Balance {
                balance: self.balance.wei(),
                needed: ceiling.wei(),
                missing: ceiling.saturating_sub(self.balance).wei(),
            });
        }
        self.signed = self.signed.max(ceiling);
        self.in_flight.push(InFlight { ceiling, bound });
        Ok(self.payload(ceiling, BatchAction::Voucher, authorizer))
    }

    /// Signs a deposit of `amount` and a first call together. The wallet's balance grows when [`deposited`](Self::deposited) is called.
    ///
    /// # Errors
    /// As [`sign_call`](Self::sign_call), with the deposit counted.
    pub fn sign_deposit(
        &mut self,
        amount: Amount,
        bound: Amount,
        authorization: DepositAuthorization,
        token: &Domain,
        payer: &SecretKey,
        authorizer: &SecretKey,
    ) -> Result<BatchPayload, WalletError> {
        let balance = self.balance;
        self.balance = balance.checked_add(amount).ok_or(WalletError::Range("the deposit"))?;
        let signed = self.sign_call(bound, false, authorizer);
        self.balance = balance;
        let mut payload = signed?;
        let deposit = Deposit::new(&self.config, &self.domain(), amount, authorization);
        let signature = deposit.sign(token, &Domain::permit2(self.chain_id), payer);
        payload.action = BatchAction::Deposit(SignedDeposit {
            deposit,
            signature: signature.to_vec().into(),
        });
        Ok(payload)
    }

    /// Asks for the money back: everything that is not charged, or `amount` of it. Only between calls.
    ///
    /// # Errors
    /// A call is in flight.
    pub fn sign_refund(&mut self, amount: Option<Amount>, authorizer: &SecretKey) -> Result<BatchPayload, WalletError> {
        if !self.in_flight.is_empty() {
            return Err(WalletError::NotOurs {
                problem: "a call is in flight: wait for its charge before the refund",
            });
        }
        self.signed = self.signed.max(self.charged);
        Ok(self.payload(self.charged, BatchAction::Refund(amount), authorizer))
    }

    fn payload(&self, ceiling: Amount, action: BatchAction, authorizer: &SecretKey) -> BatchPayload {
        let voucher = Voucher {
            channel_id: self.id(),
            max_claimable: ceiling,
        };
        BatchPayload {
            config: self.config,
            voucher: SignedVoucher {
                voucher,
                signature: voucher.sign(&self.domain(), authorizer).to_vec().into(),
            },
            action,
        }
    }

    /// A deposit was confirmed.
    pub const fn deposited(&mut self, amount: Amount) {
        self.balance = self.balance.saturating_add(amount);
    }

    /// A refund or withdrawal of `amount` was confirmed.
    pub const fn taken_out(&mut self, amount: Amount) {
        self.balance = self.balance.saturating_sub(amount);
    }

    /// Takes the answer to the call whose voucher had this ceiling.
    ///
    /// # Errors
    /// More than the call's bound was charged: the server is wrong; its claim beyond what is signed fails on chain.
    pub fn answered(&mut self, ceiling: Amount, extra: &ChargeExtra) -> Result<Amount, WalletError> {
        let call = self.in_flight.iter().find(|call| call.ceiling == ceiling);
        let bound = call
            .ok_or(WalletError::NotOurs {
                problem: "no call is in flight with that voucher",
            })?
            .bound;
        if extra.channel_state.channel_id != self.id() {
            return Err(WalletError::NotOurs {
                problem: "channelState is another channel's",
            });
        }
        if extra.charged > bound {
            return Err(WalletError::Overcharged {
                what: "a charge of",
                got: extra.charged.wei(),
                limit: bound.wei(),
            });
        }
        self.charged = self.charged.saturating_add(extra.charged);
        self.in_flight.retain(|call| call.ceiling != ceiling);
        Ok(extra.charged)
    }

    /// The call was refused and cost nothing.
    pub fn refused(&mut self, ceiling: Amount) {
        self.in_flight.retain(|call| call.ceiling != ceiling);
    }

    /// Takes the corrective state of a 402 with a cumulative mismatch. It is adopted only if the server shows a voucher of this
    /// channel with this wallet's signature that covers its count, or counts no more than the chain says was claimed
    /// (`claimed_on_chain`, for a server that lost its books). Calls in flight are forgotten: the server counted them or not.
    ///
    /// # Errors
    /// The state is another channel's, is not signed by this wallet, or counts more than was signed.
    pub fn resynchronise(
        &mut self,
        state: &ChannelState,
        voucher: Option<&VoucherState>,
        authorizer: Address,
        claimed_on_chain: Option<Amount>,
    ) -> Result<(), WalletError> {
        if state.channel_id != self.id() {
            return Err(WalletError::NotOurs {
                problem: "channelState is another channel's",
            });
        }
        let charged = state.charged_cumulative.ok_or(WalletError::NotOurs {
            problem: "chargedCumulativeAmount is missing",
        })?;
        let signed = match voucher {
            Some(shown) => {
                let voucher = Voucher {
                    channel_id: self.id(),
                    max_claimable: shown.signed_max_claimable,
                };
                voucher
                    .recover(&self.domain(), &shown.signature, authorizer)
                    .map_err(|_| WalletError::NotOurs {
                        problem: "voucherState is not signed by this wallet",
                    })?;
                shown.signed_max_claimable
            }
            None => claimed_on_chain.ok_or(WalletError::NotOurs {
                problem: "voucherState is missing, and the chain was not asked",
            })?,
        };
        if charged > signed {
            return Err(WalletError::Overcharged {
                what: "a total of",
                got: charged.wei(),
                limit: signed.wei(),
            });
        }
        if claimed_on_chain.is_some_and(|claimed| charged < claimed) {
            return Err(WalletError::NotOurs {
                problem: "less is counted than the chain says was claimed",
            });
        }
        self.charged = charged;
        self.signed = self.signed.max(signed);
        self.in_flight.clear();
        Ok(())
    }

    /// Authorization of a deposit by ERC-3009: `salt` is 32 random bytes, the window ends `seconds` after `now`.
    #[must_use]
    pub const fn erc3009(salt: B256, now: u64, seconds: u64) -> DepositAuthorization {
        DepositAuthorization::Erc3009 {
            valid_after: 0,
            valid_before: now.saturating_add(seconds),
            salt: U256::from_be_bytes(salt.0),
        }
    }

    /// The wallet as JSON.
    ///
    /// # Errors
    /// None in practice; the encoder's.
    pub fn to_json(&self) -> Result<Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Bytes::from)
    }
}

fn batch_extra(offer: &PaymentRequirements) -> Result<BatchExtra, WalletError> {
    if offer.scheme == BATCH_SETTLEMENT {
        Ok(BatchExtra::parse(offer)?)
    } else {
        Err(WalletError::OtherChannel {
            field: "scheme",
            expected: BATCH_SETTLEMENT.to_owned(),
            got: offer.scheme.chars().take(40).collect(),
        })
    }
}
