//! Payment channels of the payer: opening, topping up, paying calls with vouchers signed beforehand, taking the rest back.

use crate::{
    Client, ClientError, Job,
    answer::AnswerError,
    chain::Sent,
    network::NodeEntry,
    offer::{self, Expected, OfferError},
    pay::{Authorized, Payment, now},
    purse::{Channel, Purse},
    registry::Model,
    rpc::read_body,
    wallet::{Wallet, random_bytes},
};
use alloy_primitives::{B256, aliases::U40};
use alloy_sol_types::SolCall as _;
use opg_contracts::{BatchSettlement, addresses};
use opg_payments::{
    channel::ChannelConfig,
    eip712::Domain,
    eip3009::{OPG_NAME, OPG_VERSION},
    wallet::ChannelWallet,
    x402::{
        self, BatchExtra, BatchPayload, PaymentPayload, PaymentRequired, PaymentRequirements, SettleResponse,
        facilitator::{FacilitatorRequest, SupportedResponse},
    },
};
use opg_primitives::{
    ids::{KeysetDigest, NodeId},
    mode::{Grade, Mode},
    money::{Amount, charge},
};
use opg_receipt::quote::request_digest;
use std::time::Duration;

/// Seconds for which a deposit's signature is good.
const DEPOSIT_SECONDS: u64 = 600;
/// Longest delay of a withdrawal that this client accepts without being told, seconds: seven days.
const MAX_DELAY: u64 = 7 * 86_400;
/// A deposit or refund waits for a block.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 << 10;

/// What a node demands of channels.
#[derive(Debug, Clone)]
pub struct ChannelOffer {
    /// The node.
    pub node: NodeEntry,
    /// Its keyset, whose settlement key signs claims.
    pub keyset: KeysetDigest,
    /// Terms, with amount zero.
    pub requirements: PaymentRequirements,
    /// Smallest deposit that the node carries to the chain.
    pub min_deposit: Amount,
    /// Seconds between a withdrawal request and the withdrawal.
    pub withdraw_delay: u64,
}

impl Client {
    /// Asks a model's node what it demands of channels, and checks that they pay the node and are claimed by its registered key.
    ///
    /// # Errors
    /// If the node does not answer, or its terms are not acceptable.
    pub async fn channel_offer(&self, model: &str) -> Result<ChannelOffer, ClientError> {
        let node = self.node_for(model)?;
        let url = format!("{}/facilitator/supported", node.url);
        let supported: SupportedResponse = self.facilitator(&url, None).await?;
        let network = x402::network(self.network().file.chain_id);
        let mut kinds = supported.kinds.into_iter();
        let kind = kinds
            .find(|kind| kind.scheme == x402::BATCH_SETTLEMENT && kind.network == network)
            .ok_or_else(|| OfferError::Scheme {
                expected: format!("{} on {network}", x402::BATCH_SETTLEMENT),
                got: "none".into(),
            })?;
        let mut extra = kind.extra.unwrap_or_default();
        extra.insert("name".into(), OPG_NAME.into());
        extra.insert("version".into(), OPG_VERSION.into());
        extra.remove("payTo");
        let requirements = PaymentRequirements {
            scheme: x402::BATCH_SETTLEMENT.into(),
            network,
            amount: alloy_primitives::U256::ZERO,
            asset: addresses::OPG,
            pay_to: self.deposit_address(NodeId(node.id)),
            max_timeout_seconds: DEPOSIT_SECONDS,
            extra: Some(extra),
        };
        let terms = BatchExtra::parse(&requirements).map_err(|error| OfferError::Unreadable(error.to_string()))?;
        let keyset = self.published_keyset(&node.url).await?;
        let digest = keyset.digest();
        let problem = |problem| OfferError::Keyset {
            keyset: digest,
            problem,
        };
        match self.keyset(digest, &node.url).await? {
            Some((registered, _)) if registered.revoked => return Err(problem("is revoked").into()),
            Some((registered, _)) if registered.node_id.0 != node.id => {
                return Err(problem("belongs to another node").into());
            }
            Some(_) => {}
            None => return Err(problem("is not registered").into()),
        }
        if terms.receiver_authorizer != keyset.settlement_key {
            return Err(OfferError::Field {
                field: "extra.receiverAuthorizer",
                expected: keyset.settlement_key.to_string(),
                got: terms.receiver_authorizer.to_string(),
            }
            .into());
        }
        if terms.withdraw_delay > MAX_DELAY {
            return Err(OfferError::Field {
                field: "extra.withdrawDelay",
                expected: format!("at most {MAX_DELAY} seconds"),
                got: terms.withdraw_delay.to_string(),
            }
            .into());
        }
        Ok(ChannelOffer {
            node,
            keyset: digest,
            requirements,
            min_deposit: terms.min_deposit.unwrap_or_default(),
            withdraw_delay: terms.withdraw_delay,
        })
    }

