//! Payloads of scheme `batch-settlement`: deposit, voucher and refund request (payments.md §1.6).

use super::{
    PaymentPayload, PaymentRequirements, VERSION, X402Error,
    field::{Reader, bad},
    permit::text,
};
use crate::{
    channel::{ChannelConfig, Collector, Deposit, DepositAuthorization, Voucher},
    eip712::Domain,
};
use alloy_primitives::{B256, Bytes, U256};
use opg_primitives::money::Amount;
use serde_json::{Value, json};

/// The scheme.
pub const BATCH_SETTLEMENT: &str = "batch-settlement";

/// A voucher and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVoucher {
    /// What was signed.
    pub voucher: Voucher,
    /// By the payer's authorizer.
    pub signature: Bytes,
}

/// A deposit and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDeposit {
    /// What was signed.
    pub deposit: Deposit,
    /// By the payer.
    pub signature: Bytes,
}

/// What a `batch-settlement` payment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchAction {
    /// Serve a call against the channel.
    Voucher,
    /// Open or top up the channel, then serve a call.
    Deposit(SignedDeposit),
    /// Give back what is not charged, or this much of it.
    Refund(Option<Amount>),
}

/// `payload` of scheme `batch-settlement`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPayload {
    /// The channel.
    pub config: ChannelConfig,
    /// The newest voucher.
    pub voucher: SignedVoucher,
    /// What is asked for.
    pub action: BatchAction,
}

impl BatchPayload {
    /// Reads `payload`. Whether `voucher.channelId` is the id of `channelConfig` is for [`bind`](Self::bind) to say: a server that
    /// knows the channel compares its configuration and needs no hash.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn parse(payload: &Value) -> Result<Self, X402Error> {
        let outer = Reader(payload);
        let kind = outer.text("type", "type")?;
        let config = config(outer.object("channelConfig", "channelConfig")?)?;
        let voucher = outer.object("voucher", "voucher")?;
        let voucher = SignedVoucher {
            voucher: Voucher {
                channel_id: voucher.word("channelId", "voucher.channelId")?,
                max_claimable: voucher.amount("maxClaimableAmount", "voucher.maxClaimableAmount")?,
            },
            signature: voucher.signature("signature", "voucher.signature")?,
        };
        let action = match kind {
            "voucher" => BatchAction::Voucher,
            "deposit" => {
                let inner = outer.object("deposit", "deposit")?;
                BatchAction::Deposit(deposit(inner, &config, voucher.voucher.channel_id)?)
            }
            "refund" if outer.has("amount") => BatchAction::Refund(Some(outer.amount("amount", "amount")?)),
            "refund" => BatchAction::Refund(None),
            _ => return Err(bad("type", "is not voucher, deposit or refund")),
        };
        Ok(Self {
            config,
            voucher,
            action,
        })
    }

    /// Checks that the voucher is for the channel of the configuration; `domain` is [`Domain::batch_settlement`].
    ///
    /// # Errors
    /// [`X402Error::Payload`] for `voucher.channelId`.
    pub fn bind(&self, domain: &Domain) -> Result<(), X402Error> {
        let id = self.config.id(domain);
        let got = self.voucher.voucher.channel_id;
        if got == id {
            Ok(())
        } else {
            Err(bad(
                "voucher.channelId",
                format!("is {got}, the id of channelConfig on this chain is {id}"),
            ))
        }
    }

    /// The wire form.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let c = &self.config;
        let config = json!({
            "payer": text(c.payer),
            "payerAuthorizer": text(c.payer_authorizer),
            "receiver": text(c.receiver),
            "receiverAuthorizer": text(c.receiver_authorizer),
            "token": text(c.token),
            "withdrawDelay": c.withdraw_delay,
            "salt": c.salt,
        });
        let voucher = json!({
            "channelId": self.voucher.voucher.channel_id,
            "maxClaimableAmount": self.voucher.voucher.max_claimable,
            "signature": self.voucher.signature,
        });
        let mut value = json!({"type": self.kind(), "channelConfig": config, "voucher": voucher});
        match &self.action {
            BatchAction::Deposit(signed) => value["deposit"] = deposit_value(signed),
            BatchAction::Refund(Some(amount)) => value["amount"] = json!(amount),
            BatchAction::Voucher | BatchAction::Refund(None) => {}
        }
        value
    }

    /// `type` on the wire.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.action {
            BatchAction::Voucher => "voucher",
            BatchAction::Deposit(_) => "deposit",
            BatchAction::Refund(_) => "refund",
        }
    }
}

pub(super) fn config(reader: Reader<'_>) -> Result<ChannelConfig, X402Error> {
    let withdraw_delay = reader.number("withdrawDelay", "channelConfig.withdrawDelay")?;
    if withdraw_delay >= 1 << 40 {
        return Err(bad("channelConfig.withdrawDelay", "does not fit 40 bits"));
    }
    Ok(ChannelConfig {
        payer: reader.address("payer", "channelConfig.payer")?,
        payer_authorizer: reader.address("payerAuthorizer", "channelConfig.payerAuthorizer")?,
        receiver: reader.address("receiver", "channelConfig.receiver")?,
        receiver_authorizer: reader.address("receiverAuthorizer", "channelConfig.receiverAuthorizer")?,
        token: reader.address("token", "channelConfig.token")?,
        withdraw_delay,
        salt: reader.word("salt", "channelConfig.salt")?,
    })
}

