//! x402 version 1, for the clients still in use on Base and Base Sepolia (payments.md §1.2).
//!
//! Version 1 names networks from a closed list, so it cannot pay on a chain of our own: offers elsewhere have no version 1 form.

use super::{
    EXACT, ExactPayload, PaymentRequirements, Resource, SettleResponse, X402Error, decimal, decode_header,
    field::{Reader, bad},
};
use crate::eip3009::Authorization;
use alloy_primitives::{Address, Bytes, U256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Protocol version of these types.
pub const VERSION: u64 = 1;
/// Request header: base64 of a payload.
pub const X_PAYMENT: &str = "x-payment";
/// Answer header: base64 of a [`SettleAnswer`].
pub const X_PAYMENT_RESPONSE: &str = "x-payment-response";

/// Version 1 networks and their chains; no others are offered.
const NETWORKS: [(&str, u64); 2] = [("base", 8453), ("base-sepolia", 84532)];

/// Version 1 name of a chain.
#[must_use]
pub fn network_name(chain_id: u64) -> Option<&'static str> {
    NETWORKS.iter().find(|(_, id)| *id == chain_id).map(|(name, _)| *name)
}

/// Chain of a version 1 name.
#[must_use]
pub fn chain_id(network: &str) -> Option<u64> {
    NETWORKS.iter().find(|(name, _)| *name == network).map(|(_, id)| *id)
}

/// One way to pay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirements {
    /// `exact`.
    pub scheme: String,
    /// `base` or `base-sepolia`.
    pub network: String,
    /// Amount in the asset's smallest unit.
    #[serde(with = "decimal")]
    pub max_amount_required: U256,
    /// URL of the request.
    pub resource: String,
    /// For people.
    pub description: String,
    /// Media type of the answer.
    pub mime_type: String,
    /// Payee.
    pub pay_to: Address,
    /// Longest time between signing and settlement.
    pub max_timeout_seconds: u64,
    /// Token contract.
    pub asset: Address,
    /// Shape of the answer; `null` here.
    #[serde(default)]
    pub output_schema: Option<Value>,
    /// `name` and `version` of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// Body of a 402 answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// [`VERSION`].
    pub x402_version: u64,
    /// Why the request was not served.
    pub error: String,
    /// Ways to pay.
    pub accepts: Vec<Requirements>,
}

impl PaymentRequired {
    /// The version 1 body that stands beside a version 2 header: those of its offers that version 1 can express, `None` if it can
    /// express none.
    #[must_use]
    pub fn of(offers: &[PaymentRequirements], resource: &Resource, error: &str) -> Option<Self> {
        let accepts: Vec<_> = offers
            .iter()
            .filter_map(|offer| Requirements::of(offer, resource))
            .collect();
        (!accepts.is_empty()).then(|| Self {
            x402_version: VERSION,
            error: error.to_owned(),
            accepts,
        })
    }
}

impl Requirements {
    /// The version 1 form of an offer of `exact` by EIP-3009 on Base or Base Sepolia.
    #[must_use]
    pub fn of(offer: &PaymentRequirements, resource: &Resource) -> Option<Self> {
        let chain = offer.network.strip_prefix("eip155:")?.parse().ok()?;
        let by_3009 = matches!(offer.extra_str("assetTransferMethod"), None | Some("eip3009"));
        (offer.scheme == EXACT && by_3009).then_some(())?;
        Some(Self {
            scheme: offer.scheme.clone(),
            network: network_name(chain)?.to_owned(),
            max_amount_required: offer.amount,
            resource: resource.url.clone(),
            description: resource.description.clone().unwrap_or_default(),
            mime_type: resource.mime_type.clone().unwrap_or_default(),
            pay_to: offer.pay_to,
            max_timeout_seconds: offer.max_timeout_seconds,
            asset: offer.asset,
            output_schema: None,
            extra: offer.extra.clone(),
        })
    }
}

/// A version 1 payment: chain, authorization, signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Chain that the client named.
    pub chain_id: u64,
    /// What it signed.
    pub authorization: Authorization,
    /// Its signature.
    pub signature: Bytes,
}

impl Payment {
    /// Decodes an [`X_PAYMENT`] header.
    ///
    /// # Errors
    /// Too long, not base64 of JSON, another version, or a field that is not this payment's.
    pub fn from_header(header: &[u8]) -> Result<Self, X402Error> {
        let value: Value = decode_header(header)?;
        let reader = Reader(&value);
        match reader.number("x402Version", "x402Version")? {
            VERSION => {}
            got => return Err(X402Error::Version { got }),
        }
        if reader.text("scheme", "scheme")? != EXACT {
            return Err(bad("scheme", "is not exact, the only one of version 1 here"));
        }
        let chain_id = chain_id(reader.text("network", "network")?).ok_or_else(|| {
            bad(
                "network",
                "is not base or base-sepolia: other chains need x402 version 2",
            )
        })?;
        let payload = reader.object("payload", "payload")?;
        let (authorization, signature) = ExactPayload::parse(payload.0)?;
        Ok(Self {
            chain_id,
            authorization,
            signature,
        })
    }
}

/// The [`X_PAYMENT_RESPONSE`] header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleAnswer {
    /// Whether the payment was taken.
    pub success: bool,
    /// Machine-readable reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// Transaction hash, or empty.
    pub transaction: String,
    /// `base` or `base-sepolia`.
    pub network: String,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<Address>,
}

impl SettleAnswer {
    /// The version 1 form of an answer; `None` on a chain that version 1 does not know.
    #[must_use]
    pub fn of(answer: &SettleResponse) -> Option<Self> {
        let chain = answer.network.strip_prefix("eip155:")?.parse().ok()?;
        Some(Self {
            success: answer.success,
            error_reason: answer.error_reason.clone(),
            transaction: answer.transaction.clone(),
            network: network_name(chain)?.to_owned(),
            payer: answer.payer,
        })
    }
}
