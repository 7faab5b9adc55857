//! Receipts that check, for tests and benchmarks; and what property tests share.
//!
//! Purpose: one place that fills in the core of a receipt. A test says who sold what to whom ([`Sale`]) and then changes the
//! fields that it is about. [`cases`] says how often a property test runs, [`edit`] changes an encoding.
//!
//! Invariants: [`Sale::core`] is a core that every verifier of this repository accepts, if the keyset, the model, the ask and
//! the payer are those of the chain at hand. Nothing here is random.
//!
//! # Example
//! ```
//! use alloy_primitives::{Address, B256};
//! use opg_primitives::{ids::{Keyset, ModelRoot, NodeId}, money::{Amount, Price, Usage}};
//! use opg_receipt::{SignedReceipt, UsageUnit};
//! use opg_samples::{Sale, payment};
//!
//! let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
//! let keyset = Keyset {
//!     node_id: NodeId(B256::repeat_byte(1)),
//!     receipt_key: key.verifying_key().to_bytes().into(),
//!     settlement_key: Address::repeat_byte(2),
//!     hpke_key: B256::ZERO,
//!     tls_spki: B256::ZERO,
//! };
//! let payer = opg_payments::signature::SecretKey::from_byte_array(&[9; 32]).unwrap();
//! let sale = Sale {
//!     chain_id: 10_740,
//!     keyset: &keyset,
//!     seq: 0,
//!     model: ("demo/digits-mlp", ModelRoot(B256::repeat_byte(3))),
//!     ask: Price { per_call: Amount(1_000), per_mtok_in: Amount(0), per_mtok_out: Amount(0) },
//!     royalty_bps: 0,
//!     usage: (UsageUnit::Calls, Usage { input: 1, output: 0 }),
//!     payment: payment(10_740, &keyset, &payer, Amount(1_000), B256::repeat_byte(4), 1_790_000_600),
//! };
//! let receipt = SignedReceipt::sign(sale.core(), &key).unwrap();
//! assert_eq!(receipt.core().price.charge, Amount(1_000));
//! ```
//!
//! Status: modes `none` and, with a real proof of the digits model, `zk` ([`proof`]); payments by EIP-3009, by Permit2 and from channels.
#![forbid(unsafe_code)]

pub mod proof;

use alloy_primitives::{Address, B256, U256};
use opg_contracts::addresses;
use opg_payments::{
    eip3009::Authorization,
    receipt_payment::{self, Domains},
    signature::{SecretKey, address_of_secret},
};
use opg_primitives::{
    ids::{Keyset, ModelRoot, NodeId, deposit_address},
    money::{Amount, Price, Usage, charge},
};
use opg_receipt::{
    ChannelRecord, Core, FinishReason, ModeRecord, ModelRef, PaymentMethod, PaymentRecord, PaymentScheme, PriceRecord,
    QuoteRef, RequestCommitments, Response, StreamRecord, Times, UsageRecord, UsageUnit, receipt_id,
};
use proptest::{arbitrary::any, sample::Index, strategy::Strategy, test_runner::Config};

/// What was sold, to whom, for how much.
#[derive(Debug, Clone)]
pub struct Sale<'a> {
    /// Chain of the receipt and of its payment.
    pub chain_id: u64,
    /// Keyset of the node that sold.
    pub keyset: &'a Keyset,
    /// Sequence number of the keyset.
    pub seq: u64,
    /// Name and root of the model, asked and served.
    pub model: (&'a str, ModelRoot),
    /// The node's price for it.
    pub ask: Price,
    /// The creator's royalty in basis points.
    pub royalty_bps: u16,
    /// What was used.
    pub usage: (UsageUnit, Usage),
    /// How it was paid; see [`payment`].
    pub payment: PaymentRecord,
}

