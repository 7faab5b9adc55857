//! Reads the ledger's blocks: what was recorded, and what of it is paid.
//!
//! Charges of single payments stand in the calldata of the system transactions that record them, which every full node has
//! recomputed from receipts; events say which of them wait, and when they are credited. Blocks are final when they exist.

use super::books::{Books, BooksError, Entry, share};
use alloy_primitives::{Address, B256, Bytes, U64, U256, keccak256};
use alloy_sol_types::{SolCall as _, SolEvent as _, SolValue as _};
use opg_client::{ClientError, EvmChain, RpcError};
use opg_contracts::{ReceiptLedger, addresses, payment::PaymentMethod};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Blocks of one look.
const RANGE: u64 = 1_000;

/// Why the chain cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum FollowError {
    /// No full node answers.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The books.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// An answer that does not fit the ledger.
    #[error("block {block}: {problem}")]
    Answer {
        /// Height of the block.
        block: u64,
        /// What is wrong.
        problem: String,
    },
    /// A worker thread ended.
    #[error("the books could not be written: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl From<RpcError> for FollowError {
    fn from(error: RpcError) -> Self {
        Self::Client(error.into())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    topics: Vec<B256>,
    data: Bytes,
    block_number: U64,
    transaction_hash: B256,
}

#[derive(Debug, Deserialize)]
struct Head {
    hash: B256,
}

#[derive(Debug, Deserialize)]
struct Transaction {
    to: Option<Address>,
    input: Bytes,
}

fn wrong(block: u64, problem: impl std::fmt::Display) -> FollowError {
    FollowError::Answer {
        block,
        problem: problem.to_string(),
    }
}

/// Reads the next blocks into the books. Returns whether there are more.
pub(super) async fn step(evm: &EvmChain, books: &Arc<Books>) -> Result<bool, FollowError> {
    let genesis: Head = evm.rpc().call("eth_getBlockByNumber", ("0x0", false)).await?;
    let head: u64 = evm.rpc().call::<_, U64>("eth_blockNumber", json!([])).await?.to();
    let done = work(books, move |books| books.begin(genesis.hash)).await?;
    if done >= head {
        return Ok(false);
    }
    let (from, to) = (done + 1, head.min(done.saturating_add(RANGE)));
    let topics = [
        ReceiptLedger::BatchRecorded::SIGNATURE_HASH,
        ReceiptLedger::PaymentsPending::SIGNATURE_HASH,
        ReceiptLedger::PaymentCredited::SIGNATURE_HASH,
        ReceiptLedger::PaymentDropped::SIGNATURE_HASH,
        ReceiptLedger::ChannelCharged::SIGNATURE_HASH,
        ReceiptLedger::ChannelCredited::SIGNATURE_HASH,
    ];
    let filter = json!([{
        "address": addresses::RECEIPT_LEDGER, "topics": [topics],
        "fromBlock": format!("0x{from:x}"), "toBlock": format!("0x{to:x}"),
    }]);
    let logs: Vec<Log> = evm.rpc().call("eth_getLogs", filter).await?;
    let mut blocks: BTreeMap<u64, Vec<Log>> = BTreeMap::new();
    for log in logs {
        let block = log.block_number.to();
        if !(from..=to).contains(&block) {
            return Err(wrong(block, "an event of a block that was not asked for"));
        }
        blocks.entry(block).or_default().push(log);
    }
    let mut entries = Vec::new();
    for (block, logs) in blocks {
        let mut foreign = BTreeSet::new();
        // Events of one transaction stand together, in the order of the block.
        for logs in logs.chunk_by(|a, b| a.transaction_hash == b.transaction_hash) {
            transaction(evm, block, logs, &mut entries, &mut foreign).await?;
        }
        if !foreign.is_empty() {
            // Channels were credited through another contract: what is left of their terms stands in the ledger's storage.
            let now = std::mem::take(&mut entries);
            work(books, move |books| books.apply(&now, block.saturating_sub(1))).await?;
            let mut left = Vec::new();
            for channel in foreign {
                for (terms, _) in work(books, move |books| books.waiting_in(channel)).await? {
                    let call = ReceiptLedger::pendingChargesCall { termsHash: terms };
                    let pending = at(evm, call, block).await?;
                    left.push(Entry::TermsLeft {
                        terms,
                        left: pending.amount,
                    });
                }
            }
            work(books, move |books| books.apply(&left, block)).await?;
        }
    }
    work(books, move |books| books.apply(&entries, to)).await?;
    Ok(to < head)
}

async fn work<T: Send + 'static>(
    books: &Arc<Books>,
    work: impl FnOnce(&Books) -> Result<T, BooksError> + Send + 'static,
) -> Result<T, FollowError> {
    let books = Arc::clone(books);
    Ok(tokio::task::spawn_blocking(move || work(&books)).await??)
}

/// A view of the ledger at the end of a block.
async fn at<C: alloy_sol_types::SolCall>(evm: &EvmChain, call: C, block: u64) -> Result<C::Return, FollowError> {
    let request = json!({"to": addresses::RECEIPT_LEDGER, "input": Bytes::from(call.abi_encode())});
    let data: Bytes = evm.rpc().call("eth_call", (request, format!("0x{block:x}"))).await?;
    C::abi_decode_returns(&data).map_err(|error| wrong(block, error))
}

fn event<E: alloy_sol_types::SolEvent>(log: &Log) -> Option<E> {
    let matches = log.topics.first() == Some(&E::SIGNATURE_HASH);
    matches
        .then(|| E::decode_raw_log(log.topics.iter().copied(), &log.data).ok())
        .flatten()
}