    /// Opens a channel to a node by one signature: the node carries the deposit to the chain, the payer needs no gas.
    ///
    /// # Errors
    /// If the node or the chain refuses the deposit. A channel whose deposit has no known outcome stays in the purse.
    pub async fn open_channel(
        &self,
        offer: &ChannelOffer,
        deposit: Amount,
        wallet: &Wallet,
        purse: &Purse,
    ) -> Result<Channel, ClientError> {
        let salt = B256::new(random_bytes()?);
        let account = wallet.address();
        let opened = ChannelWallet::for_offer(&offer.requirements, account, account, salt)
            .map_err(crate::purse::PurseError::from)?;
        let channel = Channel {
            wallet: opened,
            node: offer.node.id,
            keyset: offer.keyset,
            offer: offer.requirements.clone(),
            opened_at: now(),
        };
        let id = channel.id();
        purse.change(|contents| {
            contents.channels.push(channel);
            Ok(())
        })?;
        let deposited = self.deposit(id, deposit, wallet, purse).await;
        if matches!(deposited, Err(ClientError::NodeRefused { .. })) {
            purse.change(|contents| {
                contents.channels.retain(|channel| channel.id() != id);
                Ok(())
            })?;
        }
        deposited?;
        let mut channels = purse.channels()?.into_iter();
        let opened = channels.find(|channel| channel.id() == id);
        Ok(opened.ok_or(crate::purse::PurseError::Unknown(id))?)
    }

    /// Deposits more into a channel of the purse; returns the transaction.
    ///
    /// # Errors
    /// As [`open_channel`](Self::open_channel).
    pub async fn deposit(
        &self,
        id: B256,
        amount: Amount,
        wallet: &Wallet,
        purse: &Purse,
    ) -> Result<String, ClientError> {
        let salt = B256::new(random_bytes()?);
        let chain_id = self.network().file.chain_id;
        let (channel, payload) = purse.change(|contents| {
            let channel = contents.channel(id)?;
            let authorization = ChannelWallet::erc3009(salt, now(), DEPOSIT_SECONDS);
            let token = Domain::opg(chain_id, addresses::OPG);
            let key = wallet.secret_key();
            // The wire form of a deposit wants a voucher: one over what is charged already asks for nothing new.
            let mut signer = channel.wallet.clone();
            signer.in_flight.clear();
            let payload = signer
                .sign_deposit(amount, Amount::ZERO, authorization, &token, key, key)
                .map_err(crate::purse::PurseError::from)?;
            Ok((channel.clone(), payload))
        })?;
        let settled = self.settle_channel(&channel, &payload).await?;
        purse.change(|contents| {
            contents.channel(id)?.wallet.deposited(amount);
            Ok(())
        })?;
        Ok(settled.transaction)
    }

    /// Asks the node for everything that is not charged; returns the transaction and the amount. The channel leaves the purse.
    ///
    /// # Errors
    /// If a call is in flight, or the node refuses: then [`withdrawal`](Self::start_withdrawal) needs no node.
    pub async fn close_channel(
        &self,
        id: B256,
        wallet: &Wallet,
        purse: &Purse,
    ) -> Result<(String, Amount), ClientError> {
        let sign = || {
            purse.change(|contents| {
                let channel = contents.channel(id)?;
                let payload = channel
                    .wallet
                    .sign_refund(None, wallet.secret_key())
                    .map_err(crate::purse::PurseError::from)?;
                Ok((channel.clone(), payload))
            })
        };
        let (channel, payload) = sign()?;
        let settled = self.settle_channel(&channel, &payload).await?;
        let refunded = settled.amount.as_deref().and_then(|wei| wei.parse().ok());
        self.forget_channel(id, purse)?;
        Ok((settled.transaction, refunded.map(Amount).unwrap_or_default()))
    }

