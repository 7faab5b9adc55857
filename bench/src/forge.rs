//! Valid receipts in bulk: what an inference node would sign, without running a model.

use alloy_primitives::B256;
use ed25519_dalek::SigningKey;
use eyre::{Result, eyre};
use opg_client::Wallet;
use opg_contracts::GenesisFile;
use opg_inference_node::config::NodeKeys;
use opg_primitives::{
    hash::keccak,
    ids::{Keyset, ModelRoot, NodeId},
    money::{Price, Usage, charge},
};
use opg_receipt::{SignedReceipt, Times, UsageUnit};
use opg_samples::{Sale, payment};
use std::path::Path;

/// Signs receipts of a network's inference node for payments of its demo wallet.
#[derive(Debug)]
pub(crate) struct Forge {
    chain_id: u64,
    keyset: Keyset,
    receipt_key: SigningKey,
    wallet: Wallet,
    model: (String, ModelRoot),
    ask: Price,
    royalty_bps: u16,
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
            keyset: keys.keyset(node_id),
            receipt_key: keys.receipt_key(),
            wallet: Wallet::load(&dir.join("demo.key"))?,
            model: (model.name.clone(), ModelRoot(model.root)),
            ask: ask.price,
            royalty_bps: model.royalty_bps,
            runtime: opg_runtime::runtime_digest(),
            seq: 0,
            prev: B256::ZERO,
        })
    }

    /// The next receipt of the chain, with a payment valid for an hour from `now` (Unix seconds).
    pub(crate) fn next(&mut self, now: u64) -> Result<SignedReceipt> {
        let nonce = keccak(&self.seq.to_be_bytes());
        let usage = Usage { input: 1, output: 0 };
        let due = charge(&self.ask, usage, self.royalty_bps)?;
        let payer = self.wallet.secret_key();
        let payment = payment(self.chain_id, &self.keyset, payer, due, nonce, now + 3_600);
        let mut core = Sale {
            chain_id: self.chain_id,
            keyset: &self.keyset,
            seq: self.seq,
            model: (&self.model.0, self.model.1),
            ask: self.ask,
            royalty_bps: self.royalty_bps,
            usage: (UsageUnit::Calls, usage),
            payment,
        }
        .core();
        core.prev = self.prev;
        core.model.runtime = self.runtime;
        core.times = Times {
            received: now * 1_000,
            first_output: now * 1_000,
            done: now * 1_000,
        };
        let receipt = SignedReceipt::sign(core, &self.receipt_key)?;
        self.prev = receipt.core_hash();
        self.seq += 1;
        Ok(receipt)
    }
}
