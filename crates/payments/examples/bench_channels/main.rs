//! Time that a paid call adds on the server, and calls a second, for channel payments.
//!
//! ```text
//! cargo run --release -p opg-payments --example bench_channels [-- RESULTS.json [FOLDER]]
//! ```
//! Figures are printed, and written to `RESULTS.json` if it is named (`cargo xtask bench payments` does). `FOLDER` is where the journal is
//! written (default: the system's folder for temporary files). A call is: decode the header, parse
//! the payload, find the channel, verify the voucher with the remembered key, reserve, commit the charge to the journal's queue.
//! At the end: gas of the contracts' own bytecode. Durability is acknowledged in groups beside the work, as an inference overlaps it; its own delay is reported in a line of its own.

mod gas;

use alloy_primitives::{Address, B256, U256};
use opg_contracts::addresses;
use opg_payments::{
    channel::{ChannelConfig, ReceiverTerms, Voucher},
    channels::{Call, ChainState, Channels, Mode},
    eip712::Domain,
    journal::{Commit, Journal},
    signature::{SecretKey, address_of_secret},
    x402::{self, BatchAction, BatchExtra, BatchPayload, PaymentPayload, PaymentRequirements, SignedVoucher},
};
use opg_primitives::money::Amount;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

const CHANNELS: usize = 1000;
const BOUND: u128 = 1000;
const CHARGE: u128 = 600;
const CHAIN: u64 = 10_740;

type Bench = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn terms() -> ReceiverTerms {
    ReceiverTerms {
        receiver: Address::repeat_byte(3),
        receiver_authorizer: Address::repeat_byte(4),
        token: addresses::OPG,
        min_withdraw_delay: 3600,
    }
}

struct Payer {
    key: SecretKey,
    config: ChannelConfig,
}

fn payers() -> Vec<Payer> {
    (1..=CHANNELS)
        .filter_map(|n| {
            let key = SecretKey::from_byte_array(&U256::from(n).to_be_bytes::<32>()).ok()?;
            let payer = address_of_secret(&key);
            let config = ChannelConfig {
                payer,
                payer_authorizer: payer,
                receiver: terms().receiver,
                receiver_authorizer: terms().receiver_authorizer,
                token: terms().token,
                withdraw_delay: 3600,
                salt: B256::ZERO,
            };
            Some(Payer { key, config })
        })
        .collect()
}

/// The header of a payer's n-th call, each charged [`CHARGE`].
fn header(payer: &Payer, domain: &Domain, n: usize) -> Vec<u8> {
    let voucher = Voucher {
        channel_id: payer.config.id(domain),
        max_claimable: Amount(n as u128 * CHARGE + BOUND),
    };
    let extra = BatchExtra {
        receiver_authorizer: payer.config.receiver_authorizer,
        withdraw_delay: 3600,
        name: "OpenGradient".into(),
        version: "1".into(),
        by_permit2: false,
        min_deposit: Some(Amount(1_000_000)),
        channel_state: None,
        voucher_state: None,
    };
    let accepted = PaymentRequirements {
        scheme: x402::BATCH_SETTLEMENT.into(),
        network: x402::network(CHAIN),
        amount: U256::from(BOUND),
        asset: payer.config.token,
        pay_to: payer.config.receiver,
        max_timeout_seconds: 120,
        extra: Some(extra.to_map()),
    };
    let payload = BatchPayload {
        config: payer.config,
        voucher: SignedVoucher {
            voucher,
            signature: voucher.sign(domain, &payer.key).to_vec().into(),
        },
        action: BatchAction::Voucher,
    };
    x402::encode_header(&PaymentPayload::of_batch(accepted, &payload)).into_bytes()
}

