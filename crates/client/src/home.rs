//! The chain where OPG lives: certificates relayed to it, receipts proved there, and payouts (decisions D5).
//!
//! Nothing is relayed that this client has not verified from the genesis by itself: a full node cannot make its user pay for a transaction
//! that the contract refuses.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use opg_contracts::{
    Checkpoint, HomeFeeVault, OPG, Payouts, addresses,
    checkpoint::BLS,
    payouts::{PayoutList, ROOT_SLOT},
    seats, slots,
};
use opg_light_client::{CertifiedBlock, Epochs, ProofError, onchain};
use opg_primitives::money::Amount;
use opg_receipt::{
    ReceiptFile, SignedReceipt,
    file::{AccountProof, Finality, HandOver, StateProof},
};
use serde::Serialize;
use std::time::Duration;

use crate::{Client, ClientError, EvmChain, HomeEntry, Sent, chain::amount, deploy::checkpoint_seat, wallet::Wallet};

/// Tries to relay a state while epochs end.
const TRIES: usize = 4;
/// How long a full node may need for the certificate of its newest block.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why something did not happen on the home chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// The network file names no home chain.
    #[error("network.json names no home chain; `opg deploy --home base --plan FILE` deploys there and says so in it")]
    NoHome,
    /// What the network's full node shows does not follow from the genesis.
    #[error("the full node's certificate does not hold, nothing was relayed: {0}")]
    Proof(#[from] ProofError),
    /// Epochs kept ending while their states were relayed.
    #[error("the network's epochs end faster than they can be relayed")]
    TooFast,
    /// The receipt file proves no inclusion.
    #[error("the receipt is not final in this file: it has no inclusion")]
    NotFinal,
    /// The receipt file is none.
    #[error("receipt: {0}")]
    Receipt(opg_receipt::ReceiptError),
    /// The list does not have the payee and node.
    #[error("the list has no payout of {payee} from node {node_id}")]
    NoPayout {
        /// The payee.
        payee: Address,
        /// The node.
        node_id: B256,
    },
    /// The vault has another root.
    #[error(
        "the vault's payout root is {got}, that of this list is {expected}; `opg payout publish` takes over the network's"
    )]
    OtherRoot {
        /// Of the list.
        expected: B256,
        /// Of the vault.
        got: B256,
    },
    /// No root is said on the network.
    #[error("the network has no payout root yet: a quorum of validators has to say it (`opg payout say`)")]
    NoRoot,
    /// A chain does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What the checkpoint contract believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckpointState {
    /// Epoch of the set that it believes.
    pub epoch: u64,
    /// Seats of that set.
    pub seats: u16,
    /// Newest certified height; 0 if there is none.
    pub height: u64,
    /// Its timestamp, Unix seconds.
    pub timestamp: u64,
    /// Its EVM block hash.
    pub block_hash: B256,
    /// Its state root.
    pub state_root: B256,
}

/// One relayed thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "what")]
pub enum Relayed {
    /// A certified header.
    Certificate {
        /// Its height.
        height: u64,
        /// Its epoch.
        epoch: u64,
        /// The transaction.
        transaction: Sent,
    },
    /// The next epoch's set.
    Handover {
        /// The epoch that begins.
        epoch: u64,
        /// Seats of its set.
        seats: usize,
        /// The transaction.
        transaction: Sent,
    },
}

/// The payout root on both chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PayoutRoots {
    /// In force on the network; zero if there is none.
    pub network: B256,
    /// Its number.
    pub number: u64,
    /// What the vault pays from.
    pub vault: B256,
    /// Certified height that the vault read it at.
    pub vault_height: u64,
}

/// The deployment of a network on its home chain.
#[derive(Debug)]
pub struct Home<'a> {
    client: &'a Client,
    entry: HomeEntry,
    chain: EvmChain,
}

impl Client {
    /// The network's home chain.
    ///
    /// # Errors
    /// [`HomeError::NoHome`], or if the chain does not answer.
    pub async fn home(&self) -> Result<Home<'_>, HomeError> {
        let entry = self.network().file.home.clone().ok_or(HomeError::NoHome)?;
        let chain = EvmChain::connect(entry.rpc.clone(), entry.chain_id).await?;
        Ok(Home {
            client: self,
            entry,
            chain,
        })
    }
}

