//! `opg zk prove`.

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use opg_zkml::{Context, Profile, ProveError};
use serde_json::json;

use super::{
    container::{ProofFile, check_graph, profile_name, security_bits},
    files, hex, millis, register, stage_name, tensors,
    verify::check,
};
use crate::{
    args::ZkProveArgs,
    failure::Failure,
    output::{Output, facts},
};

/// Runs the program on the inputs and proves the outputs.
pub(super) fn run(args: &ZkProveArgs, output: Output) -> Result<ExitCode, Failure> {
    let sources = [args.program.as_path(), args.input.as_path()];
    files::check_place(&args.proof, "-o", &sources)?;
    if let Some(path) = &args.output {
        files::check_place(path, "--output", &[sources[0], sources[1], &args.proof])?;
    }
    let program = files::program(&args.program)?;
    check_graph(&program.graph)?;
    let (inputs, list) = tensors::inputs(&program.graph, &args.input)?;
    let (model, commit) = register(program, &args.program, args.security.into(), output)?;
    let (key, profile) = (model.verifying_key(), Profile::from(args.profile));
    let receipt = args.receipt.unwrap_or_default().0;
    let context = Context {
        receipt,
        ..Context::default()
    };

    // Said before the work; not in a pipe, where a failure is one line.
    if std::io::stderr().is_terminal() {
        eprintln!("note: whoever checks this proof needs the inputs and outputs in the clear");
    }
    let spinner = output.spinner("proving");
    let (started, cpu) = (Instant::now(), cpu_time());
    let proven = opg_zkml::prove(&model, &inputs, context, profile, &mut |stage| {
        spinner.set_message(stage_name(stage))
    });
    let took = started.elapsed();
    let cpu = cpu_time()
        .zip(cpu)
        .map(|(end, start)| millis(end.saturating_sub(start)));
    let peak = peak_memory();
    spinner.finish_and_clear();
    let (statement, proof) = proven.map_err(|error| prove_failure(error, args))?;

    let file = ProofFile {
        key: key.clone(),
        profile,
        requests: inputs.len(),
        receipt,
        proof,
    };
    // A proof that its own verifier refuses must not leave this machine.
    let checking = Instant::now();
    let program = (profile == Profile::Open).then(|| model.program());
    check(&file, program, &statement).map_err(|error| {
        Failure::failed(eyre::eyre!(
            "the proof was made but does not verify: {error}; please report the model"
        ))
    })?;
    let checked = checking.elapsed();

    let bytes = file.encode();
    let result = tensors::document(&key.graph, &statement.requests, list);
    if let Some(path) = &args.output {
        files::write(path, result.to_string().as_bytes())?;
    }
    files::write(&args.proof, &bytes)?;
    let document = json!({
        "prove_ms": millis(took), "cpu_ms": cpu, "peak_rss": peak, "proof_bytes": file.proof.len(), "output": result,
        "root": hex(&key.root().0), "profile": profile_name(profile), "security_bits": security_bits(key.parameters),
        "requests": file.requests, "receipt": args.receipt, "commit_ms": millis(commit), "verify_ms": millis(checked),
        "file_bytes": bytes.len(),
    });
    output.result(&document, || {
        let unknown = || "not known on this system".to_owned();
        let mut text = facts([
            ("root", hex(&key.root().0)),
            (
                "profile",
                format!("{}, {} bits", profile_name(profile), security_bits(key.parameters)),
            ),
            ("requests", file.requests.to_string()),
            (
                "proven in",
                format!("{:.0} ms, after {:.0} ms for the weights", millis(took), millis(commit)),
            ),
            ("processor time", cpu.map_or_else(unknown, |ms| format!("{ms:.0} ms"))),
            (
                "peak memory",
                peak.map_or_else(unknown, |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0)),
            ),
            (
                "proof",
                format!(
                    "{} bytes; {} with {} bytes",
                    file.proof.len(),
                    args.proof.display(),
                    bytes.len()
                ),
            ),
            ("checked in", format!("{:.1} ms", millis(checked))),
        ]);
        match &args.output {
            Some(path) => text.push_str(&format!("outputs are in {}\n", path.display())),
            None => text.push_str(&result.to_string()),
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What the model or the inputs cause is the caller's to change; the rest is a failure.
fn prove_failure(error: ProveError, args: &ZkProveArgs) -> Failure {
    match &error {
        ProveError::Plan(_) => Failure::usage(format!("{}: {error}", args.program.display())),
        ProveError::Run { .. } => Failure::usage(format!("{}: {error}", args.input.display())),
        _ => Failure::failed(error),
    }
}

/// Processor time of this process so far, in steps of 10 ms; `None` without Linux's `/proc`.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    // Linux counts these in hundredths of a second, whatever the kernel's own clock.
    Some(Duration::from_millis((ticks()? + ticks()?) * 10))
}

/// Most memory that this process has had so far, in bytes; `None` without Linux's `/proc`.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_time_and_memory() {
        assert!(peak_memory().unwrap() > 1 << 16);
        let start = cpu_time().unwrap();
        let since = Instant::now();
        // Another process may have the core for a while.
        while cpu_time().unwrap() == start && since.elapsed() < Duration::from_secs(30) {
            std::hint::spin_loop();
        }
        assert!(cpu_time().unwrap() > start);
    }
}
