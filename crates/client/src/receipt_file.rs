//! From a checked receipt to a file that proves it offline.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolEvent as _;
use opg_artefact::{ArtefactError, MAX_ARTEFACT_BYTES, ZkArtefact};
use opg_contracts::{
    EvidenceRegistry::{EvidenceAccepted, EvidenceSubmitted},
    PaymentMethod, addresses, slots, x402,
};
use opg_light_client::{Options, verify};
use opg_primitives::{
    ids::{PaymentId, ReceiptId},
    mode::Mode,
};
use opg_receipt::{
    Core, SignedQuote, SignedReceipt,
    file::{Attestation, HandOver, Inclusion, MAX_HANDOVERS, Opening, ProofAfter, ReceiptFile, StateProof},
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    Client, ClientError, Paid,
    answer::Envelope,
    rpc::{RpcError, read_body, root_cause},
};

/// How often a full node is asked whether something has become final.
const POLL: Duration = Duration::from_millis(50);
const REFUSAL_PATIENCE: Duration = Duration::from_secs(5);
const MAX_STORED: usize = 128 << 20;

/// Blocks that are searched for an event at once: less than full nodes allow.
const LOG_SPAN: u64 = 900;

/// A log of `eth_getLogs`, as far as it is needed.
#[derive(Debug, Deserialize)]
struct ChainLog {
    topics: Vec<B256>,
    data: Bytes,
    #[serde(rename = "blockNumber")]
    block_number: U256,
}

/// How far a receipt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The proof of its answer is here, and was checked; its bytes.
    Proven(usize),
    /// In a final block, at this height.
    Final(u64),
    /// Its payment is settled and credited.
    Settled,
}

impl Client {
    /// Waits until the receipt of `paid` is final and its payment settled, and gives the file that proves both.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if it takes longer; the payment may still settle later.
    pub async fn fetch_receipt_file(
        &self,
        paid: &Paid,
        timeout: Duration,
        progress: impl FnMut(Stage),
    ) -> Result<ReceiptFile, ClientError> {
        let mut file = ReceiptFile::new(paid.receipt.cose().clone(), paid.keyset, paid.quote.cose().clone());
        file.opening = Some(Opening {
            salt: paid.salt,
            method: "POST".into(),
            path: paid.path.into(),
            body: paid.body.to_vec().into(),
            params: paid.params.clone(),
            leaves: paid.leaves.clone(),
        });
        let source = paid.secret.as_deref().map(|secret| (paid.node.url.as_str(), secret));
        self.complete(file, &paid.receipt, source, timeout, progress).await
    }

