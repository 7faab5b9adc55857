//! A node's receipts, as the inference node would make them.

use super::{CHAIN, ROYALTY, demo, model_root, price, receipt_key};
use alloy_primitives::{B256, U256};
use opg_contracts::{GenesisFile, addresses};
use opg_payments::{
    eip3009::{Authorization, Domain},
    signature::address_of_secret,
};
use opg_primitives::{
    ids::{Keyset, ModelRoot, NodeId, deposit_address},
    mode::{Grade, Mode},
    money::{Amount, Usage, charge},
};
use opg_receipt::{
    Core, FinishReason, LeafKind, ModeRecord, ModelRef, PaymentMethod, PaymentRecord, PaymentScheme, PriceRecord,
    Quote, QuoteRef, ReceiptFile, RequestCommitments, Response, SignedQuote, SignedReceipt, StreamRecord, Times,
    UsageRecord, UsageUnit, commit,
    file::{Leaf, Opening},
    quote::request_digest,
    receipt_id,
};
use std::time::{SystemTime, UNIX_EPOCH};

pub const BODY: &[u8] = br#"{"model":"test/model","inputs":{"X":[1]}}"#;

pub struct Made {
    pub receipt: SignedReceipt,
    pub file: ReceiptFile,
    pub authorization: Authorization,
    pub payment_signature: Vec<u8>,
}

pub fn keyset(genesis: &GenesisFile) -> Keyset {
    let node = &genesis.nodes[0];
    Keyset {
        node_id: NodeId(node.node_id()),
        receipt_key: node.receipt_key,
        settlement_key: node.settlement_key,
        hpke_key: B256::ZERO,
        tls_spki: B256::ZERO,
    }
}

/// Receipt number `seq` of the genesis node, with its file. `amount` is what the payer signs.
pub fn make(genesis: &GenesisFile, seq: u64, prev: B256, amount: Amount) -> Made {
    let keyset = keyset(genesis);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let nonce = B256::from(U256::from(seq + 1));
    let salt = B256::repeat_byte(0x5a);
    let payee = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, keyset.node_id);
    let id = receipt_id(CHAIN, &keyset.node_id, &nonce);
    let quote = Quote {
        chain_id: CHAIN,
        node_id: keyset.node_id,
        keyset: keyset.digest(),
        nonce,
        receipt_id: id,
        request_digest: request_digest("POST", "/v1/infer", BODY),
        model_root: ModelRoot(model_root()),
        ask: price(),
        royalty_bps: ROYALTY,
        max_amount: amount,
        payee,
        asset: addresses::OPG,
        expires: now + 600,
        mode_asked: Mode::None,
        min_grade: Grade::None,
    };
    let quote = SignedQuote::sign(quote, &receipt_key()).unwrap();
    let authorization = Authorization {
        from: address_of_secret(&demo()),
        to: payee,
        value: amount.to_u256(),
        valid_after: 0,
        valid_before: now + 600,
        nonce,
    };
    let payment_signature = authorization
        .sign(&Domain::opg(CHAIN, addresses::OPG), &demo())
        .to_vec();
    let leaf = Leaf {
        kind: LeafKind::ALL[0],
        bytes: opg_receipt::file::Base64Bytes(b"an answer".to_vec().into()),
    };
    let leaves = [commit::response_leaf(&salt, leaf.kind, 0, &leaf.bytes.0)];
    let due = charge(&price(), Usage { input: 3, output: 5 }, ROYALTY).unwrap();
    let core = Core {
        chain_id: CHAIN,
        registry: addresses::NODE_REGISTRY,
        node_id: keyset.node_id,
        keyset: keyset.digest(),
        seq,
        prev,
        receipt_id: id,
        quote: QuoteRef {
            digest: quote.digest(),
            nonce,
        },
        request: RequestCommitments {
            body: commit::request(&salt, BODY),
            params: commit::params(&salt, "{}"),
        },
        model: ModelRef {
            asked: "test/model".into(),
            asked_root: ModelRoot(model_root()),
            served_root: ModelRoot(model_root()),
            runtime: B256::repeat_byte(9),
        },
        response: Response {
            commitment: commit::response(&leaves).unwrap(),
            leaves: 1,
            finish: FinishReason::Stop,
            status: 200,
        },
        usage: UsageRecord {
            unit: UsageUnit::Tokens,
            input: 3,
            output: 5,
        },
        price: PriceRecord {
            ask: price(),
            royalty_bps: ROYALTY,
            charge: due.min(amount),
            asset: addresses::OPG,
        },
        payment: PaymentRecord {
            scheme: PaymentScheme::Exact,
            method: PaymentMethod::Eip3009,
            payer: authorization.from,
            payee,
            amount,
            valid_after: 0,
            valid_before: authorization.valid_before,
            nonce,
            signature: payment_signature.clone().into(),
        },
        times: Times {
            received: 1,
            first_output: 2,
            done: 3,
        },
        mode: ModeRecord::NONE,
        stream: StreamRecord::NOT_STREAMED,
        evidence: None,
        router: None,
    };
    let receipt = SignedReceipt::sign(core, &receipt_key()).unwrap();
    let mut file = ReceiptFile::new(receipt.cose().clone(), keyset, quote.cose().clone());
    file.opening = Some(Opening {
        salt,
        method: "POST".into(),
        path: "/v1/infer".into(),
        body: opg_receipt::file::Base64Bytes(BODY.to_vec().into()),
        params: "{}".into(),
        leaves: vec![leaf],
    });
    Made {
        receipt,
        file,
        authorization,
        payment_signature,
    }
}
