//! `og_*` methods that prove: inclusion, certificates, state. Their answers are the parts of a receipt file (receipt.md §7).

use super::{
    Front,
    dispatch::MAX_PROOF_SLOTS,
    message::{INVALID_PARAMS, NOT_FOUND, Params, RpcError, SERVER_ERROR, hex_value, number, quantity},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_consensus::{ChainBlock, FinalityProof};
use opg_primitives::merkle;
use opg_receipt::{
    SignedReceipt,
    file::{AccountProof, Finality, HandOver, Inclusion, SlotProof, StateProof},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Accounts of one `og_getStateProof`.
const MAX_PROOF_ACCOUNTS: usize = 16;
/// Hand-overs of one `og_getHandovers`.
const MAX_HANDOVERS: usize = 64;
/// The newest block's certificate may arrive a moment after the block.
const CERTIFICATE_WAIT: Duration = Duration::from_millis(50);
const CERTIFICATE_TRIES: u32 = 60;

/// One account of an `eth_getProof` answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EthProof {
    account_proof: Vec<Bytes>,
    storage_proof: Vec<EthSlotProof>,
}

#[derive(Deserialize)]
struct EthSlotProof {
    value: U256,
    proof: Vec<Bytes>,
}

impl Front {
    /// `og_getInclusionProof(id)`: the member `inclusion` of a receipt file, null before the receipt is final.
    pub(super) async fn get_inclusion_proof(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let id = B256::from(p.fixed::<32>(0, "receiptId")?);
        let Some(row) = self.row(id).await? else {
            return Ok(Value::Null);
        };
        let block = self.archived(row.height).await?;
        let index = row.index as usize;
        let siblings = super::og::blocking(move || {
            let hashes = block
                .receipts
                .iter()
                .map(|bytes| SignedReceipt::decode(bytes).map(|r| merkle::leaf(r.core_hash())));
            let leaves: Vec<B256> = hashes.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
            merkle::prove(&leaves, index).ok_or_else(|| "index row outside its block".to_owned())
        })
        .await?;
        let finality = self.finality(row.height).await?;
        to_json(&Inclusion {
            height: row.height,
            index: row.index,
            count: row.count,
            siblings,
            finality,
        })
    }

    /// `og_getCertificate(height)`: envelopes from the block to the certified one, proposal and certificate.
    pub(super) async fn get_certificate(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let height = self.certified_height(p.get(0))?;
        let (proof, finality) = self.proof(height).await?;
        certificate_json(height, &proof, &finality)
    }

    /// `og_getCheckpoint()`: the newest finalized block with its certificate, for clients to keep (D12).
    pub(super) async fn get_checkpoint(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(0)?;
        let height = self.certified_height(None)?;
        let (proof, finality) = self.proof(height).await?;
        let block = self
            .node
            .execution
            .block(height)
            .await
            .map_err(RpcError::internal)?
            .ok_or_else(|| no_block(height))?;
        let mut checkpoint = certificate_json(height, &proof, &finality)?;
        if let Some(object) = checkpoint.as_object_mut() {
            let target = proof
                .envelopes
                .first()
                .map(opg_consensus::envelope_digest)
                .unwrap_or_default();
            object.insert("genesis".into(), json!(self.node.genesis_digest));
            object.insert("chainId".into(), json!(self.node.rules.chain_id));
            object.insert("epoch".into(), json!(self.node.epochs.of(height)));
            object.insert("digest".into(), json!(target));
            object.insert("blockHash".into(), json!(block.hash()));
            object.insert("stateRoot".into(), json!(block.state_root()));
            object.insert("batchRoot".into(), json!(block.beacon_root()));
            object.insert("timestamp".into(), json!(block.timestamp()));
        }
        Ok(checkpoint)
    }

    /// `og_getHandovers(from?, to?)`: members of the list `handovers` of a receipt file, from epoch 1 or `from` to the current epoch or
    /// `to`, at most 64 at once. Empty where there are no epochs.
    pub(super) async fn get_handovers(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(2)?;
        let node = &self.node;
        let current = node.epochs.of(node.execution.head().number.saturating_add(1));
        let epoch = |at: usize, name: &'static str, default: u64| match p.get(at) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                number(value).ok_or_else(|| RpcError::field(name, "the number of an epoch", value.to_string()))
            }
        };
        let from = epoch(0, "from", 1)?.max(1);
        let to = epoch(1, "to", current)?.min(current);
        let mut handovers = Vec::new();
        for epoch in (from..=to).take(MAX_HANDOVERS) {
            let index = node.index.clone();
            let kept = super::og::blocking(move || index.handover(epoch)).await?;
            let height = epoch.checked_sub(1).and_then(|before| node.epochs.last(before));
            let (Some(kept), Some(height)) = (kept, height) else {
                return Err(RpcError::new(
                    NOT_FOUND,
                    format!("the hand-over to epoch {epoch} is not kept here: ask another node"),
                ));
            };
            let finality = self.finality(height).await?;
            handovers.push(HandOver {
                epoch,
                state: StateProof {
                    finality,
                    accounts: kept.accounts,
                },
                seats: kept.seats,
            });
        }
        to_json(&handovers)
    }

    /// `og_getStateProof(address, slots, height?)` or `og_getStateProof([{address, slots}], height?)`: a `StateProof` of a
    /// receipt file. The state of old blocks is not kept; without a height, the newest certified block is taken.
    pub(super) async fn get_state_proof(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(3)?;
        let (accounts, height) = match p.get(0) {
            Some(Value::Array(accounts)) => (parse_accounts(accounts)?, p.get(1)),
            Some(_) => {
                let address = address(p.get(0), "address")?;
                (vec![(address, slots(p.get(1), "slots")?)], p.get(2))
            }
            None => {
                return Err(RpcError::field(
                    "address",
                    "an address, or an array of {address, slots}",
                    "nothing",
                ));
            }
        };
        let total: usize = accounts.iter().map(|(_, slots)| slots.len()).sum();
        if total > MAX_PROOF_SLOTS {
            return Err(RpcError::field(
                "slots",
                format!("at most {MAX_PROOF_SLOTS}"),
                total.to_string(),
            ));
        }
        let height = self.certified_height(height)?;
        let finality = self.finality(height).await?;
        let mut proofs = Vec::with_capacity(accounts.len());
        for (address, slots) in accounts {
            let keys: Vec<Value> = slots.iter().map(hex_value).collect();
            let answer = self
                .forward(
                    "eth_getProof",
                    vec![json!(format!("{address:#x}")), Value::Array(keys), quantity(height)],
                )
                .await?;
            if answer.is_null() {
                return Err(RpcError::field(
                    "height",
                    "a recent block: the state of old blocks is not kept",
                    height.to_string(),
                ));
            }
            let proof: EthProof = serde_json::from_value(answer).map_err(RpcError::internal)?;
            if proof.storage_proof.len() != slots.len() {
                return Err(RpcError::internal("eth_getProof answered another number of slots"));
            }
            // in the order asked for, whatever form the keys come back in
            let slots = slots
                .into_iter()
                .zip(proof.storage_proof)
                .map(|(key, slot)| SlotProof {
                    key,
                    value: slot.value.into(),
                    proof: slot.proof,
                })
                .collect();
            proofs.push(AccountProof {
                address,
                proof: proof.account_proof,
                slots,
            });
        }
        to_json(&StateProof {
            finality,
            accounts: proofs,
        })
    }

    /// A height that has a certificate; without one, the newest finalized.
    fn certified_height(&self, value: Option<&Value>) -> Result<u64, RpcError> {
        let head = self.node.execution.head().number;
        let height = match value {
            None => head,
            Some(Value::String(tag)) if matches!(tag.as_str(), "latest" | "finalized" | "safe") => head,
            Some(value) => {
                number(value).ok_or_else(|| RpcError::field("height", "a block number", value.to_string()))?
            }
        };
        if height > head || height == 0 {
            let expected = format!("1 to {head} (the newest finalized block; block 0 is the genesis file's)");
            return Err(RpcError::field("height", expected, height.to_string()));
        }
        Ok(height)
    }

    async fn finality(&self, height: u64) -> Result<Finality, RpcError> {
        self.proof(height).await.map(|(_, finality)| finality)
    }

    async fn proof(&self, height: u64) -> Result<(FinalityProof, Finality), RpcError> {
        let consensus = self.consensus()?;
        let mut found = None;
        for _ in 0..CERTIFICATE_TRIES {
            let proof = consensus.finalization(height).await.map_err(RpcError::internal)?;
            let header = self
                .node
                .execution
                .header_rlp(height)
                .await
                .map_err(RpcError::internal)?;
            found = proof.zip(header);
            if found.is_some() {
                break;
            }
            tokio::time::sleep(CERTIFICATE_WAIT).await;
        }
        let (proof, header) = found.ok_or_else(|| {
            RpcError::new(
                NOT_FOUND,
                format!("no certificate for block {height} here yet: ask again in a second"),
            )
        })?;
        let finality = Finality {
            header,
            envelopes: proof.envelopes.iter().map(|e| Bytes::copy_from_slice(e)).collect(),
            proposal: proof.proposal.clone(),
            certificate: proof.certificate.clone(),
        };
        Ok((proof, finality))
    }

    async fn archived(&self, height: u64) -> Result<Arc<ChainBlock>, RpcError> {
        self.consensus()?
            .block(height)
            .await
            .map_err(RpcError::internal)?
            .ok_or_else(|| no_block(height))
    }

    fn consensus(&self) -> Result<&opg_consensus::Handle, RpcError> {
        self.node
            .consensus
            .get()
            .ok_or_else(|| RpcError::new(SERVER_ERROR, "the node is starting: ask again in a second"))
    }
}

