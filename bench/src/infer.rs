//! What payment, receipt and HTTP add to a model's own time.

use crate::{
    Setting,
    metrics::Reading,
    network::Place,
    report::{Bar, Report},
};
use eyre::{Result, WrapErr, bail, eyre};
use opg_client::{Client, Job};
use opg_primitives::money::Amount;
use opg_runtime::onnx::{OnnxModel, OnnxOptions};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MODEL: &str = "demo/digits-mlp";
const HISTOGRAM: &str = "opg_inference_added_seconds";
const ROUTE: &str = "route=\"/v1/infer\"";
/// A call costs about 0.0011 OPG, the cap on unsettled money is 0.1 OPG, and settlement runs every two seconds: a call every
/// 50 ms stays below the cap with room.
const PACE: Duration = Duration::from_millis(50);

/// One handwritten digit, 8×8 grey levels from 0 to 16.
pub(crate) fn digit() -> Value {
    let row: Vec<u8> = vec![
        0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0, 0, 3, 15, 2, 0, 11, 8, 0, 0, 4, 12, 0, 0, 8, 8, 0, 0, 5,
        8, 0, 0, 9, 8, 0, 0, 4, 11, 0, 1, 12, 7, 0, 0, 2, 14, 5, 10, 12, 0, 0, 0, 0, 6, 13, 10, 0, 0, 0,
    ];
    json!({ "X": [row] })
}

pub(crate) async fn run(setting: &Setting, count: usize) -> Result<Report> {
    let mut report = Report::new("infer", &setting.opg);

    let place = Place::new(setting, 0)?;
    place.write()?;
    let file = place.dir().join("models").join(MODEL).join("model.onnx");
    let bytes = std::fs::read(&file).wrap_err_with(|| format!("cannot read {}", file.display()))?;
    let model = OnnxModel::load(&bytes, &OnnxOptions::default())?;
    let bare = opg_runtime::bench::onnx_latency(&model, &digit(), count.max(200))?;
    report.value(
        "bare model p50, same input, this process",
        "ms",
        bare.p50().as_secs_f64() * 1e3,
        &[],
    );
    report.value("bare model p99", "ms", bare.p99().as_secs_f64() * 1e3, &[]);

    let running = place.start()?;
    let (before, samples, after) = paid_calls(&place, count, PACE).await?;
    running.stop()?;
    match (
        after.quantile_since(&before, HISTOGRAM, ROUTE, 0.5),
        after.quantile_since(&before, HISTOGRAM, ROUTE, 0.99),
    ) {
        (Some((p50, p50_bound)), Some((p99, p99_bound))) => {
            report.value(
                "server: added to the model, p50",
                "ms",
                p50 * 1e3,
                &[Bar::P50AtMost(2.0)],
            );
            report.value("server: added to the model, p99", "ms", p99 * 1e3, &[]);
            report.note(format!(
                "server figures come from the node's histogram {HISTOGRAM}: p50 is below {} ms and p99 below {} ms for certain",
                p50_bound * 1e3,
                p99_bound * 1e3
            ));
        }
        _ => report.note(format!("the node exposes no {HISTOGRAM}")),
    }
    report.times("client: paid call inside the cap", &samples, &[]);

    let place = Place::new(setting, 1)?;
    place.write()?;
    settle_first(&place)?;
    let running = place.start()?;
    let (_, samples, _) = paid_calls(&place, count.div_ceil(5), Duration::ZERO).await?;
    running.stop()?;
    report.times("client: paid call, settled first", &samples, &[]);
    report.note("client times are from sending the signed request to the checked receipt, over loopback HTTP, one call at a time");
    Ok(report)
}

/// Pays for one call after the other; the node's metrics before and after.
async fn paid_calls(place: &Place, count: usize, pace: Duration) -> Result<(Reading, Vec<Duration>, Reading)> {
    let network = place.network()?;
    let node = network.file.nodes.first().ok_or_else(|| eyre!("no inference node"))?;
    let metrics = format!("{}/metrics", node.url);
    let Some(wallet) = network.wallet() else {
        bail!("the network has no demo wallet")
    };
    let wallet = wallet?;
    let client = Client::new(network.clone())?;
    let mut samples = Vec::with_capacity(count);
    let warm_up = count / 10;
    let mut before = Reading::default();
    for i in 0..count + warm_up {
        if i == warm_up {
            before = Reading::of(&metrics).await?;
        }
        let round = Instant::now();
        let job = Job::infer(MODEL, &digit(), Amount::parse_opg("0.05")?);
        let paid = client.quote(job).await?.authorize(&wallet)?;
        let start = Instant::now();
        client.infer(&paid).await?;
        if i >= warm_up {
            samples.push(start.elapsed());
        }
        tokio::time::sleep(pace.saturating_sub(round.elapsed())).await;
    }
    Ok((before, samples, Reading::of(&metrics).await?))
}

/// Lowers the exposure cap to zero, so that every payment is settled before the work.
fn settle_first(place: &Place) -> Result<()> {
    let path = place.dir().join("inference/config.toml");
    let mut config: toml::Table = std::fs::read_to_string(&path)?.parse()?;
    let exposure = config.entry("exposure").or_insert_with(|| toml::Table::new().into());
    let exposure = exposure
        .as_table_mut()
        .ok_or_else(|| eyre!("exposure is not a table"))?;
    exposure.insert("per_payer".into(), "0".into());
    std::fs::write(&path, toml::to_string_pretty(&config)?)?;
    Ok(())
}
