//! Compiles ONNX files, proves one request (or several) and verifies it; prints times, sizes and security.
//!
//! `cargo run --release -p opg-zkml --example prove_onnx -- MODEL.onnx [BATCH] [RUNS] [hiding]`
use std::{error::Error, fs, time::Instant};

use opg_integer_program::{
    compile::{Options, compile},
    program::InputEncoding,
};
use opg_zkml::{
    Context, ParameterSet, Profile, RegisteredModel, Stage,
    hiding::{HidingModel, Secret, Seed, hiding_security, prove_hiding, verify_hiding},
    prove, verify, verify_open,
};

fn cpu() -> f64 {
    // utime + stime of this process, in ticks of 10 ms.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let tick = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (tick(11) + tick(12)) / 100.0
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: prove_onnx MODEL.onnx [BATCH] [RUNS]")?;
    let batch: usize = args.next().map_or(Ok(1), |text| text.parse())?;
    let runs: u32 = args.next().map_or(Ok(5), |text| text.parse())?;
    let hiding = args.next().is_some_and(|text| text == "hiding");
    let program = compile(&fs::read(&path)?, None, &Options::default())?.program;
    let (start, busy) = (Instant::now(), cpu());
    let model = RegisteredModel::new(program, ParameterSet::Bits100)?;
    println!(
        "{path}: register {:.1} ms ({:.2} CPU-s)",
        start.elapsed().as_secs_f64() * 1e3,
        cpu() - busy
    );
    let mut state = 1u64;
    let mut random = |lo: i64, hi: i64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        lo + i64::try_from((state >> 33) % u64::try_from(hi - lo + 1).unwrap_or(1)).unwrap_or(0)
    };
    let graph = &model.verifying_key().graph;
    let inputs: Vec<Vec<Vec<i64>>> = (0..batch)
        .map(|_| {
            let draw = |input: &opg_integer_program::program::Input| {
                let range = match input.encoding {
                    InputEncoding::Quantised { range, .. } => range,
                    InputEncoding::Index { count } => opg_integer_program::range::Range::new(0, i64::from(count) - 1),
                };
                (0..input.shape.iter().product::<usize>())
                    .map(|_| random(range.lo, range.hi))
                    .collect()
            };
            graph.inputs.iter().map(draw).collect()
        })
        .collect();
    let began = Instant::now();
    let plan = opg_zkml::Plan::new(&model.verifying_key().graph, batch)?;
    println!("  planned in {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    let (committed, lookups) = plan
        .costs()
        .iter()
        .fold((0, 0), |(a, b), cost| (a + cost.committed, b + cost.lookups));
    println!(
        "  {committed} committed, {lookups} looked up; witness, weights, fractions: {:?}",
        plan.sizes()
    );
    for profile in [Profile::Committed, Profile::Open] {
        let security = opg_zkml::security::security(model.verifying_key(), batch, profile)?;
        println!(
            "  {profile:?}: {:.1} bits proven, {} of them by grinding",
            security.bits(),
            security.grinding_bits
        );
        let (start, busy) = (Instant::now(), cpu());
        let mut out = None;
        for _ in 0..runs {
            out = Some(prove(&model, &inputs, Context::default(), profile, &mut |_| {})?);
        }
        let (wall, busy) = (
            start.elapsed().as_secs_f64() / f64::from(runs),
            (cpu() - busy) / f64::from(runs),
        );
        let Some((statement, proof)) = out else { continue };
        let key = model.verifying_key();
        let (start, checked) = (Instant::now(), cpu());
        for _ in 0..runs {
            match profile {
                Profile::Committed => verify(key, &model.root(), &statement, &proof)?,
                Profile::Open => verify_open(key, &model.root(), model.program(), &statement, &proof)?,
            }
        }
        println!(
            "  {profile:?} batch {batch}: prove {:.1} ms wall, {:.1} CPU-ms; verify {:.2} ms wall, {:.1} CPU-ms; proof {} bytes",
            wall * 1e3,
            busy * 1e3,
            start.elapsed().as_secs_f64() * 1e3 / f64::from(runs),
            (cpu() - checked) * 1e3 / f64::from(runs),
            proof.len()
        );
    }
    if hiding {
        return measure_hiding(&model, &inputs, runs);
    }
    let mut last = (Instant::now(), String::new());
    let mut report = |stage: Stage<'_>| {
        if !last.1.is_empty() {
            println!("    {:>8.2} ms  {}", last.0.elapsed().as_secs_f64() * 1e3, last.1);
        }
        last = (Instant::now(), format!("{stage:?}"));
    };
    prove(&model, &inputs, Context::default(), Profile::Committed, &mut report)?;
    Ok(())
}

/// Hiding proofs of the same requests: weights secret, and weights and inputs secret.
fn measure_hiding(model: &RegisteredModel, inputs: &[Vec<Vec<i64>>], runs: u32) -> Result<(), Box<dyn Error>> {
    let mut rng = rand::rng();
    let (start, busy) = (Instant::now(), cpu());
    let slots = 2 * runs;
    let seed = Seed::random(&mut rng);
    let mut hidden = HidingModel::new(model.program().clone(), ParameterSet::Bits100, slots, &seed)?;
    println!(
        "  register {slots} slots: {:.1} ms ({:.2} CPU-s); {:?}",
        start.elapsed().as_secs_f64() * 1e3,
        cpu() - busy,
        hidden.verifying_key().code()
    );
    for secret_inputs in [false, true] {
        let name = if secret_inputs { "weights and inputs" } else { "weights" };
        let security = match hiding_security(hidden.verifying_key(), inputs.len(), secret_inputs) {
            Ok(security) => security,
            Err(error) => {
                println!("  hiding {name}: {error}");
                continue;
            }
        };
        println!(
            "  hiding {name}: {:.1} bits proven, {} of them by grinding",
            security.bits(),
            security.grinding_bits
        );
        for term in &security.terms {
            println!("    {:>7.1}  {}", term.bits, term.name);
        }
        let (mut wall, mut used, mut out) = (0.0, 0.0, None);
        for _ in 0..runs {
            let own = Seed::random(&mut rng);
            let secret = if secret_inputs {
                Secret::WeightsAndInputs(&own)
            } else {
                Secret::Weights
            };
            let (start, busy) = (Instant::now(), cpu());
            out = Some(prove_hiding(
                &mut hidden,
                inputs,
                secret,
                Context::default(),
                &mut rng,
                &mut |_| {},
            )?);
            wall += start.elapsed().as_secs_f64();
            used += cpu() - busy;
        }
        let Some((statement, proof)) = out else { continue };
        let (start, checked) = (Instant::now(), cpu());
        for _ in 0..runs {
            verify_hiding(hidden.verifying_key(), &hidden.root(), &statement, &proof)?;
        }
        let runs = f64::from(runs);
        println!(
            "  hiding {name}: prove {:.1} ms wall, {:.1} CPU-ms; verify {:.2} ms wall, {:.1} CPU-ms; proof {} bytes",
            wall * 1e3 / runs,
            used * 1e3 / runs,
            start.elapsed().as_secs_f64() * 1e3 / runs,
            (cpu() - checked) * 1e3 / runs,
            proof.len()
        );
    }
    Ok(())
}
