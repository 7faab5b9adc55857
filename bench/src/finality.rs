//! From acceptance to finality at all validators.

use crate::{
    Setting,
    network::Place,
    report::{Bar, Report},
    rpc::Rpc,
};
use eyre::{Result, bail};
use futures::future::try_join_all;
use opg_client::{Asset, Client, Job, Wallet};
use opg_primitives::{hash::keccak, money::Amount};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn run(setting: &Setting, count: usize) -> Result<Report> {
    let mut report = Report::new("finality", &setting.opg);
    let place = Place::new(setting, 0)?;
    let running = place.start()?;
    let (network, rpcs) = (place.network()?, place.rpcs()?);
    let Some(wallet) = network.wallet() else {
        bail!("the network has no demo wallet")
    };
    let wallet = wallet?;
    let client = Client::new(network)?;

    let (mut accepted, mut answered) = (Vec::new(), Vec::new());
    for i in 0..count {
        // Receipts must not arrive in step with the blocks.
        tokio::time::sleep(phase(i)).await;
        let job = Job::infer("demo/digits-mlp", &crate::infer::digit(), Amount::parse_opg("0.05")?);
        let paid = client.quote(job).await?.authorize(&wallet)?;
        let answer = client.infer(&paid).await?;
        let answer_at = Instant::now();
        let receipt = &answer.paid.receipt;
        // The node submits it as well; submitting twice is harmless and gives the moment of acceptance.
        rpcs[0].call("og_submitReceipt", json!([receipt.cose()])).await?;
        let accepted_at = Instant::now();
        let id = json!([receipt.core().receipt_id]);
        let finals = try_join_all(rpcs.iter().map(|rpc| wait_final(rpc, &id))).await?;
        let last = finals.into_iter().max().unwrap_or(accepted_at);
        accepted.push(last - accepted_at);
        answered.push(last - answer_at);
        if (i + 1) % 20 == 0 {
            eprintln!("{} of {count} receipts", i + 1);
        }
    }
    report.times(
        "receipt accepted to final at all validators",
        &accepted,
        &[Bar::P50AtMost(1_200.0), Bar::P99AtMost(2_500.0)],
    );
    report.times("answer at the client to final at all", &answered, &[]);

    let mut transactions = Vec::new();
    let to = Wallet::random()?.address();
    for i in 0..count.div_ceil(4) {
        tokio::time::sleep(phase(i)).await;
        let start = Instant::now();
        let sent = client.send(&wallet, to, Amount(1), Asset::Native).await?;
        try_join_all(rpcs.iter().map(|rpc| wait_height(rpc, sent.block))).await?;
        transactions.push(start.elapsed());
    }
    report.times("transaction signed to final at all", &transactions, &[]);
    report.samples(
        "resident memory at the end",
        "MiB",
        &running.rss_mib().into_iter().collect::<Vec<_>>(),
        &[Bar::MaxAtMost(800.0)],
    );
    report.note("one-second blocks; samples at random times within a block; validators polled every 10 ms");
    running.stop()?;
    Ok(report)
}

/// Up to one second, spread evenly, the same in every run.
fn phase(i: usize) -> Duration {
    let digest = keccak(&i.to_be_bytes());
    Duration::from_millis(u64::from(u16::from_be_bytes([digest[0], digest[1]])) % 1_000)
}

async fn wait_final(rpc: &Rpc, id: &Value) -> Result<Instant> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let answer = rpc.call("og_getReceipt", id.clone()).await?;
        if matches!(answer["state"].as_str(), Some("final" | "settled" | "released")) {
            return Ok(Instant::now());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("receipt {id} is not final after {PATIENCE:?}")
}

async fn wait_height(rpc: &Rpc, height: u64) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if rpc.height().await? >= height {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("no block {height} after {PATIENCE:?}")
}