/// One paid call; also the times after decoding and after the reservation.
fn call(
    channels: &Channels,
    header: &[u8],
) -> Result<(Commit, [Instant; 2]), Box<dyn std::error::Error + Send + Sync>> {
    let payment = PaymentPayload::from_header(header)?;
    let payload = BatchPayload::parse(&payment.payload)?;
    let bound = Amount::try_from(payment.accepted.amount)?;
    let decoded = Instant::now();
    let reserved = channels.reserve(&Call {
        payload: &payload,
        bound,
        mode: Mode::Stock,
        identifier: None,
    })?;
    let admitted = Instant::now();
    // Here the model runs.
    let charged = channels.commit(reserved.ticket, Amount(CHARGE), B256::ZERO, 1, |_| Ok(()))?;
    Ok((charged.commit, [decoded, admitted]))
}

fn percentile(sorted: &[Duration], of_thousand: usize) -> Duration {
    let at = (sorted.len() * of_thousand / 1000).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// What was measured, for people and for the results file.
#[derive(Default)]
struct Figures(Vec<serde_json::Value>);

impl Figures {
    fn one(&mut self, name: &str, value: f64, unit: &str, bar: Option<(&str, f64)>) {
        let value = (value * 100.0).round() / 100.0;
        self.0
            .push(serde_json::json!({"name": name.trim(), "value": value, "unit": unit, "bar": bar.map(|(side, bar)| format!("{side} {bar}"))}));
    }

    fn times(&mut self, name: &str, times: &[Duration], bars: (Option<f64>, Option<f64>)) {
        let micros = |of| percentile(times, of).as_secs_f64() * 1e6;
        let bar = |bar: Option<f64>| bar.map(|bar| ("at most", bar));
        self.one(&format!("{name}, p50"), micros(500), "us", bar(bars.0));
        self.one(&format!("{name}, p99"), micros(990), "us", bar(bars.1));
    }
}

fn report(figures: &mut Figures, name: &str, mut times: Vec<Duration>, bars: (Option<f64>, Option<f64>)) {
    times.sort_unstable();
    figures.times(name, &times, bars);
    println!(
        "{name}: n={} p50={:?} p90={:?} p99={:?} p99.9={:?} max={:?}",
        times.len(),
        percentile(&times, 500),
        percentile(&times, 900),
        percentile(&times, 990),
        percentile(&times, 999),
        times.last().copied().unwrap_or_default()
    );
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim())
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{model}, {cores} cores")
}

fn main() -> Bench {
    let folder = std::env::args().nth(2).map_or_else(std::env::temp_dir, Into::into);
    let path = folder.join(format!("bench_channels-{}.redb", std::process::id()));
    let before = load();
    println!("machine: {}; load before: {before}", machine());
    let mut figures = Figures::default();
    let result = bench(&path, &mut figures);
    let after = load();
    println!("load after: {after}");
    let _ = std::fs::remove_file(&path);
    result?;
    if let Some(file) = std::env::args().nth(1) {
        let document = serde_json::json!({
            "benchmark": "payments",
            "command": "cargo xtask bench payments",
            "opg": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "load": {"before": before, "after": after},
            "note": "server side of a call on a channel, in one process; gas in revm (Osaka) with the bytecode of a genesis; gas of the ledger: docs/specs/x402-contracts.md, section 9",
            "figures": figures.0,
        });
        std::fs::write(file, serde_json::to_string_pretty(&document)? + "\n")?;
    }
    Ok(())
}

fn bench(path: &std::path::Path, figures: &mut Figures) -> Bench {
    let domain = Domain::batch_settlement(CHAIN);
    let payers = payers();
    let channels = Arc::new(Channels::open(Arc::new(Journal::open(path)?), CHAIN, terms())?);
    let state = ChainState {
        balance: Amount(u128::MAX / 2),
        ..ChainState::default()
    };
    for payer in &payers {
        channels.open_channel(payer.config, state, 1)?;
    }
    // The first call of a channel recovers its key: not what is measured.
    for payer in &payers {
        call(&channels, &header(payer, &domain, 0))?;
    }
    paced(&channels, &payers, &domain, figures)?;
    for threads in [1, 2] {
        sustained(&channels, &payers, &domain, threads, figures)?;
    }
    gas::measure(figures)
}

