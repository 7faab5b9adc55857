//! What processes of their own cost: calls, memory and starts of the digits models, in this process and in workers.
//!
//! `cargo run --release -p opg-runtime --example engine_workers`. It is also how a program runs models in workers that is
//! not `opg`: it offers itself before it does anything else.

use opg_runtime::{
    bench::{self, Latencies},
    onnx::{OnnxModel, OnnxOptions},
    worker::{self, Sandbox, WorkerOptions},
};
use serde_json::{Value, json};
use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

const TIME: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    if std::env::args()
        .nth(1)
        .is_some_and(|command| command == worker::COMMAND)
    {
        return worker::main();
    }
    match worker::offer_this_program(&[worker::COMMAND])
        .map_err(Into::into)
        .and_then(|()| measure())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(sandbox: Sandbox, sessions: usize) -> OnnxOptions {
    OnnxOptions {
        sessions,
        worker: WorkerOptions {
            sandbox,
            program: worker::this_program(),
            ..WorkerOptions::default()
        },
        ..OnnxOptions::default()
    }
}

fn measure() -> Result<(), Box<dyn Error>> {
    println!("model, rows      where         p50 us   p99 us   calls/s: 1 caller   2 callers");
    for (name, rows, runs) in [
        ("logreg", 1, 20_000),
        ("digits_mlp", 1, 20_000),
        ("gbc", 1, 20_000),
        ("digits_mlp", 1_000, 200),
    ] {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../testing/fixtures/digits/{name}.onnx"));
        let input = json!({ "X": vec![vec![7; 64]; rows] });
        // Turn and turn about, so that what else the machine does hits both.
        for round in 0..3 {
            for sandbox in [Sandbox::Off, Sandbox::Required] {
                let model = OnnxModel::load_file(&file, &options(sandbox, 2))?;
                let latency = bench::onnx_latency(&model, &input, runs)?;
                println!(
                    "{name:10} {rows:4} #{round} {:12} {:7.1} {:8.1} {:13.0} {:17.0}",
                    if model.engine().processes {
                        "worker"
                    } else {
                        "this process"
                    },
                    micros(latency.p50()),
                    micros(latency.p99()),
                    throughput(&model, &input, 1)?,
                    throughput(&model, &input, 2)?,
                );
            }
        }
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testing/fixtures/digits/digits_mlp.onnx");
    let mut starts = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        drop(OnnxModel::load_file(&file, &options(Sandbox::Required, 1))?);
        starts.push(start.elapsed());
    }
    let starts = Latencies::new(starts);
    println!(
        "a worker with its model: p50 {:?}, p99 {:?}",
        starts.p50(),
        starts.p99()
    );
    for workers in [1, 4] {
        let model = OnnxModel::load_file(&file, &options(Sandbox::Required, workers))?;
        let ids = model.idle_workers();
        let sum = |what: &str| ids.iter().map(|id| kib(*id, what)).sum::<u64>();
        println!(
            "memory of {workers} workers, KiB: private {}, proportional {}, resident {}",
            sum("Private_Dirty:") + sum("Private_Clean:"),
            sum("Pss:"),
            sum("Rss:")
        );
    }
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Calls per second of several threads, each call validated and run.
fn throughput(model: &OnnxModel, input: &Value, callers: usize) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let count = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0u32;
                    while start.elapsed() < TIME {
                        model.run(model.validate(input)?)?;
                        count += 1;
                    }
                    Ok::<_, opg_runtime::RuntimeError>(count)
                })
            })
            .collect();
        callers
            .into_iter()
            .map(|caller| {
                caller
                    .join()
                    .map_err(|_| "a caller panicked")?
                    .map_err(Box::<dyn Error>::from)
            })
            .sum::<Result<u32, Box<dyn Error>>>()
    })?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

/// A line of `/proc/PID/smaps_rollup`; 0 where there is none.
fn kib(id: u32, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(what));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