fn no_block(height: u64) -> RpcError {
    RpcError::new(NOT_FOUND, format!("block {height} is not in this node's archive"))
}

fn certificate_json(height: u64, proof: &FinalityProof, finality: &Finality) -> Result<Value, RpcError> {
    let mut value = to_json(finality)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("height".into(), json!(height));
        object.insert("certifiedHeight".into(), json!(proof.height));
    }
    Ok(value)
}

fn to_json(value: &impl serde::Serialize) -> Result<Value, RpcError> {
    serde_json::to_value(value).map_err(RpcError::internal)
}

fn parse_accounts(accounts: &[Value]) -> Result<Vec<(Address, Vec<B256>)>, RpcError> {
    if accounts.is_empty() || accounts.len() > MAX_PROOF_ACCOUNTS {
        return Err(RpcError::field(
            "accounts",
            format!("1 to {MAX_PROOF_ACCOUNTS} accounts"),
            accounts.len().to_string(),
        ));
    }
    let one = |account: &Value| {
        Ok((
            address(account.get("address"), "accounts[].address")?,
            slots(account.get("slots"), "accounts[].slots")?,
        ))
    };
    accounts.iter().map(one).collect()
}

fn address(value: Option<&Value>, name: &str) -> Result<Address, RpcError> {
    let text = value.and_then(Value::as_str).filter(|t| t.starts_with("0x"));
    text.and_then(|t| t.parse().ok()).ok_or_else(|| {
        RpcError::field(
            name,
            "an address (0x and 40 hex digits)",
            value.map_or("nothing".into(), Value::to_string),
        )
    })
}

