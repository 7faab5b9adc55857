//! Payloads by Permit2: scheme `exact` with `assetTransferMethod: "permit2"`, and scheme `upto` (payments.md §1.4, §1.5).

use super::{
    ExactPayload, PaymentPayload, PaymentRequirements, VERSION, X402Error,
    field::{Reader, bad},
};
use crate::{
    eip3009::Authorization,
    permit2::{Permit, Witness},
};
use alloy_primitives::{Address, Bytes};
use serde_json::{Value, json};

/// Scheme `upto`: the actual charge is at most the signed amount.
pub const UPTO: &str = "upto";
/// Value of `extra.assetTransferMethod` for payments by Permit2.
pub const PERMIT2_METHOD: &str = "permit2";

/// A payment of scheme `exact`, by either method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExactPayment {
    /// ERC-3009 and its signature.
    Eip3009(Authorization, Bytes),
    /// Permit2 and its signature.
    Permit2(Permit, Bytes),
}

impl ExactPayment {
    /// Reads `payload` of scheme `exact`, whichever method it uses.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn parse(payload: &Value) -> Result<Self, X402Error> {
        let reader = Reader(payload);
        if reader.has("permit2Authorization") {
            let (permit, signature) = permit(payload, Kind::Exact)?;
            return Ok(Self::Permit2(permit, signature));
        }
        if reader.has("delegationManager") {
            return Err(bad(
                "delegationManager",
                "is a payment by ERC-7710 delegation, which is not taken here: pay by EIP-3009 or Permit2",
            ));
        }
        let (authorization, signature) = ExactPayload::parse(payload)?;
        Ok(Self::Eip3009(authorization, signature))
    }
}

/// Reads `payload` of scheme `upto`.
///
/// # Errors
/// [`X402Error::Payload`] names the field.
pub fn parse_upto(payload: &Value) -> Result<(Permit, Bytes), X402Error> {
    permit(payload, Kind::Upto)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Exact,
    Upto,
}

fn permit(payload: &Value, kind: Kind) -> Result<(Permit, Bytes), X402Error> {
    let outer = Reader(payload);
    let signature = outer.signature("signature", "signature")?;
    let inner = outer.object("permit2Authorization", "permit2Authorization")?;
    let permitted = inner.object("permitted", "permit2Authorization.permitted")?;
    let witness = inner.object("witness", "permit2Authorization.witness")?;
    let to = witness.address("to", "permit2Authorization.witness.to")?;
    let valid_after = witness.seconds("validAfter", "permit2Authorization.witness.validAfter")?;
    let witness = match kind {
        Kind::Exact => Witness::Exact { to, valid_after },
        Kind::Upto => Witness::Upto {
            to,
            facilitator: witness.address("facilitator", "permit2Authorization.witness.facilitator")?,
            valid_after,
        },
    };
    let spender = inner.address("spender", "permit2Authorization.spender")?;
    if spender != witness.spender() {
        return Err(bad(
            "permit2Authorization.spender",
            format!("is {spender}, expected {}", witness.spender()),
        ));
    }
    let permit = Permit {
        from: inner.address("from", "permit2Authorization.from")?,
        token: permitted.address("token", "permit2Authorization.permitted.token")?,
        amount: permitted.uint("amount", "permit2Authorization.permitted.amount")?,
        nonce: inner.uint("nonce", "permit2Authorization.nonce")?,
        deadline: inner.seconds("deadline", "permit2Authorization.deadline")?,
        witness,
    };
    Ok((permit, signature))
}

/// The wire form of a signed permit of scheme `exact` or `upto`; a deposit has none of its own.
#[must_use]
pub fn permit_payload(permit: &Permit, signature: &[u8]) -> Option<Value> {
    let witness = match permit.witness {
        Witness::Exact { to, valid_after } => json!({"to": text(to), "validAfter": valid_after.to_string()}),
        Witness::Upto {
            to,
            facilitator,
            valid_after,
        } => json!({"to": text(to), "facilitator": text(facilitator), "validAfter": valid_after.to_string()}),
        Witness::Deposit { .. } => return None,
    };
    Some(json!({
        "signature": Bytes::copy_from_slice(signature),
        "permit2Authorization": {
            "from": text(permit.from),
            "permitted": {"token": text(permit.token), "amount": permit.amount.to_string()},
            "spender": text(permit.witness.spender()),
            "nonce": permit.nonce.to_string(),
            "deadline": permit.deadline.to_string(),
            "witness": witness,
        },
    }))
}

/// Checksummed, as the public clients write addresses.
pub(super) fn text(address: Address) -> String {
    address.to_checksum(None)
}

impl PaymentPayload {
    /// A payment by Permit2 for the requirement `accepted`, naming no resource and echoing no extensions; `None` for a deposit.
    #[must_use]
    pub fn of_permit(accepted: PaymentRequirements, permit: &Permit, signature: &[u8]) -> Option<Self> {
        Some(Self {
            x402_version: u64::from(VERSION),
            resource: None,
            accepted,
            payload: permit_payload(permit, signature)?,
            extensions: None,
        })
    }
}
