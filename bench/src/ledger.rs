//! Receipts verified per core, and blocks full of receipts.

use crate::{
    Setting,
    forge::Forge,
    metrics::Reading,
    network::{Place, Running},
    report::{Bar, Report},
    rpc::Rpc,
};
use alloy_genesis::Genesis;
use alloy_primitives::{Address, B256, Bytes, U256};
use eyre::{Result, bail, eyre};
use futures::future::try_join_all;
use opg_contracts::StateReader;
use opg_full_node::verify::{self, Proven, Rules, View};
use opg_receipt::SignedReceipt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Calls in one JSON-RPC batch; a full node takes no more.
const BATCH: usize = 100;
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);
/// Receipts that one block must be able to take, and the time that it may take, in milliseconds: the block time and the
/// resolution of the poll on a loaded machine.
const FULL: usize = 2_000;
const BLOCK: f64 = 1_250.0;

pub(crate) async fn run(setting: &Setting, count: usize) -> Result<Report> {
    let mut report = Report::new("ledger", &setting.opg);
    let place = Place::new(setting, 0)?;
    place.write()?;
    let genesis = opg_client::load_genesis(&place.dir().join("genesis.json"))?;
    let mut forge = Forge::open(&place.dir(), &genesis)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    eprintln!("signing {count} receipts");
    let receipts = (0..count).map(|_| forge.next(now)).collect::<Result<Vec<_>>>()?;

    let state = GenesisState(opg_genesis::build(&genesis)?);
    let rules = Rules::of(&genesis);
    verify_rate(&mut report, &receipts, &state, &rules, now)?;

    let running = place.start()?;
    flood(&mut report, &place, &receipts).await?;
    running.stop()?;

    eprintln!("signing {} more receipts", 2 * count);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // full blocks need twice as many to show several
    let receipts = (0..2 * count).map(|_| forge.next(now)).collect::<Result<Vec<_>>>()?;
    backlog(&mut report, &place, &receipts).await?;
    Ok(report)
}

/// Storage of block 0.
#[derive(Debug)]
struct GenesisState(Genesis);

impl StateReader for GenesisState {
    type Error = Infallible;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        let account = self.0.alloc.get(&address);
        let value = account.and_then(|account| account.storage.as_ref()?.get(&B256::from(slot)));
        Ok(value.map(|value| U256::from_be_bytes(value.0)).unwrap_or_default())
    }
}

/// One thread, from bytes to verdict, everything checked: two signatures, canonical form, registry, price.
fn verify_rate(
    report: &mut Report,
    receipts: &[SignedReceipt],
    state: &GenesisState,
    rules: &Rules,
    now: u64,
) -> Result<()> {
    let bytes: Vec<Bytes> = receipts.iter().map(|receipt| receipt.cose().clone()).collect();
    let size = bytes.iter().map(|bytes| bytes.len()).max().unwrap_or_default();
    let mut rates = Vec::new();
    for chunk in bytes.chunks(1_000) {
        let view = View::new(state);
        let start = Instant::now();
        for bytes in chunk {
            let receipt = SignedReceipt::decode(bytes)?;
            let verdict = verify::check(&receipt, &view, rules, now, None, Proven::default());
            black_box(verdict.map_err(|error| eyre!("a forged receipt does not check: {error:?}"))?);
        }
        #[allow(clippy::cast_precision_loss, reason = "at most a thousand")]
        rates.push(chunk.len() as f64 / start.elapsed().as_secs_f64());
    }
    report.samples("receipts verified per core", "1/s", &rates, &[Bar::AtLeast(5_000.0)]);
    report.note(format!(
        "verification is from bytes to verdict on one thread, in chunks of 1,000 receipts of up to {size} bytes"
    ));
    Ok(())
}