fn deposit(reader: Reader<'_>, config: &ChannelConfig, channel_id: B256) -> Result<SignedDeposit, X402Error> {
    let amount = reader.amount("amount", "deposit.amount")?;
    let outer = reader.object("authorization", "deposit.authorization")?;
    let (authorization, signature) = match (outer.has("erc3009Authorization"), outer.has("permit2Authorization")) {
        (true, false) => erc3009(outer)?,
        (false, true) => permit2(outer, config, channel_id, amount)?,
        _ => {
            return Err(bad(
                "deposit.authorization",
                "must hold erc3009Authorization or permit2Authorization, one of them",
            ));
        }
    };
    Ok(SignedDeposit {
        deposit: Deposit {
            payer: config.payer,
            token: config.token,
            channel_id,
            amount,
            authorization,
        },
        signature,
    })
}

fn erc3009(outer: Reader<'_>) -> Result<(DepositAuthorization, Bytes), X402Error> {
    const PATHS: [&str; 5] = [
        "deposit.authorization.erc3009Authorization",
        "deposit.authorization.erc3009Authorization.validAfter",
        "deposit.authorization.erc3009Authorization.validBefore",
        "deposit.authorization.erc3009Authorization.salt",
        "deposit.authorization.erc3009Authorization.signature",
    ];
    let inner = outer.object("erc3009Authorization", PATHS[0])?;
    // Clients send 32 bytes in hex; the contract's type is uint256, so decimal is as good.
    let salt = match inner.word("salt", PATHS[3]) {
        Ok(word) => U256::from_be_bytes(word.0),
        Err(_) => inner.uint("salt", PATHS[3])?,
    };
    let authorization = DepositAuthorization::Erc3009 {
        valid_after: inner.seconds("validAfter", PATHS[1])?,
        valid_before: inner.seconds("validBefore", PATHS[2])?,
        salt,
    };
    Ok((authorization, inner.signature("signature", PATHS[4])?))
}

/// Everything that stands in the payload twice must be the same twice.
fn permit2(
    outer: Reader<'_>,
    config: &ChannelConfig,
    channel_id: B256,
    amount: Amount,
) -> Result<(DepositAuthorization, Bytes), X402Error> {
    const PATHS: [&str; 10] = [
        "deposit.authorization.permit2Authorization",
        "deposit.authorization.permit2Authorization.permitted",
        "deposit.authorization.permit2Authorization.witness",
        "deposit.authorization.permit2Authorization.from",
        "deposit.authorization.permit2Authorization.permitted.token",
        "deposit.authorization.permit2Authorization.permitted.amount",
        "deposit.authorization.permit2Authorization.spender",
        "deposit.authorization.permit2Authorization.witness.channelId",
        "deposit.authorization.permit2Authorization.nonce",
        "deposit.authorization.permit2Authorization.deadline",
    ];
    let inner = outer.object("permit2Authorization", PATHS[0])?;
    let permitted = inner.object("permitted", PATHS[1])?;
    let witness = inner.object("witness", PATHS[2])?;
    let spender = Collector::Permit2.address();
    for (path, expected, got) in [
        (PATHS[3], config.payer, inner.address("from", PATHS[3])?),
        (PATHS[4], config.token, permitted.address("token", PATHS[4])?),
        (PATHS[6], spender, inner.address("spender", PATHS[6])?),
    ] {
        if expected != got {
            return Err(bad(path, format!("is {got}, expected {expected}")));
        }
    }
    if permitted.amount("amount", PATHS[5])? != amount {
        return Err(bad(PATHS[5], "is not deposit.amount"));
    }
    if witness.word("channelId", PATHS[7])? != channel_id {
        return Err(bad(PATHS[7], "is not voucher.channelId"));
    }
    let authorization = DepositAuthorization::Permit2 {
        nonce: inner.uint("nonce", PATHS[8])?,
        deadline: inner.seconds("deadline", PATHS[9])?,
    };
    let signature = inner.signature("signature", "deposit.authorization.permit2Authorization.signature")?;
    Ok((authorization, signature))
}

fn deposit_value(signed: &SignedDeposit) -> Value {
    let deposit = &signed.deposit;
    let authorization = match deposit.authorization {
        DepositAuthorization::Erc3009 {
            valid_after,
            valid_before,
            salt,
        } => json!({"erc3009Authorization": {
            "validAfter": valid_after.to_string(),
            "validBefore": valid_before.to_string(),
            "salt": B256::from(salt),
            "signature": signed.signature,
        }}),
        DepositAuthorization::Permit2 { nonce, deadline } => json!({"permit2Authorization": {
            "from": text(deposit.payer),
            "permitted": {"token": text(deposit.token), "amount": deposit.amount},
            "spender": text(Collector::Permit2.address()),
            "nonce": nonce.to_string(),
            "deadline": deadline.to_string(),
            "witness": {"channelId": deposit.channel_id},
            "signature": signed.signature,
        }}),
    };
    json!({"amount": deposit.amount, "authorization": authorization})
}

impl PaymentPayload {
    /// A payment of scheme `batch-settlement` for the requirement `accepted`, naming no resource and echoing no extensions.
    #[must_use]
    pub fn of_batch(accepted: PaymentRequirements, payload: &BatchPayload) -> Self {
        Self {
            x402_version: u64::from(VERSION),
            resource: None,
            accepted,
            payload: payload.to_value(),
            extensions: None,
        }
    }
}
