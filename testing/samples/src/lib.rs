//! Receipts that check, for tests and benchmarks.
//!
//! Purpose: one place that fills in the core of a receipt. A test says who sold what to whom ([`Sale`]) and then changes the
//! fields that it is about.
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
//! Status: mode `none` with an x402 `exact` payment by EIP-3009.
#![forbid(unsafe_code)]

use alloy_primitives::{Address, B256};
use opg_contracts::addresses;
use opg_payments::{
    eip3009::{Authorization, Domain},
    signature::{SecretKey, address_of_secret},
};
use opg_primitives::{
    ids::{Keyset, ModelRoot, NodeId, deposit_address},
    money::{Amount, Price, Usage, charge},
};
use opg_receipt::{
    Core, FinishReason, ModeRecord, ModelRef, PaymentMethod, PaymentRecord, PaymentScheme, PriceRecord, QuoteRef,
    RequestCommitments, Response, StreamRecord, Times, UsageRecord, UsageUnit, receipt_id,
};
use proptest::test_runner::Config;

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
        let nonce = self.payment.nonce;
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
    };
    sign(chain_id, &mut payment, payer);
    payment
}

/// Signs a payment (again), after a field of it was changed.
pub fn sign(chain_id: u64, payment: &mut PaymentRecord, payer: &SecretKey) {
    let signature = authorization(payment).sign(&Domain::opg(chain_id, addresses::OPG), payer);
    payment.signature = signature.to_vec().into();
}

/// The ERC-3009 authorization that a payment record stands for.
#[must_use]
pub fn authorization(payment: &PaymentRecord) -> Authorization {
    Authorization {
        from: payment.payer,
        to: payment.payee,
        value: payment.amount.to_u256(),
        valid_after: payment.valid_after,
        valid_before: payment.valid_before,
        nonce: payment.nonce,
    }
}

/// Configuration of a property test with `cases` cases, or with as many as `PROPTEST_CASES` says where that is more
/// (`cargo xtask fuzz` sets it).
#[must_use]
pub fn cases(cases: u32) -> Config {
    // The default already reads the variable; without it, it is 256.
    let wished = std::env::var_os("PROPTEST_CASES").map_or(0, |_| Config::default().cases);
    Config {
        cases: cases.max(wished),
        ..Config::default()
    }
}