impl Home<'_> {
    /// The chain.
    #[must_use]
    pub const fn chain(&self) -> &EvmChain {
        &self.chain
    }

    /// Its entry of the network file.
    #[must_use]
    pub const fn entry(&self) -> &HomeEntry {
        &self.entry
    }

    /// What the checkpoint contract believes now.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn checkpoint(&self) -> Result<CheckpointState, HomeError> {
        let at = self.entry.contracts.checkpoint;
        let (head, epoch, seats) = futures::try_join!(
            self.chain.view(at, Checkpoint::headCall {}),
            self.chain.view(at, Checkpoint::epochCall {}),
            self.chain.view(at, Checkpoint::seatsCall {}),
        )?;
        Ok(CheckpointState {
            epoch,
            seats,
            height: head.height,
            timestamp: head.timestamp,
            block_hash: head.blockHash,
            state_root: head.stateRoot,
        })
    }

    /// Brings the contract to the network's newest certified block: every hand-over in between, then the block.
    ///
    /// # Errors
    /// [`HomeError`]; what was relayed before stays.
    pub async fn relay(&self, wallet: &Wallet, done: impl FnMut(&Relayed)) -> Result<CheckpointState, HomeError> {
        self.relay_state(wallet, &[(addresses::STAKING, vec![])], done).await?;
        self.checkpoint().await
    }

    /// The same, with a proof of slots in the state that is then certified.
    async fn relay_state(
        &self,
        wallet: &Wallet,
        accounts: &[(Address, Vec<U256>)],
        mut done: impl FnMut(&Relayed),
    ) -> Result<(u64, StateProof), HomeError> {
        for _ in 0..TRIES {
            let epochs = self.follow(wallet, &mut done).await?;
            let proof = self.client.state_proof(accounts, 0, PATIENCE).await?;
            let block = match epochs.verify(&proof.finality) {
                Ok(block) => block,
                // An epoch ended since: its hand-over goes first.
                Err(ProofError::UnknownEpoch { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let state = self.checkpoint().await?;
            if state.epoch != block.proposal.epoch {
                continue;
            }
            if state.height < block.header.number {
                done(&self.submit(wallet, &epochs, &proof.finality, &block).await?);
            } else if state.height > block.header.number {
                // Another full node, behind the one asked before, or another relayer.
                continue;
            }
            return Ok((block.header.number, proof));
        }
        Err(HomeError::TooFast)
    }

    /// Relays hand-overs until the contract believes the set of the newest epoch; gives all sets from the genesis.
    async fn follow(&self, wallet: &Wallet, done: &mut impl FnMut(&Relayed)) -> Result<Epochs, HomeError> {
        let genesis = &self.client.network().genesis;
        let mut epochs = Epochs::from_genesis(genesis)?;
        let handovers = match genesis.parameters.epoch_blocks {
            0 => Vec::new(),
            _ => self.client.handovers().await?,
        };
        for handover in &handovers {
            epochs.advance(handover)?;
        }
        let mut state = self.checkpoint().await?;
        for handover in handovers.iter().filter(|handover| handover.epoch > state.epoch) {
            let block = epochs.verify(&handover.state.finality)?;
            if state.height < block.header.number {
                done(&self.submit(wallet, &epochs, &handover.state.finality, &block).await?);
            }
            done(&self.hand_over(wallet, handover).await?);
            state.height = block.header.number;
        }
        Ok(epochs)
    }

    async fn submit(
        &self,
        wallet: &Wallet,
        epochs: &Epochs,
        finality: &Finality,
        block: &CertifiedBlock,
    ) -> Result<Relayed, HomeError> {
        let epoch = block.proposal.epoch;
        let seats = epochs.set(epoch).map_or(0, |set| set.len());
        let call = submit_call(finality, seats)?;
        let transaction = self.send(wallet, self.entry.contracts.checkpoint, &call).await?;
        Ok(Relayed::Certificate {
            height: block.header.number,
            epoch,
            transaction,
        })
    }

    async fn hand_over(&self, wallet: &Wallet, handover: &HandOver) -> Result<Relayed, HomeError> {
        let set = seats::decode(&handover.seats).map_err(ProofError::from)?;
        let keys = onchain::keys(&set)?;
        let (account, slot) = paths(&handover.state.accounts);
        let call = Checkpoint::handOverCall {
            accountProof: account,
            slotProof: slot,
            set: set.iter().map(checkpoint_seat).collect(),
            order: keys.order.into(),
            ys: keys.ys.into(),
        };
        let transaction = self.send(wallet, self.entry.contracts.checkpoint, &call).await?;
        Ok(Relayed::Handover {
            epoch: handover.epoch,
            seats: set.len(),
            transaction,
        })
    }

    /// Asks the contract whether a receipt is in the network's ledger, by a state that is relayed for it. Gives the certified height and the
    /// contract's answer.
    ///
    /// # Errors
    /// [`HomeError`]
    pub async fn prove(
        &self,
        wallet: &Wallet,
        file: &ReceiptFile,
        done: impl FnMut(&Relayed),
    ) -> Result<(u64, bool), HomeError> {
        let receipt = SignedReceipt::decode(&file.core).map_err(HomeError::Receipt)?;
        let inclusion = file.inclusion.as_ref().ok_or(HomeError::NotFinal)?;
        let slot = slots::batch_root(inclusion.height);
        let accounts = [(addresses::RECEIPT_LEDGER, vec![slot])];
        let (certified, proof) = self.relay_state(wallet, &accounts, done).await?;
        let (account, slot) = paths(&proof.accounts);
        let call = Checkpoint::includesReceiptCall {
            certified,
            height: inclusion.height,
            coreHash: receipt.core_hash(),
            index: inclusion.index,
            count: inclusion.count,
            path: inclusion.siblings.clone(),
            accountProof: account,
            slotProof: slot,
        };
        let included = self.chain.view(self.entry.contracts.checkpoint, call).await?;
        Ok((certified, included))
    }

    /// Where payments to a node go on the home chain.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn deposit_address(&self, node_id: B256) -> Result<Address, HomeError> {
        let call = HomeFeeVault::depositAddressOfCall { nodeId: node_id };
        Ok(self.chain.view(self.entry.contracts.fee_vault, call).await?)
    }

    /// OPG of an account there.
    ///
    /// # Errors
    /// If the chain does not answer.
    pub async fn opg(&self, account: Address) -> Result<Amount, HomeError> {
        let call = OPG::balanceOfCall { account };
        Ok(amount(self.chain.view(self.entry.contracts.opg, call).await?)?)
    }

    /// The payout root on the network and in the vault.
    ///
    /// # Errors
    /// If a chain does not answer.
    pub async fn payout_roots(&self) -> Result<PayoutRoots, HomeError> {
        let (payouts, vault) = (self.entry.contracts.payouts, self.entry.contracts.fee_vault);
        let (network, number, root, height) = futures::try_join!(
            self.client.view(payouts, Payouts::rootCall {}),
            self.client.view(payouts, Payouts::numberCall {}),
            self.chain.view(vault, HomeFeeVault::payoutRootCall {}),
            self.chain.view(vault, HomeFeeVault::rootHeightCall {}),
        )?;
        Ok(PayoutRoots {
            network,
            number,
            vault: root,
            vault_height: height,
        })
    }

    /// Says the next payout root on the network, as the operator of a validator with a seat.
    ///
    /// # Errors
    /// If the operator has no seat, said something already, or the network does not answer.
    pub async fn say_payouts(&self, operator: &Wallet, list: &PayoutList) -> Result<(u64, Sent), HomeError> {
        let number = self.payout_roots().await?.number.saturating_add(1);
        let call = Payouts::sayCall {
            number_: number,
            root_: list.root(),
        };
        let sent = self
            .client
            .call(operator, self.entry.contracts.payouts, call.abi_encode().into())
            .await?;
        Ok((number, sent))
    }

    /// Takes the network's payout root over into the vault, by a state that is relayed for it. Nothing is sent to the vault if it has that root.
    ///
    /// # Errors
    /// [`HomeError`]
    pub async fn publish_payouts(
        &self,
        wallet: &Wallet,
        done: impl FnMut(&Relayed),
    ) -> Result<(B256, Option<Sent>), HomeError> {
        let roots = self.payout_roots().await?;
        if roots.network.is_zero() {
            return Err(HomeError::NoRoot);
        }
        if roots.network == roots.vault {
            return Ok((roots.vault, None));
        }
        let accounts = [(self.entry.contracts.payouts, vec![ROOT_SLOT])];
        let (height, proof) = self.relay_state(wallet, &accounts, done).await?;
        let root = proof
            .accounts
            .first()
            .and_then(|account| account.slots.first())
            .map_or(B256::ZERO, |slot| slot.value);
        let (account, slot) = paths(&proof.accounts);
        let call = HomeFeeVault::setRootCall {
            height,
            accountProof: account,
            slotProof: slot,
        };
        let sent = self.send(wallet, self.entry.contracts.fee_vault, &call).await?;
        Ok((root, Some(sent)))
    }

    /// Pays a payee what it was credited from a node and not yet paid, as far as that node's deposits go. Whoever's wallet it is pays the gas.
    ///
    /// # Errors
    /// [`HomeError::OtherRoot`] if the vault pays from another list, [`HomeError::NoPayout`], or the chain's.
    pub async fn claim_payout(
        &self,
        wallet: &Wallet,
        list: &PayoutList,
        payee: Address,
        node_id: B256,
    ) -> Result<(Amount, Sent), HomeError> {
        let call = list
            .claim(payee, node_id)
            .ok_or(HomeError::NoPayout { payee, node_id })?;
        let got = self.payout_roots().await?.vault;
        if got != list.root() {
            let expected = list.root();
            return Err(HomeError::OtherRoot { expected, got });
        }
        let before = self.opg(payee).await?;
        let sent = self.send(wallet, self.entry.contracts.fee_vault, &call).await?;
        let paid = self.opg(payee).await?.saturating_sub(before);
        Ok((paid, sent))
    }

    async fn send(&self, wallet: &Wallet, to: Address, call: &impl SolCall) -> Result<Sent, ClientError> {
        self.chain.send(wallet, to, U256::ZERO, call.abi_encode().into()).await
    }
}

/// `Checkpoint.submit` of a certified block. The certificate is not verified here.
///
/// # Errors
/// [`ProofError::Malformed`] if it is not one of so many seats.
pub fn submit_call(finality: &Finality, seats: usize) -> Result<Checkpoint::submitCall, ProofError> {
    let signatures = onchain::signatures(finality, seats)?;
    let ((x_high, x_low), (y_high, y_low)) = (words(&signatures.x), words(&signatures.y));
    Ok(Checkpoint::submitCall {
        certified: Checkpoint::Certified {
            proposal: finality.proposal.clone(),
            envelopes: finality
                .envelopes
                .iter()
                .flat_map(|e| e.iter().copied())
                .collect::<Vec<u8>>()
                .into(),
            header: finality.header.clone(),
            signers: signatures.signers,
            signature: BLS::G1Point {
                xHigh: x_high,
                xLow: x_low,
                yHigh: y_high,
                yLow: y_low,
            },
        },
    })
}

/// The two words of a coordinate, as EIP-2537 pads it.
fn words(coordinate: &[u8; 48]) -> (B256, B256) {
    let (high, low) = coordinate.split_at(16);
    (B256::left_padding_from(high), B256::from_slice(low))
}

/// Proofs of the first account and its first slot.
fn paths(accounts: &[AccountProof]) -> (Vec<Bytes>, Vec<Bytes>) {
    let Some(account) = accounts.first() else {
        return Default::default();
    };
    let slot = account.slots.first().map(|slot| slot.proof.clone());
    (account.proof.clone(), slot.unwrap_or_default())
}
