//! A node's receipts, as the inference node would make them.

use super::{CHAIN, ROYALTY, demo, model_root, price, receipt_key};
use alloy_primitives::{B256, U256};
use opg_contracts::{GenesisFile, addresses};
use opg_payments::eip3009::Authorization;
use opg_primitives::{
    ids::{Keyset, ModelRoot, NodeId},
    mode::{Grade, Mode},
    money::{Amount, Usage},
};
use opg_receipt::{
    LeafKind, Quote, ReceiptFile, RequestCommitments, SignedQuote, SignedReceipt, UsageUnit, commit,
    file::{Leaf, Opening},
    quote::request_digest,
    receipt_id,
};
use opg_samples::{Sale, payee, payment};
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

/// Receipt number `seq` in mode zk, with its proof.
pub fn proven(genesis: &GenesisFile, seq: u64, prev: B256, amount: Amount) -> (SignedReceipt, Vec<u8>) {
    let mut core = make(genesis, seq, prev, amount).receipt.core().clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let answer = opg_samples::proof::zk(&mut core, seq, now);
    let artefact = opg_samples::proof::artefact(&core, seq, &answer);
    (SignedReceipt::sign(core, &receipt_key()).unwrap(), artefact)
}

/// Receipt number `seq` of the genesis node, with its file. `amount` is what the payer signs.
pub fn make(genesis: &GenesisFile, seq: u64, prev: B256, amount: Amount) -> Made {
    let keyset = keyset(genesis);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let nonce = B256::from(U256::from(seq + 1));
    let salt = B256::repeat_byte(0x5a);
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
        payee: payee(keyset.node_id),
        asset: addresses::OPG,
        expires: now + 600,
        mode_asked: Mode::None,
        min_grade: Grade::None,
    };
    let quote = SignedQuote::sign(quote, &receipt_key()).unwrap();
    let payment = payment(CHAIN, &keyset, &demo(), amount, nonce, now + 600);
    let authorization = Authorization::from(&payment);
    let payment_signature = payment.signature.to_vec();
    let leaf = Leaf {
        kind: LeafKind::ALL[0],
        bytes: opg_receipt::file::Base64Bytes(b"an answer".to_vec().into()),
    };
    let leaves = [commit::response_leaf(&salt, leaf.kind, 0, &leaf.bytes.0)];
    let mut core = Sale {
        chain_id: CHAIN,
        keyset: &keyset,
        seq,
        model: ("test/model", ModelRoot(model_root())),
        ask: price(),
        royalty_bps: ROYALTY,
        usage: (UsageUnit::Tokens, Usage { input: 3, output: 5 }),
        payment,
    }
    .core();
    core.prev = prev;
    core.quote.digest = quote.digest();
    core.request = RequestCommitments {
        body: commit::request(&salt, BODY),
        params: commit::params(&salt, "{}"),
    };
    core.response.commitment = commit::response(&leaves).unwrap();
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