/// Submits all receipts at once and watches the blocks that take them.
async fn flood(report: &mut Report, place: &Place, receipts: &[SignedReceipt]) -> Result<()> {
    let (network, rpcs) = (place.network()?, place.rpcs()?);
    let metrics = network
        .file
        .metrics
        .first()
        .ok_or_else(|| eyre!("the network exposes no metrics"))?;
    let before = Reading::of(metrics).await?;
    let seen = Seen::default();
    let watch = tokio::spawn(watch_blocks(rpcs[0].clone(), seen.clone()));

    let start = Instant::now();
    let params: Vec<Value> = receipts.iter().map(|receipt| json!([receipt.cose()])).collect();
    let shares = (0..rpcs.len()).map(|i| params.chunks(BATCH).skip(i).step_by(rpcs.len()));
    try_join_all(rpcs.iter().zip(shares).map(|(rpc, share)| submit(rpc, share))).await?;
    let submitted = start.elapsed();

    let heights = all_final(&rpcs[0], receipts).await?;
    // One more block shows how long the last full one took.
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.abort();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let after = Reading::of(metrics).await?;

    let Blocks {
        largest,
        intervals,
        full,
    } = blocks(report, &rpcs[0], heights, &seen).await?;
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    {
        report.value(
            "receipts in the fullest block while they go in over HTTP",
            "",
            largest as f64,
            &[],
        );
        report.value(
            "receipts submitted over HTTP",
            "1/s",
            receipts.len() as f64 / submitted.as_secs_f64(),
            &[],
        );
    }
    if !full.is_empty() {
        report.times("time of a block with 2,000 receipts while they go in", &full, &[]);
    }
    report.times("time of a block while receipts go in", &intervals, &[]);
    for (name, histogram) in [
        ("build a block, mean", "opg_full_node_build_block"),
        ("verify a proposed block, mean", "opg_full_node_verify_block"),
        ("verify a submitted receipt, mean", "opg_full_node_verify_receipt"),
    ] {
        if let Some((mean, _)) = after.mean_since(&before, histogram) {
            report.value(name, "ms", mean * 1e3, &[]);
        }
    }
    report.note("all four validators and this program share the machine's cores, so each receipt is verified four times on them");
    Ok(())
}

/// Blocks as full as they get. Receipts must pile up in all pools, as they do when they come faster than blocks take them:
/// first one half of the validators takes them while the other is frozen, then the other way round. Neither half is a
/// quorum, so no block takes any until all four go on.
async fn backlog(report: &mut Report, place: &Place, receipts: &[SignedReceipt]) -> Result<()> {
    let rpcs = place.rpcs()?;
    let half = rpcs.len() / 2;
    let running = (0..rpcs.len())
        .map(|index| place.start_validator(index))
        .collect::<Result<Vec<_>>>()?;
    for rpc in &rpcs {
        serving(rpc).await?;
    }
    let params: Vec<Value> = receipts.iter().map(|receipt| json!([receipt.cose()])).collect();
    let (first, second) = running.split_at(half);
    let turns = [(first, second, &rpcs[..half]), (second, first, &rpcs[half..])];
    for (awake, frozen, rpcs) in turns {
        // Freeze before thaw: three awake validators would make blocks.
        frozen.iter().try_for_each(Running::freeze)?;
        awake.iter().try_for_each(Running::thaw)?;
        try_join_all(rpcs.iter().map(|rpc| submit(rpc, params.chunks(BATCH)))).await?;
    }

    let before = rpcs[half].height().await?;
    let seen = Seen::default();
    let watch = tokio::spawn(watch_blocks(rpcs[half].clone(), seen.clone()));
    first.iter().try_for_each(Running::thaw)?;
    let heights = all_final(&rpcs[0], receipts).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.abort();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // the first block after the pause took as long as the pause
    seen.retain(|height, _| *height > before);
    let Blocks { largest, full, .. } = blocks(report, &rpcs[0], heights, &seen).await?;
    for process in running {
        process.stop()?;
    }
    #[allow(clippy::cast_precision_loss, reason = "thousands")]
    report.value(
        "receipts in the fullest block of a backlog",
        "",
        largest as f64,
        &[Bar::AtLeast(FULL as f64)],
    );
    report.times("time of a block with 2,000 receipts", &full, &[Bar::P50AtMost(BLOCK)]);
    report.note("backlog: four validators, each a process of its own, all holding all receipts before the first of these blocks");
    Ok(())
}