/// Storage slots: 0x and up to 64 hex digits each.
fn slots(value: Option<&Value>, name: &str) -> Result<Vec<B256>, RpcError> {
    let Some(Value::Array(values)) = value else {
        return Err(RpcError::field(
            name,
            "an array of storage slots",
            value.map_or("nothing".into(), Value::to_string),
        ));
    };
    if values.len() > MAX_PROOF_SLOTS {
        return Err(RpcError::with_field(
            INVALID_PARAMS,
            "too many slots",
            name,
            format!("at most {MAX_PROOF_SLOTS}"),
            values.len().to_string(),
        ));
    }
    let one = |v: &Value| {
        let digits = v
            .as_str()
            .and_then(|t| t.strip_prefix("0x"))
            .filter(|d| (1..=64).contains(&d.len()));
        digits
            .and_then(|d| U256::from_str_radix(d, 16).ok())
            .map(B256::from)
            .ok_or_else(|| RpcError::field(name, "0x and up to 64 hex digits", v.to_string()))
    };
    values.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_addresses() {
        let one = slots(Some(&json!(["0x1", format!("0x{}", "f".repeat(64))])), "slots").unwrap();
        assert_eq!(one[0], B256::from(U256::from(1)));
        assert_eq!(one[1], B256::repeat_byte(0xff));
        for bad in [
            json!("0x1"),
            json!([1]),
            json!(["1"]),
            json!(["0x"]),
            json!([format!("0x{}", "1".repeat(65))]),
        ] {
            assert!(slots(Some(&bad), "slots").is_err(), "{bad}");
        }
        assert!(address(Some(&json!("0x12")), "address").is_err());
        assert!(parse_accounts(&[]).is_err());
        let accounts = [json!({ "address": format!("{:#x}", Address::ZERO), "slots": [] })];
        assert_eq!(parse_accounts(&accounts).unwrap(), vec![(Address::ZERO, vec![])]);
    }
}