impl Sale<'_> {
    /// The core of its receipt: an answer of one leaf in mode `none`, commitments to nothing in particular.
    ///
    /// # Panics
    /// If the price of the usage is beyond an amount.
    #[must_use]
    pub fn core(self) -> Core {
        let (unit, usage) = self.usage;
        let (name, root) = self.model;
        let due = charge(&self.ask, usage, self.royalty_bps).expect("a price that fits");
        let node_id = self.keyset.node_id;
        // Many receipts of one channel share the payment's nonce.
        let nonce = match self.payment.channel {
            Some(_) => B256::from(U256::from(self.seq + 1)),
            None => self.payment.nonce,
        };
        Core {
            chain_id: self.chain_id,
            registry: addresses::NODE_REGISTRY,
            node_id,
            keyset: self.keyset.digest(),
            seq: self.seq,
            prev: if self.seq == 0 {
                B256::ZERO
            } else {
                B256::repeat_byte(1)
            },
            receipt_id: receipt_id(self.chain_id, &node_id, &nonce),
            quote: QuoteRef {
                digest: B256::repeat_byte(2),
                nonce,
            },
            request: RequestCommitments {
                body: B256::repeat_byte(3),
                params: B256::repeat_byte(4),
            },
            model: ModelRef {
                asked: name.into(),
                asked_root: root,
                served_root: root,
                runtime: B256::repeat_byte(5),
            },
            response: Response {
                commitment: B256::repeat_byte(6),
                leaves: 1,
                finish: FinishReason::Stop,
                status: 200,
            },
            usage: UsageRecord {
                unit,
                input: usage.input,
                output: usage.output,
            },
            price: PriceRecord {
                ask: self.ask,
                royalty_bps: self.royalty_bps,
                charge: due.min(self.payment.amount),
                asset: addresses::OPG,
            },
            payment: self.payment,
            times: Times {
                received: 1,
                first_output: 2,
                done: 3,
            },
            mode: ModeRecord::NONE,
            stream: StreamRecord::NOT_STREAMED,
            evidence: None,
            router: None,
            upstream: None,
        }
    }
}

/// Deposit address of a node: where payments to it go.
#[must_use]
pub fn payee(node_id: NodeId) -> Address {
    deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, node_id)
}

/// A payment to the node of `keyset`, signed by the payer and valid until `valid_before` (Unix seconds).
#[must_use]
pub fn payment(
    chain_id: u64,
    keyset: &Keyset,
    payer: &SecretKey,
    amount: Amount,
    nonce: B256,
    valid_before: u64,
) -> PaymentRecord {
    let mut payment = PaymentRecord {
        scheme: PaymentScheme::Exact,
        method: PaymentMethod::Eip3009,
        payer: address_of_secret(payer),
        payee: payee(keyset.node_id),
        amount,
        valid_after: 0,
        valid_before,
        nonce,
        signature: Vec::new().into(),
        channel: None,
        facilitator: None,
    };
    sign(chain_id, &mut payment, payer);
    payment
}

/// A call of at most `amount` on a channel of the payer to the node of `keyset`, under a voucher up to `ceiling`.
#[must_use]
pub fn channel_payment(
    chain_id: u64,
    keyset: &Keyset,
    payer: &SecretKey,
    amount: Amount,
    ceiling: Amount,
) -> PaymentRecord {
    let mut payment = PaymentRecord {
        scheme: PaymentScheme::BatchSettlement,
        method: PaymentMethod::Voucher,
        payer: address_of_secret(payer),
        payee: payee(keyset.node_id),
        amount,
        valid_after: 0,
        valid_before: 0,
        nonce: B256::ZERO,
        signature: Vec::new().into(),
        channel: Some(ChannelRecord {
            payer_authorizer: address_of_secret(payer),
            receiver_authorizer: keyset.settlement_key,
            withdraw_delay: 3_600,
            salt: B256::repeat_byte(0x5a),
            ceiling,
        }),
        facilitator: None,
    };
    sign(chain_id, &mut payment, payer);
    payment
}

