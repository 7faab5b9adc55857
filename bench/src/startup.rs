//! First start, restart, memory.

use crate::{
    Setting,
    network::Place,
    report::{Bar, Report},
    rpc::Rpc,
};
use eyre::{Result, bail};
use futures::future::join_all;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(5);
const RESTART: Duration = Duration::from_secs(60);

pub(crate) async fn run(setting: &Setting, runs: u16) -> Result<Report> {
    let mut report = Report::new("startup", &setting.opg);
    let (mut first, mut memory) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let place = Place::new(setting, run)?;
        let running = place.start()?;
        first.push(running.ready);
        tokio::time::sleep(Duration::from_secs(3)).await;
        memory.extend(running.rss_mib());
        eprintln!("start {}: {:?}", run + 1, running.ready);
        running.stop()?;
    }
    report.times("first start to `network ready`", &first, &[Bar::P50AtMost(5_000.0)]);
    report.samples("resident memory, 3 s after", "MiB", &memory, &[Bar::MaxAtMost(800.0)]);

    let place = Place::new(setting, runs)?;
    let mut running = place.start()?;
    let rpcs = place.rpcs()?;
    let (mut answering, mut block) = (Vec::new(), Vec::new());
    for run in 0..runs {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = heights(&rpcs).await.into_iter().flatten().max().unwrap_or_default();
        running.stop()?;
        // The clock starts with the process; `start` returns only when the network is ready, which is later than both.
        let watch = tokio::spawn(watch(rpcs.clone(), before, Instant::now()));
        running = tokio::task::block_in_place(|| place.start())?;
        let (rpc, new) = watch.await??;
        eprintln!("restart {}: RPC {rpc:?}, first new block {new:?}", run + 1);
        answering.push(rpc);
        block.push(new);
    }
    memory.clear();
    memory.extend(running.rss_mib());
    running.stop()?;
    report.times(
        "restart to RPC of all validators",
        &answering,
        &[Bar::MaxAtMost(1_000.0)],
    );
    report.times(
        "restart to a new block everywhere",
        &block,
        &[Bar::P50AtMost(5_000.0), Bar::MaxAtMost(10_000.0)],
    );
    report.samples(
        "resident memory after the last restart",
        "MiB",
        &memory,
        &[Bar::MaxAtMost(800.0)],
    );
    report.note("restarts are SIGTERM and a new process on the same folder; four validators and one inference node in one process");
    Ok(report)
}

/// Times until all validators answer, and until all have a block higher than `before`.
async fn watch(rpcs: Vec<Rpc>, before: u64, start: Instant) -> Result<(Duration, Duration)> {
    let mut answering = None;
    while start.elapsed() < RESTART {
        let heights = heights(&rpcs).await;
        if heights.iter().all(Option::is_some) {
            let answering = *answering.get_or_insert_with(|| start.elapsed());
            if heights.iter().flatten().all(|height| *height > before) {
                return Ok((answering, start.elapsed()));
            }
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("no new block within {RESTART:?} after the restart")
}

async fn heights(rpcs: &[Rpc]) -> Vec<Option<u64>> {
    join_all(rpcs.iter().map(|rpc| async move { rpc.height().await.ok() })).await
}