    /// Announces on chain that everything unclaimed is taken back, without the node; the wallet pays the gas.
    ///
    /// # Errors
    /// If the transaction fails.
    pub async fn start_withdrawal(&self, channel: &Channel, wallet: &Wallet) -> Result<Sent, ClientError> {
        let call = BatchSettlement::initiateWithdrawCall {
            config: contract_config(&channel.wallet.config),
            amount: channel.wallet.balance.wei(),
        };
        self.call(wallet, addresses::BATCH_SETTLEMENT, call.abi_encode().into())
            .await
    }

    /// Takes back what an announced withdrawal has made free.
    ///
    /// # Errors
    /// If the transaction fails, for instance because the delay is not over.
    pub async fn finish_withdrawal(&self, channel: &Channel, wallet: &Wallet) -> Result<Sent, ClientError> {
        let call = BatchSettlement::finalizeWithdrawCall {
            config: contract_config(&channel.wallet.config),
        };
        self.call(wallet, addresses::BATCH_SETTLEMENT, call.abi_encode().into())
            .await
    }

    /// Takes a channel that is empty out of the purse.
    ///
    /// # Errors
    /// If the purse cannot be written.
    pub fn forget_channel(&self, id: B256, purse: &Purse) -> Result<(), ClientError> {
        purse.change(|contents| {
            contents.channels.retain(|channel| channel.id() != id);
            Ok(())
        })
    }

    async fn settle_channel(&self, channel: &Channel, payload: &BatchPayload) -> Result<SettleResponse, ClientError> {
        let node = self.network().node(channel.node).ok_or(ClientError::NoInferenceNode)?;
        let request = FacilitatorRequest {
            x402_version: u64::from(x402::VERSION),
            payment_payload: PaymentPayload::of_batch(channel.offer.clone(), payload),
            payment_requirements: channel.offer.clone(),
        };
        let body = serde_json::to_vec(&request).map_err(|error| ClientError::Http(error.to_string()))?;
        let url = format!("{}/facilitator/settle", node.url);
        let settled: SettleResponse = self.facilitator(&url, Some(body)).await?;
        if settled.success {
            return Ok(settled);
        }
        let message = settled.error_message.unwrap_or_default();
        Err(ClientError::NodeRefused {
            status: 402,
            message: crate::text::one_line(&message, 500),
            code: crate::text::one_line(&settled.error_reason.unwrap_or_default(), 80),
            param: None,
        })
    }