/// A payment by Permit2 to the node of `keyset`; under scheme `upto` if a facilitator is named.
#[must_use]
pub fn permit_payment(
    chain_id: u64,
    keyset: &Keyset,
    payer: &SecretKey,
    amount: Amount,
    (nonce, deadline): (B256, u64),
    facilitator: Option<Address>,
) -> PaymentRecord {
    let scheme = match facilitator {
        Some(_) => PaymentScheme::Upto,
        None => PaymentScheme::Exact,
    };
    let mut payment = PaymentRecord {
        scheme,
        method: PaymentMethod::Permit2,
        facilitator,
        ..payment(chain_id, keyset, payer, amount, nonce, deadline)
    };
    sign(chain_id, &mut payment, payer);
    payment
}

/// Signs a payment (again), after a field of it was changed. A channel gets the id that follows from its fields.
///
/// # Panics
/// If the fields of the payment do not belong together.
pub fn sign(chain_id: u64, payment: &mut PaymentRecord, payer: &SecretKey) {
    let domains = Domains::new(chain_id, addresses::OPG);
    let signature = match payment.method {
        PaymentMethod::Eip3009 => Authorization::from(&*payment).sign(&domains.token, payer),
        PaymentMethod::Permit2 => receipt_payment::permit(payment, addresses::OPG)
            .expect("a permit")
            .sign(&domains.permit2, payer),
        PaymentMethod::Voucher => {
            let (config, mut voucher) = receipt_payment::channel(payment, addresses::OPG).expect("a channel");
            voucher.channel_id = config.id(&domains.channels);
            payment.nonce = voucher.channel_id;
            voucher.sign(&domains.channels, payer)
        }
    };
    payment.signature = signature.to_vec().into();
}

/// Configuration of a property test with `cases` cases, or with as many as `PROPTEST_CASES` says where that is more
/// (`cargo xtask fuzz` sets it).
#[must_use]
pub fn cases(cases: u32) -> Config {
    let variable = std::env::var("PROPTEST_CASES").ok();
    Config::with_cases(at_least(cases, variable.as_deref()))
}

/// The larger of `own` and what the variable says; what is not a number says nothing.
fn at_least(own: u32, variable: Option<&str>) -> u32 {
    variable
        .and_then(|text| text.parse::<u32>().ok())
        .map_or(own, |wished| own.max(wished))
}

/// One change of an encoding, at any place of it.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// Another byte, or the same.
    Replace(Index, u8),
    /// A byte less.
    Remove(Index),
    /// A byte more, in front of one that is there.
    Insert(Index, u8),
}

impl Edit {
    /// Makes the change.
    ///
    /// # Panics
    /// If there are no bytes.
    pub fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Replace(at, with) => {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
            Self::Remove(at) => {
                let at = at.index(bytes.len());
                bytes.remove(at);
            }
            Self::Insert(at, with) => bytes.insert(at.index(bytes.len()), with),
        }
    }
}

/// Any [`Edit`], each kind as often as the others.
pub fn edit() -> impl Strategy<Value = Edit> {
    (any::<Index>(), any::<u8>(), 0u8..3).prop_map(|(at, with, kind)| match kind {
        0 => Edit::Replace(at, with),
        1 => Edit::Remove(at),
        _ => Edit::Insert(at, with),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prop_assert, proptest};

    #[test]
    fn the_variable_raises_the_number_of_cases_and_never_lowers_it() {
        for (variable, expected) in [
            (None, 60),
            (Some("5000"), 5_000),
            (Some("59"), 60),
            (Some(""), 60),
            (Some("many"), 60),
        ] {
            assert_eq!(at_least(60, variable), expected, "{variable:?}");
        }
        assert!(cases(60).cases >= 60);
    }

    proptest! {
        #[test]
        fn an_edit_is_one_byte(edit in edit(), good in proptest::collection::vec(any::<u8>(), 1..20)) {
            let mut bytes = good.clone();
            edit.apply(&mut bytes);
            let length = match edit {
                Edit::Replace(..) => good.len(),
                Edit::Remove(_) => good.len() - 1,
                Edit::Insert(..) => good.len() + 1,
            };
            prop_assert!(bytes.len() == length);
            let ahead = good.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
            let behind = good.iter().rev().zip(bytes.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert!(ahead + behind + 1 >= good.len().max(length));
        }
    }
}
