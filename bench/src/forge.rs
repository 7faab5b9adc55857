//! Valid receipts in bulk: what an inference node would sign, without running a model.

use alloy_primitives::{Address, B256};
use ed25519_dalek::SigningKey;
use eyre::{Result, eyre};
use opg_client::Wallet;
use opg_contracts::{GenesisFile, addresses};
use opg_inference_node::config::NodeKeys;
use opg_payments::eip3009::{Authorization, Domain};
use opg_primitives::{
    hash::keccak,
    ids::{KeysetDigest, ModelRoot, NodeId, deposit_address},
    money::{Amount, Price, Usage, charge},
};
use opg_receipt::{
    Core, FinishReason, ModeRecord, ModelRef, PaymentMethod, PaymentRecord, PaymentScheme, PriceRecord, QuoteRef,
    RequestCommitments, Response, SignedReceipt, StreamRecord, Times, UsageRecord, UsageUnit, receipt_id,
};
use std::path::Path;

/// Signs receipts of a network's inference node for payments of its demo wallet.
#[derive(Debug)]
pub(crate) struct Forge {
    chain_id: u64,
    node_id: NodeId,
    keyset: KeysetDigest,
    receipt_key: SigningKey,
    wallet: Wallet,
    payee: Address,
    model: (String, ModelRoot),
    ask: Price,
    royalty_bps: u16,
    domain: Domain,
    runtime: B256,
    seq: u64,
    prev: B256,
}

impl Forge {
    /// Takes the keys from a network's folder. Its inference node must not have signed anything yet, and must not do so
    /// afterwards: sequence numbers start at 0.
    pub(crate) fn open(dir: &Path, genesis: &GenesisFile) -> Result<Self> {
        let node = genesis
            .nodes
            .first()
            .ok_or_else(|| eyre!("the genesis has no inference node"))?;
        let model = genesis
            .models
            .first()
            .ok_or_else(|| eyre!("the genesis has no model"))?;
        let ask = genesis
            .asks
            .iter()
            .find(|ask| ask.root == model.root)
            .ok_or_else(|| eyre!("no ask for {}", model.name))?;
        let node_id = NodeId(node.node_id());
        let keys = NodeKeys::load(&dir.join("inference/keys.json"))?;
        Ok(Self {
            chain_id: genesis.chain_id,
            node_id,
            keyset: keys.keyset(node_id).digest(),
            receipt_key: keys.receipt_key(),
            wallet: Wallet::load(&dir.join("demo.key"))?,
            payee: deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, node_id),
            model: (model.name.clone(), ModelRoot(model.root)),
            ask: ask.price,
            royalty_bps: model.royalty_bps,
            domain: Domain::opg(genesis.chain_id, addresses::OPG),
            runtime: opg_runtime::runtime_digest(),
            seq: 0,
            prev: B256::ZERO,
        })
    }

    /// The next receipt of the chain, with a payment valid for an hour from `now` (Unix seconds).
    pub(crate) fn next(&mut self, now: u64) -> Result<SignedReceipt> {
        let nonce = keccak(&self.seq.to_be_bytes());
        let due = charge(&self.ask, Usage { input: 1, output: 0 }, self.royalty_bps)?;
        let payment = self.pay(due, nonce, now);
        let (name, root) = self.model.clone();
        let core = Core {
            chain_id: self.chain_id,
            registry: addresses::NODE_REGISTRY,
            node_id: self.node_id,
            keyset: self.keyset,
            seq: self.seq,
            prev: self.prev,
            receipt_id: receipt_id(self.chain_id, &self.node_id, &nonce),
            quote: QuoteRef {
                digest: keccak(b"quote"),
                nonce,
            },
            request: RequestCommitments {
                body: keccak(b"body"),
                params: keccak(b"params"),
            },
            model: ModelRef {
                asked: name,
                asked_root: root,
                served_root: root,
                runtime: self.runtime,
            },
            response: Response {
                commitment: keccak(b"answer"),
                leaves: 1,
                finish: FinishReason::Stop,
                status: 200,
            },
            usage: UsageRecord {
                unit: UsageUnit::Calls,
                input: 1,
                output: 0,
            },
            price: PriceRecord {
                ask: self.ask,
                royalty_bps: self.royalty_bps,
                charge: due,
                asset: addresses::OPG,
            },
            payment,
            times: Times {
                received: now * 1_000,
                first_output: now * 1_000,
                done: now * 1_000,
            },
            mode: ModeRecord::NONE,
            stream: StreamRecord::NOT_STREAMED,
            evidence: None,
            router: None,
        };
        let receipt = SignedReceipt::sign(core, &self.receipt_key)?;
        self.prev = receipt.core_hash();
        self.seq += 1;
        Ok(receipt)
    }

    fn pay(&self, amount: Amount, nonce: B256, now: u64) -> PaymentRecord {
        let authorization = Authorization {
            from: self.wallet.address(),
            to: self.payee,
            value: amount.to_u256(),
            valid_after: 0,
            valid_before: now + 3_600,
            nonce,
        };
        PaymentRecord {
            scheme: PaymentScheme::Exact,
            method: PaymentMethod::Eip3009,
            payer: authorization.from,
            payee: self.payee,
            amount,
            valid_after: authorization.valid_after,
            valid_before: authorization.valid_before,
            nonce,
            signature: authorization
                .sign(&self.domain, self.wallet.secret_key())
                .to_vec()
                .into(),
        }
    }
}