    async fn facilitator<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let unreachable = |reason| ClientError::NodeUnreachable {
            url: url.into(),
            reason,
        };
        let request = match body {
            Some(body) => self
                .http
                .post(url)
                .header("content-type", "application/json")
                .body(body),
            None => self.http.get(url),
        };
        let response = tokio::time::timeout(SETTLE_TIMEOUT, request.send())
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", SETTLE_TIMEOUT.as_secs())))?
            .map_err(|error| unreachable(crate::rpc::root_cause(&error)))?;
        if !response.status().is_success() {
            return Err(crate::pay::refusal(response).await);
        }
        let answer = |what: String| ClientError::NodeAnswer { what };
        let bytes = read_body(response, MAX_ANSWER)
            .await
            .map_err(|error| answer(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))
    }

    /// Pays a call out of a channel of the purse, without asking the node first. `None` if no channel to the model's node can pay it.
    ///
    /// # Errors
    /// If the model is unknown, or a spend limit forbids it.
    pub async fn authorize_from_channel(
        &self,
        job: Job,
        wallet: &Wallet,
        purse: &Purse,
    ) -> Result<Option<Authorized>, ClientError> {
        let node = self.node_for(&job.model)?;
        // An answer that is proven later is not paid out of channels.
        if job.mode == Mode::Zk || !purse.channels()?.iter().any(|channel| channel.node == node.id) {
            return Ok(None);
        }
        let model = self.terms(&node, &job.model).await?;
        let most = charge(&model.ask, job.most, model.royalty_bps).map_err(|_| OfferError::TooExpensive {
            amount: Amount::MAX,
            limit: job.max_spend,
        })?;
        let bound = most.min(job.max_spend).max(Amount(1));
        self.sign_call(job, node, model, bound, wallet, purse).await
    }

    async fn sign_call(
        &self,
        job: Job,
        node: NodeEntry,
        model: Model,
        bound: Amount,
        wallet: &Wallet,
        purse: &Purse,
    ) -> Result<Option<Authorized>, ClientError> {
        let payee = self.deposit_address(NodeId(node.id));
        let booked = purse.book(payee, bound, now())?;
        let signed = purse.change(|contents| {
            for channel in contents.channels.iter_mut().filter(|channel| channel.node == node.id) {
                // A call that never came back is not waited for: the node counts it or not, and says so.
                if channel.wallet.available() < bound {
                    channel.wallet.in_flight.clear();
                }
                if let Ok(payload) = channel.wallet.sign_call(bound, true, wallet.secret_key()) {
                    return Ok(Some((channel.clone(), payload)));
                }
            }
            Ok(None)
        });
        let (channel, payload) = match signed {
            Ok(Some(signed)) => signed,
            Ok(None) => {
                purse.spent(booked, Amount::ZERO)?;
                return Ok(None);
            }
            Err(error) => {
                purse.spent(booked, Amount::ZERO)?;
                return Err(error);
            }
        };
        let Some((_, keyset)) = self.keyset(channel.keyset, &node.url).await? else {
            return Err(OfferError::Keyset {
                keyset: channel.keyset,
                problem: "is not registered",
            }
            .into());
        };
        let expected = self.expected(&job, &node, &model);
        let accepted = PaymentRequirements {
            amount: alloy_primitives::U256::from(bound.wei()),
            ..channel.offer.clone()
        };
        Ok(Some(Authorized {
            job,
            node,
            model,
            keyset,
            accepted,
            resource: None,
            extensions: None,
            quote: None,
            expected: Box::new(expected),
            booked: Some((purse.clone(), booked)),
            payment: Payment::Channel {
                payload: Box::new(payload),
                bound,
                wallet: wallet.clone(),
            },
        }))
    }

    /// What this client accepts of a quote for a job.
    pub(crate) fn expected(&self, job: &Job, node: &NodeEntry, model: &Model) -> Expected {
        let node_id = NodeId(node.id);
        Expected {
            chain_id: self.network().file.chain_id,
            asset: addresses::OPG,
            node_id,
            payee: self.deposit_address(node_id),
            request: request_digest("POST", job.path, &job.body),
            model: model.root,
            ask: model.ask,
            royalty_bps: model.royalty_bps,
            mode: job.mode,
            min_grade: match job.mode {
                Mode::None => Grade::None,
                // A development chain is made for software attesters (D9).
                Mode::Tee if self.network().genesis.development => Grade::Simulated,
                _ => Grade::Hardware,
            },
            max_spend: job.max_spend,
            now: now(),
        }
    }

    /// Signs a refused call again, after the node has said how it counts. `None` if that is not what was wrong.
    pub(crate) async fn signed_again(
        &self,
        paid: &Authorized,
        offer: Option<PaymentRequired>,
    ) -> Result<Option<Authorized>, ClientError> {
        let (Payment::Channel { payload, bound, wallet }, Some((purse, _)), Some(offer)) =
            (&paid.payment, &paid.booked, offer)
        else {
            return Ok(None);
        };
        if offer.error.as_deref() != Some(x402::CUMULATIVE_MISMATCH) {
            return Ok(None);
        }
        let way = offer.accepts.iter().find(|way| way.scheme == x402::BATCH_SETTLEMENT);
        let Some(extra) = way.and_then(|way| BatchExtra::parse(way).ok()) else {
            return Ok(None);
        };
        let Some(state) = extra.channel_state else {
            return Ok(None);
        };
        let id = payload.voucher.voucher.channel_id;
        purse.change(|contents| {
            let channel = &mut contents.channel(id)?.wallet;
            channel
                .resynchronise(&state, extra.voucher_state.as_ref(), wallet.address(), None)
                .map_err(crate::purse::PurseError::from)?;
            Ok(())
        })?;
        let (job, node, model) = (paid.job.clone(), paid.node.clone(), paid.model.clone());
        self.sign_call(job, node, model, *bound, wallet, purse).await
    }
}

/// Checks a quote that the node made by itself for a call on a channel.
pub(crate) fn check_self_quote(
    quote: &opg_receipt::SignedQuote,
    bound: Amount,
    expected: &Expected,
) -> Result<(), AnswerError> {
    offer::check_terms(quote, bound, expected).map_err(|error| AnswerError::Envelope(error.to_string()))
}

fn contract_config(config: &ChannelConfig) -> BatchSettlement::ChannelConfig {
    BatchSettlement::ChannelConfig {
        payer: config.payer,
        payerAuthorizer: config.payer_authorizer,
        receiver: config.receiver,
        receiverAuthorizer: config.receiver_authorizer,
        token: config.token,
        withdrawDelay: U40::saturating_from(config.withdraw_delay),
        salt: config.salt,
    }
}