    /// Fetches a receipt again from the node that made it, with the bearer secret that came with the answer, and gives
    /// the file. The request's body is not stored by nodes, so the file opens no commitments.
    ///
    /// # Errors
    /// If the node does not know the receipt, the secret is wrong, or time runs out.
    pub async fn fetch_stored_receipt(
        &self,
        url: &str,
        id: ReceiptId,
        secret: &str,
        timeout: Duration,
    ) -> Result<ReceiptFile, ClientError> {
        #[derive(Deserialize)]
        struct Stored {
            opg: Option<StoredEnvelope>,
        }
        #[derive(Deserialize)]
        struct StoredEnvelope {
            quote: alloy_primitives::Bytes,
            #[serde(flatten)]
            envelope: Envelope,
        }
        let unreachable = |reason| ClientError::NodeUnreachable {
            url: url.into(),
            reason,
        };
        let response = self
            .http
            .get(format!("{url}/v1/receipts/{id}"))
            .bearer_auth(secret)
            .timeout(crate::HEALTH_TIMEOUT)
            .send()
            .await
            .map_err(|error| unreachable(root_cause(&error)))?;
        if !response.status().is_success() {
            return Err(crate::pay::refusal(response).await);
        }
        let bytes = read_body(response, MAX_STORED)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = |what: String| ClientError::NodeAnswer { what };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))?;
        let stored = stored
            .opg
            .ok_or_else(|| answer("the secret does not open this receipt".into()))?;
        let refuse = |error| ClientError::Answer(crate::answer::AnswerError::Receipt(error));
        let receipt = SignedReceipt::decode(&stored.envelope.receipt).map_err(refuse)?;
        let quote = SignedQuote::decode(&stored.quote).map_err(refuse)?;
        let (_, keyset) = self
            .keyset(receipt.core().keyset, url)
            .await?
            .ok_or_else(|| ClientError::Proof {
                what: format!("keyset {} is not registered", receipt.core().keyset),
            })?;
        receipt.verify_signature(&keyset.receipt_key.0).map_err(refuse)?;
        receipt.core().check_quote(&quote).map_err(refuse)?;
        let file = ReceiptFile::new(receipt.cose().clone(), keyset, quote.cose().clone());
        self.complete(file, &receipt, Some((url, secret)), timeout, |_| ())
            .await
    }

    /// Waits for the proof of an answer and checks it. `source` is the node's URL and the receipt's secret.
    async fn wait_proven(
        &self,
        receipt: &SignedReceipt,
        source: Option<(&str, &str)>,
        timeout: Duration,
    ) -> Result<(Bytes, ZkArtefact), ClientError> {
        let id = receipt.core().receipt_id;
        let (url, secret) = source.ok_or_else(|| ClientError::Proof {
            what: "the answer came without the secret that opens its proof".into(),
        })?;
        let unreachable = |reason| ClientError::NodeUnreachable {
            url: url.into(),
            reason,
        };
        let start = Instant::now();
        loop {
            let response = self
                .http
                .get(format!("{url}/v1/receipts/{id}/proof"))
                .bearer_auth(secret)
                .timeout(crate::HEALTH_TIMEOUT)
                .send()
                .await
                .map_err(|error| unreachable(root_cause(&error)))?;
            match response.status().as_u16() {
                200 => {
                    let bytes = read_body(response, MAX_ARTEFACT_BYTES)
                        .await
                        .map_err(|error| unreachable(error.to_string()))?;
                    let wrong = |error: ArtefactError| ClientError::Proof {
                        what: format!("the node's proof does not hold: {error}"),
                    };
                    let artefact = ZkArtefact::decode(&bytes).map_err(wrong)?;
                    artefact.verify(receipt.core()).map_err(wrong)?;
                    return Ok((bytes.into(), artefact));
                }
                202 if start.elapsed() < timeout => tokio::time::sleep(POLL).await,
                202 => return Err(expired("the proof of the answer", timeout)),
                _ => return Err(crate::pay::refusal(response).await),
            }
        }
    }

    async fn complete(
        &self,
        mut file: ReceiptFile,
        receipt: &SignedReceipt,
        source: Option<(&str, &str)>,
        timeout: Duration,
        mut progress: impl FnMut(Stage),
    ) -> Result<ReceiptFile, ClientError> {
        let start = Instant::now();
        let core = receipt.core();
        let left = || timeout.saturating_sub(start.elapsed());
        let proven = match core.mode.served {
            Mode::Zk => Some(self.wait_proven(receipt, source, left()).await?),
            Mode::None | Mode::Tee | Mode::Replay => None,
        };
        if let Some((bytes, _)) = &proven {
            progress(Stage::Proven(bytes.len()));
        }
        let inclusion = self.wait_final(core.receipt_id, left()).await?;
        progress(Stage::Final(inclusion.height));
        let height = inclusion.height;
        file.inclusion = Some(inclusion);
        let payment = core.payment.id();
        let channel = core.payment.channel.is_some();
        if !channel {
            self.wait_credited(payment, left()).await?;
            progress(Stage::Settled);
        }
        let base = slots::keyset_base(core.keyset.0);
        let keyset: Vec<U256> = (0..3u64).map(|i| base.wrapping_add(U256::from(i))).collect();
        let mut registered = vec![(addresses::NODE_REGISTRY, keyset)];
        if channel {
            let sums = x402::channel_sums_slot(core.payment.nonce);
            registered.push((addresses::RECEIPT_LEDGER, vec![sums]));
        }
        let registration = self.state_proof(&registered, height, left()).await?;
        let recorded = halves(&registration, addresses::RECEIPT_LEDGER).0;
        file.registration = Some(registration);
        if let Some((bytes, artefact)) = proven {
            let slot = slots::model_program(core.model.served_root.0, artefact.program());
            let registration = self
                .state_proof(&[(addresses::MODEL_REGISTRY, vec![slot])], height, left())
                .await?;
            file.proof = Some(ProofAfter {
                artefact: bytes.to_vec().into(),
                registration,
            });
        }
        if core.mode.served == Mode::Tee {
            file.attestation = Some(self.attestation(core, height, left()).await?);
        }
        if channel {
            // The money lies in the channel; the node claims it when it is worth the gas. Whoever waits asks again later.
            file.payment = self.channel_settlement(core.payment.nonce, recorded, left()).await?;
            if file.payment.is_some() {
                progress(Stage::Settled);
            }
            self.add_handovers(&mut file).await?;
            self.check(&file)?;
            return Ok(file);
        }
        let method = PaymentMethod::of(&core.payment).unwrap_or(PaymentMethod::Erc3009);
        let (contract, settlement) = method.settlement_slot(core.payment.payer, core.payment.nonce);
        let accounts = [
            (contract, vec![settlement]),
            (addresses::RECEIPT_LEDGER, vec![slots::spent(payment.0)]),
        ];
        loop {
            let proof = self.state_proof(&accounts, 0, left()).await?;
            // Another full node may answer than the one that showed the credit, and be a block behind.
            let shown = proof
                .accounts
                .iter()
                .flat_map(|account| &account.slots)
                .all(|slot| !slot.value.is_zero());
            if shown || left().is_zero() {
                file.payment = Some(proof);
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        self.add_handovers(&mut file).await?;
        self.check(&file)?;
        Ok(file)
    }

    /// Last, so that they lead to every block of which the file has a part.
    async fn add_handovers(&self, file: &mut ReceiptFile) -> Result<(), ClientError> {
        if self.network().genesis.parameters.epoch_blocks > 0 {
            file.handovers = self.handovers().await?;
        }
        Ok(())
    }

    /// The proof that `recorded` wei of a channel are claimed and credited, if they are.
    async fn channel_settlement(
        &self,
        id: B256,
        recorded: u128,
        timeout: Duration,
    ) -> Result<Option<StateProof>, ClientError> {
        let accounts = [
            (addresses::BATCH_SETTLEMENT, vec![x402::channel_slot(id)]),
            (addresses::RECEIPT_LEDGER, vec![x402::channel_sums_slot(id)]),
        ];
        let proof = self.state_proof(&accounts, 0, timeout).await?;
        let (_, claimed) = halves(&proof, addresses::BATCH_SETTLEMENT);
        let (_, credited) = halves(&proof, addresses::RECEIPT_LEDGER);
        Ok((claimed >= recorded && credited >= recorded).then_some(proof))
    }

    /// The evidence of a receipt's keyset, as the node submitted it, and the proof of its registration.
    async fn attestation(&self, core: &Core, height: u64, timeout: Duration) -> Result<Attestation, ClientError> {
        let id = core
            .evidence
            .and_then(|evidence| evidence.evidence_id)
            .unwrap_or_default();
        let registry = addresses::EVIDENCE_REGISTRY;
        let absent = |what: &str| ClientError::Proof {
            what: format!("evidence {id} of the receipt: {what}"),
        };
        // The verdict stands in the block after the submission. Backwards, because it is mostly recent.
        let accepted = json!([EvidenceAccepted::SIGNATURE_HASH, core.keyset, id]);
        let mut upper = height;
        let found = loop {
            let lower = upper.saturating_sub(LOG_SPAN);
            let logs = self.logs(registry, &accepted, lower, upper).await?;
            match (logs.into_iter().next_back(), lower) {
                (Some(log), _) => break log.block_number.to::<u64>(),
                (None, 0) => return Err(absent("no block accepts it")),
                (None, lower) => upper = lower - 1,
            }
        };
        let at = found.saturating_sub(1);
        let submitted = json!([EvidenceSubmitted::SIGNATURE_HASH, core.keyset]);
        let logs = self.logs(registry, &submitted, at, at).await?;
        let [log] = logs.as_slice() else {
            return Err(absent("its submission is not in the block before"));
        };
        let event = EvidenceSubmitted::decode_raw_log(log.topics.iter().copied(), &log.data)
            .map_err(|error| absent(&error.to_string()))?;
        let base = slots::evidence_base(id);
        let record = (0..5u64).map(|i| base.wrapping_add(U256::from(i))).collect();
        Ok(Attestation {
            kind: event.kind,
            document: event.document.to_vec().into(),
            collateral: event.collateral.to_vec().into(),
            nonce_hash: event.nonceHash,
            epoch: event.epoch.to::<u64>(),
            operator: event.operator,
            endpoint: event.endpoint,
            role: event.role,
            config: event.config,
            registration: self.state_proof(&[(registry, record)], height, timeout).await?,
        })
    }

    async fn logs(
        &self,
        address: Address,
        topics: &serde_json::Value,
        lower: u64,
        upper: u64,
    ) -> Result<Vec<ChainLog>, ClientError> {
        let filter = json!({
            "address": address, "topics": topics,
            "fromBlock": format!("0x{lower:x}"), "toBlock": format!("0x{upper:x}"),
        });
        Ok(self.rpc().call("eth_getLogs", [filter]).await?)
    }

    /// Every change of the validator set since the genesis; they are verified with the file.
    pub(crate) async fn handovers(&self) -> Result<Vec<HandOver>, ClientError> {
        let mut all: Vec<HandOver> = Vec::new();
        loop {
            let from = all.len().saturating_add(1);
            let next: Vec<HandOver> = self.rpc().call("og_getHandovers", [from]).await?;
            if next.is_empty() {
                return Ok(all);
            }
            all.extend(next);
            if all.len() > MAX_HANDOVERS {
                return Err(ClientError::Proof {
                    what: format!(
                        "more than {MAX_HANDOVERS} epochs since the genesis: a file starts from a checkpoint then"
                    ),
                });
            }
        }
    }

    /// Verifies a file as a stranger with the genesis file would.
    fn check(&self, file: &ReceiptFile) -> Result<(), ClientError> {
        let report =
            verify(file, &self.network().genesis, &Options::default()).map_err(|error| ClientError::Proof {
                what: error.to_string(),
            })?;
        match report.failure() {
            Some(step) => Err(ClientError::Proof {
                what: format!("{}: {}", step.name.as_str(), step.detail),
            }),
            None if report.verdict.is_success() => Ok(()),
            None => Err(ClientError::Proof {
                what: report.verdict.to_string(),
            }),
        }
    }

    /// Waits until the receipt stands in a final block.
    ///
    /// # Errors
    /// [`ClientError::Timeout`].
    pub async fn wait_final(&self, id: ReceiptId, timeout: Duration) -> Result<Inclusion, ClientError> {
        let start = Instant::now();
        loop {
            match self
                .rpc()
                .call::<_, Option<Inclusion>>("og_getInclusionProof", (id,))
                .await
            {
                Ok(Some(inclusion)) => return Ok(inclusion),
                Ok(None) if start.elapsed() < timeout => {}
                Ok(None) => return Err(expired("finality of the receipt", timeout)),
                Err(error) if is_transient(&error, start) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until full node `index` of the network has itself checked the receipt: it is in its pool, or final.
    ///
    /// # Errors
    /// [`ClientError::Timeout`].
    pub async fn wait_checked_at(&self, index: usize, id: ReceiptId, timeout: Duration) -> Result<(), ClientError> {
        let start = Instant::now();
        loop {
            match self
                .rpc()
                .call_at::<_, Option<serde::de::IgnoredAny>>(index, "og_getReceipt", &(id,))
                .await?
            {
                Some(_) => return Ok(()),
                None if start.elapsed() < timeout => tokio::time::sleep(POLL).await,
                None => return Err(expired("verification of the receipt", timeout)),
            }
        }
    }

    /// Waits until the ledger has credited the payment, which it does only after the payment has settled on chain.
    ///
    /// # Errors
    /// [`ClientError::Timeout`].
    pub async fn wait_credited(&self, payment: PaymentId, timeout: Duration) -> Result<(), ClientError> {
        let start = Instant::now();
        let slot = B256::from(slots::spent(payment.0));
        loop {
            let value: U256 = self
                .rpc()
                .call("eth_getStorageAt", (addresses::RECEIPT_LEDGER, slot, "latest"))
                .await?;
            if value == U256::ONE {
                return Ok(());
            }
            if start.elapsed() >= timeout {
                return Err(expired("settlement of the payment", timeout));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A proof of storage slots under a certified state root at `height` (0: the newest that has a certificate).
    pub(crate) async fn state_proof(
        &self,
        accounts: &[(Address, Vec<U256>)],
        height: u64,
        timeout: Duration,
    ) -> Result<StateProof, ClientError> {
        let wanted: Vec<_> = accounts
            .iter()
            .map(|(address, slots)| {
                let slots: Vec<B256> = slots.iter().map(|slot| (*slot).into()).collect();
                json!({ "address": address, "slots": slots })
            })
            .collect();
        let params = if height == 0 {
            json!([wanted])
        } else {
            json!([wanted, height])
        };
        let start = Instant::now();
        loop {
            match self
                .rpc()
                .call::<_, Option<StateProof>>("og_getStateProof", &params)
                .await
            {
                Ok(Some(proof)) => return Ok(proof),
                Ok(None) if start.elapsed() < timeout => {}
                Ok(None) => return Err(expired("a certificate of the state", timeout)),
                Err(error) if is_transient(&error, start) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A node whose newest block is a moment away from having its certificate or its state may refuse; one that still refuses
/// after some seconds means it.
fn is_transient(error: &RpcError, since: Instant) -> bool {
    matches!(error, RpcError::Refused { .. }) && since.elapsed() < REFUSAL_PATIENCE
}

fn expired(what: &str, timeout: Duration) -> ClientError {
    ClientError::Timeout {
        what: what.into(),
        seconds: timeout.as_secs(),
    }
}

/// Low and high half of the only slot that a proof has of `contract`; zeros if it has none.
fn halves(proof: &StateProof, contract: Address) -> (u128, u128) {
    let account = proof.accounts.iter().find(|account| account.address == contract);
    let slot = account.and_then(|account| account.slots.first());
    let word = slot.map_or(U256::ZERO, |slot| U256::from_be_bytes(slot.value.0));
    let limbs = word.as_limbs();
    let join = |low: u64, high: u64| u128::from(low) | (u128::from(high) << 64);
    (join(limbs[0], limbs[1]), join(limbs[2], limbs[3]))
}