/// 2,000 calls a second for ten seconds: the time of each call, and how long after it its charge is on disk.
fn paced(channels: &Channels, payers: &[Payer], domain: &Domain, figures: &mut Figures) -> Bench {
    const RATE: u32 = 2000;
    let rounds = 20;
    let headers: Vec<Vec<u8>> = (1..=rounds)
        .flat_map(|n| payers.iter().map(move |payer| header(payer, domain, n)))
        .collect();
    println!("header: {} bytes", headers.first().map_or(0, Vec::len));
    let (sender, receiver) = mpsc::channel::<(Instant, Commit)>();
    let durable = std::thread::spawn(move || {
        let wait = |(at, commit): (Instant, Commit)| commit.wait().map(|()| at.elapsed());
        receiver.into_iter().map(wait).collect::<Result<Vec<_>, _>>()
    });
    let mut times = Vec::with_capacity(headers.len());
    let mut phases = [Vec::new(), Vec::new(), Vec::new()];
    let start = Instant::now();
    for (n, header) in headers.iter().enumerate() {
        let due = start + Duration::from_secs(1) / RATE * n as u32;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let before = Instant::now();
        let (commit, [decoded, admitted]) = call(channels, header)?;
        let after = Instant::now();
        times.push(after - before);
        for (phase, took) in phases
            .iter_mut()
            .zip([decoded - before, admitted - decoded, after - admitted])
        {
            phase.push(took);
        }
        sender.send((before, commit))?;
    }
    let took = start.elapsed();
    drop(sender);
    println!(
        "paced: {:.0} calls/s asked 2000",
        headers.len() as f64 / took.as_secs_f64()
    );
    figures.one(
        "paced calls",
        headers.len() as f64 / took.as_secs_f64(),
        "calls/s",
        None,
    );
    let bars = (Some(100.0), Some(250.0));
    report(figures, "added time per call", times, bars);
    for (phase, name) in phases
        .into_iter()
        .zip(["  decode and parse", "  verify and reserve", "  commit (queued)"])
    {
        report(figures, name, phase, (None, None));
    }
    let durable = durable.join().map_err(|_| "thread")??;
    report(figures, "until durable (overlaps the work)", durable, (None, None));
    Ok(())
}

/// As fast as it goes on `threads` threads; ends when everything is durable.
fn sustained(
    channels: &Arc<Channels>,
    payers: &[Payer],
    domain: &Domain,
    threads: usize,
    figures: &mut Figures,
) -> Bench {
    let done = channels
        .charged(payers.first().ok_or("no payers")?.config.id(domain))
        .ok_or("no channel")?
        .wei();
    let first = (done / CHARGE) as usize;
    let rounds = 60;
    // Headers are made before: signing is the client's work.
    let headers: Vec<Vec<Vec<u8>>> = (0..rounds)
        .map(|n| payers.iter().map(|payer| header(payer, domain, first + n)).collect())
        .collect();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let cpu = cpu_time();
    std::thread::scope(|scope| -> Bench {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (headers, next) = (&headers, &next);
                scope.spawn(move || -> Bench {
                    let mut last = None;
                    for round in headers {
                        // Each worker has its own channels, so that a payer's calls stay in order.
                        for header in round.iter().skip(worker).step_by(threads) {
                            last = Some(call(channels, header)?.0);
                            next.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    if let Some(commit) = last {
                        commit.wait()?;
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().map_err(|_| "worker")??;
        }
        Ok(())
    })?;
    let took = start.elapsed();
    let calls = next.into_inner();
    let per_call = cpu_time()
        .zip(cpu)
        .map(|(after, before)| (after - before) * 1e6 / calls as f64);
    let rate = calls as f64 / took.as_secs_f64();
    let bar = (threads == 2).then_some(("at least", 10_000.0));
    figures.one(
        &format!("sustained on {threads} threads, {CHANNELS} channels, durable"),
        rate,
        "calls/s",
        bar,
    );
    println!(
        "sustained, {threads} threads, {CHANNELS} channels: {calls} calls in {took:.2?} = {:.0} calls/s, all durable; {:.1} us CPU per call",
        rate,
        per_call.unwrap_or(f64::NAN)
    );
    Ok(())
}

/// Seconds of processor time that this process used.
fn cpu_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