/// The events of one transaction.
async fn transaction(
    evm: &EvmChain,
    block: u64,
    logs: &[Log],
    entries: &mut Vec<Entry>,
    foreign: &mut BTreeSet<B256>,
) -> Result<(), FollowError> {
    let Some(hash) = logs.first().map(|log| log.transaction_hash) else {
        return Ok(());
    };
    let records = logs
        .iter()
        .any(|log| event::<ReceiptLedger::BatchRecorded>(log).is_some());
    let charges: Vec<_> = logs.iter().filter_map(event::<ReceiptLedger::ChannelCharged>).collect();
    let credits: Vec<_> = logs
        .iter()
        .filter_map(event::<ReceiptLedger::ChannelCredited>)
        .collect();
    let sent: Option<Transaction> = if records || !credits.is_empty() {
        evm.rpc().call("eth_getTransactionByHash", (hash,)).await?
    } else {
        None
    };
    let input = sent
        .as_ref()
        .filter(|sent| sent.to == Some(addresses::RECEIPT_LEDGER))
        .map(|sent| &sent.input);
    if records {
        let input = input.ok_or_else(|| wrong(block, format!("no transaction {hash} to the ledger")))?;
        if let Ok(call) = ReceiptLedger::recordCall::abi_decode(input) {
            receipts(evm, block, logs, &call.groups, entries).await?;
        } else {
            let call = ReceiptLedger::recordChannelsCall::abi_decode(input).map_err(|error| wrong(block, error))?;
            if call.groups.len() != charges.len() {
                return Err(wrong(block, "not one event for each charge of a channel"));
            }
            for (group, charge) in call.groups.iter().zip(&charges) {
                let receipts = group
                    .words
                    .iter()
                    .fold(0u64, |sum, word| sum.saturating_add(word.bits.count_ones() as u64));
                entries.push(Entry::ChannelCharge {
                    terms: terms_hash(&ReceiptLedger::ChannelTerms {
                        channelId: charge.channelId,
                        nodeId: charge.nodeId,
                        modelRoot: charge.modelRoot,
                        creator: charge.creator,
                        royaltyBps: charge.royaltyBps,
                        mode: charge.mode,
                        router: charge.router,
                    }),
                    channel: charge.channelId,
                    root: charge.modelRoot,
                    royalty_bps: charge.royaltyBps,
                    charge: charge.charge,
                    receipts,
                });
            }
        }
    }
    for log in logs {
        if let Some(credited) = event::<ReceiptLedger::PaymentCredited>(log) {
            entries.push(Entry::Credited {
                payment: credited.paymentId,
            });
        } else if let Some(dropped) = event::<ReceiptLedger::PaymentDropped>(log) {
            entries.push(Entry::Dropped {
                payment: dropped.paymentId,
            });
        }
    }
    if credits.is_empty() {
        return Ok(());
    }
    match input.map(|input| ReceiptLedger::creditChannelsCall::abi_decode(input)) {
        Some(Ok(call)) => entries.push(Entry::ChannelCredits {
            credits: credits.iter().map(|credit| (credit.channelId, credit.amount)).collect(),
            terms: call
                .terms
                .iter()
                .map(|terms| (terms.channelId, terms_hash(terms)))
                .collect(),
        }),
        _ => foreign.extend(credits.iter().map(|credit| credit.channelId)),
    }
    Ok(())
}

/// Key of what waits under terms: `ReceiptLedger.termsHash`.
fn terms_hash(terms: &ReceiptLedger::ChannelTerms) -> B256 {
    keccak256(terms.abi_encode())
}

/// The receipts of one recorded chunk that single payments pay for.
async fn receipts(
    evm: &EvmChain,
    block: u64,
    logs: &[Log],
    groups: &[ReceiptLedger::Group],
    entries: &mut Vec<Entry>,
) -> Result<(), FollowError> {
    let key = |group: &ReceiptLedger::Group| (group.nodeId, group.modelRoot, group.mode);
    let mut waiting: BTreeMap<_, U256> = BTreeMap::new();
    for pending in logs.iter().filter_map(event::<ReceiptLedger::PaymentsPending>) {
        let count = waiting
            .entry((pending.nodeId, pending.modelRoot, pending.mode))
            .or_default();
        *count = count.saturating_add(pending.count);
    }
    let mut totals: BTreeMap<_, usize> = BTreeMap::new();
    for group in groups {
        *totals.entry(key(group)).or_default() += group.entries.len();
    }
    for group in groups {
        let method = PaymentMethod::from_code(group.method)
            .ok_or_else(|| wrong(block, format!("unknown payment method {}", group.method)))?;
        let waits = waiting.get(&key(group)).copied().unwrap_or_default();
        let all = waits == U256::from(totals.get(&key(group)).copied().unwrap_or_default());
        for receipt in &group.entries {
            let payment = method.payment_id(receipt.payer, receipt.nonce).0;
            let (root, charge) = (group.modelRoot, receipt.charge);
            let share = share(charge, group.royaltyBps);
            let pending = if waits.is_zero() {
                false
            } else if all {
                true
            } else {
                // Some wait and some do not: the ledger's mark says which.
                let mark = at(evm, ReceiptLedger::spentCall { paymentId: payment }, block).await?;
                mark != B256::with_last_byte(1)
            };
            entries.push(if pending {
                Entry::Waiting {
                    payment,
                    root,
                    charge,
                    share,
                }
            } else {
                Entry::Receipt { root, charge, share }
            });
        }
    }
    Ok(())
}