/// Waits until a validator answers.
async fn serving(rpc: &Rpc) -> Result<()> {
    let start = Instant::now();
    while rpc.height().await.is_err() {
        if start.elapsed() > PATIENCE {
            bail!("a validator does not answer after {PATIENCE:?}");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until all receipts are final; the height of each.
async fn all_final(rpc: &Rpc, receipts: &[SignedReceipt]) -> Result<Vec<u64>> {
    let start = Instant::now();
    let ids: Vec<Value> = receipts
        .iter()
        .map(|receipt| json!([receipt.core().receipt_id]))
        .collect();
    let last = ids.last().ok_or_else(|| eyre!("no receipts"))?;
    loop {
        // The last one submitted is not always the last to become final, but nearly.
        if rpc.call("og_getReceipt", last.clone()).await?["height"].is_u64()
            && let Some(heights) = heights(rpc, &ids).await?
        {
            return Ok(heights);
        }
        if start.elapsed() > PATIENCE {
            bail!("not all receipts are final after {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the blocks that took receipts were like.
#[derive(Debug)]
struct Blocks {
    /// Most receipts in one.
    largest: usize,
    /// From the parent to each of them.
    intervals: Vec<Duration>,
    /// The same, of those with [`FULL`] receipts or more.
    full: Vec<Duration>,
}

async fn blocks(report: &mut Report, rpc: &Rpc, heights: Vec<u64>, seen: &BTreeMap<u64, Instant>) -> Result<Blocks> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for height in heights {
        *counts.entry(height).or_default() += 1;
    }
    let (mut intervals, mut full) = (Vec::new(), Vec::new());
    let mut largest = 0;
    for (height, count) in &counts {
        let block = rpc
            .call("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))
            .await?;
        let interval = match (seen.get(&(height - 1)), seen.get(height)) {
            (Some(parent), Some(this)) => Some(*this - *parent),
            _ => None,
        };
        report.note(format!(
            "block {height}: {count} receipts, gas {}, {} after its parent",
            block["gasUsed"]
                .as_str()
                .and_then(|gas| u64::from_str_radix(gas.trim_start_matches("0x"), 16).ok())
                .unwrap_or_default(),
            interval.map_or_else(|| "?".into(), |time| format!("{} ms", time.as_millis())),
        ));
        largest = largest.max(*count);
        intervals.extend(interval);
        full.extend(interval.filter(|_| *count >= FULL));
    }
    Ok(Blocks {
        largest,
        intervals,
        full,
    })
}

async fn submit(rpc: &Rpc, share: impl Iterator<Item = &[Value]>) -> Result<()> {
    for batch in share {
        for answer in rpc.batch("og_submitReceipt", batch).await? {
            answer?;
        }
    }
    Ok(())
}

/// Height of each receipt; `None` while one is not final.
async fn heights(rpc: &Rpc, ids: &[Value]) -> Result<Option<Vec<u64>>> {
    let mut heights = Vec::with_capacity(ids.len());
    for batch in ids.chunks(BATCH) {
        for answer in rpc.batch("og_getReceipt", batch).await? {
            match answer?["height"].as_u64() {
                Some(height) => heights.push(height),
                None => return Ok(None),
            }
        }
    }
    Ok(Some(heights))
}

/// When each height was first seen.
type Seen = Arc<Mutex<BTreeMap<u64, Instant>>>;

/// Polls a validator's height until the task is aborted.
async fn watch_blocks(rpc: Rpc, seen: Seen) {
    loop {
        // A call that fails under load leaves a gap, which shows as a missing interval.
        if let Ok(height) = rpc.height().await {
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(height)
                .or_insert_with(Instant::now);
        }
        tokio::time::sleep(POLL).await;
    }
}
